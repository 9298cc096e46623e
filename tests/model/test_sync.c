/*
 * test_sync.c - a session keeps what it has in common with the tokens it is to hold, computes the rest, and
 * gives the bits of a fresh session.
 *
 * "The bits of a fresh session": tests compare whole logits with memcmp.
 */
#include "checkpoint/folder.h"
#include "cmocka_all.h"
#include <math.h>
#include <moebius/checkpoint.h>
#include <moebius/engine.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define REFERENCE MB_REPO "/models/reference"
#define CHECKPOINTS MB_REPO "/tests/model/data/checkpoints/"

enum { N_VOCAB_MAX = 2048, N_PROMPT = 30, N_REPLY = 9, N_CTX = 120 };

static char coded[1024];
static struct mb_model *model;
static struct mb_error err;

static void must(enum mb_status status)
{
    if (status != MB_OK)
        fail_msg("%s", err.msg);
}

static size_t n_vocab(void)
{
    return mb_model_info(model)->n_vocab;
}

static int32_t some_token(size_t i)
{
    return (int32_t)((i * 7919 + 13) % n_vocab());
}

static struct mb_session *open_session(size_t n_ctx, enum mb_cache_type type)
{
    struct mb_session *session;
    struct mb_session_options options = {.size = sizeof options, .n_ctx = n_ctx, .cache_type = type};
    must(mb_session_open(model, &options, &session, &err));
    return session;
}

static void feed(struct mb_session *session, const int32_t *tokens, size_t n, bool is_generated,
                 float *logits)
{
    for (size_t i = 0, n_now; i < n; i += n_now) {
        n_now = is_generated ? 1 : n;
        struct mb_batch_item item = {.session = session,
                                     .tokens = tokens + i,
                                     .n_tokens = n_now,
                                     .is_generated = is_generated,
                                     .logits = logits};
        must(mb_decode(model, &item, 1, &err));
    }
}

static void assert_same_logits(const float *a, const float *b)
{
    assert_memory_equal(a, b, n_vocab() * sizeof *a);
}

/* Tokens the model computed since the last call. */
static size_t n_computed(void)
{
    size_t n = mb_model_timing(model).n_tokens;
    mb_model_timing_reset(model);
    return n;
}

/* ---------------------------------------------------------------- two turns of a conversation */

/* tokens: a prompt, a reply, the next question. The session has the first two, and one token too many. */
struct turns {
    int32_t tokens[N_PROMPT + N_REPLY + N_PROMPT];
    size_t n;
    float logits[N_VOCAB_MAX], expected[N_VOCAB_MAX];
};

static struct mb_session *after_first_turn(struct turns *turns, enum mb_cache_type type)
{
    struct mb_session *session = open_session(N_CTX, type);
    turns->n = N_PROMPT + N_REPLY + N_PROMPT;
    for (size_t i = 0; i < turns->n; i++)
        turns->tokens[i] = some_token(i);
    int32_t other = turns->tokens[N_PROMPT + N_REPLY] ^ 1;
    feed(session, turns->tokens, N_PROMPT, false, NULL);
    feed(session, turns->tokens + N_PROMPT, N_REPLY, true, NULL);
    feed(session, &other, 1, true, NULL);
    n_computed();
    return session;
}

static void second_turn_keeps_the_prompt(enum mb_cache_type type)
{
    static struct turns turns;
    struct mb_session *session = after_first_turn(&turns, type), *fresh = open_session(N_CTX, type);
    size_t n_kept;
    must(mb_session_sync(session, turns.tokens, turns.n, MB_KEEP_PROMPT, turns.logits, &n_kept, &err));
    assert_int_equal(n_kept, N_PROMPT);
    assert_int_equal(n_computed(), turns.n - N_PROMPT);
    assert_int_equal(mb_session_n_past(session), turns.n);
    feed(fresh, turns.tokens, turns.n, false, turns.expected);
    assert_same_logits(turns.logits, turns.expected);
    mb_session_close(session);
    mb_session_close(fresh);
}

