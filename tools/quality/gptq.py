#!/usr/bin/env python3
"""Writes a plain checkpoint whose experts went through another method: gptq.py METHOD MODEL MOMENTS OUT

METHOD: gptq2-g32, gptq3-g128, ... or q4_k. Prints the bits a weight of the experts, scales and zero points counted.

GPTQ (arXiv:2210.17323) as its users run it today: columns in the order of their energy, grids of groups found before
anything is rounded ("static groups"), asymmetric, with a scale of half precision and a zero point of as many bits as a
code, and the range of a group shrunk to the least squared error. Its Hessians are the moments that `moebius compress
--moments` keeps, so both see the same text. q4_k: blocks of 32 weights with a scale and a minimum of 6 bits, these in
units of two half-precision numbers a row; the real Q4_K takes no rows shorter than 256.
Results are kept as float32, so that nothing is rounded twice.
"""
import json
import os
import re
import shutil
import struct
import sys

import numpy as np

EXPERT = re.compile(r"\.(experts\.\d+|shared_experts?)\.(gate|up|down)_proj\.weight$")
DAMPING = 0.01


def read_moments(path):
    """name of a matrix -> (offset, columns): lower triangles of float32 (docs/calibrate.md)."""
    places, at = {}, 0
    with open(path, "rb") as file:
        while True:
            head = file.read(32)
            if not head:
                return places
            magic, _, n_json, n_data, _ = struct.unpack("<8sIIQQ", head)
            text = json.loads(file.read(n_json))
            begin = -(-(at + 32 + n_json) // 64) * 64
            for part in text["inputs"] if magic == b"MBMLAYER" else []:
                n = part["n_values"]
                for name in part["matrices"]:
                    places[name] = (begin, n, part["n_tokens"])
                begin += 4 * n * (n + 1) // 2 if part["n_tokens"] else 0
            at = -(-(at + 32 + n_json) // 64) * 64 + n_data
            file.seek(at)


def moments_of(path, places, name):
    begin, n, n_tokens = places[name]
    h = np.zeros((n, n))
    if n_tokens:
        lower = np.fromfile(path, "<f4", n * (n + 1) // 2, offset=begin)
        h[np.tril_indices(n)] = lower
        h = h + np.tril(h, -1).T
    return h


def grid_of(w, bits, group):
    """scale and zero of each row and group, [rows, groups]: the share of the range with the least squared error."""
    rows, cols = w.shape
    group = min(group, cols)
    parts = np.pad(w, ((0, 0), (0, -cols % group)), mode="edge").reshape(rows, -1, group)
    top = 2**bits - 1
    best = np.full(parts.shape[:2], np.inf)
    scales, zeros = np.ones_like(best), np.zeros_like(best)
    for share in np.arange(1, 0.35, -0.05):
        low, high = np.minimum(parts.min(2) * share, 0), np.maximum(parts.max(2) * share, 0)
        scale = np.maximum((high - low) / top, 1e-7).astype(np.float16).astype(np.float64)
        scale[scale == 0] = 6e-8
        zero = np.clip(np.rint(-low / scale), 0, top)
        q = np.clip(np.rint(parts / scale[..., None]) + zero[..., None], 0, top)
        error = (((q - zero[..., None]) * scale[..., None] - parts) ** 2).sum(2)
        better = error < best
        best, scales, zeros = np.where(better, error, best), np.where(better, scale, scales), np.where(better, zero, zeros)
    return scales, zeros, 16 + bits


def gptq(w, h, bits, group):
    rows, cols = w.shape
    group = min(group, cols)
    scales, zeros, n_side = grid_of(w, bits, group)
    h = h.copy()
    dead = np.diag(h) == 0
    h[dead, dead] = 1
    order = np.argsort(-np.diag(h), kind="stable")
    h = h[np.ix_(order, order)]
    h[np.diag_indices(cols)] += DAMPING * np.mean(np.diag(h))
    upper = np.linalg.cholesky(np.linalg.inv(h)).T
    left, out = w[:, order].copy(), np.empty_like(w)
    for k in range(cols):
        g = order[k] // group
        q = np.clip(np.rint(left[:, k] / scales[:, g]) + zeros[:, g], 0, 2**bits - 1)
        out[:, order[k]] = (q - zeros[:, g]) * scales[:, g]
        error = (left[:, k] - out[:, order[k]]) / upper[k, k]
        left[:, k + 1:] -= np.outer(error, upper[k, k + 1:])
    return out, bits + n_side * scales.shape[1] / cols


def q4_k(w):
    rows, cols = w.shape
    parts = w.reshape(rows, cols // 32, 32)
    best, scale, low = np.full(parts.shape[:2], np.inf), None, None
    scale, low = np.ones_like(best), np.zeros_like(best)
    for share in np.arange(1, 0.55, -0.05):
        a, b = np.minimum(parts.min(2) * share, 0), parts.max(2) * share
        s = np.maximum((b - a) / 15, 1e-9)
        q = np.clip(np.rint((parts - a[..., None]) / s[..., None]), 0, 15)
        error = ((q * s[..., None] + a[..., None] - parts) ** 2).sum(2)
        better = error < best
        best, scale, low = np.where(better, error, best), np.where(better, s, scale), np.where(better, a, low)
    d = np.maximum(scale.max(1, keepdims=True) / 63, 6e-8).astype(np.float16).astype(np.float64)
    m = np.maximum(-low.min(1, keepdims=True) / 63, 6e-8).astype(np.float16).astype(np.float64)
    scale, low = np.maximum(np.rint(scale / d), 1) * d, -np.rint(-low / m) * m
    q = np.clip(np.rint((parts - low[..., None]) / scale[..., None]), 0, 15)
    return (q * scale[..., None] + low[..., None]).reshape(rows, cols), 4 + 12 / 32 + 32 / cols


def main():
    method, model, moments_path, out = sys.argv[1:]
    places = read_moments(moments_path)
    with open(os.path.join(model, "model.safetensors"), "rb") as file:
        n = struct.unpack("<Q", file.read(8))[0]
        header, data = json.loads(file.read(n)), file.read()
    header.pop("__metadata__", None)
    tensors, at, bits, n_weights = {}, 0, 0.0, 0
    chunks = []
    for name, entry in header.items():
        begin, end = entry["data_offsets"]
        raw, dtype = data[begin:end], entry["dtype"]
        if EXPERT.search(name):
            assert dtype == "BF16"
            w = (np.frombuffer(raw, "<u2").astype(np.uint32) << 16).view(np.float32).reshape(entry["shape"]).astype(np.float64)
            if method == "q4_k":
                w, b = q4_k(w)
            else:
                width, group = re.fullmatch(r"gptq(\d)-g(\d+)", method).groups()
                w, b = gptq(w, moments_of(moments_path, places, name), int(width), int(group))
            raw, dtype = w.astype("<f4").tobytes(), "F32"
            bits, n_weights = bits + b * w.size, n_weights + w.size
        tensors[name] = {"dtype": dtype, "shape": entry["shape"], "data_offsets": [at, at + len(raw)]}
        at += len(raw)
        chunks.append(raw)
    text = json.dumps(tensors).encode()
    text += b" " * (-len(text) % 8)
    os.makedirs(out, exist_ok=True)
    for file in os.listdir(model):
        if file.endswith(".json"):
            shutil.copy(os.path.join(model, file), out)
    with open(os.path.join(out, "model.safetensors"), "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text + b"".join(chunks))
    print(json.dumps({"bits_per_weight": bits / n_weights}))


main()
