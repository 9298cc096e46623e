/*
 * test_config.c - configurations that the engine must refuse, by name: a copy of a good folder with one
 * setting changed.
 */
#include "cmocka_all.h"
#include <jansson.h>
#include <moebius/engine.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define CHECKPOINTS MB_REPO "/tests/model/data/checkpoints/"

static char folder[256];
static const char *good; /* the folder that is copied */

static void path_of(char path[512], const char *name)
{
    snprintf(path, 512, "%s/%s", folder, name);
}

static int make_folder(void **state)
{
    (void)state;
    const char *tmp = getenv("TMPDIR");
    snprintf(folder, sizeof folder, "%s/moebius-config-XXXXXX", tmp != NULL ? tmp : P_tmpdir);
    return mkdtemp(folder) == NULL;
}

static void copy(const char *name)
{
    char path[512], target[512];
    good = name;
    path_of(path, "model.safetensors");
    snprintf(target, sizeof target, "%s%s/model.safetensors", CHECKPOINTS, good);
    unlink(path);
    assert_int_equal(symlink(target, path), 0);
}

static int remove_folder(void **state)
{
    static const char *const names[] = {"model.safetensors", "config.json", "generation_config.json"};
    (void)state;
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        char path[512];
        path_of(path, names[i]);
        unlink(path);
    }
    return rmdir(folder);
}

static json_t *good_config(void)
{
    char path[512];
    snprintf(path, sizeof path, "%s%s/config.json", CHECKPOINTS, good);
    json_t *config = json_load_file(path, 0, NULL);
    assert_non_null(config);
    return config;
}

static void write_config_without(const char *key)
{
    char path[512];
    json_t *config = good_config();
    assert_int_equal(json_object_del(config, key), 0);
    path_of(path, "config.json");
    assert_int_equal(json_dump_file(config, path, 0), 0);
    json_decref(config);
}

/* config.json with the members of 'changes' in place of its own. */
static void write_config(const char *changes)
{
    char path[512];
    json_t *config = good_config(), *changed = json_loads(changes, 0, NULL);
    if (changed == NULL)
        fail_msg("not JSON: %s", changes);
    assert_int_equal(json_object_update(config, changed), 0);
    path_of(path, "config.json");
    assert_int_equal(json_dump_file(config, path, 0), 0);
    json_decref(config);
    json_decref(changed);
}

struct refusal {
    const char *changes;
    enum mb_status status;
    const char *message;
};

static void check_refusals(const struct refusal *cases, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        struct mb_model *model = NULL;
        struct mb_error err = {0};
        write_config(cases[i].changes);
        enum mb_status status = mb_model_open(folder, NULL, &model, &err);
        if (status != cases[i].status || strstr(err.msg, cases[i].message) == NULL)
            fail_msg("%s: status %d, \"%s\"", cases[i].changes, status, err.msg);
        assert_null(model);
        assert_non_null(strstr(err.msg, folder));
    }
}

