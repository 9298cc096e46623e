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

enum mb_status mb_encode_rows(const struct mb_coding *coding, const void *weights, size_t n_rows,
                              uint8_t *out, size_t out_cap, size_t *out_nbytes, struct mb_group *groups,
                              size_t *bad_index)
{
    return mb_kernels()->encode_rows(coding, weights, n_rows, out, out_cap, out_nbytes, groups, bad_index);
}
