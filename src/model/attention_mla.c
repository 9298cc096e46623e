/*
 * attention_mla.c - multi-head latent attention (arXiv:2405.04434): the cache holds one latent vector and one
 * rotated key a token, shared by all heads.
 *
 * Prompt tokens expand the latents to keys and values, head by head, EXPAND_TOKENS positions at a time: each
 * position is expanded once for all of a segment's tokens.  Generated tokens use the absorbed form: the query
 * is taken into the latent space (q^T W_k), attends to the cache directly, and the sum of latents is taken
 * out of it (W_v).  Both forms cut positions at fixed multiples, so that what shares a batch or a call does
 * not change a bit, and both read this pass's own tokens from the cache, rounded as later tokens will see
 * them.
 */
#include "attention.h"
#include "base/checked.h"
#include "model.h"
#include "rope.h"
#include <math.h>
#include <string.h>

enum {
    EXPAND_TOKENS = 64, /* keys and values of one head stay in L2 */
    QUERY_TOKENS = 32,  /* scores of a block stay in L1 */
    GROUP_HEADS = 4,    /* heads that read the cache together */
};

#define LATENT_NORM_EPS 1e-6F /* whatever rms_norm_eps says */

/* What MLA keeps for a pass: rows of tokens, [n_pass_tokens]. */
struct mla_part {
    float *q_a; /* [..][q_rank] */
    struct mb_activations q_a_a;
    float *q;                      /* [..][heads][key] */
    float *kv;                     /* [..][latent] */
    float *latent_q;               /* [..][heads][latent] absorbed queries of generated tokens */
    float *partial;                /* [n_chunks_max][heads][kv_rank + 2] sums, maximum, sum of weights */
    _Atomic uint32_t *chunks_left; /* [..][head groups] */
    float *o;                      /* [..][heads][d_v] */
    struct mb_activations o_a;
};

/* Values of a cached position: its latent vector, and its key's rotated part. */
static size_t latent_n(const struct mb_attention_config *c)
{
    return c->mla.kv_rank + c->rope.n_dims;
}

/* Values of one head's query or key. */
static size_t key_n(const struct mb_attention_config *c)
{
    return c->mla.d_nope + c->rope.n_dims;
}

static size_t n_head_groups(const struct mb_attention_config *c)
{
    return (c->n_heads + GROUP_HEADS - 1) / GROUP_HEADS;
}

static size_t partial_n(const struct mb_attention_config *c)
{
    return c->mla.kv_rank + 2;
}

/* ---------------------------------------------------------------- weights and memory */

static void list(const struct mb_attention_config *c, size_t d_model, struct mb_weight_list *weights)
{
    if (c->mla.q_rank == 0) {
        mb_list_matrix(weights, MB_W_Q, c->n_heads * key_n(c), d_model, false);
    } else {
        mb_list_matrix(weights, MB_W_Q_A, c->mla.q_rank, d_model, c->mla.has_bias);
        mb_list_matrix(weights, MB_W_Q_B, c->n_heads * key_n(c), c->mla.q_rank, false);
        mb_list_vector(weights, MB_W_Q_A_NORM, c->mla.q_rank);
    }
    mb_list_matrix(weights, MB_W_KV_A, latent_n(c), d_model, c->mla.has_bias);
    mb_list_matrix(weights, MB_W_KV_B, c->n_heads * (c->mla.d_nope + c->mla.d_v), c->mla.kv_rank, false);
    weights->at[weights->n - 1].is_transposed = true;
    mb_list_matrix(weights, MB_W_O, d_model, c->n_heads * c->mla.d_v, c->mla.has_bias);
    mb_list_vector(weights, MB_W_KV_A_NORM, c->mla.kv_rank);
}

static bool cache_nbytes(const struct mb_attention_config *c, size_t n_ctx, enum mb_dtype dtype,
                         uint64_t *nbytes)
{
    return mb_mul_u64(latent_n(c) * mb_dtype_nbytes(dtype), n_ctx, nbytes);
}

