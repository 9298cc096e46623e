/*
 * answer.c - greedy answers to many questions at once, in slots that are refilled as questions finish.
 *
 * Owns the slots (a session each) and the replies that wait for earlier ones.  What a slot computes does not
 * depend on the others (engine.h), so neither do the replies.  One thread.
 */
#include "base/utf8.h"
#include "error.h"
#include <moebius/lab.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { N_PARALLEL_DEFAULT = 16, N_PREDICT_DEFAULT = 256 };

struct prompt {
    int32_t *ids;
    size_t n;
};

/* A finished question. */
struct result {
    char *reply; /* NULL: not finished */
    size_t n_tokens;
};

struct slot {
    struct mb_session *session;
    size_t question;
    bool is_busy;
    bool is_fresh;  /* its prompt has not been fed */
    int32_t *reply; /* [n_predict] */
    size_t n_reply;
};

struct answering {
    struct mb_model *model;
    const struct mb_tokenizer *tokenizer;
    const struct mb_task *task;
    struct mb_eval_options options; /* defaults filled in */
    struct mb_eval_report *report;
    const struct mb_model_info *info;
    struct mb_sampler sampler; /* greedy */
    size_t n_ctx;              /* of every session */
    size_t next_question, next_report, n_done;
    struct prompt *prompts;
    struct result *results;
    struct slot *slots;
    struct mb_batch_item *items; /* [n_parallel] */
    size_t *item_slots;          /* [n_parallel] the slot of an item */
    float *logits;               /* [n_parallel][n_vocab] */
    void *scratch;               /* of the sampler */
};

static enum mb_status encode_prompt(const struct answering *a, const char *question, struct prompt *prompt,
                                    struct mb_error *err)
{
    char *text;
    struct mb_chat_message message = {"user", question};
    enum mb_status status = mb_tokenizer_chat(a->tokenizer, &message, 1, true, &text, err);
    if (status != MB_OK)
        return status;
    status = mb_tokenizer_encode(a->tokenizer, text, strlen(text), false, &prompt->ids, &prompt->n, err);
    free(text);
    return status;
}

/* All prompts, and the context that the longest needs. */
static enum mb_status encode_prompts(struct answering *a, struct mb_error *err)
{
    size_t n_longest = 0;
    for (size_t i = 0; i < a->task->n_items; i++) {
        enum mb_status status = encode_prompt(a, a->task->items[i].question, &a->prompts[i], err);
        if (status != MB_OK)
            return status;
        if (a->prompts[i].n > n_longest)
            n_longest = a->prompts[i].n;
    }
    a->n_ctx = n_longest + a->options.n_predict;
    if (a->n_ctx > a->info->n_ctx_train)
        a->n_ctx = a->info->n_ctx_train;
    return MB_OK;
}

static enum mb_status open_slots(struct answering *a, struct mb_error *err)
{
    for (size_t i = 0; i < a->options.n_parallel; i++) {
        struct mb_session_options options = {
            .size = sizeof options, .n_ctx = a->n_ctx, .cache_type = a->options.cache_type};
        enum mb_status status = mb_session_open(a->model, &options, &a->slots[i].session, err);
        if (status != MB_OK)
            return status;
        a->slots[i].reply = malloc(a->options.n_predict * sizeof(int32_t));
        if (a->slots[i].reply == NULL)
            return mb_lab_fail(err, MB_NO_MEMORY, "no memory for the replies");
    }
    return MB_OK;
}

static enum mb_status allocate(struct answering *a, struct mb_error *err)
{
    size_t n_parallel = a->options.n_parallel, n_vocab = a->info->n_vocab;
    a->prompts = calloc(a->task->n_items, sizeof *a->prompts);
    a->results = calloc(a->task->n_items, sizeof *a->results);
    a->slots = calloc(n_parallel, sizeof *a->slots);
    a->items = calloc(n_parallel, sizeof *a->items);
    a->item_slots = calloc(n_parallel, sizeof *a->item_slots);
    a->logits = calloc(n_parallel * n_vocab, sizeof *a->logits);
    a->scratch = calloc(n_vocab, 8);
    if (a->prompts == NULL || a->results == NULL || a->slots == NULL || a->items == NULL ||
        a->item_slots == NULL || a->logits == NULL || a->scratch == NULL)
        return mb_lab_fail(err, MB_NO_MEMORY, "no memory to answer %zu questions at once", n_parallel);
    return MB_OK;
}

