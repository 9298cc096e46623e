/*
 * test_simulate.c - traces that are replayed by hand, and what holds for every trace.
 */
#include "cmocka_all.h"
#include <moebius/offload.h>
#include <string.h>

static struct mb_trace *parse(const char *text)
{
    struct mb_trace *trace;
    struct mb_error err;
    if (mb_trace_parse("t", text, strlen(text), &trace, &err) != MB_OK)
        fail_msg("%s", err.msg);
    return trace;
}

enum { N_MAX = 4096 };
static uint64_t sizes[N_MAX];

static struct mb_simulation_options options_of(const char *policy, uint64_t memory_nbytes,
                                               uint64_t expert_nbytes)
{
    for (size_t e = 0; e < N_MAX; e++)
        sizes[e] = expert_nbytes;
    return (struct mb_simulation_options){.size = sizeof(struct mb_simulation_options),
                                          .policy = policy,
                                          .memory_nbytes = memory_nbytes,
                                          .nbytes = sizes};
}

static struct mb_simulation run(const struct mb_trace *trace, const struct mb_simulation_options *options)
{
    struct mb_simulation result;
    struct mb_error err;
    if (mb_simulate(trace, options, &result, &err) != MB_OK)
        fail_msg("%s", err.msg);
    return result;
}

#define HEAD \
    "# moebius_trace 1 n_experts 4 n_experts_used 1 layers 0\nsequence,token,kind,layer,experts,gates\n"
#define USE(token, expert) "0," #token ",generated,0," #expert ",1\n"
#define ASK(token, expert) "0," #token ",prompt,0," #expert ",1\n"

/* 0 1 2 0 1 3 0 1 2 with room for two */
static const char nine[] =
    HEAD USE(0, 0) USE(1, 1) USE(2, 2) USE(3, 0) USE(4, 1) USE(5, 3) USE(6, 0) USE(7, 1) USE(8, 2);

static void hits_are_what_is_found_in_memory(void **state)
{
    (void)state;
    struct mb_trace *trace = parse(nine);
    struct mb_simulation_options options = options_of("lru", 20, 10);
    struct mb_simulation r = run(trace, &options);
    assert_int_equal(r.n_tokens, 9);
    assert_int_equal(r.n_uses, 9);
    assert_int_equal(r.n_hits, 0);
    assert_int_equal(r.read_nbytes, 90);
    options.memory_nbytes = 30; /* 3 replaces 2: 0 1 0 1 are found */
    assert_int_equal(run(trace, &options).n_hits, 4);
    options.memory_nbytes = 40;
    r = run(trace, &options);
    assert_int_equal(r.n_hits, 5);
    assert_int_equal(r.read_nbytes, 40);
    options.n_warm = 6;
    r = run(trace, &options);
    assert_int_equal(r.n_hits, 3);
    assert_int_equal(r.n_uses, 3);
    assert_int_equal(r.read_nbytes, 0);
    mb_trace_close(trace);
}

static void belady_keeps_what_is_needed_first(void **state)
{
    (void)state;
    struct mb_trace *trace = parse(nine);
    struct mb_simulation_options options = options_of("belady", 20, 10);
    /* 2 replaces 1 (needed at 4, 0 at 3), 1 replaces 2, 3 replaces 1 (at 7, 0 at 6): 0 is found at 3 and 6 */
    assert_int_equal(run(trace, &options).n_hits, 2);
    mb_trace_close(trace);
}

static void a_prompt_reads_each_expert_once_and_throws_out_what_it_read(void **state)
{
    (void)state;
    struct mb_trace *trace =
        parse(HEAD USE(0, 0) USE(1, 1) ASK(2, 2) ASK(3, 3) ASK(4, 2) ASK(5, 0) USE(6, 0) USE(7, 1));
    struct mb_simulation_options options = options_of("lru", 30, 10);
    struct mb_simulation r = run(trace, &options);
    assert_int_equal(r.prompt_nbytes, 20); /* 2 and 3, which takes the place of 2; 0 is there */
    assert_int_equal(r.n_tokens, 4);
    assert_int_equal(r.n_hits, 2);
    options.memory_nbytes = 20; /* 2 takes the place of 1: so much is left to prompts */
    r = run(trace, &options);
    assert_int_equal(r.prompt_nbytes, 20);
    assert_int_equal(r.n_hits, 1);
    options.n_pass_tokens = 1; /* 2, 3, 2 again and 0 come one after another, each in another's place */
    assert_int_equal(run(trace, &options).prompt_nbytes, 40);
    options.n_pass_tokens = 2; /* 2 and 3, then 0 and 2 */
    assert_int_equal(run(trace, &options).prompt_nbytes, 40);
    options.n_pass_tokens = 0;
    options.are_all_generated = true;
    r = run(trace, &options);
    assert_int_equal(r.n_tokens, 8);
    assert_int_equal(r.prompt_nbytes, 0);
    mb_trace_close(trace);
}

