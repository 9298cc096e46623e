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

/* The first n questions of 'from', of choices: of each header.  What is no example is freed. */
void mb_task_keep_first(struct mb_task *from, size_t n);

/* Whether the last question of 'task' is one of 'examples'. */
bool mb_task_is_shown(const struct mb_task *task, const struct mb_task *examples);

/*
 * The messages of the task's examples, 2 for each, and after them room for a question's: *n_turns in all.
 * The caller's; NULL: no memory.
 */
struct mb_chat_message *mb_task_turns(const struct mb_task *task, size_t *n_turns);

/* Puts n examples before every question of the task; 'path' is where they come from, for errors. */
enum mb_status mb_task_show(struct mb_task *task, const struct mb_task *examples, size_t n, const char *path,
                            struct mb_error *err);

#endif
