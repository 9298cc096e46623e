/*
 * moments_file.h - the frames that moments files are made of, and what they say (docs/calibrate.md).
 *
 * A frame is a head of 32 bytes, a JSON text, zeros up to a multiple of 64 bytes, and data.
 */
#ifndef MB_CALIBRATE_MOMENTS_FILE_H
#define MB_CALIBRATE_MOMENTS_FILE_H

#include "base/json.h"
#include "moments_sum.h"
#include <moebius/calibrate.h>

enum {
    MB_MOMENTS_VERSION = 1,
    MB_MOMENTS_ALIGN = 64,
    MB_MOMENTS_VALUES_MAX = 1 << 17,
    MB_MOMENTS_LAYERS_MAX = 1 << 16,
};

#define MB_MOMENTS_FILE "MBMOMENT"  /* begins a file; its frame has no data */
#define MB_MOMENTS_LAYER "MBMLAYER" /* the inputs of a layer */
#define MB_MOMENTS_STATE "MBMSTATE" /* hidden states at the input of a layer */

struct mb_moments_frame {
    uint32_t number;                     /* version of a file, layer of others: the head is layer n_layers */
    uint64_t data_pos, data_nbytes, end; /* in the file */
    json_t *json;                        /* a new reference */
};

/* Where the data of a frame at 'pos' begins. */
uint64_t mb_moments_data_pos(uint64_t pos, size_t json_nbytes);

/* Writes head and text; the data has its place after it. */
enum mb_status mb_moments_frame_write(int fd, const char *path, uint64_t pos, const char *magic,
                                      uint32_t number, const char *json, size_t json_nbytes,
                                      uint64_t data_nbytes, struct mb_error *err);

/* MB_BAD_DATA says where and what; nothing to release then. The frame with its data ends in the file. */
enum mb_status mb_moments_frame_read(int fd, const char *path, uint64_t file_nbytes, uint64_t pos,
                                     const char *magic, struct mb_moments_frame *frame, struct mb_error *err);

/* What a file begins with. */
struct mb_moments_head {
    struct mb_moments_key key;
    uint64_t n_tokens, n_windows;
    size_t n_layers;
};
json_t *mb_moments_head_json(const struct mb_moments_head *head);
enum mb_status mb_moments_head_parse(const json_t *json, struct mb_moments_head *head, struct mb_error *err);

/* Of the halves of n_values x n_values moments. */
uint64_t mb_moments_half_nbytes(size_t n_values);

#endif
