/*
 * test_starved.c - the n-th allocation fails, for every n, in a tokenizer and in chat templates: it says so,
 * leaks nothing, and never gives another answer.
 */
#include "checkpoint/folder.h"
#include "cmocka_all.h"
#include "starve.h"
#include <jansson.h>
#include <moebius/tokenizer.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define DATA MB_REPO "/tests/tokenizer/data"

static const char TEXT[] = "Hello, w\xc3\xb6rld 1234!  It's\n\n<|end|> 5 \xe4\xbd\xa0\xe5\xa5\xbd.";

/* What is worked with, and the answer without failures. */
struct work {
    const char *path;
    struct mb_tokenizer *tokenizer;
    char *template_text;
    int32_t *ids;
    size_t n_ids;
    char *text;
};

typedef enum mb_status (*work_fn)(const struct work *work, struct mb_error *err);

static enum mb_status open_again(const struct work *work, struct mb_error *err)
{
    struct mb_tokenizer *tokenizer = NULL;
    enum mb_status status = mb_tokenizer_open(work->path, &tokenizer, err);
    if (status == MB_OK)
        mb_tokenizer_close(tokenizer);
    return status;
}

static enum mb_status encode(const struct work *work, struct mb_error *err)
{
    int32_t *ids;
    size_t n_ids;
    enum mb_status status = mb_tokenizer_encode(work->tokenizer, TEXT, strlen(TEXT), true, &ids, &n_ids, err);
    if (status != MB_OK)
        return status;
    assert_int_equal(n_ids, work->n_ids);
    assert_memory_equal(ids, work->ids, n_ids * sizeof *ids);
    free(ids);
    return MB_OK;
}

static enum mb_status decode(const struct work *work, struct mb_error *err)
{
    char *text;
    size_t nbytes;
    enum mb_status status =
        mb_tokenizer_decode(work->tokenizer, work->ids, work->n_ids, false, &text, &nbytes, err);
    if (status != MB_OK)
        return status;
    assert_string_equal(text, work->text);
    free(text);
    return MB_OK;
}

static enum mb_status decode_stream(const struct work *work, struct mb_error *err)
{
    struct mb_detokenizer *detokenizer;
    const char *text;
    size_t nbytes, at = 0;
    enum mb_status status = mb_detokenizer_open(work->tokenizer, false, &detokenizer, err);
    if (status != MB_OK)
        return status;
    for (size_t i = 0; i <= work->n_ids && status == MB_OK; i++) {
        status = i < work->n_ids ? mb_detokenizer_add(detokenizer, &work->ids[i], 1, &text, &nbytes, err)
                                 : mb_detokenizer_flush(detokenizer, &text, &nbytes, err);
        if (status != MB_OK)
            break;
        assert_int_equal(strncmp(work->text + at, text, nbytes), 0);
        at += nbytes;
    }
    if (status == MB_OK)
        assert_int_equal(at, strlen(work->text));
    mb_detokenizer_close(detokenizer);
    return status;
}

static const struct mb_chat_message messages[] = {
    {"system", "Be brief."}, {"user", "Hi"}, {"assistant", "Hello."}, {"user", "2 + 2?"}};

static enum mb_status render(const struct work *work, char **text, struct mb_error *err)
{
    const struct mb_chat_options options = {.size = sizeof options,
                                            .template_text = work->template_text,
                                            .place = "template",
                                            .add_generation_prompt = true,
                                            .tools = "[{\"function\": {\"name\": \"f\", \"x\": [1.5], "
                                                     "\"parameters\": {\"required\": [\"b\", \"a\"]}}}]",
                                            .variables = "{\"thinking\": true}",
                                            .now = 1789000000};
    return mb_tokenizer_chat_text(work->tokenizer, messages, 4, &options, text, err);
}

static enum mb_status chat(const struct work *work, struct mb_error *err)
{
    char *text;
    enum mb_status status = render(work, &text, err);
    if (status != MB_OK)
        return status;
    assert_string_equal(text, work->text);
    free(text);
    return MB_OK;
}