static void refused_by_name(void **state)
{
    static const struct refusal cases[] = {
        {"{\"architectures\": [\"JambaForCausalLM\"]}", MB_UNSUPPORTED,
         "architecture JambaForCausalLM cannot be run, it needs state-space layers (Mamba); these can be "
         "run: Deepseek"},
        {"{\"architectures\": null, \"model_type\": \"jamba\"}", MB_UNSUPPORTED,
         "architecture jamba cannot be run"},
        {"{\"architectures\": [\"GptOssForCausalLM\"]}", MB_UNSUPPORTED, "it needs attention sinks"},
        {"{\"architectures\": [\"GraniteMoeHybridForCausalLM\"]}", MB_UNSUPPORTED,
         "it needs state-space layers"},
        {"{\"architectures\": [\"ParrotForCausalLM\"]}", MB_UNSUPPORTED,
         "architecture ParrotForCausalLM is not known; these can be run"},
        {"{\"architectures\": [\"MiniMaxForCausalLM\"]}", MB_UNSUPPORTED, "it needs linear attention"},
        {"{\"model_type\": \"qwen3_moe\"}", MB_BAD_DATA,
         "architectures says DeepseekV3ForCausalLM, but model_type says qwen3_moe"},

        {"{\"hidden_act\": \"gelu\"}", MB_UNSUPPORTED, "hidden_act is \"gelu\""},
        {"{\"scoring_func\": \"softmax\"}", MB_UNSUPPORTED, "scoring_func"},
        {"{\"topk_method\": \"greedy\"}", MB_UNSUPPORTED, "topk_method"},
        {"{\"moe_layer_freq\": 2}", MB_UNSUPPORTED, "moe_layer_freq"},
        {"{\"rope_scaling\": {\"type\": \"dynamic\", \"factor\": 2}}", MB_UNSUPPORTED,
         "rope_scaling is dynamic"},
        {"{\"rope_scaling\": null, \"rope_parameters\": {\"rope_type\": \"mrope\"}}", MB_UNSUPPORTED,
         "rope_parameters is mrope"},
        {"{\"rope_scaling\": null, \"rope_parameters\": {\"full_attention\": {\"rope_type\": \"default\"}}}",
         MB_UNSUPPORTED, "rope_parameters.full_attention: rotary embeddings that differ between layers"},
        {"{\"rope_scaling\": {\"type\": \"longrope\", \"short_factor\": [1]}}", MB_BAD_DATA,
         "rope_scaling.short_factor is not a list of 8 numbers"},
        {"{\"rope_scaling\": {\"type\": \"longrope\", \"short_factor\": [1, 2, 3, 4, 5, 6, 7, 8], "
         "\"long_factor\": "
         "[1, 2, 0, 4, 5, 6, 7, 8]}}",
         MB_BAD_DATA, "rope_scaling.long_factor is not a list"},
        {"{\"rope_scaling\": {}, \"rope_parameters\": {\"rope_type\": \"linear\"}}", MB_BAD_DATA,
         "rope_parameters.factor is missing"},
        {"{\"rope_scaling\": {\"type\": \"llama3\", \"factor\": 2}}", MB_BAD_DATA,
         "rope_scaling.low_freq_factor is missing"},
        {"{\"rope_scaling\": {\"type\": \"llama3\", \"factor\": 2, \"low_freq_factor\": 4, "
         "\"high_freq_factor\": 4}}",
         MB_BAD_DATA, "high_freq_factor is not more than low_freq_factor"},
        {"{\"rope_scaling\": 7}", MB_BAD_DATA, "rope_scaling is not an object"},
        {"{\"rope_scaling\": {\"type\": \"yarn\", \"factor\": -1}}", MB_BAD_DATA, "rope_scaling.factor"},
        {"{\"quantization_config\": {\"quant_method\": \"awq\"}}", MB_UNSUPPORTED, "awq"},
        {"{\"hidden_size\": null}", MB_BAD_DATA, "hidden_size is null"},
        {"{\"n_shared_experts\": null}", MB_BAD_DATA, "shared_experts.gate_proj.weight is there"},
        {"{\"num_key_value_heads\": 1}", MB_UNSUPPORTED, "num_key_value_heads is not num_attention_heads"},
        {"{\"head_dim\": 6}", MB_UNSUPPORTED, "head_dim is not qk_rope_head_dim"},
        {"{\"hidden_size\": 0}", MB_BAD_DATA, "hidden_size is not a whole number"},
        {"{\"hidden_size\": 41.5}", MB_BAD_DATA, "hidden_size is not a whole number"},
        {"{\"hidden_size\": 99999999999}", MB_BAD_DATA, "hidden_size is not a whole number"},
        {"{\"hidden_size\": 44}", MB_BAD_DATA, "config.json asks for"},
        {"{\"vocab_size\": 81}", MB_BAD_DATA, "model.embed_tokens.weight"},
        {"{\"num_hidden_layers\": 3}", MB_BAD_DATA, "model.layers.2"},
        {"{\"num_attention_heads\": 5, \"num_key_value_heads\": 5}", MB_BAD_DATA, "q_proj"},
        {"{\"n_routed_experts\": 9}", MB_BAD_DATA, "mlp.gate.weight"},
        {"{\"num_experts_per_tok\": 9}", MB_BAD_DATA, "num_experts_per_tok"},
        {"{\"n_group\": 3}", MB_BAD_DATA, "n_group"},
        {"{\"n_group\": 8}", MB_BAD_DATA, "n_group"},
        {"{\"n_group\": 4, \"topk_group\": 1}", MB_BAD_DATA, "topk_group"},
        {"{\"qk_rope_head_dim\": 7}", MB_BAD_DATA, "qk_rope_head_dim"},
        {"{\"num_attention_heads\": 512, \"num_key_value_heads\": 512, \"v_head_dim\": 4096}", MB_UNSUPPORTED,
         "num_attention_heads x v_head_dim is more than 65535"},
        {"{\"n_shared_experts\": 64, \"moe_intermediate_size\": 2048}", MB_BAD_DATA,
         "n_shared_experts x moe_intermediate_size is more than 65535"},
        {"{\"q_lora_rank\": 4}", MB_BAD_DATA, "q_a_proj"},
        {"{\"attention_bias\": \"yes\"}", MB_BAD_DATA, "attention_bias is not true or false"},
        {"{\"attention_bias\": true}", MB_BAD_DATA, "bias: missing"},
        {"{\"rms_norm_eps\": \"small\"}", MB_BAD_DATA, "rms_norm_eps"},
        {"{\"bos_token_id\": 80}", MB_BAD_DATA, "bos_token_id"},
        {"{\"eos_token_id\": \"end\"}", MB_BAD_DATA, "eos_token_id"},
        {"{\"eos_token_id\": [1, -1]}", MB_BAD_DATA, "eos_token_id"},
    };
    (void)state;
    copy("yarn");
    check_refusals(cases, sizeof cases / sizeof *cases);
}

