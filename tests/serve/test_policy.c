/*
 * test_policy.c - what the scheduler computes in a step, how requests end, and who hears of it; on an engine
 * that fails on demand.
 */
#include "cmocka_all.h"
#include "fake_engine.h"
#include <moebius/scheduler.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { N_HEARD_MAX = 64 };

/* What a request's events said. */
struct heard {
    uint64_t id;
    int32_t tokens[N_HEARD_MAX];
    size_t n_tokens, n_prompt_events, n_done, n_kept, n_prompt_done;
    int32_t end_token;
    enum mb_finish finish;
    enum mb_status status;
    char message[80];
    size_t stop_at; /* says "end" at that many tokens; 0: never */
    bool stops_at_prompt;
};

static struct mb_scheduler *scheduler;
static struct mb_error err;

static void must(enum mb_status status)
{
    if (status != MB_OK)
        fail_msg("%s", err.msg);
}

static bool hear(void *ctx, const struct mb_event *event)
{
    struct heard *heard = ctx;
    assert_int_equal(heard->n_done, 0); /* nothing after the end */
    assert_true(heard->id == 0 || event->id == heard->id);
    assert_true(event->n_prompt_done <= event->n_prompt && event->n_prompt_kept <= event->n_prompt_done);
    heard->n_kept = event->n_prompt_kept;
    heard->n_prompt_done = event->n_prompt_done;
    if (event->kind == MB_EVENT_PROMPT) {
        heard->n_prompt_events++;
        assert_int_equal(event->n_tokens, 0);
        return heard->stops_at_prompt;
    }
    if (event->kind == MB_EVENT_TOKEN) {
        assert_non_null(event->logits);
        heard->tokens[heard->n_tokens++] = event->token;
        assert_int_equal(event->n_tokens, heard->n_tokens);
        return heard->n_tokens == heard->stop_at;
    }
    heard->n_done++;
    heard->finish = event->finish;
    heard->end_token = event->token;
    heard->status = event->status;
    snprintf(heard->message, sizeof heard->message, "%s", event->message);
    return true;
}

static void open_with(size_t n_slots, size_t n_step_tokens, size_t n_waiting_max)
{
    struct mb_scheduler_options options = {.size = sizeof options,
                                           .n_slots = n_slots,
                                           .n_step_tokens = n_step_tokens,
                                           .n_waiting_max = n_waiting_max};
    must(mb_scheduler_open(fake_model(), &options, &scheduler, &err));
}

static int close_it(void **state)
{
    (void)state;
    mb_scheduler_close(scheduler);
    scheduler = NULL;
    return 0;
}

/* A prompt of n tokens: first, first + 1, ... */
static struct mb_request request_for(struct heard *heard, int32_t first, size_t n)
{
    static int32_t prompt[FAKE_N_VOCAB];
    for (size_t i = 0; i < n; i++)
        prompt[i] = first + (int32_t)i;
    return (struct mb_request){
        .size = sizeof(struct mb_request), .prompt = prompt, .n_prompt = n, .event = hear, .ctx = heard};
}

static void submit(struct heard *heard, int32_t first, size_t n, size_t n_predict)
{
    struct mb_request request = request_for(heard, first, n);
    request.n_predict = n_predict;
    must(mb_scheduler_submit(scheduler, &request, &heard->id, &err));
    assert_true(heard->id != 0);
}

static void step(void)
{
    must(mb_scheduler_step(scheduler, &err));
}

static void step_to_the_end(void)
{
    while (mb_scheduler_n_requests(scheduler) > 0)
        step();
}

/* ---------------------------------------------------------------- steps */

static void assert_item(size_t i, int32_t first, size_t n_tokens, bool is_generated)
{
    assert_int_equal(fake_batch.items[i].first, first);
    assert_int_equal(fake_batch.items[i].n_tokens, n_tokens);
    assert_int_equal(fake_batch.items[i].is_generated, is_generated);
}

