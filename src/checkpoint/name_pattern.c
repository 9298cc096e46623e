/*
 * name_pattern.c - see name_pattern.h; the work of a match is limited.
 */
#include "name_pattern.h"
#include "base/error.h"
#include <stdlib.h>
#include <string.h>

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

enum { MATCH_LIMIT = 100000 };

struct mb_name_pattern {
    const char *text;
    pcre2_code *code;
    pcre2_match_data *match;
    pcre2_match_context *limits;
};

static enum mb_status compile(struct mb_name_pattern *pattern, struct mb_error *err)
{
    int number;
    PCRE2_SIZE at;
    pattern->code =
        pcre2_compile((PCRE2_SPTR)pattern->text, PCRE2_ZERO_TERMINATED, PCRE2_UTF, &number, &at, NULL);
    if (pattern->code == NULL && number != PCRE2_ERROR_HEAP_FAILED) {
        char reason[120];
        pcre2_get_error_message(number, (PCRE2_UCHAR *)reason, sizeof reason);
        return mb_fail(err, MB_USAGE, "pattern '%.200s': not a regular expression, at character %zu: %s",
                       pattern->text, at + 1, reason);
    }
    pattern->match = pcre2_match_data_create(1, NULL);
    pattern->limits = pcre2_match_context_create(NULL);
    if (pattern->code == NULL || pattern->match == NULL || pattern->limits == NULL)
        return mb_fail_memory(err, "a pattern");
    pcre2_set_match_limit(pattern->limits, MATCH_LIMIT);
    pcre2_set_depth_limit(pattern->limits, MATCH_LIMIT);
    return MB_OK;
}

enum mb_status mb_name_pattern_create(const char *text, struct mb_name_pattern **pattern,
                                      struct mb_error *err)
{
    *pattern = calloc(1, sizeof **pattern);
    if (*pattern == NULL)
        return mb_fail_memory(err, "a pattern");
    (*pattern)->text = text;
    enum mb_status status = compile(*pattern, err);
    if (status != MB_OK) {
        mb_name_pattern_free(*pattern);
        *pattern = NULL;
    }
    return status;
}

void mb_name_pattern_free(struct mb_name_pattern *pattern)
{
    if (pattern == NULL)
        return;
    pcre2_code_free(pattern->code);
    pcre2_match_data_free(pattern->match);
    pcre2_match_context_free(pattern->limits);
    free(pattern);
}

enum mb_status mb_name_pattern_match(const struct mb_name_pattern *pattern, const char *name, bool *is_match,
                                     struct mb_error *err)
{
    int found =
        pcre2_match(pattern->code, (PCRE2_SPTR)name, strlen(name), 0, 0, pattern->match, pattern->limits);
    *is_match = found >= 0;
    if (found >= 0 || found == PCRE2_ERROR_NOMATCH)
        return MB_OK;
    if (found == PCRE2_ERROR_NOMEMORY)
        return mb_fail_memory(err, "a pattern");
    return mb_fail(err, MB_USAGE, "pattern '%.200s': takes too long on tensor %.200s; write a simpler one",
                   pattern->text, name);
}
