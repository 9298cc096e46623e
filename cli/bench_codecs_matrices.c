/*
 * bench_codecs_matrices.c - chooses experts of a model, spread over its layers, and reads their matrices.
 */
#include "base/bytes.h"
#include "base/error.h"
#include "base/memory.h"
#include "bench_codecs.h"
#include <stdlib.h>
#include <string.h>

static bool is_wanted(const struct mb_checkpoint *ckpt, const struct mb_tensor *tensor,
                      const struct bench_choice *choice, struct mb_tensor_role *role)
{
    *role = mb_role_of(tensor->name);
    return role->role == MB_ROLE_EXPERT && role->projection != MB_PROJECTION_NONE && tensor->n_dims == 2 &&
           tensor->type <= MB_TENSOR_BF16 && tensor->shape[0] > 0 && tensor->shape[1] > 0 &&
           tensor->shape[1] <= MB_COLS_MAX && role->layer >= choice->first_layer &&
           role->layer <= choice->last_layer && mb_tensor_is_text(ckpt, tensor->name);
}

static int compare_experts(const void *a_, const void *b_)
{
    const struct bench_expert *a = a_, *b = b_;
    return a->layer != b->layer ? (a->layer > b->layer) - (a->layer < b->layer)
                                : (a->expert > b->expert) - (a->expert < b->expert);
}

/* All experts of the layers, each once, in order. */
static enum mb_status list_experts(const struct mb_checkpoint *ckpt, const struct bench_choice *choice,
                                   struct bench_matrices *m, struct mb_error *err)
{
    size_t n_tensors = mb_checkpoint_n_tensors(ckpt), n = 0;
    m->experts = mb_alloc(n_tensors, sizeof *m->experts);
    if (m->experts == NULL)
        return mb_fail_memory(err, "the list of experts");
    for (size_t i = 0; i < n_tensors; i++) {
        struct mb_tensor_role role;
        if (is_wanted(ckpt, mb_checkpoint_tensor(ckpt, i), choice, &role))
            m->experts[m->n_experts++] = (struct bench_expert){.layer = role.layer, .expert = role.expert};
    }
    qsort(m->experts, m->n_experts, sizeof *m->experts, compare_experts);
    for (size_t i = 0; i < m->n_experts; i++)
        if (n == 0 || compare_experts(&m->experts[n - 1], &m->experts[i]) != 0)
            m->experts[n++] = m->experts[i];
    m->n_experts = n;
    if (n == 0)
        return mb_fail(err, MB_BAD_DATA, "%s: no matrices of routed experts in these layers",
                       mb_checkpoint_path(ckpt));
    return MB_OK;
}

/* Evenly spread over the list, and so over layers; another expert of each. */
static void choose_experts(struct bench_matrices *m, size_t n)
{
    m->n_model_experts = m->n_experts;
    if (n >= m->n_experts)
        return;
    for (size_t i = 0; i < n; i++)
        m->experts[i] = m->experts[(2 * i + 1) * m->n_experts / (2 * n)];
    m->n_experts = n;
}

static float value_of(enum mb_dtype dtype, const uint8_t *weights, size_t i)
{
    if (dtype == MB_F32)
        return mb_float_of_bits(mb_load_u32(weights + 4 * i));
    uint16_t h = mb_load_u16(weights + 2 * i);
    return dtype == MB_BF16 ? mb_float_of_bf16(h) : mb_float_of_f16(h);
}

