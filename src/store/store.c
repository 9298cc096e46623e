/*
 * store.c - hands out matrices, keeps book of experts, and lays changed matrices over those of the model.
 *
 * Each weight has one view, which every user sees: an overlay changes the view and nothing else.  Where the
 * bytes are is the affair of a kind of store (store.h).
 */
#include "store.h"
#include "base/error.h"
#include "base/options.h"
#include "base/value.h"
#include <inttypes.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

struct mb_store {
    const struct mb_index *index;
    const struct mb_store_kind *kind;
    void *bytes;
    struct mb_views views;
    bool *is_used;     /* [n_weights] */
    bool *is_streamed; /* [n_weights] it has bytes while its expert is acquired, and not else */
    struct mb_bound_layer *layers;
    size_t n_layers, n_experts; /* experts of all layers */
    _Atomic size_t n_acquired;  /* experts */
};

/* ---------------------------------------------------------------- open and close */

static enum mb_status open_store(struct mb_store *store, const struct mb_store_options *options,
                                 struct mb_error *err)
{
    size_t n = store->index->n_weights + 1;
    store->views.index = store->index;
    store->views.at = calloc(n, sizeof *store->views.at);
    store->views.originals = calloc(n, sizeof(struct mb_matrix *));
    store->is_used = calloc(n, sizeof *store->is_used);
    store->is_streamed = calloc(n, sizeof *store->is_streamed);
    if (store->views.at == NULL || store->views.originals == NULL || store->is_used == NULL ||
        store->is_streamed == NULL)
        return mb_fail_memory(err, "the views of weights");
    bool is_streamed = mb_checkpoint_is_coded(store->index->ckpt) &&
                       mb_ram_store_nbytes(store->index) > mb_store_weight_nbytes(options);
    store->kind = is_streamed ? &mb_disk_store : &mb_ram_store;
    return is_streamed ? mb_disk_store_open(&store->views, options, &store->bytes, err)
                       : mb_ram_store_open(store->index, options, &store->bytes, err);
}

enum mb_status mb_store_open(const struct mb_index *index, const struct mb_store_options *options,
                             struct mb_store **store, struct mb_error *err)
{
    struct mb_store_options taken;
    MB_TRY(MB_OPTIONS_TAKE(taken, options, err));
    struct mb_store *s = calloc(1, sizeof *s);
    if (s == NULL)
        return mb_fail_memory(err, "a store of weights");
    s->index = index;
    enum mb_status status = open_store(s, &taken, err);
    if (status != MB_OK) {
        mb_store_close(s);
        return status;
    }
    *store = s;
    return MB_OK;
}

static void free_layer(struct mb_bound_layer *layer)
{
    for (size_t e = 0; e < layer->n_experts; e++) {
        free(layer->experts[e].weights);
        free(layer->experts[e].matrices);
    }
    free(layer->experts);
}

void mb_store_close(struct mb_store *store)
{
    if (store == NULL)
        return;
    if (store->kind != NULL)
        store->kind->close(store->bytes); /* first: it may still be reading experts that are bound */
    for (size_t i = 0; i < store->n_layers; i++)
        free_layer(&store->layers[i]);
    free(store->layers);
    for (size_t i = 0; store->views.originals != NULL && i < store->index->n_weights; i++)
        free(store->views.originals[i]);
    free(store->views.originals);
    free(store->is_used);
    free(store->is_streamed);
    free(store->views.at);
    free(store);
}

struct mb_store_memory mb_store_memory(const struct mb_store *store)
{
    struct mb_store_memory memory = store->kind->memory(store->bytes);
    memory.table_nbytes += mb_index_nbytes(store->index) +
                           store->index->n_weights * (sizeof *store->views.at + sizeof(struct mb_matrix *));
    return memory;
}

static size_t number_of(const struct mb_store *store, const struct mb_weight_info *weight)
{
    return (size_t)(weight - store->index->weights);
}

uint64_t mb_store_product_nbytes(const struct mb_store *store, const char *name)
{
    const struct mb_weight_info *weight = mb_index_find(store->index, name);
    if (weight == NULL)
        return 0;
    const struct mb_matrix *view = &store->views.at[number_of(store, weight)];
    bool is_as_stored = view->n_rows == 0 || !view->is_coded || view->coded.form == MB_FORM_PATCHED;
    return is_as_stored ? weight->product_nbytes : mb_coded_nbytes(&view->coded);
}

