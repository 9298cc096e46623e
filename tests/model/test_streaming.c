/*
 * test_streaming.c - experts from disk: the same bits whatever the limit of memory, limits that are kept or
 * refused, and files that fail while a model runs.
 */
#include "../exponents.h"
#include "base/error.h"
#include "cmocka_all.h"
#include "coded_reference.h"
#include "model/model.h"
#include <fcntl.h>
#include <moebius/engine.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { N_PROMPT = 70, N_REPLY = 12, N_ROWS = N_PROMPT + N_REPLY, N_CTX = 96, N_EXPERTS = 128 };

static void must(enum mb_status status, const struct mb_error *err)
{
    if (status != MB_OK)
        fail_msg("%s", err->msg);
}

static enum mb_status open_with(const char *path, int n_threads, uint64_t memory_nbytes,
                                struct mb_model **model, struct mb_error *err)
{
    const struct mb_model_options options = {
        .size = sizeof options, .n_threads = n_threads, .memory_nbytes = memory_nbytes, .n_ctx = N_CTX};
    return mb_model_open(path, &options, model, err);
}

/* The lowest limit that works, as the refusal of a lower one says it. */
static uint64_t lowest_limit(const char *path, int n_threads)
{
    struct mb_model *model;
    struct mb_error err;
    unsigned long n_mib = 0;
    assert_int_equal(open_with(path, n_threads, 1 << 20, &model, &err), MB_NO_MEMORY);
    const char *words = strstr(err.msg, "at least ");
    if (words == NULL || sscanf(words, "at least %lu MiB", &n_mib) != 1)
        fail_msg("no limit that works: %s", err.msg);
    return (uint64_t)(n_mib + 1) << 20; /* the program may have grown by a few pages */
}

/* Other memory of this program grows and shrinks. */
static bool is_near(size_t n, size_t n_held)
{
    size_t off = n > n_held ? n - n_held : n_held - n;
    return off <= 1 + n_held / 8;
}

/* A model with room for so many of its experts. */
static struct mb_model *open_holding(const char *path, int n_threads, size_t n_held)
{
    uint64_t limit = lowest_limit(path, n_threads);
    struct mb_model *model;
    struct mb_error err;
    for (int i = 0; i < 20; i++) {
        enum mb_status status = open_with(path, n_threads, limit, &model, &err);
        if (status == MB_NO_MEMORY) {
            limit += 1 << 17;
            continue;
        }
        must(status, &err);
        const struct mb_store_memory *memory = &mb_model_info(model)->memory;
        if (memory->reads != MB_READS_NONE && is_near(memory->n_experts_held, n_held))
            return model;
        if (memory->reads == MB_READS_NONE)
            limit -= 1 << 16;
        else
            limit += (uint64_t)((int64_t)n_held - (int64_t)memory->n_experts_held) *
                     (memory->pool_nbytes / memory->n_experts_held);
        mb_model_close(model);
    }
    fail_msg("no limit leaves room for %zu experts", n_held);
    return NULL;
}

/* Logits of a prompt in two pieces, and of what is generated after it. */
static float *run(struct mb_model *model)
{
    struct mb_error err;
    struct mb_session *session;
    const struct mb_session_options options = {.size = sizeof options, .n_ctx = N_CTX};
    size_t n_vocab = mb_model_info(model)->n_vocab;
    float *logits = calloc(N_ROWS * n_vocab, sizeof *logits);
    int32_t tokens[N_ROWS];
    assert_non_null(logits);
    for (size_t i = 0; i < N_ROWS; i++)
        tokens[i] = (int32_t)((i * 331 + 7) % n_vocab);
    must(mb_session_open(model, &options, &session, &err), &err);
    for (size_t i = 0, n; i < N_ROWS; i += n) {
        n = i == 0 ? N_PROMPT / 2 : i < N_PROMPT ? N_PROMPT - i : 1;
        struct mb_batch_item item = {.session = session,
                                     .tokens = tokens + i,
                                     .n_tokens = n,
                                     .is_generated = i >= N_PROMPT,
                                     .logits = logits + i * n_vocab,
                                     .all_logits = true};
        must(mb_decode(model, &item, 1, &err), &err);
    }
    mb_session_close(session);
    return logits;
}

