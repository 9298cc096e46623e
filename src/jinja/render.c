/*
 * render.c - runs the statements of a template.
 */
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

/* The targets of a loop in a frame of their own: one name takes the item, several take its items. */
static bool bind_targets(struct renderer *r, const node *n, const value_t *item)
{
    if (n->n_items == 1)
        return mb_jinja_set_variable(&r->eval, n->items[0]->name, *item);
    list_t *parts;
    if (!mb_jinja_items(r->eval.run, item, &parts))
        return false;
    if (parts->n != n->n_items)
        return mb_jinja_fail(r->eval.run, MB_BAD_DATA, "the loop has %zu names and the item %zu values",
                             n->n_items, parts->n);
    for (size_t i = 0; i < parts->n; i++)
        if (!mb_jinja_set_variable(&r->eval, n->items[i]->name, parts->items[i]))
            return false;
    return true;
}

/* The items that pass the loop's own condition. */
static bool filter_items(struct renderer *r, const node *n, const list_t *items, value_t *kept)
{
    size_t frame = r->eval.frame;
    if (!mb_jinja_new_list(r->eval.run, kept))
        return false;
    for (size_t i = 0; i < items->n; i++) {
        value_t condition;
        r->eval.frame = r->eval.stack.n;
        if (!bind_targets(r, n, &items->items[i]) || !mb_jinja_evaluate(&r->eval, n->b, &condition))
            return false;
        if (mb_jinja_is_true(&condition) && !mb_jinja_append(r->eval.run, kept->list, items->items[i]))
            return false;
        r->eval.stack.n = r->eval.frame;
        r->eval.frame = frame;
    }
    return true;
}

static bool exec_loop(struct renderer *r, const node *n, const list_t *items)
{
    static const string_t loop_name = {"loop", 4};
    size_t frame = r->eval.frame, n_variables = r->eval.stack.n;
    struct mb_jinja_loop *loop = mb_jinja_alloc(r->eval.run, sizeof *loop);
    if (loop == NULL)
        return false;
    *loop = (struct mb_jinja_loop){.items = items};
    r->loop_depth++;
    for (; loop->i < items->n && r->flow != FLOW_BREAK; loop->i++) {
        r->eval.frame = r->eval.stack.n = n_variables;
        r->flow = FLOW_NEXT;
        if (!mb_jinja_steps(r->eval.run, 1) ||
            !mb_jinja_set_variable(&r->eval, loop_name, (value_t){.kind = MB_JINJA_LOOP, .loop = loop}) ||
            !bind_targets(r, n, &items->items[loop->i]) || !exec(r, n->c))
            return false;
    }
    r->flow = FLOW_NEXT;
    r->eval.frame = frame;
    r->eval.stack.n = n_variables;
    r->loop_depth--;
    return true;
}

static bool exec_for(struct renderer *r, const node *n)
{
    value_t value, kept;
    list_t *items;
    if (!mb_jinja_evaluate(&r->eval, n->a, &value) || !mb_jinja_items(r->eval.run, &value, &items))
        return false;
    if (n->b != NULL) {
        if (!filter_items(r, n, items, &kept))
            return false;
        items = kept.list;
    }
    if (items->n == 0)
        return n->d == NULL || exec(r, n->d);
    return exec_loop(r, n, items);
}

/* {% set x %}text{% endset %}: what the block prints. Its variables are its own. */
static bool eval_set_block(struct renderer *r, const node *n, value_t *out)
{
    struct mb_bytes text = {0}, *before = r->out;
    size_t frame = r->eval.frame, n_variables = r->eval.stack.n;
    r->out = &text;
    r->eval.frame = n_variables;
    bool ok = exec(r, n->c);
    r->out = before;
    r->eval.frame = frame;
    r->eval.stack.n = n_variables;
    return mb_jinja_finish_text(r->eval.run, &text, ok, out);
}

static bool exec_set(struct renderer *r, const node *n)
{
    value_t value = {0}, object = {0};
    if (!(n->b != NULL ? mb_jinja_evaluate(&r->eval, n->b, &value) : eval_set_block(r, n, &value)))
        return false;
    if (n->a->kind == MB_JINJA_N_NAME)
        return mb_jinja_set_variable(&r->eval, n->a->name, value);
    if (!mb_jinja_evaluate(&r->eval, n->a->a, &object))
        return false;
    if (object.kind != MB_JINJA_NAMESPACE)
        return mb_jinja_fail(r->eval.run, MB_BAD_DATA, "an attribute of a %s cannot be set",
                             mb_jinja_kind_name(object.kind));
    return mb_jinja_put(r->eval.run, object.map, n->a->name, value);
}

/* ---------------------------------------------------------------- macros */

static bool exec_macro(struct renderer *r, const node *n)
{
    if (r->eval.frame > 0)
        return mb_jinja_fail(r->eval.run, MB_UNSUPPORTED,
                             "a macro inside of a loop, a macro or a set block is not supported");
    return mb_jinja_set_variable(&r->eval, n->name, (value_t){.kind = MB_JINJA_MACRO, .macro = n});
}

/* Whether a parameter has that name. */
static bool takes(const node *macro, string_t name)
{
    for (size_t i = 0; i < macro->n_items; i++)
        if (mb_jinja_is_string(macro->items[i]->name, name))
            return true;
    return false;
}

static bool check_args(run_t *run, const node *macro, const args_t *args)
{
    if (args->n > macro->n_items)
        return mb_jinja_fail(run, MB_BAD_DATA, "macro '%.*s' takes at most %zu arguments and gets %zu",
                             (int)macro->name.n, macro->name.p, macro->n_items, args->n);
    for (size_t i = 0; i < args->keywords.map->n; i++) {
        string_t name = args->keywords.map->entries[i].key;
        if (!takes(macro, name))
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

static bool run_macro(struct renderer *r, const node *macro, const args_t *args)
{
    for (size_t i = 0; i < macro->n_items; i++)
        if (!bind_parameter(r, macro, args, i))
            return false;
    return exec(r, macro->c);
}

static bool call_macro(struct mb_jinja_eval *e, const node *macro, const args_t *args, value_t *out)
{
    struct renderer *r = (struct renderer *)e, before = *r;
    struct mb_bytes text = {0};
    if (!check_args(e->run, macro, args))
        return false;
    if (r->height + macro->height > HEIGHT_MAX)
        return mb_jinja_fail(e->run, MB_UNSUPPORTED,
                             "macros that call one another this deep are not supported");
    e->scope = e->frame = e->stack.n;
    r->height += macro->height;
    r->loop_depth = 0;
    r->out = &text;
    bool ok = run_macro(r, macro, args);
    e->scope = before.eval.scope;
    e->frame = before.eval.frame;
    e->stack.n = before.eval.stack.n;
    r->height = before.height;
    r->loop_depth = before.loop_depth;
    r->out = before.out;
    return mb_jinja_finish_text(e->run, &text, ok, out);
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
    struct renderer r = {.eval = {.run = run, .call_macro = call_macro}, .out = out};
    if (set_globals(&r, variables))
        exec(&r, tree);
    free(r.eval.stack.entries);
    return run->status;
}
