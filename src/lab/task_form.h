/*
 * task_form.h - one JSON object as a question, in any of the forms of docs/scoring.md.
 */
#ifndef MB_LAB_TASK_FORM_H
#define MB_LAB_TASK_FORM_H

#include "base/json.h"
#include <moebius/lab.h>

/* MB_BAD_DATA says what the object lacks. After a failure *item is to be freed, too. */
enum mb_status mb_task_read_item(const json_t *object, struct mb_task_item *item, struct mb_error *err);
void mb_task_free_item(struct mb_task_item *item);

/* Whether an object has the form of multiple choice. */
bool mb_task_is_choice(const json_t *object);
enum mb_status mb_task_read_choice(const json_t *object, struct mb_choice_item *item, struct mb_error *err);
void mb_task_free_choice(struct mb_choice_item *item);

#endif
