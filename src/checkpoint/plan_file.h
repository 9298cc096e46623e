/*
 * plan_file.h - a plan: bounds of tensors by name or pattern, in a JSON file (docs/plan.md).
 */
#ifndef MB_CHECKPOINT_PLAN_FILE_H
#define MB_CHECKPOINT_PLAN_FILE_H

#include "checkpoint.h"

struct mb_plan_file;

/* MB_BAD_DATA names line, entry and reason. 'path' is borrowed. */
enum mb_status mb_plan_file_open(const char *path, struct mb_plan_file **plan, struct mb_error *err);
void mb_plan_file_close(struct mb_plan_file *plan); /* NULL: nothing to do */

enum mb_planned { MB_NOT_PLANNED, MB_PLANNED_BY_PATTERN, MB_PLANNED_BY_NAME };

/*
 * The bound of a tensor: the entry that has its name, else that of the patterns that match it.  MB_BAD_DATA:
 * two of these say different things.  One thread at a time.
 */
enum mb_status mb_plan_file_find(struct mb_plan_file *plan, const char *tensor, struct mb_bound *bound,
                                 enum mb_planned *planned, struct mb_error *err);

/* MB_BAD_DATA: an entry is about none of the tensors that mb_plan_file_find has seen. */
enum mb_status mb_plan_file_check_used(const struct mb_plan_file *plan, const char *model,
                                       struct mb_error *err);

#endif
