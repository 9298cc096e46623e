#!/usr/bin/env python3
"""Writes the sweep file that plans are made from: make_sweep.py MODEL TEXT.jsonl OUT.json [--windows 400]

All routed experts coded at several bounds, and with the shared ones; each layer's routed and shared experts by
themselves. TEXT has questions with replies, none of which a plan is to be measured on.
"""
import argparse
import json
import os

BOUNDS = ["20%", "30%", "45%", "65%", "100%", "150%"]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("text")
    parser.add_argument("out")
    parser.add_argument("--windows", type=int, default=400)
    args = parser.parse_args()
    with open(os.path.join(args.model, "config.json"), encoding="utf-8") as file:
        config = json.load(file)
    layers = range(config.get("first_k_dense_replace", 0), config["num_hidden_layers"])
    runs = [{"label": "all", "target": "experts=all", "error": "codec", "bound": BOUNDS},
            {"label": "layer", "target": [f"layer={layer} experts=all" for layer in layers], "error": "codec",
             "bound": "60%"}]
    if config.get("n_shared_experts"):
        runs += [{"label": "all", "target": "experts=all shared", "error": "codec", "bound": BOUNDS},
                 {"label": "shared", "target": [f"layer={layer} shared" for layer in layers], "error": "codec",
                  "bound": "80%"}]
    with open(args.out, "w", encoding="utf-8") as file:
        json.dump({"sweep": 1, "text": os.path.abspath(args.text), "windows": args.windows, "runs": runs}, file, indent=2)


if __name__ == "__main__":
    main()
