/*
 * jinja_call.c - filters, tests, functions and methods: tables by name, one function each.
 *
 * Strings are handled as Python handles them, characters being code points.
 */
#include "jinja_call.h"
#include "base/utf8.h"
#include "jinja_parse.h"
#include <ctype.h>

#define COUNT(array) (sizeof(array) / sizeof *(array))

typedef struct mb_jinja_run run_t;
typedef struct mb_jinja_value value_t;
typedef struct mb_jinja_string string_t;
typedef struct mb_jinja_args args_t;

/* ---------------------------------------------------------------- arguments */

/* The i-th argument or the keyword; NULL when neither is there. */
static const value_t *argument(const args_t *args, size_t i, const char *keyword)
{
    if (i < args->n)
        return &args->items[i];
    return keyword == NULL ? NULL : mb_jinja_find(args->keywords.map, (string_t){keyword, strlen(keyword)});
}

static bool bad_call(run_t *run, const char *what)
{
    return mb_jinja_fail(run, MB_UNSUPPORTED, "%s with these arguments is not supported", what);
}

static bool want_string(run_t *run, const value_t *value, const char *what, string_t *string)
{
    *string = (string_t){"", 0};
    if (value == NULL || value->kind != MB_JINJA_STRING)
        return bad_call(run, what);
    *string = value->string;
    return true;
}

static bool fail_undefined(run_t *run, const value_t *value)
{
    return mb_jinja_fail(run, MB_BAD_DATA, "'%.*s' is undefined",
                         (int)(value->string.n > 60 ? 60 : value->string.n), value->string.p);
}

/* ---------------------------------------------------------------- strings */

static bool is_stripped(uint32_t code, const string_t *set)
{
    if (set == NULL)
        return mb_jinja_is_space(code);
    for (size_t i = 0; i < set->n; i += mb_utf8_nbytes(set->p[i]))
        if (mb_utf8_get(set->p + i) == code)
            return true;
    return false;
}

/* Takes the characters of 'set' (NULL: white space) off the ends. */
static string_t strip(string_t string, const string_t *set, bool left, bool right)
{
    while (left && string.n > 0 && is_stripped(mb_utf8_get(string.p), set)) {
        size_t n = mb_utf8_nbytes(string.p[0]);
        string.p += n;
        string.n -= n;
    }
    while (right && string.n > 0) {
        size_t i = string.n - 1;
        while (((uint8_t)string.p[i] & 0xc0) == 0x80)
            i--;
        if (!is_stripped(mb_utf8_get(string.p + i), set))
            break;
        string.n = i;
    }
    return string;
}

static bool call_strip(run_t *run, string_t string, const args_t *args, bool left, bool right, value_t *out)
{
    const value_t *set = argument(args, 0, NULL);
    string_t chars, stripped;
    bool has_set = set != NULL && set->kind != MB_JINJA_NONE;
    if (has_set && !want_string(run, set, "strip", &chars))
        return false;
    stripped = strip(string, has_set ? &chars : NULL, left, right);
    *out = mb_jinja_text(stripped.p, stripped.n);
    return mb_jinja_steps(run, string.n / 16);
}

static bool method_strip(run_t *run, string_t string, const args_t *args, value_t *out)
{
    return call_strip(run, string, args, true, true, out);
}

static bool method_lstrip(run_t *run, string_t string, const args_t *args, value_t *out)
{
    return call_strip(run, string, args, true, false, out);
}

static bool method_rstrip(run_t *run, string_t string, const args_t *args, value_t *out)
{
    return call_strip(run, string, args, false, true, out);
}

static bool append_text(run_t *run, struct mb_jinja_list *list, const char *p, size_t n)
{
    return mb_jinja_append(run, list, mb_jinja_text(p, n));
}

/* split(): at runs of white space, none at the ends. */
static bool split_words(run_t *run, string_t string, struct mb_jinja_list *list)
{
    for (string = strip(string, NULL, true, true); string.n > 0; string = strip(string, NULL, true, false)) {
        size_t i = 0;
        while (i < string.n && !mb_jinja_is_space(mb_utf8_get(string.p + i)))
            i += mb_utf8_nbytes(string.p[i]);
        if (!append_text(run, list, string.p, i))
            return false;
        string.p += i;
        string.n -= i;
    }
    return true;
}

