/*
 * plan_file.c - see plan_file.h.
 */
#include "plan_file.h"
#include "base/error.h"
#include "base/file.h"
#include "base/json.h"
#include "name_pattern.h"
#include <stdlib.h>
#include <string.h>

static const uint64_t PLAN_NBYTES_MAX = 256 << 20;
enum { N_PATTERNS_MAX = 10000 }; /* each is tried on each tensor */

struct entry {
    const char *name; /* of a tensor, or the pattern: belongs to the file's JSON */
    struct mb_name_pattern *pattern;
    struct mb_bound bound;
    size_t number; /* in the file */
    bool is_used;
};

struct mb_plan_file {
    const char *path;
    char *text;
    size_t nbytes;
    json_t *json;
    struct entry *named, *patterns; /* named ones by name, patterns as in the file */
    size_t n_named, n_patterns;
};

/* ---------------------------------------------------------------- lines */

static size_t skip_string(const char *text, size_t at)
{
    for (at++; text[at] != '\0' && text[at] != '"'; at++)
        at += text[at] == '\\' && text[at + 1] != '\0';
    return at;
}

/* The line on which an element of the list "bounds" begins: the text is valid JSON, so nesting is enough. */
static size_t line_of(const struct mb_plan_file *plan, size_t number)
{
    static const char KEY[] = "\"bounds\"";
    size_t line = 1, depth = 0, n = 0;
    bool is_inside = false;
    for (size_t at = 0; at < plan->nbytes; at++) {
        char c = plan->text[at];
        line += c == '\n';
        if (depth == 1 && c == '"')
            is_inside = strncmp(plan->text + at, KEY, sizeof KEY - 1) == 0;
        if (is_inside && depth == 2 && strchr(" \t\r\n,]", c) == NULL && n++ == number)
            return line;
        if (c == '"')
            at = skip_string(plan->text, at);
        depth += c == '{' || c == '[';
        depth -= c == '}' || c == ']';
    }
    return line;
}

/* "PLAN: line 7: bounds[3]" before a message; the first line is not named. */
static enum mb_status fail_entry(const struct mb_plan_file *plan, size_t number, enum mb_status status,
                                 struct mb_error *err)
{
    size_t line = line_of(plan, number);
    return line == 1 ? mb_fail_in(err, status, "%s: bounds[%zu]", plan->path, number)
                     : mb_fail_in(err, status, "%s: line %zu: bounds[%zu]", plan->path, line, number);
}

/* ---------------------------------------------------------------- reading */

static enum mb_status read_entry(const json_t *json, struct entry *entry, struct mb_error *err)
{
    const char *bound = json_string_value(json_object_get(json, "bound"));
    const char *tensor = json_string_value(json_object_get(json, "tensor"));
    const char *pattern = json_string_value(json_object_get(json, "pattern"));
    if ((tensor == NULL) == (pattern == NULL) || bound == NULL)
        return mb_fail(err, MB_BAD_DATA,
                       "needs a \"tensor\" and a \"bound\", both strings (or a \"pattern\" and a \"bound\")");
    struct mb_error reason;
    if (mb_bound_parse(bound, &entry->bound, &reason) != MB_OK)
        return mb_fail(err, MB_BAD_DATA, "%s", reason.msg);
    entry->name = tensor != NULL ? tensor : pattern;
    if (tensor != NULL)
        return MB_OK;
    enum mb_status status = mb_name_pattern_create(pattern, &entry->pattern, &reason);
    return status == MB_USAGE ? mb_fail(err, MB_BAD_DATA, "%s", reason.msg)
                              : mb_pass_on(err, status, &reason);
}

static int by_name(const void *a, const void *b)
{
    return strcmp(((const struct entry *)a)->name, ((const struct entry *)b)->name);
}

static enum mb_status check_names(struct mb_plan_file *plan, struct mb_error *err)
{
    qsort(plan->named, plan->n_named, sizeof *plan->named, by_name);
    for (size_t i = 1; i < plan->n_named; i++) {
        const struct entry *a = &plan->named[i - 1], *b = &plan->named[i];
        if (by_name(a, b) != 0)
            continue;
        mb_error_set(err, MB_BAD_DATA, "tensor %.512s: has two entries; remove one", b->name);
        return fail_entry(plan, a->number > b->number ? a->number : b->number, MB_BAD_DATA, err);
    }
    return MB_OK;
}

static enum mb_status read_entries(struct mb_plan_file *plan, const json_t *list, struct mb_error *err)
{
    size_t n = json_array_size(list);
    plan->named = calloc(n + 1, sizeof *plan->named);
    plan->patterns = calloc(n + 1, sizeof *plan->patterns);
    if (plan->named == NULL || plan->patterns == NULL)
        return mb_fail_memory(err, "the bounds of a plan");
    for (size_t i = 0; i < n; i++) {
        struct entry entry = {.number = i};
        enum mb_status status = read_entry(json_array_get(list, i), &entry, err);
        if (status != MB_OK)
            return fail_entry(plan, i, status, err);
        if (entry.pattern == NULL)
            plan->named[plan->n_named++] = entry;
        else
            plan->patterns[plan->n_patterns++] = entry;
    }
    if (plan->n_patterns > N_PATTERNS_MAX)
        return mb_fail(err, MB_BAD_DATA, "%s: %zu patterns, at most %d are allowed; name tensors instead",
                       plan->path, plan->n_patterns, N_PATTERNS_MAX);
    return check_names(plan, err);
}

