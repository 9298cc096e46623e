/*
 * name_pattern.h - regular expressions (PCRE2) that are searched for in names of tensors.
 */
#ifndef MB_CHECKPOINT_NAME_PATTERN_H
#define MB_CHECKPOINT_NAME_PATTERN_H

#include <moebius/status.h>
#include <stdbool.h>

struct mb_name_pattern;

/* MB_USAGE: 'text', which is borrowed, is no regular expression. */
enum mb_status mb_name_pattern_create(const char *text, struct mb_name_pattern **pattern,
                                      struct mb_error *err);
void mb_name_pattern_free(struct mb_name_pattern *pattern); /* NULL: nothing to do */

/* MB_USAGE: it takes too long. One thread at a time. */
enum mb_status mb_name_pattern_match(const struct mb_name_pattern *pattern, const char *name, bool *is_match,
                                     struct mb_error *err);

#endif