static void place(const struct mb_attention_config *c, size_t n_pass_tokens, size_t n_chunks_max,
                  struct mb_placing *p, void *to)
{
    const uint64_t n = n_pass_tokens, f = sizeof(float);
    struct mla_part part;
    part.q_a = mb_take(p, n * c->mla.q_rank, f);
    part.q_a_a = mb_take_activations(p, n, c->mla.q_rank);
    part.q = mb_take(p, n * c->n_heads * key_n(c), f);
    part.kv = mb_take(p, n * latent_n(c), f);
    part.latent_q = mb_take(p, n * c->n_heads * latent_n(c), f);
    part.partial = mb_take(p, n_chunks_max * c->n_heads * partial_n(c), f);
    part.chunks_left = mb_take(p, n * n_head_groups(c), sizeof *part.chunks_left);
    part.o = mb_take(p, n * c->n_heads * c->mla.d_v, f);
    part.o_a = mb_take_activations(p, n, c->n_heads * c->mla.d_v);
    if (to != NULL)
        *(struct mla_part *)to = part;
}

/* The values of a latent vector, or of any vector of one head, whichever are more. */
static size_t n_values_max(const struct mb_attention_config *c)
{
    return c->mla.kv_rank > c->mla.d_nope ? c->mla.kv_rank : c->mla.d_nope;
}

/* A thread's own n activations. */
static struct mb_activations own_activations(const struct mb_attention_config *c,
                                             const struct mb_thread_scratch *scratch,
                                             struct mb_activation *at, size_t n)
{
    return mb_activations_in(at, scratch->planes, n, n_values_max(c));
}

static struct mb_attention_scratch scratch_of(const struct mb_attention_config *c)
{
    size_t expanded = EXPAND_TOKENS * (latent_n(c) + key_n(c) + c->mla.d_v) + QUERY_TOKENS * EXPAND_TOKENS +
                      2 * MB_PASS_TOKENS;
    size_t absorbed = GROUP_HEADS * MB_CHUNK_TOKENS + c->mla.kv_rank;
    return (struct mb_attention_scratch){
        .n_floats = (expanded > absorbed ? expanded : absorbed) + 64,
        .planes_nbytes = mb_activations_nbytes(EXPAND_TOKENS, n_values_max(c)),
    };
}

/* What the parts below share. */
struct attending {
    struct mb_model *model;
    const struct mb_layer *layer;
    const struct mb_attention_config *c;
    const struct mla_part *part;
    size_t n_prompts, n_generated; /* segments; prompts come first */
};

static const struct mb_linear *kv_b_of(const struct attending *a)
{
    return &a->layer->matrix[MB_W_KV_B];
}

/* ---------------------------------------------------------------- queries and cache */

static void norm_low_rank_query(struct mb_model *model, const struct mb_layer *layer, size_t t, int thread)
{
    (void)thread;
    const struct mla_part *part = mb_attention_part(model, layer);
    size_t n = layer->attention->mla.q_rank;
    float *q_a = part->q_a + t * n;
    model->ops->rms_norm(q_a, mb_layer_vector(layer, MB_W_Q_A_NORM), n, LATENT_NORM_EPS, q_a);
    mb_vector_ready(model, layer->forms[MB_READ_Q_A], q_a, n, &part->q_a_a, t);
}

static void store_latent(const struct mb_float_ops *ops, const struct mb_session *session,
                         const float *latent, size_t n, uint8_t *row)
{
    if (session->cache_dtype == MB_F16)
        ops->to_f16(latent, n, (uint16_t *)row);
    else
        memcpy(row, latent, n * sizeof *latent);
}

static uint8_t *cache_row(const struct mb_session *session, const struct mb_layer *layer, size_t pos)
{
    return mb_layer_cache(session, layer) +
           pos * latent_n(layer->attention) * mb_dtype_nbytes(session->cache_dtype);
}

