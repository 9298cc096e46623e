/*
 * codecs.h - other codecs for weights behind one interface, to compare with ours and to use as errors.
 *
 * A codec makes bytes of a matrix and a matrix of these bytes.  The bytes contain everything that decoding
 * needs but the shape: scales, tables, headers.  Ours is one of them ("ours": a blob with one matrix).  SZ3,
 * zfp and OpenCL are found at run time; mb_codec_check says what is missing and how to get it.
 *
 * Threads: any number may encode and decode at once.  Bytes and decoded weights do not depend on the thread.
 * Memory: the caller owns every buffer.
 */
#ifndef MOEBIUS_CODECS_H
#define MOEBIUS_CODECS_H

#include <moebius/codec.h>
#include <moebius/status.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* What decides how exact the decoded weights are. */
enum mb_codec_takes {
    MB_CODEC_TAKES_BOUND = 0, /* an absolute error bound, eps */
    MB_CODEC_TAKES_RANGE = 1, /* eps, given to the codec as a fraction of the matrix's own max - min */
    MB_CODEC_TAKES_BITS = 2,  /* its bits a weight are fixed; eps is not looked at */
    MB_CODEC_LOSSLESS = 3,    /* nothing: decoded weights are the original ones */
};

/* A codec. All are the library's own, constant and valid without end. */
struct mb_codec {
    const char *name;  /* "sz3-nopred" */
    const char *about; /* one line */
    enum mb_codec_takes takes;
    bool has_own_threads; /* one call may use several processors */
    bool has_check;       /* mb_codec_open checks the bytes; else it does nothing */
    bool has_product;     /* mb_codec_multiply multiplies from the coded form */
    /* The library's own. */
    enum mb_status (*check)(struct mb_error *err); /* NULL: it is always there */
    const struct mb_codec_functions *functions;
    int mode;
};

/* All codecs, in the order of tables: *n of them. */
MB_API const struct mb_codec *mb_codecs(size_t *n);

/* By name. MB_USAGE: there is none, and err lists the names. */
MB_API enum mb_status mb_codec_find(const char *name, const struct mb_codec **codec, struct mb_error *err);

/* MB_UNSUPPORTED: what it needs is not on this machine, or not in a version that is known; err names it. */
MB_API enum mb_status mb_codec_check(const struct mb_codec *codec, struct mb_error *err);

/* A matrix to code, row-major and finite. */
struct mb_codec_matrix {
    enum mb_dtype dtype;
    const void *weights;   /* [n_rows][n_cols] of dtype */
    const float *values;   /* the same as float; equals 'weights' where dtype is MB_F32 */
    size_t n_rows, n_cols; /* 1 .. MB_COLS_MAX columns, at most 2^30 weights */
    double eps;            /* > 0, the bound in weight units, of codecs that take one */
};

/* Bytes that are enough for any codec's output, with MB_SLACK_NBYTES after it. */
MB_API size_t mb_codec_nbytes_max(size_t n_rows, size_t n_cols);

/*
 * Encodes to out[0 .. *out_nbytes), out_cap >= mb_codec_nbytes_max.  MB_UNSUPPORTED: the codec does not take
 * such a shape or type, or is not there (mb_codec_check).  MB_USAGE: eps is not above 0 and the codec takes a
 * bound.  MB_NO_SPACE, MB_NO_MEMORY.
 */
MB_API enum mb_status mb_codec_encode(const struct mb_codec *codec, const struct mb_codec_matrix *matrix,
                                      uint8_t *out, size_t out_cap, size_t *out_nbytes, struct mb_error *err);

/*
 * Decodes what mb_codec_encode has made of a matrix of that shape to out[n_rows * n_cols].  'bytes' have
 * MB_SLACK_NBYTES readable bytes after them.  MB_BAD_DATA: there are too few bytes or too many for what they
 * say; nothing outside is read.  That SZ3 and zfp, which are libraries of others, keep inside damaged bytes
 * is not promised.
 */
MB_API enum mb_status mb_codec_decode(const struct mb_codec *codec, const uint8_t *bytes, size_t nbytes,
                                      size_t n_rows, size_t n_cols, float *out, struct mb_error *err);

/*
 * The same in two steps, for bytes that are decoded again and again: what checks bytes does it once, when
 * they are opened, and decoding then trusts them.  Only ours checks; the others have nothing to do here, and
 * decode as mb_codec_decode does.  The bytes outlive *opened, and do not change.  Any number of threads may
 * decode what is open.  mb_codec_close(NULL) does nothing.
 */
struct mb_codec_opened;
MB_API enum mb_status mb_codec_open(const struct mb_codec *codec, const uint8_t *bytes, size_t nbytes,
                                    size_t n_rows, size_t n_cols, struct mb_codec_opened **opened,
                                    struct mb_error *err);
MB_API enum mb_status mb_codec_decode_opened(const struct mb_codec_opened *opened, float *out,
                                             struct mb_error *err);

/*
 * y[n_rows] = W x[n_cols] straight from the coded form: decoded weights are never in memory.  MB_UNSUPPORTED:
 * the codec has no product.
 */
MB_API enum mb_status mb_codec_multiply(const struct mb_codec_opened *opened, const float *x, float *y,
                                        struct mb_error *err);
MB_API void mb_codec_close(struct mb_codec_opened *opened);

/* How far decoded weights are from the original ones. */
struct mb_codec_error {
    double err_max;    /* the largest |w - w'|; infinite where a decoded weight is not finite */
    double sum_square; /* of all w - w'; infinite likewise */
    double sum_weight_square;
    uint64_t n; /* weights */
};

/* Adds n weights to *error, which begins as zeros. */
MB_API void mb_codec_error_add(struct mb_codec_error *error, const float *values, const float *decoded,
                               size_t n);

/*
 * What a codec makes of a matrix, for those who want the errors of a real codec: encodes and decodes to
 * decoded[n_rows * n_cols].  *nbytes (may be NULL) of the coded form; *error (may be NULL) is added to.
 */
MB_API enum mb_status mb_codec_apply(const struct mb_codec *codec, const struct mb_codec_matrix *matrix,
                                     float *decoded, size_t *nbytes, struct mb_codec_error *error,
                                     struct mb_error *err);

#ifdef __cplusplus
}
#endif

#endif
