"""The small random checkpoints: what each one is for, its config.json, and its weights.

A checkpoint has the names and types of a published one (one tensor for each expert's projection), written
here and not by `save_pretrained`, whose names may change with its version.
"""

import json
import math
import os

import torch
from safetensors.torch import save_file

TYPES = {"bfloat16": torch.bfloat16, "float16": torch.float16, "float32": torch.float32}

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


class Variant:
    """name, what config.json changes, and how the weights are stored."""

    def __init__(self, name, about, n_tokens=40, bias_type="float32", n_shards=1, v5=False, n_extra_layers=0,
                 **config):
        self.name = name
        self.about = about
        self.n_tokens = n_tokens
        self.bias_type = bias_type
        self.n_shards = n_shards
        self.n_extra_layers = n_extra_layers
        self.config = {**BASE, **config}
        self.dtype = TYPES[self.config["torch_dtype"]]
        self.file_config = as_v5(self.config) if v5 else self.config


def as_v5(config):
    """config.json as transformers 5 writes it: `dtype` and `rope_parameters`."""
    v5 = {k: v for k, v in config.items() if k not in ("torch_dtype", "rope_theta", "rope_scaling")}
    rope = dict(config["rope_scaling"] or {"rope_type": "default"})
    v5["dtype"] = config["torch_dtype"]
    v5["rope_parameters"] = {"rope_theta": config["rope_theta"], **rope}
    v5["transformers_version"] = "5.0.0"
    return v5


VARIANTS = [
    Variant("groups", "4 groups of experts, 2 of them chosen; config.json of transformers 5", v5=True,
            n_routed_experts=12, num_experts_per_tok=4, n_group=4, topk_group=2),
    Variant("shared", "3 shared experts, weights of the routed ones not normalised, float32 weights, "
            "rms_norm_eps unlike the latent norm's", n_shared_experts=3, norm_topk_prob=False,
            torch_dtype="float32", n_routed_experts=6, num_experts_per_tok=2, moe_intermediate_size=12,
            hidden_size=32, num_hidden_layers=2, rms_norm_eps=0.05, bias_type="bfloat16"),
    Variant("q-lora", "low-rank queries, attention biases, two shards with an index", n_shards=2,
            q_lora_rank=36, attention_bias=True, rms_norm_eps=0.02),
    Variant("dense-layers", "3 dense layers of 5, tied embedding without lm_head, one prediction layer too many "
            "in the file, shards", n_shards=3, num_hidden_layers=5, first_k_dense_replace=3, tie_word_embeddings=True,
            n_routed_experts=6, num_experts_per_tok=2, num_nextn_predict_layers=1, n_extra_layers=1,
            bias_type="bfloat16", intermediate_size=44, hidden_size=36),
    Variant("yarn", "YaRN with mscale and mscale_all_dim that differ, positions beyond the original context",
            n_tokens=72, rope_scaling={"type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32,
                                       "beta_fast": 1, "beta_slow": 0.25, "mscale": 1.0, "mscale_all_dim": 0.707},
            qk_rope_head_dim=16, rope_theta=50.0, num_hidden_layers=2),
    Variant("yarn-5", "YaRN without mscale (cos and sin are scaled), config.json of transformers 5", v5=True,
            n_tokens=48, rope_scaling={"rope_type": "yarn", "factor": 8.0,
                                       "original_max_position_embeddings": 16, "beta_fast": 1, "beta_slow": 0.25},
            qk_rope_head_dim=16, n_routed_experts=6, num_experts_per_tok=2, num_hidden_layers=2,
            rope_theta=100.0),
    Variant("shapes", "every dimension another number, float16 weights and bias, no multiple of 64 anywhere",
            hidden_size=68, intermediate_size=90, moe_intermediate_size=22, num_attention_heads=3,
            num_key_value_heads=3, q_lora_rank=50, kv_lora_rank=40, qk_nope_head_dim=20, qk_rope_head_dim=12,
            v_head_dim=26, vocab_size=101, n_routed_experts=5, num_experts_per_tok=2, n_shared_experts=2,
            torch_dtype="float16", bias_type="float16", routed_scaling_factor=1.0, rope_theta=500.0),
    Variant("halves", "rope_interleave false: rotary pairs are half a head apart", v5=True, rope_interleave=False,
            num_hidden_layers=2, n_routed_experts=6, num_experts_per_tok=2),
]


