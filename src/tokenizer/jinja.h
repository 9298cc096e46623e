/*
 * jinja.h - renders a chat template.
 */
#ifndef MB_TOKENIZER_JINJA_H
#define MB_TOKENIZER_JINJA_H

#include "jinja_value.h"

/*
 * Appends the text that a template (valid UTF-8) makes of 'variables' to 'out'.  The variables were made with
 * 'run', whose limits and place are set; on failure run->status and *run->err say why.
 */
enum mb_status mb_jinja_render(struct mb_jinja_run *run, const char *text, size_t n,
                               const struct mb_jinja_map *variables, struct mb_bytes *out);

#endif
