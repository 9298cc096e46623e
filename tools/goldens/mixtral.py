"""Mixtral: its small random checkpoints, what each one is for, and their layers."""

from checkpoint import Variant
from weights import matrix, norm

# What the variants share; each one changes what it is about.  Sizes are small and seldom a power of two.
BASE = {
    "architectures": ["MixtralForCausalLM"],
    "model_type": "mixtral",
    "vocab_size": 80,
    "hidden_size": 40,
    "intermediate_size": 28,
    "num_hidden_layers": 2,
    "num_local_experts": 6,
    "num_experts_per_tok": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "hidden_act": "silu",
    "rms_norm_eps": 1e-5,
    "rope_theta": 1e6,
    "rope_scaling": None,
    "sliding_window": None,
    "max_position_embeddings": 128,
    "tie_word_embeddings": False,
    "torch_dtype": "bfloat16",
    "bos_token_id": 1,
    "eos_token_id": 2,
    "output_router_logits": False,
    "router_aux_loss_coef": 0.02,
    "use_cache": True,
}


def layer(gen, v, index):
    c, prefix = v.config, f"model.layers.{index}"
    d, d_head = c["hidden_size"], c.get("head_dim") or c["hidden_size"] // c["num_attention_heads"]
    q_n, kv_n = c["num_attention_heads"] * d_head, c["num_key_value_heads"] * d_head
    moe = f"{prefix}.block_sparse_moe"
    t = {
        f"{prefix}.self_attn.q_proj.weight": matrix(gen, q_n, d, 1.5),
        f"{prefix}.self_attn.k_proj.weight": matrix(gen, kv_n, d, 1.5),
        f"{prefix}.self_attn.v_proj.weight": matrix(gen, kv_n, d),
        f"{prefix}.self_attn.o_proj.weight": matrix(gen, d, q_n),
        f"{prefix}.input_layernorm.weight": norm(gen, d),
        f"{prefix}.post_attention_layernorm.weight": norm(gen, d),
        f"{moe}.gate.weight": matrix(gen, c["num_local_experts"], d, 1.5),
    }
    for e in range(c["num_local_experts"]):
        t[f"{moe}.experts.{e}.w1.weight"] = matrix(gen, c["intermediate_size"], d, 1.5)
        t[f"{moe}.experts.{e}.w3.weight"] = matrix(gen, c["intermediate_size"], d, 1.5)
        t[f"{moe}.experts.{e}.w2.weight"] = matrix(gen, d, c["intermediate_size"], 0.8)
    return t


def variant(name, about, **options):
    return Variant(name, about, BASE, layer, **options)


VARIANTS = [
    variant("mixtral", "2 query heads for a head of the cache; rope_theta is missing, and not 10000", n_tokens=60,
            without=["rope_theta"]),
    variant("mixtral-window", "a sliding window that is longer than a chunk of the cache, and a longer prompt; head_dim "
            "unlike hidden_size / heads; float16; config.json of transformers 5", v5=True, n_tokens=330, n_rows=40,
            max_position_embeddings=640, sliding_window=150, num_attention_heads=6, head_dim=8, num_local_experts=4,
            num_experts_per_tok=1, hidden_size=32, intermediate_size=18, vocab_size=50, rope_theta=1e4,
            torch_dtype="float16"),
    variant("mixtral-tied", "tied embedding, a head of the cache for each query head, linear rotary scaling, "
            "float32, shards", n_shards=2, num_hidden_layers=3, num_attention_heads=3, num_key_value_heads=3,
            hidden_size=30, intermediate_size=14, num_local_experts=5, num_experts_per_tok=3, vocab_size=67,
            rms_norm_eps=0.02, tie_word_embeddings=True, torch_dtype="float32", rope_theta=500.0,
            rope_scaling={"type": "linear", "factor": 3.0}),
    variant("mixtral-longrope", "LongRoPE, and a prompt longer than the original context, whose length is said twice",
            n_tokens=90, n_rows=26, head_dim=10, original_max_position_embeddings=64, num_experts_per_tok=3, vocab_size=70,
            num_key_value_heads=4, num_local_experts=4, rope_theta=1e4, rope_scaling={
                "type": "longrope", "original_max_position_embeddings": 32,
                "short_factor": [1.0, 1.05, 1.1, 1.4, 2.0], "long_factor": [1.0, 2.0, 3.5, 9.0, 30.0]}),
    variant("mixtral-longrope-5", "LongRoPE within the original context, with a factor; config.json of transformers 5",
            v5=True, n_tokens=50, head_dim=6, num_attention_heads=5, num_key_value_heads=1, hidden_size=30, intermediate_size=18,
            num_local_experts=3, num_experts_per_tok=1, vocab_size=53, torch_dtype="float16", rope_theta=1e4, rope_scaling={
                "rope_type": "longrope", "original_max_position_embeddings": 64, "factor": 6.0,
                "short_factor": [1.0, 1.3, 2.0], "long_factor": [2.0, 4.0, 9.0]}),
]
