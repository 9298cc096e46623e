/*
 * machine.h - what verbs report about this machine and process: CPU, memory in use, how fast memory is read.
 */
#ifndef MOEBIUS_CLI_MACHINE_H
#define MOEBIUS_CLI_MACHINE_H

#include <moebius/weights.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

extern const char cli_commit[]; /* of the sources, with "-dirty" when they differ; "unknown" */

void cli_cpu_name(char name[128]);

/* "2 threads", and what lets them run no faster: "2 threads (cgroup quota 1.5 CPUs)". */
const char *cli_threads(char text[64], int n_threads);

/* The form that coded weights have in memory, and why: "fast form (the model is small)". */
enum { CLI_FORM_NBYTES = 96 };
const char *cli_memory_form(char text[CLI_FORM_NBYTES], const struct mb_store_memory *memory);
/* "stored", "compact" or "fast", as --memory-form takes them. */
const char *cli_memory_form_name(enum mb_memory_form form);

/* Of this process, as the kernel counts pages. */
struct cli_memory {
    uint64_t anon_nbytes, file_nbytes; /* in memory now */
    uint64_t peak_nbytes;              /* both, at most so far */
};
struct cli_memory cli_memory_in_use(void);

/*
 * Anonymous memory in 2 MiB pages where the kernel gives them, as the engine holds weights: 4 KiB pages would
 * lie in a cache by chance.  Memory for munmap(*map, *map_nbytes); *begin is the first byte on a border of
 * such pages, and nbytes from there on are usable.  false: no memory.
 */
bool cli_map_memory(size_t nbytes, void **map, size_t *map_nbytes, uint8_t **begin);

/* A plain read, prefetched as the kernels do. The sum is returned so that the compiler keeps the loads. */
uint64_t cli_read_bytes(const uint8_t *bytes, size_t nbytes);

/* Bytes per second (wall time) of threads that each read their share once. 0: a thread could not be made. */
double cli_read_rate(const uint8_t *bytes, size_t nbytes, int n_threads);

/* The best rate of some reads of so much memory of its own. 0: no memory or no threads for it. */
double cli_memory_rate(size_t nbytes, int n_threads);

#endif