/* Rotates a token's queries and key, and puts its latent and key into the cache. */
static void rotate_and_store(struct mb_model *model, const struct mb_layer *layer, size_t t, int thread)
{
    const struct mb_attention_config *c = layer->attention;
    const struct mla_part *part = mb_attention_part(model, layer);
    struct mb_angles angles = mb_angles_of(model, layer, t);
    float *q = part->q + t * c->n_heads * key_n(c), *kv = part->kv + t * latent_n(c);
    float *scratch = model->scratch[thread].attention;
    for (size_t h = 0; h < c->n_heads; h++)
        mb_rope_rotate(q + h * key_n(c) + c->mla.d_nope, c->rope.n_dims, c->rope.is_interleaved, angles.cos,
                       angles.sin, scratch);
    model->ops->rms_norm(kv, mb_layer_vector(layer, MB_W_KV_A_NORM), c->mla.kv_rank, LATENT_NORM_EPS, kv);
    mb_rope_rotate(kv + c->mla.kv_rank, c->rope.n_dims, c->rope.is_interleaved, angles.cos, angles.sin,
                   scratch);
    const struct mb_session *session = model->work.segments[model->work.segment_of[t]].session;
    store_latent(model->ops, session, kv, latent_n(c), cache_row(session, layer, model->work.pos[t]));
}

static void project(struct mb_model *model, const struct mb_layer *layer)
{
    const struct mla_part *part = mb_attention_part(model, layer);
    const struct mb_linear *w = layer->matrix;
    size_t n = model->work.n_tokens, q_rank = layer->attention->mla.q_rank;
    struct mb_stage *stage = &model->stage;
    mb_stage_begin(stage);
    if (q_rank == 0)
        mb_add_product(stage, &w[MB_W_Q], mb_normed(model), n, part->q);
    else
        mb_add_product(stage, &w[MB_W_Q_A], mb_normed(model), n, part->q_a);
    mb_add_product(stage, &w[MB_W_KV_A], mb_normed(model), n, part->kv);
    mb_stage_run(stage);
    if (q_rank == 0)
        return;
    mb_for_tokens(model, layer, norm_low_rank_query);
    mb_stage_begin(stage);
    mb_add_product(stage, &w[MB_W_Q_B], mb_vectors_of(part->q_a, q_rank, &part->q_a_a), n, part->q);
    mb_stage_run(stage);
}

/* ---------------------------------------------------------------- prompt tokens: expanded */

/* Keys and values of one head for up to EXPAND_TOKENS positions. */
struct expanded {
    float *latent;  /* [EXPAND_TOKENS][kv_rank + d_rope], from the cache */
    float *keys;    /* [EXPAND_TOKENS][d_nope + d_rope] */
    float *values;  /* [EXPAND_TOKENS][d_v] */
    float *scores;  /* [QUERY_TOKENS][EXPAND_TOKENS] */
    float *most;    /* [MB_PASS_TOKENS] running maximum of a token's scores */
    float *weights; /* [MB_PASS_TOKENS] sum of exp(score - most) */
};

static struct expanded place_expanded(const struct mb_attention_config *c, float *scratch)
{
    struct expanded e;
    e.latent = scratch;
    e.keys = e.latent + EXPAND_TOKENS * (latent_n(c));
    e.values = e.keys + EXPAND_TOKENS * (key_n(c));
    e.scores = e.values + EXPAND_TOKENS * c->mla.d_v;
    e.most = e.scores + QUERY_TOKENS * EXPAND_TOKENS;
    e.weights = e.most + MB_PASS_TOKENS;
    return e;
}

