/*
 * slowed.h - the real program without io_uring, whose reads wait: a filter of system calls (seccomp) tells
 * this process of each pread, and lets it go on after a while.  Works without privileges.
 */
#ifndef TESTS_CLI_SLOWED_H
#define TESTS_CLI_SLOWED_H

#include <stdbool.h>

struct slowed {
    const char *input; /* file that is stdin; NULL: nothing */
    const char *words; /* on stderr, after which 'act' is called once n_reads more have begun; NULL: never */
    unsigned n_reads;
    void (*act)(int pid);
    unsigned delay_us; /* of each read, once the words are there */
};

struct slowed_end {
    int exit_status; /* -signal when one ended it */
    unsigned n_reads;
    double seconds; /* from 'act' to the end; 0: 'act' was not called */
};

/* Whether this kernel, or emulator, can do it. */
bool slowed_works(void);

/*
 * Runs argv in the test's folder, stdout and stderr to stdout.txt and stderr.txt. Fails the test when it has
 * not ended after a minute.
 */
struct slowed_end slowed_run(const char *const *argv, const struct slowed *slowed);

#endif
