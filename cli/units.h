/*
 * units.h - numbers with units as options take them.
 */
#ifndef MOEBIUS_CLI_UNITS_H
#define MOEBIUS_CLI_UNITS_H

#include <moebius/offload.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* "6GiB", "800MB", "3.1G" (as GiB, which llama.cpp and Docker mean by it), "4096". false: no size. */
bool cli_unit_bytes(const char *text, size_t n, uint64_t *nbytes);

/* "80us", "1.5ms", "0.1s", "900ns". */
bool cli_unit_ns(const char *text, size_t n, uint64_t *ns);

/* Of a list with commas: the next word and its bytes; *list is the rest then. NULL: there is none. */
const char *cli_next_word(const char **list, size_t *n);

/* "3GB,80us,8": bytes a second, latency, reads in flight; the latter two may be missing. */
enum mb_status cli_link(const char *text, struct mb_link_options *link, struct mb_error *err);

#endif
