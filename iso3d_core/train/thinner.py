"""Image towers in fewer bytes: the matrices of their attention pooling as two thin factors each."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..priors.clip import LEFT, RIGHT, tower_input
from ..priors.palette import SLOTS, without
from . import clip
from .vae import to_rgb

# Ranks of matrices 1024 x 1024, in a quarter of the bytes; the last, 256 x 1024, has that of what the palette leaves of
# the embedding.
POOLING = "visual.tower.attnpool."
RANKS = {"q": 48, "k": 64, "v": 190, "c": 256 - 3 * SLOTS - clip.HINTS}


@torch.no_grad()
def thinner(model: clip.ClipTraining, references: np.ndarray) -> dict[str, Tensor]:
    """The state of the model's towers, its pooling's matrices at RANKS.

    references : uint8 [N, S, S, 3]; what the matrices say of these is what the factors keep best
    """
    weights = without_free(model.clip.state_dict())
    seen = tower_input(to_rgb(references), model.image_size, clip.MEAN, clip.STD, via=references.shape[1])
    tokens = pooled_tokens(model.clip.visual.tower, seen)
    moments = {"q": moment(tokens[0]), "k": moment(tokens.flatten(0, 1))}
    moments["v"] = moments["k"]
    for name, rank in RANKS.items():
        weights = factored(weights, f"{POOLING}{name}_proj.weight", rank, moments.get(name))
    return weights


def without_free(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The towers' state with nothing of the image in the directions that the palette takes for itself."""
    rest = without(state["visual.free"])
    last = {name: rest @ state[name] for name in (f"{POOLING}c_proj.weight", f"{POOLING}c_proj.bias")}
    return {**state, **last}


def pooled_tokens(tower: Any, images: Tensor) -> Tensor:
    """What an open_clip `AttentionPool2d` attends to, [1 + h w, N, C]: the places, their mean before them. It asks
    with the mean alone."""
    found: list[Tensor] = []
    hook = tower.attnpool.register_forward_pre_hook(lambda _, inputs: found.append(inputs[0].float()))
    for some in images.split(64):
        tower(some)
    hook.remove()
    places = torch.cat(found).flatten(2).permute(2, 0, 1)
    return torch.cat([places.mean(dim=0, keepdim=True), places]) + tower.attnpool.positional_embedding[:, None]


def moment(inputs: Tensor) -> Tensor:
    """[N, C] -> the mean of their outer products, [C, C]."""
    return inputs.double().T @ inputs.double() / len(inputs)


def factored(state: dict[str, Tensor], name: str, rank: int, inputs: Tensor | None = None) -> dict[str, Tensor]:
    """The state with its matrix ``name`` [M, N] as two factors, [M, rank] and [rank, N]: what it says in the ``rank``
    directions in which it says most. As it is where these would be no smaller.

    inputs : second moments [N, N] of what the matrix is multiplied with; without them all directions are as likely
    """
    matrix = state[name].double()
    if rank * sum(matrix.shape) >= matrix.numel():
        return state
    said = matrix @ matrix.T if inputs is None else matrix @ inputs @ matrix.T
    left = torch.linalg.eigh(said)[1][:, -rank:]
    rest = {other: value for other, value in state.items() if other != name}
    return {**rest, name + LEFT: left.float(), name + RIGHT: (left.T @ matrix).float()}
