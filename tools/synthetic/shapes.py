"""The published shapes: config.json and the name, shape and kind of every tensor, as on the Hugging Face hub.

Owns what a checkpoint consists of.  How its weights are drawn is weights.py's, how it is written make_checkpoint.py's.
"""

from typing import NamedTuple


class Tensor(NamedTuple):
    name: str
    shape: tuple
    kind: str  # matrix, router, bias (of a router), norm, rotary, scale (of an 8-bit matrix)
    type: str = ""  # a word of weights.TYPES where it is not the one that the caller chooses
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


def changed(config, **changes):
    """A published configuration that differs from another one of its family."""
    return dict(config, **changes)


QWEN3_235B = changed(QWEN3, hidden_size=4096, intermediate_size=12288, moe_intermediate_size=1536, num_hidden_layers=94,
                     num_attention_heads=64, max_window_layers=94)

QWEN3_CODER = changed(QWEN3, intermediate_size=5472, rope_theta=10000000, max_position_embeddings=262144)

# Stored as 8-bit floats, with a scale for each block of 128 x 128.
FP8 = {"activation_scheme": "dynamic", "fmt": "e4m3", "quant_method": "fp8", "weight_block_size": [128, 128]}
QWEN3_FP8 = changed(QWEN3, quantization_config=FP8)
QWEN3_235B_FP8 = changed(QWEN3_235B, quantization_config=FP8)

QWEN2_MOE = {
    "architectures": ["Qwen2MoeForCausalLM"],
    "model_type": "qwen2_moe",
    "vocab_size": 151936,
    "hidden_size": 2048,
    "intermediate_size": 5632,
    "moe_intermediate_size": 1408,
    "shared_expert_intermediate_size": 5632,
    "num_hidden_layers": 24,
    "decoder_sparse_step": 1,
    "num_experts": 60,
    "num_experts_per_tok": 4,
    "norm_topk_prob": False,
    "num_attention_heads": 16,
    "num_key_value_heads": 16,
    "hidden_act": "silu",
    "rms_norm_eps": 1e-6,
    "rope_theta": 1000000.0,
    "sliding_window": 32768,
    "use_sliding_window": False,
    "max_window_layers": 24,
    "max_position_embeddings": 8192,
    "attention_dropout": 0.0,
    "output_router_logits": False,
    "router_aux_loss_coef": 0.001,
    "initializer_range": 0.02,
    "bos_token_id": 151643,
    "eos_token_id": 151643,
    "tie_word_embeddings": False,
    "use_cache": True,
}

QWEN2_57B = changed(QWEN2_MOE, hidden_size=3584, intermediate_size=18944, moe_intermediate_size=2560,
                    shared_expert_intermediate_size=20480, num_hidden_layers=28, num_experts=64, num_experts_per_tok=8,
                    num_attention_heads=28, num_key_value_heads=4, sliding_window=65536, max_window_layers=28,
                    max_position_embeddings=131072, eos_token_id=151643)

DEEPSEEK_V2_LITE = {
    "architectures": ["DeepseekV2ForCausalLM"],
    "model_type": "deepseek_v2",
    "vocab_size": 102400,
    "hidden_size": 2048,
    "intermediate_size": 10944,
    "moe_intermediate_size": 1408,
    "num_hidden_layers": 27,
    "first_k_dense_replace": 1,
    "moe_layer_freq": 1,
    "n_routed_experts": 64,
    "num_experts_per_tok": 6,
    "n_shared_experts": 2,
    "n_group": 1,
    "topk_group": 1,
    "topk_method": "greedy",
    "scoring_func": "softmax",
    "norm_topk_prob": False,
    "routed_scaling_factor": 1.0,
    "num_attention_heads": 16,
    "num_key_value_heads": 16,
    "q_lora_rank": None,
    "kv_lora_rank": 512,
    "qk_nope_head_dim": 128,
    "qk_rope_head_dim": 64,
    "v_head_dim": 128,
    "hidden_act": "silu",
    "rms_norm_eps": 1e-6,
    "rope_theta": 10000,
    "rope_scaling": {"type": "yarn", "factor": 40, "original_max_position_embeddings": 4096, "beta_fast": 32,
                     "beta_slow": 1, "mscale": 0.707, "mscale_all_dim": 0.707},
    "max_position_embeddings": 163840,
    "attention_bias": False,
    "attention_dropout": 0.0,
    "initializer_range": 0.02,
    "bos_token_id": 100000,
    "eos_token_id": 100001,
    "tie_word_embeddings": False,
    "use_cache": True,
}

