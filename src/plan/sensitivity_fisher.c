/*
 * sensitivity_fisher.c - traces of the Fisher information of experts, as tools/findings/fisher.py writes
 * them: an error of root mean square s in all weights of an expert costs about s^2 / 2 x trace.
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

/* Of an expert, or with the number -1 the shared ones of a layer. */
struct traces {
    int layer, expert;
    double all, each[4]; /* by projection; NAN: not known */
};

static bool is_of(const struct mb_plan_matrix *matrix, const struct traces *traces)
{
    const struct mb_tensor_role *role = &matrix->role;
    enum mb_role wanted = traces->expert < 0 ? MB_ROLE_SHARED_EXPERT : MB_ROLE_EXPERT;
    return role->role == wanted && role->layer == traces->layer && role->expert == traces->expert &&
           role->projection != MB_PROJECTION_NONE;
}

/* What is known of the whole expert alone is shared out to its matrices by their effects. */
static enum mb_status use(struct mb_planner *planner, const struct traces *traces, struct mb_error *err)
{
    double sum = 0;
    size_t n = 0;
    for (size_t i = 0; i < planner->n_matrices; i++) {
        n += is_of(&planner->matrices[i], traces);
        sum += is_of(&planner->matrices[i], traces) ? planner->matrices[i].effect : 0;
    }
    if (n == 0)
        return mb_fail(err, MB_BAD_DATA, "the model has no expert %d in layer %d", traces->expert,
                       traces->layer);
    for (size_t i = 0; i < planner->n_matrices; i++) {
        struct mb_plan_matrix *matrix = &planner->matrices[i];
        if (!is_of(matrix, traces))
            continue;
        double trace = traces->each[matrix->role.projection];
        if (isnan(trace))
            trace = traces->all * (sum > 0 ? matrix->effect / sum : 1.0 / (double)n);
        double square = matrix->mean_abs * matrix->mean_abs / 3; /* of the error at the fraction 1 */
        matrix->sensitivity = fmax(MEASURED * square / 2 * trace, 1e-15);
        snprintf(matrix->reason, sizeof matrix->reason, "Fisher trace %.3g", trace);
    }
    return MB_OK;
}

static enum mb_status read_trace(const json_t *entry, const char *key, double *trace, struct mb_error *err)
{
    const json_t *value = json_object_get(entry, key);
    *trace = value == NULL ? NAN : json_number_value(value);
    if (value == NULL || (json_is_number(value) && isfinite(*trace) && *trace >= 0))
        return MB_OK;
    return mb_fail(err, MB_BAD_DATA, "\"%s\" is not a number from 0 on", key);
}

static enum mb_status use_entry(struct mb_planner *planner, const json_t *entry, struct mb_error *err)
{
    static const char *const names[] = {
        [MB_PROJECTION_GATE] = "gate", [MB_PROJECTION_UP] = "up", [MB_PROJECTION_DOWN] = "down"};
    const json_t *layer = json_object_get(entry, "layer"), *expert = json_object_get(entry, "expert");
    struct traces traces = {.each = {NAN, NAN, NAN, NAN}};
    if (!json_is_integer(layer) || !json_is_integer(expert) || json_object_get(entry, "fisher") == NULL)
        return mb_fail(err, MB_BAD_DATA, "needs \"layer\", \"expert\" and \"fisher\", numbers");
    MB_TRY(read_trace(entry, "fisher", &traces.all, err));
    for (int i = MB_PROJECTION_GATE; i <= MB_PROJECTION_DOWN; i++)
        MB_TRY(read_trace(entry, names[i], &traces.each[i], err));
    json_int_t l = json_integer_value(layer), e = json_integer_value(expert);
    if (l < 0 || e < -1 || l > INT16_MAX || e > INT16_MAX)
        return mb_fail(err, MB_BAD_DATA, "a number is negative or too large");
    traces.layer = (int)l;
    traces.expert = (int)e;
    return use(planner, &traces, err);
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
