/*
 * functions.h - what a codec consists of, and the tables of all of them.
 */
#ifndef MB_CODECS_FUNCTIONS_H
#define MB_CODECS_FUNCTIONS_H

#include <moebius/codecs.h>

/* 'mode' is that of the codec's row. Arguments have been checked as codecs.h says. */
struct mb_codec_functions {
    enum mb_status (*encode)(int mode, const struct mb_codec_matrix *matrix, uint8_t *out, size_t out_cap,
                             size_t *out_nbytes, struct mb_error *err);
    enum mb_status (*decode)(int mode, const uint8_t *bytes, size_t nbytes, size_t n_rows, size_t n_cols,
                             float *out, struct mb_error *err);
    /* Of codecs that check: NULL in the others. *state is the codec's own. */
    enum mb_status (*open)(const uint8_t *bytes, size_t nbytes, size_t n_rows, size_t n_cols, void **state,
                           struct mb_error *err);
    void (*decode_opened)(const void *state, float *out);
    enum mb_status (*multiply)(const void *state, const float *x, float *y, struct mb_error *err);
    void (*close)(void *state);
};

extern const struct mb_codec_functions mb_codec_ours, mb_codec_sz3, mb_codec_cuszp, mb_codec_cuszp_opencl,
    mb_codec_zfp, mb_codec_exponents, mb_codec_rtn, mb_codec_nf4, mb_codec_q4_0, mb_codec_q4_k;

enum mb_status mb_codec_sz3_check(struct mb_error *err);
enum mb_status mb_codec_zfp_check(struct mb_error *err);
enum mb_status mb_codec_opencl_check(struct mb_error *err);

/* Of SZ3; the last three are told the bound as a fraction of the range. Values are SZ3's, plus 16. */
enum {
    MB_SZ3_LORENZO = 0,
    MB_SZ3_DEFAULT = 1,
    MB_SZ3_INTERPOLATION = 2,
    MB_SZ3_NOPRED = 3,
    MB_SZ3_RANGE = 16
};

/* Of cuSZp. */
enum { MB_CUSZP_FIXED = 0, MB_CUSZP_PLAIN = 1, MB_CUSZP_OUTLIER = 2 };

/* Of round-to-nearest: bits, and weights of a group; 0: a whole row. */
#define MB_RTN_MODE(bits, group) ((bits) | (group) << 8)

/* The largest float that is not above eps. */
float mb_float_below(double eps);

#endif
