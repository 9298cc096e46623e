/*
 * layout.c - decides by names: experts, other linear matrices, everything else.
 */
#include "layout.h"
#include "base/error.h"
#include <assert.h>
#include <ctype.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

/* Layers from LAYER_MAX on share a shard: whatever the names are, readers have a limit of 10,000 shards. */
enum { MATCH_LIMIT = 100000, LAYER_NONE = -1, LAYER_MAX = 1000 };

/* ---------------------------------------------------------------- names */

static const struct {
    const char *name;
    unsigned order;
} expert_matrices[] = {
    {"gate_proj.weight", 0}, {"up_proj.weight", 1}, {"down_proj.weight", 2},
    {"w1.weight", 0},        {"w3.weight", 1},      {"w2.weight", 2}, /* Mixtral */
};

static bool set_expert_suffix(struct mb_plan_item *item, const char *suffix)
{
    for (size_t i = 0; i < sizeof expert_matrices / sizeof expert_matrices[0]; i++)
        if (strcmp(suffix, expert_matrices[i].name) == 0) {
            item->role = MB_ROLE_EXPERT;
            item->suffix = suffix;
            item->order = expert_matrices[i].order;
            item->n_stem = (size_t)(suffix - item->tensor->name) - 1;
            return true;
        }
    return false;
}

/* "....experts.7.gate_proj.weight", "....shared_experts.up_proj.weight". */
static bool is_expert(struct mb_plan_item *item)
{
    static const char *const shared[] = {".shared_experts.", ".shared_expert."};
    const char *name = item->tensor->name, *at = strstr(name, ".experts.");
    if (at != NULL) {
        at += strlen(".experts.");
        size_t n_digits = strspn(at, "0123456789");
        return n_digits > 0 && at[n_digits] == '.' && set_expert_suffix(item, at + n_digits + 1);
    }
    for (size_t i = 0; i < 2; i++)
        if ((at = strstr(name, shared[i])) != NULL)
            return set_expert_suffix(item, at + strlen(shared[i]));
    return false;
}

static bool ends_with(const char *text, const char *end)
{
    size_t n = strlen(text), n_end = strlen(end);
    return n >= n_end && strcmp(text + n - n_end, end) == 0;
}

static bool is_linear(const char *name)
{
    return ends_with(name, "_proj.weight") || ends_with(name, "kv_a_proj_with_mqa.weight") ||
           strcmp(name, "lm_head.weight") == 0;
}

static void set_role(struct mb_plan_item *item)
{
    if (is_expert(item))
        return;
    item->role = is_linear(item->tensor->name) ? MB_ROLE_LINEAR : MB_ROLE_OTHER;
    const char *dot = strrchr(item->tensor->name, '.');
    if (dot == NULL)
        return;
    item->n_stem = (size_t)(dot - item->tensor->name);
    item->suffix = dot + 1;
}

/* ---------------------------------------------------------------- bounds */

struct pattern {
    pcre2_code *code;
    struct mb_bound bound;
};

static enum mb_status compile_pattern(const struct mb_tensor_bound *given, struct pattern *pattern,
                                      struct mb_error *err)
{
    int number;
    PCRE2_SIZE at;
    pattern->bound = given->bound;
    pattern->code =
        pcre2_compile((PCRE2_SPTR)given->pattern, PCRE2_ZERO_TERMINATED, PCRE2_UTF, &number, &at, NULL);
    if (pattern->code != NULL)
        return MB_OK;
    if (number == PCRE2_ERROR_HEAP_FAILED)
        return mb_fail_memory(err, "a pattern");
    char text[120];
    pcre2_get_error_message(number, (PCRE2_UCHAR *)text, sizeof text);
    return mb_fail(err, MB_USAGE, "pattern '%.200s': character %zu: %s", given->pattern, at + 1, text);
}

