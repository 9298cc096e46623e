/*
 * choice.c - multiple choice: the log-likelihood of every choice, many questions at once.
 *
 * Questions are taken in groups, each with a session of its own.  What all choices of a question begin with
 * is computed once; so is what a question and the one that had the session before have in common.  Then a
 * round for each choice: the sessions go back to what is shared and read the rest.  One thread.
 */
#include "base/clock.h"
#include "base/error.h"
#include "base/options.h"
#include "choice_tokens.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { N_PARALLEL_DEFAULT = 16, N_ROWS_MAX = 512, LOGITS_MAX = 1 << 24 };

/* A session and where it is in the choice that it reads. */
struct reader {
    struct mb_session *session;
    struct mb_lab_question *question;
    size_t choice, pos, end; /* the next token to feed, and after the last */
};

struct choosing {
    struct mb_model *model;
    const struct mb_tokenizer *tokenizer;
    const struct mb_task *task;
    struct mb_choices_options options; /* defaults filled in */
    struct mb_choices_report *report;
    struct mb_lab_question *questions; /* [task->n_choices] */
    struct reader *readers;            /* [n_parallel] */
    struct mb_batch_item *batch;       /* [n_parallel] */
    size_t n_vocab, n_rows;            /* logits: [n_rows][n_vocab] */
    float *logits;
};

/* ---------------------------------------------------------------- likelihood */

static double log_sum_exp(const float *logits, size_t n)
{
    float max = logits[0];
    for (size_t i = 1; i < n; i++)
        max = logits[i] > max ? logits[i] : max;
    double sum = 0;
    for (size_t i = 0; i < n; i++)
        sum += exp((double)logits[i] - max);
    return max + log(sum);
}

/* Whether an earlier choice is fed the same tokens: then it has been scored with that one. */
static bool is_scored(const struct mb_lab_question *question, size_t choice)
{
    for (size_t i = 0; i < choice; i++)
        if (mb_lab_same_input(&question->choices[i], &question->choices[choice]))
            return true;
    return false;
}

/* Adds what the logits after token 'pos' say of the next one, for all choices that are fed the same. */
static bool score_row(const struct reader *reader, size_t pos, const float *logits, size_t n_vocab)
{
    struct mb_lab_question *question = reader->question;
    const struct mb_lab_choice *read = &question->choices[reader->choice];
    if (pos + 1 < read->n_context)
        return true;
    double all = log_sum_exp(logits, n_vocab);
    for (size_t i = reader->choice; i < question->n_choices; i++) {
        struct mb_lab_choice *choice = &question->choices[i];
        if (i == reader->choice || mb_lab_same_input(read, choice))
            choice->log_likelihood += logits[choice->ids[pos + 1]] - all;
    }
    return isfinite(all);
}

/* ---------------------------------------------------------------- reading */

/* What the choices of the questions share, as far as the sessions do not hold it already. */
static enum mb_status read_shared(struct choosing *c, size_t n_readers, struct mb_error *err)
{
    size_t n_items = 0;
    for (size_t i = 0; i < n_readers; i++) {
        const struct mb_lab_question *question = c->readers[i].question;
        if (question->choices == NULL)
            continue;
        struct mb_session *session = c->readers[i].session;
        const int32_t *ids = question->choices[0].ids;
        size_t n = mb_session_n_common(session, ids, question->n_shared, MB_KEEP_PROMPT);
        n = mb_session_rewind(session, n);
        if (n < question->n_shared)
            c->batch[n_items++] = (struct mb_batch_item){
                .session = session, .tokens = ids + n, .n_tokens = question->n_shared - n};
        c->report->n_tokens_computed += question->n_shared - n;
    }
    return n_items > 0 ? mb_decode(c->model, c->batch, n_items, err) : MB_OK;
}

/* The sessions go back to where their choice begins. */
static void begin_round(struct choosing *c, size_t n_readers, size_t choice)
{
    for (size_t i = 0; i < n_readers; i++) {
        struct reader *reader = &c->readers[i];
        const struct mb_lab_question *question = reader->question;
        reader->pos = reader->end = 0;
        reader->choice = choice;
        if (question->choices == NULL || choice >= question->n_choices || is_scored(question, choice))
            continue;
        reader->pos = mb_session_rewind(reader->session, question->n_shared);
        reader->end = question->choices[choice].n - 1;
        c->report->n_tokens_computed += reader->end - reader->pos;
    }
}

/* A piece of the round, as many tokens as there is room for logits; returns the items of the batch. */
static size_t fill_batch(struct choosing *c, size_t n_readers)
{
    size_t n_items = 0, n_rows = 0;
    for (size_t i = 0; i < n_readers; i++) {
        const struct reader *reader = &c->readers[i];
        size_t n = reader->end - reader->pos, n_left = c->n_rows - n_rows;
        n = n < n_left ? n : n_left;
        if (n == 0)
            continue;
        c->batch[n_items++] =
            (struct mb_batch_item){.session = reader->session,
                                   .tokens = reader->question->choices[reader->choice].ids + reader->pos,
                                   .n_tokens = n,
                                   .logits = c->logits + n_rows * c->n_vocab,
                                   .all_logits = true};
        n_rows += n;
    }
    return n_items;
}

