/*
 * subscript.c - items and slices of lists and strings.
 */
#include "base/utf8.h"
#include "builtins.h"
#include "operators.h"
#include "safe_text.h"

static int64_t length_of(const value_t *object)
{
    return object->kind == MB_JINJA_LIST ? (int64_t)object->list->n
                                         : (int64_t)mb_jinja_n_chars(object->string);
}

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

bool mb_jinja_item(run_t *run, const value_t *object, const value_t *index, value_t *out)
{
    if (index->kind == MB_JINJA_STRING)
        return mb_jinja_attribute(run, object, index->string, true, out);
    if (object->kind == MB_JINJA_UNDEFINED)
        return mb_jinja_fail_undefined(run, object);
    *out = mb_jinja_undefined("item");
    if (object->kind == MB_JINJA_DICT) {
        const value_t *found = mb_jinja_find_key(object->map, index);
        if (found != NULL)
            *out = *found;
        return mb_jinja_steps(run, object->map->n);
    }
    bool is_list = object->kind == MB_JINJA_LIST && object->list->form <= MB_JINJA_RANGE;
    if (!mb_jinja_is_whole(index) || (!is_list && object->kind != MB_JINJA_STRING))
        return true;
    int64_t length = length_of(object);
    int64_t i = index->number < 0 ? index->number + length : index->number;
    if (i < 0 || i >= length)
        return true;
    if (!is_list)
        return mb_jinja_steps(run, object->string.n / 16) && nth_char(object->string, i, out);
    *out = object->list->items[i];
    return true;
}

/* ---------------------------------------------------------------- slices */

/* One part of a slice: 'otherwise' where it is none. */
static bool slice_part(run_t *run, const value_t *value, int64_t otherwise, int64_t *part)
{
    *part = otherwise;
    if (value->kind == MB_JINJA_NONE)
        return true;
    if (value->kind != MB_JINJA_INT)
        return mb_jinja_fail(run, MB_BAD_DATA, "a slice by a %s is not possible",
                             mb_jinja_kind_name(value->kind));
    *part = value->number;
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

static bool slice_list(run_t *run, const list_t *list, int64_t begin, int64_t end, int64_t step, value_t *out)
{
    if (!mb_jinja_new_form(run, list->form, out))
        return false;
    for (int64_t i = begin; step > 0 ? i < end : i > end; i += step)
        if (!mb_jinja_steps(run, 1) || !mb_jinja_append(run, out->list, list->items[i]))
            return false;
    return true;
}

static bool slice_string(run_t *run, string_t string, int64_t begin, int64_t end, value_t *out)
{
    size_t at = 0, from, i = 0;
    for (; (int64_t)i < begin; i++)
        at += mb_utf8_nbytes(string.p[at]);
    from = at;
    for (; (int64_t)i < end; i++)
        at += mb_utf8_nbytes(string.p[at]);
    *out = mb_jinja_text(string.p + from, at - from);
    return mb_jinja_steps(run, string.n / 16);
}

bool mb_jinja_slice(run_t *run, const value_t *object, const value_t *begin_value, const value_t *end_value,
                    const value_t *step_value, value_t *out)
{
    int64_t begin, end, step;
    if (object->kind == MB_JINJA_UNDEFINED)
        return mb_jinja_fail_undefined(run, object);
    if (!slice_part(run, step_value, 1, &step))
        return false;
    bool is_list = object->kind == MB_JINJA_LIST && object->list->form <= MB_JINJA_TUPLE;
    if (!is_list && object->kind != MB_JINJA_STRING)
        return mb_jinja_fail(run, MB_BAD_DATA, "a slice of a %s is not possible",
                             mb_jinja_kind_name(object->kind));
    if (!is_list && object->is_safe)
        return mb_jinja_fail_safe(run, "a slice");
    if (step == 0 || step < -INT32_MAX || step > INT32_MAX)
        return mb_jinja_fail(run, MB_BAD_DATA, "a slice with a step of 0, or beyond 31 bits");
    int64_t length = length_of(object);
    if (!slice_part(run, begin_value, step > 0 ? 0 : length - 1, &begin) ||
        !slice_part(run, end_value, step > 0 ? length : -length - 1, &end))
        return false;
    begin = clip(begin, length, step);
    end = clip(end, length, step);
    if (is_list)
        return slice_list(run, object->list, begin, end, step, out);
    if (step == 1)
        return slice_string(run, object->string, begin, end < begin ? begin : end, out);
    value_t chars, kept;
    list_t *items;
    if (!mb_jinja_items(run, object, &items))
        return false;
    chars = (value_t){.kind = MB_JINJA_LIST, .list = items};
    return slice_list(run, chars.list, begin, end, step, &kept) &&
           mb_jinja_join_items(run, kept.list, (string_t){"", 0}, false, out);
}
