"""The published shapes: config.json and the name, shape and kind of every tensor, as on the Hugging Face hub.

Owns what a checkpoint consists of.  How its weights are drawn is weights.py's, how it is written make_checkpoint.py's.
"""

from typing import NamedTuple


class Tensor(NamedTuple):
    name: str
    shape: tuple
    kind: str  # matrix, router, bias (of a router), norm, rotary
    rope_theta: float = 0.0  # of a rotary tensor


MOONLIGHT = {
    "architectures": ["DeepseekV3ForCausalLM"],
    "model_type": "deepseek_v3",
    "vocab_size": 163840,
    "hidden_size": 2048,
    "intermediate_size": 11264,
    "moe_intermediate_size": 1408,
    "num_hidden_layers": 27,
    "first_k_dense_replace": 1,
    "moe_layer_freq": 1,
    "n_routed_experts": 64,
    "num_experts_per_tok": 6,
    "n_shared_experts": 2,
    "n_group": 1,
    "topk_group": 1,
    "topk_method": "noaux_tc",
    "scoring_func": "sigmoid",
    "norm_topk_prob": True,
    "routed_scaling_factor": 2.446,
    "num_attention_heads": 16,
    "num_key_value_heads": 16,
    "q_lora_rank": None,
    "kv_lora_rank": 512,
    "qk_nope_head_dim": 128,
    "qk_rope_head_dim": 64,
    "v_head_dim": 128,
    "hidden_act": "silu",
    "rms_norm_eps": 1e-5,
    "rope_theta": 50000.0,
    "rope_scaling": None,
    "max_position_embeddings": 8192,
    "attention_bias": False,
    "attention_dropout": 0.0,
    "num_nextn_predict_layers": 0,
    "initializer_range": 0.02,
    "bos_token_id": 163584,
    "eos_token_id": 163585,
    "tie_word_embeddings": False,
    "use_cache": True,
}

MIXTRAL = {
    "architectures": ["MixtralForCausalLM"],
    "model_type": "mixtral",
    "vocab_size": 32000,
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "num_hidden_layers": 32,
    "num_local_experts": 8,
    "num_experts_per_tok": 2,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "hidden_act": "silu",
    "rms_norm_eps": 1e-5,
    "rope_theta": 1000000.0,
    "sliding_window": None,
    "max_position_embeddings": 32768,
    "attention_dropout": 0.0,
    "output_router_logits": False,
    "router_aux_loss_coef": 0.02,
    "initializer_range": 0.02,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "tie_word_embeddings": False,
    "use_cache": True,
}

OLMOE = {
    "architectures": ["OlmoeForCausalLM"],
    "model_type": "olmoe",
    "vocab_size": 50304,
    "hidden_size": 2048,
    "intermediate_size": 1024,
    "num_hidden_layers": 16,
    "num_experts": 64,
    "num_experts_per_tok": 8,
    "norm_topk_prob": False,
    "num_attention_heads": 16,
    "num_key_value_heads": 16,
    "clip_qkv": None,
    "hidden_act": "silu",
    "rms_norm_eps": 1e-5,
    "rope_theta": 10000.0,
    "rope_scaling": None,
    "max_position_embeddings": 4096,
    "attention_bias": False,
    "attention_dropout": 0.0,
    "output_router_logits": False,
    "router_aux_loss_coef": 0.01,
    "initializer_range": 0.02,
    "eos_token_id": 50279,
    "pad_token_id": 1,
    "tie_word_embeddings": False,
    "use_cache": True,
}