static enum mb_status take_batch(struct choosing *c, size_t n_readers, size_t n_items, struct mb_error *err)
{
    for (size_t i = 0, item = 0; i < n_readers && item < n_items; i++) {
        struct reader *reader = &c->readers[i];
        const struct mb_batch_item *read = &c->batch[item];
        if (read->session != reader->session)
            continue;
        for (size_t k = 0; k < read->n_tokens; k++)
            if (!score_row(reader, reader->pos + k, read->logits + k * c->n_vocab, c->n_vocab))
                return mb_fail(err, MB_BAD_DATA, "the logits of a choice are not finite");
        reader->pos += read->n_tokens;
        item++;
    }
    return MB_OK;
}

static enum mb_status read_round(struct choosing *c, size_t n_readers, size_t choice, struct mb_error *err)
{
    size_t n_items;
    begin_round(c, n_readers, choice);
    while ((n_items = fill_batch(c, n_readers)) > 0) {
        MB_TRY(mb_decode(c->model, c->batch, n_items, err));
        MB_TRY(take_batch(c, n_readers, n_items, err));
    }
    return MB_OK;
}

/* ---------------------------------------------------------------- which choice */

static size_t n_characters(const char *text)
{
    size_t n = 0;
    for (; *text != '\0'; text++)
        n += ((unsigned char)*text & 0xc0) != 0x80;
    return n;
}

enum measure { BY_SUM, BY_CHARACTER, BY_BYTE };

/* A continuation's length does not count the space that it begins with. */
static double measured(const struct mb_choice_item *item, const double *sums, size_t i, enum measure measure)
{
    const char *text = item->continuations[i] + 1;
    size_t n = measure == BY_SUM ? 1 : measure == BY_BYTE ? strlen(text) : n_characters(text);
    return sums[i] / (double)(n > 0 ? n : 1);
}

static size_t likeliest(const struct mb_choice_item *item, const double *sums, enum measure measure)
{
    size_t best = 0;
    for (size_t i = 1; i < item->n_choices; i++)
        if (measured(item, sums, i, measure) > measured(item, sums, best, measure))
            best = i;
    return best;
}

static void score_question(struct choosing *c, size_t index, double *sums)
{
    const struct mb_choice_item *item = &c->task->choices[index];
    const struct mb_lab_question *question = &c->questions[index];
    struct mb_choice_score score = {.has_room = question->choices != NULL};
    if (score.has_room) {
        for (size_t i = 0; i < item->n_choices; i++)
            sums[i] = question->choices[i].log_likelihood;
        score.log_likelihoods = sums;
        score.chosen = likeliest(item, sums, BY_SUM);
        score.chosen_norm = likeliest(item, sums, BY_CHARACTER);
        score.chosen_bytes = likeliest(item, sums, BY_BYTE);
        score.acc = score.chosen == item->right;
        score.acc_norm = score.chosen_norm == item->right;
        score.acc_bytes = score.chosen_bytes == item->right;
    }
    c->report->n++;
    c->report->n_acc += score.acc;
    c->report->n_acc_norm += score.acc_norm;
    c->report->n_acc_bytes += score.acc_bytes;
    c->report->n_no_room += !score.has_room;
    if (c->options.choice != NULL)
        c->options.choice(c->options.choice_ctx, index, item, &score);
}

static enum mb_status finish_question(struct choosing *c, size_t index, struct mb_error *err)
{
    double *sums = calloc(c->task->choices[index].n_choices, sizeof *sums);
    if (sums == NULL)
        return mb_fail_memory(err, "the choices");
    score_question(c, index, sums);
    free(sums);
    mb_lab_free_question(&c->questions[index]);
    return MB_OK;
}

static enum mb_status choose_group(struct choosing *c, size_t begin, size_t n, struct mb_error *err)
{
    size_t n_rounds = 0;
    for (size_t i = 0; i < n; i++) {
        c->readers[i].question = &c->questions[begin + i];
        if (c->questions[begin + i].n_choices > n_rounds)
            n_rounds = c->questions[begin + i].n_choices;
    }
    MB_TRY(read_shared(c, n, err));
    for (size_t choice = 0; choice < n_rounds; choice++)
        MB_TRY(read_round(c, n, choice, err));
    for (size_t i = 0; i < n; i++)
        MB_TRY(finish_question(c, begin + i, err));
    return MB_OK;
}

