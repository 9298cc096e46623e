/*
 * exponents.c - powers of two by columns: weights to what is coded, and back.
 */
#include "exponents.h"
#include "base/bytes.h"
#include "base/value.h"
#include <math.h>

/* 2^e for a legal exponent, or its negative. */
static float power_of_two(int e)
{
    return mb_float_of_bits((uint32_t)(127 + e) << 23);
}

/* ---------------------------------------------------------------- to what is coded */

static float rounded_to(enum mb_dtype dtype, float w)
{
    return dtype == MB_F32    ? w
           : dtype == MB_BF16 ? mb_float_of_bf16(mb_bf16_of_float(w))
                              : mb_float_of_f16(mb_f16_of_float(w));
}

/* Infinity and NaN stay as they are: the encoder names them. */
static bool is_exact(enum mb_dtype dtype, float w, int e)
{
    float v = w * power_of_two(e);
    return !isfinite(w) || (rounded_to(dtype, v) == v && v * power_of_two(-e) == w);
}

bool mb_scale_columns(enum mb_dtype dtype, void *weights, size_t n_rows, size_t n_cols,
                      const int8_t *exponents)
{
    uint8_t *at = weights;
    bool all = true;
    for (size_t r = 0; r < n_rows; r++)
        for (size_t c = 0; c < n_cols; c++, at += mb_dtype_nbytes(dtype)) {
            float w = mb_load_value(dtype, at, 0), v = w * power_of_two(exponents[c]);
            all = all && is_exact(dtype, w, exponents[c]);
            if (dtype == MB_F32)
                mb_store_u32(at, mb_bits_of_float(v));
            else
                mb_store_u16(at, dtype == MB_BF16 ? mb_bf16_of_float(v) : mb_f16_of_float(v));
        }
    return all;
}

/* Whether all of a row are 0, infinite, NaN, or so far from the ends of bf16 that every legal exponent is
 * exact. */
static bool are_surely_exact(const uint8_t *row, size_t n_cols)
{
    const unsigned least = 1 + MB_COL_EXPONENT_MAX, n = 254 - 2 * MB_COL_EXPONENT_MAX;
    unsigned all = 1;
    for (size_t c = 0; c < n_cols; c++) {
        const unsigned magnitude = mb_load_u16(row + 2 * c) & 0x7fffu, exponent = magnitude >> 7;
        all &= (unsigned)(exponent - least < n) | (magnitude == 0) | (exponent == 255);
    }
    return all != 0;
}

void mb_limit_exponents(enum mb_dtype dtype, const void *weights, size_t n_rows, size_t n_cols,
                        int8_t *exponents)
{
    const uint8_t *row = weights;
    for (size_t r = 0; r < n_rows; r++, row += n_cols * mb_dtype_nbytes(dtype)) {
        if (dtype == MB_BF16 && are_surely_exact(row, n_cols))
            continue;
        for (size_t c = 0; c < n_cols; c++)
            for (float w = mb_load_value(dtype, row, c); !is_exact(dtype, w, exponents[c]);)
                exponents[c] = (int8_t)(exponents[c] > 0 ? exponents[c] - 1 : exponents[c] + 1);
    }
}

bool mb_step_takes_exponents(float step)
{
    return step == 0 || (step >= 0x1p-100F && step <= 0x1p100F);
}

/* ---------------------------------------------------------------- and back */

void mb_unscale_columns(const int8_t *exponents, const float *x, size_t n, float *out)
{
    for (size_t c = 0; c < n; c++)
        out[c] = x[c] * power_of_two(-exponents[c]);
}

void mb_unscale_rows(const struct mb_coded_matrix *w, uint64_t n_rows, float *rows)
{
    for (uint64_t r = 0; w->col_exponents != NULL && r < n_rows; r++, rows += w->n_cols)
        mb_unscale_columns(w->col_exponents, rows, w->n_cols, rows);
}

float mb_scaled_weight(const struct mb_coded_matrix *w, float weight, size_t i)
{
    return w->col_exponents == NULL ? weight : weight * power_of_two(w->col_exponents[i % w->n_cols]);
}

float mb_unscaled_weight(const struct mb_coded_matrix *w, float weight, size_t i)
{
    return w->col_exponents == NULL ? weight : weight * power_of_two(-w->col_exponents[i % w->n_cols]);
}

double mb_column_eps(const struct mb_coded_matrix *w, size_t col)
{
    return w->col_exponents == NULL ? w->eps : w->eps * (double)power_of_two(-w->col_exponents[col]);
}

const char *mb_exponents_fault(const int8_t *exponents, size_t n_cols)
{
    bool any = false;
    for (size_t c = 0; c < n_cols; c++) {
        if (exponents[c] < -MB_COL_EXPONENT_MAX || exponents[c] > MB_COL_EXPONENT_MAX)
            return "a column's exponent is out of range";
        any = any || exponents[c] != 0;
    }
    return any ? NULL : "all exponents of columns are 0";
}
