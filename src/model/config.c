/*
 * config.c - reads config.json as transformers 4 and 5 write it.
 *
 * Every number is range checked before it is used for a size.  What is unknown and would change results is
 * refused by name; keys that do not matter for running a model are ignored.
 */
#include "config.h"
#include "base/error.h"
#include "base/file.h"
#include "base/json.h"
#include "rope.h"
#include <inttypes.h>
#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    DIM_MAX = 65535, /* columns of a coded matrix */
    LAYERS_MAX = 4096,
    HEADS_MAX = 4096,
    VOCAB_MAX = 1 << 24,
    CTX_MAX = 1 << 24,
    GENERATION_CONFIG_NBYTES_MAX = 1 << 20,
};

/* A JSON object being read: the first failure is kept, later reads give harmless values. */
struct reading {
    const json_t *object;
    const char *path;  /* of the file */
    const char *where; /* "" or "rope_scaling." */
    enum mb_status status;
    struct mb_error *err;
};

#define FAIL(r, code, ...)                                      \
    do {                                                        \
        if ((r)->status == MB_OK)                               \
            (r)->status = mb_fail((r)->err, code, __VA_ARGS__); \
    } while (0)

static const json_t *get(const struct reading *r, const char *key)
{
    const json_t *value = json_object_get(r->object, key);
    return value == NULL || json_is_null(value) ? NULL : value;
}

static size_t get_size(struct reading *r, const char *key, size_t min, size_t max, const size_t *otherwise)
{
    const json_t *value = get(r, key);
    if (value == NULL && otherwise != NULL)
        return *otherwise;
    if (value == NULL) {
        FAIL(r, MB_BAD_DATA, "%s: %s%s is missing", r->path, r->where, key);
        return min;
    }
    json_int_t n = json_integer_value(value);
    if (!json_is_integer(value) || n < (json_int_t)min || n > (json_int_t)max) {
        FAIL(r, MB_BAD_DATA, "%s: %s%s is not a whole number from %zu to %zu", r->path, r->where, key, min,
             max);
        return min;
    }
    return (size_t)n;
}

static double get_number(struct reading *r, const char *key, double min, double max, const double *otherwise)
{
    const json_t *value = get(r, key);
    if (value == NULL && otherwise != NULL)
        return *otherwise;
    double x = value == NULL ? NAN : json_number_value(value);
    if (value == NULL)
        FAIL(r, MB_BAD_DATA, "%s: %s%s is missing", r->path, r->where, key);
    else if (!json_is_number(value) || !(x >= min && x <= max))
        FAIL(r, MB_BAD_DATA, "%s: %s%s is not a number from %g to %g", r->path, r->where, key, min, max);
    return r->status == MB_OK ? x : min;
}

static bool get_bool(struct reading *r, const char *key, bool otherwise)
{
    const json_t *value = get(r, key);
    if (value == NULL)
        return otherwise;
    if (!json_is_boolean(value))
        FAIL(r, MB_BAD_DATA, "%s: %s%s is not true or false", r->path, r->where, key);
    return json_is_true(value);
}

/* A setting of which only one value is supported. */
static void want_text(struct reading *r, const char *key, const char *supported, bool may_be_missing)
{
    const json_t *value = get(r, key);
    if (value == NULL && may_be_missing)
        return;
    const char *text = json_string_value(value);
    if (text == NULL || strcmp(text, supported) != 0)
        FAIL(r, MB_UNSUPPORTED, "%s: %s%s is %s%.60s%s; only \"%s\" is supported", r->path, r->where, key,
             text != NULL ? "\"" : "", text != NULL ? text : "not a text", text != NULL ? "\"" : "",
             supported);
}

/* ---------------------------------------------------------------- parts of config.json */

static void read_architecture(struct reading *r, struct mb_config *config)
{
    const json_t *list = get(r, "architectures");
    const char *name = json_string_value(json_array_get(list, 0));
    const char *type = json_string_value(get(r, "model_type"));
    if (name == NULL && type != NULL && strcmp(type, "deepseek_v3") == 0)
        name = "DeepseekV3ForCausalLM";
    if (name == NULL || strcmp(name, "DeepseekV3ForCausalLM") != 0)
        FAIL(r, MB_UNSUPPORTED, "%s: architecture %.60s; only DeepseekV3ForCausalLM can be run", r->path,
             name != NULL   ? name
             : type != NULL ? type
                            : "unknown");
    else
        snprintf(config->architecture, sizeof config->architecture, "%s", name);
}

