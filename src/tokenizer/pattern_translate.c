/*
 * pattern_translate.c - from Oniguruma's syntax to PCRE2's.
 *
 * A whitelist: we refuse by name what may mean something else in PCRE2.  Rewritten: sets (\s, \w, \p and the
 * like, because their Unicode versions and definitions differ), `&&` in classes (PCRE2 reads it as two
 * characters), `.`, `\v`, captures.  Refused among others: possessive {n,m}+ (Oniguruma: a repeat of a
 * repeat), \h (hexadecimal there, white space here), back references, classes in classes.
 */
#include "base/error.h"
#include "base/utf8.h"
#include "pattern.h"
#include "unicode_tables.h"
#include <ctype.h>
#include <stdio.h>

enum { GROUP_DEPTH_MAX = 200 };

struct translator {
    const char *p; /* the pattern */
    size_t n, i;
    struct mb_bytes *out;
    struct mb_error *err;
    bool is_caseless;                     /* here */
    bool outer_caseless[GROUP_DEPTH_MAX]; /* around each group that is open */
    size_t depth;
    bool is_hard; /* something that the two match differently without case */
};

#define COUNT(array) (sizeof(array) / sizeof *(array))

static enum mb_status unsupported(struct translator *t, size_t begin, size_t end)
{
    size_t n = end - begin;
    while (begin + n < t->n && ((uint8_t)t->p[begin + n] & 0xc0) == 0x80)
        n++;
    return mb_fail(t->err, MB_UNSUPPORTED, "the pattern's '%.*s' at byte %zu is not supported",
                   (int)(n > 40 ? 40 : n), t->p + begin, begin);
}

static enum mb_status put(struct translator *t, const char *text)
{
    return mb_bytes_put(t->out, text, strlen(text)) ? MB_OK : mb_fail_memory(t->err, "a pattern");
}

static bool put_range(struct mb_bytes *out, uint32_t first, uint32_t last)
{
    char text[40];
    int n = first == last ? snprintf(text, sizeof text, "\\x{%x}", first)
                          : snprintf(text, sizeof text, "\\x{%x}-\\x{%x}", first, last);
    return mb_bytes_put(out, text, (size_t)n);
}

/* Ranges whose tag begins with 'tag' (or is it, with is_whole); *n_put counts them. */
static bool put_table(struct mb_bytes *out, const struct mb_code_range *table, size_t n, const char *tag,
                      bool is_whole, size_t *n_put)
{
    for (size_t i = 0; i < n; i++) {
        bool fits = is_whole ? strcmp(table[i].tag, tag) == 0 : strncmp(table[i].tag, tag, strlen(tag)) == 0;
        if (fits && !put_range(out, table[i].first, table[i].last))
            return false;
        *n_put += fits;
    }
    return true;
}

/* The characters of a general category ("L", "Lu"), as items of a class. */
static bool put_category(struct mb_bytes *out, const char *name)
{
    char text[16];
    size_t n_put = 0;
    int n = snprintf(text, sizeof text, "\\p{%s}", name);
    return mb_bytes_put(out, text, (size_t)n) &&
           put_table(out, mb_later_categories, COUNT(mb_later_categories), name, false, &n_put);
}

bool mb_pattern_digits(struct mb_bytes *out)
{
    size_t n_put = 0;
    return mb_bytes_put(out, "[", 1) && put_category(out, "N") &&
           put_table(out, mb_digits_extra, COUNT(mb_digits_extra), "", true, &n_put) &&
           mb_bytes_put(out, "]", 2);
}

/* \w: the package has a few characters more in it outside of classes. */
static bool put_word(struct mb_bytes *out, bool is_in_class)
{
    static const char *const categories[] = {"L", "M", "Nd", "Nl", "Pc"};
    size_t n_put = 0;
    for (size_t i = 0; i < COUNT(categories); i++)
        if (!put_category(out, categories[i]))
            return false;
    return put_table(out, mb_word_extra, COUNT(mb_word_extra), "", true, &n_put) &&
           (is_in_class || put_table(out, mb_word_extra, COUNT(mb_word_extra), "outside", true, &n_put));
}

/* PCRE2's \s has U+180E besides, so both are spelled out. */
static const char white_space[] =
    "\\x{9}-\\x{d} \\x{85}\\x{a0}\\x{1680}\\x{2000}-\\x{200a}\\x{2028}\\x{2029}\\x{202f}"
    "\\x{205f}\\x{3000}";
