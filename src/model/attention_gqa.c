/*
 * attention_gqa.c - grouped-query attention: n_heads query heads share the keys and values of n_kv_heads
 * heads.
 *
 * A layer's cache holds keys [n_kv_heads][n_ctx][d_head] (with a sliding window, as many rows as it takes),
 * then values in the same form.  Positions are cut
 * into chunks at fixed multiples of CHUNK_TOKENS.  Each chunk's scores are weighed against the chunk's own
 * maximum, and the chunks' sums are merged in order.  That is the arithmetic of every token, whether it is
 * part of a prompt or generated: results do not depend on how tokens are fed.  With a sliding window a token
 * sees the window's part of a chunk, and chunks before its window are left out.  Prompts take blocks of
 * tokens through one chunk after another, as matrix products; a generated token's chunks are spread over all
 * threads.
 */
#include "attention.h"
#include "base/checked.h"
#include "model.h"
#include "rope.h"
#include <math.h>
#include <string.h>

enum {
    CHUNK_TOKENS = 128, /* keys and values of one head, as floats, stay in L2 */
    BLOCK_ROWS = 32,    /* queries that meet a chunk together: their scores stay in L1 */
    MERGED_CHUNKS = 64, /* chunks of a generated token whose factors are computed together */
    GROUP_HEADS = 4,    /* query heads of a task, at least: a task is long beside the cost of taking it */
};
_Static_assert(MB_CHUNK_TOKENS % CHUNK_TOKENS == 0, "place() counts in chunks of MB_CHUNK_TOKENS");

/* What GQA keeps for a pass: rows of tokens, [n_pass_tokens]. */
struct gqa_part {
    float *q;       /* [..][n_heads][d_head] */
    float *k, *v;   /* [..][n_kv_heads][d_head] */
    float *partial; /* [chunks][n_heads][d_head + 2] of generated tokens: sums, maximum, sum of weights */
    _Atomic uint32_t *chunks_left; /* [..][groups] chunks that are not summed yet */
    float *o;                      /* [..][n_heads][d_head] */
    struct mb_activations o_a;
};

/* Query heads that share a head of the cache. */
static size_t n_sharing(const struct mb_attention_config *c)
{
    return c->n_heads / c->gqa.n_kv_heads;
}

/* A task takes the query heads of a few heads of the cache: a *group*. */
static size_t kv_heads_of_group(const struct mb_attention_config *c)
{
    return n_sharing(c) >= GROUP_HEADS ? 1 : (GROUP_HEADS + n_sharing(c) - 1) / n_sharing(c);
}

static size_t n_groups(const struct mb_attention_config *c)
{
    return (c->gqa.n_kv_heads + kv_heads_of_group(c) - 1) / kv_heads_of_group(c);
}

/* ---------------------------------------------------------------- weights and memory */

static void list(const struct mb_attention_config *c, size_t d_model, struct mb_weight_list *weights)
{
    size_t q_n = c->n_heads * c->gqa.d_head, kv_n = c->gqa.n_kv_heads * c->gqa.d_head;
    mb_list_matrix(weights, MB_W_Q, q_n, d_model, c->gqa.has_qkv_bias);
    mb_list_matrix(weights, MB_W_K, kv_n, d_model, c->gqa.has_qkv_bias);
    mb_list_matrix(weights, MB_W_V, kv_n, d_model, c->gqa.has_qkv_bias);
    mb_list_matrix(weights, MB_W_O, d_model, q_n, c->gqa.has_o_bias);
    if (c->gqa.qk_norm == MB_QK_NORM_NONE)
        return;
    bool is_whole = c->gqa.qk_norm == MB_QK_NORM_WHOLE;
    mb_list_vector(weights, MB_W_Q_NORM, is_whole ? q_n : c->gqa.d_head);
    mb_list_vector(weights, MB_W_K_NORM, is_whole ? kv_n : c->gqa.d_head);
}

