"""Logits and routing of a model folder as `transformers` computes them: float32, eager, CPU."""

import numpy as np
import torch
from transformers import AutoModelForCausalLM, logging
from transformers.models.deepseek_v2 import modeling_deepseek_v2 as deepseek_v2
from transformers.models.deepseek_v3 import modeling_deepseek_v3 as deepseek_v3
from transformers.models.dots1 import modeling_dots1 as dots1
from transformers.models.ernie4_5_moe import modeling_ernie4_5_moe as ernie4_5_moe
from transformers.models.glm4_moe import modeling_glm4_moe as glm4_moe
from transformers.models.glm4_moe_lite import modeling_glm4_moe_lite as glm4_moe_lite
from transformers.models.granitemoe import modeling_granitemoe as granitemoe
from transformers.models.granitemoeshared import modeling_granitemoeshared as granitemoeshared
from transformers.models.minimax_m2 import modeling_minimax_m2 as minimax_m2
from transformers.models.mixtral import modeling_mixtral as mixtral
from transformers.models.olmoe import modeling_olmoe as olmoe
from transformers.models.phimoe import modeling_phimoe as phimoe
from transformers.models.qwen2_moe import modeling_qwen2_moe as qwen2_moe
from transformers.models.qwen3_moe import modeling_qwen3_moe as qwen3_moe

logging.set_verbosity_error()


def load(folder, dtype=torch.float32, may_be_left=False):
    """Refuses a folder whose tensors do not all find their place; may_be_left: or of which some are left unused."""
    model, info = AutoModelForCausalLM.from_pretrained(
        folder, dtype=dtype, attn_implementation="eager", experts_implementation="eager",
        output_loading_info=True)
    if info["missing_keys"] or info["mismatched_keys"] or info.get("error_msgs"):
        raise SystemExit(f"{folder}: {info}")
    extra = f"model.layers.{model.config.num_hidden_layers}."
    strange = [key for key in info["unexpected_keys"] if not key.startswith(extra)]
    if strange and not may_be_left:
        raise SystemExit(f"{folder}: unexpected tensors {strange}")
    return model.eval()


def margin_of(choice, k):
    """How far the last of the k best is from the first one that is not among them."""
    best = choice.sort(-1, descending=True).values
    return best[:, k - 1] - best[:, k] if k < choice.shape[-1] else torch.full((len(choice),), torch.inf)


def sigmoid_margins(gate, router_logits):
    """DeepSeek-V3, GLM: sigmoids and a bias choose, perhaps among the best groups only."""
    choice = router_logits.sigmoid() + gate.e_score_correction_bias
    n_groups, n_experts = gate.num_group, gate.num_experts
    groups = choice.view(-1, n_groups, n_experts // n_groups).topk(2, dim=-1)[0].sum(-1)
    mask = torch.zeros_like(groups).scatter_(1, groups.topk(gate.topk_group).indices, 1).bool()
    choice = choice.masked_fill(~mask.repeat_interleave(n_experts // n_groups, 1), -torch.inf)
    return margin_of(choice, gate.top_k), margin_of(groups, gate.topk_group)


def greedy_margins(gate, router_logits):
    """DeepSeek-V2: softmax, perhaps among the groups of the best experts only."""
    if gate.topk_method == "greedy":
        return softmax_margins(gate, router_logits)
    choice = router_logits.softmax(-1)
    groups = choice.view(len(choice), gate.num_group, -1).max(-1).values
    mask = torch.zeros_like(groups).scatter_(1, groups.topk(gate.topk_group).indices, 1).bool()
    choice = choice.masked_fill(~mask.repeat_interleave(gate.num_experts // gate.num_group, 1), -torch.inf)
    return margin_of(choice, gate.top_k), margin_of(groups, gate.topk_group)


def softmax_margins(gate, router_logits):
    choice = router_logits.softmax(-1)
    return margin_of(choice, gate.top_k), torch.full((len(choice),), torch.inf)


def biased_margins(gate, router_logits):
    """MiniMax-M2: sigmoids and a bias, which is its block's."""
    choice = router_logits.sigmoid() + gate.bias_of_block
    return margin_of(choice, gate.top_k), torch.full((len(choice),), torch.inf)


def biased_softmax_margins(gate, router_logits):
    choice = gate.moe_statics(router_logits.softmax(-1))
    return margin_of(choice, gate.top_k), torch.full((len(choice),), torch.inf)


def logit_margins(gate, router_logits):
    return margin_of(router_logits, gate.top_k), torch.full((len(router_logits),), torch.inf)


def sparsemixer_margins(gate, router_logits):
    """Phi-3.5-MoE: two by logits, in order; experts count for a weight unless they are too far from the best."""
    best, order = router_logits.sort(-1, descending=True)
    distances = []
    for k in range(2):
        size = torch.maximum(router_logits.abs(), best[:, k:k + 1])
        distance = ((best[:, k:k + 1] - router_logits) / size - 2 * gate.router_jitter_noise).abs()
        distances.append(distance.scatter(1, order[:, :k], torch.inf).min(-1).values)
    return margin_of(router_logits, 2), torch.minimum(torch.minimum(*distances), best[:, 0] - best[:, 1])


# Routers whose output is logits, weights, indices.
ROUTERS = {
    deepseek_v2.DeepseekV2TopkRouter: greedy_margins,
    deepseek_v3.DeepseekV3TopkRouter: sigmoid_margins,
    dots1.Dots1TopkRouter: sigmoid_margins,
    ernie4_5_moe.Ernie4_5_MoeTopKRouter: biased_softmax_margins,
    glm4_moe.Glm4MoeTopkRouter: sigmoid_margins,
    glm4_moe_lite.Glm4MoeLiteTopkRouter: sigmoid_margins,
    granitemoe.GraniteMoeTopKRouter: logit_margins,
    granitemoeshared.GraniteMoeSharedTopKRouter: logit_margins,
    minimax_m2.MiniMaxM2TopKRouter: biased_margins,
    mixtral.MixtralTopKRouter: softmax_margins,
    olmoe.OlmoeTopKRouter: softmax_margins,
    phimoe.PhimoeTopKRouter: sparsemixer_margins,
    qwen2_moe.Qwen2MoeTopKRouter: softmax_margins,
    qwen3_moe.Qwen3MoeTopKRouter: softmax_margins,
}


@torch.no_grad()
def run(model, ids):
    """logits [n, vocab], experts [moe layers, n, k] (each set sorted), margins and group margins [moe layers, n]."""
    seen = []

    def note(gate, _, out):
        seen.append((out[2].sort(-1).values, *ROUTERS[type(gate)](gate, out[0])))

    for m in model.modules():
        if isinstance(m, minimax_m2.MiniMaxM2SparseMoeBlock):
            m.gate.bias_of_block = m.e_score_correction_bias
    gates = [m for m in model.modules() if type(m) in ROUTERS]
    hooks = [gate.register_forward_hook(note) for gate in gates]
    logits = model(torch.tensor([list(ids)]), use_cache=False).logits[0]
    for hook in hooks:
        hook.remove()
    experts, margins, group_margins = (torch.stack([s[i] for s in seen]).numpy() for i in range(3))
    return logits.numpy(), experts.astype(np.int32), margins.astype(np.float32), group_margins.astype(np.float32)
