"""The colors of an object's parts, read from its image and kept in the embedding.

A pooled embedding says what a thing is and how it stands, but mixes up which of its parts has which color. So further
queries, made of the embedding itself, look once more at the maps inside the tower, one for each part that things of a
kind may have, and take the mean color of where they look. These colors go into directions that the embedding leaves
free: it stays one vector of the same width, and a network that does not read these directions finds it as it was.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

SLOTS = 16  # parts that a kind of thing may have


class PaletteTower(nn.Module):
    """An open_clip `ModifiedResNet` whose embedding also holds the colors of parts.

    Images [B, 3, S, S], normalised with mean and deviation 0.5 -> embeddings [B, D]: the tower's own, of length
    sqrt(D), without what it had in the ``free`` directions, plus there `SLOTS` colors, each channel in -1..1.

    dim : D; width : of the keys and queries; values : further numbers that a query takes from where it looks
    hidden : of the two small networks; places : side of the grid that the queries look at
    """

    free: Tensor

    def __init__(
        self, tower: Any, dim: int, width: int = 32, values: int = 16, hidden: int = 128, places: int = 32
    ) -> None:
        super().__init__()
        self.tower, self.dim, self.width = tower, dim, width
        deepest = tower.attnpool.c_proj.in_features // 2  # channels of layer3
        maps = (deepest // 4, deepest // 2, deepest)
        self.looks = nn.ModuleList(nn.Conv2d(channels, width + values, 1) for channels in maps)
        self.place = nn.Parameter(torch.randn(1, width, places, places) * 0.3)
        self.query = nn.Sequential(nn.Linear(dim, hidden), nn.SiLU(), nn.Linear(hidden, SLOTS * width))
        self.judge = nn.Sequential(
            nn.Linear(dim + SLOTS * (3 + values), hidden), nn.SiLU(), nn.Linear(hidden, SLOTS * 7)
        )
        nn.init.zeros_(self.judge[2].weight)  # type: ignore[arg-type]
        nn.init.zeros_(self.judge[2].bias)  # type: ignore[arg-type]
        self.register_buffer("free", first_free(dim))

    def maps(self, images: Tensor) -> tuple[list[Tensor], Tensor]:
        """The tower's maps that the queries look at, finest first, and its own embedding [B, D] of length sqrt(D)."""
        x, found = self.tower.stem(images), []
        for layer in (self.tower.layer1, self.tower.layer2, self.tower.layer3):
            x = layer(x)
            found.append(x)
        out = self.tower.attnpool(self.tower.layer4(x)).float()
        return found, F.normalize(out, dim=-1) * self.dim**0.5

    def colors(self, images: Tensor, maps: list[Tensor], embedding: Tensor) -> Tensor:
        """Base colors of the parts, [B, SLOTS, 3] in 0..1; those of parts that are not there mean nothing."""
        side = self.place.shape[-1]
        looks = [
            F.interpolate(look(x), (side, side), mode="bilinear") for look, x in zip(self.looks, maps, strict=True)
        ]
        keys, values = torch.stack(looks).sum(dim=0).split([self.width, looks[0].shape[1] - self.width], dim=1)
        query = self.query(embedding.to(self.place)).unflatten(1, (SLOTS, self.width))
        attention = (query @ (keys + self.place).to(query).flatten(2) / self.width**0.5).softmax(-1).float()
        shown = F.adaptive_avg_pool2d(images, side).float()
        seen, beside = (attention @ x.flatten(2).transpose(1, 2) for x in (shown, values.float()))
        told = torch.cat([embedding, seen.flatten(1), beside.flatten(1)], dim=1)
        # What is seen, in another light, or where the embedding knows better a color of its own.
        trust, light, own = self.judge(told.to(self.place)).float().unflatten(1, (SLOTS, 7)).split([1, 3, 3], dim=-1)
        seen = (seen / 2 + 0.5) * torch.exp(0.3 * light + 0.15)
        return torch.lerp(own.sigmoid(), seen, (trust + 1.5).sigmoid()).clamp(0, 1)

    def forward(self, images: Tensor) -> Tensor:
        maps, embedding = self.maps(images)
        return with_colors(embedding, self.colors(images, maps, embedding), self.free.float())


def first_free(dim: int) -> Tensor:
    """Directions for the colors until `free_directions` finds better ones: [D, 3 SLOTS].

    Raises ValueError where an embedding of D numbers has no room for them.
    """
    if dim < 3 * SLOTS:
        raise ValueError(f"an embedding of {dim} numbers has no room for the colors of {SLOTS} parts")
    return torch.eye(dim)[:, : 3 * SLOTS].contiguous()


def with_colors(embedding: Tensor, colors: Tensor, free: Tensor) -> Tensor:
    """Embeddings [B, D] of length sqrt(D) with the colors [B, SLOTS, 3] in their ``free`` directions [D, 3 SLOTS]."""
    with torch.autocast(embedding.device.type, enabled=False):  # the numbers of a part are few beside all the others
        return embedding + (colors.flatten(1) * 2 - 1 - embedding @ free) @ free.T


def colors_of(embedding: Tensor, free: Tensor) -> Tensor:
    """The colors [B, SLOTS, 3] in 0..1 of embeddings [B, D] of any length; grey where an embedding is nothing."""
    free = free.to(embedding)
    with torch.autocast(embedding.device.type, enabled=False):
        found = embedding @ free
        rest = (embedding - found @ free.T).norm(dim=-1, keepdim=True).clamp(min=1e-3)
    return (found * (embedding.shape[-1] ** 0.5 / rest) / 2 + 0.5).unflatten(1, (SLOTS, 3)).clamp(0, 1)


def without(free: Tensor) -> Tensor:
    """The matrix [D, D] that takes what is in the directions [D, N] out of an embedding."""
    return torch.eye(len(free)) - free @ free.T


def free_directions(embeddings: Tensor, count: int = 3 * SLOTS) -> Tensor:
    """The ``count`` directions, [D, count] orthonormal, in which embeddings [N, D] differ least from nothing."""
    x = embeddings.double()
    return torch.linalg.eigh(x.T @ x)[1][:, :count].float().contiguous()
