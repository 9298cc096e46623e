/*
 * render.c - runs the statements of a template.
 */
#include "builtins.h"
#include "evaluate.h"

enum flow { FLOW_NEXT, FLOW_BREAK, FLOW_CONTINUE };

/* Evaluation of nested calls of macros goes down the trees of all: levels of a tree cost stack. */
enum { HEIGHT_MAX = 1200 };

struct renderer {
    struct mb_jinja_eval eval; /* the first member */
    size_t loop_depth;
    int height; /* of the bodies of the macros that run */
    struct mb_bytes *out;
    enum flow flow;
};

typedef struct mb_jinja_node node;

static bool exec(struct renderer *r, const node *n);

static bool exec_output(struct renderer *r, const node *n)
{
    value_t value;
    string_t text;
    return mb_jinja_evaluate(&r->eval, n->a, &value) && mb_jinja_str(r->eval.run, &value, &text) &&
           mb_jinja_write(r->eval.run, r->out, text.p, text.n);
}

static bool exec_if(struct renderer *r, const node *n)
{
    while (n != NULL && n->kind == MB_JINJA_N_IF) {
        value_t condition;
        if (!mb_jinja_evaluate(&r->eval, n->a, &condition))
            return false;
        if (mb_jinja_is_true(&condition))
            return exec(r, n->b);
        n = n->c;
    }
    return n == NULL || exec(r, n);
}

/* ---------------------------------------------------------------- targets, frames, blocks */

/* One name takes the value, several take its items. */
static bool bind(struct renderer *r, const node *target, const value_t *value)
{
    list_t *parts;
    if (target->kind == MB_JINJA_N_NAME)
        return mb_jinja_set_variable(&r->eval, target->name, *value);
    if (!mb_jinja_items(r->eval.run, value, &parts))
        return false;
    if (parts->n != target->n_items)
        return mb_jinja_fail(r->eval.run, MB_BAD_DATA, "there are %zu names for %zu values", target->n_items,
                             parts->n);
    for (size_t i = 0; i < parts->n; i++)
        if (!bind(r, target->items[i], &parts->items[i]))
            return false;
    return true;
}

static bool enter(struct renderer *r, struct mb_jinja_frame *outer)
{
    struct mb_jinja_frame *frame = mb_jinja_new_frame(&r->eval, outer);
    if (frame != NULL)
        r->eval.frame = frame;
    return frame != NULL;
}

/* Back to the frame that was there before enter. */
static void leave(struct renderer *r, struct mb_jinja_frame *before)
{
    mb_jinja_free_frame(&r->eval, r->eval.frame);
    r->eval.frame = before;
}

/* What a block prints, as a value. Its variables are its own. */
static bool print_block(struct renderer *r, const node *block, value_t *out)
{
    struct mb_bytes text = {0}, *out_before = r->out;
    struct mb_jinja_frame *before = r->eval.frame;
    if (!enter(r, before))
        return false;
    r->out = &text;
    bool ok = exec(r, block);
    r->out = out_before;
    leave(r, before);
    return mb_jinja_finish_text(r->eval.run, &text, ok, out);
}

/* The same, after the filters, if there are some. */
static bool print_filtered(struct renderer *r, const node *block, const node *filters, value_t *out)
{
    value_t text;
    if (!print_block(r, block, &text))
        return false;
    *out = text;
    if (filters == NULL)
        return true;
    const value_t *before = r->eval.printed;
    r->eval.printed = &text;
    bool ok = mb_jinja_evaluate(&r->eval, filters, out);
    r->eval.printed = before;
    return ok;
}

