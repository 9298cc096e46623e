/*
 * engine.h - run a model: a shared, read-only mb_model and one mb_session for each conversation.
 *
 * Plain (bf16, f16, f32) and coded folders run through the same code.  Results do not depend on
 * n_threads, on what else is in a batch, on the instruction set, or on what the caches hold.
 *
 * Threads: mb_decode may be called by one thread at a time for a model; it uses the model's own threads.
 */
#ifndef MOEBIUS_ENGINE_H
#define MOEBIUS_ENGINE_H

#include <moebius/codec.h>
#include <moebius/status.h>
#include <moebius/timeline.h>
#include <moebius/weights.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

struct mb_model;
struct mb_session;

/*
 * How vectors that meet coded matrices are rounded: to 16 bits, or to 8 with a factor for each 128 elements,
 * which takes less time for several tokens (codec.h, fast activations).  What shares a batch changes no
 * result in either.
 */
enum mb_activation_form {
    /* Fast for matrices of at most MB_FAST_BITS_MAX bits a weight, exact for others. */
    MB_ACTIVATIONS_AUTO = 0,
    MB_ACTIVATIONS_EXACT = 1,
    MB_ACTIVATIONS_FAST = 2,
};

/* There the rounding of vectors is a small part of that of weights: docs/performance.md. */
#define MB_FAST_BITS_MAX 5.0

/* Whether a guess of the next layer's experts is read before they are asked for. */
enum mb_lookahead_mode {
    MB_LOOKAHEAD_AUTO = 0, /* while most of what is guessed is used: the store looks */
    MB_LOOKAHEAD_OFF = 1,
};

enum mb_cache_type { MB_CACHE_F16 = 0, MB_CACHE_F32 = 1 };

/* Zeroed means defaults. */
struct mb_model_options {
    size_t size;                     /* sizeof(struct mb_model_options) */
    int n_threads;                   /* 0: as many as CPUs (affinity) and cgroup quotas allow */
    enum mb_memory_form memory_form; /* of coded matrices: changes speed and memory, never a result */
    enum mb_activation_form activations;
    /*
     * What the process may use, all in all: weights, caches, buffers, the program itself; its peak stays
     * within that and 64 MiB. 0: what is available now (of the machine and of cgroups) less a margin. A coded
     * model that does not fit is streamed from disk (docs/streaming.md); results stay the same. Otherwise all
     * is loaded.
     */
    uint64_t memory_nbytes;
    /* Caches that there has to be room for: n_sessions (0: 1) of n_ctx tokens (0: the model's context, but no
     * more than MB_CTX_EXPECTED) and of that type.  With memory_nbytes, sessions cannot have more together.
     */
    size_t n_sessions, n_ctx;
    /* Most tokens that will be given to mb_decode at once; 0: any number.  A pass then needs no more room,
     * and leaves it to experts that are streamed.  Changes no result: more tokens take several passes. */
    size_t n_step_tokens;
    enum mb_cache_type cache_type;
    enum mb_lookahead_mode lookahead; /* where experts are streamed; changes no result */
    const char *expert_policy;        /* which streamed expert leaves memory (offload.h); NULL: the default */
    /* Experts come no earlier than over this link (offload.h), where they are streamed; NULL: as the disk
     * gives them. For studies of other disks. Not kept. Changes no result. */
    const struct mb_link_options *expert_link;
    struct mb_timeline timeline; /* sees where time goes (timeline.h) */
    /*
     * Uses of each expert per token, 0 to 1, in the order of layers with experts, as many for each as the one
     * with most has; NULL: not known.  Where experts are streamed, the policy begins with them, and those
     * with most uses are in memory from the beginning. Not kept. Changes no result.
     */
    const double *expert_usage;
    size_t n_expert_usage;
};

enum { MB_CTX_EXPECTED = 8192 };

struct mb_model_info {
    const char *architecture; /* "DeepseekV3ForCausalLM" */
    bool is_coded;
    size_t n_vocab, n_layers, d_model;
    size_t n_ctx_train;
    size_t n_experts, n_experts_used; /* routed, of a MoE layer */
    uint64_t n_params;
    int32_t bos_id;         /* -1: none */
    const int32_t *eos_ids; /* generation stops at any of them */
    size_t n_eos_ids;
    struct mb_store_memory memory;
    uint64_t work_nbytes;  /* anonymous: memory of a pass, touched as far as it is used */
    size_t n_pass_tokens;  /* most tokens of a pass: n_step_tokens or more, or what memory_nbytes leave room
                              for */
    size_t n_step_tokens;  /* most that come together, up to 512, as the options let expect */
    uint64_t token_nbytes; /* weights read for one generated token, its experts of average size */
    uint64_t
        memory_nbytes; /* that the process may use: as it was asked for, or found; UINT64_MAX: no limit */
    int n_threads;
    const char *notes; /* what was left alone and why, one line each; "" when nothing */
};

