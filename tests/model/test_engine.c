/*
 * test_engine.c - results do not depend on threads, batches, pieces or instruction sets; nothing is allocated
 * for a token; wrong batches are refused and change nothing.
 *
 * Each configuration runs in a child of its own, since a process reads MOEBIUS_CPU once.
 */
#include "checkpoint/folder.h"
#include "child.h"
#include "cmocka_all.h"
#include <moebius/checkpoint.h>
#include <moebius/engine.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>
#include <xxhash.h>

#define REFERENCE MB_REPO "/models/reference"
enum { N_PROMPT = 40, N_GENERATED = 12, N_VOCAB = 2048, N_BATCH_MAX = 16 };

static char coded[1024];

/* ---------------------------------------------------------------- counting allocations */

#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
#define COUNTS_ALLOCATIONS 1
static _Atomic size_t n_allocations;
void *__libc_malloc(size_t n);
void *__libc_calloc(size_t n, size_t size);
void *__libc_realloc(void *p, size_t n);
void *__libc_memalign(size_t alignment, size_t n);

void *malloc(size_t n)
{
    atomic_fetch_add(&n_allocations, 1);
    return __libc_malloc(n);
}

void *calloc(size_t n, size_t size)
{
    atomic_fetch_add(&n_allocations, 1);
    return __libc_calloc(n, size);
}

void *realloc(void *p, size_t n)
{
    atomic_fetch_add(&n_allocations, 1);
    return __libc_realloc(p, n);
}

void *aligned_alloc(size_t alignment, size_t n)
{
    atomic_fetch_add(&n_allocations, 1);
    return __libc_memalign(alignment, n);
}
#else
#define COUNTS_ALLOCATIONS 0
static size_t n_allocations;
#endif

/* ---------------------------------------------------------------- running */

static void must(enum mb_status status, const struct mb_error *err)
{
    if (status != MB_OK)
        fail_msg("%s", err->msg);
}

static int32_t prompt_token(size_t conversation, size_t i)
{
    return (int32_t)((i * 7919 + conversation * 104729 + 13) % N_VOCAB);
}

static int32_t argmax(const float *logits)
{
    int32_t best = 0;
    for (int32_t i = 1; i < N_VOCAB; i++)
        best = logits[i] > logits[best] ? i : best;
    return best;
}

struct setting {
    const char *cpu; /* MOEBIUS_CPU */
    int n_threads;
    size_t n_batch; /* conversations at once; conversation 0 is the one that is compared */
    size_t piece;   /* of prompts */
};

struct work {
    const char *folder;
    const struct setting *setting;
};

struct conversation {
    struct mb_session *session;
    size_t n_fed; /* of the prompt */
    int32_t token;
    float logits[N_VOCAB];
};

/* What a conversation does next; later ones begin later, so that prompts and generated tokens share passes.
 */
static bool next_item(struct conversation *c, size_t index, size_t round, size_t piece,
                      int32_t tokens[N_PROMPT], struct mb_batch_item *item)
{
    if (round < index)
        return false;
    *item = (struct mb_batch_item){.session = c->session, .tokens = tokens, .logits = c->logits};
    size_t n_prompt = N_PROMPT - index; /* every conversation another length */
    if (c->n_fed == n_prompt) {
        tokens[0] = c->token;
        item->n_tokens = 1;
        item->is_generated = true;
        return true;
    }
    size_t n = n_prompt - c->n_fed < piece ? n_prompt - c->n_fed : piece;
    for (size_t i = 0; i < n; i++)
        tokens[i] = prompt_token(index, c->n_fed + i);
    item->n_tokens = n;
    c->n_fed += n;
    return true;
}

/* Hash of the logits of conversation 0: of its prompt's end and of all tokens it generates. */
static uint64_t run_setting(const void *ctx)
{
    const struct work *work = ctx;
    const struct setting *setting = work->setting;
    struct mb_error err;
    struct mb_model *model;
    struct mb_model_options options = {.size = sizeof options, .n_threads = setting->n_threads};
    static struct conversation conversations[N_BATCH_MAX];
    static int32_t tokens[N_BATCH_MAX][N_PROMPT];
    XXH3_state_t *hash = XXH3_createState();
    XXH3_64bits_reset(hash);
    must(mb_model_open(work->folder, &options, &model, &err), &err);
    for (size_t i = 0; i < setting->n_batch; i++) {
        struct mb_session_options session = {.size = sizeof session, .n_ctx = N_PROMPT + N_GENERATED + 1};
        must(mb_session_open(model, &session, &conversations[i].session, &err), &err);
    }
    for (size_t round = 0, n_generated = 0; n_generated < N_GENERATED; round++) {
        struct mb_batch_item items[N_BATCH_MAX];
        size_t n_items = 0;
        for (size_t i = setting->n_batch; i-- > 0;) /* conversation 0 last */
            n_items += next_item(&conversations[i], i, round, setting->piece, tokens[i], &items[n_items]);
        must(mb_decode(model, items, n_items, &err), &err);
        for (size_t i = 0; i < setting->n_batch && i <= round; i++)
            conversations[i].token = argmax(conversations[i].logits);
        if (conversations[0].n_fed < N_PROMPT)
            continue;
        XXH3_64bits_update(hash, conversations[0].logits, sizeof conversations[0].logits);
        n_generated++;
    }
    for (size_t i = 0; i < setting->n_batch; i++)
        mb_session_close(conversations[i].session);
    mb_model_close(model);
    uint64_t result = XXH3_64bits_digest(hash);
    XXH3_freeState(hash);
    return result;
}

