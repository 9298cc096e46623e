/*
 * reuse.h - blobs of the folder that is replaced, for matrices that would be coded alike: with the same
 * bound, step and rounding, from the same originals.
 *
 * A shard's header has "orig:BLOB", XXH3-64 of what the blob was coded from (docs/format.md).
 */
#ifndef MB_CHECKPOINT_REUSE_H
#define MB_CHECKPOINT_REUSE_H

#include "checkpoint.h"

struct mb_reuse;

/*
 * The folder at 'path', if it is a coded one with the encoder and the feedback of this quantization_config;
 * *reuse NULL: there is nothing to take.
 */
enum mb_status mb_reuse_open(const char *path, const json_t *config, struct mb_reuse **reuse,
                             struct mb_error *err);
void mb_reuse_close(struct mb_reuse *reuse); /* NULL: nothing to do */

/* Whether the folder has a blob of this name with these matrices (sizes aside), and what it was coded from.
 */
bool mb_reuse_look(const struct mb_reuse *reuse, const char *name, const struct mb_blob_matrix *infos,
                   size_t n_infos, uint64_t *origin);

/* The output error of a matrix as text (output_error.h), by the names of its blob and its own; or NULL. */
const char *mb_reuse_output_error(const struct mb_reuse *reuse, const char *blob, const char *name);

/* A blob, checked completely. */
struct mb_reused {
    uint8_t *bytes; /* NULL: it cannot be taken */
    uint64_t nbytes, n_groups, n_raw_groups, n_outliers;
};

/* 'exponents' are those that the columns of each of its matrices have to have; NULL: none. */
struct mb_reused mb_reuse_take(const struct mb_reuse *reuse, const char *name,
                               const int8_t *const *exponents);

#endif
