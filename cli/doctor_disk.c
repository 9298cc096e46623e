/*
 * doctor_disk.c - how experts come from the disk, measured as the store reads them (src/store/disk_reads.c):
 * their own bytes, past the page cache where the file system can, into large pages, by io_uring, with threads
 * that wait for what arrives.  Without io_uring these threads read.
 */
#include "base/clock.h"
#include "base/error.h"
#include "base/memory.h"
#include "base/pool.h"
#include "cli.h"
#include "doctor.h"
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <liburing.h>
#include <moebius/offload.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <time.h>
#include <unistd.h>

enum { PAGE = 4096, DEPTH = 8, THREADS_MAX = 16, N_READERS_MIN = 4 };
enum {
    WORK_NBYTES = 4 << 20,
    PAUSE_NS = 300000,
    N_BURSTS = 200,
    N_TIMERS = 60,
    FEW = 4,
    N_STAGES = 2,
    N_CALLS = 100,
    CALL_WORK_NBYTES = 256 << 10
};
static const uint64_t rate_ns = 250000000, bursts_ns = 60000000, total_nbytes_max = UINT64_C(2) << 30;
static const uint64_t memory_nbytes_max = UINT64_C(96) << 20; /* more than caches hold */

struct extent {
    const char *path;
    size_t shard;
    uint64_t pos, nbytes; /* whole pages */
};

enum place_state { IDLE, QUEUED, READING };

/* Of a read under way. */
struct place {
    enum place_state state;
    const struct extent *extent;
    uint8_t *memory;
};

struct disk {
    const struct mb_checkpoint *ckpt;
    struct extent *extents;
    size_t n;
    uint64_t nbytes_max;
    bool is_direct;
    int *fds; /* [shards] -1: not open */
    struct io_uring ring;
    bool has_ring;
    uint8_t *memory; /* [n_memory][nbytes_max] that reads go to in turn: caches do not hold all of it */
    size_t n_memory;
    struct mb_pool *pool;
    uint8_t *weights; /* [threads of the pool][WORK_NBYTES] */
    struct place places[DEPTH];
    pthread_mutex_t lock;
    pthread_cond_t work, changed; /* for threads; nothing is under way */
    pthread_t threads[THREADS_MAX];
    size_t n_threads;
    size_t n_under_way;
    bool has_reaper, is_ending, has_failed;
    const struct extent *bad;  /* that could not be read first; NULL: there was no memory or thread for it */
    int error;                 /* why, as errno; 0: the file ends before */
    uint64_t goes_on_until_ns; /* till then a read that is done is followed by another */
    uint64_t next, nbytes;     /* the next extent; bytes that were read */
    uint64_t seen_ns,
        told_ns; /* when a thread saw the last read done; when it has told others to look for work */
};

/* ---------------------------------------------------------------- reading: with the lock */

/* What failed first is kept. */
static void fail(struct disk *disk, const struct extent *bad, int error)
{
    if (disk->has_failed)
        return;
    disk->has_failed = true;
    disk->bad = bad;
    disk->error = error;
}

/* Spreads numbers over the extents. */
static const struct extent *extent_of(const struct disk *disk, uint64_t i)
{
    return &disk->extents[(i * UINT64_C(0x9e3779b97f4a7c15) >> 11) % disk->n];
}

static int fd_of(struct disk *disk, const struct extent *extent)
{
    int *fd = &disk->fds[extent->shard];
    if (*fd < 0)
        *fd = open(extent->path, O_RDONLY | O_CLOEXEC | (disk->is_direct ? O_DIRECT : 0));
    return *fd;
}

static void begin(struct disk *disk, size_t number)
{
    struct place *place = &disk->places[number];
    place->memory = disk->memory + disk->next % disk->n_memory * disk->nbytes_max;
    place->extent = extent_of(disk, disk->next++);
    int fd = fd_of(disk, place->extent);
    struct io_uring_sqe *sqe = disk->has_ring && fd >= 0 ? io_uring_get_sqe(&disk->ring) : NULL;
    if (fd < 0 || (disk->has_ring && sqe == NULL)) {
        fail(disk, place->extent, fd < 0 ? errno : EBUSY);
        return;
    }
    if (!disk->is_direct)
        (void)posix_fadvise(fd, (off_t)place->extent->pos, (off_t)place->extent->nbytes, POSIX_FADV_DONTNEED);
    if (disk->has_ring) {
        io_uring_prep_read(sqe, fd, place->memory, (unsigned)place->extent->nbytes, place->extent->pos);
        io_uring_sqe_set_data64(sqe, number);
    }
    place->state = disk->has_ring ? READING : QUEUED;
    disk->n_under_way++;
}