def matrix(gen, rows, cols, gain=1.0):
    """Unit-variance input gives outputs of deviation `gain`."""
    return torch.randn(rows, cols, generator=gen) * (gain / math.sqrt(cols))


def norm(gen, n):
    return 1.0 + 0.3 * torch.randn(n, generator=gen)


def mlp(gen, prefix, d_model, d_ff, out_gain):
    return {
        f"{prefix}.gate_proj.weight": matrix(gen, d_ff, d_model, 1.5),
        f"{prefix}.up_proj.weight": matrix(gen, d_ff, d_model, 1.5),
        f"{prefix}.down_proj.weight": matrix(gen, d_model, d_ff, out_gain),
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
        t["kv_a_proj_with_mqa.bias"] = 0.3 * torch.randn(kv_rank + rope, generator=gen)
        t["o_proj.bias"] = 0.3 * torch.randn(d, generator=gen)
        if q_rank is not None:
            t["q_a_proj.bias"] = 0.3 * torch.randn(q_rank, generator=gen)
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
    bias = 0.2 * torch.randn(c["n_routed_experts"], generator=gen)
    t[f"{prefix}.mlp.gate.e_score_correction_bias"] = bias.to(TYPES[v.bias_type])
    for e in range(c["n_routed_experts"]):
        t.update(mlp(gen, f"{prefix}.mlp.experts.{e}", d, d_ff, 0.8))
    t.update(mlp(gen, f"{prefix}.mlp.shared_experts", d, d_ff * c["n_shared_experts"], 0.8))
    return t


def tensors(v):
    """All tensors of a variant, in the order of the layers. Activations and logits are of order one."""
    gen = torch.Generator().manual_seed(sum(map(ord, v.name)))
    c = v.config
    # A tied embedding is the lm_head too: logits of order one want it small.
    embed = torch.randn(c["vocab_size"], c["hidden_size"], generator=gen)
    t = {"model.embed_tokens.weight": embed * (0.4 if c["tie_word_embeddings"] else 1.0)}
    for index in range(c["num_hidden_layers"] + v.n_extra_layers):
        t.update(layer(gen, v, index))
    t["model.norm.weight"] = norm(gen, c["hidden_size"])
    if not c["tie_word_embeddings"]:
        t["lm_head.weight"] = matrix(gen, c["vocab_size"], c["hidden_size"], 2.0)
    return {name: (x if "correction_bias" in name else x.to(v.dtype)).contiguous() for name, x in t.items()}


def write_checkpoint(v, folder):
    os.makedirs(folder, exist_ok=True)
    for old in os.listdir(folder):
        os.remove(os.path.join(folder, old))
    with open(os.path.join(folder, "config.json"), "w") as f:
        json.dump(v.file_config, f, indent=2)
        f.write("\n")
    t = tensors(v)
    if v.n_shards == 1:
        save_file(t, os.path.join(folder, "model.safetensors"), metadata={"format": "pt"})
        return
    # Shards cut anywhere, even between the matrices of one expert.
    names, weight_map = list(t), {}
    for s in range(v.n_shards):
        part = names[len(names) * s // v.n_shards:len(names) * (s + 1) // v.n_shards]
        file = f"model-{s + 1:05}-of-{v.n_shards:05}.safetensors"
        save_file({name: t[name] for name in part}, os.path.join(folder, file), metadata={"format": "pt"})
        weight_map.update(dict.fromkeys(part, file))
    index = {"metadata": {"total_size": sum(x.nbytes for x in t.values())}, "weight_map": weight_map}
    with open(os.path.join(folder, "model.safetensors.index.json"), "w") as f:
        json.dump(index, f, indent=1, sort_keys=True)
        f.write("\n")
