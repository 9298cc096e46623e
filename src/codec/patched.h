/*
 * patched.h - the form "patched fixed width" (docs/format.md, section 2): its directory, views and checks.
 */
#ifndef MB_CODEC_PATCHED_H
#define MB_CODEC_PATCHED_H

#include "kernels.h"

/* Row groups of a matrix. */
uint64_t mb_n_groups(uint64_t n_rows, size_t n_cols);

/* Groups in a tile: about MB_TILE_WEIGHTS, and rows in sixteens, which kernels take at once. */
size_t mb_tile_groups(size_t n_cols);

/* See mb_encode_bound, mb_directory_nbytes and mb_directory_write. */
size_t mb_patched_encode_bound(enum mb_dtype dtype, size_t n_rows, size_t n_cols);
uint64_t mb_patched_directory_nbytes(const struct mb_group *groups, size_t n_groups);
void mb_patched_directory_write(const struct mb_group *groups, size_t n_groups, uint8_t *out);

/*
 * The view of records at 'data' and a directory, with tiles of tile_groups groups, which are not there yet.
 * The directory has at least 3 bytes a group; nothing of it is read.
 */
struct mb_coded_matrix mb_view_without_tiles(const struct mb_blob_matrix *info, const uint8_t *data,
                                             const uint8_t *directory, size_t tile_groups);

/* Fills tiles[w->n_tiles] of a matrix whose directory can be trusted, and gives them to it. */
void mb_view_add_tiles(struct mb_coded_matrix *w, struct mb_tile *tiles);

/* See struct mb_form. */
uint64_t mb_patched_directory_nbytes_min(uint64_t n_rows, size_t n_cols);
size_t mb_patched_view_nbytes(uint64_t n_rows, size_t n_cols);
struct mb_coded_matrix mb_patched_view(const struct mb_blob_matrix *info, const uint8_t *data,
                                       const uint8_t *directory, void *memory);
enum mb_status mb_patched_check(const struct mb_blob_matrix *info, const uint8_t *data,
                                const uint8_t *directory, uint64_t data_pos, void *memory,
                                struct mb_coded_matrix *view, struct mb_error *err);

#endif
