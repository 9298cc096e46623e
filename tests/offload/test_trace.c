/*
 * test_trace.c - traces of routing: files that come back as they were, files that are none, and traces by
 * chance that have the statistics that they are made for.
 */
#include "cmocka_all.h"
#include <math.h>
#include <moebius/offload.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static struct mb_trace *parse(const char *text)
{
    struct mb_trace *trace;
    struct mb_error err;
    if (mb_trace_parse("t", text, strlen(text), &trace, &err) != MB_OK)
        fail_msg("%s", err.msg);
    return trace;
}

static void refuse(const char *text, const char *message)
{
    struct mb_trace *trace;
    struct mb_error err;
    assert_int_not_equal(mb_trace_parse("t", text, strlen(text), &trace, &err), MB_OK);
    assert_null(trace);
    if (strstr(err.msg, message) == NULL)
        fail_msg("not about \"%s\": %s", message, err.msg);
}

/* Two layers, 3 and 5, of four experts, of which a token uses two. */
static struct mb_trace *make_trace(void)
{
    static const uint32_t layers[] = {3, 5};
    const struct mb_trace_shape shape = {2, 4, 2};
    struct mb_trace *trace;
    assert_int_equal(mb_trace_open(&shape, layers, &trace, NULL), MB_OK);
    assert_int_equal(mb_trace_add(trace, 0, false, NULL), MB_OK);
    assert_int_equal(mb_trace_add(trace, 0, true, NULL), MB_OK);
    assert_int_equal(mb_trace_add(trace, 1, true, NULL), MB_OK);
    for (size_t t = 0; t < 3; t++) {
        const int32_t first[] = {(int32_t)t, 3}, second[] = {1, 2};
        const float gates[] = {0.1F + (float)t, 1e-9F};
        assert_int_equal(mb_trace_route(trace, t, 3, first, gates, 2, NULL), MB_OK);
        if (t != 1) /* passes no second layer */
            assert_int_equal(mb_trace_route(trace, t, 5, second, gates, 2, NULL), MB_OK);
    }
    return trace;
}

static void assert_same(const struct mb_trace *a, const struct mb_trace *b)
{
    const struct mb_trace_shape *shape = mb_trace_shape(a);
    assert_memory_equal(shape, mb_trace_shape(b), sizeof *shape);
    assert_memory_equal(mb_trace_layers(a), mb_trace_layers(b), shape->n_layers * sizeof(uint32_t));
    assert_int_equal(mb_trace_n_tokens(a), mb_trace_n_tokens(b));
    for (size_t t = 0; t < mb_trace_n_tokens(a); t++) {
        struct mb_trace_token x = mb_trace_token(a, t), y = mb_trace_token(b, t);
        size_t n = shape->n_layers * shape->n_used;
        assert_int_equal(x.sequence, y.sequence);
        assert_int_equal(x.is_generated, y.is_generated);
        assert_memory_equal(x.experts, y.experts, n * sizeof *x.experts);
        assert_memory_equal(x.gates, y.gates, n * sizeof *x.gates);
    }
}

static void a_trace_comes_back_from_both_formats_as_it_was(void **state)
{
    (void)state;
    struct mb_trace *trace = make_trace(), *back;
    for (int format = MB_TRACE_JSONL; format <= MB_TRACE_CSV; format++) {
        const char *path = MB_TEST_FOLDER "/trace_comes_back";
        struct mb_error err;
        assert_int_equal(mb_trace_save(trace, path, (enum mb_trace_format)format, &err), MB_OK);
        assert_int_equal(mb_trace_load(path, &back, &err), MB_OK);
        assert_same(trace, back);
        mb_trace_close(back);
        remove(path);
    }
    mb_trace_close(trace);
}

#define CSV \
    "# moebius_trace 1 n_experts 4 n_experts_used 2 layers 3 5\nsequence,token,kind,layer,experts,gates\n"
#define JSONL "{\"moebius_trace\": 1, \"n_experts\": 4, \"n_experts_used\": 2, \"layers\": [3, 5]}\n"
#define ROW                                                                                                \
    "{\"sequence\": 0, \"token\": 0, \"kind\": \"prompt\", \"layer\": 3, \"experts\": [0, 1], \"gates\": " \
    "[1, 0.5]}\n"