static bool exec_set(struct renderer *r, const node *n)
{
    value_t value = {0}, object = {0};
    if (!(n->c == NULL ? mb_jinja_evaluate(&r->eval, n->b, &value) : print_filtered(r, n->c, n->b, &value)))
        return false;
    if (n->a->kind != MB_JINJA_N_ATTRIBUTE)
        return bind(r, n->a, &value);
    if (!mb_jinja_evaluate(&r->eval, n->a->a, &object))
        return false;
    if (object.kind != MB_JINJA_NAMESPACE)
        return mb_jinja_fail(r->eval.run, MB_BAD_DATA, "an attribute of a %s cannot be set",
                             mb_jinja_kind_name(object.kind));
    if (n->a->name.n > 0 && n->a->name.p[0] == '_')
        return mb_jinja_fail(r->eval.run, MB_BAD_DATA, "a namespace has no names that begin with '_'");
    return mb_jinja_put(r->eval.run, object.map, n->a->name, value);
}

/* The values of {% with %} do not see one another: they are evaluated in the outer frame. */
static bool exec_scope(struct renderer *r, const node *n)
{
    struct mb_jinja_frame *before = r->eval.frame;
    if (!enter(r, before))
        return false;
    for (size_t i = 0; i < n->n_items; i++) {
        struct mb_jinja_frame *inner = r->eval.frame;
        value_t value;
        r->eval.frame = before;
        bool ok = mb_jinja_evaluate(&r->eval, n->items[i]->b, &value);
        r->eval.frame = inner;
        if (!ok || !bind(r, n->items[i]->a, &value))
            return false;
    }
    if (!exec(r, n->c))
        return false;
    leave(r, before);
    return true;
}

static bool write_value(struct renderer *r, const value_t *value)
{
    string_t text;
    return mb_jinja_str(r->eval.run, value, &text) && mb_jinja_write(r->eval.run, r->out, text.p, text.n);
}

static bool exec_filter_block(struct renderer *r, const node *n)
{
    value_t value;
    return print_filtered(r, n->c, n->b, &value) && write_value(r, &value);
}

/* ---------------------------------------------------------------- loops */

/* The items that pass the loop's own condition. */
static bool filter_items(struct renderer *r, const node *n, const list_t *items, value_t *kept)
{
    struct mb_jinja_frame *before = r->eval.frame;
    if (!mb_jinja_new_list(r->eval.run, kept))
        return false;
    for (size_t i = 0; i < items->n; i++) {
        value_t condition;
        if (!enter(r, before) || !bind(r, n->e, &items->items[i]) ||
            !mb_jinja_evaluate(&r->eval, n->b, &condition))
            return false;
        if (mb_jinja_is_true(&condition) && !mb_jinja_append(r->eval.run, kept->list, items->items[i]))
            return false;
        leave(r, before);
    }
    return true;
}

static bool exec_items(struct renderer *r, const node *n, struct mb_jinja_loop *loop)
{
    static const string_t loop_name = {"loop", 4};
    struct mb_jinja_frame *before = r->eval.frame;
    for (; loop->i < loop->items->n && r->flow != FLOW_BREAK; loop->i++) {
        r->flow = FLOW_NEXT;
        if (!mb_jinja_steps(r->eval.run, 1) || !enter(r, before) ||
            !mb_jinja_set_variable(&r->eval, loop_name, (value_t){.kind = MB_JINJA_LOOP, .loop = loop}) ||
            !bind(r, n->e, &loop->items->items[loop->i]) || !exec(r, n->c))
            return false;
        leave(r, before);
    }
    r->flow = FLOW_NEXT;
    return true;
}

/* A FOR over 'value', 'depth' levels down in its own recursion. */
static bool run_loop(struct renderer *r, const node *n, const value_t *value, int64_t depth)
{
    value_t kept;
    list_t *items;
    if (!mb_jinja_items(r->eval.run, value, &items))
        return false;
    if (n->b != NULL) {
        if (!filter_items(r, n, items, &kept))
            return false;
        items = kept.list;
    }
    if (items->n == 0)
        return n->d == NULL || exec(r, n->d);
    struct mb_jinja_loop *loop = mb_jinja_alloc(r->eval.run, sizeof *loop);
    if (loop == NULL)
        return false;
    *loop = (struct mb_jinja_loop){
        .items = items, .depth = depth, .again = n->is_recursive ? n : NULL, .frame = r->eval.frame};
    if (n->is_recursive)
        mb_jinja_keep_frame(&r->eval);
    r->loop_depth++;
    if (!exec_items(r, n, loop))
        return false;
    r->loop_depth--;
    return true;
}

