/*
 * checksums.c - checksums of config.json, of the index and copied files, and of the headers of shards.
 *
 * Blobs and exact tensors have checksums of their own.  config.json keeps its own checksum as a blob's header
 * does: it is that of the text with zeros in its place.
 */
#include "checksums.h"
#include "base/error.h"
#include "base/file.h"
#include "base/hash.h"
#include "base/json.h"
#include "config_text.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

static const char BLOCK[] = "quantization_config", FILES[] = "files_xxh3", CONFIG[] = "config_xxh3",
                  ZEROS[MB_XXH128_NBYTES] = "00000000000000000000000000000000";
enum { N_DIGITS = MB_XXH128_NBYTES - 1 };

void mb_xxh128_text(const void *bytes, size_t nbytes, char text[MB_XXH128_NBYTES])
{
    mb_hash_write(XXH3_128bits(bytes, nbytes), text);
}

/* ---------------------------------------------------------------- writing */

/* By name: the order in which a folder lists its files is not the same everywhere. */
static json_t *sorted(const json_t *files)
{
    size_t nbytes;
    json_t *result = NULL;
    char *text = mb_json_text(files, JSON_SORT_KEYS, &nbytes);
    if (text != NULL)
        mb_json_parse(text, nbytes, 0, &result, NULL);
    free(text);
    return result;
}

char *mb_config_text_sealed(const char *text, const json_t *block, const json_t *files)
{
    char xxh3[MB_XXH128_NBYTES], *out = NULL;
    json_t *sealed = json_object(); /* json_copy does not report that it had no memory for a member */
    bool ok = json_object_update(sealed, (json_t *)block) == 0 &&
              json_object_set_new(sealed, FILES, sorted(files)) == 0 &&
              json_object_set_new(sealed, CONFIG, json_string(ZEROS)) == 0;
    char *bare = ok ? mb_config_text_set(text, BLOCK, sealed) : NULL;
    if (bare != NULL) {
        mb_xxh128_text(bare, strlen(bare), xxh3);
        if (json_object_set_new(sealed, CONFIG, json_string(xxh3)) == 0)
            out = mb_config_text_set(text, BLOCK, sealed);
    }
    free(bare);
    json_decref(sealed);
    return out;
}

/* ---------------------------------------------------------------- checking */

/* The digits; NULL: not a checksum. */
static const char *checksum_of(const json_t *value)
{
    const char *text = json_string_value(value);
    bool is_sound = text != NULL && strlen(text) == N_DIGITS && strspn(text, "0123456789abcdef") == N_DIGITS;
    return is_sound ? text : NULL;
}

static enum mb_status compare(const char *folder, const char *name, const char *found, const char *expected,
                              struct mb_error *err)
{
    return strcmp(found, expected) == 0
               ? MB_OK
               : mb_fail(
                     err, MB_BAD_DATA,
                     "%s/%s: checksum does not match: the file is damaged, or was changed after the folder "
                     "was made",
                     folder, name);
}

static enum mb_status check_config(const struct mb_checkpoint *ckpt, const char *expected,
                                   struct mb_error *err)
{
    char found[MB_XXH128_NBYTES], *text = strdup(ckpt->config_text);
    if (text == NULL)
        return mb_fail_memory(err, "the text of config.json");
    for (char *at = text; (at = strstr(at, expected)) != NULL; at += N_DIGITS)
        memcpy(at, ZEROS, N_DIGITS);
    mb_xxh128_text(text, strlen(text), found);
    free(text);
    return compare(ckpt->path, "config.json", found, expected, err);
}

/* NULL: no shard has that name. */
static const struct mb_shard *find_shard(const struct mb_checkpoint *ckpt, const char *name)
{
    for (size_t i = 0; i < ckpt->n_shards; i++)
        if (strcmp(ckpt->shards[i].name, name) == 0)
            return &ckpt->shards[i];
    return NULL;
}

static enum mb_status check_file(const struct mb_checkpoint *ckpt, const char *name, const char *expected,
                                 struct mb_error *err)
{
    const struct mb_shard *shard = find_shard(ckpt, name);
    if (shard != NULL)
        return compare(ckpt->path, name, shard->header.xxh3, expected, err);
    char path[MB_PATH_MAX], found[MB_XXH128_NBYTES], *bytes;
    size_t nbytes;
    MB_TRY(mb_join_path(path, ckpt->path, name, err));
    MB_TRY(mb_read_file(path, MB_SIDE_FILE_NBYTES_MAX, &bytes, &nbytes, err));
    mb_xxh128_text(bytes, nbytes, found);
    free(bytes);
    return compare(ckpt->path, name, found, expected, err);
}

enum mb_status mb_check_files(const struct mb_checkpoint *ckpt, uint64_t *n_files, struct mb_error *err)
{
    const json_t *block = json_object_get(ckpt->config, BLOCK), *files = json_object_get(block, FILES),
                 *own = json_object_get(block, CONFIG);
    const char *name, *expected = checksum_of(own);
    json_t *value;
    *n_files = 0;
    if (files == NULL && own == NULL)
        return MB_OK;
    if (!json_is_object(files) || expected == NULL)
        return mb_fail(err, MB_BAD_DATA, "%s/config.json: %s: needs both %s and %s, or none of them",
                       ckpt->path, BLOCK, CONFIG, FILES);
    MB_TRY(check_config(ckpt, expected, err));
    *n_files = 1;
    json_object_foreach((json_t *)files, name, value)
    {
        expected = checksum_of(value);
        if (expected == NULL || strchr(name, '/') != NULL)
            return mb_fail(err, MB_BAD_DATA, "%s/config.json: %s: %.200s: not a file's name and checksum",
                           ckpt->path, FILES, name);
        MB_TRY(check_file(ckpt, name, expected, err));
        ++*n_files;
    }
    return MB_OK;
}
