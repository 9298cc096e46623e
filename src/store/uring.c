/*
 * uring.c - io_uring by liburing: one queue, read requests alone.
 */
#include "uring.h"
#include <errno.h>
#include <liburing.h>
#include <stdlib.h>

struct mb_uring {
    struct io_uring ring;
};

struct mb_uring *mb_uring_open(unsigned n_max, int *error)
{
    struct mb_uring *uring = malloc(sizeof *uring);
    if (uring == NULL) {
        *error = ENOMEM;
        return NULL;
    }
    int result = io_uring_queue_init(n_max, &uring->ring, 0);
    if (result < 0) {
        *error = -result;
        free(uring);
        return NULL;
    }
    return uring;
}

void mb_uring_close(struct mb_uring *uring)
{
    if (uring == NULL)
        return;
    io_uring_queue_exit(&uring->ring);
    free(uring);
}

bool mb_uring_read(struct mb_uring *uring, int fd, uint64_t pos, void *out, uint64_t nbytes, uint64_t tag)
{
    struct io_uring_sqe *sqe = io_uring_get_sqe(&uring->ring);
    if (sqe == NULL)
        return false;
    io_uring_prep_read(sqe, fd, out, (unsigned)nbytes, pos);
    io_uring_sqe_set_data64(sqe, tag);
    return true;
}

bool mb_uring_submit(struct mb_uring *uring)
{
    if (io_uring_sq_ready(&uring->ring) == 0)
        return true;
    return io_uring_submit(&uring->ring) >= 0 && io_uring_sq_ready(&uring->ring) == 0;
}

size_t mb_uring_n_waiting(const struct mb_uring *uring)
{
    return io_uring_sq_ready(&uring->ring);
}

size_t mb_uring_wait(struct mb_uring *uring, struct mb_uring_done *done, size_t n_max)
{
    struct io_uring_cqe *cqe;
    size_t n = 0;
    if (io_uring_wait_cqe(&uring->ring, &cqe) != 0)
        return 0;
    do {
        done[n++] = (struct mb_uring_done){io_uring_cqe_get_data64(cqe), cqe->res};
        io_uring_cqe_seen(&uring->ring, cqe);
    } while (n < n_max && io_uring_peek_cqe(&uring->ring, &cqe) == 0);
    return n;
}
