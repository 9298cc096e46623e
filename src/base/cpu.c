/*
 * cpu.c - the CPU's features less what MOEBIUS_CPU takes away. Each architecture's folder detects its own.
 */
#include "base/cpu.h"
#include "base/error.h"
#include "cpu_detect.h"
#include <pthread.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

static const struct {
    const char *name;
    unsigned taken; /* the level and all that need it */
} removals[] = {
    {"-avx2", MB_CPU_AVX2 | MB_CPU_AVXVNNI | MB_CPU_AVX512 | MB_CPU_ZEN4 | MB_CPU_AMX_INT8},
    {"-avxvnni", MB_CPU_AVXVNNI},
    {"-avx512", MB_CPU_AVX512 | MB_CPU_ZEN4 | MB_CPU_AMX_INT8},
    {"-zen4", MB_CPU_ZEN4},
    {"-amx", MB_CPU_AMX_INT8},
    {"-neon", MB_CPU_NEON | MB_CPU_DOTPROD | MB_CPU_I8MM},
    {"-dotprod", MB_CPU_DOTPROD | MB_CPU_I8MM},
    {"-i8mm", MB_CPU_I8MM},
};

/* The levels that a list takes away; *unknown (when there is one) points to the first unknown name. */
static unsigned taken_away(const char *list, const char **unknown, size_t *unknown_nbytes)
{
    unsigned taken = 0;
    *unknown = NULL;
    while (*list != '\0') {
        size_t n = strcspn(list, ",");
        bool found = n == 0;
        for (size_t i = 0; i < sizeof removals / sizeof removals[0]; i++)
            if (strlen(removals[i].name) == n && memcmp(removals[i].name, list, n) == 0) {
                taken |= removals[i].taken;
                found = true;
            }
        if (!found && *unknown == NULL) {
            *unknown = list;
            *unknown_nbytes = n;
        }
        list += n;
        list += *list == ',';
    }
    return taken;
}

static const char *removal_list(void)
{
    const char *list = getenv("MOEBIUS_CPU");
    return list == NULL ? "" : list;
}

static pthread_once_t once = PTHREAD_ONCE_INIT;
static unsigned features_once;

static void read_features(void)
{
    const char *unknown;
    size_t unknown_nbytes;
    features_once = mb_cpu_detect() & ~taken_away(removal_list(), &unknown, &unknown_nbytes);
}

unsigned mb_cpu_features(void)
{
    pthread_once(&once, read_features);
    return features_once;
}

enum mb_status mb_cpu_features_check(struct mb_error *err)
{
    const char *unknown;
    size_t unknown_nbytes = 0;
    taken_away(removal_list(), &unknown, &unknown_nbytes);
    if (unknown != NULL)
        return mb_fail(err, MB_USAGE,
                       "MOEBIUS_CPU: unknown name '%.*s' (known: -avx2, -avxvnni, -avx512, -zen4, "
                       "-amx, -neon, -dotprod, -i8mm)",
                       (int)(unknown_nbytes < 100 ? unknown_nbytes : 100), unknown);
    return MB_OK;
}
