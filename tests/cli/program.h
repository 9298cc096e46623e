/*
 * program.h - the real program run as a user runs it: exit status, stdout and stderr.
 */
#ifndef TESTS_CLI_PROGRAM_H
#define TESTS_CLI_PROGRAM_H

#include <jansson.h>
#include <sys/types.h>

struct ran {
    int exit_status;                 /* -signal when one ended it */
    char out[1 << 20], err[1 << 16]; /* terminated */
};

/*
 * Runs "moebius ARGUMENTS" by the shell inside the test's folder; 'before' goes in front of it ("VAR=x", or
 * commands that end in ";").  The result is valid until the next call.
 */
const struct ran *run_after(const char *before, const char *format, ...)
    __attribute__((format(printf, 2, 3)));
const struct ran *run(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* Fails unless it ended with 0; returns what it printed. */
const char *run_well(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* Fails unless it ended with this status, one line on stderr that has these words, and nothing on stdout. */
void assert_fails(const struct ran *ran, int exit_status, const char *words);

/* What it printed as JSON: a new reference. */
json_t *run_json(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* Starts it without waiting, inside the test's folder, all output dropped but stderr into "stderr.txt". */
pid_t start(const char *const *argv);

#endif
