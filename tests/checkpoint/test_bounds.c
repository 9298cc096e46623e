/*
 * test_bounds.c - which bound a tensor gets from options and plan files, and options of all sizes.
 */
#include "cmocka_all.h"
#include "folder.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char UP[] = "model.layers.1.mlp.experts.0.up_proj.weight", HEAD[] = "lm_head.weight",
                  NORM[] = "model.norm.weight";

static int begin(void **state)
{
    struct test_model model = test_model_small();
    if (test_folder_begin(state) != 0)
        return 1;
    test_write_model(test_path("plain"), &model);
    return 0;
}

static enum mb_status try(const struct mb_compress_options *options, struct mb_error *err)
{
    struct mb_compress_report report;
    test_remove(test_path("coded"));
    return mb_compress(test_path("plain"), test_path("coded"), options, &report, err);
}

/* The bound in force of a coded matrix; -1: it is exact. */
struct wanted {
    const char *name;
    double eps;
};

static void look(void *ctx, const struct mb_verify_tensor *tensor)
{
    struct wanted *wanted = ctx;
    if (strcmp(tensor->name, wanted->name) == 0)
        wanted->eps = tensor->eps;
}

static double eps_of(const char *name)
{
    struct wanted wanted = {name, -1};
    struct mb_verify_report report;
    assert_int_equal(mb_verify(test_path("coded"), test_path("plain"),
                               VERIFY_OPTIONS(.n_threads = 1, .each = look, .each_ctx = &wanted), &report,
                               NULL),
                     MB_OK);
    assert_int_equal(report.n_broken, 0);
    return wanted.eps;
}

static void compress_planned(const char *plan, const struct mb_tensor_bound *pattern)
{
    struct mb_error err;
    const struct mb_compress_options options = {.size = sizeof options,
                                                .has_bound = true,
                                                .bound = {MB_BOUND_ABS, 0.002},
                                                .tensor_bounds = pattern,
                                                .n_tensor_bounds = pattern != NULL,
                                                .plan_path = test_path("plan.json")};
    test_write(test_path("plan.json"), plan, strlen(plan));
    if (try(&options, &err) != MB_OK)
        fail_msg("%s", err.msg);
}

static void a_plan_gives_tensors_their_bounds(void **state)
{
    (void)state;
    char plan[400];
    snprintf(plan, sizeof plan,
             "{\"made by\": \"a test\", \"bounds\": [{\"tensor\": \"%s\", \"bound\": \"abs:0.01\"}, "
             "{\"tensor\": \"%s\", \"bound\": \"0\"}, {\"tensor\": \"%s\", \"bound\": \"0\", \"why\": 1}]}",
             HEAD, UP, NORM);
    compress_planned(plan, NULL);
    assert_true(eps_of(HEAD) == 0.01);
    assert_true(eps_of(UP) == -1);
    assert_true(eps_of(NORM) == -1);
    assert_true(eps_of("model.layers.1.mlp.experts.0.gate_proj.weight") == 0.002);
}

static void a_pattern_is_stronger_than_the_plan(void **state)
{
    (void)state;
    char plan[200];
    const struct mb_tensor_bound pattern = {"^lm_", {MB_BOUND_ABS, 0.03}};
    snprintf(plan, sizeof plan, "{\"bounds\": [{\"tensor\": \"%s\", \"bound\": \"abs:0.01\"}]}", HEAD);
    compress_planned(plan, &pattern);
    assert_true(eps_of(HEAD) == 0.03);
}

static void an_empty_plan_changes_nothing(void **state)
{
    (void)state;
    compress_planned("{\"bounds\": []}", NULL);
    assert_true(eps_of(UP) == 0.002);
    assert_true(eps_of(NORM) == -1);
}

static void assert_refused(const char *plan, enum mb_status expected, const char *words)
{
    const struct mb_compress_options options = {.size = sizeof options, .plan_path = test_path("plan.json")};
    struct mb_error err = {0};
    test_write(test_path("plan.json"), plan, strlen(plan));
    enum mb_status status = try(&options, &err);
    if (status != expected || strstr(err.msg, words) == NULL || strstr(err.msg, "/p") == NULL)
        fail_msg("status %d, not %d with '%s': %s", (int)status, (int)expected, words, err.msg);
    assert_false(test_exists(test_path("coded")) || test_exists(test_path("coded.partial")));
}

