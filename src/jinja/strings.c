/*
 * strings.c - the methods of strings, as Python has them: characters are code points.
 */
#include "base/utf8.h"
#include "builtins.h"
#include <ctype.h>

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
    const value_t *set = mb_jinja_argument(args, 0, NULL);
    string_t chars, stripped;
    bool has_set = set != NULL && set->kind != MB_JINJA_NONE;
    if (has_set && !mb_jinja_want_string(run, set, "strip", &chars))
        return false;
    stripped = strip(string, has_set ? &chars : NULL, left, right);
    *out = mb_jinja_text(stripped.p, stripped.n);
    return mb_jinja_steps(run, string.n / 16);
}

static bool method_strip(run_t *run, const value_t *input, const args_t *args, value_t *out)
{
    return call_strip(run, input->string, args, true, true, out);
}

static bool method_lstrip(run_t *run, const value_t *input, const args_t *args, value_t *out)
{
    return call_strip(run, input->string, args, true, false, out);
}

static bool method_rstrip(run_t *run, const value_t *input, const args_t *args, value_t *out)
{
    return call_strip(run, input->string, args, false, true, out);
}

static bool append_text(run_t *run, list_t *list, const char *p, size_t n)
{
    return mb_jinja_append(run, list, mb_jinja_text(p, n));
}

/* split(): at runs of white space, none at the ends. */
static bool split_words(run_t *run, string_t string, list_t *list)
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

static bool method_split(run_t *run, const value_t *input, const args_t *args, value_t *out)
{
    string_t string = input->string;
    const value_t *sep = mb_jinja_argument(args, 0, "sep"), *max = mb_jinja_argument(args, 1, "maxsplit");
    bool by_words = sep == NULL || sep->kind == MB_JINJA_NONE;
    if (!mb_jinja_new_list(run, out) || !mb_jinja_steps(run, string.n / 16))
        return false;
    if ((max != NULL && (max->kind != MB_JINJA_INT || by_words)) ||
        (!by_words && (sep->kind != MB_JINJA_STRING || sep->string.n == 0)))
        return mb_jinja_bad_call(run, "split");
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
    const value_t *with = mb_jinja_argument(args, 0, NULL);
    if (with == NULL || args->n != 1 || (with->kind != MB_JINJA_STRING && with->kind != MB_JINJA_LIST))
        return mb_jinja_bad_call(run, "startswith or endswith");
    size_t n = with->kind == MB_JINJA_LIST ? with->list->n : 1;
    bool answer = false;
    for (size_t i = 0; i < n; i++) {
        string_t one;
        if (!mb_jinja_want_string(run, with->kind == MB_JINJA_LIST ? &with->list->items[i] : with,
                                  "startswith or endswith", &one))
            return false;
        answer = answer || fits(string, one);
    }
    *out = mb_jinja_bool(answer);
    return true;
}

static bool method_startswith(run_t *run, const value_t *input, const args_t *args, value_t *out)
{
    return test_edge(run, input->string, args, begins, out);
}

static bool method_endswith(run_t *run, const value_t *input, const args_t *args, value_t *out)
{
    return test_edge(run, input->string, args, ends, out);
}

static bool method_replace(run_t *run, const value_t *input, const args_t *args, value_t *out)
{
    string_t string = input->string, old, new;
    struct mb_bytes bytes = {0};
    if (!mb_jinja_want_string(run, mb_jinja_argument(args, 0, NULL), "replace", &old) ||
        !mb_jinja_want_string(run, mb_jinja_argument(args, 1, NULL), "replace", &new))
        return false;
    if (args->n != 2 || old.n == 0)
        return mb_jinja_bad_call(run, "replace");
    bool ok = true;
    const char *hit;
    while (ok && (hit = memmem(string.p, string.n, old.p, old.n)) != NULL) {
        size_t n = (size_t)(hit - string.p);
        ok = mb_jinja_write(run, &bytes, string.p, n) && mb_jinja_write(run, &bytes, new.p, new.n);
        string.p += n + old.n;
        string.n -= n + old.n;
    }
    ok = ok && mb_jinja_write(run, &bytes, string.p, string.n);
    return mb_jinja_finish_text(run, &bytes, ok, out);
}

