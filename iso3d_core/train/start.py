"""Training that starts from a bundle's weights: what fits is taken over, and what does not quite is made to."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..priors.clip import ClipImage, tower_input
from ..priors.palette import free_directions, without
from ..weights import Bundle
from .clip import ClipTraining
from .data import ViewSet
from .loop import fast_autocast
from .vae import to_rgb


def take_over(network: nn.Module, found: dict[str, Tensor], finer: int = 0) -> None:
    """Weights of the same name and shape; further input channels start without effect.

    finer : how many of the first layer's last input channels become four each, the pixels of one (pixel unshuffle)
    """
    own = network.state_dict()
    for name, value in found.items():
        if name == "conv_in.weight" and finer and own[name].shape[1] == value.shape[1] + 3 * finer:
            coarse = value[:, -finer:].float()
            value = torch.cat([value[:, :-finer].float(), coarse.repeat_interleave(4, dim=1) / 4], dim=1)
        if name in own and own[name].shape == value.shape:
            own[name] = value.float()
        elif name == "conv_in.weight" and own[name].shape[1] > value.shape[1]:
            own[name] = F.pad(value.float(), (0, 0, 0, 0, 0, own[name].shape[1] - value.shape[1]))
    network.load_state_dict(own)


def grow(network: nn.Module, found: dict[str, Tensor]) -> None:
    """Weights of a narrower network of the same layers, so that this one starts by saying the same.

    What the narrower one has goes into the first channels, which do not hear of the others; these start at random and
    listen to all. Groups and heads must be of the narrower one's size. Raises ValueError where it is the wider one.
    """
    own = network.state_dict()
    for name, value in found.items():
        if name not in own:
            continue
        if any(a < b for a, b in zip(own[name].shape, value.shape, strict=True)):
            raise ValueError(f"{name} is {list(value.shape)}, more than {list(own[name].shape)}: of a wider network")
        if value.ndim > 1:
            own[name][: len(value)] = 0
        own[name][tuple(slice(n) for n in value.shape)] = value.to(own[name].dtype)
    network.load_state_dict(own)


def with_palette(towers: dict[str, Tensor]) -> dict[str, Tensor]:
    """Weights of towers without a palette, named as in a `PaletteTower`; others as they are."""
    if any(name.startswith("visual.tower.") for name in towers):
        return towers
    return {name.replace("visual.", "visual.tower.", 1): value for name, value in towers.items()}


def make_room(model: ClipTraining, embeddings: Tensor) -> None:
    """Keep the colors of parts where embeddings [N, D] of the tower without a palette hardly have anything, and let
    nothing else read these directions."""
    free = free_directions(embeddings, model.clip.visual.free.shape[1])
    rest = without(free)
    model.clip.visual.free.copy_(free)
    model.sketch.palette.free.copy_(free)  # type: ignore[union-attr]
    with torch.no_grad():
        model.sketch.first[0].weight.copy_(model.sketch.first[0].weight @ rest)  # type: ignore[union-attr, operator]
        model.clip.text_projection.copy_(model.clip.text_projection @ rest)


def without_reference(found: dict[str, Tensor], latents: int) -> dict[str, Tensor]:
    """Zero-1-to-3's weights for a network that gets no reference's latents between the noisy ones and the guess.

    latents : channels of either
    """
    weight = found["conv_in.weight"]
    return {**found, "conv_in.weight": torch.cat([weight[:, :latents], weight[:, 2 * latents :]], dim=1)}


def for_places(found: dict[str, Tensor], places: int) -> dict[str, Tensor]:
    """Weights of an image tower whose attention pooling shall see ``places`` x ``places`` places: its positional
    embedding [1 + h w, C], the mean's first, spread over them."""
    name = "visual.attnpool.positional_embedding"
    if name not in found:
        return found
    mean, grid = found[name].float().split([1, len(found[name]) - 1])
    side = round(len(grid) ** 0.5)
    spread = F.interpolate(grid.T.unflatten(1, (side, side))[None], (places, places), mode="bilinear")
    return {**found, name: torch.cat([mean, spread[0].flatten(1).T])}


@torch.no_grad()
def old_embeddings(bundle: Bundle, views: ViewSet, objects: int = 2_000, batch: int = 250) -> Tensor:
    """What the bundle's image tower says of the first objects' references: [objects, R, D]."""
    tower, out = ClipImage.load(bundle.part("clip")), []
    settings: dict[str, Any] = {name: tower.settings.get(name) for name in ("size", "mean", "std", "via")}
    with fast_autocast(torch.device("cpu")):
        for first in range(0, min(objects, len(views)), batch):
            images = np.asarray(views.references[first : min(first + batch, objects)])
            rgb = to_rgb(images.reshape(-1, *images.shape[2:]))
            out.append(tower(tower_input(rgb, **settings)).float().unflatten(0, images.shape[:2]))
    return torch.cat(out)


def embedding_map(old: Tensor, new: Tensor) -> Tensor:
    """The matrix [D, D] that best makes old embeddings out of new ones, of the same images, both [..., D].

    Least squares without a constant, so that the zeros of an unconditional guess stay zeros.
    """
    a, b = new.flatten(0, -2).double(), old.flatten(0, -2).double()
    ridge = 1e-3 * len(a) * torch.eye(a.shape[-1], dtype=torch.double)
    return torch.linalg.solve(a.T @ a + ridge, a.T @ b).T.float()


def through(found: dict[str, Tensor], name: str, matrix: Tensor, blocks: int) -> dict[str, Tensor]:
    """Weights whose linear layer ``name`` reads, in each of its first ``blocks`` blocks of D inputs, what ``matrix``
    [D, D] makes of the block."""
    weight, width = found[name].float(), len(matrix) * blocks
    read = weight[:, :width].unflatten(1, (blocks, len(matrix))) @ matrix
    return {**found, name: torch.cat([read.flatten(1), weight[:, width:]], dim=1)}


def kept_as_is(bundle: Bundle | None, part: str) -> dict[str, Any]:
    """For the provenance of a part that stays as the bundle has it: what the bundle says of it."""
    if bundle is None:
        raise ValueError(f"0 steps keep the {part} of a bundle as it is: name one by --start, or train some steps")
    return dict(bundle.info["provenance"]["training"][part])


def started_from(bundle: Bundle | None, *parts: str) -> dict[str, Any]:
    """For the provenance: steps of training that the weights had before, oldest first."""
    if bundle is None:
        return {}
    before = bundle.info["provenance"]["training"]
    older = [entry for part in parts for entry in before.get(part, {}).get("started_from", [])]
    return {"started_from": [*older, {part: before[part]["steps"] for part in parts if part in before}]}
