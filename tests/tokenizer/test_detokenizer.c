/*
 * test_detokenizer.c - text of a stream of tokens: what comes piece by piece is what decoding all ids at once
 * gives, and no piece ends inside a character.
 */
#include "base/utf8.h"
#include "checkpoint/folder.h"
#include "cmocka_all.h"
#include "corpora.h"
#include "goldens.h"
#include <moebius/tokenizer.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { N_RANDOM = 3000, PIECE_MAX = 5 };

static struct mb_error err;

static void must(enum mb_status status)
{
    if (status != MB_OK)
        fail_msg("%s", err.msg);
}

/* Knuth's constants; the upper 31 bits. */
static uint32_t random_below(uint64_t *state, uint32_t n)
{
    *state = *state * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)((*state >> 33) % n);
}

static void put_whole(struct mb_bytes *all, const char *text, size_t nbytes)
{
    assert_int_equal(mb_utf8_valid_prefix(text, nbytes), nbytes);
    assert_int_equal(text[nbytes], 0);
    assert_true(mb_bytes_put(all, text, nbytes));
}

/* All ids that the tokenizer has, at once, with U+FFFD. */
static struct mb_bytes decode_at_once(const struct mb_tokenizer *tokenizer, const int32_t *ids, size_t n,
                                      bool skip_special)
{
    struct mb_bytes text = {0};
    struct mb_ids known = {0};
    char *raw;
    size_t nbytes;
    for (size_t i = 0; i < n; i++)
        if (mb_tokenizer_has(tokenizer, ids[i]))
            assert_true(mb_ids_put(&known, &ids[i], 1));
    must(mb_tokenizer_decode(tokenizer, known.p, known.n, skip_special, &raw, &nbytes, &err));
    assert_true(mb_utf8_replace(&text, raw, nbytes));
    free(known.p);
    free(raw);
    return text;
}

/* 'piece' ids at a time; 0: as many as chance says. */
static struct mb_bytes decode_in_pieces(struct mb_detokenizer *detokenizer, const int32_t *ids, size_t n,
                                        size_t piece)
{
    struct mb_bytes all = {0};
    const char *text;
    size_t nbytes;
    uint64_t state = n;
    for (size_t i = 0, n_now; i < n; i += n_now) {
        n_now = piece == 0 ? random_below(&state, PIECE_MAX) : piece;
        n_now = n - i < n_now ? n - i : n_now;
        must(mb_detokenizer_add(detokenizer, ids + i, n_now, &text, &nbytes, &err));
        put_whole(&all, text, nbytes);
    }
    must(mb_detokenizer_flush(detokenizer, &text, &nbytes, &err));
    put_whole(&all, text, nbytes);
    return all;
}

static void check_ids(const struct mb_tokenizer *tokenizer, const int32_t *ids, size_t n)
{
    for (int skip_special = 0; skip_special < 2; skip_special++) {
        struct mb_detokenizer *detokenizer;
        struct mb_bytes whole = decode_at_once(tokenizer, ids, n, skip_special);
        must(mb_detokenizer_open(tokenizer, skip_special, &detokenizer, &err));
        for (size_t piece = 0; piece < 3; piece++) { /* the same one anew each time */
            struct mb_bytes text = decode_in_pieces(detokenizer, ids, n, piece);
            if (text.n != whole.n || (text.n > 0 && memcmp(text.p, whole.p, text.n) != 0))
                fail_msg("pieces of %zu of %zu ids: %zu bytes \"%.200s\", at once %zu: \"%.200s\"", piece, n,
                         text.n, text.n > 0 ? text.p : "", whole.n, whole.n > 0 ? whole.p : "");
            free(text.p);
        }
        mb_detokenizer_close(detokenizer);
        free(whole.p);
    }
}

/* Ids by chance, among them some that no tokenizer has: bytes of characters in any order. */
static void check_random_ids(const struct mb_tokenizer *tokenizer)
{
    uint32_t n_vocab = (uint32_t)mb_tokenizer_n_vocab(tokenizer);
    uint64_t state = 5;
    int32_t *ids = malloc(N_RANDOM * sizeof *ids);
    assert_non_null(ids);
    for (size_t i = 0; i < N_RANDOM; i++)
        ids[i] = (int32_t)random_below(&state, n_vocab + n_vocab / 50 + 2) - 1;
    check_ids(tokenizer, ids, N_RANDOM);
    for (size_t i = 0; i + 20 < N_RANDOM; i += 20) /* many beginnings and ends */
        check_ids(tokenizer, ids + i, i % 20);
    free(ids);
}

static void check_text(const struct mb_tokenizer *tokenizer, const char *text, size_t nbytes)
{
    int32_t *ids;
    size_t n;
    must(mb_tokenizer_encode(tokenizer, text, nbytes, true, &ids, &n, &err));
    check_ids(tokenizer, ids, n);
    free(ids);
}

static void check_corpora(const struct mb_tokenizer *tokenizer)
{
    static const char *const names[] = {"code", "mixed"};
    json_t *pieces = json_load_file(TOKENIZER_DATA "/corpora.json", JSON_ALLOW_NUL, NULL);
    assert_non_null(pieces);
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        struct mb_bytes text = corpus_generate(pieces, names[i]);
        assert_true(text.n > 10000);
        check_text(tokenizer, text.p, text.n);
        free(text.p);
    }
    json_decref(pieces);
    struct mb_bytes prose = corpus_prose(MB_REPO "/models/reference/eval.jsonl");
    assert_non_null(prose.p);
    check_text(tokenizer, prose.p, prose.n);
    free(prose.p);
}

