/*
 * test_sampler.c - greedy and sampled choices.
 */
#include "cmocka_all.h"
#include <math.h>
#include <moebius/engine.h>
#include <string.h>

enum { N = 6, N_DRAWS = 40000 };

static uint64_t scratch[N];

static int32_t pick(struct mb_sampler *sampler, const float *logits)
{
    int32_t token = -1;
    struct mb_error err;
    assert_int_equal(mb_sampler_pick(sampler, logits, N, scratch, &token, &err), MB_OK);
    assert_true(token >= 0 && token < N);
    return token;
}

static struct mb_sampler sampler_of(float temperature, int top_k, float top_p, float min_p)
{
    struct mb_sampler sampler;
    struct mb_sampler_options options = {.size = sizeof options,
                                         .temperature = temperature,
                                         .top_k = top_k,
                                         .top_p = top_p,
                                         .min_p = min_p,
                                         .seed = 42};
    assert_int_equal(mb_sampler_init(&sampler, &options, NULL), MB_OK);
    return sampler;
}

/* Logits whose probabilities are p. */
static void logits_of(const double p[N], float logits[N])
{
    for (int i = 0; i < N; i++)
        logits[i] = (float)log(p[i]) + 3;
}

/* Shares of many draws are within five standard deviations of what is expected. */
static void expect_shares(struct mb_sampler sampler, const float *logits, const double share[N])
{
    int count[N] = {0};
    for (int i = 0; i < N_DRAWS; i++)
        count[pick(&sampler, logits)]++;
    for (int i = 0; i < N; i++) {
        double deviation = sqrt(share[i] * (1 - share[i]) * N_DRAWS);
        if (fabs(count[i] - share[i] * N_DRAWS) > 5 * deviation + 1e-9)
            fail_msg("token %d: drawn %d times, expected %.1f", i, count[i], share[i] * N_DRAWS);
    }
}

static const double P[N] = {0.05, 0.4, 0.2, 0.1, 0.2, 0.05};

static void greedy_takes_the_lowest_of_equals(void **state)
{
    (void)state;
    struct mb_sampler sampler = sampler_of(0, 3, 0.5F, 0.1F);
    assert_int_equal(pick(&sampler, (float[N]){1, 3, 2, 3, -INFINITY, 0}), 1);
    assert_int_equal(pick(&sampler, (float[N]){-5, -5, -5, -5, -5, -5}), 0);
}

static void shares_are_the_softmax(void **state)
{
    (void)state;
    float logits[N];
    logits_of(P, logits);
    expect_shares(sampler_of(1, 0, 1, 0), logits, P);
}

static void temperature_sharpens(void **state)
{
    (void)state;
    float logits[N];
    double share[N], sum = 0;
    logits_of(P, logits);
    for (int i = 0; i < N; i++)
        sum += share[i] = P[i] * P[i]; /* temperature 1/2 */
    for (int i = 0; i < N; i++)
        share[i] /= sum;
    expect_shares(sampler_of(0.5F, 0, 1, 0), logits, share);
}

static void top_k_keeps_k(void **state)
{
    (void)state;
    float logits[N];
    logits_of(P, logits);
    /* The second place is shared by tokens 2 and 4: the lower id stays. */
    expect_shares(sampler_of(1, 2, 1, 0), logits, (double[N]){0, 2.0 / 3, 1.0 / 3, 0, 0, 0});
    expect_shares(sampler_of(1, 1, 1, 0), logits, (double[N]){0, 1, 0, 0, 0, 0});
    expect_shares(sampler_of(1, 100, 1, 0), logits, P);
}

static void top_p_keeps_the_mass(void **state)
{
    (void)state;
    float logits[N];
    logits_of(P, logits);
    expect_shares(sampler_of(1, 0, 0.7F, 0), logits, (double[N]){0, 0.5, 0.25, 0, 0.25, 0});
    expect_shares(sampler_of(1, 0, 0.3F, 0), logits, (double[N]){0, 1, 0, 0, 0, 0});
    expect_shares(sampler_of(1, 0, 0, 0), logits, (double[N]){0, 1, 0, 0, 0, 0});
}

static void min_p_drops_the_improbable(void **state)
{
    (void)state;
    float logits[N];
    logits_of(P, logits);
    expect_shares(sampler_of(1, 0, 1, 0.4F), logits, (double[N]){0, 0.5, 0.25, 0, 0.25, 0});
}

static void same_seed_same_tokens(void **state)
{
    (void)state;
    float logits[N];
    logits_of(P, logits);
    struct mb_sampler a = sampler_of(1, 0, 1, 0), b = a, c = a;
    c.options.seed = 43;
    assert_int_equal(mb_sampler_init(&c, &c.options, NULL), MB_OK);
    int n_other = 0;
    for (int i = 0; i < 1000; i++) {
        int32_t token = pick(&a, logits);
        assert_int_equal(token, pick(&b, logits));
        n_other += token != pick(&c, logits);
    }
    assert_true(n_other > 300);
}

static void nan_and_infinity_are_refused(void **state)
{
    (void)state;
    struct mb_sampler greedy = sampler_of(0, 0, 1, 0), warm = sampler_of(1, 0, 1, 0);
    struct mb_error err;
    int32_t token;
    const float nan[N] = {0, 1, NAN, 0, 0, 0}, infinite[N] = {0, INFINITY, 0, 0, 0, 0};
    assert_int_equal(mb_sampler_pick(&greedy, nan, N, scratch, &token, &err), MB_BAD_DATA);
    assert_non_null(strstr(err.msg, "token 2 is NaN"));
    assert_int_equal(mb_sampler_pick(&warm, nan, N, scratch, &token, &err), MB_BAD_DATA);
    assert_int_equal(mb_sampler_pick(&warm, infinite, N, scratch, &token, &err), MB_BAD_DATA);
}

static void wrong_options_are_refused(void **state)
{
    (void)state;
    struct mb_sampler sampler;
    struct mb_error err;
    const struct mb_sampler_options usual = {.size = sizeof usual, .temperature = 1, .top_p = 1};
    struct mb_sampler_options nan = usual, negative = usual, nameless = usual;
    nan.temperature = NAN;
    negative.top_p = -1;
    nameless.size = 0;
    assert_int_equal(mb_sampler_init(&sampler, &nan, &err), MB_USAGE);
    assert_non_null(strstr(err.msg, "temperature"));
    assert_int_equal(mb_sampler_init(&sampler, &negative, &err), MB_USAGE);
    assert_non_null(strstr(err.msg, "top-p"));
    assert_int_equal(mb_sampler_init(&sampler, &nameless, &err), MB_USAGE);
    assert_int_equal(mb_sampler_init(&sampler, NULL, &err), MB_OK);
    assert_true(sampler.options.temperature == 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(greedy_takes_the_lowest_of_equals),
        cmocka_unit_test(shares_are_the_softmax),
        cmocka_unit_test(temperature_sharpens),
        cmocka_unit_test(top_k_keeps_k),
        cmocka_unit_test(top_p_keeps_the_mass),
        cmocka_unit_test(min_p_drops_the_improbable),
        cmocka_unit_test(same_seed_same_tokens),
        cmocka_unit_test(nan_and_infinity_are_refused),
        cmocka_unit_test(wrong_options_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
