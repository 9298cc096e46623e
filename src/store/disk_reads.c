/*
 * disk_reads.c - requests in line, reads under way, and the threads that wait for them and check what came.
 *
 * With io_uring, who adds requests gives their reads to the kernel; one worker at a time waits for reads that
 * are done, and all of them check what has arrived, also of an expert of which more is under way, so that
 * little is left to check when the last range is there.  Without it, workers read. A read that fails or ends
 * early is done again by pread, which either succeeds or says what is wrong.
 *
 * With a link, a read that is done is kept until the link would have ended it too; the link's order is that
 * in which reads begin.
 */
#include "disk_reads.h"
#include "base/clock.h"
#include "base/cpus.h"
#include "base/error.h"
#include "part_checks.h"
#include "uring.h"
#include <stdlib.h>
#include <sys/prctl.h>

enum { WORKERS_MAX = 16, N_READERS_MIN = 4, N_DONE = 64 };
enum { REFUSALS_MAX = 500, PAUSE_NS = 1000000 };
enum { LINK_RATE_MIN = 1000 }; /* keeps the link's clock far from its end */

/*
 * An expert is read in ranges, in order, and few bytes are under way at a time: enough to keep a disk busy,
 * and so few that experts arrive one after another, where all at once would arrive last, and that a guess
 * delays what somebody waits for by no more than a range or two (MB_READ_..., offload.h).
 */

/* A read that the kernel has. */
struct flight {
    struct mb_read_request *request; /* NULL: it is free */
    uint64_t at;                     /* where it begins in its piece */
    uint64_t nbytes, needed_nbytes;  /* that are read; of these, what the expert needs */
    uint64_t begun_ns;               /* while somebody watches time */
    uint64_t due_ns;                 /* the link ends it then; 0: there is none */
    bool has_landed;                 /* the kernel has done it, and left n */
    int64_t n;
};

/* A thread that waits for reads, reads and checks. */
struct worker {
    struct mb_disk_reads *reads;
    uint32_t number;
    pthread_t thread;
};

struct mb_disk_reads {
    struct mb_disk_reads_options options;
    struct mb_uring *uring; /* NULL: workers read */
    int uring_error;
    struct flight flights[MB_READ_FLIGHTS_MAX]; /* their numbers are io_uring's tags */
    size_t n_flights, n_landed;                 /* the latter wait for the link */
    uint64_t flight_nbytes;
    struct mb_part_checks parts;
    bool has_link;
    struct mb_link link;
    pthread_cond_t work; /* for workers */
    struct mb_read_list queue, hints,
        arrived;         /* to be read, to be read when nothing else is, to be checked */
    size_t n_reading;    /* reads under way, by the kernel or by a worker */
    unsigned n_refusals; /* times in a row that the kernel took nothing, while it had nothing */
    bool has_reaper;     /* a worker waits for io_uring */
    bool is_ending;
    struct mb_store_traffic traffic;
    uint64_t busy_since_ns;
    struct worker workers[WORKERS_MAX];
    size_t n_workers;
};

/* ---------------------------------------------------------------- lists */

static void append(struct mb_read_list *list, struct mb_read_request *request)
{
    request->next = NULL;
    if (list->first == NULL)
        list->first = request;
    else
        list->last->next = request;
    list->last = request;
}

static struct mb_read_request *take_first(struct mb_read_list *list)
{
    struct mb_read_request *request = list->first;
    if (request != NULL)
        list->first = request->next;
    return request;
}

/* ---------------------------------------------------------------- reads by the kernel: with the lock */

static void begin_busy(struct mb_disk_reads *reads)
{
    if (reads->n_reading++ == 0)
        reads->busy_since_ns = mb_now_ns();
}

static void end_busy(struct mb_disk_reads *reads)
{
    if (--reads->n_reading == 0)
        reads->traffic.busy_ns += mb_now_ns() - reads->busy_since_ns;
}

