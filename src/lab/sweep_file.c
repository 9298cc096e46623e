/*
 * sweep_file.c - sweep files: JSON, as docs/sweep.schema.json describes them, and the same from flags.
 *
 * Flags become the members of the JSON object, so that there is one way from a sweep to its runs.
 */
#include "sweep_file.h"
#include "base/error.h"
#include "base/json.h"
#include "base/options.h"
#include <moebius/codecs.h>
#include <stdlib.h>
#include <string.h>

enum { SWEEP_NBYTES_MAX = 16 << 20, N_SEEDS_MAX = 1000 };

/* ---------------------------------------------------------------- errors */

bool mb_sweep_has_bound(const char *error)
{
    static const char *const without[] = {"none", "random", "zero", "drop"};
    const struct mb_codec *codec;
    for (size_t i = 0; i < sizeof without / sizeof *without; i++)
        if (strcmp(error, without[i]) == 0)
            return false;
    if (strncmp(error, "codec:", 6) != 0 || mb_codec_find(error + 6, &codec, NULL) != MB_OK)
        return true;
    return codec->takes == MB_CODEC_TAKES_BOUND || codec->takes == MB_CODEC_TAKES_RANGE;
}

bool mb_sweep_is_random(const char *error)
{
    static const char *const random[] = {"normal", "uniform", "random", "gauss-iso"};
    for (size_t i = 0; i < sizeof random / sizeof *random; i++)
        if (strcmp(error, random[i]) == 0)
            return true;
    return false;
}

/* ---------------------------------------------------------------- runs */

static bool is_same(const struct mb_sweep_item *a, const struct mb_sweep_item *b)
{
    bool same_bound =
        a->bound == NULL || b->bound == NULL ? a->bound == b->bound : strcmp(a->bound, b->bound) == 0;
    return same_bound && a->seed == b->seed && strcmp(a->target, b->target) == 0 &&
           strcmp(a->error, b->error) == 0;
}

static bool is_there(const struct mb_sweep *sweep, const struct mb_sweep_item *item)
{
    for (size_t i = 0; i < sweep->n_items; i++)
        if (is_same(&sweep->items[i], item))
            return true;
    return false;
}

static void free_item(struct mb_sweep_item *item)
{
    free(item->label);
    free(item->target);
    free(item->error);
    free(item->bound);
    free(item->plan);
    free(item->dense_bound);
}

static char *copy_or_null(const char *text)
{
    return text == NULL ? NULL : strdup(text);
}

static enum mb_status add_item(struct mb_sweep *sweep, const struct mb_sweep_item *from, struct mb_error *err)
{
    if (sweep->n_asked++ == MB_SWEEP_ITEMS_MAX) /* what is there already counts: it takes time, too */
        return mb_fail(err, MB_BAD_DATA, "more than %d runs", MB_SWEEP_ITEMS_MAX);
    if (is_there(sweep, from))
        return MB_OK;
    if (sweep->n_items == sweep->cap) {
        size_t cap = sweep->cap == 0 ? 64 : 2 * sweep->cap;
        struct mb_sweep_item *grown = realloc(sweep->items, cap * sizeof *grown);
        if (grown == NULL)
            return mb_fail_memory(err, "the runs");
        sweep->items = grown;
        sweep->cap = cap;
    }
    struct mb_sweep_item item = {.label = strdup(from->label),
                                 .target = strdup(from->target),
                                 .error = strdup(from->error),
                                 .bound = copy_or_null(from->bound),
                                 .seed = from->seed,
                                 .plan = copy_or_null(from->plan),
                                 .dense_bound = copy_or_null(from->dense_bound)};
    if (item.label == NULL || item.target == NULL || item.error == NULL ||
        (item.bound == NULL) != (from->bound == NULL) || (item.plan == NULL) != (from->plan == NULL) ||
        (item.dense_bound == NULL) != (from->dense_bound == NULL)) {
        free_item(&item);
        return mb_fail_memory(err, "the runs");
    }
    sweep->items[sweep->n_items++] = item;
    return MB_OK;
}

