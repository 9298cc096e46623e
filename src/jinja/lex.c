/*
 * lex.c - cuts a chat template into texts and tokens.
 */
#include "lex.h"
#include "base/number.h"
#include "base/utf8.h"
#include <ctype.h>

bool mb_jinja_lex_begin(struct mb_jinja_lexer *lexer, run_t *run, const char *text, size_t n)
{
    *lexer = (struct mb_jinja_lexer){.run = run, .line = 1};
    char *copy = mb_jinja_alloc(run, n + 1);
    if (copy == NULL)
        return false;
    for (size_t i = 0; i < n; i++) {
        bool is_cr = text[i] == '\r';
        copy[lexer->n++] = is_cr ? '\n' : text[i];
        i += is_cr && i + 1 < n && text[i + 1] == '\n';
    }
    if (lexer->n > 0 && copy[lexer->n - 1] == '\n')
        lexer->n--;
    lexer->p = copy;
    return true;
}

static bool at(const struct mb_jinja_lexer *lexer, const char *text)
{
    size_t n = strlen(text);
    return lexer->n - lexer->i >= n && memcmp(lexer->p + lexer->i, text, n) == 0;
}

static void advance(struct mb_jinja_lexer *lexer, size_t to)
{
    for (; lexer->i < to; lexer->i++)
        lexer->line += lexer->p[lexer->i] == '\n';
}

static size_t skip_space(const struct mb_jinja_lexer *lexer, size_t i)
{
    while (i < lexer->n && mb_jinja_is_space(mb_utf8_get(lexer->p + i)))
        i += mb_utf8_nbytes(lexer->p[i]);
    return i;
}

/* The end of text[begin .. end) without the white space at its end. */
static size_t strip_end(const char *text, size_t begin, size_t end)
{
    while (end > begin) {
        size_t i = end - 1;
        while (i > begin && ((uint8_t)text[i] & 0xc0) == 0x80)
            i--;
        if (!mb_jinja_is_space(mb_utf8_get(text + i)))
            break;
        end = i;
    }
    return end;
}

/* What is left of a text before a tag: "{%-" takes all white space, "{%" that of its own line. */
static size_t text_end(const struct mb_jinja_lexer *lexer, size_t begin, size_t tag, bool is_variable)
{
    char sign = tag + 2 < lexer->n ? lexer->p[tag + 2] : 0;
    size_t stripped = strip_end(lexer->p, begin, tag);
    if (sign == '-')
        return stripped;
    if (sign == '+' || is_variable)
        return tag;
    size_t line = tag;
    while (line > begin && lexer->p[line - 1] != '\n')
        line--;
    bool begins_line = line > begin || begin == 0 || lexer->p[begin - 1] == '\n';
    return begins_line && stripped <= line ? line : tag;
}

/* After "-%}" all white space goes, after "%}" one newline. 'i' is just past the closing mark. */
static size_t skip_after(const struct mb_jinja_lexer *lexer, size_t i, char sign, bool is_variable)
{
    if (sign == '-')
        return skip_space(lexer, i);
    return !is_variable && sign != '+' && i < lexer->n && lexer->p[i] == '\n' ? i + 1 : i;
}

/* lexer->i is at "{#". */
static bool skip_comment(struct mb_jinja_lexer *lexer)
{
    lexer->run->line = lexer->line;
    const char *close = memmem(lexer->p + lexer->i + 2, lexer->n - lexer->i - 2, "#}", 2);
    if (close == NULL)
        return mb_jinja_fail(lexer->run, MB_BAD_DATA, "a comment without its end '#}'");
    size_t i = (size_t)(close - lexer->p);
    char sign = i > lexer->i + 2 ? lexer->p[i - 1] : 0;
    advance(lexer, skip_after(lexer, i + 2, sign, false));
    return true;
}

static size_t find_tag(const struct mb_jinja_lexer *lexer)
{
    for (size_t i = lexer->i; i + 1 < lexer->n; i++)
        if (lexer->p[i] == '{' &&
            (lexer->p[i + 1] == '{' || lexer->p[i + 1] == '%' || lexer->p[i + 1] == '#'))
            return i;
    return lexer->n;
}

