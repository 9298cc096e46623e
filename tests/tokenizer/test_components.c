/*
 * test_components.c - every kind of part of tokenizer.json, in three small tokenizers: what the `tokenizers`
 * package makes of texts, or a refusal by name.
 *
 * data/components.json is written by tools/tokenizer-goldens/make_component_goldens.py.
 */
#include "base/utf8.h"
#include "checkpoint/folder.h"
#include "cmocka_all.h"
#include "corpora.h"
#include "goldens.h"
#include <jansson.h>
#include <moebius/tokenizer.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { END_OF_TEXT = 0x7fffffff };

static json_t *rows, *texts;

static int begin(void **state)
{
    json_t *components = json_load_file(TOKENIZER_DATA "/components.json", 0, NULL),
           *golden = json_load_file(TOKENIZER_DATA "/goldens/gpt2.json", JSON_ALLOW_NUL, NULL);
    rows = json_incref(json_object_get(components, "rows"));
    texts = json_incref(json_object_get(golden, "texts"));
    json_decref(components);
    json_decref(golden);
    return rows == NULL || texts == NULL ? -1 : test_folder_begin(state);
}

static int end(void **state)
{
    json_decref(rows);
    json_decref(texts);
    return test_folder_end(state);
}

static const char *member(const json_t *object, const char *key)
{
    return json_string_value(json_object_get(object, key));
}

/* The base with the row's changes. A model that has no vocabulary changes options of the base's. */
static const char *write_tokenizer(const json_t *row)
{
    char path[512];
    snprintf(path, sizeof path, "%s/small/%s.json", TOKENIZER_DATA, member(row, "base"));
    json_t *tree = json_load_file(path, 0, NULL), *changes = json_deep_copy(json_object_get(row, "changes"));
    json_t *model = json_object_get(changes, "model");
    assert_non_null(tree);
    if (model != NULL && json_object_get(model, "vocab") == NULL) {
        assert_int_equal(json_object_update(json_object_get(tree, "model"), model), 0);
        assert_int_equal(json_object_del(changes, "model"), 0);
    }
    assert_int_equal(json_object_update(tree, changes), 0);
    char *text = json_dumps(tree, JSON_COMPACT);
    test_write_text(test_path("."), "tokenizer.json", text);
    free(text);
    json_decref(changes);
    json_decref(tree);
    return test_path("tokenizer.json");
}

static size_t unhex(const char *hex, char *bytes)
{
    size_t n = strlen(hex) / 2;
    for (size_t i = 0; i < n; i++) {
        unsigned byte;
        assert_int_equal(sscanf(hex + 2 * i, "%2x", &byte), 1);
        bytes[i] = (char)byte;
    }
    return n;
}

/* The hashes of all ids and all texts that come back. */
static void hash_texts(const struct mb_tokenizer *tokenizer, char ids_hex[17], char back_hex[17])
{
    struct mb_bytes back = {0};
    struct mb_error err;
    int32_t *all = NULL;
    size_t n_all = 0, i;
    json_t *golden;
    json_array_foreach(texts, i, golden)
    {
        char bytes[256], *text;
        const char *hex = member(golden, "hex"), *content = member(golden, "text");
        size_t n_ids,
            nbytes = hex != NULL ? unhex(hex, bytes) : json_string_length(json_object_get(golden, "text"));
        int32_t *ids, stop = END_OF_TEXT;
        assert_int_equal(
            mb_tokenizer_encode(tokenizer, hex != NULL ? bytes : content, nbytes, false, &ids, &n_ids, &err),
            MB_OK);
        all = realloc(all, (n_all + n_ids + 1) * sizeof *all);
        assert_non_null(all);
        memcpy(all + n_all, ids, n_ids * sizeof *ids);
        memcpy(all + n_all + n_ids, &stop, sizeof stop);
        n_all += n_ids + 1;
        assert_int_equal(mb_tokenizer_decode(tokenizer, ids, n_ids, true, &text, &nbytes, &err), MB_OK);
        assert_true(mb_utf8_replace(&back, text, nbytes) && mb_bytes_put(&back, "\n", 1));
        free(text);
        free(ids);
    }
    hash_ids(all, n_all, ids_hex);
    hash_bytes(back.p, back.n, back_hex);
    free(all);
    free(back.p);
}

/* What is put around "a", with its ids. */
static bool whole_is(const struct mb_tokenizer *tokenizer, const json_t *expected)
{
    struct mb_error err;
    int32_t *ids;
    size_t n;
    assert_int_equal(mb_tokenizer_encode(tokenizer, "a", 1, true, &ids, &n, &err), MB_OK);
    bool ok = n == json_array_size(expected);
    for (size_t i = 0; ok && i < n; i++)
        ok = json_integer_value(json_array_get(expected, i)) == ids[i];
    free(ids);
    return ok;
}

static bool row_is_right(const json_t *row, struct mb_error *err)
{
    struct mb_tokenizer *tokenizer;
    const char *refused = member(row, "refused"), *back = member(row, "back");
    char ids_hex[17], back_hex[17];
    *err = (struct mb_error){0};
    enum mb_status status = mb_tokenizer_open(write_tokenizer(row), &tokenizer, err);
    if (status != MB_OK)
        return status == MB_UNSUPPORTED && refused != NULL && strstr(err->msg, refused) != NULL;
    hash_texts(tokenizer, ids_hex, back_hex);
    bool is_whole = whole_is(tokenizer, json_object_get(row, "whole"));
    mb_tokenizer_close(tokenizer);
    snprintf(err->msg, sizeof err->msg, "ids %s, back %s, %s", ids_hex, back_hex,
             is_whole ? "whole" : "edges");
    return refused == NULL && strcmp(ids_hex, member(row, "ids")) == 0 &&
           (back == NULL || strcmp(back_hex, back) == 0) && is_whole;
}

static void every_part_does_what_the_package_does_or_is_named(void **state)
{
    (void)state;
    size_t i, n_wrong = 0;
    json_t *row;
    assert_true(json_array_size(rows) >= 300);
    json_array_foreach(rows, i, row)
    {
        struct mb_error err;
        if (row_is_right(row, &err))
            continue;
        char *text = json_dumps(row, JSON_COMPACT);
        print_error("%.300s\n  %s\n", text, err.msg);
        free(text);
        n_wrong++;
    }
    assert_int_equal(n_wrong, 0);
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_part_does_what_the_package_does_or_is_named)};
    return cmocka_run_group_tests(tests, begin, end);
}