enum mb_status mb_sweep_add(struct mb_sweep *sweep, const char *label, const char *target, const char *error,
                            const char *bound, struct mb_error *err)
{
    size_t n = mb_sweep_is_random(error) ? sweep->n_seeds : 1;
    for (size_t i = 0; i < n; i++) {
        struct mb_sweep_item item = {.label = (char *)label,
                                     .target = (char *)target,
                                     .error = (char *)error,
                                     .bound = mb_sweep_has_bound(error) ? (char *)bound : NULL,
                                     .seed = mb_sweep_is_random(error) ? sweep->seeds[i] : 0};
        MB_TRY(add_item(sweep, &item, err));
    }
    return MB_OK;
}

/* The bound is the plan's checksum, which nobody knows before it is read (sweep_bounds.c). */
static enum mb_status add_plan(struct mb_sweep *sweep, const char *label, const char *plan,
                               const char *dense_bound, struct mb_error *err)
{
    struct mb_sweep_item item = {.label = (char *)label,
                                 .error = (char *)"codec",
                                 .plan = (char *)plan,
                                 .dense_bound = (char *)dense_bound};
    if (asprintf(&item.target, "plan=%s%s%s", plan,
                 dense_bound == NULL ? "" : " dense-bound=", dense_bound == NULL ? "" : dense_bound) < 0)
        return mb_fail_memory(err, "the runs");
    enum mb_status status = add_item(sweep, &item, err);
    free(item.target);
    return status;
}

/* ---------------------------------------------------------------- the JSON object */

/* A text or a list of texts: the i-th, or NULL after the last. */
static const char *text_at(const json_t *texts, size_t i)
{
    if (json_is_array(texts))
        return json_string_value(json_array_get(texts, i));
    return i == 0 ? json_string_value(texts) : NULL;
}

static enum mb_status check_texts(const json_t *entry, const char *key, bool is_needed, struct mb_error *err)
{
    const json_t *texts = json_object_get(entry, key);
    size_t n = json_is_array(texts) ? json_array_size(texts) : texts == NULL ? 0 : 1;
    if (n == 0 && !is_needed && texts == NULL)
        return MB_OK;
    for (size_t i = 0; i < n; i++) {
        const char *text = text_at(texts, i);
        if (text == NULL || text[0] == '\0')
            return mb_fail(err, MB_BAD_DATA, "'%s' has to be a text or a list of texts", key);
    }
    return n > 0 ? MB_OK : mb_fail(err, MB_BAD_DATA, "'%s' is missing or empty", key);
}

static enum mb_status check_keys(const json_t *object, const char *const *known, struct mb_error *err)
{
    const char *key;
    json_t *value;
    json_object_foreach((json_t *)object, key, value)
    {
        bool is_known = false;
        for (const char *const *k = known; *k != NULL; k++)
            is_known = is_known || strcmp(*k, key) == 0;
        if (!is_known)
            return mb_fail(err, MB_BAD_DATA, "unknown key '%.64s'", key);
    }
    return MB_OK;
}

static enum mb_status add_combinations(struct mb_sweep *sweep, const json_t *entry, struct mb_error *err)
{
    const json_t *targets = json_object_get(entry, "target"), *errors = json_object_get(entry, "error"),
                 *bounds = json_object_get(entry, "bound"), *label = json_object_get(entry, "label");
    const char *target, *error, *bound;
    for (size_t i = 0; (target = text_at(targets, i)) != NULL; i++)
        for (size_t k = 0; (error = text_at(errors, k)) != NULL; k++) {
            if (strcmp(error, "none") == 0)
                continue; /* the clean run is there */
            if (!mb_sweep_has_bound(error)) {
                MB_TRY(mb_sweep_add(sweep, label == NULL ? "" : json_string_value(label), target, error, NULL,
                                    err));
                continue;
            }
            if (bounds == NULL)
                return mb_fail(err, MB_BAD_DATA, "error '%.32s' needs a 'bound'", error);
            for (size_t b = 0; (bound = text_at(bounds, b)) != NULL; b++)
                MB_TRY(mb_sweep_add(sweep, label == NULL ? "" : json_string_value(label), target, error,
                                    bound, err));
        }
    return MB_OK;
}

