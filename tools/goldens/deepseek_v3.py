"""DeepSeek-V3: its small random checkpoints, what each one is for, and their layers."""

import fp8
import torch

from checkpoint import TYPES, Variant
from weights import bias, matrix, mlp, norm

# What the variants share; each one changes what it is about.  Sizes are small and seldom a power of two.
BASE = {
    "architectures": ["DeepseekV3ForCausalLM"],
    "model_type": "deepseek_v3",
    "vocab_size": 80,
    "hidden_size": 40,
    "intermediate_size": 56,
    "moe_intermediate_size": 20,
    "num_hidden_layers": 3,
    "first_k_dense_replace": 1,
    "moe_layer_freq": 1,
    "n_routed_experts": 8,
    "num_experts_per_tok": 3,
    "n_shared_experts": 1,
    "n_group": 1,
    "topk_group": 1,
    "topk_method": "noaux_tc",
    "scoring_func": "sigmoid",
    "norm_topk_prob": True,
    "routed_scaling_factor": 2.446,
    "num_attention_heads": 4,
    "num_key_value_heads": 4,
    "q_lora_rank": None,
    "kv_lora_rank": 28,
    "qk_nope_head_dim": 12,
    "qk_rope_head_dim": 8,
    "v_head_dim": 16,
    "hidden_act": "silu",
    "rms_norm_eps": 1e-5,
    "rope_theta": 10000.0,
    "rope_scaling": None,
    "max_position_embeddings": 128,
    "attention_bias": False,
    "tie_word_embeddings": False,
    "torch_dtype": "bfloat16",
    "num_nextn_predict_layers": 0,
    "bos_token_id": 0,
    "eos_token_id": 1,
    "use_cache": True,
}



def attention(gen, c, prefix):
    heads, nope, rope, v = (c["num_attention_heads"], c["qk_nope_head_dim"], c["qk_rope_head_dim"], c["v_head_dim"])
    d, q_rank, kv_rank = c["hidden_size"], c["q_lora_rank"], c["kv_lora_rank"]
    t = {}
    if q_rank is None:
        t["q_proj.weight"] = matrix(gen, heads * (nope + rope), d, 1.3)
    else:
        t["q_a_proj.weight"] = matrix(gen, q_rank, d)
        t["q_a_layernorm.weight"] = norm(gen, q_rank)
        t["q_b_proj.weight"] = matrix(gen, heads * (nope + rope), q_rank, 1.3)
    t["kv_a_proj_with_mqa.weight"] = matrix(gen, kv_rank + rope, d, 0.7)
    t["kv_a_layernorm.weight"] = norm(gen, kv_rank)
    t["kv_b_proj.weight"] = matrix(gen, heads * (nope + v), kv_rank, 1.3)
    t["o_proj.weight"] = matrix(gen, d, heads * v, 1.0)
    if c["attention_bias"]:
        t["kv_a_proj_with_mqa.bias"] = bias(gen, kv_rank + rope)
        t["o_proj.bias"] = bias(gen, d)
        if q_rank is not None:
            t["q_a_proj.bias"] = bias(gen, q_rank)
    return {f"{prefix}.{name}": x for name, x in t.items()}


def layer(gen, v, index):
    c, prefix = v.config, f"model.layers.{index}"
    d, d_ff = c["hidden_size"], c["moe_intermediate_size"]
    t = attention(gen, c, f"{prefix}.self_attn")
    t[f"{prefix}.input_layernorm.weight"] = norm(gen, d)
    t[f"{prefix}.post_attention_layernorm.weight"] = norm(gen, d)
    if index < c["first_k_dense_replace"]:
        t.update(mlp(gen, f"{prefix}.mlp", d, c["intermediate_size"], 1.0))
        return t
    t[f"{prefix}.mlp.gate.weight"] = matrix(gen, c["n_routed_experts"], d, 1.5)
    correction = 0.2 * torch.randn(c["n_routed_experts"], generator=gen)
    t[f"{prefix}.mlp.gate.e_score_correction_bias"] = correction.to(TYPES[v.bias_type])
    for e in range(c["n_routed_experts"]):
        t.update(mlp(gen, f"{prefix}.mlp.experts.{e}", d, d_ff, 0.8))
    t.update(mlp(gen, f"{prefix}.mlp.shared_experts", d, d_ff * c["n_shared_experts"], 0.8))
    return t


