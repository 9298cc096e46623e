/*
 * simulate.h - what "simulate" prints and draws: a row for each policy, memory and link.
 */
#ifndef MOEBIUS_CLI_SIMULATE_H
#define MOEBIUS_CLI_SIMULATE_H

#include <moebius/offload.h>

struct simulate_row {
    const char *policy;
    double share; /* of the experts' bytes that memory holds */
    const char *link;
    uint64_t memory_nbytes;
    struct mb_simulation result;
};

/* A line for each policy: hit rate over memory, of the rows with the first link. trace_path is not replaced.
 */
enum mb_status simulate_chart(const struct simulate_row *rows, size_t n_rows, const char *title,
                              const char *path, const char *trace_path, struct mb_error *err);

#endif
