/*
 * results_file.h - the SQLite side of a results file: statements that fail with a message.
 */
#ifndef MB_LAB_RESULTS_FILE_H
#define MB_LAB_RESULTS_FILE_H

#include <moebius/results.h>
#include <sqlite3.h>

struct mb_results {
    sqlite3 *db;
    int lock_file; /* the file itself, locked while it is written; -1: only read */
    char *path;
};

/* What SQLite said, as a status and "PATH: what". */
enum mb_status mb_results_fail(const struct mb_results *results, struct mb_error *err);

/* Commands without results, one after another. */
enum mb_status mb_results_do(struct mb_results *results, const char *sql, struct mb_error *err);

/*
 * A statement with its values in the order of 'types': i int64_t, d double (NaN is NULL), s text (NULL is
 * NULL).  mb_results_ask leaves *statement at its first row, or NULL where there is none.
 */
enum mb_status mb_results_put(struct mb_results *results, sqlite3_stmt *statement, struct mb_error *err,
                              const char *types, ...);
enum mb_status mb_results_prepare(struct mb_results *results, const char *sql, sqlite3_stmt **statement,
                                  struct mb_error *err);

/* The next row: *has_row false: there is none. */
enum mb_status mb_results_step(struct mb_results *results, sqlite3_stmt *statement, bool *has_row,
                               struct mb_error *err);

#endif