static void second_turn_keeps_all(enum mb_cache_type type)
{
    static struct turns turns;
    struct mb_session *session = after_first_turn(&turns, type), *fresh = open_session(N_CTX, type);
    size_t n_kept;
    must(mb_session_sync(session, turns.tokens, turns.n, MB_KEEP_ALL, turns.logits, &n_kept, &err));
    assert_int_equal(n_kept, N_PROMPT + N_REPLY);
    assert_int_equal(n_computed(), N_PROMPT);
    feed(fresh, turns.tokens, N_PROMPT, false, NULL);
    feed(fresh, turns.tokens + N_PROMPT, N_REPLY, true, NULL);
    feed(fresh, turns.tokens + N_PROMPT + N_REPLY, N_PROMPT, false, turns.expected);
    assert_same_logits(turns.logits, turns.expected);
    /* Generated tokens go on alike too. */
    feed(session, turns.tokens, 3, true, turns.logits);
    feed(fresh, turns.tokens, 3, true, turns.expected);
    assert_same_logits(turns.logits, turns.expected);
    /* Reading all as prompt differs in rounding, no more. */
    mb_session_reset(fresh);
    feed(fresh, turns.tokens, turns.n, false, turns.expected);
    must(mb_session_sync(session, turns.tokens, turns.n, MB_KEEP_ALL, turns.logits, &n_kept, &err));
    assert_int_equal(n_kept, turns.n - 1); /* the last one gives the logits */
    for (size_t i = 0; i < n_vocab(); i++)
        assert_true(fabsf(turns.logits[i] - turns.expected[i]) < 0.05F);
    mb_session_close(session);
    mb_session_close(fresh);
}

static void in_every_model(void (*check)(enum mb_cache_type type))
{
    static const char *const others[] = {REFERENCE, CHECKPOINTS "q-lora", CHECKPOINTS "groups",
                                         CHECKPOINTS "yarn-5"};
    struct mb_model *usual = model;
    check(MB_CACHE_F16);
    for (size_t i = 0; i < sizeof others / sizeof *others; i++) {
        struct mb_model_options options = {.size = sizeof options, .n_threads = 2};
        must(mb_model_open(others[i], &options, &model, &err));
        check(i % 2 == 0 ? MB_CACHE_F32 : MB_CACHE_F16);
        mb_model_close(model);
    }
    model = usual;
}

/* Grouped-query attention has one form of a token: a reply is kept, and the bits are those of a prompt. */
static void one_form_keeps_the_reply_exactly(void **state)
{
    (void)state;
    static const char *const folders[] = {CHECKPOINTS "qwen3-moe", CHECKPOINTS "qwen3-moe-long",
                                          CHECKPOINTS "qwen3-moe-mixed", CHECKPOINTS "qwen3-moe-yarn"};
    static struct turns turns;
    struct mb_model *usual = model;
    for (size_t i = 0; i < sizeof folders / sizeof *folders; i++) {
        size_t n_kept;
        struct mb_model_options options = {.size = sizeof options, .n_threads = 1 + (int)(i % 2)};
        must(mb_model_open(folders[i], &options, &model, &err));
        enum mb_cache_type type = i % 2 == 0 ? MB_CACHE_F16 : MB_CACHE_F32;
        struct mb_session *session = after_first_turn(&turns, type), *fresh = open_session(N_CTX, type);
        must(mb_session_sync(session, turns.tokens, turns.n, MB_KEEP_PROMPT, turns.logits, &n_kept, &err));
        assert_int_equal(n_kept, N_PROMPT + N_REPLY);
        assert_int_equal(n_computed(), N_PROMPT);
        feed(fresh, turns.tokens, turns.n, false, turns.expected);
        assert_same_logits(turns.logits, turns.expected);
        mb_session_close(session);
        mb_session_close(fresh);
        mb_model_close(model);
    }
    model = usual;
}