static float *run_in_memory(size_t *nbytes)
{
    struct mb_model *model;
    struct mb_error err;
    must(open_with(test_path("coded"), 1, 0, &model, &err), &err);
    assert_int_equal(mb_model_info(model)->memory.reads, MB_READS_NONE);
    float *logits = run(model);
    *nbytes = N_ROWS * mb_model_info(model)->n_vocab * sizeof *logits;
    assert_int_equal(mb_model_traffic(model).n_acquired, 0);
    mb_model_close(model);
    return logits;
}

/* ---------------------------------------------------------------- results */

static void logits_are_the_same_whatever_memory_holds(void **state)
{
    (void)state;
    static const size_t held[] = {3, N_EXPERTS / 10, N_EXPERTS / 2, N_EXPERTS * 3 / 4};
    size_t nbytes;
    float *expected = run_in_memory(&nbytes);
    for (size_t i = 0; i < sizeof held / sizeof *held; i++)
        for (int n_threads = 1; n_threads <= 3; n_threads++) {
            struct mb_model *model = open_holding(test_path("coded"), n_threads, held[i]);
            float *first = run(model);
            assert_memory_equal(first, expected, nbytes);
            struct mb_store_traffic cold = mb_model_traffic(model);
            float *second = run(model); /* with what is in memory now */
            assert_memory_equal(second, expected, nbytes);
            struct mb_store_traffic warm = mb_model_traffic(model);
            assert_int_equal(mb_model_info(model)->memory.n_experts, N_EXPERTS);
            assert_true(cold.n_misses > 0 && cold.n_misses <= cold.n_acquired);
            assert_true(warm.n_misses > cold.n_misses);
            free(first);
            free(second);
            mb_model_close(model);
        }
    free(expected);
}

/* From the lowest limit on: passes of 16 tokens, then more, and the prompt's pieces are cut by them. */
static void logits_are_the_same_however_small_passes_are(void **state)
{
    (void)state;
    size_t nbytes, n_before = 0, n_sizes = 0;
    float *expected = run_in_memory(&nbytes);
    uint64_t limit = lowest_limit(test_path("coded"), 2);
    for (bool is_whole = false; !is_whole;) {
        struct mb_model *model;
        struct mb_error err;
        must(open_with(test_path("coded"), 2, limit, &model, &err), &err);
        size_t n_tokens = mb_model_info(model)->n_pass_tokens;
        is_whole = n_tokens >= mb_model_info(model)->n_step_tokens;
        if (n_tokens != n_before) {
            float *logits = run(model);
            assert_memory_equal(logits, expected, nbytes);
            free(logits);
            n_sizes++;
        }
        mb_model_close(model);
        assert_true(n_before > 0 || n_tokens == MB_PASS_TOKENS >> (MB_PASS_SIZES - 1));
        n_before = n_tokens;
        limit += limit / 4;
    }
    assert_true(n_sizes >= 3);
    free(expected);
}

