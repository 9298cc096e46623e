/*
 * jinja.c - evaluates the syntax tree of a chat template.
 *
 * Evaluation goes down the tree, whose height the parser has bounded.  Variables are on a stack; a loop's
 * body begins a frame of its own for each item, so that what it sets is gone afterwards, as in Jinja.
 */
#include "jinja.h"
#include "base/utf8.h"
#include "jinja_call.h"
#include "jinja_parse.h"

enum flow { FLOW_NEXT, FLOW_BREAK, FLOW_CONTINUE };

struct eval {
    struct mb_jinja_run *run;
    struct mb_jinja_map stack; /* variables, the innermost last; names may come again */
    size_t frame;              /* where the innermost frame begins */
    size_t loop_depth;
    struct mb_bytes *out;
    enum flow flow;
};

typedef struct mb_jinja_node node;
typedef struct mb_jinja_value value_t;
typedef struct mb_jinja_string string_t;

static bool eval(struct eval *e, const node *n, value_t *out);

/* ---------------------------------------------------------------- variables */

static value_t *find_variable(struct eval *e, string_t name, size_t from)
{
    for (size_t i = e->stack.n; i > from; i--) {
        struct mb_jinja_entry *entry = &e->stack.entries[i - 1];
        if (entry->key.n == name.n && memcmp(entry->key.p, name.p, name.n) == 0)
            return &entry->value;
    }
    return NULL;
}

/* Sets a variable of the innermost frame. */
static bool set_variable(struct eval *e, string_t name, value_t value)
{
    value_t *old = find_variable(e, name, e->frame);
    if (old != NULL) {
        *old = value;
        return true;
    }
    void *entries = e->stack.entries;
    bool ok = mb_grow(&entries, &e->stack.cap, e->stack.n, 1, sizeof *e->stack.entries);
    e->stack.entries = entries;
    if (!ok)
        return mb_jinja_fail(e->run, MB_NO_MEMORY, "no memory");
    assert(e->stack.entries != NULL);
    e->stack.entries[e->stack.n++] = (struct mb_jinja_entry){name, value};
    return true;
}

/* ---------------------------------------------------------------- operators */

static bool fail_operator(struct eval *e, const char *what, const value_t *a, const value_t *b)
{
    const value_t *undefined = a->kind == MB_JINJA_UNDEFINED ? a : b;
    if (undefined->kind == MB_JINJA_UNDEFINED)
        return mb_jinja_fail(e->run, MB_BAD_DATA, "'%.*s' is undefined",
                             (int)(undefined->string.n > 60 ? 60 : undefined->string.n), undefined->string.p);
    return mb_jinja_fail(e->run, MB_BAD_DATA, "%s of a %s and a %s", what, mb_jinja_kind_name(a->kind),
                         mb_jinja_kind_name(b->kind));
}

static bool join_lists(struct eval *e, const struct mb_jinja_list *a, const struct mb_jinja_list *b,
                       value_t *out)
{
    if (!mb_jinja_new_list(e->run, out) || !mb_jinja_steps(e->run, a->n + b->n))
        return false;
    for (size_t i = 0; i < a->n + b->n; i++)
        if (!mb_jinja_append(e->run, out->list, i < a->n ? a->items[i] : b->items[i - a->n]))
            return false;
    return true;
}

/* Python rounds quotients down, and remainders take the divisor's sign. */
static bool divide(struct eval *e, int64_t a, int64_t b, int64_t *quotient, int64_t *remainder)
{
    if (b == 0 || (a == INT64_MIN && b == -1))
        return mb_jinja_fail(e->run, MB_BAD_DATA, "a division by zero or beyond 64 bits");
    *quotient = a / b;
    *remainder = a % b;
    if (*remainder != 0 && (*remainder < 0) != (b < 0)) {
        *quotient -= 1;
        *remainder += b;
    }
    return true;
}

