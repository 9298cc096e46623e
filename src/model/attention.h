/*
 * attention.h - kinds of attention: what each is made of, what it keeps for a token, and how it runs.
 *
 * Results of a kind depend on a token's own session alone, not on what shares a pass with it, on threads or
 * on the instruction set.
 */
#ifndef MB_MODEL_ATTENTION_H
#define MB_MODEL_ATTENTION_H

#include "layer_weights.h"
#include "workspace.h"

struct mb_model;
struct mb_layer;

/* What attention uses of a thread's scratch memory. */
struct mb_attention_scratch {
    size_t n_floats;      /* scratch->attention */
    size_t planes_nbytes; /* scratch->planes: activations that are made within attention */
};

struct mb_attention_kind {
    const char *name;
    bool has_two_forms; /* generated tokens may differ from prompt tokens in rounding */

    /* Adds the kind's weights to a layer's list. */
    void (*list)(const struct mb_attention_config *a, size_t d_model, struct mb_weight_list *list);

    /* Bytes of a layer's cache of n_ctx tokens; false: more than 64 bits say. */
    bool (*cache_nbytes)(const struct mb_attention_config *a, size_t n_ctx, enum mb_dtype dtype,
                         uint64_t *nbytes);

    /*
     * A cache that has held n_high of n_ctx tokens can go back to as few as this, or to none; NULL: to any
     * number.
     */
    size_t (*n_past_min)(const struct mb_attention_config *a, size_t n_ctx, size_t n_high);

    /*
     * Takes places for a pass of so many tokens, and for partial sums of n_chunks_max chunks of
     * MB_CHUNK_TOKENS positions, the most that generated tokens of one pass have.  Layers of other kinds use
     * the same memory: nothing stays from one layer to the next.  Fills the kind's own part, of part_nbytes;
     * NULL while only counting.
     */
    size_t part_nbytes;
    void (*place)(const struct mb_attention_config *a, size_t n_pass_tokens, size_t n_chunks_max,
                  struct mb_placing *p, void *part);

    struct mb_attention_scratch (*scratch)(const struct mb_attention_config *a);

    /* A layer's attention for all tokens of the pass, from work.normed to work.y. */
    void (*run)(struct mb_model *model, const struct mb_layer *layer);
};

extern const struct mb_attention_kind mb_attention_gqa; /* grouped-query attention */
extern const struct mb_attention_kind mb_attention_mla; /* multi-head latent attention */

#endif
