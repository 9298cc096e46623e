/*
 * results_file.c - make, lock, check and close a results file; its tables.
 */
#include "results_file.h"
#include "base/error.h"
#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

/* docs/sweep.md */
#define APPLICATION "1298297719" /* 0x4d627377, "Mbsw" */
#define FORM "1"

static const char tables[] =
    "CREATE TABLE manifest(key TEXT PRIMARY KEY, value TEXT) WITHOUT ROWID;"
    "CREATE TABLE run(id INTEGER PRIMARY KEY, label TEXT, target TEXT, selected TEXT, projection TEXT,"
    " error TEXT, bound TEXT, seed INTEGER, n_matrices INTEGER, n_weights INTEGER, task INTEGER,"
    " text INTEGER);"
    "CREATE TABLE value(run INTEGER, name TEXT, value REAL, low REAL, high REAL, n INTEGER,"
    " PRIMARY KEY(run, name)) WITHOUT ROWID;"
    "CREATE TABLE question(id INTEGER PRIMARY KEY, format TEXT, expected TEXT, hash INTEGER);"
    "CREATE TABLE answer(run INTEGER, question INTEGER, ica INTEGER, pia INTEGER, n_tokens INTEGER,"
    " dead INTEGER, reply_hash INTEGER, PRIMARY KEY(run, question)) WITHOUT ROWID;"
    "CREATE TABLE reply(run INTEGER, question INTEGER, text TEXT, PRIMARY KEY(run, question)) WITHOUT ROWID;"
    "CREATE TABLE routing(run INTEGER, layer INTEGER, n_tokens INTEGER, utilisation REAL, entropy REAL,"
    " gini REAL, imbalance REAL, changed REAL, moved REAL, PRIMARY KEY(run, layer)) WITHOUT ROWID;"
    "CREATE TABLE load(run INTEGER, layer INTEGER, expert INTEGER, n INTEGER, gate REAL,"
    " PRIMARY KEY(run, layer, expert)) WITHOUT ROWID;"
    "CREATE TABLE flow(run INTEGER, layer INTEGER, expert INTEGER, is_changed INTEGER, n_left INTEGER,"
    " n_joined INTEGER, n_got REAL, PRIMARY KEY(run, layer, expert)) WITHOUT ROWID;"
    "CREATE TABLE percentile(run INTEGER, name TEXT, percent REAL, value REAL,"
    " PRIMARY KEY(run, name, percent)) WITHOUT ROWID;"
    "CREATE TABLE comparison(run INTEGER, name TEXT, difference REAL, low REAL, high REAL, p REAL,"
    " p_adjusted REAL, n INTEGER, verdict TEXT, PRIMARY KEY(run, name)) WITHOUT ROWID;"
    "CREATE TABLE pooled(label TEXT, target TEXT, error TEXT, bound TEXT, name TEXT, n_seeds INTEGER,"
    " mean REAL, low REAL, high REAL, seed_sd REAL, difference REAL, difference_low REAL,"
    " difference_high REAL, p REAL, p_adjusted REAL, verdict TEXT);"
    "CREATE TABLE paper(part TEXT, place TEXT, bound TEXT, error TEXT, name TEXT, paper REAL,"
    " paper_clean REAL, paper_low REAL, paper_high REAL, ours REAL, ours_clean REAL, low REAL, high REAL, "
    "agrees TEXT);"
    "CREATE TABLE timing(run INTEGER PRIMARY KEY, begun TEXT, seconds REAL, n_threads INTEGER);"
#define PIVOT(name)                                                   \
    ", max(v.value) FILTER (WHERE v.name = '" name "') AS " name      \
    ", max(v.low) FILTER (WHERE v.name = '" name "') AS " name "_low" \
    ", max(v.high) FILTER (WHERE v.name = '" name "') AS " name "_high"
#define PIVOT_ONE(name) ", max(v.value) FILTER (WHERE v.name = '" name "') AS " name
    "CREATE VIEW result AS SELECT run.*" PIVOT("ica") PIVOT("pia") PIVOT("flips") PIVOT("ppl") PIVOT("kl")
        PIVOT("top1") PIVOT_ONE("dead") PIVOT_ONE("reply_tokens")
            PIVOT_ONE("route_changed") " FROM run LEFT JOIN value AS v ON v.run = run.id GROUP BY run.id;"
                                       "PRAGMA application_id = " APPLICATION ";"
                                       "PRAGMA user_version = " FORM ";";