static void a_trace_is_read_as_it_is_written_down(void **state)
{
    (void)state;
    struct mb_trace *csv = parse(CSV "0,0,prompt,3,0 1,1 0.5\r\n\n"), *jsonl = parse(JSONL ROW);
    assert_same(csv, jsonl);
    struct mb_trace_token token = mb_trace_token(csv, 0);
    assert_false(token.is_generated);
    assert_int_equal(token.experts[1], 1);
    assert_int_equal(token.experts[2], MB_TRACE_NONE);
    assert_true(token.gates[1] == 0.5F);
    mb_trace_close(csv);
    mb_trace_close(jsonl);
}

static void what_is_no_trace_is_refused_with_its_line(void **state)
{
    (void)state;
    refuse("", "empty");
    refuse("{}", "t: line 1: not a trace");
    refuse("[1]", "line 1");
    refuse("{\"moebius_trace\": 2, \"layers\": [], \"n_experts\": 1, \"n_experts_used\": 1}", "version 2");
    refuse("{\"moebius_trace\": 1, \"layers\": [], \"n_experts\": 1, \"n_experts_used\": 1}", "0 layers");
    refuse("{\"moebius_trace\": 1, \"layers\": [5, 3], \"n_experts\": 1, \"n_experts_used\": 1}",
           "3 after 5");
    refuse("{\"moebius_trace\": 1, \"layers\": [-1], \"n_experts\": 1, \"n_experts_used\": 1}", "no layer");
    refuse("{\"moebius_trace\": 1, \"layers\": [1], \"n_experts\": 1, \"n_experts_used\": 2}", "uses 2");
    refuse("{\"moebius_trace\": 1, \"layers\": [1], \"n_experts\": 70000, \"n_experts_used\": 2}",
           "n_experts");
    refuse("# moebius_trace 2 n_experts 4 n_experts_used 2 layers 3", "version 2");
    refuse("# moebius_trace 1 n_experts 4 n_experts_used 2 layers", "0 layers");
    refuse("# moebius_trace 1 n_experts 4 n_experts_used 2 layers x", "has to be");
    refuse("# moebius_trace 1 n_experts 4 n_experts_used 2 layers 3\na,b\n", "line 2");
    refuse(JSONL, "no tokens");
    refuse(JSONL ROW ROW, "line 3: token 0 has layer 3 twice");
}

static void wrong_rows_are_refused(void **state)
{
    (void)state;
    refuse(CSV "0,0,prompt,3,0 1", "6 cells");
    refuse(CSV "0,0,prompt,3,0 1,1 1,1", "6 cells");
    refuse(CSV "0,0,other,3,0 1,1 1", "kind");
    refuse(CSV "0,1,prompt,3,0 1,1 1", "tokens are 0, 1, 2");
    refuse(CSV "2,0,prompt,3,0 1,1 1", "sequences are 0, 1, 2");
    refuse(CSV "0,0,prompt,4,0 1,1 1", "layer 4");
    refuse(CSV "0,0,prompt,3,0 4,1 1", "no expert 4");
    refuse(CSV "0,0,prompt,3,1 1,1 1", "twice");
    refuse(CSV "0,0,prompt,3,1,1", "uses 1 experts");
    refuse(CSV "0,0,prompt,3,0 1,1", "1 gates for 2");
    refuse(CSV "0,0,prompt,3,0 1,1 1 1", "gates");
    refuse(CSV "0,0,prompt,3,0 1,1 nan", "gates");
    refuse(CSV "0,0,prompt,3,0  1,1 1", "numbers");
    refuse(CSV "0,0,prompt,3,99999999999999999999 1,1 1", "numbers");
    refuse(CSV "0,0,prompt,3,0 1,1 1\n0,0,generated,5,0 1,1 1\n", "line 4: token 0 was of another");
    refuse(JSONL "{\"sequence\": 0, \"token\": 0, \"kind\": \"prompt\", \"layer\": 3, \"experts\": [0, 1]}",
           "lists");
    refuse(JSONL "{\"sequence\": 0, \"token\": 0, \"kind\": \"prompt\", \"layer\": 3, \"experts\": [0, 1.5], "
                 "\"gates\": [1, 1]}",
           "experts[1]");
    refuse(JSONL "{\"sequence\": 0, \"token\": 0, \"kind\": \"prompt\", \"layer\": 3, \"experts\": [0, 1], "
                 "\"gates\": [1, 1e99]}",
           "gates[1]");
    refuse(JSONL "{\"sequence\": 0}", "token");
    refuse(JSONL "0", "line 2");
}

