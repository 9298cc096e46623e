"""Train the second reference model: Qwen3-MoE's form, AdamW.

What is measured on one model may be its habit.  This one differs from the first in what could matter: grouped-query
attention with head norms instead of latent attention, softmax routing whose load is balanced by a loss term, no shared
expert, no dense layer, deeper and narrower, and AdamW on everything.  Problems, text and tokenizer are the same.

    python3 train_second.py --data ../data --tokenizer ../../models/reference/tokenizer.json --out second

2,400 steps of 4,096 tokens. Goes on from OUT/state.pt where that exists (remove it when the folder is done), with
text and problems that it has not seen.
"""

import argparse
import json
import os
import time

import torch
import torch.nn as nn
import torch.nn.functional as F
from tokenizers import Tokenizer

from train import SPECIAL, TEMPLATE, Experts, RMSNorm, Stream, prose, score

CONFIG = dict(
    architectures=["Qwen3MoeForCausalLM"], model_type="qwen3_moe",
    vocab_size=2048, hidden_size=192, intermediate_size=512, moe_intermediate_size=96,
    num_hidden_layers=12, decoder_sparse_step=1, mlp_only_layers=[],
    num_experts=16, num_experts_per_tok=4, norm_topk_prob=True, router_aux_loss_coef=0.01,
    num_attention_heads=6, num_key_value_heads=2, head_dim=32,
    hidden_act="silu", rms_norm_eps=1e-6, rope_theta=10000.0, rope_scaling=None,
    max_position_embeddings=256, attention_bias=False, attention_dropout=0.0,
    use_sliding_window=False, sliding_window=None,
    tie_word_embeddings=False, torch_dtype="bfloat16", initializer_range=0.02,
    bos_token_id=0, eos_token_id=3, pad_token_id=4, use_cache=True,
)


def rotate(x, cos, sin):
    """Rotary embedding in halves, as Qwen3."""
    half = x.shape[-1] // 2
    a, b = x[..., :half], x[..., half:]
    return torch.cat([a * cos - b * sin, b * cos + a * sin], -1)


