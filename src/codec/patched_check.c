/*
 * patched_check.c - checks every row group of a coded matrix once, so that kernels need not.
 *
 * Every value of an a-bit code has a meaning, so what is left to check of a body is the number of its escapes
 * (all bits set) and that unused bits are 0.  For both, nibble planes (a = 4) are as good as a stream.
 */
#include "base/error.h"
#include "decode.h"
#include "exponents.h"
#include "patched.h"
#include <inttypes.h>
#include <math.h>
#include <string.h>

static bool unused_bits_are_zero(const uint8_t *stream, size_t n, unsigned width)
{
    unsigned n_used = (unsigned)(n * width % 8);
    return n_used == 0 || stream[n * width / 8] >> n_used == 0;
}

/* Value i of 'values' is weight 'at' of its group. */
static bool value_is_finite(const struct mb_coded_matrix *matrix, const uint8_t *values, size_t i, size_t at)
{
    return isfinite(mb_unscaled_weight(matrix, mb_load_value(matrix->dtype, values, i), at));
}

static const char NOT_FINITE[] = "a value is not finite";

static const char *values_fault(const struct mb_coded_matrix *matrix, const uint8_t *values, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (!value_is_finite(matrix, values, i, i))
            return NOT_FINITE;
    return NULL;
}

static const char *outliers_fault(const struct mb_coded_matrix *matrix, const struct mb_group_view *view)
{
    size_t least = 0;
    for (size_t i = 0; i < view->n_outliers; i++) {
        size_t at = mb_load_u16(view->outlier_positions + 2 * i);
        if (at < least || at >= view->n)
            return "outlier positions do not increase inside the group";
        if ((int)mb_body_code(view->body, view->n, at, view->a) != mb_inner_max(view->a))
            return "an outlier's code is not that of 0";
        if (!value_is_finite(matrix, view->outlier_values, i, at))
            return NOT_FINITE;
        least = at + 1;
    }
    return NULL;
}

/* Codes are looked at one by one only where the widths could make an infinite weight: hardly ever. */
static bool weights_are_finite(float step, const struct mb_group_view *view)
{
    int8_t q[MB_GROUP_WEIGHTS_MAX];
    if (isfinite(step * (float)(mb_inner_max(view->a) + mb_tail_half(view->b))))
        return true;
    mb_group_indices(view, q);
    for (size_t i = 0; i < view->n; i++)
        if (!isfinite(step * (float)q[i]))
            return false;
    return true;
}

/* What is wrong with a group whose record lies inside the data; NULL: nothing. */
static const char *group_fault(const struct mb_kernels *kernels, const struct mb_coded_matrix *matrix,
                               const struct mb_group_view *view)
{
    if (view->is_raw)
        return values_fault(matrix, view->body, view->n);
    if (!unused_bits_are_zero(view->body, view->n, view->a) ||
        !unused_bits_are_zero(view->tail, view->n_escapes, view->b))
        return "unused bits are not zero";
    if (view->a > 0 && kernels->count_full_codes(view->body, view->n, view->a) != view->n_escapes)
        return "the number of escapes is not the directory's";
    if (!weights_are_finite(matrix->step, view))
        return "a weight is infinite";
    return outliers_fault(matrix, view);
}

/* What is wrong with a directory entry; *nbytes is its record's size. Checked before the record is looked at.
 */
static const char *entry_fault(const struct mb_coded_matrix *matrix, uint64_t group, size_t n,
                               unsigned n_outliers, uint64_t *nbytes)
{
    uint8_t kind = matrix->kinds[group];
    unsigned n_escapes = mb_load_u16(matrix->escape_counts + 2 * group);
    size_t elem_nbytes = mb_dtype_nbytes(matrix->dtype);
    if (!mb_kind_is_legal(kind))
        return "a kind byte without meaning";
    if (kind == MB_KIND_RAW) {
        *nbytes = (uint64_t)n * elem_nbytes;
        return n_escapes == 0 ? NULL : "a raw group with escapes";
    }
    if (matrix->step == 0 && mb_kind_a(kind) > 0)
        return "codes of weights, but the step is 0";
    if ((kind & MB_KIND_OUTLIERS) != 0 && n_outliers == 0)
        return "a group that has outliers, and none of them";
    if (mb_kind_b(kind) == 0 && n_escapes != 0)
        return "escapes without a tail";
    *nbytes = (uint64_t)mb_bits_nbytes(n, mb_kind_a(kind)) + mb_bits_nbytes(n_escapes, mb_kind_b(kind)) +
              (uint64_t)n_outliers * (2 + elem_nbytes);
    return NULL;
}