bool mb_jinja_lex_text(struct mb_jinja_lexer *lexer, string_t *text)
{
    size_t begin = lexer->i, tag = find_tag(lexer), end = lexer->n;
    char mark = tag < lexer->n ? lexer->p[tag + 1] : 0;
    if (mark != 0)
        end = text_end(lexer, begin, tag, mark == '{');
    *text = (string_t){lexer->p + begin, end - begin};
    advance(lexer, tag);
    lexer->tag = mark == 0 ? MB_JINJA_TAG_NONE : mark == '{' ? MB_JINJA_TAG_VARIABLE : MB_JINJA_TAG_BLOCK;
    lexer->n_open = 0;
    if (mark == '#') {
        lexer->tag = MB_JINJA_TAG_COMMENT;
        return skip_comment(lexer);
    }
    if (mark == 0)
        return true;
    advance(lexer, tag + 2);
    if (at(lexer, "-") || at(lexer, "+"))
        advance(lexer, lexer->i + 1);
    return mb_jinja_lex_token(lexer);
}

/* ---------------------------------------------------------------- tokens */

/* At the tag's closing mark: takes it. */
static bool take_end(struct mb_jinja_lexer *lexer)
{
    bool is_variable = lexer->tag == MB_JINJA_TAG_VARIABLE;
    const char *mark = is_variable ? "}}" : "%}";
    char sign = lexer->p[lexer->i];
    size_t skip = (sign == '-' || (sign == '+' && !is_variable)) ? 1 : 0;
    if (lexer->n_open > 0 || lexer->n - lexer->i < skip + 2 ||
        memcmp(lexer->p + lexer->i + skip, mark, 2) != 0)
        return false;
    lexer->token.kind = MB_JINJA_T_END;
    advance(lexer, skip_after(lexer, lexer->i + skip + 2, skip == 0 ? 0 : sign, is_variable));
    return true;
}

/* Hexadecimal digits of \x, \u and \U. */
static bool unescape_code(struct mb_jinja_lexer *lexer, size_t *i, size_t n_digits, char *out, size_t *n)
{
    uint32_t code = 0;
    for (size_t k = 0; k < n_digits; k++, ++*i) {
        char c = *i < lexer->n ? (char)tolower((unsigned char)lexer->p[*i]) : 0;
        if (!isxdigit((unsigned char)c))
            return mb_jinja_fail(lexer->run, MB_BAD_DATA,
                                 "a broken escape in a string: too few hexadecimal digits");
        code = code * 16 + (uint32_t)(c <= '9' ? c - '0' : c - 'a' + 10);
    }
    if (code > 0x10ffff || (code >= 0xd800 && code < 0xe000))
        return mb_jinja_fail(lexer->run, MB_UNSUPPORTED,
                             "an escape in a string that is no character of Unicode");
    *n += mb_utf8_put(out + *n, code);
    return true;
}

/* *i is just past the backslash; writes at most 4 bytes where at least 4 were read. */
static bool unescape(struct mb_jinja_lexer *lexer, size_t *i, char *out, size_t *n)
{
    static const char from[] = "ntrbfav\\'\"", to[] = "\n\t\r\b\f\a\v\\'\"";
    char c = lexer->p[(*i)++];
    const char *known = c == 0 ? NULL : strchr(from, c);
    if (c == '\n') /* the line goes on */
        return true;
    if (known != NULL) {
        out[(*n)++] = to[known - from];
        return true;
    }
    if (c == 'x' || c == 'u' || c == 'U')
        return unescape_code(lexer, i, c == 'x' ? 2 : c == 'u' ? 4 : 8, out, n);
    if (isdigit((unsigned char)c) || c == 'N')
        return mb_jinja_fail(lexer->run, MB_UNSUPPORTED, "the escape \\%c in a string is not supported", c);
    out[(*n)++] = '\\'; /* Python keeps what it does not know */
    out[(*n)++] = c;
    return true;
}

static bool lex_string(struct mb_jinja_lexer *lexer)
{
    char quote = lexer->p[lexer->i];
    size_t end = lexer->i + 1, n = 0;
    while (end < lexer->n && lexer->p[end] != quote)
        end += lexer->p[end] == '\\' && end + 1 < lexer->n ? 2 : 1;
    if (end >= lexer->n)
        return mb_jinja_fail(lexer->run, MB_BAD_DATA, "a string without its closing quote");
    char *out = mb_jinja_alloc(lexer->run, end - lexer->i + 4);
    if (out == NULL)
        return false;
    for (size_t i = lexer->i + 1; i < end;) {
        if (lexer->p[i] != '\\') {
            out[n++] = lexer->p[i++];
            continue;
        }
        i++;
        if (!unescape(lexer, &i, out, &n))
            return false;
    }
    lexer->token.kind = MB_JINJA_T_STRING;
    lexer->token.text = (string_t){out, n};
    advance(lexer, end + 1);
    return true;
}

