/*
 * bound.c - bounds: their spellings, what they are relative to, and the step that keeps them.
 */
#include "base/bytes.h"
#include "base/error.h"
#include "base/number.h"
#include "kernels.h"
#include <math.h>
#include <stdio.h>
#include <string.h>

static const double PERCENT_MAX = 1e6; /* far beyond any use; keeps eps finite */

enum mb_status mb_bound_parse(const char *text, struct mb_bound *bound, struct mb_error *err)
{
    size_t n = strlen(text);
    enum mb_bound_kind kind = MB_BOUND_EXACT;
    const char *number = text, *end = text + n;
    double value = 0;
    if (strncmp(text, "abs:", 4) == 0) {
        kind = MB_BOUND_ABS;
        number += 4;
    } else if (strncmp(text, "range:", 6) == 0) {
        kind = MB_BOUND_RANGE;
        number += 6;
    } else if (n > 0 && end[-1] == '%') {
        kind = MB_BOUND_MEAN_ABS;
        end--;
    }
    bool is_number = mb_number_parse(number, (size_t)(end - number), &value);
    if (!is_number || signbit(value) || (kind == MB_BOUND_EXACT && value != 0) ||
        (kind == MB_BOUND_MEAN_ABS && value > PERCENT_MAX))
        return mb_fail(err, MB_USAGE,
                       "bound '%.60s': not a bound; write it like 30%%, abs:0.001, range:0.01 or 0", text);
    if (kind == MB_BOUND_MEAN_ABS)
        value /= 100;
    *bound = (struct mb_bound){value == 0 ? MB_BOUND_EXACT : kind, value};
    return MB_OK;
}

static void spell(const struct mb_bound *bound, int n_digits, char text[40])
{
    switch (bound->kind) {
    case MB_BOUND_EXACT:
        snprintf(text, 40, "0");
        break;
    case MB_BOUND_MEAN_ABS:
        mb_number_format(text, 40, "%.*g%%", n_digits, bound->value * 100);
        break;
    case MB_BOUND_ABS:
        mb_number_format(text, 40, "abs:%.*g", n_digits, bound->value);
        break;
    case MB_BOUND_RANGE:
        mb_number_format(text, 40, "range:%.*g", n_digits, bound->value);
        break;
    }
}

void mb_bound_format(const struct mb_bound *bound, char text[40])
{
    for (int n_digits = 1; n_digits <= 18; n_digits++) {
        struct mb_bound back;
        spell(bound, n_digits, text);
        bool is_plain = strstr(text, "e+") == NULL || n_digits >= 17; /* "30%" rather than "3e+01%" */
        if (is_plain && mb_bound_parse(text, &back, NULL) == MB_OK && back.kind == bound->kind &&
            back.value == bound->value)
            return;
    }
}

enum mb_status mb_weight_stats_add(struct mb_weight_stats *stats, enum mb_dtype dtype, const void *weights,
                                   size_t n, size_t *bad_index)
{
    const uint8_t *bytes = weights;
    double sum = stats->sum_abs;
    float low = INFINITY, high = -INFINITY;
    for (size_t i = 0; i < n; i++) {
        float w = mb_load_value(dtype, bytes, i);
        if (!isfinite(w)) {
            if (bad_index != NULL)
                *bad_index = i;
            return MB_BAD_DATA;
        }
        sum += fabs((double)w);
        low = w < low ? w : low;
        high = w > high ? w : high;
    }
    if (n == 0)
        return MB_OK;
    stats->sum_abs = sum;
    stats->min = stats->n == 0 || (double)low < stats->min ? (double)low : stats->min;
    stats->max = stats->n == 0 || (double)high > stats->max ? (double)high : stats->max;
    stats->n += n;
    return MB_OK;
}

double mb_bound_eps(const struct mb_bound *bound, const struct mb_weight_stats *stats)
{
    if (stats->n == 0)
        return 0;
    switch (bound->kind) {
    case MB_BOUND_MEAN_ABS:
        return bound->value * (stats->sum_abs / (double)stats->n);
    case MB_BOUND_ABS:
        return bound->value;
    case MB_BOUND_RANGE:
        return bound->value * (stats->max - stats->min);
    default:
        return 0;
    }
}

float mb_step_of_eps(double eps)
{
    double limit = 2 * eps * (1 - 0x1p-16);
    if (!(limit >= (double)0x1p-149F))
        return 0;
    if (limit > (double)0x1.fffffep127F)
        return 0x1.fffffep127F;
    float step = (float)limit;
    return (double)step > limit ? nextafterf(step, 0) : step;
}

float mb_step_of_rho(double eps, double rho)
{
    float most = mb_step_of_eps(eps);
    if (!(eps / rho < (double)most))
        return most;
    float step = (float)(eps / rho);
    while (rho * (double)step < eps)
        step = nextafterf(step, INFINITY);
    return step < most ? step : most;
}