QWEN3 = {
    "architectures": ["Qwen3MoeForCausalLM"],
    "model_type": "qwen3_moe",
    "vocab_size": 151936,
    "hidden_size": 2048,
    "intermediate_size": 6144,
    "moe_intermediate_size": 768,
    "num_hidden_layers": 48,
    "decoder_sparse_step": 1,
    "mlp_only_layers": [],
    "num_experts": 128,
    "num_experts_per_tok": 8,
    "norm_topk_prob": True,
    "num_attention_heads": 32,
    "num_key_value_heads": 4,
    "head_dim": 128,
    "hidden_act": "silu",
    "rms_norm_eps": 1e-6,
    "rope_theta": 1000000.0,
    "rope_scaling": None,
    "sliding_window": None,
    "use_sliding_window": False,
    "max_window_layers": 48,
    "max_position_embeddings": 40960,
    "attention_bias": False,
    "attention_dropout": 0.0,
    "output_router_logits": False,
    "router_aux_loss_coef": 0.001,
    "initializer_range": 0.02,
    "bos_token_id": 151643,
    "eos_token_id": 151645,
    "tie_word_embeddings": False,
    "use_cache": True,
}

# What --scale-down divides: everything that is a width.  Numbers of heads and experts stay.
WIDTHS = ("hidden_size", "intermediate_size", "moe_intermediate_size", "head_dim", "kv_lora_rank",
          "qk_nope_head_dim", "qk_rope_head_dim", "v_head_dim")

SPECIAL_IDS = ("bos_token_id", "eos_token_id", "pad_token_id")


def swiglu(prefix, n_hidden, n_inner, names=("gate_proj", "up_proj", "down_proj")):
    gate, up, down = names
    yield Tensor(f"{prefix}.{gate}.weight", (n_inner, n_hidden), "matrix")
    yield Tensor(f"{prefix}.{up}.weight", (n_inner, n_hidden), "matrix")
    yield Tensor(f"{prefix}.{down}.weight", (n_hidden, n_inner), "matrix")


