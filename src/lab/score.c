/*
 * score.c - whether a reply is right, and in the format that was requested (docs/scoring.md).
 */
#include "base/json.h"
#include "base/number.h"
#include "math_answer.h"
#include "number.h"
#include "words.h"
#include <math.h>
#include <moebius/lab.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static struct mb_lab_span whole(const char *text)
{
    return (struct mb_lab_span){text, text + strlen(text)};
}

static bool equals(const struct mb_lab_number *number, const char *expected)
{
    return strcmp(number->text, expected) == 0;
}

/* Whether all of the span is the answer: white space and a final dot aside. */
static bool is_answer(struct mb_lab_span span, const struct mb_task_item *item)
{
    struct mb_lab_number number;
    if (item->kind == MB_ANSWER_NUMBER)
        return mb_lab_number_only(span.begin, span.end, &number) && equals(&number, item->answer);
    if (item->kind == MB_ANSWER_LATEX)
        return mb_lab_math_equal(span, whole(item->answer));
    return mb_lab_same_words(span, whole(item->answer));
}

/* The last line that is not only white space; empty when there is none. */
static struct mb_lab_span last_line(const char *text)
{
    const char *end = text + strlen(text);
    while (end > text && mb_lab_is_space(end[-1]))
        end--;
    const char *begin = end;
    while (begin > text && begin[-1] != '\n')
        begin--;
    return (struct mb_lab_span){begin, end};
}

/* Where the last occurrence of 'word' ends, or NULL. */
static const char *after_last(struct mb_lab_span line, const char *word)
{
    size_t n = strlen(word);
    for (const char *p = line.end; (size_t)(p - line.begin) >= n; p--)
        if (memcmp(p - n, word, n) == 0)
            return p;
    return NULL;
}

static bool is_boxed(struct mb_lab_span line, const struct mb_task_item *item)
{
    const char *inside = after_last(line, "\\boxed{");
    if (inside == NULL)
        return false;
    const char *close = mb_lab_closing_brace(inside, line.end);
    return close != NULL && is_answer((struct mb_lab_span){inside, close}, item);
}

/* "#### 18" and "Answer: 18": a number follows the word after white space, and the rest is ignored. */
static bool follows(struct mb_lab_span line, const char *word, const struct mb_task_item *item)
{
    struct mb_lab_number number;
    const char *p = after_last(line, word);
    if (p == NULL)
        return false;
    if (item->kind != MB_ANSWER_NUMBER)
        return is_answer((struct mb_lab_span){p, line.end}, item);
    p = mb_lab_skip_space(p, line.end);
    return mb_lab_number_read(p, line.end, &number) != NULL && equals(&number, item->answer);
}

static bool json_equals(const json_t *value, const struct mb_task_item *item)
{
    if (json_is_string(value))
        return is_answer(whole(json_string_value(value)), item);
    if (item->kind != MB_ANSWER_NUMBER)
        return false;
    if (json_is_integer(value)) {
        char text[32];
        snprintf(text, sizeof text, "%" JSON_INTEGER_FORMAT, json_integer_value(value));
        return strcmp(text, item->answer) == 0;
    }
    double expected;
    return json_is_real(value) && mb_number_parse(item->answer, strlen(item->answer), &expected) &&
           json_real_value(value) == expected;
}

/* What a closing fence ends: the lines after the fence that opens it. Else the line itself. */
static struct mb_lab_span fenced(const char *text, struct mb_lab_span line)
{
    if (line.end - line.begin != 3 || memcmp(line.begin, "```", 3) != 0)
        return line;
    for (const char *end = line.begin; end > text;) {
        const char *begin = end - 1; /* of the line that ends at 'end' */
        while (begin > text && begin[-1] != '\n')
            begin--;
        if ((size_t)(end - begin) >= 3 && memcmp(begin, "```", 3) == 0)
            return (struct mb_lab_span){end, line.begin};
        end = begin;
    }
    return line;
}

static bool is_json(struct mb_lab_span line, const struct mb_task_item *item)
{
    for (const char *p = line.begin; p < line.end; p++) {
        if (*p != '{')
            continue;
        json_t *object = mb_json_leading(p, (size_t)(line.end - p));
        bool is_right = json_equals(json_object_get(object, "answer"), item);
        json_decref(object);
        if (is_right)
            return true;
    }
    return false;
}

