/*
 * table.c - all codecs, and what is the same for every one of them.
 */
#include "base/error.h"
#include "functions.h"
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define SZ3(name_, takes_, mode_, about_)                                                   \
    {                                                                                       \
        .name = (name_), .about = (about_), .takes = (takes_), .check = mb_codec_sz3_check, \
        .functions = &mb_codec_sz3, .mode = (mode_)                                         \
    }
#define CUSZP(name_, mode_, about_)                                                       \
    {                                                                                     \
        .name = (name_), .about = (about_), .functions = &mb_codec_cuszp, .mode = (mode_) \
    }
#define CUSZP_CL(name_, mode_, about_)                                                               \
    {                                                                                                \
        .name = (name_), .about = (about_), .has_own_threads = true, .check = mb_codec_opencl_check, \
        .functions = &mb_codec_cuszp_opencl, .mode = (mode_)                                         \
    }
#define BITS(name_, functions_, mode_, about_)                                                        \
    {                                                                                                 \
        .name = (name_), .about = (about_), .takes = MB_CODEC_TAKES_BITS, .functions = &(functions_), \
        .mode = (mode_)                                                                               \
    }
#define RTN(name_, bits_, group_) \
    BITS(name_, mb_codec_rtn, MB_RTN_MODE(bits_, group_), "round to nearest, scale and zero point by group")

static const struct mb_codec codecs[] = {
    {.name = "ours",
     .about = "Moebius: patched fixed width, rows of their own width",
     .has_check = true,
     .has_product = true,
     .functions = &mb_codec_ours},
    SZ3("sz3", MB_CODEC_TAKES_BOUND, MB_SZ3_DEFAULT, "SZ3 as it comes: interpolation or Lorenzo"),
    SZ3("sz3-interpolation", MB_CODEC_TAKES_BOUND, MB_SZ3_INTERPOLATION, "SZ3, interpolation alone"),
    SZ3("sz3-lorenzo", MB_CODEC_TAKES_BOUND, MB_SZ3_LORENZO, "SZ3, Lorenzo and regression: SZ2"),
    SZ3("sz3-nopred", MB_CODEC_TAKES_BOUND, MB_SZ3_NOPRED, "SZ3 without prediction"),
    SZ3("sz3-range", MB_CODEC_TAKES_RANGE, MB_SZ3_DEFAULT | MB_SZ3_RANGE, "SZ3 as it comes, bound by range"),
    SZ3("sz3-nopred-range", MB_CODEC_TAKES_RANGE, MB_SZ3_NOPRED | MB_SZ3_RANGE,
        "SZ3 without prediction, bound by range"),
    CUSZP("cuszp-fixed", MB_CUSZP_FIXED, "cuSZp, blocks of 32, no prediction, on the CPU"),
    CUSZP("cuszp-plain", MB_CUSZP_PLAIN, "cuSZp, differences, on the CPU"),
    CUSZP("cuszp-outlier", MB_CUSZP_OUTLIER, "cuSZp, differences, the first apart, on the CPU"),
    CUSZP_CL("cuszp-fixed-cl", MB_CUSZP_FIXED, "the same bytes as cuszp-fixed, by OpenCL"),
    CUSZP_CL("cuszp-plain-cl", MB_CUSZP_PLAIN, "the same bytes as cuszp-plain, by OpenCL"),
    CUSZP_CL("cuszp-outlier-cl", MB_CUSZP_OUTLIER, "the same bytes as cuszp-outlier, by OpenCL"),
    {.name = "zfp",
     .about = "zfp, the largest tolerance that keeps the bound",
     .check = mb_codec_zfp_check,
     .functions = &mb_codec_zfp},
    {.name = "bf16-exponents",
     .about = "bf16 without loss: exponents by rANS, the rest as it is",
     .takes = MB_CODEC_LOSSLESS,
     .functions = &mb_codec_exponents},
    RTN("rtn2", 2, 0),
    RTN("rtn3", 3, 0),
    RTN("rtn4", 4, 0),
    RTN("rtn8", 8, 0),
    RTN("rtn2-g128", 2, 128),
    RTN("rtn3-g128", 3, 128),
    RTN("rtn4-g128", 4, 128),
    RTN("rtn8-g128", 8, 128),
    RTN("rtn2-g32", 2, 32),
    RTN("rtn3-g32", 3, 32),
    RTN("rtn4-g32", 4, 32),
    RTN("rtn8-g32", 8, 32),
    BITS("nf4", mb_codec_nf4, 0, "NF4: 16 normal quantiles, blocks of 64"),
    BITS("q4_0", mb_codec_q4_0, 0, "llama.cpp's Q4_0, blocks of 32"),
    BITS("q4_k", mb_codec_q4_k, 0, "llama.cpp's Q4_K, blocks of 256, no importance matrix"),
};

enum { N_CODECS = sizeof codecs / sizeof *codecs };

const struct mb_codec *mb_codecs(size_t *n)
{
    *n = N_CODECS;
    return codecs;
}

enum mb_status mb_codec_find(const char *name, const struct mb_codec **codec, struct mb_error *err)
{
    char names[640] = "";
    size_t n_used = 0;
    for (size_t i = 0; i < N_CODECS; i++) {
        if (strcmp(codecs[i].name, name) == 0) {
            *codec = &codecs[i];
            return MB_OK;
        }
        if (n_used < sizeof names)
            n_used += (size_t)snprintf(names + n_used, sizeof names - n_used, " %s", codecs[i].name);
    }
    return mb_fail(err, MB_USAGE, "no codec '%.64s'; there are:%s", name, names);
}

enum mb_status mb_codec_check(const struct mb_codec *codec, struct mb_error *err)
{
    return codec->check == NULL ? MB_OK : codec->check(err);
}

