/*
 * trace_json.c - lines of a trace in JSONL.
 */
#include "base/error.h"
#include "base/json.h"
#include "base/memory.h"
#include "trace_row.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>

static enum mb_status read_number(const json_t *json, const char *key, uint64_t max, uint64_t *value,
                                  struct mb_error *err)
{
    const json_t *number = json_object_get(json, key);
    if (!json_is_integer(number) || json_integer_value(number) < 0 ||
        (uint64_t)json_integer_value(number) > max)
        return mb_fail(err, MB_BAD_DATA, "\"%s\" has to be a number from 0 to %" PRIu64, key, max);
    *value = (uint64_t)json_integer_value(number);
    return MB_OK;
}

static enum mb_status read_layers(const json_t *json, uint32_t *layers, struct mb_error *err)
{
    for (size_t l = 0; l < json_array_size(json); l++) {
        const json_t *layer = json_array_get(json, l);
        json_int_t number = json_integer_value(layer);
        if (!json_is_integer(layer) || number < 0 || number > UINT32_MAX)
            return mb_fail(err, MB_BAD_DATA, "\"layers\" has something that is no layer");
        layers[l] = (uint32_t)number;
    }
    return MB_OK;
}

static enum mb_status read_head(const json_t *json, struct mb_trace **trace, struct mb_error *err)
{
    uint64_t version, n_experts, n_used;
    const json_t *list = json_object_get(json, "layers");
    if (json_object_get(json, "moebius_trace") == NULL || !json_is_array(list))
        return mb_fail(err, MB_BAD_DATA, "not a trace of routing; 'moebius trace' writes one");
    MB_TRY(read_number(json, "moebius_trace", UINT32_MAX, &version, err));
    if (version != MB_TRACE_VERSION)
        return mb_fail(err, MB_UNSUPPORTED, "a trace of version %" PRIu64 "; this program reads version %d",
                       version, MB_TRACE_VERSION);
    MB_TRY(read_number(json, "n_experts", MB_TRACE_NONE - 1, &n_experts, err));
    MB_TRY(read_number(json, "n_experts_used", MB_TRACE_USED_MAX, &n_used, err));
    struct mb_trace_shape shape = {json_array_size(list), (size_t)n_experts, (size_t)n_used};
    uint32_t *layers = mb_alloc(shape.n_layers, sizeof *layers);
    if (layers == NULL)
        return mb_fail_memory(err, "a trace");
    enum mb_status status = read_layers(list, layers, err);
    if (status == MB_OK)
        status = mb_trace_open(&shape, layers, trace, err);
    free(layers);
    return status == MB_USAGE ? MB_BAD_DATA : status;
}

enum mb_status mb_trace_json_head(const char *line, size_t n, struct mb_trace **trace, struct mb_error *err)
{
    json_t *json;
    MB_TRY(mb_json_parse(line, n, 0, &json, err));
    enum mb_status status = read_head(json, trace, err);
    json_decref(json);
    return status;
}

/* ---------------------------------------------------------------- rows */

static enum mb_status read_uses(const json_t *experts, const json_t *gates, struct mb_trace_row *row,
                                struct mb_error *err)
{
    row->n = json_array_size(experts);
    if (!json_is_array(experts) || row->n > MB_TRACE_USED_MAX || json_array_size(gates) != row->n)
        return mb_fail(err, MB_BAD_DATA, "\"experts\" and \"gates\" have to be lists of one length");
    for (size_t k = 0; k < row->n; k++) {
        const json_t *expert = json_array_get(experts, k), *gate = json_array_get(gates, k);
        double value = json_number_value(gate);
        if (!json_is_integer(expert) || json_integer_value(expert) < 0 ||
            json_integer_value(expert) > INT32_MAX)
            return mb_fail(err, MB_BAD_DATA, "experts[%zu] is no expert", k);
        if (!json_is_number(gate) || !(fabs(value) < 1e30))
            return mb_fail(err, MB_BAD_DATA, "gates[%zu] is no weight", k);
        row->experts[k] = (int32_t)json_integer_value(expert);
        row->gates[k] = (float)value;
    }
    return MB_OK;
}

static enum mb_status read_row(const json_t *json, struct mb_trace_row *row, struct mb_error *err)
{
    const char *kind = json_string_value(json_object_get(json, "kind"));
    MB_TRY(read_number(json, "sequence", UINT32_MAX, &row->sequence, err));
    MB_TRY(read_number(json, "token", MB_TRACE_TOKENS_MAX, &row->token, err));
    MB_TRY(read_number(json, "layer", UINT32_MAX, &row->layer, err));
    if (kind == NULL || (strcmp(kind, "prompt") != 0 && strcmp(kind, "generated") != 0))
        return mb_fail(err, MB_BAD_DATA, "\"kind\" has to be \"prompt\" or \"generated\"");
    row->is_generated = strcmp(kind, "generated") == 0;
    return read_uses(json_object_get(json, "experts"), json_object_get(json, "gates"), row, err);
}

enum mb_status mb_trace_json_row(const char *line, size_t n, struct mb_trace_row *row, struct mb_error *err)
{
    json_t *json;
    MB_TRY(mb_json_parse(line, n, 0, &json, err));
    enum mb_status status = read_row(json, row, err);
    json_decref(json);
    return status;
}