static const char no_white_space[] =
    "\\x{0}-\\x{8}\\x{e}-\\x{1f}!-\\x{84}\\x{86}-\\x{9f}\\x{a1}-\\x{167f}\\x{1681}-\\x{1fff}\\x{200b}-\\x{"
    "2027}"
    "\\x{202a}-\\x{202e}\\x{2030}-\\x{205e}\\x{2060}-\\x{2fff}\\x{3001}-\\x{10ffff}";

static bool is_category(const char *name)
{
    static const char known[] =
        " L Lu Ll Lt Lm Lo M Mn Mc Me N Nd Nl No P Pc Pd Ps Pe Pi Pf Po S Sm Sc Sk So Z Zs Zl Zp "
        "Cc Cf ";
    char padded[24];
    snprintf(padded, sizeof padded, " %s ", name);
    return strlen(name) <= 2 && strstr(known, padded) != NULL;
}

/* {Name} after \p or \P: its characters as items. '*is_negated' is flipped by {^Name}. */
static enum mb_status property_items(struct translator *t, size_t begin, struct mb_bytes *items,
                                     bool *is_negated)
{
    const char *close = t->i < t->n && t->p[t->i] == '{' ? memchr(t->p + t->i, '}', t->n - t->i) : NULL;
    if (close == NULL)
        return unsupported(t, begin, t->i);
    size_t from = t->i + 1, to = (size_t)(close - t->p);
    t->i = to + 1;
    if (from < to && t->p[from] == '^') {
        *is_negated = !*is_negated;
        from++;
    }
    char name[16];
    size_t n_put = 0;
    if (to - from >= sizeof name || to == from)
        return unsupported(t, begin, t->i);
    memcpy(name, t->p + from, to - from);
    name[to - from] = 0;
    bool ok;
    if (is_category(name)) {
        t->is_hard = t->is_hard || (t->is_caseless && (strcmp(name, "Lu") == 0 || strcmp(name, "Ll") == 0 ||
                                                       strcmp(name, "Lt") == 0));
        ok = put_category(items, name);
    } else {
        ok = put_table(items, mb_scripts, COUNT(mb_scripts), name, true, &n_put);
        if (ok && n_put == 0)
            return unsupported(t, begin, t->i);
    }
    return ok ? MB_OK : mb_fail_memory(t->err, "a pattern");
}

/*
 * A set after a backslash (t->i is just past its letter): its items, and whether the set is their
 * complement.
 */
static enum mb_status set_items(struct translator *t, char letter, bool is_in_class, struct mb_bytes *items,
                                bool *is_negated)
{
    size_t begin = t->i - 2;
    bool ok;
    *is_negated = isupper((unsigned char)letter);
    switch (letter) {
    case 's':
    case 'S': /* S has items of its own, so that classes can hold it */
        ok = mb_bytes_put(items, *is_negated ? no_white_space : white_space,
                          *is_negated ? sizeof no_white_space - 1 : sizeof white_space - 1);
        *is_negated = false;
        break;
    case 'd':
    case 'D':
        ok = put_category(items, "Nd");
        break;
    case 'w':
    case 'W':
        ok = put_word(items, is_in_class);
        break;
    default:
        return property_items(t, begin, items, is_negated);
    }
    return ok ? MB_OK : mb_fail_memory(t->err, "a pattern");
}

static bool is_set_letter(char c)
{
    return c != 0 && strchr("sSdDwWpP", c) != NULL;
}

/* n_min .. n_max hexadecimal digits at t->i. */
static bool parse_hex(struct translator *t, size_t n_min, size_t n_max, uint32_t *code)
{
    size_t n = 0;
    *code = 0;
    while (n < n_max && t->i < t->n && isxdigit((unsigned char)t->p[t->i])) {
        char c = (char)tolower((unsigned char)t->p[t->i++]);
        *code = *code * 16 + (uint32_t)(c <= '9' ? c - '0' : c - 'a' + 10);
        n++;
    }
    return n >= n_min;
}

static bool parse_hex_escape(struct translator *t, char letter, uint32_t *code)
{
    if (letter == 'u')
        return parse_hex(t, 4, 4, code);
    if (t->i >= t->n || t->p[t->i] != '{')
        return parse_hex(t, 1, 2, code) && *code < 0x80; /* above: a byte, not a character */
    t->i++;
    return parse_hex(t, 1, 8, code) && t->i < t->n && t->p[t->i++] == '}';
}