static void read_sizes(struct reading *r, struct mb_config *config)
{
    const size_t zero = 0;
    config->n_vocab = get_size(r, "vocab_size", 1, VOCAB_MAX, NULL);
    config->d_model = get_size(r, "hidden_size", 1, DIM_MAX, NULL);
    config->n_layers = get_size(r, "num_hidden_layers", 1, LAYERS_MAX, NULL);
    config->n_ctx = get_size(r, "max_position_embeddings", 1, CTX_MAX, NULL);
    config->n_dense_layers = get_size(r, "first_k_dense_replace", 0, LAYERS_MAX, &zero);
    if (config->n_dense_layers > config->n_layers)
        config->n_dense_layers = config->n_layers;
    config->d_ff = get_size(r, "intermediate_size", 1, DIM_MAX, NULL);
    config->norm_eps = (float)get_number(r, "rms_norm_eps", 0, 1, NULL);
    config->is_tied = get_bool(r, "tie_word_embeddings", false);
    want_text(r, "hidden_act", "silu", true);
}

static void read_attention(struct reading *r, struct mb_config *config)
{
    const size_t zero = 0;
    config->n_heads = get_size(r, "num_attention_heads", 1, HEADS_MAX, NULL);
    config->q_rank = get_size(r, "q_lora_rank", 1, DIM_MAX, &zero);
    config->kv_rank = get_size(r, "kv_lora_rank", 1, DIM_MAX, NULL);
    config->d_nope = get_size(r, "qk_nope_head_dim", 1, DIM_MAX, NULL);
    config->d_rope = get_size(r, "qk_rope_head_dim", 2, MB_ROPE_DIMS_MAX, NULL);
    config->d_v = get_size(r, "v_head_dim", 1, DIM_MAX, NULL);
    config->has_bias = get_bool(r, "attention_bias", false);
    config->rope_interleave = get_bool(r, "rope_interleave", true);
    if (config->d_rope % 2 != 0)
        FAIL(r, MB_BAD_DATA, "%s: qk_rope_head_dim is odd", r->path);
    if (config->n_heads * config->d_v > DIM_MAX)
        FAIL(r, MB_UNSUPPORTED, "%s: num_attention_heads x v_head_dim is more than %d", r->path, DIM_MAX);
}

static void read_experts(struct reading *r, struct mb_config *config)
{
    const size_t one = 1, zero = 0;
    const double unit = 1;
    if (config->n_dense_layers == config->n_layers)
        return;
    config->n_experts = get_size(r, "n_routed_experts", 1, MB_EXPERTS_MAX, NULL);
    config->n_used = get_size(r, "num_experts_per_tok", 1, MB_EXPERTS_MAX, NULL);
    config->n_shared = get_size(r, "n_shared_experts", 1, 64, &zero);
    config->d_expert = get_size(r, "moe_intermediate_size", 1, DIM_MAX, NULL);
    config->n_groups = get_size(r, "n_group", 1, MB_EXPERTS_MAX, &one);
    config->n_groups_used = get_size(r, "topk_group", 1, MB_EXPERTS_MAX, &one);
    config->norm_weights = get_bool(r, "norm_topk_prob", true);
    config->routed_scale = (float)get_number(r, "routed_scaling_factor", 0, 1e6, &unit);
    want_text(r, "scoring_func", "sigmoid", true);
    want_text(r, "topk_method", "noaux_tc", true);
    if (get_size(r, "moe_layer_freq", 1, LAYERS_MAX, &one) != 1)
        FAIL(r, MB_UNSUPPORTED, "%s: moe_layer_freq other than 1 is not supported", r->path);
    if (r->status != MB_OK)
        return;
    if (config->d_expert * config->n_shared > DIM_MAX)
        FAIL(r, MB_BAD_DATA, "%s: n_shared_experts x moe_intermediate_size is more than %d", r->path,
             DIM_MAX);
    if (config->n_used > config->n_experts || config->n_groups_used > config->n_groups ||
        config->n_experts % config->n_groups != 0)
        FAIL(r, MB_BAD_DATA,
             "%s: num_experts_per_tok, n_routed_experts, topk_group and n_group do not fit one another",
             r->path);
    else if (config->n_groups > 1 && config->n_experts / config->n_groups < 2)
        FAIL(r, MB_BAD_DATA, "%s: n_group leaves less than two experts in a group", r->path);
    else if (config->n_used > config->n_groups_used * (config->n_experts / config->n_groups))
        FAIL(r, MB_BAD_DATA, "%s: num_experts_per_tok is more than topk_group groups hold", r->path);
}

