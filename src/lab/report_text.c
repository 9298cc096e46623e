/*
 * report_text.c - writes the rows of a results file as JSON, CSV, and as a page with the JSON in it.
 */
#include "base/buf.h"
#include "base/error.h"
#include "base/number.h"
#include "base/utf8.h"
#include "report_page.h"
#include "report_read.h"
#include <math.h>
#include <moebius/report.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { NUMBER_NBYTES = 40 };
static const size_t TEXT_NBYTES_MAX = (size_t)1 << 30;

struct writer {
    struct mb_bytes out;
    struct mb_bytes text; /* of one cell, made UTF-8 */
    bool is_first;        /* row of its table */
};

static bool put(struct writer *writer, const char *text)
{
    return mb_bytes_put(&writer->out, text, strlen(text));
}

/* A number that reads back as the same one. */
static const char *number(char text[NUMBER_NBYTES], sqlite3_stmt *row, int column)
{
    if (sqlite3_column_type(row, column) == SQLITE_INTEGER) {
        snprintf(text, NUMBER_NBYTES, "%lld", (long long)sqlite3_column_int64(row, column));
        return text;
    }
    double value = sqlite3_column_double(row, column);
    if (!isfinite(value))
        return "";
    mb_number_format(text, NUMBER_NBYTES, "%.15g", value);
    double again;
    if (!mb_number_parse(text, strlen(text), &again) || again != value)
        mb_number_format(text, NUMBER_NBYTES, "%.17g", value);
    return text;
}

/* The text of a cell; false: no memory. */
static bool take_text(struct writer *writer, const void *text, int nbytes)
{
    writer->text.n = 0;
    return text == NULL || mb_utf8_replace(&writer->text, text, (size_t)nbytes);
}

static bool take_cell(struct writer *writer, sqlite3_stmt *row, int column)
{
    const void *text = sqlite3_column_text(row, column);
    return take_text(writer, text, sqlite3_column_bytes(row, column));
}

static enum mb_status finish(struct writer *writer, enum mb_status status, char **text, size_t *nbytes,
                             struct mb_error *err)
{
    free(writer->text.p);
    if (status == MB_OK && writer->out.n > TEXT_NBYTES_MAX)
        status = mb_fail(err, MB_NO_SPACE, "the report has more than 1 GiB");
    if (status == MB_OK && !mb_bytes_put(&writer->out, "", 1))
        status = mb_fail_memory(err, "the report");
    if (status != MB_OK) {
        free(writer->out.p);
        return status;
    }
    *text = writer->out.p;
    *nbytes = writer->out.n - 1;
    return MB_OK;
}

/* ---------------------------------------------------------------- JSON */

/* "<" is escaped: in a page, no text can end the script that it is in. */
static bool put_json_string(struct writer *writer)
{
    bool ok = put(writer, "\"");
    size_t begin = 0, n = writer->text.n;
    for (size_t i = 0; ok && i < n; i++) {
        unsigned char c = (unsigned char)writer->text.p[i];
        if (c >= 0x20 && c != '"' && c != '\\' && c != '<' && c != 0x7f)
            continue;
        char escape[8];
        snprintf(escape, sizeof escape, "\\u%04x", c);
        ok = mb_bytes_put(&writer->out, writer->text.p + begin, i - begin) && put(writer, escape);
        begin = i + 1;
    }
    return ok && (begin >= n || mb_bytes_put(&writer->out, writer->text.p + begin, n - begin)) &&
           put(writer, "\"");
}

static bool put_json_cell(struct writer *writer, sqlite3_stmt *row, int column)
{
    char text[NUMBER_NBYTES];
    const char *digits;
    switch (sqlite3_column_type(row, column)) {
    case SQLITE_INTEGER:
    case SQLITE_FLOAT:
        digits = number(text, row, column);
        return put(writer, digits[0] != 0 ? digits : "null");
    case SQLITE_NULL:
        return put(writer, "null");
    default:
        return take_cell(writer, row, column) && put_json_string(writer);
    }
}

static bool begin_json(void *ctx, sqlite3_stmt *statement)
{
    struct writer *writer = ctx;
    bool ok = put(writer, "{\"columns\": [");
    for (int i = 0; ok && i < sqlite3_column_count(statement); i++) {
        const char *name = sqlite3_column_name(statement, i);
        ok = name != NULL && (i == 0 || put(writer, ", ")) && take_text(writer, name, (int)strlen(name)) &&
             put_json_string(writer);
    }
    writer->is_first = true;
    return ok && put(writer, "], \"rows\": [");
}

static bool json_row(void *ctx, sqlite3_stmt *row)
{
    struct writer *writer = ctx;
    bool ok = writer->out.n <= TEXT_NBYTES_MAX && put(writer, writer->is_first ? "\n[" : ",\n[");
    writer->is_first = false;
    for (int i = 0; ok && i < sqlite3_column_count(row); i++)
        ok = (i == 0 || put(writer, ", ")) && put_json_cell(writer, row, i);
    return ok && put(writer, "]");
}