static bool method_split(run_t *run, string_t string, const args_t *args, value_t *out)
{
    const value_t *sep = argument(args, 0, "sep"), *max = argument(args, 1, "maxsplit");
    bool by_words = sep == NULL || sep->kind == MB_JINJA_NONE;
    if (!mb_jinja_new_list(run, out) || !mb_jinja_steps(run, string.n / 16))
        return false;
    if ((max != NULL && (max->kind != MB_JINJA_INT || by_words)) ||
        (!by_words && (sep->kind != MB_JINJA_STRING || sep->string.n == 0)))
        return bad_call(run, "split");
    if (by_words)
        return split_words(run, string, out->list);
    int64_t n_left = max == NULL || max->number < 0 ? INT64_MAX : max->number;
    const char *hit;
    while (n_left-- > 0 && (hit = memmem(string.p, string.n, sep->string.p, sep->string.n)) != NULL) {
        size_t n = (size_t)(hit - string.p);
        if (!append_text(run, out->list, string.p, n))
            return false;
        string.p += n + sep->string.n;
        string.n -= n + sep->string.n;
    }
    return append_text(run, out->list, string.p, string.n);
}

static bool begins(string_t string, string_t with)
{
    return string.n >= with.n && memcmp(string.p, with.p, with.n) == 0;
}

static bool ends(string_t string, string_t with)
{
    return string.n >= with.n && memcmp(string.p + string.n - with.n, with.p, with.n) == 0;
}

/* startswith and endswith: a string, or a list of them of which any will do. */
static bool test_edge(run_t *run, string_t string, const args_t *args, bool (*fits)(string_t, string_t),
                      value_t *out)
{
    const value_t *with = argument(args, 0, NULL);
    if (with == NULL || args->n != 1 || (with->kind != MB_JINJA_STRING && with->kind != MB_JINJA_LIST))
        return bad_call(run, "startswith or endswith");
    size_t n = with->kind == MB_JINJA_LIST ? with->list->n : 1;
    bool answer = false;
    for (size_t i = 0; i < n; i++) {
        string_t one;
        if (!want_string(run, with->kind == MB_JINJA_LIST ? &with->list->items[i] : with,
                         "startswith or endswith", &one))
            return false;
        answer = answer || fits(string, one);
    }
    *out = mb_jinja_bool(answer);
    return true;
}

static bool method_startswith(run_t *run, string_t string, const args_t *args, value_t *out)
{
    return test_edge(run, string, args, begins, out);
}

static bool method_endswith(run_t *run, string_t string, const args_t *args, value_t *out)
{
    return test_edge(run, string, args, ends, out);
}

static bool finish_text(run_t *run, struct mb_bytes *bytes, bool ok, value_t *out)
{
    char *copy = ok ? mb_jinja_alloc(run, bytes->n) : NULL;
    if (copy != NULL && bytes->n > 0)
        memcpy(copy, bytes->p, bytes->n);
    if (copy != NULL)
        *out = mb_jinja_text(copy, bytes->n);
    free(bytes->p);
    return copy != NULL && mb_jinja_steps(run, bytes->n / 16);
}

static bool put_bytes(run_t *run, struct mb_bytes *bytes, const char *p, size_t n)
{
    if (bytes->n + n > run->out_nbytes_max)
        return mb_jinja_fail(run, MB_UNSUPPORTED, "the template writes too much");
    return mb_bytes_put(bytes, p, n) || mb_jinja_fail(run, MB_NO_MEMORY, "no memory");
}

static bool method_replace(run_t *run, string_t string, const args_t *args, value_t *out)
{
    string_t old, new;
    struct mb_bytes bytes = {0};
    if (!want_string(run, argument(args, 0, NULL), "replace", &old) ||
        !want_string(run, argument(args, 1, NULL), "replace", &new))
        return false;
    if (args->n != 2 || old.n == 0)
        return bad_call(run, "replace");
    bool ok = true;
    const char *hit;
    while (ok && (hit = memmem(string.p, string.n, old.p, old.n)) != NULL) {
        size_t n = (size_t)(hit - string.p);
        ok = put_bytes(run, &bytes, string.p, n) && put_bytes(run, &bytes, new.p, new.n);
        string.p += n + old.n;
        string.n -= n + old.n;
    }
    ok = ok && put_bytes(run, &bytes, string.p, string.n);
    return finish_text(run, &bytes, ok, out);
}

/* How many characters from the start get which case. */
static bool change_case(run_t *run, string_t string, size_t n_upper, value_t *out)
{
    char *copy = mb_jinja_alloc(run, string.n);
    if (copy == NULL)
        return false;
    for (size_t i = 0; i < string.n; i++) {
        if ((uint8_t)string.p[i] >= 0x80)
            return mb_jinja_fail(run, MB_UNSUPPORTED, "upper or lower case beyond ASCII");
        copy[i] =
            (char)(i < n_upper ? toupper((unsigned char)string.p[i]) : tolower((unsigned char)string.p[i]));
    }
    *out = mb_jinja_text(copy, string.n);
    return mb_jinja_steps(run, string.n);
}

static bool method_upper(run_t *run, string_t string, const args_t *args, value_t *out)
{
    return args->n == 0 ? change_case(run, string, SIZE_MAX, out) : bad_call(run, "upper");
}

