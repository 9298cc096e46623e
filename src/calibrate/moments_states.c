/*
 * moments_states.c - see moments_states.h.
 */
#include "moments_states.h"
#include "base/error.h"
#include "base/file.h"
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <xxhash.h>

static json_t *states_json(const struct mb_moments_key *key, const float *states, uint64_t n)
{
    return json_pack("{s:s, s:s, s:I, s:I}", "model_hash", key->model, "tokens_hash", key->tokens, "n_values",
                     (json_int_t)n, "xxh3", (json_int_t)XXH3_64bits(states, n * sizeof *states));
}

static enum mb_status write_states(int fd, const char *path, const struct mb_moments_key *key, size_t layer,
                                   const float *states, uint64_t n, struct mb_error *err)
{
    size_t nbytes;
    json_t *json = states_json(key, states, n);
    char *text = json == NULL ? NULL : mb_json_text(json, JSON_COMPACT, &nbytes);
    json_decref(json);
    if (text == NULL)
        return mb_fail_memory(err, "the head of hidden states");
    enum mb_status status =
        mb_write_at(fd, path, mb_moments_data_pos(0, nbytes), states, n * sizeof *states, err);
    if (status == MB_OK)
        status = mb_moments_frame_write(fd, path, 0, MB_MOMENTS_STATE, (uint32_t)layer, text, nbytes,
                                        n * sizeof *states, err);
    free(text);
    if (status == MB_OK && fdatasync(fd) != 0)
        status = mb_fail_errno(err, path, "writing");
    return status;
}

enum mb_status mb_moments_states_save(const char *path, const struct mb_moments_key *key, size_t layer,
                                      const float *states, uint64_t n, struct mb_error *err)
{
    char temporary[MB_PATH_MAX];
    if ((size_t)snprintf(temporary, sizeof temporary, "%s.tmp", path) >= sizeof temporary)
        return mb_fail(err, MB_BAD_DATA, "%.200s...: the path is too long", path);
    int fd = open(temporary, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
    if (fd < 0)
        return mb_fail_errno(err, temporary, "opening");
    enum mb_status status = write_states(fd, temporary, key, layer, states, n, err);
    close(fd);
    if (status == MB_OK && rename(temporary, path) != 0)
        status = mb_fail_errno(err, path, "renaming");
    if (status != MB_OK)
        unlink(temporary);
    return status;
}

static bool is_ours(const struct mb_moments_frame *frame, const struct mb_moments_key *key, uint64_t n)
{
    const char *model = json_string_value(json_object_get(frame->json, "model_hash"));
    const char *tokens = json_string_value(json_object_get(frame->json, "tokens_hash"));
    return model != NULL && tokens != NULL && strcmp(model, key->model) == 0 &&
           strcmp(tokens, key->tokens) == 0 && frame->data_nbytes == n * sizeof(float);
}

static enum mb_status read_states(int fd, const char *path, const struct mb_moments_key *key, size_t *layer,
                                  float *states, uint64_t n, struct mb_error *err)
{
    struct mb_moments_frame frame;
    struct stat info;
    if (fstat(fd, &info) != 0)
        return mb_fail_errno(err, path, "looking at");
    enum mb_status status =
        mb_moments_frame_read(fd, path, (uint64_t)info.st_size, 0, MB_MOMENTS_STATE, &frame, err);
    if (status != MB_OK)
        return status == MB_BAD_DATA ? MB_OK : status;
    uint64_t xxh3 = (uint64_t)json_integer_value(json_object_get(frame.json, "xxh3"));
    bool fits = is_ours(&frame, key, n);
    json_decref(frame.json);
    if (!fits)
        return MB_OK;
    MB_TRY(mb_read_at(fd, path, frame.data_pos, states, n * sizeof *states, err));
    if (XXH3_64bits(states, n * sizeof *states) == xxh3)
        *layer = frame.number;
    return MB_OK;
}

enum mb_status mb_moments_states_load(const char *path, const struct mb_moments_key *key, size_t *layer,
                                      float *states, uint64_t n, struct mb_error *err)
{
    *layer = 0;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return MB_OK; /* nothing is kept: work begins anew */
    enum mb_status status = read_states(fd, path, key, layer, states, n, err);
    close(fd);
    return status;
}
