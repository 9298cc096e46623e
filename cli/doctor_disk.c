/*
 * doctor_disk.c - how fast experts come from the disk: their own bytes, one read at a time and several in
 * flight, past the page cache where the file system can.
 */
#include "base/clock.h"
#include "base/error.h"
#include "base/memory.h"
#include "cli.h"
#include "doctor.h"
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <moebius/offload.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

enum { PAGE = 4096, DEPTH = 8 };
static const uint64_t time_ns = 250000000, total_nbytes_max = UINT64_C(2) << 30;

struct extent {
    const char *path;
    uint64_t pos, nbytes; /* whole pages */
};

struct disk {
    struct extent *extents;
    size_t n;
    uint64_t nbytes_max, ends_ns;
    bool is_direct;
    atomic_ullong cpu_ns; /* of threads that read */
    atomic_ullong next, nbytes;
    atomic_bool has_failed;
    const struct extent *bad; /* that could not be read first; NULL: there was no memory or thread for it */
    int error;                /* why, as errno; 0: the file ends before */
};

static int open_file(const struct disk *disk, const char *path)
{
    return open(path, O_RDONLY | O_CLOEXEC | (disk->is_direct ? O_DIRECT : 0));
}

/* What failed first is kept. */
static void fail(struct disk *disk, const struct extent *bad, int error)
{
    if (atomic_exchange(&disk->has_failed, true))
        return;
    disk->bad = bad;
    disk->error = error;
}

/* Spreads numbers over the extents. */
static const struct extent *extent_of(const struct disk *disk, uint64_t i)
{
    return &disk->extents[(i * UINT64_C(0x9e3779b97f4a7c15) >> 11) % disk->n];
}

static bool read_extent(const struct disk *disk, const struct extent *extent, uint64_t nbytes, void *to)
{
    int fd = open_file(disk, extent->path);
    if (fd < 0)
        return false;
    errno = 0; /* and stays 0 at the end of a file */
    if (!disk->is_direct)
        (void)posix_fadvise(fd, (off_t)extent->pos, (off_t)nbytes, POSIX_FADV_DONTNEED);
    ssize_t n = pread(fd, to, nbytes, (off_t)extent->pos);
    int error = errno;
    close(fd);
    errno = error;
    return n > 0; /* the last page of a file is short */
}

static uint64_t thread_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (uint64_t)t.tv_sec * 1000000000U + (uint64_t)t.tv_nsec;
}

static void *read_some(void *ctx)
{
    struct disk *disk = ctx;
    void *to = NULL;
    if (posix_memalign(&to, PAGE, disk->nbytes_max) != 0) {
        fail(disk, NULL, ENOMEM);
        return NULL;
    }
    uint64_t begun_ns = thread_ns();
    while (!disk->has_failed && mb_now_ns() < disk->ends_ns && disk->nbytes < total_nbytes_max) {
        const struct extent *extent = extent_of(disk, disk->next++);
        if (read_extent(disk, extent, extent->nbytes, to))
            disk->nbytes += extent->nbytes;
        else
            fail(disk, extent, errno);
    }
    disk->cpu_ns += thread_ns() - begun_ns;
    free(to);
    return NULL;
}

/* What 'depth' threads read in a second. 0: they cannot. */
static double rate_of(struct disk *disk, int depth)
{
    pthread_t threads[DEPTH];
    int n = 0;
    uint64_t begun_ns = mb_now_ns();
    disk->has_failed = false;
    disk->nbytes = 0;
    disk->next = 0;
    disk->cpu_ns = 0;
    disk->ends_ns = begun_ns + time_ns;
    while (n < depth && pthread_create(&threads[n], NULL, read_some, disk) == 0)
        n++;
    for (int i = 0; i < n; i++)
        pthread_join(threads[i], NULL);
    if (n < depth)
        fail(disk, NULL, ENOMEM);
    return disk->has_failed ? 0 : (double)disk->nbytes / cli_seconds_since(begun_ns);
}

/* What one read at a time takes longer than its bytes do when several are in flight. */
static void find_latency(struct doctor_disk *result, double alone_bytes_per_s)
{
    double nbytes = (double)result->read_nbytes;
    if (alone_bytes_per_s > 0 && alone_bytes_per_s < result->bytes_per_s)
        result->latency_ns = (uint64_t)(1e9 * (nbytes / alone_bytes_per_s - nbytes / result->bytes_per_s));
    if (alone_bytes_per_s > result->bytes_per_s)
        result->bytes_per_s = alone_bytes_per_s;
}

static void find_extents(const struct mb_checkpoint *ckpt, struct disk *disk)
{
    size_t n = mb_checkpoint_n_tensors(ckpt);
    disk->extents = cli_check_memory(calloc(n, sizeof *disk->extents));
    for (size_t i = 0; i < n; i++) {
        const struct mb_tensor *tensor = mb_checkpoint_tensor(ckpt, i);
        if (mb_role_of(tensor->name).role != MB_ROLE_EXPERT || !mb_tensor_is_mapped(ckpt, tensor) ||
            tensor->nbytes == 0)
            continue;
        struct extent *extent = &disk->extents[disk->n++];
        uint64_t end = tensor->file_pos + tensor->nbytes;
        extent->path = mb_tensor_path(ckpt, tensor);
        extent->pos = tensor->file_pos / PAGE * PAGE;
        extent->nbytes = (end - extent->pos + PAGE - 1) / PAGE * PAGE;
        if (extent->nbytes > MB_READ_RANGE_NBYTES)
            extent->nbytes = MB_READ_RANGE_NBYTES;
        disk->nbytes_max = extent->nbytes > disk->nbytes_max ? extent->nbytes : disk->nbytes_max;
    }
}

static enum mb_status fail_to_read(const struct disk *disk, struct mb_error *err)
{
    if (disk->bad == NULL)
        return mb_fail_memory(err, "a measurement of the disk");
    if (disk->error == 0)
        return mb_fail(err, MB_BAD_DATA, "%s: byte %" PRIu64 ": truncated since it was opened",
                       disk->bad->path, disk->bad->pos);
    errno = disk->error;
    return mb_fail_errno(err, disk->bad->path, "read");
}

enum mb_status doctor_measure_disk(const struct mb_checkpoint *ckpt, struct doctor_disk *result,
                                   struct mb_error *err)
{
    struct disk disk = {.is_direct = true};
    enum mb_status status = MB_OK;
    *result = (struct doctor_disk){.depth = DEPTH};
    find_extents(ckpt, &disk);
    if (disk.n > 0) {
        if (disk.nbytes_max > MB_READ_DEMAND_NBYTES / DEPTH)
            result->depth = MB_READ_DEMAND_NBYTES / (unsigned)disk.nbytes_max;
        result->bytes_per_s = rate_of(&disk, (int)result->depth);
        if (result->bytes_per_s == 0) { /* no O_DIRECT here */
            disk.is_direct = false;
            result->bytes_per_s = rate_of(&disk, (int)result->depth);
        }
        result->request_ns = disk.next > 0 ? disk.cpu_ns / disk.next : 0;
        result->read_nbytes = disk.next > 0 ? disk.nbytes / disk.next : 0;
        if (result->bytes_per_s > 0)
            find_latency(result, rate_of(&disk, 1));
        if (disk.has_failed)
            status = fail_to_read(&disk, err);
        result->is_direct = disk.is_direct;
    }
    free(disk.extents);
    return status;
}