static enum mb_status read_plans(struct mb_sweep *sweep, const json_t *entry, struct mb_error *err)
{
    static const char *const keys[] = {"label", "plan", "dense_bound", NULL};
    const json_t *label = json_object_get(entry, "label"), *plans = json_object_get(entry, "plan");
    const json_t *dense = json_object_get(entry, "dense_bound");
    struct mb_bound unused;
    const char *plan;
    MB_TRY(check_keys(entry, keys, err));
    MB_TRY(check_texts(entry, "plan", true, err));
    if (dense != NULL && !json_is_string(dense))
        return mb_fail(err, MB_BAD_DATA, "'dense_bound' has to be a text");
    if (dense != NULL && mb_bound_parse(json_string_value(dense), &unused, err) != MB_OK)
        return mb_fail_in(err, MB_BAD_DATA, "'dense_bound'");
    for (size_t i = 0; (plan = text_at(plans, i)) != NULL; i++)
        MB_TRY(add_plan(sweep, label == NULL ? "" : json_string_value(label), plan, json_string_value(dense),
                        err));
    return MB_OK;
}

static enum mb_status read_entry(struct mb_sweep *sweep, const json_t *entry, struct mb_error *err)
{
    static const char *const keys[] = {"label", "target", "error", "bound", NULL};
    if (!json_is_object(entry))
        return mb_fail(err, MB_BAD_DATA, "not an object");
    const json_t *label = json_object_get(entry, "label");
    if (label != NULL && !json_is_string(label))
        return mb_fail(err, MB_BAD_DATA, "'label' has to be a text");
    if (json_object_get(entry, "plan") != NULL)
        return read_plans(sweep, entry, err);
    MB_TRY(check_keys(entry, keys, err));
    MB_TRY(check_texts(entry, "target", true, err));
    MB_TRY(check_texts(entry, "error", true, err));
    MB_TRY(check_texts(entry, "bound", false, err));
    return add_combinations(sweep, entry, err);
}

static enum mb_status read_runs(struct mb_sweep *sweep, const json_t *root, struct mb_error *err)
{
    const json_t *runs = json_object_get(root, "runs");
    struct mb_sweep_item clean = {.label = (char *)"", .target = (char *)"", .error = (char *)"none"};
    MB_TRY(add_item(sweep, &clean, err));
    if (sweep->suite != NULL)
        return MB_OK; /* its runs depend on the model */
    if (!json_is_array(runs) || json_array_size(runs) == 0)
        return mb_fail(err, MB_BAD_DATA, "'runs' has to be a list that is not empty");
    for (size_t i = 0; i < json_array_size(runs); i++) {
        enum mb_status status = read_entry(sweep, json_array_get(runs, i), err);
        if (status != MB_OK)
            return mb_fail_in(err, status, "entry %zu of 'runs'", i + 1);
    }
    return MB_OK;
}

static enum mb_status read_size(const json_t *root, const char *key, json_int_t min, size_t *size,
                                struct mb_error *err)
{
    const json_t *value = json_object_get(root, key);
    *size = 0;
    if (value == NULL)
        return MB_OK;
    if (!json_is_integer(value) || json_integer_value(value) < min || json_integer_value(value) > 1000000000)
        return mb_fail(err, MB_BAD_DATA, "'%s' has to be a whole number, at least %lld", key, (long long)min);
    *size = (size_t)json_integer_value(value);
    return MB_OK;
}

