"""Random weights of order one, for checkpoints whose activations and logits are of order one."""

import math

import torch


def matrix(gen, rows, cols, gain=1.0):
    """Unit-variance input gives outputs of deviation `gain`."""
    return torch.randn(rows, cols, generator=gen) * (gain / math.sqrt(cols))


def norm(gen, n):
    return 1.0 + 0.3 * torch.randn(n, generator=gen)


def bias(gen, n):
    return 0.3 * torch.randn(n, generator=gen)


def mlp(gen, prefix, d_model, d_ff, out_gain):
    return {
        f"{prefix}.gate_proj.weight": matrix(gen, d_ff, d_model, 1.5),
        f"{prefix}.up_proj.weight": matrix(gen, d_ff, d_model, 1.5),
        f"{prefix}.down_proj.weight": matrix(gen, d_model, d_ff, out_gain),
    }