static void submit(struct disk *disk)
{
    if (disk->has_ring && io_uring_sq_ready(&disk->ring) > 0)
        (void)io_uring_submit(&disk->ring);
    if (disk->has_ring && io_uring_sq_ready(&disk->ring) > 0) { /* the kernel takes no more now */
        fail(disk, disk->extents, EBUSY);
        disk->n_under_way -= io_uring_sq_ready(&disk->ring);
    }
    pthread_cond_broadcast(&disk->work);
}

/* 'n': bytes, or -errno. The last page of a file is short. */
static void end(struct disk *disk, size_t number, int64_t n)
{
    if (n <= 0)
        fail(disk, disk->places[number].extent, (int)-n);
    disk->nbytes += disk->places[number].extent->nbytes;
    disk->places[number].state = IDLE;
    disk->n_under_way--;
    if (!disk->has_failed && disk->seen_ns < disk->goes_on_until_ns && disk->nbytes < total_nbytes_max)
        begin(disk, number);
}

/* ---------------------------------------------------------------- threads */

static size_t find(const struct disk *disk, enum place_state state)
{
    size_t i = 0;
    while (i < DEPTH && disk->places[i].state != state)
        i++;
    return i;
}

static void tell(struct disk *disk)
{
    if (disk->seen_ns < disk->goes_on_until_ns)
        submit(disk);
    else
        pthread_cond_broadcast(&disk->work);
    disk->told_ns = mb_now_ns();
    if (disk->n_under_way == 0)
        pthread_cond_broadcast(&disk->changed);
}

/* Lets the lock go meanwhile. */
static void reap(struct disk *disk)
{
    struct io_uring_cqe *cqe;
    disk->has_reaper = true;
    pthread_mutex_unlock(&disk->lock);
    int failure = io_uring_wait_cqe(&disk->ring, &cqe);
    pthread_mutex_lock(&disk->lock);
    disk->has_reaper = false;
    disk->seen_ns = mb_now_ns();
    if (failure != 0 && failure != -EINTR) {
        fail(disk, disk->extents, -failure);
        disk->n_under_way = 0;
    }
    while (failure == 0) {
        size_t number = (size_t)io_uring_cqe_get_data64(cqe);
        int64_t n = cqe->res;
        io_uring_cqe_seen(&disk->ring, cqe);
        end(disk, number, n);
        failure = io_uring_peek_cqe(&disk->ring, &cqe);
    }
    tell(disk);
}

static void read_queued(struct disk *disk, size_t number)
{
    struct place *place = &disk->places[number];
    int fd = fd_of(disk, place->extent);
    place->state = READING;
    pthread_mutex_unlock(&disk->lock);
    ssize_t n = pread(fd, place->memory, place->extent->nbytes, (off_t)place->extent->pos);
    const int error = errno;
    pthread_mutex_lock(&disk->lock);
    disk->seen_ns = mb_now_ns();
    end(disk, number, n < 0 ? -error : n);
    tell(disk);
}

static void *wait_and_read(void *ctx)
{
    struct disk *disk = ctx;
    pthread_mutex_lock(&disk->lock);
    while (!disk->is_ending) {
        size_t queued = find(disk, QUEUED);
        if (queued < DEPTH)
            read_queued(disk, queued);
        else if (disk->has_ring && disk->n_under_way > 0 && !disk->has_reaper)
            reap(disk);
        else
            pthread_cond_wait(&disk->work, &disk->lock);
    }
    pthread_mutex_unlock(&disk->lock);
    return NULL;
}

static bool start(struct disk *disk, size_t n_threads)
{
    disk->has_ring = io_uring_queue_init(DEPTH, &disk->ring, 0) == 0;
    n_threads = !disk->has_ring && n_threads < N_READERS_MIN ? N_READERS_MIN : n_threads;
    n_threads = n_threads < THREADS_MAX ? n_threads : THREADS_MAX;
    while (disk->n_threads < n_threads &&
           pthread_create(&disk->threads[disk->n_threads], NULL, wait_and_read, disk) == 0)
        disk->n_threads++;
    return disk->n_threads > 0;
}