/* A read that has ended now; 'place' is its track. */
static void show_read(const struct mb_disk_reads *reads, const struct mb_read_request *request,
                      uint32_t place, uint64_t begun_ns, uint64_t nbytes)
{
    const struct mb_timeline_event event = {.kind = MB_TIMELINE_READ,
                                            .track = place,
                                            .begun_ns = begun_ns,
                                            .ended_ns = mb_now_ns(),
                                            .n = nbytes,
                                            .is_hint = request->is_hint};
    mb_stored_expert_show(&reads->options.timeline, request->expert, event);
}

/* Bytes of the only piece before the first range that has not come. */
static uint64_t n_there(const struct mb_disk_reads *reads, const struct mb_read_request *request)
{
    uint64_t n = request->n_pieces > 0 ? request->expert->pieces[0].read_nbytes : request->piece_nbytes;
    for (size_t i = 0; i < MB_READ_FLIGHTS_MAX; i++)
        if (reads->flights[i].request == request && reads->flights[i].at < n)
            n = reads->flights[i].at;
    return n;
}

static bool is_busy(const struct mb_read_request *request)
{
    return request->part != NULL && request->part->is_busy;
}

/* Once all of it has come and nobody looks at a part, the rest is to be checked. */
static void check_if_whole(struct mb_disk_reads *reads, struct mb_read_request *request)
{
    if (request->n_flights == 0 && request->n_pieces == request->expert->n_pieces && !is_busy(request))
        append(&reads->arrived, request);
}

static void end_flight(struct mb_disk_reads *reads, uint64_t number, int64_t n)
{
    struct flight *flight = &reads->flights[number];
    struct mb_read_request *request = flight->request;
    reads->n_landed -= flight->has_landed;
    if (reads->options.timeline.fn != NULL)
        show_read(reads, request, (uint32_t)number, flight->begun_ns, flight->nbytes);
    if (n < 0 || (uint64_t)n < flight->needed_nbytes)
        request->is_bad = true;
    request->n_flights--;
    flight->request = NULL;
    reads->n_flights--;
    reads->flight_nbytes -= flight->nbytes;
    end_busy(reads);
    check_if_whole(reads, request);
}

/* When a read of so many bytes that begins now ends; 0: when the disk ends it. */
static uint64_t due_ns(struct mb_disk_reads *reads, uint64_t nbytes)
{
    return reads->has_link ? mb_link_read(&reads->link, mb_now_ns(), nbytes) : 0;
}

/* Waits until then, and lets the lock go meanwhile. Nobody waits for what is closed. */
static void wait_until(struct mb_disk_reads *reads, uint64_t ns)
{
    const struct timespec until = {.tv_sec = (time_t)(ns / 1000000000U), .tv_nsec = (long)(ns % 1000000000U)};
    while (!reads->is_ending && mb_now_ns() < ns)
        pthread_cond_timedwait(&reads->work, reads->options.lock, &until);
}

/* The read that the link ends first, if there is one. */
static struct flight *first_due(struct mb_disk_reads *reads)
{
    struct flight *first = NULL;
    for (size_t i = 0; i < MB_READ_FLIGHTS_MAX; i++)
        if (reads->flights[i].request != NULL && (first == NULL || reads->flights[i].due_ns < first->due_ns))
            first = &reads->flights[i];
    return first;
}

/* The kernel has done a read. */
static void land_flight(struct mb_disk_reads *reads, uint64_t number, int64_t n)
{
    reads->flights[number].has_landed = true;
    reads->flights[number].n = n;
    reads->n_landed++;
    if (!reads->has_link)
        end_flight(reads, number, n);
}

/* Ends what has landed, in the link's order, up to what the link has not ended or the kernel has not done. */
static void end_due(struct mb_disk_reads *reads)
{
    struct flight *first = first_due(reads);
    while (first != NULL && first->has_landed && (reads->is_ending || first->due_ns <= mb_now_ns())) {
        end_flight(reads, (uint64_t)(first - reads->flights), first->n);
        first = first_due(reads);
    }
}

static size_t find_flight(const struct mb_disk_reads *reads)
{
    size_t i = 0;
    while (reads->flights[i].request != NULL)
        i++;
    return i;
}