static bool exec_for(struct renderer *r, const node *n)
{
    value_t value;
    return mb_jinja_evaluate(&r->eval, n->a, &value) && run_loop(r, n, &value, 0);
}

/* ---------------------------------------------------------------- macros, calls of loops */

/* A call that runs statements, in a frame in 'outer', whose text becomes *out. */
struct call {
    const node *body; /* its height counts */
    struct mb_jinja_frame *outer;
    bool (*run)(struct renderer *r, const struct call *call);
    const args_t *args;
    const struct mb_jinja_loop *loop;
};

static bool run_call(struct renderer *r, const struct call *call, value_t *out)
{
    struct mb_bytes text = {0}, *out_before = r->out;
    struct mb_jinja_frame *before = r->eval.frame;
    const value_t *printed_before = r->eval.printed;
    size_t loop_depth_before = r->loop_depth;
    if (r->height + call->body->height > HEIGHT_MAX)
        return mb_jinja_fail(r->eval.run, MB_UNSUPPORTED,
                             "macros or loops that call one another this deep are not supported");
    if (!enter(r, call->outer))
        return false;
    r->height += call->body->height;
    r->loop_depth = 0;
    r->out = &text;
    bool ok = call->run(r, call);
    r->height -= call->body->height;
    r->loop_depth = loop_depth_before;
    r->out = out_before;
    r->eval.printed = printed_before;
    if (ok)
        leave(r, before);
    r->eval.frame = before;
    return mb_jinja_finish_text(r->eval.run, &text, ok, out);
}

static bool run_again(struct renderer *r, const struct call *call)
{
    return run_loop(r, call->body, &call->args->items[0], call->loop->depth + 1);
}

/* loop(items): the recursive loop over other items. */
static bool call_loop(struct mb_jinja_eval *e, const struct mb_jinja_loop *loop, const args_t *args,
                      value_t *out)
{
    if (loop->again == NULL)
        return mb_jinja_fail(e->run, MB_BAD_DATA, "a loop that is not 'recursive' cannot be called");
    if (args->n != 1 || args->keywords.map->n > 0)
        return mb_jinja_bad_call(e->run, "loop()");
    const struct call call = {
        .body = loop->again, .outer = loop->frame, .run = run_again, .args = args, .loop = loop};
    return run_call((struct renderer *)e, &call, out);
}

static bool make_macro(struct renderer *r, const node *n, value_t *out)
{
    struct mb_jinja_macro *macro = mb_jinja_alloc(r->eval.run, sizeof *macro);
    if (macro == NULL)
        return false;
    *macro = (struct mb_jinja_macro){n, r->eval.frame};
    mb_jinja_keep_frame(&r->eval);
    *out = (value_t){.kind = MB_JINJA_MACRO, .macro = macro};
    return true;
}

static bool exec_macro(struct renderer *r, const node *n)
{
    value_t macro;
    return make_macro(r, n, &macro) && mb_jinja_set_variable(&r->eval, n->name, macro);
}

static bool exec_call_block(struct renderer *r, const node *n)
{
    static const string_t caller_name = {"caller", 6};
    value_t callee, caller, text;
    args_t args;
    if (!mb_jinja_evaluate(&r->eval, n->a->a, &callee) || !mb_jinja_eval_args(&r->eval, n->a, &args))
        return false;
    if (callee.kind != MB_JINJA_MACRO)
        return mb_jinja_fail(r->eval.run, MB_UNSUPPORTED, "a call block of a %s is not supported",
                             mb_jinja_kind_name(callee.kind));
    return make_macro(r, n->b, &caller) &&
           mb_jinja_put(r->eval.run, args.keywords.map, caller_name, caller) &&
           r->eval.call_macro(&r->eval, callee.macro, &args, &text) && write_value(r, &text);
}

