/*
 * eval_against.c - eval --against: flips against another run on the same questions, and a verdict in words.
 */
#include "eval_against.h"
#include "base/error.h"
#include "base/json.h"
#include "cli.h"
#include "report.h"
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum mb_status eval_marks_open(struct eval_marks *marks, size_t n, struct mb_error *err)
{
    marks->n = n;
    for (size_t i = 0; i < EVAL_N_MEASURES; i++) {
        marks->rights[i] = calloc(n + 1, sizeof *marks->rights[i]);
        if (marks->rights[i] == NULL)
            return mb_fail_memory(err, "the answers");
    }
    return MB_OK;
}

void eval_marks_close(struct eval_marks *marks)
{
    for (size_t i = 0; i < EVAL_N_MEASURES; i++)
        free(marks->rights[i]);
}

/* ---------------------------------------------------------------- reading */

/* The other run's file, line by line. */
struct reading {
    const struct eval_marks *ours;
    const struct mb_task *task;
    eval_question_fn question;
    struct eval_marks theirs;
    size_t n;
};

static enum mb_status read_line(struct reading *r, const json_t *line, struct mb_error *err)
{
    const char *question = json_string_value(json_object_get(line, "question"));
    const json_t *index = json_object_get(line, "index");
    if (question == NULL || !json_is_integer(index))
        return mb_fail(err, MB_BAD_DATA, "no reply that eval --replies wrote");
    if (json_integer_value(index) != (json_int_t)r->n)
        return mb_fail(err, MB_BAD_DATA, "the reply to question %zu is missing", r->n);
    if (r->n < r->ours->n && strcmp(question, r->question(r->task, r->n)) != 0)
        return mb_fail(err, MB_BAD_DATA, "question %zu is another one than this task's", r->n);
    for (size_t i = 0; i < EVAL_N_MEASURES && r->n < r->ours->n; i++) {
        const json_t *right = json_object_get(line, r->ours->keys[i]);
        if (!json_is_boolean(right))
            return mb_fail(err, MB_BAD_DATA, "no true or false '%s'", r->ours->keys[i]);
        r->theirs.rights[i][r->n] = json_is_true(right);
    }
    r->n++;
    return MB_OK;
}

static enum mb_status read_text(struct reading *r, const char *path, const char *text, size_t nbytes,
                                struct mb_error *err)
{
    size_t n_line = 1;
    for (const char *line = text, *end = text + nbytes; line < end; n_line++) {
        const char *newline = memchr(line, '\n', (size_t)(end - line));
        size_t n = (size_t)((newline == NULL ? end : newline) - line);
        json_t *object = NULL;
        enum mb_status status = mb_json_parse(line, n, (size_t)(line - text), &object, err);
        if (status == MB_OK)
            status = read_line(r, object, err);
        json_decref(object);
        if (status != MB_OK)
            return mb_fail_in(err, status, "%s: line %zu", path, n_line);
        line += n + 1;
    }
    return r->n > 0 ? MB_OK : mb_fail(err, MB_BAD_DATA, "%s: no replies", path);
}

static enum mb_status compare(struct eval_against *against, const struct reading *r, struct mb_error *err)
{
    size_t n = r->n < r->ours->n ? r->n : r->ours->n;
    against->n_other = r->n;
    for (size_t i = 0; i < EVAL_N_MEASURES; i++)
        MB_TRY(mb_compare_paired(r->theirs.rights[i], r->ours->rights[i], n, NULL, &against->pairs[i], err));
    return MB_OK;
}

enum mb_status eval_against(struct eval_against *against, const struct eval_marks *marks,
                            const struct mb_task *task, eval_question_fn question, struct mb_error *err)
{
    char *text;
    size_t nbytes;
    struct reading r = {.ours = marks, .task = task, .question = question};
    MB_TRY(cli_read_text(against->path, &text, &nbytes, err));
    enum mb_status status = eval_marks_open(&r.theirs, marks->n, err);
    if (status == MB_OK)
        status = read_text(&r, against->path, text, nbytes, err);
    if (status == MB_OK)
        status = compare(against, &r, err);
    eval_marks_close(&r.theirs);
    free(text);
    return status;
}