/* The character that an escape means (t->i is just past the backslash). */
static enum mb_status escaped_char(struct translator *t, uint32_t *code)
{
    static const char letters[] = "tnrfvae", codes[] = "\t\n\r\f\v\a\x1b";
    size_t begin = t->i - 1;
    if (t->i >= t->n)
        return unsupported(t, begin, t->i);
    char c = t->p[t->i++];
    const char *at = c == 0 ? NULL : strchr(letters, c);
    if (at != NULL)
        *code = (uint32_t)codes[at - letters];
    else if (ispunct((unsigned char)c) || c == ' ')
        *code = (uint32_t)c;
    else if ((c != 'x' && c != 'u') || !parse_hex_escape(t, c, code))
        return unsupported(t, begin, t->i);
    if (*code > 0x10ffff || (*code >= 0xd800 && *code < 0xe000))
        return unsupported(t, begin, t->i);
    t->is_hard = t->is_hard || (t->is_caseless && *code >= 0x80);
    return MB_OK;
}

static uint32_t plain_char(struct translator *t)
{
    uint32_t code = mb_utf8_get(t->p + t->i);
    t->i += mb_utf8_nbytes(t->p[t->i]);
    t->is_hard = t->is_hard || (t->is_caseless && code >= 0x80);
    return code;
}

/* ---------------------------------------------------------------- classes */

static bool at(const struct translator *t, const char *text)
{
    size_t n = strlen(text);
    return t->n - t->i >= n && memcmp(t->p + t->i, text, n) == 0;
}

/* A character of a class, escaped or not. */
static enum mb_status class_char(struct translator *t, uint32_t *code)
{
    if (t->p[t->i] != '\\') {
        *code = plain_char(t);
        return MB_OK;
    }
    t->i++;
    return escaped_char(t, code);
}

/* At a set: \s, \w, \p and the like. */
static bool at_set(const struct translator *t)
{
    return t->p[t->i] == '\\' && t->i + 1 < t->n && is_set_letter(t->p[t->i + 1]);
}

/* One character or range of a class. */
static enum mb_status class_range(struct translator *t, size_t begin, struct mb_bytes *items)
{
    uint32_t first, last;
    MB_TRY(class_char(t, &first));
    last = first;
    if (at(t, "-") && !at(t, "-]") && !at(t, "-&&")) {
        t->i++;
        if (t->i >= t->n || t->p[t->i] == '[' || at_set(t))
            return unsupported(t, begin, t->i);
        MB_TRY(class_char(t, &last));
    }
    if (last < first)
        return unsupported(t, begin, t->i);
    return put_range(items, first, last) ? MB_OK : mb_fail_memory(t->err, "a pattern");
}

/* A set in a class. */
static enum mb_status class_set(struct translator *t, size_t begin, struct mb_bytes *items)
{
    bool is_negated;
    t->i += 2;
    MB_TRY(set_items(t, t->p[begin + 1], true, items, &is_negated));
    return is_negated ? unsupported(t, begin, t->i) : MB_OK;
}

/* Items of a class up to its `]` or an `&&`, which is not taken. */
static enum mb_status class_items(struct translator *t, size_t class_begin, struct mb_bytes *items)
{
    size_t first = t->i;
    bool is_after_set = false;
    while (t->i < t->n && !at(t, "&&")) {
        size_t begin = t->i;
        if (t->p[t->i] == ']' && t->i > first)
            return MB_OK;
        if (t->p[t->i] == ']' || t->p[t->i] == '[' || (t->p[t->i] == '-' && is_after_set && !at(t, "-]")))
            return unsupported(t, class_begin, t->i + 1);
        is_after_set = at_set(t);
        if (is_after_set)
            MB_TRY(class_set(t, begin, items));
        else
            MB_TRY(class_range(t, begin, items));
    }
    return t->i < t->n && t->i > first ? MB_OK : unsupported(t, class_begin, t->i);
}

/* One operand of `&&`: items, or a class in brackets. Put as a class. */
static enum mb_status class_operand(struct translator *t, size_t class_begin, struct mb_bytes *out)
{
    bool is_nested = at(t, "["), is_negated = at(t, "[^");
    if (at(t, "[:")) /* [:alpha:] is a name there, not a class of its letters */
        return unsupported(t, class_begin, t->i + 2);
    if (is_nested)
        t->i += is_negated ? 2 : 1;
    if (!mb_bytes_put(out, is_negated ? "[^" : "[", is_negated ? 2 : 1))
        return mb_fail_memory(t->err, "a pattern");
    MB_TRY(class_items(t, class_begin, out));
    if (is_nested && !at(t, "]"))
        return unsupported(t, class_begin, t->i);
    t->i += is_nested;
    return mb_bytes_put(out, "]", 1) ? MB_OK : mb_fail_memory(t->err, "a pattern");
}

