/*
 * chat_json.h - JSON as values of a chat template.
 *
 * All copy into the arena of 'run'; false: its error is set.
 */
#ifndef MB_TOKENIZER_CHAT_JSON_H
#define MB_TOKENIZER_CHAT_JSON_H

#include "jinja/jinja.h"
#include <jansson.h>

bool mb_chat_json_value(struct mb_jinja_run *run, const json_t *json, struct mb_jinja_value *value);

/* An array of objects, as transformers prepares messages. */
bool mb_chat_json_messages(struct mb_jinja_run *run, const json_t *messages, struct mb_jinja_value *list);

/* Puts the members of an object among the variables. */
bool mb_chat_json_variables(struct mb_jinja_run *run, const json_t *object, struct mb_jinja_map *variables);

#endif
