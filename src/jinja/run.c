/*
 * run.c - one rendering: its arena, its limits, its error.
 */
#include "base/error.h"
#include "value.h"
#include <stdarg.h>
#include <stdio.h>

enum { CHUNK_NBYTES = 16 << 10 };

struct mb_jinja_chunk {
    struct mb_jinja_chunk *next;
    size_t used, cap;
    _Alignas(16) char bytes[];
};

void mb_jinja_run_free(run_t *run)
{
    while (run->chunks != NULL) {
        struct mb_jinja_chunk *next = run->chunks->next;
        free(run->chunks);
        run->chunks = next;
    }
}

bool mb_jinja_fail(run_t *run, enum mb_status status, const char *format, ...)
{
    if (run->status != MB_OK)
        return false;
    char text[400];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    run->status = mb_fail(run->err, status, "%s: line %d: %s", run->place, run->line, text);
    return false;
}

bool mb_jinja_steps(run_t *run, uint64_t n)
{
    run->n_steps += n;
    if (run->n_steps <= run->n_steps_max)
        return run->status == MB_OK;
    return mb_jinja_fail(run, MB_UNSUPPORTED, "the template takes too many steps: it may never end");
}

void *mb_jinja_alloc(run_t *run, size_t nbytes)
{
    size_t rounded = (nbytes + 15) & ~(size_t)15;
    if (rounded > run->arena_nbytes_max - run->arena_nbytes) {
        mb_jinja_fail(run, MB_UNSUPPORTED, "the template takes too much memory");
        return NULL;
    }
    run->arena_nbytes += rounded;
    struct mb_jinja_chunk *chunk = run->chunks;
    if (chunk == NULL || chunk->cap - chunk->used < rounded) {
        size_t cap = rounded > CHUNK_NBYTES ? rounded : CHUNK_NBYTES;
        chunk = malloc(sizeof *chunk + cap);
        if (chunk == NULL) {
            mb_jinja_fail(run, MB_NO_MEMORY, "out of memory for the values of the template");
            return NULL;
        }
        chunk->next = run->chunks;
        chunk->used = 0;
        chunk->cap = cap;
        run->chunks = chunk;
    }
    void *p = chunk->bytes + chunk->used;
    chunk->used += rounded;
    return memset(p, 0, rounded);
}