/* The next operand; *is_last: no `&&` follows. */
static enum mb_status put_operand(struct translator *t, size_t begin, struct mb_bytes *operand, bool *is_last)
{
    MB_TRY(class_operand(t, begin, operand));
    *is_last = !at(t, "&&");
    bool ok = (*is_last || mb_bytes_put(t->out, "(?=", 3)) && mb_bytes_put(t->out, operand->p, operand->n) &&
              (*is_last || mb_bytes_put(t->out, ")", 1));
    return ok ? MB_OK : mb_fail_memory(t->err, "a pattern");
}

/* A and B and C: (?=A)(?=B)C; not (A and B): (?!(?=A)B) and any character. */
static enum mb_status put_operands(struct translator *t, bool is_negated, size_t begin)
{
    bool is_last = false;
    MB_TRY(put(t, is_negated ? "(?:(?!" : "(?:"));
    while (!is_last) {
        struct mb_bytes operand = {0};
        enum mb_status status = put_operand(t, begin, &operand, &is_last);
        free(operand.p);
        if (status != MB_OK)
            return status;
        t->i += is_last ? 0 : 2;
    }
    return put(t, is_negated ? ")[\\x{0}-\\x{10ffff}])" : ")");
}

/* t->i is just past the opening bracket. */
static enum mb_status translate_class(struct translator *t)
{
    size_t begin = t->i - 1;
    bool is_negated = at(t, "^");
    t->i += is_negated;
    if (!at(t, "[")) {
        size_t inner = t->i, out_n = t->out->n;
        MB_TRY(put(t, is_negated ? "[^" : "["));
        MB_TRY(class_items(t, begin, t->out));
        if (at(t, "]")) {
            t->i++;
            return put(t, "]");
        }
        t->i = inner; /* an intersection: again, as operands */
        t->out->n = out_n;
    }
    MB_TRY(put_operands(t, is_negated, begin));
    if (!at(t, "]"))
        return unsupported(t, begin, t->i);
    t->i++;
    return MB_OK;
}

/* ---------------------------------------------------------------- outside classes */

static enum mb_status put_set(struct translator *t, char letter, struct mb_bytes *items)
{
    bool is_negated;
    MB_TRY(set_items(t, letter, false, items, &is_negated));
    MB_TRY(put(t, is_negated ? "[^" : "["));
    if (!mb_bytes_put(t->out, items->p, items->n))
        return mb_fail_memory(t->err, "a pattern");
    return put(t, "]");
}

static enum mb_status translate_escape(struct translator *t)
{
    size_t begin = t->i++;
    if (t->i < t->n && is_set_letter(t->p[t->i])) {
        struct mb_bytes items = {0};
        t->i++;
        enum mb_status status = put_set(t, t->p[begin + 1], &items);
        free(items.p);
        return status;
    }
    if (t->i < t->n && (t->p[t->i] == 'A' || t->p[t->i] == 'z')) {
        t->i++;
        return put(t, t->p[begin + 1] == 'A' ? "\\A" : "\\z");
    }
    uint32_t code = 0;
    MB_TRY(escaped_char(t, &code));
    return put_range(t->out, code, code) ? MB_OK : mb_fail_memory(t->err, "a pattern");
}

/* A group begins: until it ends, the case counts or not. */
static enum mb_status open_group(struct translator *t, bool is_caseless)
{
    if (t->depth == GROUP_DEPTH_MAX)
        return mb_fail(t->err, MB_UNSUPPORTED, "the pattern has groups more than %d deep", GROUP_DEPTH_MAX);
    t->outer_caseless[t->depth++] = t->is_caseless;
    t->is_caseless = is_caseless;
    return MB_OK;
}

static enum mb_status close_group(struct translator *t)
{
    if (t->depth == 0)
        return unsupported(t, t->i, t->i + 1);
    t->is_caseless = t->outer_caseless[--t->depth];
    t->i++;
    return put(t, ")");
}

static enum mb_status translate_group(struct translator *t)
{
    static const char *const same[] = {"(?:", "(?=", "(?!", "(?>", "(?<=", "(?<!", "(?i:", "(?-i:"};
    if (!at(t, "(?") && !at(t, "(*")) {
        t->i++;
        MB_TRY(open_group(t, t->is_caseless));
        return put(t, "(?:");
    }
    if (at(t, "(?i)") && t->i == 0) { /* later it would reach over alternatives */
        t->i += 4;
        t->is_caseless = true;
        return put(t, "(?i)");
    }
    for (size_t i = 0; i < COUNT(same); i++) {
        if (at(t, same[i])) {
            t->i += strlen(same[i]);
            MB_TRY(open_group(t, strcmp(same[i], "(?i:") == 0 ||
                                     (t->is_caseless && strcmp(same[i], "(?-i:") != 0)));
            return put(t, same[i]);
        }
    }
    return unsupported(t, t->i, t->i + 3 < t->n ? t->i + 3 : t->n);
}

