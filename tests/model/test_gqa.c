/*
 * test_gqa.c - grouped-query attention has one arithmetic: the same bits however tokens are fed, for every
 * number of threads, batch and instruction set, within a chunk of positions (128) and over several.
 */
#include "checkpoint/folder.h"
#include "child.h"
#include "cmocka_all.h"
#include <moebius/checkpoint.h>
#include <moebius/engine.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>
#include <xxhash.h>

#define PLAIN MB_REPO "/tests/model/data/checkpoints/qwen3-moe-long"
#define WINDOW MB_REPO "/tests/model/data/checkpoints/mixtral-window" /* of 150 positions */
enum { N_VOCAB = 50, N_TOKENS = 400, N_SESSIONS = 3, N_GENERATED = 6 };

static char coded[1024];

static void must(enum mb_status status, const struct mb_error *err)
{
    if (status != MB_OK)
        fail_msg("%s", err->msg);
}

static const int32_t *text(void)
{
    static int32_t tokens[N_TOKENS];
    for (size_t i = 0; i < N_TOKENS; i++)
        tokens[i] = (int32_t)((i * 7919 + i / 50 + 13) % N_VOCAB);
    return tokens;
}

static struct mb_model *open_model(const char *folder, int n_threads)
{
    struct mb_error err;
    struct mb_model *model;
    struct mb_model_options options = {.size = sizeof options, .n_threads = n_threads};
    must(mb_model_open(folder, &options, &model, &err), &err);
    return model;
}

static struct mb_session *open_session(struct mb_model *model, enum mb_cache_type cache_type)
{
    struct mb_error err;
    struct mb_session *session;
    struct mb_session_options options = {
        .size = sizeof options, .cache_type = cache_type, .n_ctx = N_TOKENS + 1};
    must(mb_session_open(model, &options, &session, &err), &err);
    return session;
}

/* The next n tokens of the text; their logits to where those of the whole text lie. */
static void feed(struct mb_model *model, struct mb_session *session, size_t n, bool is_generated,
                 float *logits)
{
    struct mb_error err;
    size_t n_past = mb_session_n_past(session);
    struct mb_batch_item item = {.session = session,
                                 .tokens = text() + n_past,
                                 .n_tokens = n,
                                 .is_generated = is_generated,
                                 .logits = logits + n_past * N_VOCAB,
                                 .all_logits = true};
    must(mb_decode(model, &item, 1, &err), &err);
}

static void check_feeding(const char *folder, enum mb_cache_type cache_type)
{
    static const size_t pieces[] = {7, 32, 33, 128, 129, 200};
    static float whole[N_TOKENS * N_VOCAB], parts[N_TOKENS * N_VOCAB];
    struct mb_model *model = open_model(folder, 2);
    struct mb_session *session = open_session(model, cache_type);
    feed(model, session, N_TOKENS, false, whole);
    for (size_t i = 0; i < sizeof pieces / sizeof *pieces; i++) {
        mb_session_reset(session);
        for (size_t at = 0; at < N_TOKENS; at += pieces[i])
            feed(model, session, pieces[i] < N_TOKENS - at ? pieces[i] : N_TOKENS - at, false, parts);
        if (memcmp(parts, whole, sizeof whole) != 0)
            fail_msg("%s: pieces of %zu: other bits than the whole prompt", folder, pieces[i]);
    }
    mb_session_reset(session);
    feed(model, session, 1, false, parts);
    for (size_t i = 1; i < N_TOKENS; i++)
        feed(model, session, 1, true, parts);
    if (memcmp(parts, whole, sizeof whole) != 0)
        fail_msg("%s: generated tokens: other bits than the whole prompt", folder);
    mb_session_close(session);
    mb_model_close(model);
}

static void prompt_and_generation_are_the_same_bits(void **state)
{
    (void)state;
    check_feeding(PLAIN, MB_CACHE_F16);
    check_feeding(PLAIN, MB_CACHE_F32);
    check_feeding(WINDOW, MB_CACHE_F16);
    check_feeding(WINDOW, MB_CACHE_F32);
    check_feeding(coded, MB_CACHE_F16);
}

