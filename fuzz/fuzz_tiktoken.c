/*
 * fuzz_tiktoken.c - the ranks of tiktoken.model; what can be opened encodes a text and gives it back.
 *
 * The first byte says whether the 256 tokens of one byte come before the input, so that it need not have
 * them.
 */
#include "fuzz.h"
#include "tokenizer/load.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void use(const struct mb_tokenizer *tokenizer)
{
    static const char text[] = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaab the end \xc3\xa9\xe4\xb8\xad\n";
    struct mb_error err = {0};
    int32_t *ids;
    size_t n_ids, nbytes;
    char *back;
    REQUIRE(mb_tokenizer_encode(tokenizer, text, sizeof text - 1, true, &ids, &n_ids, &err) == MB_OK);
    REQUIRE(mb_tokenizer_decode(tokenizer, ids, n_ids, false, &back, &nbytes, &err) == MB_OK);
    REQUIRE(nbytes == sizeof text - 1 && memcmp(back, text, nbytes) == 0);
    free(back);
    free(ids);
}

/* "AA== 0" and so on, 256 lines. */
static size_t put_bytes(char *out)
{
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    size_t n = 0;
    for (unsigned byte = 0; byte < 256; byte++)
        n += (size_t)sprintf(out + n, "%c%c== %u\n", digits[byte >> 2], digits[(byte & 3) << 4], byte);
    return n;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct fuzz_file file;
    struct fuzz_input input = {data, size};
    char *text = malloc(size + 4096);
    REQUIRE(text != NULL);
    size_t n = (fuzz_u8(&input) & 1) == 1 ? put_bytes(text) : 0;
    if (input.n > 0)
        memcpy(text + n, input.p, input.n);
    fuzz_file_set(&file, text, n + input.n, 0);
    free(text);
    struct mb_tokenizer *tokenizer = calloc(1, sizeof *tokenizer);
    struct mb_error err = {0};
    REQUIRE(tokenizer != NULL);
    enum mb_status status = mb_load_ranks(tokenizer, file.path, &err);
    if (status == MB_OK) {
        tokenizer->bpe.is_byte_level = true;
        tokenizer->decode_steps[tokenizer->n_decode_steps++].kind = MB_DECODE_BYTE_LEVEL;
        use(tokenizer);
    } else {
        REQUIRE(status == MB_BAD_DATA && strncmp(err.msg, file.path, strlen(file.path)) == 0);
    }
    mb_tokenizer_close(tokenizer);
    return 0;
}
