/*
 * normalize.c - NFC (by utf8proc's tables), Prepend and Replace.
 *
 * NFC works on spans that hold a character from U+0300 on; below that nothing ever combines with what is
 * before it.  Combining marks are sorted here: utf8proc's own sort takes quadratic time on a long run of
 * them.
 */
#include "normalize.h"
#include "base/utf8.h"
#include "unicode_tables.h"
#include <utf8proc.h>

struct codes {
    int32_t *p;
    size_t n, cap;
};

static bool codes_reserve(struct codes *codes, size_t n_more)
{
    void *p = codes->p;
    bool ok = mb_grow(&p, &codes->cap, codes->n, n_more, sizeof *codes->p);
    codes->p = p;
    return ok;
}

static bool decompose(struct codes *codes, const char *text, size_t nbytes)
{
    enum { LONGEST = 32 }; /* a canonical decomposition has at most 4 characters */
    for (size_t i = 0; i < nbytes; i += mb_utf8_nbytes(text[i])) {
        if (!codes_reserve(codes, LONGEST))
            return false;
        utf8proc_ssize_t n = utf8proc_decompose_char((utf8proc_int32_t)mb_utf8_get(text + i),
                                                     codes->p + codes->n, LONGEST, UTF8PROC_DECOMPOSE, NULL);
        if (n < 0 || n > LONGEST)
            return false;
        codes->n += (size_t)n;
    }
    return true;
}

static unsigned combining_class(int32_t code)
{
    return (unsigned)utf8proc_get_property(code)->combining_class;
}

/* Sorts marks[0 .. n) by combining class, keeping the order of equals. 'spare' has room for n. */
static void sort_marks(int32_t *marks, size_t n, int32_t *spare)
{
    size_t starts[257] = {0};
    for (size_t i = 0; i < n; i++)
        starts[(combining_class(marks[i]) & 0xff) + 1]++;
    for (size_t i = 1; i <= 256; i++)
        starts[i] += starts[i - 1];
    for (size_t i = 0; i < n; i++)
        spare[starts[combining_class(marks[i]) & 0xff]++] = marks[i];
    memcpy(marks, spare, n * sizeof *marks);
}

/* Canonical ordering: each run of marks (class not 0) by itself. */
static bool order_marks(struct codes *codes)
{
    for (size_t i = 0; i < codes->n;) {
        size_t end = i;
        while (end < codes->n && combining_class(codes->p[end]) != 0)
            end++;
        if (end - i > 1) {
            if (!codes_reserve(codes, end - i))
                return false;
            sort_marks(codes->p + i, end - i, codes->p + codes->n);
        }
        i = end > i ? end : i + 1;
    }
    return true;
}

/* Whether the package's NFC, of an earlier Unicode, does not know the character. */
static bool is_opaque(uint32_t code)
{
    if (code < mb_nfc_opaque[0].first)
        return false;
    for (size_t i = 0; i < sizeof mb_nfc_opaque / sizeof *mb_nfc_opaque; i++)
        if (code >= mb_nfc_opaque[i].first && code <= mb_nfc_opaque[i].last)
            return true;
    return false;
}

/* Appends the NFC of a span. */
static bool compose_known(struct mb_bytes *out, struct codes *codes, const char *text, size_t nbytes)
{
    codes->n = 0;
    if (!decompose(codes, text, nbytes) || !order_marks(codes))
        return false;
    utf8proc_ssize_t n =
        utf8proc_normalize_utf32(codes->p, (utf8proc_ssize_t)codes->n, UTF8PROC_COMPOSE | UTF8PROC_STABLE);
    if (n < 0 || !mb_bytes_reserve(out, (size_t)n * 4))
        return false;
    for (utf8proc_ssize_t i = 0; i < n; i++)
        out->n += mb_utf8_put(out->p + out->n, (uint32_t)codes->p[i]);
    return true;
}

/* Cuts a span at the characters that neither move nor compose. */
static bool compose_span(struct mb_bytes *out, struct codes *codes, const char *text, size_t nbytes)
{
    size_t begin = 0;
    for (size_t i = 0; i < nbytes;) {
        size_t n = mb_utf8_nbytes(text[i]);
        if (is_opaque(mb_utf8_get(text + i))) {
            if (!compose_known(out, codes, text + begin, i - begin) || !mb_bytes_put(out, text + i, n))
                return false;
            begin = i + n;
        }
        i += n;
    }
    return compose_known(out, codes, text + begin, nbytes - begin);
}

/* Lead bytes from 0xcc on are characters from U+0300 on. */
static bool is_low(char first)
{
    return (uint8_t)first < 0xcc;
}

static size_t skip_low(const char *text, size_t n, size_t i)
{
    while (i < n && is_low(text[i]))
        i++;
    return i;
}

static bool nfc(struct mb_bytes *out, const char *text, size_t nbytes)
{
    struct codes codes = {0};
    bool ok = true;
    size_t done = 0; /* copied or composed so far */
    while (ok && done < nbytes) {
        size_t high = skip_low(text, nbytes, done), begin = high, end = high;
        if (high < nbytes && high > done) /* the character before may take the mark that comes */
            do
                begin--;
            while (((uint8_t)text[begin] & 0xc0) == 0x80);
        while (end < nbytes && !is_low(text[end]))
            end += mb_utf8_nbytes(text[end]);
        ok = mb_bytes_put(out, text + done, begin - done) &&
             compose_span(out, &codes, text + begin, end - begin);
        done = end;
    }
    free(codes.p);
    return ok;
}

static bool replace_all(struct mb_bytes *out, const char *text, size_t nbytes, const char *what,
                        const char *with)
{
    size_t n_what = strlen(what), n_with = strlen(with);
    const char *end = text + nbytes;
    while (text < end) {
        const char *hit = memmem(text, (size_t)(end - text), what, n_what);
        if (!mb_bytes_put(out, text, (size_t)((hit == NULL ? end : hit) - text)))
            return false;
        if (hit == NULL)
            break;
        if (!mb_bytes_put(out, with, n_with))
            return false;
        text = hit + n_what;
    }
    return true;
}

static bool apply(const struct mb_normalizer *normalizer, struct mb_bytes *out, const char *text,
                  size_t nbytes)
{
    switch (normalizer->kind) {
    case MB_NORMALIZE_NFC:
        return nfc(out, text, nbytes);
    case MB_NORMALIZE_PREPEND:
        return mb_bytes_put(out, normalizer->what, strlen(normalizer->what)) &&
               mb_bytes_put(out, text, nbytes);
    default:
        return replace_all(out, text, nbytes, normalizer->what, normalizer->with);
    }
}

bool mb_normalize(const struct mb_normalizers *normalizers, struct mb_bytes *out, struct mb_bytes *spare,
                  const char **text, size_t *nbytes)
{
    struct mb_bytes *to = out, *other = spare; /* the text is in neither, or in 'other' */
    for (size_t i = 0; i < normalizers->n && *nbytes != 0; i++) {
        const struct mb_normalizer *normalizer = &normalizers->items[i];
        if (normalizer->kind == MB_NORMALIZE_NFC && skip_low(*text, *nbytes, 0) == *nbytes)
            continue;
        to->n = 0;
        if (!apply(normalizer, to, *text, *nbytes))
            return false;
        *text = to->p;
        *nbytes = to->n;
        struct mb_bytes *written = to;
        to = other;
        other = written;
    }
    return true;
}

void mb_normalizers_free(struct mb_normalizers *normalizers)
{
    for (size_t i = 0; i < normalizers->n; i++) {
        free(normalizers->items[i].what);
        free(normalizers->items[i].with);
    }
    free(normalizers->items);
}
