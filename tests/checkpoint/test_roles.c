/*
 * test_roles.c - what a tensor is, by the names that published models give their tensors.
 */
#include "cmocka_all.h"
#include <moebius/checkpoint.h>

static void assert_role(const char *name, enum mb_role role, int layer, int expert,
                        enum mb_projection projection)
{
    struct mb_tensor_role found = mb_role_of(name);
    assert_int_equal(found.role, role);
    assert_int_equal(found.layer, layer);
    assert_int_equal(found.expert, expert);
    assert_int_equal(found.projection, projection);
}

static void experts_have_layer_number_and_projection(void **state)
{
    (void)state;
    assert_role("model.layers.3.mlp.experts.17.gate_proj.weight", MB_ROLE_EXPERT, 3, 17, MB_PROJECTION_GATE);
    assert_role("model.layers.0.mlp.experts.0.up_proj.weight", MB_ROLE_EXPERT, 0, 0, MB_PROJECTION_UP);
    assert_role("model.layers.26.mlp.experts.63.down_proj.weight", MB_ROLE_EXPERT, 26, 63,
                MB_PROJECTION_DOWN);
    assert_role("model.layers.1.mlp.shared_experts.up_proj.weight", MB_ROLE_SHARED_EXPERT, 1, -1,
                MB_PROJECTION_UP);
    assert_role("model.layers.1.mlp.shared_expert.down_proj.weight", MB_ROLE_SHARED_EXPERT, 1, -1,
                MB_PROJECTION_DOWN);
}

static void mixtral_numbers_its_projections(void **state)
{
    (void)state;
    assert_role("model.layers.2.block_sparse_moe.experts.5.w1.weight", MB_ROLE_EXPERT, 2, 5,
                MB_PROJECTION_GATE);
    assert_role("model.layers.2.block_sparse_moe.experts.5.w2.weight", MB_ROLE_EXPERT, 2, 5,
                MB_PROJECTION_DOWN);
    assert_role("model.layers.2.block_sparse_moe.experts.5.w3.weight", MB_ROLE_EXPERT, 2, 5,
                MB_PROJECTION_UP);
}

static void other_parts_are_told_apart(void **state)
{
    (void)state;
    assert_role("model.layers.0.mlp.gate_proj.weight", MB_ROLE_LINEAR, 0, -1, MB_PROJECTION_NONE);
    assert_role("model.layers.4.self_attn.kv_a_proj_with_mqa.weight", MB_ROLE_LINEAR, 4, -1,
                MB_PROJECTION_NONE);
    assert_role("lm_head.weight", MB_ROLE_LINEAR, -1, -1, MB_PROJECTION_NONE);
    assert_role("model.embed_tokens.weight", MB_ROLE_EMBEDDING, -1, -1, MB_PROJECTION_NONE);
    assert_role("model.layers.3.mlp.gate.weight", MB_ROLE_ROUTER, 3, -1, MB_PROJECTION_NONE);
    assert_role("model.layers.3.mlp.gate.e_score_correction_bias", MB_ROLE_ROUTER, 3, -1, MB_PROJECTION_NONE);
    assert_role("model.layers.3.block_sparse_moe.router.layer.weight", MB_ROLE_ROUTER, 3, -1,
                MB_PROJECTION_NONE);
    assert_role("model.layers.3.feed_forward.router.weight", MB_ROLE_ROUTER, 3, -1, MB_PROJECTION_NONE);
    assert_role("model.layers.3.mlp.shared_expert_gate.weight", MB_ROLE_ROUTER, 3, -1, MB_PROJECTION_NONE);
    assert_role("model.layers.3.input_layernorm.weight", MB_ROLE_OTHER, 3, -1, MB_PROJECTION_NONE);
    assert_role("model.norm.weight", MB_ROLE_OTHER, -1, -1, MB_PROJECTION_NONE);
}

static void names_that_only_look_alike_are_other(void **state)
{
    (void)state;
    assert_role("", MB_ROLE_OTHER, -1, -1, MB_PROJECTION_NONE);
    assert_role("model.layers.x.mlp.experts.y.w1.weight", MB_ROLE_OTHER, -1, -1, MB_PROJECTION_NONE);
    assert_role("model.layers.3", MB_ROLE_OTHER, -1, -1, MB_PROJECTION_NONE);
    assert_role("a.experts.1234567890.w1", MB_ROLE_OTHER, -1, -1, MB_PROJECTION_NONE);
    assert_role("a.experts.7.gate_proj.bias", MB_ROLE_EXPERT, -1, 7, MB_PROJECTION_NONE);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(experts_have_layer_number_and_projection),
        cmocka_unit_test(mixtral_numbers_its_projections),
        cmocka_unit_test(other_parts_are_told_apart),
        cmocka_unit_test(names_that_only_look_alike_are_other),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
