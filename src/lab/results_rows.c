/*
 * results_rows.c - rows of a results file, each call one transaction.
 */
#include "base/buf.h"
#include "base/error.h"
#include "results_file.h"
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* A transaction: 'write' does all of it or the file stays as it was. */
typedef enum mb_status (*write_fn)(struct mb_results *results, const void *what, struct mb_error *err);

static enum mb_status in_transaction(struct mb_results *results, write_fn write, const void *what,
                                     struct mb_error *err)
{
    MB_TRY(mb_results_do(results, "BEGIN IMMEDIATE", err));
    enum mb_status status = write(results, what, err);
    if (status == MB_OK)
        status = mb_results_do(results, "COMMIT", err);
    if (status != MB_OK)
        sqlite3_exec(results->db, "ROLLBACK", NULL, NULL, NULL);
    return status;
}

/* ---------------------------------------------------------------- a run */

static enum mb_status put_head(struct mb_results *results, const struct mb_result_run *run,
                               struct mb_error *err)
{
    sqlite3_stmt *statement;
    MB_TRY(mb_results_prepare(results, "INSERT INTO run VALUES(?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                              &statement, err));
    enum mb_status status = mb_results_put(
        results, statement, err, "issssssiiiii", run->id, run->label, run->target, run->selected,
        run->projection, run->error, run->bound, (int64_t)run->seed, (int64_t)run->n_matrices,
        (int64_t)run->n_weights, (int64_t)run->has_task, (int64_t)run->has_text);
    sqlite3_finalize(statement);
    return status;
}

static enum mb_status put_timing(struct mb_results *results, const struct mb_result_run *run,
                                 struct mb_error *err)
{
    sqlite3_stmt *statement;
    MB_TRY(mb_results_prepare(results, "INSERT INTO timing VALUES(?, ?, ?, ?)", &statement, err));
    enum mb_status status = mb_results_put(results, statement, err, "isdi", run->id, run->begun, run->seconds,
                                           (int64_t)run->n_threads);
    sqlite3_finalize(statement);
    return status;
}

static enum mb_status put_values(struct mb_results *results, const struct mb_result_run *run,
                                 struct mb_error *err)
{
    sqlite3_stmt *statement;
    enum mb_status status = MB_OK;
    MB_TRY(mb_results_prepare(results, "INSERT INTO value VALUES(?, ?, ?, ?, ?, ?)", &statement, err));
    for (size_t i = 0; i < run->n_values && status == MB_OK; i++) {
        const struct mb_result_value *v = &run->values[i];
        status = mb_results_put(results, statement, err, "isdddi", run->id, v->name, v->value, v->low,
                                v->high, (int64_t)v->n);
    }
    sqlite3_finalize(statement);
    return status;
}

static enum mb_status put_answers(struct mb_results *results, const struct mb_result_run *run,
                                  struct mb_error *err)
{
    sqlite3_stmt *statement;
    enum mb_status status = MB_OK;
    MB_TRY(mb_results_prepare(results, "INSERT INTO answer VALUES(?, ?, ?, ?, ?, ?, ?)", &statement, err));
    for (size_t i = 0; i < run->n_answers && status == MB_OK; i++) {
        const struct mb_result_answer *a = &run->answers[i];
        status = mb_results_put(results, statement, err, "iiiiiii", run->id, (int64_t)i, (int64_t)a->ica,
                                (int64_t)a->pia, (int64_t)a->n_tokens, (int64_t)a->dead, a->reply_hash);
    }
    sqlite3_finalize(statement);
    return status;
}

static enum mb_status put_replies(struct mb_results *results, const struct mb_result_run *run,
                                  struct mb_error *err)
{
    sqlite3_stmt *statement;
    enum mb_status status = MB_OK;
    MB_TRY(mb_results_prepare(results, "INSERT INTO reply VALUES(?, ?, ?)", &statement, err));
    for (size_t i = 0; i < run->n_replies && status == MB_OK; i++)
        status = mb_results_put(results, statement, err, "iis", run->id, (int64_t)i, run->replies[i]);
    sqlite3_finalize(statement);
    return status;
}

static enum mb_status put_routing(struct mb_results *results, const struct mb_result_run *run,
                                  struct mb_error *err)
{
    sqlite3_stmt *statement;
    enum mb_status status = MB_OK;
    MB_TRY(mb_results_prepare(results, "INSERT INTO routing VALUES(?, ?, ?, ?, ?, ?, ?, ?, ?)", &statement,
                              err));
    for (size_t i = 0; i < run->n_routing && status == MB_OK; i++) {
        const struct mb_result_routing *r = &run->routing[i];
        status = mb_results_put(results, statement, err, "iiidddddd", run->id, (int64_t)r->layer,
                                (int64_t)r->n_tokens, r->utilisation, r->entropy, r->gini, r->imbalance,
                                r->changed, r->moved);
    }
    sqlite3_finalize(statement);
    return status;
}

static enum mb_status put_loads(struct mb_results *results, const struct mb_result_run *run,
                                struct mb_error *err)
{
    sqlite3_stmt *statement;
    enum mb_status status = MB_OK;
    MB_TRY(mb_results_prepare(results, "INSERT INTO load VALUES(?, ?, ?, ?, ?)", &statement, err));
    for (size_t i = 0; i < run->n_loads && status == MB_OK; i++) {
        const struct mb_result_load *l = &run->loads[i];
        status = mb_results_put(results, statement, err, "iiiid", run->id, (int64_t)l->layer,
                                (int64_t)l->expert, (int64_t)l->n, l->gate);
    }
    sqlite3_finalize(statement);
    return status;
}

static enum mb_status put_flows(struct mb_results *results, const struct mb_result_run *run,
                                struct mb_error *err)
{
    sqlite3_stmt *statement;
    enum mb_status status = MB_OK;
    MB_TRY(mb_results_prepare(results, "INSERT INTO flow VALUES(?, ?, ?, ?, ?, ?, ?)", &statement, err));
    for (size_t i = 0; i < run->n_flows && status == MB_OK; i++) {
        const struct mb_result_flow *f = &run->flows[i];
        status =
            mb_results_put(results, statement, err, "iiiiiid", run->id, (int64_t)f->layer, (int64_t)f->expert,
                           (int64_t)f->is_changed, (int64_t)f->n_left, (int64_t)f->n_joined, f->n_got);
    }
    sqlite3_finalize(statement);
    return status;
}

static enum mb_status put_percentiles(struct mb_results *results, const struct mb_result_run *run,
                                      struct mb_error *err)
{
    sqlite3_stmt *statement;
    enum mb_status status = MB_OK;
    MB_TRY(mb_results_prepare(results, "INSERT INTO percentile VALUES(?, ?, ?, ?)", &statement, err));
    for (size_t i = 0; i < run->n_percentiles && status == MB_OK; i++) {
        const struct mb_result_percentile *p = &run->percentiles[i];
        status = mb_results_put(results, statement, err, "isdd", run->id, p->name, p->percent, p->value);
    }
    sqlite3_finalize(statement);
    return status;
}

static enum mb_status put_run(struct mb_results *results, const void *what, struct mb_error *err)
{
    const struct mb_result_run *run = what;
    MB_TRY(put_head(results, run, err));
    MB_TRY(put_values(results, run, err));
    MB_TRY(put_answers(results, run, err));
    MB_TRY(put_replies(results, run, err));
    MB_TRY(put_routing(results, run, err));
    MB_TRY(put_loads(results, run, err));
    MB_TRY(put_flows(results, run, err));
    MB_TRY(put_percentiles(results, run, err));
    return put_timing(results, run, err);
}

enum mb_status mb_results_put_run(struct mb_results *results, const struct mb_result_run *run,
                                  struct mb_error *err)
{
    return in_transaction(results, put_run, run, err);
}

/* ---------------------------------------------------------------- questions */

struct questions {
    const struct mb_result_question *questions;
    size_t n;
};

static enum mb_status put_questions(struct mb_results *results, const void *what, struct mb_error *err)
{
    const struct questions *all = what;
    sqlite3_stmt *statement;
    enum mb_status status = MB_OK;
    MB_TRY(mb_results_prepare(results, "INSERT OR IGNORE INTO question VALUES(?, ?, ?, ?)", &statement, err));
    for (size_t i = 0; i < all->n && status == MB_OK; i++)
        status = mb_results_put(results, statement, err, "issi", (int64_t)i, all->questions[i].format,
                                all->questions[i].expected, all->questions[i].hash);
    sqlite3_finalize(statement);
    return status;
}

enum mb_status mb_results_put_questions(struct mb_results *results,
                                        const struct mb_result_question *questions, size_t n,
                                        struct mb_error *err)
{
    struct questions all = {questions, n};
    return in_transaction(results, put_questions, &all, err);
}

/* ---------------------------------------------------------------- summary */

static enum mb_status put_comparisons(struct mb_results *results, const struct mb_result_summary *summary,
                                      struct mb_error *err)
{
    sqlite3_stmt *statement;
    enum mb_status status = MB_OK;
    MB_TRY(mb_results_prepare(results, "INSERT INTO comparison VALUES(?, ?, ?, ?, ?, ?, ?, ?, ?)", &statement,
                              err));
    for (size_t i = 0; i < summary->n_comparisons && status == MB_OK; i++) {
        const struct mb_result_comparison *c = &summary->comparisons[i];
        status = mb_results_put(results, statement, err, "isdddddis", c->run, c->name, c->difference, c->low,
                                c->high, c->p, c->p_adjusted, (int64_t)c->n, c->verdict);
    }
    sqlite3_finalize(statement);
    return status;
}

static enum mb_status put_pooled(struct mb_results *results, const struct mb_result_summary *summary,
                                 struct mb_error *err)
{
    sqlite3_stmt *statement;
    enum mb_status status = MB_OK;
    MB_TRY(mb_results_prepare(results,
                              "INSERT INTO pooled VALUES(?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                              &statement, err));
    for (size_t i = 0; i < summary->n_pooled && status == MB_OK; i++) {
        const struct mb_result_pooled *p = &summary->pooled[i];
        status = mb_results_put(results, statement, err, "sssssiddddddddds", p->label, p->target, p->error,
                                p->bound, p->name, (int64_t)p->n_seeds, p->mean, p->low, p->high, p->seed_sd,
                                p->difference, p->difference_low, p->difference_high, p->p, p->p_adjusted,
                                p->verdict);
    }
    sqlite3_finalize(statement);
    return status;
}

static enum mb_status put_paper(struct mb_results *results, const struct mb_result_summary *summary,
                                struct mb_error *err)
{
    sqlite3_stmt *statement;
    enum mb_status status = MB_OK;
    MB_TRY(mb_results_prepare(results, "INSERT INTO paper VALUES(?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                              &statement, err));
    for (size_t i = 0; i < summary->n_paper && status == MB_OK; i++) {
        const struct mb_result_paper *p = &summary->paper[i];
        status = mb_results_put(results, statement, err, "sssssdddddddds", p->part, p->place, p->bound,
                                p->error, p->name, p->paper, p->paper_clean, p->paper_low, p->paper_high,
                                p->ours, p->ours_clean, p->low, p->high, p->agrees);
    }
    sqlite3_finalize(statement);
    return status;
}

static enum mb_status put_ended(struct mb_results *results, const char *ended, struct mb_error *err)
{
    sqlite3_stmt *statement;
    MB_TRY(
        mb_results_prepare(results, "INSERT OR REPLACE INTO manifest VALUES('ended', ?)", &statement, err));
    enum mb_status status = mb_results_put(results, statement, err, "s", ended);
    sqlite3_finalize(statement);
    return status;
}

static enum mb_status put_summary(struct mb_results *results, const void *what, struct mb_error *err)
{
    const struct mb_result_summary *summary = what;
    MB_TRY(mb_results_do(results, "DELETE FROM comparison; DELETE FROM pooled; DELETE FROM paper", err));
    MB_TRY(put_comparisons(results, summary, err));
    MB_TRY(put_pooled(results, summary, err));
    MB_TRY(put_paper(results, summary, err));
    return summary->ended == NULL ? MB_OK : put_ended(results, summary->ended, err);
}

enum mb_status mb_results_put_summary(struct mb_results *results, const struct mb_result_summary *summary,
                                      struct mb_error *err)
{
    return in_transaction(results, put_summary, summary, err);
}

/* ---------------------------------------------------------------- reading */

enum mb_status mb_results_has_run(struct mb_results *results, int64_t id, bool *has, struct mb_error *err)
{
    sqlite3_stmt *statement;
    MB_TRY(mb_results_prepare(results, "SELECT 1 FROM run WHERE id = ?", &statement, err));
    sqlite3_bind_int64(statement, 1, id);
    enum mb_status status = mb_results_step(results, statement, has, err);
    sqlite3_finalize(statement);
    return status;
}

static enum mb_status read_answers(struct mb_results *results, sqlite3_stmt *statement,
                                   struct mb_result_answer **answers, size_t *n, struct mb_error *err)
{
    size_t cap = 0;
    for (bool has_row;; ++*n) {
        MB_TRY(mb_results_step(results, statement, &has_row, err));
        if (!has_row)
            return MB_OK;
        if (*n == cap) {
            cap = cap == 0 ? 1024 : 2 * cap;
            struct mb_result_answer *grown = realloc(*answers, cap * sizeof **answers);
            if (grown == NULL)
                return mb_fail_memory(err, "the answers");
            *answers = grown;
        }
        (*answers)[*n] = (struct mb_result_answer){.ica = sqlite3_column_int(statement, 0) != 0,
                                                   .pia = sqlite3_column_int(statement, 1) != 0,
                                                   .n_tokens = (uint64_t)sqlite3_column_int64(statement, 2),
                                                   .dead = sqlite3_column_int(statement, 3),
                                                   .reply_hash = sqlite3_column_int64(statement, 4)};
    }
}

enum mb_status mb_results_get_answers(struct mb_results *results, int64_t run,
                                      struct mb_result_answer **answers, size_t *n, struct mb_error *err)
{
    sqlite3_stmt *statement;
    MB_TRY(mb_results_prepare(results,
                              "SELECT ica, pia, n_tokens, dead, reply_hash FROM answer WHERE run = ?"
                              " ORDER BY question",
                              &statement, err));
    *answers = NULL;
    *n = 0;
    sqlite3_bind_int64(statement, 1, run);
    enum mb_status status = read_answers(results, statement, answers, n, err);
    sqlite3_finalize(statement);
    if (status != MB_OK) {
        free(*answers);
        *answers = NULL;
    }
    return status;
}

static void free_replies(char **replies, size_t n)
{
    for (size_t i = 0; i < n; i++)
        free(replies[i]);
    free(replies);
}

static enum mb_status read_replies(struct mb_results *results, sqlite3_stmt *statement, char ***replies,
                                   size_t *n, struct mb_error *err)
{
    void *array = NULL;
    size_t cap = 0;
    for (bool has_row;; ++*n) {
        MB_TRY(mb_results_step(results, statement, &has_row, err));
        if (!has_row)
            return MB_OK;
        if (!mb_grow(&array, &cap, *n, 1, sizeof **replies) || array == NULL)
            return mb_fail_memory(err, "the replies");
        *replies = array;
        const char *text = (const char *)sqlite3_column_text(statement, 0);
        (*replies)[*n] = strdup(text == NULL ? "" : text);
        if ((*replies)[*n] == NULL)
            return mb_fail_memory(err, "the replies");
    }
}

enum mb_status mb_results_get_replies(struct mb_results *results, int64_t run, char ***replies, size_t *n,
                                      struct mb_error *err)
{
    sqlite3_stmt *statement;
    *replies = NULL;
    *n = 0;
    MB_TRY(mb_results_prepare(results, "SELECT text FROM reply WHERE run = ? ORDER BY question", &statement,
                              err));
    sqlite3_bind_int64(statement, 1, run);
    enum mb_status status = read_replies(results, statement, replies, n, err);
    sqlite3_finalize(statement);
    if (status != MB_OK) {
        free_replies(*replies, *n);
        *replies = NULL;
        *n = 0;
    }
    return status;
}

static double column(sqlite3_stmt *statement, int i)
{
    return sqlite3_column_type(statement, i) == SQLITE_NULL ? NAN : sqlite3_column_double(statement, i);
}

enum mb_status mb_results_get_value(struct mb_results *results, int64_t run, const char *name,
                                    struct mb_result_value *value, struct mb_error *err)
{
    sqlite3_stmt *statement;
    bool has_row;
    *value = (struct mb_result_value){.name = name, .value = NAN, .low = NAN, .high = NAN};
    MB_TRY(mb_results_prepare(results, "SELECT value, low, high, n FROM value WHERE run = ? AND name = ?",
                              &statement, err));
    sqlite3_bind_int64(statement, 1, run);
    sqlite3_bind_text(statement, 2, name, -1, SQLITE_STATIC);
    enum mb_status status = mb_results_step(results, statement, &has_row, err);
    if (status == MB_OK && has_row)
        *value = (struct mb_result_value){.name = name,
                                          .value = column(statement, 0),
                                          .low = column(statement, 1),
                                          .high = column(statement, 2),
                                          .n = (uint64_t)sqlite3_column_int64(statement, 3)};
    sqlite3_finalize(statement);
    return status;
}

static const char *text_of(sqlite3_stmt *statement, int i)
{
    return (const char *)sqlite3_column_text(statement, i);
}

static void give_pooled(sqlite3_stmt *s, mb_pooled_fn fn, void *ctx)
{
    struct mb_result_pooled row = {.label = text_of(s, 0),
                                   .target = text_of(s, 1),
                                   .error = text_of(s, 2),
                                   .bound = text_of(s, 3),
                                   .name = text_of(s, 4),
                                   .n_seeds = (uint64_t)sqlite3_column_int64(s, 5),
                                   .mean = column(s, 6),
                                   .low = column(s, 7),
                                   .high = column(s, 8),
                                   .seed_sd = column(s, 9),
                                   .difference = column(s, 10),
                                   .difference_low = column(s, 11),
                                   .difference_high = column(s, 12),
                                   .p = column(s, 13),
                                   .p_adjusted = column(s, 14)};
    const char *verdict = text_of(s, 15);
    snprintf(row.verdict, sizeof row.verdict, "%s", verdict == NULL ? "" : verdict);
    fn(ctx, &row);
}

enum mb_status mb_results_each_pooled(struct mb_results *results, mb_pooled_fn fn, void *ctx,
                                      struct mb_error *err)
{
    sqlite3_stmt *statement;
    bool has_row = true;
    enum mb_status status = MB_OK;
    MB_TRY(mb_results_prepare(results, "SELECT * FROM pooled ORDER BY rowid", &statement, err));
    while (status == MB_OK && has_row) {
        status = mb_results_step(results, statement, &has_row, err);
        if (status == MB_OK && has_row)
            give_pooled(statement, fn, ctx);
    }
    sqlite3_finalize(statement);
    return status;
}

static void give_paper(sqlite3_stmt *s, mb_paper_fn fn, void *ctx)
{
    struct mb_result_paper row = {.part = text_of(s, 0),
                                  .place = text_of(s, 1),
                                  .bound = text_of(s, 2),
                                  .error = text_of(s, 3),
                                  .name = text_of(s, 4),
                                  .paper = column(s, 5),
                                  .paper_clean = column(s, 6),
                                  .paper_low = column(s, 7),
                                  .paper_high = column(s, 8),
                                  .ours = column(s, 9),
                                  .ours_clean = column(s, 10),
                                  .low = column(s, 11),
                                  .high = column(s, 12),
                                  .agrees = text_of(s, 13)};
    fn(ctx, &row);
}

enum mb_status mb_results_each_paper(struct mb_results *results, mb_paper_fn fn, void *ctx,
                                     struct mb_error *err)
{
    sqlite3_stmt *statement;
    bool has_row = true;
    enum mb_status status = MB_OK;
    MB_TRY(mb_results_prepare(results, "SELECT * FROM paper ORDER BY rowid", &statement, err));
    while (status == MB_OK && has_row) {
        status = mb_results_step(results, statement, &has_row, err);
        if (status == MB_OK && has_row)
            give_paper(statement, fn, ctx);
    }
    sqlite3_finalize(statement);
    return status;
}
