/*
 * folder_files.c - what a folder holds beside the weights that are read, or in their place.
 */
#include "folder_files.h"
#include "base/error.h"
#include "base/file.h"
#include "base/names.h"
#include "notes.h"
#include "roles.h"
#include <dirent.h>
#include <errno.h>
#include <fnmatch.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static bool is_dots(const char *name)
{
    return strcmp(name, ".") == 0 || strcmp(name, "..") == 0;
}

enum mb_status mb_for_each_file(const char *path, mb_file_fn fn, void *ctx, struct mb_error *err)
{
    DIR *folder = opendir(path);
    if (folder == NULL)
        return mb_fail_errno(err, path, "open");
    enum mb_status status = MB_OK;
    while (status == MB_OK) {
        errno = 0;
        const struct dirent *entry = readdir(folder);
        if (entry == NULL && errno != 0)
            status = mb_fail_errno(err, path, "read");
        if (entry == NULL)
            break;
        if (!is_dots(entry->d_name))
            status = fn(ctx, path, entry->d_name, err);
    }
    closedir(folder);
    return status;
}

/* ---------------------------------------------------------------- no folder */

/* Files that people give in place of a folder; NULL: nothing that we know. */
static const char *advice_on_file(const char *name)
{
    static const struct {
        const char *pattern, *advice;
    } kinds[] = {
        {"*.gguf", "is a GGUF file; Moebius reads the model in Hugging Face form: download that folder"},
        {"*.safetensors", "is one file of a model; give the folder that it is in, with config.json"},
        {"*.safetensors.index.json", "is the index of a model; give the folder that it is in"},
        {"config.json", "is one file of a model; give the folder that it is in"},
        {"tokenizer.json", "is one file of a model; give the folder that it is in"},
        {"*.bin", "is a PyTorch file; convert the model to safetensors and give its folder"},
        {"*.pt", "is a PyTorch file; convert the model to safetensors and give its folder"},
        {"*.pth", "is a PyTorch file; convert the model to safetensors and give its folder"},
    };
    for (size_t i = 0; i < sizeof kinds / sizeof kinds[0]; i++)
        if (fnmatch(kinds[i].pattern, name, FNM_CASEFOLD) == 0)
            return kinds[i].advice;
    return NULL;
}

/* "Qwen/Qwen3-30B-A3B": one slash, and nothing that only a path has. */
static bool is_hub_name(const char *path)
{
    const char *slash = strchr(path, '/');
    return slash != NULL && slash != path && slash[1] != '\0' && strchr(slash + 1, '/') == NULL &&
           path[0] != '.' && path[0] != '~' && advice_on_file(slash + 1) == NULL;
}

static enum mb_status fail_not_there(const char *path, struct mb_error *err)
{
    struct stat link;
    if (lstat(path, &link) == 0)
        return mb_fail(err, MB_BAD_DATA, "%s: a link to a folder that is not there", path);
    if (is_hub_name(path))
        return mb_fail(err, MB_BAD_DATA,
                       "%s: no such folder; if it is a model of the Hugging Face hub, download it first: "
                       "hf download %s --local-dir FOLDER",
                       path, path);
    if (strstr(path, "://") != NULL)
        return mb_fail(err, MB_BAD_DATA, "%s: is an address: download the model, and give its folder", path);
    return mb_fail(err, MB_BAD_DATA, "%s: no such folder", path);
}

static enum mb_status check_is_folder(const char *path, struct mb_error *err)
{
    struct stat st;
    if (stat(path, &st) != 0)
        return errno == ENOENT ? fail_not_there(path, err) : mb_fail_errno(err, path, "open");
    if (S_ISDIR(st.st_mode))
        return MB_OK;
    const char *slash = strrchr(path, '/'), *advice = advice_on_file(slash == NULL ? path : slash + 1);
    return mb_fail(err, MB_BAD_DATA, "%s: %s", path,
                   advice != NULL ? advice : "not a folder (a model is a Hugging Face folder)");
}

/* ---------------------------------------------------------------- in place of weights */

