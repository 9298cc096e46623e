/*
 * fuzz_encode.c - any text through the reference model's tokenizer and through one of the other kind (NFC,
 * Metaspace, byte fallback, added tokens that take white space). The first byte says which.
 */
#include "base/buf.h"
#include "base/utf8.h"
#include "fuzz.h"
#include <moebius/tokenizer.h>
#include <stdlib.h>
#include <string.h>

static struct mb_tokenizer *open_tokenizer(const char *path)
{
    struct mb_tokenizer *tokenizer = NULL;
    struct mb_error err = {0};
    REQUIRE(mb_tokenizer_open(path, &tokenizer, &err) == MB_OK);
    return tokenizer;
}

/* The reference's tokenizer loses nothing: its ids give the text back, bytes that are no UTF-8 replaced. */
static void check_text(const char *decoded, size_t nbytes, const char *text, size_t n)
{
    struct mb_bytes valid = {0};
    REQUIRE(mb_utf8_replace(&valid, text, n));
    REQUIRE(valid.n == nbytes && (nbytes == 0 || memcmp(valid.p, decoded, nbytes) == 0));
    free(valid.p);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct mb_tokenizer *tokenizers[2];
    struct fuzz_input input = {data, size};
    struct mb_error err = {0};
    int32_t *ids, *again;
    size_t n_ids, n_again, nbytes;
    char *decoded;
    if (tokenizers[0] == NULL) {
        tokenizers[0] = open_tokenizer(MB_REPO "/models/reference/tokenizer.json");
        tokenizers[1] = open_tokenizer(MB_REPO "/fuzz/metaspace.json");
    }
    unsigned which = fuzz_u8(&input) & 1;
    const struct mb_tokenizer *tokenizer = tokenizers[which];
    const char *text = input.n == 0 ? "" : (const char *)input.p;
    REQUIRE(mb_tokenizer_encode(tokenizer, text, input.n, true, &ids, &n_ids, &err) == MB_OK);
    REQUIRE(mb_tokenizer_decode(tokenizer, ids, n_ids, false, &decoded, &nbytes, &err) == MB_OK);
    if (which == 0)
        check_text(decoded, nbytes, text, input.n);
    REQUIRE(mb_tokenizer_encode(tokenizer, text, input.n, true, &again, &n_again, &err) == MB_OK);
    REQUIRE(n_again == n_ids && memcmp(ids, again, n_ids * sizeof *ids) == 0);
    free(again);
    free(decoded);
    free(ids);
    return 0;
}