# As transformers reads it: the layer of multi-token prediction is not here.
DEEPSEEK_V3 = changed(
    MOONLIGHT, vocab_size=129280, hidden_size=7168, intermediate_size=18432, moe_intermediate_size=2048,
    num_hidden_layers=61, first_k_dense_replace=3, n_routed_experts=256, num_experts_per_tok=8, n_shared_experts=1,
    n_group=8, topk_group=4, routed_scaling_factor=2.5, num_attention_heads=128, num_key_value_heads=128,
    q_lora_rank=1536, rms_norm_eps=1e-6, rope_theta=10000, max_position_embeddings=163840, bos_token_id=0,
    eos_token_id=1, rope_scaling={"type": "yarn", "factor": 40, "original_max_position_embeddings": 4096,
                                  "beta_fast": 32, "beta_slow": 1, "mscale": 1.0, "mscale_all_dim": 1.0})

# As published: 8-bit floats, and the layer of multi-token prediction.
DEEPSEEK_V3_FP8 = changed(DEEPSEEK_V3, num_nextn_predict_layers=1, quantization_config=FP8)

GLM_4_5_AIR = {
    "architectures": ["Glm4MoeForCausalLM"],
    "model_type": "glm4_moe",
    "vocab_size": 151552,
    "hidden_size": 4096,
    "intermediate_size": 10944,
    "moe_intermediate_size": 1408,
    "num_hidden_layers": 46,
    "first_k_dense_replace": 1,
    "n_routed_experts": 128,
    "num_experts_per_tok": 8,
    "n_shared_experts": 1,
    "n_group": 1,
    "topk_group": 1,
    "norm_topk_prob": True,
    "routed_scaling_factor": 1.0,
    "num_attention_heads": 96,
    "num_key_value_heads": 8,
    "head_dim": 128,
    "partial_rotary_factor": 0.5,
    "use_qk_norm": False,
    "hidden_act": "silu",
    "rms_norm_eps": 1e-5,
    "rope_theta": 1000000,
    "rope_scaling": None,
    "max_position_embeddings": 131072,
    "attention_bias": True,
    "attention_dropout": 0.0,
    "num_nextn_predict_layers": 0,
    "initializer_range": 0.02,
    "eos_token_id": [151329, 151336, 151338],
    "pad_token_id": 151329,
    "tie_word_embeddings": False,
    "use_cache": True,
}

GLM_4_5_AIR_MTP = changed(GLM_4_5_AIR, num_nextn_predict_layers=1)
GLM_4_5 = changed(GLM_4_5_AIR, hidden_size=5120, intermediate_size=12288, moe_intermediate_size=1536,
                  num_hidden_layers=92, first_k_dense_replace=3, n_routed_experts=160, use_qk_norm=True,
                  routed_scaling_factor=2.5, num_nextn_predict_layers=1)

PHI_3_5_MOE = {
    "architectures": ["PhiMoEForCausalLM"],
    "model_type": "phimoe",
    "vocab_size": 32064,
    "hidden_size": 4096,
    "intermediate_size": 6400,
    "num_hidden_layers": 32,
    "num_local_experts": 16,
    "num_experts_per_tok": 2,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "hidden_act": "silu",
    "rms_norm_eps": 1e-5,
    "rope_theta": 10000.0,
    "sliding_window": 131072,
    "max_position_embeddings": 4096,
    "attention_bias": True,
    "attention_dropout": 0.0,
    "lm_head_bias": True,
    "input_jitter_noise": 0.01,
    "router_jitter_noise": 0.01,
    "output_router_logits": False,
    "router_aux_loss_coef": 0.0,
    "initializer_range": 0.02,
    "bos_token_id": 1,
    "eos_token_id": 32000,
    "tie_word_embeddings": False,
    "use_cache": True,
}