static void grouped_query_attention_refused_by_name(void **state)
{
    static const struct refusal cases[] = {
        {"{\"sliding_window\": 0}", MB_BAD_DATA, "sliding_window is not a whole number from 1"},
        {"{\"num_key_value_heads\": 3}", MB_BAD_DATA,
         "num_attention_heads is not a multiple of num_key_value_heads"},
        {"{\"head_dim\": 11}", MB_BAD_DATA, "head_dim is odd"},
        {"{\"head_dim\": 14}", MB_BAD_DATA, "self_attn.q_proj.weight"},
        {"{\"num_attention_heads\": 4096, \"head_dim\": 512}", MB_UNSUPPORTED,
         "num_attention_heads x head_dim is more than 65535"},
        {"{\"num_experts_per_tok\": 8}", MB_BAD_DATA, "num_experts_per_tok is more than num_experts"},
        {"{\"num_experts\": 0}", MB_BAD_DATA, "model.layers.0.mlp.gate_proj.weight: missing"},
        {"{\"mlp_only_layers\": 1}", MB_BAD_DATA, "mlp_only_layers"},
        {"{\"mlp_only_layers\": [\"1\"]}", MB_BAD_DATA, "mlp_only_layers"},
        {"{\"mlp_only_layers\": [1]}", MB_BAD_DATA, "model.layers.1.mlp.gate_proj.weight: missing"},
        {"{\"decoder_sparse_step\": 2}", MB_BAD_DATA, "model.layers.0.mlp.gate_proj.weight: missing"},
        {"{\"attention_bias\": true}", MB_BAD_DATA, "self_attn.q_proj.bias: missing"},
        {"{\"rope_scaling\": {\"type\": \"dynamic\", \"factor\": 2}}", MB_UNSUPPORTED,
         "rope_scaling is dynamic"},
    };
    (void)state;
    copy("qwen3-moe");
    check_refusals(cases, sizeof cases / sizeof *cases);
}

static void mixtral_refused_by_name(void **state)
{
    static const struct refusal cases[] = {
        {"{\"sliding_window\": -1}", MB_BAD_DATA, "sliding_window"},
        {"{\"num_experts_per_tok\": 7}", MB_BAD_DATA, "num_experts_per_tok is more than num_local_experts"},
        {"{\"num_local_experts\": 5}", MB_BAD_DATA, "block_sparse_moe.gate.weight"},
        {"{\"intermediate_size\": 30}", MB_BAD_DATA, "block_sparse_moe.experts.0.w1.weight"},
        {"{\"hidden_act\": \"gelu\"}", MB_UNSUPPORTED, "hidden_act"},
        {"{\"use_sliding_window\": true}", MB_UNSUPPORTED, "use_sliding_window"},
        {"{\"attention_bias\": true}", MB_UNSUPPORTED, "attention_bias"},
        {"{\"shared_expert_intermediate_size\": 28}", MB_UNSUPPORTED, "shared_expert_intermediate_size"},
    };
    (void)state;
    copy("mixtral");
    check_refusals(cases, sizeof cases / sizeof *cases);
}

