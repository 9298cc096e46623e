/*
 * sensitivity_sweep.c - runs of a results file (docs/sweep.md): KL of errors in chosen matrices.
 */
#include "base/error.h"
#include "planner.h"
#include <moebius/results.h>
#include <sqlite3.h>
#include <stdlib.h>
#include <string.h>

/* The error of plain rounding at a fraction f is even between -f and f: its rms is f / sqrt(3). */
static const double RMS_OF_EVEN = 0.57735026918962576;

/* Errors that are like rounding; the first is it. */
static const char *const kinds[] = {"codec", "uniform", "normal"};
enum { N_KINDS = 3 };

static const char QUERY[] =
    "SELECT r.id, r.selected, r.projection, r.error, r.bound, k.value, k.low, k.high, e.value FROM run r "
    "JOIN value k ON k.run = r.id AND k.name = 'kl' JOIN value e ON e.run = r.id AND e.name = 'err_rms' "
    "WHERE k.value IS NOT NULL AND e.value > 0 AND r.bound IS NOT NULL AND r.error IN "
    "('codec', 'uniform', 'normal') ORDER BY r.id";

static enum mb_status fail(const char *path, sqlite3 *db, struct mb_error *err)
{
    return mb_fail(err, MB_BAD_DATA, "%s: no results of a sweep can be read: %s", path, sqlite3_errmsg(db));
}

/* ---------------------------------------------------------------- what a run changed */

static bool has_projection(const char *list, enum mb_projection projection)
{
    static const char *const names[] = {"", "gate", "up", "down"};
    return strcmp(list, "all") == 0 || strstr(list, names[projection]) != NULL;
}

static enum mb_status add(struct mb_plan_run *run, size_t number, size_t *room, struct mb_error *err)
{
    if (run->n == *room) {
        size_t more = 2 * *room + 16;
        size_t *at = realloc(run->at, more * sizeof *at);
        if (at == NULL)
            return mb_fail_memory(err, "the runs of a sweep");
        run->at = at;
        *room = more;
    }
    run->at[run->n++] = number;
    return MB_OK;
}

/* "1.5": an expert of a layer; else the name of a tensor. */
static enum mb_status add_word(const struct mb_planner *planner, const char *word, const char *projection,
                               struct mb_plan_run *run, size_t *room, struct mb_error *err)
{
    char *dot, *end;
    long layer = strtol(word, &dot, 10), expert = *dot == '.' && dot > word ? strtol(dot + 1, &end, 10) : -1;
    if (expert < 0 || *end != '\0') {
        size_t i = mb_plan_find(planner, word);
        return i < planner->n_matrices ? add(run, i, room, err) : MB_OK;
    }
    size_t i = layer > INT16_MAX || expert > INT32_MAX
                   ? planner->n_matrices
                   : mb_plan_find_expert(planner, (int)layer, (int)expert);
    for (; i < planner->n_matrices; i++) {
        const struct mb_tensor_role *role = &planner->matrices[i].role;
        if (role->layer != layer || role->expert != expert)
            break;
        if (has_projection(projection, role->projection))
            MB_TRY(add(run, i, room, err));
    }
    return MB_OK;
}

static enum mb_status add_words(const struct mb_planner *planner, char *words, const char *projection,
                                struct mb_plan_run *run, struct mb_error *err)
{
    char *rest = words;
    size_t room = 0;
    for (const char *word; (word = strsep(&rest, " ")) != NULL;)
        if (*word != '\0')
            MB_TRY(add_word(planner, word, projection, run, &room, err));
    return MB_OK;
}

/* ---------------------------------------------------------------- rows */

static const char *text(sqlite3_stmt *row, int column)
{
    const char *value = (const char *)sqlite3_column_text(row, column);
    return value == NULL ? "" : value;
}

static int rank_of(const char *error)
{
    int rank = 0;
    while (rank + 1 < N_KINDS && strcmp(kinds[rank], error) != 0)
        rank++;
    return rank;
}

/* run->n is 0 where it says nothing about plans. */
static enum mb_status read_run(const struct mb_planner *planner, sqlite3_stmt *row, struct mb_plan_run *run,
                               struct mb_error *err)
{
    struct mb_bound bound;
    *run = (struct mb_plan_run){.id = sqlite3_column_int64(row, 0),
                                .kl = sqlite3_column_double(row, 5),
                                .kl_low = sqlite3_column_double(row, 6),
                                .kl_high = sqlite3_column_double(row, 7),
                                .rank = rank_of(text(row, 3))};
    if (mb_bound_parse(text(row, 4), &bound, NULL) != MB_OK || bound.kind != MB_BOUND_MEAN_ABS)
        return MB_OK;
    run->fraction = bound.value * sqlite3_column_double(row, 8) / RMS_OF_EVEN;
    if (!isfinite(run->kl) || !isfinite(run->fraction) || run->fraction <= 0)
        return MB_OK;
    char *words = strdup(text(row, 1));
    if (words == NULL)
        return mb_fail_memory(err, "the runs of a sweep");
    enum mb_status status = add_words(planner, words, text(row, 2), run, err);
    free(words);
    return status;
}