/* Most telling first. */
static const struct {
    const char *pattern, *advice;
} others[] = {
    {"model-*.safetensors",
     "is a shard, but its index is not there: download it too (a single file has to be called " MB_SINGLE_NAME
     ")"},
    {"adapter_config.json", "shows an adapter (LoRA), not a model: merge it into its model first"},
    {"adapter_model.*", "is an adapter (LoRA), not a model: merge it into its model first"},
    {"consolidated*", "is in its maker's own form: download the model in Hugging Face form"},
    {"params.json", "shows a model in its maker's own form: download it in Hugging Face form"},
    {"*.gguf", "is a GGUF file: download the model in Hugging Face form"},
    {"*.bin", "is a PyTorch checkpoint: convert it to safetensors"},
    {"*.pth", "is a PyTorch checkpoint: convert it to safetensors"},
    {"*.pt", "is a PyTorch checkpoint: convert it to safetensors"},
    {"*.incomplete", "is half a download: finish it"},
    {"*.aria2", "is half a download: finish it"},
    {"*.part", "is half a download: finish it"},
    {"*.h5", "is a TensorFlow checkpoint: download the safetensors files"},
    {"*.msgpack", "is a Flax checkpoint: download the safetensors files"},
    {"*.onnx", "is an ONNX model: download the safetensors files"},
    {"*.npz", "is an MLX checkpoint of an old form: download the safetensors files"},
    {"snapshots", "shows a cache of the hub: give the folder snapshots/NAME inside it"},
    {"models--*", "is in a cache of the hub: give the folder models--.../snapshots/NAME inside it"},
    {"*.safetensors", "has a name that is not read: weights are model.safetensors, or shards with an index"},
};
enum { N_OTHERS = sizeof others / sizeof others[0] };

/* The first of a kind by name, since the order of a folder's entries differs from disk to disk. */
struct finding {
    size_t kind; /* of others; N_OTHERS: nothing was found */
    char name[256];
};

static enum mb_status look_at_entry(void *ctx, const char *folder, const char *name, struct mb_error *err)
{
    (void)folder, (void)err;
    struct finding *found = ctx;
    size_t kind = 0;
    while (kind < N_OTHERS && fnmatch(others[kind].pattern, name, FNM_CASEFOLD) != 0)
        kind++;
    bool is_first = kind < found->kind || (kind == found->kind && strcmp(name, found->name) < 0);
    if (kind == N_OTHERS || !is_first)
        return MB_OK;
    found->kind = kind;
    snprintf(found->name, sizeof found->name, "%s", name);
    return MB_OK;
}

enum mb_status mb_fail_no_file(const char *path, const char *why, struct mb_error *err)
{
    bool is_there;
    MB_TRY(mb_look_for(path, &is_there, err));
    return mb_fail(err, MB_BAD_DATA, "%s: No such file or directory, but %s: download it too", path, why);
}

static enum mb_status check_is_no_dangling_link(const char *folder, const char *name, struct mb_error *err)
{
    char path[MB_PATH_MAX];
    bool is_there;
    MB_TRY(mb_join_path(path, folder, name, err));
    return mb_look_for(path, &is_there, err);
}

static enum mb_status fail_without_weights(const char *path, struct mb_error *err)
{
    MB_TRY(check_is_no_dangling_link(path, MB_SINGLE_NAME, err));
    MB_TRY(check_is_no_dangling_link(path, MB_INDEX_NAME, err));
    struct finding found = {.kind = N_OTHERS};
    MB_TRY(mb_for_each_file(path, look_at_entry, &found, err));
    if (found.kind == N_OTHERS)
        return mb_fail(err, MB_BAD_DATA,
                       "%s: neither " MB_SINGLE_NAME " nor " MB_INDEX_NAME " is there: download the weights",
                       path);
    return mb_fail(err, MB_BAD_DATA, "%s: neither " MB_SINGLE_NAME " nor " MB_INDEX_NAME " is there; %s %s",
                   path, found.name, others[found.kind].advice);
}

static enum mb_status fail_without_config(const char *path, struct mb_error *err)
{
    MB_TRY(check_is_no_dangling_link(path, "config.json", err));
    struct finding found = {.kind = N_OTHERS};
    MB_TRY(mb_for_each_file(path, look_at_entry, &found, err));
    /* Weights of the right form miss nothing but the file itself. */
    bool says_more = found.kind < N_OTHERS && !mb_name_ends_with(found.name, ".safetensors");
    return says_more ? mb_fail(err, MB_BAD_DATA, "%s: has no config.json; %s %s", path, found.name,
                               others[found.kind].advice)
                     : mb_fail(err, MB_BAD_DATA, "%s: has no config.json; give a model's Hugging Face folder",
                               path);
}

