"""Does a decompressed folder load in `transformers`, and are its logits those of Moebius on the coded folder?

    moebius eval CODED --tokens TOKENS --logits LOGITS.npy
    moebius decompress CODED PLAIN
    python3 tools/goldens/check_decompress.py PLAIN TOKENS LOGITS.npy [--tolerance 2e-3]

TOKENS holds decimal ids with white space between.  Exit status 1 when the logits differ by more than the
tolerance times the largest logit.  PyPI: torch, transformers, safetensors, numpy.
"""

import argparse
import sys

import numpy as np

import truth


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("plain")
    parser.add_argument("tokens")
    parser.add_argument("logits")
    parser.add_argument("--tolerance", type=float, default=2e-3)
    args = parser.parse_args()
    with open(args.tokens) as f:
        ids = [int(word) for word in f.read().split()]
    ours = np.load(args.logits)
    theirs = truth.run(truth.load(args.plain), ids)[0]
    if ours.shape != theirs.shape:
        sys.exit(f"{args.logits} has shape {ours.shape}, transformers gives {theirs.shape}")
    diff = np.abs(ours - theirs).max() / np.abs(theirs).max()
    top = int((ours.argmax(-1) != theirs.argmax(-1)).sum())
    print(f"{args.plain}: max |difference| / max |logit| {diff:.2e}, top-1 differs at {top} of {len(ids)} tokens")
    return 0 if diff <= args.tolerance else 1


if __name__ == "__main__":
    sys.exit(main())