static void expand(const struct attending *a, const struct mb_segment *segment, size_t head, size_t pos,
                   size_t n, const struct mb_thread_scratch *scratch, const struct expanded *e)
{
    const struct mb_model *model = a->model;
    const struct mb_attention_config *c = a->c;
    const struct mb_session *session = segment->session;
    size_t latent = latent_n(c), key = key_n(c), row = head * (c->mla.d_nope + c->mla.d_v);
    struct mb_activation at[EXPAND_TOKENS];
    struct mb_activations activations = own_activations(c, scratch, at, EXPAND_TOKENS);
    model->ops->widen(session->cache_dtype, cache_row(session, a->layer, pos), n * latent, e->latent);
    for (size_t i = 0; i < n && kv_b_of(a)->matrix->is_coded; i++)
        mb_activate(model->kernels, MB_EXACT_FORM, e->latent + i * latent, c->mla.kv_rank, &activations, i);
    struct mb_vectors in = {e->latent, latent, at, NULL};
    mb_linear_rows(&model->stage, kv_b_of(a), row, c->mla.d_nope, &in, n, e->keys, key, scratch->coded);
    mb_linear_rows(&model->stage, kv_b_of(a), row + c->mla.d_nope, c->mla.d_v, &in, n, e->values, c->mla.d_v,
                   scratch->coded);
    for (size_t i = 0; i < n; i++)
        memcpy(e->keys + i * key + c->mla.d_nope, e->latent + i * latent + c->mla.kv_rank,
               c->rope.n_dims * sizeof *e->keys);
}

/* A token meets positions [pos, pos + n): scores become weights, and what was summed before is rescaled. */
static void reweigh(const struct attending *a, float *scores, size_t n, float *most, float *weights,
                    float *sum)
{
    const struct mb_attention_config *c = a->c;
    const struct mb_float_ops *ops = a->model->ops;
    float peak = ops->max(scores, n) * c->softmax_scale;
    if (!(peak <= *most)) { /* also where it is NaN */
        float kept = *most - peak;
        ops->exp_sum(&kept, 1, 1, 0);
        if (*weights > 0)
            ops->scale(kept, c->mla.d_v, sum);
        *weights *= kept;
        *most = peak;
    }
    *weights += ops->exp_sum(scores, n, c->softmax_scale, *most);
}

/* A block of the segment's tokens with the positions that are expanded. */
static void attend_block(const struct attending *a, const struct mb_segment *segment, size_t head,
                         size_t first, size_t n_queries, size_t pos, size_t n, const struct expanded *e)
{
    const struct mb_model *model = a->model;
    const struct mb_attention_config *c = a->c;
    size_t key = key_n(c), q_stride = c->n_heads * key, o_stride = c->n_heads * c->mla.d_v;
    const float *q = a->part->q + (segment->first + first) * q_stride + head * key;
    float *o = a->part->o + (segment->first + first) * o_stride + head * c->mla.d_v;
    model->ops->dense(MB_F32, e->keys, key, n, key, q, q_stride, n_queries, e->scores, EXPAND_TOKENS);
    size_t n_partly = 0; /* the first tokens, which do not see all of these positions */
    for (size_t i = 0; i < n_queries; i++) {
        size_t n_seen = segment->pos + first + i + 1 - pos; /* a token sees positions up to its own */
        n_seen = n_seen < n ? n_seen : n;
        float *scores = e->scores + i * EXPAND_TOKENS;
        reweigh(a, scores, n_seen, &e->most[first + i], &e->weights[first + i], o + i * o_stride);
        if (n_seen == n)
            continue;
        model->ops->weighted_rows(MB_F32, e->values, c->mla.d_v, n_seen, c->mla.d_v, scores, 0, 1,
                                  o + i * o_stride, 0);
        n_partly = i + 1;
    }
    model->ops->weighted_rows(MB_F32, e->values, c->mla.d_v, n, c->mla.d_v,
                              e->scores + n_partly * EXPAND_TOKENS, EXPAND_TOKENS, n_queries - n_partly,
                              o + n_partly * o_stride, o_stride);
}

