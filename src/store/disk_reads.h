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
#include <moebius/offload.h>
#include <pthread.h>

struct mb_disk_reads;
struct mb_part_check;

/* Belongs to the owner, and stays where it is until it is done. */
struct mb_read_request {
    const struct mb_stored_expert *expert;
    struct mb_expert_memory memory;
    bool is_hint; /* it was added for a guess: counts and the timeline say so */
    /* Of the reads alone: */
    struct mb_read_request *next;
    size_t n_pieces;            /* that the kernel has been given, all of them */
    uint64_t piece_nbytes;      /* of the next one that it has been given */
    size_t n_flights;           /* reads that it has not done yet */
    bool is_bad;                /* a read has failed: the others need not begin */
    struct mb_part_check *part; /* of what has come of it; NULL: it is checked when all is there */
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
    const struct mb_reader *reader;     /* outlives the reads */
    int n_threads;                      /* 0: as many as CPUs and cgroup quotas allow */
    const struct mb_link_options *link; /* reads end no earlier than over it; NULL: as the disk ends them */
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

/* In line for what somebody waits for, or for what is read when nothing else is. */
enum mb_read_line { MB_READ_DEMAND, MB_READ_HINT };

/* Puts a request in line; they begin with mb_disk_reads_begin. */
void mb_disk_reads_add(struct mb_disk_reads *reads, struct mb_read_request *request, enum mb_read_line line);
void mb_disk_reads_begin(struct mb_disk_reads *reads);

/*
 * Takes all out of the line for hints; each is put back in a line, from where it goes on, or forgotten.
 * mb_disk_reads_forget is false, and forgets nothing, while a part of it is read or looked at.
 */
struct mb_read_request *mb_disk_reads_take_hints(struct mb_disk_reads *reads);
void mb_disk_reads_put_back(struct mb_disk_reads *reads, struct mb_read_request *request,
                            enum mb_read_line line);
bool mb_disk_reads_has_begun(const struct mb_read_request *request);
bool mb_disk_reads_forget(struct mb_read_request *request);

/* Its own counters: n_read, read_nbytes, n_hinted, busy_ns, checked_ns, has_left_io_uring. */
void mb_disk_reads_traffic(const struct mb_disk_reads *reads, struct mb_store_traffic *traffic);

#endif
