/*
 * shard_writer.c - one file of the output: room for the header, the data, then the header, the note, the
 * rename.
 */
#include "shard_writer.h"
#include "base/error.h"
#include "layout.h"
#include "output_error.h"
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static json_t *new_metadata(void)
{
    return json_pack("{s:s}", "format", "pt");
}

static void set_xxh3(json_t *metadata, const char *what, const char *name, uint64_t xxh3, bool *ok)
{
    char key[600], text[24];
    snprintf(key, sizeof key, "%s:%s", what, name);
    snprintf(text, sizeof text, "%016llx", (unsigned long long)xxh3);
    *ok = *ok && json_object_set_new(metadata, key, json_string(text)) == 0;
}

static void set_output_error(json_t *metadata, const char *name, const char *text, bool *ok)
{
    char key[600];
    snprintf(key, sizeof key, MB_OUTPUT_ERROR_KEY, name);
    *ok = *ok && json_object_set_new(metadata, key, json_string(text)) == 0;
}

/* A blob's size is its shape, and not known when it is planned. Other tensors have elements. */
static bool is_blob(const struct mb_tensor *tensor)
{
    return tensor->type == MB_TENSOR_U8 && tensor->n_dims == 1 && tensor->n_elems == 0;
}

uint64_t mb_shard_data_pos(const struct mb_tensor *planned, size_t n_planned,
                           const struct mb_shard_errors *errors)
{
    char longest[MB_OUTPUT_ERROR_NBYTES];
    mb_output_error_format(&(struct mb_output_error){1.23456789e-100, 1.23456789e-100, UINT64_MAX}, longest);
    const uint64_t widest = INT64_MAX / 4; /* as many digits as any number that it can become */
    struct mb_tensor *tensors = calloc(n_planned + 1, sizeof *tensors);
    json_t *metadata = new_metadata();
    bool ok = tensors != NULL && metadata != NULL;
    for (size_t i = 0; i < n_planned && ok; i++) {
        tensors[i] = planned[i];
        tensors[i].file_pos = tensors[i].nbytes = widest;
        if (is_blob(&planned[i]))
            tensors[i].shape[0] = widest; /* a blob's size is not known yet */
        set_xxh3(metadata, is_blob(&planned[i]) ? "orig" : "xxh3", planned[i].name, 0, &ok);
    }
    for (size_t i = 0; errors != NULL && i < errors->n; i++)
        set_output_error(metadata, errors->names[i], longest, &ok);
    char *text = NULL;
    size_t nbytes = 0;
    ok = ok && mb_st_write_header(tensors, n_planned, metadata, &text, &nbytes, NULL) == MB_OK;
    free(text);
    free(tensors);
    json_decref(metadata);
    return ok ? (8 + nbytes + MB_ST_PAGE_NBYTES - 1) / MB_ST_PAGE_NBYTES * MB_ST_PAGE_NBYTES : 0;
}

static enum mb_status set_paths(struct mb_shard_writer *writer, struct mb_error *err)
{
    MB_TRY(mb_join_path(writer->path, writer->output->partial, writer->name, err));
    int n = snprintf(writer->temporary, sizeof writer->temporary, "%s.tmp", writer->path);
    return n < MB_PATH_MAX ? MB_OK
                           : mb_fail(err, MB_USAGE, "%.200s...: path too long", writer->output->partial);
}