/*
 * Rows that a head of the cache has.  With a sliding window that is shorter than the context, a row is used
 * for one position after another: position p is in row p % n_rows.  There are enough rows for what all tokens
 * of a pass see, and whole chunks, so that a chunk lies in one piece.
 */
static size_t n_cache_rows(const struct mb_attention_config *c, size_t n_ctx)
{
    size_t n_seen = c->gqa.window + MB_PASS_TOKENS - 1;
    size_t n_rows = (n_seen + CHUNK_TOKENS - 1) / CHUNK_TOKENS * CHUNK_TOKENS;
    return c->gqa.window == 0 || c->gqa.keeps_all || n_rows > n_ctx ? n_ctx : n_rows;
}

static bool cache_nbytes(const struct mb_attention_config *c, size_t n_ctx, enum mb_dtype dtype,
                         uint64_t *nbytes)
{
    size_t row_nbytes = 2 * c->gqa.n_kv_heads * c->gqa.d_head * mb_dtype_nbytes(dtype);
    return mb_mul_u64(row_nbytes, n_cache_rows(c, n_ctx), nbytes);
}

/* Positions before n_high - n_rows are gone; the next token sees window - 1 of those before its own. */
static size_t n_past_min(const struct mb_attention_config *c, size_t n_ctx, size_t n_high)
{
    size_t n_rows = n_cache_rows(c, n_ctx);
    return n_high <= n_rows ? 0 : n_high - n_rows + c->gqa.window - 1;
}

static void place(const struct mb_attention_config *c, size_t n_pass_tokens, size_t n_chunks_max,
                  struct mb_placing *p, void *to)
{
    const uint64_t n = n_pass_tokens, f = sizeof(float);
    size_t q_n = c->n_heads * c->gqa.d_head, kv_n = c->gqa.n_kv_heads * c->gqa.d_head;
    n_chunks_max *= MB_CHUNK_TOKENS / CHUNK_TOKENS;
    struct gqa_part part;
    part.q = mb_take(p, n * q_n, f);
    part.k = mb_take(p, n * kv_n, f);
    part.v = mb_take(p, n * kv_n, f);
    part.partial = mb_take(p, n_chunks_max * c->n_heads * (c->gqa.d_head + 2), f);
    part.chunks_left = mb_take(p, n * n_groups(c), sizeof *part.chunks_left);
    part.o = mb_take(p, n * q_n, f);
    part.o_a = mb_take_activations(p, n, q_n);
    if (to != NULL)
        *(struct gqa_part *)to = part;
}

/* A thread's scratch memory. */
struct scratch {
    float *keys, *values; /* [CHUNK_TOKENS][d_head] */
    float *scores;        /* [BLOCK_ROWS][CHUNK_TOKENS] */
    float *sums;          /* [BLOCK_ROWS][d_head] of one chunk */
    float *most, *weight; /* [n_sharing][BLOCK_ROWS] maximum and sum of weights so far */
};

static struct mb_attention_scratch scratch_of(const struct mb_attention_config *c)
{
    return (struct mb_attention_scratch){.n_floats = (2 * CHUNK_TOKENS + BLOCK_ROWS) * c->gqa.d_head +
                                                     BLOCK_ROWS * CHUNK_TOKENS +
                                                     2 * n_sharing(c) * BLOCK_ROWS + 64};
}

static struct scratch place_scratch(const struct mb_attention_config *c, float *floats)
{
    struct scratch s = {.scores = floats};
    s.keys = s.scores + BLOCK_ROWS * CHUNK_TOKENS;
    s.values = s.keys + CHUNK_TOKENS * c->gqa.d_head;
    s.sums = s.values + CHUNK_TOKENS * c->gqa.d_head;
    s.most = s.sums + BLOCK_ROWS * c->gqa.d_head;
    s.weight = s.most + n_sharing(c) * BLOCK_ROWS;
    return s;
}

/* ---------------------------------------------------------------- queries and cache */

enum cached { KEYS, VALUES };