def latent_attention(c, prefix):
    n_hidden, n_heads, n_latent = c["hidden_size"], c["num_attention_heads"], c["kv_lora_rank"]
    n_nope, n_rope, n_value = c["qk_nope_head_dim"], c["qk_rope_head_dim"], c["v_head_dim"]
    yield Tensor(f"{prefix}.q_proj.weight", (n_heads * (n_nope + n_rope), n_hidden), "matrix")
    yield Tensor(f"{prefix}.kv_a_proj_with_mqa.weight", (n_latent + n_rope, n_hidden), "matrix")
    yield Tensor(f"{prefix}.kv_a_layernorm.weight", (n_latent,), "norm")
    yield Tensor(f"{prefix}.kv_b_proj.weight", (n_heads * (n_nope + n_value), n_latent), "matrix")
    yield Tensor(f"{prefix}.o_proj.weight", (n_hidden, n_heads * n_value), "matrix")
    # The published files still hold this table, which nobody reads: the one tensor that is always f32.
    yield Tensor(f"{prefix}.rotary_emb.inv_freq", (n_rope // 2,), "rotary", c["rope_theta"])


def grouped_attention(c, prefix, n_q_norm=0, n_k_norm=0):
    n_hidden = c["hidden_size"]
    n_head = c.get("head_dim") or n_hidden // c["num_attention_heads"]
    n_query, n_key = c["num_attention_heads"] * n_head, c["num_key_value_heads"] * n_head
    yield Tensor(f"{prefix}.q_proj.weight", (n_query, n_hidden), "matrix")
    yield Tensor(f"{prefix}.k_proj.weight", (n_key, n_hidden), "matrix")
    yield Tensor(f"{prefix}.v_proj.weight", (n_key, n_hidden), "matrix")
    yield Tensor(f"{prefix}.o_proj.weight", (n_hidden, n_query), "matrix")
    if n_q_norm:
        yield Tensor(f"{prefix}.q_norm.weight", (n_q_norm,), "norm")
        yield Tensor(f"{prefix}.k_norm.weight", (n_k_norm,), "norm")


def moonlight_layer(c, prefix, layer):
    n_hidden, n_inner = c["hidden_size"], c["moe_intermediate_size"]
    yield from latent_attention(c, f"{prefix}.self_attn")
    if layer < c["first_k_dense_replace"]:
        yield from swiglu(f"{prefix}.mlp", n_hidden, c["intermediate_size"])
        return
    yield Tensor(f"{prefix}.mlp.gate.weight", (c["n_routed_experts"], n_hidden), "router")
    yield Tensor(f"{prefix}.mlp.gate.e_score_correction_bias", (c["n_routed_experts"],), "bias")
    for expert in range(c["n_routed_experts"]):
        yield from swiglu(f"{prefix}.mlp.experts.{expert}", n_hidden, n_inner)
    yield from swiglu(f"{prefix}.mlp.shared_experts", n_hidden, n_inner * c["n_shared_experts"])


def mixtral_layer(c, prefix, _layer):
    yield from grouped_attention(c, f"{prefix}.self_attn")
    moe = f"{prefix}.block_sparse_moe"
    yield Tensor(f"{moe}.gate.weight", (c["num_local_experts"], c["hidden_size"]), "router")
    for expert in range(c["num_local_experts"]):
        yield from swiglu(f"{moe}.experts.{expert}", c["hidden_size"], c["intermediate_size"], ("w1", "w3", "w2"))


def plain_experts(c, prefix, n_inner):
    yield Tensor(f"{prefix}.mlp.gate.weight", (c["num_experts"], c["hidden_size"]), "router")
    for expert in range(c["num_experts"]):
        yield from swiglu(f"{prefix}.mlp.experts.{expert}", c["hidden_size"], n_inner)


def olmoe_layer(c, prefix, _layer):
    n_head = c["hidden_size"] // c["num_attention_heads"]
    yield from grouped_attention(c, f"{prefix}.self_attn", c["hidden_size"], n_head * c["num_key_value_heads"])
    yield from plain_experts(c, prefix, c["intermediate_size"])


def qwen3_layer(c, prefix, _layer):
    yield from grouped_attention(c, f"{prefix}.self_attn", c["head_dim"], c["head_dim"])
    yield from plain_experts(c, prefix, c["moe_intermediate_size"])


SHAPES = {
    "moonlight": (MOONLIGHT, moonlight_layer),
    "mixtral": (MIXTRAL, mixtral_layer),
    "olmoe": (OLMOE, olmoe_layer),
    "qwen3": (QWEN3, qwen3_layer),
}


def make_config(shape, n_layers=None, n_vocab=None, scale_down=1, torch_dtype="bfloat16"):
    """config.json of a shape, with what the caller changes.  ValueError says what cannot be had."""
    config = dict(SHAPES[shape][0], torch_dtype=torch_dtype)
    config["num_hidden_layers"] = n_layers or config["num_hidden_layers"]
    config["vocab_size"] = n_vocab or config["vocab_size"]
    if "max_window_layers" in config:
        config["max_window_layers"] = config["num_hidden_layers"]
    for key in WIDTHS:
        if key in config:
            if config[key] % scale_down:
                raise ValueError(f"--scale-down {scale_down} does not divide {key} = {config[key]}")
            config[key] //= scale_down
    if config["hidden_size"] % (2 * config["num_attention_heads"]):
        raise ValueError(f"--scale-down {scale_down} leaves heads of an odd or broken width")
    # Special ids of the published vocabulary move to the end of a smaller one.
    moved = [key for key in SPECIAL_IDS if config.get(key, -1) >= config["vocab_size"]]
    for place, key in enumerate(moved):
        config[key] = max(config["vocab_size"] - len(moved) + place, 0)
    return config


def list_tensors(shape, config):
    """Every tensor, layer by layer."""
    n_hidden, n_vocab = config["hidden_size"], config["vocab_size"]
    layer_tensors = SHAPES[shape][1]
    yield Tensor("model.embed_tokens.weight", (n_vocab, n_hidden), "matrix")
    for layer in range(config["num_hidden_layers"]):
        prefix = f"model.layers.{layer}"
        yield Tensor(f"{prefix}.input_layernorm.weight", (n_hidden,), "norm")
        yield from layer_tensors(config, prefix, layer)
        yield Tensor(f"{prefix}.post_attention_layernorm.weight", (n_hidden,), "norm")
    yield Tensor("model.norm.weight", (n_hidden,), "norm")
    yield Tensor("lm_head.weight", (n_vocab, n_hidden), "matrix")