/*
 * Loads and checks all weights, but for experts that are streamed.  MB_UNSUPPORTED names the setting of
 * config.json that is not supported; MB_NO_MEMORY: memory_nbytes are too few, and the message says how many
 * would do.
 */
MB_API enum mb_status mb_model_open(const char *path, const struct mb_model_options *options,
                                    struct mb_model **model, struct mb_error *err);
MB_API void mb_model_close(struct mb_model *model);
MB_API const struct mb_model_info *mb_model_info(const struct mb_model *model);

/*
 * Lays a changed matrix over the model's matrix of that name, attention, experts, router, embedding and head
 * alike; NULL takes it off, and results are again what they were, bit for bit.  'changed' has the shape of
 * the original, coded or plain; *changed is copied, but the bytes that it refers to are read until it is
 * taken off or the model is closed.  Sessions keep what their caches hold: reset them. MB_BAD_DATA: the model
 * has no such matrix; MB_USAGE: another shape. Threads: none may be in mb_decode with this model.
 */
MB_API enum mb_status mb_model_overlay(struct mb_model *model, const char *name,
                                       const struct mb_matrix *changed, struct mb_error *err);

/*
 * Drops a routed expert of a layer, or takes it back (is_dropped false): the router passes it over, as if it
 * had no row for it, chooses as many of the others as usual, and weighs them as the family does.  Other
 * layers and all weights stay as they are; once all are taken back, results are again what they were, bit for
 * bit. Sessions keep what their caches hold: reset them.  MB_USAGE: the layer has no such expert, or fewer
 * would be left than a token goes to; then nothing has changed. Threads: none may be in mb_decode with this
 * model.
 */
MB_API enum mb_status mb_model_drop_expert(struct mb_model *model, size_t layer, size_t expert,
                                           bool is_dropped, struct mb_error *err);

/*
 * What the product with a matrix is about to read: n vectors of n_values, rows of x 'stride' floats apart.
 * They are those of a pass: where experts are many, each one's are few.  All of it is valid during the call
 * alone.
 */
struct mb_matrix_input {
    const char *name; /* of the matrix, as mb_model_overlay takes it */
    size_t layer;     /* SIZE_MAX: the head */
    size_t expert;    /* SIZE_MAX: no routed expert's */
    const float *x;
    size_t stride, n_values, n;
    const float *weights; /* [n] the router's weights of an expert's vectors; NULL: no routed expert's */
};

/* Called by the thread that called mb_decode. */
typedef void (*mb_matrix_input_fn)(void *ctx, const struct mb_matrix_input *input);

/*
 * fn sees the inputs of every matrix that is multiplied, once for each pass, before the product: of
 * attention, the router, experts, dense layers, and of the head where there are logits.  Matrices that read
 * the same vectors are called one after another with the same x.  NULL: no more.  Results stay the same, bit
 * for bit.  With latent attention, kv_b_proj of generated tokens is multiplied in another form: feed tokens
 * as prompt. Threads: none may be in mb_decode with this model.
 */
MB_API void mb_model_watch_inputs(struct mb_model *model, mb_matrix_input_fn fn, void *ctx);

/*
 * Where time went since the model was opened or the timing was reset, in nanoseconds of the thread that
 * called mb_decode.  'waiting' is contained in the others: the calling thread had no work left, another
 * thread had.
 */
struct mb_model_timing {
    uint64_t embedding_ns, attention_ns, router_ns, experts_ns, dense_ns, logits_ns;
    uint64_t waiting_ns;
    uint64_t n_tokens, n_passes;
};
MB_API struct mb_model_timing mb_model_timing(const struct mb_model *model);
MB_API void mb_model_timing_reset(struct mb_model *model);

/* What streaming has cost since the model was opened (weights.h). Any thread. */
MB_API struct mb_store_traffic mb_model_traffic(const struct mb_model *model);

