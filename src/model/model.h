/*
 * model.h - the engine's own view of a model, a session and a pass.
 *
 * A *pass* takes up to MB_PASS_TOKENS tokens of any sessions through all layers.  Its tokens stand in
 * *segments*: tokens of one session that follow one another.  All memory of a pass is made when the model is
 * opened.
 */
#ifndef MB_MODEL_MODEL_H
#define MB_MODEL_MODEL_H

#include "config.h"
#include "linear.h"
#include <moebius/engine.h>

enum {
    MB_CHUNK_TOKENS = 256, /* positions that attention of generated tokens sums at once */
    MB_PASS_LOGITS = 64,   /* rows of logits computed at once */
};

struct mb_mlp {
    struct mb_linear gate, up, down;
};

struct mb_layer {
    float *input_norm, *post_norm;               /* [d_model] */
    struct mb_linear q, q_a, q_b, kv_a, kv_b, o; /* q, or q_a and q_b */
    float *q_a_norm, *kv_a_norm;
    bool is_moe;
    struct mb_mlp mlp; /* dense layers */
    struct mb_linear router;
    float *router_bias;     /* [n_experts] */
    struct mb_mlp *experts; /* [n_experts] */
    struct mb_mlp shared;   /* n_shared > 0 */
};

/* Tokens of one session in a pass. */
struct mb_segment {
    struct mb_session *session;
    size_t first, n; /* tokens of the pass */
    size_t pos;      /* of the first one */
    bool is_generated;
    size_t first_chunk; /* generated: index of its partial sums */
    float *logits;      /* as the batch item has them, of the segment's last token or all; NULL: none */
    bool all_logits;
};

/* A pass's memory: rows of tokens, [MB_PASS_TOKENS] unless said otherwise. */
struct mb_workspace {
    int32_t *tokens;
    size_t *pos;
    uint32_t *segment_of;
    float *cos, *sin; /* [..][d_rope / 2] */
    float *x;         /* [..][d_model] the residual stream */
    float *normed;    /* [..][d_model] */
    struct mb_activations normed_a;
    float *q_a; /* [..][q_rank] */
    struct mb_activations q_a_a;
    float *q;        /* [..][heads][d_nope + d_rope] */
    float *kv;       /* [..][kv_rank + d_rope] */
    float *latent_q; /* [..][heads][kv_rank + d_rope] absorbed queries of generated tokens */
    float *partial;  /* [n_chunks_max][heads][kv_rank + 2] sums, maximum, sum of weights */
    size_t n_chunks_max;
    _Atomic uint32_t *chunks_left; /* [..][head groups] */
    float *o;                      /* [..][heads][d_v] */
    struct mb_activations o_a;
    float *y;      /* [..][d_model] output of attention, of a dense MLP, of the shared expert */
    float *hidden; /* [..][d_ff or n_shared * d_expert] */
    struct mb_activations hidden_a;
    float *router;        /* [..][n_experts] logits, then scores */
    float *choice;        /* [..][n_experts] scores that experts are chosen by */
    int32_t *chosen;      /* [..][n_used] */
    float *chosen_weight; /* [..][n_used] */
    float *margin;        /* [..] */
    uint32_t *slot;       /* [..][n_used] where a token's product with an expert stands */
    /* Slots: a token with one of its experts, ordered by expert. [MB_PASS_TOKENS * n_used] */
    struct mb_activation *slot_in; /* the token's */
    float *slot_hidden;            /* [..][d_expert] */
    struct mb_activations slot_hidden_a;
    float *slot_y;          /* [..][d_model] output; before that, the input where experts are not coded */
    uint32_t *expert_first; /* [n_experts + 1] first slot of each expert */
    float *logits;          /* [MB_PASS_LOGITS][n_vocab] */
    float *logits_x;        /* [MB_PASS_LOGITS][d_model] */
    struct mb_activations logits_a;
    float *logits_to[MB_PASS_LOGITS];
    size_t n_logits;
    struct mb_segment *segments;
    size_t n_segments, n_tokens;
};

