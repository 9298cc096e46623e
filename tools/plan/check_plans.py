#!/usr/bin/env python3
"""Measures plans beside uniform bounds of their size, and how often predicted KL and size hold.

    check_plans.py MOEBIUS MODEL TEXT.jsonl --sensitivity FILE ... [--moments FILE] [--bits 2,2.5,3] [--random 20]

--bits: a plan by all sources for each, and a uniform one of its size. --random: plans of random policies, profiles and
bits, as many as N; counted is how often the measured KL is within the predicted interval, and the size within 1 %.
Plans for plain rounding are measured by one 'sweep --plan', those for feedback (--moments) each by a coded folder.
Experts alone are coded (--dense-bound 0). TEXT has to be what neither sources nor moments were made from. Prints one
JSON line a plan, then a summary.
"""
import argparse
import json
import os
import random
import sqlite3
import subprocess
import tempfile


def run(args, *words):
    command = [args.moebius, *words] + (["-t", str(args.threads)] if args.threads else [])
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def plan(args, path, options):
    sources = [word for source in args.sensitivity for word in ("--sensitivity", source)]
    moments = ["--moments", args.moments] if args.moments else []
    return json.loads(run(args, "plan", args.model, "-o", path, "--dense-bound", "0", "--format", "json", *sources,
                          *moments, *options))


def compare(args, folder, bits):
    made = plan(args, os.path.join(folder, "plan.json"), ["--target-bpw", bits, "--check", args.text])
    check = made["check"]
    return {"bits": bits, "kl": check["kl"], "kl_uniform": check["kl_uniform"],
            "ratio": check["kl"] / check["kl_uniform"], "predicted": made["kl"], "fell_back": check["fell_back"]}


def random_options(rng):
    options = ["--target-bpw", f"{rng.uniform(2, 4.2):.3f}"]
    policy = rng.choice(["uniform", "depth", "waterfill", "search"])
    if policy == "depth":
        bounds = [f"{name}={round(rng.uniform(20, 60))}%" for name in ("shallow", "middle", "deep")]
        options += ["--profile", ",".join(bounds)]
    return options + ["--policy", policy]


def sweep(args, folder, paths):
    """KL of each plan, rounded plainly."""
    results = os.path.join(folder, "results.db")
    plans = [word for path in paths for word in ("--plan", path)]
    run(args, "sweep", args.model, "-o", results, *plans, "--dense-bound", "0", "--kl", args.text, "--format", "json")
    with sqlite3.connect(results) as db:
        rows = db.execute("SELECT value FROM value WHERE name = 'kl' AND run > 0 ORDER BY run").fetchall()
    return [kl for kl, in rows]


def code(args, folder, path):
    """The report of compress; the KL of what it wrote, with feedback."""
    coded = os.path.join(folder, "coded")
    moments = ["--moments", args.moments] if args.moments else []
    report = json.loads(run(args, "compress", args.model, coded, "--force", "--dense-bound", "0", "--plan", path,
                            *moments, "-o", "json"))
    if not args.moments:
        return report, None
    return report, json.loads(run(args, "eval", coded, "--kl-divergence", args.model, "--task", args.text, "-o",
                                  "json"))["kl"]["mean"]


def check_random(args, folder):
    rng = random.Random(args.seed)
    chosen = [random_options(rng) for _ in range(args.random)]
    paths = [os.path.join(folder, f"plan-{i}.json") for i in range(args.random)]
    made = [plan(args, path, options) for path, options in zip(paths, chosen)]
    coded = [code(args, folder, path) for path in paths]
    measured = [kl for _, kl in coded] if args.moments else sweep(args, folder, paths)
    n_kl = n_size = 0
    for options, predicted, (report, _), kl in zip(chosen, made, coded, measured):
        size = predicted["coded_nbytes"] / report["coded"]["out_nbytes"]
        n_kl += predicted["kl_low"] <= kl <= predicted["kl_high"]
        n_size += abs(size - 1) <= 0.01
        print(json.dumps({"options": options, "bits": predicted["bits"], "kl": kl, "predicted": predicted["kl"],
                          "interval": [predicted["kl_low"], predicted["kl_high"]],
                          "measured / predicted": round(kl / predicted["kl"], 3),
                          "predicted / real size": round(size, 4)}), flush=True)
    print(json.dumps({"KL within the interval": n_kl, "size within 1 %": n_size, "of": args.random}))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("moebius")
    parser.add_argument("model")
    parser.add_argument("text")
    parser.add_argument("--sensitivity", action="append", default=[])
    parser.add_argument("--moments")
    parser.add_argument("--bits", default="")
    parser.add_argument("--random", type=int, default=0)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--threads", type=int, default=0)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        for bits in filter(None, args.bits.split(",")):
            print(json.dumps(compare(args, folder, bits)), flush=True)
        if args.random:
            check_random(args, folder)


if __name__ == "__main__":
    main()