static void times_are_those_of_link_and_products(void **state)
{
    (void)state;
    /* two of four experts a token, 1000 bytes each; link and products 1 byte a ns, latency 100 ns */
    struct mb_trace *trace = parse(
        "# moebius_trace 1 n_experts 4 n_experts_used 2 layers 0\nsequence,token,kind,layer,experts,gates\n"
        "0,0,generated,0,0 1,1 1\n0,1,generated,0,1 2,1 1\n");
    struct mb_simulation_options options = options_of("lru", 4000, 1000);
    options.link = (struct mb_link_options){sizeof options.link, 1000000000, 100, 2};
    options.dense_nbytes = 500;
    options.compute_bytes_per_s = 1000000000;
    struct mb_simulation r = run(trace, &options);
    /* token 0: 500 dense; reads asked at 500 are there at 1600 and 2600; products end at 2600 and 3600.
     * token 1: 500 dense, 1000 for expert 1; expert 2 is there after 500 + 1100: waits 100, then 1000 */
    assert_int_equal(r.total_ns, 3600 + 2600);
    assert_int_equal(r.waited_ns, 1100 + 0 + 100);
    assert_int_equal(r.busy_ns, 3000);
    options.link.bytes_per_s = 0;
    options.compute_bytes_per_s = 0;
    assert_int_equal(run(trace, &options).total_ns, 0);
    mb_trace_close(trace);
}

/* Two layers of two experts, one used; a read takes 1000 ns, all else 400. */
static void looking_ahead_hides_reads_where_guesses_are_right(void **state)
{
    (void)state;
    struct mb_trace *trace = parse(
        "# moebius_trace 1 n_experts 2 n_experts_used 1 layers 0 1\nsequence,token,kind,layer,experts,gates\n"
        "0,0,generated,0,0,1\n0,0,generated,1,0,1\n");
    struct mb_simulation_options options = options_of("lru", 40, 10);
    options.link = (struct mb_link_options){sizeof options.link, 10000000, 0, 2};
    options.token_ns = 400; /* 200 a layer */
    options.wave_ns = 200;
    struct mb_simulation r = run(trace, &options);
    assert_int_equal(r.total_ns, 2 * (200 + 1000 + 200));
    assert_int_equal(r.waited_ns, 2000);
    options.lookahead = 1; /* the first read begins with the token, the second follows it */
    r = run(trace, &options);
    assert_int_equal(r.total_ns, 1000 + 1000 + 200);
    assert_int_equal(r.n_hits, 0);        /* what is read is no hit */
    options.check_bytes_per_s = 20000000; /* 500 ns each; the first one's is hidden, too */
    assert_int_equal(run(trace, &options).total_ns, 1000 + 1000 + 500 + 200);
    options.check_bytes_per_s = 0;
    options.arrive_ns = options.wake_ns = 30; /* to check, and to go on */
    options.request_ns = 5;
    assert_int_equal(run(trace, &options).total_ns, 1000 + 1000 + 2 * 30 + 200);
    options.lookahead = 2;
    assert_int_equal(mb_simulate(trace, &options, &r, NULL), MB_USAGE);
    mb_trace_close(trace);
}

/* An expert of 3 MiB is read in three ranges; the first two are checked while the next ones are read. */
static void an_expert_is_read_in_ranges(void **state)
{
    (void)state;
    const uint64_t mib = 1 << 20;
    struct mb_trace *trace = parse(
        "# moebius_trace 1 n_experts 2 n_experts_used 1 layers 0 1\nsequence,token,kind,layer,experts,gates\n"
        "0,0,generated,0,0,1\n0,0,generated,1,0,1\n");
    struct mb_simulation_options options = options_of("lru", 12 * mib, 3 * mib);
    options.link = (struct mb_link_options){sizeof options.link, 1000000000, 100, 8};
    options.token_ns = 200;
    struct mb_simulation r = run(trace, &options);
    assert_int_equal(r.total_ns, 2 * (100 + 100 + 3 * mib)); /* one latency: ranges follow one another */
    options.link.depth = 1;
    assert_int_equal(run(trace, &options).total_ns, 2 * (100 + 3 * (100 + mib)));
    options.link.depth = 8;
    options.n_threads = 1;
    options.check_bytes_per_s = 1000000000;
    assert_int_equal(run(trace, &options).total_ns, 2 * (100 + 100 + 3 * mib + mib));
    options.check_bytes_per_s = 500000000; /* slower than reads: one after another */
    assert_int_equal(run(trace, &options).total_ns, 2 * (100 + 100 + mib + 6 * mib));
    options.ask_ns =
        70; /* three requests are under way at once, which the second layer's product waits for */
    options.request_ns = 10;
    assert_int_equal(run(trace, &options).total_ns, 2 * (100 + 100 + mib + 6 * mib));
    options.token_ns = 40 * mib; /* all is read while something is multiplied, and takes time from that */
    options.lookahead = 1;
    r = run(trace, &options);
    options.reap_ns = 1000;
    assert_int_equal(run(trace, &options).total_ns - r.total_ns, 2 * 3 * 1000);
    mb_trace_close(trace);
}