GRANITE = {
    "architectures": ["GraniteMoeForCausalLM"],
    "model_type": "granitemoe",
    "vocab_size": 49155,
    "hidden_size": 1536,
    "intermediate_size": 512,
    "num_hidden_layers": 32,
    "num_local_experts": 40,
    "num_experts_per_tok": 8,
    "num_attention_heads": 24,
    "num_key_value_heads": 8,
    "hidden_act": "silu",
    "rms_norm_eps": 1e-6,
    "rope_theta": 10000.0,
    "rope_scaling": None,
    "max_position_embeddings": 4096,
    "attention_bias": False,
    "attention_dropout": 0.0,
    "attention_multiplier": 0.015625,
    "embedding_multiplier": 12.0,
    "logits_scaling": 6.0,
    "residual_multiplier": 0.22,
    "output_router_logits": False,
    "router_aux_loss_coef": 0.001,
    "initializer_range": 0.02,
    "bos_token_id": 0,
    "eos_token_id": 0,
    "pad_token_id": 0,
    "tie_word_embeddings": True,
    "use_cache": True,
}

DOTS1 = {
    "architectures": ["Dots1ForCausalLM"],
    "model_type": "dots1",
    "vocab_size": 152064,
    "hidden_size": 4096,
    "intermediate_size": 10944,
    "moe_intermediate_size": 1408,
    "num_hidden_layers": 62,
    "first_k_dense_replace": 1,
    "moe_layer_freq": 1,
    "n_routed_experts": 128,
    "num_experts_per_tok": 6,
    "n_shared_experts": 2,
    "n_group": 1,
    "topk_group": 1,
    "topk_method": "noaux_tc",
    "scoring_func": "noaux_tc",
    "norm_topk_prob": True,
    "routed_scaling_factor": 2.5,
    "num_attention_heads": 32,
    "num_key_value_heads": 32,
    "hidden_act": "silu",
    "rms_norm_eps": 1e-5,
    "rope_theta": 10000000,
    "rope_scaling": None,
    "sliding_window": None,
    "use_sliding_window": False,
    "max_window_layers": 62,
    "max_position_embeddings": 32768,
    "attention_bias": False,
    "attention_dropout": 0.0,
    "initializer_range": 0.02,
    "eos_token_id": 151645,
    "tie_word_embeddings": False,
    "use_cache": True,
}

GLM_4_7_FLASH = {
    "architectures": ["Glm4MoeLiteForCausalLM"],
    "model_type": "glm4_moe_lite",
    "vocab_size": 154880,
    "hidden_size": 2048,
    "intermediate_size": 10240,
    "moe_intermediate_size": 1536,
    "num_hidden_layers": 47,
    "first_k_dense_replace": 1,
    "n_routed_experts": 64,
    "num_experts_per_tok": 4,
    "n_shared_experts": 1,
    "n_group": 1,
    "topk_group": 1,
    "topk_method": "noaux_tc",
    "norm_topk_prob": True,
    "routed_scaling_factor": 1.8,
    "num_attention_heads": 20,
    "num_key_value_heads": 20,
    "q_lora_rank": 768,
    "kv_lora_rank": 512,
    "qk_nope_head_dim": 192,
    "qk_rope_head_dim": 64,
    "v_head_dim": 256,
    "partial_rotary_factor": 1.0,
    "hidden_act": "silu",
    "rms_norm_eps": 1e-5,
    "rope_theta": 1000000,
    "rope_scaling": None,
    "max_position_embeddings": 202752,
    "attention_bias": False,
    "attention_dropout": 0.0,
    "num_nextn_predict_layers": 0,
    "initializer_range": 0.02,
    "eos_token_id": [154820, 154827, 154829],
    "pad_token_id": 154820,
    "tie_word_embeddings": False,
    "use_cache": True,
}

GLM_4_7_FLASH_MTP = changed(GLM_4_7_FLASH, num_nextn_predict_layers=1)

MINIMAX_M2 = {
    "architectures": ["MiniMaxM2ForCausalLM"],
    "model_type": "minimax_m2",
    "vocab_size": 200064,
    "hidden_size": 3072,
    "intermediate_size": 1536,
    "shared_intermediate_size": 0,
    "num_hidden_layers": 62,
    "num_local_experts": 256,
    "num_experts_per_tok": 8,
    "scoring_func": "sigmoid",
    "use_routing_bias": True,
    "num_attention_heads": 48,
    "num_key_value_heads": 8,
    "head_dim": 128,
    "rotary_dim": 64,
    "use_qk_norm": True,
    "qk_norm_type": "per_layer",
    "hidden_act": "silu",
    "rms_norm_eps": 1e-6,
    "rope_theta": 5000000,
    "max_position_embeddings": 196608,
    "attention_dropout": 0.0,
    "output_router_logits": False,
    "router_aux_loss_coef": 0.001,
    "router_jitter_noise": 0.0,
    "initializer_range": 0.02,
    "bos_token_id": 200034,
    "eos_token_id": 200020,
    "tie_word_embeddings": False,
    "use_cache": True,
}