/* All experts in smaller passes rather than some in larger ones; else a pass has no more than experts. */
static void a_pass_has_what_experts_leave_it(void **state)
{
    (void)state;
    static const uint64_t passes[MB_PASS_SIZES] = {320, 160, 80, 40, 20, 10};
    assert_int_equal(mb_pass_tokens_for(passes, 512, 5000, 4000, 10), 512);
    assert_int_equal(mb_pass_tokens_for(passes, 512, 4100, 4000, 10), 128);
    assert_int_equal(mb_pass_tokens_for(passes, 512, 4010, 4000, 10), 16);
    assert_int_equal(mb_pass_tokens_for(passes, 512, 4009, 4000, 10), 512);
    assert_int_equal(mb_pass_tokens_for(passes, 512, 639, 4000, 10), 256);
    assert_int_equal(mb_pass_tokens_for(passes, 512, 639, 4000, 200),
                     16); /* 4 times 200 are more than are left */
    assert_int_equal(mb_pass_tokens_for(passes, 512, 0, 4000, 10), 16);
    assert_int_equal(mb_pass_tokens_for(passes, 512, UINT64_MAX, UINT64_MAX, UINT64_MAX), 16);
    /* No more than come together. */
    assert_int_equal(mb_pass_tokens_for(passes, 256, 5000, 4000, 10), 256);
    assert_int_equal(mb_pass_tokens_for(passes, 129, 5000, 4000, 10), 256);
    assert_int_equal(mb_pass_tokens_for(passes, 128, 4009, 4000, 10), 128);
    assert_int_equal(mb_pass_tokens_for(passes, 1, 5000, 4000, 10), 16);
    assert_int_equal(mb_pass_tokens_for(passes, SIZE_MAX, 5000, 4000, 10), 512);
}

static void looking_ahead_reads_what_is_used_and_changes_no_bit(void **state)
{
    (void)state;
    size_t nbytes;
    struct mb_error err;
    float *expected = run_in_memory(&nbytes);
    struct mb_model *model = open_holding(test_path("coded"), 2, N_EXPERTS / 4);
    struct mb_model *without;
    for (int i = 0; i < 4; i++) {
        float *logits = run(model);
        assert_memory_equal(logits, expected, nbytes);
        free(logits);
    }
    struct mb_store_traffic traffic = mb_model_traffic(model);
    assert_true(traffic.n_hinted > 0 && traffic.n_hints_used > 0 && traffic.n_hints_used <= traffic.n_hinted);
    const struct mb_model_options options = {.size = sizeof options,
                                             .n_threads = 2,
                                             .memory_nbytes = mb_model_info(model)->memory_nbytes + (1 << 20),
                                             .n_ctx = N_CTX,
                                             .lookahead = MB_LOOKAHEAD_OFF};
    mb_model_close(model);
    must(mb_model_open(test_path("coded"), &options, &without, &err), &err);
    float *logits = run(without);
    assert_memory_equal(logits, expected, nbytes);
    assert_int_equal(mb_model_traffic(without).n_hinted, 0);
    mb_model_close(without);
    free(logits);
    free(expected);
}

/* Experts by token and layer alone, so that each is used; guesses are the same ones or others. */
struct imposed {
    bool are_guesses_right;
    size_t n_guesses, n_choices, n_wrong; /* wrong: reported routes that are not what was imposed */
};

static int32_t expert_of(uint64_t token, size_t layer, size_t k)
{
    return (int32_t)((token * 5 + layer * 3 + k) % 16);
}

/* An mb_impose_fn. */
static void impose(void *ctx, uint64_t token, size_t layer, bool is_guess, int32_t *experts, size_t n)
{
    struct imposed *imposed = ctx;
    imposed->n_guesses += is_guess;
    imposed->n_choices += !is_guess;
    for (size_t k = 0; k < n; k++)
        experts[k] = expert_of(token + (is_guess && !imposed->are_guesses_right ? 1 : 0), layer, k);
}

/* An mb_route_fn: positions are numbers of tokens, in the first sequence of a model. */
static void compare(void *ctx, size_t layer, size_t pos, const int32_t *experts, const float *weights,
                    size_t n, float margin)
{
    struct imposed *imposed = ctx;
    (void)weights, (void)margin;
    for (size_t k = 0; k < n; k++)
        imposed->n_wrong += experts[k] != expert_of(pos, layer, k);
}