/* Gives the next range of a request to the kernel. false: it does not take it. There is a free flight. */
static bool begin_flight(struct mb_disk_reads *reads, struct mb_read_request *request)
{
    const struct mb_stored_piece *piece = &request->expert->pieces[request->n_pieces];
    uint64_t at = request->piece_nbytes, left = piece->read_nbytes - at;
    uint64_t nbytes = left < MB_READ_RANGE_NBYTES ? left : MB_READ_RANGE_NBYTES;
    uint64_t end = piece->at - piece->read_at + piece->tensor->nbytes; /* the file may end there */
    size_t number = find_flight(reads);
    int fd = mb_reader_fd(reads->options.reader, piece->tensor->shard);
    if (fd < 0 || !mb_uring_read(reads->uring, fd, piece->file_pos + at,
                                 request->memory.bytes + piece->read_at + at, nbytes, number))
        return false;
    if (at == 0 && request->n_pieces == 0)
        mb_part_check_take(&reads->parts, request);
    reads->flights[number] = (struct flight){.request = request,
                                             .at = at,
                                             .nbytes = nbytes,
                                             .needed_nbytes = end - at < nbytes ? end - at : nbytes,
                                             .begun_ns = reads->options.timeline.fn != NULL ? mb_now_ns() : 0,
                                             .due_ns = due_ns(reads, nbytes)};
    reads->n_flights++;
    reads->flight_nbytes += nbytes;
    request->n_flights++;
    request->piece_nbytes += nbytes;
    if (nbytes == left) {
        request->n_pieces++;
        request->piece_nbytes = 0;
    }
    begin_busy(reads);
    return true;
}

/* The next range of the first request in line. What the kernel does not take is read by pread in the end. */
static void begin_first(struct mb_disk_reads *reads, struct mb_read_list *line)
{
    struct mb_read_request *request = line->first;
    if (request->is_bad || !begin_flight(reads, request)) {
        request->is_bad = true;
        request->n_pieces = request->expert->n_pieces;
        if (request->n_flights == 0) {
            check_if_whole(reads, take_first(line));
            return;
        }
    }
    if (request->n_pieces == request->expert->n_pieces)
        take_first(line);
}

static void begin_queued(struct mb_disk_reads *reads)
{
    if (reads->uring == NULL || (reads->queue.first == NULL && reads->hints.first == NULL))
        return;
    while (reads->n_flights < MB_READ_FLIGHTS_MAX && reads->flight_nbytes < MB_READ_DEMAND_NBYTES &&
           reads->queue.first != NULL)
        begin_first(reads, &reads->queue);
    while (reads->n_flights < MB_READ_FLIGHTS_MAX && reads->flight_nbytes < MB_READ_HINT_NBYTES &&
           reads->queue.first == NULL && reads->hints.first != NULL)
        begin_first(reads, &reads->hints);
    mb_uring_submit(reads->uring); /* what it does not take now, the reaper gives to it again */
}

/* ---------------------------------------------------------------- what workers do */

/* Reads by pread. Lets the lock go meanwhile. */
static enum mb_status read_request(const struct worker *worker, const struct mb_read_request *request,
                                   struct mb_error *err)
{
    struct mb_disk_reads *reads = worker->reads;
    const struct mb_disk_reads_options *o = &reads->options;
    uint64_t begun_ns = mb_now_ns(), due = due_ns(reads, request->expert->nbytes);
    begin_busy(reads);
    pthread_mutex_unlock(o->lock);
    enum mb_status status = mb_stored_expert_read(o->ckpt, o->reader, request->expert, &request->memory, err);
    pthread_mutex_lock(o->lock);
    wait_until(reads, due);
    end_busy(reads);
    if (reads->options.timeline.fn != NULL)
        show_read(reads, request, MB_READ_FLIGHTS_MAX + worker->number, begun_ns, request->expert->nbytes);
    return status;
}

static void show_check(const struct worker *worker, const struct mb_read_request *request, uint64_t begun_ns,
                       uint64_t ended_ns, uint64_t nbytes)
{
    struct mb_disk_reads *reads = worker->reads;
    const struct mb_timeline_event event = {.kind = MB_TIMELINE_CHECK,
                                            .track = worker->number,
                                            .begun_ns = begun_ns,
                                            .ended_ns = ended_ns,
                                            .n = nbytes};
    mb_stored_expert_show(&reads->options.timeline, request->expert, event);
}