# As published; its three layers of multi-token prediction are in no file.
MINIMAX_M2_FP8 = changed(MINIMAX_M2, use_mtp=True, num_mtp_modules=3, mtp_transformer_layers=1,
                         quantization_config=dict(FP8, fmt="float8_e4m3fn",
                                                  modules_to_not_convert=["gate", "e_score_correction_bias", "lm_head"]))

ERNIE_4_5 = {
    "architectures": ["Ernie4_5_MoeForCausalLM"],
    "model_type": "ernie4_5_moe",
    "vocab_size": 103424,
    "hidden_size": 2560,
    "intermediate_size": 12288,
    "moe_intermediate_size": 1536,
    "num_hidden_layers": 28,
    "moe_num_experts": 64,
    "moe_k": 6,
    "moe_num_shared_experts": 2,
    "moe_layer_start_index": 1,
    "moe_layer_end_index": -1,
    "moe_layer_interval": 1,
    "moe_norm_min": 1e-12,
    "num_attention_heads": 20,
    "num_key_value_heads": 4,
    "hidden_act": "silu",
    "rms_norm_eps": 1e-5,
    "rope_theta": 500000.0,
    "rope_scaling": None,
    "max_position_embeddings": 131072,
    "use_bias": False,
    "output_router_logits": False,
    "router_aux_loss_coef": 0.001,
    "initializer_range": 0.02,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
    "tie_word_embeddings": True,
    "use_cache": True,
}

# What --scale-down divides: everything that is a width.  Numbers of heads and experts stay.
WIDTHS = ("hidden_size", "intermediate_size", "moe_intermediate_size", "shared_expert_intermediate_size", "head_dim",
          "rotary_dim", "q_lora_rank", "kv_lora_rank", "qk_nope_head_dim", "qk_rope_head_dim", "v_head_dim")

SPECIAL_IDS = ("bos_token_id", "eos_token_id", "pad_token_id")


def swiglu(prefix, n_hidden, n_inner, names=("gate_proj", "up_proj", "down_proj")):
    gate, up, down = names
    yield Tensor(f"{prefix}.{gate}.weight", (n_inner, n_hidden), "matrix")
    yield Tensor(f"{prefix}.{up}.weight", (n_inner, n_hidden), "matrix")
    yield Tensor(f"{prefix}.{down}.weight", (n_hidden, n_inner), "matrix")


def norm(prefix, n, has_bias=False):
    yield Tensor(f"{prefix}.weight", (n,), "norm")
    if has_bias:
        yield Tensor(f"{prefix}.bias", (n,), "bias")


def linear(prefix, n_rows, n_columns, has_bias=False):
    yield Tensor(f"{prefix}.weight", (n_rows, n_columns), "matrix")
    if has_bias:
        yield Tensor(f"{prefix}.bias", (n_rows,), "bias")


def latent_attention(c, prefix):
    n_hidden, n_heads, n_latent = c["hidden_size"], c["num_attention_heads"], c["kv_lora_rank"]
    n_nope, n_rope, n_value = c["qk_nope_head_dim"], c["qk_rope_head_dim"], c["v_head_dim"]
    n_query = n_heads * (n_nope + n_rope)
    if n_low := c["q_lora_rank"]:
        yield from linear(f"{prefix}.q_a_proj", n_low, n_hidden)
        yield from norm(f"{prefix}.q_a_layernorm", n_low)
        yield from linear(f"{prefix}.q_b_proj", n_query, n_low)
    else:
        yield from linear(f"{prefix}.q_proj", n_query, n_hidden)
    yield from linear(f"{prefix}.kv_a_proj_with_mqa", n_latent + n_rope, n_hidden)
    yield from norm(f"{prefix}.kv_a_layernorm", n_latent)
    yield from linear(f"{prefix}.kv_b_proj", n_heads * (n_nope + n_value), n_latent)
    yield from linear(f"{prefix}.o_proj", n_hidden, n_heads * n_value)