static enum mb_status matches(const struct pattern *pattern, const char *name, bool *is_match,
                              struct mb_error *err)
{
    pcre2_match_data *data = pcre2_match_data_create(1, NULL);
    pcre2_match_context *context = pcre2_match_context_create(NULL);
    int found = PCRE2_ERROR_NOMEMORY;
    if (data != NULL && context != NULL) {
        pcre2_set_match_limit(context, MATCH_LIMIT);
        pcre2_set_depth_limit(context, MATCH_LIMIT);
        found = pcre2_match(pattern->code, (PCRE2_SPTR)name, strlen(name), 0, 0, data, context);
    }
    pcre2_match_data_free(data);
    pcre2_match_context_free(context);
    *is_match = found >= 0;
    if (found >= 0 || found == PCRE2_ERROR_NOMATCH)
        return MB_OK;
    if (found == PCRE2_ERROR_NOMEMORY)
        return mb_fail_memory(err, "a pattern");
    return mb_fail(err, MB_USAGE, "a pattern takes too long on tensor %.200s", name);
}

static enum mb_status set_bound(const struct mb_checkpoint *ckpt, const struct mb_compress_options *options,
                                const struct pattern *patterns, struct mb_plan_item *item,
                                struct mb_error *err)
{
    static const struct mb_bound expert_bound = {MB_BOUND_MEAN_ABS, MB_EXPERT_FRACTION},
                                 linear_bound = {MB_BOUND_MEAN_ABS, MB_LINEAR_FRACTION};
    const struct mb_tensor *tensor = item->tensor;
    assert(tensor != NULL);
    if (item->role == MB_ROLE_EXPERT)
        item->bound = options->has_bound ? options->bound : expert_bound;
    else if (item->role == MB_ROLE_LINEAR)
        item->bound = options->has_dense_bound ? options->dense_bound : linear_bound;
    for (size_t i = 0; i < options->n_tensor_bounds; i++) {
        bool is_match;
        enum mb_status status = matches(&patterns[i], tensor->name, &is_match, err);
        if (status != MB_OK)
            return status;
        if (is_match)
            item->bound = patterns[i].bound;
    }
    bool is_matrix = tensor->n_dims == 2 && tensor->n_elems > 0 && item->n_stem > 0;
    if (item->bound.kind == MB_BOUND_EXACT || (is_matrix && tensor->type <= MB_TENSOR_BF16))
        return MB_OK;
    if (is_matrix && item->role != MB_ROLE_OTHER)
        return mb_fail(err, MB_UNSUPPORTED,
                       "%s: tensor %s: %s weights are not supported; convert them to bf16 first",
                       mb_tensor_path(ckpt, tensor), tensor->name, tensor->type_name);
    item->bound = (struct mb_bound){MB_BOUND_EXACT, 0}; /* ".*=..." means the matrices among them */
    return MB_OK;
}

static enum mb_status set_bounds(const struct mb_checkpoint *ckpt, const struct mb_compress_options *options,
                                 struct mb_plan *plan, struct mb_error *err)
{
    struct pattern *patterns = calloc(options->n_tensor_bounds + 1, sizeof *patterns);
    if (patterns == NULL)
        return mb_fail_memory(err, "the patterns");
    enum mb_status status = MB_OK;
    for (size_t i = 0; i < options->n_tensor_bounds && status == MB_OK; i++)
        status = compile_pattern(&options->tensor_bounds[i], &patterns[i], err);
    for (size_t i = 0; i < plan->n_items && status == MB_OK; i++) {
        struct mb_plan_item *item = &plan->items[i];
        status = set_bound(ckpt, options, patterns, item, err);
        if (item->bound.kind != MB_BOUND_EXACT && item->tensor->shape[1] > MB_COLS_MAX) {
            item->bound = (struct mb_bound){MB_BOUND_EXACT, 0};
            plan->n_too_wide++;
        }
    }
    for (size_t i = 0; i < options->n_tensor_bounds; i++)
        pcre2_code_free(patterns[i].code);
    free(patterns);
    return status;
}

/* ---------------------------------------------------------------- shards */