/* ---------------------------------------------------------------- what a model is made of */

/* What a matrix is for. Values never change. */
enum mb_matrix_kind {
    MB_MATRIX_ATTENTION = 0,
    MB_MATRIX_DENSE = 1,     /* of the MLP of a layer without experts */
    MB_MATRIX_ROUTER = 2,    /* scores of experts, and of a shared expert */
    MB_MATRIX_SHARED = 3,    /* of the expert that every token passes */
    MB_MATRIX_EXPERT = 4,    /* of a routed expert */
    MB_MATRIX_EMBEDDING = 5, /* a model without a head of its own uses it as the head too */
    MB_MATRIX_HEAD = 6,
};
enum { MB_N_MATRIX_KINDS = 7 };

struct mb_model_matrix {
    const char *name; /* of its tensor; belongs to the model, as does 'part' */
    enum mb_matrix_kind kind;
    const char *part; /* "q", "k", "v", "o", "q_a", "q_b", "kv_a", "kv_b", "gate", "up", "down"; else "" */
    int layer;        /* from 0, as in tensor names; -1: in none */
    int expert;       /* routed: from 0, in its layer; -1: none */
    uint64_t n_rows;
    size_t n_cols;
    enum mb_dtype dtype; /* of the original values */
    bool is_coded;
    double eps; /* coded: the bound that holds for every weight; else 0 */
};

/*
 * All matrices that the model multiplies with or looks up rows in, layer by layer: attention, MLP, router,
 * shared expert, experts one after another; embedding and head last.  The list stays until the model is
 * closed.
 */
MB_API const struct mb_model_matrix *mb_model_matrices(const struct mb_model *model, size_t *n);

/*
 * The i-th of them as it was loaded, whatever lies over it: valid until the model is closed. Rows as float:
 * mb_matrix_rows (weights.h).  That of a streamed expert has no rows and no values.
 */
MB_API struct mb_matrix mb_model_weights(const struct mb_model *model, size_t i);

/*
 * Called once per token and MoE layer when set, by the thread that called mb_decode, in order of tokens
 * within a layer.  'experts' in the order of the router's choice. 'margin': how far the choice scores
 * (bias included) of the last chosen and the first not chosen expert are apart.
 */
typedef void (*mb_route_fn)(void *ctx, size_t layer, size_t pos, const int32_t *experts, const float *weights,
                            size_t n_experts, float margin);

/*
 * 'route' is called for the tokens of all sessions from now on, before a session's own; NULL: no more.
 * Threads: none may be in mb_decode with this model.
 */
MB_API void mb_model_watch_routes(struct mb_model *model, mb_route_fn route, void *ctx);

/*
 * 'is_cancelled' is called by the thread that called mb_decode, in each layer with experts, and between
 * experts where not all of them are in memory: a pass that has to wait for a slow disk can be ended within
 * the time of a read.  When it returns true, mb_decode fails with MB_CANCELLED; sessions of the batch have to
 * be reset. NULL: no more.  Threads: none may be in mb_decode with this model.
 */
typedef bool (*mb_cancel_fn)(void *ctx);
MB_API void mb_model_cancel_when(struct mb_model *model, mb_cancel_fn is_cancelled, void *ctx);

/*
 * Puts other experts in place of a router's choice: a tool to measure how experts stream with a routing that
 * the weights of a model do not have (random ones route evenly). Results are then those of no model.
 * experts[n] are the choice for a token, in its order; they have to stay n different ones of the layer's.
 * Their weights in the sum stay as they are.  'token' counts those that have passed the layers since the
 * model was opened.  is_guess: what looking ahead guesses for the same token. Called by the thread that
 * called mb_decode. NULL: no more.  Threads: none may be in mb_decode with this model.
 */
typedef void (*mb_impose_fn)(void *ctx, uint64_t token, size_t layer, bool is_guess, int32_t *experts,
                             size_t n);
MB_API void mb_model_impose_routing(struct mb_model *model, mb_impose_fn impose, void *ctx);

struct mb_session_options {
    size_t size;  /* sizeof(struct mb_session_options) */
    size_t n_ctx; /* tokens the cache holds; 0: the model's context */
    enum mb_cache_type cache_type;
    mb_route_fn route;
    void *route_ctx;
};

