/*
 * child.c - a test's work in a process of its own.
 */
#include "child.h"
#include "cmocka_all.h"
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

uint64_t test_hash_in_child(const char *cpu, uint64_t (*fn)(const void *ctx), const void *ctx)
{
    int ends[2], status;
    uint64_t hash = 0;
    assert_int_equal(pipe(ends), 0);
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        setenv("MOEBIUS_CPU", cpu, 1);
        hash = fn(ctx);
        _exit(write(ends[1], &hash, sizeof hash) == (ssize_t)sizeof hash ? 0 : 1);
    }
    close(ends[1]);
    assert_int_equal(read(ends[0], &hash, sizeof hash), sizeof hash);
    close(ends[0]);
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_int_equal(status, 0);
    return hash;
}