static enum mb_status keep_run(struct mb_planner *planner, const struct mb_plan_run *run,
                               struct mb_error *err)
{
    struct mb_plan_run *runs = realloc(planner->runs, (planner->n_runs + 1) * sizeof *runs);
    if (runs == NULL)
        return mb_fail_memory(err, "the runs of a sweep");
    planner->runs = runs;
    runs[planner->n_runs++] = *run;
    return MB_OK;
}

static enum mb_status read_rows(struct mb_planner *planner, const char *path, sqlite3 *db, sqlite3_stmt *rows,
                                struct mb_error *err)
{
    int code;
    size_t n_before = planner->n_runs;
    while ((code = sqlite3_step(rows)) == SQLITE_ROW) {
        struct mb_plan_run run;
        enum mb_status status = read_run(planner, rows, &run, err);
        if (status == MB_OK && run.n > 0)
            status = keep_run(planner, &run, err);
        if (status != MB_OK || run.n == 0)
            free(run.at);
        MB_TRY(status);
    }
    if (code != SQLITE_DONE)
        return fail(path, db, err);
    if (planner->n_runs == n_before)
        return mb_fail(
            err, MB_BAD_DATA,
            "%s: has no run with the error codec, uniform or normal and a KL, in matrices that can "
            "be planned",
            path);
    return MB_OK;
}

/* ---------------------------------------------------------------- gates */

/* Of the clean run: tokens that the router sent to an expert, with its mean weight, of all of the layer's. */
static const char GATES[] = "SELECT l.layer, l.expert, l.n * l.gate * l.gate / r.n_tokens FROM load l JOIN "
                            "routing r ON r.run = l.run "
                            "AND r.layer = l.layer WHERE l.run = 0 AND r.n_tokens > 0";

static void use_gate(struct mb_planner *planner, int64_t layer, int64_t expert, double square)
{
    if (layer < 0 || layer > INT16_MAX || expert < 0 || expert > INT32_MAX || !(square >= 0 && square < 1e6))
        return;
    for (size_t i = mb_plan_find_expert(planner, (int)layer, (int)expert); i < planner->n_matrices; i++) {
        struct mb_plan_matrix *matrix = &planner->matrices[i];
        if (matrix->role.layer != layer || matrix->role.expert != expert)
            return;
        matrix->effect *= square;
    }
}

/* Moments know more. */
static enum mb_status read_gates(struct mb_planner *planner, const char *path, sqlite3 *db,
                                 struct mb_error *err)
{
    sqlite3_stmt *rows;
    int code;
    if (planner->has_gates)
        return MB_OK;
    if (sqlite3_prepare_v2(db, GATES, -1, &rows, NULL) != SQLITE_OK)
        return fail(path, db, err);
    while ((code = sqlite3_step(rows)) == SQLITE_ROW) {
        use_gate(planner, sqlite3_column_int64(rows, 0), sqlite3_column_int64(rows, 1),
                 sqlite3_column_double(rows, 2));
        planner->has_gates = true;
    }
    sqlite3_finalize(rows);
    return code == SQLITE_DONE ? MB_OK : fail(path, db, err);
}

/* ---------------------------------------------------------------- the file */

static enum mb_status check_model(const struct mb_planner *planner, const char *path, sqlite3 *db,
                                  struct mb_error *err)
{
    sqlite3_stmt *row;
    if (sqlite3_prepare_v2(db, "SELECT value FROM manifest WHERE key = 'model_hash'", -1, &row, NULL) !=
        SQLITE_OK)
        return fail(path, db, err);
    bool is_there = sqlite3_step(row) == SQLITE_ROW;
    bool is_same = is_there && strcmp(text(row, 0), planner->model_hash) == 0;
    sqlite3_finalize(row);
    return is_same ? MB_OK
                   : mb_fail(err, MB_BAD_DATA, "%s: %s", path,
                             is_there ? "measured on another model" : "does not say of which model it is");
}

static enum mb_status read_all(struct mb_planner *planner, const char *path, sqlite3 *db,
                               struct mb_error *err)
{
    sqlite3_stmt *rows;
    MB_TRY(check_model(planner, path, db, err));
    MB_TRY(read_gates(planner, path, db, err));
    if (sqlite3_prepare_v2(db, QUERY, -1, &rows, NULL) != SQLITE_OK)
        return fail(path, db, err);
    enum mb_status status = read_rows(planner, path, db, rows, err);
    sqlite3_finalize(rows);
    return status;
}

enum mb_status mb_plan_read_sweep(struct mb_planner *planner, const char *path, struct mb_error *err)
{
    struct mb_results *results;
    MB_TRY(mb_results_read(path, &results, err));
    enum mb_status status = read_all(planner, path, mb_results_sqlite(results), err);
    mb_results_close(results);
    return status;
}