static void release(struct answering *a)
{
    for (size_t i = 0; a->prompts != NULL && i < a->task->n_items; i++)
        free(a->prompts[i].ids);
    for (size_t i = 0; a->results != NULL && i < a->task->n_items; i++)
        free(a->results[i].reply);
    for (size_t i = 0; a->slots != NULL && i < a->options.n_parallel; i++) {
        mb_session_close(a->slots[i].session);
        free(a->slots[i].reply);
    }
    free(a->prompts);
    free(a->results);
    free(a->slots);
    free(a->items);
    free(a->item_slots);
    free(a->logits);
    free(a->scratch);
}

/* Scores and reports what is finished, in the order of the file. */
static void report_finished(struct answering *a)
{
    for (; a->next_report < a->task->n_items; a->next_report++) {
        struct result *result = &a->results[a->next_report];
        const struct mb_task_item *item = &a->task->items[a->next_report];
        if (result->reply == NULL)
            return;
        struct mb_score score = mb_score_reply(item, result->reply);
        a->report->n++;
        a->report->n_ica += score.ica;
        a->report->n_pia += score.pia;
        if (a->options.reply != NULL)
            a->options.reply(a->options.reply_ctx, a->next_report, item, result->reply, score,
                             result->n_tokens);
        free(result->reply);
        result->reply = NULL;
    }
}

/* Ids that the tokenizer does not have stand for no text. */
static size_t drop_unknown(const struct mb_tokenizer *tokenizer, int32_t *ids, size_t n)
{
    size_t n_kept = 0;
    for (size_t i = 0; i < n; i++)
        if (mb_tokenizer_has(tokenizer, ids[i]))
            ids[n_kept++] = ids[i];
    return n_kept;
}

static enum mb_status finish(struct answering *a, struct slot *slot, bool is_truncated, struct mb_error *err)
{
    struct result *result = &a->results[slot->question];
    size_t nbytes, n_known = drop_unknown(a->tokenizer, slot->reply, slot->n_reply);
    enum mb_status status =
        mb_tokenizer_decode(a->tokenizer, slot->reply, n_known, true, &result->reply, &nbytes, err);
    if (status != MB_OK)
        return status;
    mb_utf8_clean(result->reply, nbytes);
    result->n_tokens = slot->n_reply;
    slot->is_busy = false;
    a->n_done++;
    a->report->n_truncated += is_truncated;
    a->report->n_prompt_tokens += a->prompts[slot->question].n;
    a->report->n_reply_tokens += slot->n_reply;
    report_finished(a);
    return MB_OK;
}

/* A prompt that fills the context leaves no room for a reply: it is answered by nothing. */
static enum mb_status refill(struct answering *a, struct slot *slot, struct mb_error *err)
{
    while (!slot->is_busy && a->next_question < a->task->n_items) {
        slot->question = a->next_question++;
        slot->is_busy = slot->is_fresh = true;
        slot->n_reply = 0;
        mb_session_reset(slot->session);
        size_t n_prompt = a->prompts[slot->question].n;
        enum mb_status status = n_prompt == 0 || n_prompt > a->n_ctx ? finish(a, slot, true, err) : MB_OK;
        if (status != MB_OK)
            return status;
    }
    return MB_OK;
}

