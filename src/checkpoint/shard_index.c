/*
 * shard_index.c - model.safetensors.index.json: which shards a checkpoint has, and where they disagree with
 * it.
 */
#include "shard_index.h"
#include "base/error.h"
#include "base/names.h"
#include "notes.h"
#include <stdlib.h>
#include <string.h>

enum { N_SHARDS_MAX = 10000, SHARD_NAME_MAX = 1000 };

/* ---------------------------------------------------------------- names of shards */

/* A file of this folder or of a folder in it: no part of the path is empty or begins with a dot. */
static bool shard_name_is_sound(const char *name)
{
    static const char END[] = ".safetensors";
    size_t n = name == NULL ? 0 : strlen(name), n_end = sizeof END - 1;
    if (n <= n_end || n > SHARD_NAME_MAX || strcmp(name + n - n_end, END) != 0)
        return false;
    for (const char *part = name; part != NULL; part = strchr(part, '/')) {
        part += part != name;
        if (*part == '.' || *part == '/' || *part == '\0')
            return false;
    }
    return true;
}

static int by_text(const void *a, const void *b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

enum mb_status mb_shard_index_names(const char *path, const json_t *map, const char ***names, size_t *n,
                                    struct mb_error *err)
{
    const char *tensor, **all = calloc(json_object_size(map) + 1, sizeof *all);
    json_t *value;
    size_t n_all = 0;
    if (all == NULL)
        return mb_fail_memory(err, "the names of the tensors");
    *names = all;
    json_object_foreach((json_t *)map, tensor, value)
    {
        if (!shard_name_is_sound(json_string_value(value)))
            return mb_fail(err, MB_BAD_DATA,
                           "%s: tensor %.200s: not a file name of this folder (NAME.safetensors)", path,
                           tensor);
        all[n_all++] = json_string_value(value);
    }
    qsort(all, n_all, sizeof *all, by_text);
    *n = 0;
    for (size_t i = 0; i < n_all; i++)
        if (i == 0 || strcmp(all[i], all[i - 1]) != 0)
            all[(*n)++] = all[i];
    if (*n == 0 || *n > N_SHARDS_MAX)
        return mb_fail(err, MB_BAD_DATA, "%s: weight_map names %zu files, not 1 to %d", path, *n,
                       N_SHARDS_MAX);
    return MB_OK;
}

/* ---------------------------------------------------------------- tensors that do not count */

struct settling {
    struct mb_checkpoint *ckpt;
    const json_t *map;
    json_t *later;        /* what the index does not name, of the shards that were looked at */
    const char **dropped; /* names of what does not count */
    size_t n_dropped;
};

/* Whether a tensor of a shard is the one that counts. */
static enum mb_status counts(struct settling *s, const struct mb_shard *shard, const char *name,
                             bool *does_count, struct mb_error *err)
{
    const char *file = json_string_value(json_object_get(s->map, name));
    *does_count = file == NULL || strcmp(file, shard->name) == 0;
    if (file != NULL)
        return MB_OK;
    *does_count = json_object_get(s->later, name) == NULL;
    return json_object_set_new(s->later, name, json_true()) == 0
               ? MB_OK
               : mb_fail_memory(err, "the names of the tensors");
}

/* What does not count goes to the end of the list, where the header owns it still. */
static enum mb_status settle_shard(struct settling *s, struct mb_shard *shard, struct mb_error *err)
{
    struct mb_st_header *header = &shard->header;
    size_t n_kept = 0;
    for (size_t i = 0; i < header->n_tensors; i++) {
        struct mb_tensor tensor = header->tensors[i];
        bool does_count;
        MB_TRY(counts(s, shard, tensor.name, &does_count, err));
        if (!does_count) {
            s->dropped[s->n_dropped++] = tensor.name;
            continue;
        }
        header->tensors[i] = header->tensors[n_kept];
        header->tensors[n_kept++] = tensor;
    }
    header->n_dropped = header->n_tensors - n_kept;
    header->n_tensors = n_kept;
    return MB_OK;
}

static enum mb_status settle(struct settling *s, struct mb_error *err)
{
    for (size_t i = s->ckpt->n_shards; i-- > 0;)
        MB_TRY(settle_shard(s, &s->ckpt->shards[i], err));
    if (s->n_dropped == 0)
        return MB_OK;
    char names[MB_NAMES_NBYTES];
    mb_names_text(s->dropped, s->n_dropped, names);
    return mb_checkpoint_note(s->ckpt, err,
                              "%zu tensor%s in more than one shard; where the index says is used: %s",
                              s->n_dropped, s->n_dropped == 1 ? " is" : "s are", names);
}

enum mb_status mb_shard_index_settle(struct mb_checkpoint *ckpt, const json_t *map, struct mb_error *err)
{
    size_t n = 0;
    for (size_t i = 0; i < ckpt->n_shards; i++)
        n += ckpt->shards[i].header.n_tensors;
    struct settling s = {.ckpt = ckpt, .map = map, .later = json_object()};
    s.dropped = calloc(n + 1, sizeof *s.dropped);
    enum mb_status status = s.later == NULL || s.dropped == NULL
                                ? mb_fail_memory(err, "the names of the tensors")
                                : settle(&s, err);
    json_decref(s.later);
    free(s.dropped);
    return status;
}

/* A coded folder was written with its index: nothing in it is in doubt. */
static enum mb_status check_coded(const struct mb_checkpoint *ckpt, const json_t *map, struct mb_error *err)
{
    for (size_t i = 0; i < ckpt->n_shards; i++) {
        const struct mb_st_header *header = &ckpt->shards[i].header;
        if (header->n_dropped > 0)
            return mb_fail(err, MB_BAD_DATA, "%s: tensor %s: the index says that it is in another file",
                           ckpt->shards[i].path, header->tensors[header->n_tensors].name);
        for (size_t k = 0; k < header->n_tensors; k++)
            if (json_object_get(map, header->tensors[k].name) == NULL)
                return mb_fail(err, MB_BAD_DATA, "%s: tensor %s: not in the index", ckpt->shards[i].path,
                               header->tensors[k].name);
    }
    return MB_OK;
}

enum mb_status mb_shard_index_check(const struct mb_checkpoint *ckpt, const char *path, const json_t *map,
                                    struct mb_error *err)
{
    const char *name;
    json_t *file;
    json_object_foreach((json_t *)map, name, file)
    {
        if (mb_checkpoint_find(ckpt, name) == NULL)
            return mb_fail(err, MB_BAD_DATA,
                           "%s: tensor %s: not in %s, where the index says it is; download that file again",
                           path, name, json_string_value(file));
    }
    return ckpt->is_coded ? check_coded(ckpt, map, err) : MB_OK;
}
