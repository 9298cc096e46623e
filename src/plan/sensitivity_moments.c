/*
 * sensitivity_moments.c - effects of errors in matrices by second moments of their inputs: the mean square
 * that an error adds to a matrix's output, over all tokens.
 */
#include "base/error.h"
#include "planner.h"
#include <stdlib.h>

static enum mb_status trace_of(const struct mb_moments *moments, const struct mb_moments_input *input,
                               float *room, double *trace, struct mb_error *err)
{
    *trace = 0;
    if (input->n_tokens == 0)
        return MB_OK;
    MB_TRY(mb_moments_read(moments, input, room, err));
    for (size_t i = 0; i < input->n_values; i++)
        *trace += room[i * input->n_values + i];
    return MB_OK;
}

/*
 * Columns with exponents have steps of their own: what is left of the mean square that an equal error of all
 * adds to outputs.
 */
static enum mb_status use_exponents(struct mb_planner *planner, struct mb_plan_matrix *matrix,
                                    const float *moments, double trace, struct mb_error *err)
{
    const struct mb_rounder *rounder = planner->options.rounder;
    double left = 0;
    int8_t *exponents = calloc(matrix->n_cols, 1);
    if (exponents == NULL)
        return mb_fail_memory(err, "exponents of columns");
    enum mb_status status =
        rounder->exponents(rounder->context, matrix->name, matrix->n_cols, exponents, err);
    for (size_t j = 0; j < matrix->n_cols; j++)
        left += ldexp((double)moments[j * matrix->n_cols + j], -2 * exponents[j]);
    free(exponents);
    if (status == MB_OK && left > 0 && left < trace)
        matrix->column_share = sqrt(left / trace);
    return status;
}

static enum mb_status use_input(struct mb_planner *planner, const struct mb_moments_input *input, float *room,
                                struct mb_error *err)
{
    const struct mb_moments_contents *contents = mb_moments_contents(planner->options.moments);
    double trace;
    MB_TRY(trace_of(planner->options.moments, input, room, &trace, err));
    for (size_t k = 0; k < input->n_matrices; k++) {
        size_t i = mb_plan_find(planner, input->matrices[k]);
        if (i == planner->n_matrices)
            continue;
        struct mb_plan_matrix *matrix = &planner->matrices[i];
        matrix->effect = trace / fmax((double)contents->n_tokens, 1) * (double)matrix->n_rows *
                         matrix->mean_abs * matrix->mean_abs;
        if (trace > 0 && planner->options.rounder != NULL && planner->options.rounder->exponents != NULL &&
            mb_may_have_exponents(matrix->name))
            MB_TRY(use_exponents(planner, matrix, room, trace, err));
    }
    return MB_OK;
}

enum mb_status mb_plan_read_moments(struct mb_planner *planner, struct mb_error *err)
{
    const struct mb_moments_contents *contents = mb_moments_contents(planner->options.moments);
    size_t n, n_values = contents->n_values_max;
    const struct mb_moments_input *inputs = mb_moments_inputs(planner->options.moments, &n);
    float *room = calloc(n_values * n_values + 1, sizeof *room);
    if (room == NULL)
        return mb_fail_memory(err, "moments");
    enum mb_status status = MB_OK;
    for (size_t i = 0; i < n && status == MB_OK; i++)
        status = use_input(planner, &inputs[i], room, err);
    free(room);
    return status;
}
