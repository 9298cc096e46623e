/*
 * test_perturb.c - errors in a model's weights: their distributions, their bounds, that they depend on seed
 * and place alone, and that they come out without a trace.
 */
#include "base/error.h"
#include "checkpoint/folder.h"
#include "cmocka_all.h"
#include "lab/opened.h"
#include "lab/random.h"
#include "model/child.h"
#include <math.h>
#include <moebius/engine.h>
#include <moebius/perturb.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

#define CHECKPOINTS MB_REPO "/tests/model/data/checkpoints/"
#define REFERENCE MB_REPO "/models/reference"
enum { N_TOKENS = 12, N_VOCAB_MAX = 8192 };

static struct mb_perturber *open_perturber(struct mb_model *model)
{
    struct mb_error err;
    struct mb_perturber *perturber;
    must(mb_perturb_open(model, NULL, &perturber, &err), &err);
    return perturber;
}

static struct mb_perturb_report put(struct mb_perturber *perturber, const char *text, uint64_t seed)
{
    struct mb_error err;
    struct mb_perturb_report report;
    must(mb_perturb_text(perturber, text, NULL, seed, &report, &err), &err);
    return report;
}

static void undo(struct mb_perturber *perturber)
{
    struct mb_error err;
    must(mb_perturb_undo(perturber, &err), &err);
}

/* Logits of a prompt, in a fresh session. */
static uint64_t logits_hash(struct mb_model *model)
{
    static float logits[N_VOCAB_MAX];
    struct mb_error err;
    struct mb_session *session;
    int32_t tokens[N_TOKENS];
    size_t n_vocab = mb_model_info(model)->n_vocab;
    assert_true(n_vocab <= N_VOCAB_MAX);
    for (size_t i = 0; i < N_TOKENS; i++)
        tokens[i] = (int32_t)((i * 31 + 7) % n_vocab);
    must(mb_session_open(model,
                         &(struct mb_session_options){.size = sizeof(struct mb_session_options), .n_ctx = 16},
                         &session, &err),
         &err);
    struct mb_batch_item item = {
        .session = session, .tokens = tokens, .n_tokens = N_TOKENS, .logits = logits};
    must(mb_decode(model, &item, 1, &err), &err);
    mb_session_close(session);
    return XXH3_64bits(logits, n_vocab * sizeof *logits);
}

static void make_coded(const char *name, const char *bound_text)
{
    struct mb_error err;
    struct mb_compress_report report;
    char path[512];
    struct mb_compress_options options = {.size = sizeof options, .n_threads = 2, .has_bound = true};
    must(mb_bound_parse(bound_text, &options.bound, &err), &err);
    snprintf(path, sizeof path, "%s%s", CHECKPOINTS, name);
    must(mb_compress(path, test_path("coded"), &options, &report, &err), &err);
}

/* ---------------------------------------------------------------- random numbers */

/* Moments of the standard normal distribution, each within five standard errors. */
static void normal_numbers_have_the_moments_of_the_normal_distribution(void **state)
{
    (void)state;
    enum { N = 1 << 20 };
    double *z = malloc(N * sizeof *z), sums[7] = {0};
    static const double moments[7] = {1, 0, 1, 0, 3, 0, 15};
    static const double variances[7] = {0, 1, 2, 15, 96, 945, 10170}; /* of z^k: E z^2k - (E z^k)^2 */
    uint64_t n_tail = 0;
    mb_random_normal(mb_random_key(1, "a"), 0, N, z);
    for (size_t i = 0; i < N; i++) {
        double power = 1;
        for (int k = 1; k <= 6; k++)
            sums[k] += power *= z[i];
        n_tail += fabs(z[i]) > 1;
    }
    for (int k = 1; k <= 6; k++)
        if (fabs(sums[k] / N - moments[k]) > 5 * sqrt(variances[k] / N))
            fail_msg("moment %d is %g", k, sums[k] / N);
    assert_true(fabs((double)n_tail / N - 0.3173105) < 5 * sqrt(0.3173 * 0.6827 / N));
    free(z);
}

