/*
 * attention.c - multi-head latent attention (arXiv:2405.04434): the cache holds one latent vector and one
 * rotated key a token and layer, shared by all heads.
 *
 * Prompt tokens expand the latents to keys and values, head by head, EXPAND_TOKENS positions at a time: each
 * position is expanded once for all of a segment's tokens.  Generated tokens use the absorbed form: the query
 * is taken into the latent space (q^T W_k), attends to the cache directly, and the sum of latents is taken
 * out of it (W_v).  Both forms cut positions at fixed multiples, so that what shares a batch or a call does
 * not change a bit, and both read this pass's own tokens from the cache, rounded as later tokens will see
 * them.
 */
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

/* Floats of a thread's scratch memory for attention. */
size_t mb_attention_scratch_n(const struct mb_config *c)
{
    size_t latent = c->kv_rank + c->d_rope;
    size_t expanded = EXPAND_TOKENS * (latent + c->d_nope + c->d_rope + c->d_v) +
                      QUERY_TOKENS * EXPAND_TOKENS + 2 * MB_PASS_TOKENS;
    size_t absorbed = GROUP_HEADS * MB_CHUNK_TOKENS + c->kv_rank;
    return (expanded > absorbed ? expanded : absorbed) + 64;
}

size_t mb_attention_n_groups(const struct mb_config *c)
{
    return (c->n_heads + GROUP_HEADS - 1) / GROUP_HEADS;
}

/* Integers of EXPAND_TOKENS latents, or of any vector of one head. */
size_t mb_attention_plane_nbytes(const struct mb_config *c)
{
    size_t n = c->kv_rank > c->d_nope ? c->kv_rank : c->d_nope;
    return mb_activation_plane_nbytes(n);
}

size_t mb_attention_planes_n(void)
{
    return EXPAND_TOKENS;
}

/* What the parts below share. */
struct attending {
    struct mb_model *model;
    const struct mb_layer *layer;
    size_t layer_index;
    size_t n_prompts, n_generated; /* segments; prompts come first */
};

/* ---------------------------------------------------------------- queries and cache */

static void norm_low_rank_query(struct mb_model *model, const struct mb_layer *layer, size_t t, int thread)
{
    (void)thread;
    const struct mb_config *c = &model->config;
    float *q_a = model->work.q_a + t * c->q_rank;
    model->vec->rms_norm(q_a, layer->q_a_norm, c->q_rank, LATENT_NORM_EPS, q_a);
    mb_vector_ready(model, q_a, c->q_rank, &model->work.q_a_a, t);
}

static void store_latent(const struct mb_vec *vec, const struct mb_session *session, const float *latent,
                         size_t n, uint8_t *row)
{
    if (session->cache_dtype == MB_F16)
        vec->to_f16(latent, n, (uint16_t *)row);
    else
        memcpy(row, latent, n * sizeof *latent);
}

/* Rotates a token's queries and key, and puts its latent and key into the cache. */
static void rotate_and_store(struct mb_model *model, const struct mb_layer *layer, size_t t, int thread)
{
    const struct mb_config *c = &model->config;
    struct mb_workspace *work = &model->work;
    const float *cos = work->cos + t * (c->d_rope / 2), *sin = work->sin + t * (c->d_rope / 2);
    float *q = work->q + t * c->n_heads * (c->d_nope + c->d_rope),
          *kv = work->kv + t * (c->kv_rank + c->d_rope);
    float *scratch = model->scratch[thread].attention;
    for (size_t h = 0; h < c->n_heads; h++)
        mb_rope_rotate(q + h * (c->d_nope + c->d_rope) + c->d_nope, c->d_rope, c->rope_interleave, cos, sin,
                       scratch);
    model->vec->rms_norm(kv, layer->kv_a_norm, c->kv_rank, LATENT_NORM_EPS, kv);
    mb_rope_rotate(kv + c->kv_rank, c->d_rope, c->rope_interleave, cos, sin, scratch);
    const struct mb_segment *segment = &work->segments[work->segment_of[t]];
    store_latent(model->vec, segment->session, kv, c->kv_rank + c->d_rope,
                 mb_cache_row(segment->session, (size_t)(layer - model->layers), work->pos[t]));
}