/* Whether a parameter has that name. */
static bool takes_itself(const node *macro, string_t name)
{
    for (size_t i = 0; i < macro->n_items; i++)
        if (mb_jinja_is_string(macro->items[i]->name, name))
            return true;
    return false;
}

static bool takes(const node *macro, string_t name)
{
    return takes_itself(macro, name) ||
           (mb_jinja_is(name, "caller") && (macro->uses & MB_JINJA_USES_CALLER) != 0);
}

static bool check_args(run_t *run, const node *macro, const args_t *args)
{
    if (args->n > macro->n_items && !(macro->uses & MB_JINJA_USES_VARARGS))
        return mb_jinja_fail(run, MB_BAD_DATA, "macro '%.*s' takes at most %zu arguments and gets %zu",
                             (int)macro->name.n, macro->name.p, macro->n_items, args->n);
    for (size_t i = 0; i < args->keywords.map->n; i++) {
        string_t name = args->keywords.map->entries[i].key;
        if (!takes(macro, name) && !(macro->uses & MB_JINJA_USES_KWARGS))
            return mb_jinja_fail(run, MB_BAD_DATA, "macro '%.*s' has no parameter '%.*s'", (int)macro->name.n,
                                 macro->name.p, (int)name.n, name.p);
    }
    return true;
}

/* The i-th parameter as a variable: argument, keyword, default or undefined. */
static bool bind_parameter(struct renderer *r, const node *macro, const args_t *args, size_t i)
{
    const node *parameter = macro->items[i];
    const value_t *keyword = mb_jinja_find(args->keywords.map, parameter->name);
    value_t value = {.kind = MB_JINJA_UNDEFINED, .string = parameter->name};
    if (i < args->n && keyword != NULL)
        return mb_jinja_fail(r->eval.run, MB_BAD_DATA, "macro '%.*s' gets '%.*s' twice", (int)macro->name.n,
                             macro->name.p, (int)parameter->name.n, parameter->name.p);
    if (i < args->n)
        value = args->items[i];
    else if (keyword != NULL)
        value = *keyword;
    else if (parameter->kind == MB_JINJA_N_KEYWORD && !mb_jinja_evaluate(&r->eval, parameter->a, &value))
        return false;
    return mb_jinja_set_variable(&r->eval, parameter->name, value);
}

/* caller, varargs and kwargs, of a macro that mentions them. */
static bool bind_rest(struct renderer *r, const node *macro, const args_t *args)
{
    static const string_t names[] = {{"caller", 6}, {"varargs", 7}, {"kwargs", 6}};
    const value_t *caller = mb_jinja_find(args->keywords.map, names[0]);
    value_t undefined = mb_jinja_undefined("caller"), list, map;
    run_t *run = r->eval.run;
    if ((macro->uses & MB_JINJA_USES_CALLER) && !takes_itself(macro, names[0]) &&
        !mb_jinja_set_variable(&r->eval, names[0], caller != NULL ? *caller : undefined))
        return false;
    if (!mb_jinja_new_form(run, MB_JINJA_TUPLE, &list) || !mb_jinja_new_map(run, MB_JINJA_DICT, &map))
        return false;
    for (size_t i = macro->n_items; i < args->n; i++)
        if (!mb_jinja_append(run, list.list, args->items[i]))
            return false;
    for (size_t i = 0; i < args->keywords.map->n; i++) {
        const struct mb_jinja_entry *entry = &args->keywords.map->entries[i];
        if (!takes(macro, entry->key) && !mb_jinja_put(run, map.map, entry->key, entry->value))
            return false;
    }
    return ((macro->uses & MB_JINJA_USES_VARARGS) == 0 || mb_jinja_set_variable(&r->eval, names[1], list)) &&
           ((macro->uses & MB_JINJA_USES_KWARGS) == 0 || mb_jinja_set_variable(&r->eval, names[2], map));
}

