/*
 * config_text.h - changes one member of a JSON object's text and leaves every other byte as it was.
 */
#ifndef MB_CHECKPOINT_CONFIG_TEXT_H
#define MB_CHECKPOINT_CONFIG_TEXT_H

#include <jansson.h>

/*
 * 'text' is a valid JSON object.  The member 'key' of its top level becomes 'value' (NULL: is removed), in
 * its place if it is there, else at the end.  Returns a malloc'ed text; NULL: no memory.
 */
char *mb_config_text_set(const char *text, const char *key, const json_t *value);

#endif
