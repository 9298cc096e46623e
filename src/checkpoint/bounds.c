/*
 * bounds.c - rules that give each tensor a bound, weakest first: class, options, plan file, patterns.
 */
#include "bounds.h"
#include "base/error.h"
#include "name_pattern.h"
#include "plan_file.h"
#include "roles.h"
#include <stdlib.h>

struct mb_bounds {
    const struct mb_compress_options *options;
    struct mb_name_pattern **patterns; /* [options->n_tensor_bounds] */
    bool *is_matched;                  /* [options->n_tensor_bounds] by some tensor */
    struct mb_plan_file *plan;         /* or NULL */
};

enum mb_bound_class mb_bound_class_of(const char *tensor_name)
{
    struct mb_tensor_role role = mb_role_of(tensor_name);
    if (role.projection != MB_PROJECTION_NONE)
        return MB_CLASS_EXPERT;
    if (role.role == MB_ROLE_EMBEDDING)
        return MB_CLASS_EMBEDDING;
    if (strcmp(tensor_name, "lm_head.weight") == 0)
        return MB_CLASS_HEAD;
    return mb_is_linear_name(tensor_name) ? MB_CLASS_LINEAR : MB_CLASS_OTHER;
}

static enum mb_status compile_patterns(struct mb_bounds *bounds, struct mb_error *err)
{
    const struct mb_compress_options *options = bounds->options;
    bounds->patterns = calloc(options->n_tensor_bounds + 1, sizeof(struct mb_name_pattern *));
    bounds->is_matched = calloc(options->n_tensor_bounds + 1, sizeof *bounds->is_matched);
    if (bounds->patterns == NULL || bounds->is_matched == NULL)
        return mb_fail_memory(err, "the patterns");
    for (size_t i = 0; i < options->n_tensor_bounds; i++)
        MB_TRY(mb_name_pattern_create(options->tensor_bounds[i].pattern, &bounds->patterns[i], err));
    return MB_OK;
}

enum mb_status mb_bounds_check_used(const struct mb_bounds *bounds, const char *model, struct mb_error *err)
{
    if (bounds->plan != NULL)
        MB_TRY(mb_plan_file_check_used(bounds->plan, model, err));
    for (size_t i = 0; i < bounds->options->n_tensor_bounds; i++)
        if (!bounds->is_matched[i])
            return mb_fail(err, MB_USAGE, "pattern '%.200s': matches the name of no tensor in %s",
                           bounds->options->tensor_bounds[i].pattern, model);
    return MB_OK;
}

/* ---------------------------------------------------------------- all rules */

struct mb_bound mb_bound_of_class(const struct mb_compress_options *options, enum mb_bound_class class)
{
    static const double fractions[] = {[MB_CLASS_EXPERT] = MB_EXPERT_FRACTION,
                                       [MB_CLASS_LINEAR] = MB_LINEAR_FRACTION,
                                       [MB_CLASS_HEAD] = MB_VOCABULARY_FRACTION,
                                       [MB_CLASS_EMBEDDING] = MB_VOCABULARY_FRACTION};
    if (class == MB_CLASS_OTHER)
        return (struct mb_bound){MB_BOUND_EXACT, 0};
    if (class == MB_CLASS_EXPERT ? options->has_bound : options->has_dense_bound)
        return class == MB_CLASS_EXPERT ? options->bound : options->dense_bound;
    bool is_wider = options->rounder != NULL && class != MB_CLASS_EMBEDDING;
    return (struct mb_bound){MB_BOUND_MEAN_ABS,
                             fractions[class] * (is_wider ? 2 * options->rounder->rho : 1)};
}

enum mb_status mb_bounds_find(struct mb_bounds *bounds, const char *tensor_name, bool is_text,
                              struct mb_bound *bound, bool *is_planned, struct mb_error *err)
{
    enum mb_planned planned = MB_NOT_PLANNED;
    *bound = mb_bound_of_class(bounds->options, is_text ? mb_bound_class_of(tensor_name) : MB_CLASS_OTHER);
    if (bounds->plan != NULL)
        MB_TRY(mb_plan_file_find(bounds->plan, tensor_name, bound, &planned, err));
    *is_planned = planned == MB_PLANNED_BY_NAME;
    for (size_t i = 0; i < bounds->options->n_tensor_bounds; i++) {
        bool is_match;
        MB_TRY(mb_name_pattern_match(bounds->patterns[i], tensor_name, &is_match, err));
        if (is_match) {
            *bound = bounds->options->tensor_bounds[i].bound;
            *is_planned = false;
            bounds->is_matched[i] = true;
        }
    }
    return MB_OK;
}

static enum mb_status make_rules(struct mb_bounds *bounds, struct mb_error *err)
{
    MB_TRY(compile_patterns(bounds, err));
    const char *path = bounds->options->plan_path;
    return path == NULL ? MB_OK : mb_plan_file_open(path, &bounds->plan, err);
}

enum mb_status mb_bounds_create(const struct mb_compress_options *options, struct mb_bounds **bounds,
                                struct mb_error *err)
{
    *bounds = calloc(1, sizeof **bounds);
    if (*bounds == NULL)
        return mb_fail_memory(err, "the bounds");
    (*bounds)->options = options;
    enum mb_status status = make_rules(*bounds, err);
    if (status != MB_OK) {
        mb_bounds_free(*bounds);
        *bounds = NULL;
    }
    return status;
}

void mb_bounds_free(struct mb_bounds *bounds)
{
    if (bounds == NULL)
        return;
    for (size_t i = 0; i < bounds->options->n_tensor_bounds && bounds->patterns != NULL; i++)
        mb_name_pattern_free(bounds->patterns[i]);
    free(bounds->patterns);
    free(bounds->is_matched);
    mb_plan_file_close(bounds->plan);
    free(bounds);
}