static void prompts_are_read_beside_tokens(void **state)
{
    (void)state;
    struct heard a = {0}, b = {0}, c = {0};
    open_with(3, 8, 0);
    submit(&a, 1, 5, 20);
    submit(&b, 100, 10, 20);
    step(); /* a's prompt, and what is left of 8 tokens for b's */
    assert_int_equal(fake_batch.n_items, 2);
    assert_item(0, 1, 5, false);
    assert_item(1, 100, 3, false);
    assert_int_equal(a.n_tokens, 1);
    assert_int_equal(a.tokens[0], 6);
    assert_int_equal(b.n_prompt_events, 1);
    assert_int_equal(b.n_prompt_done, 3);
    submit(&c, 200, 6, 20);
    step(); /* a's token first; b is older than c and reads its rest of 7; nothing is left for c */
    assert_int_equal(fake_batch.n_items, 2);
    assert_item(0, 6, 1, true);
    assert_item(1, 103, 7, false);
    step();
    assert_int_equal(fake_batch.n_items, 3);
    assert_item(0, 7, 1, true);
    assert_item(1, 110, 1, true);
    assert_item(2, 200, 6, false);
    step_to_the_end();
    assert_int_equal(a.n_tokens, 20);
    assert_int_equal(b.n_tokens, 20);
    assert_int_equal(c.n_tokens, 20);
    for (int32_t i = 0; i < 20; i++)
        assert_true(a.tokens[i] == 6 + i && b.tokens[i] == 110 + i && c.tokens[i] == 206 + i);
}

/* Even where tokens of replies alone fill a step. */
static void prompts_do_not_starve(void **state)
{
    (void)state;
    struct heard a = {0}, b = {0}, c = {0};
    open_with(3, 1, 0);
    submit(&a, 1, 1, 30);
    submit(&b, 100, 2, 30);
    submit(&c, 200, 3, 30);
    for (int i = 0; i < 6; i++)
        step();
    assert_true(a.n_tokens == 6 && b.n_tokens == 4 && c.n_tokens == 1);
    step_to_the_end();
}

static void waiting_requests_take_free_slots_in_order(void **state)
{
    (void)state;
    struct heard heard[5] = {0};
    open_with(2, 0, 3);
    for (int i = 0; i < 3; i++)
        submit(&heard[i], 100 * i, 3, (size_t)i + 2);
    struct mb_request more = request_for(&heard[3], 300, 3);
    more.n_predict = 1;
    assert_int_equal(mb_scheduler_submit(scheduler, &more, NULL, &err), MB_NO_SPACE);
    assert_non_null(strstr(err.msg, "3 requests wait already"));
    step(); /* two leave the queue */
    submit(&heard[3], 300, 3, 2);
    submit(&heard[4], 400, 3, 2);
    assert_int_equal(mb_scheduler_submit(scheduler, &more, NULL, &err), MB_NO_SPACE);
    assert_int_equal(mb_scheduler_n_requests(scheduler), 5);
    step();
    assert_true(heard[0].n_done == 1 && heard[1].n_done == 0 && heard[2].n_tokens == 0);
    step();
    assert_true(heard[1].n_done == 1 && heard[2].n_tokens == 1 && heard[3].n_tokens == 0);
    step();
    assert_true(heard[3].n_tokens == 1 && heard[4].n_tokens == 0);
    step_to_the_end();
    for (int i = 0; i < 5; i++)
        assert_true(heard[i].n_done == 1 && heard[i].finish == MB_FINISH_LENGTH);
    size_t n_calls = fake_batch.n_calls;
    step(); /* nothing to do */
    assert_int_equal(fake_batch.n_calls, n_calls);
}

/* ---------------------------------------------------------------- what slots keep */

