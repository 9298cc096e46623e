"""Granite-MoE-Shared: its small random checkpoints, Granite-MoE's layers with a shared expert."""

import granitemoe
from checkpoint import Variant
from weights import matrix

# What the variants share; each one changes what it is about.
BASE = {**granitemoe.BASE, "architectures": ["GraniteMoeSharedForCausalLM"], "model_type": "granitemoeshared",
        "shared_intermediate_size": 36}


def layer(gen, v, index):
    c, prefix = v.config, f"model.layers.{index}"
    t = granitemoe.layer(gen, v, index)
    if n_shared := c["shared_intermediate_size"]:
        t[f"{prefix}.shared_mlp.input_linear.weight"] = granitemoe.halves(gen, n_shared, c["hidden_size"])
        t[f"{prefix}.shared_mlp.output_linear.weight"] = matrix(gen, c["hidden_size"], n_shared, 0.8)
    return t


def variant(name, about, **options):
    return Variant(name, about, BASE, layer, **options)


VARIANTS = [
    variant("granitemoeshared", "as published: gate and up of the shared expert in one matrix"),
    variant("granitemoeshared-plain", "multipliers left out, biases, a head of its own, a shared expert smaller than the "
            "others, float16, config.json of transformers 5", v5=True, n_tokens=60,
            without=["embedding_multiplier", "residual_multiplier", "logits_scaling"], attention_multiplier=0.3,
            attention_bias=True, num_key_value_heads=None, num_attention_heads=3, hidden_size=24, intermediate_size=18,
            shared_intermediate_size=10, num_local_experts=4, num_experts_per_tok=1, vocab_size=61,
            tie_word_embeddings=False, torch_dtype="float16", num_hidden_layers=3),
    variant("granitemoeshared-none", "no shared expert, head_dim unlike hidden_size / heads, shards, float32", n_shards=2,
            without=["shared_intermediate_size"], shared_intermediate_size=0, num_attention_heads=6, num_key_value_heads=1,
            head_dim=8, hidden_size=30, intermediate_size=14, num_local_experts=5, num_experts_per_tok=3, vocab_size=67,
            torch_dtype="float32", rope_theta=300.0),
]
