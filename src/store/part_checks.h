/*
 * part_checks.h - checks of experts while they are read: a few at a time, as far as each has come.
 *
 * All but mb_part_check_go_on and mb_part_checks_make and _free is called with the lock of the reads
 * (disk_reads.h).
 */
#ifndef MB_STORE_PART_CHECKS_H
#define MB_STORE_PART_CHECKS_H

#include "stored_expert.h"

struct mb_read_request;

/* The check of an expert that is under way. */
struct mb_part_check {
    struct mb_blob_check *check;
    struct mb_read_request *request; /* NULL: it is free */
    uint64_t n_there;                /* bytes that had come when a worker looked at it last */
    bool is_busy;                    /* a worker looks at it, without the lock */
};

enum { MB_PART_CHECKS = 8 }; /* more than experts are under way together */

struct mb_part_checks {
    struct mb_part_check at[MB_PART_CHECKS];
};

enum mb_status mb_part_checks_make(struct mb_part_checks *checks, struct mb_error *err);
void mb_part_checks_free(struct mb_part_checks *checks);

/* For a request of which nothing has been read.  Without one it is checked when all is there: if none is
 * free, and where it is not one blob of several ranges. */
void mb_part_check_take(struct mb_part_checks *checks, struct mb_read_request *request);
void mb_part_check_leave(struct mb_read_request *request);

/* Without the lock, while is_busy: looks at what has come. */
void mb_part_check_go_on(struct mb_part_check *part);

#endif
