/*
 * doctor.h - what "doctor" measures of this machine with a model's own files.
 */
#ifndef MOEBIUS_CLI_DOCTOR_H
#define MOEBIUS_CLI_DOCTOR_H

#include <moebius/checkpoint.h>
#include <stdbool.h>
#include <stdint.h>

struct doctor_disk {
    double bytes_per_s;   /* 0: not measured */
    uint64_t latency_ns;  /* what a read alone takes longer than its bytes at that rate */
    uint64_t read_nbytes; /* of an expert's reads, on average */
    unsigned depth;       /* reads in flight */
    uint64_t request_ns;  /* of a processor, that a read takes */
    bool is_direct;       /* else through the page cache, which was asked to forget */
};

/* Reads experts by chance for about half a second. Where experts do not lie in files as they are used, all is
 * left at 0. */
enum mb_status doctor_measure_disk(const struct mb_checkpoint *ckpt, struct doctor_disk *result,
                                   struct mb_error *err);

struct doctor_products {
    double bytes_per_s;        /* coded experts multiplied with one vector; 0: none are coded */
    double check_bytes_per_s;  /* of a blob, by one thread; 0: none are coded */
    double memory_bytes_per_s; /* plain reads of memory by all threads */
    uint64_t stage_ns;         /* that threads take to begin and end together, with nothing to do */
    uint64_t wake_ns;          /* until a thread that waits runs again */
};

/* n_used: experts that are multiplied together. Takes about half a second. */
enum mb_status doctor_measure_products(const struct mb_checkpoint *ckpt, int n_threads, size_t n_used,
                                       struct doctor_products *result, struct mb_error *err);

#endif
