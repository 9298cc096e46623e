#!/usr/bin/env python3
"""Write a random-weight checkpoint with the exact shapes of a published Mixture-of-Experts model.

    python3 tools/synthetic/make_checkpoint.py OUT --shape SHAPE [--layers N] [--vocab-size N]
        [--dtype bf16|f16|f32] [--std S] [--row-spread S] [--column-spread S] [--seed N] [--headers-only]
        [--dry-run]

numpy alone (Debian: python3-numpy).  OUT appears when it is complete; until then the folder is called OUT.partial.
"""

import argparse
import json
import os
import shutil
import struct
import sys
import threading
import time

import shapes
import tokenizer
import weights

UNITS = {"KB": 10**3, "MB": 10**6, "GB": 10**9, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30}


def size(text):
    for unit, factor in UNITS.items():
        if text.endswith(unit):
            return int(float(text[:-len(unit)]) * factor)
    return int(text)


def positive(text):
    if (value := int(text)) < 1:
        raise argparse.ArgumentTypeError(f"{text} is not at least 1")
    return value


def not_negative(text):
    if not (value := float(text)) >= 0 or value == float("inf"):
        raise argparse.ArgumentTypeError(f"{text} is not a number of at least 0")
    return value


def options(argv):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", help="the folder to write; must not exist")
    parser.add_argument("--shape", required=True, choices=shapes.SHAPES)
    parser.add_argument("--layers", type=positive, metavar="N", help="default: the published number")
    parser.add_argument("--vocab-size", type=positive, metavar="N", help="default: the published size")
    parser.add_argument("--scale-down", type=positive, default=1, metavar="N", help="divide every width by N (for tests)")
    parser.add_argument("--dtype", choices=weights.TYPES, default="bf16")
    parser.add_argument("--std", type=not_negative, default=0.02, help="of all weights together, default 0.02")
    parser.add_argument("--row-spread", type=not_negative, default=0.0, metavar="S",
                        help="log-normal scales of rows, S = sigma of ln (0: none; trained weights: 0.1 to 0.5)")
    parser.add_argument("--column-spread", type=not_negative, default=0.0, metavar="S", help="the same for columns")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--shard-size", type=size, default=5 * 10**9, metavar="BYTES", help="default 5GB")
    parser.add_argument("--headers-only", action="store_true", help="all weights are zeros that take no disk")
    parser.add_argument("--tokenizer", action="store_true", help="a tokenizer.json with one token a byte")
    parser.add_argument("-t", "--threads", type=positive, default=os.cpu_count(), metavar="N")
    parser.add_argument("--dry-run", action="store_true", help="only say what would be written")
    args = parser.parse_args(argv)
    if args.seed < 0:
        parser.error("--seed is not at least 0")
    return args


def n_weights(tensor):
    n_rows, n_columns = weights.rows_and_columns(tensor)
    return n_rows * n_columns


def tensor_nbytes(tensor, dtype):
    return n_weights(tensor) * weights.weight_nbytes(tensor, dtype)


class Shard:
    """The tensors of one file, where each one begins, and the header."""

    def __init__(self, tensors, dtype):
        entries, end = {"__metadata__": {"format": "pt"}}, 0
        for tensor in tensors:
            begin, end = end, end + tensor_nbytes(tensor, dtype)
            type_name = weights.TYPES_ALL[weights.stored_type(tensor, dtype)][0]
            entries[tensor.name] = {"dtype": type_name, "shape": list(tensor.shape), "data_offsets": [begin, end]}
        text = json.dumps(entries, separators=(",", ":")).encode()
        text += b" " * (-len(text) % 8)
        self.tensors, self.data_nbytes = tensors, end
        self.header = struct.pack("<Q", len(text)) + text
        self.begins = {name: len(self.header) + entry["data_offsets"][0]
                       for name, entry in entries.items() if name != "__metadata__"}


def split(tensors, dtype, shard_nbytes):
    """Shards of at most 'shard_nbytes', or one tensor."""
    groups, filled = [[]], 0
    for tensor in tensors:
        nbytes = tensor_nbytes(tensor, dtype)
        if groups[-1] and filled + nbytes > shard_nbytes:
            groups.append([])
            filled = 0
        groups[-1].append(tensor)
        filled += nbytes
    return [Shard(group, dtype) for group in groups]


def shard_names(n):
    return ["model.safetensors"] if n == 1 else [f"model-{i + 1:05}-of-{n:05}.safetensors" for i in range(n)]


class Progress:
    """One line on a terminal, one line a shard elsewhere."""

    def __init__(self, total_nbytes, n_bytes_a_weight):
        self.total, self.a_weight, self.done = total_nbytes, n_bytes_a_weight, 0
        self.began = self.shown = time.monotonic()
        self.live = sys.stderr.isatty()

    def add(self, nbytes):
        self.done += nbytes
        if self.live and time.monotonic() - self.shown > 0.2:
            self.shown = time.monotonic()
            print("\r" + self.line(), end="", file=sys.stderr, flush=True)

    def line(self):
        seconds = max(time.monotonic() - self.began, 1e-6)
        left = (self.total - self.done) * seconds / max(self.done, 1)
        return (f"{self.done / 1e9:.2f} of {self.total / 1e9:.2f} GB, {self.done / self.a_weight / seconds / 1e9:.2f} "
                f"G weights/s, {left:.0f} s left   ")

    def end_shard(self, name):
        print(("\r" if self.live else "") + self.line() + name, file=sys.stderr, flush=True)


