#!/usr/bin/env python3
"""Writes the sweep files that docs/findings.md is made of, for a model: make_sweeps.py MODEL OUT [--bound 200%]

OUT/errors.json     all experts under normal, uniform and coded errors from 30 % to 400 %; each MoE layer by itself
                    at --bound; the most and the least used expert of a layer, and of all layers, taken away
OUT/experts.json    each routed expert by itself, coded at --expert-bound, on 128 questions: KL alone is of interest
"""
import argparse
import json
import os

BOUNDS = ["30%", "80%", "150%", "200%", "300%", "400%"]


def moe_layers(config):
    n = config["num_hidden_layers"]
    return range(config.get("first_k_dense_replace", 0), n)


def errors(config, bound):
    layers = [f"layer={layer}" for layer in moe_layers(config)]
    used = ["experts=top1", "experts=cold1"]
    groups = used + ["experts=cold4"]
    return [
        {"label": "all", "target": "experts=all", "error": ["normal", "uniform", "codec"], "bound": BOUNDS},
        {"label": "all", "target": "experts=all", "error": "gauss-iso", "bound": ["200%", "300%"]},
        {"label": "layer", "target": [f"{layer} experts=all" for layer in layers], "error": ["normal", "codec"],
         "bound": bound},
        {"label": "use", "target": [f"{layer} {which}" for layer in layers for which in used], "error": "zero"},
        {"label": "use", "target": groups, "error": ["zero", "drop", "random"]},
    ]


def experts(config, bound):
    n_experts = config.get("n_routed_experts") or config["num_experts"]
    targets = [f"layer={layer} expert={expert}" for layer in moe_layers(config) for expert in range(n_experts)]
    return [{"label": "expert", "target": targets, "error": "codec", "bound": bound}]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("out")
    parser.add_argument("--task", help="questions (default: eval.jsonl beside the model, or the reference model's)")
    parser.add_argument("--bound", default="200%")
    parser.add_argument("--expert-bound", default="80%")
    args = parser.parse_args()
    with open(os.path.join(args.model, "config.json"), encoding="utf-8") as file:
        config = json.load(file)
    task = args.task or os.path.join(args.model, "eval.jsonl")
    os.makedirs(args.out, exist_ok=True)
    files = {
        "errors.json": {"sweep": 1, "task": os.path.abspath(task), "limit": 1000, "seeds": 3,
                        "runs": errors(config, args.bound)},
        "experts.json": {"sweep": 1, "task": os.path.abspath(task), "limit": 128, "seeds": 1,
                         "runs": experts(config, args.expert_bound)},
    }
    for name, sweep in files.items():
        with open(os.path.join(args.out, name), "w", encoding="utf-8") as file:
            json.dump(sweep, file, indent=2)


if __name__ == "__main__":
    main()
