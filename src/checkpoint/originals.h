/*
 * originals.h - how a coded folder remembers what the tensors of its original were called and how they were
 * cut, so that decompress writes them again: the member "original_tensors" of quantization_config
 * (docs/format.md).
 */
#ifndef MB_CHECKPOINT_ORIGINALS_H
#define MB_CHECKPOINT_ORIGINALS_H

#include "fused.h"

/* Adds the member to the block of a coded folder, unless all tensors are as they were stored. */
enum mb_status mb_originals_write(const struct mb_checkpoint *ckpt, json_t *block, struct mb_error *err);

/* What a coded folder remembers; points into its config. */
struct mb_originals {
    const json_t *renamed;  /* "model.layers." -> "model.language_model.layers."; NULL: nothing */
    struct mb_fused *fused; /* [n_fused] stems and parts are not owned */
    size_t n_fused;
    struct mb_original_part {
        const struct mb_fused *fused;
        size_t part;
    } * parts; /* [n_parts] by stem and name of the part */
    size_t n_parts;
};

/* MB_BAD_DATA: what it remembers is not what mb_originals_write writes. */
enum mb_status mb_originals_read(const struct mb_checkpoint *ckpt, struct mb_originals *originals,
                                 struct mb_error *err);
void mb_originals_free(struct mb_originals *originals);

/* The name that a tensor had: malloc'ed, NULL when there is no memory. */
char *mb_original_name(const json_t *renamed, const char *name);

/* Whether a tensor was part of a fused one, and where. */
bool mb_original_part_of(const struct mb_originals *originals, const char *name,
                         const struct mb_fused **fused, size_t *expert, size_t *part);

#endif