/* The quantile function undone by erfc(): bits of the draws are even, and in all places. */
static void normal_numbers_are_quantiles_of_even_ones(void **state)
{
    (void)state;
    enum { N = 1 << 16 };
    static double z[N], u[N];
    uint64_t key = mb_random_key(7, "model.layers.1.mlp.experts.0.up_proj.weight");
    mb_random_normal(key, 1000, N, z);
    mb_random_even(key, 1000, N, u);
    size_t n_bins[16] = {0};
    for (size_t i = 0; i < N; i++) {
        double p = 0.5 * erfc(-z[i] * M_SQRT1_2), expected = (u[i] + 1) / 2;
        if (fabs(p - expected) > 1e-13)
            fail_msg("%g is the quantile of %.17g, not %.17g", z[i], p, expected);
        assert_true(u[i] > -1 && u[i] < 1);
        n_bins[(int)(expected * 16)]++;
    }
    double chi = 0;
    for (int i = 0; i < 16; i++)
        chi += pow((double)n_bins[i] - N / 16.0, 2) / (N / 16.0);
    assert_true(chi < 50); /* 15 degrees of freedom: once in 80,000 */
}

static void numbers_depend_on_their_place_and_name_alone(void **state)
{
    (void)state;
    double all[100], part[10];
    uint64_t key = mb_random_key(3, "x");
    mb_random_normal(key, 0, 100, all);
    mb_random_normal(key, 55, 10, part);
    assert_memory_equal(all + 55, part, sizeof part);
    mb_random_normal(mb_random_key(4, "x"), 55, 10, part);
    assert_true(all[55] != part[0]);
    mb_random_normal(mb_random_key(3, "y"), 55, 10, part);
    assert_true(all[55] != part[0]);
}

/* Of all machines. */
static void numbers_are_the_same_on_every_machine(void **state)
{
    (void)state;
    enum { N = 100000 };
    static double z[N];
    mb_random_normal(mb_random_key(1, "a"), 0, N, z);
    assert_int_equal(XXH3_64bits(z, sizeof z), 0x60930234b6b622ed);
}

/* ---------------------------------------------------------------- errors */

static void check_share(double share, double expected, uint64_t n, const char *what)
{
    if (fabs(share - expected) > 5 * sqrt(expected * (1 - expected) / (double)n) + 1e-12)
        fail_msg("%s: %g, not %g", what, share, expected);
}

static void errors_have_the_size_that_they_say(void **state)
{
    (void)state;
    struct mb_model *model = open_model(REFERENCE, 2);
    struct mb_perturber *p = open_perturber(model);
    struct mb_perturb_report r = put(p, "layer=1 experts=all: normal 80%", 1);
    check_share(r.share_beyond, 0.3173105, r.n_weights, "share of normal errors beyond e");
    assert_true(fabs(r.err_rms - 1) < 5 / sqrt(2.0 * (double)r.n_weights));
    assert_true(r.err_max > 4 && r.err_max < 7);
    assert_int_equal(r.first_layer, 1);
    assert_false(r.is_head_changed);
    double norm = r.norm;
    undo(p);
    r = put(p, "layer=1 experts=all: uniform 80%", 1);
    assert_true(r.err_max <= 1 && r.err_max > 0.9999 && r.share_beyond == 0);
    assert_true(fabs(r.err_rms - 1 / sqrt(3)) < 1e-3);
    assert_true(fabs(r.norm / norm - 1 / sqrt(3)) < 2e-3);
    undo(p);
    r = put(p, "layer=1 experts=all: codec 80%", 1);
    assert_true(r.err_max <= 1 && r.err_max > 0.99 && r.share_beyond == 0);
    double rms = r.err_rms;
    norm = r.norm;
    assert_true(rms > 0.5 && rms < 0.6);
    uint64_t coded_nbytes = r.nbytes;
    undo(p);
    r = put(p, "layer=1 experts=all: gauss-iso 80%", 1);
    assert_true(fabs(r.err_rms / rms - 1) < 5e-3 && fabs(r.norm / norm - 1) < 5e-3 && r.err_max > 1.5);
    assert_true(coded_nbytes < r.nbytes / 4);
    undo(p);
    r = put(p, "layer=1 experts=all: zero", 1);
    assert_true(r.norm == 1 && isnan(r.err_max) && isnan(r.err_rms) && isnan(r.share_beyond));
    undo(p);
    r = put(p, "layer=1 experts=all: random", 1);
    assert_true(fabs(r.norm - M_SQRT2) < 0.01); /* two independent ones of equal deviation */
    undo(p);
    r = put(p, "experts=0: none", 1);
    assert_true(r.n_matrices == 0 && r.first_layer == mb_model_info(model)->n_layers);
    mb_perturb_close(p);
    mb_model_close(model);
}

