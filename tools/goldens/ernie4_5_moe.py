"""ERNIE-4.5-MoE: its small random checkpoints, what each one is for, and their layers."""

import torch

from checkpoint import Variant
from weights import matrix, mlp, norm

# What the variants share; each one changes what it is about.  Sizes are small and seldom a power of two.
BASE = {
    "architectures": ["Ernie4_5_MoeForCausalLM"],
    "model_type": "ernie4_5_moe",
    "vocab_size": 80,
    "hidden_size": 40,
    "intermediate_size": 54,
    "moe_intermediate_size": 18,
    "num_hidden_layers": 3,
    "moe_num_experts": 6,
    "moe_k": 2,
    "moe_num_shared_experts": 2,
    "moe_layer_start_index": 1,
    "moe_layer_end_index": -1,
    "moe_layer_interval": 1,
    "moe_norm_min": 1e-12,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "use_bias": False,
    "hidden_act": "silu",
    "rms_norm_eps": 1e-5,
    "rope_theta": 500000.0,
    "rope_scaling": None,
    "max_position_embeddings": 128,
    "tie_word_embeddings": True,
    "torch_dtype": "bfloat16",
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
    "use_cache": True,
}


def has_experts(c, index):
    last = c["moe_layer_end_index"] if c["moe_layer_end_index"] >= 0 else c["num_hidden_layers"] - 1
    return (index + 1) % c["moe_layer_interval"] == 0 and c["moe_layer_start_index"] <= index <= last


def layer(gen, v, index):
    c, prefix = v.config, f"model.layers.{index}"
    d, d_head = c["hidden_size"], c.get("head_dim") or c["hidden_size"] // c["num_attention_heads"]
    q_n, kv_n = c["num_attention_heads"] * d_head, c["num_key_value_heads"] * d_head
    t = {
        f"{prefix}.self_attn.q_proj.weight": matrix(gen, q_n, d, 1.5),
        f"{prefix}.self_attn.k_proj.weight": matrix(gen, kv_n, d, 1.5),
        f"{prefix}.self_attn.v_proj.weight": matrix(gen, kv_n, d),
        f"{prefix}.self_attn.o_proj.weight": matrix(gen, d, q_n),
        f"{prefix}.input_layernorm.weight": norm(gen, d),
        f"{prefix}.post_attention_layernorm.weight": norm(gen, d),
    }
    if not has_experts(c, index):
        t.update(mlp(gen, f"{prefix}.mlp", d, c["intermediate_size"], 1.0))
        return t
    t[f"{prefix}.mlp.gate.weight"] = matrix(gen, c["moe_num_experts"], d, 1.5)
    t[f"{prefix}.mlp.moe_statics.e_score_correction_bias"] = 0.1 * torch.randn(1, c["moe_num_experts"], generator=gen)
    for e in range(c["moe_num_experts"]):
        t.update(mlp(gen, f"{prefix}.mlp.experts.{e}", d, c["moe_intermediate_size"], 0.8))
    if c["moe_num_shared_experts"] > 0:
        d_shared = c["moe_intermediate_size"] * c["moe_num_shared_experts"]
        t.update(mlp(gen, f"{prefix}.mlp.shared_experts", d, d_shared, 0.8))
    return t


def variant(name, about, **options):
    return Variant(name, about, BASE, layer, **options)


VARIANTS = [
    variant("ernie4-5-moe", "as published: a tied embedding, a dense first layer and shared experts because nothing says "
            "otherwise", without=["tie_word_embeddings", "moe_layer_start_index", "moe_layer_end_index",
                                  "moe_layer_interval", "moe_num_shared_experts", "moe_norm_min", "use_bias"]),
    variant("ernie4-5-moe-layers", "experts in every other layer of a range, no shared expert, a head of its own, a head of the "
            "cache for each query head, float16, config.json of transformers 5", v5=True, n_tokens=60,
            num_hidden_layers=5, moe_layer_start_index=1, moe_layer_end_index=3, moe_layer_interval=2,
            moe_num_shared_experts=0, tie_word_embeddings=False, num_attention_heads=3, num_key_value_heads=3,
            hidden_size=36, moe_intermediate_size=14, moe_num_experts=7, moe_k=3, vocab_size=61,
            torch_dtype="float16", rms_norm_eps=0.02, rope_theta=300.0),
    variant("ernie4-5-moe-shapes", "head_dim unlike hidden_size / heads, one expert chosen, shards, float32, YaRN", n_shards=2,
            n_tokens=60, head_dim=16, num_attention_heads=6, num_key_value_heads=1, hidden_size=30,
            moe_layer_start_index=0, moe_num_shared_experts=1, moe_num_experts=5, moe_k=1, vocab_size=67,
            num_hidden_layers=2, torch_dtype="float32", rope_theta=1e4, rope_scaling={
                "rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 16}),
]
