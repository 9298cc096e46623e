/*
 * fuzz_tokenizer_config.c - tokenizer_config.json beside a tokenizer that is sound.
 */
#include "fuzz.h"
#include "json.h"
#include "tokenizer/load.h"
#include <stdlib.h>

static const char TOKENIZER[] =
    "{\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0,\"b\":1,\"ab\":2,\"<s>\":3},\"merges\":[\"a b\"]},"
    "\"pre_tokenizer\":{\"type\":\"ByteLevel\",\"add_prefix_space\":false},\"decoder\":{\"type\":"
    "\"ByteLevel\"},"
    "\"added_tokens\":[{\"id\":3,\"content\":\"<s>\",\"special\":true}]}";

/* What the file said is forgotten; the rest of the tokenizer stays. */
static void forget(struct mb_tokenizer *tokenizer)
{
    free(tokenizer->bos_token);
    free(tokenizer->eos_token);
    free(tokenizer->chat.text);
    free(tokenizer->chat.place);
    free(tokenizer->before.p);
    free(tokenizer->after.p);
    tokenizer->bos_token = tokenizer->eos_token = NULL;
    tokenizer->chat = (struct mb_template){0};
    tokenizer->before = tokenizer->after = (struct mb_ids){0};
}

struct fuzz_input fuzz_json_part(const uint8_t *data, size_t size)
{
    return (struct fuzz_input){data, size};
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct fuzz_file json, config;
    static struct mb_tokenizer *tokenizer;
    struct mb_error err = {0};
    if (tokenizer == NULL) {
        fuzz_file_set(&json, TOKENIZER, sizeof TOKENIZER - 1, 0);
        REQUIRE(mb_tokenizer_open(json.path, &tokenizer, &err) == MB_OK);
        fuzz_folder_add("tokenizer_config.json", &config);
    }
    fuzz_file_set(&config, data, size, 0);
    enum mb_status status = mb_load_config(tokenizer, fuzz_folder(), &err);
    if (status == MB_OK) {
        int32_t *ids;
        size_t n_ids;
        REQUIRE(mb_tokenizer_encode(tokenizer, "ab", 2, true, &ids, &n_ids, &err) == MB_OK);
        REQUIRE(n_ids == 1 + tokenizer->before.n + tokenizer->after.n);
        free(ids);
    } else {
        REQUIRE((status == MB_BAD_DATA || status == MB_UNSUPPORTED) &&
                strstr(err.msg, "tokenizer_config.json: ") != NULL);
    }
    forget(tokenizer);
    return 0;
}
