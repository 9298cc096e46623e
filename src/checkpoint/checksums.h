/*
 * checksums.h - what a coded folder keeps of the files beside the weights: docs/format.md, section 4.
 */
#ifndef MB_CHECKPOINT_CHECKSUMS_H
#define MB_CHECKPOINT_CHECKSUMS_H

#include "checkpoint.h"

/* XXH3-128 in 32 hexadecimal digits, as xxh128sum prints it. */
void mb_xxh128_text(const void *bytes, size_t nbytes, char text[MB_XXH128_NBYTES]);

/*
 * The text of config.json with 'block' as its quantization_config, to which 'files' (checksums by name) and
 * the checksum of the text itself are added.  malloc'ed; NULL: no memory.
 */
char *mb_config_text_sealed(const char *text, const json_t *block, const json_t *files);

/*
 * Compares every checksum that the folder keeps; *n_files: how many, 0 where it was made before there were
 * any. MB_BAD_DATA where a file has changed or is missing.
 */
enum mb_status mb_check_files(const struct mb_checkpoint *ckpt, uint64_t *n_files, struct mb_error *err);

#endif
