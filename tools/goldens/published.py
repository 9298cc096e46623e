#!/usr/bin/env python3
"""Checks tools/synthetic/shapes.py against transformers' own modules (on the meta device: no weights), and writes how
many parameters each published model has: tests/tools/data/published.json.

    venv/bin/python tools/goldens/published.py

The configurations are the publishers' as far as they are known here; names of tensors are those of the published files,
which transformers 5 renames and fuses when it loads them.  Layers of multi-token prediction, which transformers leaves
out, and scales of 8-bit matrices are shapes.py's alone.
"""

import json
import os
import re
import sys

import torch
from transformers import CONFIG_MAPPING, AutoModelForCausalLM

REPO = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
sys.path.insert(0, os.path.join(REPO, "tools", "synthetic"))
import make_checkpoint  # noqa: E402
import shapes  # noqa: E402

# Of a family whose published names differ: pattern -> name.
RENAMED = {
    "mixtral": [(r"\.mlp\.", ".block_sparse_moe.")],
    "phimoe": [(r"\.mlp\.router\.", ".block_sparse_moe.gate."), (r"\.mlp\.", ".block_sparse_moe.")],
    "minimax_m2": [(r"\.mlp\.", ".block_sparse_moe.")],
    "ernie4_5_moe": [(r"\.mlp\.gate\.moe_statics\.", ".mlp.moe_statics.")],
    "granitemoe": [(r"\.router\.weight", ".router.layer.weight"), (r"\.experts\.gate_up_proj", ".input_linear.weight"),
                   (r"\.experts\.down_proj", ".output_linear.weight")],
}


def as_published(model_type, name, shape):
    """Names and shapes of the published tensors that one of transformers' parameters is made of."""
    for pattern, new in RENAMED.get(model_type, []):
        name = re.sub(pattern, new, name)
    fused = re.fullmatch(r"(.*\.experts)\.(gate_up_proj|down_proj)", name)
    if fused is None:
        yield name, shape
        return
    gate, up, down = ("w1", "w3", "w2") if model_type in ("mixtral", "phimoe", "minimax_m2") else ("gate_proj", "up_proj", "down_proj")
    n_experts, n_rows, n_columns = shape
    for expert in range(n_experts):
        prefix = f"{fused[1]}.{expert}"
        if fused[2] == "down_proj":
            yield f"{prefix}.{down}.weight", (n_rows, n_columns)
        else:
            yield f"{prefix}.{gate}.weight", (n_rows // 2, n_columns)
            yield f"{prefix}.{up}.weight", (n_rows // 2, n_columns)


def modules_of(config):
    """{name: shape} of transformers' parameters and buffers, a tied lm_head left out."""
    config = {key: value for key, value in config.items() if key not in ("architectures", "quantization_config")}
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(CONFIG_MAPPING[config.pop("model_type")](**config))
    return {name: tuple(value.shape) for name, value in model.state_dict().items()
            if not (config["tie_word_embeddings"] and name == "lm_head.weight")}


def counts(shape):
    config = shapes.make_config(shape)
    modules = modules_of(config)
    published = dict(pair for name, dims in modules.items()
                     for pair in as_published(config["model_type"], name, dims))
    tensors = list(shapes.list_tensors(shape, config))
    layer = re.compile(r"model\.layers\.(\d+)\.")
    not_used = [t for t in tensors if t.kind == "rotary" or
                (t.kind != "scale" and (m := layer.match(t.name)) and int(m[1]) >= config["num_hidden_layers"])]
    described = {t.name: t.shape for t in tensors if t.kind != "scale" and t not in set(not_used)}
    if described != published:
        raise SystemExit(f"{shape}: shapes.py differs: {sorted(set(described.items()) ^ set(published.items()))[:4]}")
    n_used = sum(torch.Size(dims).numel() for dims in modules.values())
    n_experts = sum(torch.Size(dims).numel() for name, dims in modules.items() if ".experts." in name)
    keys = ("n_routed_experts", "num_experts", "num_local_experts", "moe_num_experts")
    n_choices = next(config[key] for key in keys if key in config)
    n_not_used = sum(make_checkpoint.n_weights(t) for t in not_used)
    return {"all": n_used + n_not_used, "not_used": n_not_used,
            "active": n_used - n_experts + n_experts // n_choices * config.get("num_experts_per_tok", config.get("moe_k")),
            "nbytes": sum(make_checkpoint.tensor_nbytes(t, "bf16") for t in tensors)}


def main():
    golden = {}
    for shape in shapes.SHAPES:
        golden[shape] = counts(shape)
        print(shape, golden[shape], flush=True)
    path = os.path.join(REPO, "tests", "tools", "data", "published.json")
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "w", encoding="utf-8") as f:
        json.dump(golden, f, indent=2)
        f.write("\n")


if __name__ == "__main__":
    main()