/* The first n_upper characters in upper case, the others in lower case. */
static bool change_case(run_t *run, string_t string, size_t n_upper, value_t *out)
{
    char *copy = mb_jinja_alloc(run, string.n);
    if (copy == NULL)
        return false;
    for (size_t i = 0; i < string.n; i++) {
        if ((uint8_t)string.p[i] >= 0x80)
            return mb_jinja_fail(run, MB_UNSUPPORTED, "upper or lower case beyond ASCII is not supported");
        copy[i] =
            (char)(i < n_upper ? toupper((unsigned char)string.p[i]) : tolower((unsigned char)string.p[i]));
    }
    *out = mb_jinja_text(copy, string.n);
    return mb_jinja_steps(run, string.n);
}

static bool method_upper(run_t *run, const value_t *input, const args_t *args, value_t *out)
{
    return args->n == 0 ? change_case(run, input->string, SIZE_MAX, out) : mb_jinja_bad_call(run, "upper");
}

static bool method_lower(run_t *run, const value_t *input, const args_t *args, value_t *out)
{
    return args->n == 0 ? change_case(run, input->string, 0, out) : mb_jinja_bad_call(run, "lower");
}

static bool method_capitalize(run_t *run, const value_t *input, const args_t *args, value_t *out)
{
    return args->n == 0 ? change_case(run, input->string, 1, out) : mb_jinja_bad_call(run, "capitalize");
}

bool mb_jinja_join_items(run_t *run, const list_t *items, string_t separator, bool any_kind, value_t *out)
{
    struct mb_bytes bytes = {0};
    bool ok = true;
    for (size_t i = 0; ok && i < items->n; i++) {
        string_t text;
        if (!any_kind && items->items[i].kind != MB_JINJA_STRING)
            ok = mb_jinja_fail(run, MB_BAD_DATA, "join takes strings, and one item is a %s",
                               mb_jinja_kind_name(items->items[i].kind));
        ok = ok && mb_jinja_str(run, &items->items[i], &text) &&
             (i == 0 || mb_jinja_write(run, &bytes, separator.p, separator.n)) &&
             mb_jinja_write(run, &bytes, text.p, text.n);
    }
    return mb_jinja_finish_text(run, &bytes, ok, out);
}

static bool method_join(run_t *run, const value_t *input, const args_t *args, value_t *out)
{
    list_t *items;
    if (args->n != 1)
        return mb_jinja_bad_call(run, "join");
    return mb_jinja_items(run, &args->items[0], &items) &&
           mb_jinja_join_items(run, items, input->string, false, out);
}

static bool method_removeprefix(run_t *run, const value_t *input, const args_t *args, value_t *out)
{
    string_t string = input->string, edge;
    if (!mb_jinja_want_string(run, mb_jinja_argument(args, 0, NULL), "removeprefix", &edge))
        return false;
    size_t skip = begins(string, edge) ? edge.n : 0;
    *out = mb_jinja_text(string.p + skip, string.n - skip);
    return true;
}

static bool method_removesuffix(run_t *run, const value_t *input, const args_t *args, value_t *out)
{
    string_t string = input->string, edge;
    if (!mb_jinja_want_string(run, mb_jinja_argument(args, 0, NULL), "removesuffix", &edge))
        return false;
    *out = mb_jinja_text(string.p, string.n - (ends(string, edge) ? edge.n : 0));
    return true;
}

const struct mb_jinja_builtin *mb_jinja_string_method(string_t name)
{
    static const struct mb_jinja_builtin methods[] = {
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
    return mb_jinja_find_in(methods, MB_JINJA_COUNT(methods), name);
}

bool mb_jinja_is_other_string_method(string_t name)
{
    static const char *const names[] = {
        "title",     "swapcase",   "casefold",   "center",  "count",    "encode",    "expandtabs", "find",
        "format",    "index",      "isalnum",    "isalpha", "isascii",  "isdecimal", "isdigit",    "islower",
        "isspace",   "isupper",    "ljust",      "rjust",   "rsplit",   "rfind",     "rindex",     "zfill",
        "partition", "rpartition", "splitlines", "istitle", "isnumeric"};
    return mb_jinja_is_one_of(name, names, MB_JINJA_COUNT(names));
}
