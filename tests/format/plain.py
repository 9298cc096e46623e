"""Writes small plain checkpoints for the tests of the format: tensors that make the encoder choose every kind of row group."""

import json
import os

import numpy as np

CONFIG = {"architectures": ["DeepseekV3ForCausalLM"], "model_type": "deepseek_v3"}


def to_bytes(type_name, values):
    """float32 values in a file's type (others as they are); bf16 by cutting (the tests need exact files, not exact rounding)."""
    if type_name == "F32":
        return values.astype("<f4").tobytes()
    if type_name == "F16":
        return values.astype("<f2").tobytes()
    if type_name != "BF16":
        return values.tobytes()
    return (np.ascontiguousarray(values, "<f4").view("<u4") >> 16).astype("<u2").tobytes()


def write_checkpoint(folder, tensors):
    """tensors: {name: (type name, float32 array)}."""
    os.makedirs(folder)
    header, data = {}, b""
    for name, (type_name, values) in tensors.items():
        raw = to_bytes(type_name, values)
        header[name] = {"dtype": type_name, "shape": list(values.shape), "data_offsets": [len(data), len(data) + len(raw)]}
        data += raw
    text = json.dumps(header).encode()
    with open(os.path.join(folder, "model.safetensors"), "wb") as file:
        file.write(len(text).to_bytes(8, "little") + text + data)
    with open(os.path.join(folder, "config.json"), "w", encoding="utf-8") as file:
        json.dump(CONFIG, file)


def legal_widths():
    """All (a, b) of the format. The encoder never takes (1, 0): a = 0 says the same in fewer bytes."""
    result = [(0, 0)]
    for a in range(1, 9):
        for b in range(9):
            m, t = 2 ** (a - 1) - 1, 2 ** (b - 1) if b else 0
            if m + t <= 127:
                result.append((a, b))
    return result


def rows_of_every_kind(rng, step=0.99998474, n_cols=1024):
    """One row (a group) for each pair of widths, and rows with outliers, raw, and zero. For the bound abs:0.5."""
    rows = []
    for a, b in legal_widths():
        m, t = (2 ** (a - 1) - 1 if a else 0), (2 ** (b - 1) if b else 0)
        q = rng.integers(-m, m + 1, n_cols)
        if (a, b) == (2, 0):
            q = rng.choice([-1, 1], n_cols)  # with zeros among them one bit and a tail would be smaller
        if t:
            n_escapes = 204 if a == 1 else 6  # few escapes of a = 1 would be outliers of a = 0
            q[rng.choice(n_cols, n_escapes, replace=False)] = [m + 1, m + t, -m - 1, -m - t, m + t, -m - t] * (n_escapes // 6)
        rows.append(q * step)
        if b in (0, 3):
            with_outliers = q * step
            with_outliers[[0, 7, n_cols - 1]] = [300.25, -1e9, 3e38]
            rows.append(with_outliers)
    rows.append(rng.standard_normal(n_cols) * 1e6)
    return np.array(rows, np.float32)


def gaussian(rng, rows, cols, scale=0.02):
    weights = rng.standard_normal((rows, cols)) * scale
    weights[rng.random((rows, cols)) < 0.002] *= 40
    return weights.astype(np.float32)


def varied_tensors():
    """A model in name only, with every form of tensor that the format tells apart."""
    rng = np.random.default_rng(20240917)
    layer0, layer1 = "model.layers.0.", "model.layers.1."
    tensors = {"model.embed_tokens.weight": ("F32", gaussian(rng, 10, 7))}
    for expert in ("experts.0", "experts.1", "shared_experts"):
        type_name = "F16" if expert == "shared_experts" else "BF16"
        for name, shape in (("gate_proj", (12, 40)), ("up_proj", (12, 40)), ("down_proj", (40, 12))):
            tensors[f"{layer0}mlp.{expert}.{name}.weight"] = (type_name, gaussian(rng, *shape))
    tensors |= {
        layer0 + "mlp.gate.weight": ("F32", gaussian(rng, 2, 40)),
        layer0 + "mlp.gate.e_score_correction_bias": ("F32", gaussian(rng, 1, 2)[0]),
        layer0 + "input_layernorm.weight": ("BF16", np.ones(40, np.float32)),
        layer0 + "self_attn.o_proj.weight": ("F16", gaussian(rng, 5, 300)),
        layer1 + "self_attn.q_proj.weight": ("F32", rows_of_every_kind(rng)),
        layer1 + "self_attn.k_proj.weight": ("F32", np.zeros((3, 5), np.float32)),
        layer1 + "self_attn.v_proj.weight": ("BF16", gaussian(rng, 342, 3)),
        layer1 + "self_attn.b_proj.weight": ("F32", np.full((1, 1), -0.125, np.float32)),
        "lm_head.weight": ("BF16", gaussian(rng, 2, 1031)),
    }
    return tensors


ODD_SHAPES = [
    (1, 1), (1, 2), (2, 1), (3000, 1), (1, 3000), (1, 65535), (2, 65535), (1, 65536), (3, 1023), (3, 1024), (3, 1025), (7, 511),
    (129, 64), (65, 127), (33, 128), (31, 129), (4, 2048), (1025, 3), (0, 5), (5, 0), (0, 0),
]  # fmt: skip


def odd_tensors():
    """Shapes at the edges of row groups and limits, in every type that is coded; weights at the edges of floats; names."""
    rng = np.random.default_rng(20261125)
    largest, smallest = np.finfo(np.float32).max, np.finfo(np.float32).smallest_subnormal
    tensors = {}
    for i, shape in enumerate(ODD_SHAPES):
        type_name = ("BF16", "F16", "F32")[i % 3]
        tensors[f"model.layers.{i % 4}.self_attn.x{i}_proj.weight"] = (type_name, gaussian(rng, *shape))
    prefix = "model.layers.18446744073709551616.mlp.experts.18446744073709551615."
    tensors |= {
        "model.layers.7.a_proj.weight": ("F32", np.array([[largest, -largest, 1, 0]], np.float32)),
        "model.layers.7.b_proj.weight": ("F32", np.array([[smallest, -smallest, 0, -0.0]], np.float32)),
        "model.layers.7.c_proj.weight": ("F32", gaussian(rng, 40, 40, 1e-42)),
        "model.layers.7.d_proj.weight": ("F16", np.array([[65504, -65504, 6e-8]], np.float32)),
        "model.layers.7.e_proj.weight": ("F32", gaussian(rng, 24, 6).reshape(4, 6, 6)),
        "model.layers.7.table": ("U8", np.arange(12, dtype=np.uint8).reshape(3, 4)),
        "model.layers.007.mlp.experts.00.w1.weight": ("BF16", gaussian(rng, 6, 9)),
        prefix + "down_proj.weight": ("BF16", gaussian(rng, 6, 9)),
        prefix + "up_proj.weight": ("F32", gaussian(rng, 1, 2)),
        "model.step": ("I64", np.array(-5, np.int64)),
        "\u00e9\u6f22 \"\\/../_proj.weight": ("BF16", gaussian(rng, 20, 30)),
        "x" * 497 + ".o_proj.weight": ("BF16", gaussian(rng, 20, 30)),
        "y" * 512: ("F32", np.ones(2, np.float32)),
    }
    return tensors


VARIED_OPTIONS = [
    "--tensor-bound", "q_proj=abs:0.5", "--tensor-bound", r"experts\.1\.down=0", "--tensor-bound", "lm_head=12%",
    "--tensor-bound", "v_proj=abs:0.0000001",
]  # fmt: skip
