/*
 * trace_csv.c - lines of a trace in CSV: numbers with commas between, lists with spaces between.
 */
#include "base/buf.h"
#include "base/error.h"
#include "base/number.h"
#include "trace_row.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>

struct words {
    const char *p, *end;
    char between; /* words */
};

/* The next word, which may be empty. false: there is none. */
static bool next(struct words *words, const char **word, size_t *n)
{
    if (words->p == NULL)
        return false;
    const char *stop = memchr(words->p, words->between, (size_t)(words->end - words->p));
    *word = words->p;
    *n = (size_t)((stop == NULL ? words->end : stop) - words->p);
    words->p = stop == NULL ? NULL : stop + 1;
    return true;
}

static bool read_uint(const char *text, size_t n, uint64_t max, uint64_t *value)
{
    uint64_t number = 0;
    for (size_t i = 0; i < n; i++) {
        if (text[i] < '0' || text[i] > '9')
            return false;
        number = 10 * number + (uint64_t)(text[i] - '0');
        if (number > max)
            return false;
    }
    *value = number;
    return n > 0 && n < 20;
}

/* ---------------------------------------------------------------- head */

/* The number after 'key' and a space, which is the next word. */
static bool read_key(struct words *words, const char *key, uint64_t max, uint64_t *value)
{
    const char *word;
    size_t n, key_n = strlen(key);
    return next(words, &word, &n) && n == key_n && memcmp(word, key, n) == 0 && next(words, &word, &n) &&
           read_uint(word, n, max, value);
}

static bool read_layers(struct words *words, uint32_t **layers, size_t *n_layers, bool *has_memory)
{
    const char *word;
    size_t n, cap = 0;
    uint64_t number;
    void *grown = NULL;
    bool is_right = next(words, &word, &n) && n == 6 && memcmp(word, "layers", n) == 0;
    *has_memory = true;
    while (is_right && *has_memory && next(words, &word, &n)) {
        is_right = read_uint(word, n, UINT32_MAX, &number);
        *has_memory = mb_grow(&grown, &cap, *n_layers, 1, sizeof **layers);
        *layers = grown;
        if (is_right && *has_memory && *layers != NULL)
            (*layers)[(*n_layers)++] = (uint32_t)number;
    }
    return is_right;
}

static enum mb_status read_head(struct words *words, uint32_t **layers, struct mb_trace **trace,
                                struct mb_error *err)
{
    uint64_t version, n_experts, n_used;
    size_t n_layers = 0;
    bool has_memory = true;
    if (!read_key(words, "moebius_trace", UINT32_MAX, &version))
        return mb_fail(err, MB_BAD_DATA, "not a trace of routing; 'moebius trace' writes one");
    if (version != MB_TRACE_VERSION)
        return mb_fail(err, MB_UNSUPPORTED, "a trace of version %" PRIu64 "; this program reads version %d",
                       version, MB_TRACE_VERSION);
    bool is_right = read_key(words, "n_experts", MB_TRACE_NONE - 1, &n_experts) &&
                    read_key(words, "n_experts_used", MB_TRACE_USED_MAX, &n_used) &&
                    read_layers(words, layers, &n_layers, &has_memory);
    if (!has_memory)
        return mb_fail_memory(err, "a trace");
    if (!is_right)
        return mb_fail(err, MB_BAD_DATA,
                       "has to be \"# moebius_trace 1 n_experts N n_experts_used N layers N N ...\"");
    struct mb_trace_shape shape = {n_layers, (size_t)n_experts, (size_t)n_used};
    return mb_trace_open(&shape, *layers, trace, err);
}

enum mb_status mb_trace_csv_head(const char *line, size_t n, struct mb_trace **trace, struct mb_error *err)
{
    struct words words = {line + 2, line + n, ' '}; /* after "# " */
    uint32_t *layers = NULL;
    enum mb_status status = read_head(&words, &layers, trace, err);
    free(layers);
    return status == MB_USAGE ? MB_BAD_DATA : status;
}

/* ---------------------------------------------------------------- rows */

static enum mb_status read_experts(const char *text, size_t nbytes, struct mb_trace_row *row,
                                   struct mb_error *err)
{
    struct words words = {text, text + nbytes, ' '};
    const char *word;
    size_t n;
    uint64_t expert;
    for (row->n = 0; next(&words, &word, &n); row->n++) {
        if (row->n == MB_TRACE_USED_MAX || !read_uint(word, n, INT32_MAX, &expert))
            return mb_fail(err, MB_BAD_DATA, "experts have to be at most %d numbers with spaces between",
                           MB_TRACE_USED_MAX);
        row->experts[row->n] = (int32_t)expert;
    }
    return MB_OK;
}

static enum mb_status read_gates(const char *text, size_t nbytes, struct mb_trace_row *row,
                                 struct mb_error *err)
{
    struct words words = {text, text + nbytes, ' '};
    const char *word;
    size_t n, n_gates = 0;
    double gate;
    for (; next(&words, &word, &n); n_gates++) {
        if (n_gates == row->n || !mb_number_parse(word, n, &gate) || !(fabs(gate) < 1e30))
            return mb_fail(err, MB_BAD_DATA, "gates have to be %zu numbers with spaces between", row->n);
        row->gates[n_gates] = (float)gate;
    }
    return n_gates == row->n ? MB_OK
                             : mb_fail(err, MB_BAD_DATA, "has %zu gates for %zu experts", n_gates, row->n);
}

static bool read_kind(const char *text, size_t n, bool *is_generated)
{
    *is_generated = n == 9 && memcmp(text, "generated", n) == 0;
    return *is_generated || (n == 6 && memcmp(text, "prompt", n) == 0);
}

enum mb_status mb_trace_csv_row(const char *line, size_t nbytes, struct mb_trace_row *row,
                                struct mb_error *err)
{
    enum { SEQUENCE, TOKEN, KIND, LAYER, EXPERTS, GATES, N_CELLS };
    struct words words = {line, line + nbytes, ','};
    const char *cells[N_CELLS];
    size_t n[N_CELLS], n_cells = 0;
    while (n_cells < N_CELLS && next(&words, &cells[n_cells], &n[n_cells]))
        n_cells++;
    if (n_cells < N_CELLS || words.p != NULL)
        return mb_fail(err, MB_BAD_DATA, "has to be %d cells: %s", N_CELLS, MB_TRACE_CSV_HEADS);
    if (!read_uint(cells[SEQUENCE], n[SEQUENCE], UINT32_MAX, &row->sequence) ||
        !read_uint(cells[TOKEN], n[TOKEN], MB_TRACE_TOKENS_MAX, &row->token) ||
        !read_uint(cells[LAYER], n[LAYER], UINT32_MAX, &row->layer))
        return mb_fail(err, MB_BAD_DATA, "sequence, token and layer have to be numbers");
    if (!read_kind(cells[KIND], n[KIND], &row->is_generated))
        return mb_fail(err, MB_BAD_DATA, "kind has to be prompt or generated");
    MB_TRY(read_experts(cells[EXPERTS], n[EXPERTS], row, err));
    return read_gates(cells[GATES], n[GATES], row, err);
}