/* What a session generated is as good as a prompt, so that a conversation's next turn may keep it. */
static void generated_tokens_are_kept_as_prompt(void **state)
{
    (void)state;
    static float ignored[N_TOKENS * N_VOCAB];
    struct mb_model *model = open_model(PLAIN, 1);
    struct mb_session *session = open_session(model, MB_CACHE_F16);
    feed(model, session, 5, false, ignored);
    feed(model, session, 1, true, ignored);
    feed(model, session, 1, true, ignored);
    feed(model, session, 3, false, ignored);
    assert_int_equal(mb_session_n_common(session, text(), N_TOKENS, MB_KEEP_PROMPT), 10);
    mb_session_close(session);
    mb_model_close(model);
}

struct setting {
    const char *folder, *cpu; /* MOEBIUS_CPU */
    int n_threads;
    bool together; /* all sessions in a batch, else one by one */
};

/* Hash of all logits of sessions after 5, 127 and 300 tokens, which then generate; one more reads a prompt.
 */
static uint64_t run_setting(const void *ctx)
{
    const struct setting *setting = ctx;
    static const size_t pasts[N_SESSIONS] = {5, 127, 300};
    static float logits[N_GENERATED][N_SESSIONS + 1][N_VOCAB], ignored[N_TOKENS * N_VOCAB];
    struct mb_model *model = open_model(setting->folder, setting->n_threads);
    struct mb_session *sessions[N_SESSIONS + 1];
    for (size_t s = 0; s <= N_SESSIONS; s++) {
        sessions[s] = open_session(model, MB_CACHE_F16);
        if (s < N_SESSIONS)
            feed(model, sessions[s], pasts[s], false, ignored);
    }
    for (size_t i = 0; i < N_GENERATED; i++) {
        struct mb_batch_item items[N_SESSIONS + 1];
        struct mb_error err;
        for (size_t s = 0; s <= N_SESSIONS; s++) {
            items[s] = (struct mb_batch_item){.session = sessions[s],
                                              .tokens = text() + mb_session_n_past(sessions[s]),
                                              .n_tokens = s < N_SESSIONS ? 1 : 40,
                                              .is_generated = s < N_SESSIONS,
                                              .logits = logits[i][s]};
            if (!setting->together)
                must(mb_decode(model, &items[s], 1, &err), &err);
        }
        if (setting->together)
            must(mb_decode(model, items, N_SESSIONS + 1, &err), &err);
    }
    for (size_t s = 0; s <= N_SESSIONS; s++)
        mb_session_close(sessions[s]);
    mb_model_close(model);
    return XXH3_64bits(logits, sizeof logits);
}

static void threads_batches_and_instruction_sets_do_not_show(void **state)
{
    (void)state;
    static const struct setting settings[] = {
        {NULL, "", 1, false},
        {NULL, "", 2, true},
        {NULL, "", 3, false},
        {NULL, "-avx512", 2, true},
        {NULL, "-avx512,-avxvnni", 2, true},
        {NULL, "-avx2", 1, false},
        {NULL, "-avx2", 2, true},
    };
    const char *const folders[] = {PLAIN, WINDOW, coded};
    for (size_t f = 0; f < 3; f++) {
        uint64_t first = 0;
        for (size_t i = 0; i < sizeof settings / sizeof *settings; i++) {
            struct setting setting = settings[i];
            setting.folder = folders[f];
            uint64_t hash = test_hash_in_child(setting.cpu, run_setting, &setting);
            first = i == 0 ? hash : first;
            if (hash != first)
                fail_msg("%s: MOEBIUS_CPU=%s, %d threads, %s: other bits than one thread alone",
                         setting.folder, setting.cpu, setting.n_threads,
                         setting.together ? "together" : "one by one");
        }
    }
}

/* In a child: this process must not yet have chosen its kernels. */
static int compress_plain(void **state)
{
    struct mb_error err;
    struct mb_compress_options options = {.size = sizeof options, .n_threads = 2};
    struct mb_compress_report report;
    int status;
    if (test_folder_begin(state) != 0)
        return 1;
    snprintf(coded, sizeof coded, "%s", test_path("coded"));
    pid_t child = fork();
    if (child == 0)
        _exit(mb_compress(PLAIN, coded, &options, &report, &err) == MB_OK ? 0 : 1);
    return waitpid(child, &status, 0) == child && status == 0 ? 0 : 1;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(threads_batches_and_instruction_sets_do_not_show), /* while no kernels are chosen */
        cmocka_unit_test(prompt_and_generation_are_the_same_bits),
        cmocka_unit_test(generated_tokens_are_kept_as_prompt),
    };
    return cmocka_run_group_tests(tests, compress_plain, test_folder_end);
}