/* ---------------------------------------------------------------- weights that are always needed */

/* Finds a matrix and makes its view, unless there is one. */
static enum mb_status view_matrix(struct mb_store *store, const struct mb_expert_part *part, mb_view_fn make,
                                  const struct mb_weight_info **weight, const struct mb_matrix **matrix,
                                  struct mb_error *err)
{
    MB_TRY(mb_index_find_matrix(store->index, part->name, part->n_rows, part->n_cols, weight, err));
    struct mb_matrix *view = &store->views.at[number_of(store, *weight)];
    if (view->n_rows == 0)
        MB_TRY(make(store->bytes, *weight, view, err));
    store->is_used[number_of(store, *weight)] = true;
    *matrix = view;
    return MB_OK;
}

static enum mb_status fail_streamed(const struct mb_weight_info *weight, struct mb_error *err)
{
    return mb_fail(err, MB_UNSUPPORTED,
                   "%s: it belongs to an expert that is streamed from disk; with more memory (--memory) all "
                   "experts stay",
                   weight->name);
}

enum mb_status mb_store_matrix(struct mb_store *store, const char *name, uint64_t n_rows, uint64_t n_cols,
                               const struct mb_matrix **matrix, struct mb_error *err)
{
    const struct mb_expert_part part = {name, n_rows, n_cols};
    const struct mb_weight_info *weight;
    MB_TRY(view_matrix(store, &part, store->kind->keep, &weight, matrix, err));
    return store->is_streamed[number_of(store, weight)] ? fail_streamed(weight, err) : MB_OK;
}

enum mb_status mb_store_vector(struct mb_store *store, const char *name, uint64_t n, float *out,
                               struct mb_error *err)
{
    const struct mb_weight_info *weight = mb_index_find(store->index, name);
    if (weight == NULL)
        return mb_index_fail_missing(store->index, name, err);
    if (weight->is_coded || weight->type > MB_TENSOR_BF16 || weight->n_elems != n)
        return mb_fail(err, MB_BAD_DATA, "%s: tensor %s: not %" PRIu64 " numbers of F32, F16 or BF16",
                       mb_tensor_path(store->index->ckpt, weight->tensor), name, n);
    struct mb_matrix view;
    MB_TRY(store->kind->keep(store->bytes, weight, &view, err));
    for (uint64_t i = 0; i < n; i++)
        out[i] = mb_load_value(view.dtype, view.dense, i);
    store->is_used[number_of(store, weight)] = true;
    return MB_OK;
}

size_t mb_store_unused(const struct mb_store *store, const char **names, size_t n_max)
{
    size_t n = 0;
    for (size_t i = 0; i < store->index->n_weights; i++) {
        if (store->is_used[i])
            continue;
        if (n < n_max)
            names[n] = store->index->weights[i].name;
        n++;
    }
    return n;
}

/* ---------------------------------------------------------------- experts */

static enum mb_status make_layer(struct mb_store *store, size_t layer, struct mb_error *err)
{
    if (layer < store->n_layers)
        return MB_OK;
    struct mb_bound_layer *layers = realloc(store->layers, (layer + 1) * sizeof *layers);
    if (layers == NULL)
        return mb_fail_memory(err, "the list of layers");
    memset(layers + store->n_layers, 0, (layer + 1 - store->n_layers) * sizeof *layers);
    store->layers = layers;
    store->n_layers = layer + 1;
    return MB_OK;
}

static enum mb_status make_expert(struct mb_bound_layer *layer, size_t expert, struct mb_error *err)
{
    if (expert < layer->n_experts)
        return MB_OK;
    struct mb_bound_expert *experts = realloc(layer->experts, (expert + 1) * sizeof *experts);
    if (experts == NULL)
        return mb_fail_memory(err, "the list of experts");
    memset(experts + layer->n_experts, 0, (expert + 1 - layer->n_experts) * sizeof *experts);
    layer->experts = experts;
    layer->n_experts = expert + 1;
    return MB_OK;
}