def write_all(fd, data, at):
    while data:
        n = os.pwrite(fd, data, at)
        data, at = data[n:], at + n


class ShardWriter:
    """Threads take chunks from one queue and put each at its own place in the file."""

    def __init__(self, shard, recipe, args, progress):
        self.shard, self.recipe, self.args, self.progress = shard, recipe, args, progress
        self.lock = threading.Lock()
        self.jobs = (job for tensor in shard.tensors for job in recipe.chunks(tensor))
        self.error = None

    def work(self, fd):
        n_columns_max = max(weights.rows_and_columns(tensor)[1] for tensor in self.shard.tensors)
        painter = weights.Painter(self.recipe, self.args.dtype, max(n_columns_max, weights.CHUNK_WEIGHTS))
        try:
            while True:
                with self.lock:
                    job = None if self.error else next(self.jobs, None)
                if job is None:
                    return
                tensor, place, first, n_rows, row_scale, column_scale = job
                data = painter.paint(tensor, place, n_rows, row_scale, column_scale)
                row_nbytes = len(data) // n_rows
                write_all(fd, data, self.shard.begins[tensor.name] + first * row_nbytes)
                with self.lock:
                    self.progress.add(len(data))
        except Exception as error:  # handed to the main thread, which ends the run
            self.error = self.error or error

    def write(self, path):
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
        try:
            write_all(fd, self.shard.header, 0)
            if self.args.headers_only:
                os.ftruncate(fd, len(self.shard.header) + self.shard.data_nbytes)
                return
            threads = [threading.Thread(target=self.work, args=(fd,)) for _ in range(self.args.threads)]
            for thread in threads:
                thread.start()
            try:
                for thread in threads:
                    thread.join()
            except KeyboardInterrupt as stop:
                self.error = stop
                for thread in threads:
                    thread.join()
            if self.error:
                raise self.error
            os.fsync(fd)
        finally:
            os.close(fd)


def write_json(path, value, indent=2):
    with open(path, "x", encoding="utf-8") as f:
        json.dump(value, f, indent=indent, ensure_ascii=False)
        f.write("\n")
        f.flush()
        os.fsync(f.fileno())


def write_folder(folder, config, shards, args):
    recipe = weights.Recipe(args.std, args.row_spread, args.column_spread, args.seed)
    total_nbytes = sum(shard.data_nbytes for shard in shards)
    progress = Progress(total_nbytes, weights.TYPES[args.dtype][1])
    names = shard_names(len(shards))
    for name, shard in zip(names, shards):
        ShardWriter(shard, recipe, args, progress).write(os.path.join(folder, name))
        if not args.headers_only:
            progress.end_shard(name)
    if len(shards) > 1:
        places = {tensor.name: name for name, shard in zip(names, shards) for tensor in shard.tensors}
        write_json(os.path.join(folder, "model.safetensors.index.json"),
                   {"metadata": {"total_size": total_nbytes}, "weight_map": dict(sorted(places.items()))})
    if args.tokenizer:
        write_json(os.path.join(folder, "tokenizer.json"), tokenizer.byte_level(config), indent=None)
    write_json(os.path.join(folder, "config.json"), config)


def write_checkpoint(config, shards, args):
    """Everything goes into OUT.partial, which gets its name when it is complete and is removed when it fails."""
    out = os.path.abspath(args.out)
    partial = out + ".partial"
    if os.path.lexists(out):
        raise OSError(f"{args.out}: exists already")
    shutil.rmtree(partial, ignore_errors=True)  # of a run that was killed
    os.makedirs(partial)
    need = sum(0 if args.headers_only else shard.data_nbytes for shard in shards)
    try:
        free = shutil.disk_usage(partial).free
        if free < need:
            raise OSError(f"{args.out}: {need / 1e9:.2f} GB are needed, {free / 1e9:.2f} GB are free")
        write_folder(partial, config, shards, args)
        os.rename(partial, out)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise


def describe(config, tensors, shards, args):
    total = sum(n_weights(tensor) for tensor in tensors if tensor.kind != "scale")
    experts = sum(n_weights(tensor) for tensor in tensors if ".experts." in tensor.name and tensor.kind != "scale")
    nbytes = sum(len(shard.header) + shard.data_nbytes for shard in shards)
    return (f"{args.shape}: {config['num_hidden_layers']} layers, vocabulary {config['vocab_size']}, {len(tensors)} "
            f"tensors, {total} weights ({experts} in routed experts), {nbytes} bytes in {len(shards)} files")


def main(argv=None):
    args = options(argv)
    try:
        config = shapes.make_config(args.shape, args.layers, args.vocab_size, args.scale_down,
                                    weights.TYPES[args.dtype][2])
        if args.tokenizer:
            tokenizer.byte_level(config)
        tensors = list(shapes.list_tensors(args.shape, config))
        shards = split(tensors, args.dtype, args.shard_size)
        print(describe(config, tensors, shards, args), flush=True)
        if not args.dry_run:
            write_checkpoint(config, shards, args)
    except (OSError, ValueError) as error:
        print(f"make_checkpoint: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nmake_checkpoint: stopped, nothing is left behind", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
