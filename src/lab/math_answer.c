/*
 * math_answer.c - answers of the MATH data set (Hendrycks et al. 2021), equal by its published rules.
 *
 * Both answers are brought into one form, step by step in the published order, and then compared as texts.
 * Where a step of the published program fails (a \sqrt at the end, two units), it compares the answers as
 * they are, and so does this.
 */
#include "math_answer.h"
#include "number.h"
#include <moebius/lab.h>
#include <string.h>

enum { ANSWER_MAX = 1024, FORM_MAX = 4 * ANSWER_MAX };

/* An answer on its way to its form. */
struct form {
    char text[FORM_MAX];
    size_t n;
    bool is_broken; /* a step failed, or it is too long */
};

static bool starts_with(const char *p, const char *end, const char *word)
{
    size_t n = strlen(word);
    return (size_t)(end - p) >= n && memcmp(p, word, n) == 0;
}

static void put(struct form *form, const char *text, size_t n)
{
    if (n > sizeof form->text - form->n) {
        form->is_broken = true;
        return;
    }
    memcpy(form->text + form->n, text, n);
    form->n += n;
}

static void put_word(struct form *form, const char *word)
{
    put(form, word, strlen(word));
}

static void replace(struct form *form, const char *from, const char *to)
{
    struct form out = {.n = 0, .is_broken = form->is_broken};
    for (const char *p = form->text, *end = p + form->n; p < end;) {
        if (starts_with(p, end, from)) {
            put_word(&out, to);
            p += strlen(from);
        } else {
            put(&out, p++, 1);
        }
    }
    *form = out;
}

/* Where 'word' first occurs, or NULL. */
static const char *find(const char *p, const char *end, const char *word)
{
    for (; p < end; p++)
        if (starts_with(p, end, word))
            return p;
    return NULL;
}

/* Bytes of the character at p. */
static size_t char_nbytes(const char *p, const char *end)
{
    size_t n = 1;
    while (p + n < end && ((unsigned char)p[n] & 0xc0) == 0x80)
        n++;
    return n;
}

static size_t n_chars(const char *p, const char *end)
{
    size_t n = 0;
    for (; p < end; p += char_nbytes(p, end))
        n++;
    return n;
}

static void put_braced(struct form *form, const char *p, size_t n)
{
    put(form, "{", 1);
    put(form, p, n);
    put(form, "}", 1);
}

/* "10\text{ units}" is 10. */
static void cut_units(struct form *form)
{
    const char *end = form->text + form->n, *units = find(form->text, end, "\\text{ ");
    if (units == NULL)
        return;
    form->is_broken |= find(units + 1, end, "\\text{ ") != NULL;
    form->n = (size_t)(units - form->text);
}

/* "k = 5" is 5: one equals sign, and at most two characters before it. */
static void cut_name(struct form *form)
{
    const char *end = form->text + form->n, *equals = find(form->text, end, "=");
    if (equals == NULL || find(equals + 1, end, "=") != NULL || n_chars(form->text, equals) > 2)
        return;
    form->n = (size_t)(end - equals - 1);
    memmove(form->text, equals + 1, form->n);
}

/* Where the text goes on after a command and before its next occurrence: an argument is looked for there. */
struct piece {
    const char *begin, *end;
};

static struct piece next_piece(const char *begin, const char *end, const char *command)
{
    const char *next = find(begin, end, command);
    return (struct piece){begin, next != NULL ? next : end};
}

/* \sqrt3 becomes \sqrt{3}. */
static void brace_roots(struct form *form)
{
    static const char command[] = "\\sqrt";
    const char *end = form->text + form->n;
    struct piece piece = next_piece(form->text, end, command);
    struct form out = {.is_broken = form->is_broken};
    put(&out, piece.begin, (size_t)(piece.end - piece.begin));
    while (piece.end < end) {
        piece = next_piece(piece.end + strlen(command), end, command);
        put_word(&out, command);
        if (piece.begin == piece.end) {
            out.is_broken = true;
        } else if (*piece.begin != '{') {
            size_t n = char_nbytes(piece.begin, piece.end);
            put_braced(&out, piece.begin, n);
            piece.begin += n;
        }
        put(&out, piece.begin, (size_t)(piece.end - piece.begin));
    }
    *form = out;
}

/* \frac12 becomes \frac{1}{2}, \frac1{72} \frac{1}{72}; one character after \frac leaves all as it is. */
static void brace_fractions(struct form *form)
{
    static const char command[] = "\\frac";
    const char *end = form->text + form->n;
    struct piece piece = next_piece(form->text, end, command);
    struct form out = {.is_broken = form->is_broken};
    put(&out, piece.begin, (size_t)(piece.end - piece.begin));
    while (piece.end < end) {
        piece = next_piece(piece.end + strlen(command), end, command);
        put_word(&out, command);
        if (piece.begin == piece.end) {
            form->is_broken = true;
            return;
        }
        if (*piece.begin != '{') {
            size_t n = char_nbytes(piece.begin, piece.end);
            if (piece.begin + n == piece.end)
                return;
            put_braced(&out, piece.begin, n);
            piece.begin += n;
            if (*piece.begin != '{') {
                n = char_nbytes(piece.begin, piece.end);
                put_braced(&out, piece.begin, n);
                piece.begin += n;
            }
        }
        put(&out, piece.begin, (size_t)(piece.end - piece.begin));
    }
    *form = out;
}

