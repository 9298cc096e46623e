"""What `transformers` makes of each setting of config.json: tests/model/data/settings/FAMILY.json.

    python3 tools/goldens/settings.py [FAMILY]...

A case is a small checkpoint whose config.json has some settings changed or taken out.  Its verdict is the first logits
of the last of some tokens, or that transformers fails.  Where we refuse what transformers runs, the case says so.
"""

import copy
import json
import os
import shutil
import sys
import tempfile

import numpy as np
import torch

import truth

REPO = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
CHECKPOINTS = os.path.join(REPO, "tests", "model", "data", "checkpoints")
OUT = os.path.join(REPO, "tests", "model", "data", "settings")
N_LOGITS = 12
N_TOKENS = 20

YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 16}
LLAMA3 = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
          "original_max_position_embeddings": 32}


def out(*keys):
    """Settings that config.json does not have."""
    return {key: "<missing>" for key in keys}


def refused(**changes):
    """What we refuse, whatever transformers does."""
    return {**changes, "<refused>": True}


def either(**changes):
    """What transformers fails for, and we may take."""
    return {**changes, "<either>": True}


# Of every family.
COMMON = [
    {"hidden_act": None}, {"rms_norm_eps": None}, {"vocab_size": None}, {"hidden_size": None},
    {"num_hidden_layers": None}, {"num_attention_heads": None}, {"max_position_embeddings": None},
    either(tie_word_embeddings=None), {"num_experts_per_tok": None}, {"rope_theta": None}, {"rope_parameters": None},
    {"original_max_position_embeddings": 16, "<unless>": "phimoe"},
    {},
    out("hidden_act"), refused(hidden_act="gelu"),
    out("rms_norm_eps"), {"rms_norm_eps": 0.3},
    out("tie_word_embeddings"), {"tie_word_embeddings": True},
    out("max_position_embeddings"),
    out("rope_theta"), {"rope_theta": 77.0}, {"rope_theta": 77},
    {"rope_scaling": {}}, {**out("rope_scaling")}, {"rope_scaling": {"type": "default"}},
    {"rope_scaling": {"rope_type": "default", "rope_theta": 77.0}},
    {"rope_parameters": {"rope_type": "default", "rope_theta": 77.0}},
    {**out("rope_theta", "rope_scaling"), "rope_parameters": {"rope_type": "default", "rope_theta": 77.0}},
    {**out("rope_scaling"), "rope_theta": 55.0, "rope_parameters": {"rope_type": "default"}},
    {"rope_scaling": {"type": "linear", "factor": 3.0}, "rope_parameters": {"rope_theta": 77.0}},
    {"rope_scaling": {"rope_type": "linear", "type": "dynamic", "factor": 3.0}},
    {"rope_scaling": YARN}, {"rope_scaling": {**YARN, "beta_fast": 8, "beta_slow": 2, "truncate": False}},
    {"rope_scaling": {**YARN, "attention_factor": 1.5}}, {"rope_scaling": {**YARN, "factor": None}},
    {"rope_scaling": {**YARN, "mscale": 0.7}}, {"rope_scaling": {**YARN, "mscale_all_dim": 0.7}},
    {"rope_scaling": {**YARN, "mscale": 1.0, "mscale_all_dim": 0.7}},
    {"rope_scaling": {**YARN, "mscale": 1.0, "mscale_all_dim": 1.0}},
    {"rope_scaling": {**YARN, "original_max_position_embeddings": 64}, "original_max_position_embeddings": 16},
    {"rope_scaling": {"type": "yarn", "factor": 4.0}},
    {"rope_scaling": LLAMA3},
    refused(rope_scaling={"type": "dynamic", "factor": 2.0}),
    refused(rope_scaling={"type": "su", "factor": 2.0}), refused(rope_scaling={"type": "mrope"}),
    refused(rope_scaling={"type": "ntk", "factor": 2.0}),
    refused(rope_parameters={"full_attention": {"rope_type": "default", "rope_theta": 77.0}}, rope_scaling=None),
    refused(rope_scaling=[1]), refused(rope_scaling="yarn"),
    {"pad_token_id": 3}, {"pad_token_id": None}, {"use_cache": False}, {"attention_dropout": 0.5},
    {"output_router_logits": True}, {"initializer_range": 5.0}, out("torch_dtype"), {"torch_dtype": "float32"},
    refused(mlp_bias=True), refused(final_logit_softcapping=3.0), refused(layer_types=["linear_attention"] * 2),
    {"layer_types": ["full_attention"] * 2, "<unless>": "dots1"}, out("layer_types"),
]