static void olmoe_refused_by_name(void **state)
{
    static const struct refusal cases[] = {
        {"{\"clip_qkv\": 0}", MB_BAD_DATA, "clip_qkv"},
        {"{\"clip_qkv\": \"8\"}", MB_BAD_DATA, "clip_qkv"},
        {"{\"head_dim\": 14}", MB_BAD_DATA, "num_attention_heads x head_dim is not hidden_size"},
        {"{\"num_attention_heads\": 8}", MB_BAD_DATA, "num_attention_heads x head_dim is not hidden_size"},
        {"{\"num_key_value_heads\": 1}", MB_BAD_DATA, "self_attn.k_proj.weight"},
        {"{\"num_experts_per_tok\": 10}", MB_BAD_DATA, "num_experts_per_tok is more than num_experts"},
        {"{\"attention_bias\": true}", MB_BAD_DATA, "self_attn.q_proj.bias: missing"},
        {"{\"sliding_window\": 16}", MB_UNSUPPORTED, "sliding_window"},
        {"{\"decoder_sparse_step\": 2}", MB_UNSUPPORTED, "decoder_sparse_step"},
    };
    (void)state;
    copy("olmoe");
    check_refusals(cases, sizeof cases / sizeof *cases);
}

static void qwen2_moe_refused_by_name(void **state)
{
    static const struct refusal cases[] = {
        {"{\"shared_expert_intermediate_size\": 0}", MB_BAD_DATA, "shared_expert_intermediate_size"},
        {"{\"shared_expert_intermediate_size\": 46}", MB_BAD_DATA, "mlp.shared_expert.gate_proj.weight"},
        {"{\"num_experts_per_tok\": 7}", MB_BAD_DATA, "num_experts_per_tok is more than num_experts"},
        {"{\"mlp_only_layers\": [0]}", MB_BAD_DATA, "model.layers.0.mlp.gate_proj.weight: missing"},
        {"{\"decoder_sparse_step\": 2}", MB_BAD_DATA, "model.layers.0.mlp.gate_proj.weight: missing"},
        {"{\"attention_bias\": true}", MB_UNSUPPORTED, "attention_bias"},
        {"{\"layer_types\": [\"full_attention\", \"sliding_attention\"]}", MB_BAD_DATA,
         "there is no sliding window"},
        {"{\"layer_types\": [\"full_attention\"]}", MB_BAD_DATA, "layer_types is not a list"},
        {"{\"layer_types\": \"full_attention\"}", MB_BAD_DATA, "layer_types is not a list"},
        {"{\"layer_types\": [\"full_attention\", \"linear_attention\"]}", MB_UNSUPPORTED, "layer_types"},
        {"{\"use_sliding_window\": 1}", MB_BAD_DATA, "use_sliding_window is not true or false"},
        {"{\"n_shared_experts\": 1}", MB_UNSUPPORTED, "n_shared_experts"},
    };
    (void)state;
    copy("qwen2-moe");
    check_refusals(cases, sizeof cases / sizeof *cases);
}

static void glm4_moe_refused_by_name(void **state)
{
    static const struct refusal cases[] = {
        {"{\"partial_rotary_factor\": 0.25}", MB_BAD_DATA, "partial_rotary_factor leaves an odd number"},
        {"{\"partial_rotary_factor\": 0}", MB_BAD_DATA, "partial_rotary_factor leaves an odd number"},
        {"{\"partial_rotary_factor\": 1.5}", MB_BAD_DATA, "partial_rotary_factor"},
        {"{\"use_qk_norm\": true}", MB_BAD_DATA, "self_attn.q_norm.weight: missing"},
        {"{\"n_group\": 4}", MB_BAD_DATA, "n_group"},
        {"{\"n_shared_experts\": 2}", MB_BAD_DATA, "mlp.shared_experts.gate_proj.weight"},
        {"{\"first_k_dense_replace\": 0}", MB_BAD_DATA, "model.layers.0.mlp.gate.weight: missing"},
        {"{\"scoring_func\": \"softmax\"}", MB_UNSUPPORTED, "scoring_func"},
        {"{\"sliding_window\": 16}", MB_UNSUPPORTED, "sliding_window"},
    };
    (void)state;
    copy("glm4-moe");
    check_refusals(cases, sizeof cases / sizeof *cases);
}