/* What *bound holds after a failure is freed when the store is closed. */
static enum mb_status fill_expert(struct mb_store *store, struct mb_bound_expert *bound,
                                  const struct mb_expert_part *parts, size_t n_parts, struct mb_error *err)
{
    bound->weights = calloc(n_parts, sizeof(const struct mb_weight_info *));
    bound->matrices = calloc(n_parts, sizeof(const struct mb_matrix *));
    if (bound->weights == NULL || bound->matrices == NULL)
        return mb_fail_memory(err, "the list of experts");
    for (size_t i = 0; i < n_parts; i++) {
        MB_TRY(
            view_matrix(store, &parts[i], store->kind->bind, &bound->weights[i], &bound->matrices[i], err));
        store->is_streamed[number_of(store, bound->weights[i])] = store->kind == &mb_disk_store;
    }
    bound->n_parts = n_parts;
    bound->id = store->n_experts++;
    return MB_OK;
}

enum mb_status mb_store_bind_expert(struct mb_store *store, size_t layer, size_t expert,
                                    const struct mb_expert_part *parts, size_t n_parts, struct mb_error *err)
{
    MB_TRY(make_layer(store, layer, err));
    MB_TRY(make_expert(&store->layers[layer], expert, err));
    struct mb_bound_expert *bound = &store->layers[layer].experts[expert];
    if (n_parts == 0 || n_parts > MB_EXPERT_PARTS_MAX || bound->weights != NULL)
        return mb_fail(err, MB_USAGE, "expert %zu of layer %zu is bound already, or not to 1 to %d matrices",
                       expert, layer, MB_EXPERT_PARTS_MAX);
    return fill_expert(store, bound, parts, n_parts, err);
}

static bool are_bound(const struct mb_store *store, size_t layer, const uint32_t *experts, size_t n)
{
    if (layer >= store->n_layers)
        return false;
    for (size_t i = 0; i < n; i++)
        if (experts[i] >= store->layers[layer].n_experts ||
            store->layers[layer].experts[experts[i]].n_parts == 0)
            return false;
    return true;
}

enum mb_status mb_store_ready(struct mb_store *store, struct mb_error *err)
{
    return store->kind->ready(store->bytes, store->layers, store->n_layers, err);
}

size_t mb_store_begin(struct mb_store *store, size_t layer, uint32_t *experts, size_t n,
                      enum mb_store_use use)
{
    bool are = n > 0 && are_bound(store, layer, experts, n);
    return are ? store->kind->begin(store->bytes, &store->layers[layer], experts, n, use) : 0;
}

enum mb_status mb_store_acquire_some(struct mb_store *store, size_t layer, uint32_t *experts, size_t n,
                                     size_t n_max, enum mb_store_use use, struct mb_expert_view *out,
                                     size_t *n_acquired, struct mb_error *err)
{
    if (n_max > MB_STORE_WAVE || n_max == 0 || !are_bound(store, layer, experts, n))
        return mb_fail(err, MB_USAGE, "layer %zu: more than %d experts at once, or one that is not bound",
                       layer, MB_STORE_WAVE);
    const struct mb_bound_layer *bound = &store->layers[layer];
    MB_TRY(store->kind->acquire(store->bytes, bound, experts, n, n_max, use, n_acquired, err));
    for (size_t i = 0; i < *n_acquired; i++)
        out[i].matrices = bound->experts[experts[i]].matrices;
    atomic_fetch_add(&store->n_acquired, *n_acquired);
    return MB_OK;
}

static enum mb_status acquire_all(struct mb_store *store, size_t layer, uint32_t *left, size_t n,
                                  struct mb_error *err)
{
    struct mb_expert_view views[MB_STORE_WAVE];
    for (size_t n_done = 0, n_more; n_done < n; n_done += n_more) {
        enum mb_status status = mb_store_acquire_some(store, layer, left + n_done, n - n_done, n - n_done,
                                                      MB_STORE_KEEP, views, &n_more, err);
        if (status != MB_OK) {
            mb_store_release(store, layer, left, n_done);
            return status;
        }
    }
    return MB_OK;
}

enum mb_status mb_store_acquire(struct mb_store *store, size_t layer, const uint32_t *experts, size_t n,
                                struct mb_expert_view *out, struct mb_error *err)
{
    uint32_t left[MB_STORE_WAVE];
    if (n > MB_STORE_WAVE || !are_bound(store, layer, experts, n))
        return mb_fail(err, MB_USAGE, "layer %zu: more than %d experts at once, or one that is not bound",
                       layer, MB_STORE_WAVE);
    if (n > 0)
        memcpy(left, experts, n * sizeof *left);
    MB_TRY(acquire_all(store, layer, left, n, err));
    for (size_t i = 0; i < n; i++)
        out[i].matrices = store->layers[layer].experts[experts[i]].matrices;
    return MB_OK;
}