static bool compute(struct eval *e, enum mb_jinja_op op, int64_t a, int64_t b, value_t *out)
{
    int64_t result = 0, other = 0;
    bool overflows = false;
    if (op == MB_JINJA_ADD)
        overflows = __builtin_add_overflow(a, b, &result);
    else if (op == MB_JINJA_SUB)
        overflows = __builtin_sub_overflow(a, b, &result);
    else if (op == MB_JINJA_MUL)
        overflows = __builtin_mul_overflow(a, b, &result);
    else if (!divide(e, a, b, &result, &other))
        return false;
    if (overflows)
        return mb_jinja_fail(e->run, MB_UNSUPPORTED, "a number over 64 bits");
    *out = mb_jinja_int(op == MB_JINJA_MOD ? other : result);
    return true;
}

static bool is_number(const value_t *value)
{
    return value->kind == MB_JINJA_INT || value->kind == MB_JINJA_BOOL;
}

static bool binary(struct eval *e, enum mb_jinja_op op, const value_t *a, const value_t *b, value_t *out)
{
    string_t left, right;
    if (op == MB_JINJA_CONCAT)
        return mb_jinja_str(e->run, a, &left) && mb_jinja_str(e->run, b, &right) &&
               mb_jinja_join(e->run, left, right, out);
    if (is_number(a) && is_number(b))
        return compute(e, op, a->number, b->number, out);
    if (op == MB_JINJA_ADD && a->kind == MB_JINJA_STRING && b->kind == MB_JINJA_STRING)
        return mb_jinja_join(e->run, a->string, b->string, out);
    if (op == MB_JINJA_ADD && a->kind == MB_JINJA_LIST && b->kind == MB_JINJA_LIST)
        return join_lists(e, a->list, b->list, out);
    static const char *const names[] = {"the sum", "the difference", "the product", "the quotient",
                                        "the remainder"};
    return fail_operator(e, names[op], a, b);
}

static bool compare(struct eval *e, enum mb_jinja_op op, const value_t *a, const value_t *b, bool *answer)
{
    int order;
    switch (op) {
    case MB_JINJA_EQ:
    case MB_JINJA_NE:
        if (!mb_jinja_equal(e->run, a, b, answer))
            return false;
        *answer = *answer == (op == MB_JINJA_EQ);
        return true;
    case MB_JINJA_IN:
    case MB_JINJA_NOT_IN:
        if (!mb_jinja_contains(e->run, b, a, answer))
            return false;
        *answer = *answer == (op == MB_JINJA_IN);
        return true;
    default:
        if (a->kind == MB_JINJA_UNDEFINED || b->kind == MB_JINJA_UNDEFINED)
            return fail_operator(e, "the order", a, b);
        if (!mb_jinja_order(e->run, a, b, &order))
            return false;
        *answer = op == MB_JINJA_LT   ? order < 0
                  : op == MB_JINJA_LE ? order <= 0
                  : op == MB_JINJA_GT ? order > 0
                                      : order >= 0;
        return true;
    }
}

/* a < b < c compares neighbours, up to the first that fails. */
static bool eval_compare(struct eval *e, const node *n, value_t *out)
{
    value_t left, right;
    bool answer = true;
    if (!eval(e, n->a, &left))
        return false;
    for (size_t i = 0; answer && i < n->n_items; i++) {
        if (!eval(e, n->items[i]->a, &right) || !compare(e, n->items[i]->op, &left, &right, &answer))
            return false;
        left = right;
    }
    *out = mb_jinja_bool(answer);
    return true;
}

/* ---------------------------------------------------------------- indices and slices */

static bool nth_char(string_t string, int64_t i, value_t *out)
{
    for (size_t at = 0; at < string.n; at += mb_utf8_nbytes(string.p[at])) {
        if (i-- == 0) {
            *out = mb_jinja_text(string.p + at, mb_utf8_nbytes(string.p[at]));
            return true;
        }
    }
    return true;
}

static bool eval_index(struct eval *e, const node *n, value_t *out)
{
    value_t object, index;
    static const char name[] = "item";
    if (!eval(e, n->a, &object) || !eval(e, n->b, &index))
        return false;
    if (index.kind == MB_JINJA_STRING)
        return mb_jinja_attribute(e->run, &object, index.string, true, out);
    if (object.kind == MB_JINJA_UNDEFINED)
        return fail_operator(e, "an item", &object, &index);
    *out = mb_jinja_undefined((string_t){name, sizeof name - 1});
    bool is_list = object.kind == MB_JINJA_LIST;
    if (!is_number(&index) || (!is_list && object.kind != MB_JINJA_STRING))
        return true;
    int64_t length = is_list ? (int64_t)object.list->n : (int64_t)mb_jinja_n_chars(object.string);
    int64_t i = index.number < 0 ? index.number + length : index.number;
    if (i < 0 || i >= length)
        return true;
    if (!is_list)
        return mb_jinja_steps(e->run, object.string.n / 16) && nth_char(object.string, i, out);
    *out = object.list->items[i];
    return true;
}

