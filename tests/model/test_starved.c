/*
 * test_starved.c - the n-th allocation fails, for every n, where a model and a session are opened: it says so
 * and leaks nothing.  Decoding allocates nothing (test_engine).
 */
#include "cmocka_all.h"
#include "starve.h"
#include <jansson.h>
#include <moebius/engine.h>
#include <stdlib.h>
#include <string.h>

#define CHECKPOINTS MB_REPO "/tests/model/data/checkpoints/"

static const int32_t tokens[] = {1, 5, 9, 2};

/* Opens a model and a session, and feeds a prompt; *logit is one of what comes out. */
static enum mb_status run(const char *path, int n_threads, float *logit, struct mb_error *err)
{
    static float logits[4096];
    struct mb_model_options options = {.size = sizeof options, .n_threads = n_threads};
    struct mb_session_options session_options = {.size = sizeof session_options, .n_ctx = 16};
    struct mb_model *model;
    struct mb_session *session = NULL;
    enum mb_status status = mb_model_open(path, &options, &model, err);
    if (status != MB_OK)
        return status;
    assert_true(mb_model_info(model)->n_vocab <= 4096);
    status = mb_session_open(model, &session_options, &session, err);
    if (status == MB_OK) {
        struct mb_batch_item item = {.session = session, .tokens = tokens, .n_tokens = 4, .logits = logits};
        status = mb_decode(model, &item, 1, err);
        *logit = logits[3];
        mb_session_close(session);
    }
    mb_model_close(model);
    return status;
}

static void starve(const char *path, int n_threads)
{
    struct mb_error err = {0};
    float right = 0, logit = 0;
    long n = 0;
    if (run(path, n_threads, &right, &err) != MB_OK)
        fail_msg("%s", err.msg);
    for (bool is_done = false; !is_done;) {
        struct starve_held before = starve_held();
        starve_begin(STARVE_MEMORY, ++n, false);
        enum mb_status status = run(path, n_threads, &logit, &err);
        is_done = starve_end() < n;
        struct starve_held after = starve_held();
        if (is_done ? status != MB_OK
                    : status != MB_NO_MEMORY ||
                          (strstr(err.msg, "memory") == NULL && strstr(err.msg, "thread") == NULL))
            fail_msg("%s: allocation %ld: status %d: %s", path, n, (int)status, err.msg);
        if (after.n_blocks != before.n_blocks || after.mapped_nbytes != before.mapped_nbytes ||
            after.n_files != before.n_files)
            fail_msg("%s: allocation %ld: left behind %ld blocks, %ld mapped bytes, %ld files", path, n,
                     after.n_blocks - before.n_blocks, after.mapped_nbytes - before.mapped_nbytes,
                     after.n_files - before.n_files);
    }
    print_message("%s: %ld allocations\n", path, n - 1);
    assert_true(n > 100);
    assert_memory_equal(&logit, &right, sizeof logit);
}

static void models_starve(void **state)
{
    (void)state;
    starve(CHECKPOINTS "halves", 1);
    starve(CHECKPOINTS "q-lora", 1);
    starve(CHECKPOINTS "yarn-5", 3);
    starve(CHECKPOINTS "qwen3-moe-mixed", 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(models_starve)};
    json_set_alloc_funcs(starve_spared_malloc, free);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