/* Raw floats and whatever blocks, padding, tables and libraries add at their worst. */
size_t mb_codec_nbytes_max(size_t n_rows, size_t n_cols)
{
    return 16 * n_rows * n_cols + 64 * n_rows + 65536 + MB_SLACK_NBYTES;
}

static enum mb_status check_shape(size_t n_rows, size_t n_cols, struct mb_error *err)
{
    if (n_rows < 1 || n_cols < 1 || n_cols > MB_COLS_MAX || n_rows > ((size_t)1 << 30) / n_cols)
        return mb_fail(err, MB_UNSUPPORTED, "a matrix of %zu x %zu", n_rows, n_cols);
    return MB_OK;
}

enum mb_status mb_codec_encode(const struct mb_codec *codec, const struct mb_codec_matrix *matrix,
                               uint8_t *out, size_t out_cap, size_t *out_nbytes, struct mb_error *err)
{
    MB_TRY(mb_codec_check(codec, err));
    MB_TRY(check_shape(matrix->n_rows, matrix->n_cols, err));
    if (codec->takes <= MB_CODEC_TAKES_RANGE && !(matrix->eps > 0 && isfinite(matrix->eps)))
        return mb_fail(err, MB_USAGE, "%s takes a bound above 0", codec->name);
    if (out_cap < mb_codec_nbytes_max(matrix->n_rows, matrix->n_cols))
        return mb_fail(err, MB_NO_SPACE, "%s: the output has too little space", codec->name);
    return codec->functions->encode(codec->mode, matrix, out, out_cap - MB_SLACK_NBYTES, out_nbytes, err);
}

enum mb_status mb_codec_decode(const struct mb_codec *codec, const uint8_t *bytes, size_t nbytes,
                               size_t n_rows, size_t n_cols, float *out, struct mb_error *err)
{
    MB_TRY(mb_codec_check(codec, err));
    MB_TRY(check_shape(n_rows, n_cols, err));
    return codec->functions->decode(codec->mode, bytes, nbytes, n_rows, n_cols, out, err);
}

struct mb_codec_opened {
    const struct mb_codec *codec;
    const uint8_t *bytes;
    size_t nbytes, n_rows, n_cols;
    void *state; /* of a codec that checks */
};

enum mb_status mb_codec_open(const struct mb_codec *codec, const uint8_t *bytes, size_t nbytes, size_t n_rows,
                             size_t n_cols, struct mb_codec_opened **opened, struct mb_error *err)
{
    MB_TRY(mb_codec_check(codec, err));
    MB_TRY(check_shape(n_rows, n_cols, err));
    struct mb_codec_opened *new = malloc(sizeof *new);
    if (new == NULL)
        return mb_fail_memory(err, "a coded matrix");
    *new = (struct mb_codec_opened){codec, bytes, nbytes, n_rows, n_cols, NULL};
    enum mb_status status = codec->functions->open == NULL
                                ? MB_OK
                                : codec->functions->open(bytes, nbytes, n_rows, n_cols, &new->state, err);
    if (status == MB_OK)
        *opened = new;
    else
        free(new);
    return status;
}

enum mb_status mb_codec_decode_opened(const struct mb_codec_opened *opened, float *out, struct mb_error *err)
{
    const struct mb_codec_functions *functions = opened->codec->functions;
    if (opened->state == NULL)
        return functions->decode(opened->codec->mode, opened->bytes, opened->nbytes, opened->n_rows,
                                 opened->n_cols, out, err);
    functions->decode_opened(opened->state, out);
    return MB_OK;
}

enum mb_status mb_codec_multiply(const struct mb_codec_opened *opened, const float *x, float *y,
                                 struct mb_error *err)
{
    if (opened->state == NULL || opened->codec->functions->multiply == NULL)
        return mb_fail(err, MB_UNSUPPORTED, "%s has no product", opened->codec->name);
    return opened->codec->functions->multiply(opened->state, x, y, err);
}

void mb_codec_close(struct mb_codec_opened *opened)
{
    if (opened != NULL && opened->state != NULL)
        opened->codec->functions->close(opened->state);
    free(opened);
}

void mb_codec_error_add(struct mb_codec_error *error, const float *values, const float *decoded, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        double e = fabs((double)values[i] - (double)decoded[i]);
        if (!(e <= error->err_max)) /* NaN too */
            error->err_max = isfinite(e) ? e : INFINITY;
        error->sum_square += isfinite(e) ? e * e : INFINITY;
        error->sum_weight_square += (double)values[i] * (double)values[i];
    }
    error->n += n;
}

enum mb_status mb_codec_apply(const struct mb_codec *codec, const struct mb_codec_matrix *matrix,
                              float *decoded, size_t *nbytes, struct mb_codec_error *error,
                              struct mb_error *err)
{
    MB_TRY(check_shape(matrix->n_rows, matrix->n_cols, err));
    size_t cap = mb_codec_nbytes_max(matrix->n_rows, matrix->n_cols), used = 0;
    uint8_t *bytes = malloc(cap);
    if (bytes == NULL)
        return mb_fail_memory(err, "coded weights");
    enum mb_status status = mb_codec_encode(codec, matrix, bytes, cap, &used, err);
    if (status == MB_OK)
        status = mb_codec_decode(codec, bytes, used, matrix->n_rows, matrix->n_cols, decoded, err);
    free(bytes);
    if (status == MB_OK && nbytes != NULL)
        *nbytes = used;
    if (status == MB_OK && error != NULL)
        mb_codec_error_add(error, matrix->values, decoded, matrix->n_rows * matrix->n_cols);
    return status;
}