static void stop(struct disk *disk)
{
    pthread_mutex_lock(&disk->lock);
    disk->is_ending = true;
    pthread_cond_broadcast(&disk->work);
    pthread_mutex_unlock(&disk->lock);
    while (disk->n_threads > 0)
        pthread_join(disk->threads[--disk->n_threads], NULL);
    if (disk->has_ring)
        io_uring_queue_exit(&disk->ring);
}

/* ---------------------------------------------------------------- measuring */

/* What a caller sees of reads that it begins together. */
struct burst {
    uint64_t asked_ns, seen_ns; /* since it began */
    uint64_t told_ns, woken_ns; /* each since the one before */
    uint64_t worked_ns;         /* of processors, that the threads took */
};

/* Bytes that all threads go through. */
struct work {
    const uint8_t *weights;
    uint64_t nbytes; /* a thread */
};

static uint64_t worked_ns(const struct disk *disk)
{
    uint64_t sum = 0;
    for (size_t i = 0; i < disk->n_threads; i++) {
        struct timespec t;
        clockid_t id;
        if (pthread_getcpuclockid(disk->threads[i], &id) == 0 && clock_gettime(id, &t) == 0)
            sum += (uint64_t)t.tv_sec * 1000000000U + (uint64_t)t.tv_nsec;
    }
    return sum;
}

/* As products do: kernel and threads find nothing of theirs in the caches after many of them. */
static void read_weights(void *ctx, size_t task, int thread)
{
    const struct work *work = ctx;
    const uint8_t *bytes = work->weights + task * WORK_NBYTES;
    uint64_t sum = 0;
    (void)thread;
    for (uint64_t i = 0; i < work->nbytes; i += 64)
        sum += *(const volatile uint8_t *)(bytes + i);
    (void)sum;
}

static void work_on(struct disk *disk, uint64_t nbytes)
{
    struct work work = {disk->weights, nbytes < WORK_NBYTES ? nbytes : WORK_NBYTES};
    mb_pool_run(disk->pool, (size_t)mb_pool_n_threads(disk->pool), read_weights, &work);
}

/* Between asking and waiting all threads work on so many bytes. */
static struct burst read_together(struct disk *disk, size_t n, uint64_t work_nbytes)
{
    pthread_mutex_lock(&disk->lock);
    const uint64_t begun_ns = mb_now_ns();
    disk->seen_ns = 0;
    for (size_t i = 0; i < n && !disk->has_failed; i++)
        begin(disk, i);
    submit(disk);
    const uint64_t asked_ns = mb_now_ns();
    pthread_mutex_unlock(&disk->lock);
    for (int i = 0; i < N_STAGES && work_nbytes > 0; i++)
        work_on(disk, work_nbytes / N_STAGES);
    pthread_mutex_lock(&disk->lock);
    while (disk->n_under_way > 0)
        pthread_cond_wait(&disk->changed, &disk->lock);
    const uint64_t now = mb_now_ns(), seen_ns = disk->seen_ns, told_ns = disk->told_ns;
    pthread_mutex_unlock(&disk->lock);
    return (struct burst){asked_ns - begun_ns, seen_ns - begun_ns, told_ns - seen_ns, now - told_ns, 0};
}

static int from_least(const void *a, const void *b)
{
    const uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return (x > y) - (x < y);
}

/* The mean without the largest few: a machine does other things now and then. */
static uint64_t mean_of(uint64_t *values, size_t n)
{
    const size_t n_kept = n - n / 50;
    uint64_t sum = 0;
    qsort(values, n, sizeof *values, from_least);
    for (size_t i = 0; i < n_kept; i++)
        sum += values[i];
    return n_kept > 0 ? sum / n_kept : 0;
}

