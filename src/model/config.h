/*
 * config.h - config.json of the DeepSeek-V3 architecture (DeepSeek-V3, Moonlight), checked.
 */
#ifndef MB_MODEL_CONFIG_H
#define MB_MODEL_CONFIG_H

#include <moebius/checkpoint.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
    MB_ROPE_DIMS_MAX = 512, /* of one head */
    MB_EXPERTS_MAX = 4096,
    MB_EOS_IDS_MAX = 64,
};

struct mb_config {
    char architecture[64];
    size_t n_vocab, d_model, n_layers, n_ctx;
    size_t n_dense_layers; /* the first layers, which have one MLP and no experts */
    size_t d_ff;           /* of dense layers */
    float norm_eps;
    bool is_tied; /* lm_head is the embedding */

    /* Latent attention. */
    size_t n_heads, q_rank /* 0: queries are not low-rank */, kv_rank, d_nope, d_rope, d_v;
    bool has_bias; /* of q_a_proj, kv_a_proj_with_mqa and o_proj */
    float softmax_scale;
    bool rope_interleave;
    float rope_factor; /* of cos and sin */
    float inv_freq[MB_ROPE_DIMS_MAX / 2];

    /* Experts. */
    size_t n_experts, n_used, n_shared, d_expert;
    size_t n_groups, n_groups_used;
    bool norm_weights;
    float routed_scale;

    int32_t bos_id; /* -1: none */
    int32_t eos_ids[MB_EOS_IDS_MAX];
    size_t n_eos_ids;
};

/*
 * Reads config.json and, if it is there, generation_config.json (for eos_token_id).  MB_UNSUPPORTED names a
 * setting that asks for what the engine does not do; MB_BAD_DATA one that is missing or makes no sense.
 */
enum mb_status mb_config_read(const struct mb_checkpoint *ckpt, struct mb_config *config,
                              struct mb_error *err);

#endif
