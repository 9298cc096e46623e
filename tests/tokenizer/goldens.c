/*
 * goldens.c - see goldens.h. tools/tokenizer-goldens/make_goldens.py writes the files.
 */
#include "goldens.h"
#include "base/utf8.h"
#include "cmocka_all.h"
#include "corpora.h"
#include <moebius/tokenizer.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

struct checked {
    const char *name;
    const json_t *golden, *pieces;
    struct mb_tokenizer *tokenizer;
    size_t n_wrong;
};

const char *test_data_folder(void)
{
    const char *folder = getenv("MOEBIUS_TEST_DATA");
    return folder != NULL ? folder : MB_REPO "/../shared/data";
}

static json_t *load(const char *path)
{
    json_error_t where;
    json_t *json = json_load_file(path, JSON_ALLOW_NUL, &where);
    if (json == NULL)
        fail_msg("%s: line %d: %s", path, where.line, where.text);
    return json;
}

/* ---------------------------------------------------------------- texts */

/* "text", or the bytes of "hex". */
static struct mb_bytes text_of(const json_t *item)
{
    struct mb_bytes text = {0};
    const json_t *string = json_object_get(item, "text");
    const char *hex = json_string_value(json_object_get(item, "hex"));
    if (string != NULL)
        assert_true(mb_bytes_put(&text, json_string_value(string), json_string_length(string)));
    for (; hex != NULL && *hex != '\0'; hex += 2) {
        const char digits[3] = {hex[0], hex[1], 0};
        char byte = (char)strtoul(digits, NULL, 16);
        assert_true(mb_bytes_put(&text, &byte, 1));
    }
    assert_true(string != NULL || hex != NULL);
    return text;
}

static void report(struct checked *c, size_t i_text, const char *what, const json_t *item)
{
    char *shown = json_dumps(item, JSON_ENSURE_ASCII | JSON_COMPACT);
    if (++c->n_wrong <= 10)
        print_error("%s: text %zu: %s: %.400s\n", c->name, i_text, what, shown);
    free(shown);
}

static bool same_ids(const json_t *golden, const int32_t *ids, size_t n)
{
    bool same = json_array_size(golden) == n;
    for (size_t i = 0; same && i < n; i++)
        same = json_integer_value(json_array_get(golden, i)) == ids[i];
    return same;
}

/* The text that ids become, with U+FFFD for what is not UTF-8: the package has only whole characters. */
static struct mb_bytes decode(struct checked *c, const int32_t *ids, size_t n, bool skip_special)
{
    struct mb_bytes text = {0};
    struct mb_error err;
    char *raw;
    size_t nbytes;
    if (mb_tokenizer_decode(c->tokenizer, ids, n, skip_special, &raw, &nbytes, &err) != MB_OK)
        fail_msg("%s: %s", c->name, err.msg);
    assert_int_equal(raw[nbytes], 0);
    assert_true(mb_utf8_replace(&text, raw, nbytes));
    free(raw);
    return text;
}

/* 'expected': the golden's member, or without one the text itself; null where the package shows another one.
 */
static bool comes_back(struct checked *c, const json_t *expected, const struct mb_bytes *otherwise,
                       const int32_t *ids, size_t n, bool skip_special)
{
    struct mb_bytes back = decode(c, ids, n, skip_special);
    if (json_is_null(expected)) {
        free(back.p);
        return true;
    }
    const char *p = expected != NULL ? json_string_value(expected) : otherwise->p;
    size_t nbytes = expected != NULL ? json_string_length(expected) : otherwise->n;
    bool same = back.n == nbytes && (nbytes == 0 || memcmp(back.p, p, nbytes) == 0);
    free(back.p);
    return same;
}

static bool has_edges(struct checked *c, const char *text, size_t nbytes, const int32_t *ids, size_t n)
{
    const json_t *before = json_object_get(c->golden, "before"), *after = json_object_get(c->golden, "after");
    size_t n_before = json_array_size(before), n_after = json_array_size(after), n_all;
    struct mb_error err;
    int32_t *all;
    assert_int_equal(mb_tokenizer_encode(c->tokenizer, text, nbytes, true, &all, &n_all, &err), MB_OK);
    bool same = n_all == n_before + n + n_after && same_ids(before, all, n_before) &&
                (n == 0 || memcmp(all + n_before, ids, n * sizeof *ids) == 0) &&
                same_ids(after, all + n_before + n, n_after);
    free(all);
    return same;
}

