/*
 * load.c - opens a tokenizer: tokenizer.json as a whole or tiktoken.model, tokenizer_config.json and
 * chat_template.jinja.
 */
#include "load.h"
#include "base/error.h"
#include "base/file.h"
#include <errno.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

enum {
    TOKENIZER_NBYTES_MAX = 256 << 20,
    CONFIG_NBYTES_MAX = 64 << 20,
    TEMPLATE_NBYTES_MAX = 1 << 20,
};

/* Added tokens need the model and the normalizer; templates of the post-processor name added tokens. */
static enum mb_status load_parts(struct mb_tokenizer *tokenizer, const struct mb_field *root)
{
    struct mb_field model = mb_field_get(root, "model"), normalizer = mb_field_get(root, "normalizer"),
                    added = mb_field_get(root, "added_tokens"),
                    pre_tokenizer = mb_field_get(root, "pre_tokenizer"),
                    post_processor = mb_field_get(root, "post_processor"),
                    decoder = mb_field_get(root, "decoder");
    MB_TRY(mb_load_model(tokenizer, &model));
    MB_TRY(mb_load_normalizer(tokenizer, &normalizer, 0));
    MB_TRY(mb_load_added(tokenizer, &added));
    MB_TRY(mb_load_pre_tokenizer(tokenizer, &pre_tokenizer, 0));
    MB_TRY(mb_load_post_processor(tokenizer, &post_processor, 0));
    return mb_load_decoder(tokenizer, &decoder, 0);
}

static enum mb_status load_json_file(struct mb_tokenizer *tokenizer, const char *path, struct mb_error *err)
{
    json_t *owner;
    struct mb_field root;
    MB_TRY(mb_field_open(path, TOKENIZER_NBYTES_MAX, &owner, &root, err));
    enum mb_status status = load_parts(tokenizer, &root);
    json_decref(owner);
    return status;
}

/* ---------------------------------------------------------------- tokenizer_config.json */

static enum mb_status copy(const char *text, char **to, struct mb_error *err)
{
    *to = strdup(text);
    return *to != NULL ? MB_OK : mb_fail_memory(err, "a text of tokenizer_config.json");
}

/* Absent or null leaves *to NULL. */
static enum mb_status load_named_token(const struct mb_field *config, const char *key, char **to)
{
    struct mb_field token = mb_field_get(config, key);
    const char *name;
    MB_TRY(mb_field_token_name(&token, &name));
    return name == NULL ? MB_OK : copy(name, to, config->err);
}

/* add_bos_token and the like: true puts the named token's id at 'ids'. */
static enum mb_status load_edge(const struct mb_tokenizer *tokenizer, const struct mb_field *config,
                                const char *key, const char *token, struct mb_ids *ids)
{
    bool wanted;
    char shown[64];
    MB_TRY(mb_field_bool(config, key, false, &wanted));
    ids->n = 0;
    if (!wanted || token == NULL)
        return MB_OK;
    int32_t id = mb_tokenizer_id(tokenizer, token);
    struct mb_field place = mb_field_get(config, key);
    if (id < 0)
        return mb_field_fail(&place, MB_BAD_DATA, "there is no token '%s'", mb_field_shown(shown, token));
    return mb_ids_put(ids, &id, 1) ? MB_OK : mb_fail_memory(config->err, "the list of special tokens");
}

/*
 * As in transformers: where the configuration names add_bos_token or add_eos_token, the two say what is put
 * around a text; else the post-processor does.
 */
static enum mb_status load_edges(struct mb_tokenizer *tokenizer, const struct mb_field *config)
{
    if (mb_field_get(config, "add_bos_token").value == NULL &&
        mb_field_get(config, "add_eos_token").value == NULL)
        return MB_OK;
    MB_TRY(load_edge(tokenizer, config, "add_bos_token", tokenizer->bos_token, &tokenizer->before));
    return load_edge(tokenizer, config, "add_eos_token", tokenizer->eos_token, &tokenizer->after);
}