def grouped_attention(c, prefix, n_q_norm=0, n_k_norm=0, qkv_bias=False, o_bias=False):
    n_hidden = c["hidden_size"]
    n_head = c.get("head_dim") or n_hidden // c["num_attention_heads"]
    n_query, n_key = c["num_attention_heads"] * n_head, c["num_key_value_heads"] * n_head
    yield from linear(f"{prefix}.q_proj", n_query, n_hidden, qkv_bias)
    yield from linear(f"{prefix}.k_proj", n_key, n_hidden, qkv_bias)
    yield from linear(f"{prefix}.v_proj", n_key, n_hidden, qkv_bias)
    yield from linear(f"{prefix}.o_proj", n_hidden, n_query, o_bias)
    if n_q_norm:
        yield from norm(f"{prefix}.q_norm", n_q_norm)
        yield from norm(f"{prefix}.k_norm", n_k_norm)


def deepseek_mlp(c, prefix, layer, has_correction):
    n_hidden, n_inner = c["hidden_size"], c["moe_intermediate_size"]
    if layer < c["first_k_dense_replace"]:
        yield from swiglu(f"{prefix}.mlp", n_hidden, c["intermediate_size"])
        return
    yield Tensor(f"{prefix}.mlp.gate.weight", (c["n_routed_experts"], n_hidden), "router")
    if has_correction:
        yield Tensor(f"{prefix}.mlp.gate.e_score_correction_bias", (c["n_routed_experts"],), "bias")
    for expert in range(c["n_routed_experts"]):
        yield from swiglu(f"{prefix}.mlp.experts.{expert}", n_hidden, n_inner)
    yield from swiglu(f"{prefix}.mlp.shared_experts", n_hidden, n_inner * c["n_shared_experts"])


