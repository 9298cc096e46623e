/*
 * moments_key.c - by which a moments file knows what it is of.
 */
#include "base/error.h"
#include "base/file.h"
#include <moebius/calibrate.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

enum { FILE_NBYTES_MAX = 1 << 30 };

static void write_hash(XXH128_hash_t value, char hash[MB_HASH_NBYTES])
{
    snprintf(hash, MB_HASH_NBYTES, "%016llx%016llx", (unsigned long long)value.high64,
             (unsigned long long)value.low64);
}

/* Each step takes the checksum so far and more bytes: no state that could fail to be made. */
static XXH128_hash_t chain(XXH128_hash_t before, const void *bytes, size_t nbytes)
{
    XXH128_hash_t next = XXH3_128bits_withSeed(bytes, nbytes, before.low64);
    next.high64 ^= before.high64 * 0x9e3779b97f4a7c15U;
    return next;
}

static void hash_windows(const struct mb_windows *windows, char hash[MB_HASH_NBYTES])
{
    XXH128_hash_t value = {0, 0};
    for (size_t i = 0; i < windows->n; i++)
        value = chain(value, windows->at[i].tokens, windows->at[i].n_tokens * sizeof *windows->at[i].tokens);
    write_hash(value, hash);
}

static enum mb_status hash_tokenizer(const char *folder, char hash[MB_HASH_NBYTES], struct mb_error *err)
{
    static const char *const names[] = {"tokenizer.json",    "tokenizer_config.json",   "tiktoken.model",
                                        "added_tokens.json", "special_tokens_map.json", "chat_template.jinja",
                                        "chat_template.json"};
    XXH128_hash_t value = {0, 0};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        char path[MB_PATH_MAX], *bytes;
        size_t nbytes;
        bool is_there;
        MB_TRY(mb_join_path(path, folder, names[i], err));
        MB_TRY(mb_look_at(path, &is_there, NULL, err));
        if (!is_there)
            continue;
        MB_TRY(mb_read_file(path, FILE_NBYTES_MAX, &bytes, &nbytes, err));
        value = chain(chain(value, names[i], strlen(names[i])), bytes, nbytes);
        free(bytes);
    }
    write_hash(value, hash);
    return MB_OK;
}

enum mb_status mb_moments_key_of(const char *model_path, const struct mb_calibration *calibration,
                                 struct mb_moments_key *key, struct mb_error *err)
{
    memcpy(key->text, calibration->text_hash, sizeof key->text);
    hash_windows(&calibration->windows, key->tokens);
    MB_TRY(hash_tokenizer(model_path, key->tokenizer, err));
    return mb_model_hash(model_path, key->model, err);
}