static size_t skip_digits(const struct mb_jinja_lexer *lexer, size_t i)
{
    while (i < lexer->n && isdigit((unsigned char)lexer->p[i]))
        i++;
    return i;
}

/* The end of the float that begins here, or 0: 1.5, 1e3, 1.5e-3. */
static size_t float_end(const struct mb_jinja_lexer *lexer)
{
    size_t whole = skip_digits(lexer, lexer->i), end = whole, exponent;
    if (lexer->i > 0 && lexer->p[lexer->i - 1] == '.') /* list.0.1 */
        return 0;
    if (end < lexer->n && lexer->p[end] == '.') {
        end = skip_digits(lexer, whole + 1);
        end = end == whole + 1 ? whole : end;
    }
    if (end < lexer->n && (lexer->p[end] == 'e' || lexer->p[end] == 'E')) {
        exponent = end + 1;
        exponent += exponent < lexer->n && (lexer->p[exponent] == '+' || lexer->p[exponent] == '-');
        size_t past = skip_digits(lexer, exponent);
        end = past == exponent ? end : past;
    }
    return end == whole ? 0 : end;
}

static bool lex_number(struct mb_jinja_lexer *lexer)
{
    size_t end = float_end(lexer);
    if (end > 0) {
        if (!mb_number_parse(lexer->p + lexer->i, end - lexer->i, &lexer->token.real))
            return mb_jinja_fail(lexer->run, MB_UNSUPPORTED, "a number that no float can hold");
        lexer->token.kind = MB_JINJA_T_FLOAT;
        lexer->i = end;
        return true;
    }
    int64_t number = 0;
    for (; lexer->i < lexer->n && isdigit((unsigned char)lexer->p[lexer->i]); lexer->i++)
        if (__builtin_mul_overflow(number, 10, &number) ||
            __builtin_add_overflow(number, lexer->p[lexer->i] - '0', &number))
            return mb_jinja_fail(lexer->run, MB_UNSUPPORTED, "a number over 64 bits is not supported");
    char next = lexer->i < lexer->n ? lexer->p[lexer->i] : 0;
    if (isalpha((unsigned char)next) || next == '_')
        return mb_jinja_fail(lexer->run, MB_UNSUPPORTED, "a number that is not decimal is not supported");
    lexer->token.kind = MB_JINJA_T_INT;
    lexer->token.number = number;
    return true;
}

static bool lex_operator(struct mb_jinja_lexer *lexer)
{
    static const char *const operators[] = {"==", "!=", "<=", ">=", "//", "**", "+", "-", "*",
                                            "/",  "%",  "~",  "<",  ">",  "=",  ".", ",", ":",
                                            "|",  "(",  ")",  "[",  "]",  "{",  "}"};
    for (size_t i = 0; i < sizeof operators / sizeof *operators; i++) {
        if (!at(lexer, operators[i]))
            continue;
        char c = operators[i][0];
        lexer->n_open += (c == '(' || c == '[' || c == '{') - (c == ')' || c == ']' || c == '}');
        lexer->token.kind = MB_JINJA_T_OP;
        lexer->token.text = (string_t){operators[i], strlen(operators[i])};
        lexer->i += lexer->token.text.n;
        return lexer->n_open >= 0 || mb_jinja_fail(lexer->run, MB_BAD_DATA, "'%c' closes nothing", c);
    }
    int n = (int)mb_utf8_nbytes(lexer->p[lexer->i]);
    return mb_jinja_fail(lexer->run, MB_UNSUPPORTED, "'%.*s' in a tag is no operator", n,
                         lexer->p + lexer->i);
}

bool mb_jinja_lex_token(struct mb_jinja_lexer *lexer)
{
    advance(lexer, skip_space(lexer, lexer->i));
    lexer->token = (struct mb_jinja_token){.line = lexer->line};
    lexer->run->line = lexer->line;
    if (lexer->i >= lexer->n)
        return mb_jinja_fail(lexer->run, MB_BAD_DATA, "a tag without its end");
    if (take_end(lexer))
        return true;
    char c = lexer->p[lexer->i];
    if (c == '\'' || c == '"')
        return lex_string(lexer);
    if (isdigit((unsigned char)c))
        return lex_number(lexer);
    if (!isalpha((unsigned char)c) && c != '_')
        return lex_operator(lexer);
    size_t begin = lexer->i;
    while (lexer->i < lexer->n && (isalnum((unsigned char)lexer->p[lexer->i]) || lexer->p[lexer->i] == '_'))
        lexer->i++;
    lexer->token.kind = MB_JINJA_T_NAME;
    lexer->token.text = (string_t){lexer->p + begin, lexer->i - begin};
    return true;
}