static uint8_t *cache_row(const struct mb_session *session, const struct mb_layer *layer, enum cached what,
                          size_t kv_head, size_t pos)
{
    const struct mb_gqa *g = &layer->attention->gqa;
    size_t n_rows = n_cache_rows(layer->attention, session->options.n_ctx);
    size_t row = (what * g->n_kv_heads + kv_head) * n_rows + pos % n_rows;
    return mb_layer_cache(session, layer) + row * g->d_head * mb_dtype_nbytes(session->cache_dtype);
}

static void store(const struct mb_float_ops *ops, const struct mb_session *session, const float *x, size_t n,
                  uint8_t *row)
{
    if (session->cache_dtype == MB_F16)
        ops->to_f16(x, n, (uint16_t *)row);
    else
        memcpy(row, x, n * sizeof *x);
}

static void clamp(float *x, size_t n, float most)
{
    for (size_t i = 0; i < n; i++) /* a NaN stays */
        x[i] = x[i] > most ? most : x[i] < -most ? -most : x[i];
}

/* A token's queries or keys of n_heads heads: norms and limits, if there are some, and the rotation. */
static void finish_heads(struct mb_model *model, const struct mb_layer *layer, enum mb_weight_id norm,
                         size_t t, float *x, size_t n_heads, float *scratch)
{
    const struct mb_attention_config *c = layer->attention;
    const struct mb_angles angles = mb_angles_of(model, layer, t);
    const float *weights = mb_layer_vector(layer, norm);
    size_t d = c->gqa.d_head, n = n_heads * d;
    if (c->gqa.qk_norm == MB_QK_NORM_WHOLE)
        model->ops->rms_norm(x, weights, n, c->gqa.norm_eps, x);
    for (size_t h = 0; c->gqa.qk_norm == MB_QK_NORM_HEADS && h < n_heads; h++)
        model->ops->rms_norm(x + h * d, weights, d, c->gqa.norm_eps, x + h * d);
    if (c->gqa.clip > 0)
        clamp(x, n, c->gqa.clip);
    for (size_t h = 0; h < n_heads; h++)
        mb_rope_rotate(x + h * d, c->rope.n_dims, c->rope.is_interleaved, angles.cos, angles.sin, scratch);
}

static void rotate_and_store(struct mb_model *model, const struct mb_layer *layer, size_t t, int thread)
{
    const struct mb_attention_config *c = layer->attention;
    const struct gqa_part *part = mb_attention_part(model, layer);
    const struct mb_session *session = model->work.segments[model->work.segment_of[t]].session;
    size_t d = c->gqa.d_head, n_kv = c->gqa.n_kv_heads, pos = model->work.pos[t];
    float *scratch = model->scratch[thread].attention;
    float *k = part->k + t * n_kv * d, *v = part->v + t * n_kv * d;
    finish_heads(model, layer, MB_W_Q_NORM, t, part->q + t * c->n_heads * d, c->n_heads, scratch);
    finish_heads(model, layer, MB_W_K_NORM, t, k, n_kv, scratch);
    if (c->gqa.clip > 0)
        clamp(v, n_kv * d, c->gqa.clip);
    for (size_t h = 0; h < n_kv; h++) {
        store(model->ops, session, k + h * d, d, cache_row(session, layer, KEYS, h, pos));
        store(model->ops, session, v + h * d, d, cache_row(session, layer, VALUES, h, pos));
    }
}

static void project(struct mb_model *model, const struct mb_layer *layer)
{
    const struct gqa_part *part = mb_attention_part(model, layer);
    struct mb_stage *stage = &model->stage;
    size_t n = model->work.n_tokens;
    mb_stage_begin(stage);
    mb_add_product(stage, &layer->matrix[MB_W_Q], mb_normed(model), n, part->q);
    mb_add_product(stage, &layer->matrix[MB_W_K], mb_normed(model), n, part->k);
    mb_add_product(stage, &layer->matrix[MB_W_V], mb_normed(model), n, part->v);
    mb_stage_run(stage);
}

/* ---------------------------------------------------------------- the arithmetic of all tokens */