static void no_policy_finds_more_than_belady(void **state)
{
    (void)state;
    static const char *const specs[] = {
        "experts=16 used=2 layers=3 tokens=400 top8=80% overlap=40% seed=3",
        "experts=32 used=4 layers=5 tokens=300 top8=50% overlap=30% seed=4",
        "experts=8 used=2 layers=6 tokens=300 seed=5",
        "experts=64 used=1 layers=4 tokens=500 top8=40% overlap=50% seed=6",
    };
    for (size_t i = 0; i < sizeof specs / sizeof *specs; i++) {
        struct mb_trace_random random;
        struct mb_trace *trace;
        assert_int_equal(mb_trace_random_parse(specs[i], &random, NULL), MB_OK);
        assert_int_equal(mb_trace_make(&random, &trace, NULL), MB_OK);
        size_t n = random.shape.n_layers * random.shape.n_experts;
        double usage[N_MAX];
        for (size_t e = 0; e < n; e++)
            usage[e] = (double)(e % 7) / 10;
        for (uint64_t slots = random.shape.n_used; slots <= n; slots += 1 + n / 9) {
            struct mb_simulation_options options = options_of("belady", slots * 10, 10);
            uint64_t best = run(trace, &options).n_hits;
            const struct mb_policy_info *info;
            options.usage = usage;
            for (size_t k = 0; (info = mb_policy_info(k)) != NULL; k++) {
                options.policy = info->name;
                assert_in_range(run(trace, &options).n_hits, 0, best);
            }
        }
        mb_trace_close(trace);
    }
}

static void the_default_finds_something_where_lru_finds_nothing(void **state)
{
    (void)state;
    /* A token uses 48 experts of 768; room for 40. */
    struct mb_trace_random random;
    struct mb_trace *trace;
    assert_int_equal(
        mb_trace_random_parse("experts=64 used=4 layers=12 tokens=500 top8=45% overlap=35%", &random, NULL),
        MB_OK);
    assert_int_equal(mb_trace_make(&random, &trace, NULL), MB_OK);
    struct mb_simulation_options options = options_of("lru", 400, 10);
    assert_int_equal(run(trace, &options).n_hits, 0);
    options.policy = NULL;
    struct mb_simulation r = run(trace, &options);
    assert_true((double)r.n_hits / (double)r.n_uses > 0.15);
    mb_trace_close(trace);
}

static void what_cannot_be_is_refused(void **state)
{
    (void)state;
    struct mb_trace *trace = parse(nine);
    struct mb_simulation result;
    struct mb_error err;
    struct mb_simulation_options options = options_of("lru", 9, 10);
    assert_int_equal(mb_simulate(trace, &options, &result, &err), MB_USAGE);
    assert_non_null(strstr(err.msg, "need 10"));
    options = options_of("oracle", 40, 10);
    assert_int_equal(mb_simulate(trace, &options, &result, &err), MB_USAGE);
    options = options_of("profile", 40, 10);
    assert_int_equal(mb_simulate(trace, &options, &result, &err), MB_USAGE);
    options = options_of("lru", 40, 10);
    options.link = (struct mb_link_options){sizeof options.link, 1, 1, 1000};
    assert_int_equal(mb_simulate(trace, &options, &result, &err), MB_USAGE);
    options.nbytes = NULL;
    assert_int_equal(mb_simulate(trace, &options, &result, &err), MB_USAGE);
    mb_trace_close(trace);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(hits_are_what_is_found_in_memory),
        cmocka_unit_test(belady_keeps_what_is_needed_first),
        cmocka_unit_test(a_prompt_reads_each_expert_once_and_throws_out_what_it_read),
        cmocka_unit_test(times_are_those_of_link_and_products),
        cmocka_unit_test(looking_ahead_hides_reads_where_guesses_are_right),
        cmocka_unit_test(an_expert_is_read_in_ranges),
        cmocka_unit_test(no_policy_finds_more_than_belady),
        cmocka_unit_test(the_default_finds_something_where_lru_finds_nothing),
        cmocka_unit_test(what_cannot_be_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
