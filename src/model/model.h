/*
 * model.h - the engine's own view of a model, a session and a pass.
 *
 * A *pass* takes up to config.n_pass_tokens tokens of any sessions through all layers.  Its tokens come in
 * *segments*: tokens of one session that follow one another.  All memory of a pass is made when the model is
 * opened.
 */
#ifndef MB_MODEL_MODEL_H
#define MB_MODEL_MODEL_H

#include "base/buf.h"
#include "config.h"
#include "layer_weights.h"
#include "linear.h"
#include "lookahead.h"
#include "workspace.h"
#include <moebius/engine.h>
#include <stdatomic.h>

enum { MB_CHUNK_TOKENS = 256 }; /* positions of a chunk: see attention.h */

/* Vectors of a layer that matrices read. */
enum mb_read {
    MB_READ_ATTENTION, /* the normed input */
    MB_READ_Q_A,
    MB_READ_O,
    MB_READ_MLP, /* the normed input of the MLP, its router and experts */
    MB_READ_DOWN,
    MB_READ_SHARED_DOWN,
    MB_READ_EXPERT_DOWN,
    MB_N_READ,
};

struct mb_layer {
    size_t index;
    const struct mb_attention_config *attention;
    const struct mb_mlp_config *mlp;
    struct mb_linear matrix[MB_N_LAYER_MATRICES]; /* by mb_weight_id; what the layer has not is zero */
    float *vector[MB_N_LAYER_VECTORS];            /* see mb_layer_vector */
    unsigned forms[MB_N_READ]; /* that the matrices which read a vector take (MB_EXACT_FORM, MB_FAST_FORM) */
    bool *dropped;             /* [n_experts] those that the router passes over; NULL: none (dropped.c) */
};

static inline const float *mb_layer_vector(const struct mb_layer *layer, enum mb_weight_id id)
{
    return layer->vector[id - MB_N_EXPERT_END];
}

/* Tokens of one session in a pass. */
struct mb_segment {
    struct mb_session *session;
    size_t first, n; /* tokens of the pass */
    size_t pos;      /* of the first one */
    bool is_generated;
    size_t first_chunk; /* attention's own: index of the first of its chunks */
    float *logits;      /* as the batch item has them, of the segment's last token or all; NULL: none */
    bool all_logits;
    size_t logits_from;                    /* all_logits: the first token of the segment that has a row */
    const struct mb_hidden_states *hidden; /* the item's; NULL: none */
    size_t hidden_at;                      /* tokens of the item before the segment */
};

struct mb_model {
    struct mb_config config;
    struct mb_checkpoint *ckpt;
    struct mb_index *index;
    struct mb_store *store;
    struct mb_pool *pool;
    const struct mb_kernels *kernels;
    const struct mb_float_ops *ops;
    struct mb_layer *layers; /* [n_layers] */
    struct mb_linear embedding, head;
    float *norm, *norm_bias; /* [d_model] of the last norm; the bias may be NULL */
    bool has_coded;          /* some matrix is coded: vectors are kept as integers too */
    bool has_plain_experts;
    bool is_streaming; /* experts come from disk */
    size_t n_wave; /* experts of a layer that are multiplied together, at most: MB_STORE_WAVE but in tests */
    unsigned head_forms; /* that the head takes */
    bool has_own_head;   /* else the head is the embedding */
    bool has_two_forms;  /* some attention computes generated tokens otherwise than prompts */
    struct mb_model_info info;
    struct mb_model_timing timing;
    uint64_t mark_ns; /* when the last lap ended */
    uint64_t waited_before_ns;
    struct mb_bytes notes;            /* lines, terminated (notes.c) */
    struct mb_model_matrix *matrices; /* [n_matrices] (matrices.c) */
    size_t n_matrices;
    mb_route_fn route; /* of all sessions; NULL: none */
    void *route_ctx;
    mb_cancel_fn is_cancelled; /* NULL: nobody cancels */
    void *cancel_ctx;
    mb_impose_fn impose; /* NULL: nobody does (imposed.c) */
    void *impose_ctx;
    uint64_t n_passed; /* tokens */
    struct mb_workspace work;
    void *work_pages;
    uint64_t work_nbytes;
    struct mb_stage stage;
    struct mb_lookahead lookahead;
    mb_matrix_input_fn watch; /* NULL: nobody watches (watch.c) */
    void *watch_ctx;
    struct mb_thread_scratch *scratch; /* [threads] */
    size_t coded_scratch_nbytes;       /* that each thread needs once the model has coded matrices */
    uint64_t memory_nbytes;            /* budget.c; UINT64_MAX: no limit */
    _Atomic uint64_t cache_nbytes;     /* of all sessions */
    uint64_t cache_nbytes_max;         /* UINT64_MAX: no limit */
};

struct mb_session {
    struct mb_model *model;
    struct mb_session_options options; /* defaults filled in */
    size_t n_past;
    size_t n_prompt; /* the first ones of them that were fed as prompt */
    int32_t *tokens; /* [n_ctx] ids of what the cache holds */
    enum mb_dtype cache_dtype;
    uint8_t *cache;
    uint64_t cache_nbytes;
    uint64_t *cache_at; /* [n_layers] where each layer's begins */
    size_t n_high;      /* the most tokens that the cache has held since it was empty */
    bool is_long;       /* its tokens are rotated as those of a long sequence: config.n_ctx_short */
    bool is_stale;      /* the cache does not hold what 'tokens' says: mb_decode feeds them again */
    size_t first_layer; /* layers before it have no cache of these tokens */
    size_t n_fed;       /* tokens of its item that mb_decode has fed */
    size_t n_before;    /* n_past before that */
    size_t n_again;     /* the first tokens that mb_decode feeds again before those of the item */
    bool is_in_batch;   /* while mb_decode checks its items */
};

