/*
 * layout.c - where everything goes: tensors to units, units and exact tensors to shards, and their order.
 */
#include "layout.h"
#include "base/error.h"
#include "roles.h"
#include "text_model.h"
#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

/* Layers from LAYER_MAX on share a shard: whatever the names are, readers have a limit of 10,000 shards. */
enum { LAYER_NONE = -1, LAYER_MAX = 1000 };

/* ---------------------------------------------------------------- items */

/* The last dot of the first n bytes; n: there is none. */
static size_t last_dot(const char *name, size_t n)
{
    for (size_t i = n; i-- > 0;)
        if (name[i] == '.')
            return i;
    return n;
}

/* A blob is called "STEM.moebius": of an expert's "STEM.up_proj.weight", and of any other "STEM.weight". */
static void split_name(struct mb_layout_item *item)
{
    const char *name = item->tensor->name;
    size_t n = strlen(name), n_stem = last_dot(name, n);
    if (item->class == MB_CLASS_EXPERT)
        n_stem = last_dot(name, n_stem);
    if (n_stem == n)
        return;
    item->n_stem = n_stem;
    item->suffix = name + n_stem + 1;
}

static struct mb_layout_item make_item(const struct mb_tensor *tensor)
{
    struct mb_layout_item item = {.tensor = tensor, .class = mb_bound_class_of(tensor->name)};
    if (item.class == MB_CLASS_EXPERT)
        item.order = mb_role_of(tensor->name).projection - MB_PROJECTION_GATE;
    split_name(&item);
    return item;
}

/* What cannot be coded stays exact, unless the plan asks to code this very tensor. */
static enum mb_status keep_exact(const struct mb_checkpoint *ckpt, struct mb_layout_item *item,
                                 bool is_planned, const char *why, struct mb_error *err)
{
    if (is_planned)
        return mb_fail(err, MB_USAGE,
                       "%s: tensor %s: %s; take it out of the plan, or give it the bound \"0\"",
                       mb_tensor_path(ckpt, item->tensor), item->tensor->name, why);
    item->bound = (struct mb_bound){MB_BOUND_EXACT, 0};
    return MB_OK;
}

static enum mb_status set_bound(const struct mb_checkpoint *ckpt, struct mb_bounds *bounds,
                                struct mb_layout_item *item, struct mb_error *err)
{
    const struct mb_tensor *tensor = item->tensor;
    assert(tensor != NULL);
    bool is_matrix = tensor->n_dims == 2 && tensor->n_elems > 0 && item->n_stem > 0, is_planned;
    bool is_text = mb_part_of(ckpt, tensor->name) == MB_PART_TEXT;
    MB_TRY(mb_bounds_find(bounds, tensor->name, is_text, &item->bound, &is_planned, err));
    if (item->bound.kind == MB_BOUND_EXACT)
        return MB_OK;
    if (!is_matrix) /* the pattern ".*" means the matrices among them */
        return keep_exact(ckpt, item, is_planned, "is not a matrix, only matrices can be coded", err);
    if (!mb_tensor_is_float(tensor) && item->class < MB_CLASS_EMBEDDING)
        return mb_fail(err, MB_UNSUPPORTED,
                       "%s: tensor %s: %s weights are not supported; convert them to bf16 first",
                       mb_tensor_path(ckpt, tensor), tensor->name, tensor->type_name);
    if (!mb_tensor_is_float(tensor))
        return keep_exact(ckpt, item, is_planned, "is not of type F32, F16 or BF16", err);
    if (tensor->shape[1] > MB_COLS_MAX)
        return keep_exact(ckpt, item, is_planned, "has more columns than can be coded", err);
    return MB_OK;
}

static enum mb_status ask_for_bounds(const struct mb_checkpoint *ckpt, struct mb_bounds *bounds,
                                     struct mb_layout *layout, struct mb_error *err)
{
    for (size_t i = 0; i < layout->n_items; i++)
        MB_TRY(set_bound(ckpt, bounds, &layout->items[i], err));
    return mb_bounds_check_used(bounds, ckpt->path, err);
}

/* The matrices of routed experts are what compression is for: without them a mistake is likely. */
static enum mb_status check_experts(const struct mb_checkpoint *ckpt, struct mb_error *err)
{
    for (size_t i = 0; i < ckpt->n_tensors; i++) {
        struct mb_tensor_role role = mb_role_of(ckpt->tensors[i]->name);
        if (role.role == MB_ROLE_EXPERT && role.projection != MB_PROJECTION_NONE)
            return MB_OK;
    }
    return mb_fail(err, MB_BAD_DATA,
                   "%s: no experts were found among its tensors; give --dense to compress the other matrices "
                   "alone",
                   ckpt->path);
}

static enum mb_status set_bounds(const struct mb_checkpoint *ckpt, const struct mb_compress_options *options,
                                 struct mb_layout *layout, struct mb_error *err)
{
    struct mb_bounds *bounds;
    MB_TRY(mb_bounds_create(options, &bounds, err));
    enum mb_status status = ask_for_bounds(ckpt, bounds, layout, err);
    mb_bounds_free(bounds);
    return status;
}

