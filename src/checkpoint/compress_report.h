/*
 * compress_report.h - the reports of shards: kept in the note of unfinished work, and added up.
 */
#ifndef MB_CHECKPOINT_COMPRESS_REPORT_H
#define MB_CHECKPOINT_COMPRESS_REPORT_H

#include <jansson.h>
#include <moebius/checkpoint.h>

/* The sums of a report; what belongs to a whole run (seconds, shards) is left out. NULL: no memory. */
json_t *mb_report_to_json(const struct mb_compress_report *report);
void mb_report_add(struct mb_compress_report *to, const struct mb_compress_report *from);
void mb_report_add_json(struct mb_compress_report *to, const json_t *from);

#endif