enum mb_status mb_checkpoint_look(const char *path, struct mb_error *err)
{
    char file[MB_PATH_MAX];
    bool has_config, has_weights;
    MB_TRY(check_is_folder(path, err));
    MB_TRY(mb_join_path(file, path, "config.json", err));
    MB_TRY(mb_look_at(file, &has_config, NULL, err));
    if (!has_config)
        return fail_without_config(path, err);
    MB_TRY(mb_join_path(file, path, MB_SINGLE_NAME, err));
    MB_TRY(mb_look_at(file, &has_weights, NULL, err));
    if (has_weights)
        return MB_OK;
    MB_TRY(mb_join_path(file, path, MB_INDEX_NAME, err));
    MB_TRY(mb_look_at(file, &has_weights, NULL, err));
    return has_weights ? MB_OK : fail_without_weights(path, err);
}

/* ---------------------------------------------------------------- beside the weights */

static bool is_read(const struct mb_checkpoint *ckpt, const char *name)
{
    for (size_t i = 0; i < ckpt->n_shards; i++)
        if (strcmp(ckpt->shards[i].name, name) == 0)
            return true;
    return false;
}

/* The first names of many, in order. */
struct first_names {
    char names[MB_NAMES_SHOWN][256];
    size_t n; /* of all */
};

static void add_name(struct first_names *first, const char *name)
{
    size_t at = first->n < MB_NAMES_SHOWN ? first->n : MB_NAMES_SHOWN;
    first->n++;
    for (; at > 0 && strcmp(name, first->names[at - 1]) < 0; at--)
        if (at < MB_NAMES_SHOWN)
            memcpy(first->names[at], first->names[at - 1], sizeof first->names[at]);
    if (at < MB_NAMES_SHOWN)
        snprintf(first->names[at], sizeof first->names[at], "%s", name);
}

bool mb_is_side_file(const char *name)
{
    static const char *const patterns[] = {
        "tokenizer*",
        "*.model",
        "vocab*",
        "merges.txt",
        "special_tokens_map.json",
        "added_tokens.json",
        "generation_config.json",
        "chat_template*",
        "*.jinja",
        "*.tiktoken",
        "*.py",
        "README*",
        "LICENSE*",
        "NOTICE*",
    };
    for (size_t i = 0; i < sizeof patterns / sizeof patterns[0]; i++)
        if (fnmatch(patterns[i], name, FNM_PERIOD) == 0)
            return true;
    return false;
}

struct search {
    const struct mb_checkpoint *ckpt;
    struct first_names found, dangling;
};

static enum mb_status look_beside(void *ctx, const char *folder, const char *name, struct mb_error *err)
{
    struct search *search = ctx;
    char path[MB_PATH_MAX];
    bool is_there = true;
    MB_TRY(mb_join_path(path, folder, name, err));
    if (mb_is_side_file(name))
        MB_TRY(mb_look_at(path, &is_there, NULL, err));
    if (!is_there) /* its name is, so it is a link */
        add_name(&search->dangling, name);
    bool is_weights =
        mb_name_ends_with(name, ".safetensors") || mb_name_ends_with(name, ".safetensors.index.json");
    bool is_index_read = search->ckpt->index_xxh3[0] != '\0' && strcmp(name, MB_INDEX_NAME) == 0;
    if (is_weights && !is_index_read && !is_read(search->ckpt, name))
        add_name(&search->found, name);
    return MB_OK;
}

static void names_of(const struct first_names *first, char text[MB_NAMES_NBYTES])
{
    const char *names[MB_NAMES_SHOWN];
    for (size_t i = 0; i < MB_NAMES_SHOWN; i++)
        names[i] = first->names[i];
    mb_names_text(names, first->n, text);
}

enum mb_status mb_note_other_files(struct mb_checkpoint *ckpt, struct mb_error *err)
{
    struct search search = {.ckpt = ckpt};
    const struct first_names *first = &search.found, *dangling = &search.dangling;
    char text[MB_NAMES_NBYTES];
    if (access(ckpt->path, R_OK) != 0) /* files of known names can be read all the same */
        return MB_OK;
    MB_TRY(mb_for_each_file(ckpt->path, look_beside, &search, err));
    if (dangling->n > 0) {
        names_of(dangling, text);
        MB_TRY(mb_checkpoint_note(ckpt, err,
                                  "%zu link%s to a file that is not there, as half a download leaves it: %s",
                                  dangling->n, dangling->n == 1 ? " leads" : "s lead", text));
    }
    if (first->n == 0)
        return MB_OK;
    names_of(first, text);
    return mb_checkpoint_note(ckpt, err, "%zu file%s with weights %s not read: %s", first->n,
                              first->n == 1 ? "" : "s", first->n == 1 ? "is" : "are", text);
}
