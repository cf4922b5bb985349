"""Muon: AdamW, but matrices of hidden layers move by their momentum made orthogonal (Jordan et al. 2024).

Every direction of a matrix then gets a step of the same size, also those whose gradients are always small. The step
has the root mean square that AdamW's has (Liu et al. 2025, "Muon is scalable for LLM training", Eq. 4), so that both
take the same learning rate and weight decay.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from ..priors.base import choose_arithmetic

SIDES = (32, 512)  # the shorter side of a matrix, by whose square the iteration's work grows
STEPS = 5  # of the Newton-Schulz iteration
QUINTIC = (3.4445, -4.7750, 2.0315)  # a x + b x^3 + c x^5 brings singular values in (0, 1] near 1
RMS = 0.2  # of AdamW's step over its learning rate


class Muon(torch.optim.AdamW):
    """Of ``model``'s trainable parameters; ``settings`` are AdamW's. ``momentum`` is of the matrices."""

    def __init__(self, model: nn.Module, momentum: float = 0.95, **settings: Any) -> None:
        matrices = hidden_matrices(model)
        chosen = {id(p) for p in matrices}
        others = [p for p in model.parameters() if p.requires_grad and id(p) not in chosen]
        groups: list[dict[str, Any]] = [
            {"params": others, "momentum": None},
            {"params": matrices, "momentum": momentum},
        ]
        super().__init__([group for group in groups if group["params"]], **settings)

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        for group in self.param_groups:
            if group["momentum"] is None:
                continue
            for p in group["params"]:
                if p.grad is None:
                    continue
                state = self.state[p]
                if not state:  # AdamW asks every state that it loads for its step
                    state["step"], state["mean"] = torch.zeros(()), torch.zeros_like(p)
                state["step"] += 1
                state["mean"].lerp_(p.grad, 1 - group["momentum"])
                ahead = p.grad.lerp(state["mean"], group["momentum"]).flatten(1)
                move = orthogonal(ahead) * (RMS * max(ahead.shape) ** 0.5)
                p.mul_(1 - group["lr"] * group["weight_decay"])
                p.sub_(move.reshape(p.shape), alpha=group["lr"])
                p.grad = None  # AdamW has nothing to do for it
        return super().step(closure)


def hidden_matrices(model: nn.Module) -> list[nn.Parameter]:
    """Trainable weights of linear layers and convolutions whose shorter side, outputs or inputs, is in SIDES."""
    weights: list[Any] = [m.weight for m in model.modules() if isinstance(m, nn.Linear | nn.Conv2d)]
    return [p for p in weights if p.requires_grad and SIDES[0] <= min(p.flatten(1).shape) <= SIDES[1]]


def orthogonal(matrix: Tensor, steps: int = STEPS) -> Tensor:
    """About U V^T of the matrix U S V^T, [M, N], by Newton-Schulz, in bfloat16 where that is fast: singular values of
    0.6 to 1.3, but for those that were hardly any."""
    a, b, c = QUINTIC
    x = matrix.to(choose_arithmetic(matrix.device.type, "auto")[1])
    tall = x.shape[0] > x.shape[1]
    if tall:
        x = x.T
    x = x / (x.norm() + 1e-7)
    for _ in range(steps):
        gram = x @ x.T
        x = a * x + (b * gram + c * gram @ gram) @ x
    return (x.T if tall else x).to(matrix.dtype)