/* The bound that compress takes for the same folder. */
static void a_bound_is_relative_to_what_compress_takes_and_coded_weights_are_its(void **state)
{
    static const char *const targets[] = {"layer=1 experts=3", "layer=2 shared"};
    (void)state;
    make_coded("groups", "30%");
    struct mb_model *plain = open_model(CHECKPOINTS "groups", 1), *coded = open_model(test_path("coded"), 1);
    struct mb_perturber *p = open_perturber(plain);
    struct mb_error err;
    for (size_t t = 0; t < 2; t++) {
        struct mb_selection selection;
        size_t n;
        char text[128];
        must(mb_select(plain, targets[t], NULL, &selection, &err), &err);
        snprintf(text, sizeof text, "%s proj=down: uniform 30%%", targets[t]);
        struct mb_perturb_report r = put(p, text, 1);
        const struct mb_model_matrix *matrix = &mb_model_matrices(coded, &n)[selection.at[2]];
        assert_true(matrix->is_coded && strcmp(matrix->part, "down") == 0);
        assert_true(r.eps_min == matrix->eps && r.eps_max == matrix->eps);
        assert_int_equal(r.n_matrices, 1);
        undo(p);
        mb_selection_free(&selection);
    }
    /* All experts coded over the plain model: the coded model, whose other matrices are coded at 0 here. */
    put(p, "experts=all shared: codec 30%", 1);
    put(p, "attention dense: codec 10%", 1);
    put(p, "embedding lm_head: codec 5%", 1);
    assert_int_equal(logits_hash(plain), logits_hash(coded));
    mb_perturb_close(p);
    mb_model_close(plain);
    mb_model_close(coded);
    test_remove(test_path("coded"));
}

static void absolute_and_range_bounds_are_those_of_compress(void **state)
{
    (void)state;
    struct mb_model *model = open_model(CHECKPOINTS "groups", 1);
    struct mb_perturber *p = open_perturber(model);
    struct mb_perturb_report r = put(p, "layer=1 experts=3: normal abs:0.001", 1);
    assert_true(r.eps_min == 0.001 && r.eps_max == 0.001);
    r = put(p, "layer=2 experts=3: normal range:0.01", 1);
    assert_true(r.eps_min == r.eps_max && r.eps_min > 0);
    r = put(p, "lm_head: uniform 10%", 1);
    assert_true(r.is_head_changed && r.first_layer == 3 && r.share_beyond == 0);
    r = put(p, "embedding: uniform abs:1e-12", 1); /* below the distance of floats */
    assert_true(!r.is_head_changed && r.first_layer == 0 && r.share_beyond == 0 && r.err_max <= 1);
    mb_perturb_close(p);
    mb_model_close(model);
}

/* ---------------------------------------------------------------- determinism */

static const char *const errors[] = {"normal 80%", "uniform 30%", "codec 100%",   "random",
                                     "zero",       "drop",        "gauss-iso 50%"};
