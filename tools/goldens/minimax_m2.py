"""MiniMax-M2: its small random checkpoints, what each one is for, and their layers."""

import torch

from checkpoint import Variant
from weights import matrix, norm

# What the variants share; each one changes what it is about.  Sizes are small and seldom a power of two.
BASE = {
    "architectures": ["MiniMaxM2ForCausalLM"],
    "model_type": "minimax_m2",
    "vocab_size": 80,
    "hidden_size": 40,
    "intermediate_size": 28,
    "num_hidden_layers": 2,
    "num_local_experts": 6,
    "num_experts_per_tok": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 12,
    "rotary_dim": 6,
    "use_qk_norm": True,
    "qk_norm_type": "per_layer",
    "use_routing_bias": True,
    "scoring_func": "sigmoid",
    "shared_intermediate_size": 0,
    "hidden_act": "silu",
    "rms_norm_eps": 1e-6,
    "rope_theta": 5000000,
    "rope_scaling": None,
    "max_position_embeddings": 128,
    "tie_word_embeddings": False,
    "torch_dtype": "bfloat16",
    "output_router_logits": False,
    "router_aux_loss_coef": 0.001,
    "router_jitter_noise": 0.0,
    "use_cache": True,
}


def layer(gen, v, index):
    c, prefix = v.config, f"model.layers.{index}"
    d, d_head = c["hidden_size"], c["head_dim"]
    q_n, kv_n = c["num_attention_heads"] * d_head, c["num_key_value_heads"] * d_head
    moe = f"{prefix}.block_sparse_moe"
    t = {
        f"{prefix}.self_attn.q_proj.weight": matrix(gen, q_n, d),
        f"{prefix}.self_attn.k_proj.weight": matrix(gen, kv_n, d),
        f"{prefix}.self_attn.v_proj.weight": matrix(gen, kv_n, d),
        f"{prefix}.self_attn.o_proj.weight": matrix(gen, d, q_n),
        f"{prefix}.self_attn.q_norm.weight": norm(gen, q_n),
        f"{prefix}.self_attn.k_norm.weight": norm(gen, kv_n),
        f"{prefix}.input_layernorm.weight": norm(gen, d),
        f"{prefix}.post_attention_layernorm.weight": norm(gen, d),
        f"{moe}.gate.weight": matrix(gen, c["num_local_experts"], d, 1.5),
        f"{moe}.e_score_correction_bias": 0.2 * torch.randn(c["num_local_experts"], generator=gen),
    }
    for e in range(c["num_local_experts"]):
        t[f"{moe}.experts.{e}.w1.weight"] = matrix(gen, c["intermediate_size"], d, 1.5)
        t[f"{moe}.experts.{e}.w3.weight"] = matrix(gen, c["intermediate_size"], d, 1.5)
        t[f"{moe}.experts.{e}.w2.weight"] = matrix(gen, d, c["intermediate_size"], 0.8)
    return t


def variant(name, about, **options):
    return Variant(name, about, BASE, layer, **options)


VARIANTS = [
    variant("minimax-m2", "as published: half of a head is rotated"),
    variant("minimax-m2-5", "config.json of transformers 5, no rotary_dim, a head of the cache for each query head, more experts "
            "chosen, float16", v5=True, n_tokens=60, without=["rotary_dim", "use_qk_norm", "use_routing_bias"],
            rotary_dim=8, num_attention_heads=3, num_key_value_heads=3, head_dim=8, hidden_size=36, vocab_size=61,
            intermediate_size=22, num_local_experts=7, num_experts_per_tok=3, torch_dtype="float16", rms_norm_eps=0.02,
            rope_theta=500.0),
    variant("minimax-m2-yarn", "YaRN, tied embedding, a quarter of a head is rotated, shards, float32", n_shards=2,
            n_tokens=60, num_attention_heads=6, num_key_value_heads=1, head_dim=16, rotary_dim=4, hidden_size=30,
            intermediate_size=14, num_local_experts=5, num_experts_per_tok=1, vocab_size=67, num_hidden_layers=3,
            tie_word_embeddings=True, torch_dtype="float32", rope_theta=1e4, rope_scaling={
                "rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 16}),
]
