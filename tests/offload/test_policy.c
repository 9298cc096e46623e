/*
 * test_policy.c - what each policy evicts, in traces that are short enough to follow by hand.
 */
#include "cmocka_all.h"
#include <moebius/offload.h>
#include <string.h>

enum { N_MAX = 64 };

/* One layer of n experts, or several. */
static struct mb_policy *open_policy(const char *name, size_t n_layers, size_t n_experts)
{
    struct mb_policy_options options = {sizeof options, .n_layers = n_layers, .n_experts = n_experts};
    struct mb_policy *policy;
    struct mb_error err;
    assert_int_equal(mb_policy_open(name, &options, &policy, &err), MB_OK);
    return policy;
}

static void touch_and_load(struct mb_policy *policy, size_t expert, uint64_t token)
{
    mb_policy_touch(policy, expert, 1, token);
    mb_policy_loaded(policy, expert);
}

/* A cache of n_slots of one size: how many of the experts of 'trace', n_a_token of each token, were in it. */
static size_t count_hits(struct mb_policy *policy, const uint8_t *trace, size_t n, size_t n_a_token,
                         size_t n_slots)
{
    bool is_in[N_MAX] = {false};
    size_t n_in = 0, n_hits = 0;
    for (size_t t = 0; t < n; t++) {
        size_t e = trace[t];
        mb_policy_touch(policy, e, 1, t / n_a_token);
        n_hits += is_in[e] ? 1 : 0;
        if (is_in[e])
            continue;
        if (n_in == n_slots) {
            size_t victim = mb_policy_victim(policy, NULL, NULL);
            assert_true(victim < N_MAX && is_in[victim]);
            mb_policy_evicted(policy, victim);
            is_in[victim] = false;
            n_in--;
        }
        mb_policy_loaded(policy, e);
        is_in[e] = true;
        n_in++;
    }
    return n_hits;
}

static bool is_not(void *ctx, size_t expert)
{
    return expert != *(const size_t *)ctx;
}

static bool none(void *ctx, size_t expert)
{
    (void)ctx, (void)expert;
    return false;
}

static void each_policy_evicts_only_what_is_in_memory_and_may_leave(void **state)
{
    (void)state;
    const struct mb_policy_info *info;
    for (size_t i = 0; (info = mb_policy_info(i)) != NULL; i++) {
        if (strcmp(info->name, "profile") == 0)
            continue; /* needs usage */
        struct mb_policy *policy = open_policy(info->name, 2, 3);
        assert_int_equal(mb_policy_victim(policy, NULL, NULL), MB_NO_EXPERT);
        touch_and_load(policy, 1, 0);
        touch_and_load(policy, 4, 0);
        mb_policy_touch(policy, 5, 1, 0); /* and is not loaded */
        size_t pinned = 1;
        assert_int_equal(mb_policy_victim(policy, is_not, &pinned), 4);
        pinned = 4;
        assert_int_equal(mb_policy_victim(policy, is_not, &pinned), 1);
        assert_int_equal(mb_policy_victim(policy, none, NULL), MB_NO_EXPERT);
        mb_policy_evicted(policy, 4);
        assert_int_equal(mb_policy_victim(policy, NULL, NULL), 1);
        mb_policy_close(policy);
    }
}

static void the_same_calls_give_the_same_victims(void **state)
{
    (void)state;
    const struct mb_policy_info *info;
    for (size_t i = 0; (info = mb_policy_info(i)) != NULL; i++) {
        if (strcmp(info->name, "profile") == 0)
            continue;
        struct mb_policy *a = open_policy(info->name, 4, 16), *b = open_policy(info->name, 4, 16);
        uint32_t random = 1;
        for (size_t t = 0; t < 4096; t++) {
            random = random * 1664525 + 1013904223;
            size_t expert = t % 4 * 16 + (random >> 28);
            touch_and_load(a, expert, t / 4);
            touch_and_load(b, expert, t / 4);
            if (t % 3 != 0)
                continue;
            size_t victim = mb_policy_victim(a, NULL, NULL);
            assert_int_equal(victim, mb_policy_victim(b, NULL, NULL));
            mb_policy_evicted(a, victim);
            mb_policy_evicted(b, victim);
        }
        mb_policy_close(a);
        mb_policy_close(b);
    }
}

static void the_default_policy_is_the_first(void **state)
{
    (void)state;
    struct mb_policy *policy = open_policy(NULL, 1, 4);
    assert_string_equal(mb_policy_info(0)->name, "blend");
    mb_policy_close(policy);
}

