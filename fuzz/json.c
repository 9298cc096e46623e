/*
 * json.c - see json.h.
 */
#include "json.h"
#include <jansson.h>
#include <stdlib.h>
#include <string.h>

enum { N_SLOTS_MAX = 2000, STRING_NBYTES_MAX = 256 };

/* A place in the tree where a value stands: a member of an object, or an element of an array. */
struct slot {
    json_t *parent, *value;
    const char *key; /* NULL in an array */
    size_t index;
};

struct slots {
    struct slot list[N_SLOTS_MAX];
    size_t n;
};

static void collect(struct slots *slots, json_t *parent)
{
    const char *key;
    json_t *value;
    size_t i, first = slots->n;
    json_object_foreach(parent, key, value)
    {
        if (slots->n < N_SLOTS_MAX)
            slots->list[slots->n++] = (struct slot){parent, value, key, 0};
    }
    json_array_foreach(parent, i, value)
    {
        if (slots->n < N_SLOTS_MAX)
            slots->list[slots->n++] = (struct slot){parent, value, NULL, i};
    }
    for (size_t s = first, end = slots->n; s < end; s++)
        collect(slots, slots->list[s].value);
}

static json_t *hard_value(void)
{
    static const char text[] =
        "[0, 1, -1, 2, 255, 65536, 2147483648, 4294967295, 9223372036854775807, -9223372036854775808,"
        "0.0, 0.5, 1e308, -1e-320, true, false, null, \"\", \"a\\u0000b\", \"\\u20ac\", [], {}, [[]]]";
    static json_t *values;
    if (values == NULL)
        values = json_loads(text, JSON_ALLOW_NUL, NULL);
    REQUIRE(values != NULL);
    return json_deep_copy(json_array_get(values, (size_t)rand() % json_array_size(values)));
}

/* The value, a little changed; hard ones in place of what has no little change. */
static json_t *near_value(const json_t *value)
{
    if (json_is_integer(value)) {
        static const json_int_t steps[] = {1, -1, 2, -2, 8, -8};
        json_int_t number = json_integer_value(value);
        if (rand() % 4 == 0)
            return json_integer(llabs(number / 2) < INT64_MAX / 4 ? number * 2 : number / 2);
        return json_integer((json_int_t)((uint64_t)number + (uint64_t)steps[rand() % 6]));
    }
    if (json_is_string(value) && json_string_length(value) <= STRING_NBYTES_MAX) {
        uint8_t bytes[STRING_NBYTES_MAX];
        size_t n = json_string_length(value);
        memcpy(bytes, json_string_value(value), n);
        n = LLVMFuzzerMutate(bytes, n, sizeof bytes);
        json_t *string = json_stringn((const char *)bytes, n);
        if (string != NULL) /* UTF-8 */
            return string;
    }
    return hard_value();
}

static void put(const struct slot *slot, json_t *value)
{
    if (slot->key != NULL)
        json_object_set_new(slot->parent, slot->key, value);
    else
        json_array_set_new(slot->parent, slot->index, value);
}

static void put_member(const struct slot *slot, const char *key, json_t *value)
{
    if (slot->key != NULL && key != NULL)
        json_object_set_new(slot->parent, key, value);
    else if (slot->key == NULL)
        json_array_insert_new(slot->parent, slot->index, value);
    else
        json_decref(value);
}

static void change(struct slots *slots)
{
    const struct slot *slot = &slots->list[(size_t)rand() % slots->n],
                      *other = &slots->list[(size_t)rand() % slots->n];
    switch (rand() % 6) {
    case 0:
        put(slot, hard_value());
        break;
    case 1:
        put(slot, json_deep_copy(other->value));
        break;
    case 2: /* under a name that is used elsewhere */
        put_member(slot, other->key, json_deep_copy(slot->value));
        break;
    case 3:
        if (slot->key != NULL)
            json_object_del(slot->parent, slot->key);
        else
            json_array_remove(slot->parent, slot->index);
        break;
    default:
        put(slot, near_value(slot->value));
    }
}

/* The new text, to be freed; NULL: the old one is not JSON, or nothing but a number or string. */
static char *change_text(const uint8_t *text, size_t n)
{
    static struct slots slots;
    json_t *root = json_loadb((const char *)text, n, JSON_ALLOW_NUL, NULL);
    char *changed = NULL;
    slots.n = 0;
    if (root != NULL)
        collect(&slots, root);
    if (slots.n > 0) {
        change(&slots);
        changed = json_dumps(root, JSON_COMPACT);
    }
    json_decref(root);
    return changed;
}

/* The input with another text in the place of 'part'; 0: it does not fit. */
static size_t put_text(uint8_t *data, size_t size, size_t size_max, struct fuzz_input part, const char *text)
{
    size_t n = strlen(text), begin = (size_t)(part.p - data), n_behind = size - begin - part.n;
    if (begin + n + n_behind > size_max)
        return 0;
    memmove(data + begin + n, data + begin + part.n, n_behind);
    memcpy(data + begin, text, n);
    return begin + n + n_behind;
}

size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t size_max, unsigned seed)
{
    srand(seed);
    struct fuzz_input part = fuzz_json_part(data, size);
    char *text = rand() % 2 == 0 ? change_text(part.p, part.n) : NULL;
    size_t n = text == NULL ? 0 : put_text(data, size, size_max, part, text);
    free(text);
    return n > 0 ? n : LLVMFuzzerMutate(data, size, size_max);
}