static size_t group_weights(const struct mb_coded_matrix *matrix, uint64_t group)
{
    uint64_t row = group * matrix->group_rows, left = matrix->n_rows - row;
    return (size_t)(left < matrix->group_rows ? left : matrix->group_rows) * matrix->n_cols;
}

/*
 * Checks all groups of a matrix whose view is complete but for its tiles, and fills tiles[0 .. n_tiles).
 * 'directory_nbytes' are readable from matrix->kinds on (at least 3 n_groups), matrix->data_nbytes from
 * matrix->data on.
 */
static enum mb_status check_groups(const struct mb_coded_matrix *matrix, uint64_t directory_nbytes,
                                   uint64_t data_pos, struct mb_tile *tiles, struct mb_error *err)
{
    const struct mb_kernels *kernels = mb_kernels();
    const uint64_t n_counts_max = (directory_nbytes - 3 * matrix->n_groups) / 2;
    struct mb_group_walk walk = {.w = matrix, .record = matrix->data};
    uint64_t pos = 0, n_flagged = 0;
    for (uint64_t group = 0; group < matrix->n_groups; group++) {
        if (group % matrix->tile_groups == 0)
            tiles[group / matrix->tile_groups] = (struct mb_tile){pos, (uint32_t)n_flagged};
        unsigned n_outliers = 0;
        if ((matrix->kinds[group] & MB_KIND_OUTLIERS) != 0) {
            if (n_flagged == n_counts_max || n_flagged == UINT32_MAX)
                return mb_fail(err, MB_BAD_DATA,
                               "group %" PRIu64 ": the directory ends before its outlier count", group);
            n_outliers = mb_load_u16(matrix->outlier_counts + 2 * n_flagged++);
        }
        uint64_t nbytes = 0;
        const char *fault = entry_fault(matrix, group, group_weights(matrix, group), n_outliers, &nbytes);
        if (fault == NULL && nbytes > matrix->data_nbytes - pos)
            fault = "its record reaches past the end of the matrix";
        if (fault == NULL) {
            /* The walk reads a count even where there is none: not from the file, which may end here. */
            uint8_t count[2];
            struct mb_group_view view;
            mb_store_u16(count, (uint16_t)n_outliers);
            walk.outlier_count = count;
            mb_group_next(&walk, &view);
            fault = group_fault(kernels, matrix, &view);
        }
        if (fault != NULL)
            return mb_fail(err, MB_BAD_DATA, "byte %" PRIu64 ": row group %" PRIu64 ": %s", data_pos + pos,
                           group, fault);
        pos += nbytes;
    }
    if (pos != matrix->data_nbytes)
        return mb_fail(err, MB_BAD_DATA, "byte %" PRIu64 ": bytes after the last row group", data_pos + pos);
    if (directory_nbytes != 3 * matrix->n_groups + 2 * n_flagged)
        return mb_fail(err, MB_BAD_DATA, "the directory is longer than its groups");
    return MB_OK;
}

enum mb_status mb_patched_check(const struct mb_blob_matrix *info, const uint8_t *data,
                                const uint8_t *directory, uint64_t data_pos, void *memory,
                                struct mb_coded_matrix *view, struct mb_error *err)
{
    struct mb_tile *tiles = memory;
    *view = mb_view_without_tiles(info, data, directory, mb_tile_groups(info->n_cols));
    MB_TRY(check_groups(view, info->directory_nbytes, data_pos, tiles, err));
    view->tiles = tiles;
    return MB_OK;
}