void mb_store_release(struct mb_store *store, size_t layer, const uint32_t *experts, size_t n)
{
    if (n == 0)
        return;
    atomic_fetch_sub(&store->n_acquired, n);
    store->kind->release(store->bytes, &store->layers[layer], experts, n);
}

void mb_store_prefetch(struct mb_store *store, size_t layer, const uint32_t *experts, size_t n,
                       enum mb_store_hint hint)
{
    if (n > 0 && are_bound(store, layer, experts, n))
        store->kind->prefetch(store->bytes, &store->layers[layer], experts, n, hint);
}

struct mb_store_traffic mb_store_traffic(const struct mb_store *store)
{
    return store->kind->traffic(store->bytes);
}

/* ---------------------------------------------------------------- changed weights */

static enum mb_status lay_over(struct mb_matrix *view, struct mb_matrix **original,
                               const struct mb_matrix *changed, struct mb_error *err)
{
    if (*original == NULL) {
        *original = malloc(sizeof **original);
        if (*original == NULL)
            return mb_fail_memory(err, "a changed matrix");
        **original = *view;
    }
    *view = *changed;
    if (view->is_coded && view->bits_per_weight == 0)
        view->bits_per_weight =
            8 * (double)mb_coded_nbytes(&view->coded) / ((double)view->n_rows * (double)view->n_cols);
    return MB_OK;
}

static void take_off(struct mb_matrix *view, struct mb_matrix **original)
{
    if (*original == NULL)
        return;
    *view = **original;
    free(*original);
    *original = NULL;
}

enum mb_status mb_store_overlay(struct mb_store *store, const char *name, const struct mb_matrix *changed,
                                struct mb_error *err)
{
    const struct mb_weight_info *weight = mb_index_find(store->index, name);
    if (weight == NULL || store->views.at[number_of(store, weight)].n_rows == 0)
        return mb_fail(err, MB_BAD_DATA, "%s: no matrix that is in use", name);
    if (store->n_acquired > 0)
        return mb_fail(err, MB_USAGE, "%s: cannot be changed while an expert is acquired", name);
    size_t i = number_of(store, weight);
    if (changed == NULL) {
        take_off(&store->views.at[i], &store->views.originals[i]);
        return MB_OK;
    }
    if (changed->n_rows != weight->n_rows || changed->n_cols != weight->n_cols)
        return mb_fail(err, MB_USAGE,
                       "%s: shape [%" PRIu64 ", %zu], but the model's is [%" PRIu64 ", %" PRIu64 "]", name,
                       changed->n_rows, changed->n_cols, weight->n_rows, weight->n_cols);
    if (changed->is_coded && changed->coded.col_exponents != NULL && !mb_may_have_exponents(name))
        return mb_fail(err, MB_USAGE, "%s: its columns cannot have exponents", name);
    return lay_over(&store->views.at[i], &store->views.originals[i], changed, err);
}

enum mb_status mb_store_original(const struct mb_store *store, const char *name, struct mb_matrix *matrix,
                                 struct mb_error *err)
{
    const struct mb_weight_info *weight = mb_index_find(store->index, name);
    if (weight == NULL || store->views.at[number_of(store, weight)].n_rows == 0)
        return mb_fail(err, MB_BAD_DATA, "%s: no matrix that is in use", name);
    size_t i = number_of(store, weight);
    if (store->is_streamed[i])
        return fail_streamed(weight, err);
    *matrix = store->views.originals[i] != NULL ? *store->views.originals[i] : store->views.at[i];
    return MB_OK;
}

void mb_matrix_rows(const struct mb_matrix *matrix, uint64_t row, uint64_t n_rows, float *out)
{
    if (matrix->is_coded) {
        mb_kernels()->decode_rows(&matrix->coded, row, n_rows, out);
        return;
    }
    size_t n = (size_t)n_rows * matrix->n_cols;
    const uint8_t *from =
        (const uint8_t *)matrix->dense + row * matrix->n_cols * mb_dtype_nbytes(matrix->dtype);
    for (size_t i = 0; i < n; i++)
        out[i] = mb_load_value(matrix->dtype, from, i);
}
