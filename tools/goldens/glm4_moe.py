"""GLM-4.5-MoE: its small random checkpoints, what each one is for, and their layers."""

import torch

from checkpoint import Variant
from weights import bias, matrix, mlp, norm

# What the variants share; each one changes what it is about.  Sizes are small and seldom a power of two.
BASE = {
    "architectures": ["Glm4MoeForCausalLM"],
    "model_type": "glm4_moe",
    "vocab_size": 80,
    "hidden_size": 40,
    "intermediate_size": 54,
    "moe_intermediate_size": 18,
    "num_hidden_layers": 2,
    "first_k_dense_replace": 1,
    "n_routed_experts": 8,
    "num_experts_per_tok": 3,
    "n_shared_experts": 1,
    "n_group": 1,
    "topk_group": 1,
    "norm_topk_prob": True,
    "routed_scaling_factor": 1.0,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 12,
    "partial_rotary_factor": 0.5,
    "use_qk_norm": False,
    "attention_bias": True,
    "hidden_act": "silu",
    "rms_norm_eps": 1e-5,
    "rope_theta": 10000.0,
    "rope_scaling": None,
    "max_position_embeddings": 128,
    "tie_word_embeddings": False,
    "torch_dtype": "bfloat16",
    "num_nextn_predict_layers": 0,
    "eos_token_id": [7, 8, 9],
    "pad_token_id": 7,
    "use_cache": True,
}


def layer(gen, v, index):
    c, prefix = v.config, f"model.layers.{index}"
    d, d_head = c["hidden_size"], c["head_dim"] or c["hidden_size"] // c["num_attention_heads"]
    q_n, kv_n = c["num_attention_heads"] * d_head, c["num_key_value_heads"] * d_head
    attention = {f"{name}_proj.weight": matrix(gen, n, d) for name, n in (("q", q_n), ("k", kv_n), ("v", kv_n))}
    if c["attention_bias"]:
        attention.update({f"{name}_proj.bias": bias(gen, n) for name, n in (("q", q_n), ("k", kv_n), ("v", kv_n))})
    if c["use_qk_norm"]:
        attention.update({f"{name}_norm.weight": norm(gen, d_head) for name in "qk"})
    attention["o_proj.weight"] = matrix(gen, d, q_n)
    t = {f"{prefix}.self_attn.{name}": x for name, x in attention.items()}
    t[f"{prefix}.input_layernorm.weight"] = norm(gen, d)
    t[f"{prefix}.post_attention_layernorm.weight"] = norm(gen, d)
    if index < c["first_k_dense_replace"]:
        t.update(mlp(gen, f"{prefix}.mlp", d, c["intermediate_size"], 1.0))
        return t
    t[f"{prefix}.mlp.gate.weight"] = matrix(gen, c["n_routed_experts"], d, 1.5)
    t[f"{prefix}.mlp.gate.e_score_correction_bias"] = 0.2 * torch.randn(c["n_routed_experts"], generator=gen)
    for e in range(c["n_routed_experts"]):
        t.update(mlp(gen, f"{prefix}.mlp.experts.{e}", d, c["moe_intermediate_size"], 0.8))
    t.update(mlp(gen, f"{prefix}.mlp.shared_experts", d, c["moe_intermediate_size"] * c["n_shared_experts"], 0.8))
    return t


def variant(name, about, **options):
    return Variant(name, about, BASE, layer, **options)


VARIANTS = [
    variant("glm4-moe", "as published: half of a head is rotated because nothing says otherwise, biases, no norms of "
            "heads, one prediction layer too many in the file", without=["partial_rotary_factor", "use_qk_norm"],
            n_extra_layers=1, num_nextn_predict_layers=1, moe_intermediate_size=14, n_routed_experts=6),
    variant("glm4-moe-norm", "norms of heads, no biases, groups, 2 shared experts, a scale, weights that are not normalised, "
            "a quarter of a head is rotated, float32, shards, config.json of transformers 5", v5=True, n_shards=2,
            use_qk_norm=True, attention_bias=False, n_routed_experts=9, num_experts_per_tok=4, n_group=3, topk_group=2,
            n_shared_experts=2, routed_scaling_factor=2.5, norm_topk_prob=False, num_attention_heads=3,
            num_key_value_heads=1, head_dim=16, hidden_size=28, intermediate_size=34, moe_intermediate_size=10,
            vocab_size=67, rms_norm_eps=0.02, torch_dtype="float32", rope_theta=700.0,
            rope_scaling={"rope_type": "default", "partial_rotary_factor": 0.25}),
    variant("glm4-moe-yarn", "YaRN of a part of a head, dense layers alone before the last, tied embedding, no head_dim, float16",
            without=["head_dim"], head_dim=None, n_tokens=72, num_hidden_layers=3, first_k_dense_replace=2,
            hidden_size=48, num_attention_heads=3, num_key_value_heads=3, n_routed_experts=5, num_experts_per_tok=2,
            moe_intermediate_size=22, intermediate_size=30, vocab_size=101, tie_word_embeddings=True,
            torch_dtype="float16", rope_theta=50.0, partial_rotary_factor=0.75, use_qk_norm=True,
            rope_scaling={"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32}),
]
