/*
 * dispatch.c - the public functions that use the best kernel table of this process.
 */
#include "base/dispatch.h"
#include "base/cpu.h"
#include "kernels.h"
#include "selfcheck.h"

static bool agrees(const void *table)
{
    return mb_kernels_agree(table);
}

static struct mb_dispatch dispatch = MB_DISPATCH(mb_codec_tables, agrees);

const struct mb_kernels *mb_kernels(void)
{
    return mb_dispatch_best(&dispatch);
}

const struct mb_kernels *mb_kernels_by_isa(const char *isa)
{
    return mb_dispatch_by_isa(&dispatch, isa);
}

enum mb_status mb_cpu_check(struct mb_error *err)
{
    return mb_cpu_features_check(err);
}