/* Checks what was read, if it was. Lets the lock go meanwhile. */
static void finish_request(const struct worker *worker, struct mb_read_request *request,
                           enum mb_status status, struct mb_error *err)
{
    struct mb_disk_reads *reads = worker->reads;
    const struct mb_disk_reads_options *o = &reads->options;
    const uint64_t nbytes = request->expert->nbytes - (request->part != NULL ? request->part->n_there : 0);
    pthread_mutex_unlock(o->lock);
    uint64_t begun_ns = mb_now_ns();
    if (status == MB_OK)
        status = mb_stored_expert_check(o->ckpt, request->expert, &request->memory,
                                        request->part != NULL ? request->part->check : NULL, err);
    uint64_t ended_ns = mb_now_ns();
    show_check(worker, request, begun_ns, ended_ns, nbytes);
    pthread_mutex_lock(o->lock);
    mb_part_check_leave(request);
    reads->traffic.checked_ns += ended_ns - begun_ns;
    reads->traffic.n_read++;
    reads->traffic.n_hinted += request->is_hint;
    reads->traffic.read_nbytes += request->expert->nbytes;
    o->done(o->ctx, request, status, err);
}

/* What is read anew is checked anew. */
static enum mb_status read_anew(const struct worker *worker, struct mb_read_request *request,
                                struct mb_error *err)
{
    mb_part_check_leave(request);
    return read_request(worker, request, err);
}

static void finish_arrived(const struct worker *worker)
{
    struct mb_read_request *request = take_first(&worker->reads->arrived);
    struct mb_error err;
    enum mb_status status = request->is_bad ? read_anew(worker, request, &err) : MB_OK;
    finish_request(worker, request, status, &err);
}

/* Of an expert of which more has come than somebody has looked at, and not all; NULL: there is none. */
static struct mb_part_check *find_part(struct mb_disk_reads *reads)
{
    for (size_t i = 0; i < MB_PART_CHECKS; i++) {
        struct mb_part_check *part = &reads->parts.at[i];
        const struct mb_read_request *request = part->request;
        if (request == NULL || part->is_busy || request->is_bad ||
            (request->n_flights == 0 && request->n_pieces == request->expert->n_pieces))
            continue;
        const uint64_t n = n_there(reads, request);
        if (n > part->n_there)
            return part;
    }
    return NULL;
}

/* Lets the lock go meanwhile: the request stays as long as somebody looks at a part of it. */
static void check_part(const struct worker *worker, struct mb_part_check *part)
{
    struct mb_disk_reads *reads = worker->reads;
    struct mb_read_request *request = part->request;
    const uint64_t before = part->n_there;
    part->n_there = n_there(reads, request);
    part->is_busy = true;
    pthread_mutex_unlock(reads->options.lock);
    uint64_t begun_ns = mb_now_ns();
    mb_part_check_go_on(part);
    uint64_t ended_ns = mb_now_ns();
    show_check(worker, request, begun_ns, ended_ns, part->n_there - before);
    pthread_mutex_lock(reads->options.lock);
    reads->traffic.checked_ns += ended_ns - begun_ns;
    part->is_busy = false;
    check_if_whole(reads, request);
    if (reads->uring == NULL)
        pthread_cond_broadcast(&reads->work); /* somebody may wait to read it anew */
}

static void read_queued(const struct worker *worker)
{
    struct mb_disk_reads *reads = worker->reads;
    struct mb_read_request *request = take_first(reads->queue.first != NULL ? &reads->queue : &reads->hints);
    struct mb_error err;
    while (is_busy(request))
        pthread_cond_wait(&reads->work, reads->options.lock);
    enum mb_status status = read_anew(worker, request, &err);
    finish_request(worker, request, status, &err);
}

/* Reads that the kernel has taken and not ended. */
static bool is_kernel_reading(const struct mb_disk_reads *reads)
{
    return reads->n_flights - reads->n_landed > mb_uring_n_waiting(reads->uring);
}

