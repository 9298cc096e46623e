"""Qwen2-MoE: its small random checkpoints, what each one is for, and their layers."""

from checkpoint import Variant
from weights import bias, matrix, mlp, norm

# What the variants share; each one changes what it is about.  Sizes are small and seldom a power of two.
BASE = {
    "architectures": ["Qwen2MoeForCausalLM"],
    "model_type": "qwen2_moe",
    "vocab_size": 80,
    "hidden_size": 40,
    "intermediate_size": 54,
    "moe_intermediate_size": 14,
    "shared_expert_intermediate_size": 44,
    "num_hidden_layers": 2,
    "decoder_sparse_step": 1,
    "mlp_only_layers": [],
    "num_experts": 6,
    "num_experts_per_tok": 3,
    "norm_topk_prob": False,
    "num_attention_heads": 4,
    "num_key_value_heads": 4,
    "qkv_bias": True,
    "hidden_act": "silu",
    "rms_norm_eps": 1e-6,
    "rope_theta": 1e6,
    "rope_scaling": None,
    "sliding_window": 32768,
    "use_sliding_window": False,
    "max_window_layers": 2,
    "max_position_embeddings": 128,
    "tie_word_embeddings": False,
    "torch_dtype": "bfloat16",
    "bos_token_id": 5,
    "eos_token_id": 6,
    "output_router_logits": False,
    "use_cache": True,
}


def has_experts(c, index):
    return index not in c["mlp_only_layers"] and (index + 1) % c["decoder_sparse_step"] == 0


def layer(gen, v, index):
    c, prefix = v.config, f"model.layers.{index}"
    d, d_head = c["hidden_size"], c["hidden_size"] // c["num_attention_heads"]
    kv_n = c["num_key_value_heads"] * d_head
    t = {f"{prefix}.self_attn.{name}_proj.weight": matrix(gen, n, d) for name, n in (("q", d), ("k", kv_n), ("v", kv_n))}
    if c["qkv_bias"]:
        for name, n in (("q", d), ("k", kv_n), ("v", kv_n)):
            t[f"{prefix}.self_attn.{name}_proj.bias"] = bias(gen, n)
    t[f"{prefix}.self_attn.o_proj.weight"] = matrix(gen, d, d)
    t[f"{prefix}.input_layernorm.weight"] = norm(gen, d)
    t[f"{prefix}.post_attention_layernorm.weight"] = norm(gen, d)
    if not has_experts(c, index):
        t.update(mlp(gen, f"{prefix}.mlp", d, c["intermediate_size"], 1.0))
        return t
    t[f"{prefix}.mlp.gate.weight"] = matrix(gen, c["num_experts"], d, 1.5)
    for e in range(c["num_experts"]):
        t.update(mlp(gen, f"{prefix}.mlp.experts.{e}", d, c["moe_intermediate_size"], 0.8))
    t.update(mlp(gen, f"{prefix}.mlp.shared_expert", d, c["shared_expert_intermediate_size"], 0.8))
    t[f"{prefix}.mlp.shared_expert_gate.weight"] = matrix(gen, 1, d, 1.5)
    return t


def variant(name, about, **options):
    return Variant(name, about, BASE, layer, **options)


VARIANTS = [
    variant("qwen2-moe", "as published: biases and weights that are not normalised because nothing says otherwise, "
            "a window that is not used", without=["qkv_bias", "norm_topk_prob", "mlp_only_layers"]),
    variant("qwen2-moe-window", "a window in every other of the first layers, 2 query heads for a head of the cache, "
            "normalised weights, no biases, float16, config.json of transformers 5", v5=True, n_tokens=160, n_rows=60,
            max_position_embeddings=200, use_sliding_window=True, sliding_window=30, max_window_layers=3,
            num_hidden_layers=4, num_key_value_heads=2, hidden_size=32, moe_intermediate_size=10,
            shared_expert_intermediate_size=18, num_experts=4, num_experts_per_tok=1, qkv_bias=False,
            norm_topk_prob=True, vocab_size=61, torch_dtype="float16", rope_theta=5e3),
    variant("qwen2-moe-mixed", "dense layers by step and by list, windows by layer_types, tied embedding, float32, shards",
            n_shards=2, num_hidden_layers=4, decoder_sparse_step=2, mlp_only_layers=[3], num_attention_heads=3,
            num_key_value_heads=1, hidden_size=30, intermediate_size=26, moe_intermediate_size=16,
            shared_expert_intermediate_size=22, num_experts=5, num_experts_per_tok=2, vocab_size=67,
            rms_norm_eps=0.02, tie_word_embeddings=True, torch_dtype="float32", use_sliding_window=True,
            sliding_window=7, rope_theta=300.0,
            layer_types=["full_attention", "sliding_attention", "sliding_attention", "full_attention"]),
]
