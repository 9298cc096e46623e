#!/usr/bin/env python3
"""predict.py MODEL... : what 'moebius doctor' predicts beside what 'moebius bench' then does, over links and the disk.

For each coded model, share of experts in memory and link, bench and doctor run by turns, since rates of a machine change from
minute to minute; figures are medians, in brackets the lowest and the highest.  doctor predicts with the routing that bench has
recorded and with as many experts in memory.  Where guesses are made, bench makes so many right ones (--routing).  A table in
Markdown goes to standard output.
"""
import argparse
import json
import os
import statistics
import subprocess
import tempfile


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="+", help="coded folders")
    parser.add_argument("--moebius", default="build/release/cli/moebius")
    parser.add_argument("--links", default="disk", help="such as '150MB,100us,8;2GB,100us,8;disk' (default disk: no link)")
    parser.add_argument("--shares", default="40,70,100", help="of experts in memory, in %%; 100: all")
    parser.add_argument("--tokens", type=int, default=48)
    parser.add_argument("--warm", type=int, default=64, help="tokens before them, for an empty memory to fill")
    parser.add_argument("--repeats", type=int, default=1, help="times that bench makes them, for a small model")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--context", type=int, default=128)
    parser.add_argument("--lookahead", default="0,0.7", help="shares of right guesses; 0: without looking ahead")
    args = parser.parse_args()

    print("| model | experts in memory | read over | guesses right | hits, %: predicted, happened | MB a token | "
          "waiting, % | tokens/s | off |")
    print("|---|--:|---|--:|--:|--:|--:|--:|--:|")
    offs = []
    with tempfile.TemporaryDirectory() as folder:
        for model in args.models:
            offs += compare(args, model, os.path.join(folder, "trace.jsonl"), os.path.join(folder, "used.jsonl"))
    print(f"\n{sum(off <= 0.1 for off in offs)} of {len(offs)} within 10 %, {sum(off <= 0.25 for off in offs)} within 25 %; "
          f"at most {100 * max(offs):.0f} % off")


def compare(args, model, trace, used):
    def run(*words):
        done = subprocess.run([args.moebius, *map(str, words)], capture_output=True, text=True)
        if done.returncode != 0:
            raise SystemExit(f"{words}: {done.stderr}")
        return json.loads(done.stdout)

    bench = ["bench", model, "-p", 0, "-n", args.tokens, "-r", args.repeats, "-t", args.threads, "-o", "json",
             "--warmup-tokens", args.warm]
    doctor = ["doctor", model, "-c", args.context, "-t", args.threads, "-o", "json"]
    one = ["bench", model, "-p", 0, "-n", 1, "-r", 1, "-t", args.threads, "-o", "json", "--no-warmup"]
    run(*bench, "--trace", trace)
    needs = run(*doctor, "--memory", "100GiB", "--dry-run")["needs"]
    for share in map(float, args.shares.split(",")):
        is_all = share >= 100
        limit = 100 << 30 if is_all else smallest_limit(run, one, needs, share)
        for link in ["disk"] if is_all else args.links.split(";"):
            for right in [0.0] if is_all else map(float, args.lookahead.split(",")):
                words = [] if link == "disk" else ["--link", link]
                guess = ["--lookahead", right] if right > 0 else ["--no-lookahead"]
                how = ["--routing", trace, "--right-guesses", right] if right > 0 else ["--no-lookahead"]
                asks = [*words, *guess, "--trace", used, "--warm", args.warm]
                pairs = []
                for _ in range(args.rounds):
                    did = run(*bench, "--memory", limit, *words, *how, "--trace", used)[0]
                    pairs.append((run(*doctor, "--memory", limit, *held_by(needs, did), *asks), did))
                yield show(model, share, link, right, pairs, args.tokens * args.repeats)


def smallest_limit(run, bench, needs, share):
    """The limit that leaves room for so many experts."""
    low, high = 1 << 20, sum(needs[what] for what in ("always_nbytes", "program_nbytes", "work_nbytes", "experts_nbytes"))
    while high - low > needs["experts_nbytes"] // 64:
        middle = (low + high) // 2
        try:
            did = run(*bench, "--memory", middle)[0]
            enough = "n_experts_held" not in did or 100 * did["n_experts_held"] >= share * did["n_experts"]
        except SystemExit:
            enough = False
        low, high = (low, middle) if enough else (middle, high)
    return high


def held_by(needs, did):
    """As many bytes of experts as bench had: a MiB that a program takes more is much of a small model."""
    if "n_experts_held" not in did:
        return []
    return ["--experts", needs["experts_nbytes"] * did["n_experts_held"] // did["n_experts"]]


def show(model, share, link, right, pairs, n_tokens):
    def of(values, form=".3g"):
        values = sorted(values)
        spread = f" ({values[0]:{form}} to {values[-1]:{form}})" if len(values) > 1 else ""
        return f"{statistics.median(values):{form}}{spread}"

    def both(predicted, happened, form=".3g"):
        return f"{statistics.median(predicted):{form}}, {statistics.median(happened):{form}}"

    predicted, happened = [said["tokens_per_s"] for said, _ in pairs], [did["avg_ts"] for _, did in pairs]
    off = statistics.median(predicted) / statistics.median(happened) - 1
    hits, read, waits = "all", "0, 0", "0, 0"
    said = [s["expected"] for s, _ in pairs if s["expected"]]
    did = [d for _, d in pairs if "experts_acquired" in d]
    if said and did:
        share = 100 * did[0]["n_experts_held"] / did[0]["n_experts"]
        hits = both([100 * s["hit_rate"] for s in said],
                    [100 * (1 - d["experts_missed"] / d["experts_acquired"]) for d in did], ".1f")
        read = both([s["nbytes_per_token"] / 1e6 for s in said], [d["read_nbytes"] / n_tokens / 1e6 for d in did])
        waits = both([100 * s["waiting"] for s in said], [100 * d["waited_seconds"] / d["seconds"] for d in did], ".0f")
    guesses = f"{100 * right:.0f} %" if right > 0 else "none"
    print(f"| {os.path.basename(os.path.normpath(model))} | {share:.0f} % | {link} | {guesses} | {hits} | {read} "
          f"| {waits} | {of(predicted)}, {of(happened)} | {100 * off:+.0f} % |", flush=True)
    return abs(off)


if __name__ == "__main__":
    main()
