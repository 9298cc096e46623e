/*
 * evaluate.c - the values of expressions.
 *
 * Evaluation goes down the tree, whose height the parser has bounded.
 */
#include "evaluate.h"
#include "operators.h"

typedef struct mb_jinja_node node;

/* ---------------------------------------------------------------- variables */

/* The last variable of that name in stack[from .. to). */
static value_t *find_between(struct mb_jinja_eval *e, string_t name, size_t from, size_t to)
{
    for (size_t i = to; i > from; i--)
        if (mb_jinja_is_string(e->stack.entries[i - 1].key, name))
            return &e->stack.entries[i - 1].value;
    return NULL;
}

static value_t *find_variable(struct mb_jinja_eval *e, string_t name)
{
    value_t *found = find_between(e, name, e->scope, e->stack.n);
    return found != NULL || e->scope == 0 ? found : find_between(e, name, 0, e->n_outer);
}

/* Sets a variable of the innermost frame. */
bool mb_jinja_set_variable(struct mb_jinja_eval *e, string_t name, value_t value)
{
    value_t *old = find_between(e, name, e->frame, e->stack.n);
    if (old != NULL) {
        *old = value;
        return true;
    }
    void *entries = e->stack.entries;
    bool ok = mb_grow(&entries, &e->stack.cap, e->stack.n, 1, sizeof *e->stack.entries);
    e->stack.entries = entries;
    if (!ok)
        return mb_jinja_fail(e->run, MB_NO_MEMORY, "out of memory for the variables of the template");
    assert(e->stack.entries != NULL);
    e->stack.entries[e->stack.n++] = (struct mb_jinja_entry){name, value};
    if (e->frame == 0)
        e->n_outer = e->stack.n;
    return true;
}

/* ---------------------------------------------------------------- operators and subscripts */

/* a < b < c compares neighbours, up to the first that fails. */
static bool eval_compare(struct mb_jinja_eval *e, const node *n, value_t *out)
{
    value_t left, right;
    bool answer = true;
    if (!mb_jinja_evaluate(e, n->a, &left))
        return false;
    for (size_t i = 0; answer && i < n->n_items; i++) {
        if (!mb_jinja_evaluate(e, n->items[i]->a, &right) ||
            !mb_jinja_compare(e->run, n->items[i]->op, &left, &right, &answer))
            return false;
        left = right;
    }
    *out = mb_jinja_bool(answer);
    return true;
}

static bool eval_index(struct mb_jinja_eval *e, const node *n, value_t *out)
{
    value_t object, index;
    return mb_jinja_evaluate(e, n->a, &object) && mb_jinja_evaluate(e, n->b, &index) &&
           mb_jinja_item(e->run, &object, &index, out);
}

static bool eval_slice(struct mb_jinja_eval *e, const node *n, value_t *out)
{
    const node *const parts[] = {n->b, n->c, n->d};
    value_t object, values[3];
    if (!mb_jinja_evaluate(e, n->a, &object))
        return false;
    for (size_t i = 0; i < 3; i++) {
        values[i] = mb_jinja_none();
        if (parts[i] != NULL && !mb_jinja_evaluate(e, parts[i], &values[i]))
            return false;
    }
    return mb_jinja_slice(e->run, &object, &values[0], &values[1], &values[2], out);
}

/* ---------------------------------------------------------------- calls, lists, mappings */

static bool eval_args(struct mb_jinja_eval *e, const node *n, args_t *args)
{
    args->n = 0;
    if (!mb_jinja_new_map(e->run, MB_JINJA_DICT, &args->keywords))
        return false;
    for (size_t i = 0; i < n->n_items; i++) {
        const node *item = n->items[i];
        bool is_keyword = item->kind == MB_JINJA_N_KEYWORD;
        value_t value;
        if (!mb_jinja_evaluate(e, is_keyword ? item->a : item, &value))
            return false;
        if (!is_keyword && (args->n == MB_JINJA_ARGS_MAX || args->keywords.map->n > 0))
            return mb_jinja_fail(
                e->run, MB_UNSUPPORTED,
                "a call with more than %d arguments, or one after a keyword, is not supported",
                MB_JINJA_ARGS_MAX);
        if (is_keyword && !mb_jinja_put(e->run, args->keywords.map, item->name, value))
            return false;
        if (!is_keyword)
            args->items[args->n++] = value;
    }
    return true;
}

static bool eval_call(struct mb_jinja_eval *e, const node *n, value_t *out)
{
    args_t args;
    value_t callee = {0}, input = {0};
    bool answer;
    if (!mb_jinja_evaluate(e, n->a, n->kind == MB_JINJA_N_CALL ? &callee : &input) || !eval_args(e, n, &args))
        return false;
    e->run->line = n->line;
    if (n->kind == MB_JINJA_N_CALL && callee.kind == MB_JINJA_MACRO)
        return e->call_macro(e, callee.macro, &args, out);
    if (n->kind == MB_JINJA_N_CALL)
        return mb_jinja_call(e->run, &callee, &args, out);
    if (n->kind == MB_JINJA_N_FILTER)
        return mb_jinja_filter(e->run, n->name, &input, &args, out);
    if (!mb_jinja_test(e->run, n->name, &input, &args, &answer))
        return false;
    *out = mb_jinja_bool(answer);
    return true;
}

