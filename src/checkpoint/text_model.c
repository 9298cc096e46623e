/*
 * text_model.c - see text_model.h.
 */
#include "text_model.h"
#include "base/error.h"
#include "notes.h"
#include "roles.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---------------------------------------------------------------- config.json */

const json_t *mb_text_config(const struct mb_checkpoint *ckpt)
{
    const json_t *thinker = json_object_get(ckpt->config, "thinker_config");
    const json_t *text = json_object_get(json_is_object(thinker) ? thinker : ckpt->config, "text_config");
    return json_is_object(text) ? text : ckpt->config;
}

const char *mb_text_model_type(const struct mb_checkpoint *ckpt)
{
    const char *type = json_string_value(json_object_get(mb_text_config(ckpt), "model_type"));
    if (type == NULL)
        type = json_string_value(json_object_get(ckpt->config, "model_type"));
    return type == NULL ? "" : type;
}

/* ---------------------------------------------------------------- parts */

/* One of the first three parts of a name, between dots. */
static bool has_component(const char *name, const char *component)
{
    size_t n = strlen(component);
    for (int i = 0; i < 3 && name != NULL; i++) {
        if (strncmp(name, component, n) == 0 && name[n] == '.')
            return true;
        name = strchr(name, '.');
        name = name == NULL ? NULL : name + 1;
    }
    return false;
}

static bool has_any(const char *name, const char *const *components)
{
    for (; *components != NULL; components++)
        if (has_component(name, *components))
            return true;
    return false;
}

enum mb_part mb_part_of(const struct mb_checkpoint *ckpt, const char *name)
{
    static const char *const towers[] = {"visual",
                                         "vision_tower",
                                         "vision_model",
                                         "vision_encoder",
                                         "vit",
                                         "vision_embed",
                                         "multi_modal_projector",
                                         "mm_projector",
                                         "audio_tower",
                                         "audio_encoder",
                                         "embed_vision",
                                         "embed_audio",
                                         "vision_projection",
                                         "talker",
                                         "code2wav",
                                         "image_newline",
                                         "token2wav",
                                         NULL};
    static const char *const predictions[] = {"mtp", "mtp_layers", "mtp_block", NULL};
    if (has_any(name, towers))
        return MB_PART_TOWER;
    if (has_any(name, predictions))
        return MB_PART_PREDICTION;
    const json_t *n_layers = json_object_get(mb_text_config(ckpt), "num_hidden_layers");
    bool is_known = json_is_integer(n_layers) && json_integer_value(n_layers) > 0;
    return is_known && mb_role_of(name).layer >= json_integer_value(n_layers) ? MB_PART_PREDICTION
                                                                              : MB_PART_TEXT;
}

bool mb_tensor_is_text(const struct mb_checkpoint *ckpt, const char *tensor_name)
{
    return mb_part_of(ckpt, tensor_name) == MB_PART_TEXT;
}

enum mb_status mb_note_parts(struct mb_checkpoint *ckpt, struct mb_error *err)
{
    static const char *const what[MB_N_PARTS] = {
        NULL, "multi-token prediction, or of layers beyond num_hidden_layers", "towers for images or sound"};
    size_t n[MB_N_PARTS] = {0};
    uint64_t nbytes[MB_N_PARTS] = {0};
    for (size_t i = 0; i < ckpt->n_tensors; i++) {
        enum mb_part part = mb_part_of(ckpt, ckpt->tensors[i]->name);
        n[part]++;
        nbytes[part] += ckpt->tensors[i]->nbytes;
    }
    for (size_t part = MB_PART_TEXT + 1; part < MB_N_PARTS; part++)
        if (n[part] > 0)
            MB_TRY(mb_checkpoint_note(
                ckpt, err, "%zu tensors (%.1f MB) are of %s: they are kept as they are and not used", n[part],
                (double)nbytes[part] / 1e6, what[part]));
    return MB_OK;
}

/* ---------------------------------------------------------------- names */

/* Where the text model is in checkpoints of models that read more than text. */
static const struct {
    const char *stored, *logical;
} prefixes[] = {
    {"model.language_model.layers.", "model.layers."},
    {"model.language_model.embed_tokens.", "model.embed_tokens."},
    {"model.language_model.norm.", "model.norm."},
    {"language_model.model.layers.", "model.layers."},
    {"language_model.model.embed_tokens.", "model.embed_tokens."},
    {"language_model.model.norm.", "model.norm."},
    {"language_model.lm_head.", "lm_head."},
    {"thinker.model.layers.", "model.layers."},
    {"thinker.model.embed_tokens.", "model.embed_tokens."},
    {"thinker.model.norm.", "model.norm."},
    {"thinker.lm_head.", "lm_head."},
};

/* What transformers calls parts of its own modules, and the published checkpoints of the family call
 * otherwise. */
static const struct {
    const char *model_type, *stored, *logical;
} spellings[] = {
    {"mixtral", ".mlp.", ".block_sparse_moe."},
    {"phimoe", ".mlp.router.weight", ".block_sparse_moe.gate.weight"},
    {"phimoe", ".mlp.", ".block_sparse_moe."},
    {"granitemoe", ".block_sparse_moe.router.weight", ".block_sparse_moe.router.layer.weight"},
    {"granitemoeshared", ".block_sparse_moe.router.weight", ".block_sparse_moe.router.layer.weight"},
    {"granitemoeshared", ".shared_mlp.output_linear.", ".block_sparse_moe.shared_experts.down_proj."},
    {"granitemoehybrid", ".block_sparse_moe.router.weight", ".block_sparse_moe.router.layer.weight"},
};

/* "A" and 'from' and "B" become "A", 'to' and "B". */
static char *replaced(const char *name, const char *at, const char *from, const char *to)
{
    char *out = NULL;
    if (asprintf(&out, "%.*s%s%s", (int)(at - name), name, to, at + strlen(from)) < 0)
        return NULL;
    return out;
}

static char *without_prefix(const char *name)
{
    for (size_t i = 0; i < sizeof prefixes / sizeof prefixes[0]; i++)
        if (strncmp(name, prefixes[i].stored, strlen(prefixes[i].stored)) == 0)
            return replaced(name, name, prefixes[i].stored, prefixes[i].logical);
    return strdup(name);
}

char *mb_logical_name(const struct mb_checkpoint *ckpt, const char *stored_name)
{
    if (mb_part_of(ckpt, stored_name) != MB_PART_TEXT)
        return strdup(stored_name);
    char *name = without_prefix(stored_name);
    const char *model_type = mb_text_model_type(ckpt);
    for (size_t i = 0; i < sizeof spellings / sizeof spellings[0] && name != NULL; i++) {
        const char *at = strstr(name, spellings[i].stored);
        if (at == NULL || strcmp(model_type, spellings[i].model_type) != 0)
            continue;
        char *spelled = replaced(name, at, spellings[i].stored, spellings[i].logical);
        free(name);
        return spelled;
    }
    return name;
}
