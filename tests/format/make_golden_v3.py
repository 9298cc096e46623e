#!/usr/bin/env python3
"""make_golden_v3.py: golden-v3 from golden-v2, run once: what a blob said of W it says of V = W 2^e, for every `down`.

Exponents go to the padding of blobs, so all places stay. Hashes are those of weights that numpy multiplies by 2^-e.
"""

import os
import re
import shutil
import struct

import decoder
import numpy as np
import xxhash

HERE = os.path.dirname(os.path.abspath(__file__))
OLD, NEW = os.path.join(HERE, "golden-v2"), os.path.join(HERE, "golden-v3")


def exponents(n_cols):
    return ((np.arange(n_cols) * 7 % 31) - 15).astype(np.int8)


def with_exponents(stem, raw):
    """The blob with exponents for each down of it, sealed."""
    entries = [entry for _, entry, _ in decoder.decode_blob(raw)]
    header_nbytes, nbytes = struct.unpack_from("<I", raw, 8)[0], struct.unpack_from("<Q", raw, 16)[0]
    blob, at = bytearray(raw[:nbytes]), header_nbytes
    for i, entry in enumerate(entries):
        at += entry["data_nbytes"] + entry["directory_nbytes"]
        if re.search(r"\.(down_proj|w2)\.weight$", stem + entry["name"]):
            blob[at:at] = exponents(entry["cols"]).tobytes()
            struct.pack_into("<I", blob, 40 + 48 * i + 28, entry["cols"])
            struct.pack_into("<H", blob, 4, 3)
            at += entry["cols"]
    struct.pack_into("<Q", blob, 16, len(blob))
    struct.pack_into("<Q", blob, 24, xxhash.xxh3_64_intdigest(bytes(blob[header_nbytes:])))
    struct.pack_into("<Q", blob, 32, 0)
    struct.pack_into("<Q", blob, 32, xxhash.xxh3_64_intdigest(bytes(blob[:header_nbytes])))
    assert len(blob) <= len(raw)
    return bytes(blob).ljust(len(raw), b"\0")


def main():
    shutil.copytree(OLD, NEW)
    for file in sorted(os.listdir(NEW)):
        path = os.path.join(NEW, file)
        if file.endswith(".safetensors"):
            content = decoder.read_file(NEW, file)
            for name, _, _, raw in decoder.read_safetensors(path)[1]:
                if name.endswith(".moebius"):
                    assert content.count(raw) == 1
                    content = content.replace(raw, with_exponents(name[: -len("moebius")], raw))
            with open(path, "wb") as out:
                out.write(content)
    config = decoder.read_file(NEW, "config.json").replace(b'"format_version": 2', b'"format_version": 3')
    own = decoder.read_json(config)["quantization_config"]["config_xxh3"].encode()
    bare = config.replace(own, b"0" * 32)
    with open(os.path.join(NEW, "config.json"), "wb") as out:
        out.write(config.replace(own, xxhash.xxh3_128_hexdigest(bare).encode()))
    with open(NEW + ".xxh3", "w", encoding="utf-8") as out:
        for name, tensor in sorted(decoder.read_folder(OLD).items()):
            rows, cols = tensor.shape if tensor.values is not None else (0, 0)
            if rows and re.search(r"\.(down_proj|w2)\.weight$", name):
                tensor.values = tensor.values * np.float32(2) ** -exponents(cols).astype(np.float32)
                assert tensor.values.dtype == np.float32
            out.write(f"{tensor.xxh3()} {rows} {cols} {name}\n")


if __name__ == "__main__":
    main()
