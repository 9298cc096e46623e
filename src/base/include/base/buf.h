/*
 * buf.h - growing arrays.  A failed growth leaves the array as it was and returns false.
 */
#ifndef MB_BASE_BUF_H
#define MB_BASE_BUF_H

#include <assert.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

/* Makes room for 'n_more' elements after the first n of an array of *cap. Not for sizes near SIZE_MAX. */
static inline bool mb_grow(void **array, size_t *cap, size_t n, size_t n_more, size_t elem_nbytes)
{
    size_t need;
    if (__builtin_add_overflow(n, n_more, &need) || need > SIZE_MAX / 4 / elem_nbytes)
        return false;
    if (need <= *cap)
        return true;
    size_t new_cap = *cap + *cap / 2 + 16;
    if (new_cap < need)
        new_cap = need;
    void *grown = realloc(*array, new_cap * elem_nbytes);
    if (grown == NULL)
        return false;
    *array = grown;
    *cap = new_cap;
    return true;
}

struct mb_bytes {
    char *p;
    size_t n, cap;
};

static inline bool mb_bytes_reserve(struct mb_bytes *bytes, size_t n_more)
{
    void *p = bytes->p;
    bool ok = mb_grow(&p, &bytes->cap, bytes->n, n_more, 1);
    bytes->p = p;
    return ok;
}

static inline bool mb_bytes_put(struct mb_bytes *bytes, const void *from, size_t n)
{
    if (n == 0)
        return true;
    if (!mb_bytes_reserve(bytes, n))
        return false;
    assert(bytes->p != NULL);
    memcpy(bytes->p + bytes->n, from, n);
    bytes->n += n;
    return true;
}

struct mb_ids {
    int32_t *p;
    size_t n, cap;
};

static inline bool mb_ids_put(struct mb_ids *ids, const int32_t *from, size_t n)
{
    void *p = ids->p;
    if (!mb_grow(&p, &ids->cap, ids->n, n, sizeof *ids->p))
        return false;
    ids->p = p;
    if (n == 0)
        return true;
    assert(ids->p != NULL);
    memcpy(ids->p + ids->n, from, n * sizeof *from);
    ids->n += n;
    return true;
}

#endif