static void plans_that_say_nothing_clear_are_refused(void **state)
{
    (void)state;
    assert_refused("", MB_BAD_DATA, "plan.json");
    assert_refused("[]", MB_BAD_DATA, "plan.json");
    assert_refused("{\"bound\": []}", MB_BAD_DATA, "plan.json: no list \"bounds\"");
    assert_refused("{\"bounds\": [1]}", MB_BAD_DATA,
                   "plan.json: bounds[0]: needs a \"tensor\" and a \"bound\"");
    assert_refused("{\"bounds\": [{\"tensor\": \"lm_head.weight\", \"bound\": 0.3}]}", MB_BAD_DATA,
                   "bounds[0]");
    assert_refused("{\"bounds\": [{\"tensor\": \"lm_head.weight\", \"bound\": \"0\"}, {\"tensor\": \"x\", "
                   "\"bound\": \"much\"}]}",
                   MB_BAD_DATA, "bounds[1]: ");
    assert_refused("{\"bounds\": [{\"tensor\": \"lm_head.weight\", \"bound\": \"0\"}, "
                   "{\"tensor\": \"lm_head.weight\", \"bound\": \"1%\"}]}",
                   MB_BAD_DATA, "tensor lm_head.weight: has two entries");
}

static void a_plan_for_another_model_is_refused(void **state)
{
    (void)state;
    assert_refused("{\"bounds\": [{\"tensor\": \"lm_head.wait\", \"bound\": \"1%\"}]}", MB_BAD_DATA,
                   "plan.json: bounds[0]: tensor lm_head.wait: is not in ");
}

static void a_pattern_of_a_plan_is_about_all_tensors_that_it_matches(void **state)
{
    (void)state;
    char plan[400];
    snprintf(plan, sizeof plan,
             "{\"bounds\": [{\"pattern\": \"experts\\\\.0\", \"bound\": \"abs:0.01\"}, "
             "{\"tensor\": \"%s\", \"bound\": \"abs:0.003\"}]}",
             UP);
    compress_planned(plan, NULL);
    assert_true(eps_of("model.layers.1.mlp.experts.0.gate_proj.weight") == 0.01);
    assert_true(eps_of("model.layers.1.mlp.experts.1.gate_proj.weight") == 0.002);
    assert_true(eps_of(UP) == 0.003); /* a name is stronger, wherever it is */
}

static void patterns_of_a_plan_that_contradict_each_other_are_refused(void **state)
{
    (void)state;
    assert_refused("{\"bounds\": [\n{\"pattern\": \"experts\", \"bound\": \"1%\"},\n"
                   "{\"pattern\": \"up_proj\", \"bound\": \"2%\"}]}",
                   MB_BAD_DATA, "plan.json: line 3: bounds[1]: pattern 'up_proj': gives tensor ");
    assert_refused("{\"bounds\": [\n\n{\"pattern\": \"expats\", \"bound\": \"1%\"}]}", MB_BAD_DATA,
                   "plan.json: line 3: bounds[0]: pattern 'expats': matches the name of no tensor in ");
    assert_refused("{\"bounds\": [{\"pattern\": \"(\", \"bound\": \"1%\"}]}", MB_BAD_DATA,
                   "bounds[0]: pattern '(': not a regular expression");
    assert_refused("{\"bounds\": [{\"pattern\": \"x\", \"tensor\": \"x\", \"bound\": \"1%\"}]}", MB_BAD_DATA,
                   "bounds[0]: needs");
}

static void bounds_that_are_none_are_refused_with_their_line(void **state)
{
    (void)state;
    static const char *const bounds[] = {"-1%", "nan", "inf%", "abs:-0.1", "1e999%", "30", ""};
    for (size_t i = 0; i < sizeof bounds / sizeof *bounds; i++) {
        char plan[200];
        snprintf(plan, sizeof plan,
                 "{\n\"note\": \"[{ \\\" bounds\",\n\"bounds\": [\n{\"tensor\": \"%s\", \"bound\": \"%s\"}]}",
                 UP, bounds[i]);
        assert_refused(plan, MB_BAD_DATA, "plan.json: line 4: bounds[0]: ");
    }
}

struct predicted {
    uint64_t n_weights, nbytes;
    size_t n;
};

static void add_predicted(void *ctx, const struct mb_compress_matrix *matrix)
{
    struct predicted *sum = ctx;
    assert_true(matrix->eps == 0.002 && matrix->bound.kind == MB_BOUND_ABS);
    sum->n_weights += matrix->n_weights;
    sum->nbytes += matrix->nbytes;
    sum->n++;
}

/* Small matrices are coded completely: what is predicted is what comes out. */
static void a_dry_run_tells_each_matrix(void **state)
{
    (void)state;
    struct predicted sum = {0};
    const struct mb_bound bound = {MB_BOUND_ABS, 0.002};
    struct mb_compress_report dry, real;
    struct mb_compress_options options = {.size = sizeof options,
                                          .has_bound = true,
                                          .bound = bound,
                                          .has_dense_bound = true,
                                          .dense_bound = bound,
                                          .dry_run = true,
                                          .each = add_predicted,
                                          .each_ctx = &sum};
    assert_int_equal(mb_compress(test_path("plain"), test_path("coded"), &options, &dry, NULL), MB_OK);
    options.dry_run = false;
    assert_int_equal(mb_compress(test_path("plain"), test_path("coded"), &options, &real, NULL), MB_OK);
    assert_int_equal(dry.out_nbytes, real.out_nbytes);
    assert_int_equal(sum.n_weights, real.n_weights);
    assert_in_range(sum.nbytes, real.coded_nbytes - 400 * sum.n, real.coded_nbytes); /* but for headers */
}

