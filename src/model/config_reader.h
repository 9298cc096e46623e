/*
 * config_reader.h - how families read config.json: settings by name, range checked, the first failure kept.
 */
#ifndef MB_MODEL_CONFIG_READER_H
#define MB_MODEL_CONFIG_READER_H

#include "base/error.h"
#include "base/json.h"
#include "config.h"

/* Settings that somebody asked for, there or not. For the object and those in it. */
struct mb_known_settings {
    const char *keys[160]; /* each once */
    size_t n;
};

/*
 * A JSON object that is being read.  The first failure is kept in status and err; after it, reads give
 * values in range that nobody uses.  A setting that is null is refused, or counts as missing or false, as
 * transformers has it.
 */
struct mb_config_reader {
    const json_t *object;
    const char *path;  /* of the file, for messages */
    const char *where; /* "" or "rope_scaling.", before names in messages */
    enum mb_status status;
    struct mb_error *err;
    uint64_t seen;          /* settings that change results and that somebody read: see mb_read_rest */
    bool knows_layer_types; /* the family has read `layer_types` */
    struct mb_known_settings *known; /* or NULL: nobody wants to know */
};

#define MB_READ_FAIL(r, code, ...)                              \
    do {                                                        \
        if ((r)->status == MB_OK)                               \
            (r)->status = mb_fail((r)->err, code, __VA_ARGS__); \
    } while (0)

/* NULL when missing. */
const json_t *mb_read(struct mb_config_reader *r, const char *key);

/* It is there, and null. */
bool mb_is_null(const struct mb_config_reader *r, const char *key);

/* The second of each pair gives 'otherwise' for a missing setting, the first fails. */
size_t mb_read_size(struct mb_config_reader *r, const char *key, size_t min, size_t max);
size_t mb_read_size_or(struct mb_config_reader *r, const char *key, size_t min, size_t max, size_t otherwise);
/* A setting that transformers knows under another name as well, which goes before the first. */
size_t mb_read_aliased_or(struct mb_config_reader *r, const char *key, const char *alias, size_t min,
                          size_t max, size_t otherwise);
double mb_read_number(struct mb_config_reader *r, const char *key, double min, double max);
double mb_read_number_or(struct mb_config_reader *r, const char *key, double min, double max,
                         double otherwise);
bool mb_read_bool_or(struct mb_config_reader *r, const char *key, bool otherwise);

/* A setting that may be missing, and of which only this text is supported. */
void mb_read_only_text(struct mb_config_reader *r, const char *key, const char *supported);

/* What a family takes for settings of rotary embeddings that are missing. */
struct mb_rope_defaults {
    double theta;
    double partial; /* share of the dimensions that is rotated; 0: the family always rotates all */
};

/* The object that describes rotary embeddings; 'object' is NULL where there is none. */
struct mb_config_reader mb_rope_reader(struct mb_config_reader *top);

/* Of that object: "default" where it names no type. */
const char *mb_rope_type(struct mb_config_reader *r);

/*
 * Rotary embeddings of n_dims dimensions, or a share of them: default, linear, llama3, LongRoPE or YaRN;
 * `rope_theta` and `rope_scaling` of transformers 4, `rope_parameters` of transformers 5.  Returns the factor
 * of YaRN's mscale_all_dim, 1 without one: some families multiply their softmax scale with its square.
 */
double mb_read_rope(struct mb_config_reader *top, size_t n_dims, size_t n_ctx,
                    struct mb_rope_defaults defaults, struct mb_rope *rope);

/*
 * The sizes that all families with grouped-query attention spell alike, and the kind.  n_kv_heads 0: as many
 * as n_heads where they are missing; so it is for all families where they are null.
 */
void mb_read_gqa(struct mb_config_reader *r, const struct mb_config *config, size_t n_heads,
                 size_t n_kv_heads, struct mb_attention_config *a);

/* mlp_of of layers: 'experts' in each decoder_sparse_step-th one that mlp_only_layers does not name. */
void mb_read_sparse_layers(struct mb_config_reader *r, struct mb_config *config, uint8_t dense,
                           uint8_t experts);

/*
 * attention_of of layers, as `layer_types` says; where it is missing, they stay.  'windowed' equals 'full' in
 * a model without sliding windows: one in the list is refused.
 */
void mb_read_layer_types(struct mb_config_reader *r, struct mb_config *config, uint8_t full,
                         uint8_t windowed);

/* What a family with latent attention takes for sizes that are missing. q_lora_rank null: not low-rank. */
struct mb_mla_defaults {
    size_t n_heads, q_rank, kv_rank, d_nope, d_rope, d_v;
};

/* Latent attention, but for whether rotary pairs are interleaved. */
void mb_read_mla(struct mb_config_reader *r, const struct mb_config *config,
                 const struct mb_mla_defaults *defaults, struct mb_attention_config *a);

/*
 * A router of DeepSeek-V3's sort: sigmoids with a bias for the choice, perhaps of groups first, and a scale.
 * n_experts and so on of 'defaults' are for settings that are missing.
 */
void mb_read_sigmoid_router(struct mb_config_reader *r, const struct mb_router_config *defaults,
                            struct mb_router_config *router);

/* Numbers of experts, chosen ones and groups fit together. */
void mb_check_router(struct mb_config_reader *r, const struct mb_router_config *router);

/* d_expert, and d_shared by n_shared_experts; null: none. */
void mb_read_shared_experts(struct mb_config_reader *r, size_t d_expert, size_t otherwise,
                            struct mb_mlp_config *mlp);

/* mlp_of of layers: the first_k_dense_replace first ones are dense. */
void mb_read_first_dense(struct mb_config_reader *r, struct mb_config *config, size_t otherwise,
                         uint8_t dense, uint8_t experts);

/*
 * After a family has read what it knows: refuses settings that change results in some family, that this one
 * did not read, and that are not neutral.
 */
void mb_read_rest(struct mb_config_reader *r);

/*
 * What nobody asked for, in this object and in those that describe rotary embeddings, and what changes no
 * result in any family is not meant: "2 settings of config.json are not used: a, rope_scaling.b".  "" when
 * there is none.  null and false do not count.
 */
void mb_list_unused_settings(const struct mb_config_reader *r, char text[MB_NOTE_NBYTES]);

#endif