static enum mb_status begin(struct mb_shard_writer *writer, const struct mb_tensor *planned,
                            const struct mb_shard_errors *errors, struct mb_error *err)
{
    if (unlink(writer->path) == 0) /* of other work: the note must never speak of it */
        MB_TRY(mb_sync_folder(writer->output->partial, err));
    writer->data_pos = mb_shard_data_pos(planned, writer->n_planned, errors);
    writer->tensors = calloc(writer->n_planned + 1, sizeof *writer->tensors);
    writer->metadata = new_metadata();
    writer->output_errors = json_object();
    if (writer->data_pos == 0 || writer->tensors == NULL || writer->metadata == NULL ||
        writer->output_errors == NULL)
        return mb_fail_memory(err, "the tensors of a shard");
    if (writer->n_planned > 0)
        memcpy(writer->tensors, planned, writer->n_planned * sizeof *planned);
    writer->fd = open(writer->temporary, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
    return writer->fd < 0 ? mb_fail_errno(err, writer->temporary, "create") : MB_OK;
}

enum mb_status mb_shard_begin(struct mb_output *output, size_t shard, size_t n_shards,
                              const struct mb_tensor *planned, size_t n_planned,
                              const struct mb_shard_errors *errors, struct mb_shard_writer *writer,
                              struct mb_error *err)
{
    *writer = (struct mb_shard_writer){.output = output, .fd = -1, .n_planned = n_planned};
    mb_shard_file_name(writer->name, shard, n_shards);
    MB_TRY(set_paths(writer, err));
    enum mb_status status = begin(writer, planned, errors, err);
    if (status != MB_OK)
        mb_shard_cancel(writer);
    return status;
}

enum mb_status mb_shard_write_at(struct mb_shard_writer *writer, uint64_t at, const void *bytes,
                                 uint64_t nbytes, struct mb_error *err)
{
    return mb_write_at(writer->fd, writer->temporary, writer->data_pos + at, bytes, nbytes, err);
}

enum mb_status mb_shard_extend(struct mb_shard_writer *writer, uint64_t nbytes, struct mb_error *err)
{
    return ftruncate(writer->fd, (off_t)(writer->data_pos + nbytes)) == 0
               ? MB_OK
               : mb_fail_errno(err, writer->temporary, "set the size");
}

enum mb_status mb_shard_read_at(struct mb_shard_writer *writer, uint64_t at, void *bytes, uint64_t nbytes,
                                struct mb_error *err)
{
    return mb_read_at(writer->fd, writer->temporary, writer->data_pos + at, bytes, nbytes, err);
}

enum mb_status mb_shard_write(struct mb_shard_writer *writer, const void *bytes, uint64_t nbytes,
                              struct mb_error *err)
{
    enum mb_status status = mb_shard_write_at(writer, writer->at, bytes, nbytes, err);
    writer->at += nbytes;
    return status;
}

enum mb_status mb_shard_add(struct mb_shard_writer *writer, uint64_t begin, struct mb_error *err)
{
    if (writer->n_tensors == writer->n_planned)
        return mb_fail(err, MB_USAGE, "%s: more tensors than planned", writer->path);
    struct mb_tensor *added = &writer->tensors[writer->n_tensors++];
    added->file_pos = begin;
    added->nbytes = writer->at - begin;
    if (is_blob(added))
        added->n_elems = added->shape[0] = added->nbytes;
    return MB_OK;
}

enum mb_status mb_shard_add_xxh3(struct mb_shard_writer *writer, const char *name, uint64_t xxh3,
                                 struct mb_error *err)
{
    bool ok = true;
    set_xxh3(writer->metadata, "xxh3", name, xxh3, &ok);
    return ok ? MB_OK : mb_fail_memory(err, "the list of tensors");
}

enum mb_status mb_shard_add_origin(struct mb_shard_writer *writer, uint64_t origin, struct mb_error *err)
{
    bool ok = true;
    set_xxh3(writer->metadata, "orig", writer->tensors[writer->n_tensors - 1].name, origin, &ok);
    return ok ? MB_OK : mb_fail_memory(err, "the list of tensors");
}

enum mb_status mb_shard_add_output_error_text(struct mb_shard_writer *writer, const char *name,
                                              const char *text, struct mb_error *err)
{
    bool ok = true;
    set_output_error(writer->output_errors, name, text, &ok);
    return ok ? MB_OK : mb_fail_memory(err, "the list of output errors");
}

enum mb_status mb_shard_add_output_error(struct mb_shard_writer *writer, const char *name,
                                         const struct mb_output_error *error, struct mb_error *err)
{
    char text[MB_OUTPUT_ERROR_NBYTES];
    mb_output_error_format(error, text);
    return mb_shard_add_output_error_text(writer, name, text, err);
}

static enum mb_status write_shard_header(struct mb_shard_writer *writer, struct mb_error *err)
{
    char *text;
    size_t nbytes;
    if (json_object_update(writer->metadata, writer->output_errors) != 0)
        return mb_fail_memory(err, "the list of output errors");
    MB_TRY(mb_st_write_header(writer->tensors, writer->n_tensors, writer->metadata, &text, &nbytes, err));
    enum mb_status status = MB_OK;
    uint64_t length = writer->data_pos - 8;
    char *padded = malloc(writer->data_pos);
    if (padded == NULL || nbytes > length) {
        status = mb_fail_memory(err, "the header of a shard");
    } else {
        memcpy(padded, &length, 8);
        memcpy(padded + 8, text, nbytes);
        memset(padded + 8 + nbytes, ' ', length - nbytes);
        status = mb_write_at(writer->fd, writer->temporary, 0, padded, writer->data_pos, err);
    }
    free(padded);
    free(text);
    return status;
}

static enum mb_status end_shard(struct mb_shard_writer *writer, uint64_t plan, const json_t *report,
                                struct mb_error *err)
{
    MB_TRY(write_shard_header(writer, err));
    if (ftruncate(writer->fd, (off_t)(writer->data_pos + writer->at)) != 0)
        return mb_fail_errno(err, writer->temporary, "set the size");
    if (fsync(writer->fd) != 0)
        return mb_fail_errno(err, writer->temporary, "fsync");
    MB_TRY(mb_output_note_shard(writer->output, writer->name, plan, report, err)); /* before the rename */
    if (rename(writer->temporary, writer->path) != 0)
        return mb_fail_errno(err, writer->path, "rename");
    return mb_sync_folder(writer->output->partial, err);
}

enum mb_status mb_shard_end(struct mb_shard_writer *writer, uint64_t plan, const json_t *report,
                            struct mb_error *err)
{
    enum mb_status status = end_shard(writer, plan, report, err);
    mb_shard_cancel(writer); /* the temporary name is gone by now when all went well */
    return status;
}

void mb_shard_cancel(struct mb_shard_writer *writer)
{
    if (writer->fd >= 0) {
        close(writer->fd);
        unlink(writer->temporary);
    }
    free(writer->tensors);
    json_decref(writer->metadata);
    json_decref(writer->output_errors);
    *writer = (struct mb_shard_writer){.fd = -1};
}