static void imposed_routing_is_what_is_used_and_the_same_bits_whatever_is_guessed(void **state)
{
    (void)state;
    float *logits[3];
    uint64_t n_used[3] = {0};
    size_t nbytes = 0;
    for (int i = 0; i < 3; i++) {
        struct imposed imposed = {.are_guesses_right = i == 1};
        struct mb_model *model;
        struct mb_error err;
        if (i == 0)
            must(open_with(test_path("coded"), 2, 0, &model, &err), &err);
        else
            model = open_holding(test_path("coded"), 2, N_EXPERTS / 2);
        nbytes = N_ROWS * mb_model_info(model)->n_vocab * sizeof **logits;
        mb_model_impose_routing(model, impose, &imposed);
        mb_model_watch_routes(model, compare, &imposed);
        logits[i] = run(model);
        n_used[i] = mb_model_traffic(model).n_hints_used;
        assert_int_equal(imposed.n_wrong, 0);
        assert_int_equal(imposed.n_choices, N_ROWS * 8);
        assert_true(i == 0 ? imposed.n_guesses == 0 : imposed.n_guesses >= N_REPLY * 8);
        mb_model_close(model);
    }
    assert_memory_equal(logits[1], logits[0], nbytes);
    assert_memory_equal(logits[2], logits[0], nbytes);
    assert_true(n_used[1] > n_used[2]);
    for (int i = 0; i < 3; i++)
        free(logits[i]);
}

/* ---------------------------------------------------------------- limits */

static void a_limit_that_is_too_low_is_refused_with_one_that_works(void **state)
{
    (void)state;
    struct mb_model *model;
    struct mb_error err;
    uint64_t limit = lowest_limit(test_path("coded"), 1);
    must(open_with(test_path("coded"), 1, limit, &model, &err), &err);
    mb_model_close(model);
    assert_int_equal(open_with(test_path("coded"), 1, limit - (3 << 20), &model, &err), MB_NO_MEMORY);
    /* Of a plain model nothing can be streamed. */
    assert_int_equal(open_with(MB_REPO "/models/reference", 1, 16 << 20, &model, &err), MB_NO_MEMORY);
    assert_non_null(strstr(err.msg, "compress"));
}

static void caches_stay_within_what_the_limit_left_them(void **state)
{
    (void)state;
    struct mb_session *first, *second;
    struct mb_error err;
    struct mb_session_options options = {.size = sizeof options, .n_ctx = N_CTX};
    struct mb_model *model = open_holding(test_path("coded"), 1, N_EXPERTS / 2);
    must(mb_session_open(model, &options, &first, &err), &err);
    assert_int_equal(mb_session_open(model, &options, &second, &err), MB_NO_MEMORY);
    assert_non_null(strstr(err.msg, "limit of memory"));
    mb_session_close(first);
    must(mb_session_open(model, &options, &second, &err), &err);
    mb_session_close(second);
    mb_model_close(model);
}

/* ---------------------------------------------------------------- faults */

/* A copy of the coded model, of which a streaming model is opened before its files are touched. */
static struct mb_model *open_copy(const char *name)
{
    char line[2400];
    snprintf(line, sizeof line, "cp -r '%s' '%s'", test_path("coded"), test_path(name));
    assert_int_equal(system(line), 0); /* NOLINT(cert-env33-c): our own words */
    return open_holding(test_path(name), 2, N_EXPERTS / 4);
}

/* The stored tensor of an expert. */
static const struct mb_tensor *tensor_of(const struct mb_model *model, const char *name)
{
    const struct mb_tensor *tensor = mb_checkpoint_find(model->ckpt, name);
    assert_non_null(tensor);
    return tensor;
}

static enum mb_status feed(struct mb_model *model, struct mb_error *err)
{
    static const int32_t tokens[] = {1, 5, 900, 40, 77, 3, 2000, 18, 66, 123, 321, 45, 54, 9, 99, 999};
    struct mb_session *session;
    const struct mb_session_options options = {.size = sizeof options, .n_ctx = N_CTX};
    must(mb_session_open(model, &options, &session, err), err);
    struct mb_batch_item item = {
        .session = session, .tokens = tokens, .n_tokens = sizeof tokens / sizeof *tokens};
    enum mb_status status = mb_decode(model, &item, 1, err);
    mb_session_close(session);
    return status;
}

static void assert_told(const struct mb_error *err, const char *words)
{
    if (strstr(err->msg, ".safetensors") == NULL || strstr(err->msg, ".experts.") == NULL ||
        strstr(err->msg, words) == NULL)
        fail_msg("not the file, the tensor and '%s': %s", words, err->msg);
}

