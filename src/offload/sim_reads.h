/*
 * sim_reads.h - reads of a simulation, as the store makes them: ranges of experts in line, few bytes under
 * way over a link, checks by threads, and guesses when nothing else is read.
 *
 * It has a clock, which mb_sim_reads_advance moves; all that happens to reads until then happens in order.
 */
#ifndef MB_OFFLOAD_SIM_READS_H
#define MB_OFFLOAD_SIM_READS_H

#include <moebius/offload.h>

enum { MB_SIM_LINE_MAX = 2 * MB_TRACE_USED_MAX, MB_SIM_THREADS_MAX = 64 };

/* An expert on its way. */
struct mb_sim_read {
    size_t expert;
    uint64_t left_nbytes; /* that have not been under way */
    bool has_begun;
};

/* In line, in order. */
struct mb_sim_line {
    struct mb_sim_read reads[MB_SIM_LINE_MAX];
    size_t n;
};

struct mb_sim_flight {
    size_t expert;
    uint64_t nbytes, ends_ns;
    bool is_last; /* of its expert */
};

struct mb_sim_check {
    size_t expert, thread;
    uint64_t begun_ns, ends_ns;
    bool is_last; /* with it the expert is checked */
};

/* The expert has been read and checked. */
typedef void (*mb_sim_done_fn)(void *ctx, size_t expert);

struct mb_sim_reads {
    struct mb_link *link; /* NULL: reads take no time */
    uint64_t check_bytes_per_s;
    size_t n_threads;                     /* that check; 0: as many as there are checks */
    uint64_t arrive_ns;                   /* between the end of a read and its check */
    uint64_t ask_ns, request_ns, reap_ns; /* as in mb_simulation_options */
    uint64_t n_requests;                  /* ranges that have begun */
    mb_sim_done_fn done;
    void *ctx;
    uint64_t now_ns;
    struct mb_sim_line demand, hints;
    struct mb_sim_flight flights[MB_READ_FLIGHTS_MAX]; /* in the order of their ends */
    size_t n_flights;
    uint64_t flight_nbytes;
    struct mb_sim_check checks[MB_SIM_LINE_MAX + MB_READ_FLIGHTS_MAX];
    size_t n_checks;
    uint64_t thread_free_ns[MB_SIM_THREADS_MAX];
    uint64_t worked_ns;     /* of threads: for checks that have ended, and for ranges */
    const uint64_t *nbytes; /* of each expert */
};

/* At the present time. A hint is read when nothing else is in line. */
void mb_sim_reads_add(struct mb_sim_reads *reads, size_t expert, bool is_hint);

/* Takes reads as far as the link has room. */
void mb_sim_reads_begin(struct mb_sim_reads *reads);

void mb_sim_reads_advance(struct mb_sim_reads *reads, uint64_t until_ns);

/* When something happens next; UINT64_MAX: nothing will. */
uint64_t mb_sim_reads_next(const struct mb_sim_reads *reads);

/* Nothing is in line, read or checked. */
bool mb_sim_reads_is_over(const struct mb_sim_reads *reads);

/* A range of the expert is under way. */
bool mb_sim_reads_is_flying(const struct mb_sim_reads *reads, size_t expert);

/* What asking for the ranges took that have begun since n_requests was n_before. */
uint64_t mb_sim_reads_asking_ns(const struct mb_sim_reads *reads, uint64_t n_before);

/* That threads have worked until now, all together: for checks, for ranges that are done and for asking. */
uint64_t mb_sim_reads_worked_ns(const struct mb_sim_reads *reads);

#endif
