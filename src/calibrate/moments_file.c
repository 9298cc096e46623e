/*
 * moments_file.c - see moments_file.h.
 */
#include "moments_file.h"
#include "base/bytes.h"
#include "base/checked.h"
#include "base/error.h"
#include "base/file.h"
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

enum { HEAD_NBYTES = 32, JSON_NBYTES_MAX = 1 << 26 };

/* magic[8], number u32, JSON's length u32, data's length u64, XXH3-64 of these 24 bytes and the JSON. */
static uint64_t checksum_of(const uint8_t *head, const char *json, size_t json_nbytes)
{
    return XXH3_64bits_withSeed(json, json_nbytes, XXH3_64bits(head, HEAD_NBYTES - 8));
}

uint64_t mb_moments_data_pos(uint64_t pos, size_t json_nbytes)
{
    return mb_round_up(pos + HEAD_NBYTES + json_nbytes, MB_MOMENTS_ALIGN);
}

enum mb_status mb_moments_frame_write(int fd, const char *path, uint64_t pos, const char *magic,
                                      uint32_t number, const char *json, size_t json_nbytes,
                                      uint64_t data_nbytes, struct mb_error *err)
{
    uint64_t nbytes = mb_moments_data_pos(pos, json_nbytes) - pos;
    uint8_t *bytes = calloc(1, nbytes);
    if (bytes == NULL)
        return mb_fail_memory(err, "the head of moments");
    memcpy(bytes, magic, 8);
    mb_store_u32(bytes + 8, number);
    mb_store_u32(bytes + 12, (uint32_t)json_nbytes);
    mb_store_u64(bytes + 16, data_nbytes);
    mb_store_u64(bytes + 24, checksum_of(bytes, json, json_nbytes));
    memcpy(bytes + HEAD_NBYTES, json, json_nbytes);
    enum mb_status status = mb_write_at(fd, path, pos, bytes, nbytes, err);
    free(bytes);
    return status;
}

static enum mb_status read_head(int fd, const char *path, uint64_t file_nbytes, uint64_t pos,
                                const char *magic, uint8_t head[HEAD_NBYTES], struct mb_error *err)
{
    if (pos > file_nbytes || file_nbytes - pos < HEAD_NBYTES)
        return mb_fail(err, MB_BAD_DATA, "%s: byte %" PRIu64 ": truncated", path, pos);
    MB_TRY(mb_read_at(fd, path, pos, head, HEAD_NBYTES, err));
    if (memcmp(head, magic, 8) != 0)
        return mb_fail(err, MB_BAD_DATA, "%s: byte %" PRIu64 ": no %s: not a moments file, or damaged", path,
                       pos, magic);
    if (mb_load_u32(head + 12) > JSON_NBYTES_MAX)
        return mb_fail(err, MB_BAD_DATA, "%s: byte %" PRIu64 ": a text of %" PRIu32 " bytes", path, pos,
                       mb_load_u32(head + 12));
    return MB_OK;
}

/* 'text' has the JSON and room for its end. */
static enum mb_status parse(const char *path, uint64_t pos, const uint8_t *head, const char *text,
                            json_t **json, struct mb_error *err)
{
    size_t nbytes = mb_load_u32(head + 12);
    if (checksum_of(head, text, nbytes) != mb_load_u64(head + 24))
        return mb_fail(err, MB_BAD_DATA, "%s: byte %" PRIu64 ": the checksum does not match", path, pos);
    enum mb_status status = mb_json_parse(text, nbytes, pos + HEAD_NBYTES, json, err);
    return status == MB_OK || status == MB_NO_MEMORY ? status : mb_fail_in(err, status, "%s", path);
}

enum mb_status mb_moments_frame_read(int fd, const char *path, uint64_t file_nbytes, uint64_t pos,
                                     const char *magic, struct mb_moments_frame *frame, struct mb_error *err)
{
    uint8_t head[HEAD_NBYTES];
    MB_TRY(read_head(fd, path, file_nbytes, pos, magic, head, err));
    size_t nbytes = mb_load_u32(head + 12);
    *frame = (struct mb_moments_frame){.number = mb_load_u32(head + 8),
                                       .data_pos = mb_moments_data_pos(pos, nbytes),
                                       .data_nbytes = mb_load_u64(head + 16)};
    if (frame->data_pos > file_nbytes || frame->data_nbytes > file_nbytes - frame->data_pos)
        return mb_fail(err, MB_BAD_DATA, "%s: byte %" PRIu64 ": truncated", path, pos);
    frame->end = frame->data_pos + frame->data_nbytes;
    char *text = malloc(nbytes + 1);
    if (text == NULL)
        return mb_fail_memory(err, "the head of moments");
    enum mb_status status = mb_read_at(fd, path, pos + HEAD_NBYTES, text, nbytes, err);
    if (status == MB_OK)
        status = parse(path, pos, head, text, &frame->json, err);
    free(text);
    return status;
}

/* ---------------------------------------------------------------- the head */

json_t *mb_moments_head_json(const struct mb_moments_head *head)
{
    return json_pack("{s:s, s:s, s:s, s:s, s:I, s:I, s:I}", "model_hash", head->key.model, "tokenizer_hash",
                     head->key.tokenizer, "text_hash", head->key.text, "tokens_hash", head->key.tokens,
                     "n_tokens", (json_int_t)head->n_tokens, "n_windows", (json_int_t)head->n_windows,
                     "n_layers", (json_int_t)head->n_layers);
}

static enum mb_status parse_hash(const json_t *json, const char *name, char hash[MB_HASH_NBYTES],
                                 struct mb_error *err)
{
    const char *text = json_string_value(json_object_get(json, name));
    if (text == NULL || strlen(text) != MB_HASH_NBYTES - 1 ||
        strspn(text, "0123456789abcdef") != MB_HASH_NBYTES - 1)
        return mb_fail(err, MB_BAD_DATA, "%s is no checksum", name);
    memcpy(hash, text, MB_HASH_NBYTES);
    return MB_OK;
}

static enum mb_status parse_count(const json_t *json, const char *name, uint64_t max, uint64_t *count,
                                  struct mb_error *err)
{
    const json_t *value = json_object_get(json, name);
    if (!json_is_integer(value) || json_integer_value(value) < 0 || (uint64_t)json_integer_value(value) > max)
        return mb_fail(err, MB_BAD_DATA, "%s is no number of 0 to %" PRIu64, name, max);
    *count = (uint64_t)json_integer_value(value);
    return MB_OK;
}

enum mb_status mb_moments_head_parse(const json_t *json, struct mb_moments_head *head, struct mb_error *err)
{
    uint64_t n_layers;
    MB_TRY(parse_hash(json, "model_hash", head->key.model, err));
    MB_TRY(parse_hash(json, "tokenizer_hash", head->key.tokenizer, err));
    MB_TRY(parse_hash(json, "text_hash", head->key.text, err));
    MB_TRY(parse_hash(json, "tokens_hash", head->key.tokens, err));
    MB_TRY(parse_count(json, "n_tokens", INT64_MAX, &head->n_tokens, err));
    MB_TRY(parse_count(json, "n_windows", INT64_MAX, &head->n_windows, err));
    MB_TRY(parse_count(json, "n_layers", MB_MOMENTS_LAYERS_MAX, &n_layers, err));
    head->n_layers = (size_t)n_layers;
    return MB_OK;
}

uint64_t mb_moments_half_nbytes(size_t n_values)
{
    return (uint64_t)n_values * (n_values + 1) / 2 * sizeof(float);
}
