/*
 * units.h - numbers with units as options take them.
 */
#ifndef MOEBIUS_CLI_UNITS_H
#define MOEBIUS_CLI_UNITS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* "6GiB", "800MB", "3.1G" (as GiB, which llama.cpp and Docker mean by it), "4096". false: no size. */
bool cli_unit_bytes(const char *text, size_t n, uint64_t *nbytes);

/* "80us", "1.5ms", "0.1s", "900ns". */
bool cli_unit_ns(const char *text, size_t n, uint64_t *ns);

#endif
