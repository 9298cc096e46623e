/*
 * sim_reads.c - what the store does with reads (src/store/disk_reads.c), by a clock of its own.
 */
#include "sim_reads.h"
#include "base/max.h"
#include <string.h>

/* As in the store. */

static uint64_t min_u64(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

/* ---------------------------------------------------------------- checks */

static uint64_t check_ns(const struct mb_sim_reads *reads, uint64_t nbytes)
{
    if (reads->check_bytes_per_s == 0)
        return 0;
    return (uint64_t)((double)nbytes * 1e9 / (double)reads->check_bytes_per_s);
}

/* Of an expert of which some ranges are being checked; else a new one, by the thread that is free first. */
static struct mb_sim_check *find_check(struct mb_sim_reads *reads, size_t expert)
{
    const size_t n = reads->n_threads < MB_SIM_THREADS_MAX ? reads->n_threads : MB_SIM_THREADS_MAX;
    for (size_t i = 0; i < reads->n_checks; i++)
        if (reads->checks[i].expert == expert)
            return &reads->checks[i];
    struct mb_sim_check *check = &reads->checks[reads->n_checks++];
    *check = (struct mb_sim_check){.expert = expert, .begun_ns = reads->now_ns};
    for (size_t i = 1; i < n; i++)
        if (reads->thread_free_ns[i] < reads->thread_free_ns[check->thread])
            check->thread = i;
    if (n > 0)
        check->begun_ns = mb_max_u64(check->begun_ns, reads->thread_free_ns[check->thread]);
    check->ends_ns = check->begun_ns;
    return check;
}

/*
 * Bytes that have come are checked after those before them, and so much later than a thread could; the last
 * ones end the expert.
 */
static void begin_check(struct mb_sim_reads *reads, size_t expert, uint64_t nbytes, bool is_last,
                        uint64_t later_ns)
{
    struct mb_sim_check *check = find_check(reads, expert);
    const uint64_t from_ns = reads->now_ns + reads->arrive_ns + later_ns;
    if (check->ends_ns == check->begun_ns) /* nothing of it is checked yet */
        check->begun_ns = check->ends_ns = mb_max_u64(check->begun_ns, from_ns);
    check->ends_ns = mb_max_u64(check->ends_ns, from_ns) + check_ns(reads, nbytes);
    check->is_last = is_last;
    reads->thread_free_ns[check->thread] = check->ends_ns;
}

static void end_checks(struct mb_sim_reads *reads)
{
    for (size_t i = 0; i < reads->n_checks;) {
        const struct mb_sim_check check = reads->checks[i];
        if (check.ends_ns > reads->now_ns) {
            i++;
            continue;
        }
        reads->worked_ns += check.ends_ns - check.begun_ns;
        reads->n_checks--;
        memmove(&reads->checks[i], &reads->checks[i + 1], (reads->n_checks - i) * sizeof *reads->checks);
        if (check.is_last)
            reads->done(reads->ctx, check.expert);
    }
}

uint64_t mb_sim_reads_worked_ns(const struct mb_sim_reads *reads)
{
    uint64_t sum = reads->worked_ns;
    for (size_t i = 0; i < reads->n_checks; i++) {
        const struct mb_sim_check *check = &reads->checks[i];
        sum += mb_max_u64(min_u64(check->ends_ns, reads->now_ns), check->begun_ns) - check->begun_ns;
    }
    return sum;
}

/* ---------------------------------------------------------------- reads */

static void take_first(struct mb_sim_line *line)
{
    line->n--;
    memmove(line->reads, line->reads + 1, line->n * sizeof *line->reads);
}

/* The next range of the first in line. Its end comes after those of all others. */
static void begin_range(struct mb_sim_reads *reads, struct mb_sim_line *line)
{
    struct mb_sim_read *read = &line->reads[0];
    const uint64_t nbytes = min_u64(read->left_nbytes, MB_READ_RANGE_NBYTES);
    read->left_nbytes -= nbytes;
    read->has_begun = true;
    reads->n_requests++;
    reads->flights[reads->n_flights++] = (struct mb_sim_flight){
        read->expert, nbytes, mb_link_read(reads->link, reads->now_ns, nbytes), read->left_nbytes == 0};
    reads->flight_nbytes += nbytes;
    if (read->left_nbytes == 0)
        take_first(line);
}

void mb_sim_reads_begin(struct mb_sim_reads *reads)
{
    while (reads->n_flights < MB_READ_FLIGHTS_MAX && reads->flight_nbytes < MB_READ_DEMAND_NBYTES &&
           reads->demand.n > 0)
        begin_range(reads, &reads->demand);
    while (reads->n_flights < MB_READ_FLIGHTS_MAX && reads->flight_nbytes < MB_READ_HINT_NBYTES &&
           reads->demand.n == 0 && reads->hints.n > 0)
        begin_range(reads, &reads->hints);
}

uint64_t mb_sim_reads_asking_ns(const struct mb_sim_reads *reads, uint64_t n_before)
{
    const uint64_t n = reads->n_requests - n_before;
    return n > 0 ? reads->ask_ns + n * reads->request_ns : 0;
}

/* Returns what it takes. */
static uint64_t begin_by_thread(struct mb_sim_reads *reads)
{
    const uint64_t n_before = reads->n_requests;
    mb_sim_reads_begin(reads);
    const uint64_t asked_ns = mb_sim_reads_asking_ns(reads, n_before);
    reads->worked_ns += asked_ns;
    return asked_ns;
}

void mb_sim_reads_add(struct mb_sim_reads *reads, size_t expert, bool is_hint)
{
    struct mb_sim_line *line = is_hint ? &reads->hints : &reads->demand;
    if (reads->link == NULL)
        begin_check(reads, expert, reads->nbytes[expert], true, 0);
    else
        line->reads[line->n++] = (struct mb_sim_read){.expert = expert, .left_nbytes = reads->nbytes[expert]};
}

bool mb_sim_reads_is_flying(const struct mb_sim_reads *reads, size_t expert)
{
    for (size_t i = 0; i < reads->n_flights; i++)
        if (reads->flights[i].expert == expert)
            return true;
    return false;
}

/* A thread that finds reads done asks for the next ranges, then checks what has arrived. */
static void end_flights(struct mb_sim_reads *reads)
{
    struct mb_sim_flight ended[MB_READ_FLIGHTS_MAX];
    size_t n = 0;
    for (; n < reads->n_flights && reads->flights[n].ends_ns <= reads->now_ns; n++) {
        ended[n] = reads->flights[n];
        reads->flight_nbytes -= ended[n].nbytes;
        reads->worked_ns += reads->reap_ns;
    }
    reads->n_flights -= n;
    memmove(reads->flights, reads->flights + n, reads->n_flights * sizeof *reads->flights);
    const uint64_t asked_ns = begin_by_thread(reads);
    for (size_t i = 0; i < n; i++)
        begin_check(reads, ended[i].expert, ended[i].nbytes, ended[i].is_last, asked_ns);
}

bool mb_sim_reads_is_over(const struct mb_sim_reads *reads)
{
    return reads->n_flights + reads->n_checks + reads->demand.n + reads->hints.n == 0;
}

uint64_t mb_sim_reads_next(const struct mb_sim_reads *reads)
{
    uint64_t next = reads->n_flights > 0 ? reads->flights[0].ends_ns : UINT64_MAX;
    for (size_t i = 0; i < reads->n_checks; i++)
        next = min_u64(next, reads->checks[i].ends_ns);
    return next;
}

void mb_sim_reads_advance(struct mb_sim_reads *reads, uint64_t until_ns)
{
    for (uint64_t next; (next = mb_sim_reads_next(reads)) <= until_ns && next != UINT64_MAX;) {
        reads->now_ns = mb_max_u64(next, reads->now_ns);
        end_flights(reads);
        end_checks(reads);
        (void)begin_by_thread(reads);
    }
    reads->now_ns = mb_max_u64(until_ns, reads->now_ns);
}
