/*
 * view.h - views of coded matrices before anything about them has been checked.
 */
#ifndef MB_CODEC_VIEW_H
#define MB_CODEC_VIEW_H

#include "kernels.h"

/* Row groups of a matrix. */
uint64_t mb_n_groups(uint64_t n_rows, size_t n_cols);

/* Groups in a tile: about MB_TILE_WEIGHTS, and rows in sixteens, which kernels take at once. */
size_t mb_tile_groups(size_t n_cols);

/*
 * The view of records at 'data' and a directory, with tiles of tile_groups groups, which are not there yet.
 * The directory has at least 3 bytes a group; nothing of it is read.
 */
struct mb_coded_matrix mb_view_without_tiles(const struct mb_blob_matrix *info, const uint8_t *data,
                                             const uint8_t *directory, size_t tile_groups);

/* Fills tiles[w->n_tiles] of a matrix whose directory can be trusted, and gives them to it. */
void mb_view_add_tiles(struct mb_coded_matrix *w, struct mb_tile *tiles);

#endif
