/*
 * filters.c - the filters: value | name(arguments).
 */
#include "base/number.h"
#include "builtins.h"
#include "operators.h"
#include "safe_text.h"
#include <ctype.h>
#include <math.h>

static bool filter_length(run_t *run, const value_t *input, const args_t *args, value_t *out)
{
    (void)args;
    switch (input->kind) {
    case MB_JINJA_STRING:
        *out = mb_jinja_int((int64_t)mb_jinja_n_chars(input->string));
        return mb_jinja_steps(run, input->string.n / 16);
    case MB_JINJA_LIST:
        if (input->list->form == MB_JINJA_ITERATOR)
            return mb_jinja_fail(run, MB_BAD_DATA, "an iterator has no length: use | list");
        *out = mb_jinja_int((int64_t)input->list->n);
        return true;
    case MB_JINJA_DICT:
        *out = mb_jinja_int((int64_t)input->map->n);
        return true;
    case MB_JINJA_UNDEFINED:
        *out = mb_jinja_int(0);
        return true;
    default:
        return mb_jinja_fail(run, MB_BAD_DATA, "a %s has no length", mb_jinja_kind_name(input->kind));
    }
}

static bool filter_default(run_t *run, const value_t *input, const args_t *args, value_t *out)
{
    (void)run;
    const value_t *otherwise = mb_jinja_argument(args, 0, "default_value"),
                  *boolean = mb_jinja_argument(args, 1, "boolean");
    bool by_truth = boolean != NULL && mb_jinja_is_true(boolean);
    bool use_other = input->kind == MB_JINJA_UNDEFINED || (by_truth && !mb_jinja_is_true(input));
    *out = !use_other ? *input : otherwise != NULL ? *otherwise : mb_jinja_text("", 0);
    return true;
}

/* The separators as json.dumps takes them: a pair of strings, or none. */
static bool json_separators(run_t *run, const value_t *pair, struct mb_jinja_json_style *style)
{
    if (pair == NULL || pair->kind == MB_JINJA_NONE)
        return true;
    if (pair->kind != MB_JINJA_LIST || pair->list->n != 2)
        return mb_jinja_bad_call(run, "tojson");
    return mb_jinja_want_string(run, &pair->list->items[0], "tojson", &style->between) &&
           mb_jinja_want_string(run, &pair->list->items[1], "tojson", &style->colon);
}

/* As transformers overrides it. */
static bool filter_tojson(run_t *run, const value_t *input, const args_t *args, value_t *out)
{
    static const char *const names[] = {"ensure_ascii", "indent", "separators", "sort_keys"};
    const value_t *given[4];
    size_t n_given = 0;
    for (size_t i = 0; i < 4; i++) {
        given[i] = mb_jinja_argument(args, i, names[i]);
        n_given += given[i] != NULL;
    }
    const value_t *indent = given[1];
    bool has_indent = indent != NULL && indent->kind != MB_JINJA_NONE;
    if (n_given != args->n + args->keywords.map->n || (has_indent && !mb_jinja_is_whole(indent)) ||
        (has_indent && indent->number > 16))
        return mb_jinja_bad_call(run, "tojson");
    struct mb_jinja_json_style style = {.indent = !has_indent          ? -1
                                                  : indent->number < 0 ? 0
                                                                       : (int)indent->number,
                                        .ascii = given[0] != NULL && mb_jinja_is_true(given[0]),
                                        .sorted = given[3] != NULL && mb_jinja_is_true(given[3]),
                                        .between = {", ", has_indent ? 1 : 2},
                                        .colon = {": ", 2}};
    return json_separators(run, given[2], &style) && mb_jinja_json(run, input, &style, out);
}

static bool filter_string(run_t *run, const value_t *input, const args_t *args, value_t *out)
{
    string_t text;
    (void)args;
    if (!mb_jinja_str(run, input, &text))
        return false;
    *out = mb_jinja_text(text.p, text.n);
    out->is_safe = input->kind == MB_JINJA_STRING && input->is_safe;
    return true;
}

