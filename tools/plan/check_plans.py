#!/usr/bin/env python3
"""Measures plans beside uniform bounds of their size, and how often predicted KL and size hold.

    check_plans.py MOEBIUS MODEL TEXT.jsonl --sensitivity FILE ... [--moments FILE] [--bits 2,2.5,3] [--random 20]

--bits: a plan by all sources for each, and a uniform one of its size. --random: plans of random policies, profiles and
bits; counted is how often the measured KL is within the predicted interval. Experts alone are coded (--dense-bound 0).
TEXT has to be what neither sources nor moments were made from. Prints one JSON line a plan, then a summary.
"""
import argparse
import json
import os
import random
import subprocess
import tempfile


def plan(args, options):
    with tempfile.TemporaryDirectory() as folder:
        command = [args.moebius, "plan", args.model, "-o", os.path.join(folder, "plan.json"), "--dense-bound", "0",
                   "--check", args.text, "--format", "json", *options]
        for path in args.sensitivity:
            command += ["--sensitivity", path]
        if args.moments:
            command += ["--moments", args.moments]
        if args.threads:
            command += ["-t", str(args.threads)]
        return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def random_options(rng):
    options = ["--target-bpw", f"{rng.uniform(2, 4.2):.3f}"]
    policy = rng.choice(["uniform", "depth", "waterfill", "search"])
    if policy == "depth":
        bounds = [f"{name}={round(rng.uniform(20, 60))}%" for name in ("shallow", "middle", "deep")]
        options += ["--profile", ",".join(bounds)]
    return options + ["--policy", policy]


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
    rng = random.Random(args.seed)
    for bits in filter(None, args.bits.split(",")):
        made = plan(args, ["--target-bpw", bits])
        check = made["check"]
        print(json.dumps({"bits": bits, "kl": check["kl"], "kl_uniform": check["kl_uniform"],
                          "ratio": check["kl"] / check["kl_uniform"], "predicted": made["kl"],
                          "fell_back": check["fell_back"]}), flush=True)
    held = 0
    for _ in range(args.random):
        options = random_options(rng)
        made = plan(args, options)
        check = made["check"]
        kl = check["kl_uniform"] if check["fell_back"] else check["kl"]  # of the plan that was written
        held += made["kl_low"] <= kl <= made["kl_high"]
        print(json.dumps({"options": options, "written": made["policy"], "kl": kl, "predicted": made["kl"],
                          "measured / predicted": kl / made["kl"]}), flush=True)
    if args.random:
        print(json.dumps({"within the interval": held, "of": args.random}))


if __name__ == "__main__":
    main()
