/*
 * simd_neon.h - what the NEON kernels share: row groups as indices, vectors of values, and the tables'
 * functions.
 */
#ifndef MB_CODEC_SIMD_NEON_H
#define MB_CODEC_SIMD_NEON_H

#include "base/inline.h"
#include "kernels.h"
#include <arm_neon.h>

/* All indices of a group that is not raw; 'q' has MB_DECODED_SLACK bytes after them. */
void mb_group_indices_neon(const struct mb_group_view *group, int8_t *q);

/* Four original values. */
MB_INLINE float32x4_t mb_load_values_4(enum mb_dtype dtype, const uint8_t *values)
{
    if (dtype == MB_F32)
        return vreinterpretq_f32_u8(vld1q_u8(values));
    uint16x4_t half = vreinterpret_u16_u8(vld1_u8(values));
    if (dtype == MB_F16)
        return vcvt_f32_f16(vreinterpret_f16_u16(half));
    return vreinterpretq_f32_u32(vshll_n_u16(half, 16));
}

/* Bytes of four registers of 32-bit lanes, in order. The values fit. */
MB_INLINE int8x16_t mb_narrow_16(const int32x4_t v[4])
{
    int16x8_t low = vcombine_s16(vmovn_s32(v[0]), vmovn_s32(v[1]));
    int16x8_t high = vcombine_s16(vmovn_s32(v[2]), vmovn_s32(v[3]));
    return vcombine_s8(vmovn_s16(low), vmovn_s16(high));
}

/* How far ahead records are prefetched. */
enum { MB_AHEAD_NBYTES = 4096 };

/* The tables' functions. Those of products are there for each instruction set. */
void mb_activation_neon(const float *x, size_t n, int8_t *hi, int8_t *lo, void *wide,
                        struct mb_activation *out);
void mb_activation_fast_neon(const float *x, size_t n, int8_t *bytes, int8_t *hi, int8_t *lo, void *wide,
                             struct mb_activation *out);
void mb_matvec_transposed_neon(const struct mb_coded_matrix *w, uint64_t row, uint64_t n_rows,
                               const struct mb_activation *x, float *y, void *scratch);
size_t mb_transposed_scratch_nbytes_neon(size_t n_cols);
void mb_decode_rows_neon(const struct mb_coded_matrix *w, uint64_t row, uint64_t n_rows, float *out);
enum mb_status mb_encode_rows_neon(const struct mb_coding *coding, const void *weights, size_t n_rows,
                                   uint8_t *out, size_t out_cap, size_t *out_nbytes, struct mb_group *groups,
                                   size_t *bad_index);
size_t mb_count_full_codes_neon(const uint8_t *stream, size_t n, unsigned width);
#define MB_PRODUCTS(isa)                                                                            \
    void mb_matvec_##isa(const struct mb_coded_matrix *w, uint64_t row, uint64_t n_rows,            \
                         const struct mb_activation *x, float *y);                                  \
    void mb_matmul_##isa(const struct mb_coded_matrix *w, uint64_t row, uint64_t n_rows,            \
                         const struct mb_activation *x, size_t n_tokens, float *y, size_t y_stride, \
                         void *scratch);                                                            \
    size_t mb_matmul_scratch_nbytes_##isa(size_t n_cols);
MB_PRODUCTS(neon)
MB_PRODUCTS(dotprod)
MB_PRODUCTS(i8mm)

#endif