static void a_prompt_finds_the_slot_that_has_most_of_it(void **state)
{
    (void)state;
    struct heard a = {0}, b = {0}, again = {0}, longer = {0}, all = {0}, new = {0};
    open_with(2, 0, 0);
    submit(&a, 1, 10, 5);
    submit(&b, 100, 10, 5);
    step_to_the_end();
    submit(&again, 100, 10, 1); /* the last token is computed for its logits */
    step();
    assert_int_equal(fake_batch.n_items, 1);
    assert_item(0, 109, 1, false);
    assert_true(again.n_done == 1 && again.n_kept == 9 && again.tokens[0] == 110);
    submit(&longer, 1, 12, 1); /* what a generated is not a prompt's */
    step();
    assert_item(0, 11, 2, false);
    assert_int_equal(longer.n_kept, 10);
    /* With MB_KEEP_ALL generated tokens stay, of which the last one was never fed. */
    struct heard c = {0};
    submit(&c, 1, 12, 5);
    step_to_the_end();
    assert_int_equal(c.tokens[0], 13);
    struct mb_request request = request_for(&all, 1, 20);
    request.n_predict = 1;
    request.keep = MB_KEEP_ALL;
    must(mb_scheduler_submit(scheduler, &request, NULL, &err));
    step();
    assert_item(0, 17, 4, false);
    assert_int_equal(all.n_kept, 16);
    /* What no slot knows takes the one that was used longest ago: b's. */
    submit(&new, 300, 5, 1);
    step();
    assert_int_equal(fake_batch.items[0].n_past, 0);
    struct heard still = {0};
    submit(&still, 1, 10, 1);
    step();
    assert_int_equal(still.n_kept, 9);
}

/* ---------------------------------------------------------------- ends */

static void requests_end_for_many_reasons(void **state)
{
    (void)state;
    struct heard eos = {0}, stop = {0}, length = {0}, context = {0}, ignored = {0}, said = {.stop_at = 2};
    int32_t stop_ids[2] = {7, 205};
    open_with(0, 0, 0);
    submit(&eos, FAKE_EOS - 4, 2, 0);
    struct mb_request request = request_for(&stop, 200, 3);
    request.stop_ids = stop_ids;
    request.n_stop_ids = 2;
    must(mb_scheduler_submit(scheduler, &request, &stop.id, &err));
    stop_ids[1] = 0; /* they were copied */
    request = request_for(&ignored, FAKE_EOS - 4, 2);
    request.ignore_eos = true;
    request.n_predict = 5;
    must(mb_scheduler_submit(scheduler, &request, &ignored.id, &err));
    submit(&length, 300, 3, 3);
    submit(&context, 400, FAKE_N_CTX - 2, 0);
    submit(&said, 600, 3, 0);
    step_to_the_end();
    assert_true(eos.finish == MB_FINISH_STOP && eos.n_tokens == 2 && eos.end_token == FAKE_EOS);
    assert_true(stop.finish == MB_FINISH_STOP && stop.n_tokens == 2 && stop.end_token == 205);
    assert_true(ignored.finish == MB_FINISH_LENGTH && ignored.n_tokens == 5 && ignored.tokens[2] == FAKE_EOS);
    assert_true(length.finish == MB_FINISH_LENGTH && length.n_tokens == 3 && length.end_token == -1);
    assert_true(context.finish == MB_FINISH_CONTEXT && context.n_tokens == 3);
    assert_true(said.finish == MB_FINISH_CANCELLED && said.n_tokens == 2);
    /* A prompt that fills the context is followed by one token. */
    struct heard full = {0}, prompt_only = {.stops_at_prompt = true};
    submit(&full, 400, FAKE_N_CTX, 0);
    submit(&prompt_only, 1, 3, 0);
    step_to_the_end();
    assert_true(full.finish == MB_FINISH_CONTEXT && full.n_tokens == 1);
    assert_true(prompt_only.finish == MB_FINISH_CANCELLED && prompt_only.n_tokens == 0);
}

