#!/usr/bin/env python3
"""make_golden.py MOEBIUS OUT: writes OUT/ (a coded folder) and OUT.xxh3, the hashes of what it decodes to.

Run once for each format version; what is kept is never made again: see README.md.
"""

import os
import subprocess
import sys
import tempfile

import decoder
import plain


def main():
    program, out = sys.argv[1], sys.argv[2]
    with tempfile.TemporaryDirectory() as scratch:
        folder = os.path.join(scratch, "plain")
        plain.write_checkpoint(folder, plain.varied_tensors())
        subprocess.run([program, "compress", folder, out, *plain.VARIED_OPTIONS], check=True)
    with open(out + ".xxh3", "w", encoding="utf-8") as file:
        for name, tensor in sorted(decoder.read_folder(out).items()):
            rows, cols = tensor.shape if tensor.values is not None else (0, 0)
            file.write(f"{tensor.xxh3()} {rows} {cols} {name}\n")


if __name__ == "__main__":
    main()