static void check_text(struct checked *c, size_t i_text, const json_t *item)
{
    struct mb_bytes text = text_of(item), valid = {0};
    struct mb_error err;
    int32_t *ids;
    size_t n;
    const json_t *back = json_object_get(item, "back");
    const json_t *without = json_object_get(item, "back_without_special");
    assert_true(mb_utf8_replace(&valid, text.p, text.n));
    if (mb_tokenizer_encode(c->tokenizer, text.p, text.n, false, &ids, &n, &err) != MB_OK)
        fail_msg("%s: text %zu: %s", c->name, i_text, err.msg);
    if (!same_ids(json_object_get(item, "ids"), ids, n))
        report(c, i_text, "ids differ", item);
    else if (!comes_back(c, back, &valid, ids, n, false))
        report(c, i_text, "another text comes back", item);
    else if (!comes_back(c, without != NULL ? without : back, &valid, ids, n, true))
        report(c, i_text, "another text without special tokens", item);
    if (!has_edges(c, text.p, text.n, ids, n))
        report(c, i_text, "what is put around it differs", item);
    free(ids);
    free(valid.p);
    free(text.p);
}

/* ---------------------------------------------------------------- corpora */

static double seconds_since(const struct timespec *begun)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)(now.tv_sec - begun->tv_sec) + 1e-9 * (double)(now.tv_nsec - begun->tv_nsec);
}

static const char *hash_in(const json_t *corpus, const char *key)
{
    const char *hash = json_string_value(json_object_get(corpus, key));
    assert_non_null(hash);
    return hash;
}

static void check_blocks(struct checked *c, const char *key, const json_t *corpus, const int32_t *ids,
                         size_t n)
{
    const json_t *hashes = json_object_get(corpus, "block_hashes");
    size_t block = (size_t)json_integer_value(json_object_get(c->golden, "block"));
    char hex[17];
    assert_true(block > 0 && json_array_size(hashes) > 0);
    for (size_t i = 0; i < json_array_size(hashes) && i * block < n; i++) {
        size_t n_here = n - i * block < block ? n - i * block : block;
        hash_ids(ids + i * block, n_here, hex);
        if (strcmp(hex, json_string_value(json_array_get(hashes, i))) != 0)
            fail_msg("%s: %s: the first ids that differ are among %zu .. %zu", c->name, key, i * block,
                     i * block + n_here - 1);
    }
    assert_int_equal(n, json_integer_value(json_object_get(corpus, "n_ids")));
}

static void check_corpus(struct checked *c, const char *key, const json_t *corpus, const char *prose_path)
{
    struct mb_bytes text =
        strcmp(key, "prose") == 0 ? corpus_prose(prose_path) : corpus_generate(c->pieces, key);
    struct mb_error err;
    struct timespec begun;
    int32_t *ids;
    size_t n;
    char hex[17];
    if (text.p == NULL)
        fail_msg("%s: not there", prose_path);
    hash_bytes(text.p, text.n, hex);
    assert_string_equal(hex, hash_in(corpus, "text_hash"));
    clock_gettime(CLOCK_MONOTONIC, &begun);
    if (mb_tokenizer_encode(c->tokenizer, text.p, text.n, false, &ids, &n, &err) != MB_OK)
        fail_msg("%s: %s: %s", c->name, key, err.msg);
    double seconds = seconds_since(&begun);
    print_message("%-12s %-10s %8zu bytes %7zu ids %6.1f MB/s\n", c->name, key, text.n, n,
                  1e-6 * (double)text.n / seconds);
    check_blocks(c, key, corpus, ids, n);
    struct mb_bytes back = decode(c, ids, n, false);
    hash_bytes(back.p, back.n, hex);
    assert_string_equal(hex, hash_in(corpus, "back_hash"));
    free(back.p);
    free(ids);
    free(text.p);
}

/* ---------------------------------------------------------------- all of a tokenizer's */

void check_goldens(const char *name, const char *path, const char *prose_path)
{
    char golden_path[512];
    struct mb_error err;
    snprintf(golden_path, sizeof golden_path, TOKENIZER_DATA "/goldens/%s.json", name);
    json_t *golden = load(golden_path), *pieces = load(TOKENIZER_DATA "/corpora.json");
    struct checked c = {.name = name, .golden = golden, .pieces = pieces};
    if (mb_tokenizer_open(path, &c.tokenizer, &err) != MB_OK)
        fail_msg("%s", err.msg);
    assert_int_equal(mb_tokenizer_n_vocab(c.tokenizer),
                     json_integer_value(json_object_get(golden, "n_vocab")));
    const json_t *texts = json_object_get(golden, "texts");
    assert_true(json_array_size(texts) > 100);
    for (size_t i = 0; i < json_array_size(texts); i++)
        check_text(&c, i, json_array_get(texts, i));
    assert_int_equal(c.n_wrong, 0);
    const char *key;
    json_t *corpus;
    assert_true(json_object_size(json_object_get(golden, "corpora")) > 0);
    json_object_foreach(json_object_get(golden, "corpora"), key, corpus)
        check_corpus(&c, key, corpus, prose_path);
    mb_tokenizer_close(c.tokenizer);
    json_decref(pieces);
    json_decref(golden);
}