static void starve(const char *name, work_fn fn, const struct work *work)
{
    struct mb_error err = {0};
    long n = 0, n_without = 0;
    assert_int_equal(fn(work, &err), MB_OK);
    for (bool is_done = false; !is_done;) {
        struct starve_held before = starve_held();
        starve_begin(STARVE_MEMORY, ++n, false);
        enum mb_status status = fn(work, &err);
        is_done = starve_end() < n;
        n_without += !is_done && status == MB_OK; /* PCRE2 interprets what it cannot compile */
        if (is_done ? status != MB_OK
                    : status != MB_OK && (status != MB_NO_MEMORY || strstr(err.msg, "memory") == NULL))
            fail_msg("%s %s: allocation %ld: status %d: %s", name, work->path, n, (int)status, err.msg);
        if (starve_held().n_blocks != before.n_blocks)
            fail_msg("%s %s: allocation %ld: left behind %ld blocks", name, work->path, n,
                     starve_held().n_blocks - before.n_blocks);
    }
    print_message("%s %s: %ld allocations, %ld done without\n", name, work->path, n - 1, n_without);
    assert_true(n > 1 && n_without * 2 < n);
}

static void begin_work(struct work *work, const char *path)
{
    struct mb_error err;
    size_t nbytes;
    *work = (struct work){.path = path};
    if (mb_tokenizer_open(path, &work->tokenizer, &err) != MB_OK ||
        mb_tokenizer_encode(work->tokenizer, TEXT, strlen(TEXT), true, &work->ids, &work->n_ids, &err) !=
            MB_OK ||
        mb_tokenizer_decode(work->tokenizer, work->ids, work->n_ids, false, &work->text, &nbytes, &err) !=
            MB_OK)
        fail_msg("%s: %s", path, err.msg);
}

static void end_work(struct work *work)
{
    mb_tokenizer_close(work->tokenizer);
    free(work->template_text);
    free(work->ids);
    free(work->text);
}

static void tokenizers_starve(void **state)
{
    (void)state;
    static const char *const paths[] = {DATA "/small/gpt2.json", DATA "/small/llama.json",
                                        DATA "/small/metaspace.json", DATA "/small/splits.json"};
    for (size_t i = 0; i < sizeof paths / sizeof paths[0]; i++) {
        struct work work;
        begin_work(&work, paths[i]);
        starve("open", open_again, &work);
        starve("encode", encode, &work);
        starve("decode", decode, &work);
        starve("decode a stream", decode_stream, &work);
        end_work(&work);
    }
}

/* Special tokens and templates in every place that a folder has. */
static void folders_starve(void **state)
{
    (void)state;
    size_t nbytes;
    char *json = (char *)test_read(DATA "/small/gpt2.json", &nbytes);
    test_write(test_path("tokenizer.json"), json, nbytes);
    free(json);
    test_write_text(test_path("."), "tokenizer_config.json",
                    "{\"bos_token\": \"<s>\", \"eos_token\": {\"content\": \"<e>\", \"lstrip\": true}, "
                    "\"x_token\": \"<x>\", \"extra_special_tokens\": [\"<y>\"], \"chat_template\": \"a\"}");
    test_write_text(test_path("."), "special_tokens_map.json", "{\"pad_token\": \"<p>\"}");
    test_write_text(test_path("."), "added_tokens.json", "{\"<q>\": 500, \"<r>\": 501}");
    struct work work;
    begin_work(&work, test_path("."));
    starve("open", open_again, &work);
    test_make_folder(test_path("additional_chat_templates"));
    test_write_text(test_path("additional_chat_templates"), "default.jinja", "b");
    test_write_text(test_path("additional_chat_templates"), "other.jinja", "c");
    starve("open", open_again, &work);
    end_work(&work);
}

static void chat_templates_starve(void **state)
{
    (void)state;
    static const char *const paths[] = {
        DATA "/chat/deepseek_v3.jinja",     DATA "/chat/mixtral.jinja",
        DATA "/chat/moonlight.jinja",       DATA "/chat/olmoe.jinja",
        DATA "/chat/qwen3.jinja",           DATA "/chat/reference.jinja",
        DATA "/chat/families/blocks.jinja", DATA "/chat/families/kimi_k2.jinja",
        DATA "/chat/families/glm.jinja"};
    for (size_t i = 0; i < sizeof paths / sizeof paths[0]; i++) {
        struct work work;
        struct mb_error err;
        size_t nbytes;
        begin_work(&work, MB_REPO "/models/reference");
        free(work.text);
        work.path = paths[i];
        work.template_text = (char *)test_read(paths[i], &nbytes);
        if (render(&work, &work.text, &err) != MB_OK)
            fail_msg("%s: %s", paths[i], err.msg);
        starve("chat", chat, &work);
        end_work(&work);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(tokenizers_starve),
        cmocka_unit_test(folders_starve),
        cmocka_unit_test(chat_templates_starve),
    };
    json_set_alloc_funcs(starve_spared_malloc, free);
    return cmocka_run_group_tests(tests, test_folder_begin, test_folder_end);
}
