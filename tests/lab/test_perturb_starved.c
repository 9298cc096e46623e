/*
 * test_perturb_starved.c - the n-th allocation fails, for every n, while errors are put into a model and
 * taken out: it says so, leaks nothing, and leaves the model as it was.
 */
#include "checkpoint/folder.h"
#include "cmocka_all.h"
#include "starve.h"
#include <jansson.h>
#include <moebius/perturb.h>
#include <stdlib.h>
#include <string.h>

static const char hash[MB_HASH_NBYTES] = "0123456789abcdef0123456789abcdef";

static uint64_t logits_of(struct mb_model *model)
{
    static float logits[4096];
    static const int32_t tokens[] = {1, 5, 9, 2};
    struct mb_session *session;
    uint64_t sum = 0;
    assert_int_equal(mb_session_open(model, NULL, &session, NULL), MB_OK);
    struct mb_batch_item item = {.session = session, .tokens = tokens, .n_tokens = 4, .logits = logits};
    assert_int_equal(mb_decode(model, &item, 1, NULL), MB_OK);
    mb_session_close(session);
    for (size_t i = 0; i < mb_model_info(model)->n_vocab; i++) {
        uint32_t bits;
        memcpy(&bits, &logits[i], sizeof bits);
        sum = sum * 1000003 + bits;
    }
    return sum;
}

static enum mb_status put_all(struct mb_perturber *perturber, const struct mb_profile *profile,
                              struct mb_error *err)
{
    static const char *const texts[] = {
        "layer=1 experts=top2: normal 30%", "layer=1 experts=cold1: codec 30%", "layer=2 experts=0: drop",
        "layer=2 experts=1: gauss-iso 30%", "attention proj=o: random",         "lm_head: zero",
        "layer=2 experts=2: codec:nf4",
    };
    struct mb_perturb_report report;
    enum mb_status status = MB_OK;
    for (size_t i = 0; i < sizeof texts / sizeof *texts && status == MB_OK; i++)
        status = mb_perturb_text(perturber, texts[i], profile, i, &report, err);
    return status;
}

static enum mb_status put_and_undo(struct mb_model *model, const struct mb_profile *profile,
                                   struct mb_error *err)
{
    struct mb_perturber *perturber;
    struct mb_perturb_options options = {.size = sizeof options, .n_threads = 1};
    enum mb_status status = mb_perturb_open(model, &options, &perturber, err);
    if (status != MB_OK)
        return status;
    status = put_all(perturber, profile, err);
    if (status == MB_OK)
        status = mb_perturb_undo(perturber, err);
    mb_perturb_close(perturber);
    return status;
}

static enum mb_status run(struct mb_model *model, struct mb_error *err)
{
    struct mb_profile *profile, *back = NULL;
    enum mb_status status = mb_profile_open(model, &profile, err);
    if (status != MB_OK)
        return status;
    mb_profile_count(profile, 1, 0, (const int32_t[]){3, 5}, (const float[]){0.5F, 0.5F}, 2, 0);
    status = mb_profile_save(profile, test_path("p.json"), hash, err);
    if (status == MB_OK)
        status = mb_profile_load(test_path("p.json"), hash, &back, err);
    if (status == MB_OK)
        status = put_and_undo(model, back, err);
    mb_profile_close(back);
    mb_profile_close(profile);
    return status;
}

static void errors_starve(void **state)
{
    (void)state;
    struct mb_error err = {0};
    struct mb_model *model;
    struct mb_model_options options = {.size = sizeof options, .n_threads = 1};
    assert_int_equal(mb_model_open(MB_REPO "/tests/model/data/checkpoints/groups", &options, &model, &err),
                     MB_OK);
    uint64_t before_logits = logits_of(model);
    if (run(model, &err) != MB_OK)
        fail_msg("%s", err.msg);
    long n = 0;
    for (bool is_done = false; !is_done;) {
        struct starve_held before = starve_held();
        starve_begin(STARVE_MEMORY, ++n, false);
        enum mb_status status = run(model, &err);
        is_done = starve_end() < n;
        struct starve_held after = starve_held();
        if (is_done ? status != MB_OK : status != MB_NO_MEMORY)
            fail_msg("allocation %ld: status %d: %s", n, (int)status, err.msg);
        if (after.n_blocks != before.n_blocks || after.mapped_nbytes != before.mapped_nbytes ||
            after.n_files != before.n_files)
            fail_msg("allocation %ld: left behind %ld blocks, %ld mapped bytes, %ld files", n,
                     after.n_blocks - before.n_blocks, after.mapped_nbytes - before.mapped_nbytes,
                     after.n_files - before.n_files);
        assert_true(logits_of(model) == before_logits);
    }
    print_message("%ld allocations\n", n - 1);
    assert_true(n > 80);
    mb_model_close(model);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(errors_starve)};
    json_set_alloc_funcs(starve_spared_malloc, free);
    return cmocka_run_group_tests(tests, test_folder_begin, test_folder_end);
}
