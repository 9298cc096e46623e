/*
 * sweep_error.c - the error of a run: into the model, and out of it again.
 */
#include "base/error.h"
#include "sweep_work.h"
#include <math.h>
#include <string.h>

enum mb_status mb_sweep_apply(struct mb_sweep_work *work, const struct mb_sweep_item *item,
                              struct mb_sweep_change *change, struct mb_error *err)
{
    (void)work;
    *change = (struct mb_sweep_change){.err_max = NAN, .err_rms = NAN, .norm = NAN};
    if (strcmp(item->error, "none") == 0)
        return MB_OK;
    return mb_fail(err, MB_UNSUPPORTED, "error '%.32s' is not known", item->error);
}

enum mb_status mb_sweep_undo(struct mb_sweep_work *work, struct mb_error *err)
{
    (void)work;
    (void)err;
    return MB_OK;
}