static void check_setting(const char *folder, const struct setting *setting, uint64_t expected)
{
    struct work work = {folder, setting};
    if (test_hash_in_child(setting->cpu, run_setting, &work) != expected)
        fail_msg("%s: MOEBIUS_CPU=%s, %d threads, batch %zu, pieces of %zu: other bits than one thread alone",
                 folder, setting->cpu, setting->n_threads, setting->n_batch, setting->piece);
}

static uint64_t one_thread_alone(const char *folder)
{
    static const struct setting alone = {"", 1, 1, N_PROMPT};
    return test_hash_in_child(alone.cpu, run_setting, &(struct work){folder, &alone});
}

static void check_folder(const char *folder)
{
    static const struct setting settings[] = {
        {"", 2, 1, N_PROMPT},           {"", 3, 1, 7},
        {"", 2, 2, N_PROMPT},           {"", 2, 5, 11},
        {"", 2, 16, N_PROMPT},          {"-avx512", 2, 1, N_PROMPT},
        {"-avx512,-avxvnni", 2, 16, 9}, {"-avx512,-avx2", 2, 1, N_PROMPT},
        {"-avx512,-avx2", 1, 3, 13},
    };
    uint64_t expected = one_thread_alone(folder);
    for (size_t i = 0; i < sizeof settings / sizeof *settings; i++)
        check_setting(folder, &settings[i], expected);
}

static void coded_model_gives_the_same_bits(void **state)
{
    (void)state;
    check_folder(coded);
}

static void plain_model_gives_the_same_bits(void **state)
{
    (void)state;
    check_folder(REFERENCE);
}

#if defined(__SANITIZE_THREAD__)
enum { BATCH_STRIDE = 5 }; /* it takes its time */
#else
enum { BATCH_STRIDE = 1 };
#endif

/* Each number of conversations at once, on every instruction set in turn, with one thread and with two. */
static void every_batch_gives_the_same_bits(void **state)
{
    (void)state;
    static const char *const cpus[] = {"", "-avx512", "-avx512,-avxvnni", "-avx512,-avx2"};
    uint64_t expected = one_thread_alone(coded);
    for (size_t n = 1; n <= N_BATCH_MAX; n += BATCH_STRIDE)
        check_setting(coded, &(struct setting){cpus[n % 4], 1 + (int)(n / 4 % 2), n, 5 + n}, expected);
}

/* ---------------------------------------------------------------- one process */

static struct mb_model *open_folder(const char *folder)
{
    struct mb_error err;
    struct mb_model *model;
    struct mb_model_options options = {.size = sizeof options, .n_threads = 2};
    must(mb_model_open(folder, &options, &model, &err), &err);
    return model;
}

static struct mb_model *open_coded(void)
{
    return open_folder(coded);
}

static void check_allocations(const char *folder)
{
    struct mb_model *model = open_folder(folder);
    struct mb_error err;
    struct mb_session *session;
    static float logits[N_VOCAB];
    int32_t tokens[N_PROMPT];
    for (size_t i = 0; i < N_PROMPT; i++)
        tokens[i] = prompt_token(0, i) % (int32_t)mb_model_info(model)->n_vocab;
    must(mb_session_open(model, NULL, &session, &err), &err);
    size_t before = n_allocations;
    struct mb_batch_item item = {
        .session = session, .tokens = tokens, .n_tokens = N_PROMPT, .logits = logits};
    must(mb_decode(model, &item, 1, &err), &err);
    item.n_tokens = 1;
    item.is_generated = true;
    for (size_t i = 0; i < 20; i++)
        must(mb_decode(model, &item, 1, &err), &err);
    assert_int_equal(n_allocations, before);
    mb_session_close(session);
    mb_model_close(model);
    assert_true(n_allocations >= before); /* the counter counts: opening and closing do allocate */
    assert_true(before > 100);
}