enum { N_ERRORS = sizeof errors / sizeof *errors };

struct setting {
    const char *folder;
    int n_threads;
};

static uint64_t hash_of_errors(const void *ctx)
{
    const struct setting *setting = ctx;
    struct mb_model *model = open_model(setting->folder, setting->n_threads);
    struct mb_perturber *p = open_perturber(model);
    uint64_t hashes[N_ERRORS];
    for (size_t i = 0; i < N_ERRORS; i++) {
        char text[128];
        snprintf(text, sizeof text, "layer=1 experts=1,3: %s", errors[i]);
        struct mb_perturb_report r = put(p, text, 5);
        r.seconds = 0;
        hashes[i] = logits_hash(model) ^ XXH3_64bits(&r.err_rms, sizeof r.err_rms);
        undo(p);
    }
    mb_perturb_close(p);
    mb_model_close(model);
    return XXH3_64bits(hashes, sizeof hashes);
}

/* First in this program: kernels have not been chosen yet. */
static void errors_are_the_same_for_every_thread_count_and_instruction_set(void **state)
{
    static const char *const cpus[] = {"-avx512", "-avx2", "-avxvnni,-avx512"};
    (void)state;
    make_coded("groups", "30%");
    const char *coded = test_path("coded"), *folders[] = {REFERENCE, CHECKPOINTS "groups", coded};
    for (size_t f = 0; f < 3; f++) {
        struct setting setting = {folders[f], 1};
        uint64_t hash = test_hash_in_child("", hash_of_errors, &setting);
        setting.n_threads = 4;
        assert_int_equal(test_hash_in_child("", hash_of_errors, &setting), hash);
#ifdef __x86_64__
        for (size_t i = 0; i < sizeof cpus / sizeof *cpus; i++)
            assert_int_equal(test_hash_in_child(cpus[i], hash_of_errors, &setting), hash);
#else
        (void)cpus;
#endif
    }
    test_remove(test_path("coded"));
}

static void another_seed_is_another_error(void **state)
{
    (void)state;
    struct mb_model *model = open_model(CHECKPOINTS "groups", 1);
    struct mb_perturber *p = open_perturber(model);
    for (size_t i = 0; i < N_ERRORS; i++) {
        struct mb_error err;
        struct mb_perturbation perturbation;
        char text[128];
        uint64_t hashes[2];
        must(mb_perturbation_parse(errors[i], &perturbation, &err), &err);
        snprintf(text, sizeof text, "experts=0-8: %s", errors[i]);
        for (size_t seed = 0; seed < 2 && perturbation.kind != MB_PERTURB_DROP; seed++) {
            put(p, text, seed + 1);
            hashes[seed] = logits_hash(model);
            undo(p);
        }
        if (perturbation.kind != MB_PERTURB_DROP)
            assert_true((hashes[0] != hashes[1]) == mb_perturbation_is_random(perturbation.kind));
    }
    mb_perturb_close(p);
    mb_model_close(model);
}

/* ---------------------------------------------------------------- undoing */

