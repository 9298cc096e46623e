#!/usr/bin/env python3
"""predict.py MODEL... : what 'moebius doctor' predicts beside what 'moebius bench' then does, over links.

For each coded model, share of experts in memory and link, bench runs and records its routing, and doctor
predicts with that. Where guesses are made, bench makes so many right ones (--routing). A table in Markdown goes to standard output.
"""
import argparse
import json
import os
import subprocess
import tempfile


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="+", help="coded folders")
    parser.add_argument("--moebius", default="build/release/cli/moebius")
    parser.add_argument("--links", default="150MB,100us,8;600MB,100us,8;2GB,100us,8", help="';' between; 'disk': none")
    parser.add_argument("--shares", default="25,50,75", help="of experts in memory, in %%; 100: all")
    parser.add_argument("--tokens", type=int, default=48)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--context", type=int, default=128)
    parser.add_argument("--lookahead", default="0,0.7", help="shares of right guesses; 0: without looking ahead")
    args = parser.parse_args()

    def run(*words):
        done = subprocess.run([args.moebius, *map(str, words)], capture_output=True, text=True)
        if done.returncode != 0:
            raise SystemExit(f"{words}: {done.stderr}")
        return json.loads(done.stdout)

    print("| model | experts in memory | link | guesses right | hits, %: predicted, happened | MB a token | tokens/s | off |")
    print("|---|--:|---|--:|--:|--:|--:|--:|")
    worst = 0
    with tempfile.TemporaryDirectory() as folder:
        for model in args.models:
            trace, used = os.path.join(folder, "trace.jsonl"), os.path.join(folder, "used.jsonl")
            bench = ["bench", model, "-p", 0, "-n", args.tokens, "-r", 1, "-t", args.threads, "-o", "json"]
            doctor = ["doctor", model, "-c", args.context, "-t", args.threads, "-o", "json"]
            run(*bench, "--trace", trace)
            needs = run(*doctor, "--memory", "100GiB", "--dry-run")["needs"]
            for share in map(float, args.shares.split(",")):
                experts = int(needs["experts_nbytes"] * share / 100)
                limit = smallest_limit(run, doctor, needs, experts) if share < 100 else 100 << 30
                for link in args.links.split(";") if share < 100 else ["disk"]:
                    for right in map(float, args.lookahead.split(",") if share < 100 else ["0"]):
                        words = [] if link == "disk" else ["--link", link]
                        guess = ["--lookahead", right] if right > 0 else ["--no-lookahead"]
                        how = ["--routing", trace, "--right-guesses", right] if right > 0 else ["--no-lookahead"]
                        did = run(*bench, "--memory", limit, *words, *how, "--trace", used)[0]
                        said = predict(run, doctor, needs, limit, did, [*words, *guess, "--trace", used, "--warm", 8])
                        worst = max(worst, show(model, share, link, right, said, did, args.tokens))
    print(f"\nat most {100 * worst:.0f} % off")


def predict(run, doctor, needs, limit, did, words):
    """Of as many experts in memory as bench had: a MiB that a program takes more is much of a small model."""
    said = run(*doctor, "--memory", limit, *words)
    if "n_experts_held" not in did:
        return said
    held = needs["experts_nbytes"] * did["n_experts_held"] // did["n_experts"]
    for _ in range(8):
        off = held - said["experts_memory_nbytes"]
        if said["mode"] == "streaming" and abs(off) < held / 50:
            break
        limit += off
        said = run(*doctor, "--memory", limit, *words)
    return said


def smallest_limit(run, doctor, needs, experts):
    """The limit that leaves so many bytes to experts: a pass takes what depends on it."""
    low, high = 1 << 20, 100 << 30
    while high - low > 1 << 14:
        middle = (low + high) // 2
        try:
            enough = run(*doctor, "--memory", middle, "--dry-run")["experts_memory_nbytes"] >= experts
        except SystemExit:
            enough = False
        low, high = (low, middle) if enough else (middle, high)
    return high


def show(model, share, link, right, said, did, n_tokens):
    predicted, happened = said["tokens_per_s"], did["avg_ts"]
    off = predicted / happened - 1
    hits = read = "all"
    if "experts_acquired" in did and said["expected"]:
        did_hits = 100 * (1 - did["experts_missed"] / did["experts_acquired"])
        hits = f"{100 * said['expected']['hit_rate']:.1f}, {did_hits:.1f}"
        read = f"{said['expected']['nbytes_per_token'] / 1e6:.3g}, {did['read_nbytes'] / n_tokens / 1e6:.3g}"
        share = 100 * did["n_experts_held"] / did["n_experts"]
    guesses = f"{100 * right:.0f} %" if right > 0 else "none"
    print(f"| {os.path.basename(os.path.normpath(model))} | {share:.0f} % | {link} | {guesses} | {hits} | {read} "
          f"| {predicted:.3g}, {happened:.3g} | {100 * off:+.0f} % |", flush=True)
    return abs(off)


if __name__ == "__main__":
    main()
