/*
 * blob_check.h - everything that kernels take for granted about a coded matrix.
 */
#ifndef MB_CODEC_BLOB_CHECK_H
#define MB_CODEC_BLOB_CHECK_H

#include "kernels.h"

/*
 * Checks all groups of a matrix whose view is complete but for its tiles, and fills tiles[0 .. n_tiles).
 * 'directory_nbytes' are readable from matrix->kinds on (at least 3 n_groups), matrix->data_nbytes from
 * matrix->data on.  'data_pos': of the records in the blob, for messages.
 */
enum mb_status mb_check_matrix(const struct mb_coded_matrix *matrix, uint64_t directory_nbytes,
                               uint64_t data_pos, struct mb_tile *tiles, struct mb_error *err);

#endif