/* Of many, with work of all threads before each. */
static struct burst measure_bursts(struct disk *disk, size_t n)
{
    enum { N_FIELDS = 4 };
    static uint64_t values[N_FIELDS][N_BURSTS];
    const uint64_t begun_ns = mb_now_ns(), begun_worked_ns = worked_ns(disk);
    size_t n_bursts = 0;
    for (; !disk->has_failed && n_bursts < N_BURSTS && mb_now_ns() - begun_ns < bursts_ns; n_bursts++) {
        work_on(disk, WORK_NBYTES);
        const struct burst burst = read_together(disk, n, disk->nbytes_max);
        values[0][n_bursts] = burst.asked_ns;
        values[1][n_bursts] = burst.seen_ns;
        values[2][n_bursts] = burst.told_ns;
        values[3][n_bursts] = burst.woken_ns;
    }
    return (struct burst){mean_of(values[0], n_bursts), mean_of(values[1], n_bursts),
                          mean_of(values[2], n_bursts), mean_of(values[3], n_bursts),
                          n_bursts > 0 ? (worked_ns(disk) - begun_worked_ns) / n_bursts : 0};
}

/* What it takes to tell threads that there may be work, while they sleep. */
static uint64_t measure_call(struct disk *disk)
{
    static uint64_t values[N_CALLS];
    for (size_t i = 0; i < N_CALLS; i++) {
        work_on(disk, CALL_WORK_NBYTES);
        const uint64_t begun_ns = mb_now_ns();
        pthread_mutex_lock(&disk->lock);
        pthread_cond_broadcast(&disk->work);
        pthread_mutex_unlock(&disk->lock);
        values[i] = mb_now_ns() - begun_ns;
    }
    return mean_of(values, N_CALLS);
}

/* What comes in a second, with 'depth' reads under way. */
static double rate_of(struct disk *disk, size_t depth)
{
    const uint64_t begun_ns = mb_now_ns();
    disk->nbytes = 0;
    disk->goes_on_until_ns = begun_ns + rate_ns;
    (void)read_together(disk, depth, 0);
    disk->goes_on_until_ns = 0;
    return disk->has_failed ? 0 : (double)disk->nbytes / cli_seconds_since(begun_ns);
}

static void measure(struct disk *disk, struct doctor_disk *result)
{
    disk->next = 0;
    result->bytes_per_s = rate_of(disk, result->depth);
    result->read_nbytes = disk->next > 0 ? disk->nbytes / disk->next : 0;
    const struct burst one = measure_bursts(disk, 1), few = measure_bursts(disk, FEW);
    const double wire_ns = 1e9 * (double)result->read_nbytes / result->bytes_per_s;
    if (disk->has_failed)
        return;
    if (one.seen_ns > 0 && (double)one.seen_ns < wire_ns) /* one at a time is faster */
        result->bytes_per_s *= wire_ns / (double)one.seen_ns;
    else
        result->latency_ns = one.seen_ns - (uint64_t)wire_ns;
    result->request_ns = few.asked_ns > one.asked_ns ? (few.asked_ns - one.asked_ns) / (FEW - 1) : 0;
    result->ask_ns = one.asked_ns > result->request_ns ? one.asked_ns - result->request_ns : 0;
    result->call_ns = measure_call(disk);
    result->arrive_ns = one.told_ns;
    result->wake_ns = one.woken_ns;
    result->reap_ns = one.worked_ns;
    result->has_io_uring = disk->has_ring;
}