/* What tasks share. */
struct attending {
    struct mb_model *model;
    const struct mb_layer *layer;
    const struct mb_attention_config *c;
    const struct gqa_part *part;
    size_t n_prompts;      /* segments; prompts come first */
    size_t n_prompt_units; /* see attend */
};

/* The first position that a token at 'pos' sees. */
static size_t first_seen(const struct mb_attention_config *c, size_t pos)
{
    return c->gqa.window == 0 || pos < c->gqa.window ? 0 : pos + 1 - c->gqa.window;
}

/* Positions [begin, begin + n) of a chunk. */
struct span {
    size_t begin, n;
};

/* What a token at 'at' sees of positions [pos, pos + n). */
static struct span seen_of(const struct mb_attention_config *c, size_t at, size_t pos, size_t n)
{
    size_t begin = first_seen(c, at), end = at + 1 < pos + n ? at + 1 : pos + n;
    begin = begin > pos ? begin : pos;
    return (struct span){begin - pos, end > begin ? end - begin : 0};
}

/* One chunk's scores of a query become weights against their own maximum, which is returned. */
static float weigh(const struct attending *a, float *scores, size_t n, float *weight)
{
    const struct mb_float_ops *ops = a->model->ops;
    float most = ops->max(scores, n) * a->c->softmax_scale;
    *weight = ops->exp_sum(scores, n, a->c->softmax_scale, most);
    return most;
}

/*
 * A chunk is merged with what came before it.  The side with the smaller maximum is scaled, by e^delta; true:
 * the chunk's is the larger one.
 */
static bool compare(float chunk_most, float *most, float *delta)
{
    bool is_larger = !(chunk_most <= *most); /* also where it is NaN */
    *delta = is_larger ? *most - chunk_most : chunk_most - *most;
    *most = is_larger ? chunk_most : *most;
    return is_larger;
}

/* Adds a chunk (sums of values, sum of weights) to what came before it; 'factor' is e^delta. */
static void merge(const struct attending *a, const float *sums, float chunk_weight, bool is_larger,
                  float factor, float *o, float *weight)
{
    const struct mb_float_ops *ops = a->model->ops;
    size_t d = a->c->gqa.d_head;
    if (is_larger) {
        if (*weight > 0)
            ops->scale(factor, d, o);
        ops->add(sums, d, o);
        *weight = *weight * factor + chunk_weight;
    } else {
        ops->axpy(factor, sums, d, o);
        *weight += factor * chunk_weight;
    }
}

/* ---------------------------------------------------------------- prompts: a block of tokens */

/* A block of a segment's tokens that one head of the cache serves. */
struct block {
    const struct mb_segment *segment;
    size_t first, n; /* tokens of the segment */
    size_t kv_head;
};

/* Rows of the cache as floats: where they are, or widened to 'to'. */
static const float *rows_of(const struct attending *a, const struct block *b, enum cached what, size_t pos,
                            size_t n, float *to)
{
    const struct mb_session *session = b->segment->session;
    const uint8_t *rows = cache_row(session, a->layer, what, b->kv_head, pos);
    if (session->cache_dtype == MB_F32)
        return (const float *)(const void *)rows;
    a->model->ops->widen(session->cache_dtype, rows, n * a->c->gqa.d_head, to);
    return to;
}

