/*
 * config.c - finds a model's family, lets it read config.json, and reads what all families share: special
 * tokens.
 */
#include "config.h"
#include "base/error.h"
#include "base/file.h"
#include "base/json.h"
#include "config_reader.h"
#include "families/family.h"
#include <stdio.h>
#include <string.h>

enum { GENERATION_CONFIG_NBYTES_MAX = 1 << 20 };

static void find_family(struct mb_config_reader *r, struct mb_config *config)
{
    const char *name = json_string_value(json_array_get(mb_read(r, "architectures"), 0));
    const char *type = json_string_value(mb_read(r, "model_type"));
    const char *of_type;
    config->family = mb_family_find(name, type, &config->architecture);
    const struct mb_family *other = mb_family_find(NULL, type, &of_type);
    if (config->family != NULL && other != NULL && other != config->family)
        MB_READ_FAIL(r, MB_BAD_DATA,
                     "%s: architectures says %s, but model_type says %s: one of them is of another model",
                     r->path, name, type);
    if (config->family != NULL)
        return;
    char all[512];
    mb_family_list(all, sizeof all);
    const char *needs = mb_family_needs(name, type);
    MB_READ_FAIL(r, MB_UNSUPPORTED, "%s: architecture %.60s %s%s; these can be run: %s", r->path,
                 name != NULL   ? name
                 : type != NULL ? type
                                : "unknown",
                 needs != NULL ? "cannot be run, it needs " : "is not known", needs != NULL ? needs : "",
                 all);
}

/* ---------------------------------------------------------------- special tokens */

static void add_eos(struct mb_config_reader *r, const json_t *value, struct mb_config *config)
{
    json_int_t id = json_integer_value(value);
    if (!json_is_integer(value) || id < 0 || id >= 1 << 24 || config->n_eos_ids == MB_EOS_IDS_MAX) {
        MB_READ_FAIL(r, MB_BAD_DATA, "%s: eos_token_id is not a token id or a list of up to %d", r->path,
                     MB_EOS_IDS_MAX);
        return;
    }
    config->eos_ids[config->n_eos_ids++] = (int32_t)id;
}

static void read_eos(struct mb_config_reader *r, struct mb_config *config)
{
    const json_t *value = mb_read(r, "eos_token_id"), *id;
    size_t i;
    if (!json_is_array(value)) {
        if (value != NULL)
            add_eos(r, value, config);
        return;
    }
    json_array_foreach(value, i, id) add_eos(r, id, config);
}

static void read_bos(struct mb_config_reader *r, struct mb_config *config)
{
    const json_t *value = mb_read(r, "bos_token_id");
    bool is_default = value == NULL && !mb_is_null(r, "bos_token_id");
    if (!is_default || (size_t)config->bos_id >= config->n_vocab)
        config->bos_id = -1;
    if (value == NULL)
        return;
    json_int_t id = json_integer_value(value);
    if (!json_is_integer(value) || id < 0 || (size_t)id >= config->n_vocab)
        MB_READ_FAIL(r, MB_BAD_DATA, "%s: bos_token_id is not a token id", r->path);
    else
        config->bos_id = (int32_t)id;
}

/* generation_config.json names the ends of a reply if it is there and does so; else config.json. */
static enum mb_status read_generation_config(const struct mb_checkpoint *ckpt, struct mb_config *config,
                                             struct mb_error *err)
{
    char path[MB_PATH_MAX];
    bool is_there;
    json_t *root;
    MB_TRY(mb_join_path(path, mb_checkpoint_path(ckpt), "generation_config.json", err));
    MB_TRY(mb_look_for(path, &is_there, err));
    if (!is_there)
        return MB_OK;
    MB_TRY(mb_json_read(path, GENERATION_CONFIG_NBYTES_MAX, &root, err));
    struct mb_config_reader r = {.object = root, .path = path, .where = "", .err = err};
    read_eos(&r, config);
    json_decref(root);
    return r.status;
}

/* ---------------------------------------------------------------- config.json */

/* A session is long or not, for all its layers. */
static void find_n_ctx_short(struct mb_config_reader *r, struct mb_config *config)
{
    for (size_t i = 0; i < config->n_attentions; i++) {
        size_t n = config->attentions[i].rope.n_ctx_short;
        if (n > 0 && config->n_ctx_short > 0 && n != config->n_ctx_short)
            MB_READ_FAIL(r, MB_UNSUPPORTED, "%s: layers with several original_max_position_embeddings",
                         r->path);
        config->n_ctx_short = n > 0 ? n : config->n_ctx_short;
    }
}

/* What is missing in the object about the text may be beside it. */
static void read_around(struct mb_config_reader *r, const json_t *root, struct mb_config *config)
{
    struct mb_config_reader top = *r;
    top.object = root;
    config->is_tied = config->is_tied || mb_read_bool_or(&top, "tie_word_embeddings", false);
    if (json_object_get(r->object, "bos_token_id") == NULL)
        read_bos(&top, config);
    if (config->n_eos_ids == 0)
        read_eos(&top, config);
    r->status = top.status;
}

/* 'root' is what the file holds; 'r' reads what it says of the text model: mostly the same. */
static enum mb_status read_all(struct mb_config_reader *r, const json_t *root,
                               const struct mb_checkpoint *ckpt, struct mb_config *config)
{
    find_family(r, config);
    MB_TRY(r->status);
    config->family->read(r, config);
    MB_TRY(r->status);
    mb_read_rest(r);
    find_n_ctx_short(r, config);
    read_bos(r, config);
    MB_TRY(r->status);
    MB_TRY(read_generation_config(ckpt, config, r->err));
    if (config->n_eos_ids == 0)
        read_eos(r, config);
    if (r->status == MB_OK && r->object != root)
        read_around(r, root, config);
    if (config->n_eos_ids == 0 && config->eos_default >= 0 && !mb_is_null(r, "eos_token_id"))
        config->eos_ids[config->n_eos_ids++] = config->eos_default;
    return r->status;
}

enum mb_status mb_config_read(const struct mb_checkpoint *ckpt, struct mb_config *config,
                              struct mb_error *err)
{
    char path[MB_PATH_MAX], text_path[MB_PATH_MAX + 16];
    *config = (struct mb_config){.n_pass_tokens = MB_PASS_TOKENS, .bos_id = -1, .eos_default = -1};
    MB_TRY(mb_join_path(path, mb_checkpoint_path(ckpt), "config.json", err));
    const char *text = mb_checkpoint_config_text(ckpt);
    json_t *root;
    MB_TRY(mb_json_parse_file(path, text, strlen(text), &root, err));
    struct mb_known_settings known = {.n = 0};
    struct mb_config_reader r = {.object = root, .path = path, .where = "", .err = err, .known = &known};
    /* Models that read more than text describe their text model in an object of its own. */
    const json_t *text_config = json_object_get(root, "text_config");
    if (json_is_object(text_config)) {
        snprintf(text_path, sizeof text_path, "%s: text_config", path);
        r.object = text_config;
        r.path = text_path;
    }
    enum mb_status status = read_all(&r, root, ckpt, config);
    if (status == MB_OK)
        mb_list_unused_settings(&r, config->unused);
    json_decref(root);
    return status;
}
