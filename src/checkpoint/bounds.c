/*
 * bounds.c - rules that give each tensor a bound, weakest first: class, options, plan file, patterns.
 */
#include "bounds.h"
#include "base/error.h"
#include "base/json.h"
#include "roles.h"
#include <stdlib.h>
#include <string.h>

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

enum { MATCH_LIMIT = 100000 };
static const uint64_t PLAN_NBYTES_MAX = 256 << 20;

/* An entry of the plan file. */
struct planned {
    const char *name; /* belongs to the file's JSON */
    struct mb_bound bound;
    bool is_used;
};

struct mb_bounds {
    const struct mb_compress_options *options;
    pcre2_code **patterns; /* [options->n_tensor_bounds] */
    bool *is_matched;      /* [options->n_tensor_bounds] by some tensor */
    pcre2_match_data *match;
    pcre2_match_context *limits;
    json_t *plan;
    struct planned *planned; /* by name */
    size_t n_planned;
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

/* ---------------------------------------------------------------- patterns */

static enum mb_status compile_pattern(const char *pattern, pcre2_code **code, struct mb_error *err)
{
    int number;
    PCRE2_SIZE at;
    *code = pcre2_compile((PCRE2_SPTR)pattern, PCRE2_ZERO_TERMINATED, PCRE2_UTF, &number, &at, NULL);
    if (*code != NULL)
        return MB_OK;
    if (number == PCRE2_ERROR_HEAP_FAILED)
        return mb_fail_memory(err, "a pattern");
    char text[120];
    pcre2_get_error_message(number, (PCRE2_UCHAR *)text, sizeof text);
    return mb_fail(err, MB_USAGE, "pattern '%.200s': not a regular expression, at character %zu: %s", pattern,
                   at + 1, text);
}

static enum mb_status compile_patterns(struct mb_bounds *bounds, struct mb_error *err)
{
    const struct mb_compress_options *options = bounds->options;
    bounds->patterns = calloc(options->n_tensor_bounds + 1, sizeof(pcre2_code *));
    bounds->is_matched = calloc(options->n_tensor_bounds + 1, sizeof *bounds->is_matched);
    bounds->match = pcre2_match_data_create(1, NULL);
    bounds->limits = pcre2_match_context_create(NULL);
    if (bounds->patterns == NULL || bounds->is_matched == NULL || bounds->match == NULL ||
        bounds->limits == NULL)
        return mb_fail_memory(err, "the patterns");
    pcre2_set_match_limit(bounds->limits, MATCH_LIMIT);
    pcre2_set_depth_limit(bounds->limits, MATCH_LIMIT);
    for (size_t i = 0; i < options->n_tensor_bounds; i++)
        MB_TRY(compile_pattern(options->tensor_bounds[i].pattern, &bounds->patterns[i], err));
    return MB_OK;
}

static enum mb_status matches(const struct mb_bounds *bounds, size_t i, const char *name, bool *is_match,
                              struct mb_error *err)
{
    int found =
        pcre2_match(bounds->patterns[i], (PCRE2_SPTR)name, strlen(name), 0, 0, bounds->match, bounds->limits);
    *is_match = found >= 0;
    if (found >= 0 || found == PCRE2_ERROR_NOMATCH)
        return MB_OK;
    if (found == PCRE2_ERROR_NOMEMORY)
        return mb_fail_memory(err, "a pattern");
    return mb_fail(err, MB_USAGE, "pattern '%.200s': takes too long on tensor %.200s; write a simpler one",
                   bounds->options->tensor_bounds[i].pattern, name);
}

/* ---------------------------------------------------------------- the plan file */

static int by_name(const void *a, const void *b)
{
    return strcmp(((const struct planned *)a)->name, ((const struct planned *)b)->name);
}

static enum mb_status read_entry(const json_t *entry, struct planned *planned, struct mb_error *err)
{
    const char *bound = json_string_value(json_object_get(entry, "bound"));
    planned->name = json_string_value(json_object_get(entry, "tensor"));
    if (planned->name == NULL || bound == NULL)
        return mb_fail(err, MB_BAD_DATA, "needs a \"tensor\" and a \"bound\", both strings");
    struct mb_error reason;
    enum mb_status status = mb_bound_parse(bound, &planned->bound, &reason);
    return status == MB_OK ? MB_OK : mb_fail(err, MB_BAD_DATA, "%s", reason.msg);
}

static enum mb_status read_entries(struct mb_bounds *bounds, struct mb_error *err)
{
    const json_t *list = json_object_get(bounds->plan, "bounds");
    if (!json_is_array(list))
        return mb_fail(
            err, MB_BAD_DATA,
            "no list \"bounds\": a plan is {\"bounds\": [{\"tensor\": NAME, \"bound\": BOUND}, ...]}");
    bounds->planned = calloc(json_array_size(list) + 1, sizeof *bounds->planned);
    if (bounds->planned == NULL)
        return mb_fail_memory(err, "the bounds of a plan");
    for (; bounds->n_planned < json_array_size(list); bounds->n_planned++) {
        enum mb_status status =
            read_entry(json_array_get(list, bounds->n_planned), &bounds->planned[bounds->n_planned], err);
        if (status != MB_OK)
            return mb_fail_in(err, status, "bounds[%zu]", bounds->n_planned);
    }
    qsort(bounds->planned, bounds->n_planned, sizeof *bounds->planned, by_name);
    for (size_t i = 1; i < bounds->n_planned; i++)
        if (by_name(&bounds->planned[i - 1], &bounds->planned[i]) == 0)
            return mb_fail(err, MB_BAD_DATA, "tensor %.512s: has two entries; remove one",
                           bounds->planned[i].name);
    return MB_OK;
}

static enum mb_status read_plan(struct mb_bounds *bounds, struct mb_error *err)
{
    const char *path = bounds->options->plan_path;
    if (path == NULL)
        return MB_OK;
    MB_TRY(mb_json_read(path, PLAN_NBYTES_MAX, &bounds->plan, err));
    enum mb_status status = read_entries(bounds, err);
    return status == MB_OK ? MB_OK : mb_fail_in(err, status, "%s", path);
}

static struct planned *find_planned(const struct mb_bounds *bounds, const char *name)
{
    const struct planned key = {.name = name};
    return bounds->n_planned == 0 ? NULL
                                  : bsearch(&key, bounds->planned, bounds->n_planned, sizeof key, by_name);
}

enum mb_status mb_bounds_check_used(const struct mb_bounds *bounds, const char *model, struct mb_error *err)
{
    for (size_t i = 0; i < bounds->n_planned; i++)
        if (!bounds->planned[i].is_used)
            return mb_fail(err, MB_BAD_DATA,
                           "%s: tensor %.512s: is not in %s; is the plan for another model?",
                           bounds->options->plan_path, bounds->planned[i].name, model);
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
    struct planned *planned = find_planned(bounds, tensor_name);
    *is_planned = planned != NULL;
    *bound = mb_bound_of_class(bounds->options, is_text ? mb_bound_class_of(tensor_name) : MB_CLASS_OTHER);
    if (planned != NULL) {
        *bound = planned->bound;
        planned->is_used = true;
    }
    for (size_t i = 0; i < bounds->options->n_tensor_bounds; i++) {
        bool is_match;
        MB_TRY(matches(bounds, i, tensor_name, &is_match, err));
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
    return read_plan(bounds, err);
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
        pcre2_code_free(bounds->patterns[i]);
    free(bounds->patterns);
    free(bounds->is_matched);
    pcre2_match_data_free(bounds->match);
    pcre2_match_context_free(bounds->limits);
    free(bounds->planned);
    json_decref(bounds->plan);
    free(bounds);
}