/* ---------------------------------------------------------------- opening */

/* Binds all weights to their places. */
enum mb_status mb_layers_load(struct mb_model *model, struct mb_error *err);
void mb_layers_free(struct mb_model *model);
void mb_layers_need_all_forms(struct mb_model *model);

/* The list of all matrices, after everything is bound. */
enum mb_status mb_matrices_list(struct mb_model *model, struct mb_error *err);

/* What was found and is not used, after everything is bound. */
enum mb_status mb_notes_make(struct mb_model *model, struct mb_error *err);

/* Numbers in all weights, and bytes that a generated token reads, its experts of average size. */
void mb_layers_count(const struct mb_model *model, uint64_t *n_params, uint64_t *token_nbytes);

/* All memory of a pass; what coded products need as well only if the model has coded matrices. */
enum mb_status mb_workspace_create(struct mb_model *model, struct mb_error *err);
enum mb_status mb_workspace_add_coded(struct mb_model *model, struct mb_error *err);
void mb_workspace_free(struct mb_model *model);

/* Of all that mb_workspace_create makes, with what coded products need; known from the configuration alone.
 */
uint64_t mb_workspace_nbytes(const struct mb_config *config, int n_threads);

/* The same of passes of 512, 256, ... 16 tokens (budget.c). */
void mb_passes_nbytes(struct mb_config *config, int n_threads, uint64_t nbytes[MB_PASS_SIZES]);

/* ---------------------------------------------------------------- the limit of memory (budget.c) */

/* Says what the store may use.  MB_NO_MEMORY: a plain model does not fit. */
enum mb_status mb_budget_make(struct mb_model *model, const struct mb_model_options *options,
                              struct mb_store_options *store, struct mb_error *err);

/* Bytes of a session's cache; cache_at[n_layers], or NULL: where each layer's begins.  false: too large. */
bool mb_cache_nbytes(const struct mb_config *config, size_t n_ctx, enum mb_dtype dtype, uint64_t *cache_at,
                     uint64_t *nbytes);

/* ---------------------------------------------------------------- what every token needs (tokens.c) */

/* Runs fn(model, layer, token) for all tokens of the pass on all threads. */
typedef void (*mb_token_fn)(struct mb_model *model, const struct mb_layer *layer, size_t token, int thread);
void mb_for_tokens(struct mb_model *model, const struct mb_layer *layer, mb_token_fn fn);

/* A vector as a product reads it: floats, and integers where the model has coded matrices. */
void mb_vector_ready(const struct mb_model *model, unsigned forms, const float *x, size_t n,
                     const struct mb_activations *to, size_t i);

/* The vectors that attention and MLP read. */
struct mb_vectors mb_normed(const struct mb_model *model);

/* Adds the time since the last lap to *sum: it was of that kind. layer NULL: of none. (timeline.c) */
void mb_lap(struct mb_model *model, enum mb_timeline_kind kind, const struct mb_layer *layer, uint64_t *sum);

/* A pass, which began then and whose last lap has ended, for the timeline. */
void mb_show_pass(const struct mb_model *model, uint64_t begun_ns);

static inline struct mb_vectors mb_vectors_of(const float *x, size_t stride, const struct mb_activations *a)
{
    return (struct mb_vectors){x, stride, a->at, a->fast};
}

/* Whether the cache still holds everything that the token after the first n_past ones sees. */
bool mb_session_can_rewind(const struct mb_session *session, size_t n_past);

/* n tokens are in the cache now: what they were is remembered, and n_past grows. */
void mb_session_record(struct mb_session *session, const int32_t *tokens, size_t n, bool is_generated);

/* ---------------------------------------------------------------- a pass */

/*
 * The layers [first_layer, end_layer) over the pass's tokens; work.x is then the residual stream after the
 * last one.  Fails only where experts cannot be had from the store.
 */
enum mb_status mb_pass_run(struct mb_model *model, size_t first_layer, size_t end_layer,
                           struct mb_error *err);

/* chosen[n_tokens][n_used] of the pass and layer, a router's or a guess, give way to what is imposed. */
void mb_impose_routing(struct mb_model *model, const struct mb_layer *layer, bool is_guess, int32_t *chosen);

/* Logits of a token of the pass that ran last, to 'to' [n_vocab]; they are there after mb_logits_finish. */
void mb_logits_add(struct mb_model *model, size_t token, float *to);
void mb_logits_finish(struct mb_model *model);

/* A session's cache of a layer; its form is the attention's own. */
static inline uint8_t *mb_layer_cache(const struct mb_session *session, const struct mb_layer *layer)
{
    return session->cache + session->cache_at[layer->index];
}

/* What the layer's kinds placed, and its angles. */
static inline void *mb_attention_part(const struct mb_model *model, const struct mb_layer *layer)
{
    return model->work.attention[model->config.attention_of[layer->index]];
}

static inline void *mb_mlp_part(const struct mb_model *model, const struct mb_layer *layer)
{
    return model->work.mlp[model->config.mlp_of[layer->index]];
}

static inline struct mb_angles mb_angles_of(const struct mb_model *model, const struct mb_layer *layer,
                                            size_t t)
{
    const struct mb_angles *a = &model->work.angles[model->config.attention_of[layer->index]];
    size_t at = t * (layer->attention->rope.n_dims / 2);
    return (struct mb_angles){a->cos + at, a->sin + at};
}

#endif