/* ---------------------------------------------------------------- words */

static json_t *pair_json(const struct mb_paired *pair)
{
    char verdict[64];
    return json_pack(
        "{s:I, s:I, s:f, s:[f, f], s:f, s:f, s:s, s:o}", "n_better", (json_int_t)pair->n_better, "n_worse",
        (json_int_t)pair->n_worse, "difference", pair->difference.value, "bootstrap95", pair->difference.low,
        pair->difference.high, "p_exact", pair->mcnemar.p_exact, "p_mid", pair->mcnemar.p_mid, "verdict",
        mb_verdict_text(pair->verdict, pair->n, verdict), "detectable", cli_json_real(pair->detectable));
}

json_t *eval_against_json(const struct eval_against *against, const struct eval_marks *marks)
{
    return json_pack("{s:o, s:I, s:o, s:o}", "replies", cli_json_path(against->path), "n",
                     (json_int_t)against->pairs[0].n, marks->keys[0], pair_json(&against->pairs[0]),
                     marks->keys[1], pair_json(&against->pairs[1]));
}

void eval_against_print(const struct eval_against *against, const struct eval_marks *marks)
{
    static const char *const heads[] = {"against the other run", "better", "worse", "difference",
                                        "95 % interval",         "p",      "so"};
    char verdict[64];
    struct cli_table *table = cli_table_new("lrrrrrl", heads);
    for (size_t i = 0; i < EVAL_N_MEASURES; i++) {
        const struct mb_paired *pair = &against->pairs[i];
        cli_table_cell(table, "%s", marks->names[i]);
        cli_table_cell(table, "%llu", (unsigned long long)pair->n_better);
        cli_table_cell(table, "%llu", (unsigned long long)pair->n_worse);
        cli_table_cell(table, "%+.2f %%", 100 * pair->difference.value);
        cli_table_cell(table, "%+.2f to %+.2f %%", 100 * pair->difference.low, 100 * pair->difference.high);
        cli_table_cell(table, "%.3g", pair->mcnemar.p_exact);
        cli_table_cell(table, "%s", mb_verdict_text(pair->verdict, pair->n, verdict));
    }
    printf("\n");
    cli_table_print(table);
    printf("\nIn 8 of 10 such comparisons, differences of at least this size are seen:");
    for (size_t i = 0; i < EVAL_N_MEASURES; i++)
        if (isfinite(against->pairs[i].detectable))
            printf("%s %.1f %% (%s)", i > 0 ? "," : "", 100 * against->pairs[i].detectable, marks->keys[i]);
        else
            printf("%s none (%s)", i > 0 ? "," : "", marks->keys[i]);
    printf(".\n");
    if (against->n_other != marks->n)
        printf("Only the first %llu questions are in both runs.\n", (unsigned long long)against->pairs[0].n);
}

void eval_long_add(struct eval_long *questions, size_t line)
{
    if (questions->n < EVAL_N_LINES)
        questions->lines[questions->n] = line;
    questions->n++;
}

void eval_long_print(const struct eval_long *questions, size_t n_ctx)
{
    if (questions->n == 0)
        return;
    fprintf(
        stderr, "moebius: %zu question%s not fit in the model's context of %zu tokens and %s as wrong: line",
        questions->n, questions->n == 1 ? " does" : "s do", n_ctx, questions->n == 1 ? "counts" : "count");
    for (size_t i = 0; i < questions->n && i < EVAL_N_LINES; i++)
        fprintf(stderr, "%s %zu", i > 0 ? "," : "", questions->lines[i]);
    fprintf(stderr, "%s\n", questions->n > EVAL_N_LINES ? ", ..." : "");
}