static bool is_in_last_box(const char *reply, const struct mb_task_item *item)
{
    struct mb_lab_span box;
    return mb_lab_last_box(reply, &box) && is_answer(box, item);
}

static bool in_format(const struct mb_task_item *item, const char *reply)
{
    struct mb_lab_span line = last_line(reply);
    switch (item->format) {
    case MB_ANSWER_BOXED:
        return is_boxed(line, item);
    case MB_ANSWER_JSON:
        return is_json(fenced(reply, line), item);
    case MB_ANSWER_PLAIN:
        return follows(line, "Answer:", item);
    case MB_ANSWER_MATH:
        return is_in_last_box(reply, item);
    default:
        return follows(line, "####", item);
    }
}

/* ---------------------------------------------------------------- whatever the format */

/* The last number of a reply; of LaTeX answers those that are numbers. */
static bool ends_with_number(const struct mb_task_item *item, const char *reply)
{
    struct mb_lab_number last, expected;
    struct mb_lab_span answer = whole(item->answer);
    return mb_lab_number_only(answer.begin, answer.end, &expected) &&
           mb_lab_number_last(reply, reply + strlen(reply), &last) && equals(&last, expected.text);
}

/* Markup and punctuation that stand around an answer at the end of a line. */
static struct mb_lab_span bare(struct mb_lab_span span)
{
    static const char around[] = " \t\r$*\"'`:";
    while (span.begin < span.end && strchr(around, *span.begin) != NULL)
        span.begin++;
    while (span.end > span.begin && (strchr(around, span.end[-1]) != NULL || span.end[-1] == '.'))
        span.end--;
    return span;
}

static bool ends_with_latex(const struct mb_task_item *item, const char *reply)
{
    static const char *const marks[] = {"", "####", "Answer:", "answer is", "="};
    struct mb_lab_span line = last_line(reply);
    for (size_t i = 0; i < sizeof marks / sizeof *marks; i++) {
        const char *p = i == 0 ? line.begin : after_last(line, marks[i]);
        if (p != NULL && mb_lab_math_equal(bare((struct mb_lab_span){p, line.end}), whole(item->answer)))
            return true;
    }
    return ends_with_number(item, reply);
}

static bool ends_right(const struct mb_task_item *item, const char *reply)
{
    if (item->kind == MB_ANSWER_NUMBER)
        return ends_with_number(item, reply);
    if (item->kind == MB_ANSWER_TEXT)
        return mb_lab_ends_with_words(last_line(reply), whole(item->answer)) || is_in_last_box(reply, item);
    return is_in_last_box(reply, item) || ends_with_latex(item, reply);
}

/* ---------------------------------------------------------------- replies of no use */

static const char *const dead_names[] = {"alive", "empty", "repeats", "cut", "no room"};

const char *mb_dead_name(enum mb_dead dead)
{
    return (size_t)dead < sizeof dead_names / sizeof *dead_names ? dead_names[dead] : "";
}

/* One piece of text four times or more at the end, 32 bytes or more in all. */
static bool repeats(struct mb_lab_span text)
{
    enum { PIECE_MAX = 256, N_TIMES = 4, N_BYTES_LEAST = 32 };
    size_t n = (size_t)(text.end - text.begin);
    for (size_t piece = 1; piece <= PIECE_MAX && N_TIMES * piece <= n; piece++) {
        size_t all = N_TIMES * piece < N_BYTES_LEAST ? N_BYTES_LEAST : N_TIMES * piece;
        if (all <= n && memcmp(text.end - all, text.end - all + piece, all - piece) == 0)
            return true;
    }
    return false;
}

static enum mb_dead find_dead(const struct mb_task_item *item, const char *reply, bool is_cut)
{
    static const char *const signs[] = {"####", "\\boxed", "\"answer\"", "Answer:", "\\boxed"};
    struct mb_lab_span text = {reply, last_line(reply).end};
    if (text.begin == text.end)
        return MB_DEAD_EMPTY;
    if (repeats(text))
        return MB_DEAD_REPEATS;
    return is_cut && strstr(reply, signs[item->format]) == NULL ? MB_DEAD_CUT : MB_ALIVE;
}

struct mb_score mb_score_reply(const struct mb_task_item *item, const char *reply, bool is_cut)
{
    struct mb_score score = {.ica = in_format(item, reply)};
    score.pia = score.ica || ends_right(item, reply);
    score.dead = score.pia ? MB_ALIVE : find_dead(item, reply, is_cut);
    return score;
}
