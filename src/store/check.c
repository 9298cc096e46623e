/*
 * check.c - checksums of exact tensors, whole checks of blobs, and shapes against the index.
 */
#include "check.h"
#include "base/error.h"
#include <xxhash.h>

static const char CHANGED[] = "the file has changed since it was opened";

enum mb_status mb_check_exact(const struct mb_checkpoint *ckpt, const struct mb_tensor *tensor,
                              const uint8_t *bytes, struct mb_error *err)
{
    uint64_t xxh3;
    if (!mb_exact_xxh3(ckpt, tensor, &xxh3))
        return mb_fail(err, MB_BAD_DATA, "no checksum in __metadata__");
    if (XXH3_64bits(bytes, tensor->nbytes) != xxh3)
        return mb_fail(err, MB_BAD_DATA, "the checksum does not match");
    return MB_OK;
}

/* Tables have what the index says: a blob that needs more is another one. */
static enum mb_status as_damage(enum mb_status status, struct mb_error *err)
{
    return status == MB_NO_SPACE ? mb_fail(err, MB_BAD_DATA, "%s", CHANGED) : status;
}

enum mb_status mb_check_blob(const struct mb_tensor *tensor, const uint8_t *bytes, uint8_t *tables,
                             uint64_t tables_nbytes, struct mb_blob *blob, struct mb_error *err)
{
    return as_damage(mb_blob_open_in(bytes, tensor->nbytes, tables, tables_nbytes, blob, err), err);
}

enum mb_status mb_check_rest(struct mb_blob_check *check, struct mb_blob *blob, struct mb_error *err)
{
    return as_damage(mb_blob_check_end(check, blob, err), err);
}

/* Shapes are those that were checked against config.json. */
static bool is_as_indexed(const struct mb_blob *blob, const struct mb_weight_info *weight)
{
    if (weight->blob_matrix >= blob->n_matrices)
        return false;
    const struct mb_coded_matrix *matrix = &blob->matrix[weight->blob_matrix];
    return matrix->n_rows == weight->n_rows && matrix->n_cols == weight->n_cols &&
           (matrix->col_exponents != NULL) == weight->has_exponents;
}

enum mb_status mb_view_coded(const struct mb_checkpoint *ckpt, const struct mb_weight_info *weight,
                             const struct mb_blob *blob, struct mb_matrix *view, struct mb_error *err)
{
    if (!is_as_indexed(blob, weight))
        return mb_fail(err, MB_BAD_DATA, "%s: tensor %s: %s", mb_tensor_path(ckpt, weight->tensor),
                       weight->tensor->name, CHANGED);
    *view = (struct mb_matrix){.is_coded = true,
                               .n_rows = weight->n_rows,
                               .n_cols = (size_t)weight->n_cols,
                               .coded = blob->matrix[weight->blob_matrix],
                               .bits_per_weight = mb_bits_per_weight(weight)};
    return MB_OK;
}

void mb_view_exact(const struct mb_weight_info *weight, const void *bytes, struct mb_matrix *view)
{
    *view = (struct mb_matrix){.n_rows = weight->n_rows,
                               .n_cols = (size_t)weight->n_cols,
                               .dtype = (enum mb_dtype)weight->type,
                               .dense = bytes};
}
