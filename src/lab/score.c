/*
 * score.c - whether a reply is right, and in the format that was requested (docs/scoring.md).
 */
#include "base/json.h"
#include "base/number.h"
#include "number.h"
#include <math.h>
#include <moebius/lab.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct span {
    const char *begin, *end;
};

static bool equals(const struct mb_lab_number *number, const char *expected)
{
    return strcmp(number->text, expected) == 0;
}

/* The last line that is not only white space; empty when there is none. */
static struct span last_line(const char *text)
{
    const char *end = text + strlen(text);
    while (end > text && mb_lab_is_space(end[-1]))
        end--;
    const char *begin = end;
    while (begin > text && begin[-1] != '\n')
        begin--;
    return (struct span){begin, end};
}

/* Where the last occurrence of 'word' ends, or NULL. */
static const char *after_last(struct span line, const char *word)
{
    size_t n = strlen(word);
    for (const char *p = line.end; (size_t)(p - line.begin) >= n; p--)
        if (memcmp(p - n, word, n) == 0)
            return p;
    return NULL;
}

/* Where the brace that is open at p closes, or NULL: "9{,}500}" has braces inside. */
static const char *closing_brace(const char *p, const char *end)
{
    for (size_t depth = 1; p < end; p++) {
        if (*p == '{')
            depth++;
        else if (*p == '}' && --depth == 0)
            return p;
    }
    return NULL;
}

static bool is_boxed(struct span line, const char *expected)
{
    struct mb_lab_number number;
    const char *inside = after_last(line, "\\boxed{");
    if (inside == NULL)
        return false;
    const char *close = closing_brace(inside, line.end);
    return close != NULL && mb_lab_number_only(inside, close, &number) && equals(&number, expected);
}

/* "#### 18" and "Answer: 18": the number follows the word after white space; the rest is ignored. */
static bool follows(struct span line, const char *word, const char *expected)
{
    struct mb_lab_number number;
    const char *p = after_last(line, word);
    if (p == NULL)
        return false;
    p = mb_lab_skip_space(p, line.end);
    return mb_lab_number_read(p, line.end, &number) != NULL && equals(&number, expected);
}

static bool json_equals(const json_t *value, const char *expected)
{
    struct mb_lab_number number;
    if (json_is_string(value)) {
        const char *text = json_string_value(value);
        return mb_lab_number_only(text, text + strlen(text), &number) && equals(&number, expected);
    }
    if (json_is_integer(value)) {
        char text[32];
        snprintf(text, sizeof text, "%" JSON_INTEGER_FORMAT, json_integer_value(value));
        return strcmp(text, expected) == 0;
    }
    double number_expected;
    return json_is_real(value) && mb_number_parse(expected, strlen(expected), &number_expected) &&
           json_real_value(value) == number_expected;
}

/* What a closing fence ends: the lines after the fence that opens it. Else the line itself. */
static struct span fenced(const char *text, struct span line)
{
    if (line.end - line.begin != 3 || memcmp(line.begin, "```", 3) != 0)
        return line;
    for (const char *end = line.begin; end > text;) {
        const char *begin = end - 1; /* of the line that ends at 'end' */
        while (begin > text && begin[-1] != '\n')
            begin--;
        if ((size_t)(end - begin) >= 3 && memcmp(begin, "```", 3) == 0)
            return (struct span){end, line.begin};
        end = begin;
    }
    return line;
}

static bool is_json(struct span line, const char *expected)
{
    for (const char *p = line.begin; p < line.end; p++) {
        if (*p != '{')
            continue;
        json_t *object = mb_json_leading(p, (size_t)(line.end - p));
        bool is_right = json_equals(json_object_get(object, "answer"), expected);
        json_decref(object);
        if (is_right)
            return true;
    }
    return false;
}

static bool in_format(enum mb_answer_format format, const char *reply, const char *expected)
{
    struct span line = last_line(reply);
    switch (format) {
    case MB_ANSWER_BOXED:
        return is_boxed(line, expected);
    case MB_ANSWER_JSON:
        return is_json(fenced(reply, line), expected);
    case MB_ANSWER_PLAIN:
        return follows(line, "Answer:", expected);
    default:
        return follows(line, "####", expected);
    }
}

struct mb_score mb_score_reply(const struct mb_task_item *item, const char *reply)
{
    struct mb_lab_number last;
    struct mb_score score;
    score.ica = in_format(item->format, reply, item->number);
    score.pia =
        score.ica || (mb_lab_number_last(reply, reply + strlen(reply), &last) && equals(&last, item->number));
    return score;
}
