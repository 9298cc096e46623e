"""A small checkpoint of any family: its config.json, its tensors, its files.

A checkpoint has the names and types of a published one (one tensor for each expert's projection), written
here and not by `save_pretrained`, whose names may change with its version.
"""

import json
import os

import fp8
import torch
from safetensors.torch import save_file

from weights import matrix, norm

TYPES = {"bfloat16": torch.bfloat16, "float16": torch.float16, "float32": torch.float32}


class Variant:
    """What a checkpoint is for, its family (base config.json, layer(gen, variant, index) -> tensors), what its
    config.json changes, and how the weights are stored.  n_rows: of the golden's logits, the last ones; 0: all.
    without: what config.json does not say, though layer() is told.  ends(gen, variant): more tensors at the end.
    scale_type: of 8-bit matrices, where the config has a quantization_config."""

    def __init__(self, name, about, base, layer, n_tokens=40, n_rows=0, bias_type="float32", n_shards=1, v5=False,
                 n_extra_layers=0, without=(), ends=None, scale_type="float32", **config):
        self.name = name
        self.about = about
        self.layer = layer
        self.ends = ends
        self.n_rows = n_rows
        self.n_tokens = n_tokens
        self.bias_type = bias_type
        self.n_shards = n_shards
        self.n_extra_layers = n_extra_layers
        self.scale_type = scale_type
        self.config = {**base, **config}
        self.dtype = TYPES[self.config["torch_dtype"]]
        self.fp8_blocks = self.config.get("quantization_config", {}).get("weight_block_size")
        said = {key: value for key, value in self.config.items() if key not in without}
        self.file_config = as_v5(said) if v5 else said


def as_v5(config):
    """config.json as transformers 5 writes it: `dtype` and `rope_parameters`."""
    v5 = {k: v for k, v in config.items() if k not in ("torch_dtype", "rope_theta", "rope_scaling")}
    rope = dict(config["rope_scaling"] or {"rope_type": "default"})
    v5["dtype"] = config["torch_dtype"]
    v5["rope_parameters"] = {"rope_theta": config["rope_theta"], **rope}
    v5["transformers_version"] = "5.0.0"
    return v5


def tensors(v):
    """All tensors of a variant, in the order of the layers. Activations and logits are of order one."""
    gen = torch.Generator().manual_seed(sum(map(ord, v.name)))
    c = v.config
    # A tied embedding is the lm_head too: logits of order one want it small.
    embed = torch.randn(c["vocab_size"], c["hidden_size"], generator=gen)
    t = {"model.embed_tokens.weight": embed * (0.4 if c["tie_word_embeddings"] else 1.0)}
    for index in range(c["num_hidden_layers"] + v.n_extra_layers):
        t.update(v.layer(gen, v, index))
    t["model.norm.weight"] = norm(gen, c["hidden_size"])
    if not c["tie_word_embeddings"]:
        t["lm_head.weight"] = matrix(gen, c["vocab_size"], c["hidden_size"], 2.0)
    if v.ends is not None:
        t.update(v.ends(gen, v))
    t = {name: (x if "correction_bias" in name else x.to(v.dtype)).contiguous() for name, x in t.items()}
    return fp8.quantised(t, v.fp8_blocks, TYPES[v.scale_type]) if v.fp8_blocks else t


def write_checkpoint(v, folder):
    write_files(v, folder, v.file_config, tensors(v))


def write_as_float32(v, folder):
    """The values that 8-bit matrices stand for: transformers cannot read these here without more packages."""
    config = {key: value for key, value in v.file_config.items() if key != "quantization_config"}
    write_files(v, folder, config, fp8.values(tensors(v), v.fp8_blocks))


def write_files(v, folder, config, t):
    os.makedirs(folder, exist_ok=True)
    for old in os.listdir(folder):
        os.remove(os.path.join(folder, old))
    with open(os.path.join(folder, "config.json"), "w") as f:
        json.dump(config, f, indent=2)
        f.write("\n")
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