/* ---------------------------------------------------------------- statements */

enum mb_status mb_results_fail(const struct mb_results *results, struct mb_error *err)
{
    int code = sqlite3_errcode(results->db) & 0xff;
    switch (code) {
    case SQLITE_FULL:
        return mb_fail(err, MB_NO_SPACE, "%s: the disk is full; what was finished before is kept",
                       results->path);
    case SQLITE_NOMEM:
        return mb_fail(err, MB_NO_MEMORY, "%s: out of memory", results->path);
    case SQLITE_NOTADB:
    case SQLITE_CORRUPT:
        return mb_fail(err, MB_BAD_DATA, "%s: no results file, or damaged (%s)", results->path,
                       sqlite3_errmsg(results->db));
    case SQLITE_ERROR:
        return mb_fail(err, MB_BAD_DATA, "%s: not a results file of this form (%s)", results->path,
                       sqlite3_errmsg(results->db));
    default:
        return mb_fail(err, MB_IO, "%s: %s", results->path, sqlite3_errmsg(results->db));
    }
}

enum mb_status mb_results_do(struct mb_results *results, const char *sql, struct mb_error *err)
{
    return sqlite3_exec(results->db, sql, NULL, NULL, NULL) == SQLITE_OK ? MB_OK
                                                                         : mb_results_fail(results, err);
}

enum mb_status mb_results_prepare(struct mb_results *results, const char *sql, sqlite3_stmt **statement,
                                  struct mb_error *err)
{
    return sqlite3_prepare_v2(results->db, sql, -1, statement, NULL) == SQLITE_OK
               ? MB_OK
               : mb_results_fail(results, err);
}

enum mb_status mb_results_step(struct mb_results *results, sqlite3_stmt *statement, bool *has_row,
                               struct mb_error *err)
{
    int code = sqlite3_step(statement);
    *has_row = code == SQLITE_ROW;
    return code == SQLITE_ROW || code == SQLITE_DONE ? MB_OK : mb_results_fail(results, err);
}

static int bind_value(sqlite3_stmt *statement, int i, char type, va_list *args)
{
    if (type == 'i')
        return sqlite3_bind_int64(statement, i, va_arg(*args, int64_t));
    if (type == 'd') {
        double value = va_arg(*args, double);
        return isnan(value) ? sqlite3_bind_null(statement, i) : sqlite3_bind_double(statement, i, value);
    }
    return sqlite3_bind_text(statement, i, va_arg(*args, const char *), -1, SQLITE_STATIC);
}

enum mb_status mb_results_put(struct mb_results *results, sqlite3_stmt *statement, struct mb_error *err,
                              const char *types, ...)
{
    va_list args;
    int code = SQLITE_OK;
    bool has_row;
    va_start(args, types);
    for (int i = 0; types[i] != '\0' && code == SQLITE_OK; i++)
        code = bind_value(statement, i + 1, types[i], &args);
    va_end(args);
    enum mb_status status = code == SQLITE_OK ? mb_results_step(results, statement, &has_row, err)
                                              : mb_results_fail(results, err);
    sqlite3_reset(statement);
    return status;
}

/* ---------------------------------------------------------------- open */

/* The lock ends with the process, however that ends. */
static enum mb_status lock(struct mb_results *results, bool resume, struct mb_error *err)
{
    results->lock_file = open(results->path, O_RDWR | O_CREAT | O_CLOEXEC | (resume ? 0 : O_EXCL), 0666);
    if (results->lock_file < 0 && errno == EEXIST)
        return mb_fail(err, MB_USAGE, "%s: exists; --resume goes on with it, or name another file",
                       results->path);
    if (results->lock_file < 0)
        return mb_fail_errno(err, results->path, "create");
    if (flock(results->lock_file, LOCK_EX | LOCK_NB) == 0)
        return MB_OK;
    return errno == EWOULDBLOCK ? mb_fail(err, MB_IO, "%s: another sweep is writing this file", results->path)
                                : mb_fail_errno(err, results->path, "lock");
}