static bool eval_list(struct mb_jinja_eval *e, const node *n, value_t *out)
{
    value_t list;
    if (!mb_jinja_new_list(e->run, &list))
        return false;
    for (size_t i = 0; i < n->n_items; i++) {
        value_t item = {0};
        if (!mb_jinja_evaluate(e, n->items[i], &item) || !mb_jinja_append(e->run, list.list, item))
            return false;
    }
    *out = list;
    return true;
}

static bool eval_dict(struct mb_jinja_eval *e, const node *n, value_t *out)
{
    value_t dict;
    if (!mb_jinja_new_map(e->run, MB_JINJA_DICT, &dict))
        return false;
    for (size_t i = 0; i < n->n_items; i += 2) {
        value_t key = {0}, value = {0};
        if (!mb_jinja_evaluate(e, n->items[i], &key) || !mb_jinja_evaluate(e, n->items[i + 1], &value))
            return false;
        if (key.kind != MB_JINJA_STRING)
            return mb_jinja_fail(e->run, MB_UNSUPPORTED, "a mapping's key that is a %s is not supported",
                                 mb_jinja_kind_name(key.kind));
        if (!mb_jinja_put(e->run, dict.map, key.string, value))
            return false;
    }
    *out = dict;
    return true;
}

/* ---------------------------------------------------------------- expressions */

static bool eval_name(struct mb_jinja_eval *e, const node *n, value_t *out)
{
    static const char *const of_macros[] = {"varargs", "kwargs", "caller"};
    const value_t *found = find_variable(e, n->name);
    if (found == NULL && e->scope > 0 && mb_jinja_is_one_of(n->name, of_macros, MB_JINJA_COUNT(of_macros)))
        return mb_jinja_fail(e->run, MB_UNSUPPORTED, "'%.*s' in a macro is not supported", (int)n->name.n,
                             n->name.p);
    *out = found != NULL ? *found : (value_t){.kind = MB_JINJA_UNDEFINED, .string = n->name};
    return mb_jinja_steps(e->run, e->stack.n / 8);
}

static bool eval_negative(struct mb_jinja_eval *e, const node *n, value_t *out)
{
    value_t operand;
    return mb_jinja_evaluate(e, n->a, &operand) && mb_jinja_negative(e->run, &operand, out);
}

static bool eval_choice(struct mb_jinja_eval *e, const node *n, value_t *out)
{
    value_t condition;
    if (!mb_jinja_evaluate(e, n->b, &condition))
        return false;
    const node *chosen = mb_jinja_is_true(&condition) ? n->a : n->c;
    if (chosen != NULL)
        return mb_jinja_evaluate(e, chosen, out);
    *out = mb_jinja_undefined("an if without else");
    return true;
}

/* 'and' and 'or' give the operand that decided. */
static bool eval_logic(struct mb_jinja_eval *e, const node *n, value_t *out)
{
    if (!mb_jinja_evaluate(e, n->a, out))
        return false;
    return mb_jinja_is_true(out) == (n->kind == MB_JINJA_N_OR) || mb_jinja_evaluate(e, n->b, out);
}

static bool eval_binary(struct mb_jinja_eval *e, const node *n, value_t *out)
{
    value_t a, b;
    if (!mb_jinja_evaluate(e, n->a, &a) || !mb_jinja_evaluate(e, n->b, &b))
        return false;
    e->run->line = n->line;
    return mb_jinja_binary(e->run, n->op, &a, &b, out);
}

static bool eval_attribute(struct mb_jinja_eval *e, const node *n, value_t *out)
{
    value_t object;
    if (!mb_jinja_evaluate(e, n->a, &object))
        return false;
    e->run->line = n->line;
    return mb_jinja_attribute(e->run, &object, n->name, false, out);
}

static bool eval_not(struct mb_jinja_eval *e, const node *n, value_t *out)
{
    value_t operand;
    if (!mb_jinja_evaluate(e, n->a, &operand))
        return false;
    *out = mb_jinja_bool(!mb_jinja_is_true(&operand));
    return true;
}

bool mb_jinja_evaluate(struct mb_jinja_eval *e, const node *n, value_t *out)
{
    e->run->line = n->line;
    if (!mb_jinja_steps(e->run, 1))
        return false;
    switch (n->kind) {
    case MB_JINJA_N_LITERAL:
        *out = n->value;
        return true;
    case MB_JINJA_N_NAME:
        return eval_name(e, n, out);
    case MB_JINJA_N_LIST:
        return eval_list(e, n, out);
    case MB_JINJA_N_DICT:
        return eval_dict(e, n, out);
    case MB_JINJA_N_ATTRIBUTE:
        return eval_attribute(e, n, out);
    case MB_JINJA_N_INDEX:
        return eval_index(e, n, out);
    case MB_JINJA_N_SLICE:
        return eval_slice(e, n, out);
    case MB_JINJA_N_CALL:
    case MB_JINJA_N_FILTER:
    case MB_JINJA_N_TEST:
        return eval_call(e, n, out);
    case MB_JINJA_N_NOT:
        return eval_not(e, n, out);
    case MB_JINJA_N_NEGATIVE:
        return eval_negative(e, n, out);
    case MB_JINJA_N_AND:
    case MB_JINJA_N_OR:
        return eval_logic(e, n, out);
    case MB_JINJA_N_BINARY:
        return eval_binary(e, n, out);
    case MB_JINJA_N_COMPARE:
        return eval_compare(e, n, out);
    case MB_JINJA_N_CHOICE:
        return eval_choice(e, n, out);
    default:
        return mb_jinja_fail(e->run, MB_UNSUPPORTED, "a keyword argument is allowed in a call only");
    }
}
