"""How weights are drawn and stored: chunks of whole rows, each with its own random stream.

A chunk's values depend on the seed, the tensor's name and the chunk's place alone: not on threads, shards, or the number
of layers, so a checkpoint of 5 layers begins like the one of 27.  Nothing here touches a file.
"""

import hashlib
import math

import numpy as np

# 1 MiB of float32: a chunk, its temporary and its output stay in a core's second cache.
CHUNK_WEIGHTS = 1 << 18

# The option's word -> safetensors' name of the type, bytes a weight, config.json's name.
TYPES = {"bf16": ("BF16", 2, "bfloat16"), "f16": ("F16", 2, "float16"), "f32": ("F32", 4, "float32")}
TYPES_ALL = dict(TYPES, f8=("F8_E4M3", 1, None))  # what a shape alone can ask for, too

F8_STD = 64  # of 8-bit values, whose largest is 448; their scale is the standard deviation over this


def generator(seed, name, place):
    name_hash = hashlib.blake2b(name.encode(), digest_size=8).digest()
    entropy = [seed, int.from_bytes(name_hash, "little"), place]
    return np.random.Generator(np.random.SFC64(np.random.SeedSequence(entropy)))


def rows_and_columns(tensor):
    """A tensor of experts, [E, rows, columns], is its experts' rows after one another."""
    return math.prod(tensor.shape[:-1]), tensor.shape[-1]


def stored_type(tensor, dtype):
    return tensor.type or dtype


def weight_nbytes(tensor, dtype):
    return TYPES_ALL[stored_type(tensor, dtype)][1]


def scales(seed, name, n, spread):
    """n log-normal factors, sigma of ln 'spread', whose mean square is 1 in expectation; None where there is no spread."""
    if spread == 0:
        return None
    return np.exp(spread * generator(seed, name, 0).standard_normal(n) - spread * spread).astype(np.float32)


def round_to_bf16(values, work, out):
    """'values' (float32, finite) rounded to nearest, ties to even, as bit patterns into 'out'."""
    bits = values.view(np.uint32)
    np.right_shift(bits, 16, out=work)
    np.bitwise_and(work, 1, out=work)
    np.add(work, 0x7FFF, out=work)
    np.add(bits, work, out=work)
    np.right_shift(work, 16, out=work)
    np.copyto(out, work, casting="unsafe")


def round_to_e4m3(values, work, out):
    """'values' (float32) rounded as above, with 3 bits of mantissa.  Less than 2^-6 becomes 0, more than 448 448."""
    bits = values.view(np.uint32)
    np.right_shift(bits, 20, out=work)
    np.bitwise_and(work, 1, out=work)
    np.add(work, 0x7FFFF, out=work)
    np.add(np.bitwise_and(bits, 0x7FFFFFFF), work, out=work)
    np.right_shift(work, 20, out=work)
    np.copyto(work, 0, where=work < (121 << 3))
    np.copyto(work, np.clip(work.astype(np.int64) - (120 << 3), 0, 0x7E), casting="unsafe")
    np.copyto(out, work | (bits >> 31 << 7), casting="unsafe")


class Recipe:
    """std of the weights, sigma of ln of the scales of rows and columns, seed."""

    def __init__(self, std, row_spread, column_spread, seed):
        self.std, self.row_spread, self.column_spread, self.seed = std, row_spread, column_spread, seed

    def chunks(self, tensor):
        """Jobs (tensor, place, first row, rows, factors of rows, factors of columns)."""
        n_rows, n_columns = rows_and_columns(tensor)
        spread = (self.row_spread, self.column_spread) if tensor.kind == "matrix" else (0, 0)
        row_scale = scales(self.seed, tensor.name + "/rows", n_rows, spread[0])
        column_scale = scales(self.seed, tensor.name + "/columns", n_columns, spread[1])
        n_step = max(1, CHUNK_WEIGHTS // n_columns)
        for place, first in enumerate(range(0, n_rows, n_step)):
            n = min(n_step, n_rows - first)
            yield tensor, place, first, n, None if row_scale is None else row_scale[first:first + n], column_scale


class Painter:
    """Draws chunks into its own buffers; one for each thread."""

    def __init__(self, recipe, dtype, n_weights_max):
        self.recipe, self.dtype = recipe, dtype
        self.values = np.empty(n_weights_max, np.float32)
        self.work = np.empty(n_weights_max, np.uint32)
        self.stored = {"f16": np.empty(n_weights_max, np.float16), "bf16": np.empty(n_weights_max, np.uint16),
                       "f8": np.empty(n_weights_max, np.uint8)}

    def draw(self, tensor, place, n, row_scale, column_scale):
        values = self.values[:n]
        if tensor.kind == "norm":
            values.fill(1)
            return values
        if tensor.kind == "scale":
            values.fill(self.recipe.std / F8_STD)
            return values
        if tensor.kind == "rotary":
            values[:] = tensor.rope_theta ** (-np.arange(n) / n)
            return values
        generator(self.recipe.seed, tensor.name, place).standard_normal(dtype=np.float32, out=values)
        values *= np.float32(F8_STD if tensor.type == "f8" else self.recipe.std)
        if row_scale is not None:
            values.reshape(len(row_scale), -1)[:] *= row_scale[:, None]
        if column_scale is not None:
            values.reshape(-1, len(column_scale))[:] *= column_scale
        return values

    def paint(self, tensor, place, n_rows, row_scale, column_scale):
        """The chunk's bytes as they are stored; valid until the next call."""
        n = n_rows * rows_and_columns(tensor)[1]
        values = self.draw(tensor, place, n, row_scale, column_scale)
        type_name = stored_type(tensor, self.dtype)
        if type_name == "f32":
            return memoryview(values).cast("B")
        stored = self.stored[type_name][:n]
        if type_name == "f16":
            np.copyto(stored, values, casting="same_kind")
        elif type_name == "f8":
            round_to_e4m3(values, self.work[:n], stored)
        else:
            round_to_bf16(values, self.work[:n], stored)
        return memoryview(stored).cast("B")