static long layer_of(const char *name)
{
    const char *at = strstr(name, "layers.");
    if (at == NULL || !isdigit((unsigned char)at[7]))
        return LAYER_NONE;
    char *end;
    long layer = strtol(at + 7, &end, 10);
    return *end == '.' && layer < LAYER_MAX ? layer : LAYER_NONE;
}

static int by_number(const void *a, const void *b)
{
    long x = *(const long *)a, y = *(const long *)b;
    return x < y ? -1 : x > y;
}

enum mb_status mb_assign_shards(const char *const *names, size_t n, size_t *shards, size_t *n_shards,
                                struct mb_error *err)
{
    long *layers = calloc(n + 1, sizeof *layers);
    if (layers == NULL)
        return mb_fail_memory(err, "the order of the layers");
    bool has_rest = false;
    size_t n_layers = 0;
    for (size_t i = 0; i < n; i++) {
        long layer = layer_of(names[i]);
        has_rest = has_rest || layer == LAYER_NONE;
        if (layer != LAYER_NONE)
            layers[n_layers++] = layer;
    }
    qsort(layers, n_layers, sizeof *layers, by_number);
    size_t n_different = 0;
    for (size_t i = 0; i < n_layers; i++)
        if (i == 0 || layers[i] != layers[i - 1])
            layers[n_different++] = layers[i];
    for (size_t i = 0; i < n; i++) {
        long layer = layer_of(names[i]);
        const long *found = bsearch(&layer, layers, n_different, sizeof *layers, by_number);
        shards[i] = found == NULL ? n_different : (size_t)(found - layers);
    }
    *n_shards = n > 0 ? n_different + has_rest : 1; /* no tensors: still a file that says so */
    free(layers);
    return MB_OK;
}

void mb_shard_file_name(char name[48], size_t shard, size_t n_shards)
{
    if (n_shards == 1)
        snprintf(name, 48, "model.safetensors");
    else
        snprintf(name, 48, "model-%05zu-of-%05zu.safetensors", shard + 1, n_shards);
}

/* ---------------------------------------------------------------- order */

static int by_stem(const struct mb_plan_item *x, const struct mb_plan_item *y)
{
    char a[600], b[600]; /* names are at most 512 bytes */
    snprintf(a, sizeof a, "%.*s", (int)x->n_stem, x->tensor->name);
    snprintf(b, sizeof b, "%.*s", (int)y->n_stem, y->tensor->name);
    int natural = strverscmp(a, b);
    return natural != 0 ? natural : strcmp(a, b);
}

static int by_place(const void *a, const void *b)
{
    const struct mb_plan_item *x = a, *y = b;
    if (x->shard != y->shard)
        return x->shard < y->shard ? -1 : 1;
    int stem = by_stem(x, y);
    if (stem != 0)
        return stem;
    if (x->order != y->order)
        return x->order < y->order ? -1 : 1;
    return strcmp(x->tensor->name, y->tensor->name);
}

static bool same_unit(const struct mb_plan_item *x, const struct mb_plan_item *y)
{
    return x->n_stem == y->n_stem && x->n_stem > 0 &&
           memcmp(x->tensor->name, y->tensor->name, x->n_stem) == 0;
}

static size_t elem_nbytes(const struct mb_tensor *tensor)
{
    return tensor->n_elems == 0 ? 1 : (size_t)(tensor->nbytes / tensor->n_elems);
}

struct exact_item {
    const struct mb_tensor *tensor;
    size_t shard;
};

static int by_size_and_name(const void *a, const void *b)
{
    const struct exact_item *x = a, *y = b;
    if (x->shard != y->shard)
        return x->shard < y->shard ? -1 : 1;
    if (elem_nbytes(x->tensor) != elem_nbytes(y->tensor))
        return elem_nbytes(x->tensor) > elem_nbytes(y->tensor) ? -1 : 1;
    int natural = strverscmp(x->tensor->name, y->tensor->name);
    return natural != 0 ? natural : strcmp(x->tensor->name, y->tensor->name);
}

