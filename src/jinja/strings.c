/*
 * strings.c - the methods of strings, as Python has them: characters are code points.
 */
#include "base/utf8.h"
#include "builtins.h"
#include <ctype.h>
#include <utf8proc.h>

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

/* split(): at runs of white space, none at the ends; what is left after n_max splits keeps its own. */
static bool split_words(run_t *run, string_t string, int64_t n_max, list_t *list)
{
    for (string = strip(string, NULL, true, false); string.n > 0; string = strip(string, NULL, true, false)) {
        size_t i = 0;
        if (n_max-- == 0)
            return append_text(run, list, string.p, string.n);
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
    if ((max != NULL && max->kind != MB_JINJA_INT) ||
        (!by_words && (sep->kind != MB_JINJA_STRING || sep->string.n == 0)))
        return mb_jinja_bad_call(run, "split");
    int64_t n_left = max == NULL || max->number < 0 ? INT64_MAX : max->number;
    if (by_words)
        return split_words(run, string, n_left, out->list);
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

/* The last place of 'what', or NULL. */
static const char *find_last(string_t string, string_t what)
{
    const char *found = NULL;
    for (size_t i = string.n + 1; found == NULL && i > what.n; i--)
        if (memcmp(string.p + (i - 1 - what.n), what.p, what.n) == 0)
            found = string.p + (i - 1 - what.n);
    return found;
}

/* From the end; the parts come in their order. By a separator alone, unless all words are split. */
static bool method_rsplit(run_t *run, const value_t *input, const args_t *args, value_t *out)
{
    string_t string = input->string;
    const value_t *sep = mb_jinja_argument(args, 0, "sep"), *max = mb_jinja_argument(args, 1, "maxsplit");
    value_t parts;
    if (max == NULL || (max->kind == MB_JINJA_INT && max->number < 0))
        return method_split(run, input, args, out);
    if (sep == NULL || sep->kind != MB_JINJA_STRING || sep->string.n == 0 || max->kind != MB_JINJA_INT)
        return mb_jinja_bad_call(run, "rsplit");
    if (!mb_jinja_new_list(run, &parts))
        return false;
    for (int64_t n_left = max->number; n_left > 0; n_left--) {
        const char *hit = find_last(string, sep->string);
        if (!mb_jinja_steps(run, string.n / 16 + 1))
            return false;
        if (hit == NULL)
            break;
        const char *begin = hit + sep->string.n;
        if (!append_text(run, parts.list, begin, (size_t)(string.p + string.n - begin)))
            return false;
        string.n = (size_t)(hit - string.p);
    }
    if (!append_text(run, parts.list, string.p, string.n) || !mb_jinja_new_list(run, out))
        return false;
    for (size_t i = parts.list->n; i > 0; i--)
        if (!mb_jinja_append(run, out->list, parts.list->items[i - 1]))
            return false;
    return true;
}

/* (before, separator, after); where there is none, all is before, or after from the end. */
static bool cut_in_three(run_t *run, const value_t *input, const args_t *args, bool last, value_t *out)
{
    string_t string = input->string, sep;
    if (args->n != 1 || !mb_jinja_want_string(run, &args->items[0], "partition", &sep) || sep.n == 0)
        return mb_jinja_bad_call(run, "partition");
    const char *hit = last ? find_last(string, sep) : memmem(string.p, string.n, sep.p, sep.n);
    size_t before = hit == NULL ? (last ? 0 : string.n) : (size_t)(hit - string.p);
    size_t middle = hit == NULL ? 0 : sep.n;
    return mb_jinja_steps(run, string.n / 16) && mb_jinja_new_form(run, MB_JINJA_TUPLE, out) &&
           append_text(run, out->list, string.p, before) &&
           append_text(run, out->list, string.p + before, middle) &&
           append_text(run, out->list, string.p + before + middle, string.n - before - middle);
}

static bool method_partition(run_t *run, const value_t *input, const args_t *args, value_t *out)
{
    return cut_in_three(run, input, args, false, out);
}

static bool method_rpartition(run_t *run, const value_t *input, const args_t *args, value_t *out)
{
    return cut_in_three(run, input, args, true, out);
}

/* Lines without their ends: \n, \r, \r\n; Python's rarer ends of lines are refused. */
static bool method_splitlines(run_t *run, const value_t *input, const args_t *args, value_t *out)
{
    string_t string = input->string;
    const value_t *keep = mb_jinja_argument(args, 0, "keepends");
    bool keeps = keep != NULL && mb_jinja_is_true(keep);
    if (!mb_jinja_new_list(run, out) || !mb_jinja_steps(run, string.n / 16))
        return false;
    for (size_t i = 0; i < string.n; i += mb_utf8_nbytes(string.p[i])) {
        uint32_t code = mb_utf8_get(string.p + i);
        if (code == 0x0b || code == 0x0c || (code >= 0x1c && code <= 0x1e) || code == 0x85 ||
            code == 0x2028 || code == 0x2029)
            return mb_jinja_bad_call(run, "splitlines of a text with rare ends of lines");
    }
    while (string.n > 0) {
        size_t n = 0, n_end;
        while (n < string.n && string.p[n] != '\n' && string.p[n] != '\r')
            n++;
        n_end = n < string.n;
        n_end += n + 1 < string.n && string.p[n] == '\r' && string.p[n + 1] == '\n';
        if (!append_text(run, out->list, string.p, n + (keeps ? n_end : 0)))
            return false;
        string.p += n + n_end;
        string.n -= n + n_end;
    }
    return true;
}

static bool find_from(run_t *run, const value_t *input, const args_t *args, bool last, value_t *out)
{
    string_t string = input->string, what;
    if (args->n != 1 || !mb_jinja_want_string(run, &args->items[0], "find", &what))
        return mb_jinja_bad_call(run, "find");
    const char *hit = last ? find_last(string, what) : memmem(string.p, string.n, what.p, what.n);
    *out = mb_jinja_int(
        hit == NULL ? -1 : (int64_t)mb_jinja_n_chars((string_t){string.p, (size_t)(hit - string.p)}));
    return mb_jinja_steps(run, string.n / 16);
}

static bool method_find(run_t *run, const value_t *input, const args_t *args, value_t *out)
{
    return find_from(run, input, args, false, out);
}

static bool method_rfind(run_t *run, const value_t *input, const args_t *args, value_t *out)
{
    return find_from(run, input, args, true, out);
}

static bool method_index(run_t *run, const value_t *input, const args_t *args, value_t *out)
{
    return find_from(run, input, args, false, out) &&
           (out->number >= 0 || mb_jinja_fail(run, MB_BAD_DATA, "index: the text is not there"));
}

static bool method_count(run_t *run, const value_t *input, const args_t *args, value_t *out)
{
    string_t string = input->string, what;
    int64_t n_hits = 0;
    const char *hit;
    if (args->n != 1 || !mb_jinja_want_string(run, &args->items[0], "count", &what) || what.n == 0)
        return mb_jinja_bad_call(run, "count");
    for (; (hit = memmem(string.p, string.n, what.p, what.n)) != NULL; n_hits++) {
        string.n -= (size_t)(hit - string.p) + what.n;
        string.p = hit + what.n;
    }
    *out = mb_jinja_int(n_hits);
    return mb_jinja_steps(run, input->string.n / 16);
}

/* Whether there are characters, all of them of the kind. */
static bool all_are(run_t *run, const value_t *input, int (*is)(int c), value_t *out)
{
    string_t string = input->string;
    bool all = string.n > 0;
    for (size_t i = 0; i < string.n; i++) {
        if ((uint8_t)string.p[i] >= 0x80)
            return mb_jinja_fail(run, MB_UNSUPPORTED, "kinds of characters beyond ASCII are not supported");
        all = all && is((unsigned char)string.p[i]);
    }
    *out = mb_jinja_bool(all);
    return mb_jinja_steps(run, string.n / 16);
}

static bool method_isdigit(run_t *run, const value_t *input, const args_t *args, value_t *out)
{
    return args->n == 0 ? all_are(run, input, isdigit, out) : mb_jinja_bad_call(run, "isdigit");
}

static bool method_isalpha(run_t *run, const value_t *input, const args_t *args, value_t *out)
{
    return args->n == 0 ? all_are(run, input, isalpha, out) : mb_jinja_bad_call(run, "isalpha");
}

static bool method_isalnum(run_t *run, const value_t *input, const args_t *args, value_t *out)
{
    return args->n == 0 ? all_are(run, input, isalnum, out) : mb_jinja_bad_call(run, "isalnum");
}

static bool method_isspace(run_t *run, const value_t *input, const args_t *args, value_t *out)
{
    string_t string = input->string;
    bool all = string.n > 0;
    for (size_t i = 0; all && i < string.n; i += mb_utf8_nbytes(string.p[i]))
        all = mb_jinja_is_space(mb_utf8_get(string.p + i));
    *out = mb_jinja_bool(all);
    return args->n == 0 ? mb_jinja_steps(run, string.n / 16) : mb_jinja_bad_call(run, "isspace");
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
    const value_t *count = mb_jinja_argument(args, 2, "count");
    bool has_count = count != NULL && count->kind != MB_JINJA_NONE;
    if (args->n > 3 || old.n == 0 || (has_count && !mb_jinja_is_whole(count)))
        return mb_jinja_bad_call(run, "replace");
    int64_t n_left = !has_count || count->number < 0 ? INT64_MAX : count->number;
    bool ok = true;
    const char *hit;
    while (ok && n_left-- > 0 && (hit = memmem(string.p, string.n, old.p, old.n)) != NULL) {
        size_t n = (size_t)(hit - string.p);
        ok = mb_jinja_write(run, &bytes, string.p, n) && mb_jinja_write(run, &bytes, new.p, new.n);
        string.p += n + old.n;
        string.n -= n + old.n;
    }
    ok = ok && mb_jinja_write(run, &bytes, string.p, string.n);
    return mb_jinja_finish_text(run, &bytes, ok, out);
}

/* Python's upper and lower change one character into several, or by what is around it: not here. */
static bool has_special_case(uint32_t c)
{
    return c == 0xdf || c == 0x130 || c == 0x149 || c == 0x1f0 || c == 0x390 || c == 0x3a3 || c == 0x3b0 ||
           c == 0x587 || (c >= 0x1e96 && c <= 0x1e9e) || (c >= 0x1f50 && c <= 0x1fff) ||
           (c >= 0xfb00 && c <= 0xfb17);
}

/* The first n_upper characters in upper case, the others in lower case. */
static bool change_case(run_t *run, string_t string, size_t n_upper, value_t *out)
{
    struct mb_bytes bytes = {0};
    bool ok = true;
    for (size_t i = 0, n = 0; ok && i < string.n; i += mb_utf8_nbytes(string.p[i]), n++) {
        char text[4];
        uint32_t code = mb_utf8_get(string.p + i);
        if (has_special_case(code))
            ok = mb_jinja_fail(run, MB_UNSUPPORTED, "upper or lower case of U+%04X is not supported",
                               (unsigned)code);
        code = (uint32_t)(n < n_upper ? utf8proc_toupper((utf8proc_int32_t)code)
                                      : utf8proc_tolower((utf8proc_int32_t)code));
        ok = ok && mb_jinja_write(run, &bytes, text, mb_utf8_put(text, code));
    }
    ok = ok && mb_jinja_steps(run, string.n);
    return mb_jinja_finish_text(run, &bytes, ok, out);
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

/* A letter after none is upper case, others are lower case. */
static bool method_title(run_t *run, const value_t *input, const args_t *args, value_t *out)
{
    string_t string = input->string;
    char *copy = mb_jinja_alloc(run, string.n);
    bool in_word = false;
    if (copy == NULL || args->n > 0)
        return mb_jinja_bad_call(run, "title");
    for (size_t i = 0; i < string.n; i++) {
        unsigned char c = (unsigned char)string.p[i];
        if (c >= 0x80)
            return mb_jinja_bad_call(run, "title of a text beyond ASCII");
        copy[i] = (char)(in_word ? tolower(c) : toupper(c));
        in_word = isalpha(c) != 0;
    }
    *out = mb_jinja_text(copy, string.n);
    return mb_jinja_steps(run, string.n);
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
        {"title", method_title},
        {"rsplit", method_rsplit},
        {"partition", method_partition},
        {"rpartition", method_rpartition},
        {"splitlines", method_splitlines},
        {"find", method_find},
        {"rfind", method_rfind},
        {"index", method_index},
        {"count", method_count},
        {"isdigit", method_isdigit},
        {"isalpha", method_isalpha},
        {"isalnum", method_isalnum},
        {"isspace", method_isspace},
        {"format", mb_jinja_format_method},
    };
    return mb_jinja_find_in(methods, MB_JINJA_COUNT(methods), name);
}

bool mb_jinja_is_other_string_method(string_t name)
{
    static const char *const names[] = {"swapcase",   "casefold",  "center",  "encode",  "expandtabs",
                                        "isascii",    "isdecimal", "islower", "isupper", "istitle",
                                        "isnumeric",  "ljust",     "rjust",   "rindex",  "zfill",
                                        "format_map", "translate"};
    return mb_jinja_is_one_of(name, names, MB_JINJA_COUNT(names));
}