static void project(struct mb_model *model, const struct mb_layer *layer)
{
    const struct mb_config *c = &model->config;
    struct mb_workspace *work = &model->work;
    struct mb_stage *stage = &model->stage;
    struct mb_vectors in = mb_vectors_of(work->normed, c->d_model, &work->normed_a);
    size_t q_rows = c->n_heads * (c->d_nope + c->d_rope);
    mb_stage_begin(stage);
    if (c->q_rank == 0)
        mb_stage_add(
            stage,
            &(struct mb_product){
                .w = &layer->q, .in = in, .n_tokens = work->n_tokens, .y = work->q, .y_stride = q_rows});
    else
        mb_stage_add(stage, &(struct mb_product){.w = &layer->q_a,
                                                 .in = in,
                                                 .n_tokens = work->n_tokens,
                                                 .y = work->q_a,
                                                 .y_stride = c->q_rank});
    mb_stage_add(stage, &(struct mb_product){.w = &layer->kv_a,
                                             .in = in,
                                             .n_tokens = work->n_tokens,
                                             .y = work->kv,
                                             .y_stride = c->kv_rank + c->d_rope});
    mb_stage_run(stage);
    if (c->q_rank == 0)
        return;
    mb_for_tokens(model, layer, norm_low_rank_query);
    mb_stage_begin(stage);
    mb_stage_add(stage, &(struct mb_product){.w = &layer->q_b,
                                             .in = mb_vectors_of(work->q_a, c->q_rank, &work->q_a_a),
                                             .n_tokens = work->n_tokens,
                                             .y = work->q,
                                             .y_stride = q_rows});
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

static struct expanded place_expanded(const struct mb_config *c, float *scratch)
{
    struct expanded e;
    e.latent = scratch;
    e.keys = e.latent + EXPAND_TOKENS * (c->kv_rank + c->d_rope);
    e.values = e.keys + EXPAND_TOKENS * (c->d_nope + c->d_rope);
    e.scores = e.values + EXPAND_TOKENS * c->d_v;
    e.most = e.scores + QUERY_TOKENS * EXPAND_TOKENS;
    e.weights = e.most + MB_PASS_TOKENS;
    return e;
}

static void expand(const struct attending *a, const struct mb_segment *segment, size_t head, size_t pos,
                   size_t n, const struct mb_thread_scratch *scratch, const struct expanded *e)
{
    const struct mb_model *model = a->model;
    const struct mb_config *c = &model->config;
    const struct mb_session *session = segment->session;
    size_t latent = c->kv_rank + c->d_rope, key = c->d_nope + c->d_rope, row = head * (c->d_nope + c->d_v);
    struct mb_activation at[EXPAND_TOKENS];
    struct mb_activations activations = {at, scratch->planes, mb_attention_plane_nbytes(c)};
    model->vec->widen(session->cache_dtype, mb_cache_row(session, a->layer_index, pos), n * latent,
                      e->latent);
    for (size_t i = 0; i < n && a->layer->kv_b.matrix.is_coded; i++)
        mb_activate(model->kernels, e->latent + i * latent, c->kv_rank, &activations, i);
    struct mb_vectors in = {e->latent, latent, at};
    mb_linear_rows(&model->stage, &a->layer->kv_b, row, c->d_nope, &in, n, e->keys, key, scratch->coded);
    mb_linear_rows(&model->stage, &a->layer->kv_b, row + c->d_nope, c->d_v, &in, n, e->values, c->d_v,
                   scratch->coded);
    for (size_t i = 0; i < n; i++)
        memcpy(e->keys + i * key + c->d_nope, e->latent + i * latent + c->kv_rank,
               c->d_rope * sizeof *e->keys);
}

/* A token meets positions [pos, pos + n): scores become weights, and what was summed before is rescaled. */
static void reweigh(const struct mb_model *model, float *scores, size_t n, float *most, float *weights,
                    float *sum)
{
    const struct mb_config *c = &model->config;
    const struct mb_vec *vec = model->vec;
    float peak = vec->max(scores, n) * c->softmax_scale;
    if (!(peak <= *most)) { /* also where it is NaN */
        float kept = *most - peak;
        vec->exp_sum(&kept, 1, 1, 0);
        if (*weights > 0)
            vec->scale(kept, c->d_v, sum);
        *weights *= kept;
        *most = peak;
    }
    *weights += vec->exp_sum(scores, n, c->softmax_scale, *most);
}

/* A block of the segment's tokens with the positions that are expanded. */
static void attend_block(const struct attending *a, const struct mb_segment *segment, size_t head,
                         size_t first, size_t n_queries, size_t pos, size_t n, const struct expanded *e)
{
    const struct mb_model *model = a->model;
    const struct mb_config *c = &model->config;
    const struct mb_workspace *work = &model->work;
    size_t key = c->d_nope + c->d_rope, q_stride = c->n_heads * key, o_stride = c->n_heads * c->d_v;
    const float *q = work->q + (segment->first + first) * q_stride + head * key;
    float *o = work->o + (segment->first + first) * o_stride + head * c->d_v;
    model->kernels->dense(MB_F32, e->keys, key, n, key, q, q_stride, n_queries, e->scores, EXPAND_TOKENS);
    size_t n_partly = 0; /* the first tokens, which do not see all of these positions */
    for (size_t i = 0; i < n_queries; i++) {
        size_t n_seen = segment->pos + first + i + 1 - pos; /* a token sees positions up to its own */
        n_seen = n_seen < n ? n_seen : n;
        float *scores = e->scores + i * EXPAND_TOKENS;
        reweigh(model, scores, n_seen, &e->most[first + i], &e->weights[first + i], o + i * o_stride);
        if (n_seen == n)
            continue;
        model->vec->weighted_rows(MB_F32, e->values, c->d_v, n_seen, c->d_v, scores, 0, 1, o + i * o_stride,
                                  0);
        n_partly = i + 1;
    }
    model->vec->weighted_rows(MB_F32, e->values, c->d_v, n, c->d_v, e->scores + n_partly * EXPAND_TOKENS,
                              EXPAND_TOKENS, n_queries - n_partly, o + n_partly * o_stride, o_stride);
}

static void attend_prompt(const struct attending *a, const struct mb_segment *segment, size_t head,
                          const struct mb_thread_scratch *scratch)
{
    const struct mb_model *model = a->model;
    const struct mb_config *c = &model->config;
    struct expanded e = place_expanded(c, scratch->attention);
    size_t o_stride = c->n_heads * c->d_v;
    float *o = model->work.o + segment->first * o_stride + head * c->d_v;
    for (size_t i = 0; i < segment->n; i++) {
        memset(o + i * o_stride, 0, c->d_v * sizeof *o);
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
        model->vec->scale(1.0F / e.weights[i], c->d_v, o + i * o_stride);
}

/* ---------------------------------------------------------------- generated tokens: absorbed */

static size_t n_chunks_of(const struct mb_segment *segment)
{
    return segment->pos / MB_CHUNK_TOKENS + 1;
}

static size_t partial_n(const struct mb_config *c)
{
    return c->kv_rank + 2;
}

/* Where chunk 'chunk' of a segment keeps the sums of a head: latents, maximum, sum of weights. */
static float *partial_of(const struct mb_model *model, const struct mb_segment *segment, size_t chunk,
                         size_t head)
{
    const struct mb_config *c = &model->config;
    return model->work.partial + ((segment->first_chunk + chunk) * c->n_heads + head) * partial_n(c);
}

/* The query in the space of the cache: q_nope^T W_k, and the rotated part as it is. */
static void absorb(const struct attending *a, size_t t, size_t head, const struct mb_thread_scratch *scratch)
{
    const struct mb_model *model = a->model;
    const struct mb_config *c = &model->config;
    const struct mb_matrix *kv_b = &a->layer->kv_b.matrix;
    size_t row = head * (c->d_nope + c->d_v), latent = c->kv_rank + c->d_rope;
    const float *q = model->work.q + (t * c->n_heads + head) * (c->d_nope + c->d_rope);
    float *out = model->work.latent_q + (t * c->n_heads + head) * latent;
    if (kv_b->is_coded) {
        struct mb_activation at;
        mb_prefetch_rows(&kv_b->coded, row);
        mb_activate(model->kernels, q, c->d_nope,
                    &(struct mb_activations){&at, scratch->planes, mb_attention_plane_nbytes(c)}, 0);
        model->kernels->matvec_transposed(&kv_b->coded, row, c->d_nope, &at, out, scratch->coded);
    } else {
        memset(out, 0, c->kv_rank * sizeof *out);
        model->vec->weighted_rows(
            kv_b->dtype, (const uint8_t *)kv_b->dense + row * c->kv_rank * mb_dtype_nbytes(kv_b->dtype),
            c->kv_rank, c->d_nope, c->kv_rank, q, 0, 1, out, 0);
    }
    memcpy(out + c->kv_rank, q + c->d_nope, c->d_rope * sizeof *out);
}

/* Heads [head, head + n_heads) with the positions of one chunk. */
static void attend_chunk(const struct attending *a, const struct mb_segment *segment, size_t head,
                         size_t n_heads, size_t chunk, const struct mb_thread_scratch *scratch)
{
    const struct mb_model *model = a->model;
    const struct mb_config *c = &model->config;
    const struct mb_session *session = segment->session;
    size_t latent = c->kv_rank + c->d_rope, pos = chunk * MB_CHUNK_TOKENS, end = segment->pos + 1;
    size_t n = end - pos < MB_CHUNK_TOKENS ? end - pos : MB_CHUNK_TOKENS;
    const uint8_t *rows = mb_cache_row(session, a->layer_index, pos);
    float *scores = scratch->attention; /* [GROUP_HEADS][MB_CHUNK_TOKENS] */
    model->kernels->dense(session->cache_dtype, rows, latent, n, latent,
                          model->work.latent_q + (segment->first * c->n_heads + head) * latent, latent,
                          n_heads, scores, MB_CHUNK_TOKENS);
    for (size_t h = 0; h < n_heads; h++) {
        float *sums = partial_of(model, segment, chunk, head + h), *s = scores + h * MB_CHUNK_TOKENS;
        memset(sums, 0, c->kv_rank * sizeof *sums);
        float most = model->vec->max(s, n) * c->softmax_scale;
        sums[c->kv_rank] = most;
        sums[c->kv_rank + 1] = model->vec->exp_sum(s, n, c->softmax_scale, most);
    }
    model->vec->weighted_rows(session->cache_dtype, rows, latent, n, c->kv_rank, scores, MB_CHUNK_TOKENS,
                              n_heads, partial_of(model, segment, chunk, head), partial_n(c));
}

/* Adds up a head's chunks, in order, and takes the sum out of the latent space. */
static void finish_head(const struct attending *a, const struct mb_segment *segment, size_t head,
                        const struct mb_thread_scratch *scratch)
{
    const struct mb_model *model = a->model;
    const struct mb_config *c = &model->config;
    const struct mb_vec *vec = model->vec;
    float *sum = scratch->attention, most = -INFINITY, weights = 0;
    for (size_t chunk = 0; chunk < n_chunks_of(segment); chunk++) {
        float peak = partial_of(model, segment, chunk, head)[c->kv_rank];
        most = !(peak <= most) ? peak : most;
    }
    memset(sum, 0, c->kv_rank * sizeof *sum);
    for (size_t chunk = 0; chunk < n_chunks_of(segment); chunk++) {
        const float *sums = partial_of(model, segment, chunk, head);
        float kept = sums[c->kv_rank] - most;
        vec->exp_sum(&kept, 1, 1, 0);
        vec->axpy(kept, sums, c->kv_rank, sum);
        weights += kept * sums[c->kv_rank + 1];
    }
    vec->scale(1.0F / weights, c->kv_rank, sum);
    struct mb_activation at;
    size_t row = head * (c->d_nope + c->d_v) + c->d_nope;
    if (a->layer->kv_b.matrix.is_coded) {
        mb_prefetch_rows(&a->layer->kv_b.matrix.coded, row);
        mb_activate(model->kernels, sum, c->kv_rank,
                    &(struct mb_activations){&at, scratch->planes, mb_attention_plane_nbytes(c)}, 0);
    }
    struct mb_vectors in = {sum, c->kv_rank, &at};
    mb_linear_rows(&model->stage, &a->layer->kv_b, row, c->d_v, &in, 1,
                   model->work.o + (segment->first * c->n_heads + head) * c->d_v, 0, scratch->coded);
}

static size_t heads_of_group(const struct mb_config *c, size_t group)
{
    size_t left = c->n_heads - group * GROUP_HEADS;
    return left < GROUP_HEADS ? left : GROUP_HEADS;
}

static void finish_group(const struct attending *a, const struct mb_segment *segment, size_t group,
                         const struct mb_thread_scratch *scratch)
{
    for (size_t h = 0; h < heads_of_group(&a->model->config, group); h++)
        finish_head(a, segment, group * GROUP_HEADS + h, scratch);
}

/* ---------------------------------------------------------------- tasks */

/* A head of a prompt, or a group of heads of a generated token: all of it where there is one chunk. */
static void first_task(void *ctx, size_t task, int thread)
{
    const struct attending *a = ctx;
    const struct mb_model *model = a->model;
    const struct mb_config *c = &model->config;
    const struct mb_thread_scratch *scratch = &model->scratch[thread];
    size_t n_prompt_tasks = a->n_prompts * c->n_heads, n_groups = mb_attention_n_groups(c);
    if (task < n_prompt_tasks) {
        attend_prompt(a, &model->work.segments[task / c->n_heads], task % c->n_heads, scratch);
        return;
    }
    task -= n_prompt_tasks;
    const struct mb_segment *segment = &model->work.segments[a->n_prompts + task / n_groups];
    size_t group = task % n_groups, head = group * GROUP_HEADS, n_heads = heads_of_group(c, group);
    for (size_t h = 0; h < n_heads; h++)
        absorb(a, segment->first, head + h, scratch);
    atomic_store(&model->work.chunks_left[segment->first * n_groups + group], (uint32_t)n_chunks_of(segment));
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
    const struct mb_config *c = &a->model->config;
    const struct mb_thread_scratch *scratch = &a->model->scratch[thread];
    size_t n_groups = mb_attention_n_groups(c), group = task % n_groups, at = task / n_groups;
    const struct mb_segment *segment = &work->segments[a->n_prompts];
    while (at >= segment->first_chunk + n_chunks_of(segment))
        segment++;
    if (n_chunks_of(segment) == 1)
        return;
    attend_chunk(a, segment, group * GROUP_HEADS, heads_of_group(c, group), at - segment->first_chunk,
                 scratch);
    if (atomic_fetch_sub(&work->chunks_left[segment->first * n_groups + group], 1) == 1)
        finish_group(a, segment, group, scratch);
}

static void output_ready(struct mb_model *model, const struct mb_layer *layer, size_t t, int thread)
{
    (void)layer, (void)thread;
    size_t n = model->config.n_heads * model->config.d_v;
    mb_vector_ready(model, model->work.o + t * n, n, &model->work.o_a, t);
}

static void attend(struct mb_model *model, size_t layer_index)
{
    const struct mb_config *c = &model->config;
    struct mb_workspace *work = &model->work;
    struct attending a = {.model = model, .layer = &model->layers[layer_index], .layer_index = layer_index};
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
    mb_pool_run(model->pool, a.n_prompts * c->n_heads + a.n_generated * mb_attention_n_groups(c), first_task,
                &a);
    if (is_long)
        mb_pool_run(model->pool, n_chunks * mb_attention_n_groups(c), chunk_task, &a);
}

void mb_attention(struct mb_model *model, size_t layer_index)
{
    const struct mb_config *c = &model->config;
    const struct mb_layer *layer = &model->layers[layer_index];
    struct mb_workspace *work = &model->work;
    project(model, layer);
    mb_for_tokens(model, layer, rotate_and_store);
    attend(model, layer_index);
    mb_for_tokens(model, layer, output_ready);
    mb_stage_begin(&model->stage);
    mb_stage_add(&model->stage,
                 &(struct mb_product){.w = &layer->o,
                                      .in = mb_vectors_of(work->o, c->n_heads * c->d_v, &work->o_a),
                                      .n_tokens = work->n_tokens,
                                      .y = work->y,
                                      .y_stride = c->d_model});
    mb_stage_run(&model->stage);
}