static void collect_units(struct mb_plan *plan)
{
    for (size_t i = 0; i < plan->n_items;) {
        struct mb_plan_unit unit = {.first = i, .shard = plan->items[i].shard};
        do {
            unit.n_coded += plan->items[i].bound.kind != MB_BOUND_EXACT;
            unit.n++;
            i++;
        } while (i < plan->n_items && same_unit(&plan->items[unit.first], &plan->items[i]));
        if (unit.n_coded > 0)
            plan->units[plan->n_units++] = unit;
    }
}

static enum mb_status collect_exact(struct mb_plan *plan, struct mb_error *err)
{
    struct exact_item *exact = calloc(plan->n_items + 1, sizeof *exact);
    if (exact == NULL)
        return mb_fail_memory(err, "the order of the tensors");
    for (size_t i = 0; i < plan->n_items; i++)
        if (plan->items[i].bound.kind == MB_BOUND_EXACT)
            exact[plan->n_exact++] = (struct exact_item){plan->items[i].tensor, plan->items[i].shard};
    qsort(exact, plan->n_exact, sizeof *exact, by_size_and_name);
    for (size_t i = 0; i < plan->n_exact; i++) {
        plan->exact[i] = exact[i].tensor;
        plan->exact_shards[i] = exact[i].shard;
    }
    free(exact);
    return MB_OK;
}

static enum mb_status assign_shards(struct mb_plan *plan, struct mb_error *err)
{
    const char **names = calloc(plan->n_items + 1, sizeof *names);
    size_t *shards = calloc(plan->n_items + 1, sizeof *shards);
    enum mb_status status = MB_OK;
    if (names == NULL || shards == NULL)
        status = mb_fail_memory(err, "the shards");
    for (size_t i = 0; i < plan->n_items && status == MB_OK; i++)
        names[i] = plan->items[i].tensor->name;
    if (status == MB_OK)
        status = mb_assign_shards(names, plan->n_items, shards, &plan->n_shards, err);
    for (size_t i = 0; i < plan->n_items && status == MB_OK; i++)
        plan->items[i].shard = shards[i];
    free(names);
    free(shards);
    return status;
}

static uint64_t hash_item(const struct mb_plan_item *item, uint64_t hash)
{
    char bound[40];
    mb_bound_format(&item->bound, bound);
    hash = XXH3_64bits_withSeed(item->tensor->name, strlen(item->tensor->name), hash);
    return XXH3_64bits_withSeed(bound, strlen(bound), hash);
}

/* A blob's name has ".moebius" in the place of ".weight": nothing else may have it, and it has to fit. */
static enum mb_status check_name(const char *path, const char *name, struct mb_error *err)
{
    if (ends_with(name, ".moebius"))
        return mb_fail(err, MB_UNSUPPORTED, "%s: tensor %s: names like this are for coded folders", path,
                       name);
    if (ends_with(name, ".weight") && strlen(name) == MB_TENSOR_NAME_MAX)
        return mb_fail(err, MB_UNSUPPORTED, "%s: tensor %.60s...: %d bytes leave no room for .moebius", path,
                       name, MB_TENSOR_NAME_MAX);
    return MB_OK;
}

static enum mb_status check_names(const struct mb_checkpoint *ckpt, struct mb_error *err)
{
    enum mb_status status = MB_OK;
    for (size_t i = 0; i < ckpt->n_tensors && status == MB_OK; i++)
        status = check_name(mb_tensor_path(ckpt, ckpt->tensors[i]), ckpt->tensors[i]->name, err);
    return status;
}

