#!/usr/bin/env python3
"""Set the weights of the norms before attention and experts of random models, and the biases of routers, in place.

    python3 bench/peers/set_norms.py VALUE PATH... [--source LLAMA.CPP]

At 1, as models are made, layers add so much to the hidden state that all tokens soon go to the same experts.  At 0.0005 a
token's own embedding decides, so that routing is even and tokens are independent.  Biases of routers, which would decide
instead, become 0.  A PATH is a GGUF file (needs llama.cpp's
sources, for gguf-py) or a coded folder (needs the Python package xxhash), whose checksums are renewed.
"""

import argparse
import glob
import json
import os
import struct
import sys

import numpy as np


def set_gguf(path, value, source):
    sys.path.insert(0, os.path.join(source, "gguf-py"))
    import gguf  # llama.cpp's own

    reader = gguf.GGUFReader(path, "r+")
    for tensor in reader.tensors:
        if tensor.name.endswith((".attn_norm.weight", ".ffn_norm.weight")):
            tensor.data[:] = value
        elif tensor.name.endswith(".exp_probs_b.bias"):
            tensor.data[:] = 0
    reader.data.flush()


def set_shard(path, bits, xxhash):
    """The header's text before and after."""
    with open(path, "r+b") as f:
        size = struct.unpack("<Q", f.read(8))[0]
        before = f.read(size).decode()
        header, after = json.loads(before), before
        for name, tensor in header.items():
            is_bias = name.endswith(".e_score_correction_bias")
            if not is_bias and not name.endswith((".input_layernorm.weight", ".post_attention_layernorm.weight")):
                continue
            if not is_bias and tensor["dtype"] != "BF16":
                sys.exit(f"set_norms: {path}: {name} is {tensor['dtype']}, not BF16")
            begin, end = tensor["data_offsets"]
            weights = bytes(end - begin) if is_bias else np.full(tensor["shape"], bits, np.uint16).tobytes()
            f.seek(8 + size + tensor["data_offsets"][0])
            f.write(weights)
            key = "xxh3:" + name
            at = after.index(header["__metadata__"][key], after.index(f'"{key}"'))
            after = after[:at] + xxhash.xxh3_64_hexdigest(weights) + after[at + 16:]
        f.seek(8)
        f.write(after.encode())
    return before, after


def set_coded(folder, value):
    import xxhash

    bits = np.uint16((int(np.float32(value).view(np.uint32)) + 0x8000) >> 16)
    config_path = os.path.join(folder, "config.json")
    with open(config_path, encoding="utf-8") as f:
        config = f.read()
    for path in sorted(glob.glob(os.path.join(folder, "*.safetensors"))):
        before, after = set_shard(path, bits, xxhash)
        config = config.replace(xxhash.xxh3_128_hexdigest(before.encode()), xxhash.xxh3_128_hexdigest(after.encode()))
    zeros = "0" * 32
    config = config.replace(json.loads(config)["quantization_config"]["config_xxh3"], zeros)
    config = config.replace(zeros, xxhash.xxh3_128_hexdigest(config.encode()))
    with open(config_path, "w", encoding="utf-8") as f:
        f.write(config)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("value", type=float)
    parser.add_argument("paths", nargs="+", metavar="PATH", help="GGUF file or coded folder")
    parser.add_argument("--source", default=".", help="llama.cpp's sources")
    args = parser.parse_args()
    for path in args.paths:
        if os.path.isdir(path):
            set_coded(path, args.value)
        else:
            set_gguf(path, args.value, args.source)


if __name__ == "__main__":
    main()