static void check_a_thousand(const char *folder)
{
    static const char *const targets[] = {"layer=1 experts=%zu", "layer=last experts=%zu proj=down",
                                          "experts=%zu",         "layer=1 experts=%zu proj=gate,up",
                                          "attention dense",     "layers=deep experts=%zu router",
                                          "embedding",           "lm_head experts=%zu"};
    struct mb_model *model = open_model(folder, 2);
    struct mb_perturber *p = open_perturber(model);
    uint64_t before = logits_hash(model), n_changed = 0, n_refused = 0;
    for (size_t i = 0; i < 1000; i++) {
        struct mb_error err;
        struct mb_perturb_report report;
        char target[96], text[160];
        size_t t = i % 8;
        snprintf(target, sizeof target, targets[t], i / 8 % 12);
        snprintf(text, sizeof text, "%s: %s", target, errors[i / 3 % N_ERRORS]);
        enum mb_status status = mb_perturb_text(p, text, NULL, i, &report, &err);
        bool is_drop = strstr(text, "drop") != NULL;
        if (status == MB_USAGE && is_drop)
            n_refused++;
        else
            must(status, &err);
        if (i % 25 == 0) {
            n_changed += logits_hash(model) != before;
            undo(p);
            assert_int_equal(logits_hash(model), before);
        } else if (i % 3 != 0 || status != MB_OK) {
            undo(p);
        } else {
            struct mb_perturb_report more; /* a second one beside it, or a refusal that leaves nothing */
            status = mb_perturb_text(p, "layer=1 experts=7 proj=up: normal 10%", NULL, i, &more, &err);
            assert_true(status == MB_OK || status == MB_USAGE);
            undo(p);
        }
    }
    assert_int_equal(logits_hash(model), before);
    assert_true(n_changed > 20 && n_refused < 200);
    mb_perturb_close(p);
    mb_model_close(model);
}

static void a_thousand_errors_leave_no_trace(void **state)
{
    (void)state;
    check_a_thousand(CHECKPOINTS "groups");
    make_coded("groups", "30%");
    check_a_thousand(test_path("coded"));
    test_remove(test_path("coded"));
}

static void closing_takes_errors_out(void **state)
{
    (void)state;
    struct mb_model *model = open_model(CHECKPOINTS "qwen3-moe", 1);
    uint64_t before = logits_hash(model);
    struct mb_perturber *p = open_perturber(model);
    put(p, "experts=1: normal 100%", 1);
    put(p, "experts=2: drop", 1);
    put(p, "experts=3: codec 100%", 1);
    assert_true(logits_hash(model) != before);
    mb_perturb_close(p);
    assert_int_equal(logits_hash(model), before);
    mb_model_close(model);
}

static void zero_costs_no_memory_and_drop_is_not_zero(void **state)
{
    (void)state;
    struct mb_model *model = open_model(CHECKPOINTS "groups", 1);
    struct mb_perturber *p = open_perturber(model);
    struct mb_perturb_report r = put(p, "experts=all: zero", 1);
    assert_true(r.nbytes <= 20 * 40 * 4);
    uint64_t zero = logits_hash(model);
    undo(p);
    r = put(p, "experts=0-1: drop", 1);
    assert_true(r.n_dropped == 4 && r.n_matrices == 12 && r.nbytes == 0 && r.norm == 1);
    assert_true(logits_hash(model) != zero);
    mb_perturb_close(p);
    mb_model_close(model);
}

/* ---------------------------------------------------------------- refusals */

static void check_refused(struct mb_perturber *p, const char *text, enum mb_status expected,
                          const char *reason)
{
    struct mb_error err;
    struct mb_perturb_report report;
    enum mb_status status = mb_perturb_text(p, text, NULL, 1, &report, &err);
    if (status != expected || strstr(err.msg, reason) == NULL)
        fail_msg("%s: status %d, '%s'; not '%s'", text, status, status == MB_OK ? "" : err.msg, reason);
}

