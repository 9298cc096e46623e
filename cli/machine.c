/*
 * machine.c - the CPU's name, memory in use, and the plain read that products are compared with.
 */
#include "machine.h"
#include "base/clock.h"
#include "base/cpus.h"
#include "commit.h"
#include <moebius/codec.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>

enum { PAGE_NBYTES = 1 << 21 };

const char cli_commit[] = MB_COMMIT;

void cli_cpu_name(char name[128])
{
    char line[256];
    snprintf(name, 128, "unknown");
    FILE *file = fopen("/proc/cpuinfo", "r");
    while (file != NULL && fgets(line, sizeof line, file) != NULL)
        if (sscanf(line, "model name : %127[^\n]", name) == 1)
            break;
    if (file != NULL)
        fclose(file);
}

const char *cli_memory_form_name(enum mb_memory_form form)
{
    static const char *const names[] = {"auto", "stored", "compact", "fast"};
    return names[form];
}

const char *cli_memory_form(char text[CLI_FORM_NBYTES], const struct mb_store_memory *memory)
{
    const char *name = cli_memory_form_name(memory->form);
    switch (memory->form_reason) {
    case MB_MEMORY_REASON_ONLY:
        snprintf(text, CLI_FORM_NBYTES, "%s form (%s has no other)", name, mb_kernels()->isa);
        break;
    case MB_MEMORY_REASON_WANTED:
        snprintf(text, CLI_FORM_NBYTES, "%s form", name);
        break;
    case MB_MEMORY_REASON_SMALL:
        snprintf(text, CLI_FORM_NBYTES, "%s form (the model is small)", name);
        break;
    case MB_MEMORY_REASON_ROOM:
        snprintf(text, CLI_FORM_NBYTES, "%s form (memory has no room for a faster one)", name);
        break;
    case MB_MEMORY_REASON_SPEED:
        snprintf(text, CLI_FORM_NBYTES, "%s form (a thread reads %.1f GB/s)", name,
                 memory->thread_nbytes_per_s * 1e-9);
        break;
    }
    return text;
}

const char *cli_threads(char text[64], int n_threads)
{
    const struct mb_cpu_share share = mb_cpu_share();
    int n = snprintf(text, 64, "%d thread%s", n_threads, n_threads == 1 ? "" : "s");
    if (share.quota > 0 && n_threads >= share.quota)
        snprintf(text + n, 64 - (size_t)n, " (cgroup quota %.3g CPU%s)", share.quota,
                 share.quota == 1 ? "" : "s");
    else if (n_threads > share.n_allowed)
        snprintf(text + n, 64 - (size_t)n, " (on %d CPU%s)", share.n_allowed,
                 share.n_allowed == 1 ? "" : "s");
    return text;
}

struct cli_memory cli_memory_in_use(void)
{
    struct cli_memory memory = {0};
    const struct {
        const char *name;
        uint64_t *nbytes;
    } fields[] = {{"RssAnon:", &memory.anon_nbytes},
                  {"RssFile:", &memory.file_nbytes},
                  {"VmHWM:", &memory.peak_nbytes}};
    char line[256];
    FILE *file = fopen("/proc/self/status", "r");
    while (file != NULL && fgets(line, sizeof line, file) != NULL)
        for (size_t i = 0; i < sizeof fields / sizeof *fields; i++)
            if (strncmp(line, fields[i].name, strlen(fields[i].name)) == 0)
                *fields[i].nbytes = 1024 * strtoull(line + strlen(fields[i].name), NULL, 10); /* "12 kB" */
    if (file != NULL)
        fclose(file);
    return memory;
}

bool cli_map_memory(size_t nbytes, void **map, size_t *map_nbytes, uint8_t **begin)
{
    *map_nbytes = nbytes + PAGE_NBYTES;
    *map = mmap(NULL, *map_nbytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (*map == MAP_FAILED) {
        *map = NULL;
        return false;
    }
    madvise(*map, *map_nbytes, MADV_HUGEPAGE); /* advice: it works without */
    *begin = (uint8_t *)*map + (PAGE_NBYTES - (uintptr_t)*map % PAGE_NBYTES) % PAGE_NBYTES;
    return true;
}

uint64_t cli_read_bytes(const uint8_t *bytes, size_t nbytes)
{
    uint64_t sum[8] = {0};
    for (size_t i = 0; i + 64 <= nbytes; i += 64) {
        __builtin_prefetch(bytes + i + 4096);
        for (size_t k = 0; k < 8; k++) {
            uint64_t v;
            memcpy(&v, bytes + i + 8 * k, sizeof v);
            sum[k] += v;
        }
    }
    return sum[0] + sum[1] + sum[2] + sum[3] + sum[4] + sum[5] + sum[6] + sum[7];
}

/* ---------------------------------------------------------------- reading with several threads */

struct reader {
    pthread_t thread;
    const uint8_t *bytes;
    size_t nbytes;
    uint64_t begun_ns, ended_ns;
    volatile uint64_t sink; /* what was read is used */
};

static void *read_share(void *ctx)
{
    struct reader *reader = ctx;
    reader->begun_ns = mb_now_ns();
    reader->sink = cli_read_bytes(reader->bytes, reader->nbytes);
    reader->ended_ns = mb_now_ns();
    return NULL;
}

/* From the first that began to the last that ended. */
static double seconds_of_all(const struct reader *readers, int n)
{
    uint64_t begun_ns = readers[0].begun_ns, ended_ns = readers[0].ended_ns;
    for (int i = 1; i < n; i++) {
        begun_ns = readers[i].begun_ns < begun_ns ? readers[i].begun_ns : begun_ns;
        ended_ns = readers[i].ended_ns > ended_ns ? readers[i].ended_ns : ended_ns;
    }
    return (double)(ended_ns - begun_ns) * 1e-9;
}

/* The threads need not wait for one another: a share takes milliseconds, starting a thread microseconds. */
double cli_read_rate(const uint8_t *bytes, size_t nbytes, int n_threads)
{
    struct reader *readers = calloc((size_t)n_threads, sizeof *readers);
    size_t share = nbytes / (size_t)n_threads / 64 * 64;
    int n = 0;
    for (; readers != NULL && n < n_threads; n++) {
        readers[n].bytes = bytes + (size_t)n * share;
        readers[n].nbytes = share;
        if (pthread_create(&readers[n].thread, NULL, read_share, &readers[n]) != 0)
            break;
    }
    for (int i = 0; i < n; i++)
        pthread_join(readers[i].thread, NULL);
    double rate = n == n_threads ? (double)share * (double)n_threads / seconds_of_all(readers, n_threads) : 0;
    free(readers);
    return rate;
}

double cli_memory_rate(size_t nbytes, int n_threads)
{
    enum { N_READS = 3 };
    void *map;
    size_t map_nbytes;
    uint8_t *bytes;
    double best = 0;
    if (!cli_map_memory(nbytes, &map, &map_nbytes, &bytes))
        return 0;
    memset(bytes, 1, nbytes);
    for (int i = 0; i < N_READS; i++) {
        double rate = cli_read_rate(bytes, nbytes, n_threads);
        best = rate > best ? rate : best;
    }
    munmap(map, map_nbytes);
    return best;
}
