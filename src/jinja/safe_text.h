/*
 * safe_text.h - texts that are safe (| safe, | e), as Jinja has them.
 */
#ifndef MB_JINJA_SAFE_TEXT_H
#define MB_JINJA_SAFE_TEXT_H

#include "value.h"

/* &, <, >, ' and " as entities of HTML; the result is safe. */
bool mb_jinja_escape(run_t *run, string_t text, value_t *out);

/* The sum of two strings of which one or both are safe: the other is escaped. */
bool mb_jinja_add_safe(run_t *run, const value_t *a, const value_t *b, value_t *out);

/* For what would need to know how Python's Markup does it. */
bool mb_jinja_fail_safe(run_t *run, const char *what);

#endif