static enum mb_status get_number(struct mb_results *results, const char *sql, int64_t *number,
                                 struct mb_error *err)
{
    sqlite3_stmt *statement;
    bool has_row;
    MB_TRY(mb_results_prepare(results, sql, &statement, err));
    enum mb_status status = mb_results_step(results, statement, &has_row, err);
    *number = status == MB_OK && has_row ? sqlite3_column_int64(statement, 0) : 0;
    sqlite3_finalize(statement);
    return status;
}

static enum mb_status check_form(struct mb_results *results, struct mb_error *err)
{
    int64_t application, form;
    MB_TRY(get_number(results, "PRAGMA application_id", &application, err));
    MB_TRY(get_number(results, "PRAGMA user_version", &form, err));
    if (application != strtoll(APPLICATION, NULL, 10))
        return mb_fail(err, MB_BAD_DATA, "%s: a database, but not the results of a sweep", results->path);
    if (form != strtoll(FORM, NULL, 10))
        return mb_fail(err, MB_UNSUPPORTED, "%s: form %lld of results files; this program knows form " FORM,
                       results->path, (long long)form);
    return MB_OK;
}

static enum mb_status put_manifest(struct mb_results *results, const struct mb_manifest_row *rows, size_t n,
                                   struct mb_error *err)
{
    sqlite3_stmt *statement;
    enum mb_status status = MB_OK;
    MB_TRY(mb_results_prepare(results, "INSERT INTO manifest VALUES(?, ?)", &statement, err));
    for (size_t i = 0; i < n && status == MB_OK; i++)
        status = mb_results_put(results, statement, err, "ss", rows[i].key, rows[i].value);
    sqlite3_finalize(statement);
    return status;
}

/* Tables and manifest in one transaction: a file has all of them or nothing. */
static enum mb_status make(struct mb_results *results, const struct mb_manifest_row *rows, size_t n,
                           struct mb_error *err)
{
    MB_TRY(mb_results_do(results, "BEGIN IMMEDIATE", err));
    enum mb_status status = mb_results_do(results, tables, err);
    if (status == MB_OK)
        status = put_manifest(results, rows, n, err);
    if (status == MB_OK)
        status = mb_results_do(results, "COMMIT", err);
    if (status != MB_OK)
        sqlite3_exec(results->db, "ROLLBACK", NULL, NULL, NULL);
    return status;
}

static enum mb_status check_row(struct mb_results *results, sqlite3_stmt *statement,
                                const struct mb_manifest_row *row, struct mb_error *err)
{
    bool has_row;
    sqlite3_bind_text(statement, 1, row->key, -1, SQLITE_STATIC);
    MB_TRY(mb_results_step(results, statement, &has_row, err));
    const char *there = has_row ? (const char *)sqlite3_column_text(statement, 0) : "";
    there = there == NULL ? "" : there;
    if (strcmp(there, row->value == NULL ? "" : row->value) == 0)
        return MB_OK;
    return mb_fail(err, MB_BAD_DATA, "%s: %s is another one (%s: %.80s there, %.80s here); name another file",
                   results->path, row->what, row->key, there, row->value == NULL ? "" : row->value);
}

static enum mb_status check_manifest(struct mb_results *results, const struct mb_manifest_row *rows, size_t n,
                                     struct mb_error *err)
{
    sqlite3_stmt *statement;
    enum mb_status status = MB_OK;
    MB_TRY(mb_results_prepare(results, "SELECT value FROM manifest WHERE key = ?", &statement, err));
    for (size_t i = 0; i < n && status == MB_OK; i++) {
        if (rows[i].is_telling)
            status = check_row(results, statement, &rows[i], err);
        sqlite3_reset(statement);
    }
    sqlite3_finalize(statement);
    return status;
}

static enum mb_status open_database(struct mb_results *results, int flags, struct mb_error *err)
{
    int code = sqlite3_open_v2(results->path, &results->db, flags | SQLITE_OPEN_NOMUTEX, NULL);
    if (results->db == NULL)
        return mb_fail_memory(err, results->path);
    if (code != SQLITE_OK)
        return mb_results_fail(results, err);
    sqlite3_busy_timeout(results->db, 10000);                           /* a reader that ends its reading */
    sqlite3_db_config(results->db, SQLITE_DBCONFIG_DEFENSIVE, 1, NULL); /* the file may be anybody's */
    sqlite3_db_config(results->db, SQLITE_DBCONFIG_TRUSTED_SCHEMA, 0, NULL);
    sqlite3_db_config(results->db, SQLITE_DBCONFIG_ENABLE_TRIGGER, 0, NULL);
    return mb_results_do(results, "PRAGMA cell_size_check = 1", err);
}