static const char expert_names[] = "model.layers.%d.mlp.experts.%d.moebius";
enum { FIRST_LAYER = 1, LAST_LAYER = 8, N_LAYER_EXPERTS = 16 };

/* Writes 4 KiB of something else into every expert, after the model was opened. */
static void a_blob_that_changes_while_the_model_runs_is_refused(void **state)
{
    (void)state;
    char name[100];
    uint8_t bytes[4096];
    struct mb_error err;
    struct mb_model *model = open_copy("changed");
    for (int layer = FIRST_LAYER; layer <= LAST_LAYER; layer++)
        for (int e = 0; e < N_LAYER_EXPERTS; e++) {
            snprintf(name, sizeof name, expert_names, layer, e);
            const struct mb_tensor *tensor = tensor_of(model, name);
            int fd = open(mb_tensor_path(model->ckpt, tensor), O_RDWR);
            assert_true(fd >= 0);
            assert_int_equal(pread(fd, bytes, sizeof bytes, (off_t)tensor->file_pos + 4096), sizeof bytes);
            bytes[100] ^= 4;
            assert_int_equal(pwrite(fd, bytes, sizeof bytes, (off_t)tensor->file_pos + 4096), sizeof bytes);
            close(fd);
        }
    assert_int_equal(feed(model, &err), MB_BAD_DATA);
    assert_told(&err, "checksum");
    assert_int_equal(feed(model, &err), MB_BAD_DATA); /* and again: nothing of it was kept */
    mb_model_close(model);
}

static void a_file_that_is_cut_while_the_model_runs_is_refused(void **state)
{
    (void)state;
    struct mb_error err;
    char name[100];
    struct mb_model *model = open_copy("cut");
    for (int layer = FIRST_LAYER; layer <= LAST_LAYER; layer++) {
        snprintf(name, sizeof name, expert_names, layer, 0);
        const struct mb_tensor *tensor = tensor_of(model, name);
        assert_int_equal(truncate(mb_tensor_path(model->ckpt, tensor), 8192), 0);
    }
    assert_int_equal(feed(model, &err), MB_BAD_DATA);
    assert_told(&err, "truncated");
    mb_model_close(model);
}

/* What is open stays what it was. */
static void a_file_that_is_replaced_changes_nothing(void **state)
{
    (void)state;
    struct mb_error err;
    char line[2400];
    struct mb_model *model = open_copy("replaced");
    snprintf(line, sizeof line, "cd '%s' && for f in *.safetensors; do echo no >x && mv x \"$f\"; done",
             test_path("replaced"));
    assert_int_equal(system(line), 0); /* NOLINT(cert-env33-c): our own words */
    must(feed(model, &err), &err);
    mb_model_close(model);
}

/* Nearly all of down have exponents of columns: where a blob has room for them. */
static int begin(void **state)
{
    if (coded_reference_begin(state) != 0)
        return -1;
    return test_add_exponents(test_path("coded")) > N_EXPERTS * 3 / 4 ? 0 : -1;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(logits_are_the_same_whatever_memory_holds),
        cmocka_unit_test(logits_are_the_same_however_small_passes_are),
        cmocka_unit_test(a_pass_has_what_experts_leave_it),
        cmocka_unit_test(looking_ahead_reads_what_is_used_and_changes_no_bit),
        cmocka_unit_test(imposed_routing_is_what_is_used_and_the_same_bits_whatever_is_guessed),
        cmocka_unit_test(a_limit_that_is_too_low_is_refused_with_one_that_works),
        cmocka_unit_test(caches_stay_within_what_the_limit_left_them),
        cmocka_unit_test(a_blob_that_changes_while_the_model_runs_is_refused),
        cmocka_unit_test(a_file_that_is_cut_while_the_model_runs_is_refused),
        cmocka_unit_test(a_file_that_is_replaced_changes_nothing),
    };
    return cmocka_run_group_tests(tests, begin, test_folder_end);
}
