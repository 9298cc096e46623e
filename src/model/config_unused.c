/*
 * config_unused.c - settings of config.json that nobody asked for.
 */
#include "base/names.h"
#include "config_reader.h"
#include <stdio.h>
#include <string.h>

/*
 * Settings that change no result of a model that runs: of training, of generation (which is the caller's
 * affair), of other classes than causal models, and what is derived from others.
 */
static const char *const harmless[] = {
    "add_cross_attention",
    "architectures",
    "attention_dropout",
    "attn_implementation",
    "attn_pdrop",
    "auto_map",
    "aux_loss_alpha",
    "bad_words_ids",
    "begin_suppress_tokens",
    "bos_token_id",
    "chunk_size_feed_forward",
    "classifier_dropout",
    "cross_attention_hidden_size",
    "decoder_start_token_id",
    "diversity_penalty",
    "do_sample",
    "dtype",
    "early_stopping",
    "embd_pdrop",
    "encoder_no_repeat_ngram_size",
    "eos_token_id",
    "ep_size",
    "exponential_decay_length_penalty",
    "finetuning_task",
    "forced_bos_token_id",
    "forced_eos_token_id",
    "gradient_checkpointing",
    "head_dim", /* of families that do not ask for it: the dimensions that are rotated */
    "hidden_dropout",
    "hidden_dropout_prob",
    "id2label",
    "image_token_id",
    "initializer_range",
    "input_jitter_noise",
    "is_decoder",
    "is_encoder_decoder",
    "label2id",
    "language",
    "length_penalty",
    "max_length",
    "max_window_layers", /* of families that do not ask for it */
    "min_length",
    "model_type",
    "no_repeat_ngram_size",
    "num_beam_groups",
    "num_beams",
    "num_nextn_predict_layers",
    "num_return_sequences",
    "output_attentions",
    "output_hidden_states",
    "output_router_logits",
    "output_scores",
    "pad_token_id",
    "prefix",
    "pretraining_tp",
    "problem_type",
    "pruned_heads",
    "qk_head_dim",
    "quantization_config",
    "remove_invalid_values",
    "repetition_penalty",
    "resid_pdrop",
    "return_dict",
    "return_dict_in_generate",
    "router_aux_loss_coef",
    "router_jitter_noise",
    "router_z_loss_coef",
    "sep_token_id",
    "seq_aux",
    "suppress_tokens",
    "task_specific_params",
    "temperature",
    "text_config",
    "tf_legacy_loss",
    "tie_encoder_decoder",
    "tokenizer_class",
    "top_k",
    "top_p",
    "topk_group", /* of families whose routers choose without groups */
    "torch_dtype",
    "torchscript",
    "transformers.js_config",
    "transformers_version",
    "type", /* of rotary embeddings that have a rope_type */
    "typical_p",
    "unk_token_id",
    "use_bfloat16",
    "use_cache",
    "video_token_id",
    "vision_config",
    "vision_end_token_id",
    "vision_start_token_id",
};

static bool is_harmless(const char *key)
{
    for (size_t i = 0; i < sizeof harmless / sizeof harmless[0]; i++)
        if (strcmp(harmless[i], key) == 0)
            return true;
    return key[0] == '_';
}

static bool is_asked_for(const struct mb_known_settings *known, const char *key)
{
    for (size_t i = 0; i < known->n; i++)
        if (strcmp(known->keys[i], key) == 0)
            return true;
    return false;
}

enum { KEY_NBYTES = 100 };

struct unused {
    char names[MB_NAMES_SHOWN][KEY_NBYTES];
    size_t n;
};

static void add_unused(const struct mb_known_settings *known, const json_t *object, const char *where,
                       struct unused *unused)
{
    const char *key;
    json_t *value;
    json_object_foreach((json_t *)object, key, value)
    {
        if (json_is_null(value) || json_is_false(value) || is_harmless(key) || is_asked_for(known, key))
            continue;
        if (unused->n < MB_NAMES_SHOWN)
            snprintf(unused->names[unused->n], KEY_NBYTES, "%s%.60s", where, key);
        unused->n++;
    }
}

void mb_list_unused_settings(const struct mb_config_reader *r, char text[MB_NOTE_NBYTES])
{
    struct unused unused = {.n = 0};
    const char *names[MB_NAMES_SHOWN];
    char list[MB_NAMES_NBYTES];
    text[0] = '\0';
    add_unused(r->known, r->object, "", &unused);
    add_unused(r->known, json_object_get(r->object, "rope_scaling"), "rope_scaling.", &unused);
    add_unused(r->known, json_object_get(r->object, "rope_parameters"), "rope_parameters.", &unused);
    if (unused.n == 0)
        return;
    for (size_t i = 0; i < MB_NAMES_SHOWN; i++)
        names[i] = unused.names[i];
    mb_names_text(names, unused.n, list);
    snprintf(text, MB_NOTE_NBYTES, "%zu setting%s of config.json %s not used: %s", unused.n,
             unused.n == 1 ? "" : "s", unused.n == 1 ? "is" : "are", list);
}
