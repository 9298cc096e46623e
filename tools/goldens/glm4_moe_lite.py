"""GLM-4.7-Flash: its small random checkpoints, what each one is for, and their layers (those of DeepSeek-V3)."""

import deepseek_v3
from checkpoint import Variant

# What the variants share; each one changes what it is about.  Sizes are small and seldom a power of two.
BASE = {
    "architectures": ["Glm4MoeLiteForCausalLM"],
    "model_type": "glm4_moe_lite",
    "vocab_size": 80,
    "hidden_size": 40,
    "intermediate_size": 56,
    "moe_intermediate_size": 20,
    "num_hidden_layers": 3,
    "first_k_dense_replace": 1,
    "n_routed_experts": 8,
    "num_experts_per_tok": 3,
    "n_shared_experts": 1,
    "n_group": 1,
    "topk_group": 1,
    "topk_method": "noaux_tc",
    "norm_topk_prob": True,
    "routed_scaling_factor": 1.8,
    "num_attention_heads": 4,
    "num_key_value_heads": 4,
    "q_lora_rank": 36,
    "kv_lora_rank": 28,
    "qk_nope_head_dim": 12,
    "qk_rope_head_dim": 8,
    "v_head_dim": 16,
    "hidden_act": "silu",
    "rms_norm_eps": 1e-5,
    "rope_theta": 1000000,
    "rope_scaling": None,
    "max_position_embeddings": 128,
    "attention_bias": False,
    "tie_word_embeddings": False,
    "torch_dtype": "bfloat16",
    "num_nextn_predict_layers": 1,
    "bos_token_id": 0,
    "eos_token_id": [1, 2, 3],
    "pad_token_id": 1,
    "use_cache": True,
}


def layer(gen, v, index):
    types = v.config.get("mlp_layer_types") or ["dense"] + ["sparse"] * v.config["num_hidden_layers"]
    v.config["first_k_dense_replace"] = 0 if types[index] == "sparse" else index + 1
    return deepseek_v3.layer(gen, v, index)


def variant(name, about, **options):
    return Variant(name, about, BASE, layer, **options)


VARIANTS = [
    variant("glm4-moe-lite", "as published: low-rank queries, one prediction layer too many in the file, a scale and a dense "
            "layer because nothing says otherwise", n_extra_layers=1,
            without=["routed_scaling_factor", "first_k_dense_replace", "n_group", "topk_group", "norm_topk_prob"]),
    variant("glm4-moe-lite-types", "dense layers by list, groups, biases, tied embedding, YaRN with mscale_all_dim, float16, "
            "config.json of transformers 5", v5=True, n_tokens=60, without=["first_k_dense_replace"],
            mlp_layer_types=["sparse", "dense", "sparse", "sparse"], num_hidden_layers=4, n_routed_experts=9,
            num_experts_per_tok=2, n_group=3, topk_group=2, attention_bias=True, norm_topk_prob=False, vocab_size=61,
            hidden_size=36, tie_word_embeddings=True, torch_dtype="float16", rope_theta=500.0, rope_scaling={
                "rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 16, "mscale": 1.0,
                "mscale_all_dim": 0.7}),
    variant("glm4-moe-lite-halves", "rotary pairs half a head apart, queries that are not low-rank, two shared experts, shards, "
            "float32", n_shards=2, rope_interleave=False, q_lora_rank=None, n_shared_experts=2, num_attention_heads=3,
            num_key_value_heads=3, qk_rope_head_dim=6, v_head_dim=10, kv_lora_rank=22, vocab_size=67, n_routed_experts=5,
            moe_intermediate_size=14, torch_dtype="float32", rms_norm_eps=0.02, num_hidden_layers=2),
]