class Attention(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.h, self.kv, self.d = c["num_attention_heads"], c["num_key_value_heads"], c["head_dim"]
        self.q_proj = nn.Linear(c["hidden_size"], self.h * self.d, bias=False)
        self.k_proj = nn.Linear(c["hidden_size"], self.kv * self.d, bias=False)
        self.v_proj = nn.Linear(c["hidden_size"], self.kv * self.d, bias=False)
        self.o_proj = nn.Linear(self.h * self.d, c["hidden_size"], bias=False)
        self.q_norm, self.k_norm = RMSNorm(self.d, c["rms_norm_eps"]), RMSNorm(self.d, c["rms_norm_eps"])

    def forward(self, x, cos, sin):
        B, T, _ = x.shape
        q = rotate(self.q_norm(self.q_proj(x).view(B, T, self.h, self.d)).transpose(1, 2), cos, sin)
        k = rotate(self.k_norm(self.k_proj(x).view(B, T, self.kv, self.d)).transpose(1, 2), cos, sin)
        v = self.v_proj(x).view(B, T, self.kv, self.d).transpose(1, 2)
        share = self.h // self.kv
        out = F.scaled_dot_product_attention(q, k.repeat_interleave(share, 1), v.repeat_interleave(share, 1), is_causal=True)
        return self.o_proj(out.transpose(1, 2).reshape(B, T, self.h * self.d))


class MoE(nn.Module):
    def __init__(self, c):
        super().__init__()
        E, d, f = c["num_experts"], c["hidden_size"], c["moe_intermediate_size"]
        self.k, self.E = c["num_experts_per_tok"], E
        self.router = nn.Parameter(torch.empty(E, d))
        self.gate_up, self.down = nn.Parameter(torch.empty(E, 2, f, d)), nn.Parameter(torch.empty(E, d, f))
        self.balance = None

    def forward(self, x):
        B, T, d = x.shape
        flat = x.reshape(-1, d)
        with torch.autocast("cpu", enabled=False):
            p = torch.softmax(flat.float() @ self.router.t(), -1)
        w, top = torch.topk(p, self.k, dim=-1)
        y, load = Experts.apply(flat, w / w.sum(-1, keepdim=True), self.gate_up.flatten(1, 2), self.down, top)
        # Load balance of the Switch Transformer, for k experts a token: 1 where all are used alike.
        self.balance = self.E * (load / load.sum() * p.mean(0)).sum()
        return y.view(B, T, d)


class Layer(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.input_layernorm = RMSNorm(c["hidden_size"], c["rms_norm_eps"])
        self.post_attention_layernorm = RMSNorm(c["hidden_size"], c["rms_norm_eps"])
        self.self_attn, self.mlp = Attention(c), MoE(c)

    def forward(self, x, cos, sin):
        x = x + self.self_attn(self.input_layernorm(x), cos, sin)
        return x + self.mlp(self.post_attention_layernorm(x))


class Model(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.c = c
        self.embed_tokens = nn.Embedding(c["vocab_size"], c["hidden_size"])
        self.layers = nn.ModuleList(Layer(c) for _ in range(c["num_hidden_layers"]))
        self.norm = RMSNorm(c["hidden_size"], c["rms_norm_eps"])
        self.lm_head = nn.Linear(c["hidden_size"], c["vocab_size"], bias=False)
        for p in self.parameters():
            if p.dim() > 1:
                nn.init.normal_(p, std=c["initializer_range"])
        for layer in self.layers:
            for w in (layer.self_attn.o_proj.weight, layer.mlp.down):
                w.data /= (2 * c["num_hidden_layers"]) ** 0.5

    def forward(self, tokens):
        d, T = self.c["head_dim"], tokens.shape[1]
        inv = self.c["rope_theta"] ** (-torch.arange(0, d, 2).float() / d)
        angle = torch.arange(T).float()[:, None] * inv
        x = self.embed_tokens(tokens)
        cos, sin = angle.cos().to(x.dtype), angle.sin().to(x.dtype)
        for layer in self.layers:
            x = layer(x, cos, sin)
        return self.lm_head(self.norm(x))


def export(model, tok, out):
    """Write a Hugging Face folder that transformers' Qwen3MoeForCausalLM loads."""
    from safetensors.torch import save_file
    state = {}
    for name, p in model.state_dict().items():
        p = p.detach().to(torch.bfloat16)
        if name.endswith("mlp.router"):
            state["model." + name.replace("router", "gate.weight")] = p.clone()
        elif name.endswith((".gate_up", ".mlp.down")):
            base = name.rsplit(".", 1)[0]
            for e in range(p.shape[0]):
                for kind, w in [("down", p[e])] if p.dim() == 3 else [("gate", p[e, 0]), ("up", p[e, 1])]:
                    state[f"model.{base}.experts.{e}.{kind}_proj.weight"] = w.contiguous().clone()
        else:
            state[("" if name.startswith("lm_head") else "model.") + name] = p.clone()
    save_file(state, os.path.join(out, "model.safetensors"), metadata={"format": "pt"})
    settings = {
        "config.json": CONFIG,
        "tokenizer_config.json": dict(tokenizer_class="PreTrainedTokenizerFast", bos_token=SPECIAL[0], eos_token=SPECIAL[3],
                                      pad_token=SPECIAL[4], model_max_length=CONFIG["max_position_embeddings"], chat_template=TEMPLATE),
        "generation_config.json": dict(bos_token_id=0, eos_token_id=3, pad_token_id=4, do_sample=False),
    }
    for name, value in settings.items():
        with open(os.path.join(out, name), "w", encoding="utf-8") as file:
            json.dump(value, file, indent=2)
    tok.save(os.path.join(out, "tokenizer.json"))


def train(model, stream, args, state_path):
    """AdamW; linear warm-up, constant for half of the steps, linear decay to 2 %."""
    decayed = [p for n, p in model.named_parameters() if p.dim() > 1]
    others = [p for n, p in model.named_parameters() if p.dim() <= 1]
    opt = torch.optim.AdamW([dict(params=decayed, weight_decay=0.1), dict(params=others, weight_decay=0.0)],
                            lr=args.lr, betas=(0.9, 0.95), fused=True)
    step, used, mean = 0, 0.0, None  # seconds of earlier runs
    if os.path.exists(state_path):
        state = torch.load(state_path)
        model.load_state_dict(state["model"])
        opt.load_state_dict(state["opt"])
        step, used = state["step"], state["used"]
    begin = mark = time.time()
    while step < args.steps:
        done = step / args.steps
        lr = args.lr * min(1, (step + 1) / 200) * (1 if done < 0.5 else max(0.02, (1 - done) / 0.5))
        for group in opt.param_groups:
            group["lr"] = lr
        x, y, weight = stream.next()
        with torch.autocast("cpu", dtype=torch.bfloat16):
            logits = model(x)
        loss = F.cross_entropy(logits.float().flatten(0, 1), y.flatten(), reduction="none") @ weight.flatten() / weight.sum()
        balance = sum(layer.mlp.balance for layer in model.layers)
        opt.zero_grad(set_to_none=True)
        (loss + CONFIG["router_aux_loss_coef"] * balance).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        opt.step()
        mean = loss.item() if mean is None else 0.98 * mean + 0.02 * loss.item()
        step += 1
        if step % 50 == 0:
            rate = 50 * args.batch * args.length / (time.time() - mark)
            mark = time.time()
            print(f"{(used + time.time() - begin) / 60:6.1f} min  step {step:6d}  loss {mean:.4f}  balance {balance.item() / len(model.layers):.3f}"
                  f"  lr {lr:.5f}  {rate:7.0f} tokens/s", flush=True)
        if step % 250 == 0:
            state = dict(model=model.state_dict(), opt=opt.state_dict(), step=step, used=used + time.time() - begin)
            torch.save(state, state_path + ".new")
            os.replace(state_path + ".new", state_path)


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--data", required=True)
    p.add_argument("--tokenizer", required=True)
    p.add_argument("--out", required=True)
    p.add_argument("--steps", type=int, default=2400)
    p.add_argument("--batch", type=int, default=16)
    p.add_argument("--length", type=int, default=256)
    p.add_argument("--lr", type=float, default=2e-3)
    p.add_argument("--seed", type=int, default=2)
    p.add_argument("--threads", type=int, default=os.cpu_count())
    args = p.parse_args()
    torch.manual_seed(args.seed)
    torch.set_num_threads(args.threads)
    os.makedirs(args.out, exist_ok=True)
    tok = Tokenizer.from_file(args.tokenizer)
    model = Model(CONFIG)
    for layer in model.layers:  # fused, which needs a C++ compiler
        for part in (layer.self_attn, layer.input_layernorm, layer.post_attention_layernorm):
            part.compile()
    state_path = os.path.join(args.out, "state.pt")
    done = torch.load(state_path)["step"] if os.path.exists(state_path) else 0
    stream = Stream(tok, prose(args.data), args.batch, args.length, args.seed + done)
    print(f"{sum(q.numel() for q in model.parameters()) / 1e6:.1f} M parameters", flush=True)
    train(model, stream, args, state_path)
    export(model, tok, args.out)
    print("final ICA %.3f PIA %.3f" % score(model, tok, 500, 1), flush=True)


if __name__ == "__main__":
    main()
