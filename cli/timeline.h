/*
 * timeline.h - the option --timeline: what a model spends its time on, as a Chrome trace.
 */
#ifndef MOEBIUS_CLI_TIMELINE_H
#define MOEBIUS_CLI_TIMELINE_H

#include "cli.h"
#include <moebius/timeline.h>

#define CLI_ROW_TIMELINE(value)                                                                      \
    CLI_ROW_TEXT(0, "timeline", "FILE", value,                                                       \
                 "write where time goes (reads, waits, checks, products) as a Chrome trace, which\n" \
                 "ui.perfetto.dev and chrome://tracing show; the last 262144 events are kept")

/*
 * From now on cli_timeline_hook is what a model's options get.  Call it before the model is opened: its limit
 * of memory counts what events need.  The file is created now, next to its name, and written by
 * cli_timeline_end.  path NULL: nothing is kept, the hook is zeroed, and the other functions do nothing.
 */
enum mb_status cli_timeline_begin(const char *path, const char *model_path, struct mb_error *err);
struct mb_timeline cli_timeline_hook(void);

/*
 * After the model is closed: writes the file, if anything has happened, and says how many events it lacks.
 * Returns exit_status, or that of a failure to write, which is printed.
 */
int cli_timeline_end(int exit_status);

#endif