static enum mb_status choose_all(struct choosing *c, struct mb_error *err)
{
    size_t n_all = c->task->n_choices, n_parallel = c->options.n_parallel;
    for (size_t begin = 0; begin < n_all; begin += n_parallel) {
        size_t n = n_all - begin < n_parallel ? n_all - begin : n_parallel;
        MB_TRY(choose_group(c, begin, n, err));
        if (c->options.progress != NULL &&
            c->options.progress(c->options.progress_ctx, "choosing", begin + n, n_all))
            return mb_fail(err, MB_CANCELLED, "stopped after %zu of %zu questions", begin + n, n_all);
    }
    return MB_OK;
}

/* ---------------------------------------------------------------- begin and end */

/* Encodes all questions; those that the model's context does not hold are left without choices. */
static enum mb_status encode_all(struct choosing *c, size_t *n_ctx, struct mb_error *err)
{
    size_t n_ctx_train = mb_model_info(c->model)->n_ctx_train;
    *n_ctx = 1;
    for (size_t i = 0; i < c->task->n_choices; i++) {
        struct mb_lab_question *question = &c->questions[i];
        const struct mb_choice_item *item = &c->task->choices[i];
        enum mb_status status = mb_lab_encode_question(c->tokenizer, item, question, err);
        if (status != MB_OK)
            return mb_fail_in(err, status, "the question of line %zu", item->line);
        if (question->n_fed_most > n_ctx_train)
            mb_lab_free_question(question);
        else if (question->n_fed_most > *n_ctx)
            *n_ctx = question->n_fed_most;
    }
    return MB_OK;
}

static enum mb_status check_ids(const struct choosing *c, struct mb_error *err)
{
    for (size_t i = 0; i < c->task->n_choices; i++)
        for (size_t k = 0; c->questions[i].choices != NULL && k < c->questions[i].n_choices; k++) {
            const struct mb_lab_choice *choice = &c->questions[i].choices[k];
            for (size_t j = 0; j < choice->n; j++)
                if (choice->ids[j] < 0 || (size_t)choice->ids[j] >= c->n_vocab)
                    return mb_fail(err, MB_BAD_DATA, "the question of line %zu: the model has no token %d",
                                   c->task->choices[i].line, (int)choice->ids[j]);
        }
    return MB_OK;
}

static enum mb_status allocate(struct choosing *c, struct mb_error *err)
{
    c->n_vocab = mb_model_info(c->model)->n_vocab;
    c->n_rows = LOGITS_MAX / c->n_vocab;
    c->n_rows = c->n_rows < 1 ? 1 : c->n_rows > N_ROWS_MAX ? N_ROWS_MAX : c->n_rows;
    c->questions = calloc(c->task->n_choices, sizeof *c->questions);
    c->readers = calloc(c->options.n_parallel, sizeof *c->readers);
    c->batch = calloc(c->options.n_parallel, sizeof *c->batch);
    c->logits = malloc(c->n_rows * c->n_vocab * sizeof *c->logits);
    if (c->questions == NULL || c->readers == NULL || c->batch == NULL || c->logits == NULL)
        return mb_fail_memory(err, "the questions");
    return MB_OK;
}

static enum mb_status choose(struct choosing *c, struct mb_error *err)
{
    struct mb_session_options options = {.size = sizeof options, .cache_type = c->options.cache_type};
    if (c->task->n_choices == 0)
        return MB_OK;
    MB_TRY(allocate(c, err));
    MB_TRY(encode_all(c, &options.n_ctx, err));
    MB_TRY(check_ids(c, err));
    for (size_t i = 0; i < c->options.n_parallel; i++)
        MB_TRY(mb_session_open(c->model, &options, &c->readers[i].session, err));
    return choose_all(c, err);
}

static void release(struct choosing *c)
{
    for (size_t i = 0; c->readers != NULL && i < c->options.n_parallel; i++)
        mb_session_close(c->readers[i].session);
    for (size_t i = 0; c->questions != NULL && i < c->task->n_choices; i++)
        mb_lab_free_question(&c->questions[i]);
    free(c->questions);
    free(c->readers);
    free(c->batch);
    free(c->logits);
}

enum mb_status mb_eval_choices(struct mb_model *model, const struct mb_tokenizer *tokenizer,
                               const struct mb_task *task, const struct mb_choices_options *options,
                               struct mb_choices_report *report, struct mb_error *err)
{
    uint64_t begun_ns = mb_now_ns();
    struct choosing c = {.model = model, .tokenizer = tokenizer, .task = task, .report = report};
    *report = (struct mb_choices_report){0};
    MB_TRY(MB_OPTIONS_TAKE(c.options, options, err));
    if (c.options.n_parallel == 0)
        c.options.n_parallel = N_PARALLEL_DEFAULT;
    if (c.options.n_parallel > task->n_choices)
        c.options.n_parallel = task->n_choices;
    enum mb_status status = choose(&c, err);
    release(&c);
    report->seconds = (double)(mb_now_ns() - begun_ns) * 1e-9;
    return status;
}