static enum mb_status read_plan(struct mb_plan_file *plan, struct mb_error *err)
{
    MB_TRY(mb_read_file(plan->path, PLAN_NBYTES_MAX, &plan->text, &plan->nbytes, err));
    MB_TRY(mb_json_parse_file(plan->path, plan->text, plan->nbytes, &plan->json, err));
    const json_t *list = json_object_get(plan->json, "bounds");
    if (!json_is_array(list))
        return mb_fail(
            err, MB_BAD_DATA,
            "%s: no list \"bounds\": a plan is {\"bounds\": [{\"tensor\": NAME, \"bound\": BOUND}, ...]}",
            plan->path);
    return read_entries(plan, list, err);
}

enum mb_status mb_plan_file_open(const char *path, struct mb_plan_file **plan, struct mb_error *err)
{
    *plan = calloc(1, sizeof **plan);
    if (*plan == NULL)
        return mb_fail_memory(err, "a plan");
    (*plan)->path = path;
    enum mb_status status = read_plan(*plan, err);
    if (status != MB_OK) {
        mb_plan_file_close(*plan);
        *plan = NULL;
    }
    return status;
}

void mb_plan_file_close(struct mb_plan_file *plan)
{
    if (plan == NULL)
        return;
    for (size_t i = 0; i < plan->n_patterns; i++)
        mb_name_pattern_free(plan->patterns[i].pattern);
    free(plan->patterns);
    free(plan->named);
    json_decref(plan->json);
    free(plan->text);
    free(plan);
}

/* ---------------------------------------------------------------- asking */

static enum mb_status fail_contradiction(const struct mb_plan_file *plan, const struct entry *a,
                                         const struct entry *b, const char *tensor, struct mb_error *err)
{
    mb_error_set(
        err, MB_BAD_DATA,
        "pattern '%.200s': gives tensor %.512s another bound than bounds[%zu] does; name the tensor in an "
        "entry of its own, or change a pattern",
        b->name, tensor, a->number);
    return fail_entry(plan, b->number, MB_BAD_DATA, err);
}

static enum mb_status find_by_pattern(struct mb_plan_file *plan, const char *tensor, bool counts,
                                      const struct entry **found, struct mb_error *err)
{
    *found = NULL;
    for (size_t i = 0; i < plan->n_patterns; i++) {
        struct entry *entry = &plan->patterns[i];
        bool is_match;
        enum mb_status status = mb_name_pattern_match(entry->pattern, tensor, &is_match, err);
        if (status != MB_OK)
            return fail_entry(plan, entry->number, status == MB_USAGE ? MB_BAD_DATA : status, err);
        if (!is_match)
            continue;
        entry->is_used = true;
        const struct entry *before = *found;
        if (counts && before != NULL &&
            (before->bound.kind != entry->bound.kind || before->bound.value != entry->bound.value))
            return fail_contradiction(plan, before, entry, tensor, err);
        *found = before == NULL ? entry : before;
    }
    return MB_OK;
}

enum mb_status mb_plan_file_find(struct mb_plan_file *plan, const char *tensor, struct mb_bound *bound,
                                 enum mb_planned *planned, struct mb_error *err)
{
    const struct entry key = {.name = tensor}, *found;
    struct entry *named =
        plan->n_named == 0 ? NULL : bsearch(&key, plan->named, plan->n_named, sizeof key, by_name);
    MB_TRY(find_by_pattern(plan, tensor, named == NULL, &found, err));
    *planned = named != NULL ? MB_PLANNED_BY_NAME : found != NULL ? MB_PLANNED_BY_PATTERN : MB_NOT_PLANNED;
    if (named != NULL) {
        named->is_used = true;
        *bound = named->bound;
    } else if (found != NULL) {
        *bound = found->bound;
    }
    return MB_OK;
}

enum mb_status mb_plan_file_check_used(const struct mb_plan_file *plan, const char *model,
                                       struct mb_error *err)
{
    for (size_t i = 0; i < plan->n_named; i++)
        if (!plan->named[i].is_used) {
            mb_error_set(err, MB_BAD_DATA, "tensor %.512s: is not in %s; is the plan for another model?",
                         plan->named[i].name, model);
            return fail_entry(plan, plan->named[i].number, MB_BAD_DATA, err);
        }
    for (size_t i = 0; i < plan->n_patterns; i++)
        if (!plan->patterns[i].is_used) {
            mb_error_set(err, MB_BAD_DATA, "pattern '%.200s': matches the name of no tensor in %s",
                         plan->patterns[i].name, model);
            return fail_entry(plan, plan->patterns[i].number, MB_BAD_DATA, err);
        }
    return MB_OK;
}