static bool method_lower(run_t *run, string_t string, const args_t *args, value_t *out)
{
    return args->n == 0 ? change_case(run, string, 0, out) : bad_call(run, "lower");
}

static bool method_capitalize(run_t *run, string_t string, const args_t *args, value_t *out)
{
    return args->n == 0 ? change_case(run, string, 1, out) : bad_call(run, "capitalize");
}

static bool join_items(run_t *run, const struct mb_jinja_list *items, string_t separator, bool any_kind,
                       value_t *out)
{
    struct mb_bytes bytes = {0};
    bool ok = true;
    for (size_t i = 0; ok && i < items->n; i++) {
        string_t text;
        if (!any_kind && items->items[i].kind != MB_JINJA_STRING)
            ok = mb_jinja_fail(run, MB_BAD_DATA, "join of a %s", mb_jinja_kind_name(items->items[i].kind));
        ok = ok && mb_jinja_str(run, &items->items[i], &text) &&
             (i == 0 || put_bytes(run, &bytes, separator.p, separator.n)) &&
             put_bytes(run, &bytes, text.p, text.n);
    }
    return finish_text(run, &bytes, ok, out);
}

static bool method_join(run_t *run, string_t string, const args_t *args, value_t *out)
{
    struct mb_jinja_list *items;
    if (args->n != 1)
        return bad_call(run, "join");
    return mb_jinja_items(run, &args->items[0], &items) && join_items(run, items, string, false, out);
}

static bool method_removeprefix(run_t *run, string_t string, const args_t *args, value_t *out)
{
    string_t edge;
    if (!want_string(run, argument(args, 0, NULL), "removeprefix", &edge))
        return false;
    size_t skip = begins(string, edge) ? edge.n : 0;
    *out = mb_jinja_text(string.p + skip, string.n - skip);
    return true;
}

static bool method_removesuffix(run_t *run, string_t string, const args_t *args, value_t *out)
{
    string_t edge;
    if (!want_string(run, argument(args, 0, NULL), "removesuffix", &edge))
        return false;
    *out = mb_jinja_text(string.p, string.n - (ends(string, edge) ? edge.n : 0));
    return true;
}

struct string_method {
    const char *name;
    bool (*call)(run_t *run, string_t string, const args_t *args, value_t *out);
};

static const struct string_method string_methods[] = {
    {"strip", method_strip},
    {"lstrip", method_lstrip},
    {"rstrip", method_rstrip},
    {"split", method_split},
    {"startswith", method_startswith},
    {"endswith", method_endswith},
    {"replace", method_replace},
    {"upper", method_upper},
    {"lower", method_lower},
    {"capitalize", method_capitalize},
    {"join", method_join},
    {"removeprefix", method_removeprefix},
    {"removesuffix", method_removesuffix},
};

/* Python's, which are there but not here: asking for one is an error, not undefined. */
static const char *const other_string_methods[] = {
    "title",     "swapcase",   "casefold",   "center",  "count",    "encode",    "expandtabs", "find",
    "format",    "index",      "isalnum",    "isalpha", "isascii",  "isdecimal", "isdigit",    "islower",
    "isspace",   "isupper",    "ljust",      "rjust",   "rsplit",   "rfind",     "rindex",     "zfill",
    "partition", "rpartition", "splitlines", "istitle", "isnumeric"};

static const char *const dict_methods[] = {"items", "keys",  "values",     "get",     "pop",     "update",
                                           "copy",  "clear", "setdefault", "popitem", "fromkeys"};

static bool is_one_of(string_t name, const char *const *names, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (mb_jinja_is(name, names[i]))
            return true;
    return false;
}

static bool call_string_method(run_t *run, const struct mb_jinja_method *method, const args_t *args,
                               value_t *out)
{
    for (size_t i = 0; i < COUNT(string_methods); i++)
        if (mb_jinja_is(method->name, string_methods[i].name))
            return string_methods[i].call(run, method->object.string, args, out);
    return mb_jinja_fail(run, MB_UNSUPPORTED, "the method '%.*s' of strings is not supported",
                         (int)method->name.n, method->name.p);
}

static bool call_dict_method(run_t *run, const struct mb_jinja_method *method, const args_t *args,
                             value_t *out)
{
    const struct mb_jinja_map *map = method->object.map;
    if (mb_jinja_is(method->name, "get")) {
        string_t key;
        if (args->n < 1 || args->n > 2 || !want_string(run, &args->items[0], "get", &key))
            return bad_call(run, "get");
        const value_t *found = mb_jinja_find(map, key);
        *out = found != NULL ? *found : args->n == 2 ? args->items[1] : mb_jinja_none();
        return true;
    }
    bool keys = mb_jinja_is(method->name, "keys"), values = mb_jinja_is(method->name, "values");
    if ((!keys && !values && !mb_jinja_is(method->name, "items")) || args->n != 0)
        return mb_jinja_fail(run, MB_UNSUPPORTED, "the method '%.*s' of mappings is not supported",
                             (int)method->name.n, method->name.p);
    if (!mb_jinja_new_list(run, out))
        return false;
    for (size_t i = 0; i < map->n; i++) {
        value_t pair, key = mb_jinja_text(map->entries[i].key.p, map->entries[i].key.n);
        pair = keys ? key : map->entries[i].value;
        if (!keys && !values &&
            !(mb_jinja_new_list(run, &pair) && mb_jinja_append(run, pair.list, key) &&
              mb_jinja_append(run, pair.list, map->entries[i].value)))
            return false;
        if (!mb_jinja_append(run, out->list, pair))
            return false;
    }
    return true;
}

