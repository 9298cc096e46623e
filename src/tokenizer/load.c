/*
 * load.c - tokenizer.json as a whole, tokenizer_config.json and chat_template.jinja.
 */
#include "load.h"
#include "base/error.h"
#include "base/file.h"
#include <errno.h>
#include <stdio.h>
#include <unistd.h>

enum {
    TOKENIZER_NBYTES_MAX = 256 << 20,
    CONFIG_NBYTES_MAX = 64 << 20,
    TEMPLATE_NBYTES_MAX = 1 << 20,
};

enum mb_status mb_tokenizer_load_json(struct mb_tokenizer *tokenizer, const char *path, struct mb_error *err)
{
    json_t *owner;
    struct mb_json root, part;
    enum mb_status status = mb_json_open(path, TOKENIZER_NBYTES_MAX, &owner, &root, err);
    if (status != MB_OK)
        return status;
    part = mb_json_get(&root, "model");
    status = mb_load_model(tokenizer, &part);
    part = mb_json_get(&root, "normalizer");
    if (status == MB_OK)
        status = mb_load_normalizer(tokenizer, &part, 0);
    part = mb_json_get(&root, "added_tokens");
    if (status == MB_OK)
        status = mb_load_added(tokenizer, &part);
    part = mb_json_get(&root, "pre_tokenizer");
    if (status == MB_OK)
        status = mb_load_pre_tokenizer(tokenizer, &part, 0);
    part = mb_json_get(&root, "post_processor");
    if (status == MB_OK)
        status = mb_load_post_processor(tokenizer, &part, 0);
    part = mb_json_get(&root, "decoder");
    if (status == MB_OK)
        status = mb_load_decoder(tokenizer, &part, 0);
    json_decref(owner);
    return status;
}

/* ---------------------------------------------------------------- tokenizer_config.json */

static enum mb_status copy(const char *text, char **to, struct mb_error *err)
{
    *to = strdup(text);
    return *to != NULL ? MB_OK : mb_fail_memory(err, "a text of tokenizer_config.json");
}

/* "<s>" or {"content": "<s>", ...}; absent or null leaves *to NULL. */
static enum mb_status load_named_token(const struct mb_json *config, const char *key, char **to)
{
    struct mb_json token = mb_json_get(config, key);
    const char *content = json_string_value(token.value);
    enum mb_status status = MB_OK;
    if (token.value == NULL)
        return MB_OK;
    if (content == NULL)
        status = mb_json_string(&token, "content", NULL, &content);
    if (status == MB_OK && content == NULL)
        return mb_json_fail(&token, MB_BAD_DATA, "neither a string nor an object with content");
    return status == MB_OK ? copy(content, to, config->err) : status;
}

/* add_bos_token and the like: true puts the named token's id at 'ids'. */
static enum mb_status load_edge(const struct mb_tokenizer *tokenizer, const struct mb_json *config,
                                const char *key, const char *token, struct mb_ids *ids)
{
    bool wanted;
    char shown[64];
    enum mb_status status = mb_json_bool(config, key, false, &wanted);
    ids->n = 0;
    if (status != MB_OK || !wanted || token == NULL)
        return status;
    int32_t id = mb_tokenizer_id(tokenizer, token);
    struct mb_json place = mb_json_get(config, key);
    if (id < 0)
        return mb_json_fail(&place, MB_BAD_DATA, "there is no token '%s'", mb_json_shown(shown, token));
    return mb_ids_put(ids, &id, 1) ? MB_OK : mb_fail_memory(config->err, "the list of special tokens");
}

/*
 * As in transformers: where the configuration names add_bos_token or add_eos_token, the two say what is put
 * around a text; else the post-processor does.
 */