/* The block's queries of one head with positions [pos, pos + n). */
static void attend_block_head(const struct attending *a, const struct block *b, size_t sharing, size_t pos,
                              size_t n, const float *keys, const float *values, const struct scratch *s)
{
    const struct mb_model *model = a->model;
    size_t d = a->c->gqa.d_head, stride = a->c->n_heads * d;
    size_t head = b->kv_head * n_sharing(a->c) + sharing;
    size_t at = (b->segment->first + b->first) * stride + head * d;
    float weight[BLOCK_ROWS], most[BLOCK_ROWS];
    struct span seen[BLOCK_ROWS];
    model->ops->dense(MB_F32, keys, d, n, d, a->part->q + at, stride, b->n, s->scores, CHUNK_TOKENS);
    memset(s->sums, 0, b->n * d * sizeof *s->sums);
    size_t first_full = 0, n_full = 0; /* tokens that see all of these positions: they follow one another */
    for (size_t i = 0; i < b->n; i++) {
        seen[i] = seen_of(a->c, b->segment->pos + b->first + i, pos, n);
        float *scores = s->scores + i * CHUNK_TOKENS + seen[i].begin;
        if (seen[i].n > 0)
            most[i] = weigh(a, scores, seen[i].n, &weight[i]);
        if (seen[i].n == n)
            first_full = n_full++ == 0 ? i : first_full;
        else if (seen[i].n > 0)
            model->ops->weighted_rows(MB_F32, values + seen[i].begin * d, d, seen[i].n, d, scores, 0, 1,
                                      s->sums + i * d, 0);
    }
    if (n_full > 0)
        model->ops->weighted_rows(MB_F32, values, d, n, d, s->scores + first_full * CHUNK_TOKENS,
                                  CHUNK_TOKENS, n_full, s->sums + first_full * d, d);
    float factors[BLOCK_ROWS] = {0};
    bool is_larger[BLOCK_ROWS];
    for (size_t i = 0; i < b->n; i++)
        if (seen[i].n > 0)
            is_larger[i] = compare(most[i], &s->most[sharing * BLOCK_ROWS + i], &factors[i]);
    model->ops->exp_sum(factors, b->n, 1, 0);
    for (size_t i = 0; i < b->n; i++)
        if (seen[i].n > 0)
            merge(a, s->sums + i * d, weight[i], is_larger[i], factors[i], a->part->o + at + i * stride,
                  &s->weight[sharing * BLOCK_ROWS + i]);
}

static void attend_block(const struct attending *a, const struct block *b, const struct scratch *s)
{
    size_t d = a->c->gqa.d_head, n_rows = n_sharing(a->c), end = b->segment->pos + b->first + b->n;
    float *o = a->part->o + ((b->segment->first + b->first) * a->c->n_heads + b->kv_head * n_rows) * d;
    for (size_t i = 0; i < b->n; i++)
        memset(o + i * a->c->n_heads * d, 0, n_rows * d * sizeof *o);
    for (size_t i = 0; i < n_rows * BLOCK_ROWS; i++) {
        s->most[i] = -INFINITY;
        s->weight[i] = 0;
    }
    size_t begin = first_seen(a->c, b->segment->pos + b->first) / CHUNK_TOKENS * CHUNK_TOKENS;
    for (size_t pos = begin; pos < end; pos += CHUNK_TOKENS) {
        size_t n = end - pos < CHUNK_TOKENS ? end - pos : CHUNK_TOKENS;
        const float *keys = rows_of(a, b, KEYS, pos, n, s->keys),
                    *values = rows_of(a, b, VALUES, pos, n, s->values);
        for (size_t h = 0; h < n_rows; h++)
            attend_block_head(a, b, h, pos, n, keys, values, s);
    }
    for (size_t i = 0; i < b->n; i++)
        for (size_t h = 0; h < n_rows; h++)
            a->model->ops->scale(1.0F / s->weight[h * BLOCK_ROWS + i], d, o + (i * a->c->n_heads + h) * d);
}

/* ---------------------------------------------------------------- generated tokens: a chunk */

static size_t first_chunk_of(const struct mb_attention_config *c, const struct mb_segment *segment)
{
    return first_seen(c, segment->pos) / CHUNK_TOKENS;
}

static size_t n_chunks_of(const struct mb_attention_config *c, const struct mb_segment *segment)
{
    return segment->pos / CHUNK_TOKENS + 1 - first_chunk_of(c, segment);
}

/* Where a chunk of a segment, counted from its first one, keeps the sums of a head. */
static float *partial_of(const struct attending *a, const struct mb_segment *segment, size_t chunk,
                         size_t head)
{
    size_t at = segment->first_chunk - a->n_prompt_units + chunk;
    return a->part->partial + (at * a->c->n_heads + head) * (a->c->gqa.d_head + 2);
}