/* The bytes of {n}, {n,} or {n,m} at t->i, or 0. */
static size_t braces(const struct translator *t, bool *is_exact)
{
    size_t i = t->i + 1, first = i;
    while (i < t->n && isdigit((unsigned char)t->p[i]))
        i++;
    if (i == first || i - first > 5 || i >= t->n)
        return 0;
    *is_exact = t->p[i] == '}';
    if (t->p[i] == ',')
        for (i++; i < t->n && isdigit((unsigned char)t->p[i]);)
            i++;
    return i < t->n && t->p[i] == '}' ? i + 1 - t->i : 0;
}

static enum mb_status translate_quantifier(struct translator *t)
{
    size_t begin = t->i, n = 1;
    bool is_exact = false, is_braces = t->p[t->i] == '{';
    if (is_braces && (n = braces(t, &is_exact)) == 0)
        return unsupported(t, begin, begin + 1);
    t->i += n;
    bool is_lazy = at(t, "?"), is_possessive = at(t, "+");
    if ((is_lazy && is_exact) || (is_possessive && is_braces))
        return unsupported(t, begin, t->i + 1);
    t->i += is_lazy || is_possessive;
    if (t->i < t->n && strchr("?*+{", t->p[t->i]) != NULL)
        return unsupported(t, begin, t->i + 1);
    return mb_bytes_put(t->out, t->p + begin, t->i - begin) ? MB_OK : mb_fail_memory(t->err, "a pattern");
}

static enum mb_status translate_one(struct translator *t)
{
    size_t begin = t->i;
    switch (t->p[t->i]) {
    case '\\':
        return translate_escape(t);
    case '[':
        t->i++;
        return translate_class(t);
    case '(':
        return translate_group(t);
    case '?':
    case '*':
    case '+':
    case '{':
        return translate_quantifier(t);
    case '|':
        t->i++;
        return put(t, "|");
    case ')':
        return close_group(t);
    case '.':
        t->i++;
        return put(t, "[^\\n]");
    case '^':
    case '$': /* Ruby's are those of lines */
        t->i++;
        return put(t, t->p[begin] == '^' ? "(?m:^)" : "(?m:$)");
    default: {
        uint32_t code = plain_char(t);
        return put_range(t->out, code, code) ? MB_OK : mb_fail_memory(t->err, "a pattern");
    }
    }
}

/* Whether letters at t->i fold together with another one: "ss" and sharp s, "fi" and its ligature. */
static bool at_letters_that_fold(const struct translator *t)
{
    static const char *const together[] = {"ss", "st", "ff", "fi", "fl"};
    for (size_t k = 0; t->i + 1 < t->n && k < COUNT(together); k++)
        if (tolower((unsigned char)t->p[t->i]) == together[k][0] &&
            tolower((unsigned char)t->p[t->i + 1]) == together[k][1])
            return true;
    return false;
}

/*
 * Without case Oniguruma lets letters that fold together match each other, and applies case to \p{Lu}; PCRE2
 * does neither.
 */
static enum mb_status translate_all(struct translator *t)
{
    while (t->i < t->n) {
        t->is_hard = t->is_hard || (t->is_caseless && at_letters_that_fold(t));
        MB_TRY(translate_one(t));
    }
    if (t->is_hard)
        return mb_fail(t->err, MB_UNSUPPORTED,
                       "the pattern's (?i) over letters beyond simple ASCII is not supported");
    return MB_OK;
}

static enum mb_status translate_literal(struct translator *t)
{
    uint32_t code = plain_char(t);
    return put_range(t->out, code, code) ? MB_OK : mb_fail_memory(t->err, "a pattern");
}

enum mb_status mb_pattern_translate(const char *pattern, size_t nbytes, bool is_literal, struct mb_bytes *out,
                                    struct mb_error *err)
{
    struct translator t = {.p = pattern, .n = nbytes, .out = out, .err = err};
    if (nbytes > MB_PATTERN_NBYTES_MAX)
        return mb_fail(err, MB_UNSUPPORTED, "a pattern of %zu bytes: more than %d are not supported", nbytes,
                       MB_PATTERN_NBYTES_MAX);
    if (!is_literal)
        MB_TRY(translate_all(&t));
    while (t.i < t.n)
        MB_TRY(translate_literal(&t));
    return mb_bytes_put(out, "", 1) ? MB_OK : mb_fail_memory(err, "a pattern");
}