static void the_next_turn_computes_what_is_new(void **state)
{
    (void)state;
    in_every_model(second_turn_keeps_the_prompt);
}

static void the_next_turn_may_keep_the_reply(void **state)
{
    (void)state;
    in_every_model(second_turn_keeps_all);
}

/* ---------------------------------------------------------------- rewinding */

/* Every n_past in turn, down and up, each followed by other tokens than the first time. */
static void rewinding_is_exact(void **state)
{
    (void)state;
    struct mb_session *session = open_session(N_CTX, MB_CACHE_F16),
                      *fresh = open_session(N_CTX, MB_CACHE_F16);
    int32_t tokens[N_PROMPT], others[5];
    static float logits[N_VOCAB_MAX], expected[N_VOCAB_MAX];
    for (size_t i = 0; i < N_PROMPT; i++)
        tokens[i] = some_token(i);
    for (size_t i = 0; i < 5; i++)
        others[i] = some_token(i + 1000);
    for (size_t n = 0; n < N_PROMPT; n++) {
        size_t n_past = n % 2 == 0 ? N_PROMPT - n - 1 : n;
        mb_session_reset(session);
        feed(session, tokens, N_PROMPT, false, NULL);
        assert_int_equal(mb_session_rewind(session, n_past), n_past);
        assert_int_equal(mb_session_n_past(session), n_past);
        feed(session, others, 5, n % 3 == 0, logits);
        mb_session_reset(fresh);
        feed(fresh, tokens, n_past, false, NULL);
        feed(fresh, others, 5, n % 3 == 0, expected);
        assert_same_logits(logits, expected);
    }
    assert_int_equal(mb_session_rewind(session, N_CTX), mb_session_n_past(session)); /* never forward */
    mb_session_close(session);
    mb_session_close(fresh);
}

/* The whole of a context, changed in its middle. */
static void long_contexts_rewind_too(void **state)
{
    (void)state;
    size_t n_ctx = mb_model_info(model)->n_ctx_train, n = n_ctx - 10;
    struct mb_session *session = open_session(n_ctx, MB_CACHE_F16),
                      *fresh = open_session(n_ctx, MB_CACHE_F16);
    int32_t *tokens = malloc(n_ctx * sizeof *tokens);
    static float logits[N_VOCAB_MAX], expected[N_VOCAB_MAX];
    size_t n_kept;
    assert_non_null(tokens);
    for (size_t i = 0; i < n_ctx; i++)
        tokens[i] = some_token(i);
    must(mb_session_sync(session, tokens, n_ctx, MB_KEEP_PROMPT, NULL, NULL, &err));
    tokens[n / 2] ^= 1;
    n_computed();
    must(mb_session_sync(session, tokens, n, MB_KEEP_PROMPT, logits, &n_kept, &err));
    assert_int_equal(n_kept, n / 2);
    assert_int_equal(n_computed(), n - n / 2);
    must(mb_session_sync(fresh, tokens, n, MB_KEEP_PROMPT, expected, &n_kept, &err));
    assert_int_equal(n_kept, 0);
    assert_same_logits(logits, expected);
    feed(session, tokens, 10, true, logits);
    feed(fresh, tokens, 10, true, expected);
    assert_same_logits(logits, expected);
    free(tokens);
    mb_session_close(session);
    mb_session_close(fresh);
}

/* ---------------------------------------------------------------- what it holds */

