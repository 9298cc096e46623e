"""Phi-3.5-MoE: its small random checkpoints, what each one is for, and their layers."""

from checkpoint import Variant
from weights import bias, matrix, norm

# What the variants share; each one changes what it is about.  Sizes are small and seldom a power of two.
BASE = {
    "architectures": ["PhiMoEForCausalLM"],
    "model_type": "phimoe",
    "vocab_size": 80,
    "hidden_size": 40,
    "intermediate_size": 28,
    "num_hidden_layers": 2,
    "num_local_experts": 6,
    "num_experts_per_tok": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "attention_bias": True,
    "lm_head_bias": True,
    "hidden_act": "silu",
    "input_jitter_noise": 0.01,
    "router_jitter_noise": 0.01,
    "rms_norm_eps": 1e-5,
    "rope_theta": 1e4,
    "rope_scaling": None,
    "sliding_window": 131072,
    "max_position_embeddings": 256,
    "original_max_position_embeddings": 64,
    "tie_word_embeddings": False,
    "torch_dtype": "bfloat16",
    "bos_token_id": 1,
    "eos_token_id": 2,
    "output_router_logits": False,
    "router_aux_loss_coef": 0.0,
    "use_cache": True,
}


def layer_norm(gen, name, n):
    return {f"{name}.weight": norm(gen, n), f"{name}.bias": bias(gen, n)}


def layer(gen, v, index):
    c, prefix = v.config, f"model.layers.{index}"
    d, d_head = c["hidden_size"], c.get("head_dim") or c["hidden_size"] // c["num_attention_heads"]
    q_n, kv_n = c["num_attention_heads"] * d_head, c["num_key_value_heads"] * d_head
    t = {}
    for name, rows, cols, gain in (("q", q_n, d, 1.5), ("k", kv_n, d, 1.5), ("v", kv_n, d, 1.0), ("o", d, q_n, 1.0)):
        t[f"{prefix}.self_attn.{name}_proj.weight"] = matrix(gen, rows, cols, gain)
        if c["attention_bias"]:
            t[f"{prefix}.self_attn.{name}_proj.bias"] = bias(gen, rows)
    t.update(layer_norm(gen, f"{prefix}.input_layernorm", d))
    t.update(layer_norm(gen, f"{prefix}.post_attention_layernorm", d))
    moe = f"{prefix}.block_sparse_moe"
    t[f"{moe}.gate.weight"] = matrix(gen, c["num_local_experts"], d, 1.5)
    for e in range(c["num_local_experts"]):
        t[f"{moe}.experts.{e}.w1.weight"] = matrix(gen, c["intermediate_size"], d, 1.5)
        t[f"{moe}.experts.{e}.w3.weight"] = matrix(gen, c["intermediate_size"], d, 1.5)
        t[f"{moe}.experts.{e}.w2.weight"] = matrix(gen, d, c["intermediate_size"], 0.8)
    return t


def ends(gen, v):
    c = v.config
    t = {"model.norm.bias": bias(gen, c["hidden_size"])}
    if c["lm_head_bias"]:
        t["lm_head.bias"] = bias(gen, c["vocab_size"])
    return t


def variant(name, about, **options):
    return Variant(name, about, BASE, layer, ends=ends, **options)


VARIANTS = [
    variant("phimoe", "as published: biases, LongRoPE with multipliers of its own, two names of settings for the same",
            n_tokens=60, rope_scaling={
                "type": "longrope", "short_mscale": 1.2431, "long_mscale": 1.31, "original_max_position_embeddings": 64,
                "short_factor": [1.0, 1.05, 1.1, 1.4, 2.0], "long_factor": [1.0, 2.0, 3.5, 9.0, 30.0]}),
    variant("phimoe-window", "a short window, a wide jitter, tied embedding, float16, config.json of transformers 5",
            v5=True, n_tokens=120, n_rows=60, architectures=["PhimoeForCausalLM"], sliding_window=25,
            attention_bias=False, lm_head_bias=False, router_jitter_noise=0.2, num_attention_heads=3,
            num_key_value_heads=3, hidden_size=36, intermediate_size=22, num_local_experts=4, vocab_size=61,
            num_hidden_layers=3, tie_word_embeddings=True, torch_dtype="float16", rms_norm_eps=0.02),
    variant("phimoe-shapes", "head_dim unlike hidden_size / heads, no window, linear rotary scaling with multipliers, "
            "a bias of the head alone, settings left out, shards, float32", n_shards=2, n_tokens=50,
            without=["router_jitter_noise", "sliding_window", "attention_bias", "num_experts_per_tok"],
            sliding_window=None, attention_bias=False, num_attention_heads=6, num_key_value_heads=1, head_dim=8,
            hidden_size=30, intermediate_size=14, num_local_experts=3, vocab_size=67, torch_dtype="float32",
            rope_theta=500.0, rope_scaling={"rope_type": "linear", "factor": 2.0, "short_mscale": 1.1,
                                            "long_mscale": 1.3, "original_max_position_embeddings": 80}),
]
