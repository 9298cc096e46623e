/*
 * coded_reference.h - for tests of limits of memory: the reference model coded into the test's folder, and a
 * program that always uses the same memory.
 */
#ifndef TESTS_MODEL_CODED_REFERENCE_H
#define TESTS_MODEL_CODED_REFERENCE_H

#include "checkpoint/folder.h"
#include <moebius/checkpoint.h>
#include <stdint.h>

/* The linker puts this in place of what the program uses now: it differs from run to run, and with
 * sanitizers. */
uint64_t __wrap_mb_memory_used(void);
uint64_t __wrap_mb_memory_used(void)
{
    return 10 << 20;
}

/* A group's set-up: test_path("coded"). */
static int coded_reference_begin(void **state)
{
    struct mb_compress_options options = {.size = sizeof options};
    struct mb_compress_report report;
    struct mb_error err;
    if (test_folder_begin(state) != 0)
        return -1;
    enum mb_status status =
        mb_compress(MB_REPO "/models/reference", test_path("coded"), &options, &report, &err);
    if (status != MB_OK)
        print_error("%s\n", err.msg);
    return status == MB_OK ? 0 : -1;
}

#endif