/* A string, or a list of {"name", "template"} of which "default" is taken. NULL: there is none. */
static enum mb_status find_template(const struct mb_field *field, const char **text)
{
    *text = json_string_value(field->value);
    if (field->value == NULL || *text != NULL)
        return MB_OK;
    if (!json_is_array(field->value))
        return mb_field_fail(field, MB_BAD_DATA, "neither a string nor a list");
    for (size_t i = 0; *text == NULL && i < json_array_size(field->value); i++) {
        struct mb_field item = mb_field_at(field, i);
        const char *name;
        MB_TRY(mb_field_string(&item, "name", "", &name));
        if (strcmp(name, "default") == 0)
            MB_TRY(mb_field_string(&item, "template", "", text));
    }
    return MB_OK;
}

static enum mb_status load_config_template(struct mb_tokenizer *tokenizer, const struct mb_field *config)
{
    struct mb_field field = mb_field_get(config, "chat_template");
    const char *text;
    MB_TRY(find_template(&field, &text));
    if (text == NULL)
        return MB_OK;
    if (strlen(text) > TEMPLATE_NBYTES_MAX)
        return mb_field_fail(&field, MB_BAD_DATA, "%zu bytes, at most %d are allowed", strlen(text),
                             TEMPLATE_NBYTES_MAX);
    MB_TRY(copy(text, &tokenizer->chat.text, config->err));
    char place[MB_PATH_MAX + 32];
    snprintf(place, sizeof place, "%s: chat_template", config->path);
    return copy(place, &tokenizer->chat.place, config->err);
}

static enum mb_status load_names(struct mb_tokenizer *tokenizer, const struct mb_field *config)
{
    MB_TRY(load_named_token(config, "bos_token", &tokenizer->bos_token));
    return load_named_token(config, "eos_token", &tokenizer->eos_token);
}

static enum mb_status load_config_fields(struct mb_tokenizer *tokenizer, const struct mb_field *config)
{
    MB_TRY(load_names(tokenizer, config));
    MB_TRY(load_edges(tokenizer, config));
    return load_config_template(tokenizer, config);
}

static enum mb_status load_config_file(struct mb_tokenizer *tokenizer, const char *path, struct mb_error *err)
{
    json_t *owner;
    struct mb_field config;
    MB_TRY(mb_field_open(path, CONFIG_NBYTES_MAX, &owner, &config, err));
    enum mb_status status = load_config_fields(tokenizer, &config);
    json_decref(owner);
    return status;
}