/* ---------------------------------------------------------------- the tokenizers of other tests */

static void pieces_are_the_whole(void **state)
{
    (void)state;
    static const char *const paths[] = {
        MB_REPO "/models/reference/tokenizer.json", TOKENIZER_DATA "/small/gpt2.json",
        TOKENIZER_DATA "/small/llama.json",         TOKENIZER_DATA "/small/metaspace.json",
        TOKENIZER_DATA "/small/unknown.json",       TOKENIZER_DATA "/small/neox.json",
        TOKENIZER_DATA "/small/llama3.json",        TOKENIZER_DATA "/small/splits.json"};
    for (size_t i = 0; i < sizeof paths / sizeof *paths; i++) {
        struct mb_tokenizer *tokenizer;
        must(mb_tokenizer_open(paths[i], &tokenizer, &err));
        check_random_ids(tokenizer);
        check_corpora(tokenizer);
        mb_tokenizer_close(tokenizer);
    }
}

/* ---------------------------------------------------------------- strips */

/* Tokens: a, b, space, two spaces, "a " and each byte of the character e-acute. */
static struct mb_tokenizer *open_with_decoders(const char *strips)
{
    char json[2048];
    struct mb_tokenizer *tokenizer;
    int n = snprintf(json, sizeof json,
                     "{\"decoder\": {\"type\": \"Sequence\", \"decoders\": [{\"type\": \"ByteFallback\"}, "
                     "{\"type\": \"Fuse\"}%s]}, \"model\": {\"type\": \"BPE\", \"vocab\": {\"a\": 0, \"b\": "
                     "1, \" \": 2, \"  \": 3, \"a \": 4, \"<0xC3>\": 5, \"<0xA9>\": 6, \"\xc3\xa9\": 7}, "
                     "\"merges\": []}}",
                     strips);
    test_write(test_path("strips.json"), json, (size_t)n);
    must(mb_tokenizer_open(test_path("strips.json"), &tokenizer, &err));
    return tokenizer;
}

/* Every sequence of up to N tokens. */
static void check_all_sequences(const char *strips)
{
    enum { N = 5, N_TOKENS = 8 };
    struct mb_tokenizer *tokenizer = open_with_decoders(strips);
    for (size_t n = 0; n <= N; n++) {
        size_t n_sequences = 1;
        for (size_t i = 0; i < n; i++)
            n_sequences *= N_TOKENS;
        for (size_t k = 0; k < n_sequences; k += n == N ? 3 : 1) {
            int32_t ids[N];
            for (size_t i = 0, left = k; i < n; i++, left /= N_TOKENS)
                ids[i] = (int32_t)(left % N_TOKENS);
            check_ids(tokenizer, ids, n);
        }
    }
    mb_tokenizer_close(tokenizer);
}

#define STRIP(what, start, stop) \
    ", {\"type\": \"Strip\", \"content\": \"" what "\", \"start\": " start ", \"stop\": " stop "}"

static void both_ends_are_stripped(void **state)
{
    (void)state;
    check_all_sequences(STRIP(" ", "1", "0"));
    check_all_sequences(STRIP(" ", "2", "1"));
    check_all_sequences(STRIP(" ", "0", "3"));
    check_all_sequences(STRIP("\xc3\xa9", "1", "2"));
    check_all_sequences(STRIP(" ", "1", "1") STRIP("a", "1", "1") STRIP("\xc3\xa9", "1", "1"));
}

/* ---------------------------------------------------------------- when it comes */

static void text_comes_as_soon_as_it_can(void **state)
{
    (void)state;
    static const struct {
        int32_t id;
        const char *text;
    } steps[] = {{2, ""},
                 {0, "a"},
                 {5, ""},
                 {6, "\xc3\xa9"},
                 {2, ""},
                 {2, " "},
                 {1, " b"},
                 {5, ""},
                 {0, "\xef\xbf\xbd"
                     "a"},
                 {2, ""}};
    struct mb_tokenizer *tokenizer = open_with_decoders(STRIP(" ", "1", "1"));
    struct mb_detokenizer *detokenizer;
    const char *text;
    size_t nbytes;
    must(mb_detokenizer_open(tokenizer, true, &detokenizer, &err));
    for (int round = 0; round < 2; round++) {
        for (size_t i = 0; i < sizeof steps / sizeof *steps; i++) {
            must(mb_detokenizer_add(detokenizer, &steps[i].id, 1, &text, &nbytes, &err));
            assert_string_equal(text, steps[i].text);
        }
        if (round == 0)
            mb_detokenizer_reset(detokenizer);
    }
    must(mb_detokenizer_add(detokenizer, &(int32_t){5}, 1, &text, &nbytes, &err));
    assert_string_equal(text, " ");
    must(mb_detokenizer_flush(detokenizer, &text, &nbytes, &err));
    assert_string_equal(text, "\xef\xbf\xbd");
    must(mb_detokenizer_flush(detokenizer, &text, &nbytes, &err));
    assert_string_equal(text, "");
    mb_detokenizer_close(detokenizer);
    mb_tokenizer_close(tokenizer);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(pieces_are_the_whole),
        cmocka_unit_test_setup_teardown(both_ends_are_stripped, test_folder_begin, test_folder_end),
        cmocka_unit_test_setup_teardown(text_comes_as_soon_as_it_can, test_folder_begin, test_folder_end),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