/* One part of a slice: 'otherwise' where it is left out or none. */
static bool slice_part(struct eval *e, const node *n, int64_t otherwise, int64_t *part)
{
    value_t value;
    *part = otherwise;
    if (n == NULL)
        return true;
    if (!eval(e, n, &value))
        return false;
    if (value.kind == MB_JINJA_NONE)
        return true;
    if (value.kind != MB_JINJA_INT)
        return mb_jinja_fail(e->run, MB_BAD_DATA, "a slice by a %s", mb_jinja_kind_name(value.kind));
    *part = value.number;
    return true;
}

/* As Python's slice.indices: negative ones count from the end, all are cut to what there is. */
static int64_t clip(int64_t i, int64_t length, int64_t step)
{
    int64_t low = step > 0 ? 0 : -1, high = step > 0 ? length : length - 1;
    if (i < 0)
        i = i < -length ? low : i + length;
    return i < low ? low : i > high ? high : i;
}

static bool slice_list(struct eval *e, const struct mb_jinja_list *list, int64_t begin, int64_t end,
                       int64_t step, value_t *out)
{
    if (!mb_jinja_new_list(e->run, out))
        return false;
    for (int64_t i = begin; step > 0 ? i < end : i > end; i += step)
        if (!mb_jinja_steps(e->run, 1) || !mb_jinja_append(e->run, out->list, list->items[i]))
            return false;
    return true;
}

static bool slice_string(struct eval *e, string_t string, int64_t begin, int64_t end, value_t *out)
{
    size_t at = 0, from, i = 0;
    for (; (int64_t)i < begin; i++)
        at += mb_utf8_nbytes(string.p[at]);
    from = at;
    for (; (int64_t)i < end; i++)
        at += mb_utf8_nbytes(string.p[at]);
    *out = mb_jinja_text(string.p + from, at - from);
    return mb_jinja_steps(e->run, string.n / 16);
}

static bool eval_slice(struct eval *e, const node *n, value_t *out)
{
    value_t object;
    int64_t begin, end, step;
    if (!eval(e, n->a, &object) || !slice_part(e, n->d, 1, &step))
        return false;
    if (object.kind == MB_JINJA_UNDEFINED)
        return fail_operator(e, "a slice", &object, &object);
    bool is_list = object.kind == MB_JINJA_LIST;
    if ((!is_list && object.kind != MB_JINJA_STRING) || step == 0 || step < -INT32_MAX || step > INT32_MAX)
        return mb_jinja_fail(e->run, MB_BAD_DATA, "a slice of a %s", mb_jinja_kind_name(object.kind));
    int64_t length = is_list ? (int64_t)object.list->n : (int64_t)mb_jinja_n_chars(object.string);
    if (!slice_part(e, n->b, step > 0 ? 0 : length - 1, &begin) ||
        !slice_part(e, n->c, step > 0 ? length : -length - 1, &end))
        return false;
    begin = clip(begin, length, step);
    end = clip(end, length, step);
    if (is_list)
        return slice_list(e, object.list, begin, end, step, out);
    if (step == 1)
        return slice_string(e, object.string, begin, end < begin ? begin : end, out);
    return mb_jinja_fail(e->run, MB_UNSUPPORTED, "a slice of a string with a step");
}

/* ---------------------------------------------------------------- calls, lists, mappings */

