/*
 * test_windows.c - caches that do not hold all positions as they were computed: those of sliding windows,
 * which keep their windows alone, and those of LongRoPE, whose rows change when a sequence becomes long.
 */
#include "checkpoint/folder.h"
#include "cmocka_all.h"
#include "model/model.h"
#include <jansson.h>
#include <math.h>
#include <moebius/engine.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define CHECKPOINTS MB_REPO "/tests/model/data/checkpoints/"
enum { N_VOCAB_MAX = 80, N_CTX = 2200, N_SHORT = 64 };

static struct mb_error err;

static void must(enum mb_status status)
{
    if (status != MB_OK)
        fail_msg("%s", err.msg);
}

/* A copy of a small checkpoint with another context. */
static struct mb_model *open_model(const char *name, size_t n_ctx)
{
    const char *folder = test_path("model");
    char path[1200], target[1200];
    test_remove(folder);
    test_make_folder(folder);
    snprintf(path, sizeof path, "%s/model.safetensors", folder);
    snprintf(target, sizeof target, "%s%s/model.safetensors", CHECKPOINTS, name);
    assert_int_equal(symlink(target, path), 0);
    snprintf(path, sizeof path, "%s%s/config.json", CHECKPOINTS, name);
    json_t *config = json_load_file(path, 0, NULL);
    assert_int_equal(json_object_set_new(config, "max_position_embeddings", json_integer((json_int_t)n_ctx)),
                     0);
    snprintf(path, sizeof path, "%s/config.json", folder);
    assert_int_equal(json_dump_file(config, path, 0), 0);
    json_decref(config);
    struct mb_model *model;
    struct mb_model_options options = {.size = sizeof options, .n_threads = 2};
    must(mb_model_open(folder, &options, &model, &err));
    return model;
}

static struct mb_session *open_session(struct mb_model *model, bool keeps_all)
{
    struct mb_session *session;
    struct mb_session_options options = {.size = sizeof options};
    for (size_t i = 0; i < model->config.n_attentions; i++)
        model->config.attentions[i].gqa.keeps_all = keeps_all;
    must(mb_session_open(model, &options, &session, &err));
    return session;
}

static const int32_t *text(const struct mb_model *model)
{
    static int32_t tokens[N_CTX];
    for (size_t i = 0; i < N_CTX; i++)
        tokens[i] = (int32_t)((i * 7919 + i / 50 * 31 + 13) % model->config.n_vocab);
    return tokens;
}

/* The next n tokens of the text; the last one's logits. */
static void feed(struct mb_session *session, size_t n, bool is_generated, float *logits)
{
    for (size_t i = 0, n_now; i < n; i += n_now) {
        n_now = is_generated ? 1 : n;
        struct mb_batch_item item = {.session = session,
                                     .tokens = text(session->model) + session->n_past,
                                     .n_tokens = n_now,
                                     .is_generated = is_generated,
                                     .logits = logits};
        must(mb_decode(session->model, &item, 1, &err));
    }
}

static void assert_same(const struct mb_model *model, const float *a, const float *b, const char *what)
{
    if (memcmp(a, b, model->config.n_vocab * sizeof *a) != 0)
        fail_msg("%s: other bits", what);
}

/*
 * A session may also be one whose cache keeps all positions: the flag is the model's, so it is set before
 * each call.
 */
static void feed_as(struct mb_session *session, bool keeps_all, size_t n, bool is_generated, float *logits)
{
    struct mb_model *model = session->model;
    for (size_t i = 0; i < model->config.n_attentions; i++)
        model->config.attentions[i].gqa.keeps_all = keeps_all;
    feed(session, n, is_generated, logits);
}

/* ---------------------------------------------------------------- sliding windows */

static const char *const windowed[] = {"mixtral-window", "qwen2-moe-window", "phimoe-window"};
enum { N_WINDOWED = sizeof windowed / sizeof *windowed };

static void check_same_bits(const char *name)
{
    static const struct {
        size_t n;
        bool is_generated;
    } feeds[] = {{700, false}, {1, true},    {3, true},   {511, false}, {512, false},
                 {40, true},   {130, false}, {100, true}, {200, false}};
    static float expected[N_VOCAB_MAX], got[N_VOCAB_MAX];
    struct mb_model *model = open_model(name, N_CTX);
    struct mb_session *full = open_session(model, true), *window = open_session(model, false);
    assert_true(mb_session_nbytes(window) < mb_session_nbytes(full));
    for (size_t i = 0; i < sizeof feeds / sizeof *feeds; i++) {
        feed_as(full, true, feeds[i].n, feeds[i].is_generated, expected);
        feed_as(window, false, feeds[i].n, feeds[i].is_generated, got);
        assert_same(model, got, expected, name);
    }
    mb_session_close(full);
    mb_session_close(window);
    mb_model_close(model);
}

static void a_cache_of_windows_gives_the_bits_of_a_full_one(void **state)
{
    (void)state;
    for (size_t i = 0; i < N_WINDOWED; i++)
        check_same_bits(windowed[i]);
}