/* Query heads [head, head + n) that share a head of the cache, n <= BLOCK_ROWS. */
static void attend_chunk_heads(const struct attending *a, const struct mb_segment *segment, size_t chunk,
                               size_t head, size_t n, const struct scratch *s)
{
    const struct mb_model *model = a->model;
    const struct mb_session *session = segment->session;
    size_t d = a->c->gqa.d_head, pos = (first_chunk_of(a->c, segment) + chunk) * CHUNK_TOKENS;
    struct span seen = seen_of(a->c, segment->pos, pos, CHUNK_TOKENS);
    size_t kv_head = head / n_sharing(a->c);
    pos += seen.begin;
    const float *q = a->part->q + (segment->first * a->c->n_heads + head) * d;
    model->ops->dense(session->cache_dtype, cache_row(session, a->layer, KEYS, kv_head, pos), d, seen.n, d, q,
                      d, n, s->scores, CHUNK_TOKENS);
    for (size_t h = 0; h < n; h++) {
        float *sums = partial_of(a, segment, chunk, head + h);
        memset(sums, 0, d * sizeof *sums);
        sums[d] = weigh(a, s->scores + h * CHUNK_TOKENS, seen.n, &sums[d + 1]);
    }
    model->ops->weighted_rows(session->cache_dtype, cache_row(session, a->layer, VALUES, kv_head, pos), d,
                              seen.n, d, s->scores, CHUNK_TOKENS, n, partial_of(a, segment, chunk, head),
                              d + 2);
}

/* Merges chunks [first, first + n) of a head, n <= MERGED_CHUNKS. */
static void merge_chunks(const struct attending *a, const struct mb_segment *segment, size_t head,
                         size_t first, size_t n, float *most, float *weight)
{
    size_t d = a->c->gqa.d_head;
    float *o = a->part->o + (segment->first * a->c->n_heads + head) * d, factors[MERGED_CHUNKS];
    bool is_larger[MERGED_CHUNKS];
    for (size_t i = 0; i < n; i++)
        is_larger[i] = compare(partial_of(a, segment, first + i, head)[d], most, &factors[i]);
    a->model->ops->exp_sum(factors, n, 1, 0);
    for (size_t i = 0; i < n; i++) {
        const float *sums = partial_of(a, segment, first + i, head);
        merge(a, sums, sums[d + 1], is_larger[i], factors[i], o, weight);
    }
}

/* Merges a head's chunks. */
static void finish(const struct attending *a, const struct mb_segment *segment, size_t head)
{
    size_t d = a->c->gqa.d_head, n_chunks = n_chunks_of(a->c, segment);
    float *o = a->part->o + (segment->first * a->c->n_heads + head) * d, most = -INFINITY, weight = 0;
    memset(o, 0, d * sizeof *o);
    for (size_t chunk = 0; chunk < n_chunks; chunk += MERGED_CHUNKS)
        merge_chunks(a, segment, head, chunk,
                     n_chunks - chunk < MERGED_CHUNKS ? n_chunks - chunk : MERGED_CHUNKS, &most, &weight);
    a->model->ops->scale(1.0F / weight, d, o);
}

/* ---------------------------------------------------------------- tasks */

/* A block of a prompt, or a chunk of a generated token: what tasks are made of, for each group of heads. */
static size_t n_units_of(const struct mb_attention_config *c, const struct mb_segment *segment)
{
    return segment->is_generated ? n_chunks_of(c, segment) : (segment->n + BLOCK_ROWS - 1) / BLOCK_ROWS;
}

static void prompt_task(const struct attending *a, const struct mb_segment *segment, size_t unit,
                        size_t kv_head, size_t kv_end, const struct scratch *s)
{
    size_t first = unit * BLOCK_ROWS, left = segment->n - first;
    for (; kv_head < kv_end; kv_head++)
        attend_block(a,
                     &(struct block){.segment = segment,
                                     .first = first,
                                     .n = left < BLOCK_ROWS ? left : BLOCK_ROWS,
                                     .kv_head = kv_head},
                     s);
}