static void deepseek_v2_refused_by_name(void **state)
{
    static const struct refusal cases[] = {
        {"{\"topk_method\": \"noaux_tc\"}", MB_UNSUPPORTED, "topk_method is \"noaux_tc\""},
        {"{\"scoring_func\": \"sigmoid\"}", MB_UNSUPPORTED, "scoring_func"},
        {"{\"norm_topk_prob\": true}", MB_UNSUPPORTED, "norm_topk_prob is true"},
        {"{\"moe_layer_freq\": 2}", MB_UNSUPPORTED, "moe_layer_freq"},
        {"{\"mlp_bias\": true}", MB_UNSUPPORTED, "mlp_bias"},
        {"{\"num_experts_per_tok\": null}", MB_BAD_DATA, "num_experts_per_tok is missing"},
        {"{\"num_experts_per_tok\": 8}", MB_BAD_DATA, "num_experts_per_tok"},
        {"{\"topk_method\": \"group_limited_greedy\", \"n_group\": 3}", MB_BAD_DATA, "n_group"},
        {"{\"n_shared_experts\": 1}", MB_BAD_DATA, "mlp.shared_experts.gate_proj.weight"},
        {"{\"q_lora_rank\": 24}", MB_BAD_DATA, "q_a_proj"},
        {"{\"qk_rope_head_dim\": 7}", MB_BAD_DATA, "qk_rope_head_dim is odd"},
    };
    (void)state;
    copy("deepseek-v2");
    check_refusals(cases, sizeof cases / sizeof *cases);
}

static void phimoe_refused_by_name(void **state)
{
    static const struct refusal cases[] = {
        {"{\"num_experts_per_tok\": 1}", MB_UNSUPPORTED, "num_experts_per_tok is not 2"},
        {"{\"num_local_experts\": 1}", MB_BAD_DATA, "num_local_experts"},
        {"{\"router_jitter_noise\": -1}", MB_BAD_DATA, "router_jitter_noise"},
        {"{\"rope_scaling\": {\"type\": \"linear\", \"factor\": 2}}", MB_BAD_DATA,
         "rope_scaling.short_mscale is missing"},
        {"{\"rope_scaling\": {\"type\": null, \"rope_type\": 7}}", MB_UNSUPPORTED, "of no kind"},
        {"{\"hidden_act\": \"gelu\"}", MB_UNSUPPORTED, "hidden_act"},
        {"{\"use_qk_norm\": true}", MB_UNSUPPORTED, "use_qk_norm"},
    };
    (void)state;
    copy("phimoe");
    check_refusals(cases, sizeof cases / sizeof *cases);
}

/* Beyond it transformers and the published code differ. */
static void the_context_of_phimoe_ends_where_longrope_begins(void **state)
{
    struct mb_model *model;
    struct mb_error err;
    (void)state;
    copy("phimoe");
    write_config("{}");
    assert_int_equal(mb_model_open(folder, NULL, &model, &err), MB_OK);
    assert_int_equal(mb_model_info(model)->n_ctx_train, 64);
    assert_non_null(strstr(mb_model_info(model)->notes, "original_max_position_embeddings"));
    mb_model_close(model);
}

/* They change results in some family: one that does not know them must not run without them. */
static void settings_of_other_families_refused_by_name(void **state)
{
    static const struct refusal cases[] = {
        {"{\"partial_rotary_factor\": 0.5}", MB_UNSUPPORTED, "partial_rotary_factor"},
        {"{\"rope_parameters\": {\"partial_rotary_factor\": 0.5}, \"rope_scaling\": null}", MB_UNSUPPORTED,
         "rope_parameters.partial_rotary_factor"},
        {"{\"logits_scaling\": 8.0}", MB_UNSUPPORTED, "logits_scaling"},
        {"{\"clip_qkv\": 8}", MB_UNSUPPORTED, "clip_qkv"},
        {"{\"attn_logit_softcapping\": 50.0}", MB_UNSUPPORTED, "attn_logit_softcapping"},
        {"{\"layer_types\": [\"full_attention\", \"sliding_attention\"]}", MB_UNSUPPORTED, "layer_types"},
        {"{\"layer_types\": [7]}", MB_UNSUPPORTED, "layer_types"},
    };
    static const char *const names[] = {"yarn", "mixtral", "qwen3-moe"};
    (void)state;
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        copy(names[i]);
        check_refusals(cases, sizeof cases / sizeof *cases);
    }
    check_refusals(&(struct refusal){"{\"scoring_func\": \"sigmoid\"}", MB_UNSUPPORTED, "scoring_func"}, 1);
}