# Of grouped-query attention.
GQA = [
    out("head_dim"), out("num_key_value_heads"), either(num_key_value_heads=None), {"num_key_value_heads": 1},
    either(head_dim=None), {"head_dim": 4}, either(attention_bias=None),
    {"attention_bias": False}, refused(attention_bias=True, **{"<unless>": "glm4_moe"}),
    refused(clip_qkv=0.5, **{"<unless>": "olmoe"}), refused(partial_rotary_factor=0.25, **{"<unless>": "glm4_moe minimax_m2"}),
    out("num_experts_per_tok"), {"num_experts_per_tok": 1, "<unless>": "phimoe"},
    {"num_experts_per_tok": 3, "<unless>": "phimoe"},
]

FAMILIES = {
    "granitemoe": ("granitemoe", [
        out("embedding_multiplier"), out("attention_multiplier"), out("residual_multiplier"), out("logits_scaling"),
        {"embedding_multiplier": 1.7}, {"attention_multiplier": 0.3}, {"residual_multiplier": 2},
        {"logits_scaling": 16}, {"attention_multiplier": None}, {"logits_scaling": None},
        {"embedding_multiplier": None}, {"residual_multiplier": None}, {"num_local_experts": 5},
        {**out("num_local_experts"), "num_experts": 6}, {"norm_topk_prob": False}, refused(sliding_window=5),
        refused(shared_intermediate_size=8), refused(n_shared_experts=1)]),
    "granitemoeshared": ("granitemoeshared", [
        out("embedding_multiplier"), out("attention_multiplier"), out("residual_multiplier"), out("logits_scaling"),
        {"embedding_multiplier": 1.7}, {"attention_multiplier": 0.3}, {"residual_multiplier": 2},
        {"shared_intermediate_size": 20}, {"num_local_experts": 5}, refused(sliding_window=5), refused(n_shared_experts=1)]),
    "mixtral": ("mixtral", [
        {"sliding_window": 5}, out("sliding_window"), {"sliding_window": 4096}, {"router_jitter_noise": 0.5},
        {**out("num_local_experts"), "num_experts": 6}, {"num_local_experts": 5}, {"norm_topk_prob": False},
        {"num_experts": 5}, {"num_local_experts": 5, "num_experts": 6}, {"head_dim": 10}, refused(use_sliding_window=True, sliding_window=5), refused(routed_scaling_factor=2.0),
        refused(n_shared_experts=1)]),
    "olmoe": ("olmoe", [
        {"norm_topk_prob": True}, either(norm_topk_prob=None), out("norm_topk_prob"), {"clip_qkv": 0.5}, {"clip_qkv": None}, out("clip_qkv"),
        {**out("num_experts"), "num_local_experts": 9}, {"num_local_experts": 5},
        {"num_experts": 5, "num_local_experts": 9}, refused(sliding_window=5), refused(qkv_bias=True)]),
    "phimoe": ("phimoe-shapes", [
        out("rope_scaling", "lm_head_bias"), {"lm_head_bias": False}, out("router_jitter_noise"),
        {"router_jitter_noise": 0.4}, {"input_jitter_noise": 0.4}, {"sliding_window": 5},
        {**out("num_local_experts"), "num_experts": 3}, refused(num_experts_per_tok=1), refused(num_experts_per_tok=3),
        {"rope_scaling": {**YARN, "short_mscale": 1.3, "long_mscale": 1.4, "original_max_position_embeddings": 32}}]),
    "qwen2_moe": ("qwen2-moe", [
        {"norm_topk_prob": True}, either(norm_topk_prob=None), {"norm_topk_prob": False}, {"qkv_bias": True}, {"qkv_bias": False},
        {"use_sliding_window": True, "sliding_window": 5}, {"use_sliding_window": True, "sliding_window": None},
        {**out("sliding_window"), "use_sliding_window": True}, {"sliding_window": 5}, {"sliding_window": None},
        {"use_sliding_window": True, "sliding_window": 5, "max_window_layers": 0},
        {**out("max_window_layers"), "use_sliding_window": True, "sliding_window": 5},
        {"use_sliding_window": True, "sliding_window": 5, "layer_types": ["full_attention", "sliding_attention"]},
        {"decoder_sparse_step": None}, {"max_window_layers": None}, {"num_experts": None},
        {"decoder_sparse_step": 1}, {"decoder_sparse_step": 2}, {"mlp_only_layers": None}, {"mlp_only_layers": [7]},
        {"mlp_only_layers": [0]}, out("shared_expert_intermediate_size"), refused(n_shared_experts=1)]),
    "qwen3_moe": ("qwen3-moe", [
        {"norm_topk_prob": True}, either(norm_topk_prob=None), {"norm_topk_prob": False}, out("norm_topk_prob"), out("attention_bias"),
        {"use_sliding_window": True, "sliding_window": 5}, {"use_sliding_window": True, "sliding_window": None},
        {**out("sliding_window"), "use_sliding_window": True}, {"sliding_window": 5}, {"max_window_layers": 0},
        {"use_sliding_window": True, "sliding_window": 5, "max_window_layers": 0},
        {"decoder_sparse_step": 2}, {"mlp_only_layers": None}, {"mlp_only_layers": [7]}, {"mlp_only_layers": [-1]},
        {**out("num_experts"), "num_local_experts": 6}, refused(shared_expert_intermediate_size=8),
        {"use_qk_norm": True}, {"use_qk_norm": False}]),
    "glm4_moe": ("glm4-moe", [
        out("partial_rotary_factor"), {"partial_rotary_factor": 1.0}, {"partial_rotary_factor": 0.5},
        {"rope_parameters": {"rope_type": "default", "rope_theta": 99.0, "partial_rotary_factor": 1.0},
         **out("rope_scaling")},
        {"use_qk_norm": True}, out("use_qk_norm"), either(use_qk_norm=None), either(norm_topk_prob=None),
        {"norm_topk_prob": False}, {"n_group": None}, {"routed_scaling_factor": None}, refused(partial_rotary_factor=None), out("norm_topk_prob"),
        {"routed_scaling_factor": 3.0}, out("routed_scaling_factor"), {"n_group": 2, "topk_group": 1},
        out("n_group", "topk_group"), {"n_group": 2, "topk_group": 2}, {"first_k_dense_replace": 0},
        out("first_k_dense_replace"), {"n_shared_experts": None}, {"n_shared_experts": 0}, {"n_shared_experts": 2},
        {**out("n_routed_experts"), "num_local_experts": 6}, {"num_local_experts": 4}, {"num_nextn_predict_layers": 0},
        out("n_shared_experts"), out("attention_bias"), refused(scoring_func="softmax"),
        {"scoring_func": "sigmoid"}, {"topk_method": "noaux_tc"}, refused(sliding_window=5)]),
    "deepseek_v2": ("deepseek-v2", [
        {"norm_topk_prob": False}, {"norm_topk_prob": None}, out("norm_topk_prob"), refused(norm_topk_prob=True),
        {"n_group": None, "topk_group": None}, {"topk_method": None}, {"routed_scaling_factor": None}, {"routed_scaling_factor": 3.0},
        out("routed_scaling_factor"), out("topk_method"), {"topk_method": "group_limited_greedy"},
        {"topk_method": "group_limited_greedy", "n_group": 2, "topk_group": 1}, {"n_group": 2, "topk_group": 1},
        refused(topk_method="noaux_tc"), {"first_k_dense_replace": 0}, out("first_k_dense_replace"),
        {"n_shared_experts": 0}, out("n_shared_experts"), {"q_lora_rank": None}, out("q_lora_rank"),
        refused(scoring_func="sigmoid"), {"scoring_func": "softmax"}, {"moe_layer_freq": 1}, refused(moe_layer_freq=2),
        {"attention_bias": False}, refused(attention_bias=True), out("attention_bias"), out("num_experts_per_tok"),
        {**out("n_routed_experts"), "num_experts": 7}, {"num_experts": 4}, {"num_local_experts": 4},
        {"num_experts_per_tok": 1}, {"seq_aux": True}, {"aux_loss_alpha": 0.3}, {"head_dim": 6},
        {"num_key_value_heads": 1}, {"pretraining_tp": 4}]),
    "deepseek_v3": ("shared", [
        {"norm_topk_prob": False}, {"norm_topk_prob": True}, {"norm_topk_prob": None}, out("norm_topk_prob"),
        {"rope_interleave": None}, out("rope_interleave"), {"n_group": None}, {"topk_group": None},
        {"first_k_dense_replace": None}, {"moe_intermediate_size": None}, {"n_routed_experts": None},
        {"kv_lora_rank": None}, {"routed_scaling_factor": None}, {"v_head_dim": None}, either(n_shared_experts=None),
        {"routed_scaling_factor": 3.0}, out("routed_scaling_factor"), out("topk_method"), out("scoring_func"), refused(scoring_func="softmax"),
        refused(topk_method="greedy"), {"n_group": 2, "topk_group": 1}, out("n_group", "topk_group"),
        {"first_k_dense_replace": 0}, out("first_k_dense_replace"), {"n_shared_experts": 0}, out("n_shared_experts"),
        {"n_shared_experts": 1}, {"q_lora_rank": None}, out("q_lora_rank"), {"rope_interleave": False},
        {"rope_interleave": True}, {"moe_layer_freq": 1}, refused(moe_layer_freq=2), {"attention_bias": False},
        refused(attention_bias=True), out("num_experts_per_tok"), {"num_experts_per_tok": 1}, {"head_dim": 6},
        {"num_key_value_heads": 1}, {**out("n_routed_experts"), "num_local_experts": 6},
        {"num_local_experts": 4}, {"num_nextn_predict_layers": 0}, {"ep_size": 4}]),
}
FAMILIES |= {
    "dots1": ("dots1", [
        {"sliding_window": 5}, {"sliding_window": 5, "max_window_layers": 0}, out("sliding_window"),
        {"sliding_window": 5, "max_window_layers": 2}, {"max_window_layers": None}, {"use_sliding_window": True},
        {"layer_types": ["full_attention", "sliding_attention", "full_attention"], "sliding_window": 5},
        {"layer_types": ["full_attention", "sliding_attention", "full_attention"]},
        {"norm_topk_prob": False}, {"norm_topk_prob": None}, out("norm_topk_prob"), {"routed_scaling_factor": 1.0},
        out("routed_scaling_factor"), {"n_group": 2, "topk_group": 1}, out("n_group", "topk_group"), {"n_group": None},
        {"first_k_dense_replace": 0}, out("first_k_dense_replace"), {"n_shared_experts": 0}, out("n_shared_experts"),
        {"n_shared_experts": 1}, out("scoring_func"), refused(scoring_func="softmax"),
        {**out("n_routed_experts"), "num_local_experts": 8}, {"num_local_experts": 4}, out("n_routed_experts")]),
    "ernie4_5_moe": ("ernie4-5-moe-shapes", [
        out("moe_layer_start_index"), {"moe_layer_start_index": 2}, {"moe_layer_end_index": -1},
        out("moe_layer_end_index"), {"moe_layer_end_index": 2}, {"moe_layer_interval": 1}, out("moe_layer_interval"),
        out("moe_num_shared_experts"), refused(moe_num_shared_experts=0), {"moe_num_shared_experts": None},
        {"moe_norm_min": 1e-15}, out("moe_norm_min"), refused(moe_norm_min=0.9), refused(use_bias=True),
        {"use_bias": False}, {"use_bias": None}, out("use_bias"), {"moe_k": 1}, out("moe_k"),
        {**out("moe_num_experts"), "num_experts": 5}, {"num_experts": 4}, {"num_experts_per_tok": 2, "moe_k": 1},
        refused(sliding_window=5), refused(routed_scaling_factor=2.0), refused(n_shared_experts=1)]),
    "glm4_moe_lite": ("glm4-moe-lite-halves", [
        {"norm_topk_prob": False}, either(norm_topk_prob=None), out("norm_topk_prob"), {"routed_scaling_factor": 1.0},
        out("routed_scaling_factor"), out("topk_method"), refused(topk_method="greedy"),
        refused(scoring_func="softmax"), {"n_group": 5, "topk_group": 1}, {"n_group": None},
        {"mlp_layer_types": ["dense", "sparse"]}, {"mlp_layer_types": ["dense", "dense"]},
        {"mlp_layer_types": ["dense", "sparse"], "first_k_dense_replace": 0}, {"mlp_layer_types": ["dense"]},
        refused(first_k_dense_replace=0), out("first_k_dense_replace"), {"n_shared_experts": 0},
        out("n_shared_experts"), {"q_lora_rank": None}, out("q_lora_rank"), {"rope_interleave": False},
        {"rope_interleave": True}, out("rope_interleave"), either(rope_interleave=None), {"attention_bias": False},
        refused(attention_bias=True), out("num_experts_per_tok"), {"num_experts_per_tok": 1}, {"head_dim": 6},
        {"head_dim": 4}, {"num_key_value_heads": 1}, {"num_nextn_predict_layers": 0}, {"partial_rotary_factor": 1.0}]),
    "minimax_m2": ("minimax-m2", [
        {"rotary_dim": 12}, {"rotary_dim": 4}, {"rotary_dim": 4, "partial_rotary_factor": 0.5}, out("rotary_dim"),
        {"partial_rotary_factor": 0.5}, {**out("rotary_dim"), "partial_rotary_factor": 0.5},
        {"rotary_dim": 6, "rope_parameters": {"rope_theta": 77.0, "partial_rotary_factor": 1.0}, **out("rope_scaling")},
        refused(use_qk_norm=False), refused(use_routing_bias=False), refused(qk_norm_type="per_head"),
        refused(scoring_func="softmax"), refused(sliding_window=5), refused(shared_intermediate_size=8),
        {"norm_topk_prob": False}, refused(routed_scaling_factor=2.0), {"num_mtp_modules": 3},
        {**out("num_local_experts"), "num_experts": 6}, {"num_experts": 5}]),
}
WITHOUT_GQA = ("glm4_moe_lite", "deepseek_v2", "deepseek_v3")