static enum mb_status add_seed(struct mb_sweep *sweep, const json_t *value, struct mb_error *err)
{
    uint64_t seed = (uint64_t)json_integer_value(value);
    if (!json_is_integer(value) || json_integer_value(value) < 1)
        return mb_fail(err, MB_BAD_DATA, "'seeds': a seed is a whole number from 1 on");
    for (size_t i = 0; i < sweep->n_seeds; i++)
        if (sweep->seeds[i] == seed)
            return mb_fail(err, MB_BAD_DATA, "'seeds' has %llu twice", (unsigned long long)seed);
    sweep->seeds[sweep->n_seeds++] = seed;
    return MB_OK;
}

static enum mb_status read_seeds(struct mb_sweep *sweep, const json_t *root, struct mb_error *err)
{
    const json_t *seeds = json_object_get(root, "seeds");
    json_int_t count = seeds == NULL            ? 1
                       : json_is_integer(seeds) ? json_integer_value(seeds)
                       : json_is_array(seeds)   ? (json_int_t)json_array_size(seeds)
                                                : 0;
    if (count < 1 || count > N_SEEDS_MAX)
        return mb_fail(err, MB_BAD_DATA,
                       "'seeds' has to be a number from 1 to %d, or a list of as many seeds", N_SEEDS_MAX);
    sweep->seeds = calloc((size_t)count, sizeof *sweep->seeds);
    if (sweep->seeds == NULL)
        return mb_fail_memory(err, "the seeds");
    if (json_is_array(seeds)) {
        for (size_t i = 0; i < (size_t)count; i++)
            MB_TRY(add_seed(sweep, json_array_get(seeds, i), err));
        return MB_OK;
    }
    for (; sweep->n_seeds < (size_t)count; sweep->n_seeds++)
        sweep->seeds[sweep->n_seeds] = sweep->n_seeds + 1;
    return MB_OK;
}

static enum mb_status read_text(const json_t *root, const char *key, char **text, struct mb_error *err)
{
    const json_t *value = json_object_get(root, key);
    *text = NULL;
    if (value == NULL)
        return MB_OK;
    if (!json_is_string(value) || json_string_length(value) == 0 ||
        strlen(json_string_value(value)) != json_string_length(value))
        return mb_fail(err, MB_BAD_DATA, "'%s' has to be a text", key);
    *text = strdup(json_string_value(value));
    return *text != NULL ? MB_OK : mb_fail_memory(err, "the sweep");
}

static enum mb_status read_root(struct mb_sweep *sweep, const json_t *root, struct mb_error *err)
{
    static const char *const keys[] = {"sweep",    "task",     "limit", "predict", "text",
                                       "ctx_size", "windows",  "seeds", "runs",    "suite",
                                       "few_shot", "examples", NULL};
    const json_t *form = json_object_get(root, "sweep");
    if (!json_is_integer(form) || json_integer_value(form) != 1)
        return mb_fail(err, MB_BAD_DATA, "no sweep file: \"sweep\": 1 is missing");
    MB_TRY(check_keys(root, keys, err));
    MB_TRY(read_text(root, "task", &sweep->task, err));
    MB_TRY(read_text(root, "text", &sweep->text, err));
    MB_TRY(read_text(root, "suite", &sweep->suite, err));
    MB_TRY(read_text(root, "examples", &sweep->examples, err));
    MB_TRY(read_size(root, "few_shot", 1, &sweep->n_examples, err));
    MB_TRY(read_size(root, "limit", 1, &sweep->limit, err));
    MB_TRY(read_size(root, "predict", 1, &sweep->n_predict, err));
    MB_TRY(read_size(root, "ctx_size", 4, &sweep->n_ctx, err));
    MB_TRY(read_size(root, "windows", 1, &sweep->n_windows, err));
    MB_TRY(read_seeds(sweep, root, err));
    if (sweep->suite != NULL && strcmp(sweep->suite, "paper") != 0)
        return mb_fail(err, MB_BAD_DATA, "'suite' is \"paper\" or absent");
    if (sweep->task == NULL && sweep->text == NULL)
        return mb_fail(err, MB_USAGE, "nothing to measure: a sweep needs a task or a text");
    if (sweep->suite != NULL && sweep->task == NULL)
        return mb_fail(err, MB_USAGE, "the paper's suite needs a task");
    if (sweep->suite != NULL && json_object_get(root, "runs") != NULL)
        return mb_fail(err, MB_USAGE, "'runs' beside 'suite': a sweep has one of them");
    if (sweep->n_ctx != 0 && sweep->text == NULL)
        return mb_fail(err, MB_USAGE, "'ctx_size' is of a text, and there is none");
    if ((sweep->limit != 0 || sweep->n_predict != 0 || sweep->n_examples != 0) && sweep->task == NULL)
        return mb_fail(err, MB_USAGE, "'limit', 'predict' and 'few_shot' are of a task, and there is none");
    if (sweep->examples != NULL && sweep->n_examples == 0)
        return mb_fail(err, MB_USAGE, "'examples' needs 'few_shot': how many of them");
    return read_runs(sweep, root, err);
}

