/*
 * load_templates.c - the chat templates of a folder, wherever they are.
 *
 * As transformers 5: files of templates take the place of all that tokenizer_config.json has.
 * chat_template.json is where processors keep one; it counts where there is no other.
 */
#include "base/error.h"
#include "base/file.h"
#include "load.h"
#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

enum {
    TEMPLATE_NBYTES_MAX = 1 << 20,
    TEMPLATES_MAX = 64,
    JSON_NBYTES_MAX = 4 << 20,
};

/* Takes 'text', which is malloc'ed, in any case. A later template of the same name takes the earlier's place.
 */
static enum mb_status take(struct mb_tokenizer *tokenizer, const char *name, char *text, const char *place,
                           struct mb_error *err)
{
    struct mb_chat_template made = {strdup(name), text, strdup(place)}, *to = NULL;
    for (size_t i = 0; i < tokenizer->n_templates; i++)
        if (strcmp(tokenizer->templates[i].name, name) == 0)
            to = &tokenizer->templates[i];
    if (to == NULL && tokenizer->n_templates < TEMPLATES_MAX) {
        void *grown =
            realloc(tokenizer->templates, (tokenizer->n_templates + 1) * sizeof *tokenizer->templates);
        if (grown != NULL) {
            tokenizer->templates = grown;
            to = &tokenizer->templates[tokenizer->n_templates++];
            *to = (struct mb_chat_template){0};
        }
    }
    bool has_room = to != NULL || tokenizer->n_templates < TEMPLATES_MAX;
    struct mb_chat_template old = made;
    bool ok = to != NULL && made.name != NULL && made.place != NULL;
    if (to != NULL) {
        old = *to;
        *to = made;
    }
    free(old.name);
    free(old.text);
    free(old.place);
    if (!has_room)
        return mb_fail(err, MB_BAD_DATA, "%s: more than %d chat templates", place, TEMPLATES_MAX);
    return ok ? MB_OK : mb_fail_memory(err, "the chat templates");
}

/* ---------------------------------------------------------------- files */

static enum mb_status take_file(struct mb_tokenizer *tokenizer, const char *path, const char *name,
                                struct mb_error *err)
{
    char *text;
    size_t nbytes;
    MB_TRY(mb_read_file(path, TEMPLATE_NBYTES_MAX, &text, &nbytes, err));
    if (strlen(text) != nbytes) {
        free(text);
        return mb_fail(err, MB_BAD_DATA, "%s: holds a zero byte", path);
    }
    return take(tokenizer, name, text, path, err);
}

static enum mb_status take_entry(struct mb_tokenizer *tokenizer, const char *folder, const char *entry,
                                 struct mb_error *err)
{
    static const char ending[] = ".jinja";
    char path[MB_PATH_MAX], name[NAME_MAX + 1];
    size_t n = strlen(entry), n_ending = sizeof ending - 1;
    if (n < n_ending || n > NAME_MAX || strcmp(entry + n - n_ending, ending) != 0)
        return MB_OK;
    snprintf(name, sizeof name, "%.*s", (int)(n - n_ending), entry);
    MB_TRY(mb_join_path(path, folder, entry, err));
    return take_file(tokenizer, path, name, err);
}

static int compare_names(const void *a, const void *b)
{
    return strcmp(((const struct mb_chat_template *)a)->name, ((const struct mb_chat_template *)b)->name);
}

static enum mb_status take_folder(struct mb_tokenizer *tokenizer, const char *folder, struct mb_error *err)
{
    char path[MB_PATH_MAX];
    MB_TRY(mb_join_path(path, folder, "additional_chat_templates", err));
    DIR *dir = opendir(path);
    if (dir == NULL)
        return errno == ENOENT || errno == ENOTDIR ? MB_OK : mb_fail_errno(err, path, "open");
    enum mb_status status = MB_OK;
    for (const struct dirent *entry; status == MB_OK && (entry = readdir(dir)) != NULL;)
        status = take_entry(tokenizer, path, entry->d_name, err);
    closedir(dir);
    if (status == MB_OK && tokenizer->n_templates > 1) /* the order of a folder is none */
        qsort(tokenizer->templates, tokenizer->n_templates, sizeof *tokenizer->templates, compare_names);
    return status;
}

static enum mb_status take_files(struct mb_tokenizer *tokenizer, const char *folder, struct mb_error *err)
{
    char path[MB_PATH_MAX];
    bool is_there;
    MB_TRY(mb_join_path(path, folder, "chat_template.jinja", err));
    MB_TRY(mb_look_for(path, &is_there, err));
    if (is_there)
        MB_TRY(take_file(tokenizer, path, "default", err));
    return take_folder(tokenizer, folder, err);
}

/* ---------------------------------------------------------------- in JSON */

static enum mb_status take_text(struct mb_tokenizer *tokenizer, const struct mb_field *field,
                                const char *name, const char *text)
{
    char place[MB_PATH_MAX + 192], shown[64];
    if (strlen(text) > TEMPLATE_NBYTES_MAX)
        return mb_field_fail(field, MB_BAD_DATA, "%zu bytes, at most %d are allowed", strlen(text),
                             TEMPLATE_NBYTES_MAX);
    char *copy = strdup(text);
    if (copy == NULL)
        return mb_fail_memory(field->err, "the chat templates");
    bool is_default = strcmp(name, "default") == 0;
    snprintf(place, sizeof place, "%s: chat_template%s%s%s", field->path, is_default ? "" : " '",
             is_default ? "" : mb_field_shown(shown, name), is_default ? "" : "'");
    return take(tokenizer, name, copy, place, field->err);
}

/* A string, or a list of {"name", "template"}. */
static enum mb_status take_json(struct mb_tokenizer *tokenizer, const struct mb_field *file)
{
    struct mb_field field = mb_field_get(file, "chat_template");
    const char *text = json_string_value(field.value), *name;
    if (field.value == NULL)
        return MB_OK;
    if (text != NULL)
        return take_text(tokenizer, &field, "default", text);
    if (!json_is_array(field.value))
        return mb_field_fail(&field, MB_BAD_DATA, "neither a string nor a list");
    for (size_t i = 0; i < json_array_size(field.value); i++) {
        struct mb_field item = mb_field_at(&field, i);
        MB_TRY(mb_field_string(&item, "name", NULL, &name));
        MB_TRY(mb_field_string(&item, "template", NULL, &text));
        if (name == NULL || text == NULL)
            return mb_field_fail(&item, MB_BAD_DATA, "has no name or no template");
        MB_TRY(take_text(tokenizer, &item, name, text));
    }
    return MB_OK;
}

static enum mb_status take_processor(struct mb_tokenizer *tokenizer, const char *folder, struct mb_error *err)
{
    char path[MB_PATH_MAX];
    bool is_there;
    json_t *owner;
    struct mb_field file;
    MB_TRY(mb_join_path(path, folder, "chat_template.json", err));
    MB_TRY(mb_look_for(path, &is_there, err));
    if (!is_there)
        return MB_OK;
    MB_TRY(mb_field_open(path, JSON_NBYTES_MAX, &owner, &file, err));
    enum mb_status status = take_json(tokenizer, &file);
    json_decref(owner);
    return status;
}

enum mb_status mb_load_templates(struct mb_tokenizer *tokenizer, const char *folder,
                                 const struct mb_field *config)
{
    MB_TRY(take_files(tokenizer, folder, config->err));
    if (tokenizer->n_templates == 0 && config->value != NULL)
        MB_TRY(take_json(tokenizer, config));
    return tokenizer->n_templates > 0 ? MB_OK : take_processor(tokenizer, folder, config->err);
}
