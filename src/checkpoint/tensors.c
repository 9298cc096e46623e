/*
 * tensors.c - what an open checkpoint says about itself and its tensors, and their bytes.
 */
#include "base/error.h"
#include "base/file.h"
#include "views.h"
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char SUFFIX[] = ".moebius";

static int tensor_by_name(const void *a, const void *b)
{
    return strcmp((*(const struct mb_tensor *const *)a)->name, (*(const struct mb_tensor *const *)b)->name);
}

/* ---------------------------------------------------------------- an open folder */

const char *mb_checkpoint_path(const struct mb_checkpoint *ckpt)
{
    return ckpt->path;
}

bool mb_checkpoint_is_coded(const struct mb_checkpoint *ckpt)
{
    return ckpt->is_coded;
}

const char *mb_checkpoint_notes(const struct mb_checkpoint *ckpt)
{
    return ckpt->notes.p == NULL ? "" : ckpt->notes.p;
}

const char *mb_checkpoint_config_text(const struct mb_checkpoint *ckpt)
{
    return ckpt->config_text;
}

uint64_t mb_checkpoint_file_nbytes(const struct mb_checkpoint *ckpt)
{
    uint64_t nbytes = 0;
    for (size_t i = 0; i < ckpt->n_shards; i++)
        nbytes += ckpt->shards[i].nbytes;
    return nbytes;
}

size_t mb_checkpoint_n_tensors(const struct mb_checkpoint *ckpt)
{
    return ckpt->n_tensors;
}

const struct mb_tensor *mb_checkpoint_tensor(const struct mb_checkpoint *ckpt, size_t i)
{
    return ckpt->tensors[i];
}

const struct mb_tensor *mb_checkpoint_find(const struct mb_checkpoint *ckpt, const char *name)
{
    const struct mb_tensor key = {.name = name}, *key_pointer = &key;
    const struct mb_tensor **found = bsearch(&key_pointer, ckpt->by_name, ckpt->n_tensors,
                                             sizeof(const struct mb_tensor *), tensor_by_name);
    return found == NULL ? NULL : *found;
}

size_t mb_checkpoint_n_shards(const struct mb_checkpoint *ckpt)
{
    return ckpt->n_shards;
}

const char *mb_checkpoint_shard_name(const struct mb_checkpoint *ckpt, size_t shard)
{
    return ckpt->shards[shard].name;
}

const char *mb_tensor_path(const struct mb_checkpoint *ckpt, const struct mb_tensor *tensor)
{
    return ckpt->shards[tensor->shard].path;
}

/* ---------------------------------------------------------------- bytes */

const struct mb_view *mb_view_of(const struct mb_checkpoint *ckpt, const struct mb_tensor *tensor)
{
    if (ckpt->views == NULL || ckpt->views[tensor->number].kind == NULL)
        return NULL;
    return &ckpt->views[tensor->number];
}

uint64_t mb_elem_file_pos(const struct mb_checkpoint *ckpt, const struct mb_tensor *tensor, uint64_t i)
{
    const struct mb_view *view = mb_view_of(ckpt, tensor);
    return view == NULL ? tensor->file_pos + i * mb_elem_nbytes(tensor) : view->kind->file_pos(view, i);
}

enum mb_status mb_checkpoint_map(const struct mb_checkpoint *ckpt, const struct mb_tensor *tensor,
                                 const void **bytes, struct mb_error *err)
{
    if (mb_view_of(ckpt, tensor) != NULL)
        return mb_fail(err, MB_USAGE, "%s: tensor %s: is computed when it is read, and cannot be mapped",
                       mb_tensor_path(ckpt, tensor), tensor->name);
    *bytes = (const uint8_t *)ckpt->shards[tensor->shard].map + tensor->file_pos;
    return MB_OK;
}

bool mb_tensor_is_mapped(const struct mb_checkpoint *ckpt, const struct mb_tensor *tensor)
{
    return mb_view_of(ckpt, tensor) == NULL;
}

uint64_t mb_tensor_stored_nbytes(const struct mb_checkpoint *ckpt, const struct mb_tensor *tensor)
{
    const struct mb_view *view = mb_view_of(ckpt, tensor);
    if (view == NULL)
        return tensor->nbytes;
    return tensor->n_elems * mb_elem_nbytes(view->stored) + (view->scales == NULL ? 0 : view->scales->nbytes);
}

