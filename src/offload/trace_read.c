/*
 * trace_read.c - a trace from a file: tokens in order, all rows of a token one after another.
 */
#include "base/error.h"
#include "base/file.h"
#include "trace_row.h"
#include <stdlib.h>
#include <string.h>

static const uint64_t file_nbytes_max = UINT64_C(1) << 32;

struct reader {
    const char *p, *end;
    size_t line; /* from 1 */
    struct mb_trace *trace;
};

/* The next line that is not empty, without its end. */
static bool next_line(struct reader *r, const char **line, size_t *n)
{
    while (r->p < r->end) {
        const char *stop = memchr(r->p, '\n', (size_t)(r->end - r->p));
        if (stop == NULL)
            stop = r->end;
        *line = r->p;
        *n = (size_t)(stop - r->p);
        r->p = stop == r->end ? stop : stop + 1;
        r->line++;
        if (*n > 0 && (*line)[*n - 1] == '\r')
            (*n)--;
        if (*n > 0)
            return true;
    }
    return false;
}

/* Whether the token's row of the layer has been filled before: no layer comes twice. */
static bool has_row(const struct mb_trace *trace, const struct mb_trace_row *row)
{
    const struct mb_trace_shape *shape = mb_trace_shape(trace);
    const uint32_t *layers = mb_trace_layers(trace);
    struct mb_trace_token token = mb_trace_token(trace, (size_t)row->token);
    for (size_t l = 0; l < shape->n_layers; l++)
        if (layers[l] == row->layer)
            return token.experts[l * shape->n_used] != MB_TRACE_NONE;
    return false;
}

static enum mb_status add_row(struct mb_trace *trace, const struct mb_trace_row *row, struct mb_error *err)
{
    size_t n = mb_trace_n_tokens(trace);
    if (row->token == n)
        MB_TRY(mb_trace_add(trace, (uint32_t)row->sequence, row->is_generated, err));
    else if (row->token + 1 != n)
        return mb_fail(err, MB_BAD_DATA, "token %" PRIu64 ": tokens are 0, 1, 2, ..., each in one piece",
                       row->token);
    struct mb_trace_token token = mb_trace_token(trace, (size_t)row->token);
    if (token.sequence != row->sequence || token.is_generated != row->is_generated)
        return mb_fail(err, MB_BAD_DATA, "token %" PRIu64 " was of another sequence or kind before",
                       row->token);
    if (has_row(trace, row))
        return mb_fail(err, MB_BAD_DATA, "token %" PRIu64 " has layer %" PRIu64 " twice", row->token,
                       row->layer);
    return mb_trace_route(trace, (size_t)row->token, (size_t)row->layer, row->experts, row->gates, row->n,
                          err);
}

static enum mb_status read_head(struct reader *r, bool *is_csv, struct mb_error *err)
{
    const char *line;
    size_t n;
    if (!next_line(r, &line, &n))
        return mb_fail(err, MB_BAD_DATA, "empty: not a trace of routing");
    *is_csv = n >= 2 && line[0] == '#' && line[1] == ' ';
    if (!*is_csv)
        return mb_trace_json_head(line, n, &r->trace, err);
    MB_TRY(mb_trace_csv_head(line, n, &r->trace, err));
    if (!next_line(r, &line, &n) || n != strlen(MB_TRACE_CSV_HEADS) ||
        memcmp(line, MB_TRACE_CSV_HEADS, n) != 0)
        return mb_fail(err, MB_BAD_DATA, "has to be \"%s\"", MB_TRACE_CSV_HEADS);
    return MB_OK;
}

static enum mb_status read_all(struct reader *r, struct mb_error *err)
{
    const char *line;
    size_t n;
    bool is_csv = false;
    enum mb_status status = read_head(r, &is_csv, err);
    struct mb_trace_row row;
    while (status == MB_OK && next_line(r, &line, &n)) {
        status = (is_csv ? mb_trace_csv_row : mb_trace_json_row)(line, n, &row, err);
        if (status == MB_OK)
            status = add_row(r->trace, &row, err);
    }
    if (status == MB_OK && mb_trace_n_tokens(r->trace) == 0)
        status = mb_fail(err, MB_BAD_DATA, "no tokens follow");
    return status;
}

enum mb_status mb_trace_parse(const char *path, const char *text, size_t nbytes, struct mb_trace **trace,
                              struct mb_error *err)
{
    struct reader reader = {.p = text, .end = text + nbytes};
    *trace = NULL;
    enum mb_status status = read_all(&reader, err);
    if (status == MB_OK) {
        *trace = reader.trace;
        return MB_OK;
    }
    mb_trace_close(reader.trace);
    if (status == MB_NO_MEMORY)
        return status;
    return mb_fail_in(err, status == MB_USAGE ? MB_BAD_DATA : status, "%s: line %zu", path, reader.line);
}

enum mb_status mb_trace_load(const char *path, struct mb_trace **trace, struct mb_error *err)
{
    char *text;
    size_t nbytes;
    MB_TRY(mb_read_file(path, file_nbytes_max, &text, &nbytes, err));
    enum mb_status status = mb_trace_parse(path, text, nbytes, trace, err);
    free(text);
    return status;
}