static bool eval_args(struct eval *e, const node *n, struct mb_jinja_args *args)
{
    args->n = 0;
    if (!mb_jinja_new_map(e->run, MB_JINJA_DICT, &args->keywords))
        return false;
    for (size_t i = 0; i < n->n_items; i++) {
        const node *item = n->items[i];
        bool is_keyword = item->kind == MB_JINJA_N_KEYWORD;
        value_t value;
        if (!eval(e, is_keyword ? item->a : item, &value))
            return false;
        if (!is_keyword && (args->n == MB_JINJA_ARGS_MAX || args->keywords.map->n > 0))
            return mb_jinja_fail(e->run, MB_UNSUPPORTED, "a call with such arguments");
        if (is_keyword && !mb_jinja_put(e->run, args->keywords.map, item->name, value))
            return false;
        if (!is_keyword)
            args->items[args->n++] = value;
    }
    return true;
}

static bool eval_call(struct eval *e, const node *n, value_t *out)
{
    struct mb_jinja_args args;
    value_t callee, input;
    bool answer;
    if (!eval(e, n->a, n->kind == MB_JINJA_N_CALL ? &callee : &input) || !eval_args(e, n, &args))
        return false;
    e->run->line = n->line;
    if (n->kind == MB_JINJA_N_CALL)
        return mb_jinja_call(e->run, &callee, &args, out);
    if (n->kind == MB_JINJA_N_FILTER)
        return mb_jinja_filter(e->run, n->name, &input, &args, out);
    if (!mb_jinja_test(e->run, n->name, &input, &args, &answer))
        return false;
    *out = mb_jinja_bool(answer);
    return true;
}

static bool eval_list(struct eval *e, const node *n, value_t *out)
{
    value_t list;
    if (!mb_jinja_new_list(e->run, &list))
        return false;
    for (size_t i = 0; i < n->n_items; i++) {
        value_t item;
        if (!eval(e, n->items[i], &item) || !mb_jinja_append(e->run, list.list, item))
            return false;
    }
    *out = list;
    return true;
}

static bool eval_dict(struct eval *e, const node *n, value_t *out)
{
    value_t dict;
    if (!mb_jinja_new_map(e->run, MB_JINJA_DICT, &dict))
        return false;
    for (size_t i = 0; i < n->n_items; i += 2) {
        value_t key, value;
        if (!eval(e, n->items[i], &key) || !eval(e, n->items[i + 1], &value))
            return false;
        if (key.kind != MB_JINJA_STRING)
            return mb_jinja_fail(e->run, MB_UNSUPPORTED, "a mapping's key that is a %s",
                                 mb_jinja_kind_name(key.kind));
        if (!mb_jinja_put(e->run, dict.map, key.string, value))
            return false;
    }
    *out = dict;
    return true;
}

/* ---------------------------------------------------------------- expressions */

static bool eval_name(struct eval *e, const node *n, value_t *out)
{
    const value_t *found = find_variable(e, n->name, 0);
    *out = found != NULL ? *found : mb_jinja_undefined(n->name);
    return mb_jinja_steps(e->run, e->stack.n / 8);
}

static bool eval_negative(struct eval *e, const node *n, value_t *out)
{
    value_t operand;
    if (!eval(e, n->a, &operand))
        return false;
    if (!is_number(&operand))
        return fail_operator(e, "the negative", &operand, &operand);
    return compute(e, MB_JINJA_SUB, 0, operand.number, out);
}

static bool eval_choice(struct eval *e, const node *n, value_t *out)
{
    value_t condition;
    static const char name[] = "an if without else";
    if (!eval(e, n->b, &condition))
        return false;
    const node *chosen = mb_jinja_is_true(&condition) ? n->a : n->c;
    if (chosen != NULL)
        return eval(e, chosen, out);
    *out = mb_jinja_undefined((string_t){name, sizeof name - 1});
    return true;
}

/* 'and' and 'or' give the operand that decided. */
static bool eval_logic(struct eval *e, const node *n, value_t *out)
{
    if (!eval(e, n->a, out))
        return false;
    return mb_jinja_is_true(out) == (n->kind == MB_JINJA_N_OR) || eval(e, n->b, out);
}

static bool eval_binary(struct eval *e, const node *n, value_t *out)
{
    value_t a, b;
    if (!eval(e, n->a, &a) || !eval(e, n->b, &b))
        return false;
    e->run->line = n->line;
    return binary(e, n->op, &a, &b, out);
}

static bool eval_attribute(struct eval *e, const node *n, value_t *out)
{
    value_t object;
    if (!eval(e, n->a, &object))
        return false;
    e->run->line = n->line;
    return mb_jinja_attribute(e->run, &object, n->name, false, out);
}

