/*
 * fuzz_plan.c - plan files: what is read gives some names bounds that can be kept, and the same ones again.
 */
#include "checkpoint/plan_file.h"
#include "fuzz.h"
#include "json.h"
#include <math.h>
#include <string.h>

struct fuzz_input fuzz_json_part(const uint8_t *data, size_t size)
{
    return (struct fuzz_input){data, size};
}

static const char *const names[] = {"lm_head.weight", "model.embed_tokens.weight",
                                    "model.layers.1.mlp.experts.0.up_proj.weight",
                                    "model.layers.2.self_attn.o_proj.weight"};

static void look_at(struct mb_plan_file *plan, const char *path)
{
    struct mb_error err = {0};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        struct mb_bound bound = {MB_BOUND_EXACT, 0}, again = bound;
        enum mb_planned planned, planned_again;
        enum mb_status status = mb_plan_file_find(plan, names[i], &bound, &planned, &err);
        REQUIRE(status == MB_OK || status == MB_BAD_DATA);
        REQUIRE(status == mb_plan_file_find(plan, names[i], &again, &planned_again, &err));
        if (status != MB_OK) {
            REQUIRE(strncmp(err.msg, path, strlen(path)) == 0);
            continue;
        }
        REQUIRE(planned == planned_again && bound.kind == again.kind && bound.value == again.value);
        REQUIRE(isfinite(bound.value) && bound.value >= 0);
    }
    mb_plan_file_check_used(plan, "a model", &err);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct fuzz_file file;
    struct mb_plan_file *plan;
    struct mb_error err = {0};
    fuzz_file_set(&file, data, size, 0);
    enum mb_status status = mb_plan_file_open(file.path, &plan, &err);
    if (status != MB_OK) {
        REQUIRE(status == MB_BAD_DATA && strncmp(err.msg, file.path, strlen(file.path)) == 0);
        return 0;
    }
    look_at(plan, file.path);
    mb_plan_file_close(plan);
    return 0;
}