static void statistics_are_shares_of_all_uses(void **state)
{
    (void)state;
    /* 0 1, 1 2, 1 2: 1 of 2 in common, then 2 of 2 */
    struct mb_trace *trace =
        parse(CSV "0,0,generated,3,0 1,1 1\n0,1,generated,3,1 2,1 1\n0,2,generated,3,2 1,1 1\n"
                  "1,3,generated,3,0 3,1 1\n");
    struct mb_trace_statistics s;
    assert_int_equal(mb_trace_statistics(trace, &s, NULL), MB_OK);
    assert_true(s.overlap == 0.75);
    assert_true(s.top_share == 1);
    assert_true(isnan(s.overlap_8));
    assert_true(isnan(s.in_128));
    mb_trace_close(trace);
}

static void check_random(const char *text, double top_share, double overlap)
{
    struct mb_trace_random random;
    struct mb_trace *trace;
    struct mb_trace_statistics s;
    struct mb_error err;
    assert_int_equal(mb_trace_random_parse(text, &random, &err), MB_OK);
    if (mb_trace_make(&random, &trace, &err) != MB_OK)
        fail_msg("%s: %s", text, err.msg);
    assert_int_equal(mb_trace_statistics(trace, &s, &err), MB_OK);
    if (!(fabs(s.top_share - top_share) < 0.015 && fabs(s.overlap - overlap) < 0.015))
        fail_msg("%s: %g and %g", text, s.top_share, s.overlap);
    mb_trace_close(trace);
}

static void a_trace_by_chance_has_the_published_statistics(void **state)
{
    (void)state;
    check_random("experts=128 used=8 layers=12 tokens=1500 top8=44.5% overlap=38% seed=1", 0.445, 0.38);
    check_random("experts=128 used=8 layers=12 tokens=1500 top8=0.445 overlap=0.38 seed=2", 0.445, 0.38);
    check_random("experts=64 used=6 layers=12 tokens=1500 top8=35% overlap=30%", 0.35, 0.30);
    check_random("experts=8 used=2 layers=12 tokens=1500 overlap=45%", 1, 0.45);
    check_random("experts=64 used=4 layers=12 tokens=4000", 0.13, 0.0625);
}

static void a_trace_by_chance_depends_on_its_seed_alone(void **state)
{
    (void)state;
    struct mb_trace *traces[3];
    struct mb_trace_random random = {sizeof random,    {2, 16, 4},     .n_tokens = 50,
                                     .top_share = 0.7, .overlap = 0.5, .seed = 7};
    for (size_t i = 0; i < 3; i++) {
        random.seed = i < 2 ? 7 : 8;
        assert_int_equal(mb_trace_make(&random, &traces[i], NULL), MB_OK);
    }
    assert_same(traces[0], traces[1]);
    size_t n_nbytes = sizeof(uint16_t) * 2 * 4;
    assert_memory_not_equal(mb_trace_token(traces[0], 0).experts, mb_trace_token(traces[2], 0).experts,
                            n_nbytes);
    for (size_t i = 0; i < 3; i++)
        mb_trace_close(traces[i]);
}

static void statistics_that_cannot_be_are_refused(void **state)
{
    (void)state;
    struct mb_trace *trace;
    struct mb_error err;
    struct mb_trace_random random;
    assert_int_equal(
        mb_trace_random_parse("experts=128 used=8 layers=1 top8=44.5% overlap=5%", &random, &err), MB_OK);
    assert_int_equal(mb_trace_make(&random, &trace, &err), MB_USAGE);
    assert_non_null(strstr(err.msg, "5.0 %"));
    assert_null(trace);
    assert_int_equal(mb_trace_random_parse("experts=128 used=8 layers=1 top8=2%", &random, &err), MB_OK);
    assert_int_equal(mb_trace_make(&random, &trace, &err), MB_USAGE);
    assert_int_equal(mb_trace_random_parse("experts=128", &random, &err), MB_OK);
    assert_int_equal(mb_trace_make(&random, &trace, &err), MB_USAGE);
    static const char *const wrong[] = {"experts", "experts=-1", "experts=x",   "experts=1.5", "top8=120%",
                                        "top8=",   "colour=1",   "tokens=1e15", "overlap=%"};
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++)
        assert_int_equal(mb_trace_random_parse(wrong[i], &random, &err), MB_USAGE);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_trace_comes_back_from_both_formats_as_it_was),
        cmocka_unit_test(a_trace_is_read_as_it_is_written_down),
        cmocka_unit_test(what_is_no_trace_is_refused_with_its_line),
        cmocka_unit_test(wrong_rows_are_refused),
        cmocka_unit_test(statistics_are_shares_of_all_uses),
        cmocka_unit_test(a_trace_by_chance_has_the_published_statistics),
        cmocka_unit_test(a_trace_by_chance_depends_on_its_seed_alone),
        cmocka_unit_test(statistics_that_cannot_be_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
