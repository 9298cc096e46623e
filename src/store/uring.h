/*
 * uring.h - reads that the kernel does while we go on, by io_uring.
 */
#ifndef MB_STORE_URING_H
#define MB_STORE_URING_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct mb_uring;

/* Room for n_max reads at a time.  NULL: the kernel has none or forbids it; *error is the errno. */
struct mb_uring *mb_uring_open(unsigned n_max, int *error);
void mb_uring_close(struct mb_uring *uring); /* NULL is fine; no read may be under way */

/*
 * Puts a read in line; mb_uring_submit gives all that are in line to the kernel, and is false where it could
 * not.  One thread at a time.  false: there is no room.
 */
bool mb_uring_read(struct mb_uring *uring, int fd, uint64_t pos, void *out, uint64_t nbytes, uint64_t tag);
bool mb_uring_submit(struct mb_uring *uring);
size_t mb_uring_n_waiting(const struct mb_uring *uring); /* in line, not given to the kernel */

struct mb_uring_done {
    uint64_t tag;
    int64_t n; /* bytes read; negative: an errno */
};

/* Waits for at least one read, and says which n are done; 0: interrupted.  One thread at a time, which need
 * not be the one that submits. */
size_t mb_uring_wait(struct mb_uring *uring, struct mb_uring_done *done, size_t n_max);

#endif
