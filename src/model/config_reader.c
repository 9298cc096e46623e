/*
 * config_reader.c - see config_reader.h.
 *
 * Every number is range checked before anybody uses it for a size.
 */
#include "config_reader.h"
#include <math.h>
#include <string.h>

/* Settings that change results in some family, and the number that makes each one harmless. */
static const struct {
    const char *key;
    double neutral; /* NAN: none. null and false are always harmless */
} telling[] = {
    {"attention_bias", NAN},
    {"attention_chunk_size", NAN},
    {"attention_multiplier", NAN},
    {"attn_logit_softcapping", NAN},
    {"clip_qkv", NAN},
    {"decoder_sparse_step", 1},
    {"embedding_multiplier", 1},
    {"final_logit_softcapping", NAN},
    {"first_k_dense_replace", 0},
    {"logit_scale", 1},
    {"logits_scaling", 1},
    {"lm_head_bias", NAN},
    {"mlp_bias", NAN},
    {"moe_layer_freq", 1},
    {"n_group", 1},
    {"n_shared_experts", 0},
    {"num_shared_experts", 0},
    {"partial_rotary_factor", 1},
    {"qkv_bias", NAN},
    {"query_pre_attn_scalar", NAN},
    {"residual_multiplier", 1},
    {"routed_scaling_factor", 1},
    {"scoring_func", NAN},
    {"shared_expert_intermediate_size", 0},
    {"shared_intermediate_size", 0},
    {"sliding_window", NAN},
    {"swiglu_limit", NAN},
    {"use_qk_norm", NAN},
    {"use_qkv_bias", NAN},
    {"use_sliding_window", NAN},
};
enum { N_TELLING = sizeof telling / sizeof *telling };
_Static_assert(N_TELLING <= 64, "'seen' has a bit for each");

static void know(struct mb_known_settings *known, const char *key)
{
    size_t i = 0;
    while (known != NULL && i < known->n && strcmp(known->keys[i], key) != 0)
        i++;
    if (known != NULL && i == known->n && i < sizeof known->keys / sizeof known->keys[0])
        known->keys[known->n++] = key;
}

const json_t *mb_read(struct mb_config_reader *r, const char *key)
{
    for (size_t i = 0; i < N_TELLING; i++)
        if (strcmp(key, telling[i].key) == 0)
            r->seen |= UINT64_C(1) << i;
    know(r->known, key);
    const json_t *value = json_object_get(r->object, key);
    return value == NULL || json_is_null(value) ? NULL : value;
}

/*
 * transformers fails for a setting that is null, but for these, which it takes for missing, and within the
 * object that describes rotary embeddings.
 */
static bool may_be_null(const struct mb_config_reader *r, const char *key)
{
    static const char *const keys[] = {
        "head_dim", "num_key_value_heads", "sliding_window",   "q_lora_rank",
        "clip_qkv", "bos_token_id",        "n_shared_experts", "original_max_position_embeddings"};
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++)
        if (strcmp(key, keys[i]) == 0)
            return true;
    return r->where[0] != 0;
}

bool mb_is_null(const struct mb_config_reader *r, const char *key)
{
    return json_is_null(json_object_get(r->object, key));
}

static void refuse_null(struct mb_config_reader *r, const char *key)
{
    if (mb_is_null(r, key) && !may_be_null(r, key))
        MB_READ_FAIL(r, MB_BAD_DATA, "%s: %s%s is null: give it a value, or take it out", r->path, r->where,
                     key);
}

static size_t whole_number(struct mb_config_reader *r, const char *key, const json_t *value, size_t min,
                           size_t max)
{
    json_int_t n = json_integer_value(value);
    if (json_is_integer(value) && n >= (json_int_t)min && n <= (json_int_t)max)
        return (size_t)n;
    MB_READ_FAIL(r, MB_BAD_DATA, "%s: %s%s is not a whole number from %zu to %zu", r->path, r->where, key,
                 min, max);
    return min;
}

