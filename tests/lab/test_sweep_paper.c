/*
 * test_sweep_paper.c - the paper's places in models of other depths, and when a figure agrees with it.
 */
#include "cmocka_all.h"
#include "lab/sweep_paper.h"
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { N_RUNS_MAX = 512 };

static int layers[64];

static struct mb_sweep *suite_of(size_t n_layers, size_t n_experts, struct mb_sweep_shape *shape)
{
    struct mb_sweep_flags flags = {.size = sizeof flags, .task = "q", .suite = "paper", .n_seeds = 3};
    struct mb_sweep *sweep;
    assert_int_equal(mb_sweep_read(NULL, &flags, &sweep, NULL), MB_OK);
    for (size_t i = 0; i < n_layers; i++)
        layers[i] = (int)i + 1; /* the first layer of the model is dense */
    *shape = (struct mb_sweep_shape){layers, n_layers, n_experts};
    assert_int_equal(mb_sweep_paper_add(sweep, shape, NULL), MB_OK);
    return sweep;
}

static size_t count(const struct mb_sweep *sweep, const char *target)
{
    size_t n = 0;
    for (size_t i = 0; i < sweep->n_items; i++)
        n += strcmp(sweep->items[i].target, target) == 0;
    return n;
}

static void the_papers_own_shape_gives_its_own_places(void **state)
{
    struct mb_sweep_shape shape;
    (void)state;
    struct mb_sweep *sweep = suite_of(26, 64, &shape);
    const size_t each = 3 + 3 + 1; /* normal and uniform by seed, codec */
    assert_int_equal(count(sweep, "layer=1 experts=cold1"), 4 * each + 3);
    assert_int_equal(count(sweep, "layer=1 experts=top1"), 3 * each);
    assert_int_equal(count(sweep, "layer=13 experts=top1"), each);
    assert_int_equal(count(sweep, "layer=20 experts=top1"), each);
    assert_int_equal(count(sweep, "layer=26 experts=top1"), each);
    assert_int_equal(count(sweep, "layer=1 experts=top6"), each);
    assert_int_equal(count(sweep, "layer=26 experts=top6"), each);
    assert_int_equal(count(sweep, "layer=13 experts=all"), each);
    assert_int_equal(count(sweep, "layers=1-10 experts=top1"), 3 * each);
    assert_int_equal(count(sweep, "layers=9-18 experts=top1"), 3 * each);
    assert_int_equal(count(sweep, "layers=17-26 experts=top1"), 3 * each);
    /* T8 and T9 are the runs of T4 and T7 on another task. */
    assert_int_equal(sweep->n_items, 1 + (4 + 3 + 3 + 2 + 4 + 9) * each + 3);
    mb_sweep_close(sweep);
}

static void another_depth_gets_the_same_fractions(void **state)
{
    struct mb_sweep_shape shape;
    (void)state;
    struct mb_sweep *sweep = suite_of(8, 16, &shape);
    assert_int_equal(count(sweep, "layer=4 experts=all"), 7);
    assert_int_equal(count(sweep, "layer=6 experts=all"), 7);
    assert_int_equal(count(sweep, "layer=8 experts=all"), 7);
    assert_int_equal(count(sweep, "layer=8 experts=top2"), 7);
    assert_int_equal(count(sweep, "layers=1-4 experts=top1"), 21);
    assert_int_equal(count(sweep, "layers=3-6 experts=top1"), 21);
    assert_int_equal(count(sweep, "layers=5-8 experts=top1"), 21);
    mb_sweep_close(sweep);
    sweep = suite_of(1, 2, &shape);
    assert_int_equal(count(sweep, "layer=1 experts=all"), 7);
    mb_sweep_close(sweep);
}

static const struct mb_result_paper *row_of(const struct mb_result_paper *rows, size_t n, const char *part,
                                            const char *name)
{
    for (size_t i = 0; i < n; i++)
        if (strcmp(rows[i].part, part) == 0 && strcmp(rows[i].name, name) == 0)
            return &rows[i];
    fail_msg("no row of %s", part);
    return NULL;
}

static void a_figure_agrees_when_both_intervals_say_the_same(void **state)
{
    static const char here[] = "layer=1 experts=all"; /* T6: ICA 0.86 -> 0.33 */
    static const struct {
        double difference, low, high;
        const char *agrees;
    } cases[] = {
        {-0.50, -0.55, -0.45, "agree"},
        {-0.40, -0.70, -0.10, "agree"},
        {0.00, -0.02, 0.02, "disagree"},
        {-0.10, -0.20, 0.00, "disagree"},
        {-0.20, -0.60, 0.10, "n too small to tell"},
        {-0.90, -0.95, -0.85, "disagree"},
    };
    struct mb_sweep_shape shape;
    (void)state;
    mb_sweep_close(suite_of(26, 64, &shape));
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct mb_result_pooled pooled = {.label = "T6",
                                          .target = here,
                                          .error = "normal",
                                          .bound = "80%",
                                          .name = "ica",
                                          .mean = 0.99 + cases[i].difference,
                                          .difference = cases[i].difference,
                                          .difference_low = cases[i].low,
                                          .difference_high = cases[i].high};
        struct mb_result_paper *rows;
        size_t n;
        assert_int_equal(mb_sweep_paper_compare(&pooled, 1, &shape, &rows, &n, NULL), MB_OK);
        assert_int_equal(n, 1);
        const struct mb_result_paper *row = row_of(rows, n, "T6", "ica");
        assert_string_equal(row->agrees, cases[i].agrees);
        assert_true(row->paper == 0.33 && row->paper_clean == 0.86 && fabs(row->ours_clean - 0.99) < 1e-12);
        /* Newcombe's interval of 33 of 100 against 86 of 100, by hand from the two Wilson intervals. */
        assert_true(fabs(row->paper_low - -0.6306) < 1e-4 && fabs(row->paper_high - -0.4034) < 1e-4);
        mb_sweep_paper_free(rows, n);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_papers_own_shape_gives_its_own_places),
        cmocka_unit_test(another_depth_gets_the_same_fractions),
        cmocka_unit_test(a_figure_agrees_when_both_intervals_say_the_same),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
