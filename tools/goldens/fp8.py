"""8-bit matrices with a scale for each block, as DeepSeek-V3 and Qwen3-FP8 are published."""

import torch

# Of a layer, what stays as it is: routers, norms, biases.
KEPT = (".gate.weight", "norm.weight", ".bias", "_bias")


def config(rows, columns, **more):
    return {"activation_scheme": "dynamic", "fmt": "e4m3", "quant_method": "fp8", "weight_block_size": [rows, columns],
            **more}


def spread(scales, shape, blocks):
    """The scale of every element."""
    rows, columns = blocks
    whole = scales.float().repeat_interleave(rows, 0).repeat_interleave(columns, 1)
    return whole[:shape[0], :shape[1]]


def scales_of(x, blocks):
    """The largest value of each block becomes 448, the largest 8-bit one."""
    rows, columns = blocks
    padded = torch.nn.functional.pad(x.abs(), (0, -x.shape[1] % columns, 0, -x.shape[0] % rows))
    parts = padded.view(padded.shape[0] // rows, rows, padded.shape[1] // columns, columns)
    return parts.amax((1, 3)) / 448


def quantised(tensors, blocks, scale_type):
    out = {}
    for name, x in tensors.items():
        if not name.startswith("model.layers.") or name.endswith(KEPT):
            out[name] = x
            continue
        scales = scales_of(x.float(), blocks).to(scale_type)
        codes = (x.float() / spread(scales, x.shape, blocks)).clamp(-448, 448).to(torch.float8_e4m3fn)
        out[name], out[name + "_scale_inv"] = codes, scales
    return out


def values(tensors, blocks):
    return {name: x.float() * spread(tensors[name + "_scale_inv"], x.shape, blocks)
            if x.dtype == torch.float8_e4m3fn else x
            for name, x in tensors.items() if not name.endswith("_scale_inv")}