static enum mb_status load_edges(struct mb_tokenizer *tokenizer, const struct mb_json *config)
{
    if (mb_json_get(config, "add_bos_token").value == NULL &&
        mb_json_get(config, "add_eos_token").value == NULL)
        return MB_OK;
    enum mb_status status =
        load_edge(tokenizer, config, "add_bos_token", tokenizer->bos_token, &tokenizer->before);
    if (status == MB_OK)
        status = load_edge(tokenizer, config, "add_eos_token", tokenizer->eos_token, &tokenizer->after);
    return status;
}

/* A string, or a list of {"name", "template"} of which "default" is taken. */
static enum mb_status load_config_template(struct mb_tokenizer *tokenizer, const struct mb_json *config)
{
    struct mb_json json = mb_json_get(config, "chat_template");
    const char *text = json_string_value(json.value), *name = NULL;
    enum mb_status status = MB_OK;
    if (json.value != NULL && text == NULL && !json_is_array(json.value))
        return mb_json_fail(&json, MB_BAD_DATA, "neither a string nor a list");
    for (size_t i = 0; status == MB_OK && text == NULL && i < json_array_size(json.value); i++) {
        struct mb_json item = mb_json_at(&json, i);
        status = mb_json_string(&item, "name", "", &name);
        if (status == MB_OK && strcmp(name, "default") == 0)
            status = mb_json_string(&item, "template", "", &text);
    }
    if (status != MB_OK || text == NULL)
        return status;
    if (strlen(text) > TEMPLATE_NBYTES_MAX)
        return mb_json_fail(&json, MB_BAD_DATA, "%zu bytes, at most %d are allowed", strlen(text),
                            TEMPLATE_NBYTES_MAX);
    status = copy(text, &tokenizer->chat.text, config->err);
    char place[MB_PATH_MAX + 32];
    snprintf(place, sizeof place, "%s: chat_template", config->path);
    return status == MB_OK ? copy(place, &tokenizer->chat.place, config->err) : status;
}

static enum mb_status load_config_file(struct mb_tokenizer *tokenizer, const char *path, struct mb_error *err)
{
    json_t *owner;
    struct mb_json config;
    enum mb_status status = mb_json_open(path, CONFIG_NBYTES_MAX, &owner, &config, err);
    if (status != MB_OK)
        return status;
    status = load_named_token(&config, "bos_token", &tokenizer->bos_token);
    if (status == MB_OK)
        status = load_named_token(&config, "eos_token", &tokenizer->eos_token);
    if (status == MB_OK)
        status = load_edges(tokenizer, &config);
    if (status == MB_OK)
        status = load_config_template(tokenizer, &config);
    json_decref(owner);
    return status;
}

/* chat_template.jinja wins over tokenizer_config.json, as in transformers. */
static enum mb_status load_template_file(struct mb_tokenizer *tokenizer, const char *path,
                                         struct mb_error *err)
{
    char *text;
    size_t nbytes;
    enum mb_status status = mb_read_file(path, TEMPLATE_NBYTES_MAX, &text, &nbytes, err);
    if (status != MB_OK)
        return status;
    if (strlen(text) != nbytes) {
        free(text);
        return mb_fail(err, MB_BAD_DATA, "%s: holds a zero byte", path);
    }
    free(tokenizer->chat.text);
    free(tokenizer->chat.place);
    tokenizer->chat.text = text;
    tokenizer->chat.place = NULL;
    return copy(path, &tokenizer->chat.place, err);
}

static bool exists(const char *path)
{
    return access(path, F_OK) == 0 || errno != ENOENT;
}

enum mb_status mb_tokenizer_load_config(struct mb_tokenizer *tokenizer, const char *folder,
                                        struct mb_error *err)
{
    char path[MB_PATH_MAX];
    enum mb_status status = mb_join_path(path, folder, "tokenizer_config.json", err);
    if (status == MB_OK && exists(path))
        status = load_config_file(tokenizer, path, err);
    if (status == MB_OK)
        status = mb_join_path(path, folder, "chat_template.jinja", err);
    if (status == MB_OK && exists(path))
        status = load_template_file(tokenizer, path, err);
    return status;
}
