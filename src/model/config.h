/*
 * config.h - what a model is, whatever its family: sizes, which kind of attention and of MLP each layer has,
 * special tokens.
 *
 * A family (families/) fills it from config.json.  Layers of one shape share one mb_attention_config or
 * mb_mlp_config; a model whose layers differ has several.
 */
#ifndef MB_MODEL_CONFIG_H
#define MB_MODEL_CONFIG_H

#include "router.h"
#include <moebius/checkpoint.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
    MB_DIM_MAX = 65535, /* columns of a coded matrix */
    MB_ROPE_DIMS_MAX = 512,
    MB_LAYERS_MAX = 4096,
    MB_HEADS_MAX = 4096,
    MB_CTX_MAX = 1 << 24,
    MB_EOS_IDS_MAX = 64,
    MB_SHAPES_MAX = 4,    /* attentions, or MLPs, that differ within a model */
    MB_PASS_TOKENS = 512, /* most tokens of a pass: vectors of a product */
};

/* Rotary position embedding of the first n_dims dimensions that it is given. 0: none. */
struct mb_rope {
    size_t n_dims;
    bool is_interleaved; /* pairs are (2i, 2i + 1), else (i, i + n_dims / 2) */
    float factor;        /* of cos and sin */
    float inv_freq[MB_ROPE_DIMS_MAX / 2];
    size_t n_ctx_short; /* longer sequences have the others, from their first token on; 0: all are alike */
    float long_factor;
    float long_inv_freq[MB_ROPE_DIMS_MAX / 2];
};

/* Multi-head latent attention. */
struct mb_mla {
    size_t q_rank; /* 0: queries are not low-rank */
    size_t kv_rank, d_nope, d_v;
    bool has_bias; /* of q_a, kv_a and o */
};

/* Norms of queries and keys, before the rotation. */
enum mb_qk_norm {
    MB_QK_NORM_NONE,
    MB_QK_NORM_HEADS, /* of each head, all with the same weights */
    MB_QK_NORM_WHOLE, /* of all heads together */
};

/* Grouped-query attention. */
struct mb_gqa {
    size_t n_kv_heads; /* n_heads is a multiple of it */
    size_t d_head;     /* rope.n_dims may be less: the first ones are rotated */
    bool has_qkv_bias, has_o_bias;
    enum mb_qk_norm qk_norm;
    float norm_eps; /* of these norms */
    float clip; /* queries and keys (after their norms), and values, are clamped to +-clip; 0: they are not */
    size_t window;  /* a token sees this many positions up to its own; 0: all */
    bool keeps_all; /* the cache has room for all of them nevertheless: tests compare with that */
};

struct mb_attention_config {
    const struct mb_attention_kind *kind; /* attention.h */
    size_t n_heads;
    float softmax_scale;
    struct mb_rope rope;
    union { /* of its kind */
        struct mb_mla mla;
        struct mb_gqa gqa;
    };
};

struct mb_mlp_config {
    const struct mb_mlp_kind *kind; /* mlp.h */
    size_t d_ff;                    /* dense: rows of gate and up */
    /* With experts: */
    size_t d_expert, d_shared; /* rows of gate and up; d_shared 0: no shared expert */
    bool has_shared_score;     /* the sigmoid of one more product scales what the shared expert gives */
    struct mb_router_config router;
};

enum { MB_NOTE_NBYTES = 640 };

struct mb_config {
    const struct mb_family *family;
    const char *architecture; /* as its family spells it */
    size_t n_vocab, d_model, n_layers, n_ctx;
    size_t n_ctx_short; /* of its rotary embeddings: all that have one have the same */
    size_t
        n_pass_tokens; /* most tokens of a pass, up to MB_PASS_TOKENS: what memory has room for (budget.c) */
    float norm_eps;
    bool has_layer_norms; /* norms take the mean away and add a bias; else they are RMS norms */
    bool is_tied;         /* the head is the embedding */
    bool has_head_bias;

    /* Multipliers of the embedding, and of what attention and MLP add to the residual stream; logits are
     * divided by the last one.  0: as it is. */
    float embedding_multiplier, residual_multiplier, logits_divisor;

    size_t n_attentions, n_mlps;
    struct mb_attention_config attentions[MB_SHAPES_MAX];
    struct mb_mlp_config mlps[MB_SHAPES_MAX];
    uint8_t attention_of[MB_LAYERS_MAX], mlp_of[MB_LAYERS_MAX]; /* indices into them, of each layer */

    const char *note;            /* what a user should know of it, a line; NULL: nothing */
    char unused[MB_NOTE_NBYTES]; /* a line about settings that nobody asked for, or "" */

    int32_t bos_id; /* -1: none. A family sets what transformers takes where config.json does not say it, */
    int32_t eos_default; /* and this in the same way; -1: none */
    int32_t eos_ids[MB_EOS_IDS_MAX];
    size_t n_eos_ids;
};

/*
 * Reads config.json and, if it is there, generation_config.json (for eos_token_id).  MB_UNSUPPORTED names a
 * setting that the engine does not support; MB_BAD_DATA one that is missing or makes no sense.
 */
enum mb_status mb_config_read(const struct mb_checkpoint *ckpt, struct mb_config *config,
                              struct mb_error *err);

#endif
