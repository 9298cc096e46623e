/*
 * disk_reads.h - reads of experts and their checks: by io_uring, or by threads where there is none.
 *
 * Who wants an expert adds a request.  It is done when the expert has been read and checked, or cannot be.
 * One lock guards all: the owner's.  Every function but open and close is called with it, and so is 'done';
 * reads and checks themselves are done without it.
 */
#ifndef MB_STORE_DISK_READS_H
#define MB_STORE_DISK_READS_H

#include "stored_expert.h"
#include <pthread.h>

struct mb_disk_reads;

/* Belongs to the owner, and stays where it is until it is done. */
struct mb_read_request {
    const struct mb_stored_expert *expert;
    struct mb_expert_memory memory;
    bool is_hint; /* nobody waits for it: it is read when nothing else is */
    /* Of the reads alone: */
    struct mb_read_request *next;
    size_t n_reading; /* pieces */
    bool is_bad;      /* a read has failed */
};

/* Requests in order, linked by 'next'. */
struct mb_read_list {
    struct mb_read_request *first, *last;
};

/* 'err' is set where status is not MB_OK. */
typedef void (*mb_read_done_fn)(void *ctx, struct mb_read_request *request, enum mb_status status,
                                const struct mb_error *err);

struct mb_disk_reads_options {
    const struct mb_checkpoint *ckpt;
    const struct mb_reader *reader; /* outlives the reads */
    size_t n_pieces_max;            /* of a request */
    int n_threads;                  /* 0: as many as CPUs and cgroup quotas allow */
    pthread_mutex_t *lock;
    mb_read_done_fn done;
    void *ctx;
    struct mb_timeline timeline;
};

enum mb_status mb_disk_reads_open(const struct mb_disk_reads_options *options, struct mb_disk_reads **reads,
                                  struct mb_error *err);

/* Without the lock. What is under way ends before; requests that have not begun are forgotten. */
void mb_disk_reads_close(struct mb_disk_reads *reads); /* NULL is fine */

/* 0: reads are by io_uring, else the errno of why not. */
int mb_disk_reads_uring_error(const struct mb_disk_reads *reads);

/* Puts a request in line; they begin with mb_disk_reads_begin. */
void mb_disk_reads_add(struct mb_disk_reads *reads, struct mb_read_request *request);
void mb_disk_reads_begin(struct mb_disk_reads *reads);

/* Takes the hints that have not begun out of line; each is added again or forgotten. */
struct mb_read_request *mb_disk_reads_take_hints(struct mb_disk_reads *reads);

/* Its own counters: n_read, read_nbytes, n_hinted, busy_ns, checked_ns. */
void mb_disk_reads_traffic(const struct mb_disk_reads *reads, struct mb_store_traffic *traffic);

#endif
