"""OLMoE: its small random checkpoints, what each one is for, and their layers."""

from checkpoint import Variant
from weights import bias, matrix, mlp, norm

# What the variants share; each one changes what it is about.  Sizes are small and seldom a power of two.
BASE = {
    "architectures": ["OlmoeForCausalLM"],
    "model_type": "olmoe",
    "vocab_size": 80,
    "hidden_size": 36,
    "intermediate_size": 20,
    "num_hidden_layers": 2,
    "num_experts": 9,
    "num_experts_per_tok": 4,
    "norm_topk_prob": False,
    "num_attention_heads": 3,
    "num_key_value_heads": 3,
    "clip_qkv": None,
    "hidden_act": "silu",
    "rms_norm_eps": 1e-5,
    "rope_theta": 10000.0,
    "rope_scaling": None,
    "max_position_embeddings": 128,
    "attention_bias": False,
    "tie_word_embeddings": False,
    "torch_dtype": "bfloat16",
    "eos_token_id": 3,
    "pad_token_id": 1,
    "output_router_logits": False,
    "router_aux_loss_coef": 0.01,
    "use_cache": True,
}


def layer(gen, v, index):
    c, prefix = v.config, f"model.layers.{index}"
    d = c["hidden_size"]
    kv_n = d // c["num_attention_heads"] * c["num_key_value_heads"]
    attention = {
        "q_proj.weight": matrix(gen, d, d),
        "k_proj.weight": matrix(gen, kv_n, d),
        "v_proj.weight": matrix(gen, kv_n, d),
        "o_proj.weight": matrix(gen, d, d),
        "q_norm.weight": norm(gen, d),
        "k_norm.weight": norm(gen, kv_n),
    }
    if c["attention_bias"]:
        for name, n in (("q", d), ("k", kv_n), ("v", kv_n), ("o", d)):
            attention[f"{name}_proj.bias"] = bias(gen, n)
    t = {f"{prefix}.self_attn.{name}": x for name, x in attention.items()}
    t[f"{prefix}.input_layernorm.weight"] = norm(gen, d)
    t[f"{prefix}.post_attention_layernorm.weight"] = norm(gen, d)
    t[f"{prefix}.mlp.gate.weight"] = matrix(gen, c["num_experts"], d, 1.5)
    for e in range(c["num_experts"]):
        t.update(mlp(gen, f"{prefix}.mlp.experts.{e}", d, c["intermediate_size"], 0.8))
    return t


def variant(name, about, **options):
    return Variant(name, about, BASE, layer, **options)


VARIANTS = [
    variant("olmoe", "as published: a head of the cache for each query head, weights of experts not normalised because "
            "nothing says so", without=["norm_topk_prob", "num_key_value_heads", "rope_theta"]),
    variant("olmoe-clip", "queries, keys and values clamped, attention biases, 3 query heads for a head of the cache, "
            "normalised weights, float32, shards, config.json of transformers 5", v5=True, n_shards=2, clip_qkv=0.75,
            attention_bias=True, norm_topk_prob=True, num_attention_heads=6, num_key_value_heads=2, hidden_size=48,
            intermediate_size=14, num_experts=5, num_experts_per_tok=2, vocab_size=67, rms_norm_eps=0.02,
            torch_dtype="float32", rope_theta=700.0),
    variant("olmoe-yarn", "YaRN, tied embedding, all experts chosen but one, float16", n_tokens=60, hidden_size=40,
            num_attention_heads=2, num_key_value_heads=1, num_hidden_layers=3, num_experts=4, num_experts_per_tok=3,
            intermediate_size=26, vocab_size=59, tie_word_embeddings=True, torch_dtype="float16", rope_theta=50.0,
            clip_qkv=1.5, rope_scaling={"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32}),
]
