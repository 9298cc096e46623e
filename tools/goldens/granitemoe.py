"""Granite-MoE: its small random checkpoints, what each one is for, and their layers."""

import torch

from checkpoint import Variant
from weights import bias, matrix, norm

# What the variants share; each one changes what it is about.  Sizes are small and seldom a power of two.
BASE = {
    "architectures": ["GraniteMoeForCausalLM"],
    "model_type": "granitemoe",
    "vocab_size": 80,
    "hidden_size": 40,
    "intermediate_size": 28,
    "num_hidden_layers": 2,
    "num_local_experts": 6,
    "num_experts_per_tok": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "attention_bias": False,
    "embedding_multiplier": 3.0,
    "attention_multiplier": 0.15,
    "residual_multiplier": 0.7,
    "logits_scaling": 2.5,
    "hidden_act": "silu",
    "rms_norm_eps": 1e-6,
    "rope_theta": 1e4,
    "rope_scaling": None,
    "max_position_embeddings": 128,
    "tie_word_embeddings": True,
    "torch_dtype": "bfloat16",
    "bos_token_id": 0,
    "eos_token_id": 0,
    "pad_token_id": 0,
    "output_router_logits": False,
    "router_aux_loss_coef": 0.001,
    "use_cache": True,
}


def halves(gen, n, d):
    return torch.cat([matrix(gen, n, d, 1.5), matrix(gen, n, d, 1.5)])


def layer(gen, v, index):
    c, prefix = v.config, f"model.layers.{index}"
    d, d_head = c["hidden_size"], c.get("head_dim") or c["hidden_size"] // c["num_attention_heads"]
    n_experts, n_kv = c["num_local_experts"], c["num_key_value_heads"] or c["num_attention_heads"]
    q_n, kv_n = c["num_attention_heads"] * d_head, n_kv * d_head
    t = {}
    for name, rows, cols, gain in (("q", q_n, d, 1.5), ("k", kv_n, d, 1.5), ("v", kv_n, d, 1.0), ("o", d, q_n, 1.0)):
        t[f"{prefix}.self_attn.{name}_proj.weight"] = matrix(gen, rows, cols, gain)
        if c["attention_bias"]:
            t[f"{prefix}.self_attn.{name}_proj.bias"] = bias(gen, rows)
    t[f"{prefix}.input_layernorm.weight"] = norm(gen, d)
    t[f"{prefix}.post_attention_layernorm.weight"] = norm(gen, d)
    moe = f"{prefix}.block_sparse_moe"
    t[f"{moe}.router.layer.weight"] = matrix(gen, n_experts, d, 1.5)
    t[f"{moe}.input_linear.weight"] = torch.stack([halves(gen, c["intermediate_size"], d) for _ in range(n_experts)])
    t[f"{moe}.output_linear.weight"] = torch.stack(
        [matrix(gen, d, c["intermediate_size"], 0.8) for _ in range(n_experts)])
    return t


def variant(name, about, **options):
    return Variant(name, about, BASE, layer, **options)


VARIANTS = [
    variant("granitemoe", "as published: multipliers, tied embedding, fused experts"),
    variant("granitemoe-plain", "multipliers left out, biases, a head of its own, a head of the cache for each "
            "query head, YaRN, float16, config.json of transformers 5", v5=True, n_tokens=90,
            without=["embedding_multiplier", "residual_multiplier", "logits_scaling"], attention_multiplier=0.3,
            attention_bias=True, num_key_value_heads=None, num_attention_heads=3, hidden_size=24, intermediate_size=18,
            num_local_experts=4, num_experts_per_tok=1, vocab_size=61, tie_word_embeddings=False,
            torch_dtype="float16", rms_norm_eps=0.01, num_hidden_layers=3, eos_token_id=[0, 3],
            rope_scaling={"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32}),
    variant("granitemoe-shapes", "head_dim unlike hidden_size / heads, more experts chosen, shards, float32", n_shards=2,
            num_attention_heads=6, num_key_value_heads=1, head_dim=8, hidden_size=30, intermediate_size=14,
            num_local_experts=5, num_experts_per_tok=3, vocab_size=67, torch_dtype="float32", embedding_multiplier=12,
            logits_scaling=6.0, attention_multiplier=0.4, residual_multiplier=0.22, rope_theta=300.0),
]
