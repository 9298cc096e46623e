/*
 * forms.h - the forms in which a matrix can be coded: one table of functions each.
 *
 * A form says what the bytes of a matrix's records and directory mean.  Blobs, checkpoint code, verify and
 * inspect ask the table; only a form's own files know its bytes.  Kernels multiply MB_FORM_PATCHED.
 *
 * To add a form: a number in enum mb_form_id and docs/format.md, a table like mb_form_patched (patched.c),
 * and a row in forms.c.
 */
#ifndef MB_CODEC_FORMS_H
#define MB_CODEC_FORMS_H

#include <moebius/codec.h>

struct mb_form {
    enum mb_form_id id;

    /* Coding whole row groups. See the public functions of these names (mb_encode_bound, ...). */
    size_t (*encode_bound)(enum mb_dtype dtype, size_t n_rows, size_t n_cols);
    enum mb_status (*encode_rows)(const struct mb_coding *coding, const void *weights, size_t n_rows,
                                  uint8_t *out, size_t out_cap, size_t *out_nbytes, struct mb_group *groups,
                                  size_t *bad_index);
    bool (*group_is_raw)(const struct mb_group *group);
    uint64_t (*directory_nbytes)(const struct mb_group *groups, size_t n_groups);
    void (*directory_write)(const struct mb_group *groups, size_t n_groups, uint8_t *out);

    /* Bytes of the shortest directory that a matrix of this shape can have. Headers are checked by it. */
    uint64_t (*directory_nbytes_min)(uint64_t n_rows, size_t n_cols);

    /* Bytes of memory that a view needs beside the matrix's own, a multiple of 8. */
    size_t (*view_nbytes)(uint64_t n_rows, size_t n_cols);

    /* The view of bytes that can be trusted; see mb_coded_view. */
    struct mb_coded_matrix (*view)(const struct mb_blob_matrix *info, const uint8_t *data,
                                   const uint8_t *directory, void *memory);

    /*
     * The view of bytes that nobody has checked: afterwards kernels can trust it.  Reads nothing outside
     * data[0 .. info->data_nbytes) and directory[0 .. info->directory_nbytes), the second being at least
     * directory_nbytes_min.  'data_pos': of the records in the blob, for messages.  Writes view_nbytes bytes
     * of 'memory'.  After a failure *view is unspecified.
     */
    enum mb_status (*check)(const struct mb_blob_matrix *info, const uint8_t *data, const uint8_t *directory,
                            uint64_t data_pos, void *memory, struct mb_coded_matrix *view,
                            struct mb_error *err);

    /* See mb_coded_statistics_add. */
    void (*statistics_add)(struct mb_coded_statistics *statistics, const struct mb_coded_matrix *w,
                           uint64_t row, uint64_t n_rows, const float *weights);
};

extern const struct mb_form mb_form_patched;

/* The form of that number. NULL: this version does not know it. */
const struct mb_form *mb_form_find(unsigned id);

#endif