/* ---------------------------------------------------------------- attributes */

static bool make_method(run_t *run, const value_t *object, string_t name, value_t *out)
{
    struct mb_jinja_method *method = mb_jinja_alloc(run, sizeof *method);
    if (method == NULL)
        return false;
    *method = (struct mb_jinja_method){*object, name};
    *out = (value_t){.kind = MB_JINJA_METHOD, .method = method};
    return true;
}

static bool loop_attribute(run_t *run, const struct mb_jinja_loop *loop, string_t name, value_t *out)
{
    int64_t i = (int64_t)loop->i, n = (int64_t)loop->items->n;
    const struct {
        const char *name;
        value_t value;
    } numbers[] = {
        {"index", mb_jinja_int(i + 1)},
        {"index0", mb_jinja_int(i)},
        {"revindex", mb_jinja_int(n - i)},
        {"revindex0", mb_jinja_int(n - i - 1)},
        {"first", mb_jinja_bool(i == 0)},
        {"last", mb_jinja_bool(i == n - 1)},
        {"length", mb_jinja_int(n)},
        {"depth", mb_jinja_int(1)}, /* of recursive loops, which are not there: not of loops in loops */
        {"depth0", mb_jinja_int(0)},
    };
    for (size_t k = 0; k < COUNT(numbers); k++) {
        if (mb_jinja_is(name, numbers[k].name)) {
            *out = numbers[k].value;
            return true;
        }
    }
    bool previous = mb_jinja_is(name, "previtem");
    if (!previous && !mb_jinja_is(name, "nextitem"))
        return mb_jinja_fail(run, MB_UNSUPPORTED, "loop.%.*s is not supported", (int)name.n, name.p);
    bool exists = previous ? i > 0 : i + 1 < n;
    *out = exists ? loop->items->items[previous ? i - 1 : i + 1] : mb_jinja_undefined(name);
    return true;
}

bool mb_jinja_attribute(run_t *run, const value_t *object, string_t name, bool item_first, value_t *out)
{
    const value_t *found;
    bool is_method;
    *out = mb_jinja_undefined(name);
    switch (object->kind) {
    case MB_JINJA_UNDEFINED:
        return fail_undefined(run, object);
    case MB_JINJA_DICT:
        found = mb_jinja_find(object->map, name);
        is_method = is_one_of(name, dict_methods, COUNT(dict_methods));
        if (is_method && !(item_first && found != NULL))
            return make_method(run, object, name, out);
        if (found != NULL)
            *out = *found;
        return mb_jinja_steps(run, object->map->n);
    case MB_JINJA_NAMESPACE:
        found = mb_jinja_find(object->map, name);
        if (found != NULL)
            *out = *found;
        return mb_jinja_steps(run, object->map->n);
    case MB_JINJA_LOOP:
        return loop_attribute(run, object->loop, name, out);
    case MB_JINJA_STRING:
        for (size_t i = 0; i < COUNT(string_methods); i++)
            if (mb_jinja_is(name, string_methods[i].name))
                return make_method(run, object, name, out);
        return !is_one_of(name, other_string_methods, COUNT(other_string_methods)) ||
               make_method(run, object, name, out);
    default:
        return true;
    }
}

/* ---------------------------------------------------------------- functions */

static bool raise_exception(run_t *run, const args_t *args)
{
    string_t text = {"", 0};
    if (args->n > 0 && !mb_jinja_str(run, &args->items[0], &text))
        return false;
    return mb_jinja_fail(run, MB_BAD_DATA, "the template refuses the conversation: %.*s",
                         (int)(text.n > 200 ? 200 : text.n), text.p);
}

static bool make_map(run_t *run, const args_t *args, enum mb_jinja_kind kind, value_t *out)
{
    if (args->n > 0)
        return bad_call(run, kind == MB_JINJA_NAMESPACE ? "namespace" : "dict");
    if (!mb_jinja_new_map(run, kind, out))
        return false;
    for (size_t i = 0; i < args->keywords.map->n; i++)
        if (!mb_jinja_put(run, out->map, args->keywords.map->entries[i].key,
                          args->keywords.map->entries[i].value))
            return false;
    return true;
}