static void what_is_common_is_counted(void **state)
{
    (void)state;
    struct mb_session *session = open_session(N_CTX, MB_CACHE_F16);
    int32_t tokens[8] = {1, 2, 3, 4, 5, 6, 7, 8}, others[3] = {1, 2, 9};
    assert_int_equal(mb_session_n_common(session, tokens, 8, MB_KEEP_ALL), 0);
    feed(session, tokens, 3, false, NULL);
    feed(session, tokens + 3, 2, true, NULL);
    feed(session, tokens + 5, 1, false, NULL);
    assert_int_equal(mb_session_n_common(session, tokens, 8, MB_KEEP_ALL), 6);
    assert_int_equal(mb_session_n_common(session, tokens, 4, MB_KEEP_ALL), 4);
    assert_int_equal(mb_session_n_common(session, tokens, 8, MB_KEEP_PROMPT), 3);
    assert_int_equal(mb_session_n_common(session, others, 3, MB_KEEP_ALL), 2);
    mb_session_rewind(session, 2);
    feed(session, tokens + 2, 4, false, NULL);
    assert_int_equal(mb_session_n_common(session, tokens, 8, MB_KEEP_PROMPT), 6);
    /* Nothing is left to feed where no logits are wanted. */
    size_t n_kept;
    n_computed();
    must(mb_session_sync(session, tokens, 5, MB_KEEP_PROMPT, NULL, &n_kept, &err));
    assert_int_equal(n_kept, 5);
    assert_int_equal(n_computed(), 0);
    assert_int_equal(mb_session_n_past(session), 5);
    must(mb_session_sync(session, tokens, 0, MB_KEEP_PROMPT, NULL, &n_kept, &err));
    assert_int_equal(mb_session_n_past(session), 0);
    mb_session_close(session);
}

static void wrong_tokens_change_nothing(void **state)
{
    (void)state;
    struct mb_session *session = open_session(8, MB_CACHE_F16);
    int32_t tokens[9] = {1, 2, 3, 4, 5, 6, 7, 8, 9}, bad[3] = {1, 5, N_VOCAB_MAX};
    static float logits[N_VOCAB_MAX];
    size_t n_kept;
    feed(session, tokens, 4, false, NULL);
    assert_int_equal(mb_session_sync(session, tokens, 9, MB_KEEP_ALL, NULL, &n_kept, &err), MB_USAGE);
    assert_non_null(strstr(err.msg, "9 tokens do not fit a context of 8"));
    assert_int_equal(mb_session_sync(session, bad, 3, MB_KEEP_ALL, NULL, &n_kept, &err), MB_USAGE);
    assert_non_null(strstr(err.msg, "is not in the vocabulary"));
    assert_int_equal(mb_session_sync(session, tokens, 0, MB_KEEP_ALL, logits, &n_kept, &err), MB_USAGE);
    assert_int_equal(mb_session_n_past(session), 4);
    assert_int_equal(mb_session_n_common(session, tokens, 9, MB_KEEP_ALL), 4);
    mb_session_close(session);
}

/* ---------------------------------------------------------------- the coded folder */

static int open_coded(void **state)
{
    struct mb_compress_options options = {.size = sizeof options, .n_threads = 2};
    /* The two forms of a token are near each other as far as rounding allows. */
    struct mb_model_options model_options = {
        .size = sizeof model_options, .n_threads = 2, .activations = MB_ACTIVATIONS_EXACT};
    struct mb_compress_report report;
    if (test_folder_begin(state) != 0)
        return 1;
    snprintf(coded, sizeof coded, "%s", test_path("coded"));
    return mb_compress(REFERENCE, coded, &options, &report, &err) != MB_OK ||
           mb_model_open(coded, &model_options, &model, &err) != MB_OK;
}

static int close_coded(void **state)
{
    mb_model_close(model);
    return test_folder_end(state);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_next_turn_computes_what_is_new),
        cmocka_unit_test(the_next_turn_may_keep_the_reply),
        cmocka_unit_test(one_form_keeps_the_reply_exactly),
        cmocka_unit_test(rewinding_is_exact),
        cmocka_unit_test(long_contexts_rewind_too),
        cmocka_unit_test(what_is_common_is_counted),
        cmocka_unit_test(wrong_tokens_change_nothing),
    };
    return cmocka_run_group_tests(tests, open_coded, close_coded);
}