static enum mb_status put_tables(struct mb_report *report, struct writer *writer, bool for_page,
                                 struct mb_error *err)
{
    bool ok = put(writer, "{\"tables\": {"), is_first = true;
    const struct mb_report_table *table;
    for (size_t i = 0; ok && (table = mb_report_table(i)) != NULL; i++) {
        if (for_page && table->page_where != NULL && table->page_where[0] == 0)
            continue;
        ok = put(writer, is_first ? "\n\"" : ",\n\"") && put(writer, table->name) && put(writer, "\": ");
        is_first = false;
        if (!ok)
            break;
        MB_TRY(mb_report_rows(report, table, for_page, begin_json, json_row, writer, err));
        ok = put(writer, "]}");
    }
    return ok && put(writer, "\n}}\n") ? MB_OK : mb_fail_memory(err, "the report");
}

enum mb_status mb_report_json(struct mb_report *report, char **text, size_t *nbytes, struct mb_error *err)
{
    struct writer writer = {0};
    return finish(&writer, put_tables(report, &writer, false, err), text, nbytes, err);
}

/* ---------------------------------------------------------------- the page */

/* Copies the page, with what belongs to each @NAME@ in its place. */
static enum mb_status put_page(struct mb_report *report, struct writer *writer, struct mb_error *err)
{
    static const char marks[][8] = {"@CSS@", "@DATA@", "@JS@"};
    const char *at = MB_PAGE_HTML;
    for (size_t i = 0; i < sizeof marks / sizeof marks[0]; i++) {
        const char *mark = strstr(at, marks[i]);
        if (mark == NULL || !mb_bytes_put(&writer->out, at, (size_t)(mark - at)))
            return mb_fail_memory(err, "the report");
        at = mark + strlen(marks[i]);
        if (i == 1)
            MB_TRY(put_tables(report, writer, true, err));
        else if (!put(writer, i == 0 ? MB_PAGE_CSS : MB_PAGE_JS))
            return mb_fail_memory(err, "the report");
    }
    return put(writer, at) ? MB_OK : mb_fail_memory(err, "the report");
}

enum mb_status mb_report_page(struct mb_report *report, char **text, size_t *nbytes, struct mb_error *err)
{
    struct writer writer = {0};
    return finish(&writer, put_page(report, &writer, err), text, nbytes, err);
}

/* ---------------------------------------------------------------- CSV */

static bool put_csv_text(struct writer *writer)
{
    const char *text = writer->text.p;
    size_t n = writer->text.n;
    bool is_plain = true;
    for (size_t i = 0; i < n && is_plain; i++)
        is_plain = strchr("\",\r\n", text[i]) == NULL;
    if (is_plain)
        return mb_bytes_put(&writer->out, text, n);
    bool ok = put(writer, "\"");
    for (size_t i = 0; ok && i < n; i++)
        ok = (text[i] != '"' || put(writer, "\"")) && mb_bytes_put(&writer->out, text + i, 1);
    return ok && put(writer, "\"");
}

static bool begin_csv(void *ctx, sqlite3_stmt *statement)
{
    struct writer *writer = ctx;
    bool ok = true;
    for (int i = 0; ok && i < sqlite3_column_count(statement); i++) {
        const char *name = sqlite3_column_name(statement, i);
        ok = name != NULL && (i == 0 || put(writer, ",")) && take_text(writer, name, (int)strlen(name)) &&
             put_csv_text(writer);
    }
    return ok && put(writer, "\n");
}

static bool csv_row(void *ctx, sqlite3_stmt *row)
{
    struct writer *writer = ctx;
    bool ok = writer->out.n <= TEXT_NBYTES_MAX;
    for (int i = 0; ok && i < sqlite3_column_count(row); i++) {
        int type = sqlite3_column_type(row, i);
        char text[NUMBER_NBYTES];
        ok = i == 0 || put(writer, ",");
        if (ok && (type == SQLITE_INTEGER || type == SQLITE_FLOAT))
            ok = put(writer, number(text, row, i));
        else if (ok && type != SQLITE_NULL)
            ok = take_cell(writer, row, i) && put_csv_text(writer);
    }
    return ok && put(writer, "\n");
}

enum mb_status mb_report_csv(struct mb_report *report, size_t i, char **text, size_t *nbytes,
                             struct mb_error *err)
{
    struct writer writer = {0};
    const struct mb_report_table *table = mb_report_table(i);
    if (table == NULL)
        return mb_fail(err, MB_USAGE, "results have %zu tables", mb_report_n_tables());
    return finish(&writer, mb_report_rows(report, table, false, begin_csv, csv_row, &writer, err), text,
                  nbytes, err);
}
