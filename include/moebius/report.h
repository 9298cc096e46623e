/*
 * report.h - a results file (docs/sweep.md) as a page, as JSON and as CSV.
 *
 *     mb_report_open("results.db", &report, &err);
 *     mb_report_page(report, &text, &nbytes, &err);            one HTML file that needs nothing else
 *     for (size_t i = 0; i < mb_report_n_tables(); i++)
 *         mb_report_csv(report, i, &text, &nbytes, &err);      all rows of mb_report_table_name(i)
 *
 * The file is only read, also while a sweep writes it: a report shows the runs that are done.  One report is
 * used by one thread at a time.
 */
#ifndef MOEBIUS_REPORT_H
#define MOEBIUS_REPORT_H

#include <moebius/status.h>
#include <stddef.h>

#ifdef __cplusplus
extern "C" {
#endif

struct mb_report;

/*
 * MB_BAD_DATA: no such file, no results file, or a damaged one.  MB_UNSUPPORTED: of a later version.
 * MB_IO: it cannot be read.
 */
MB_API enum mb_status mb_report_open(const char *path, struct mb_report **report, struct mb_error *err);
MB_API void mb_report_close(struct mb_report *report); /* NULL is fine */

/*
 * Texts are malloc'ed, UTF-8, with a 0 behind them that *nbytes does not count.  They are made in memory:
 * MB_NO_SPACE where one would have more than 1 GiB.
 *
 * The page contains what its charts show: all but the answers to questions and the loads of changed runs.  It
 * asks for no other file and no network.
 */
MB_API enum mb_status mb_report_page(struct mb_report *report, char **text, size_t *nbytes,
                                     struct mb_error *err);

/* {"tables": {"run": {"columns": [names], "rows": [[values]]}, ...}}: all tables, all rows. */
MB_API enum mb_status mb_report_json(struct mb_report *report, char **text, size_t *nbytes,
                                     struct mb_error *err);

/* The tables of docs/sweep.md, in its order. NULL: there is no i-th. */
MB_API size_t mb_report_n_tables(void);
MB_API const char *mb_report_table_name(size_t i);

/* RFC 4180 with line feeds: names of columns, then rows.  What is NULL in the file is empty. */
MB_API enum mb_status mb_report_csv(struct mb_report *report, size_t i, char **text, size_t *nbytes,
                                    struct mb_error *err);

#ifdef __cplusplus
}
#endif

#endif