def changed(config, changes):
    config = copy.deepcopy(config)
    for key, value in changes.items():
        if value == "<missing>":
            config.pop(key, None)
        elif not key.startswith("<"):
            config[key] = value
    return config


@torch.no_grad()
def verdict(folder, tokens):
    """The first logits of the last token; None: transformers fails, or would draw random weights."""
    try:
        model = truth.load(folder, may_be_left=True)
        logits = model(torch.tensor([tokens]), use_cache=False).logits[0, -1]
    except (Exception, SystemExit) as e:  # whatever it is
        return None, f"{type(e).__name__}: {e}".split("\n")[0][:100]
    return [float(np.float32(x)) for x in logits[:N_LOGITS]], float(logits.abs().max())


def cases_of(family, config, weights, tokens):
    base, own = FAMILIES[family]
    for changes in COMMON + ([] if family in WITHOUT_GQA else GQA) + own:
        if family in changes.get("<unless>", "").split():
            continue
        if family == "mixtral" and "rope_scaling" in changes:
            changes = {"head_dim": 10, **changes}  # without it transformers 5.24 fails for YaRN
        with tempfile.TemporaryDirectory() as folder:
            for file in weights:
                shutil.copy(os.path.join(CHECKPOINTS, base, file), folder)
            with open(os.path.join(folder, "config.json"), "w") as f:
                json.dump(changed(config, changes), f)
            logits, other = verdict(folder, tokens)
        case = {"changes": {k: v for k, v in changes.items() if not k.startswith("<") and v != "<missing>"},
                "without": [k for k, v in changes.items() if v == "<missing>"]}
        if changes.get("<either>") and logits is None:
            case["either"] = True
        elif changes.get("<refused>") or logits is None:
            case["refused"] = True
        else:
            case["logits"], case["max"] = logits, other
        print(f"{family}: {changes}: {'fails, ' + other if logits is None else 'runs'}"
              f"{', refused' if changes.get('<refused>') else ''}")
        yield case


def main():
    torch.set_num_threads(1)
    os.makedirs(OUT, exist_ok=True)
    for family in sys.argv[1:] or FAMILIES:
        base = FAMILIES[family][0]
        with open(os.path.join(CHECKPOINTS, base, "config.json")) as f:
            config = json.load(f)
        weights = [name for name in os.listdir(os.path.join(CHECKPOINTS, base)) if name != "config.json"]
        tokens = [int(t) for t in np.random.default_rng(7).integers(0, config["vocab_size"], N_TOKENS)]
        result = {"checkpoint": base, "tokens": tokens, "cases": list(cases_of(family, config, weights, tokens))}
        with open(os.path.join(OUT, f"{family}.json"), "w") as f:
            f.write(json.dumps(result).replace('{"changes"', '\n{"changes"') + "\n")


if __name__ == "__main__":
    main()