static void wrong_requests_are_refused(void **state)
{
    (void)state;
    struct heard good = {0}, bad = {0};
    open_with(2, 0, 0);
    submit(&good, 1, 3, 4);
    static const struct {
        int32_t first;
        size_t n;
        const char *message;
    } wrong[] = {{1, 0, "the prompt is empty"},
                 {1, FAKE_N_CTX + 1, "a prompt of 65 tokens does not fit a context of 64"},
                 {FAKE_N_VOCAB - 2, 3, "prompt: token 2, 1000, is not in the vocabulary of 1000"},
                 {-1, 3, "prompt: token 0, -1, is not"}};
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        struct mb_request request = request_for(&bad, wrong[i].first, wrong[i].n);
        assert_int_equal(mb_scheduler_submit(scheduler, &request, NULL, &err), MB_USAGE);
        if (strstr(err.msg, wrong[i].message) == NULL)
            fail_msg("%s", err.msg);
        step();
    }
    struct mb_request request = request_for(&bad, 1, 3);
    request.event = NULL;
    assert_int_equal(mb_scheduler_submit(scheduler, &request, NULL, &err), MB_USAGE);
    request = request_for(&bad, 1, 3);
    request.size = 0;
    assert_int_equal(mb_scheduler_submit(scheduler, &request, NULL, &err), MB_USAGE);
    step_to_the_end();
    assert_true(good.n_tokens == 4 && bad.n_done == 0);
}

static void a_request_that_fails_stops_no_other(void **state)
{
    (void)state;
    struct heard good = {0}, bad = {0};
    open_with(2, 0, 0);
    submit(&good, 1, 3, 8);
    submit(&bad, FAKE_NAN_TOKEN - 3, 2, 8);
    step_to_the_end();
    assert_true(good.n_tokens == 8 && good.finish == MB_FINISH_LENGTH);
    assert_true(bad.finish == MB_FINISH_ERROR && bad.status == MB_BAD_DATA && bad.n_tokens == 2);
    assert_string_equal(bad.message, "a logit is NaN");
}

static void a_failed_batch_ends_what_was_in_it(void **state)
{
    (void)state;
    struct heard in[2] = {0}, waiting = {0}, again = {0};
    open_with(2, 0, 0);
    submit(&in[0], 1, 3, 8);
    submit(&in[1], 100, 3, 8);
    submit(&waiting, 200, 3, 4);
    step();
    fake_fails = true;
    assert_int_equal(mb_scheduler_step(scheduler, &err), MB_IO);
    assert_string_equal(err.msg, "the disk is gone");
    for (int i = 0; i < 2; i++)
        assert_true(in[i].n_done == 1 && in[i].finish == MB_FINISH_ERROR && in[i].status == MB_IO);
    assert_string_equal(in[1].message, "the disk is gone");
    step_to_the_end();
    assert_true(waiting.n_done == 1 && waiting.n_tokens == 4 && waiting.finish == MB_FINISH_LENGTH);
    submit(&again, 1, 3, 2); /* what a failed batch left behind is not kept */
    step_to_the_end();
    assert_true(again.n_kept == 0 && again.tokens[0] == 4);
}

/* ---------------------------------------------------------------- cancelling */

static void cancelled_requests_end(void **state)
{
    (void)state;
    struct heard heard[5] = {0};
    open_with(2, 0, 0);
    for (int i = 0; i < 5; i++)
        submit(&heard[i], 100 * i, 3, 8);
    step();
    assert_true(mb_scheduler_cancel(scheduler, heard[1].id)); /* in a slot */
    assert_true(mb_scheduler_cancel(scheduler, heard[2].id)); /* waiting: the first, and the last */
    assert_true(mb_scheduler_cancel(scheduler, heard[4].id));
    assert_true(mb_scheduler_cancel(scheduler, heard[4].id));
    assert_false(mb_scheduler_cancel(scheduler, 12345));
    step();
    assert_true(heard[1].n_done == 1 && heard[1].finish == MB_FINISH_CANCELLED && heard[1].n_tokens == 1);
    assert_true(heard[2].n_done == 1 && heard[2].finish == MB_FINISH_CANCELLED && heard[2].n_tokens == 0);
    assert_true(heard[4].n_done == 1 && heard[3].n_tokens == 1); /* 3 has 1's slot */
    assert_false(mb_scheduler_cancel(scheduler, heard[1].id));
    struct heard last = {0};
    submit(&last, 500, 3, 2); /* the end of the queue is still the end */
    step_to_the_end();
    assert_true(heard[0].n_tokens == 8 && heard[3].n_tokens == 8 && last.n_tokens == 2);
}

