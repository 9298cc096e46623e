#!/usr/bin/env python3
"""Traces of the Fisher information of each routed expert, and of its inputs' moments, for comparison with measured KL.

    fisher.py MODEL TASK.jsonl RESULTS.db [--limit 256] > fisher.json

Every expert gets, from the questions and the clean run's replies in the results of a sweep (where it answered none: the
task's own replies), `fisher`: the trace of the Fisher information a reply token, estimated with one label drawn from the
model for each token (then the gradients of different tokens are uncorrelated, and the square of a sequence's gradient is,
on average, the sum over its tokens); `gate`, `up` and `down`: of these matrices alone; `moments`: the mean over reply
tokens of g^2 (|x|^2 x rows of gate and up + |h|^2 x rows of down), g the gate's weight, x and h the inputs of gate and
down.  An error of root mean square s in all of the expert's weights should cost s^2 / 2 x fisher nats a token while it is
small.  Shared experts have the number -1, and no moments.

Needs torch and transformers.
"""
import argparse
import json
import sqlite3

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer


def mean_square(experts, e):
    """Of an expert's weights."""
    weights = torch.cat([experts.gate_up_proj[e].detach().flatten(), experts.down_proj[e].detach().flatten()])
    return float(weights.double().square().mean())


def traces(name, expert, each):
    return {"layer": int(name.split(".layers.")[1].split(".")[0]), "expert": expert, "fisher": float(each.sum()),
            "gate": float(each[0]), "up": float(each[1]), "down": float(each[2])}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("task")
    parser.add_argument("results")
    parser.add_argument("--limit", type=int, default=256)
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    torch.manual_seed(args.seed)
    tok = AutoTokenizer.from_pretrained(args.model)
    model = AutoModelForCausalLM.from_pretrained(args.model, dtype=torch.float32, experts_implementation="eager")
    model.eval()
    experts = {name: module for name, module in model.named_modules() if hasattr(module, "gate_up_proj")}
    shared = {name: module for name, module in model.named_modules() if name.endswith(("shared_experts", "shared_expert"))}
    for p in model.parameters():
        p.requires_grad_(False)
    for module in [*experts.values(), *shared.values()]:
        module.requires_grad_(True)

    moments = {name: torch.zeros(module.gate_up_proj.shape[0], dtype=torch.float64) for name, module in experts.items()}
    scored = None  # the scored tokens of the sequence that is read

    def watch(name):
        def hook(module, arguments, keywords, output):
            x, index, weight = [*arguments, *keywords.values()][:3]
            x = x.reshape(-1, x.shape[-1])
            for e in range(module.gate_up_proj.shape[0]):
                token, place = torch.where(index.reshape(len(x), -1) == e)
                keep = scored[token]
                token, place = token[keep], place[keep]
                if len(token) == 0:
                    continue
                g = weight.reshape(len(x), -1)[token, place].detach().double()
                gate, up = (x[token].detach() @ module.gate_up_proj[e].detach().t()).chunk(2, -1)
                h = torch.nn.functional.silu(gate) * up
                rows = module.gate_up_proj.shape[1] * x[token].detach().double().square().sum(1)
                rows = rows + module.down_proj.shape[1] * h.double().square().sum(1)
                moments[name][e] += (g.square() * rows).sum()
        return hook

    for name, module in experts.items():
        module.register_forward_hook(watch(name), with_kwargs=True)
    fisher = {name: torch.zeros(len(m), 3, dtype=torch.float64) for name, m in moments.items()}
    fisher.update({name: torch.zeros(1, 3, dtype=torch.float64) for name in shared})
    n_tokens = 0
    with open(args.task, encoding="utf-8") as file:
        items = [json.loads(line) for line, _ in zip(file, range(args.limit))]
    replies = dict(sqlite3.connect(args.results).execute("SELECT question, text FROM reply WHERE run = 0"))
    if not replies:
        replies = {number: item.get("reply", item["answer"]) for number, item in enumerate(items)}
    for number, item in enumerate(items):
        chat = [{"role": "user", "content": item["question"]}]
        prompt = tok.apply_chat_template(chat, add_generation_prompt=True, tokenize=False)
        begin = tok(prompt, add_special_tokens=False)["input_ids"]
        reply = tok(replies[number] + "<|end|>", add_special_tokens=False)["input_ids"]
        ids = torch.tensor([begin + reply])
        places = torch.arange(len(begin) - 1, ids.shape[1] - 1)
        scored = torch.zeros(ids.shape[1], dtype=torch.bool)
        scored[places] = True
        logp = torch.log_softmax(model(ids).logits[0, places], -1)
        drawn = torch.multinomial(logp.detach().exp(), 1)
        model.zero_grad(set_to_none=True)
        logp.gather(1, drawn).sum().backward()
        n_tokens += len(places)
        for name, module in experts.items():
            gate, up = module.gate_up_proj.grad.chunk(2, 1)
            for k, grad in enumerate((gate, up, module.down_proj.grad)):
                fisher[name][:, k] += grad.double().square().flatten(1).sum(1)
        for name, module in shared.items():
            for k, p in enumerate((module.gate_proj, module.up_proj, module.down_proj)):
                fisher[name][0, k] += p.weight.grad.double().square().sum()
    rows = [traces(name, e, fisher[name][e] / n_tokens) |
            {"moments": float(moments[name][e]) / n_tokens, "mean_square": mean_square(experts[name], e)}
            for name in experts for e in range(len(moments[name]))]
    rows += [traces(name, -1, fisher[name][0] / n_tokens) for name in shared]
    model_hash = dict(sqlite3.connect(args.results).execute("SELECT key, value FROM manifest"))["model_hash"]
    print(json.dumps({"model": args.model, "model_hash": model_hash, "n_tokens": n_tokens, "experts": rows}))


if __name__ == "__main__":
    main()
