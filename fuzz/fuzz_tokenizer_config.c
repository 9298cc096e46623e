/*
 * fuzz_tokenizer_config.c - the files beside a tokenizer.json that is sound: tokenizer_config.json,
 * special_tokens_map.json, added_tokens.json and chat_template.json, each with the same bytes.
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

struct fuzz_input fuzz_json_part(const uint8_t *data, size_t size)
{
    return (struct fuzz_input){data, size};
}

/* Whatever is added: ids and text agree. */
static void use(const struct mb_tokenizer *tokenizer)
{
    struct mb_error err = {0};
    int32_t *ids;
    char *text;
    size_t n_ids, nbytes;
    REQUIRE(mb_tokenizer_encode(tokenizer, "ab a", 4, true, &ids, &n_ids, &err) == MB_OK);
    REQUIRE(mb_tokenizer_decode(tokenizer, ids, n_ids, true, &text, &nbytes, &err) == MB_OK);
    free(text);
    free(ids);
    const struct mb_chat_message message = {"user", "a"};
    if (mb_tokenizer_chat_with(tokenizer, "{{ bos_token }}{{ x_token }}", "t", &message, 1, true, &text,
                               &err) == MB_OK)
        free(text);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const char *const names[] = {"tokenizer_config.json", "special_tokens_map.json",
                                        "added_tokens.json", "chat_template.json"};
    static struct fuzz_file json, files[4];
    struct mb_error err = {0};
    if (json.path[0] == '\0') {
        fuzz_folder_add("tokenizer.json", &json);
        fuzz_file_set(&json, TOKENIZER, sizeof TOKENIZER - 1, 0);
        for (size_t i = 0; i < 4; i++)
            fuzz_folder_add(names[i], &files[i]);
    }
    for (size_t i = 0; i < 4; i++) {
        struct mb_tokenizer *tokenizer;
        for (size_t k = 0; k < 4; k++)
            fuzz_file_set(&files[k], k == i ? (const char *)data : "{}", k == i ? size : 2, 0);
        enum mb_status status = mb_tokenizer_open(fuzz_folder(), &tokenizer, &err);
        if (status == MB_OK)
            use(tokenizer);
        else
            REQUIRE((status == MB_BAD_DATA || status == MB_UNSUPPORTED) && strstr(err.msg, names[i]) != NULL);
        if (status == MB_OK)
            mb_tokenizer_close(tokenizer);
    }
    return 0;
}