static bool eval_not(struct eval *e, const node *n, value_t *out)
{
    value_t operand;
    if (!eval(e, n->a, &operand))
        return false;
    *out = mb_jinja_bool(!mb_jinja_is_true(&operand));
    return true;
}

static bool eval(struct eval *e, const node *n, value_t *out)
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
        return mb_jinja_fail(e->run, MB_UNSUPPORTED, "a keyword argument in this place");
    }
}

/* ---------------------------------------------------------------- statements */

static bool exec(struct eval *e, const node *n);

static bool put_out(struct eval *e, string_t text)
{
    if (e->out->n + text.n > e->run->out_nbytes_max)
        return mb_jinja_fail(e->run, MB_UNSUPPORTED, "the template writes too much");
    return mb_bytes_put(e->out, text.p, text.n) || mb_jinja_fail(e->run, MB_NO_MEMORY, "no memory");
}

static bool exec_output(struct eval *e, const node *n)
{
    value_t value;
    string_t text;
    return eval(e, n->a, &value) && mb_jinja_str(e->run, &value, &text) && put_out(e, text);
}

static bool exec_if(struct eval *e, const node *n)
{
    while (n != NULL && n->kind == MB_JINJA_N_IF) {
        value_t condition;
        if (!eval(e, n->a, &condition))
            return false;
        if (mb_jinja_is_true(&condition))
            return exec(e, n->b);
        n = n->c;
    }
    return n == NULL || exec(e, n);
}

/* The targets of a loop in a frame of their own: one name takes the item, several take its items. */
static bool bind_targets(struct eval *e, const node *n, const value_t *item)
{
    if (n->n_items == 1)
        return set_variable(e, n->items[0]->name, *item);
    struct mb_jinja_list *parts;
    if (!mb_jinja_items(e->run, item, &parts))
        return false;
    if (parts->n != n->n_items)
        return mb_jinja_fail(e->run, MB_BAD_DATA, "%zu values for %zu names", parts->n, n->n_items);
    for (size_t i = 0; i < parts->n; i++)
        if (!set_variable(e, n->items[i]->name, parts->items[i]))
            return false;
    return true;
}

/* The items that pass the loop's own condition. */
static bool filter_items(struct eval *e, const node *n, const struct mb_jinja_list *items, value_t *kept)
{
    size_t frame = e->frame;
    if (!mb_jinja_new_list(e->run, kept))
        return false;
    for (size_t i = 0; i < items->n; i++) {
        value_t condition;
        e->frame = e->stack.n;
        if (!bind_targets(e, n, &items->items[i]) || !eval(e, n->b, &condition))
            return false;
        if (mb_jinja_is_true(&condition) && !mb_jinja_append(e->run, kept->list, items->items[i]))
            return false;
        e->stack.n = e->frame;
        e->frame = frame;
    }
    return true;
}

static bool exec_loop(struct eval *e, const node *n, const struct mb_jinja_list *items)
{
    static const string_t loop_name = {"loop", 4};
    size_t frame = e->frame, n_variables = e->stack.n;
    struct mb_jinja_loop *loop = mb_jinja_alloc(e->run, sizeof *loop);
    if (loop == NULL)
        return false;
    *loop = (struct mb_jinja_loop){.items = items};
    e->loop_depth++;
    for (; loop->i < items->n && e->flow != FLOW_BREAK; loop->i++) {
        e->frame = e->stack.n = n_variables;
        e->flow = FLOW_NEXT;
        if (!mb_jinja_steps(e->run, 1) ||
            !set_variable(e, loop_name, (value_t){.kind = MB_JINJA_LOOP, .loop = loop}) ||
            !bind_targets(e, n, &items->items[loop->i]) || !exec(e, n->c))
            return false;
    }
    e->flow = FLOW_NEXT;
    e->frame = frame;
    e->stack.n = n_variables;
    e->loop_depth--;
    return true;
}