/* The kernel takes no reads any more, and has none: pread does them from now on. */
static void give_up_uring(struct mb_disk_reads *reads)
{
    mb_uring_close(reads->uring);
    reads->uring = NULL;
    reads->traffic.has_left_io_uring = true;
    for (size_t i = 0; i < MB_READ_FLIGHTS_MAX; i++)
        if (reads->flights[i].request != NULL)
            end_flight(reads, i, -1);
}

/* Waits for the kernel, and lets the lock go meanwhile. */
static void wait_for_kernel(struct mb_disk_reads *reads)
{
    struct mb_uring_done done[N_DONE];
    size_t n = 0;
    bool is_waiting = mb_uring_submit(reads->uring) || is_kernel_reading(reads);
    reads->n_refusals = is_waiting ? 0 : reads->n_refusals + 1;
    pthread_mutex_unlock(reads->options.lock);
    if (is_waiting)
        n = mb_uring_wait(reads->uring, done, N_DONE);
    else
        nanosleep(&(struct timespec){.tv_nsec = PAUSE_NS}, NULL); /* the kernel is short of something */
    pthread_mutex_lock(reads->options.lock);
    if (reads->n_refusals == REFUSALS_MAX)
        give_up_uring(reads);
    for (size_t i = 0; i < n; i++)
        land_flight(reads, done[i].tag, done[i].n);
}

/* Waits until the link ends a read. false: the kernel has not done it. */
static bool wait_for_link(struct mb_disk_reads *reads)
{
    const struct flight *first = first_due(reads);
    mb_uring_submit(reads->uring);
    wait_until(reads, first->due_ns);
    return first->has_landed;
}

static void reap(struct mb_disk_reads *reads)
{
    reads->has_reaper = true;
    if (!reads->has_link || !wait_for_link(reads))
        wait_for_kernel(reads);
    reads->has_reaper = false;
    end_due(reads);
    begin_queued(reads);
    pthread_cond_broadcast(&reads->work); /* this worker checks what has arrived, others may wait for more */
}

static void *worker_main(void *ctx)
{
    const struct worker *worker = ctx;
    struct mb_disk_reads *reads = worker->reads;
    struct mb_part_check *part;
    if (reads->has_link)
        (void)prctl(PR_SET_TIMERSLACK, 1UL, 0UL, 0UL, 0UL); /* else a link's reads end 50 us late */
    pthread_mutex_lock(reads->options.lock);
    for (;;) {
        if (reads->arrived.first != NULL)
            finish_arrived(worker);
        else if ((part = find_part(reads)) != NULL)
            check_part(worker, part);
        else if (reads->uring == NULL && !reads->is_ending &&
                 (reads->queue.first != NULL || reads->hints.first != NULL))
            read_queued(worker);
        else if (reads->uring != NULL && reads->n_flights > 0 && !reads->has_reaper)
            reap(reads);
        else if (reads->is_ending)
            break;
        else
            pthread_cond_wait(&reads->work, reads->options.lock);
    }
    pthread_mutex_unlock(reads->options.lock);
    return NULL;
}

/* ---------------------------------------------------------------- requests */

void mb_disk_reads_put_back(struct mb_disk_reads *reads, struct mb_read_request *request,
                            enum mb_read_line line)
{
    append(line == MB_READ_HINT ? &reads->hints : &reads->queue, request);
}

void mb_disk_reads_add(struct mb_disk_reads *reads, struct mb_read_request *request, enum mb_read_line line)
{
    request->is_bad = false;
    request->n_pieces = 0;
    request->piece_nbytes = 0;
    request->part = NULL;
    mb_disk_reads_put_back(reads, request, line);
}

bool mb_disk_reads_has_begun(const struct mb_read_request *request)
{
    return request->n_pieces > 0 || request->piece_nbytes > 0;
}

bool mb_disk_reads_forget(struct mb_read_request *request)
{
    if (request->n_flights > 0 || is_busy(request))
        return false;
    mb_part_check_leave(request);
    return true;
}

void mb_disk_reads_begin(struct mb_disk_reads *reads)
{
    begin_queued(reads);
    pthread_cond_broadcast(&reads->work);
}