static void lru_evicts_what_was_used_longest_ago(void **state)
{
    (void)state;
    struct mb_policy *policy = open_policy("lru", 1, 4);
    touch_and_load(policy, 0, 0);
    touch_and_load(policy, 1, 1);
    touch_and_load(policy, 2, 2);
    mb_policy_touch(policy, 0, 1, 3);
    assert_int_equal(mb_policy_victim(policy, NULL, NULL), 1);
    mb_policy_close(policy);

    /* 0 1 2 0 1 3 0 1 3, three slots: 0 and 1 are found, 3 replaces 2, then all are found */
    static const uint8_t trace[] = {0, 1, 2, 0, 1, 3, 0, 1, 3};
    policy = open_policy("lru", 1, 4);
    assert_int_equal(count_hits(policy, trace, sizeof trace, 1, 3), 5);
    mb_policy_close(policy);
}

static void lru_finds_nothing_in_a_circle_that_does_not_fit_but_the_default_does(void **state)
{
    (void)state;
    static const uint8_t circle[] = {0, 1, 2, 3, 0, 1, 2, 3, 0, 1, 2, 3, 0, 1, 2, 3};
    struct mb_policy *lru = open_policy("lru", 4, 1), *own = open_policy(NULL, 4, 1);
    assert_int_equal(count_hits(lru, circle, sizeof circle, 4, 3), 0);
    /* 3 replaces 2, which is furthest ahead, 2 replaces 1, 1 replaces 0, ...: two of three are found, the
     * optimum */
    assert_int_equal(count_hits(own, circle, sizeof circle, 4, 3), 8);
    mb_policy_close(lru);
    mb_policy_close(own);
}

static void blend_weighs_the_last_tokens_and_the_long_run(void **state)
{
    (void)state;
    /* Half-life 2^20: a use counts next to nothing in the long run, so what is recent decides. */
    struct mb_policy_options options = {sizeof options, .n_layers = 1, .n_experts = 3, .half_life = 1 << 20};
    struct mb_policy *policy;
    assert_int_equal(mb_policy_open("blend", &options, &policy, NULL), MB_OK);
    touch_and_load(policy, 0, 0);
    touch_and_load(policy, 0, 1); /* 1.5 now, 0.375 at token 3 */
    touch_and_load(policy, 1, 2); /* 0.5 at token 3 */
    touch_and_load(policy, 2, 3);
    assert_int_equal(mb_policy_victim(policy, NULL, NULL), 0);
    mb_policy_close(policy);

    /* The usual half-life: what is used every second token stays before what was used once. */
    options.half_life = 256;
    assert_int_equal(mb_policy_open("blend", &options, &policy, NULL), MB_OK);
    for (uint64_t t = 0; t < 300; t++)
        touch_and_load(policy, t % 2 == 0 ? 0 : 2, t); /* about 0.28 each in the long run */
    touch_and_load(policy, 1, 300);
    touch_and_load(policy, 2, 301); /* of 1 little is left: 0.003 and 1/2 / 16; of 0 0.28 */
    assert_int_equal(mb_policy_victim(policy, NULL, NULL), 1);
    mb_policy_close(policy);
}

static void blend_divides_by_the_layers_to_go(void **state)
{
    (void)state;
    struct mb_policy *policy = open_policy("blend", 4, 1);
    for (size_t e = 0; e < 4; e++)
        touch_and_load(policy, e, 0);
    mb_policy_touch(policy, 0, 1, 1); /* 1, 2 and 3 were used once and are 1, 2 and 3 ahead */
    assert_int_equal(mb_policy_victim(policy, NULL, NULL), 3);
    mb_policy_close(policy);
}

static void lfru_evicts_what_was_used_least_often(void **state)
{
    (void)state;
    struct mb_policy *policy = open_policy("lfru", 1, 4);
    touch_and_load(policy, 0, 0);
    touch_and_load(policy, 0, 1);
    touch_and_load(policy, 1, 2);
    touch_and_load(policy, 2, 3);
    touch_and_load(policy, 2, 4);
    assert_int_equal(mb_policy_victim(policy, NULL, NULL), 1);
    mb_policy_close(policy);
}

static void lfru_counts_a_use_half_after_its_half_life(void **state)
{
    (void)state;
    struct mb_policy_options options = {sizeof options, .n_layers = 1, .n_experts = 2, .half_life = 4};
    struct mb_policy *policy;
    assert_int_equal(mb_policy_open("lfru", &options, &policy, NULL), MB_OK);
    touch_and_load(policy, 0, 0);
    touch_and_load(policy, 0, 0);
    touch_and_load(policy, 0, 0); /* 3 uses: 1.5 after 4 tokens, 0.75 after 8 */
    touch_and_load(policy, 1, 4);
    assert_int_equal(mb_policy_victim(policy, NULL, NULL), 1);
    touch_and_load(policy, 1, 8); /* 0.5 + 1 */
    assert_int_equal(mb_policy_victim(policy, NULL, NULL), 0);
    mb_policy_close(policy);
}