/*
 * Opens a session with an empty cache; all its memory is taken here (untouched pages cost nothing).  The
 * model has to stay open longer than its sessions.  MB_USAGE: n_ctx is more than the model's context;
 * MB_NO_MEMORY: also where the model has a limit of memory, and other caches were expected when it was
 * opened. Threads: one thread at a time uses a session, and none while mb_decode has it in a batch.
 */
MB_API enum mb_status mb_session_open(struct mb_model *model, const struct mb_session_options *options,
                                      struct mb_session **session, struct mb_error *err);
MB_API void mb_session_close(struct mb_session *session);            /* NULL: nothing to do */
MB_API void mb_session_reset(struct mb_session *session);            /* forget all tokens */
MB_API size_t mb_session_n_past(const struct mb_session *session);   /* tokens it holds */
MB_API uint64_t mb_session_nbytes(const struct mb_session *session); /* of its cache */

enum { MB_PASS_SIZES = 6 };

/* What a model needs beside its weights, and how it uses them: config.json alone says so. */
struct mb_model_needs {
    size_t n_layers, n_ctx_train;
    size_t n_experts, n_experts_used;      /* routed, of a MoE layer; 0: none */
    size_t n_ctx;                          /* of the session */
    uint64_t cache_nbytes;                 /* of the session */
    uint64_t work_nbytes;                  /* of a pass, touched as far as it is used */
    size_t n_pass_tokens;                  /* most tokens of a pass */
    uint64_t passes_nbytes[MB_PASS_SIZES]; /* work_nbytes of passes of 512, 256, ..., 16 tokens */
};

/*
 * Of a model that is not loaded, and a session that is not opened.  Fails as mb_model_open and
 * mb_session_open do, where config.json is the reason.
 */
MB_API enum mb_status mb_model_look(const struct mb_checkpoint *ckpt,
                                    const struct mb_session_options *options, struct mb_model_needs *needs,
                                    struct mb_error *err);

/*
 * Most tokens of a pass where so many bytes are left for passes and experts: room for n_step_tokens, up to
 * 512, or fewer where experts would have less memory than the pass, or too little.  passes_nbytes are those
 * of mb_model_needs, experts_nbytes all routed experts, wave_nbytes those of one token in a layer.
 */
MB_API size_t mb_pass_tokens_for(const uint64_t passes_nbytes[MB_PASS_SIZES], size_t n_step_tokens,
                                 uint64_t left_nbytes, uint64_t experts_nbytes, uint64_t wave_nbytes);

/*
 * Forgets all tokens after the first n_past, and returns how many the session then holds: n_past, or fewer
 * where the cache cannot go back that far (one that keeps a window of tokens only, or of a sequence that
 * became long: docs/limits.md), or as many as before where it held no more.
 *
 * What a cache holds of a token depends on the tokens before it and on the form, prompt or generated, in
 * which each of them was fed, and on nothing else.  So what follows a rewind has the bits it would have in a
 * fresh session to which the kept tokens were fed in the same forms.
 */
MB_API size_t mb_session_rewind(struct mb_session *session, size_t n_past);

/* Which of the tokens that a session holds may be kept. */
enum mb_keep {
    /*
     * Those that were computed as a prompt's are: with latent attention, those before the first generated
     * one, with other attention all of them.  Results are, bit for bit, those of a fresh session that reads
     * all tokens as prompt: what the session did before cannot be seen in them.
     */
    MB_KEEP_PROMPT = 0,
    /*
     * Generated ones too: the least to compute.  With latent attention the two forms of a token differ in
     * rounding, so logits may differ in their last bits from those of a session that reads all tokens as
     * prompt.
     */
    MB_KEEP_ALL = 1,
};

/* How many of 'tokens', from the first on, are what the session holds and may be kept. */
MB_API size_t mb_session_n_common(const struct mb_session *session, const int32_t *tokens, size_t n_tokens,
                                  enum mb_keep keep);

/*
 * "Be as if you had read exactly these tokens": keeps what the session has in common with them, forgets the
 * rest of what it holds, and feeds the rest of 'tokens' as prompt.  The next turn of a conversation thus
 * computes only what is new.  *n_kept (may be NULL): tokens that were not computed again.  logits: [n_vocab]
 * after the last token, which is then always computed; NULL: none.
 * MB_USAGE: a token id is out of range, more tokens than the context, logits of no tokens; then nothing has
 * changed.  Otherwise as mb_decode, and what was kept stays.
 */
