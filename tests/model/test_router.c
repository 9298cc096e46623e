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
    c.margin = mb_router_choose(&r, mb_float_ops(), bias, scores, choice, c.chosen, c.weight);
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
    assert_true(isinf(mb_router_choose(&r, mb_float_ops(), NULL, scores, choice, chosen, weight)));
    for (size_t i = 0; i < N; i++)
        assert_int_equal(chosen[i], ((const int32_t[]){1, 3, 5, 2, 0, 4})[i]);
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
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
