/*
 * sensitivity_fisher.c - traces of the Fisher information of routed experts, as tools/findings/fisher.py
 * writes them: an error of root mean square s in all weights of an expert costs about s^2 / 2 x trace.
 */
#include "base/error.h"
#include "base/json.h"
#include "planner.h"
#include <stdio.h>
#include <string.h>

static const uint64_t FISHER_NBYTES_MAX = 64 << 20;

/* Measured KL, summed over experts, was 1.29 and 1.52 times that on two models (docs/findings.md). */
static const double MEASURED = 1.4;

static enum mb_status check_model(struct mb_planner *planner, const json_t *json, const char *path,
                                  struct mb_error *err)
{
    const char *hash = json_string_value(json_object_get(json, "model_hash"));
    if (hash == NULL)
        mb_plan_note(planner, "%s: has no model_hash: nothing says that it is of this model", path);
    return hash == NULL || strcmp(hash, planner->model_hash) == 0
               ? MB_OK
               : mb_fail(err, MB_BAD_DATA, "%s: made from another model", path);
}

/* Shares the expert's trace out to its matrices by what is known beside it. */
static enum mb_status use(struct mb_planner *planner, int layer, int expert, double trace,
                          struct mb_error *err)
{
    size_t first = mb_plan_find_expert(planner, layer, expert), end = first;
    double sum = 0;
    if (first == planner->n_matrices)
        return mb_fail(err, MB_BAD_DATA, "the model has no expert %d in layer %d", expert, layer);
    for (; end < planner->n_matrices && planner->matrices[end].role.layer == layer &&
           planner->matrices[end].role.expert == expert;
         end++)
        sum += planner->matrices[end].effect;
    for (size_t i = first; i < end; i++) {
        struct mb_plan_matrix *matrix = &planner->matrices[i];
        double share = sum > 0 ? matrix->effect / sum : 1.0 / (double)(end - first);
        double square = matrix->mean_abs * matrix->mean_abs / 3; /* of the error at the fraction 1 */
        matrix->sensitivity = fmax(MEASURED * square / 2 * trace * share, 1e-15);
        snprintf(matrix->reason, sizeof matrix->reason, "Fisher trace %.3g", trace);
    }
    return MB_OK;
}

static enum mb_status use_entry(struct mb_planner *planner, const json_t *entry, struct mb_error *err)
{
    const json_t *layer = json_object_get(entry, "layer"), *expert = json_object_get(entry, "expert");
    const json_t *trace = json_object_get(entry, "fisher");
    if (!json_is_integer(layer) || !json_is_integer(expert) || !json_is_number(trace))
        return mb_fail(err, MB_BAD_DATA, "needs \"layer\", \"expert\" and \"fisher\", numbers");
    double value = json_number_value(trace);
    json_int_t l = json_integer_value(layer), e = json_integer_value(expert);
    if (!isfinite(value) || value < 0 || l < 0 || e < 0 || l > INT16_MAX || e > INT16_MAX)
        return mb_fail(err, MB_BAD_DATA, "a number is negative or too large");
    return use(planner, (int)l, (int)e, value, err);
}

static enum mb_status use_all(struct mb_planner *planner, const json_t *json, const char *path,
                              struct mb_error *err)
{
    const json_t *list = json_object_get(json, "experts");
    MB_TRY(check_model(planner, json, path, err));
    if (json_array_size(list) == 0)
        return mb_fail(err, MB_BAD_DATA, "%s: no list \"experts\" (tools/findings/fisher.py writes one)",
                       path);
    for (size_t i = 0; i < json_array_size(list); i++) {
        enum mb_status status = use_entry(planner, json_array_get(list, i), err);
        if (status != MB_OK)
            return mb_fail_in(err, status, "%s: experts[%zu]", path, i);
    }
    planner->has_fisher = planner->is_absolute = true;
    return MB_OK;
}

enum mb_status mb_plan_read_fisher(struct mb_planner *planner, const char *path, struct mb_error *err)
{
    json_t *json;
    MB_TRY(mb_json_read(path, FISHER_NBYTES_MAX, &json, err));
    enum mb_status status = use_all(planner, json, path, err);
    json_decref(json);
    return status;
}
