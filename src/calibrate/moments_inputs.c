/*
 * moments_inputs.c - see moments_inputs.h.
 */
#include "moments_inputs.h"
#include "base/error.h"
#include "base/memory.h"
#include <stdlib.h>
#include <string.h>

/* Vectors of a layer. Those of expert e are EXPERT + 2 e and the one after it. */
enum { ATTENTION, QUERY_LATENT, LATENT, ATTENDED, MLP, DENSE_HIDDEN, SHARED_HIDDEN, HEAD, NOTHING, EXPERT };

static bool is_part(const struct mb_model_matrix *m, const char *part)
{
    return strcmp(m->part, part) == 0;
}

static size_t attention_reads(const struct mb_model_matrix *m)
{
    return is_part(m, "q_b")    ? QUERY_LATENT
           : is_part(m, "kv_b") ? LATENT
           : is_part(m, "o")    ? ATTENDED
                                : ATTENTION;
}

/* The vectors that a matrix reads; its numbers are those of one layer alone. */
static size_t reads(const struct mb_model_matrix *m, bool has_head)
{
    switch (m->kind) {
    case MB_MATRIX_ATTENTION:
        return attention_reads(m);
    case MB_MATRIX_DENSE:
        return is_part(m, "down") ? DENSE_HIDDEN : MLP;
    case MB_MATRIX_ROUTER:
        return MLP;
    case MB_MATRIX_SHARED:
        return is_part(m, "down") ? SHARED_HIDDEN : MLP;
    case MB_MATRIX_EXPERT:
        return EXPERT + 2 * (size_t)m->expert + (is_part(m, "down") ? 1 : 0);
    case MB_MATRIX_EMBEDDING: /* of a model that has no head of its own: it is the head */
        return has_head ? NOTHING : HEAD;
    case MB_MATRIX_HEAD:
        return HEAD;
    }
    return NOTHING;
}

/* ---------------------------------------------------------------- a layer */

struct matrices {
    const struct mb_model_matrix *at;
    size_t first, end;
    bool has_head;
};

/* The matrices of a layer follow one another; embedding and head are last. */
static struct matrices matrices_of(const struct mb_model *model, size_t layer)
{
    size_t n, n_layers = mb_model_info(model)->n_layers;
    struct matrices m = {.at = mb_model_matrices(model, &n)};
    int number = layer == n_layers ? -1 : (int)layer;
    while (m.first < n && m.at[m.first].layer != number)
        m.first++;
    m.end = m.first;
    while (m.end < n && m.at[m.end].layer == number)
        m.end++;
    m.has_head = n > 0 && m.at[n - 1].kind == MB_MATRIX_HEAD;
    return m;
}

static enum mb_status add_matrix(struct mb_layer_inputs *inputs, size_t *input_of, size_t key,
                                 const struct mb_model_matrix *matrix, struct mb_error *err)
{
    if (input_of[key] == 0) {
        inputs->at[inputs->n].expert = matrix->expert;
        mb_moments_sum_open(&inputs->at[inputs->n].sum, matrix->n_cols);
        input_of[key] = ++inputs->n;
    }
    struct mb_layer_input *input = &inputs->at[input_of[key] - 1];
    if (input->sum.n_values != matrix->n_cols)
        return mb_fail(err, MB_UNSUPPORTED, "tensor %s: %zu columns, others that read the same have %zu",
                       matrix->name, matrix->n_cols, input->sum.n_values);
    input->n_matrices++;
    return MB_OK;
}

/* Each input's names lie together. */
static void place_names(struct mb_layer_inputs *inputs, const struct matrices *m, const size_t *input_of)
{
    const char **at = inputs->matrices;
    for (size_t i = 0; i < inputs->n; i++) {
        inputs->at[i].matrices = at;
        at += inputs->at[i].n_matrices;
        inputs->at[i].n_matrices = 0;
    }
    for (size_t k = m->first; k < m->end; k++) {
        size_t number = input_of[reads(&m->at[k], m->has_head)];
        if (number > 0)
            inputs->at[number - 1].matrices[inputs->at[number - 1].n_matrices++] = m->at[k].name;
    }
}

static int by_name(const void *a, const void *b)
{
    return strcmp(((const struct mb_layer_name *)a)->name, ((const struct mb_layer_name *)b)->name);
}

static enum mb_status fill(struct mb_layer_inputs *inputs, const struct matrices *m, size_t *input_of,
                           struct mb_error *err)
{
    for (size_t k = m->first; k < m->end; k++) {
        size_t key = reads(&m->at[k], m->has_head);
        if (key != NOTHING)
            MB_TRY(add_matrix(inputs, input_of, key, &m->at[k], err));
    }
    place_names(inputs, m, input_of);
    for (size_t i = 0; i < inputs->n; i++)
        inputs->names[i] = (struct mb_layer_name){inputs->at[i].matrices[0], i};
    qsort(inputs->names, inputs->n, sizeof *inputs->names, by_name);
    return MB_OK;
}

enum mb_status mb_layer_inputs_open(struct mb_layer_inputs *inputs, const struct mb_model *model,
                                    size_t layer, struct mb_error *err)
{
    struct matrices m = matrices_of(model, layer);
    size_t n_keys = EXPERT;
    for (size_t k = m.first; k < m.end; k++)
        if (m.at[k].kind == MB_MATRIX_EXPERT && EXPERT + 2 * (size_t)m.at[k].expert + 2 > n_keys)
            n_keys = EXPERT + 2 * (size_t)m.at[k].expert + 2;
    size_t *input_of = mb_alloc(n_keys, sizeof *input_of); /* its number, from 1 */
    inputs->at = mb_alloc(m.end - m.first, sizeof *inputs->at);
    inputs->names = mb_alloc(m.end - m.first, sizeof *inputs->names);
    inputs->matrices = mb_alloc(m.end - m.first, sizeof *inputs->matrices);
    enum mb_status status = mb_fail_memory(err, "the inputs of a layer");
    if (input_of != NULL && inputs->at != NULL && inputs->names != NULL && inputs->matrices != NULL)
        status = fill(inputs, &m, input_of, err);
    free(input_of);
    return status;
}

void mb_layer_inputs_close(struct mb_layer_inputs *inputs)
{
    for (size_t i = 0; i < inputs->n; i++)
        mb_moments_sum_close(&inputs->at[i].sum);
    free(inputs->at);
    free(inputs->names);
    free(inputs->matrices);
    *inputs = (struct mb_layer_inputs){0};
}

struct mb_layer_input *mb_layer_inputs_find(const struct mb_layer_inputs *inputs, const char *name)
{
    struct mb_layer_name key = {name, 0};
    const struct mb_layer_name *found =
        bsearch(&key, inputs->names, inputs->n, sizeof *inputs->names, by_name);
    return found == NULL ? NULL : &inputs->at[found->input];
}
