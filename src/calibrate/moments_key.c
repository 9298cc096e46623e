/*
 * moments_key.c - by which a moments file knows what it is of.
 */
#include "base/error.h"
#include "base/hash.h"
#include <moebius/calibrate.h>
#include <string.h>

static void hash_windows(const struct mb_windows *windows, char hash[MB_HASH_NBYTES])
{
    XXH128_hash_t value = {0, 0};
    for (size_t i = 0; i < windows->n; i++)
        value = mb_hash_chain(value, windows->at[i].tokens,
                              windows->at[i].n_tokens * sizeof *windows->at[i].tokens);
    mb_hash_write(value, hash);
}

static enum mb_status hash_tokenizer(const char *folder, char hash[MB_HASH_NBYTES], struct mb_error *err)
{
    static const char *const names[] = {"tokenizer.json",    "tokenizer_config.json",   "tiktoken.model",
                                        "added_tokens.json", "special_tokens_map.json", "chat_template.jinja",
                                        "chat_template.json"};
    XXH128_hash_t value = {0, 0};
    MB_TRY(mb_hash_chain_files(folder, names, sizeof names / sizeof *names, &value, err));
    mb_hash_write(value, hash);
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
