/*
 * checkpoint.c - opens a folder: reads config.json, the index and the headers of all shards, and checks that
 * they agree.
 */
#include "checkpoint.h"
#include "base/error.h"
#include "base/file.h"
#include "base/json.h"
#include "checksums.h"
#include "folder_files.h"
#include "shard_index.h"
#include "text_model.h"
#include "views.h"
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

/* ---------------------------------------------------------------- config.json */

static enum mb_status check_quantization(struct mb_checkpoint *ckpt, const char *path, struct mb_error *err)
{
    const json_t *config = json_object_get(ckpt->config, "quantization_config");
    if (config == NULL || json_is_null(config))
        return MB_OK;
    const char *method = json_string_value(json_object_get(config, "quant_method"));
    if (method == NULL)
        return mb_fail(err, MB_BAD_DATA, "%s: quantization_config: no quant_method", path);
    if (strcmp(method, "fp8") == 0) /* read by fp8.c where there are such weights; some are bf16 by now */
        return MB_OK;
    if (strcmp(method, "moebius") != 0)
        return mb_fail(err, MB_UNSUPPORTED,
                       "%s: quantization_config: weights quantised as '%.40s' are not supported; convert "
                       "them to bf16 (and if "
                       "they are, remove quantization_config)",
                       path, method);
    json_int_t version = json_integer_value(json_object_get(config, "format_version"));
    if (version < MB_FORMAT_VERSION || version > MB_FORMAT_VERSION_MAX)
        return mb_fail(err, MB_UNSUPPORTED,
                       "%s: quantization_config: format version %lld, this program reads %d to %d", path,
                       (long long)version, MB_FORMAT_VERSION, MB_FORMAT_VERSION_MAX);
    ckpt->is_coded = true;
    return MB_OK;
}

static enum mb_status read_config(struct mb_checkpoint *ckpt, struct mb_error *err)
{
    char path[MB_PATH_MAX];
    size_t nbytes;
    MB_TRY(mb_join_path(path, ckpt->path, "config.json", err));
    MB_TRY(mb_read_file(path, MB_CONFIG_NBYTES_MAX, &ckpt->config_text, &nbytes, err));
    /* jansson accepts a NUL; readers of the C string would stop at it. */
    if (strlen(ckpt->config_text) != nbytes)
        return mb_fail(err, MB_BAD_DATA, "%s: byte %zu: a zero byte", path, strlen(ckpt->config_text));
    MB_TRY(mb_json_parse_file(path, ckpt->config_text, nbytes, &ckpt->config, err));
    return check_quantization(ckpt, path, err);
}

/* ---------------------------------------------------------------- shards */

/* The shard belongs to the checkpoint as soon as its file is open, after a failure too. */
static enum mb_status open_shard(struct mb_checkpoint *ckpt, const char *name, struct mb_error *err)
{
    struct mb_shard *shard = &ckpt->shards[ckpt->n_shards];
    char path[MB_PATH_MAX];
    struct stat st;
    MB_TRY(mb_join_path(path, ckpt->path, name, err));
    shard->fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (shard->fd < 0)
        return errno == ENOENT ? mb_fail_no_file(path, "the index names it", err)
                               : mb_fail_errno(err, path, "open");
    ckpt->n_shards++;
    shard->name = strdup(name);
    shard->path = strdup(path);
    if (shard->name == NULL || shard->path == NULL)
        return mb_fail_memory(err, "the path of a shard");
    MB_TRY(mb_st_read_header(shard->fd, path, &shard->header, err));
    if (fstat(shard->fd, &st) != 0)
        return mb_fail_errno(err, path, "stat");
    shard->nbytes = (uint64_t)st.st_size;
    shard->changed = st.st_mtim;
    shard->map = mmap(NULL, shard->nbytes, PROT_READ, MAP_PRIVATE, shard->fd, 0);
    if (shard->map == MAP_FAILED) {
        shard->map = NULL;
        return mb_fail_errno(err, path, "mmap");
    }
    for (size_t i = 0; i < shard->header.n_tensors; i++)
        shard->header.tensors[i].shard = ckpt->n_shards - 1;
    return MB_OK;
}

static int tensor_by_name(const void *a, const void *b)
{
    return strcmp((*(const struct mb_tensor *const *)a)->name, (*(const struct mb_tensor *const *)b)->name);
}