static void find_extents(struct disk *disk)
{
    const size_t n = mb_checkpoint_n_tensors(disk->ckpt);
    disk->extents = cli_check_memory(calloc(n, sizeof *disk->extents));
    for (size_t i = 0; i < n; i++) {
        const struct mb_tensor *tensor = mb_checkpoint_tensor(disk->ckpt, i);
        if (mb_role_of(tensor->name).role != MB_ROLE_EXPERT || !mb_tensor_is_mapped(disk->ckpt, tensor) ||
            tensor->nbytes == 0)
            continue;
        struct extent *extent = &disk->extents[disk->n++];
        uint64_t end_pos = tensor->file_pos + tensor->nbytes;
        extent->path = mb_tensor_path(disk->ckpt, tensor);
        extent->shard = tensor->shard;
        extent->pos = tensor->file_pos / PAGE * PAGE;
        extent->nbytes = (end_pos - extent->pos + PAGE - 1) / PAGE * PAGE;
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

/* With files opened one way or the other. */
static enum mb_status try_disk(const struct disk *found, bool is_direct, size_t n_threads,
                               struct doctor_disk *result, struct mb_error *err)
{
    const size_t n_shards = mb_checkpoint_n_shards(found->ckpt);
    struct disk disk = *found;
    disk.is_direct = result->is_direct = is_direct;
    disk.fds = cli_check_memory(calloc(n_shards, sizeof *disk.fds));
    disk.memory = cli_check_memory(mb_pages_alloc(disk.n_memory * disk.nbytes_max));
    memset(disk.memory, 1,
           disk.n_memory * disk.nbytes_max); /* what is read into for the first time is slow */
    pthread_mutex_init(&disk.lock, NULL);
    pthread_cond_init(&disk.work, NULL);
    pthread_cond_init(&disk.changed, NULL);
    for (size_t i = 0; i < n_shards; i++)
        disk.fds[i] = -1;
    if (start(&disk, n_threads))
        measure(&disk, result);
    else
        fail(&disk, NULL, ENOMEM);
    stop(&disk);
    for (size_t i = 0; i < n_shards; i++)
        if (disk.fds[i] >= 0)
            close(disk.fds[i]);
    pthread_cond_destroy(&disk.work);
    pthread_cond_destroy(&disk.changed);
    pthread_mutex_destroy(&disk.lock);
    mb_pages_free(disk.memory, disk.n_memory * disk.nbytes_max);
    free(disk.fds);
    return disk.has_failed ? fail_to_read(&disk, err) : MB_OK;
}

/* How late a thread wakes that waits until a time, as reads over a link do. */
static void *wait_for_times(void *ctx)
{
    uint64_t *late_ns = ctx;
    (void)prctl(PR_SET_TIMERSLACK, 1UL, 0UL, 0UL, 0UL); /* as the store's threads */
    for (int i = 0; i < N_TIMERS; i++) {
        const struct timespec pause = {.tv_nsec = PAUSE_NS};
        const uint64_t begun_ns = mb_now_ns();
        nanosleep(&pause, NULL);
        *late_ns += mb_now_ns() - begun_ns - PAUSE_NS;
    }
    *late_ns /= N_TIMERS;
    return NULL;
}

static uint64_t measure_timer(void)
{
    pthread_t thread;
    uint64_t late_ns = 0;
    if (pthread_create(&thread, NULL, wait_for_times, &late_ns) == 0)
        pthread_join(thread, NULL);
    return late_ns;
}

static enum mb_status open_work(struct disk *disk, int n_threads, struct mb_error *err)
{
    MB_TRY(mb_pool_create(n_threads, &disk->pool, err));
    disk->weights = mb_pages_alloc((uint64_t)mb_pool_n_threads(disk->pool) * WORK_NBYTES);
    return disk->weights != NULL ? MB_OK : mb_fail_memory(err, "a measurement of the disk");
}

static enum mb_status measure_found(struct disk *disk, int n_threads, struct doctor_disk *result,
                                    struct mb_error *err)
{
    MB_TRY(open_work(disk, n_threads, err));
    if (try_disk(disk, true, (size_t)n_threads, result, err) == MB_OK)
        return MB_OK;
    return try_disk(disk, false, (size_t)n_threads, result, err); /* no O_DIRECT here */
}

enum mb_status doctor_measure_disk(const struct mb_checkpoint *ckpt, int n_threads, uint64_t memory_nbytes,
                                   struct doctor_disk *result, struct mb_error *err)
{
    struct disk disk = {.ckpt = ckpt};
    enum mb_status status = MB_OK;
    *result = (struct doctor_disk){.depth = DEPTH, .timer_ns = measure_timer()};
    find_extents(&disk);
    if (disk.nbytes_max > MB_READ_DEMAND_NBYTES / DEPTH)
        result->depth = MB_READ_DEMAND_NBYTES / (unsigned)disk.nbytes_max;
    if (disk.nbytes_max > 0)
        disk.n_memory = (size_t)((memory_nbytes < memory_nbytes_max ? memory_nbytes : memory_nbytes_max) /
                                 disk.nbytes_max);
    if (disk.n_memory < DEPTH)
        disk.n_memory = DEPTH;
    if (disk.n > 0)
        status = measure_found(&disk, n_threads, result, err);
    if (disk.pool != NULL)
        mb_pages_free(disk.weights, (uint64_t)mb_pool_n_threads(disk.pool) * WORK_NBYTES);
    mb_pool_destroy(disk.pool);
    free(disk.extents);
    return status;
}
