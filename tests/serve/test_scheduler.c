/*
 * test_scheduler.c - on the reference model: a request's tokens are those it would get alone, whatever shares
 * its steps; a conversation computes what is new; steps allocate nothing.
 */
#include "cmocka_all.h"
#include <moebius/scheduler.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define REFERENCE MB_REPO "/models/reference"

enum { N_VOCAB = 2048, N_REQUESTS = 12, N_PROMPT_MAX = 60, N_PREDICT = 20 };

static struct mb_model *model;
static struct mb_error err;

static void must(enum mb_status status)
{
    if (status != MB_OK)
        fail_msg("%s", err.msg);
}

/* ---------------------------------------------------------------- counting allocations */

#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
#define COUNTS_ALLOCATIONS 1
static _Atomic size_t n_allocations;
void *__libc_malloc(size_t n);
void *__libc_calloc(size_t n, size_t size);
void *__libc_realloc(void *p, size_t n);
void *__libc_memalign(size_t alignment, size_t n);

void *malloc(size_t n)
{
    atomic_fetch_add(&n_allocations, 1);
    return __libc_malloc(n);
}

void *calloc(size_t n, size_t size)
{
    atomic_fetch_add(&n_allocations, 1);
    return __libc_calloc(n, size);
}

void *realloc(void *p, size_t n)
{
    atomic_fetch_add(&n_allocations, 1);
    return __libc_realloc(p, n);
}

void *aligned_alloc(size_t alignment, size_t n)
{
    atomic_fetch_add(&n_allocations, 1);
    return __libc_memalign(alignment, n);
}
#else
#define COUNTS_ALLOCATIONS 0
static size_t n_allocations;
#endif

/* ---------------------------------------------------------------- requests */

/* Request i: its own length and seed; every second one is greedy. They share beginnings. */
static size_t prompt_of(size_t i, int32_t prompt[N_PROMPT_MAX])
{
    size_t n = 10 + i * 37 % 50;
    for (size_t k = 0; k < n; k++)
        prompt[k] = (int32_t)((k * 7919 + (k < 10 ? i % 3 : i) * 104729 + 13) % N_VOCAB);
    return n;
}

static struct mb_sampler_options sampler_of(size_t i)
{
    return (struct mb_sampler_options){.size = sizeof(struct mb_sampler_options),
                                       .temperature = i % 2 == 0 ? 0.0F : 1.5F,
                                       .top_p = 1,
                                       .seed = i};
}

struct reply {
    int32_t tokens[N_PREDICT];
    size_t n;
    bool is_done;
};

static bool take(void *ctx, const struct mb_event *event)
{
    struct reply *reply = ctx;
    if (event->kind == MB_EVENT_TOKEN)
        reply->tokens[reply->n++] = event->token;
    reply->is_done = event->kind == MB_EVENT_DONE;
    if (reply->is_done && event->finish == MB_FINISH_ERROR)
        fail_msg("%s", event->message);
    return false;
}

static void submit(struct mb_scheduler *scheduler, size_t i, struct reply *reply)
{
    int32_t prompt[N_PROMPT_MAX];
    struct mb_sampler_options sampler = sampler_of(i);
    struct mb_request request = {.size = sizeof request,
                                 .prompt = prompt,
                                 .n_prompt = prompt_of(i, prompt),
                                 .n_predict = N_PREDICT,
                                 .sampler = &sampler,
                                 .event = take,
                                 .ctx = reply};
    *reply = (struct reply){0};
    must(mb_scheduler_submit(scheduler, &request, NULL, &err));
}

/* Without a scheduler. */
static void answer_alone(size_t i, struct reply *reply)
{
    static float logits[N_VOCAB];
    static uint64_t scratch[N_VOCAB];
    int32_t prompt[N_PROMPT_MAX], token;
    struct mb_session *session;
    struct mb_sampler sampler;
    const struct mb_model_info *info = mb_model_info(model);
    struct mb_sampler_options options = sampler_of(i);
    must(mb_session_open(model, NULL, &session, &err));
    struct mb_batch_item item = {
        .session = session, .tokens = prompt, .n_tokens = prompt_of(i, prompt), .logits = logits};
    must(mb_sampler_init(&sampler, &options, &err));
    *reply = (struct reply){0};
    while (reply->n < N_PREDICT) {
        must(mb_decode(model, &item, 1, &err));
        must(mb_sampler_pick(&sampler, logits, N_VOCAB, scratch, &token, &err));
        if (token == info->eos_ids[0])
            break;
        reply->tokens[reply->n++] = token;
        item = (struct mb_batch_item){
            .session = session, .tokens = &token, .n_tokens = 1, .is_generated = true, .logits = logits};
    }
    mb_session_close(session);
}

static void assert_same_reply(const struct reply *a, const struct reply *b)
{
    assert_int_equal(a->n, b->n);
    assert_memory_equal(a->tokens, b->tokens, a->n * sizeof *a->tokens);
}