/* ---------------------------------------------------------------- rotary embedding */

static void read_yarn(struct reading *r, const struct reading *top, struct mb_config *config, double theta)
{
    const double fast = 32, slow = 1, zero = 0, none = -1;
    size_t n_ctx = config->n_ctx;
    struct mb_yarn yarn = {.theta = theta};
    yarn.n_ctx_original = (double)get_size(r, "original_max_position_embeddings", 1, CTX_MAX, &n_ctx);
    double by_context = (double)config->n_ctx / yarn.n_ctx_original;
    yarn.factor = get_number(r, "factor", 1, 1e6, &by_context);
    yarn.beta_fast = get_number(r, "beta_fast", 1e-6, 1e6, &fast);
    yarn.beta_slow = get_number(r, "beta_slow", 1e-6, 1e6, &slow);
    yarn.truncate = get_bool(r, "truncate", true);
    double mscale = get_number(r, "mscale", 0, 1e3, &zero);
    double mscale_all_dim = get_number(r, "mscale_all_dim", 0, 1e3, &zero);
    double attention_factor = get_number(r, "attention_factor", 0, 1e3, &none);
    if (r->status != MB_OK || top->status != MB_OK)
        return;
    mb_rope_yarn(&yarn, config->d_rope, config->inv_freq);
    config->rope_factor = mb_rope_yarn_factor(&yarn, mscale, mscale_all_dim, attention_factor);
    if (mscale_all_dim != 0) {
        double m = mb_rope_yarn_mscale(yarn.factor, mscale_all_dim);
        config->softmax_scale = (float)((double)config->softmax_scale * m * m);
    }
}

/* `rope_theta` and `rope_scaling` of transformers 4, `rope_parameters` of transformers 5. */
static void read_rope(struct reading *top, struct mb_config *config)
{
    const json_t *parameters = get(top, "rope_parameters"), *scaling = get(top, "rope_scaling");
    struct reading r = *top;
    r.object = parameters != NULL ? parameters : scaling;
    r.where = parameters != NULL ? "rope_parameters." : "rope_scaling.";
    if (r.object != NULL && !json_is_object(r.object)) {
        FAIL(top, MB_BAD_DATA, "%s: %s is not an object", top->path,
             parameters != NULL ? "rope_parameters" : "rope_scaling");
        return;
    }
    const double ten_thousand = 10000;
    struct reading *with_theta = parameters != NULL && get(&r, "rope_theta") != NULL ? &r : top;
    double theta = get_number(with_theta, "rope_theta", 1.000001, 1e12, &ten_thousand);
    const json_t *type = r.object == NULL               ? NULL
                         : get(&r, "rope_type") != NULL ? get(&r, "rope_type")
                                                        : get(&r, "type");
    const char *name = type == NULL ? "default" : json_string_value(type);
    config->rope_factor = 1;
    config->softmax_scale = 1.0F / sqrtf((float)(config->d_nope + config->d_rope));
    if (name != NULL && strcmp(name, "default") == 0)
        mb_rope_default(theta, config->d_rope, config->inv_freq);
    else if (name != NULL && strcmp(name, "yarn") == 0)
        read_yarn(&r, top, config, theta);
    else
        FAIL(&r, MB_UNSUPPORTED, "%s: %s is %.40s; rotary embeddings are supported as default and yarn",
             top->path, parameters != NULL ? "rope_parameters" : "rope_scaling",
             name != NULL ? name : "of no kind");
    if (top->status == MB_OK)
        top->status = r.status;
}

