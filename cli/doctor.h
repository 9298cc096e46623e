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
    bool is_direct;       /* else through the page cache, which was asked to forget */
    bool has_io_uring;    /* else threads read */
    /* What it takes: to ask for some reads, and for each of them; from when a thread sees that a read is done
     * until it goes on with it; until who waits for it goes on. */
    uint64_t ask_ns, request_ns, arrive_ns, wake_ns;
    uint64_t call_ns;  /* to tell threads that there may be work */
    uint64_t reap_ns;  /* of a processor, that threads take for a read that is done */
    uint64_t timer_ns; /* so late a thread wakes that waits until a time */
};

/* Reads experts by chance for about half a second, as if so much memory held them. Where experts
 * do not lie in files as they are used, all is left at 0. */
enum mb_status doctor_measure_disk(const struct mb_checkpoint *ckpt, int n_threads, uint64_t memory_nbytes,
                                   struct doctor_disk *result, struct mb_error *err);

/* Of coded bytes that are multiplied with one vector; 0: none are coded, or no form is faster. */
struct doctor_rates {
    double stored_bytes_per_s, fast_bytes_per_s;
};

struct doctor_products {
    struct doctor_rates experts;
    struct doctor_rates dense; /* matrices beside experts, embedding and head, one after another */
    double check_bytes_per_s;  /* of a blob, by one thread; 0: none are coded */
    double memory_bytes_per_s; /* plain reads of memory by all threads */
    uint64_t stage_ns;         /* that threads take to begin and end together, with nothing to do */
    uint64_t asleep_ns;        /* that products take longer after all threads have slept */
};

/* n_used: experts that are multiplied together. Takes half a second, with the fast form a second. */
enum mb_status doctor_measure_products(const struct mb_checkpoint *ckpt, int n_threads, size_t n_used,
                                       bool wants_fast, struct doctor_products *result, struct mb_error *err);

#endif
