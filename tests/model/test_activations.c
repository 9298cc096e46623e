/*
 * test_activations.c - exact and fast activations of a coded model: neither depends on how tokens are fed, on
 * threads, or on what shares a batch.
 */
#include "checkpoint/folder.h"
#include "cmocka_all.h"
#include "npy.h"
#include <moebius/checkpoint.h>
#include <moebius/engine.h>
#include <stdlib.h>
#include <string.h>

#define REFERENCE MB_REPO "/models/reference"
#define GOLDEN MB_REPO "/tests/model/data/goldens/reference-0/"

enum { N_TOKENS = 40, N_VOCAB = 2048 };

static void must(enum mb_status status, const struct mb_error *err)
{
    if (status != MB_OK)
        fail_msg("%s", err->msg);
}

static void compress_at(const char *folder, const char *bound)
{
    struct mb_compress_options options = {.size = sizeof options,
                                          .n_threads = 2,
                                          .has_bound = true,
                                          .has_dense_bound = true,
                                          .dense_bound = {MB_BOUND_MEAN_ABS, 0.05}};
    struct mb_compress_report report;
    struct mb_error err;
    must(mb_bound_parse(bound, &options.bound, &err), &err);
    must(mb_compress(REFERENCE, folder, &options, &report, &err), &err);
}

/* Logits of all tokens, in pieces, beside another session that is fed the same tokens if is_shared. */
static float *logits_of(const char *folder, enum mb_activation_form form, int n_threads, size_t piece,
                        bool is_shared)
{
    struct mb_model_options options = {.size = sizeof options, .n_threads = n_threads, .activations = form};
    struct mb_model *model;
    struct mb_session *sessions[2];
    struct mb_error err;
    struct npy tokens = npy_read(GOLDEN "tokens.npy", "<i4");
    float *logits = malloc((size_t)N_TOKENS * N_VOCAB * sizeof *logits);
    assert_true(logits != NULL && tokens.n >= N_TOKENS);
    must(mb_model_open(folder, &options, &model, &err), &err);
    for (size_t i = 0; i < 2; i++)
        must(mb_session_open(model, NULL, &sessions[i], &err), &err);
    for (size_t at = 0; at < N_TOKENS; at += piece) {
        struct mb_batch_item items[2] = {
            {.session = sessions[0],
             .tokens = (const int32_t *)tokens.data + at,
             .n_tokens = piece,
             .logits = logits + at * N_VOCAB,
             .all_logits = true},
            {.session = sessions[1], .tokens = (const int32_t *)tokens.data + at, .n_tokens = piece}};
        must(mb_decode(model, items, is_shared ? 2 : 1, &err), &err);
    }
    for (size_t i = 0; i < 2; i++)
        mb_session_close(sessions[i]);
    mb_model_close(model);
    free(tokens.data);
    return logits;
}

static bool same_and_freed(float *a, float *b)
{
    bool same = memcmp(a, b, (size_t)N_TOKENS * N_VOCAB * sizeof *a) == 0;
    free(a);
    free(b);
    return same;
}

static void results_do_not_depend_on_how_tokens_are_fed(void **state)
{
    (void)state;
    const char *folder = test_path("coded");
    compress_at(folder, "30%");
    for (int form = MB_ACTIVATIONS_AUTO; form <= MB_ACTIVATIONS_FAST; form++) {
        enum mb_activation_form f = (enum mb_activation_form)form;
        assert_true(
            same_and_freed(logits_of(folder, f, 1, N_TOKENS, false), logits_of(folder, f, 2, 1, false)));
        assert_true(same_and_freed(logits_of(folder, f, 2, 8, true), logits_of(folder, f, 1, 5, false)));
        assert_true(same_and_freed(logits_of(folder, f, 2, 1, true), logits_of(folder, f, 2, 4, false)));
    }
    test_remove(folder);
}

/* Experts of 30 % take fewer than MB_FAST_BITS_MAX bits, attention of 5 % more. */
static void automatic_is_fast_where_weights_are_coarse(void **state)
{
    (void)state;
    const char *folder = test_path("coded");
    for (int is_coarse = 0; is_coarse < 2; is_coarse++) {
        compress_at(folder, is_coarse ? "30%" : "2%");
        float *exact = logits_of(folder, MB_ACTIVATIONS_EXACT, 2, N_TOKENS, false);
        float *fast = logits_of(folder, MB_ACTIVATIONS_FAST, 2, N_TOKENS, false);
        float *automatic = logits_of(folder, MB_ACTIVATIONS_AUTO, 2, N_TOKENS, false);
        size_t nbytes = (size_t)N_TOKENS * N_VOCAB * sizeof *exact;
        assert_true(memcmp(exact, fast, nbytes) != 0 && memcmp(automatic, fast, nbytes) != 0);
        assert_int_equal(memcmp(automatic, exact, nbytes) != 0, is_coarse);
        free(exact);
        free(fast);
        free(automatic);
        test_remove(folder);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(results_do_not_depend_on_how_tokens_are_fed),
        cmocka_unit_test(automatic_is_fast_where_weights_are_coarse),
    };
    return cmocka_run_group_tests(tests, test_folder_begin, test_folder_end);
}
