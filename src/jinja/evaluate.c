/*
 * evaluate.c - the values of expressions.
 *
 * Evaluation goes down the tree, whose height the parser has bounded.
 */
#include "evaluate.h"
#include "operators.h"

typedef struct mb_jinja_node node;

/* ---------------------------------------------------------------- variables */

struct mb_jinja_frame *mb_jinja_new_frame(struct mb_jinja_eval *e, struct mb_jinja_frame *outer)
{
    struct mb_jinja_frame *frame = e->free;
    if (frame != NULL)
        e->free = frame->outer;
    else
        frame = mb_jinja_alloc(e->run, sizeof *frame);
    if (frame != NULL)
        frame->outer = outer;
    return frame;
}

void mb_jinja_free_frame(struct mb_jinja_eval *e, struct mb_jinja_frame *frame)
{
    if (frame->is_kept)
        return;
    frame->variables.n = 0;
    frame->outer = e->free;
    e->free = frame;
}

void mb_jinja_keep_frame(struct mb_jinja_eval *e)
{
    for (struct mb_jinja_frame *frame = e->frame; frame != NULL && !frame->is_kept; frame = frame->outer)
        frame->is_kept = true;
}

bool mb_jinja_set_variable(struct mb_jinja_eval *e, string_t name, value_t value)
{
    return mb_jinja_put(e->run, &e->frame->variables, name, value);
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

static bool fail_args(run_t *run)
{
    return mb_jinja_fail(run, MB_UNSUPPORTED, "a call with more than %d arguments is not supported",
                         MB_JINJA_ARGS_MAX);
}

/* *list: its items are arguments. */
static bool spread(run_t *run, const value_t *value, args_t *args)
{
    list_t *items;
    if (!mb_jinja_items(run, value, &items))
        return false;
    for (size_t i = 0; i < items->n; i++) {
        if (args->n == MB_JINJA_ARGS_MAX)
            return fail_args(run);
        args->items[args->n++] = items->items[i];
    }
    return true;
}

static bool put_keyword(run_t *run, args_t *args, string_t name, value_t value)
{
    if (mb_jinja_find(args->keywords.map, name) != NULL)
        return mb_jinja_fail(run, MB_BAD_DATA, "the argument '%.*s' is given twice", (int)name.n, name.p);
    return mb_jinja_put(run, args->keywords.map, name, value);
}

static bool is_bare_argument(const node *item)
{
    return item->kind != MB_JINJA_N_KEYWORD && item->kind != MB_JINJA_N_SPREAD &&
           item->kind != MB_JINJA_N_SPREAD_KEYWORDS;
}

static bool add_argument(struct mb_jinja_eval *e, const node *item, args_t *args)
{
    value_t value = {0};
    bool is_bare = is_bare_argument(item);
    if (!mb_jinja_evaluate(e, is_bare ? item : item->a, &value))
        return false;
    if (item->kind == MB_JINJA_N_KEYWORD)
        return put_keyword(e->run, args, item->name, value);
    if (item->kind == MB_JINJA_N_SPREAD)
        return spread(e->run, &value, args);
    if (is_bare) {
        if (args->n == MB_JINJA_ARGS_MAX)
            return fail_args(e->run);
        args->items[args->n++] = value;
        return true;
    }
    if (value.kind != MB_JINJA_DICT)
        return mb_jinja_fail(e->run, MB_BAD_DATA, "'**' takes a mapping, and this is a %s",
                             mb_jinja_kind_name(value.kind));
    for (size_t i = 0; i < value.map->n; i++)
        if (!put_keyword(e->run, args, value.map->entries[i].key, value.map->entries[i].value))
            return false;
    return true;
}

bool mb_jinja_eval_args(struct mb_jinja_eval *e, const node *n, args_t *args)
{
    args->n = 0;
    if (!mb_jinja_new_map(e->run, MB_JINJA_DICT, &args->keywords))
        return false;
    for (size_t i = 0; i < n->n_items; i++) {
        if (is_bare_argument(n->items[i]) && args->keywords.map->n > 0)
            return mb_jinja_fail(e->run, MB_BAD_DATA, "an argument without a name follows one with a name");
        if (!add_argument(e, n->items[i], args))
            return false;
    }
    return true;
}

static bool eval_call(struct mb_jinja_eval *e, const node *n, value_t *out)
{
    args_t args;
    value_t callee = {0}, input = {0};
    bool answer;
    if (!mb_jinja_evaluate(e, n->a, n->kind == MB_JINJA_N_CALL ? &callee : &input) ||
        !mb_jinja_eval_args(e, n, &args))
        return false;
    e->run->line = n->line;
    if (n->kind == MB_JINJA_N_CALL && callee.kind == MB_JINJA_MACRO)
        return e->call_macro(e, callee.macro, &args, out);
    if (n->kind == MB_JINJA_N_CALL && callee.kind == MB_JINJA_LOOP)
        return e->call_loop(e, callee.loop, &args, out);
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
    if (!mb_jinja_new_form(e->run, n->kind == MB_JINJA_N_TUPLE ? MB_JINJA_TUPLE : MB_JINJA_PLAIN, &list))
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
        if (!mb_jinja_put_key(e->run, dict.map, &key, value))
            return false;
    }
    *out = dict;
    return true;
}

/* ---------------------------------------------------------------- expressions */

static bool eval_name(struct mb_jinja_eval *e, const node *n, value_t *out)
{
    size_t n_seen = 0;
    *out = (value_t){.kind = MB_JINJA_UNDEFINED, .string = n->name};
    for (const struct mb_jinja_frame *frame = e->frame; frame != NULL; frame = frame->outer) {
        const value_t *found = mb_jinja_find(&frame->variables, n->name);
        n_seen += frame->variables.n;
        if (found != NULL) {
            *out = *found;
            break;
        }
    }
    return mb_jinja_steps(e->run, n_seen / 8);
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
    case MB_JINJA_N_PRINTED:
        *out = *e->printed;
        return true;
    case MB_JINJA_N_NAME:
        return eval_name(e, n, out);
    case MB_JINJA_N_LIST:
    case MB_JINJA_N_TUPLE:
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