static void a_plan_cannot_have_a_norm_coded(void **state)
{
    (void)state;
    assert_refused("{\"bounds\": [{\"tensor\": \"model.norm.weight\", \"bound\": \"1%\"}]}", MB_USAGE,
                   "tensor model.norm.weight: is not a matrix");
}

static void a_plan_that_is_not_there_is_told(void **state)
{
    (void)state;
    const struct mb_compress_options options = {.size = sizeof options, .plan_path = test_path("none.json")};
    struct mb_error err;
    assert_int_equal(try(&options, &err), MB_BAD_DATA);
    assert_non_null(strstr(err.msg, "none.json"));
}

static void a_pattern_that_matches_no_tensor_is_refused(void **state)
{
    (void)state;
    const struct mb_tensor_bound patterns[] = {{"^lm_", {MB_BOUND_ABS, 0.03}},
                                               {"experts[.]9", {MB_BOUND_EXACT, 0}}};
    const struct mb_compress_options options = {
        .size = sizeof options, .tensor_bounds = patterns, .n_tensor_bounds = 2};
    struct mb_compress_options dry = options;
    struct mb_error err = {0};
    dry.dry_run = true;
    assert_int_equal(try(&options, &err), MB_USAGE);
    assert_non_null(strstr(err.msg, "pattern 'experts[.]9': matches the name of no tensor in "));
    assert_false(test_exists(test_path("coded")) || test_exists(test_path("coded.partial")));
    assert_int_equal(try(&dry, &err), MB_USAGE);
    assert_non_null(strstr(err.msg, "experts[.]9"));
}

/* ---------------------------------------------------------------- coding again */

static uint64_t code(const char *out, double experts, bool force)
{
    struct mb_error err;
    struct mb_compress_report report;
    const struct mb_tensor_bound second = {"experts[.]1[.]", {MB_BOUND_ABS, experts}};
    const struct mb_compress_options options = {.size = sizeof options,
                                                .has_bound = true,
                                                .bound = {MB_BOUND_ABS, 0.002},
                                                .tensor_bounds = &second,
                                                .n_tensor_bounds = 1,
                                                .force = force};
    if (mb_compress(test_path("plain"), test_path(out), &options, &report, &err) != MB_OK)
        fail_msg("%s", err.msg);
    return report.n_blobs_reused;
}

static size_t n_blobs(const char *folder)
{
    struct mb_verify_report report;
    assert_int_equal(mb_verify(test_path(folder), test_path("plain"), NULL, &report, NULL), MB_OK);
    assert_int_equal(report.n_broken, 0);
    return report.n_blobs;
}

static void only_what_a_bound_changed_is_coded_again(void **state)
{
    (void)state;
    assert_int_equal(code("coded", 0.002, false), 0);
    uint64_t n_reused = code("coded", 0.003, true);
    assert_int_equal(n_reused, n_blobs("coded") - 1);
    assert_int_equal(code("fresh", 0.003, false), 0);
    assert_true(test_same_folders(test_path("coded"), test_path("fresh")));
}

/* Of the same size and bound: only its checksum says that the original is another one. */
static void what_is_made_from_other_weights_is_coded_again(void **state)
{
    (void)state;
    struct test_model model = test_model_small();
    assert_int_equal(code("coded", 0.002, false), 0);
    model.odd_name = UP;
    model.odd_index = 5;
    model.odd_value = 0.0123F;
    test_remove(test_path("plain"));
    test_write_model(test_path("plain"), &model);
    uint64_t n_reused = code("coded", 0.002, true);
    assert_int_equal(n_reused, n_blobs("coded") - 1);
    assert_int_equal(code("fresh", 0.002, false), 0);
    assert_true(test_same_folders(test_path("coded"), test_path("fresh")));
}

static void write_encoder(const char *folder, const char *member)
{
    size_t nbytes;
    char path[200];
    snprintf(path, sizeof path, "%s/config.json", folder);
    char *text = (char *)test_read(test_path(path), &nbytes);
    char *at = memmem(text, nbytes, "\"encoder\": 2", 12);
    assert_non_null(at);
    memcpy(at, member, 12);
    test_write(test_path(path), text, nbytes);
    free(text);
}

