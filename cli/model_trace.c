/*
 * model_trace.c - which layers of a model a trace has.
 */
#include "model_trace.h"
#include "base/error.h"
#include "cli.h"
#include <stdlib.h>
#include <string.h>

/* Layers with routed experts come in order in the list of matrices. */
enum mb_status cli_model_trace_open(const struct mb_model *model, struct mb_trace **trace,
                                    struct mb_error *err)
{
    size_t n;
    const struct mb_model_info *info = mb_model_info(model);
    const struct mb_model_matrix *matrices = mb_model_matrices(model, &n);
    struct mb_trace_shape shape = {0, info->n_experts, info->n_experts_used};
    uint32_t *layers = cli_check_memory(calloc(info->n_layers, sizeof *layers));
    for (size_t i = 0; i < n; i++)
        if (matrices[i].expert >= 0 &&
            (shape.n_layers == 0 || layers[shape.n_layers - 1] != (uint32_t)matrices[i].layer))
            layers[shape.n_layers++] = (uint32_t)matrices[i].layer;
    enum mb_status status = shape.n_layers == 0
                                ? mb_fail(err, MB_UNSUPPORTED, "the model has no routed experts to trace")
                                : mb_trace_open(&shape, layers, trace, err);
    free(layers);
    return status;
}

static bool is_csv(const char *path)
{
    size_t n = strlen(path);
    return n >= 4 && strcmp(path + n - 4, ".csv") == 0;
}

enum mb_status cli_model_trace_save(const struct mb_trace *trace, const char *path, struct mb_error *err)
{
    return mb_trace_save(trace, path, is_csv(path) ? MB_TRACE_CSV : MB_TRACE_JSONL, err);
}