static bool filter_safe(run_t *run, const value_t *input, const args_t *args, value_t *out)
{
    if (!filter_string(run, input, args, out))
        return false;
    out->is_safe = true;
    return true;
}

/* A string method that is a filter too; the input is made a string first, as Jinja does. */
static bool filter_by_method(run_t *run, const value_t *input, const args_t *args, const char *name,
                             value_t *out)
{
    value_t text;
    const struct mb_jinja_builtin *method = mb_jinja_string_method((string_t){name, strlen(name)});
    assert(method != NULL);
    if (!filter_string(run, input, args, &text) || !method->call(run, &text, args, out))
        return false;
    out->is_safe = text.is_safe;
    return true;
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
    if (!filter_by_method(run, input, args, "replace", out))
        return false;
    out->is_safe = false;
    return true;
}

static bool filter_items(run_t *run, const value_t *input, const args_t *args, value_t *out)
{
    if (input->kind == MB_JINJA_UNDEFINED)
        return mb_jinja_new_form(run, MB_JINJA_ITERATOR, out);
    if (input->kind != MB_JINJA_DICT)
        return mb_jinja_fail(run, MB_BAD_DATA, "a %s has no items", mb_jinja_kind_name(input->kind));
    if (!mb_jinja_dict_method((string_t){"items", 5})->call(run, input, args, out))
        return false;
    out->list->form = MB_JINJA_ITERATOR;
    return true;
}

/* A decimal number in a string as Python's int and float read it: spaces around, a sign. */
static string_t trim_number(string_t string)
{
    while (string.n > 0 && mb_jinja_is_space((unsigned char)string.p[0])) {
        string.p++;
        string.n--;
    }
    while (string.n > 0 && mb_jinja_is_space((unsigned char)string.p[string.n - 1]))
        string.n--;
    return string;
}

static bool read_int(string_t string, int64_t *number)
{
    string = trim_number(string);
    size_t i = string.n > 0 && (string.p[0] == '-' || string.p[0] == '+');
    bool is_negative = i > 0 && string.p[0] == '-', ok = i < string.n;
    *number = 0;
    for (; ok && i < string.n; i++)
        ok = string.p[i] >= '0' && string.p[i] <= '9' && !__builtin_mul_overflow(*number, 10, number) &&
             !__builtin_sub_overflow(*number, string.p[i] - '0', number);
    if (ok && !is_negative)
        ok = !__builtin_sub_overflow(0, *number, number);
    return ok;
}

static bool read_real(const value_t *value, double *real)
{
    if (mb_jinja_is_number(value))
        *real = mb_jinja_real(value);
    else if (value->kind != MB_JINJA_STRING)
        return false;
    else {
        string_t text = trim_number(value->string);
        return mb_number_parse(text.p, text.n, real);
    }
    return true;
}

/* What is no number gives the default, 0. */
static bool filter_int(run_t *run, const value_t *input, const args_t *args, value_t *out)
{
    const value_t *otherwise = mb_jinja_argument(args, 0, "default");
    int64_t number;
    double real;
    if (args->n > 1 || (args->keywords.map->n > 0 && otherwise == NULL))
        return mb_jinja_bad_call(run, "int");
    *out = otherwise != NULL ? *otherwise : mb_jinja_int(0);
    if (mb_jinja_is_whole(input))
        *out = mb_jinja_int(input->number);
    else if (input->kind == MB_JINJA_STRING && read_int(input->string, &number))
        *out = mb_jinja_int(number);
    else if (read_real(input, &real)) {
        if (!(real > -0x1p63 && real < 0x1p63))
            return mb_jinja_fail(run, MB_UNSUPPORTED, "a number over 64 bits is not supported");
        *out = mb_jinja_int((int64_t)real);
    }
    return true;
}

