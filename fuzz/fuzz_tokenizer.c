/*
 * fuzz_tokenizer.c - tokenizer.json; what can be opened encodes and decodes short texts.
 */
#include "fuzz.h"
#include "json.h"
#include <moebius/tokenizer.h>
#include <stdlib.h>
#include <string.h>

/* Added tokens' usual names, digits, white space of all kinds, marks to sort, bytes that are no characters.
 */
static const char *const texts[] = {
    "",
    "Hello, world's  12345\n\n<s>ab</s>",
    " \u2581x \u0301\u0323e\u0323\u0301\ud55c\u1112\u1161\u11ab",
    "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa b",
    "\U0001f600\xff\xc0\x80\xe2\x82 \u00a0\u3000.",
};

static void use(const struct mb_tokenizer *tokenizer)
{
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        int32_t *ids;
        size_t n_ids, nbytes;
        char *text;
        struct mb_error err = {0};
        enum mb_status status =
            mb_tokenizer_encode(tokenizer, texts[i], strlen(texts[i]), true, &ids, &n_ids, &err);
        REQUIRE(status == MB_OK || status == MB_UNSUPPORTED);
        if (status != MB_OK)
            continue;
        REQUIRE(mb_tokenizer_decode(tokenizer, ids, n_ids, i % 2 == 1, &text, &nbytes, &err) == MB_OK);
        REQUIRE(text[nbytes] == 0);
        free(text);
        free(ids);
    }
}

struct fuzz_input fuzz_json_part(const uint8_t *data, size_t size)
{
    return (struct fuzz_input){data, size};
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct fuzz_file file;
    struct mb_tokenizer *tokenizer;
    struct mb_error err = {0};
    fuzz_file_set(&file, data, size, 0);
    enum mb_status status = mb_tokenizer_open(file.path, &tokenizer, &err);
    if (status == MB_OK) {
        use(tokenizer);
        mb_tokenizer_close(tokenizer);
    } else {
        REQUIRE((status == MB_BAD_DATA || status == MB_UNSUPPORTED) &&
                strncmp(err.msg, file.path, strlen(file.path)) == 0);
    }
    return 0;
}