static void what_another_encoder_made_is_coded_again(void **state)
{
    (void)state;
    static const char *const members[] = {"\"encoder\": 1", "\"unknown\": 1"};
    assert_int_equal(code("fresh", 0.003, false), 0);
    for (size_t i = 0; i < 2; i++) {
        code("coded", 0.002, i > 0);
        write_encoder("coded", members[i]);
        assert_int_equal(code("coded", 0.003, true), 0);
        assert_true(test_same_folders(test_path("coded"), test_path("fresh")));
    }
}

/* Whatever byte it is: a blob that is not whole is not taken. */
static void a_damaged_folder_is_no_source(void **state)
{
    (void)state;
    assert_int_equal(code("fresh", 0.003, false), 0);
    for (size_t i = 1; i < 8; i++) {
        size_t nbytes;
        assert_int_equal(code("coded", 0.002, i > 1), i > 1 ? n_blobs("fresh") - 1 : 0);
        const char *names[] = {"coded/model-00001-of-00003.safetensors",
                               "coded/model-00002-of-00003.safetensors"};
        const char *path = test_path(names[i % 2]);
        uint8_t *bytes = test_read(path, &nbytes);
        bytes[nbytes * i / 8] ^= 0x40;
        test_write(path, bytes, nbytes);
        free(bytes);
        code("coded", 0.003, true);
        assert_true(test_same_folders(test_path("coded"), test_path("fresh")));
    }
}

/* ---------------------------------------------------------------- options */

static void options_may_be_left_out(void **state)
{
    (void)state;
    struct mb_verify_report verified;
    struct mb_decompress_report back;
    assert_int_equal(try(NULL, NULL), MB_OK);
    assert_int_equal(mb_verify(test_path("coded"), test_path("plain"), NULL, &verified, NULL), MB_OK);
    assert_int_equal(verified.n_broken, 0);
    assert_int_equal(mb_decompress(test_path("coded"), test_path("back"), NULL, &back, NULL), MB_OK);
    assert_int_equal(back.n_weights_changed, 0); /* the type is F32 */
}

static void options_without_their_size_are_refused(void **state)
{
    (void)state;
    const struct mb_compress_options compress = {.n_threads = 1};
    const struct mb_verify_options verify = {.n_threads = 1};
    const struct mb_decompress_options decompress = {.n_threads = 1};
    struct mb_verify_report verified;
    struct mb_decompress_report back;
    assert_int_equal(try(&compress, NULL), MB_USAGE);
    assert_int_equal(try(NULL, NULL), MB_OK);
    assert_int_equal(mb_verify(test_path("coded"), NULL, &verify, &verified, NULL), MB_USAGE);
    assert_int_equal(mb_decompress(test_path("coded"), test_path("back"), &decompress, &back, NULL),
                     MB_USAGE);
}

/* A header of before there were plans: its struct ends where plan_path begins. */
static void options_of_an_older_header_are_taken(void **state)
{
    (void)state;
    struct mb_compress_options options = {.size = offsetof(struct mb_compress_options, plan_path),
                                          .has_bound = true,
                                          .bound = {MB_BOUND_ABS, 0.002},
                                          .plan_path = "not looked at"};
    assert_int_equal(try(&options, NULL), MB_OK);
    assert_true(eps_of(UP) == 0.002);
}

static void a_type_that_is_none_is_refused(void **state)
{
    (void)state;
    struct mb_decompress_report back;
    assert_int_equal(try(NULL, NULL), MB_OK);
    assert_int_equal(mb_decompress(test_path("coded"), test_path("back"),
                                   DECOMPRESS_OPTIONS(.dtype = (enum mb_dtype)3), &back, NULL),
                     MB_USAGE);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, begin, test_folder_end)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(a_plan_gives_tensors_their_bounds),
        TEST(a_pattern_is_stronger_than_the_plan),
        TEST(an_empty_plan_changes_nothing),
        TEST(plans_that_say_nothing_clear_are_refused),
        TEST(a_plan_for_another_model_is_refused),
        TEST(a_pattern_of_a_plan_is_about_all_tensors_that_it_matches),
        TEST(patterns_of_a_plan_that_contradict_each_other_are_refused),
        TEST(bounds_that_are_none_are_refused_with_their_line),
        TEST(a_dry_run_tells_each_matrix),
        TEST(a_plan_cannot_have_a_norm_coded),
        TEST(a_plan_that_is_not_there_is_told),
        TEST(a_pattern_that_matches_no_tensor_is_refused),
        TEST(only_what_a_bound_changed_is_coded_again),
        TEST(what_another_encoder_made_is_coded_again),
        TEST(what_is_made_from_other_weights_is_coded_again),
        TEST(a_damaged_folder_is_no_source),
        TEST(options_may_be_left_out),
        TEST(options_without_their_size_are_refused),
        TEST(options_of_an_older_header_are_taken),
        TEST(a_type_that_is_none_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