/* Twice the requests over reused slots, the second time in another order, and some joining late. */
static void replies_are_those_of_requests_alone(void **state)
{
    (void)state;
    static const struct {
        size_t n_slots, n_step_tokens;
    } settings[] = {{1, 0}, {3, 7}, {5, 64}, {16, 1}, {16, 0}};
    static struct reply alone[N_REQUESTS], replies[2 * N_REQUESTS];
    for (size_t i = 0; i < N_REQUESTS; i++)
        answer_alone(i, &alone[i]);
    for (size_t s = 0; s < sizeof settings / sizeof *settings; s++) {
        struct mb_scheduler *scheduler;
        struct mb_scheduler_options options = {.size = sizeof options,
                                               .n_slots = settings[s].n_slots,
                                               .n_step_tokens = settings[s].n_step_tokens};
        must(mb_scheduler_open(model, &options, &scheduler, &err));
        for (size_t k = 0; k < 2 * N_REQUESTS; k++) {
            submit(scheduler, k < N_REQUESTS ? k : k * 5 % N_REQUESTS, &replies[k]);
            for (size_t i = 0; i < k % 3; i++)
                must(mb_scheduler_step(scheduler, &err));
        }
        while (mb_scheduler_n_requests(scheduler) > 0)
            must(mb_scheduler_step(scheduler, &err));
        for (size_t k = 0; k < 2 * N_REQUESTS; k++) {
            assert_true(replies[k].is_done);
            assert_same_reply(&replies[k], &alone[k < N_REQUESTS ? k : k * 5 % N_REQUESTS]);
        }
        mb_scheduler_close(scheduler);
    }
}

/* ---------------------------------------------------------------- conversations */

static size_t n_computed(void)
{
    size_t n = mb_model_timing(model).n_tokens;
    mb_model_timing_reset(model);
    return n;
}

/* The first prompt, the reply, and a second question; returns the tokens computed for the second reply. */
static size_t second_turn(struct mb_scheduler *scheduler, enum mb_keep keep, struct reply *second)
{
    int32_t prompt[256];
    struct reply first;
    size_t n = prompt_of(1, prompt);
    submit(scheduler, 1, &first);
    while (!first.is_done)
        must(mb_scheduler_step(scheduler, &err));
    memcpy(prompt + n, first.tokens, first.n * sizeof *prompt);
    n += first.n;
    for (size_t i = 0; i < 10; i++)
        prompt[n++] = (int32_t)(100 + i);
    struct mb_request request = {.size = sizeof request,
                                 .prompt = prompt,
                                 .n_prompt = n,
                                 .n_predict = N_PREDICT,
                                 .ignore_eos = true,
                                 .keep = keep,
                                 .event = take,
                                 .ctx = second};
    *second = (struct reply){0};
    n_computed();
    must(mb_scheduler_submit(scheduler, &request, NULL, &err));
    while (!second->is_done)
        must(mb_scheduler_step(scheduler, &err));
    return n_computed();
}

static void the_next_turn_computes_what_is_new(void **state)
{
    (void)state;
    struct mb_scheduler *scheduler;
    struct reply kept, all, fresh, first;
    int32_t prompt[N_PROMPT_MAX];
    size_t n_prompt = prompt_of(1, prompt);
    answer_alone(1, &first);
    must(mb_scheduler_open(model, NULL, &scheduler, &err));
    size_t n_reply = second_turn(scheduler, MB_KEEP_PROMPT, &kept);
    assert_int_equal(n_reply, first.n + 10 + N_PREDICT - 1); /* the last token of a reply is not fed */
    mb_scheduler_close(scheduler);
    must(mb_scheduler_open(model, NULL, &scheduler, &err));
    n_reply = second_turn(scheduler, MB_KEEP_ALL, &all);
    assert_int_equal(n_reply, 1 + 10 + N_PREDICT - 1);
    assert_int_equal(all.n, N_PREDICT);
    /* A scheduler that has never seen the first turn. */
    mb_scheduler_close(scheduler);
    must(mb_scheduler_open(model, NULL, &scheduler, &err));
    struct mb_request request = {.size = sizeof request, .event = take, .ctx = &fresh};
    int32_t tokens[256];
    memcpy(tokens, prompt, n_prompt * sizeof *tokens);
    memcpy(tokens + n_prompt, first.tokens, first.n * sizeof *tokens);
    for (size_t i = 0; i < 10; i++)
        tokens[n_prompt + first.n + i] = (int32_t)(100 + i);
    request.prompt = tokens;
    request.n_prompt = n_prompt + first.n + 10;
    request.n_predict = N_PREDICT;
    request.ignore_eos = true;
    fresh = (struct reply){0};
    must(mb_scheduler_submit(scheduler, &request, NULL, &err));
    while (!fresh.is_done)
        must(mb_scheduler_step(scheduler, &err));
    assert_same_reply(&kept, &fresh);
    mb_scheduler_close(scheduler);
}

/* ---------------------------------------------------------------- memory */

static void steps_allocate_nothing(void **state)
{
    (void)state;
    if (!COUNTS_ALLOCATIONS)
        skip();
    struct mb_scheduler *scheduler;
    struct mb_scheduler_options options = {.size = sizeof options, .n_slots = 4};
    static struct reply replies[N_REQUESTS];
    must(mb_scheduler_open(model, &options, &scheduler, &err));
    for (size_t i = 0; i < N_REQUESTS; i++)
        submit(scheduler, i, &replies[i]);
    size_t before = n_allocations;
    uint64_t nbytes = mb_scheduler_nbytes(scheduler);
    while (mb_scheduler_n_requests(scheduler) > 0)
        must(mb_scheduler_step(scheduler, &err));
    assert_int_equal(n_allocations, before);
    assert_true(nbytes > 0 && mb_scheduler_nbytes(scheduler) == nbytes);
    mb_scheduler_close(scheduler);
    assert_true(before > 100);
}

static int open_model(void **state)
{
    (void)state;
    struct mb_model_options options = {.size = sizeof options, .n_threads = 2};
    return mb_model_open(REFERENCE, &options, &model, &err) != MB_OK;
}

static int close_model(void **state)
{
    (void)state;
    mb_model_close(model);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(replies_are_those_of_requests_alone),
        cmocka_unit_test(the_next_turn_computes_what_is_new),
        cmocka_unit_test(steps_allocate_nothing),
    };
    return cmocka_run_group_tests(tests, open_model, close_model);
}