static enum mb_status read_matrix(const struct mb_checkpoint *ckpt, const struct mb_tensor *tensor,
                                  struct bench_matrix *matrix, struct bench_expert *expert,
                                  struct mb_error *err)
{
    enum mb_dtype dtype = (enum mb_dtype)tensor->type;
    size_t n = (size_t)tensor->n_elems, bad;
    if (n > (size_t)1 << 30)
        return mb_fail(err, MB_UNSUPPORTED, "%s: tensor %s: more than 2^30 weights",
                       mb_tensor_path(ckpt, tensor), tensor->name);
    matrix->name = tensor->name;
    matrix->weights = mb_alloc(n, mb_dtype_nbytes(dtype));
    if (matrix->weights == NULL)
        return mb_fail_memory(err, "weights");
    MB_TRY(mb_checkpoint_read(ckpt, tensor, 0, matrix->weights, tensor->nbytes, err));
    if (mb_weight_stats_add(&expert->stats, dtype, matrix->weights, n, &bad) != MB_OK)
        return mb_fail(err, MB_BAD_DATA, "%s: tensor %s: weight %zu is not finite",
                       mb_tensor_path(ckpt, tensor), tensor->name, bad);
    if (dtype != MB_F32) {
        matrix->values = mb_alloc(n, sizeof *matrix->values);
        if (matrix->values == NULL)
            return mb_fail_memory(err, "weights");
        for (size_t i = 0; i < n; i++)
            matrix->values[i] = value_of(dtype, matrix->weights, i);
    }
    matrix->codec = (struct mb_codec_matrix){.dtype = dtype,
                                             .weights = matrix->weights,
                                             .values = dtype == MB_F32 ? matrix->weights : matrix->values,
                                             .n_rows = (size_t)tensor->shape[0],
                                             .n_cols = (size_t)tensor->shape[1]};
    return MB_OK;
}

static void free_matrix(struct bench_matrix *matrix)
{
    free(matrix->weights);
    free(matrix->values);
    mb_codec_close(matrix->opened);
    free(matrix->coded);
}

/* An expert of zeros has no bound relative to its mean, and nothing to compare. */
static enum mb_status drop_zeros(struct bench_matrices *m, const char *path, struct mb_error *err)
{
    size_t n = 0;
    for (size_t i = 0; i < m->n; i++)
        if (m->experts[m->at[i].expert].stats.sum_abs > 0)
            m->at[n++] = m->at[i];
        else
            free_matrix(&m->at[i]);
    m->n = n;
    return n > 0 ? MB_OK : mb_fail(err, MB_BAD_DATA, "%s: all weights of these experts are 0", path);
}

static void add_sizes(struct bench_matrices *m, const struct bench_matrix *matrix)
{
    size_t n = matrix->codec.n_rows * matrix->codec.n_cols;
    m->n_weights += n;
    m->n_weights_max = n > m->n_weights_max ? n : m->n_weights_max;
    m->n_rows_max = matrix->codec.n_rows > m->n_rows_max ? matrix->codec.n_rows : m->n_rows_max;
    m->n_cols_max = matrix->codec.n_cols > m->n_cols_max ? matrix->codec.n_cols : m->n_cols_max;
}

enum mb_status bench_matrices_read(const struct mb_checkpoint *ckpt, const struct bench_choice *choice,
                                   struct bench_matrices *m, struct mb_error *err)
{
    *m = (struct bench_matrices){0};
    if (mb_checkpoint_is_coded(ckpt))
        return mb_fail(err, MB_BAD_DATA, "%s is coded already: codecs are compared on the original model",
                       mb_checkpoint_path(ckpt));
    MB_TRY(list_experts(ckpt, choice, m, err));
    choose_experts(m, (size_t)choice->n_experts);
    size_t n_tensors = mb_checkpoint_n_tensors(ckpt);
    m->at = mb_alloc(n_tensors, sizeof *m->at);
    if (m->at == NULL)
        return mb_fail_memory(err, "the list of matrices");
    for (size_t i = 0; i < n_tensors; i++) {
        struct mb_tensor_role role;
        const struct mb_tensor *tensor = mb_checkpoint_tensor(ckpt, i);
        if (!is_wanted(ckpt, tensor, choice, &role))
            continue;
        const struct bench_expert key = {.layer = role.layer, .expert = role.expert};
        struct bench_expert *expert =
            bsearch(&key, m->experts, m->n_experts, sizeof *m->experts, compare_experts);
        if (expert == NULL)
            continue;
        struct bench_matrix *matrix = &m->at[m->n++];
        matrix->expert = (size_t)(expert - m->experts);
        MB_TRY(read_matrix(ckpt, tensor, matrix, expert, err));
    }
    MB_TRY(drop_zeros(m, mb_checkpoint_path(ckpt), err));
    for (size_t i = 0; i < m->n; i++)
        add_sizes(m, &m->at[i]);
    return MB_OK;
}

void bench_matrices_free(struct bench_matrices *m)
{
    for (size_t i = 0; i < m->n; i++)
        free_matrix(&m->at[i]);
    free(m->at);
    free(m->experts);
    *m = (struct bench_matrices){0};
}
