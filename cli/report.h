/*
 * report.h - what the verbs about folders share: parts of a model and counts in words, JSON.
 */
#ifndef MOEBIUS_CLI_REPORT_H
#define MOEBIUS_CLI_REPORT_H

#include <jansson.h>
#include <moebius/checkpoint.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* "experts", "shared experts", ...: a part of the model in words. */
const char *cli_role_name(enum mb_role role);

/* "812", "17.0 M", "1.2 G". */
const char *cli_count(char text[32], uint64_t n);

/* Pretty JSON and a line end to stdout; takes the reference. Returns the exit status: 0, or 4 (no memory). */
int cli_print_json(json_t *object);

/* A real, or null where JSON has no word for it (infinite). */
json_t *cli_json_real(double value);

/* A path, which need not be UTF-8 as JSON has to be: what is not is U+FFFD. NULL: no memory. */
json_t *cli_json_path(const char *path);

/* over / under; 0 when there is nothing to divide by (reports hold no NaN: JSON has none). */
double cli_ratio(double over, double under);

/* Lines about what a model has and nobody uses, on stderr; nothing for "". */
void cli_print_notes(const char *notes);

#endif
