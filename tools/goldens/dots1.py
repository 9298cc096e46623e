"""dots.llm1: its small random checkpoints, what each one is for, and their layers (those of GLM-4.5 with norms)."""

import glm4_moe
from checkpoint import Variant
from weights import bias

# What the variants share; each one changes what it is about.  Sizes are small and seldom a power of two.
BASE = {
    "architectures": ["Dots1ForCausalLM"],
    "model_type": "dots1",
    "vocab_size": 80,
    "hidden_size": 40,
    "intermediate_size": 54,
    "moe_intermediate_size": 18,
    "num_hidden_layers": 3,
    "first_k_dense_replace": 1,
    "n_routed_experts": 8,
    "num_experts_per_tok": 3,
    "n_shared_experts": 2,
    "n_group": 1,
    "topk_group": 1,
    "norm_topk_prob": True,
    "routed_scaling_factor": 2.5,
    "scoring_func": "noaux_tc",
    "num_attention_heads": 4,
    "num_key_value_heads": 4,
    "head_dim": 12,
    "attention_bias": False,
    "hidden_act": "silu",
    "rms_norm_eps": 1e-5,
    "rope_theta": 10000.0,
    "rope_scaling": None,
    "sliding_window": None,
    "max_position_embeddings": 128,
    "tie_word_embeddings": False,
    "torch_dtype": "bfloat16",
    "eos_token_id": 7,
    "use_cache": True,
}


def layer(gen, v, index):
    v.config["use_qk_norm"] = True
    t = glm4_moe.layer(gen, v, index)
    if v.config["attention_bias"]:
        t[f"model.layers.{index}.self_attn.o_proj.bias"] = bias(gen, v.config["hidden_size"])
    return t


def variant(name, about, **options):
    return Variant(name, about, BASE, layer, **options)


VARIANTS = [
    variant("dots1", "as published: no window, a scale, two shared experts"),
    variant("dots1-window", "windows in the last layers, biases, groups, 2 query heads for a head of the cache, no dense layer, "
            "float16, config.json of transformers 5", v5=True, n_tokens=130, n_rows=60, sliding_window=20,
            max_window_layers=1, attention_bias=True, num_key_value_heads=2, head_dim=8, hidden_size=36,
            first_k_dense_replace=0, n_routed_experts=9, num_experts_per_tok=4, n_group=3, topk_group=2,
            n_shared_experts=1, moe_intermediate_size=14, vocab_size=61, torch_dtype="float16", rope_theta=500.0,
            max_position_embeddings=256),
    variant("dots1-types", "windows by layer_types, weights that are not normalised and not scaled because nothing says "
            "otherwise, tied embedding, YaRN, shards, float32", n_shards=2, n_tokens=60, sliding_window=9,
            layer_types=["sliding_attention", "full_attention", "sliding_attention"], num_attention_heads=3,
            num_key_value_heads=1, hidden_size=30, n_routed_experts=5, num_experts_per_tok=2, vocab_size=67,
            norm_topk_prob=False, routed_scaling_factor=1.0, tie_word_embeddings=True, torch_dtype="float32",
            without=["norm_topk_prob", "routed_scaling_factor", "n_group", "topk_group", "scoring_func"],
            rope_scaling={"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 16}),
]