/* The next batch: prompts of fresh slots, the last token of the others. Returns its size. */
static size_t gather(struct answering *a)
{
    size_t n = 0;
    for (size_t i = 0; i < a->options.n_parallel; i++) {
        struct slot *slot = &a->slots[i];
        if (!slot->is_busy)
            continue;
        const struct prompt *prompt = &a->prompts[slot->question];
        a->items[n] = (struct mb_batch_item){
            .session = slot->session,
            .tokens = slot->is_fresh ? prompt->ids : slot->reply + slot->n_reply - 1,
            .n_tokens = slot->is_fresh ? prompt->n : 1,
            .is_generated = !slot->is_fresh,
            .logits = a->logits + n * a->info->n_vocab,
        };
        slot->is_fresh = false;
        a->item_slots[n++] = i;
    }
    return n;
}

static bool is_end(const struct mb_model_info *info, int32_t token)
{
    for (size_t i = 0; i < info->n_eos_ids; i++)
        if (info->eos_ids[i] == token)
            return true;
    return false;
}

static enum mb_status take_token(struct answering *a, struct slot *slot, const float *logits,
                                 struct mb_error *err)
{
    int32_t token;
    enum mb_status status = mb_sampler_pick(&a->sampler, logits, a->info->n_vocab, a->scratch, &token, err);
    if (status != MB_OK)
        return status;
    if (is_end(a->info, token))
        return finish(a, slot, false, err);
    slot->reply[slot->n_reply++] = token;
    if (slot->n_reply == a->options.n_predict || mb_session_n_past(slot->session) == a->n_ctx)
        return finish(a, slot, true, err);
    return MB_OK;
}

static enum mb_status answer_all(struct answering *a, struct mb_error *err)
{
    enum mb_status status = MB_OK;
    while (status == MB_OK) {
        for (size_t i = 0; i < a->options.n_parallel && status == MB_OK; i++)
            status = refill(a, &a->slots[i], err);
        if (status != MB_OK)
            return status;
        size_t n_items = gather(a);
        if (n_items == 0)
            return MB_OK;
        status = mb_decode(a->model, a->items, n_items, err);
        for (size_t i = 0; i < n_items && status == MB_OK; i++)
            status = take_token(a, &a->slots[a->item_slots[i]], a->items[i].logits, err);
        if (status == MB_OK && a->options.progress != NULL &&
            a->options.progress(a->options.progress_ctx, a->n_done, a->task->n_items))
            status = mb_lab_fail(err, MB_CANCELLED, "stopped after %zu of %zu questions", a->n_done,
                                 a->task->n_items);
    }
    return status;
}

static void fill_defaults(struct answering *a, const struct mb_eval_options *options)
{
    if (options != NULL)
        a->options = *options;
    if (a->options.n_parallel == 0)
        a->options.n_parallel = N_PARALLEL_DEFAULT;
    if (a->options.n_parallel > a->task->n_items)
        a->options.n_parallel = a->task->n_items;
    if (a->options.n_predict == 0)
        a->options.n_predict = N_PREDICT_DEFAULT;
    mb_sampler_init(&a->sampler,
                    &(struct mb_sampler_options){.size = sizeof(struct mb_sampler_options), .top_p = 1});
}

enum mb_status mb_eval_task(struct mb_model *model, const struct mb_tokenizer *tokenizer,
                            const struct mb_task *task, const struct mb_eval_options *options,
                            struct mb_eval_report *report, struct mb_error *err)
{
    struct timespec begun, ended;
    struct answering a = {
        .model = model, .tokenizer = tokenizer, .task = task, .report = report, .info = mb_model_info(model)};
    *report = (struct mb_eval_report){0};
    if (!mb_tokenizer_has_chat(tokenizer))
        return mb_lab_fail(err, MB_UNSUPPORTED, "the model has no chat template, which questions need");
    fill_defaults(&a, options);
    clock_gettime(CLOCK_MONOTONIC, &begun);
    enum mb_status status = allocate(&a, err);
    if (status == MB_OK)
        status = encode_prompts(&a, err);
    if (status == MB_OK)
        status = open_slots(&a, err);
    if (status == MB_OK)
        status = answer_all(&a, err);
    release(&a);
    clock_gettime(CLOCK_MONOTONIC, &ended);
    report->seconds = (double)(ended.tv_sec - begun.tv_sec) + (double)(ended.tv_nsec - begun.tv_nsec) * 1e-9;
    return status;
}
