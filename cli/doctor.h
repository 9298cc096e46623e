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
    uint64_t latency_ns;  /* of a page, alone */
    uint64_t read_nbytes; /* of an expert's reads, on average */
    unsigned depth;       /* reads in flight */
    bool is_direct;       /* else through the page cache, which was asked to forget */
};

/* Reads experts by chance for about half a second. What cannot be read this way is left at 0. */
enum mb_status doctor_measure_disk(const struct mb_checkpoint *ckpt, struct doctor_disk *result,
                                   struct mb_error *err);

/*
 * Bytes of weights that n_threads multiply per second with one vector: coded experts of the model itself.
 * Plain weights: bytes that they read from memory per second (is_coded false).
 */
enum mb_status doctor_measure_products(const struct mb_checkpoint *ckpt, int n_threads, double *bytes_per_s,
                                       bool *is_coded, struct mb_error *err);

#endif
