"""Write tests/calibrate/data/moments.json: second moments of the inputs of the reference model's matrices.

    python3 tools/goldens/moments.py

The model is run by transformers; what its linear layers read is taken by hooks, and what experts read is computed from
the router's choice with numpy.  Of each input the golden keeps: vectors, sum of g^2, the trace of H, two of its
elements, and v^T H v for a fixed v.
"""

import json
import os

import numpy as np
import torch
from safetensors.torch import load_file
from tokenizers import Tokenizer
from transformers import AutoModelForCausalLM

REPO = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
REFERENCE = os.path.join(REPO, "models", "reference")
DATA = os.path.join(REPO, "tests", "calibrate", "data")
LAYERS = (0, 1, 8)
BOS, EOS = 0, 3


def read_windows():
    tokenizer = Tokenizer.from_file(os.path.join(REFERENCE, "tokenizer.json"))

    def encode(text):
        return tokenizer.encode(text, add_special_tokens=False).ids

    windows = []
    with open(os.path.join(DATA, "text.jsonl")) as lines:
        for line in lines:
            item = json.loads(line)
            if "text" in item:
                windows.append([BOS] + encode(item["text"]))
            else:
                prompt = f"<|begin|><|user|>{item['question']}<|end|><|assistant|>"
                windows.append(encode(prompt) + encode(item["reply"]) + [EOS])
    return windows


def silu(x):
    return x / (1 + np.exp(-x))


class Moments:
    def __init__(self):
        self.of = {}

    def add(self, name, x, g=None):
        """x [tokens][values], g [tokens]"""
        x = np.asarray(x, np.float64)
        g = np.ones(len(x)) if g is None else np.asarray(g, np.float64)
        h, n, gg = self.of.get(name, (0, 0, 0))
        y = x * g[:, None]
        self.of[name] = (h + y.T @ y, n + len(x), gg + float((g * g).sum()))


def read_weights(path):
    """Weights as float32."""
    return {name: t.float().numpy() for name, t in load_file(path).items()}


def watch(model, weights, moments):
    def linear(name, at):
        def hook(module, args):
            moments.add(name, args[0].detach().reshape(-1, args[0].shape[-1]).numpy())
        at.register_forward_pre_hook(hook)

    def experts(layer, mlp):
        def hook(module, args):
            x = args[0].detach().reshape(-1, args[0].shape[-1])
            _, gates, chosen = mlp.gate(x)
            x, gates, chosen = x.numpy(), gates.detach().numpy(), chosen.numpy()
            for e in range(model.config.n_routed_experts):
                tokens, which = np.nonzero(chosen == e)
                stem = f"model.layers.{layer}.mlp.experts.{e}."
                a = silu(x[tokens] @ weights[stem + "gate_proj.weight"].T) * (x[tokens] @ weights[stem + "up_proj.weight"].T)
                moments.add(stem + "gate_proj.weight", x[tokens], gates[tokens, which])
                moments.add(stem + "down_proj.weight", a, gates[tokens, which])
        mlp.register_forward_pre_hook(hook)

    for i in LAYERS:
        layer, stem = model.model.layers[i], f"model.layers.{i}."
        for name in ("q_proj", "o_proj", "kv_b_proj"):
            linear(stem + f"self_attn.{name}.weight", getattr(layer.self_attn, name))
        if hasattr(layer.mlp, "gate"):
            experts(i, layer.mlp)
            linear(stem + "mlp.shared_experts.gate_proj.weight", layer.mlp.shared_experts.gate_proj)
            linear(stem + "mlp.shared_experts.down_proj.weight", layer.mlp.shared_experts.down_proj)
        else:
            linear(stem + "mlp.gate_proj.weight", layer.mlp.gate_proj)
            linear(stem + "mlp.down_proj.weight", layer.mlp.down_proj)
    linear("lm_head.weight", model.lm_head)


def main():
    weights = read_weights(os.path.join(REFERENCE, "model.safetensors"))
    model = AutoModelForCausalLM.from_pretrained(REFERENCE, dtype=torch.float32).eval()
    moments = Moments()
    watch(model, weights, moments)
    windows = read_windows()
    with torch.no_grad():
        for window in windows:
            model(torch.tensor([window]), use_cache=False)
    inputs = []
    for name, (h, n, gg) in moments.of.items():
        if n == 0:
            inputs.append({"matrix": name, "n_tokens": 0})
            continue
        v = (np.arange(len(h)) * 37 + 11) % 64 / 32 - 1
        inputs.append({"matrix": name, "n_tokens": n, "sum_gg": float(f"{gg:.8g}"), "trace": float(f"{np.trace(h):.8g}"),
                       "h10": float(f"{h[1][0]:.8g}"), "h_last": float(f"{h[-1][-1]:.8g}"),
                       "quadratic": float(f"{v @ h @ v:.8g}")})
    with open(os.path.join(DATA, "moments.json"), "w") as out:
        out.write(json.dumps({"tokens": windows}).rstrip("}") + ',\n"inputs": [\n')
        out.write(",\n".join(json.dumps(i) for i in inputs) + "\n]}\n")
    print(len(inputs), "inputs,", sum(map(len, windows)), "tokens")


if __name__ == "__main__":
    main()
