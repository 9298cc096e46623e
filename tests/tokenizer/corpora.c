/*
 * corpora.c - large texts, made the same way on every machine.
 */
#include "corpora.h"
#include "base/utf8.h"
#include "cmocka_all.h"
#include <stdio.h>

enum { PROSE_NBYTES = 1000000 };

/* Knuth's constants; the upper 31 bits. */
static uint64_t below(uint64_t *state, uint64_t n)
{
    *state = *state * 6364136223846793005u + 1442695040888963407u;
    return (*state >> 33) % n;
}

static void put(struct mb_bytes *text, const char *p, size_t n)
{
    assert_true(mb_bytes_put(text, p, n));
}

static void put_code(struct mb_bytes *text, uint32_t code)
{
    char utf8[4];
    put(text, utf8, mb_utf8_put(utf8, code));
}

static void put_piece(struct mb_bytes *text, const json_t *piece, uint64_t *state)
{
    uint64_t numbers[4]; /* first and last character, smallest and largest number of them */
    if (json_is_string(piece)) {
        put(text, json_string_value(piece), json_string_length(piece));
        return;
    }
    for (size_t i = 0; i < 4; i++)
        numbers[i] = (uint64_t)json_integer_value(json_array_get(piece, i));
    for (uint64_t n = numbers[2] + below(state, numbers[3] - numbers[2] + 1); n > 0; n--)
        put_code(text, (uint32_t)(numbers[0] + below(state, numbers[1] - numbers[0] + 1)));
}

static struct mb_bytes characters(void)
{
    struct mb_bytes text = {0};
    for (uint32_t code = 0; code < 0x20000; code++) {
        if (code >= 0xd800 && code < 0xe000)
            continue;
        put(&text, "a", 1);
        put_code(&text, code);
        put(&text, "1 ", 2);
    }
    return text;
}

struct mb_bytes corpus_generate(const json_t *pieces, const char *name)
{
    if (strcmp(name, "characters") == 0)
        return characters();
    struct mb_bytes text = {0};
    const json_t *corpus = json_object_get(pieces, name), *list = json_object_get(corpus, "pieces");
    uint64_t state = (uint64_t)json_integer_value(json_object_get(corpus, "seed"));
    size_t nbytes = (size_t)json_integer_value(json_object_get(corpus, "nbytes"));
    assert_true(json_array_size(list) > 0 && nbytes > 0);
    while (text.n < nbytes)
        put_piece(&text, json_array_get(list, below(&state, json_array_size(list))), &state);
    return text;
}

struct mb_bytes corpus_prose(const char *path)
{
    struct mb_bytes text = {0};
    FILE *file = fopen(path, "rb");
    if (file == NULL)
        return text;
    char *raw = malloc(PROSE_NBYTES);
    assert_non_null(raw);
    size_t n = fread(raw, 1, PROSE_NBYTES, file);
    fclose(file);
    assert_true(mb_utf8_replace(&text, raw, n));
    free(raw);
    return text;
}

static uint64_t fnv_step(uint64_t hash, uint32_t number)
{
    return (hash ^ number) * 0x100000001b3u;
}

void hash_bytes(const char *p, size_t n, char hex[17])
{
    uint64_t hash = 0xcbf29ce484222325u;
    for (size_t i = 0; i < n; i++)
        hash = fnv_step(hash, (uint8_t)p[i]);
    snprintf(hex, 17, "%016llx", (unsigned long long)hash);
}

void hash_ids(const int32_t *ids, size_t n, char hex[17])
{
    uint64_t hash = 0xcbf29ce484222325u;
    for (size_t i = 0; i < n; i++)
        hash = fnv_step(hash, (uint32_t)ids[i]);
    snprintf(hex, 17, "%016llx", (unsigned long long)hash);
}