/* Before anything is added: rows after damaged ones would be lost with them. */
static enum mb_status check_pages(struct mb_results *results, struct mb_error *err)
{
    sqlite3_stmt *statement;
    bool has_row;
    MB_TRY(mb_results_prepare(results, "PRAGMA integrity_check(1)", &statement, err));
    enum mb_status status = mb_results_step(results, statement, &has_row, err);
    const char *found =
        status == MB_OK && has_row ? (const char *)sqlite3_column_text(statement, 0) : "nothing";
    if (status == MB_OK && (found == NULL || strcmp(found, "ok") != 0))
        status =
            mb_fail(err, MB_BAD_DATA,
                    "%s: damaged (%.120s); what can still be read: moebius report, or sqlite3's .recover",
                    results->path, found == NULL ? "" : found);
    sqlite3_finalize(statement);
    return status;
}

/* A file without tables was made by a sweep that was killed at its beginning. */
static enum mb_status open_writing(struct mb_results *results, const struct mb_manifest_row *rows, size_t n,
                                   bool resume, struct mb_error *err)
{
    int64_t n_tables;
    MB_TRY(lock(results, resume, err));
    MB_TRY(open_database(results, SQLITE_OPEN_READWRITE, err));
    MB_TRY(get_number(results, "SELECT count(*) FROM sqlite_master", &n_tables, err));
    if (n_tables > 0) {
        MB_TRY(check_form(results, err));
        MB_TRY(check_pages(results, err));
    }
    MB_TRY(mb_results_do(results, "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL", err));
    return n_tables > 0 ? check_manifest(results, rows, n, err) : make(results, rows, n, err);
}

static enum mb_status open_reading(struct mb_results *results, struct mb_error *err)
{
    struct stat info;
    if (stat(results->path, &info) != 0)
        return mb_fail_errno(err, results->path, "open");
    MB_TRY(open_database(results, SQLITE_OPEN_READONLY, err));
    return check_form(results, err);
}

static struct mb_results *results_new(const char *path, struct mb_error *err)
{
    struct mb_results *results = calloc(1, sizeof *results);
    char *copy = strdup(path);
    if (results == NULL || copy == NULL) {
        mb_error_set(err, MB_NO_MEMORY, "out of memory for %s", path);
        free(results);
        free(copy);
        return NULL;
    }
    results->lock_file = -1;
    results->path = copy;
    return results;
}

enum mb_status mb_results_open(const char *path, const struct mb_manifest_row *manifest, size_t n_manifest,
                               bool resume, struct mb_results **results, struct mb_error *err)
{
    struct mb_results *opened = results_new(path, err);
    if (opened == NULL)
        return MB_NO_MEMORY;
    enum mb_status status = open_writing(opened, manifest, n_manifest, resume, err);
    if (status == MB_OK)
        *results = opened;
    else
        mb_results_close(opened);
    return status;
}

enum mb_status mb_results_read(const char *path, struct mb_results **results, struct mb_error *err)
{
    struct mb_results *opened = results_new(path, err);
    if (opened == NULL)
        return MB_NO_MEMORY;
    enum mb_status status = open_reading(opened, err);
    if (status == MB_OK)
        *results = opened;
    else
        mb_results_close(opened);
    return status;
}

/*
 * A finished file is one file: without the journal beside it, it can be copied, and read where nothing can be
 * written.  While somebody reads it, it stays as it is.
 */
static void leave_one_file(struct mb_results *results)
{
    sqlite3_busy_timeout(results->db, 0);
    sqlite3_exec(results->db, "PRAGMA journal_mode = DELETE", NULL, NULL, NULL);
}

/* The lock goes last: closing any descriptor of a file drops the locks that SQLite has on it. */
void mb_results_close(struct mb_results *results)
{
    if (results == NULL)
        return;
    if (results->lock_file >= 0 && results->db != NULL)
        leave_one_file(results);
    sqlite3_close(results->db);
    if (results->lock_file >= 0)
        close(results->lock_file);
    free(results->path);
    free(results);
}

void *mb_results_sqlite(struct mb_results *results)
{
    return results->db;
}