static enum mb_status make_plan(const struct mb_checkpoint *ckpt, const struct mb_compress_options *options,
                                struct mb_plan *plan, struct mb_error *err)
{
    size_t n = ckpt->n_tensors + 1;
    plan->items = calloc(n, sizeof *plan->items);
    plan->units = calloc(n, sizeof *plan->units);
    plan->exact = calloc(n, sizeof(const struct mb_tensor *));
    plan->exact_shards = calloc(n, sizeof *plan->exact_shards);
    if (plan->items == NULL || plan->units == NULL || plan->exact == NULL || plan->exact_shards == NULL)
        return mb_fail_memory(err, "the list of tensors");
    for (size_t i = 0; i < ckpt->n_tensors; i++) {
        plan->items[plan->n_items].tensor = ckpt->tensors[i];
        set_role(&plan->items[plan->n_items++]);
    }
    enum mb_status status = check_names(ckpt, err);
    if (status == MB_OK)
        status = set_bounds(ckpt, options, plan, err);
    if (status == MB_OK)
        status = assign_shards(plan, err);
    if (status != MB_OK)
        return status;
    qsort(plan->items, plan->n_items, sizeof *plan->items, by_place);
    for (size_t i = 0; i < plan->n_items; i++)
        plan->hash = hash_item(&plan->items[i], plan->hash);
    collect_units(plan);
    return collect_exact(plan, err);
}

enum mb_status mb_plan_make(const struct mb_checkpoint *ckpt, const struct mb_compress_options *options,
                            struct mb_plan *plan, struct mb_error *err)
{
    *plan = (struct mb_plan){0};
    enum mb_status status = make_plan(ckpt, options, plan, err);
    if (status != MB_OK)
        mb_plan_free(plan);
    return status;
}

void mb_plan_free(struct mb_plan *plan)
{
    free(plan->items);
    free(plan->units);
    free(plan->exact);
    free(plan->exact_shards);
    *plan = (struct mb_plan){0};
}

/* ---------------------------------------------------------------- one shard */

struct mb_tensor mb_unit_tensor(const struct mb_plan *plan, const struct mb_plan_unit *unit)
{
    const struct mb_plan_item *item = &plan->items[unit->first];
    struct mb_tensor tensor = {.type = MB_TENSOR_U8, .type_name = "U8", .n_dims = 1};
    char *name = NULL;
    if (asprintf(&name, "%.*s.moebius", (int)item->n_stem, item->tensor->name) >= 0)
        tensor.name = name;
    return tensor;
}

static void find_range(const struct mb_plan *plan, size_t shard, struct mb_planned *planned)
{
    while (planned->first_unit < plan->n_units && plan->units[planned->first_unit].shard < shard)
        planned->first_unit++;
    while (planned->first_unit + planned->n_units < plan->n_units &&
           plan->units[planned->first_unit + planned->n_units].shard == shard)
        planned->n_units++;
    while (planned->first_exact < plan->n_exact && plan->exact_shards[planned->first_exact] < shard)
        planned->first_exact++;
    while (planned->first_exact + planned->n_exact < plan->n_exact &&
           plan->exact_shards[planned->first_exact + planned->n_exact] == shard)
        planned->n_exact++;
    for (size_t i = 0; i < plan->n_items; i++)
        if (plan->items[i].shard == shard)
            planned->hash = hash_item(&plan->items[i], planned->hash);
}

enum mb_status mb_plan_shard(const struct mb_plan *plan, size_t shard, struct mb_planned *planned,
                             struct mb_error *err)
{
    *planned = (struct mb_planned){0};
    find_range(plan, shard, planned);
    planned->tensors = calloc(planned->n_units + planned->n_exact + 1, sizeof *planned->tensors);
    bool ok = planned->tensors != NULL;
    for (size_t i = 0; i < planned->n_units && ok; i++) {
        planned->tensors[i] = mb_unit_tensor(plan, &plan->units[planned->first_unit + i]);
        ok = planned->tensors[i].name != NULL;
    }
    for (size_t i = 0; i < planned->n_exact && ok; i++)
        planned->tensors[planned->n_units + i] = *plan->exact[planned->first_exact + i];
    if (ok)
        return MB_OK;
    mb_planned_free(planned);
    return mb_fail_memory(err, "the tensors of a shard");
}

void mb_planned_free(struct mb_planned *planned)
{
    for (size_t i = 0; i < planned->n_units && planned->tensors != NULL; i++)
        free((char *)planned->tensors[i].name);
    free(planned->tensors);
    planned->tensors = NULL;
}