static bool filter_float(run_t *run, const value_t *input, const args_t *args, value_t *out)
{
    const value_t *otherwise = mb_jinja_argument(args, 0, "default");
    double real;
    if (args->n > 1)
        return mb_jinja_bad_call(run, "float");
    *out = otherwise != NULL ? *otherwise : mb_jinja_float(0);
    if (read_real(input, &real))
        *out = mb_jinja_float(real);
    return true;
}

static bool filter_abs(run_t *run, const value_t *input, const args_t *args, value_t *out)
{
    if (args->n > 0 || !mb_jinja_is_number(input) || (mb_jinja_is_whole(input) && input->number == INT64_MIN))
        return mb_jinja_bad_call(run, "abs");
    *out = input->kind == MB_JINJA_FLOAT ? mb_jinja_float(fabs(input->real))
                                         : mb_jinja_int(input->number < 0 ? -input->number : input->number);
    return true;
}

/* To the nearest, of two the even one, as Python; whole numbers stay whole. */
static bool filter_round(run_t *run, const value_t *input, const args_t *args, value_t *out)
{
    const value_t *precision = mb_jinja_argument(args, 0, "precision"),
                  *method = mb_jinja_argument(args, 1, "method");
    char text[400];
    double real;
    if (!mb_jinja_is_number(input) ||
        (precision != NULL &&
         (!mb_jinja_is_whole(precision) || precision->number < 0 || precision->number > 15)) ||
        (method != NULL && (method->kind != MB_JINJA_STRING || !mb_jinja_is(method->string, "common"))))
        return mb_jinja_bad_call(run, "round");
    *out = *input;
    if (mb_jinja_is_whole(input))
        *out = mb_jinja_int(input->number);
    int n_digits = precision == NULL ? 0 : (int)precision->number;
    if (input->kind != MB_JINJA_FLOAT || fabs(input->real) >= 0x1p53)
        return true;
    int n = mb_number_format(text, sizeof text, "%.*f", n_digits, input->real);
    if (mb_number_parse(text, (size_t)n, &real))
        *out = mb_jinja_float(real);
    return true;
}

/* Lines after the first (first=true: that too) begin with a width of spaces; empty ones only with blank=true.
 */
static bool filter_indent(run_t *run, const value_t *input, const args_t *args, value_t *out)
{
    const value_t *width = mb_jinja_argument(args, 0, "width"), *first = mb_jinja_argument(args, 1, "first"),
                  *blank = mb_jinja_argument(args, 2, "blank");
    value_t by = mb_jinja_text("    ", 4);
    struct mb_bytes bytes = {0};
    if (input->kind == MB_JINJA_STRING && input->is_safe)
        return mb_jinja_fail_safe(run, "indent");
    if (input->kind != MB_JINJA_STRING || (width != NULL && width->kind != MB_JINJA_STRING &&
                                           (!mb_jinja_is_whole(width) || width->number > 1000)))
        return mb_jinja_bad_call(run, "indent");
    if (width != NULL && width->kind == MB_JINJA_STRING)
        by = *width;
    else if (width != NULL) {
        value_t space = mb_jinja_text(" ", 1);
        if (!mb_jinja_binary(run, MB_JINJA_MUL, &space, width, &by))
            return false;
    }
    string_t text = input->string;
    bool indents_first = first != NULL && mb_jinja_is_true(first), ok = true;
    bool indents_blank = blank != NULL && mb_jinja_is_true(blank);
    for (size_t i = 0; ok; i++) {
        const char *end = memchr(text.p, '\n', text.n);
        size_t n = end == NULL ? text.n : (size_t)(end - text.p);
        bool indents = i == 0 ? indents_first : n > 0 || indents_blank;
        if (memchr(text.p, '\r', n) != NULL)
            ok = mb_jinja_bad_call(run, "indent");
        ok = ok && (!indents || mb_jinja_write(run, &bytes, by.string.p, by.string.n)) &&
             mb_jinja_write(run, &bytes, text.p, n + (end != NULL));
        if (end == NULL)
            break;
        text.p += n + 1;
        text.n -= n + 1;
    }
    return mb_jinja_finish_text(run, &bytes, ok, out);
}