/* As Python prints an integer. */
static bool is_integer(const char *p, const char *end)
{
    bool is_negative = p < end && *p == '-';
    p += is_negative;
    if (p == end || (*p == '0' && (end - p > 1 || is_negative)))
        return false;
    for (; p < end; p++)
        if (*p < '0' || *p > '9')
            return false;
    return true;
}

/* 3/4 becomes \frac{3}{4} where that is all. */
static void stack_slash(struct form *form)
{
    struct form out = {.is_broken = form->is_broken};
    const char *end = form->text + form->n, *slash = find(form->text, end, "/");
    if (slash == NULL || !is_integer(form->text, slash) || !is_integer(slash + 1, end))
        return;
    put_word(&out, "\\frac");
    put_braced(&out, form->text, (size_t)(slash - form->text));
    put_braced(&out, slash + 1, (size_t)(end - slash - 1));
    *form = out;
}

static void set(struct form *form, const char *text, size_t n)
{
    form->n = 0;
    put(form, text, n);
}

static void normalise(struct form *form)
{
    static const char *const replacements[][2] = {
        {"\n", ""},     {"\\!", ""},     {"\\\\", "\\"},    {"tfrac", "frac"}, {"dfrac", "frac"},
        {"\\left", ""}, {"\\right", ""}, {"^{\\circ}", ""}, {"^\\circ", ""},   {"\\$", ""},
    };
    for (size_t i = 0; i < sizeof replacements / sizeof *replacements; i++)
        replace(form, replacements[i][0], replacements[i][1]);
    cut_units(form);
    replace(form, "\\%", "");
    replace(form, "%", "");
    replace(form, " .", " 0.");
    replace(form, "{.", "{0.");
    if (form->n == 0)
        return;
    if (form->text[0] == '.') {
        struct form out = {.is_broken = form->is_broken};
        put(&out, "0", 1);
        put(&out, form->text, form->n);
        *form = out;
    }
    cut_name(form);
    brace_roots(form);
    replace(form, " ", "");
    brace_fractions(form);
    if (form->n == 3 && memcmp(form->text, "0.5", 3) == 0)
        set(form, "\\frac{1}{2}", strlen("\\frac{1}{2}"));
    stack_slash(form);
}

static void begin_form(struct form *form, struct mb_lab_span answer)
{
    size_t n = (size_t)(answer.end - answer.begin);
    form->n = 0;
    form->is_broken = n > ANSWER_MAX;
    if (form->is_broken)
        return;
    put(form, answer.begin, n);
    normalise(form);
}

static bool same(const char *a, size_t n_a, const char *b, size_t n_b)
{
    return n_a == n_b && memcmp(a, b, n_a) == 0;
}

bool mb_lab_math_equal(struct mb_lab_span a, struct mb_lab_span b)
{
    struct form ours, theirs;
    begin_form(&ours, a);
    begin_form(&theirs, b);
    if (ours.is_broken || theirs.is_broken)
        return same(a.begin, (size_t)(a.end - a.begin), b.begin, (size_t)(b.end - b.begin));
    return same(ours.text, ours.n, theirs.text, theirs.n);
}

bool mb_math_equal(const char *a, const char *b)
{
    return mb_lab_math_equal((struct mb_lab_span){a, a + strlen(a)}, (struct mb_lab_span){b, b + strlen(b)});
}

/* ---------------------------------------------------------------- the box */

const char *mb_lab_closing_brace(const char *p, const char *end)
{
    for (size_t depth = 1; p < end; p++) {
        if (*p == '{')
            depth++;
        else if (*p == '}' && --depth == 0)
            return p;
    }
    return NULL;
}

/* Where the last occurrence ends, or NULL. */
static const char *after_last(const char *text, const char *word)
{
    const char *found = NULL;
    for (const char *p = text; (p = strstr(p, word)) != NULL; p++)
        found = p + strlen(word);
    return found;
}

/* "\boxed 5$": some solutions have no braces. */
static bool unbraced(const char *p, struct mb_lab_span *box)
{
    box->begin = p;
    box->end = p + strcspn(p, "$\n");
    while (box->end > box->begin && (mb_lab_is_space(box->end[-1]) || box->end[-1] == '.'))
        box->end--;
    return box->end > box->begin;
}

bool mb_lab_last_box(const char *text, struct mb_lab_span *box)
{
    const char *p = after_last(text, "\\boxed");
    if (p == NULL)
        p = after_last(text, "\\fbox");
    if (p == NULL)
        return false;
    const char *inside = p;
    while (*inside == ' ')
        inside++;
    if (*inside != '{')
        return inside > p && unbraced(inside, box);
    box->begin = inside + 1;
    box->end = mb_lab_closing_brace(box->begin, text + strlen(text));
    return box->end != NULL;
}