static void what_cannot_be_done_is_refused_and_leaves_nothing(void **state)
{
    (void)state;
    struct mb_model *model = open_model(CHECKPOINTS "groups", 1);
    struct mb_perturber *p = open_perturber(model);
    uint64_t before = logits_hash(model);
    check_refused(p, "experts=1", MB_USAGE, "no colon");
    check_refused(p, "experts=1: nrmal 3%", MB_USAGE, "no such error; there are normal");
    check_refused(p, "experts=1: normal", MB_USAGE, "needs a bound");
    check_refused(p, "experts=1: normal 0", MB_USAGE, "no error");
    check_refused(p, "experts=1: normal 30", MB_USAGE, "not a bound");
    check_refused(p, "experts=1: zero 30%", MB_USAGE, "has no bound");
    check_refused(p, "experts=1: normal 30% 40%", MB_USAGE, "more than");
    check_refused(p, "experts=1: codec:nobody 30%", MB_USAGE, "nobody");
    check_refused(p, "experts=1: codec:a_name_that_is_much_too_long_for_any_codec 30%", MB_USAGE,
                  "a_name_that");
    check_refused(p, "experts=1 proj=up: drop", MB_USAGE, "whole experts");
    check_refused(p, "layer=1 shared: drop", MB_USAGE, "routed experts");
    check_refused(p, "experts=all: drop", MB_USAGE, "cannot be dropped");
    assert_int_equal(logits_hash(model), before);
    check_refused(p, "experts=1: normal abs:3e38", MB_USAGE, "infinite");
    put(p, "layer=1 experts=1 proj=up: normal 30%", 1);
    uint64_t changed = logits_hash(model);
    check_refused(p, "experts=1: uniform 30%", MB_USAGE, "has an error already");
    check_refused(p, "experts=1: drop", MB_USAGE, "has an error already");
    assert_int_equal(logits_hash(model), changed);
    undo(p);
    assert_int_equal(logits_hash(model), before);
    mb_perturb_close(p);
    mb_model_close(model);
}

/* Codecs of a bound keep it; those without one say so, and have errors all the same. */
static void another_codec_is_an_error_like_ours(void **state)
{
    (void)state;
    struct mb_model *model = open_model(CHECKPOINTS "groups", 2);
    struct mb_perturber *p = open_perturber(model);
    struct mb_perturb_report ours = put(p, "experts=1: codec 30%", 1);
    undo(p);
    struct mb_perturb_report r = put(p, "experts=1: codec:ours 30%", 1);
    assert_true(r.norm == ours.norm && r.nbytes == ours.nbytes);
    assert_true(r.bits == ours.bits && ours.bits > 3 && ours.bits < 8);
    undo(p);
    r = put(p, "experts=1: codec:cuszp-fixed 30%", 1);
    assert_true(r.norm > 0 && r.share_beyond == 0 && r.err_max <= 1 && r.nbytes > ours.nbytes);
    undo(p);
    r = put(p, "experts=1: codec:nf4", 1);
    assert_true(r.norm > 0.01 && r.norm < 0.3 && isnan(r.err_max) && isnan(r.share_beyond));
    assert_true(r.bits >= 4.5 && r.bits < 5);
    undo(p);
    assert_true(isnan(put(p, "experts=1: gauss-iso 30%", 1).bits));
    undo(p);
    check_refused(p, "experts=1: codec:nf4 30%", MB_USAGE, "codec:nf4 has no bound");
    check_refused(p, "experts=1: codec:cuszp-fixed", MB_USAGE, "needs a bound");
    mb_perturb_close(p);
    mb_model_close(model);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(errors_are_the_same_for_every_thread_count_and_instruction_set),
        cmocka_unit_test(normal_numbers_have_the_moments_of_the_normal_distribution),
        cmocka_unit_test(normal_numbers_are_quantiles_of_even_ones),
        cmocka_unit_test(numbers_depend_on_their_place_and_name_alone),
        cmocka_unit_test(numbers_are_the_same_on_every_machine),
        cmocka_unit_test(errors_have_the_size_that_they_say),
        cmocka_unit_test(a_bound_is_relative_to_what_compress_takes_and_coded_weights_are_its),
        cmocka_unit_test(absolute_and_range_bounds_are_those_of_compress),
        cmocka_unit_test(another_seed_is_another_error),
        cmocka_unit_test(a_thousand_errors_leave_no_trace),
        cmocka_unit_test(closing_takes_errors_out),
        cmocka_unit_test(zero_costs_no_memory_and_drop_is_not_zero),
        cmocka_unit_test(what_cannot_be_done_is_refused_and_leaves_nothing),
        cmocka_unit_test(another_codec_is_an_error_like_ours),
    };
    return cmocka_run_group_tests(tests, test_folder_begin, test_folder_end);
}
