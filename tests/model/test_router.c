/*
 * test_router.c - the router's choice and weights, for each kind of score and option, by hand.
 */
#include "cmocka_all.h"
#include "model/router.h"
#include <math.h>
#include <string.h>

enum { N = 6, USED = 2 };

/* exp of the logits: 1, 8, 2, 4, 1, 4; their sum is 20. */
static const float logits[N] = {0, 2.0794415F, 0.6931472F, 1.3862944F, 0, 1.3862944F};

static const struct mb_router_config usual = {
    .score = MB_SCORE_SOFTMAX, .n_experts = N, .n_used = USED, .n_groups = 1, .n_groups_used = 1, .scale = 1};

struct choice {
    int32_t chosen[USED];
    float weight[USED], margin;
};

static struct choice choose(struct mb_router_config r, const float *bias)
{
    struct choice c;
    float scores[N], choice[N];
    memcpy(scores, logits, sizeof scores);
    c.margin = mb_router_choose(&r, mb_float_ops(), bias, NULL, scores, choice, c.chosen, c.weight);
    return c;
}

static void expect(struct choice c, int32_t first, int32_t second, double first_weight, double second_weight,
                   double margin)
{
    assert_int_equal(c.chosen[0], first);
    assert_int_equal(c.chosen[1], second);
    assert_true(fabs((double)c.weight[0] - first_weight) < 1e-6);
    assert_true(fabs((double)c.weight[1] - second_weight) < 1e-6);
    assert_true((double)c.margin == margin || fabs((double)c.margin - margin) < 1e-6);
}

static void a_softmax_before_the_choice(void **state)
{
    (void)state;
    expect(choose(usual, NULL), 1, 3, 0.4, 0.2, 0); /* of two equal experts the first */
}

static void weights_are_normalised_and_scaled(void **state)
{
    struct mb_router_config r = usual;
    (void)state;
    r.norm_weights = true;
    r.scale = 3;
    expect(choose(r, NULL), 1, 3, 2, 1, 0);
}

static void a_softmax_over_the_chosen(void **state)
{
    struct mb_router_config r = usual;
    (void)state;
    r.score = MB_SCORE_SOFTMAX_CHOSEN;
    expect(choose(r, NULL), 1, 3, 2.0 / 3, 1.0 / 3, 0);
}

static void sigmoids(void **state)
{
    struct mb_router_config r = usual;
    (void)state;
    r.score = MB_SCORE_SIGMOID;
    expect(choose(r, NULL), 1, 3, 8.0 / 9, 0.8, 0);
}

static void a_bias_counts_for_the_choice_alone(void **state)
{
    static const float bias[N] = {0.5F, 0, 0, 0, 0.25F, 0};
    struct mb_router_config r = usual;
    (void)state;
    r.has_bias = true;
    expect(choose(r, bias), 0, 1, 0.05, 0.4, 0.1); /* 0.55, 0.4, then expert 4 with 0.3 */
}

static void groups_are_chosen_by_their_best_or_best_two(void **state)
{
    struct mb_router_config r = usual;
    (void)state;
    r.n_groups = 3; /* {0.05, 0.4}, {0.1, 0.2}, {0.05, 0.2} */
    r.n_groups_used = 1;
    r.group_score = MB_GROUP_BEST;
    expect(choose(r, NULL), 1, 0, 0.4, 0.05, INFINITY); /* the group has no other experts */
    static const float bias[N] = {0, 0, 0.3F, 0, 0, 0}; /* {0.05, 0.4}, {0.4, 0.2}, {0.05, 0.2} */
    r.has_bias = true;
    expect(choose(r, bias), 1, 0, 0.4, 0.05, INFINITY);
    r.group_score = MB_GROUP_BEST_TWO;
    expect(choose(r, bias), 2, 3, 0.1, 0.2, INFINITY);
    static const float lowest[N] = {-1,    -1, -0.5F,
                                    -0.7F, -1, -1}; /* below 0, and no expert of another group */
    expect(choose(r, lowest), 2, 3, 0.1, 0.2, INFINITY);
}