def variant(name, about, **options):
    return Variant(name, about, BASE, layer, **options)


VARIANTS = [
    variant("groups", "4 groups of experts, 2 of them chosen; config.json of transformers 5", v5=True,
            n_routed_experts=12, num_experts_per_tok=4, n_group=4, topk_group=2),
    variant("shared", "3 shared experts, weights of the routed ones not normalised, float32 weights, "
            "rms_norm_eps unlike the latent norm's", n_shared_experts=3, norm_topk_prob=False,
            torch_dtype="float32", n_routed_experts=6, num_experts_per_tok=2, moe_intermediate_size=12,
            hidden_size=32, num_hidden_layers=2, rms_norm_eps=0.05, bias_type="bfloat16"),
    variant("q-lora", "low-rank queries, attention biases, two shards with an index", n_shards=2,
            q_lora_rank=36, attention_bias=True, rms_norm_eps=0.02),
    variant("dense-layers", "3 dense layers of 5, tied embedding without lm_head, one prediction layer too many "
            "in the file, shards", n_shards=3, num_hidden_layers=5, first_k_dense_replace=3, tie_word_embeddings=True,
            n_routed_experts=6, num_experts_per_tok=2, num_nextn_predict_layers=1, n_extra_layers=1,
            bias_type="bfloat16", intermediate_size=44, hidden_size=36),
    variant("yarn", "YaRN with mscale and mscale_all_dim that differ, positions beyond the original context",
            n_tokens=72, rope_scaling={"type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32,
                                       "beta_fast": 1, "beta_slow": 0.25, "mscale": 1.0, "mscale_all_dim": 0.707},
            qk_rope_head_dim=16, rope_theta=50.0, num_hidden_layers=2),
    variant("yarn-5", "YaRN without mscale (cos and sin are scaled), config.json of transformers 5", v5=True,
            n_tokens=48, rope_scaling={"rope_type": "yarn", "factor": 8.0,
                                       "original_max_position_embeddings": 16, "beta_fast": 1, "beta_slow": 0.25},
            qk_rope_head_dim=16, n_routed_experts=6, num_experts_per_tok=2, num_hidden_layers=2,
            rope_theta=100.0),
    variant("shapes", "every dimension another number, float16 weights and bias, no multiple of 64 anywhere",
            hidden_size=68, intermediate_size=90, moe_intermediate_size=22, num_attention_heads=3,
            num_key_value_heads=3, q_lora_rank=50, kv_lora_rank=40, qk_nope_head_dim=20, qk_rope_head_dim=12,
            v_head_dim=26, vocab_size=101, n_routed_experts=5, num_experts_per_tok=2, n_shared_experts=2,
            torch_dtype="float16", bias_type="float16", routed_scaling_factor=1.0, rope_theta=500.0),
    variant("halves", "rope_interleave false: rotary pairs are half a head apart; groups, shared experts and the scale are missing, "
            "and not neutral", v5=True, rope_interleave=False, num_hidden_layers=2, n_routed_experts=16,
            moe_intermediate_size=10, n_group=8, topk_group=4, routed_scaling_factor=2.5,
            without=["n_group", "topk_group", "routed_scaling_factor", "n_shared_experts", "norm_topk_prob"]),
    variant("fp8", "8-bit matrices with float32 scales of blocks of 16 x 24, which divide no size; low-rank queries, a "
            "prediction layer in the file, shards", n_shards=2, q_lora_rank=36, num_hidden_layers=2, n_routed_experts=6,
            num_experts_per_tok=2, moe_intermediate_size=22, num_nextn_predict_layers=1, n_extra_layers=1,
            quantization_config=fp8.config(16, 24, scale_fmt="ue8m0")),
]