static bool exec_for(struct eval *e, const node *n)
{
    value_t value, kept;
    struct mb_jinja_list *items;
    if (!eval(e, n->a, &value) || !mb_jinja_items(e->run, &value, &items))
        return false;
    if (n->b != NULL) {
        if (!filter_items(e, n, items, &kept))
            return false;
        items = kept.list;
    }
    if (items->n == 0)
        return n->d == NULL || exec(e, n->d);
    return exec_loop(e, n, items);
}

/* {% set x %}text{% endset %}: what the block prints. */
static bool eval_set_block(struct eval *e, const node *n, value_t *out)
{
    struct mb_bytes text = {0}, *before = e->out;
    e->out = &text;
    bool ok = exec(e, n->c);
    e->out = before;
    char *copy = ok ? mb_jinja_alloc(e->run, text.n) : NULL;
    if (copy != NULL && text.n > 0)
        memcpy(copy, text.p, text.n);
    free(text.p);
    if (copy == NULL)
        return false;
    *out = mb_jinja_text(copy, text.n);
    return true;
}

static bool exec_set(struct eval *e, const node *n)
{
    value_t value = {0}, object = {0};
    if (!(n->b != NULL ? eval(e, n->b, &value) : eval_set_block(e, n, &value)))
        return false;
    if (n->a->kind == MB_JINJA_N_NAME)
        return set_variable(e, n->a->name, value);
    if (!eval(e, n->a->a, &object))
        return false;
    if (object.kind != MB_JINJA_NAMESPACE)
        return mb_jinja_fail(e->run, MB_BAD_DATA, "an attribute of a %s cannot be set",
                             mb_jinja_kind_name(object.kind));
    return mb_jinja_put(e->run, object.map, n->a->name, value);
}

static bool exec_block(struct eval *e, const node *n)
{
    for (size_t i = 0; i < n->n_items && e->flow == FLOW_NEXT; i++)
        if (!exec(e, n->items[i]))
            return false;
    return true;
}

static bool exec_jump(struct eval *e, const node *n)
{
    if (e->loop_depth == 0)
        return mb_jinja_fail(e->run, MB_BAD_DATA, "break or continue outside a loop");
    e->flow = n->kind == MB_JINJA_N_BREAK ? FLOW_BREAK : FLOW_CONTINUE;
    return true;
}

static bool exec(struct eval *e, const node *n)
{
    e->run->line = n->line;
    if (!mb_jinja_steps(e->run, 1))
        return false;
    switch (n->kind) {
    case MB_JINJA_N_BLOCK:
        return exec_block(e, n);
    case MB_JINJA_N_TEXT:
        return put_out(e, n->name);
    case MB_JINJA_N_OUTPUT:
        return exec_output(e, n);
    case MB_JINJA_N_IF:
        return exec_if(e, n);
    case MB_JINJA_N_FOR:
        return exec_for(e, n);
    case MB_JINJA_N_SET:
        return exec_set(e, n);
    default:
        return exec_jump(e, n);
    }
}

static bool set_globals(struct eval *e, const struct mb_jinja_map *variables)
{
    static const struct {
        const char *name;
        enum mb_jinja_function function;
    } functions[] = {{"raise_exception", MB_JINJA_RAISE_EXCEPTION},
                     {"namespace", MB_JINJA_MAKE_NAMESPACE},
                     {"dict", MB_JINJA_MAKE_DICT},
                     {"range", MB_JINJA_RANGE},
                     {"strftime_now", MB_JINJA_STRFTIME_NOW}};
    for (size_t i = 0; i < sizeof functions / sizeof *functions; i++) {
        string_t name = {functions[i].name, strlen(functions[i].name)};
        if (!set_variable(e, name, (value_t){.kind = MB_JINJA_FUNCTION, .number = functions[i].function}))
            return false;
    }
    for (size_t i = 0; i < variables->n; i++)
        if (!set_variable(e, variables->entries[i].key, variables->entries[i].value))
            return false;
    return true;
}

enum mb_status mb_jinja_render(struct mb_jinja_run *run, const char *text, size_t n,
                               const struct mb_jinja_map *variables, struct mb_bytes *out)
{
    struct eval e = {.run = run, .out = out};
    const node *tree = mb_jinja_parse(run, text, n);
    if (tree != NULL && set_globals(&e, variables))
        exec(&e, tree);
    free(e.stack.entries);
    return run->status;
}