static bool cancel_the_other(void *ctx, const struct mb_event *event)
{
    if (event->kind == MB_EVENT_TOKEN && event->n_tokens == 2)
        mb_scheduler_cancel(scheduler, *(const uint64_t *)ctx);
    return false;
}

/* Cancels its own request once the prompt is read. */
static bool cancel_itself(void *ctx, const struct mb_event *event)
{
    struct heard *heard = ctx;
    hear(ctx, event);
    if (event->kind == MB_EVENT_PROMPT)
        mb_scheduler_cancel(scheduler, heard->id);
    return false;
}

/* Submits another request once it is done. */
static bool go_on(void *ctx, const struct mb_event *event)
{
    struct heard *next = ctx;
    if (event->kind == MB_EVENT_DONE) {
        struct mb_request request = request_for(next, 10, 3);
        request.n_predict = 2;
        enum mb_status status = mb_scheduler_submit(scheduler, &request, &next->id, &err);
        assert_true(status == MB_OK || status == MB_CANCELLED);
    }
    return false;
}

static void events_may_submit_and_cancel(void **state)
{
    (void)state;
    struct heard other = {0}, next = {0};
    open_with(2, 0, 0);
    struct mb_request request = request_for(NULL, 1, 3);
    request.event = cancel_the_other;
    request.ctx = &other.id;
    must(mb_scheduler_submit(scheduler, &request, NULL, &err));
    submit(&other, 100, 3, 0);
    step();
    step(); /* the slot of 'other' comes after the one that cancels it */
    assert_true(other.n_done == 1 && other.finish == MB_FINISH_CANCELLED && other.n_tokens == 1);
    struct heard itself = {0};
    request = request_for(&itself, 1, 3);
    request.event = cancel_itself;
    must(mb_scheduler_submit(scheduler, &request, &itself.id, &err));
    step();
    assert_true(itself.n_done == 1 && itself.finish == MB_FINISH_CANCELLED && itself.n_tokens == 0);
    request = request_for(NULL, 1, 3);
    request.event = go_on;
    request.ctx = &next;
    request.n_predict = 1;
    must(mb_scheduler_submit(scheduler, &request, NULL, &err));
    for (int i = 0; i < 3; i++)
        step();
    assert_true(next.n_done == 1 && next.n_tokens == 2);
}

static void closing_ends_all(void **state)
{
    (void)state;
    struct heard heard[4] = {0}, next = {0};
    open_with(2, 0, 0);
    for (int i = 0; i < 4; i++)
        submit(&heard[i], 100 * i, 3, 8);
    step();
    struct mb_request request = request_for(NULL, 1, 3);
    request.event = go_on;
    request.ctx = &next;
    must(mb_scheduler_submit(scheduler, &request, NULL, &err));
    mb_scheduler_close(scheduler);
    scheduler = NULL;
    for (int i = 0; i < 4; i++)
        assert_true(heard[i].n_done == 1 && heard[i].finish == MB_FINISH_CANCELLED);
    assert_int_equal(next.n_done, 0);
    mb_scheduler_close(NULL);
}

/* ---------------------------------------------------------------- threads */

enum { N_THREADS = 4, N_OF_THREAD = 200 };

static atomic_size_t n_ended;

