/*
 * form_choice.c - sizes first, then the speed of memory.
 */
#include "form_choice.h"
#include "base/bytes.h"
#include "base/memory.h"
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

/*
 * A smaller model is not measured: it is loaded in less time than that takes, and most of it is in the
 * processor's cache, where fewer operations always pay.
 */
static const uint64_t SMALL_NBYTES = 64 << 20;

/* What the forms need at most, as a multiple of what is stored, so that a model that fits leaves some room.
 */
static const double COMPACT_SIZE = 1.15, FAST_SIZE = 1.35;

struct mb_form_choice mb_choose_form_by_size(const struct mb_form_facts *facts)
{
    const double nbytes = (double)facts->blob_nbytes, available = (double)facts->available_nbytes;
    const bool may_be_fast = FAST_SIZE * nbytes <= available;
    if (!facts->has_faster)
        return (struct mb_form_choice){MB_MEMORY_FORM_STORED, MB_MEMORY_REASON_ONLY, false};
    if (facts->wanted != MB_MEMORY_FORM_AUTO)
        return (struct mb_form_choice){facts->wanted, MB_MEMORY_REASON_WANTED, false};
    if (COMPACT_SIZE * nbytes > available)
        return (struct mb_form_choice){MB_MEMORY_FORM_STORED, MB_MEMORY_REASON_ROOM, false};
    if (facts->blob_nbytes <= SMALL_NBYTES) /* measuring would take more memory than the model */
        return (struct mb_form_choice){may_be_fast ? MB_MEMORY_FORM_FAST : MB_MEMORY_FORM_COMPACT,
                                       MB_MEMORY_REASON_SMALL, may_be_fast};
    return (struct mb_form_choice){MB_MEMORY_FORM_AUTO, MB_MEMORY_REASON_SPEED, may_be_fast};
}

enum mb_memory_form mb_choose_form_by_speed(const struct mb_kernels *kernels, double thread_bytes_per_s,
                                            double weight_bits, bool may_be_fast)
{
    const double rate = thread_bytes_per_s * MB_SPEED_BITS;
    if (rate >= kernels->fast_nbytes_per_s * weight_bits && may_be_fast)
        return MB_MEMORY_FORM_FAST;
    return rate >= kernels->compact_nbytes_per_s * weight_bits ? MB_MEMORY_FORM_COMPACT
                                                               : MB_MEMORY_FORM_STORED;
}

/* ---------------------------------------------------------------- the speed of memory */

enum { PART_NBYTES_MIN = 16 << 20, PART_NBYTES_MAX = 64 << 20, N_PASSES = 5 };

/* A part a task, that is a thread, if none is late. */
struct probe {
    uint8_t *bytes;
    size_t n, part_nbytes;
    double *seconds; /* [n] of the present pass */
    uint64_t *sinks; /* [n] what was read is used */
};

static double thread_seconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static void fill_task(void *ctx, size_t task, int thread)
{
    const struct probe *probe = ctx;
    (void)thread;
    memset(probe->bytes + task * probe->part_nbytes, 1, probe->part_nbytes);
}

static void read_task(void *ctx, size_t task, int thread)
{
    const struct probe *probe = ctx;
    const uint8_t *bytes = probe->bytes + task * probe->part_nbytes;
    uint64_t sum[4] = {0};
    (void)thread;
    double begun = thread_seconds();
    for (size_t i = 0; i < probe->part_nbytes; i += 32) {
        __builtin_prefetch(bytes + i + 2048);
        for (size_t k = 0; k < 4; k++)
            sum[k] += mb_load_u64(bytes + i + 8 * k);
    }
    probe->seconds[task] = thread_seconds() - begun;
    probe->sinks[task] = sum[0] + sum[1] + sum[2] + sum[3];
}

static int compare_doubles(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* All parts together are twice the last cache, so that they are read from memory. */
static size_t part_nbytes_of(size_t n)
{
    long cache_nbytes = 0;
#ifdef _SC_LEVEL3_CACHE_SIZE
    cache_nbytes = sysconf(_SC_LEVEL3_CACHE_SIZE);
#endif
    size_t nbytes = cache_nbytes > 0 ? 2 * (size_t)cache_nbytes / n / 4096 * 4096 : 0;
    return nbytes < PART_NBYTES_MIN ? PART_NBYTES_MIN : nbytes > PART_NBYTES_MAX ? PART_NBYTES_MAX : nbytes;
}

static double measure(struct mb_pool *pool, struct probe *probe)
{
    double rates[N_PASSES];
    mb_pool_run(pool, probe->n, fill_task, probe);
    for (size_t i = 0; i < N_PASSES; i++) {
        double seconds = 1e-9;
        mb_pool_run(pool, probe->n, read_task, probe);
        for (size_t k = 0; k < probe->n; k++)
            seconds += probe->seconds[k];
        rates[i] = (double)(probe->n * probe->part_nbytes) / seconds;
    }
    qsort(rates, N_PASSES, sizeof rates[0], compare_doubles);
    return rates[N_PASSES / 2];
}

double mb_thread_bytes_per_s(struct mb_pool *pool)
{
    struct probe probe = {.n = (size_t)mb_pool_n_threads(pool)};
    probe.part_nbytes = part_nbytes_of(probe.n);
    probe.bytes = mb_pages_alloc(probe.n * probe.part_nbytes);
    probe.seconds = calloc(probe.n, sizeof *probe.seconds);
    probe.sinks = calloc(probe.n, sizeof *probe.sinks);
    bool ok = probe.bytes != NULL && probe.seconds != NULL && probe.sinks != NULL;
    double rate = ok ? measure(pool, &probe) : 0;
    mb_pages_free(probe.bytes, probe.n * probe.part_nbytes);
    free(probe.seconds);
    free(probe.sinks);
    return rate;
}