static bool filter_escape(run_t *run, const value_t *input, const args_t *args, value_t *out)
{
    string_t text;
    *out = *input;
    if (input->kind == MB_JINJA_STRING && input->is_safe)
        return true;
    if (args->n > 0 || !mb_jinja_str(run, input, &text))
        return mb_jinja_bad_call(run, "escape");
    return mb_jinja_escape(run, text, out);
}

static bool filter_wordcount(run_t *run, const value_t *input, const args_t *args, value_t *out)
{
    (void)args;
    string_t text;
    bool in_word = false;
    int64_t n_words = 0;
    if (!mb_jinja_str(run, input, &text))
        return false;
    for (size_t i = 0; i < text.n; i++) {
        unsigned char c = (unsigned char)text.p[i];
        bool is_word = c == '_' || isalnum(c);
        if (c >= 0x80)
            return mb_jinja_bad_call(run, "wordcount of a text beyond ASCII");
        n_words += is_word && !in_word;
        in_word = is_word;
    }
    *out = mb_jinja_int(n_words);
    return true;
}

static bool filter_title(run_t *run, const value_t *input, const args_t *args, value_t *out)
{
    string_t text;
    if (args->n > 0 || !mb_jinja_str(run, input, &text))
        return mb_jinja_bad_call(run, "title");
    char *copy = mb_jinja_alloc(run, text.n);
    if (copy == NULL)
        return false;
    bool begins = true; /* Jinja: after white space, -, (, {, [ and < */
    for (size_t i = 0; i < text.n; i++) {
        unsigned char c = (unsigned char)text.p[i];
        if (c >= 0x80)
            return mb_jinja_bad_call(run, "title of a text beyond ASCII");
        copy[i] = (char)(begins ? toupper(c) : tolower(c));
        begins = mb_jinja_is_space(c) || c == '-' || c == '(' || c == '{' || c == '[' || c == '<';
    }
    *out = mb_jinja_text(copy, text.n);
    return mb_jinja_steps(run, text.n);
}

/* value.name, or value['name']. */
static bool filter_attr(run_t *run, const value_t *input, const args_t *args, value_t *out)
{
    string_t name;
    if (input->kind == MB_JINJA_DICT ||
        !mb_jinja_want_string(run, mb_jinja_argument(args, 0, "name"), "attr", &name))
        return mb_jinja_bad_call(run, "attr");
    return mb_jinja_attribute(run, input, name, false, out);
}

bool mb_jinja_filter(run_t *run, string_t name, const value_t *input, const args_t *args, value_t *out)
{
    static const struct mb_jinja_builtin filters[] = {
        {"length", filter_length},
        {"count", filter_length},
        {"default", filter_default},
        {"d", filter_default},
        {"tojson", filter_tojson},
        {"trim", filter_trim},
        {"string", filter_string},
        {"safe", filter_safe},
        {"upper", filter_upper},
        {"lower", filter_lower},
        {"capitalize", filter_capitalize},
        {"replace", filter_replace},
        {"items", filter_items},
        {"int", filter_int},
        {"float", filter_float},
        {"abs", filter_abs},
        {"round", filter_round},
        {"indent", filter_indent},
        {"escape", filter_escape},
        {"e", filter_escape},
        {"wordcount", filter_wordcount},
        {"title", filter_title},
        {"attr", filter_attr},
    };
    const struct mb_jinja_builtin *filter = mb_jinja_find_in(filters, MB_JINJA_COUNT(filters), name);
    if (filter == NULL)
        filter = mb_jinja_list_filter(name);
    if (filter != NULL)
        return mb_jinja_steps(run, 1) && filter->call(run, input, args, out);
    return mb_jinja_fail(run, MB_UNSUPPORTED, "the filter '%.*s' is not supported", (int)name.n, name.p);
}