def moonlight_layer(c, prefix, layer):
    yield from latent_attention(c, f"{prefix}.self_attn")
    # The published files still hold this table, which nobody reads: the one tensor that is always f32.
    yield Tensor(f"{prefix}.self_attn.rotary_emb.inv_freq", (c["qk_rope_head_dim"] // 2,), "rotary", "f32",
                 c["rope_theta"])
    yield from deepseek_mlp(c, prefix, layer, True)


def deepseek_v3_layer(c, prefix, layer):
    yield from latent_attention(c, f"{prefix}.self_attn")
    yield from deepseek_mlp(c, prefix, layer, True)


def deepseek_v2_layer(c, prefix, layer):
    yield from latent_attention(c, f"{prefix}.self_attn")
    yield from deepseek_mlp(c, prefix, layer, False)


def glm4_layer(c, prefix, layer):
    n_norm = c["head_dim"] if c["use_qk_norm"] else 0
    yield from grouped_attention(c, f"{prefix}.self_attn", n_norm, n_norm, c["attention_bias"])
    yield from deepseek_mlp(c, prefix, layer, True)


def dots_layer(c, prefix, layer):
    n_head = c["hidden_size"] // c["num_attention_heads"]
    yield from grouped_attention(c, f"{prefix}.self_attn", n_head, n_head)
    yield from deepseek_mlp(c, prefix, layer, True)


def ernie_layer(c, prefix, layer):
    yield from grouped_attention(c, f"{prefix}.self_attn")
    n_hidden, n_inner, n_experts = c["hidden_size"], c["moe_intermediate_size"], c["moe_num_experts"]
    if layer < c["moe_layer_start_index"]:
        yield from swiglu(f"{prefix}.mlp", n_hidden, c["intermediate_size"])
        return
    yield Tensor(f"{prefix}.mlp.gate.weight", (n_experts, n_hidden), "router")
    yield Tensor(f"{prefix}.mlp.moe_statics.e_score_correction_bias", (1, n_experts), "bias")
    for expert in range(n_experts):
        yield from swiglu(f"{prefix}.mlp.experts.{expert}", n_hidden, n_inner)
    yield from swiglu(f"{prefix}.mlp.shared_experts", n_hidden, n_inner * c["moe_num_shared_experts"])


def mixtral_experts(c, prefix):
    moe = f"{prefix}.block_sparse_moe"
    yield Tensor(f"{moe}.gate.weight", (c["num_local_experts"], c["hidden_size"]), "router")
    if c["model_type"] == "minimax_m2":
        yield Tensor(f"{moe}.e_score_correction_bias", (c["num_local_experts"],), "bias")
    for expert in range(c["num_local_experts"]):
        yield from swiglu(f"{moe}.experts.{expert}", c["hidden_size"], c["intermediate_size"], ("w1", "w3", "w2"))


def mixtral_layer(c, prefix, _layer):
    yield from grouped_attention(c, f"{prefix}.self_attn")
    yield from mixtral_experts(c, prefix)


def minimax_layer(c, prefix, _layer):
    n_query, n_key = c["num_attention_heads"] * c["head_dim"], c["num_key_value_heads"] * c["head_dim"]
    yield from grouped_attention(c, f"{prefix}.self_attn", n_query, n_key)
    yield from mixtral_experts(c, prefix)


def phi_layer(c, prefix, _layer):
    yield from grouped_attention(c, f"{prefix}.self_attn", 0, 0, c["attention_bias"], c["attention_bias"])
    yield from mixtral_experts(c, prefix)


def granite_layer(c, prefix, _layer):
    """Experts of a layer are one tensor: gate and up after each other in the rows of input_linear."""
    n_hidden, n_inner, n_experts = c["hidden_size"], c["intermediate_size"], c["num_local_experts"]
    yield from grouped_attention(c, f"{prefix}.self_attn")
    moe = f"{prefix}.block_sparse_moe"
    yield Tensor(f"{moe}.router.layer.weight", (n_experts, n_hidden), "router")
    yield Tensor(f"{moe}.input_linear.weight", (n_experts, 2 * n_inner, n_hidden), "matrix")
    yield Tensor(f"{moe}.output_linear.weight", (n_experts, n_hidden, n_inner), "matrix")


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


def qwen2_layer(c, prefix, _layer):
    yield from grouped_attention(c, f"{prefix}.self_attn", qkv_bias=True)
    yield from plain_experts(c, prefix, c["moe_intermediate_size"])
    yield from swiglu(f"{prefix}.mlp.shared_expert", c["hidden_size"], c["shared_expert_intermediate_size"])
    yield Tensor(f"{prefix}.mlp.shared_expert_gate.weight", (1, c["hidden_size"]), "router")


def prediction_tensors(c, prefix):
    """What a layer of multi-token prediction has beside an ordinary layer."""
    n_hidden, n_vocab = c["hidden_size"], c["vocab_size"]
    yield Tensor(f"{prefix}.embed_tokens.weight", (n_vocab, n_hidden), "matrix")
    yield from norm(f"{prefix}.enorm", n_hidden)
    yield from norm(f"{prefix}.hnorm", n_hidden)
    yield from linear(f"{prefix}.eh_proj", n_hidden, 2 * n_hidden)
    yield from norm(f"{prefix}.shared_head.norm", n_hidden)
    yield from linear(f"{prefix}.shared_head.head", n_vocab, n_hidden)


# Of 8-bit checkpoints: matrices that keep the type of the rest.
NOT_FP8 = ("embed_tokens.weight", "head.weight", "eh_proj.weight")


def as_fp8(c, tensor):
    """An 8-bit matrix and its scales.  Scales and router biases are stored in f32, but Qwen's scales in bf16."""
    if tensor.name.endswith(".e_score_correction_bias"):
        tensor = tensor._replace(type="f32")
    if tensor.kind != "matrix" or tensor.name.endswith(NOT_FP8):
        yield tensor
        return
    blocks = c["quantization_config"]["weight_block_size"]
    yield tensor._replace(type="f8")
    yield Tensor(tensor.name + "_scale_inv", tuple(-(-n // block) for n, block in zip(tensor.shape, blocks)), "scale",
                 "bf16" if c["model_type"] == "qwen3_moe" else "f32")


SHAPES = {
    "moonlight": (MOONLIGHT, moonlight_layer),
    "deepseek-v2-lite": (DEEPSEEK_V2_LITE, deepseek_v2_layer),
    "deepseek-v3": (DEEPSEEK_V3, deepseek_v3_layer),
    "deepseek-v3-fp8": (DEEPSEEK_V3_FP8, deepseek_v3_layer),
    "mixtral": (MIXTRAL, mixtral_layer),
    "qwen2-moe": (QWEN2_MOE, qwen2_layer),
    "qwen2-57b": (QWEN2_57B, qwen2_layer),
    "qwen3": (QWEN3, qwen3_layer),
    "qwen3-coder": (QWEN3_CODER, qwen3_layer),
    "qwen3-fp8": (QWEN3_FP8, qwen3_layer),
    "qwen3-235b": (QWEN3_235B, qwen3_layer),
    "qwen3-235b-fp8": (QWEN3_235B_FP8, qwen3_layer),
    "olmoe": (OLMOE, olmoe_layer),
    "glm-4.5-air": (GLM_4_5_AIR, glm4_layer),
    "glm-4.5-air-mtp": (GLM_4_5_AIR_MTP, glm4_layer),
    "glm-4.5": (GLM_4_5, glm4_layer),
    "granite": (GRANITE, granite_layer),
    "phi-3.5-moe": (PHI_3_5_MOE, phi_layer),
    "dots1": (DOTS1, dots_layer),
    "glm-4.7-flash": (GLM_4_7_FLASH, deepseek_v3_layer),
    "glm-4.7-flash-mtp": (GLM_4_7_FLASH_MTP, deepseek_v3_layer),
    "minimax-m2": (MINIMAX_M2, minimax_layer),
    "minimax-m2-fp8": (MINIMAX_M2_FP8, minimax_layer),
    "ernie-4.5": (ERNIE_4_5, ernie_layer),
}


def make_config(shape, n_layers=None, n_vocab=None, scale_down=1, torch_dtype="bfloat16"):
    """config.json of a shape, with what the caller changes.  ValueError says what cannot be had."""
    config = dict(SHAPES[shape][0], torch_dtype=torch_dtype)
    config["num_hidden_layers"] = n_layers or config["num_hidden_layers"]
    config["vocab_size"] = n_vocab or config["vocab_size"]
    if "max_window_layers" in config:
        config["max_window_layers"] = config["num_hidden_layers"]
    for key in WIDTHS:
        if config.get(key):
            if config[key] % scale_down:
                raise ValueError(f"--scale-down {scale_down} does not divide {key} = {config[key]}")
            config[key] //= scale_down
    n_head = (config.get("qk_rope_head_dim") or config.get("head_dim")
              or config["hidden_size"] / config["num_attention_heads"])
    if n_head % 2:
        raise ValueError(f"--scale-down {scale_down} leaves heads of an odd or broken width")
    # Special ids of the published vocabulary move to the end of a smaller one.
    moved = {key: ids if isinstance(ids, list) else [ids] for key in SPECIAL_IDS if (ids := config.get(key)) is not None}
    high = sorted({i for ids in moved.values() for i in ids if i >= config["vocab_size"]})
    places = {i: max(config["vocab_size"] - len(high) + place, 0) for place, i in enumerate(high)}
    for key, ids in moved.items():
        new = [places.get(i, i) for i in ids]
        config[key] = new if isinstance(config[key], list) else new[0]
    return config


def list_as_bf16(shape, config):
    n_hidden, n_vocab = config["hidden_size"], config["vocab_size"]
    layer_tensors = SHAPES[shape][1]
    has_bias = config["model_type"] == "phimoe"  # layer norms, not RMS norms
    n_layers = config["num_hidden_layers"]
    yield Tensor("model.embed_tokens.weight", (n_vocab, n_hidden), "matrix")
    for layer in range(n_layers + config.get("num_nextn_predict_layers", 0)):
        prefix = f"model.layers.{layer}"
        yield from norm(f"{prefix}.input_layernorm", n_hidden, has_bias)
        yield from layer_tensors(config, prefix, layer)
        yield from norm(f"{prefix}.post_attention_layernorm", n_hidden, has_bias)
        if layer >= n_layers:
            yield from prediction_tensors(config, prefix)
    yield from norm("model.norm", n_hidden, has_bias)
    if not config["tie_word_embeddings"]:
        yield from linear("lm_head", n_vocab, n_hidden, config.get("lm_head_bias", False))


def list_tensors(shape, config):
    """Every tensor, layer by layer."""
    for tensor in list_as_bf16(shape, config):
        yield from as_fp8(config, tensor) if "quantization_config" in config else (tensor,)