static void attend_prompt(const struct attending *a, const struct mb_segment *segment, size_t head,
                          const struct mb_thread_scratch *scratch)
{
    const struct mb_model *model = a->model;
    const struct mb_attention_config *c = a->c;
    struct expanded e = place_expanded(c, scratch->attention);
    size_t o_stride = c->n_heads * c->mla.d_v;
    float *o = a->part->o + segment->first * o_stride + head * c->mla.d_v;
    for (size_t i = 0; i < segment->n; i++) {
        memset(o + i * o_stride, 0, c->mla.d_v * sizeof *o);
        e.most[i] = -INFINITY;
        e.weights[i] = 0;
    }
    size_t end = segment->pos + segment->n;
    for (size_t pos = 0; pos < end; pos += EXPAND_TOKENS) {
        size_t n = end - pos < EXPAND_TOKENS ? end - pos : EXPAND_TOKENS;
        expand(a, segment, head, pos, n, scratch, &e);
        /* Tokens before 'pos' see nothing of it. */
        size_t first = pos > segment->pos ? pos - segment->pos : 0;
        for (; first < segment->n; first += QUERY_TOKENS)
            attend_block(a, segment, head, first,
                         segment->n - first < QUERY_TOKENS ? segment->n - first : QUERY_TOKENS, pos, n, &e);
    }
    for (size_t i = 0; i < segment->n; i++)
        model->ops->scale(1.0F / e.weights[i], c->mla.d_v, o + i * o_stride);
}

/* ---------------------------------------------------------------- generated tokens: absorbed */

static size_t n_chunks_of(const struct mb_segment *segment)
{
    return segment->pos / MB_CHUNK_TOKENS + 1;
}

/* Where chunk 'chunk' of a segment keeps the sums of a head: latents, maximum, sum of weights. */
static float *partial_of(const struct attending *a, const struct mb_segment *segment, size_t chunk,
                         size_t head)
{
    const struct mb_attention_config *c = a->c;
    return a->part->partial + ((segment->first_chunk + chunk) * c->n_heads + head) * partial_n(c);
}

/* The query in the space of the cache: q_nope^T W_k, and the rotated part as it is. */
static void absorb(const struct attending *a, size_t t, size_t head, const struct mb_thread_scratch *scratch)
{
    const struct mb_model *model = a->model;
    const struct mb_attention_config *c = a->c;
    const struct mb_matrix *kv_b = kv_b_of(a)->matrix;
    size_t row = head * (c->mla.d_nope + c->mla.d_v), latent = latent_n(c);
    const float *q = a->part->q + (t * c->n_heads + head) * (key_n(c));
    float *out = a->part->latent_q + (t * c->n_heads + head) * latent;
    if (kv_b->is_coded) {
        struct mb_activation at;
        struct mb_activations activations = own_activations(c, scratch, &at, 1);
        mb_prefetch_rows(&kv_b->coded, row);
        mb_activate(model->kernels, MB_EXACT_FORM, q, c->mla.d_nope, &activations, 0);
        model->kernels->matvec_transposed(&kv_b->coded, row, c->mla.d_nope, &at, out, scratch->coded);
    } else {
        memset(out, 0, c->mla.kv_rank * sizeof *out);
        model->ops->weighted_rows(
            kv_b->dtype, (const uint8_t *)kv_b->dense + row * c->mla.kv_rank * mb_dtype_nbytes(kv_b->dtype),
            c->mla.kv_rank, c->mla.d_nope, c->mla.kv_rank, q, 0, 1, out, 0);
    }
    memcpy(out + c->mla.kv_rank, q + c->mla.d_nope, c->rope.n_dims * sizeof *out);
}

/* Heads [head, head + n_heads) with the positions of one chunk. */
static void attend_chunk(const struct attending *a, const struct mb_segment *segment, size_t head,
                         size_t n_heads, size_t chunk, const struct mb_thread_scratch *scratch)
{
    const struct mb_model *model = a->model;
    const struct mb_attention_config *c = a->c;
    const struct mb_session *session = segment->session;
    size_t latent = latent_n(c), pos = chunk * MB_CHUNK_TOKENS, end = segment->pos + 1;
    size_t n = end - pos < MB_CHUNK_TOKENS ? end - pos : MB_CHUNK_TOKENS;
    const uint8_t *rows = cache_row(session, a->layer, pos);
    float *scores = scratch->attention; /* [GROUP_HEADS][MB_CHUNK_TOKENS] */
    model->ops->dense(session->cache_dtype, rows, latent, n, latent,
                      a->part->latent_q + (segment->first * c->n_heads + head) * latent, latent, n_heads,
                      scores, MB_CHUNK_TOKENS);
    for (size_t h = 0; h < n_heads; h++) {
        float *sums = partial_of(a, segment, chunk, head + h), *s = scores + h * MB_CHUNK_TOKENS;
        memset(sums, 0, c->mla.kv_rank * sizeof *sums);
        float most = model->ops->max(s, n) * c->softmax_scale;
        sums[c->mla.kv_rank] = most;
        sums[c->mla.kv_rank + 1] = model->ops->exp_sum(s, n, c->softmax_scale, most);
    }
    model->ops->weighted_rows(session->cache_dtype, rows, latent, n, c->mla.kv_rank, scores, MB_CHUNK_TOKENS,
                              n_heads, partial_of(a, segment, chunk, head), partial_n(c));
}

