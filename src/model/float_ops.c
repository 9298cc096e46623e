/*
 * float_ops.c - which table of float functions this process uses.
 */
#include "float_ops_tables.h"

static bool agrees(const void *table)
{
    return mb_float_ops_agree(table);
}

static struct mb_dispatch dispatch = MB_DISPATCH(mb_float_ops_tables, agrees);

const struct mb_float_ops *mb_float_ops(void)
{
    return mb_dispatch_best(&dispatch);
}

const struct mb_float_ops *mb_float_ops_by_isa(const char *isa)
{
    return mb_dispatch_by_isa(&dispatch, isa);
}
