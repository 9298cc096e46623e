#!/usr/bin/env python3
"""Write a Q4_K_M GGUF of a published shape with random weights, as llama.cpp would quantise it, in no more disk than the
file itself.

    python3 bench/peers/make_gguf.py OUT.gguf --source LLAMA.CPP --build LLAMA.CPP/build [--shape moonlight|qwen3|mixtral]
        [--layers N] [--file-type Q4_K_M]

Types are what `llama-quantize --dry-run` chooses.  Rows are drawn from a pool of Gaussian rows for each type and width, which
ggml_quantize_chunk quantised: the bytes of a real file's layout, at the speed of the disk.  The vocabulary of 32,000 is
the one that lies in llama.cpp's sources.  Needs numpy and tqdm (Debian: python3-numpy python3-tqdm).
"""

import argparse
import ctypes
import os
import re
import subprocess
import sys

import numpy as np

from gguf_shapes import SHAPES, list_tensors, write_keys

VOCABULARY = "models/ggml-vocab-llama-spm.gguf"
POOL_ROWS = 2048
CHUNK_ROWS = 4096
STD = 0.02


def copy_vocabulary(writer, reader):
    def value(name):
        field = reader.fields.get("tokenizer.ggml." + name)
        return None if field is None else field.contents()

    writer.add_tokenizer_model(value("model"))
    writer.add_token_list(value("tokens"))
    writer.add_token_scores(value("scores"))
    writer.add_token_types(value("token_type"))
    writer.add_bos_token_id(int(value("bos_token_id")))
    writer.add_eos_token_id(int(value("eos_token_id")))


def open_writer(gguf, args, path, reader, tensors, types, file_type):
    """A file with everything before the weights; 'types' maps names to what is not bf16."""
    writer = gguf.GGUFWriter(path, SHAPES[args.shape].arch)
    writer.add_file_type(file_type)
    writer.add_quantization_version(2)
    write_keys(SHAPES[args.shape], writer, gguf, args.layers, tensors[0].shape[0])
    copy_vocabulary(writer, reader)
    for name, shape, kind in tensors:
        quantised = types.get(name, gguf.GGMLQuantizationType.BF16) if kind == "matrix" else gguf.GGMLQuantizationType.F32
        # Any numpy type but uint8 makes the writer take 'shape' as a count of weights.
        writer.add_tensor_info(name, shape, np.dtype(np.uint16), tensor_nbytes(gguf, shape, quantised), raw_dtype=quantised)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    return writer


def tensor_nbytes(gguf, shape, quantised):
    block_weights, block_nbytes = gguf.GGML_QUANT_SIZES[quantised]
    return int(np.prod(shape)) // block_weights * block_nbytes


def choose_types(gguf, args, reader, tensors):
    """What llama-quantize would do with a bf16 file, asked with one whose weights are a hole."""
    path = args.out + ".header"
    try:
        writer = open_writer(gguf, args, path, reader, tensors, {}, gguf.LlamaFileType.MOSTLY_BF16)
        writer.close()
        nbytes = sum(-(-tensor_nbytes(gguf, shape, gguf.GGMLQuantizationType.F32) // 32) * 32 for _, shape, _ in tensors)
        os.truncate(path, os.path.getsize(path) + 32 + nbytes)
        run = subprocess.run([os.path.join(args.build, "bin/llama-quantize"), "--dry-run", path, args.file_type],
                             stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    finally:
        if os.path.exists(path):
            os.remove(path)
    chosen = re.findall(r"^\[ *\d+/ *\d+\] (\S+) .*-> .*\((\w+)\)$", run.stdout, re.MULTILINE)
    if run.returncode != 0 or not chosen:
        raise OSError(f"llama-quantize --dry-run failed:\n{run.stdout[-2000:]}")
    return {name: gguf.GGMLQuantizationType[text.upper()] for name, text in chosen}


class Pools:
    """Quantised Gaussian rows, made when a type and width is first asked for."""

    def __init__(self, gguf, build):
        self.gguf, self.rows = gguf, {}
        self.random = np.random.Generator(np.random.SFC64(1))
        self.quantise = ctypes.CDLL(os.path.join(build, "bin/libggml-base.so")).ggml_quantize_chunk
        self.quantise.restype = ctypes.c_size_t
        self.quantise.argtypes = [ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64,
                                  ctypes.c_int64, ctypes.c_void_p]

    def gaussian(self, *shape):
        return self.random.standard_normal(shape, dtype=np.float32) * np.float32(STD)

    def pool(self, quantised, n_columns):
        if (quantised, n_columns) not in self.rows:
            weights = self.gaussian(POOL_ROWS, n_columns)
            rows = np.empty((POOL_ROWS, tensor_nbytes(self.gguf, (n_columns,), quantised)), np.uint8)
            nbytes = self.quantise(int(quantised), weights.ctypes.data, rows.ctypes.data, 0, POOL_ROWS, n_columns, None)
            if nbytes != rows.nbytes:
                raise ValueError(f"{quantised.name}: {nbytes} bytes of rows, not {rows.nbytes}")
            self.rows[quantised, n_columns] = rows
        return self.rows[quantised, n_columns]

    def chunks(self, shape, kind, quantised):
        if kind != "matrix":
            yield {"f32": self.gaussian, "ones": np.ones, "zeros": np.zeros}[kind](*shape).astype(np.float32)
            return
        pool, n_rows = self.pool(quantised, shape[-1]), int(np.prod(shape[:-1]))
        for first in range(0, n_rows, CHUNK_ROWS):
            yield pool[self.random.integers(POOL_ROWS, size=min(CHUNK_ROWS, n_rows - first))]


def write_weights(gguf, path, tensors, types, pools):
    with open(path, "ab") as f:
        f.write(bytes(-f.tell() % 32))
        for name, shape, kind in tensors:
            for chunk in pools.chunks(shape, kind, types.get(name)):
                f.write(chunk.tobytes())
            f.write(bytes(-f.tell() % 32))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", help="the file to write")
    parser.add_argument("--source", required=True, help="llama.cpp's sources, for gguf-py and a vocabulary")
    parser.add_argument("--build", required=True, help="a build with llama-quantize and shared libraries")
    parser.add_argument("--shape", choices=SHAPES, default="moonlight")
    parser.add_argument("--layers", type=int, help="default: the published number")
    parser.add_argument("--file-type", default="Q4_K_M", help="one that needs no importance matrix (default Q4_K_M)")
    args = parser.parse_args()
    args.layers = args.layers or SHAPES[args.shape].n_layers
    sys.path.insert(0, os.path.join(args.source, "gguf-py"))
    import gguf  # llama.cpp's own

    reader = gguf.GGUFReader(os.path.join(args.source, VOCABULARY))
    tensors = list(list_tensors(SHAPES[args.shape], args.layers, len(reader.fields["tokenizer.ggml.tokens"].data)))
    types = choose_types(gguf, args, reader, tensors)
    file_type = gguf.LlamaFileType["MOSTLY_" + args.file_type]
    partial = args.out + ".partial"
    open_writer(gguf, args, partial, reader, tensors, types, file_type).close()
    write_weights(gguf, partial, tensors, types, Pools(gguf, args.build))
    os.rename(partial, args.out)
    print(f"{args.out}: {os.path.getsize(args.out)} bytes")


if __name__ == "__main__":
    main()