/* Adds up a head's chunks, in order, and takes the sum out of the latent space. */
static void finish_head(const struct attending *a, const struct mb_segment *segment, size_t head,
                        const struct mb_thread_scratch *scratch)
{
    const struct mb_model *model = a->model;
    const struct mb_attention_config *c = a->c;
    const struct mb_float_ops *ops = model->ops;
    float *sum = scratch->attention, most = -INFINITY, weights = 0;
    for (size_t chunk = 0; chunk < n_chunks_of(segment); chunk++) {
        float peak = partial_of(a, segment, chunk, head)[c->mla.kv_rank];
        most = !(peak <= most) ? peak : most;
    }
    memset(sum, 0, c->mla.kv_rank * sizeof *sum);
    for (size_t chunk = 0; chunk < n_chunks_of(segment); chunk++) {
        const float *sums = partial_of(a, segment, chunk, head);
        float kept = sums[c->mla.kv_rank] - most;
        ops->exp_sum(&kept, 1, 1, 0);
        ops->axpy(kept, sums, c->mla.kv_rank, sum);
        weights += kept * sums[c->mla.kv_rank + 1];
    }
    ops->scale(1.0F / weights, c->mla.kv_rank, sum);
    struct mb_activation at;
    size_t row = head * (c->mla.d_nope + c->mla.d_v) + c->mla.d_nope;
    if (kv_b_of(a)->matrix->is_coded) {
        mb_prefetch_rows(&kv_b_of(a)->matrix->coded, row);
        struct mb_activations activations = own_activations(c, scratch, &at, 1);
        mb_activate(model->kernels, MB_EXACT_FORM, sum, c->mla.kv_rank, &activations, 0);
    }
    struct mb_vectors in = {sum, c->mla.kv_rank, &at, NULL};
    mb_linear_rows(&model->stage, kv_b_of(a), row, c->mla.d_v, &in, 1,
                   a->part->o + (segment->first * c->n_heads + head) * c->mla.d_v, 0, scratch->coded);
}

static size_t heads_of_group(const struct mb_attention_config *c, size_t group)
{
    size_t left = c->n_heads - group * GROUP_HEADS;
    return left < GROUP_HEADS ? left : GROUP_HEADS;
}

static void finish_group(const struct attending *a, const struct mb_segment *segment, size_t group,
                         const struct mb_thread_scratch *scratch)
{
    for (size_t h = 0; h < heads_of_group(a->c, group); h++)
        finish_head(a, segment, group * GROUP_HEADS + h, scratch);
}

/* ---------------------------------------------------------------- tasks */

/* A head of a prompt, or a group of heads of a generated token: all of it where there is one chunk. */
static void first_task(void *ctx, size_t task, int thread)
{
    const struct attending *a = ctx;
    const struct mb_model *model = a->model;
    const struct mb_attention_config *c = a->c;
    const struct mb_thread_scratch *scratch = &model->scratch[thread];
    size_t n_prompt_tasks = a->n_prompts * c->n_heads, n_groups = n_head_groups(c);
    if (task < n_prompt_tasks) {
        attend_prompt(a, &model->work.segments[task / c->n_heads], task % c->n_heads, scratch);
        return;
    }
    task -= n_prompt_tasks;
    const struct mb_segment *segment = &model->work.segments[a->n_prompts + task / n_groups];
    size_t group = task % n_groups, head = group * GROUP_HEADS, n_heads = heads_of_group(c, group);
    for (size_t h = 0; h < n_heads; h++)
        absorb(a, segment->first, head + h, scratch);
    atomic_store(&a->part->chunks_left[segment->first * n_groups + group], (uint32_t)n_chunks_of(segment));
    if (n_chunks_of(segment) > 1)
        return;
    attend_chunk(a, segment, head, n_heads, 0, scratch);
    finish_group(a, segment, group, scratch);
}

