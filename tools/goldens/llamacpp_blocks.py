#!/usr/bin/env python3
"""llamacpp_blocks.py - what llama.cpp's quantiser makes of some rows: llamacpp_blocks.py libggml-base.so OUT

OUT is tests/codecs/data/llamacpp.bin: u32 rows, u32 columns, the rows as float, their Q4_0 blocks, their Q4_K blocks, and what
llama.cpp decodes of each. The rows: normal weights, heavy tails, weights of one sign, a constant, zeros, some scales.
"""
import ctypes
import struct
import sys

import numpy as np

Q4_0, Q4_K = 2, 12  # enum ggml_type
COLUMNS = 512


def rows():
    rng = np.random.default_rng(20261128)
    normal = rng.standard_normal((8, COLUMNS)) * 0.02
    normal[1] *= np.exp(rng.standard_normal(COLUMNS))
    normal[2] = np.abs(normal[2])
    normal[3] = -np.abs(normal[3])
    normal[4] = 0.125
    normal[5] = 0
    normal[5, 300] = 1
    normal[6] *= 1000
    normal[7] *= 1e-4
    return normal.astype(np.float32)


def main():
    ggml = ctypes.CDLL(sys.argv[1])
    ggml.ggml_quantize_chunk.restype = ctypes.c_size_t
    ggml.ggml_quantize_chunk.argtypes = [ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64,
                                         ctypes.c_int64, ctypes.c_void_p]
    w = np.ascontiguousarray(rows())
    out = [struct.pack("<II", *w.shape), w.tobytes()]
    decoded = []
    for kind, name in ((Q4_0, "q4_0"), (Q4_K, "q4_K")):
        blocks = np.zeros(w.nbytes, np.uint8)
        nbytes = ggml.ggml_quantize_chunk(kind, w.ctypes.data, blocks.ctypes.data, 0, w.shape[0], w.shape[1], None)
        out.append(blocks[:nbytes].tobytes())
        back = np.zeros_like(w)
        decode = getattr(ggml, f"dequantize_row_{name}")
        decode.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64]
        decode(blocks.ctypes.data, back.ctypes.data, w.size)
        decoded.append(back.tobytes())
    with open(sys.argv[2], "wb") as f:
        f.write(b"".join(out + decoded))


main()