static bool count_ends(void *ctx, const struct mb_event *event)
{
    atomic_bool *is_done = ctx;
    if (event->kind == MB_EVENT_DONE) {
        assert_false(atomic_exchange(is_done, true));
        atomic_fetch_add(&n_ended, 1);
    }
    return false;
}

static void *submit_many(void *ctx)
{
    atomic_bool *is_done = ctx; /* [N_OF_THREAD] */
    int32_t prompt[4] = {1, 2, 3, 4};
    for (int i = 0; i < N_OF_THREAD; i++) {
        struct mb_request request = {.size = sizeof request,
                                     .prompt = prompt,
                                     .n_prompt = 1 + (size_t)i % 4,
                                     .n_predict = 1 + (size_t)i % 7,
                                     .event = count_ends,
                                     .ctx = &is_done[i]};
        uint64_t id;
        while (mb_scheduler_submit(scheduler, &request, &id, NULL) == MB_NO_SPACE)
            mb_scheduler_wait(scheduler, 1);
        if (i % 3 == 0)
            mb_scheduler_cancel(scheduler, id);
    }
    return NULL;
}

static void *step_them(void *ctx)
{
    (void)ctx;
    while (atomic_load(&n_ended) < N_THREADS * N_OF_THREAD)
        if (mb_scheduler_wait(scheduler, 1000))
            assert_int_equal(mb_scheduler_step(scheduler, NULL), MB_OK);
    return NULL;
}

static void any_thread_submits(void **state)
{
    (void)state;
    static atomic_bool is_done[N_THREADS][N_OF_THREAD];
    pthread_t submitters[N_THREADS], stepper;
    open_with(5, 0, 10);
    assert_int_equal(pthread_create(&stepper, NULL, step_them, NULL), 0);
    for (int i = 0; i < N_THREADS; i++)
        assert_int_equal(pthread_create(&submitters[i], NULL, submit_many, is_done[i]), 0);
    for (int i = 0; i < N_THREADS; i++)
        pthread_join(submitters[i], NULL);
    pthread_join(stepper, NULL);
    assert_int_equal(mb_scheduler_n_requests(scheduler), 0);
}

static void *wake(void *ctx)
{
    (void)ctx;
    mb_scheduler_wake(scheduler);
    return NULL;
}

static void a_wait_ends(void **state)
{
    (void)state;
    struct heard heard = {0};
    pthread_t thread;
    open_with(1, 0, 0);
    assert_false(mb_scheduler_wait(scheduler, 1)); /* by its time */
    assert_int_equal(pthread_create(&thread, NULL, wake, NULL), 0);
    assert_false(mb_scheduler_wait(scheduler, 600000)); /* by a wake, before or meanwhile */
    pthread_join(thread, NULL);
    submit(&heard, 1, 1, 1);
    assert_true(mb_scheduler_wait(scheduler, 600000)); /* by a request */
    step_to_the_end();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_teardown(prompts_are_read_beside_tokens, close_it),
        cmocka_unit_test_teardown(prompts_do_not_starve, close_it),
        cmocka_unit_test_teardown(waiting_requests_take_free_slots_in_order, close_it),
        cmocka_unit_test_teardown(a_prompt_finds_the_slot_that_has_most_of_it, close_it),
        cmocka_unit_test_teardown(requests_end_for_many_reasons, close_it),
        cmocka_unit_test_teardown(wrong_requests_are_refused, close_it),
        cmocka_unit_test_teardown(a_request_that_fails_stops_no_other, close_it),
        cmocka_unit_test_teardown(a_failed_batch_ends_what_was_in_it, close_it),
        cmocka_unit_test_teardown(cancelled_requests_end, close_it),
        cmocka_unit_test_teardown(events_may_submit_and_cancel, close_it),
        cmocka_unit_test_teardown(closing_ends_all, close_it),
        cmocka_unit_test_teardown(any_thread_submits, close_it),
        cmocka_unit_test_teardown(a_wait_ends, close_it),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
