/*
 * report.h - what the verbs about folders share: parts of a model by tensor names, counts in words, JSON.
 */
#ifndef MOEBIUS_CLI_REPORT_H
#define MOEBIUS_CLI_REPORT_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* The parts of a model, as its tensors' names tell. */
enum cli_part {
    CLI_PART_EXPERTS, /* routed experts */
    CLI_PART_SHARED,  /* shared experts */
    CLI_PART_LINEAR,  /* other linear matrices: attention, dense layers, lm_head */
    CLI_PART_EMBEDDING,
    CLI_PART_ROUTER,
    CLI_PART_OTHER, /* norms, biases, whatever else */
    CLI_N_PARTS,
};

struct cli_place {
    enum cli_part part;
    int layer;  /* -1: in none */
    int expert; /* -1: no routed expert */
};

/* Never fails: what it does not know is "other". */
struct cli_place cli_place_of(const char *tensor_name);

/* "experts", "shared experts", ... */
const char *cli_part_name(enum cli_part part);

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

#endif