const char *mb_tensor_stored_type(const struct mb_checkpoint *ckpt, const struct mb_tensor *tensor)
{
    const struct mb_view *view = mb_view_of(ckpt, tensor);
    return view == NULL ? tensor->type_name : view->stored->type_name;
}

static enum mb_status check_range(const struct mb_checkpoint *ckpt, const struct mb_tensor *tensor,
                                  uint64_t pos, uint64_t nbytes, struct mb_error *err)
{
    if (pos > tensor->nbytes || nbytes > tensor->nbytes - pos)
        return mb_fail(err, MB_USAGE, "%s: tensor %s: bytes [%" PRIu64 ", +%" PRIu64 ") are outside of it",
                       mb_tensor_path(ckpt, tensor), tensor->name, pos, nbytes);
    return MB_OK;
}

enum mb_status mb_stored_read(const struct mb_checkpoint *ckpt, const struct mb_tensor *stored, uint64_t pos,
                              void *out, uint64_t nbytes, struct mb_error *err)
{
    const struct mb_shard *shard = &ckpt->shards[stored->shard];
    MB_TRY(check_range(ckpt, stored, pos, nbytes, err));
    return mb_read_at(shard->fd, shard->path, stored->file_pos + pos, out, nbytes, err);
}

enum mb_status mb_checkpoint_read(const struct mb_checkpoint *ckpt, const struct mb_tensor *tensor,
                                  uint64_t pos, void *out, uint64_t nbytes, struct mb_error *err)
{
    const struct mb_view *view = mb_view_of(ckpt, tensor);
    MB_TRY(check_range(ckpt, tensor, pos, nbytes, err));
    return view == NULL ? mb_stored_read(ckpt, tensor, pos, out, nbytes, err)
                        : view->kind->read(ckpt, view, pos, out, nbytes, err);
}

/* ---------------------------------------------------------------- coded folders */

bool mb_tensor_is_blob(const struct mb_checkpoint *ckpt, const struct mb_tensor *tensor)
{
    size_t n = strlen(tensor->name), n_suffix = sizeof SUFFIX - 1;
    return ckpt->is_coded && tensor->type == MB_TENSOR_U8 && tensor->n_dims == 1 && n > n_suffix &&
           strcmp(tensor->name + n - n_suffix, SUFFIX) == 0;
}

char *mb_blob_full_name(const struct mb_tensor *blob, const struct mb_blob_matrix *matrix)
{
    char *name = NULL;
    int n_stem = (int)(strlen(blob->name) - (sizeof SUFFIX - 1));
    if (asprintf(&name, "%.*s.%.*s", n_stem, blob->name, (int)matrix->name_nbytes, matrix->name) < 0)
        return NULL;
    return name;
}

enum mb_status mb_blob_check_exponents(const struct mb_checkpoint *ckpt, const struct mb_tensor *blob,
                                       const struct mb_blob_matrix *matrix, const char *name,
                                       struct mb_error *err)
{
    if (matrix->exponents_nbytes == 0 || mb_may_have_exponents(name))
        return MB_OK;
    return mb_fail(err, MB_BAD_DATA,
                   "%s: tensor %s: the columns of %s have exponents, and only down_proj's may",
                   mb_tensor_path(ckpt, blob), blob->name, name);
}

/* "KEY:NAME" in the header of the tensor's shard. */
static bool find_xxh3(const struct mb_checkpoint *ckpt, const struct mb_tensor *tensor, const char *what,
                      uint64_t *xxh3)
{
    char key[600];
    snprintf(key, sizeof key, "%s:%s", what, tensor->name);
    const char *text = json_string_value(json_object_get(ckpt->shards[tensor->shard].header.metadata, key));
    if (text == NULL || strlen(text) != 16 || strspn(text, "0123456789abcdef") != 16)
        return false;
    *xxh3 = strtoull(text, NULL, 16);
    return true;
}

bool mb_exact_xxh3(const struct mb_checkpoint *ckpt, const struct mb_tensor *tensor, uint64_t *xxh3)
{
    return find_xxh3(ckpt, tensor, "xxh3", xxh3);
}

bool mb_blob_origin(const struct mb_checkpoint *ckpt, const struct mb_tensor *blob, uint64_t *origin)
{
    return find_xxh3(ckpt, blob, "orig", origin);
}
