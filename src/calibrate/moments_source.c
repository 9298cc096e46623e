/*
 * moments_source.c - a moments file as what a rounder asks (feedback.h).
 */
#include "base/error.h"
#include <moebius/calibrate.h>
#include <xxhash.h>

static enum mb_status get(void *context, const char *tensor, size_t n_cols, struct mb_moments_info *info,
                          float *moments, struct mb_error *err)
{
    size_t n;
    const struct mb_moments *m = context;
    const struct mb_moments_input *input = mb_moments_find(m, tensor);
    *info = (struct mb_moments_info){.is_known = input != NULL};
    if (input == NULL)
        return MB_OK;
    if (input->n_values != n_cols)
        return mb_fail(err, MB_BAD_DATA, "tensor %s: moments of %zu values for %zu columns", tensor,
                       input->n_values, n_cols);
    info->n_tokens = input->n_tokens;
    info->sum_gates2 = input->sum_gg;
    info->input = (uint64_t)(input - mb_moments_inputs(m, &n));
    return moments == NULL || input->n_tokens == 0 ? MB_OK : mb_moments_read(m, input, moments, err);
}

struct mb_moments_source mb_moments_as_source(struct mb_moments *moments)
{
    return (struct mb_moments_source){
        .context = moments, .hash = mb_moments_contents(moments)->hash, .get = get};
}