/* One list of all tensors, and a sorted one. No two have the same name: mb_shard_index_settle saw to that. */
static enum mb_status list_tensors(struct mb_checkpoint *ckpt, struct mb_error *err)
{
    size_t n = 0;
    for (size_t s = 0; s < ckpt->n_shards; s++)
        n += ckpt->shards[s].header.n_tensors;
    ckpt->tensors = calloc(n + 1, sizeof(const struct mb_tensor *));
    ckpt->by_name = calloc(n + 1, sizeof(const struct mb_tensor *));
    if (ckpt->tensors == NULL || ckpt->by_name == NULL)
        return mb_fail_memory(err, "the list of tensors");
    for (size_t s = 0; s < ckpt->n_shards; s++) {
        for (size_t i = 0; i < ckpt->shards[s].header.n_tensors; i++) {
            struct mb_tensor *tensor = &ckpt->shards[s].header.tensors[i];
            tensor->number = ckpt->n_tensors;
            ckpt->tensors[ckpt->n_tensors++] = tensor;
        }
    }
    memcpy(ckpt->by_name, ckpt->tensors, n * sizeof(const struct mb_tensor *));
    qsort(ckpt->by_name, n, sizeof(const struct mb_tensor *), tensor_by_name);
    return MB_OK;
}

static enum mb_status open_shards(struct mb_checkpoint *ckpt, const char *const *names, size_t n,
                                  struct mb_error *err)
{
    ckpt->shards = calloc(n, sizeof *ckpt->shards);
    if (ckpt->shards == NULL)
        return mb_fail_memory(err, "the list of shards");
    for (size_t i = 0; i < n; i++)
        MB_TRY(open_shard(ckpt, names[i], err));
    return MB_OK;
}

static enum mb_status open_indexed(struct mb_checkpoint *ckpt, const char *path, const json_t *root,
                                   struct mb_error *err)
{
    const json_t *map = json_object_get(root, "weight_map");
    if (!json_is_object(map))
        return mb_fail(err, MB_BAD_DATA, "%s: no weight_map", path);
    const char **names = NULL;
    size_t n = 0;
    enum mb_status status = mb_shard_index_names(path, map, &names, &n, err);
    if (status == MB_OK)
        status = open_shards(ckpt, names, n, err);
    free(names);
    MB_TRY(status);
    MB_TRY(mb_shard_index_settle(ckpt, map, err));
    MB_TRY(list_tensors(ckpt, err));
    return mb_shard_index_check(ckpt, path, map, err);
}

static enum mb_status open_index(struct mb_checkpoint *ckpt, const char *path, struct mb_error *err)
{
    char *text;
    size_t nbytes;
    json_t *root;
    MB_TRY(mb_read_file(path, MB_INDEX_NBYTES_MAX, &text, &nbytes, err));
    mb_xxh128_text(text, nbytes, ckpt->index_xxh3);
    enum mb_status status = mb_json_parse_file(path, text, nbytes, &root, err);
    free(text);
    MB_TRY(status);
    status = open_indexed(ckpt, path, root, err);
    json_decref(root);
    return status;
}

/* One file if it is there, else the index, as in transformers. */
static enum mb_status open_files(struct mb_checkpoint *ckpt, struct mb_error *err)
{
    char single[MB_PATH_MAX], index[MB_PATH_MAX];
    const char *const names[] = {MB_SINGLE_NAME};
    bool has_single;
    MB_TRY(mb_join_path(single, ckpt->path, MB_SINGLE_NAME, err));
    MB_TRY(mb_join_path(index, ckpt->path, MB_INDEX_NAME, err));
    MB_TRY(mb_look_at(single, &has_single, NULL, err));
    if (!has_single)
        return open_index(ckpt, index, err);
    MB_TRY(open_shards(ckpt, names, 1, err));
    return list_tensors(ckpt, err);
}

static enum mb_status open_folder(struct mb_checkpoint *ckpt, struct mb_error *err)
{
    MB_TRY(read_config(ckpt, err));
    MB_TRY(open_files(ckpt, err));
    MB_TRY(mb_note_other_files(ckpt, err));
    if (!ckpt->is_coded)
        MB_TRY(mb_views_make(ckpt, err));
    return mb_note_parts(ckpt, err);
}

enum mb_status mb_checkpoint_open(const char *path, struct mb_checkpoint **ckpt, struct mb_error *err)
{
    MB_TRY(mb_checkpoint_look(path, err));
    struct mb_checkpoint *c = calloc(1, sizeof *c);
    if (c == NULL || (c->path = strdup(path)) == NULL) {
        free(c);
        return mb_fail_memory(err, "the checkpoint");
    }
    enum mb_status status = open_folder(c, err);
    if (status != MB_OK) {
        mb_checkpoint_close(c);
        return status;
    }
    *ckpt = c;
    return MB_OK;
}

void mb_checkpoint_close(struct mb_checkpoint *ckpt)
{
    if (ckpt == NULL)
        return;
    for (size_t i = 0; i < ckpt->n_shards; i++) {
        struct mb_shard *shard = &ckpt->shards[i];
        if (shard->map != NULL)
            munmap(shard->map, shard->nbytes);
        close(shard->fd);
        mb_st_free_header(&shard->header);
        free(shard->name);
        free(shard->path);
    }
    free(ckpt->shards);
    mb_views_free(ckpt);
    free(ckpt->tensors);
    free(ckpt->by_name);
    json_decref(ckpt->config);
    free(ckpt->config_text);
    free(ckpt->notes.p);
    free(ckpt->path);
    free(ckpt);
}