static double number(struct mb_config_reader *r, const char *key, const json_t *value, double min, double max)
{
    double x = json_number_value(value);
    if (json_is_number(value) && x >= min && x <= max)
        return x;
    MB_READ_FAIL(r, MB_BAD_DATA, "%s: %s%s is not a number from %g to %g", r->path, r->where, key, min, max);
    return min;
}

static void missing(struct mb_config_reader *r, const char *key)
{
    MB_READ_FAIL(r, MB_BAD_DATA, "%s: %s%s is missing", r->path, r->where, key);
}

size_t mb_read_size(struct mb_config_reader *r, const char *key, size_t min, size_t max)
{
    const json_t *value = mb_read(r, key);
    if (value != NULL)
        return whole_number(r, key, value, min, max);
    missing(r, key);
    return min;
}

size_t mb_read_size_or(struct mb_config_reader *r, const char *key, size_t min, size_t max, size_t otherwise)
{
    const json_t *value = mb_read(r, key);
    refuse_null(r, key);
    return value == NULL ? otherwise : whole_number(r, key, value, min, max);
}

size_t mb_read_aliased_or(struct mb_config_reader *r, const char *key, const char *alias, size_t min,
                          size_t max, size_t otherwise)
{
    size_t n = mb_read_size_or(r, key, min, max, otherwise);
    return mb_read_size_or(r, alias, min, max, n);
}

double mb_read_number(struct mb_config_reader *r, const char *key, double min, double max)
{
    const json_t *value = mb_read(r, key);
    if (value != NULL)
        return number(r, key, value, min, max);
    missing(r, key);
    return min;
}

double mb_read_number_or(struct mb_config_reader *r, const char *key, double min, double max,
                         double otherwise)
{
    const json_t *value = mb_read(r, key);
    refuse_null(r, key);
    return value == NULL ? otherwise : number(r, key, value, min, max);
}

bool mb_read_bool_or(struct mb_config_reader *r, const char *key, bool otherwise)
{
    const json_t *value = mb_read(r, key);
    if (value == NULL) /* null is false in Python */
        return otherwise && !mb_is_null(r, key);
    if (!json_is_boolean(value))
        MB_READ_FAIL(r, MB_BAD_DATA, "%s: %s%s is not true or false", r->path, r->where, key);
    return json_is_true(value);
}

void mb_read_only_text(struct mb_config_reader *r, const char *key, const char *supported)
{
    const json_t *value = mb_read(r, key);
    const char *text = json_string_value(value), *quote = text != NULL ? "\"" : "";
    refuse_null(r, key);
    if (value != NULL && (text == NULL || strcmp(text, supported) != 0))
        MB_READ_FAIL(r, MB_UNSUPPORTED, "%s: %s%s is %s%.60s%s; only \"%s\" is supported", r->path, r->where,
                     key, quote, text != NULL ? text : "not a text", quote, supported);
}

static bool is_harmless(const json_t *value, double neutral)
{
    return value == NULL || json_is_null(value) || json_is_false(value) ||
           (json_is_number(value) && json_number_value(value) == neutral);
}

/* A list that says the same of every layer is harmless. */
static bool has_only_full_attention(const json_t *types)
{
    size_t i;
    const json_t *type;
    json_array_foreach(types, i,
                       type) if (json_string_value(type) == NULL ||
                                 strcmp(json_string_value(type), "full_attention") != 0) return false;
    return true;
}

void mb_read_rest(struct mb_config_reader *r)
{
    for (size_t i = 0; i < N_TELLING; i++) {
        const json_t *value = json_object_get(r->object, telling[i].key);
        know(r->known, telling[i].key); /* judged here, if nowhere else */
        if ((r->seen >> i & 1) == 0 && !is_harmless(value, telling[i].neutral))
            MB_READ_FAIL(r, MB_UNSUPPORTED, "%s: %s is set; models of this architecture run only without it",
                         r->path, telling[i].key);
    }
    know(r->known, "layer_types");
    if (!r->knows_layer_types && !has_only_full_attention(json_object_get(r->object, "layer_types")))
        MB_READ_FAIL(r, MB_UNSUPPORTED, "%s: layer_types: only \"full_attention\" is supported", r->path);
}