static void lfru_counts_on_after_any_number_of_tokens(void **state)
{
    (void)state;
    struct mb_policy_options options = {sizeof options, .n_layers = 1, .n_experts = 3, .half_life = 2};
    struct mb_policy *policy;
    assert_int_equal(mb_policy_open("lfru", &options, &policy, NULL), MB_OK);
    for (uint64_t t = 0; t < 10000; t++) /* 0 more often than 1 */
        touch_and_load(policy, t % 3 == 0 ? 1 : 0, t);
    assert_int_equal(mb_policy_victim(policy, NULL, NULL), 1);
    touch_and_load(policy, 1, UINT64_MAX); /* all the past is nothing against this */
    assert_int_equal(mb_policy_victim(policy, NULL, NULL), 0);
    mb_policy_close(policy);
}

static void lfu_counts_old_uses_like_new_ones(void **state)
{
    (void)state;
    struct mb_policy *policy = open_policy("lfu", 1, 3);
    touch_and_load(policy, 0, 0);
    touch_and_load(policy, 0, 1);
    touch_and_load(policy, 1, 100000);
    assert_int_equal(mb_policy_victim(policy, NULL, NULL), 1);
    touch_and_load(policy, 1, 100001); /* as often as 0, and later */
    assert_int_equal(mb_policy_victim(policy, NULL, NULL), 0);
    mb_policy_close(policy);
}

static void edgemoe_divides_uses_by_the_layers_to_go(void **state)
{
    (void)state;
    struct mb_policy *policy = open_policy("edgemoe", 4, 2); /* experts 0 1, 2 3, 4 5, 6 7 */
    for (uint64_t t = 0; t < 3; t++) {
        touch_and_load(policy, 2, t); /* layer 1: 3 uses */
        touch_and_load(policy, 6, t); /* layer 3: 3 uses */
    }
    touch_and_load(policy, 0, 3); /* layer 0: 1 use, 4 layers until it is its turn again */
    assert_int_equal(mb_policy_victim(policy, NULL, NULL), 0); /* 1/4, 3/1, 3/3 */
    mb_policy_evicted(policy, 0);
    assert_int_equal(mb_policy_victim(policy, NULL, NULL), 6); /* used as often as 2, needed later */
    mb_policy_touch(policy, 5, 1, 3); /* in layer 2: layer 3 is next, layer 1 after 3 layers */
    assert_int_equal(mb_policy_victim(policy, NULL, NULL), 2);
    mb_policy_close(policy);
}

static void hobbit_weighs_last_use_uses_gates_and_layer(void **state)
{
    (void)state;
    struct mb_policy *policy = open_policy("hobbit", 1, 3);
    mb_policy_touch(policy, 0, 0.9F, 0); /* last used at 1 of 4 tokens, 1 use, 0.9 of gates: 2.9 / 4 */
    mb_policy_touch(policy, 1, 0.1F, 1); /* 2 + 1 + 0.1: 3.1 / 4 */
    mb_policy_touch(policy, 2, 0.1F, 3); /* 4 + 1 + 0.1: 5.1 / 4 */
    for (size_t e = 0; e < 3; e++)
        mb_policy_loaded(policy, e);
    assert_int_equal(mb_policy_victim(policy, NULL, NULL), 0);
    mb_policy_touch(policy, 0, 0.9F, 3); /* 4 + 2 + 1.8 */
    assert_int_equal(mb_policy_victim(policy, NULL, NULL), 1);
    mb_policy_close(policy);

    policy =
        open_policy("hobbit", 4, 1); /* used alike: of the layers 0 1 2 3, 3 is 2 ahead of 1, 0 is 3 ahead */
    for (size_t e = 0; e < 4; e++)
        touch_and_load(policy, e, 0);
    mb_policy_touch(policy, 0, 1, 1);
    mb_policy_touch(policy, 1, 1, 1);
    assert_int_equal(mb_policy_victim(policy, NULL, NULL), 3);
    mb_policy_close(policy);
}

static void hobbit_forgets_its_counts_with_the_sequence(void **state)
{
    (void)state;
    struct mb_policy *policy = open_policy("hobbit", 1, 2);
    for (uint64_t t = 0; t < 10; t++)
        touch_and_load(policy, 0, t);
    mb_policy_begin_sequence(policy);
    touch_and_load(policy, 1, 10);
    assert_int_equal(mb_policy_victim(policy, NULL, NULL), 0);
    mb_policy_close(policy);
}