/* ---------------------------------------------------------------- flags as members */

/* A path of the file is relative to it. NULL: it stays as it is. */
static json_t *resolved(const json_t *path, const char *file)
{
    const char *text = json_string_value(path), *slash = strrchr(file, '/');
    if (text == NULL || text[0] == '/' || text[0] == '\0' || slash == NULL)
        return NULL;
    return json_sprintf("%.*s/%s", (int)(slash - file), file, text);
}

static void resolve(json_t *object, const char *key, const char *file)
{
    json_t *whole = resolved(json_object_get(object, key), file);
    if (whole != NULL)
        json_object_set_new(object, key, whole);
}

static void resolve_plans(json_t *root, const char *file)
{
    const json_t *runs = json_object_get(root, "runs");
    for (size_t i = 0; i < json_array_size(runs); i++) {
        json_t *entry = json_array_get(runs, i), *plans = json_object_get(entry, "plan");
        resolve(entry, "plan", file);
        for (size_t k = 0; k < json_array_size(plans); k++) {
            json_t *whole = resolved(json_array_get(plans, k), file);
            if (whole != NULL)
                json_array_set_new(plans, k, whole);
        }
    }
}

static json_t *split(const char *list)
{
    json_t *texts = json_array();
    for (const char *begin = list;; begin++) {
        size_t n = strcspn(begin, ",");
        json_array_append_new(texts, json_stringn(begin, n));
        begin += n;
        if (*begin == '\0')
            return texts;
    }
}

static json_t *list_of(const char *const *texts, size_t n)
{
    json_t *list = json_array();
    for (size_t i = 0; i < n; i++)
        json_array_append_new(list, json_string(texts[i]));
    return list;
}

static json_t *runs_of(const struct mb_sweep_flags *flags)
{
    json_t *runs = json_array();
    if (flags->n_targets > 0) {
        json_t *entry = json_object();
        json_object_set_new(entry, "target", list_of(flags->targets, flags->n_targets));
        json_object_set_new(entry, "error", split(flags->errors == NULL ? "codec" : flags->errors));
        if (flags->bounds != NULL)
            json_object_set_new(entry, "bound", split(flags->bounds));
        json_array_append_new(runs, entry);
    }
    if (flags->n_plans > 0) {
        json_t *entry = json_object();
        json_object_set_new(entry, "plan", list_of(flags->plans, flags->n_plans));
        if (flags->dense_bound != NULL)
            json_object_set_new(entry, "dense_bound", json_string(flags->dense_bound));
        json_array_append_new(runs, entry);
    }
    return runs;
}

static void set_size(json_t *root, const char *key, size_t value)
{
    if (value != 0)
        json_object_set_new(root, key, json_integer((json_int_t)value));
}