/* Sessions at several places of their caches, in one batch. */
static void windows_of_several_sessions(void **state)
{
    enum { N = 4 };
    static const size_t pasts[N] = {10, 767, 900, 1800};
    static float alone[N_VOCAB_MAX], together[N][N_VOCAB_MAX];
    (void)state;
    struct mb_model *model = open_model("qwen2-moe-window", N_CTX);
    struct mb_session *sessions[N], *other = open_session(model, false);
    struct mb_batch_item items[N];
    for (size_t i = 0; i < N; i++) {
        sessions[i] = open_session(model, false);
        feed(sessions[i], pasts[i], false, NULL);
        items[i] = (struct mb_batch_item){.session = sessions[i],
                                          .tokens = text(model) + pasts[i],
                                          .n_tokens = i == 1 ? 300 : 1,
                                          .is_generated = i != 1,
                                          .logits = together[i]};
    }
    must(mb_decode(model, items, N, &err));
    for (size_t i = 0; i < N; i++) {
        mb_session_reset(other);
        feed(other, pasts[i] + items[i].n_tokens, false, alone);
        assert_same(model, together[i], alone, "several sessions");
        mb_session_close(sessions[i]);
    }
    mb_session_close(other);
    mb_model_close(model);
}

static void a_cache_of_windows_is_as_small_as_it_says(void **state)
{
    (void)state;
    struct mb_model *model = open_model("mixtral-window", N_CTX);
    const struct mb_gqa *g = &model->config.attentions[0].gqa;
    struct mb_session *session = open_session(model, false);
    size_t n_rows = 768; /* 150 + 512 - 1, in whole chunks of 128 */
    assert_int_equal(g->window, 150);
    assert_int_equal(mb_session_nbytes(session) - MB_SLACK_NBYTES,
                     model->config.n_layers * n_rows * 2 * g->n_kv_heads * g->d_head * 2);
    mb_session_close(session);
    mb_model_close(model);
}

/*
 * What a session keeps after going back gives the bits of a fresh one; where its cache has lost rows that are
 * needed, it keeps nothing.
 */
static void going_back_in_a_cache_of_windows(void **state)
{
    static const size_t highs[] = {100, 768, 769, 1500}, backs[] = {0, 1, 90, 500, 618, 619, 620, 700, 1499};
    static float expected[N_VOCAB_MAX], got[N_VOCAB_MAX];
    size_t n_kept_some = 0, n_kept_none = 0;
    (void)state;
    struct mb_model *model = open_model("mixtral-window", N_CTX);
    struct mb_session *session = open_session(model, false), *fresh = open_session(model, false);
    for (size_t i = 0; i < sizeof highs / sizeof *highs; i++)
        for (size_t k = 0; k < sizeof backs / sizeof *backs; k++) {
            size_t high = highs[i], n_past = high > backs[k] ? high - backs[k] : 0, n_kept, n;
            mb_session_reset(session);
            feed(session, high, false, NULL);
            n = mb_session_rewind(session, n_past);
            assert_true(n == n_past || n == 0);
            n_kept_some += n > 0;
            n_kept_none += n == 0 && n_past > 0;
            mb_session_reset(fresh);
            must(mb_session_sync(session, text(model), n_past + 9, MB_KEEP_PROMPT, got, &n_kept, &err));
            assert_int_equal(n_kept, n);
            feed(fresh, n_past + 9, false, expected);
            assert_same(model, got, expected, "after going back");
            mb_session_rewind(session, n_past); /* again: rows that were lost are not found anew */
            feed(session, n_past + 5 - mb_session_n_past(session), false, NULL);
            feed(session, 4, true, got);
            assert_same(model, got, expected, "after going back twice");
        }
    assert_true(n_kept_some > 10 && n_kept_none == 5);
    mb_session_close(session);
    mb_session_close(fresh);
    mb_model_close(model);
}

/* ---------------------------------------------------------------- LongRoPE */

/* Generation across the border gives what the whole sequence gives as a prompt. */
static void a_sequence_that_becomes_long_is_computed_anew(void **state)
{
    static float expected[N_VOCAB_MAX], got[N_VOCAB_MAX], shorter[N_VOCAB_MAX];
    (void)state;
    struct mb_model *model = open_model("mixtral-longrope", 256);
    struct mb_session *session = open_session(model, false), *fresh = open_session(model, false);
    assert_int_equal(model->config.n_ctx_short, N_SHORT);
    feed(session, N_SHORT - 2, false, NULL);
    for (size_t n = N_SHORT - 1; n < N_SHORT + 4; n++) {
        feed(session, 1, true, got);
        mb_session_reset(fresh);
        feed(fresh, n, false, expected);
        assert_same(model, got, expected, "generated across the border");
        assert_int_equal(mb_session_n_past(session), n);
    }
    mb_session_reset(fresh);
    feed(fresh, 40, false, shorter);
    assert_int_equal(mb_session_rewind(session, N_SHORT + 1), N_SHORT + 1);
    assert_int_equal(mb_session_rewind(session, 30), 0); /* its rows are those of a long sequence */
    feed(session, 40, false, got);
    assert_same(model, got, shorter, "short again");
    mb_session_close(session);
    mb_session_close(fresh);
    mb_model_close(model);
}

