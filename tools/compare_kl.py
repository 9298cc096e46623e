#!/usr/bin/env python3
"""Times a teacher-forced KL run beside the same run with transformers, and compares what both say.

    tools/compare_kl.py MOEBIUS ORIGINAL CODED TEXT [-c 256] [--windows 256] [--threads 2] [--batch 1]

Both read the same windows of TEXT with the original model and with the changed one (the weights that CODED means,
written out by `moebius decompress`), and compare the second half of each.  transformers computes in float32, as it
does without further options where a checkpoint is to be measured exactly; its logits are compared in float64.  Loading is not
timed, on either side.  --batch: windows that transformers reads in one call.

Needs torch and transformers.
"""
import argparse
import json
import subprocess
import tempfile
import time

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer


def windows_of(folder, text, n_ctx, n_windows, bos):
    """The windows of llama-perplexity: BOS first, each window's first token replaced by it."""
    ids = AutoTokenizer.from_pretrained(folder)(text, add_special_tokens=False)["input_ids"]
    ids = ([bos] if bos is not None else []) + ids
    n = min(n_windows, len(ids) // n_ctx)
    windows = torch.tensor(ids[: n * n_ctx]).reshape(n, n_ctx)
    if bos is not None:
        windows[:, 0] = bos
    return windows


@torch.inference_mode()
def run_transformers(original, changed, windows, batch):
    """Sum of KL and number of tokens that are scored."""
    first, total, n = windows.shape[1] // 2, 0.0, 0
    for i in range(0, len(windows), batch):
        p, q = (m(windows[i : i + batch], use_cache=False).logits[:, first:-1] for m in (original, changed))
        p, q = (torch.log_softmax(x.double(), -1) for x in (p, q))
        total += (p.exp() * (p - q)).sum().item()
        n += p.shape[0] * p.shape[1]
    return total / n, n


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("moebius", "original", "coded", "text"):
        parser.add_argument(name)
    parser.add_argument("-c", "--ctx-size", type=int, default=256)
    parser.add_argument("--windows", type=int, default=256)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--batch", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)

    command = [args.moebius, "eval", args.coded, "--kl-divergence", args.original, "--perplexity", args.text, "-c",
               str(args.ctx_size), "--limit", str(args.windows), "-t", str(args.threads), "-o", "json"]
    ours = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)

    with tempfile.TemporaryDirectory() as folder:
        subprocess.run([args.moebius, "decompress", args.coded, folder], check=True, stdout=subprocess.DEVNULL,
                       stderr=subprocess.DEVNULL)
        original, changed = (AutoModelForCausalLM.from_pretrained(f, dtype=torch.float32).eval()
                             for f in (args.original, folder))
        with open(args.text, encoding="utf-8") as file:
            windows = windows_of(args.original, file.read(), args.ctx_size, args.windows, original.config.bos_token_id)
        run_transformers(original, changed, windows[: args.batch], args.batch)
        begun = time.monotonic()
        kl, n = run_transformers(original, changed, windows, args.batch)
        seconds = time.monotonic() - begun

    assert n == ours["n_scored"], (n, ours["n_scored"])
    print("| program | tokens | scored | KL | seconds | tokens/s |")
    print("|---|--:|--:|--:|--:|--:|")
    for name, mean, s in (("moebius", ours["kl"]["mean"], ours["seconds"]), (f"transformers, batch {args.batch}", kl, seconds)):
        print(f"| {name} | {windows.numel()} | {n} | {mean:.6g} | {s:.2f} | {windows.numel() / s:.0f} |")
    print(f"\n{seconds / ours['seconds']:.1f} times as fast; KL differs by {abs(kl - ours['kl']['mean']) / kl:.2g} of itself")


if __name__ == "__main__":
    main()