struct mb_model {
    struct mb_config config;
    struct mb_checkpoint *ckpt;
    struct mb_weights *weights;
    struct mb_pool *pool;
    const struct mb_kernels *kernels;
    const struct mb_vec *vec;
    struct mb_layer *layers;
    struct mb_linear embedding, lm_head;
    float *norm;    /* [d_model] */
    bool has_coded; /* some matrix is coded: vectors are kept as integers too */
    bool has_plain_experts;
    bool has_own_head; /* else lm_head is the embedding */
    struct mb_model_info info;
    struct mb_model_timing timing;
    uint64_t waited_before_ns;
    char *notes;
    struct mb_workspace work;
    void *work_pages;
    uint64_t work_nbytes;
    struct mb_stage stage;
    struct mb_thread_scratch *scratch; /* [threads] */
};

struct mb_session {
    struct mb_model *model;
    struct mb_session_options options; /* defaults filled in */
    size_t n_past;
    size_t n_prompt; /* the first ones of them that were fed as prompt */
    int32_t *tokens; /* [n_ctx] ids of what the cache holds */
    enum mb_dtype cache_dtype;
    uint8_t *cache; /* [n_layers][n_ctx][kv_rank + d_rope] */
    uint64_t cache_nbytes;
    size_t n_fed;     /* tokens of its item that mb_decode has fed */
    bool is_in_batch; /* while mb_decode checks its items */
};

/* ---------------------------------------------------------------- parts of a pass */

/* What attention wants of a thread's scratch memory: floats; planes and their bytes; groups of heads. */
size_t mb_attention_scratch_n(const struct mb_config *c);
size_t mb_attention_planes_n(void);
size_t mb_attention_plane_nbytes(const struct mb_config *c);
size_t mb_attention_n_groups(const struct mb_config *c);

/* Binds all weights to their places. */
enum mb_status mb_layers_load(struct mb_model *model, struct mb_error *err);
void mb_layers_free(struct mb_model *model);

/* All memory of a pass. */
enum mb_status mb_workspace_create(struct mb_model *model, struct mb_error *err);
void mb_workspace_free(struct mb_model *model);

/* Runs fn(model, layer, token) for all tokens of the pass on all threads. */
typedef void (*mb_token_fn)(struct mb_model *model, const struct mb_layer *layer, size_t token, int thread);
void mb_for_tokens(struct mb_model *model, const struct mb_layer *layer, mb_token_fn fn);

/* From work.normed to work.y. */
void mb_attention(struct mb_model *model, size_t layer);
void mb_route(struct mb_model *model, size_t layer);   /* chooses; the shared expert's first half beside it */
void mb_experts(struct mb_model *model, size_t layer); /* the rest */
void mb_dense_mlp(struct mb_model *model, const struct mb_layer *layer);

/* All layers over the pass's tokens; work.x is then the residual stream behind the last one. */
void mb_pass_run(struct mb_model *model);

/* Logits of a token of the pass that ran last, to 'to' [n_vocab]; they are there after mb_logits_finish. */
void mb_logits_add(struct mb_model *model, size_t token, float *to);
void mb_logits_finish(struct mb_model *model);

/* A vector as a product wants it: floats, and integers where the model has coded matrices. */
void mb_vector_ready(const struct mb_model *model, const float *x, size_t n, const struct mb_activations *to,
                     size_t i);

static inline struct mb_vectors mb_vectors_of(const float *x, size_t stride, const struct mb_activations *a)
{
    return (struct mb_vectors){x, stride, a->at};
}

/* n tokens are in the cache now: what they were is remembered, and n_past grows. */
void mb_session_record(struct mb_session *session, const int32_t *tokens, size_t n, bool is_generated);

static inline uint8_t *mb_cache_row(const struct mb_session *session, size_t layer, size_t pos)
{
    const struct mb_config *c = &session->model->config;
    return session->cache + (layer * session->options.n_ctx + pos) * (c->kv_rank + c->d_rope) *
                                mb_dtype_nbytes(session->cache_dtype);
}

#endif
