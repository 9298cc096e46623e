/*
 * report_read.c - opens a results file for reading, and reads its tables.
 *
 * The file may be anybody's: no cell of it may have more than CELL_NBYTES_MAX, and no more rows of a table
 * are taken than the text may have bytes.
 */
#include "report_read.h"
#include "base/error.h"
#include <moebius/report.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { QUERY_NBYTES = 256, CELL_NBYTES_MAX = 16 << 20 };

/* 'order' makes the text the same for the same rows. */
static const struct mb_report_table tables[] = {
    {"manifest", "key", NULL, NULL},
    {"run", "id", NULL, NULL},
    {"value", "run, name", NULL, NULL},
    {"answer", "run, question", "", NULL},
    {"reply", "run, question", "", NULL},
    {"question", "id", "", NULL},
    {"routing", "run, layer", NULL, NULL},
    {"load", "run, layer, expert", "run = (SELECT min(id) FROM run WHERE error = 'none')", NULL},
    {"flow", "run, layer, expert", "is_changed OR n_got > 0",
     "SELECT 0 AS run, 0 AS layer, 0 AS expert, 0 AS is_changed, 0 AS n_left, 0 AS n_joined, 0 AS n_got "
     "WHERE 0"},
    {"percentile", "run, name, percent", NULL, NULL},
    {"comparison", "run, name", NULL, NULL},
    {"pooled", "label, target, error, bound, name", NULL, NULL},
    {"paper", "rowid", NULL, NULL},
    {"timing", "run", NULL, NULL},
};

size_t mb_report_n_tables(void)
{
    return sizeof tables / sizeof tables[0];
}

const struct mb_report_table *mb_report_table(size_t i)
{
    return i < mb_report_n_tables() ? &tables[i] : NULL;
}

const char *mb_report_table_name(size_t i)
{
    return i < mb_report_n_tables() ? tables[i].name : NULL;
}

static enum mb_status fail(const struct mb_report *report, const char *doing, struct mb_error *err)
{
    int code = sqlite3_errcode(report->db) & 0xff;
    enum mb_status status = code == SQLITE_NOMEM ? MB_NO_MEMORY
                            : code == SQLITE_NOTADB || code == SQLITE_CORRUPT || code == SQLITE_ERROR ||
                                    code == SQLITE_TOOBIG || code == SQLITE_SCHEMA
                                ? MB_BAD_DATA
                                : MB_IO;
    return mb_fail(err, status, "%s: %s: %s", report->path, doing, sqlite3_errmsg(report->db));
}

enum mb_status mb_report_open(const char *path, struct mb_report **report, struct mb_error *err)
{
    size_t path_nbytes = strlen(path) + 1;
    struct mb_report *made = calloc(1, sizeof *made + path_nbytes);
    if (made == NULL)
        return mb_fail_memory(err, "the report");
    memcpy(made->path, path, path_nbytes);
    enum mb_status status = mb_results_read(path, &made->results, err);
    if (status != MB_OK) {
        free(made);
        return status;
    }
    made->db = mb_results_sqlite(made->results);
    sqlite3_limit(made->db, SQLITE_LIMIT_LENGTH, CELL_NBYTES_MAX);
    *report = made;
    return MB_OK;
}

void mb_report_close(struct mb_report *report)
{
    if (report == NULL)
        return;
    mb_results_close(report->results);
    free(report);
}

static enum mb_status run(struct mb_report *report, sqlite3_stmt *statement, mb_report_row_fn begin,
                          mb_report_row_fn row, void *ctx, const char *name, struct mb_error *err)
{
    if (!begin(ctx, statement))
        return mb_fail_memory(err, "the report");
    int code;
    while ((code = sqlite3_step(statement)) == SQLITE_ROW)
        if (!row(ctx, statement))
            return mb_fail_memory(err, "the report");
    if (code == SQLITE_DONE)
        return MB_OK;
    char doing[64];
    snprintf(doing, sizeof doing, "table %s cannot be read", name);
    return fail(report, doing, err);
}

static bool has_table(struct mb_report *report, const char *name)
{
    return sqlite3_table_column_metadata(report->db, NULL, name, NULL, NULL, NULL, NULL, NULL, NULL) ==
           SQLITE_OK;
}

enum mb_status mb_report_rows(struct mb_report *report, const struct mb_report_table *table, bool for_page,
                              mb_report_row_fn begin, mb_report_row_fn row, void *ctx, struct mb_error *err)
{
    const char *where = for_page && table->page_where != NULL ? table->page_where : "1";
    char sql[QUERY_NBYTES];
    sqlite3_stmt *statement;
    snprintf(sql, sizeof sql, "SELECT * FROM \"%s\" WHERE %s ORDER BY %s", table->name, where, table->order);
    if (table->if_absent != NULL && !has_table(report, table->name))
        snprintf(sql, sizeof sql, "%s", table->if_absent);
    if (sqlite3_prepare_v2(report->db, sql, -1, &statement, NULL) != SQLITE_OK) {
        char doing[64];
        snprintf(doing, sizeof doing, "table %s", table->name);
        return fail(report, doing, err);
    }
    enum mb_status status = run(report, statement, begin, row, ctx, table->name, err);
    sqlite3_finalize(statement);
    return status;
}