/* ---------------------------------------------------------------- special tokens */

static void add_eos(struct reading *r, const json_t *value, struct mb_config *config)
{
    json_int_t id = json_integer_value(value);
    if (!json_is_integer(value) || id < 0 || id >= VOCAB_MAX || config->n_eos_ids == MB_EOS_IDS_MAX) {
        FAIL(r, MB_BAD_DATA, "%s: eos_token_id is not a token id or a list of up to %d", r->path,
             MB_EOS_IDS_MAX);
        return;
    }
    config->eos_ids[config->n_eos_ids++] = (int32_t)id;
}

static void read_eos(struct reading *r, struct mb_config *config)
{
    const json_t *value = get(r, "eos_token_id"), *id;
    size_t i;
    if (!json_is_array(value)) {
        if (value != NULL)
            add_eos(r, value, config);
        return;
    }
    json_array_foreach(value, i, id) add_eos(r, id, config);
}

static void read_bos(struct reading *r, struct mb_config *config)
{
    const json_t *value = get(r, "bos_token_id");
    config->bos_id = -1;
    if (value == NULL)
        return;
    json_int_t id = json_integer_value(value);
    if (!json_is_integer(value) || id < 0 || (size_t)id >= config->n_vocab)
        FAIL(r, MB_BAD_DATA, "%s: bos_token_id is not a token id", r->path);
    else
        config->bos_id = (int32_t)id;
}

/* generation_config.json names the ends of a reply where it is there and does so; else config.json. */
static enum mb_status read_generation_config(const struct mb_checkpoint *ckpt, struct mb_config *config,
                                             struct mb_error *err)
{
    char path[MB_PATH_MAX], *text;
    size_t nbytes;
    enum mb_status status = mb_join_path(path, mb_checkpoint_path(ckpt), "generation_config.json", err);
    bool is_there;
    if (status == MB_OK)
        status = mb_look_at(path, &is_there, NULL, err);
    if (status != MB_OK || !is_there)
        return status;
    status = mb_read_file(path, GENERATION_CONFIG_NBYTES_MAX, &text, &nbytes, err);
    if (status != MB_OK)
        return status;
    json_t *root;
    status = mb_json_parse(text, nbytes, 0, &root, err);
    free(text);
    if (status != MB_OK)
        return mb_fail_in(err, status, "%s", path);
    if (!json_is_object(root)) {
        json_decref(root);
        return mb_fail(err, MB_BAD_DATA, "%s: not an object", path);
    }
    struct reading r = {.object = root, .path = path, .where = "", .err = err};
    read_eos(&r, config);
    json_decref(root);
    return r.status;
}

enum mb_status mb_config_read(const struct mb_checkpoint *ckpt, struct mb_config *config,
                              struct mb_error *err)
{
    char path[MB_PATH_MAX];
    *config = (struct mb_config){0};
    enum mb_status status = mb_join_path(path, mb_checkpoint_path(ckpt), "config.json", err);
    if (status != MB_OK)
        return status;
    const char *text = mb_checkpoint_config_text(ckpt);
    json_t *root;
    status = mb_json_parse(text, strlen(text), 0, &root, err);
    if (status != MB_OK)
        return mb_fail_in(err, status, "%s", path);
    struct reading r = {.object = root, .path = path, .where = "", .err = err};
    read_architecture(&r, config);
    if (r.status == MB_OK)
        read_sizes(&r, config);
    if (r.status == MB_OK)
        read_attention(&r, config);
    if (r.status == MB_OK)
        read_experts(&r, config);
    if (r.status == MB_OK)
        read_rope(&r, config);
    if (r.status == MB_OK)
        read_bos(&r, config);
    if (r.status == MB_OK)
        r.status = read_generation_config(ckpt, config, err);
    if (r.status == MB_OK && config->n_eos_ids == 0)
        read_eos(&r, config);
    json_decref(root);
    return r.status;
}
