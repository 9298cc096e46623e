/*
 * test_extremes.c - weights that spoil a bound relative to their matrix are reported by their place.
 */
#include "checkpoint/compress_report.h"
#include "checkpoint/extremes.h"
#include "cmocka_all.h"
#include "folder.h"
#include <math.h>
#include <stdio.h>
#include <string.h>

static const char UP[] = "model.layers.1.mlp.experts.1.up_proj.weight"; /* 40 x 48 */

/* The extremes of the small model with odd weights in a tensor. */
static struct mb_extremes extremes_of(const char *name, size_t index, size_t n, float value,
                                      const char *bound, bool dry_run)
{
    struct test_model model = test_model_small();
    struct mb_compress_options options = {.size = sizeof options, .dry_run = dry_run, .has_bound = true};
    struct mb_compress_report report;
    struct mb_error err;
    model.odd_name = name;
    model.odd_index = index;
    model.n_odd = n;
    model.odd_value = value;
    test_write_model(test_path("plain"), &model);
    assert_int_equal(mb_bound_parse(bound, &options.bound, &err), MB_OK);
    options.has_dense_bound = true;
    options.dense_bound = options.bound;
    if (mb_compress(test_path("plain"), test_path("coded"), &options, &report, &err) != MB_OK)
        fail_msg("%s", err.msg);
    test_remove(test_path("plain"));
    test_remove(test_path("coded"));
    return report.extremes;
}

static void assert_is(const struct mb_extremes *extremes, const char *name, uint64_t row, uint64_t col,
                      double value, uint64_t n)
{
    assert_int_equal(extremes->n, 1);
    assert_int_equal(extremes->n_listed, 1);
    const struct mb_extreme *e = &extremes->list[0];
    assert_string_equal(e->tensor, name);
    assert_int_equal(e->row, row);
    assert_int_equal(e->col, col);
    assert_int_equal(e->n, n);
    assert_true(fabs(e->value / value - 1) < 0.01);
    assert_true(e->ratio > 0.9 * fabs(value) / 0.02 && e->ratio < 2 * fabs(value) / 0.02);
}

static void a_weight_that_spoils_the_bound_of_its_expert_is_reported_by_its_place(void **state)
{
    (void)state;
    struct mb_extremes extremes = extremes_of(UP, 2 * 48 + 5, 1, -1e30F, "30%", false);
    assert_is(&extremes, UP, 2, 5, -1e30, 1);
    /* What the others alone would give: 30 % of a mean of about 0.016. */
    assert_true(extremes.list[0].eps_rest > 0.004 && extremes.list[0].eps_rest < 0.006);
    assert_true(extremes.list[0].eps > 1e25);
    extremes = extremes_of(UP, 2 * 48 + 5, 1, -1e30F, "30%", true);
    assert_is(&extremes, UP, 2, 5, -1e30, 1);
    extremes = extremes_of(UP, 2 * 48 + 5, 1, 200, "range:0.01", false);
    assert_is(&extremes, UP, 2, 5, 200, 1);
    assert_true(extremes.list[0].eps > 100 * extremes.list[0].eps_rest);
}

static void a_weight_that_spoils_another_matrix_is_reported(void **state)
{
    (void)state;
    struct mb_extremes extremes = extremes_of("lm_head.weight", 3 * 48 + 1, 1, 1e6F, "5%", false);
    assert_is(&extremes, "lm_head.weight", 3, 1, 1e6, 1);
}

static void a_row_that_spoils_a_bound_is_reported(void **state)
{
    (void)state;
    struct mb_extremes extremes = extremes_of(UP, 7 * 48, 10, 1e9F, "30%", false);
    assert_is(&extremes, UP, 7, 0, 1e9, 10);
}

static void weights_that_do_no_harm_are_not_reported(void **state)
{
    (void)state;
    assert_int_equal(extremes_of(NULL, 0, 0, 0, "30%", false).n, 0);
    assert_int_equal(extremes_of(UP, 5, 1, 20, "30%", false).n, 0);         /* 1,000 times the mean */
    assert_int_equal(extremes_of(UP, 5, 1, 1e30F, "abs:0.01", false).n, 0); /* stored as it is */
    assert_int_equal(extremes_of(UP, 0, 40 * 48, 0, "30%", false).n, 0);
}

/* What is so large was damaged, however little one weight among many moves their mean. */
static void a_weight_that_no_training_makes_is_reported_in_any_matrix(void **state)
{
    (void)state;
    struct mb_extremes extremes = extremes_of(UP, 5, 1, 2000, "30%", false);
    assert_is(&extremes, UP, 0, 5, 2000, 1);
}

static struct mb_extremes numbered(size_t i)
{
    struct mb_extremes extremes = {.n = 1, .n_listed = 1};
    extremes.list[0] = (struct mb_extreme){.ratio = (double)(i * 7 % 11), .row = i, .n = 1};
    snprintf(extremes.list[0].tensor, sizeof extremes.list[0].tensor, "tensor %zu", i);
    return extremes;
}

static void the_largest_are_listed_whatever_their_order(void **state)
{
    (void)state;
    struct mb_extremes forth = {0}, back = {0};
    for (size_t i = 0; i < 11; i++) {
        struct mb_extremes one = numbered(i), other = numbered(10 - i);
        mb_extremes_add(&forth, &one);
        mb_extremes_add(&back, &other);
    }
    assert_int_equal(forth.n, 11);
    assert_int_equal(forth.n_listed, MB_EXTREMES_MAX);
    for (size_t i = 0; i < MB_EXTREMES_MAX; i++)
        assert_true(forth.list[i].ratio == 10 - (double)i);
    assert_memory_equal(&forth, &back, sizeof forth);
}

/* The note about unfinished work keeps them: a resumed call reports all. */
static void reports_of_shards_keep_them(void **state)
{
    (void)state;
    struct mb_compress_report report = {.extremes = numbered(5)}, again = {0};
    report.extremes.list[0].value = -1e30;
    report.extremes.list[0].eps = 0.5;
    json_t *json = mb_report_to_json(&report);
    assert_non_null(json);
    mb_report_add_json(&again, json);
    json_decref(json);
    assert_memory_equal(&again.extremes, &report.extremes, sizeof again.extremes);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_weight_that_spoils_the_bound_of_its_expert_is_reported_by_its_place),
        cmocka_unit_test(a_weight_that_spoils_another_matrix_is_reported),
        cmocka_unit_test(a_row_that_spoils_a_bound_is_reported),
        cmocka_unit_test(weights_that_do_no_harm_are_not_reported),
        cmocka_unit_test(a_weight_that_no_training_makes_is_reported_in_any_matrix),
        cmocka_unit_test(the_largest_are_listed_whatever_their_order),
        cmocka_unit_test(reports_of_shards_keep_them),
    };
    return cmocka_run_group_tests(tests, test_folder_begin, test_folder_end);
}