static void a_profile_says_what_stays_until_the_text_says_otherwise(void **state)
{
    (void)state;
    static const double usage[] = {0.9, 0.1, 0.5};
    struct mb_policy_options options = {sizeof options, .n_layers = 1, .n_experts = 3, .half_life = 8,
                                        .usage = usage};
    struct mb_policy *policy;
    assert_int_equal(mb_policy_open("profile", &options, &policy, NULL), MB_OK);
    for (size_t e = 0; e < 3; e++)
        mb_policy_loaded(policy, e);
    assert_int_equal(mb_policy_victim(policy, NULL, NULL), 1);
    for (uint64_t t = 0; t < 32; t++) /* four half-lives of another text */
        mb_policy_touch(policy, 1, 1, t);
    assert_int_equal(mb_policy_victim(policy, NULL, NULL), 2);
    mb_policy_close(policy);
}

static void a_profile_is_needed_and_is_a_share_of_tokens(void **state)
{
    (void)state;
    struct mb_policy_options options = {sizeof options, .n_layers = 1, .n_experts = 2};
    struct mb_policy *policy;
    struct mb_error err;
    assert_int_equal(mb_policy_open("profile", &options, &policy, &err), MB_USAGE);
    static const double usage[] = {0.5, 1.5};
    options.usage = usage;
    assert_int_equal(mb_policy_open("profile", &options, &policy, &err), MB_USAGE);
    assert_non_null(strstr(err.msg, "expert 1"));
}

static void small_experts_stay_where_a_read_costs_more_than_its_bytes(void **state)
{
    (void)state;
    static const uint64_t nbytes[] = {1000, 100};
    struct mb_policy_options options = {sizeof options, .n_layers = 1, .n_experts = 2, .nbytes = nbytes,
                                        .request_nbytes = 100};
    struct mb_policy *policy;
    assert_int_equal(mb_policy_open("lfru", &options, &policy, NULL), MB_OK);
    touch_and_load(policy, 1, 0);
    touch_and_load(policy, 0, 0); /* as often and later, but a byte of it is worth 1.1 where one of 1 is 2 */
    assert_int_equal(mb_policy_victim(policy, NULL, NULL), 0);
    assert_true(mb_policy_prefers(policy, 1, 0));
    assert_false(mb_policy_prefers(policy, 0, 1));
    mb_policy_close(policy);
}

static void wrong_options_are_refused(void **state)
{
    (void)state;
    struct mb_policy *policy = NULL;
    struct mb_error err;
    struct mb_policy_options options = {sizeof options, .n_layers = 2, .n_experts = 2};
    assert_int_equal(mb_policy_open("fifo", &options, &policy, &err), MB_USAGE);
    assert_non_null(strstr(err.msg, "\"fifo\"; there are: blend, lfru, lru"));
    options.n_experts = 0;
    assert_int_equal(mb_policy_open(NULL, &options, &policy, &err), MB_USAGE);
    options.n_experts = MB_POLICY_EXPERTS_MAX;
    assert_int_equal(mb_policy_open(NULL, &options, &policy, &err), MB_USAGE);
    assert_int_equal(mb_policy_open(NULL, NULL, &policy, &err), MB_USAGE);
    assert_null(policy);
    mb_policy_close(NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_policy_evicts_only_what_is_in_memory_and_may_leave),
        cmocka_unit_test(the_same_calls_give_the_same_victims),
        cmocka_unit_test(the_default_policy_is_the_first),
        cmocka_unit_test(lru_evicts_what_was_used_longest_ago),
        cmocka_unit_test(lru_finds_nothing_in_a_circle_that_does_not_fit_but_the_default_does),
        cmocka_unit_test(blend_weighs_the_last_tokens_and_the_long_run),
        cmocka_unit_test(blend_divides_by_the_layers_to_go),
        cmocka_unit_test(lfru_evicts_what_was_used_least_often),
        cmocka_unit_test(lfru_counts_a_use_half_after_its_half_life),
        cmocka_unit_test(lfru_counts_on_after_any_number_of_tokens),
        cmocka_unit_test(lfu_counts_old_uses_like_new_ones),
        cmocka_unit_test(edgemoe_divides_uses_by_the_layers_to_go),
        cmocka_unit_test(hobbit_weighs_last_use_uses_gates_and_layer),
        cmocka_unit_test(hobbit_forgets_its_counts_with_the_sequence),
        cmocka_unit_test(a_profile_says_what_stays_until_the_text_says_otherwise),
        cmocka_unit_test(a_profile_is_needed_and_is_a_share_of_tokens),
        cmocka_unit_test(small_experts_stay_where_a_read_costs_more_than_its_bytes),
        cmocka_unit_test(wrong_options_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
