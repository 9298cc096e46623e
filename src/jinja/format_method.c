/*
 * format_method.c - 'a {} b {1} c {name}'.format(...).
 */
#include "builtins.h"

/* Fields are numbered by themselves or by the template, not both. */
struct fields {
    const args_t *args;
    int64_t next; /* the number of the next field without one */
    bool has_numbers;
};

/* A field's name as a number; -1: it is none. */
static int64_t field_number(string_t name)
{
    int64_t number = 0;
    if (name.n == 0 || name.n > 9)
        return -1;
    for (size_t i = 0; i < name.n; i++) {
        if (name.p[i] < '0' || name.p[i] > '9')
            return -1;
        number = number * 10 + (name.p[i] - '0');
    }
    return number;
}

static bool find_field(run_t *run, struct fields *fields, string_t name, const value_t **value)
{
    int64_t i = field_number(name);
    for (size_t k = 0; k < name.n; k++)
        if (strchr("!:.[{", name.p[k]) != NULL)
            return mb_jinja_bad_call(run, "format with more than a name between { and }");
    if (name.n == 0)
        i = fields->next++;
    else if (i >= 0)
        fields->has_numbers = true;
    if (fields->has_numbers && fields->next > 0)
        return mb_jinja_fail(run, MB_BAD_DATA, "format: some fields have numbers and some have none");
    *value = i < 0                         ? mb_jinja_find(fields->args->keywords.map, name)
             : (size_t)i < fields->args->n ? &fields->args->items[i]
                                           : NULL;
    return *value != NULL || mb_jinja_fail(run, MB_BAD_DATA, "format: there is no argument for {%.*s}",
                                           (int)(name.n > 60 ? 60 : name.n), name.p);
}

/* Writes what a field at text[*i], after its {, is; *i moves past its }. */
static bool write_field(run_t *run, struct fields *fields, string_t text, size_t *i, struct mb_bytes *bytes)
{
    const value_t *value = NULL;
    string_t shown;
    const char *end = memchr(text.p + *i, '}', text.n - *i);
    if (end == NULL)
        return mb_jinja_fail(run, MB_BAD_DATA, "format: a { without its }");
    string_t name = {text.p + *i, (size_t)(end - text.p) - *i};
    *i += name.n + 1;
    return find_field(run, fields, name, &value) && mb_jinja_str(run, value, &shown) &&
           mb_jinja_write(run, bytes, shown.p, shown.n);
}

static bool write_all(run_t *run, struct fields *fields, string_t text, struct mb_bytes *bytes)
{
    for (size_t i = 0; i < text.n;) {
        char c = text.p[i];
        bool is_brace = c == '{' || c == '}', is_double = is_brace && i + 1 < text.n && text.p[i + 1] == c;
        if (is_brace && !is_double && c == '}')
            return mb_jinja_fail(run, MB_BAD_DATA, "format: a } without its {");
        i += is_double ? 2 : 1;
        if (is_brace && !is_double ? !write_field(run, fields, text, &i, bytes)
                                   : !mb_jinja_write(run, bytes, &c, 1))
            return false;
    }
    return true;
}

bool mb_jinja_format_method(run_t *run, const value_t *input, const args_t *args, value_t *out)
{
    struct fields fields = {.args = args};
    struct mb_bytes bytes = {0};
    bool ok = write_all(run, &fields, input->string, &bytes);
    return mb_jinja_finish_text(run, &bytes, ok, out);
}