/* ---------------------------------------------------------------- shards */

static long layer_of(const char *name)
{
    int layer = mb_role_of(name).layer;
    return layer < LAYER_MAX ? layer : LAYER_NONE;
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

static int by_stem(const struct mb_layout_item *x, const struct mb_layout_item *y)
{
    char a[600], b[600]; /* names are at most 512 bytes */
    snprintf(a, sizeof a, "%.*s", (int)x->n_stem, x->tensor->name);
    snprintf(b, sizeof b, "%.*s", (int)y->n_stem, y->tensor->name);
    int natural = strverscmp(a, b);
    return natural != 0 ? natural : strcmp(a, b);
}

static int by_place(const void *a, const void *b)
{
    const struct mb_layout_item *x = a, *y = b;
    if (x->shard != y->shard)
        return x->shard < y->shard ? -1 : 1;
    int stem = by_stem(x, y);
    if (stem != 0)
        return stem;
    if (x->order != y->order)
        return x->order < y->order ? -1 : 1;
    return strcmp(x->tensor->name, y->tensor->name);
}

static bool same_unit(const struct mb_layout_item *x, const struct mb_layout_item *y)
{
    return x->n_stem == y->n_stem && x->n_stem > 0 &&
           memcmp(x->tensor->name, y->tensor->name, x->n_stem) == 0;
}

static int by_size_and_name(const void *a, const void *b)
{
    const struct mb_exact *x = a, *y = b;
    if (x->shard != y->shard)
        return x->shard < y->shard ? -1 : 1;
    if (mb_elem_nbytes(x->tensor) != mb_elem_nbytes(y->tensor))
        return mb_elem_nbytes(x->tensor) > mb_elem_nbytes(y->tensor) ? -1 : 1;
    int natural = strverscmp(x->tensor->name, y->tensor->name);
    return natural != 0 ? natural : strcmp(x->tensor->name, y->tensor->name);
}

static void collect_units(struct mb_layout *layout)
{
    for (size_t i = 0; i < layout->n_items;) {
        struct mb_unit unit = {.first = i, .shard = layout->items[i].shard};
        do {
            unit.n_coded += layout->items[i].bound.kind != MB_BOUND_EXACT;
            unit.n++;
            i++;
        } while (i < layout->n_items && same_unit(&layout->items[unit.first], &layout->items[i]));
        if (unit.n_coded > 0)
            layout->units[layout->n_units++] = unit;
    }
}

static void collect_exact(struct mb_layout *layout)
{
    for (size_t i = 0; i < layout->n_items; i++)
        if (layout->items[i].bound.kind == MB_BOUND_EXACT)
            layout->exact[layout->n_exact++] =
                (struct mb_exact){layout->items[i].tensor, layout->items[i].shard};
    qsort(layout->exact, layout->n_exact, sizeof *layout->exact, by_size_and_name);
}

static enum mb_status place_items(struct mb_layout *layout, const char **names, size_t *shards,
                                  struct mb_error *err)
{
    for (size_t i = 0; i < layout->n_items; i++)
        names[i] = layout->items[i].tensor->name;
    MB_TRY(mb_assign_shards(names, layout->n_items, shards, &layout->n_shards, err));
    for (size_t i = 0; i < layout->n_items; i++)
        layout->items[i].shard = shards[i];
    return MB_OK;
}

static enum mb_status assign_shards(struct mb_layout *layout, struct mb_error *err)
{
    const char **names = calloc(layout->n_items + 1, sizeof *names);
    size_t *shards = calloc(layout->n_items + 1, sizeof *shards);
    enum mb_status status = names == NULL || shards == NULL ? mb_fail_memory(err, "the shards")
                                                            : place_items(layout, names, shards, err);
    free(names);
    free(shards);
    return status;
}

static uint64_t hash_item(const struct mb_layout_item *item, uint64_t hash)
{
    char bound[40];
    mb_bound_format(&item->bound, bound);
    hash = XXH3_64bits_withSeed(item->tensor->name, strlen(item->tensor->name), hash);
    return XXH3_64bits_withSeed(bound, strlen(bound), hash);
}

/* A blob's name has ".moebius" in place of ".weight": no other tensor may have it, and it has to fit. */
static enum mb_status check_name(const char *path, const char *name, struct mb_error *err)
{
    if (mb_name_ends_with(name, ".moebius"))
        return mb_fail(err, MB_UNSUPPORTED, "%s: tensor %s: names like this are for coded folders", path,
                       name);
    if (mb_name_ends_with(name, ".weight") && strlen(name) == MB_TENSOR_NAME_MAX)
        return mb_fail(err, MB_UNSUPPORTED, "%s: tensor %.60s...: %d bytes leave no room for .moebius", path,
                       name, MB_TENSOR_NAME_MAX);
    return MB_OK;
}

static enum mb_status make_layout(const struct mb_checkpoint *ckpt, const struct mb_compress_options *options,
                                  struct mb_layout *layout, struct mb_error *err)
{
    size_t n = ckpt->n_tensors + 1;
    layout->items = calloc(n, sizeof *layout->items);
    layout->units = calloc(n, sizeof *layout->units);
    layout->exact = calloc(n, sizeof *layout->exact);
    if (layout->items == NULL || layout->units == NULL || layout->exact == NULL)
        return mb_fail_memory(err, "the list of tensors");
    for (size_t i = 0; i < ckpt->n_tensors; i++) {
        MB_TRY(check_name(mb_tensor_path(ckpt, ckpt->tensors[i]), ckpt->tensors[i]->name, err));
        layout->items[layout->n_items++] = make_item(ckpt->tensors[i]);
    }
    if (!options->dense)
        MB_TRY(check_experts(ckpt, err));
    MB_TRY(set_bounds(ckpt, options, layout, err));
    MB_TRY(assign_shards(layout, err));
    qsort(layout->items, layout->n_items, sizeof *layout->items, by_place);
    for (size_t i = 0; i < layout->n_items; i++)
        layout->hash = hash_item(&layout->items[i], layout->hash);
    collect_units(layout);
    collect_exact(layout);
    return MB_OK;
}

enum mb_status mb_layout_make(const struct mb_checkpoint *ckpt, const struct mb_compress_options *options,
                              struct mb_layout *layout, struct mb_error *err)
{
    *layout = (struct mb_layout){0};
    enum mb_status status = make_layout(ckpt, options, layout, err);
    if (status != MB_OK)
        mb_layout_free(layout);
    return status;
}

void mb_layout_free(struct mb_layout *layout)
{
    free(layout->items);
    free(layout->units);
    free(layout->exact);
    *layout = (struct mb_layout){0};
}

/* ---------------------------------------------------------------- one shard */

struct mb_tensor mb_unit_tensor(const struct mb_layout *layout, const struct mb_unit *unit)
{
    const struct mb_layout_item *item = &layout->items[unit->first];
    struct mb_tensor tensor = {.type = MB_TENSOR_U8, .type_name = "U8", .n_dims = 1};
    char *name = NULL;
    if (asprintf(&name, "%.*s.moebius", (int)item->n_stem, item->tensor->name) >= 0)
        tensor.name = name;
    return tensor;
}

static void find_range(const struct mb_layout *layout, size_t shard, struct mb_shard_layout *planned)
{
    while (planned->first_unit < layout->n_units && layout->units[planned->first_unit].shard < shard)
        planned->first_unit++;
    while (planned->first_unit + planned->n_units < layout->n_units &&
           layout->units[planned->first_unit + planned->n_units].shard == shard)
        planned->n_units++;
    while (planned->first_exact < layout->n_exact && layout->exact[planned->first_exact].shard < shard)
        planned->first_exact++;
    while (planned->first_exact + planned->n_exact < layout->n_exact &&
           layout->exact[planned->first_exact + planned->n_exact].shard == shard)
        planned->n_exact++;
    for (size_t i = 0; i < layout->n_items; i++)
        if (layout->items[i].shard == shard)
            planned->hash = hash_item(&layout->items[i], planned->hash);
}

static bool list_coded(const struct mb_layout *layout, struct mb_shard_layout *planned)
{
    const struct mb_unit *units = layout->units + planned->first_unit;
    size_t n = 0;
    for (size_t i = 0; i < planned->n_units; i++)
        n += units[i].n_coded;
    planned->coded = calloc(n + 1, sizeof *planned->coded);
    for (size_t i = 0; i < planned->n_units && planned->coded != NULL; i++)
        for (size_t k = units[i].first; k < units[i].first + units[i].n; k++)
            if (layout->items[k].bound.kind != MB_BOUND_EXACT)
                planned->coded[planned->n_coded++] = layout->items[k].tensor->name;
    return planned->coded != NULL;
}

enum mb_status mb_shard_layout_make(const struct mb_layout *layout, size_t shard,
                                    struct mb_shard_layout *planned, struct mb_error *err)
{
    *planned = (struct mb_shard_layout){0};
    find_range(layout, shard, planned);
    planned->tensors = calloc(planned->n_units + planned->n_exact + 1, sizeof *planned->tensors);
    bool ok = planned->tensors != NULL && list_coded(layout, planned);
    for (size_t i = 0; i < planned->n_units && ok; i++) {
        planned->tensors[i] = mb_unit_tensor(layout, &layout->units[planned->first_unit + i]);
        ok = planned->tensors[i].name != NULL;
    }
    for (size_t i = 0; i < planned->n_exact && ok; i++)
        planned->tensors[planned->n_units + i] = *layout->exact[planned->first_exact + i].tensor;
    if (ok)
        return MB_OK;
    mb_shard_layout_free(planned);
    return mb_fail_memory(err, "the tensors of a shard");
}

void mb_shard_layout_free(struct mb_shard_layout *planned)
{
    for (size_t i = 0; i < planned->n_units && planned->tensors != NULL; i++)
        free((char *)planned->tensors[i].name);
    free(planned->tensors);
    free(planned->coded);
    planned->tensors = NULL;
    planned->coded = NULL;
}
