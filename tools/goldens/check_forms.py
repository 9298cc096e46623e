"""Do folders whose experts are fused, or whose names have prefixes, come back as `transformers` wrote them?

    python3 tools/goldens/check_forms.py MOEBIUS

For each family and form a small random model is saved by `transformers`, compressed, verified, decompressed
and loaded: no key may be missing or unexpected, every weight keeps to its bound, and with all bounds 0 every
weight is the same.  Where Moebius runs the family, its logits on the coded folder are those of `transformers`
on the decompressed one.  PyPI: torch, transformers, safetensors, numpy.
"""

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import torch
import transformers
from safetensors.torch import load_file
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForImageTextToText

BASE = {"vocab_size": 96, "hidden_size": 64, "intermediate_size": 48, "num_hidden_layers": 2,
        "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 64,
        "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0, "tie_word_embeddings": False}
MOE = {"moe_intermediate_size": 40, "num_experts_per_tok": 2, "head_dim": 16}
VISION = {"depth": 1, "hidden_size": 32, "intermediate_size": 32, "num_heads": 2, "out_hidden_size": 64,
          "patch_size": 4, "deepstack_visual_indexes": [0]}

# name: model_type, settings, whether Moebius runs it.
FAMILIES = {
    "mixtral": ("mixtral", {"num_local_experts": 4, "num_experts_per_tok": 2}, True),
    "phimoe": ("phimoe", {"num_local_experts": 4, "num_experts_per_tok": 2}, True),
    "qwen3_moe": ("qwen3_moe", {**MOE, "num_experts": 4}, True),
    "deepseek_v3": ("deepseek_v3", {
        **MOE, "n_routed_experts": 4, "n_group": 1, "topk_group": 1, "q_lora_rank": 16, "kv_lora_rank": 16,
        "qk_rope_head_dim": 8, "qk_nope_head_dim": 8, "v_head_dim": 16, "first_k_dense_replace": 1,
        "num_key_value_heads": 4, "head_dim": 8}, True),
    "glm4_moe": ("glm4_moe", {**MOE, "n_routed_experts": 4, "n_group": 1, "topk_group": 1,
                              "first_k_dense_replace": 1}, True),
    "olmoe": ("olmoe", {"num_experts": 4, "num_experts_per_tok": 2}, True),
    "granitemoe": ("granitemoe", {"num_local_experts": 4, "num_experts_per_tok": 2}, True),
    "granitemoeshared": ("granitemoeshared", {"num_local_experts": 4, "num_experts_per_tok": 2,
                                              "shared_intermediate_size": 24}, True),
    "qwen3_5_moe_text": ("qwen3_5_moe_text", {**MOE, "shared_expert_intermediate_size": 32,
                                              "num_experts": 4}, False),
    "llama4_text": ("llama4_text", {"intermediate_size_mlp": 40, "num_local_experts": 4,
                                    "num_experts_per_tok": 1, "head_dim": 16}, False),
    "gpt_oss": ("gpt_oss", {"num_local_experts": 4, "num_experts_per_tok": 2, "head_dim": 16}, False),
    "qwen3_vl_moe": ("qwen3_vl_moe", {
        "text_config": {**BASE, **MOE, "num_experts": 4, "rope_parameters": {
            "rope_type": "default", "mrope_section": [4, 2, 2], "rope_theta": 10000.0}},
        "vision_config": VISION}, False),
    "glm4v_moe": ("glm4v_moe", {
        "text_config": {**BASE, **MOE, "n_routed_experts": 4, "n_group": 1, "topk_group": 1,
                        "first_k_dense_replace": 1, "rope_parameters": {
                            "rope_type": "default", "mrope_section": [4, 2, 2], "rope_theta": 10000.0,
                            "partial_rotary_factor": 1.0}},
        "vision_config": {"depth": 1, "hidden_size": 32, "intermediate_size": 32, "num_heads": 2,
                          "out_hidden_size": 64, "patch_size": 4}}, False),
}


def make(model_type, settings):
    config = AutoConfig.for_model(model_type, **settings) if "text_config" in settings else \
        AutoConfig.for_model(model_type, **{**BASE, **settings})
    auto = AutoModelForImageTextToText if "text_config" in settings else AutoModelForCausalLM
    torch.manual_seed(7)
    return auto, auto.from_config(config).float().eval()


def tensors(folder):
    return {name: tensor for path in Path(folder).glob("*.safetensors") for name, tensor in load_file(path).items()}


def load(auto, folder):
    model, info = auto.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager",
                                       output_loading_info=True)
    wrong = {key: list(info[key]) for key in ("missing_keys", "unexpected_keys", "mismatched_keys") if info[key]}
    if wrong:
        raise SystemExit(f"{folder}: {wrong}")
    return model.eval()


def there_and_back(moebius, folder, work, options):
    coded, plain = work / "coded", work / "plain"
    subprocess.run(["rm", "-rf", coded, plain], check=True)
    for words in (["compress", folder, coded, *options], ["verify", coded, folder], ["decompress", coded, plain]):
        done = subprocess.run([moebius, *words], capture_output=True, text=True)
        if done.returncode != 0:
            raise SystemExit(f"{folder}: {' '.join(map(str, words))}: {done.stderr}")
    return coded, plain


def logits_differ(moebius, coded, model, work):
    ids = [(31 * i + 7) % 90 + 3 for i in range(24)]
    (work / "tokens").write_text(" ".join(map(str, ids)))
    done = subprocess.run([moebius, "eval", coded, "--tokens", work / "tokens", "--logits", work / "logits.npy"],
                          capture_output=True, text=True)
    if done.returncode != 0:
        return f"not run: {done.stderr.strip()[-100:]}", False
    theirs = model(torch.tensor([ids])).logits[0].detach().numpy()
    ours = np.load(work / "logits.npy")
    diff = float(np.abs(ours - theirs).max() / np.abs(theirs).max())
    return f"logits {diff:.1e}", diff <= 2e-3


def check(moebius, name, form, work):
    model_type, settings, is_run = FAMILIES[name]
    auto, model = make(model_type, settings)
    folder = work / "model"
    subprocess.run(["rm", "-rf", folder], check=True)
    model.save_pretrained(folder, save_original_format=form == "published")
    original = tensors(folder)
    _, plain = there_and_back(moebius, folder, work, ["--bound", "0", "--dense-bound", "0"])
    exact = tensors(plain)
    if exact.keys() != original.keys():
        raise SystemExit(f"{name}: {sorted(exact.keys() ^ original.keys())}")
    for key, tensor in original.items():
        if not torch.equal(tensor, exact[key]):
            raise SystemExit(f"{name}: {key} differs")
    coded, plain = there_and_back(moebius, folder, work, [])
    again = load(auto, plain)
    n_fused = sum(t.dim() == 3 and ("experts" in k or "put_linear" in k) for k, t in original.items())
    text, is_good = logits_differ(moebius, coded, again, work) if is_run else ("loads", True)
    print(f"{name}, {form}: {len(original)} tensors, {n_fused} of them fused, as they were; {text}", flush=True)
    return is_good


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("moebius")
    parser.add_argument("families", nargs="*")
    args = parser.parse_args()
    transformers.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    is_good = True
    with tempfile.TemporaryDirectory() as folder:
        for name in args.families or FAMILIES:
            for form in ("published", "modules"):
                is_good &= check(args.moebius, name, form, Path(folder))
    return 0 if is_good else 1


if __name__ == "__main__":
    sys.exit(main())