/* chat_template.jinja wins over tokenizer_config.json, as in transformers. */
static enum mb_status load_template_file(struct mb_tokenizer *tokenizer, const char *path,
                                         struct mb_error *err)
{
    char *text;
    size_t nbytes;
    MB_TRY(mb_read_file(path, TEMPLATE_NBYTES_MAX, &text, &nbytes, err));
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

static enum mb_status load_template_beside(struct mb_tokenizer *tokenizer, const char *folder,
                                           struct mb_error *err)
{
    char path[MB_PATH_MAX];
    MB_TRY(mb_join_path(path, folder, "chat_template.jinja", err));
    return exists(path) ? load_template_file(tokenizer, path, err) : MB_OK;
}

enum mb_status mb_load_config(struct mb_tokenizer *tokenizer, const char *folder, struct mb_error *err)
{
    char path[MB_PATH_MAX];
    MB_TRY(mb_join_path(path, folder, "tokenizer_config.json", err));
    if (exists(path))
        MB_TRY(load_config_file(tokenizer, path, err));
    return load_template_beside(tokenizer, folder, err);
}

/* ---------------------------------------------------------------- tiktoken.model */

/* The Python class puts nothing around a text, whatever add_bos_token says. */
static enum mb_status load_tiktoken_fields(struct mb_tokenizer *tokenizer, const char *path,
                                           const struct mb_field *config)
{
    MB_TRY(mb_load_tiktoken(tokenizer, path, config));
    MB_TRY(load_names(tokenizer, config));
    return load_config_template(tokenizer, config);
}

static enum mb_status load_tiktoken(struct mb_tokenizer *tokenizer, const char *folder, const char *path,
                                    struct mb_error *err)
{
    json_t *owner;
    struct mb_field config;
    char config_path[MB_PATH_MAX];
    MB_TRY(mb_join_path(config_path, folder, "tokenizer_config.json", err));
    if (!exists(config_path))
        return mb_fail(
            err, MB_BAD_DATA,
            "%s: there is no tokenizer_config.json beside it, which has its special tokens: download "
            "that file too",
            path);
    MB_TRY(mb_field_open(config_path, CONFIG_NBYTES_MAX, &owner, &config, err));
    enum mb_status status = load_tiktoken_fields(tokenizer, path, &config);
    json_decref(owner);
    MB_TRY(status);
    return load_template_beside(tokenizer, folder, err);
}

/* ---------------------------------------------------------------- open */

static const char how_to_convert[] = "AutoTokenizer.from_pretrained(FOLDER).save_pretrained(FOLDER) of the "
                                     "Python package transformers makes a "
                                     "tokenizer.json";

/* There is neither tokenizer.json nor tiktoken.model: what there is instead. */
static enum mb_status fail_no_tokenizer(const char *folder, struct mb_error *err)
{
    static const char *const others[][2] = {
        {"tokenizer.model", "SentencePiece's tokenizer.model alone is not supported"},
        {"vocab.json", "vocab.json and merges.txt alone are not supported"},
        {"vocab.txt", "WordPiece's vocab.txt is not supported"},
    };
    char path[MB_PATH_MAX];
    for (size_t i = 0; i < sizeof others / sizeof *others; i++) {
        MB_TRY(mb_join_path(path, folder, others[i][0], err));
        if (exists(path))
            return mb_fail(err, MB_UNSUPPORTED, "%s: there is no tokenizer.json, and %s: %s", folder,
                           others[i][1], how_to_convert);
    }
    return mb_fail(
        err, MB_BAD_DATA,
        "%s: there is no tokenizer: neither tokenizer.json nor tiktoken.model: download all files of "
        "the model",
        folder);
}

static enum mb_status load_folder(struct mb_tokenizer *tokenizer, const char *folder, struct mb_error *err)
{
    char path[MB_PATH_MAX];
    MB_TRY(mb_join_path(path, folder, "tokenizer.json", err));
    if (exists(path)) {
        MB_TRY(load_json_file(tokenizer, path, err));
        return mb_load_config(tokenizer, folder, err);
    }
    MB_TRY(mb_join_path(path, folder, "tiktoken.model", err));
    return exists(path) ? load_tiktoken(tokenizer, folder, path, err) : fail_no_tokenizer(folder, err);
}

/* tokenizer.json, or what somebody may take for one. */
static enum mb_status load_file(struct mb_tokenizer *tokenizer, const char *path, struct mb_error *err)
{
    const char *slash = strrchr(path, '/'), *name = slash == NULL ? path : slash + 1;
    if (strcmp(name, "tiktoken.model") == 0)
        return mb_fail(err, MB_UNSUPPORTED,
                       "%s: tokenizer_config.json beside it is needed too: give the folder", path);
    if (strcmp(name, "tokenizer.model") == 0)
        return mb_fail(err, MB_UNSUPPORTED, "%s: SentencePiece's files are not supported: %s", path,
                       how_to_convert);
    return load_json_file(tokenizer, path, err);
}

enum mb_status mb_tokenizer_open(const char *path, struct mb_tokenizer **tokenizer, struct mb_error *err)
{
    struct stat st;
    if (stat(path, &st) != 0)
        return mb_fail_errno(err, path, "open");
    struct mb_tokenizer *opened = calloc(1, sizeof *opened);
    if (opened == NULL)
        return mb_fail_memory(err, "the tokenizer");
    enum mb_status status =
        S_ISDIR(st.st_mode) ? load_folder(opened, path, err) : load_file(opened, path, err);
    if (status != MB_OK) {
        mb_tokenizer_close(opened);
        return status;
    }
    *tokenizer = opened;
    return MB_OK;
}