struct mb_read_request *mb_disk_reads_take_hints(struct mb_disk_reads *reads)
{
    struct mb_read_request *first = reads->hints.first;
    reads->hints.first = NULL;
    return first;
}

void mb_disk_reads_traffic(const struct mb_disk_reads *reads, struct mb_store_traffic *traffic)
{
    const struct mb_store_traffic *t = &reads->traffic;
    traffic->n_read = t->n_read;
    traffic->read_nbytes = t->read_nbytes;
    traffic->n_hinted = t->n_hinted;
    traffic->checked_ns = t->checked_ns;
    traffic->has_left_io_uring = t->has_left_io_uring;
    traffic->busy_ns = t->busy_ns + (reads->n_reading > 0 ? mb_now_ns() - reads->busy_since_ns : 0);
}

/* ---------------------------------------------------------------- making them */

static enum mb_status start_workers(struct mb_disk_reads *reads, struct mb_error *err)
{
    int n = reads->options.n_threads;
    if (n == 0) {
        struct mb_cpu_share share = mb_cpu_share();
        n = mb_cpu_share_threads(&share);
    }
    n = reads->uring == NULL && n < N_READERS_MIN ? N_READERS_MIN : n;
    n = n < 1 ? 1 : n < WORKERS_MAX ? n : WORKERS_MAX;
    for (; reads->n_workers < (size_t)n; reads->n_workers++) {
        struct worker *worker = &reads->workers[reads->n_workers];
        *worker = (struct worker){.reads = reads, .number = (uint32_t)reads->n_workers};
        if (pthread_create(&worker->thread, NULL, worker_main, worker) != 0)
            return mb_fail(err, MB_NO_MEMORY, "a thread that reads experts cannot be started");
    }
    return MB_OK;
}

/* Waits for it are until a time of mb_now_ns. */
static void init_work(struct mb_disk_reads *reads)
{
    pthread_condattr_t attributes;
    pthread_condattr_init(&attributes);
    pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
    pthread_cond_init(&reads->work, &attributes);
    pthread_condattr_destroy(&attributes);
}

static enum mb_status open_link(struct mb_disk_reads *reads, struct mb_error *err)
{
    const struct mb_link_options *link = reads->options.link;
    reads->has_link = link != NULL;
    if (link == NULL)
        return MB_OK;
    if (link->bytes_per_s < LINK_RATE_MIN)
        return mb_fail(err, MB_USAGE, "a link of less than %d bytes a second", LINK_RATE_MIN);
    return mb_link_init(&reads->link, link, err);
}

enum mb_status mb_disk_reads_open(const struct mb_disk_reads_options *options, struct mb_disk_reads **reads,
                                  struct mb_error *err)
{
    struct mb_disk_reads *made = calloc(1, sizeof *made);
    if (made == NULL)
        return mb_fail_memory(err, "experts");
    made->options = *options;
    init_work(made);
    made->uring = mb_uring_open(MB_READ_FLIGHTS_MAX, &made->uring_error);
    enum mb_status status = open_link(made, err);
    if (status == MB_OK)
        status = mb_part_checks_make(&made->parts, err);
    if (status == MB_OK)
        status = start_workers(made, err);
    if (status != MB_OK) {
        mb_disk_reads_close(made);
        return status;
    }
    *reads = made;
    return MB_OK;
}

void mb_disk_reads_close(struct mb_disk_reads *reads)
{
    if (reads == NULL)
        return;
    pthread_mutex_lock(reads->options.lock);
    reads->is_ending = true;
    pthread_cond_broadcast(&reads->work);
    pthread_mutex_unlock(reads->options.lock);
    for (size_t i = 0; i < reads->n_workers; i++)
        pthread_join(reads->workers[i].thread, NULL);
    mb_uring_close(reads->uring);
    mb_part_checks_free(&reads->parts);
    pthread_cond_destroy(&reads->work);
    free(reads);
}

int mb_disk_reads_uring_error(const struct mb_disk_reads *reads)
{
    return reads->uring != NULL ? 0 : reads->uring_error;
}
