/*
 * trace_random_text.c - "experts=128 used=8 layers=48 top8=44.5% overlap=38%".
 */
#include "base/error.h"
#include "base/number.h"
#include <moebius/offload.h>
#include <string.h>

/* A whole number from 0 to 'max' that a double holds. */
static bool read_whole(const char *text, size_t n, double max, double *value)
{
    return mb_number_parse(text, n, value) && *value >= 0 && *value <= max &&
           *value == (double)(uint64_t)*value;
}

static bool read_share(const char *text, size_t n, double *value)
{
    bool is_percent = n > 0 && text[n - 1] == '%';
    if (!mb_number_parse(text, n - (is_percent ? 1 : 0), value))
        return false;
    *value = is_percent ? *value / 100 : *value;
    return *value >= 0 && *value <= 1;
}

static bool is_key(const char *word, size_t n, const char *key)
{
    return strlen(key) == n && memcmp(word, key, n) == 0;
}

static bool read_word(const char *word, size_t n, struct mb_trace_random *random)
{
    const char *equals = memchr(word, '=', n);
    if (equals == NULL)
        return false;
    size_t key_n = (size_t)(equals - word), value_n = n - key_n - 1;
    double value;
    if (is_key(word, key_n, "top8"))
        return read_share(equals + 1, value_n, &random->top_share);
    if (is_key(word, key_n, "overlap"))
        return read_share(equals + 1, value_n, &random->overlap);
    if (!read_whole(equals + 1, value_n, 0x1p53, &value))
        return false;
    if (is_key(word, key_n, "seed"))
        random->seed = (uint64_t)value;
    else if (is_key(word, key_n, "experts"))
        random->shape.n_experts = (size_t)value;
    else if (is_key(word, key_n, "used"))
        random->shape.n_used = (size_t)value;
    else if (is_key(word, key_n, "layers"))
        random->shape.n_layers = (size_t)value;
    else if (is_key(word, key_n, "tokens") && value <= MB_TRACE_TOKENS_MAX)
        random->n_tokens = (size_t)value;
    else
        return false;
    return true;
}

enum mb_status mb_trace_random_parse(const char *text, struct mb_trace_random *random, struct mb_error *err)
{
    *random = (struct mb_trace_random){.size = sizeof *random};
    for (const char *p = text; *p != '\0';) {
        size_t n = strcspn(p, " ");
        if (n > 0 && !read_word(p, n, random))
            return mb_fail(err, MB_USAGE,
                           "\"%.*s\" says nothing about a trace: experts=N used=N layers=N tokens=N top8=P%% "
                           "overlap=P%% seed=N",
                           (int)(n < 64 ? n : 64), p);
        p += n + strspn(p + n, " ");
    }
    return MB_OK;
}