static bool make_range(run_t *run, const args_t *args, value_t *out)
{
    enum { RANGE_MAX = 100000 }; /* as Jinja's sandbox */
    if (args->n < 1 || args->n > 3)
        return bad_call(run, "range");
    for (size_t i = 0; i < args->n; i++)
        if (args->items[i].kind != MB_JINJA_INT)
            return bad_call(run, "range");
    int64_t first = args->n == 1 ? 0 : args->items[0].number, end = args->items[args->n == 1 ? 0 : 1].number;
    int64_t step = args->n == 3 ? args->items[2].number : 1;
    if (step == 0 || first > INT32_MAX || first < INT32_MIN || end > INT32_MAX || end < INT32_MIN ||
        step > INT32_MAX || step < INT32_MIN)
        return bad_call(run, "range");
    if (!mb_jinja_new_list(run, out))
        return false;
    for (int64_t i = first; step > 0 ? i < end : i > end; i += step)
        if (out->list->n >= RANGE_MAX || !mb_jinja_steps(run, 1) ||
            !mb_jinja_append(run, out->list, mb_jinja_int(i)))
            return mb_jinja_fail(run, MB_UNSUPPORTED, "a range of more than %d numbers", RANGE_MAX);
    return true;
}

bool mb_jinja_call(run_t *run, const value_t *callee, const args_t *args, value_t *out)
{
    if (callee->kind == MB_JINJA_UNDEFINED)
        return fail_undefined(run, callee);
    if (callee->kind == MB_JINJA_METHOD)
        return callee->method->object.kind == MB_JINJA_STRING
                   ? call_string_method(run, callee->method, args, out)
                   : call_dict_method(run, callee->method, args, out);
    if (callee->kind != MB_JINJA_FUNCTION)
        return mb_jinja_fail(run, MB_BAD_DATA, "a %s cannot be called", mb_jinja_kind_name(callee->kind));
    switch ((enum mb_jinja_function)callee->number) {
    case MB_JINJA_RAISE_EXCEPTION:
        return raise_exception(run, args);
    case MB_JINJA_MAKE_NAMESPACE:
        return make_map(run, args, MB_JINJA_NAMESPACE, out);
    case MB_JINJA_MAKE_DICT:
        return make_map(run, args, MB_JINJA_DICT, out);
    case MB_JINJA_RANGE:
        return make_range(run, args, out);
    default:
        return mb_jinja_fail(run, MB_UNSUPPORTED, "strftime_now is not supported");
    }
}

/* ---------------------------------------------------------------- comparisons */

bool mb_jinja_contains(run_t *run, const value_t *container, const value_t *item, bool *answer)
{
    *answer = false;
    switch (container->kind) {
    case MB_JINJA_UNDEFINED:
        return true;
    case MB_JINJA_STRING:
        if (item->kind != MB_JINJA_STRING)
            return mb_jinja_fail(run, MB_BAD_DATA, "a %s in a string", mb_jinja_kind_name(item->kind));
        *answer = memmem(container->string.p, container->string.n, item->string.p, item->string.n) != NULL;
        return mb_jinja_steps(run, container->string.n / 16);
    case MB_JINJA_DICT:
        *answer = item->kind == MB_JINJA_STRING && mb_jinja_find(container->map, item->string) != NULL;
        return mb_jinja_steps(run, container->map->n);
    case MB_JINJA_LIST:
        for (size_t i = 0; !*answer && i < container->list->n; i++)
            if (!mb_jinja_equal(run, &container->list->items[i], item, answer))
                return false;
        return true;
    default:
        return mb_jinja_fail(run, MB_BAD_DATA, "'in' a %s", mb_jinja_kind_name(container->kind));
    }
}

bool mb_jinja_order(run_t *run, const value_t *a, const value_t *b, int *order)
{
    bool numbers = (a->kind == MB_JINJA_INT || a->kind == MB_JINJA_BOOL) &&
                   (b->kind == MB_JINJA_INT || b->kind == MB_JINJA_BOOL);
    if (numbers) {
        *order = (a->number > b->number) - (a->number < b->number);
        return true;
    }
    if (a->kind != MB_JINJA_STRING || b->kind != MB_JINJA_STRING)
        return mb_jinja_fail(run, MB_BAD_DATA, "a %s and a %s cannot be ordered", mb_jinja_kind_name(a->kind),
                             mb_jinja_kind_name(b->kind));
    /* The order of UTF-8's bytes is that of code points. */
    size_t n = a->string.n < b->string.n ? a->string.n : b->string.n;
    *order = memcmp(a->string.p, b->string.p, n);
    if (*order == 0)
        *order = (a->string.n > b->string.n) - (a->string.n < b->string.n);
    return mb_jinja_steps(run, n / 16);
}

/* ---------------------------------------------------------------- filters */

