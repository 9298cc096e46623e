/*
 * write.c - the plan as people read and edit it: matrices that belong together and have the same bound are
 * one pattern.
 */
#include "base/error.h"
#include "base/file.h"
#include "base/json.h"
#include "base/number.h"
#include "planner.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* "31.4%": four digits, in any locale. */
static void bound_text(double fraction, char text[40])
{
    mb_number_format(text, 40, "%.*g%%", 4, 100 * fraction);
}

static bool is_same(const struct mb_plan_matrix *a, const struct mb_plan_matrix *b)
{
    char x[40], y[40];
    bound_text(a->fraction, x);
    bound_text(b->fraction, y);
    return strcmp(x, y) == 0 && strcmp(a->reason, b->reason) == 0;
}

/* The name's beginning that ends with the n-th dot from the end. */
static size_t stem_nbytes(const char *name, int n_dots)
{
    size_t n = strlen(name);
    while (n > 0 && n_dots > 0)
        n_dots -= name[--n] == '.';
    return n > 0 ? n + 1 : 0;
}

/* Planned matrices from 'first' on that share the stem; 0: they differ, or others begin like it. */
static size_t n_alike(const struct mb_planner *planner, size_t first, int n_dots)
{
    const struct mb_plan_matrix *matrix = &planner->matrices[first];
    size_t stem = stem_nbytes(matrix->name, n_dots), n = 0;
    if (matrix->role.projection == MB_PROJECTION_NONE || stem == 0 || (n_dots > 2 && matrix->role.expert < 0))
        return 0;
    for (size_t i = first; i < planner->n_matrices; i++, n++) {
        const struct mb_plan_matrix *other = &planner->matrices[i];
        if (strncmp(other->name, matrix->name, stem) != 0)
            break;
        if (!other->is_planned || !is_same(matrix, other))
            return 0;
    }
    bool is_first = first == 0 || strncmp(planner->matrices[first - 1].name, matrix->name, stem) != 0;
    return is_first ? n : 0;
}

/* "^model\.layers\.1\.": dots of a name are themselves. */
static void pattern_text(const char *name, size_t n, char *text)
{
    *text++ = '^';
    for (size_t i = 0; i < n; i++) {
        if (strchr(".^$*+?()[]{}|\\", name[i]) != NULL)
            *text++ = '\\';
        *text++ = name[i];
    }
    *text = '\0';
}

static json_t *entry_of(const struct mb_plan_matrix *matrix, int n_dots)
{
    char bound[40], pattern[1200];
    bound_text(matrix->fraction, bound);
    pattern_text(matrix->name, n_dots == 0 ? 0 : stem_nbytes(matrix->name, n_dots), pattern);
    json_t *entry = json_pack("{s:s, s:s}", n_dots == 0 ? "tensor" : "pattern",
                              n_dots == 0 ? matrix->name : pattern, "bound", bound);
    if (entry != NULL && matrix->reason[0] != '\0')
        json_object_set_new(entry, "reason", json_string(matrix->reason));
    return entry;
}

/* All experts of a layer (three dots: "0.up_proj.weight"), one expert, or one matrix. */
static json_t *entries(const struct mb_planner *planner)
{
    json_t *list = json_array();
    for (size_t i = 0; i < planner->n_matrices && list != NULL;) {
        static const int DOTS[] = {3, 2, 0};
        size_t n = 1;
        if (!planner->matrices[i].is_planned) {
            i++;
            continue;
        }
        int dots = 0;
        for (int k = 0; k < 3; k++) {
            size_t found = DOTS[k] == 0 ? 1 : n_alike(planner, i, DOTS[k]);
            if (found == 0)
                continue;
            dots = DOTS[k];
            n = found;
            break;
        }
        json_array_append_new(list, entry_of(&planner->matrices[i], dots));
        i += n;
    }
    return list;
}

static json_t *real(double value)
{
    char text[40];
    int n = mb_number_format(text, sizeof text, "%.*g", 4, value);
    return n > 0 && mb_number_parse(text, (size_t)n, &value) ? json_real(value) : json_null();
}

static json_t *predicted(const struct mb_plan_report *report)
{
    json_t *json = json_pack("{s:I, s:I, s:I, s:o}", "nbytes", (json_int_t)report->out_nbytes, "coded_nbytes",
                             (json_int_t)report->coded_nbytes, "coded_weights", (json_int_t)report->n_weights,
                             "bits", real(report->bits));
    if (json == NULL)
        return NULL;
    json_object_set_new(json, "kl", real(report->kl));
    json_object_set_new(json, "kl_low", real(report->kl_low));
    json_object_set_new(json, "kl_high", real(report->kl_high));
    return json;
}

static json_t *plan_json(const struct mb_planner *planner, const struct mb_plan_policy *policy, bool is_final)
{
    json_t *json = json_pack("{s:i, s:s, s:s}", "plan", 1, "policy", policy->name, "what", policy->what);
    if (json == NULL)
        return NULL;
    if (is_final) {
        const struct mb_rounder *rounder = planner->options.rounder;
        json_object_set_new(json, "model_hash", json_string(planner->model_hash));
        json_object_set_new(json, "feedback", rounder == NULL ? json_null() : json_real(rounder->rho));
        json_object_set_new(json, "predicted", predicted(planner->report));
    }
    json_object_set_new(json, "bounds", entries(planner));
    return json;
}

/* malloc'ed, with a line's end. */
static enum mb_status plan_text(const struct mb_planner *planner, const struct mb_plan_policy *policy,
                                bool is_final, char **text, size_t *nbytes, struct mb_error *err)
{
    json_t *json = plan_json(planner, policy, is_final);
    *text = json == NULL ? NULL : mb_json_text(json, JSON_INDENT(1) | JSON_REAL_PRECISION(9), nbytes);
    json_decref(json);
    if (*text == NULL)
        return mb_fail_memory(err, "the plan");
    (*text)[(*nbytes)++] = '\n'; /* in place of the terminator */
    return MB_OK;
}

enum mb_status mb_plan_write(const struct mb_planner *planner, const struct mb_plan_policy *policy,
                             const char *path, struct mb_error *err)
{
    char *text;
    size_t nbytes = 0;
    MB_TRY(plan_text(planner, policy, true, &text, &nbytes, err));
    enum mb_status status = mb_write_file(path, text, nbytes, err);
    free(text);
    return status;
}

enum mb_status mb_plan_write_trial(const struct mb_planner *planner, const struct mb_plan_policy *policy,
                                   const char *path, struct mb_error *err)
{
    char *text;
    size_t nbytes = 0;
    MB_TRY(plan_text(planner, policy, false, &text, &nbytes, err));
    enum mb_status status = ftruncate(planner->trial_fd, 0) == 0
                                ? mb_write_at(planner->trial_fd, path, 0, text, nbytes, err)
                                : mb_fail_errno(err, path, "truncate");
    free(text);
    return status;
}
