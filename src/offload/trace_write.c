/*
 * trace_write.c - a trace as a file, in JSONL or CSV.
 */
#include "base/buf.h"
#include "base/error.h"
#include "base/file.h"
#include "base/number.h"
#include "trace_row.h"
#include <stdio.h>
#include <stdlib.h>

enum { WORD_NBYTES = 128 };

struct writer {
    const struct mb_trace *trace;
    const struct mb_trace_shape *shape;
    struct mb_bytes out;
    bool is_csv, is_full; /* no memory */
};

static void put_bytes(struct writer *w, const char *text, int n)
{
    w->is_full = w->is_full || n < 0 || n >= WORD_NBYTES || !mb_bytes_put(&w->out, text, (size_t)n);
}

#define PUT(w, ...)                                                             \
    do {                                                                        \
        char word_[WORD_NBYTES];                                                \
        put_bytes(w, word_, mb_number_format(word_, WORD_NBYTES, __VA_ARGS__)); \
    } while (0)

static void put_head(struct writer *w)
{
    const uint32_t *layers = mb_trace_layers(w->trace);
    PUT(w,
        w->is_csv ? "# moebius_trace %d n_experts %zu n_experts_used %zu layers"
                  : "{\"moebius_trace\": %d, \"n_experts\": %zu, \"n_experts_used\": %zu, \"layers\": [",
        MB_TRACE_VERSION, w->shape->n_experts, w->shape->n_used);
    for (size_t l = 0; l < w->shape->n_layers; l++)
        PUT(w, w->is_csv || l > 0 ? "%s%u" : "%.0s%u", w->is_csv ? " " : ", ", (unsigned)layers[l]);
    PUT(w, w->is_csv ? "\n" MB_TRACE_CSV_HEADS "\n" : "]}\n");
}

static void put_row(struct writer *w, size_t t, const struct mb_trace_token *token, size_t layer)
{
    const uint16_t *experts = token->experts + layer * w->shape->n_used;
    const float *gates = token->gates + layer * w->shape->n_used;
    const char *between = w->is_csv ? " " : ", ";
    PUT(w,
        w->is_csv ? "%u,%zu,%s,%u," : "{\"sequence\": %u, \"token\": %zu, \"kind\": \"%s\", \"layer\": %u, ",
        (unsigned)token->sequence, t, token->is_generated ? "generated" : "prompt",
        (unsigned)mb_trace_layers(w->trace)[layer]);
    PUT(w, "%s", w->is_csv ? "" : "\"experts\": [");
    for (size_t k = 0; k < w->shape->n_used; k++)
        PUT(w, "%s%u", k > 0 ? between : "", (unsigned)experts[k]);
    PUT(w, "%s", w->is_csv ? "," : "], \"gates\": [");
    for (size_t k = 0; k < w->shape->n_used; k++)
        PUT(w, "%s%.9g", k > 0 ? between : "", (double)gates[k]);
    PUT(w, "%s", w->is_csv ? "\n" : "]}\n");
}

static void put_all(struct writer *w)
{
    put_head(w);
    for (size_t t = 0; t < mb_trace_n_tokens(w->trace) && !w->is_full; t++) {
        struct mb_trace_token token = mb_trace_token(w->trace, t);
        for (size_t l = 0; l < w->shape->n_layers; l++)
            if (token.experts[l * w->shape->n_used] != MB_TRACE_NONE)
                put_row(w, t, &token, l);
    }
}

enum mb_status mb_trace_save(const struct mb_trace *trace, const char *path, enum mb_trace_format format,
                             struct mb_error *err)
{
    struct writer w = {.trace = trace, .shape = mb_trace_shape(trace), .is_csv = format == MB_TRACE_CSV};
    put_all(&w);
    enum mb_status status =
        w.is_full ? mb_fail_memory(err, "the text of a trace") : mb_write_file(path, w.out.p, w.out.n, err);
    free(w.out.p);
    return status;
}
