/*
 * packed.c - see packed.h.
 */
#include "packed.h"
#include "base/error.h"
#include "roles.h"
#include "text_model.h"

/* How names end, and who writes them. */
static const struct {
    const char *end, *maker;
} packed[] = {
    {".qweight", "GPTQ or AWQ"},
    {".qzeros", "GPTQ or AWQ"},
    {".weight_packed", "compressed-tensors"},
    {".weight.absmax", "bitsandbytes"},
    {".weight.SCB", "bitsandbytes"},
    {".SCB", "bitsandbytes"},
    {".weight_scale_2", "ModelOpt (NVFP4)"},
    {".W_q", "HQQ"},
    {"_proj_blocks", "MXFP4"},
    {".weight_blocks", "MXFP4"},
};

enum mb_status mb_rule_packed(struct mb_view_list *list, const struct mb_checkpoint *ckpt,
                              const struct mb_tensor *stored, bool *is_taken, struct mb_error *err)
{
    (void)list, (void)is_taken;
    for (size_t i = 0; i < sizeof packed / sizeof packed[0]; i++)
        if (mb_name_ends_with(stored->name, packed[i].end) && mb_part_of(ckpt, stored->name) == MB_PART_TEXT)
            return mb_fail(err, MB_UNSUPPORTED,
                           "%s: tensor %s: weights quantised by %s are not supported; convert them to bf16",
                           mb_tensor_path(ckpt, stored), stored->name, packed[i].maker);
    return MB_OK;
}
