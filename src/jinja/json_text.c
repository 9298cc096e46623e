/*
 * json_text.c - writes values as JSON, byte for byte as Python's json.dumps does.
 */
#include "value.h"
#include <stdio.h>

enum { JSON_DEPTH_MAX = 64 };

struct json_writer {
    run_t *run;
    struct mb_bytes out;
    int indent; /* negative: all in one line */
};

static bool write_text(struct json_writer *w, const char *text, size_t n)
{
    return mb_jinja_write(w->run, &w->out, text, n);
}

static bool write_string(struct json_writer *w, string_t string)
{
    static const char from[] = "\"\\\n\r\t\f\b", to[] = "\"\\nrtfb";
    if (!write_text(w, "\"", 1))
        return false;
    for (size_t i = 0; i < string.n; i++) {
        char c = string.p[i], escape[8];
        const char *at = c == 0 ? NULL : strchr(from, c);
        bool ok;
        if (at != NULL)
            ok = write_text(w, (char[]){'\\', to[at - from]}, 2);
        else if ((uint8_t)c < 0x20)
            ok = write_text(w, escape, (size_t)snprintf(escape, sizeof escape, "\\u%04x", (unsigned)c));
        else
            ok = write_text(w, &c, 1);
        if (!ok)
            return false;
    }
    return mb_jinja_steps(w->run, string.n) && write_text(w, "\"", 1);
}

/* What is before an item: a comma, and a space or a new line. */
static bool write_gap(struct json_writer *w, size_t i, int depth)
{
    if (i > 0 && !write_text(w, ",", 1))
        return false;
    if (w->indent < 0)
        return i == 0 || write_text(w, " ", 1);
    if (!write_text(w, "\n", 1))
        return false;
    for (int k = 0; k < depth * w->indent; k++)
        if (!write_text(w, " ", 1))
            return false;
    return true;
}

static bool write_value(struct json_writer *w, const value_t *value, int depth)
{
    string_t string;
    bool is_list = value->kind == MB_JINJA_LIST;
    if (!mb_jinja_steps(w->run, 1))
        return false;
    if (value->kind == MB_JINJA_STRING)
        return write_string(w, value->string);
    if (value->kind == MB_JINJA_NONE)
        return write_text(w, "null", 4);
    if (value->kind == MB_JINJA_BOOL)
        return value->number ? write_text(w, "true", 4) : write_text(w, "false", 5);
    if (value->kind == MB_JINJA_INT)
        return mb_jinja_str(w->run, value, &string) && write_text(w, string.p, string.n);
    if (!is_list && value->kind != MB_JINJA_DICT)
        return mb_jinja_fail(w->run, MB_UNSUPPORTED, "tojson of a %s is not supported",
                             mb_jinja_kind_name(value->kind));
    if (depth > JSON_DEPTH_MAX)
        return mb_jinja_fail(w->run, MB_UNSUPPORTED,
                             "tojson of values nested more than %d deep is not supported", JSON_DEPTH_MAX);
    size_t n = is_list ? value->list->n : value->map->n;
    if (!write_text(w, is_list ? "[" : "{", 1))
        return false;
    for (size_t i = 0; i < n; i++) {
        if (!write_gap(w, i, depth + 1))
            return false;
        if (!is_list && !(write_string(w, value->map->entries[i].key) && write_text(w, ": ", 2)))
            return false;
        if (!write_value(w, is_list ? &value->list->items[i] : &value->map->entries[i].value, depth + 1))
            return false;
    }
    if (n > 0 && w->indent >= 0 && !write_gap(w, 0, depth))
        return false;
    return write_text(w, is_list ? "]" : "}", 1);
}

bool mb_jinja_json(run_t *run, const value_t *value, int indent, value_t *json)
{
    struct json_writer w = {.run = run, .indent = indent};
    bool ok = write_value(&w, value, 0);
    return mb_jinja_finish_text(run, &w.out, ok, json);
}