static void tokens_allocate_nothing(void **state)
{
    (void)state;
    if (!COUNTS_ALLOCATIONS)
        skip();
    check_allocations(coded);
    check_allocations(MB_REPO "/tests/model/data/checkpoints/qwen3-moe");
}

static void wrong_batches_change_nothing(void **state)
{
    (void)state;
    struct mb_model *model = open_coded();
    struct mb_error err;
    struct mb_session *session, *other;
    struct mb_session_options small = {.size = sizeof small, .n_ctx = 8},
                              large = {.size = sizeof large, .n_ctx = 257};
    static float logits[N_VOCAB];
    int32_t tokens[9] = {1, 2, 3, 4, 5, 6, 7, 8, 9}, bad[2] = {1, N_VOCAB}, negative[1] = {-1};
    must(mb_session_open(model, &small, &session, &err), &err);
    must(mb_session_open(model, &small, &other, &err), &err);
    struct mb_batch_item good = {.session = session, .tokens = tokens, .n_tokens = 3, .logits = logits};
    must(mb_decode(model, &good, 1, &err), &err);
    const struct {
        struct mb_batch_item item;
        const char *message;
    } wrong[] = {
        {{.session = other, .tokens = bad, .n_tokens = 2}, "token 2048 is not in the vocabulary of 2048"},
        {{.session = other, .tokens = negative, .n_tokens = 1}, "token -1"},
        {{.session = other, .tokens = tokens, .n_tokens = 9}, "do not fit a context of 8"},
        {{.session = other, .tokens = tokens, .n_tokens = 2, .is_generated = true}, "2 generated tokens"},
        {{.session = session, .tokens = tokens, .n_tokens = 1}, "twice"},
        {{.session = NULL, .tokens = tokens, .n_tokens = 1}, "not a session"},
    };
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        struct mb_batch_item items[2] = {{.session = session, .tokens = tokens, .n_tokens = 2},
                                         wrong[i].item};
        assert_int_equal(mb_decode(model, items, 2, &err), MB_USAGE);
        assert_non_null(strstr(err.msg, wrong[i].message));
        assert_int_equal(mb_session_n_past(session), 3);
        assert_int_equal(mb_session_n_past(other), 0);
    }
    struct mb_session *none = NULL;
    assert_int_equal(mb_session_open(model, &large, &none, &err), MB_USAGE);
    assert_null(none);
    mb_session_close(session);
    mb_session_close(other);
    mb_model_close(model);
}

static void timing_adds_up(void **state)
{
    (void)state;
    struct mb_model *model = open_coded();
    struct mb_error err;
    struct mb_session *session;
    static float logits[N_VOCAB];
    int32_t token = 5;
    must(mb_session_open(model, NULL, &session, &err), &err);
    struct mb_batch_item item = {.session = session, .tokens = &token, .n_tokens = 1, .logits = logits};
    must(mb_decode(model, &item, 1, &err), &err);
    struct mb_model_timing timing = mb_model_timing(model);
    assert_int_equal(timing.n_tokens, 1);
    assert_int_equal(timing.n_passes, 1);
    assert_true(timing.attention_ns > 0 && timing.experts_ns > 0 && timing.router_ns > 0 &&
                timing.dense_ns > 0 && timing.logits_ns > 0);
    mb_model_timing_reset(model);
    assert_int_equal(mb_model_timing(model).n_tokens, 0);
    mb_session_close(session);
    mb_model_close(model);
}

/* ---------------------------------------------------------------- the coded folder */

static int compress_reference(void **state)
{
    struct mb_error err;
    struct mb_compress_options options = {.size = sizeof options, .n_threads = 2};
    struct mb_compress_report report;
    if (test_folder_begin(state) != 0)
        return 1;
    snprintf(coded, sizeof coded, "%s", test_path("coded"));
    /* In a child: this process must not yet have chosen its kernels. */
    pid_t child = fork();
    if (child == 0)
        _exit(mb_compress(REFERENCE, coded, &options, &report, &err) == MB_OK ? 0 : 1);
    int status;
    return waitpid(child, &status, 0) == child && status == 0 ? 0 : 1;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(coded_model_gives_the_same_bits), cmocka_unit_test(plain_model_gives_the_same_bits),
        cmocka_unit_test(every_batch_gives_the_same_bits), cmocka_unit_test(tokens_allocate_nothing),
        cmocka_unit_test(wrong_batches_change_nothing),    cmocka_unit_test(timing_adds_up),
    };
    return cmocka_run_group_tests(tests, compress_reference, test_folder_end);
}