static bool run_macro(struct renderer *r, const struct call *call)
{
    for (size_t i = 0; i < call->body->n_items; i++)
        if (!bind_parameter(r, call->body, call->args, i))
            return false;
    return (call->body->uses == 0 || bind_rest(r, call->body, call->args)) && exec(r, call->body->c);
}

static bool call_macro(struct mb_jinja_eval *e, const struct mb_jinja_macro *macro, const args_t *args,
                       value_t *out)
{
    const struct call call = {.body = macro->node, .outer = macro->frame, .run = run_macro, .args = args};
    return check_args(e->run, macro->node, args) && run_call((struct renderer *)e, &call, out);
}

/* ---------------------------------------------------------------- all statements */

static bool exec_block(struct renderer *r, const node *n)
{
    for (size_t i = 0; i < n->n_items && r->flow == FLOW_NEXT; i++)
        if (!exec(r, n->items[i]))
            return false;
    return true;
}

static bool exec_jump(struct renderer *r, const node *n)
{
    if (r->loop_depth == 0)
        return mb_jinja_fail(r->eval.run, MB_BAD_DATA, "break or continue outside of a loop");
    r->flow = n->kind == MB_JINJA_N_BREAK ? FLOW_BREAK : FLOW_CONTINUE;
    return true;
}

static bool exec(struct renderer *r, const node *n)
{
    r->eval.run->line = n->line;
    if (!mb_jinja_steps(r->eval.run, 1))
        return false;
    switch (n->kind) {
    case MB_JINJA_N_BLOCK:
        return exec_block(r, n);
    case MB_JINJA_N_TEXT:
        return mb_jinja_write(r->eval.run, r->out, n->name.p, n->name.n);
    case MB_JINJA_N_OUTPUT:
        return exec_output(r, n);
    case MB_JINJA_N_IF:
        return exec_if(r, n);
    case MB_JINJA_N_FOR:
        return exec_for(r, n);
    case MB_JINJA_N_SET:
        return exec_set(r, n);
    case MB_JINJA_N_MACRO:
        return exec_macro(r, n);
    case MB_JINJA_N_CALL_BLOCK:
        return exec_call_block(r, n);
    case MB_JINJA_N_SCOPE:
        return exec_scope(r, n);
    case MB_JINJA_N_FILTER_BLOCK:
        return exec_filter_block(r, n);
    default:
        return exec_jump(r, n);
    }
}

static bool set_globals(struct renderer *r, const map_t *variables)
{
    for (size_t i = 0; i < mb_jinja_n_functions; i++) {
        const struct mb_jinja_builtin *function = &mb_jinja_functions[i];
        if (!mb_jinja_set_variable(&r->eval, (string_t){function->name, strlen(function->name)},
                                   (value_t){.kind = MB_JINJA_FUNCTION, .function = function}))
            return false;
    }
    for (size_t i = 0; i < variables->n; i++)
        if (!mb_jinja_set_variable(&r->eval, variables->entries[i].key, variables->entries[i].value))
            return false;
    return true;
}

enum mb_status mb_jinja_render(run_t *run, const struct mb_jinja_node *tree, const map_t *variables,
                               struct mb_bytes *out)
{
    static const struct mb_jinja_by_name by_name = {.filter = mb_jinja_filter};
    struct renderer r = {.eval = {.run = run, .call_macro = call_macro, .call_loop = call_loop}, .out = out};
    run->by_name = &by_name;
    if (enter(&r, NULL) && set_globals(&r, variables))
        exec(&r, tree);
    return run->status;
}
