/*
 * load.c - opens a tokenizer: tokenizer.json or tiktoken.model, and the files beside it.
 */
#include "load.h"
#include "base/error.h"
#include "base/file.h"
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum {
    TOKENIZER_NBYTES_MAX = 256 << 20,
    CONFIG_NBYTES_MAX = 64 << 20,
};

/* Added tokens need the model; templates of the post-processor name added tokens. */
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

/* ---------------------------------------------------------------- the files beside it */

/* A JSON file of the folder, with its path; the value is NULL where there is none. */
struct side_file {
    char path[MB_PATH_MAX];
    json_t *owner;
    struct mb_field field;
};

static enum mb_status open_side(struct side_file *file, const char *folder, const char *name,
                                struct mb_error *err)
{
    *file = (struct side_file){.field = {.path = file->path, .err = err}};
    bool is_there;
    MB_TRY(mb_join_path(file->path, folder, name, err));
    MB_TRY(mb_look_for(file->path, &is_there, err));
    return is_there ? mb_field_open(file->path, CONFIG_NBYTES_MAX, &file->owner, &file->field, err) : MB_OK;
}

/* transformers would then take the special tokens of a chat template for text. */
static enum mb_status check_special_tokens_count(const struct mb_field *config)
{
    static const char KEY[] = "split_special_tokens";
    bool are_split;
    MB_TRY(mb_field_bool(config, KEY, false, &are_split));
    const struct mb_field field = mb_field_get(config, KEY);
    return are_split ? mb_field_fail(&field, MB_UNSUPPORTED,
                                     "is true, which takes special tokens for text; only false is supported")
                     : MB_OK;
}

/*
 * transformers 5 ignores add_bos_token and add_eos_token where there is a tokenizer.json: what is put around
 * a text is what its post_processor says.
 */
static enum mb_status load_beside(struct mb_tokenizer *tokenizer, const char *folder, struct mb_error *err)
{
    static const char *const names[] = {"tokenizer_config.json", "special_tokens_map.json",
                                        "added_tokens.json"};
    enum { CONFIG, MAP, ADDED, N_FILES };
    struct side_file files[N_FILES] = {0};
    enum mb_status status = MB_OK;
    for (size_t i = 0; status == MB_OK && i < N_FILES; i++)
        status = open_side(&files[i], folder, names[i], err);
    if (status == MB_OK && files[CONFIG].owner != NULL)
        status = check_special_tokens_count(&files[CONFIG].field);
    if (status == MB_OK)
        status =
            mb_load_added_tokens(tokenizer, &files[CONFIG].field, &files[MAP].field, &files[ADDED].field);
    if (status == MB_OK)
        status = mb_load_templates(tokenizer, folder, &files[CONFIG].field);
    for (size_t i = 0; i < N_FILES; i++)
        json_decref(files[i].owner);
    return status;
}

/* ---------------------------------------------------------------- tiktoken.model */

/* The Python class puts nothing around a text, whatever add_bos_token says. */
static enum mb_status load_tiktoken_fields(struct mb_tokenizer *tokenizer, const char *folder,
                                           const char *path, const struct mb_field *config)
{
    MB_TRY(check_special_tokens_count(config));
    MB_TRY(mb_load_tiktoken(tokenizer, path, config));
    MB_TRY(mb_load_names(tokenizer, config));
    return mb_load_templates(tokenizer, folder, config);
}

static enum mb_status load_tiktoken(struct mb_tokenizer *tokenizer, const char *folder, const char *path,
                                    struct mb_error *err)
{
    struct side_file config = {0};
    enum mb_status status = open_side(&config, folder, "tokenizer_config.json", err);
    if (status == MB_OK && config.owner == NULL)
        status =
            mb_fail(err, MB_BAD_DATA,
                    "%s: there is no tokenizer_config.json beside it, which has its special tokens: download "
                    "that file too",
                    path);
    if (status == MB_OK)
        status = load_tiktoken_fields(tokenizer, folder, path, &config.field);
    json_decref(config.owner);
    return status;
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
    bool is_there;
    for (size_t i = 0; i < sizeof others / sizeof *others; i++) {
        MB_TRY(mb_join_path(path, folder, others[i][0], err));
        MB_TRY(mb_look_for(path, &is_there, err));
        if (is_there)
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
    bool is_there;
    MB_TRY(mb_join_path(path, folder, "tokenizer.json", err));
    MB_TRY(mb_look_for(path, &is_there, err));
    if (is_there) {
        MB_TRY(load_json_file(tokenizer, path, err));
        MB_TRY(load_beside(tokenizer, folder, err));
        return mb_added_finish(tokenizer, err);
    }
    MB_TRY(mb_join_path(path, folder, "tiktoken.model", err));
    MB_TRY(mb_look_for(path, &is_there, err));
    return is_there ? load_tiktoken(tokenizer, folder, path, err) : fail_no_tokenizer(folder, err);
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
    MB_TRY(load_json_file(tokenizer, path, err));
    return mb_added_finish(tokenizer, err);
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
