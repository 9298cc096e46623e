/*
 * builtins.h - filters, tests, functions and methods by name.
 *
 * Each group is one table in a file of its own: filters.c, tests.c, functions.c, strings.c,
 * mappings.c, lists.c (methods and filters).  To
 * add one, write its function and a row of the table.
 */
#ifndef MB_JINJA_BUILTINS_H
#define MB_JINJA_BUILTINS_H

#include "value.h"

enum { MB_JINJA_ARGS_MAX = 16 };

typedef struct mb_jinja_args {
    value_t items[MB_JINJA_ARGS_MAX];
    size_t n;
    value_t keywords; /* a DICT */
} args_t;

/* 'input' is what a filter or test is applied to, a method's object; NULL for a function. */
typedef bool (*mb_jinja_builtin_fn)(run_t *run, const value_t *input, const args_t *args, value_t *out);

struct mb_jinja_builtin {
    const char *name;
    mb_jinja_builtin_fn call;
};

#define MB_JINJA_COUNT(array) (sizeof(array) / sizeof *(array))

static inline const struct mb_jinja_builtin *mb_jinja_find_in(const struct mb_jinja_builtin *table, size_t n,
                                                              string_t name)
{
    for (size_t i = 0; i < n; i++)
        if (mb_jinja_is(name, table[i].name))
            return &table[i];
    return NULL;
}

static inline bool mb_jinja_is_one_of(string_t name, const char *const *names, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (mb_jinja_is(name, names[i]))
            return true;
    return false;
}

/* ---------------------------------------------------------------- arguments */

/* The i-th argument or the keyword (NULL: none); NULL when neither is there. */
static inline const value_t *mb_jinja_argument(const args_t *args, size_t i, const char *keyword)
{
    if (i < args->n)
        return &args->items[i];
    return keyword == NULL ? NULL : mb_jinja_find(args->keywords.map, (string_t){keyword, strlen(keyword)});
}

/* "WHAT with these arguments is not supported". */
static inline bool mb_jinja_bad_call(run_t *run, const char *what)
{
    return mb_jinja_fail(run, MB_UNSUPPORTED, "%s with these arguments is not supported", what);
}

static inline bool mb_jinja_want_string(run_t *run, const value_t *value, const char *what, string_t *string)
{
    *string = (string_t){"", 0};
    if (value == NULL || value->kind != MB_JINJA_STRING)
        return mb_jinja_bad_call(run, what);
    *string = value->string;
    return true;
}

/* ---------------------------------------------------------------- the groups */

bool mb_jinja_filter(run_t *run, string_t name, const value_t *input, const args_t *args, value_t *out);

/* For filters that apply another one ("map"): the run knows it, so that lists.c does not need filters.c. */
struct mb_jinja_by_name {
    bool (*filter)(run_t *run, string_t name, const value_t *input, const args_t *args, value_t *out);
};

bool mb_jinja_test(run_t *run, string_t name, const value_t *input, const args_t *args, bool *answer);

/* NULL where the group has none of that name. */
const struct mb_jinja_builtin *mb_jinja_string_method(string_t name);
const struct mb_jinja_builtin *mb_jinja_dict_method(string_t name);
const struct mb_jinja_builtin *mb_jinja_list_method(string_t name);

bool mb_jinja_format_method(run_t *run, const value_t *input, const args_t *args, value_t *out);

/* Filters of sequences. */
const struct mb_jinja_builtin *mb_jinja_list_filter(string_t name);

/* Whether Python has such a method and this part has not: calling it is an error that names it. */
bool mb_jinja_is_other_string_method(string_t name);
bool mb_jinja_is_other_dict_method(string_t name);
bool mb_jinja_is_other_list_method(string_t name);

/* The functions that every template can call. */
extern const struct mb_jinja_builtin mb_jinja_functions[];
extern const size_t mb_jinja_n_functions;

/* A FUNCTION or METHOD. */
bool mb_jinja_call(run_t *run, const value_t *callee, const args_t *args, value_t *out);

/* object.name: an attribute or method first, or an item first (object['name']). */
bool mb_jinja_attribute(run_t *run, const value_t *object, string_t name, bool item_first, value_t *out);

/* The strings of a list joined; 'any_kind': other values are made strings first. */
bool mb_jinja_join_items(run_t *run, const list_t *items, string_t separator, bool any_kind, value_t *out);

#endif
