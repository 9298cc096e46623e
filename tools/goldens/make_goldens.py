"""Write the small random checkpoints and the goldens of tests/model/data and tests/lab/data.

    python3 tools/goldens/make_goldens.py [NAME]...

PyPI: torch, transformers (5.24.0 made the kept files), safetensors, tokenizers, numpy, jinja2.  See README.md.
"""

import json
import math
import os
import sys
import tempfile

import numpy as np
import torch
from tokenizers import Tokenizer

import deepseek_v2
import deepseek_v3
import dots1
import ernie4_5_moe
import glm4_moe
import glm4_moe_lite
import granitemoe
import granitemoeshared
import minimax_m2
import mixtral
import olmoe
import phimoe
import qwen2_moe
import qwen3_moe
import truth
from checkpoint import write_as_float32, write_checkpoint

REPO = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
DATA = os.path.join(REPO, "tests", "model", "data")
LAB_DATA = os.path.join(REPO, "tests", "lab", "data")
FAMILIES = [deepseek_v2, deepseek_v3, dots1, ernie4_5_moe, glm4_moe, glm4_moe_lite, granitemoe, granitemoeshared, minimax_m2,
            mixtral, olmoe, phimoe, qwen2_moe, qwen3_moe]
VARIANTS = [variant for family in FAMILIES for variant in family.VARIANTS]
REFERENCE = os.path.join(REPO, "models", "reference")
SECOND = os.path.join(REPO, "models", "reference-qwen3")

# No choice of a small checkpoint's golden is closer than this, so that its expert sets must be equal.
MARGIN_MIN = 2e-3


def write_golden(name, tokens, logits, experts, margins):
    folder = os.path.join(DATA, "goldens", name)
    os.makedirs(folder, exist_ok=True)
    np.save(os.path.join(folder, "tokens.npy"), np.asarray(tokens, np.int32))
    np.save(os.path.join(folder, "logits.npy"), np.ascontiguousarray(logits, np.float32))
    np.save(os.path.join(folder, "experts.npy"), experts)
    np.save(os.path.join(folder, "router_margin.npy"), margins)
    top = np.sort(logits, -1)
    print(f"{name}: {len(tokens)} tokens, max |logit| {np.abs(logits).max():.2f}, deviation {logits.std():.2f}, "
          f"smallest router margin {margins.min():.1e}, smallest top-1 margin {(top[:, -1] - top[:, -2]).min():.1e}")


def small_golden(variant):
    folder = os.path.join(DATA, "checkpoints", variant.name)
    write_checkpoint(variant, folder)
    if not variant.fp8_blocks:
        golden_of(variant, folder)
        return
    with tempfile.TemporaryDirectory() as plain:
        write_as_float32(variant, plain)
        golden_of(variant, plain)


def golden_of(variant, folder):
    model = truth.load(folder)
    for seed in range(4000):
        rng = np.random.default_rng(seed)
        tokens = rng.integers(0, variant.config["vocab_size"], variant.n_tokens)
        logits, experts, margins, group_margins = truth.run(model, tokens)
        if min(margins.min(), group_margins.min()) >= MARGIN_MIN:
            break
    else:
        raise SystemExit(f"{variant.name}: no tokens with clear choices")
    exact = truth.run(truth.load(folder, torch.float64), tokens)[0]
    print(f"{variant.name}: tokens of seed {seed}; float32 is {np.abs(exact - logits).max() / np.abs(exact).max():.1e} "
          "from float64")
    write_golden(variant.name, tokens, logits[-variant.n_rows:], experts, margins)


def chat_ids(tokenizer, question):
    return tokenizer.encode(f"<|begin|><|user|>{question}<|end|><|assistant|>", add_special_tokens=False).ids


@torch.no_grad()
def greedy(model, ids, n_predict):
    ids = list(ids)
    for _ in range(n_predict):
        ids.append(int(model(torch.tensor([ids]), use_cache=False).logits[0, -1].argmax()))
        if ids[-1] == model.config.eos_token_id:
            break
    return ids


def reference_goldens():
    """Three problems with the model's greedy replies, and a text that fills the context (its last 24 logits)."""
    model = truth.load(REFERENCE)
    tokenizer = Tokenizer.from_file(os.path.join(REFERENCE, "tokenizer.json"))
    with open(os.path.join(REFERENCE, "eval.jsonl")) as f:
        problems = [json.loads(next(f)) for _ in range(3)]
    for i, problem in enumerate(problems):
        ids = greedy(model, chat_ids(tokenizer, problem["question"]), 64)
        write_golden(f"reference-{i}", ids, *truth.run(model, ids)[:3])
    with open(os.path.join(LAB_DATA, "perplexity.txt")) as f:
        ids = tokenizer.encode(f.read(), add_special_tokens=False).ids[:model.config.max_position_embeddings]
    logits, experts, margins, _ = truth.run(model, ids)
    write_golden("reference-long", ids, logits[-24:], experts, margins)


def second_golden():
    """One problem with the second model's greedy reply."""
    model = truth.load(SECOND)
    tokenizer = Tokenizer.from_file(os.path.join(SECOND, "tokenizer.json"))
    with open(os.path.join(REFERENCE, "eval.jsonl")) as f:
        problem = json.loads(next(f))
    ids = greedy(model, chat_ids(tokenizer, problem["question"]), 64)
    write_golden("reference-qwen3", ids, *truth.run(model, ids)[:3])


@torch.no_grad()
def perplexity_golden():
    """As llama-perplexity: BOS and the text cut in windows, BOS put first in each, the second half scored."""
    model = truth.load(REFERENCE)
    tokenizer = Tokenizer.from_file(os.path.join(REFERENCE, "tokenizer.json"))
    bos = model.config.bos_token_id
    with open(os.path.join(LAB_DATA, "perplexity.txt")) as f:
        ids = [bos] + tokenizer.encode(f.read(), add_special_tokens=False).ids
    out = []
    for n_ctx in (64, 96):
        nll = []
        for start in range(0, len(ids) - n_ctx + 1, n_ctx):
            window = torch.tensor([[bos] + ids[start + 1:start + n_ctx]])
            logp = model(window, use_cache=False).logits[0].double().log_softmax(-1)
            nll += [-float(logp[i, window[0, i + 1]]) for i in range(n_ctx // 2, n_ctx - 1)]
        mean, var = np.mean(nll), np.mean(np.square(nll)) - np.mean(nll) ** 2
        ppl = math.exp(mean)
        out.append({"n_ctx": n_ctx, "n_windows": len(ids) // n_ctx, "n_scored": len(nll), "nll_mean": mean,
                    "ppl": ppl, "ppl_stderr": ppl * math.sqrt(var / (len(nll) - 1))})
        print("perplexity:", out[-1])
    with open(os.path.join(LAB_DATA, "perplexity.json"), "w") as f:
        json.dump(out, f, indent=1)
        f.write("\n")


def main():
    torch.set_num_threads(1)
    wanted = sys.argv[1:]
    for variant in VARIANTS:
        if not wanted or variant.name in wanted:
            small_golden(variant)
    if not wanted or "reference" in wanted:
        reference_goldens()
    if not wanted or "reference-qwen3" in wanted:
        second_golden()
    if not wanted or "perplexity" in wanted:
        perplexity_golden()


if __name__ == "__main__":
    main()