/* One chunk for one group of heads of a generated token that has several; the last one adds them up. */
static void chunk_task(void *ctx, size_t task, int thread)
{
    const struct attending *a = ctx;
    struct mb_workspace *work = &a->model->work;
    const struct mb_attention_config *c = a->c;
    const struct mb_thread_scratch *scratch = &a->model->scratch[thread];
    size_t n_groups = n_head_groups(c), group = task % n_groups, at = task / n_groups;
    const struct mb_segment *segment = &work->segments[a->n_prompts];
    while (at >= segment->first_chunk + n_chunks_of(segment))
        segment++;
    if (n_chunks_of(segment) == 1)
        return;
    attend_chunk(a, segment, group * GROUP_HEADS, heads_of_group(c, group), at - segment->first_chunk,
                 scratch);
    if (atomic_fetch_sub(&a->part->chunks_left[segment->first * n_groups + group], 1) == 1)
        finish_group(a, segment, group, scratch);
}

static void output_ready(struct mb_model *model, const struct mb_layer *layer, size_t t, int thread)
{
    (void)thread;
    const struct mla_part *part = mb_attention_part(model, layer);
    size_t n = layer->attention->n_heads * layer->attention->mla.d_v;
    mb_vector_ready(model, layer->forms[MB_READ_O], part->o + t * n, n, &part->o_a, t);
}

static void attend(struct mb_model *model, const struct mb_layer *layer)
{
    const struct mb_attention_config *c = layer->attention;
    struct mb_workspace *work = &model->work;
    struct attending a = {.model = model, .layer = layer, .c = c, .part = mb_attention_part(model, layer)};
    size_t n_chunks = 0;
    bool is_long = false;
    for (size_t s = 0; s < work->n_segments; s++) {
        if (!work->segments[s].is_generated) {
            a.n_prompts++;
            continue;
        }
        a.n_generated++;
        work->segments[s].first_chunk = n_chunks;
        n_chunks += n_chunks_of(&work->segments[s]);
        is_long = is_long || n_chunks_of(&work->segments[s]) > 1;
    }
    mb_pool_run(model->pool, a.n_prompts * c->n_heads + a.n_generated * n_head_groups(c), first_task, &a);
    if (is_long)
        mb_pool_run(model->pool, n_chunks * n_head_groups(c), chunk_task, &a);
}

static void run(struct mb_model *model, const struct mb_layer *layer)
{
    const struct mla_part *part = mb_attention_part(model, layer);
    size_t n = layer->attention->n_heads * layer->attention->mla.d_v;
    project(model, layer);
    mb_for_tokens(model, layer, rotate_and_store);
    struct mb_vectors latents = {part->kv, latent_n(layer->attention), NULL, NULL};
    mb_stage_show(&model->stage, &layer->matrix[MB_W_KV_B], &latents, model->work.n_tokens);
    attend(model, layer);
    mb_for_tokens(model, layer, output_ready);
    mb_stage_begin(&model->stage);
    mb_add_product(&model->stage, &layer->matrix[MB_W_O], mb_vectors_of(part->o, n, &part->o_a),
                   model->work.n_tokens, model->work.y);
    mb_stage_run(&model->stage);
}

const struct mb_attention_kind mb_attention_mla = {
    .name = "mla",
    .has_two_forms = true,
    .list = list,
    .cache_nbytes = cache_nbytes,
    .part_nbytes = sizeof(struct mla_part),
    .place = place,
    .scratch = scratch_of,
    .run = run,
};
