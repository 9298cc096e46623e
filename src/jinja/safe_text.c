/*
 * safe_text.c - texts that are safe (| safe, | e), as Jinja has them: what is added to one is escaped.
 */
#include "safe_text.h"

bool mb_jinja_escape(run_t *run, string_t text, value_t *out)
{
    static const char from[] = "&<>'\"";
    static const char *const to[] = {"&amp;", "&lt;", "&gt;", "&#39;", "&#34;"};
    struct mb_bytes bytes = {0};
    bool ok = true;
    for (size_t i = 0; ok && i < text.n; i++) {
        const char *at = text.p[i] == 0 ? NULL : strchr(from, text.p[i]);
        ok = at != NULL ? mb_jinja_write(run, &bytes, to[at - from], strlen(to[at - from]))
                        : mb_jinja_write(run, &bytes, text.p + i, 1);
    }
    if (!mb_jinja_finish_text(run, &bytes, ok, out))
        return false;
    out->is_safe = true;
    return true;
}

bool mb_jinja_add_safe(run_t *run, const value_t *a, const value_t *b, value_t *out)
{
    value_t left = *a, right = *b;
    if ((!a->is_safe && !mb_jinja_escape(run, a->string, &left)) ||
        (!b->is_safe && !mb_jinja_escape(run, b->string, &right)) ||
        !mb_jinja_join(run, left.string, right.string, out))
        return false;
    out->is_safe = true;
    return true;
}

bool mb_jinja_fail_safe(run_t *run, const char *what)
{
    return mb_jinja_fail(run, MB_UNSUPPORTED, "%s of a text that is marked safe is not supported", what);
}
