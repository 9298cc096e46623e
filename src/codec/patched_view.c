/*
 * patched_view.c - the directory of a coded matrix, written and read, and where its tiles begin.
 *
 *     kinds            1 byte a row group
 *     escape counts    2 bytes a row group
 *     outlier counts   2 bytes a row group whose kind has the flag MB_KIND_OUTLIERS
 *
 * No other file of the library knows this layout.  The kernels read it through mb_group_next, which needs to
 * know how many flagged groups come before: a tile says so for its first group.
 */
#include "patched.h"

uint64_t mb_patched_directory_nbytes(const struct mb_group *groups, size_t n_groups)
{
    uint64_t nbytes = 3 * (uint64_t)n_groups;
    for (size_t i = 0; i < n_groups; i++)
        nbytes += groups[i].n_outliers > 0 ? 2 : 0;
    return nbytes;
}

void mb_patched_directory_write(const struct mb_group *groups, size_t n_groups, uint8_t *out)
{
    uint8_t *escapes = out + n_groups, *outliers = escapes + 2 * n_groups;
    for (size_t i = 0; i < n_groups; i++) {
        out[i] = groups[i].kind;
        mb_store_u16(escapes + 2 * i, groups[i].n_escapes);
        if (groups[i].n_outliers > 0) {
            mb_store_u16(outliers, groups[i].n_outliers);
            outliers += 2;
        }
    }
}

/* ---------------------------------------------------------------- reading */

uint64_t mb_n_groups(uint64_t n_rows, size_t n_cols)
{
    uint64_t group_rows = mb_group_rows(n_cols);
    return (n_rows + group_rows - 1) / group_rows;
}

size_t mb_tile_groups(size_t n_cols)
{
    size_t rows = MB_TILE_WEIGHTS / n_cols / 16 * 16, group_rows = mb_group_rows(n_cols);
    rows = rows < 16 ? 16 : rows;
    return rows < group_rows ? 1 : rows / group_rows;
}

size_t mb_tile_rows(size_t n_cols)
{
    return mb_tile_groups(n_cols) * mb_group_rows(n_cols);
}

static uint64_t n_tiles_of(uint64_t n_groups, size_t tile_groups)
{
    return (n_groups + tile_groups - 1) / tile_groups;
}

struct mb_coded_matrix mb_view_without_tiles(const struct mb_blob_matrix *info, const uint8_t *data,
                                             const uint8_t *directory, size_t tile_groups)
{
    const uint64_t n_groups = mb_n_groups(info->n_rows, info->n_cols);
    return (struct mb_coded_matrix){
        .dtype = info->dtype,
        .form = MB_FORM_PATCHED,
        .n_rows = info->n_rows,
        .n_cols = info->n_cols,
        .eps = info->eps,
        .step = info->step,
        .group_rows = mb_group_rows(info->n_cols),
        .n_groups = n_groups,
        .col_exponents =
            info->exponents_nbytes == 0 ? NULL : (const int8_t *)directory + info->directory_nbytes,
        .tile_groups = tile_groups,
        .n_tiles = n_tiles_of(n_groups, tile_groups),
        .kinds = directory,
        .escape_counts = directory + n_groups,
        .outlier_counts = directory + 3 * n_groups,
        .data = data,
        .data_nbytes = info->data_nbytes,
    };
}

void mb_view_add_tiles(struct mb_coded_matrix *w, struct mb_tile *tiles)
{
    struct mb_group_walk walk = {.w = w, .record = w->data, .outlier_count = w->outlier_counts};
    while (walk.group < w->n_groups) {
        if (walk.group % w->tile_groups == 0)
            tiles[walk.group / w->tile_groups] = (struct mb_tile){
                .data_pos = (uint64_t)(walk.record - w->data),
                .first_outlier = (uint32_t)((walk.outlier_count - w->outlier_counts) / 2),
            };
        struct mb_group_view skipped;
        mb_group_next(&walk, &skipped);
    }
    w->tiles = tiles;
}

uint64_t mb_patched_directory_nbytes_min(uint64_t n_rows, size_t n_cols)
{
    return 3 * mb_n_groups(n_rows, n_cols);
}

size_t mb_patched_view_nbytes(uint64_t n_rows, size_t n_cols)
{
    return (size_t)n_tiles_of(mb_n_groups(n_rows, n_cols), mb_tile_groups(n_cols)) * sizeof(struct mb_tile);
}

struct mb_coded_matrix mb_patched_view(const struct mb_blob_matrix *info, const uint8_t *data,
                                       const uint8_t *directory, void *memory)
{
    struct mb_coded_matrix w = mb_view_without_tiles(info, data, directory, mb_tile_groups(info->n_cols));
    mb_view_add_tiles(&w, memory);
    return w;
}