static bool filter_length(run_t *run, const value_t *input, const args_t *args, value_t *out)
{
    (void)args;
    switch (input->kind) {
    case MB_JINJA_STRING:
        *out = mb_jinja_int((int64_t)mb_jinja_n_chars(input->string));
        return mb_jinja_steps(run, input->string.n / 16);
    case MB_JINJA_LIST:
        *out = mb_jinja_int((int64_t)input->list->n);
        return true;
    case MB_JINJA_DICT:
        *out = mb_jinja_int((int64_t)input->map->n);
        return true;
    case MB_JINJA_UNDEFINED:
        *out = mb_jinja_int(0);
        return true;
    default:
        return mb_jinja_fail(run, MB_BAD_DATA, "the length of a %s", mb_jinja_kind_name(input->kind));
    }
}

static bool filter_default(run_t *run, const value_t *input, const args_t *args, value_t *out)
{
    (void)run;
    const value_t *otherwise = argument(args, 0, "default_value"), *boolean = argument(args, 1, "boolean");
    bool by_truth = boolean != NULL && mb_jinja_is_true(boolean);
    bool use_other = input->kind == MB_JINJA_UNDEFINED || (by_truth && !mb_jinja_is_true(input));
    *out = !use_other ? *input : otherwise != NULL ? *otherwise : mb_jinja_text("", 0);
    return true;
}

static bool filter_tojson(run_t *run, const value_t *input, const args_t *args, value_t *out)
{
    const value_t *indent = argument(args, 1, "indent"), *ascii = argument(args, 0, "ensure_ascii");
    bool no_indent = indent == NULL || indent->kind == MB_JINJA_NONE;
    if (args->n > 0 || args->keywords.map->n > (size_t)(indent != NULL) + (size_t)(ascii != NULL) ||
        (ascii != NULL && mb_jinja_is_true(ascii)) || (!no_indent && indent->kind != MB_JINJA_INT))
        return bad_call(run, "tojson");
    if (!no_indent && (indent->number < 0 || indent->number > 16))
        return bad_call(run, "tojson");
    return mb_jinja_json(run, input, no_indent ? -1 : (int)indent->number, out);
}

static bool filter_string(run_t *run, const value_t *input, const args_t *args, value_t *out)
{
    string_t text;
    (void)args;
    if (!mb_jinja_str(run, input, &text))
        return false;
    *out = mb_jinja_text(text.p, text.n);
    return true;
}

/* The string methods that are filters too; the input is made a string first, as Jinja does. */
static bool filter_by_method(run_t *run, const value_t *input, const args_t *args, const char *name,
                             value_t *out)
{
    value_t text;
    if (!filter_string(run, input, args, &text))
        return false;
    struct mb_jinja_method method = {text, {name, strlen(name)}};
    return call_string_method(run, &method, args, out);
}

static bool filter_trim(run_t *run, const value_t *input, const args_t *args, value_t *out)
{
    return filter_by_method(run, input, args, "strip", out);
}

static bool filter_upper(run_t *run, const value_t *input, const args_t *args, value_t *out)
{
    return filter_by_method(run, input, args, "upper", out);
}

static bool filter_lower(run_t *run, const value_t *input, const args_t *args, value_t *out)
{
    return filter_by_method(run, input, args, "lower", out);
}

static bool filter_capitalize(run_t *run, const value_t *input, const args_t *args, value_t *out)
{
    return filter_by_method(run, input, args, "capitalize", out);
}

static bool filter_replace(run_t *run, const value_t *input, const args_t *args, value_t *out)
{
    return filter_by_method(run, input, args, "replace", out);
}

static bool filter_join(run_t *run, const value_t *input, const args_t *args, value_t *out)
{
    struct mb_jinja_list *items;
    const value_t *separator = argument(args, 0, "d");
    string_t text = {"", 0};
    if (args->n > 1 || (separator != NULL && !want_string(run, separator, "join", &text)))
        return bad_call(run, "join");
    return mb_jinja_items(run, input, &items) && join_items(run, items, text, true, out);
}

static bool filter_list(run_t *run, const value_t *input, const args_t *args, value_t *out)
{
    (void)args;
    out->kind = MB_JINJA_LIST;
    return mb_jinja_items(run, input, &out->list);
}

static bool filter_reverse(run_t *run, const value_t *input, const args_t *args, value_t *out)
{
    struct mb_jinja_list *items;
    (void)args;
    if (input->kind == MB_JINJA_STRING)
        return bad_call(run, "reverse of a string");
    if (!mb_jinja_items(run, input, &items) || !mb_jinja_new_list(run, out))
        return false;
    for (size_t i = items->n; i > 0; i--)
        if (!mb_jinja_append(run, out->list, items->items[i - 1]))
            return false;
    return true;
}

