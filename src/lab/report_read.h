/*
 * report_read.h - rows of a results file, handed out one by one.
 */
#ifndef MB_LAB_REPORT_READ_H
#define MB_LAB_REPORT_READ_H

#include <moebius/results.h>
#include <sqlite3.h>
#include <stdbool.h>
#include <stddef.h>

struct mb_report {
    struct mb_results *results;
    sqlite3 *db; /* that of the results */
    char path[]; /* for messages */
};

struct mb_report_table {
    const char *name, *order;
    const char *page_where; /* which rows a page shows; NULL: all; "": none */
    const char *if_absent;  /* takes its place in files of earlier programs; NULL: all files have it */
};

/* The i-th table of docs/sweep.md; NULL: there are no more. */
const struct mb_report_table *mb_report_table(size_t i);

/* A row: columns of the statement. Returns false to stop (no memory). */
typedef bool (*mb_report_row_fn)(void *ctx, sqlite3_stmt *row);

/*
 * Calls begin once, with a statement that knows its columns and has no row yet, then 'row' for each row.
 * MB_NO_MEMORY where one of them returns false.
 */
enum mb_status mb_report_rows(struct mb_report *report, const struct mb_report_table *table, bool for_page,
                              mb_report_row_fn begin, mb_report_row_fn row, void *ctx, struct mb_error *err);

#endif