static void all_experts_may_be_chosen(void **state)
{
    struct mb_router_config r = usual;
    float scores[N], choice[N], weight[N];
    int32_t chosen[N];
    (void)state;
    r.n_used = N;
    memcpy(scores, logits, sizeof scores);
    assert_true(isinf(mb_router_choose(&r, mb_float_ops(), NULL, NULL, scores, choice, chosen, weight)));
    for (size_t i = 0; i < N; i++)
        assert_int_equal(chosen[i], ((const int32_t[]){1, 3, 5, 2, 0, 4})[i]);
}

/* A dropped expert changes the choice as if the router had never had a row for it, whatever the scores. */
static void check_dropped(struct mb_router_config r, size_t e)
{
    float all[N], left[N], choice[N], weight[USED], left_weight[USED];
    static const float bias[N] = {0.5F, 0, 0, 0, 0.25F, 0};
    float left_bias[N];
    int32_t chosen[USED], left_chosen[USED];
    bool dropped[N] = {false};
    dropped[e] = true;
    memcpy(all, logits, sizeof all);
    for (size_t i = 0, n = 0; i < N; i++) {
        if (i == e)
            continue;
        left[n] = logits[i];
        left_bias[n++] = bias[i];
    }
    float margin = mb_router_choose(&r, mb_float_ops(), bias, dropped, all, choice, chosen, weight);
    r.n_experts = N - 1;
    float left_margin =
        mb_router_choose(&r, mb_float_ops(), left_bias, NULL, left, choice, left_chosen, left_weight);
    for (size_t k = 0; k < USED; k++) {
        assert_int_equal(chosen[k], left_chosen[k] + ((size_t)left_chosen[k] >= e ? 1 : 0));
        assert_true(fabsf(weight[k] - left_weight[k]) < 1e-6F);
    }
    assert_true(fabsf(margin - left_margin) < 1e-6F);
}

static void a_dropped_expert_is_as_if_the_router_had_no_row_for_it(void **state)
{
    (void)state;
    for (int score = MB_SCORE_SIGMOID; score <= MB_SCORE_SPARSEMIXER; score++)
        for (int options = 0; options < 4; options++)
            for (size_t e = 0; e < N; e++) {
                struct mb_router_config r = usual;
                r.score = (enum mb_router_score)score;
                r.has_bias = (options & 1) != 0 && score != MB_SCORE_SPARSEMIXER;
                r.norm_weights = (options & 2) != 0;
                r.jitter = 0.3F;
                check_dropped(r, e);
            }
}

static void groups_are_weighed_without_dropped_experts(void **state)
{
    struct mb_router_config r = usual;
    static const bool dropped[N] = {false, true, false, false, false, false};
    float scores[N], choice[N], weight[USED];
    int32_t chosen[USED];
    (void)state;
    r.n_groups = 2; /* {1, 8, 2} and {4, 1, 4} */
    r.n_groups_used = 1;
    r.group_score = MB_GROUP_BEST;
    memcpy(scores, logits, sizeof scores);
    mb_router_choose(&r, mb_float_ops(), NULL, dropped, scores, choice, chosen, weight);
    assert_int_equal(chosen[0], 3);
    assert_int_equal(chosen[1], 5);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_softmax_before_the_choice),
        cmocka_unit_test(weights_are_normalised_and_scaled),
        cmocka_unit_test(a_softmax_over_the_chosen),
        cmocka_unit_test(sigmoids),
        cmocka_unit_test(a_bias_counts_for_the_choice_alone),
        cmocka_unit_test(groups_are_chosen_by_their_best_or_best_two),
        cmocka_unit_test(all_experts_may_be_chosen),
        cmocka_unit_test(a_dropped_expert_is_as_if_the_router_had_no_row_for_it),
        cmocka_unit_test(groups_are_weighed_without_dropped_experts),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