static enum mb_status set_text(json_t *root, const char *key, const char *text, struct mb_error *err)
{
    if (text == NULL)
        return MB_OK;
    return json_object_set_new(root, key, json_string(text)) == 0
               ? MB_OK
               : mb_fail(err, MB_USAGE, "%s '%.64s': not UTF-8", key, text);
}

static enum mb_status apply_flags(json_t *root, const struct mb_sweep_flags *flags, struct mb_error *err)
{
    MB_TRY(set_text(root, "task", flags->task, err));
    MB_TRY(set_text(root, "text", flags->text, err));
    MB_TRY(set_text(root, "suite", flags->suite, err));
    MB_TRY(set_text(root, "examples", flags->examples, err));
    set_size(root, "few_shot", flags->n_examples);
    set_size(root, "limit", flags->limit);
    set_size(root, "predict", flags->n_predict);
    set_size(root, "ctx_size", flags->n_ctx);
    set_size(root, "windows", flags->n_windows);
    set_size(root, "seeds", flags->n_seeds);
    if (flags->n_targets > 0 || flags->n_plans > 0)
        json_object_set_new(root, "runs", runs_of(flags));
    return MB_OK;
}

static enum mb_status read_json(const char *path, const struct mb_sweep_flags *flags, json_t **root,
                                struct mb_error *err)
{
    if (path == NULL)
        *root = json_pack("{s:i}", "sweep", 1);
    else
        MB_TRY(mb_json_read(path, SWEEP_NBYTES_MAX, root, err));
    if (*root == NULL)
        return mb_fail_memory(err, "the sweep");
    if (path != NULL) {
        resolve(*root, "task", path);
        resolve(*root, "text", path);
        resolve(*root, "examples", path);
        resolve_plans(*root, path);
    }
    return apply_flags(*root, flags, err);
}

static enum mb_status read_sweep(struct mb_sweep *sweep, const json_t *root, struct mb_error *err)
{
    MB_TRY(read_root(sweep, root, err));
    sweep->form = mb_json_text(root, JSON_SORT_KEYS | JSON_COMPACT, NULL);
    return sweep->form != NULL ? MB_OK : mb_fail_memory(err, "the sweep");
}

enum mb_status mb_sweep_read(const char *path, const struct mb_sweep_flags *flags, struct mb_sweep **sweep,
                             struct mb_error *err)
{
    struct mb_sweep_flags known;
    json_t *root = NULL;
    MB_TRY(MB_OPTIONS_TAKE(known, flags, err));
    struct mb_sweep *made = calloc(1, sizeof *made);
    if (made == NULL)
        return mb_fail_memory(err, "the sweep");
    enum mb_status status = read_json(path, &known, &root, err);
    if (status == MB_OK) {
        status = read_sweep(made, root, err);
        if (status != MB_OK && path != NULL)
            status = mb_fail_in(err, status, "%s", path);
    }
    json_decref(root);
    if (status == MB_OK)
        *sweep = made;
    else
        mb_sweep_close(made);
    return status;
}

enum mb_status mb_sweep_copy(const struct mb_sweep *sweep, struct mb_sweep **copy, struct mb_error *err)
{
    json_t *root;
    MB_TRY(mb_json_parse(sweep->form, strlen(sweep->form), 0, &root, err));
    struct mb_sweep *made = calloc(1, sizeof *made);
    enum mb_status status = made == NULL ? mb_fail_memory(err, "the sweep") : read_sweep(made, root, err);
    json_decref(root);
    if (status == MB_OK)
        *copy = made;
    else
        mb_sweep_close(made);
    return status;
}

void mb_sweep_close(struct mb_sweep *sweep)
{
    if (sweep == NULL)
        return;
    for (size_t i = 0; i < sweep->n_items; i++)
        free_item(&sweep->items[i]);
    free(sweep->items);
    free(sweep->task);
    free(sweep->text);
    free(sweep->examples);
    free(sweep->seeds);
    free(sweep->suite);
    free(sweep->form);
    free(sweep);
}