static bool pick_item(run_t *run, const value_t *input, bool last, value_t *out)
{
    struct mb_jinja_list *items;
    static const char name[] = "item of an empty list";
    if (!mb_jinja_items(run, input, &items))
        return false;
    *out = items->n == 0 ? mb_jinja_undefined((string_t){name, sizeof name - 1})
                         : items->items[last ? items->n - 1 : 0];
    return true;
}

static bool filter_first(run_t *run, const value_t *input, const args_t *args, value_t *out)
{
    (void)args;
    return pick_item(run, input, false, out);
}

static bool filter_last(run_t *run, const value_t *input, const args_t *args, value_t *out)
{
    (void)args;
    return pick_item(run, input, true, out);
}

static bool filter_items(run_t *run, const value_t *input, const args_t *args, value_t *out)
{
    if (input->kind == MB_JINJA_UNDEFINED)
        return mb_jinja_new_list(run, out);
    if (input->kind != MB_JINJA_DICT)
        return mb_jinja_fail(run, MB_BAD_DATA, "items of a %s", mb_jinja_kind_name(input->kind));
    struct mb_jinja_method method = {*input, {"items", 5}};
    return call_dict_method(run, &method, args, out);
}

static bool filter_int(run_t *run, const value_t *input, const args_t *args, value_t *out)
{
    if (args->n > 0 || (input->kind != MB_JINJA_INT && input->kind != MB_JINJA_BOOL))
        return bad_call(run, "int");
    *out = mb_jinja_int(input->number);
    return true;
}

/* Whether a test (the arguments from the i-th on: its name, its own arguments) holds; truth without a test.
 */
static bool holds(run_t *run, const value_t *value, const args_t *args, size_t i, bool *answer)
{
    string_t name;
    *answer = mb_jinja_is_true(value);
    if (i >= args->n)
        return true;
    args_t rest = {.n = args->n - i - 1, .keywords = args->keywords};
    memcpy(rest.items, args->items + i + 1, rest.n * sizeof *rest.items);
    return want_string(run, &args->items[i], "a filter by a test", &name) &&
           mb_jinja_test(run, name, value, &rest, answer);
}

/* selectattr, rejectattr: items whose attribute passes a test. */
static bool select_by(run_t *run, const value_t *input, const args_t *args, bool wanted, value_t *out)
{
    struct mb_jinja_list *items;
    string_t name;
    if (!want_string(run, argument(args, 0, NULL), "selectattr", &name) ||
        !mb_jinja_items(run, input, &items) || !mb_jinja_new_list(run, out))
        return false;
    if (memchr(name.p, '.', name.n) != NULL)
        return bad_call(run, "selectattr");
    for (size_t i = 0; i < items->n; i++) {
        value_t value;
        bool answer;
        if (!mb_jinja_attribute(run, &items->items[i], name, true, &value) ||
            !holds(run, &value, args, 1, &answer))
            return false;
        if (answer == wanted && !mb_jinja_append(run, out->list, items->items[i]))
            return false;
    }
    return true;
}

static bool filter_selectattr(run_t *run, const value_t *input, const args_t *args, value_t *out)
{
    return select_by(run, input, args, true, out);
}

static bool filter_rejectattr(run_t *run, const value_t *input, const args_t *args, value_t *out)
{
    return select_by(run, input, args, false, out);
}

/* map(attribute='x') and map('filter'). */
static bool filter_map(run_t *run, const value_t *input, const args_t *args, value_t *out)
{
    struct mb_jinja_list *items;
    const value_t *attribute = argument(args, SIZE_MAX, "attribute");
    string_t name;
    if (args->n > 1 || (args->n == 1) == (attribute != NULL) || args->keywords.map->n > 1 ||
        !want_string(run, attribute != NULL ? attribute : &args->items[0], "map", &name))
        return bad_call(run, "map");
    if (!mb_jinja_items(run, input, &items) || !mb_jinja_new_list(run, out))
        return false;
    args_t none = {.keywords = args->keywords};
    if (attribute == NULL && args->keywords.map->n > 0)
        return bad_call(run, "map");
    for (size_t i = 0; i < items->n; i++) {
        value_t value;
        bool ok = attribute != NULL ? mb_jinja_attribute(run, &items->items[i], name, true, &value)
                                    : mb_jinja_filter(run, name, &items->items[i], &none, &value);
        if (!ok || !mb_jinja_append(run, out->list, value))
            return false;
    }
    return true;
}

