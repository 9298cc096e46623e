/*
 * bench_routing.h - the option --routing of "bench": experts by a trace, not by the model's routers.
 */
#ifndef MOEBIUS_CLI_BENCH_ROUTING_H
#define MOEBIUS_CLI_BENCH_ROUTING_H

#include "cli.h"
#include <moebius/engine.h>

struct bench_routing;

/*
 * Imposes a routing on the model until the next two functions are called: 'text' is a file of traces, or the
 * words of 'simulate --random' without the model's shape (they have a "=").  Of the guesses of looking ahead
 * 'right' (0 to 1) are right.  text NULL: nothing happens, and *routing is NULL.
 */
enum mb_status bench_routing_open(const char *text, double right, struct mb_model *model,
                                  struct bench_routing **routing, struct mb_error *err);
void bench_routing_close(struct bench_routing *routing); /* after the model; NULL is fine */

/* One line on stderr: what is imposed, and that results are no model's. NULL is fine. */
void bench_routing_print(const struct bench_routing *routing);

#endif
