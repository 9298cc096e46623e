/*
 * model_trace.h - a trace of the shape of a model that is open.
 */
#ifndef MOEBIUS_CLI_MODEL_TRACE_H
#define MOEBIUS_CLI_MODEL_TRACE_H

#include <moebius/engine.h>
#include <moebius/offload.h>

/* Empty. MB_UNSUPPORTED: no layer has routed experts. */
enum mb_status cli_model_trace_open(const struct mb_model *model, struct mb_trace **trace,
                                    struct mb_error *err);

/* A file whose name ends in .csv is CSV, another one lines of JSON. */
enum mb_status cli_model_trace_save(const struct mb_trace *trace, const char *path, struct mb_error *err);

#endif