static void settings_that_change_nothing_are_accepted(void **state)
{
    struct mb_model *model;
    struct mb_error err;
    (void)state;
    copy("qwen3-moe");
    write_config(
        "{\"sliding_window\": 64, \"partial_rotary_factor\": 1.0, \"clip_qkv\": null, \"mlp_bias\": false,"
        " \"layer_types\": [\"full_attention\", \"full_attention\"]}");
    if (mb_model_open(folder, NULL, &model, &err) != MB_OK)
        fail_msg("%s", err.msg);
    mb_model_close(model);
}

static void ends_of_a_reply(void **state)
{
    struct mb_model *model;
    struct mb_error err;
    char path[512];
    (void)state;
    copy("yarn");
    write_config("{\"eos_token_id\": [3, 7]}");
    assert_int_equal(mb_model_open(folder, NULL, &model, &err), MB_OK);
    assert_int_equal(mb_model_info(model)->n_eos_ids, 2);
    assert_int_equal(mb_model_info(model)->eos_ids[1], 7);
    mb_model_close(model);

    /* What transformers takes where config.json does not say it; null is none. */
    copy("mixtral");
    write_config_without("eos_token_id");
    assert_int_equal(mb_model_open(folder, NULL, &model, &err), MB_OK);
    assert_int_equal(mb_model_info(model)->n_eos_ids, 1);
    assert_int_equal(mb_model_info(model)->eos_ids[0], 2);
    assert_int_equal(mb_model_info(model)->bos_id, 1);
    mb_model_close(model);
    write_config_without("bos_token_id");
    assert_int_equal(mb_model_open(folder, NULL, &model, &err), MB_OK);
    assert_int_equal(mb_model_info(model)->bos_id, 1);
    mb_model_close(model);
    write_config("{\"eos_token_id\": null, \"bos_token_id\": null}");
    assert_int_equal(mb_model_open(folder, NULL, &model, &err), MB_OK);
    assert_int_equal(mb_model_info(model)->n_eos_ids, 0);
    assert_int_equal(mb_model_info(model)->bos_id, -1);
    mb_model_close(model);

    /* generation_config.json is asked first. */
    copy("yarn");
    write_config("{\"eos_token_id\": [3, 7]}");
    path_of(path, "generation_config.json");
    json_t *generation = json_pack("{si}", "eos_token_id", 5);
    assert_int_equal(json_dump_file(generation, path, 0), 0);
    json_decref(generation);
    assert_int_equal(mb_model_open(folder, NULL, &model, &err), MB_OK);
    assert_int_equal(mb_model_info(model)->n_eos_ids, 1);
    assert_int_equal(mb_model_info(model)->eos_ids[0], 5);
    mb_model_close(model);
    json_t *list = json_array();
    assert_int_equal(json_dump_file(list, path, 0), 0);
    json_decref(list);
    assert_int_equal(mb_model_open(folder, NULL, &model, &err), MB_BAD_DATA);
    assert_non_null(strstr(err.msg, "generation_config.json: not a JSON object"));
    unlink(path);
}

/* transformers would draw random weights for it: answers of noise, without a word. */
static void a_head_that_is_missing_is_named(void **state)
{
    (void)state;
    copy("olmoe-yarn");
    check_refusals(
        &(struct refusal){"{\"tie_word_embeddings\": false}", MB_BAD_DATA, "lm_head.weight: missing"}, 1);
}

/* Opens 'name' with changes in config.json; its notes are these words, or have them. */
static void assert_notes(const char *name, const char *changes, const char *words)
{
    struct mb_model *model = NULL;
    struct mb_error err = {0};
    copy(name);
    write_config(changes);
    if (mb_model_open(folder, NULL, &model, &err) != MB_OK)
        fail_msg("%s with %s: %s", name, changes, err.msg);
    const char *notes = mb_model_info(model)->notes;
    if (words[0] == '\0' ? notes[0] != '\0' : strstr(notes, words) == NULL)
        fail_msg("%s with %s: notes '%s', expected '%s'", name, changes, notes, words);
    mb_model_close(model);
}

