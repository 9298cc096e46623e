"""Qwen3-MoE: its small random checkpoints, what each one is for, and their layers."""

import fp8
from checkpoint import Variant
from weights import bias, matrix, mlp, norm

# What the variants share; each one changes what it is about.  Sizes are small and seldom a power of two.
BASE = {
    "architectures": ["Qwen3MoeForCausalLM"],
    "model_type": "qwen3_moe",
    "vocab_size": 80,
    "hidden_size": 36,
    "intermediate_size": 56,
    "moe_intermediate_size": 20,
    "num_hidden_layers": 2,
    "decoder_sparse_step": 1,
    "mlp_only_layers": [],
    "num_experts": 7,
    "num_experts_per_tok": 3,
    "norm_topk_prob": True,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 12,
    "hidden_act": "silu",
    "rms_norm_eps": 1e-6,
    "rope_theta": 10000.0,
    "rope_scaling": None,
    "sliding_window": None,
    "use_sliding_window": False,
    "max_position_embeddings": 128,
    "attention_bias": False,
    "tie_word_embeddings": False,
    "torch_dtype": "bfloat16",
    "bos_token_id": 0,
    "eos_token_id": 1,
    "use_cache": True,
}


def attention(gen, c, prefix):
    d, d_head = c["hidden_size"], c["head_dim"] or c["hidden_size"] // c["num_attention_heads"]
    q_n, kv_n = c["num_attention_heads"] * d_head, c["num_key_value_heads"] * d_head
    t = {
        "q_proj.weight": matrix(gen, q_n, d),
        "k_proj.weight": matrix(gen, kv_n, d),
        "v_proj.weight": matrix(gen, kv_n, d),
        "o_proj.weight": matrix(gen, d, q_n),
        "q_norm.weight": norm(gen, d_head),
        "k_norm.weight": norm(gen, d_head),
    }
    if c["attention_bias"]:
        for name, n in (("q", q_n), ("k", kv_n), ("v", kv_n), ("o", d)):
            t[f"{name}_proj.bias"] = bias(gen, n)
    return {f"{prefix}.{name}": x for name, x in t.items()}


def has_experts(c, index):
    return index not in c["mlp_only_layers"] and (index + 1) % c["decoder_sparse_step"] == 0


def layer(gen, v, index):
    c, prefix = v.config, f"model.layers.{index}"
    d = c["hidden_size"]
    t = attention(gen, c, f"{prefix}.self_attn")
    t[f"{prefix}.input_layernorm.weight"] = norm(gen, d)
    t[f"{prefix}.post_attention_layernorm.weight"] = norm(gen, d)
    if not has_experts(c, index):
        t.update(mlp(gen, f"{prefix}.mlp", d, c["intermediate_size"], 1.0))
        return t
    t[f"{prefix}.mlp.gate.weight"] = matrix(gen, c["num_experts"], d, 1.5)
    for e in range(c["num_experts"]):
        t.update(mlp(gen, f"{prefix}.mlp.experts.{e}", d, c["moe_intermediate_size"], 0.8))
    return t


def variant(name, about, **options):
    return Variant(name, about, BASE, layer, **options)


VARIANTS = [
    variant("qwen3-moe", "2 query heads for a head of the cache, head_dim unlike hidden_size / heads"),
    variant("qwen3-moe-mixed", "dense layers by step and by list, attention biases, tied embedding, weights of experts "
            "not normalised, one head of the cache for all, float32, shards, config.json of transformers 5", v5=True,
            n_shards=2, num_hidden_layers=4, decoder_sparse_step=2, mlp_only_layers=[3], attention_bias=True,
            tie_word_embeddings=True, norm_topk_prob=False, num_attention_heads=6, num_key_value_heads=1, head_dim=10,
            hidden_size=28, intermediate_size=38, moe_intermediate_size=14, num_experts=5, num_experts_per_tok=2,
            vocab_size=67, rms_norm_eps=0.02, torch_dtype="float32"),
    variant("qwen3-moe-yarn", "YaRN, positions beyond the original context, a head of the cache for each query head, "
            "no head_dim, float16", without=["head_dim"], head_dim=None, n_tokens=72, hidden_size=48, num_attention_heads=3,
            num_key_value_heads=3, num_experts=5, num_experts_per_tok=2, moe_intermediate_size=26,
            rope_theta=50.0, vocab_size=101, torch_dtype="float16",
            rope_scaling={"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32}),
    variant("qwen3-moe-long", "positions in three chunks of the cache, 6 query heads for each of its heads",
            n_tokens=300, n_rows=40, max_position_embeddings=640, num_attention_heads=12, head_dim=8, num_experts=4,
            num_experts_per_tok=1, hidden_size=32, moe_intermediate_size=18, vocab_size=50,
            rope_theta=1e6),
    variant("qwen3-moe-window", "a sliding window, llama3 rotary scaling with a theta of its own that goes before the one "
            "outside", n_tokens=48, use_sliding_window=True, sliding_window=9, num_hidden_layers=3, hidden_size=30,
            num_attention_heads=3, num_key_value_heads=1, head_dim=14, num_experts=5, num_experts_per_tok=2,
            moe_intermediate_size=16, vocab_size=59, rope_scaling={
                "rope_type": "llama3", "rope_theta": 300.0, "factor": 8.0, "low_freq_factor": 1.0,
                "high_freq_factor": 4.0, "original_max_position_embeddings": 32}),
    variant("qwen3-moe-fp8", "8-bit matrices with bfloat16 scales of blocks of 128 x 128, some of them cut off",
            hidden_size=132, num_attention_heads=2, num_key_value_heads=1, head_dim=68, num_experts=4, vocab_size=50,
            num_experts_per_tok=2, moe_intermediate_size=18, num_hidden_layers=2, mlp_only_layers=[0],
            intermediate_size=136, scale_type="bfloat16",
            quantization_config=fp8.config(128, 128, modules_to_not_convert=["lm_head"])),
]
