"""DeepSeek-V2: its small random checkpoints, what each one is for, and their layers."""

import deepseek_v3
from checkpoint import Variant
from weights import matrix, mlp, norm

# What the variants share; each one changes what it is about.  Sizes are small and seldom a power of two.
BASE = {
    **deepseek_v3.BASE,
    "architectures": ["DeepseekV2ForCausalLM"],
    "model_type": "deepseek_v2",
    "num_hidden_layers": 2,
    "topk_method": "greedy",
    "scoring_func": "softmax",
    "norm_topk_prob": False,
    "routed_scaling_factor": 1.0,
    "rms_norm_eps": 1e-6,
}


def layer(gen, v, index):
    c, prefix = v.config, f"model.layers.{index}"
    d, d_ff = c["hidden_size"], c["moe_intermediate_size"]
    t = deepseek_v3.attention(gen, c, f"{prefix}.self_attn")
    t[f"{prefix}.input_layernorm.weight"] = norm(gen, d)
    t[f"{prefix}.post_attention_layernorm.weight"] = norm(gen, d)
    if index < c["first_k_dense_replace"]:
        t.update(mlp(gen, f"{prefix}.mlp", d, c["intermediate_size"], 1.0))
        return t
    t[f"{prefix}.mlp.gate.weight"] = matrix(gen, c["n_routed_experts"], d, 1.5)
    for e in range(c["n_routed_experts"]):
        t.update(mlp(gen, f"{prefix}.mlp.experts.{e}", d, d_ff, 0.8))
    t.update(mlp(gen, f"{prefix}.mlp.shared_experts", d, d_ff * c["n_shared_experts"], 0.8))
    return t


def variant(name, about, **options):
    return Variant(name, about, BASE, layer, **options)


VARIANTS = [
    variant("deepseek-v2", "as V2-Lite: greedy choice, YaRN whose mscale and mscale_all_dim are equal, 2 shared experts "
            "because nothing says otherwise", without=["n_shared_experts", "norm_topk_prob", "topk_method"],
            n_shared_experts=2, n_tokens=60, moe_intermediate_size=14, n_routed_experts=7,
            rope_scaling={"type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32, "beta_fast": 1,
                          "beta_slow": 0.25, "mscale": 0.707, "mscale_all_dim": 0.707}, rope_theta=50.0),
    variant("deepseek-v2-groups", "as V2: low-rank queries, the best groups first, a scale, attention biases, float32, "
            "shards, config.json of transformers 5", v5=True, n_shards=2, q_lora_rank=22, topk_method="group_limited_greedy",
            n_routed_experts=12, num_experts_per_tok=3, n_group=4, topk_group=2, routed_scaling_factor=3.0,
            attention_bias=True, hidden_size=28, intermediate_size=30, moe_intermediate_size=8, kv_lora_rank=18,
            qk_nope_head_dim=10, qk_rope_head_dim=6, v_head_dim=14, num_attention_heads=2, num_key_value_heads=2,
            vocab_size=67, rms_norm_eps=0.02, torch_dtype="float32"),
    variant("deepseek-v2-shapes", "no dense layer, tied embedding, groups that greedy choice does not heed, every dimension "
            "another number, float16", first_k_dense_replace=0, num_hidden_layers=3, hidden_size=36, moe_intermediate_size=16,
            num_attention_heads=3, num_key_value_heads=3, kv_lora_rank=20, qk_nope_head_dim=14, qk_rope_head_dim=10,
            v_head_dim=18, vocab_size=59, n_routed_experts=6, num_experts_per_tok=2, n_group=3, topk_group=1,
            tie_word_embeddings=True, torch_dtype="float16", rope_theta=500.0),
]