static void chunk_task(const struct attending *a, const struct mb_segment *segment, size_t chunk,
                       size_t kv_head, size_t kv_end, const struct scratch *s)
{
    size_t n = n_sharing(a->c), group = kv_head / kv_heads_of_group(a->c);
    for (size_t kv = kv_head; kv < kv_end; kv++)
        for (size_t h = 0; h < n; h += BLOCK_ROWS)
            attend_chunk_heads(a, segment, chunk, kv * n + h, n - h < BLOCK_ROWS ? n - h : BLOCK_ROWS, s);
    if (atomic_fetch_sub(&a->part->chunks_left[segment->first * n_groups(a->c) + group], 1) != 1)
        return;
    for (size_t head = kv_head * n; head < kv_end * n; head++)
        finish(a, segment, head);
}

/* The units of a segment follow one another for each group: what a thread reads next follows in the cache. */
static void task_of(void *ctx, size_t task, int thread)
{
    const struct attending *a = ctx;
    size_t n_units, unit = task / n_groups(a->c), n_kv = a->c->gqa.n_kv_heads;
    const struct mb_segment *segment = &a->model->work.segments[unit < a->n_prompt_units ? 0 : a->n_prompts];
    while (n_units = n_units_of(a->c, segment), unit >= segment->first_chunk + n_units)
        segment++;
    struct scratch s = place_scratch(a->c, a->model->scratch[thread].attention);
    task -= segment->first_chunk * n_groups(a->c);
    size_t kv_head = task / n_units * kv_heads_of_group(a->c), kv_end = kv_head + kv_heads_of_group(a->c);
    (segment->is_generated ? chunk_task : prompt_task)(a, segment, task % n_units, kv_head,
                                                       kv_end < n_kv ? kv_end : n_kv, &s);
}

static void attend(struct mb_model *model, const struct mb_layer *layer)
{
    struct mb_workspace *work = &model->work;
    struct attending a = {
        .model = model, .layer = layer, .c = layer->attention, .part = mb_attention_part(model, layer)};
    size_t n_units = 0;
    for (size_t s = 0; s < work->n_segments; s++) {
        struct mb_segment *segment = &work->segments[s];
        segment->first_chunk = n_units;
        n_units += n_units_of(a.c, segment);
        if (!segment->is_generated) {
            a.n_prompts++;
            a.n_prompt_units = n_units;
            continue;
        }
        for (size_t g = 0; g < n_groups(a.c); g++)
            atomic_store(&a.part->chunks_left[segment->first * n_groups(a.c) + g],
                         (uint32_t)n_chunks_of(a.c, segment));
    }
    mb_pool_run(model->pool, n_units * n_groups(a.c), task_of, &a);
}

static void output_ready(struct mb_model *model, const struct mb_layer *layer, size_t t, int thread)
{
    (void)thread;
    const struct gqa_part *part = mb_attention_part(model, layer);
    size_t n = layer->attention->n_heads * layer->attention->gqa.d_head;
    mb_vector_ready(model, layer->forms[MB_READ_O], part->o + t * n, n, &part->o_a, t);
}

static void run(struct mb_model *model, const struct mb_layer *layer)
{
    const struct gqa_part *part = mb_attention_part(model, layer);
    size_t n = layer->attention->n_heads * layer->attention->gqa.d_head;
    project(model, layer);
    mb_for_tokens(model, layer, rotate_and_store);
    attend(model, layer);
    mb_for_tokens(model, layer, output_ready);
    mb_stage_begin(&model->stage);
    mb_add_product(&model->stage, &layer->matrix[MB_W_O], mb_vectors_of(part->o, n, &part->o_a),
                   model->work.n_tokens, model->work.y);
    mb_stage_run(&model->stage);
}

const struct mb_attention_kind mb_attention_gqa = {
    .name = "gqa",
    .list = list,
    .cache_nbytes = cache_nbytes,
    .n_past_min = n_past_min,
    .part_nbytes = sizeof(struct gqa_part),
    .place = place,
    .scratch = scratch_of,
    .run = run,
};
