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

static uint64_t check_ns(const struct mb_sim_reads *reads, size_t expert)
{
    if (reads->check_bytes_per_s == 0)
        return 0;
    return (uint64_t)((double)reads->nbytes[expert] * 1e9 / (double)reads->check_bytes_per_s);
}

/* By the thread that is free first. */
static void begin_check(struct mb_sim_reads *reads, size_t expert)
{
    size_t n = reads->n_threads < MB_SIM_THREADS_MAX ? reads->n_threads : MB_SIM_THREADS_MAX, first = 0;
    struct mb_sim_check *check = &reads->checks[reads->n_checks++];
    for (size_t i = 1; i < n; i++)
        if (reads->thread_free_ns[i] < reads->thread_free_ns[first])
            first = i;
    check->expert = expert;
    check->begun_ns = reads->now_ns + reads->wake_ns;
    if (n > 0)
        check->begun_ns = mb_max_u64(check->begun_ns, reads->thread_free_ns[first]);
    check->ends_ns = check->begun_ns + check_ns(reads, expert);
    reads->thread_free_ns[first] = check->ends_ns;
}

static void end_checks(struct mb_sim_reads *reads)
{
    for (size_t i = 0; i < reads->n_checks;) {
        const struct mb_sim_check check = reads->checks[i];
        if (check.ends_ns > reads->now_ns) {
            i++;
            continue;
        }
        reads->checked_ns += check.ends_ns - check.begun_ns;
        reads->n_checks--;
        memmove(&reads->checks[i], &reads->checks[i + 1], (reads->n_checks - i) * sizeof *reads->checks);
        reads->done(reads->ctx, check.expert);
    }
}

uint64_t mb_sim_reads_checked_ns(const struct mb_sim_reads *reads)
{
    uint64_t sum = reads->checked_ns;
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

void mb_sim_reads_add(struct mb_sim_reads *reads, size_t expert, bool is_hint)
{
    struct mb_sim_line *line = is_hint ? &reads->hints : &reads->demand;
    if (reads->link == NULL)
        begin_check(reads, expert);
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

static void end_flights(struct mb_sim_reads *reads)
{
    size_t n = 0;
    for (; n < reads->n_flights && reads->flights[n].ends_ns <= reads->now_ns; n++) {
        reads->flight_nbytes -= reads->flights[n].nbytes;
        if (reads->flights[n].is_last)
            begin_check(reads, reads->flights[n].expert);
    }
    reads->n_flights -= n;
    memmove(reads->flights, reads->flights + n, reads->n_flights * sizeof *reads->flights);
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
        mb_sim_reads_begin(reads);
    }
    reads->now_ns = mb_max_u64(until_ns, reads->now_ns);
}