MB_API enum mb_status mb_session_sync(struct mb_session *session, const int32_t *tokens, size_t n_tokens,
                                      enum mb_keep keep, float *logits, size_t *n_kept, struct mb_error *err);

/*
 * For measurements: where the tokens of an item enter the model, and what is handed out on their way.  A
 * hidden state is the residual stream of a token at the input of a layer, [d_model] floats; the one at the
 * input of layer n_layers is what the last norm reads.  Tokens that enter at a layer with the hidden states
 * that were handed out there give the bits that they give from their embeddings: what is repeated many times
 * with changes in late layers alone needs the early layers once.
 */
struct mb_hidden_states {
    size_t first_layer; /* layers before it do not run, nor do their caches change. n_layers: logits alone */
    const float *in;    /* first_layer > 0: [n_tokens][d_model] at its input */
    float *const
        *out; /* NULL, or [n_layers + 1] of [n_tokens][d_model] or NULL: filled from first_layer on */
    /*
     * 0: all.  Else layers from here on do not run: the last hidden states are those at its input, which may
     * be written where 'in' is read, and there are no logits.  The session then lacks what later layers keep
     * of its tokens: reset it, or its tokens are computed again.
     */
    size_t end_layer;
};

/*
 * One session's part of a batch.  A batch of many items gives each item the bits it would get alone.  With
 * latent attention, prompt tokens take the expanded form and generated ones (one a call and session) the
 * absorbed form, which differ in rounding; with grouped-query attention both have one form.
 */
struct mb_batch_item {
    struct mb_session *session;
    const int32_t *tokens;
    size_t n_tokens;
    bool is_generated; /* n_tokens is 1 and the token follows the model's own output */
    float *logits;     /* [n_vocab] for the last token, or [n_tokens][n_vocab] when all_logits; NULL: none */
    bool all_logits;
    size_t logits_from;                    /* all_logits: the first so many tokens have no row in 'logits' */
    const struct mb_hidden_states *hidden; /* NULL: all layers run, and nothing is handed out */
};

/*
 * Feed tokens. MB_USAGE when a token id is out of range or a session's context would overflow; then no
 * session has changed.
 *
 * The items of a batch begin and end at the same layer (MB_USAGE).  A session whose tokens began at a later
 * layer holds nothing for earlier ones: fed from an earlier layer it computes its tokens again if that is the
 * first one, else it has to be reset before (MB_USAGE); so has one whose tokens have to be computed again for
 * another reason (a sequence that becomes long, a batch that failed) and that begins at a later layer.
 */
MB_API enum mb_status mb_decode(struct mb_model *model, const struct mb_batch_item *items, size_t n_items,
                                struct mb_error *err);

/* ---------------------------------------------------------------- sampling */

/*
 * How the next token is chosen.  Zeroed: greedy, the token with the largest logit, the lowest id among
 * equals. Otherwise, as in llama.cpp: the top_k likeliest tokens, of these as many as reach top_p, of these
 * those that min_p leaves, and one of them by chance at the temperature.
 */
struct mb_sampler_options {
    size_t size;       /* sizeof(struct mb_sampler_options) */
    float temperature; /* 0: greedy, and what follows does not matter */
    int top_k;         /* 0 or less: all */
    float top_p;       /* share of probability, 0 to 1. 1: all; 0: only the likeliest token */
    float min_p;       /* share of the likeliest token's probability, 0 to 1. 0: all */
    uint64_t seed;     /* the same seed and logits give the same tokens */
};

/* Belongs to the caller; nothing to close. One for each conversation, used by one thread at a time. */
struct mb_sampler {
    struct mb_sampler_options options;
    uint64_t state[4]; /* of the random generator */
};

/* options NULL: greedy. MB_USAGE: a number that is none (NaN), or negative where that means nothing. */
MB_API enum mb_status mb_sampler_init(struct mb_sampler *sampler, const struct mb_sampler_options *options,
                                      struct mb_error *err);

/*
 * Picks *token from logits [n_vocab]. 'scratch': n_vocab * 8 bytes, aligned to 8, of which nothing is kept.
 * MB_BAD_DATA: a logit is NaN, or all chances are 0 because the largest is infinite.
 */
MB_API enum mb_status mb_sampler_pick(struct mb_sampler *sampler, const float *logits, size_t n_vocab,
                                      void *scratch, int32_t *token, struct mb_error *err);

#ifdef __cplusplus
}
#endif

#endif
