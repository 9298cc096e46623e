/*
 * attributes.c - object.name, and calls of what it gives.
 */
#include "builtins.h"
#include "safe_text.h"

static bool make_method(run_t *run, const value_t *object, string_t name,
                        const struct mb_jinja_builtin *builtin, value_t *out)
{
    struct mb_jinja_method *method = mb_jinja_alloc(run, sizeof *method);
    if (method == NULL)
        return false;
    *method = (struct mb_jinja_method){*object, name, builtin};
    *out = (value_t){.kind = MB_JINJA_METHOD, .method = method};
    return true;
}

static bool loop_cycle(run_t *run, const value_t *input, const args_t *args, value_t *out)
{
    if (args->n == 0 || args->keywords.map->n > 0)
        return mb_jinja_bad_call(run, "loop.cycle");
    *out = args->items[input->loop->i % args->n];
    return true;
}

/* Whether the arguments are others than at the call before. */
static bool loop_changed(run_t *run, const value_t *input, const args_t *args, value_t *out)
{
    value_t list, *kept = mb_jinja_alloc(run, sizeof *kept);
    bool equal = false;
    if (kept == NULL || !mb_jinja_new_form(run, MB_JINJA_TUPLE, &list))
        return false;
    for (size_t i = 0; i < args->n; i++)
        if (!mb_jinja_append(run, list.list, args->items[i]))
            return false;
    if (input->loop->last_changed != NULL && !mb_jinja_equal(run, input->loop->last_changed, &list, &equal))
        return false;
    *kept = list;
    input->loop->last_changed = kept;
    *out = mb_jinja_bool(!equal);
    return true;
}

static bool loop_attribute(run_t *run, const value_t *object, string_t name, value_t *out)
{
    static const struct mb_jinja_builtin methods[] = {{"cycle", loop_cycle}, {"changed", loop_changed}};
    const struct mb_jinja_builtin *method = mb_jinja_find_in(methods, MB_JINJA_COUNT(methods), name);
    const struct mb_jinja_loop *loop = object->loop;
    if (method != NULL)
        return make_method(run, object, name, method, out);
    int64_t i = (int64_t)loop->i, n = (int64_t)loop->items->n;
    const struct {
        const char *name;
        value_t value;
    } numbers[] = {
        {"index", mb_jinja_int(i + 1)},
        {"index0", mb_jinja_int(i)},
        {"revindex", mb_jinja_int(n - i)},
        {"revindex0", mb_jinja_int(n - i - 1)},
        {"first", mb_jinja_bool(i == 0)},
        {"last", mb_jinja_bool(i == n - 1)},
        {"length", mb_jinja_int(n)},
        {"depth", mb_jinja_int(loop->depth + 1)}, /* of recursion: not of loops in loops */
        {"depth0", mb_jinja_int(loop->depth)},
    };
    for (size_t k = 0; k < MB_JINJA_COUNT(numbers); k++) {
        if (mb_jinja_is(name, numbers[k].name)) {
            *out = numbers[k].value;
            return true;
        }
    }
    bool previous = mb_jinja_is(name, "previtem");
    if (!previous && !mb_jinja_is(name, "nextitem"))
        return mb_jinja_fail(run, MB_UNSUPPORTED, "loop.%.*s is not supported", (int)name.n, name.p);
    bool exists = previous ? i > 0 : i + 1 < n;
    *out = exists ? loop->items->items[previous ? i - 1 : i + 1]
                  : (value_t){.kind = MB_JINJA_UNDEFINED, .string = name};
    return true;
}

static void get_item(const map_t *map, string_t name, value_t *out)
{
    const value_t *found = mb_jinja_find(map, name);
    if (found != NULL)
        *out = *found;
}

static bool dict_attribute(run_t *run, const value_t *object, string_t name, bool item_first, value_t *out)
{
    if (!item_first || mb_jinja_find(object->map, name) == NULL) {
        const struct mb_jinja_builtin *method = mb_jinja_dict_method(name);
        if (method != NULL || mb_jinja_is_other_dict_method(name))
            return make_method(run, object, name, method, out);
    }
    get_item(object->map, name, out);
    return mb_jinja_steps(run, object->map->n);
}

bool mb_jinja_attribute(run_t *run, const value_t *object, string_t name, bool item_first, value_t *out)
{
    const struct mb_jinja_builtin *method;
    *out = (value_t){.kind = MB_JINJA_UNDEFINED, .string = name};
    switch (object->kind) {
    case MB_JINJA_UNDEFINED:
        return mb_jinja_fail_undefined(run, object);
    case MB_JINJA_DICT:
        return dict_attribute(run, object, name, item_first, out);
    case MB_JINJA_NAMESPACE:
        get_item(object->map, name, out);
        return mb_jinja_steps(run, object->map->n);
    case MB_JINJA_LOOP:
        return loop_attribute(run, object, name, out);
    case MB_JINJA_STRING:
        method = mb_jinja_string_method(name);
        if (method == NULL && !mb_jinja_is_other_string_method(name))
            return true;
        if (object->is_safe)
            return mb_jinja_fail_safe(run, "a method");
        return make_method(run, object, name, method, out);
    case MB_JINJA_LIST:
        method = mb_jinja_list_method(name);
        if (object->list->form > MB_JINJA_TUPLE || (method == NULL && !mb_jinja_is_other_list_method(name)))
            return true;
        return make_method(run, object, name, method, out);
    case MB_JINJA_MACRO:
    case MB_JINJA_FUNCTION:
    case MB_JINJA_METHOD:
        return mb_jinja_fail(run, MB_UNSUPPORTED, "an attribute of a %s is not supported",
                             mb_jinja_kind_name(object->kind));
    default:
        return true;
    }
}

bool mb_jinja_call(run_t *run, const value_t *callee, const args_t *args, value_t *out)
{
    const struct mb_jinja_method *method;
    switch (callee->kind) {
    case MB_JINJA_FUNCTION:
        return callee->function->call(run, NULL, args, out);
    case MB_JINJA_METHOD:
        method = callee->method;
        if (method->builtin != NULL)
            return method->builtin->call(run, &method->object, args, out);
        return mb_jinja_fail(run, MB_UNSUPPORTED, "the method '%.*s' of %ss is not supported",
                             (int)method->name.n, method->name.p, mb_jinja_kind_name(method->object.kind));
    case MB_JINJA_UNDEFINED:
        return mb_jinja_fail_undefined(run, callee);
    default:
        return mb_jinja_fail(run, MB_BAD_DATA, "a %s cannot be called", mb_jinja_kind_name(callee->kind));
    }
}