static void settings_and_tensors_that_nobody_uses_are_noted(void **state)
{
    (void)state;
    assert_notes("mixtral", "{\"brand_new_gate\": 0.5}",
                 "1 setting of config.json is not used: brand_new_gate");
    assert_notes("qwen3-moe", "{\"a\": 1, \"b\": [], \"c\": {}, \"d\": true, \"e\": null, \"f\": false}",
                 "4 settings of config.json are not used: a, b, c and 1 more");
    assert_notes("qwen3-moe",
                 "{\"rope_scaling\": {\"rope_type\": \"linear\", \"factor\": 2, \"new_beta\": 0.1}}",
                 "1 setting of config.json is not used: rope_scaling.new_beta");
    assert_notes("glm4-moe-yarn", "{\"attention_bias\": false}",
                 "tensors are not used: model.layers.0.self_attn.k_proj.bias, "
                 "model.layers.0.self_attn.q_proj.bias, model.layers.0.self_attn.v_proj.bias and");
}

/* What folders on the hub have, and what transformers writes. */
static void settings_of_published_folders_are_not_noted(void **state)
{
    (void)state;
    static const char common[] =
        "{\"_name_or_path\": \"a\", \"auto_map\": {\"AutoConfig\": \"a.B\"}, \"attention_dropout\": 0.1, "
        "\"initializer_range\": 0.02, \"output_router_logits\": true, \"pad_token_id\": 1, "
        "\"pretraining_tp\": 1, \"router_aux_loss_coef\": 0.001, \"tokenizer_class\": \"T\", "
        "\"torch_dtype\": \"bfloat16\", \"dtype\": \"bfloat16\", \"transformers_version\": \"5.24.0\", "
        "\"use_cache\": true, \"id2label\": {\"0\": \"LABEL_0\"}, \"label2id\": {\"LABEL_0\": 0}, "
        "\"problem_type\": \"x\", \"return_dict\": true, \"chunk_size_feed_forward\": 0}";
    static const char *const names[] = {"deepseek-v2", "glm4-moe-yarn", "mixtral", "olmoe",
                                        "qwen2-moe",   "qwen3-moe",     "shapes",  "yarn"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        assert_notes(names[i], common, "");
    assert_notes("shapes",
                 "{\"ep_size\": 1, \"num_nextn_predict_layers\": 1, \"aux_loss_alpha\": 0.001, \"seq_aux\": "
                 "true, \"moe_layer_freq\": 1}",
                 "");
    assert_notes("deepseek-v2",
                 "{\"ep_size\": 1, \"aux_loss_alpha\": 0.001, \"seq_aux\": true, \"moe_layer_freq\": 1, "
                 "\"n_group\": 1, \"topk_group\": 1, \"scoring_func\": \"softmax\"}",
                 "");
    assert_notes("mixtral", "{\"router_jitter_noise\": 0.1, \"sliding_window\": null}", "");
    assert_notes("qwen2-moe", "{\"sliding_window\": 0, \"use_sliding_window\": false}", "");
    assert_notes("qwen3-moe", "{\"max_window_layers\": 48, \"sliding_window\": null}", "");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(settings_and_tensors_that_nobody_uses_are_noted),
        cmocka_unit_test(settings_of_published_folders_are_not_noted),
        cmocka_unit_test(refused_by_name),
        cmocka_unit_test(grouped_query_attention_refused_by_name),
        cmocka_unit_test(deepseek_v2_refused_by_name),
        cmocka_unit_test(mixtral_refused_by_name),
        cmocka_unit_test(olmoe_refused_by_name),
        cmocka_unit_test(qwen2_moe_refused_by_name),
        cmocka_unit_test(glm4_moe_refused_by_name),
        cmocka_unit_test(phimoe_refused_by_name),
        cmocka_unit_test(the_context_of_phimoe_ends_where_longrope_begins),
        cmocka_unit_test(settings_of_other_families_refused_by_name),
        cmocka_unit_test(settings_that_change_nothing_are_accepted),
        cmocka_unit_test(ends_of_a_reply),
        cmocka_unit_test(a_head_that_is_missing_is_named),
    };
    return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