/* In a batch with others, and in pieces that end before, at and after the border. */
static void long_and_short_sequences_share_a_batch(void **state)
{
    enum { N = 3 };
    static const size_t pasts[N] = {20, N_SHORT, N_SHORT - 1}, n_more[N] = {5, 1, 30};
    static float expected[N_VOCAB_MAX], got[N][N_VOCAB_MAX];
    (void)state;
    struct mb_model *model = open_model("mixtral-longrope", 256);
    struct mb_session *sessions[N], *fresh = open_session(model, false);
    struct mb_batch_item items[N];
    for (size_t i = 0; i < N; i++) {
        sessions[i] = open_session(model, false);
        feed(sessions[i], pasts[i], false, NULL);
        items[i] = (struct mb_batch_item){.session = sessions[i],
                                          .tokens = text(model) + pasts[i],
                                          .n_tokens = n_more[i],
                                          .is_generated = n_more[i] == 1,
                                          .logits = got[i]};
    }
    must(mb_decode(model, items, N, &err));
    for (size_t i = 0; i < N; i++) {
        mb_session_reset(fresh);
        feed(fresh, pasts[i] + n_more[i], false, expected);
        assert_same(model, got[i], expected, "in a batch");
        assert_int_equal(mb_session_n_common(sessions[i], text(model), N_CTX, MB_KEEP_PROMPT),
                         pasts[i] + n_more[i]);
        mb_session_close(sessions[i]);
    }
    mb_session_close(fresh);
    mb_model_close(model);
}

/* ---------------------------------------------------------------- failures */

static size_t n_until_failure = SIZE_MAX;

enum mb_status __real_mb_store_acquire_some(struct mb_store *store, size_t layer, uint32_t *experts, size_t n,
                                            size_t n_max, enum mb_store_use use, struct mb_expert_view *out,
                                            size_t *n_acquired, struct mb_error *e);
enum mb_status __wrap_mb_store_acquire_some(struct mb_store *store, size_t layer, uint32_t *experts, size_t n,
                                            size_t n_max, enum mb_store_use use, struct mb_expert_view *out,
                                            size_t *n_acquired, struct mb_error *e);

enum mb_status __wrap_mb_store_acquire_some(struct mb_store *store, size_t layer, uint32_t *experts, size_t n,
                                            size_t n_max, enum mb_store_use use, struct mb_expert_view *out,
                                            size_t *n_acquired, struct mb_error *e)
{
    if (n_until_failure == SIZE_MAX || n_until_failure-- > 0)
        return __real_mb_store_acquire_some(store, layer, experts, n, n_max, use, out, n_acquired, e);
    snprintf(e->msg, sizeof e->msg, "no expert today");
    n_until_failure = SIZE_MAX;
    return MB_IO;
}

/* A batch that fails after it has written over rows of the window, or while a sequence becomes long. */
static void check_failure(const char *name, size_t n_past, size_t n_more, size_t n_calls)
{
    static float expected[N_VOCAB_MAX], got[N_VOCAB_MAX];
    struct mb_model *model = open_model(name, N_CTX);
    struct mb_session *session = open_session(model, false), *fresh = open_session(model, false);
    feed(session, n_past, false, NULL);
    struct mb_batch_item item = {.session = session, .tokens = text(model) + n_past, .n_tokens = n_more};
    n_until_failure = n_calls;
    assert_int_equal(mb_decode(model, &item, 1, &err), MB_IO);
    assert_int_equal(mb_session_n_past(session), n_past);
    assert_int_equal(mb_session_n_common(session, text(model), N_CTX, MB_KEEP_PROMPT), n_past);
    item.n_tokens = 0;
    must(mb_decode(model, &item, 1, &err));
    feed(session, 3, true, got);
    feed(fresh, n_past + 3, false, expected);
    assert_same(model, got, expected, "after a failure");
    mb_session_close(session);
    mb_session_close(fresh);
    mb_model_close(model);
}

static void a_store_that_fails_leaves_sessions_as_they_were(void **state)
{
    (void)state;
    for (size_t n = 0; n < 4; n++) {
        check_failure("mixtral-window", 900, 1200, n);
        check_failure("qwen2-moe-window", 700, 5, n);
    }
    for (size_t n = 0; n < 2; n++)
        for (size_t n_past = N_SHORT - 4; n_past <= N_SHORT; n_past++)
            check_failure("mixtral-longrope", n_past, 5, n);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_cache_of_windows_gives_the_bits_of_a_full_one),
        cmocka_unit_test(windows_of_several_sessions),
        cmocka_unit_test(a_cache_of_windows_is_as_small_as_it_says),
        cmocka_unit_test(going_back_in_a_cache_of_windows),
        cmocka_unit_test(a_sequence_that_becomes_long_is_computed_anew),
        cmocka_unit_test(long_and_short_sequences_share_a_batch),
        cmocka_unit_test(a_store_that_fails_leaves_sessions_as_they_were),
    };
    return cmocka_run_group_tests(tests, test_folder_begin, test_folder_end);
}