bool mb_jinja_filter(run_t *run, string_t name, const value_t *input, const args_t *args, value_t *out)
{
    static const struct {
        const char *name;
        bool (*call)(run_t *run, const value_t *input, const args_t *args, value_t *out);
    } filters[] = {
        {"length", filter_length},
        {"count", filter_length},
        {"default", filter_default},
        {"d", filter_default},
        {"tojson", filter_tojson},
        {"trim", filter_trim},
        {"string", filter_string},
        {"safe", filter_string},
        {"upper", filter_upper},
        {"lower", filter_lower},
        {"capitalize", filter_capitalize},
        {"replace", filter_replace},
        {"join", filter_join},
        {"list", filter_list},
        {"reverse", filter_reverse},
        {"first", filter_first},
        {"last", filter_last},
        {"items", filter_items},
        {"int", filter_int},
        {"selectattr", filter_selectattr},
        {"rejectattr", filter_rejectattr},
        {"map", filter_map},
    };
    for (size_t i = 0; i < COUNT(filters); i++)
        if (mb_jinja_is(name, filters[i].name))
            return mb_jinja_steps(run, 1) && filters[i].call(run, input, args, out);
    return mb_jinja_fail(run, MB_UNSUPPORTED, "the filter '%.*s' is not supported", (int)name.n, name.p);
}

/* ---------------------------------------------------------------- tests */

/* Tests of the value's kind alone. */
static bool test_kind(string_t name, const value_t *input, bool *answer)
{
    enum mb_jinja_kind kind = input->kind;
    bool is_string = kind == MB_JINJA_STRING, is_list = kind == MB_JINJA_LIST,
         is_dict = kind == MB_JINJA_DICT;
    const struct {
        const char *name;
        bool answer;
    } tests[] = {
        {"defined", kind != MB_JINJA_UNDEFINED},
        {"undefined", kind == MB_JINJA_UNDEFINED},
        {"none", kind == MB_JINJA_NONE},
        {"string", is_string},
        {"mapping", is_dict},
        {"iterable", is_string || is_list || is_dict || kind == MB_JINJA_UNDEFINED},
        {"sequence", is_string || is_list || is_dict || kind == MB_JINJA_UNDEFINED},
        {"number", kind == MB_JINJA_INT || kind == MB_JINJA_BOOL},
        {"integer", kind == MB_JINJA_INT},
        {"float", false},
        {"boolean", kind == MB_JINJA_BOOL},
        {"true", kind == MB_JINJA_BOOL && input->number != 0},
        {"false", kind == MB_JINJA_BOOL && input->number == 0},
        {"callable", kind == MB_JINJA_FUNCTION || kind == MB_JINJA_METHOD},
    };
    for (size_t i = 0; i < COUNT(tests); i++) {
        if (mb_jinja_is(name, tests[i].name)) {
            *answer = tests[i].answer;
            return true;
        }
    }
    return false;
}

/* Tests with one argument that are comparisons. */
static bool test_comparison(run_t *run, string_t name, const value_t *input, const value_t *other,
                            bool *is_known, bool *answer)
{
    static const char *const equal[] = {"equalto", "eq", "=="}, *const unequal[] = {"ne", "!="};
    static const struct {
        const char *names[3];
        int low, high; /* of the order */
    } orders[] = {{{"lt", "lessthan", "<"}, -1, -1},
                  {{"le", "<=", "<="}, -1, 0},
                  {{"gt", "greaterthan", ">"}, 1, 1},
                  {{"ge", ">=", ">="}, 0, 1}};
    bool is_unequal = is_one_of(name, unequal, COUNT(unequal));
    *is_known = true;
    if (is_unequal || is_one_of(name, equal, COUNT(equal))) {
        if (!mb_jinja_equal(run, input, other, answer))
            return false;
        *answer = *answer != is_unequal;
        return true;
    }
    if (mb_jinja_is(name, "in"))
        return mb_jinja_contains(run, other, input, answer);
    for (size_t i = 0; i < COUNT(orders); i++) {
        int order = 0;
        if (!is_one_of(name, orders[i].names, 3))
            continue;
        if (!mb_jinja_order(run, input, other, &order))
            return false;
        order = (order > 0) - (order < 0);
        *answer = order >= orders[i].low && order <= orders[i].high;
        return true;
    }
    *is_known = false;
    return true;
}

bool mb_jinja_test(run_t *run, string_t name, const value_t *input, const args_t *args, bool *answer)
{
    bool is_known = false;
    if (!mb_jinja_steps(run, 1))
        return false;
    if (args->keywords.map->n > 0 || args->n > 1)
        return bad_call(run, "a test");
    if (args->n == 0 && test_kind(name, input, answer))
        return true;
    if (args->n == 1 && !test_comparison(run, name, input, &args->items[0], &is_known, answer))
        return false;
    if (is_known)
        return true;
    bool is_odd = mb_jinja_is(name, "odd"), is_even = mb_jinja_is(name, "even");
    if ((is_odd || is_even) && args->n == 0 && input->kind == MB_JINJA_INT) {
        *answer = (input->number % 2 != 0) == is_odd;
        return true;
    }
    return mb_jinja_fail(run, MB_UNSUPPORTED, "the test '%.*s' is not supported", (int)name.n, name.p);
}
