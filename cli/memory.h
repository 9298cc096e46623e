/*
 * memory.h - the option --memory, which mode a model runs in, and what streaming cost.
 */
#ifndef MOEBIUS_CLI_MEMORY_H
#define MOEBIUS_CLI_MEMORY_H

#include "cli.h"
#include <moebius/engine.h>

#define CLI_ROW_MEMORY(value)                                                                        \
    CLI_ROW_TEXT(0, "memory", "SIZE", value,                                                         \
                 "use no more memory than that, all in all, such as 6GiB: experts that do not fit\n" \
                 "are streamed from disk (default: what is available)")
#define CLI_MEMORY_WORDS "--memory is a size such as 6GiB, 800MiB or 6.5GB"

/* NULL is 0: no limit is given. false: no size. */
bool cli_memory(const char *text, uint64_t *nbytes);

/* One line on stderr that says whether experts are streamed, and why. is_asked: also where they are not. */
void cli_print_mode(const struct mb_model_info *info, bool is_asked);

/* One line on stderr, once, if reads have changed since then: before the model is closed. NULL is fine. */
void cli_print_reads(const struct mb_model *model);

/* A pass ends early once the program is interrupted. */
void cli_stop_at_interrupts(struct mb_model *model);

struct mb_store_traffic cli_traffic_since(const struct mb_store_traffic *now,
                                          const struct mb_store_traffic *before);

/* "hits 61.2 %, 34.1 MB read a token, 41 % of the time waiting, disk busy 93 %": of n_tokens in 'seconds'. */
enum { CLI_TRAFFIC_NBYTES = 160 };
const char *cli_traffic(char text[CLI_TRAFFIC_NBYTES], const struct mb_store_traffic *traffic,
                        size_t n_tokens, double seconds);

#endif
