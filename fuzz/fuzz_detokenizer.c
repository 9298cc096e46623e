/*
 * fuzz_detokenizer.c - tokens in pieces of any size: all text of a stream is what decoding all at once gives.
 *
 * The first byte chooses tokenizer and skip_special; then come pieces: a length, and ids of 16 bits.
 */
#include "base/buf.h"
#include "base/utf8.h"
#include "fuzz.h"
#include <moebius/tokenizer.h>
#include <stdlib.h>
#include <string.h>

enum { N_TOKENIZERS = 4, IDS_MAX = 4096 };

static const char *const paths[N_TOKENIZERS] = {
    MB_REPO "/tests/tokenizer/data/small/gpt2.json", MB_REPO "/tests/tokenizer/data/small/llama.json",
    MB_REPO "/tests/tokenizer/data/small/metaspace.json", MB_REPO "/tests/tokenizer/data/kimi"};

/* What a piece gives is whole characters, one after the other. */
static void put(struct mb_bytes *stream, const char *text, size_t n)
{
    REQUIRE(text[n] == '\0' && mb_utf8_valid_prefix(text, n) == n && mb_bytes_put(stream, text, n));
}

static void check(const struct mb_tokenizer *tokenizer, const int32_t *ids, size_t n_ids, bool skip_special,
                  const struct mb_bytes *stream)
{
    struct mb_error err = {0};
    struct mb_bytes whole = {0};
    int32_t known[IDS_MAX];
    size_t n_known = 0, nbytes;
    char *text;
    for (size_t i = 0; i < n_ids; i++)
        if (mb_tokenizer_has(tokenizer, ids[i]))
            known[n_known++] = ids[i];
    REQUIRE(mb_tokenizer_decode(tokenizer, known, n_known, skip_special, &text, &nbytes, &err) == MB_OK);
    REQUIRE(mb_utf8_replace(&whole, text, nbytes));
    REQUIRE(whole.n == stream->n && (whole.n == 0 || memcmp(whole.p, stream->p, whole.n) == 0));
    free(whole.p);
    free(text);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct mb_tokenizer *tokenizers[N_TOKENIZERS];
    struct mb_error err = {0};
    struct fuzz_input input = {data, size};
    uint8_t choice = fuzz_u8(&input);
    struct mb_tokenizer **tokenizer = &tokenizers[choice % N_TOKENIZERS];
    bool skip_special = choice >= 128;
    if (*tokenizer == NULL)
        REQUIRE(mb_tokenizer_open(paths[choice % N_TOKENIZERS], tokenizer, &err) == MB_OK);
    struct mb_detokenizer *detokenizer;
    struct mb_bytes stream = {0};
    int32_t ids[IDS_MAX];
    size_t n_ids = 0, n_text;
    const char *text;
    REQUIRE(mb_detokenizer_open(*tokenizer, skip_special, &detokenizer, &err) == MB_OK);
    while (input.n > 0 && n_ids < IDS_MAX) {
        size_t n = fuzz_u8(&input) % 8, begin = n_ids;
        for (size_t i = 0; i < n && n_ids < IDS_MAX; i++)
            ids[n_ids++] = (int32_t)(fuzz_u16(&input) % (mb_tokenizer_n_vocab(*tokenizer) + 2));
        REQUIRE(mb_detokenizer_add(detokenizer, ids + begin, n_ids - begin, &text, &n_text, &err) == MB_OK);
        put(&stream, text, n_text);
    }
    REQUIRE(mb_detokenizer_flush(detokenizer, &text, &n_text, &err) == MB_OK);
    put(&stream, text, n_text);
    check(*tokenizer, ids, n_ids, skip_special, &stream);
    mb_detokenizer_close(detokenizer);
    free(stream.p);
    return 0;
}
