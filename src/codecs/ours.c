/*
 * ours.c - Moebius' own codec: a blob with one matrix, checked when it is opened, as a coded folder's are.
 */
#include "base/error.h"
#include "functions.h"
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

static enum mb_status write_blob(const struct mb_codec_matrix *matrix, struct mb_group *groups, uint8_t *out,
                                 size_t out_cap, size_t *out_nbytes, struct mb_error *err)
{
    const struct mb_coding coding = {.dtype = matrix->dtype,
                                     .form = MB_FORM_PATCHED,
                                     .n_cols = matrix->n_cols,
                                     .eps = matrix->eps,
                                     .step = mb_step_of_eps(matrix->eps)};
    struct mb_blob_matrix info = {.name = "w",
                                  .name_nbytes = 1,
                                  .dtype = matrix->dtype,
                                  .form = MB_FORM_PATCHED,
                                  .n_rows = matrix->n_rows,
                                  .n_cols = matrix->n_cols,
                                  .eps = matrix->eps,
                                  .step = coding.step};
    size_t group_rows = mb_group_rows(matrix->n_cols), n_data, bad;
    size_t n_groups = (matrix->n_rows + group_rows - 1) / group_rows;
    size_t n_header = mb_blob_header_nbytes(&info, 1);
    enum mb_status status = mb_encode_rows(&coding, matrix->weights, matrix->n_rows, out + n_header,
                                           out_cap - n_header, &n_data, groups, &bad);
    if (status != MB_OK)
        return mb_fail(err, status, "ours: weight %zu is not finite, or the output has too little space",
                       bad);
    info.data_nbytes = n_data;
    info.directory_nbytes = mb_directory_nbytes(info.form, groups, n_groups);
    size_t n_payload = n_data + (size_t)info.directory_nbytes;
    if (n_header + n_payload > out_cap)
        return mb_fail(err, MB_NO_SPACE, "ours: the output has too little space");
    mb_directory_write(info.form, groups, n_groups, out + n_header + n_data);
    mb_blob_write_header(&info, 1, XXH3_64bits(out + n_header, n_payload), out);
    *out_nbytes = n_header + n_payload;
    return MB_OK;
}

static enum mb_status encode(int mode, const struct mb_codec_matrix *matrix, uint8_t *out, size_t out_cap,
                             size_t *out_nbytes, struct mb_error *err)
{
    (void)mode;
    struct mb_group *groups = calloc(matrix->n_rows, sizeof *groups);
    if (groups == NULL)
        return mb_fail_memory(err, "row groups");
    enum mb_status status = write_blob(matrix, groups, out, out_cap, out_nbytes, err);
    free(groups);
    return status;
}

static enum mb_status open_blob(const uint8_t *bytes, size_t nbytes, size_t n_rows, size_t n_cols,
                                struct mb_blob *blob, struct mb_error *err)
{
    MB_TRY(mb_blob_open(bytes, nbytes, blob, err));
    if (blob->n_matrices == 1 && blob->matrix[0].n_rows == n_rows && blob->matrix[0].n_cols == n_cols)
        return MB_OK;
    mb_blob_close(blob);
    return mb_fail(err, MB_BAD_DATA, "ours: a blob of another shape");
}

static void decode_blob(const struct mb_blob *blob, float *out)
{
    mb_kernels()->decode_rows(&blob->matrix[0], 0, blob->matrix[0].n_rows, out);
}

static enum mb_status decode(int mode, const uint8_t *bytes, size_t nbytes, size_t n_rows, size_t n_cols,
                             float *out, struct mb_error *err)
{
    (void)mode;
    struct mb_blob blob;
    MB_TRY(open_blob(bytes, nbytes, n_rows, n_cols, &blob, err));
    decode_blob(&blob, out);
    mb_blob_close(&blob);
    return MB_OK;
}

static enum mb_status open(const uint8_t *bytes, size_t nbytes, size_t n_rows, size_t n_cols, void **state,
                           struct mb_error *err)
{
    struct mb_blob *blob = malloc(sizeof *blob);
    if (blob == NULL)
        return mb_fail_memory(err, "a coded matrix");
    enum mb_status status = open_blob(bytes, nbytes, n_rows, n_cols, blob, err);
    if (status == MB_OK)
        *state = blob;
    else
        free(blob);
    return status;
}

static void decode_opened(const void *state, float *out)
{
    decode_blob(state, out);
}

static enum mb_status multiply(const void *state, const float *x, float *y, struct mb_error *err)
{
    const struct mb_coded_matrix *w = ((const struct mb_blob *)state)->matrix;
    const struct mb_kernels *kernels = mb_kernels();
    size_t plane_nbytes = mb_activation_plane_nbytes(w->n_cols);
    size_t nbytes = 2 * plane_nbytes + mb_activation_wide_nbytes(w->n_cols) + MB_SLACK_NBYTES;
    int8_t *planes = aligned_alloc(64, (nbytes + 63) / 64 * 64);
    struct mb_activation activation;
    if (planes == NULL)
        return mb_fail_memory(err, "an activation");
    kernels->activation(x, w->n_cols, planes, planes + plane_nbytes, planes + 2 * plane_nbytes, &activation);
    kernels->matvec(w, 0, w->n_rows, &activation, y);
    free(planes);
    return MB_OK;
}

static void close(void *state)
{
    mb_blob_close(state);
    free(state);
}

const struct mb_codec_functions mb_codec_ours = {.encode = encode,
                                                 .decode = decode,
                                                 .open = open,
                                                 .decode_opened = decode_opened,
                                                 .multiply = multiply,
                                                 .close = close};
