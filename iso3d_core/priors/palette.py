"""The colors of an object's parts, read from its image and kept in the embedding.

A pooled embedding says what a thing is and how it stands, but mixes up which of its parts has which color. So further
queries, made of the embedding itself, look once more at the maps inside the tower, one for each color that parts may
have, and take the mean color of where they look. These colors go into directions that the embedding leaves free: it
stays one vector of the same width, and a network that does not read these directions finds it as it was.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

PARTS = 16  # that a kind of thing may have
SLOTS = 2 * PARTS  # the lighter color of each part, or its only one, then the darker ones of parts with a pattern


class PaletteTower(nn.Module):
    """An open_clip `ModifiedResNet` whose embedding also holds the colors of parts.

    Images [B, 3, S, S], normalised with mean and deviation 0.5 -> embeddings [B, D]: the tower's own, of length
    sqrt(D), without what it had in the ``free`` directions, plus there the colors, each channel in -1..1, and hints.

    dim : D; slots : how many colors; hints : how many further numbers in -1..1, of how the colors lie; with them the
    tower knows where each query looks
    width : of the keys and queries; values : further numbers that a query takes from where it looks
    hidden : of the two small networks; places : side of the grid that the queries look at
    mixing : channels of two further layers over what is there, 0 for none
    exchange : channels of what the queries tell each other of what they saw, to look a second time, 0 for one look
    """

    free: Tensor

    def __init__(
        self, tower: Any, dim: int, slots: int, hints: int = 0, width: int = 32, values: int = 16,
        hidden: int = 128, places: int = 32, mixing: int = 0, exchange: int = 0,
    ) -> None:  # fmt: skip
        super().__init__()
        self.tower, self.dim, self.slots, self.hints, self.width = tower, dim, slots, hints, width
        deepest = tower.attnpool.c_proj.in_features // 2  # channels of layer3
        maps = (deepest // 4, deepest // 2, deepest)
        self.looks = nn.ModuleList(nn.Conv2d(channels, width + values, 1) for channels in maps)
        self.mix = _mixing(width + values, mixing) if mixing else None
        self.place = nn.Parameter(torch.randn(1, width, places, places) * 0.3)
        self.query = nn.Sequential(nn.Linear(dim, hidden), nn.SiLU(), nn.Linear(hidden, slots * width))
        told = dim + slots * (3 + values + (2 if hints else 0))
        self.judge = nn.Sequential(nn.Linear(told, hidden), nn.SiLU(), nn.Linear(hidden, slots * 7 + hints))
        nn.init.zeros_(self.judge[2].weight)  # type: ignore[arg-type]
        nn.init.zeros_(self.judge[2].bias)  # type: ignore[arg-type]
        self.register_buffer("free", first_free(dim, slots, hints))
        token = width + values + 3 + 2
        self.again = Exchange(token, exchange, width) if exchange else None
        self.last = Exchange(token, exchange, 7) if exchange else None

    def maps(self, images: Tensor) -> tuple[list[Tensor], Tensor]:
        """The tower's maps that the queries look at, finest first, and its own embedding [B, D] of length sqrt(D)."""
        x, found = self.tower.stem(images), []
        for layer in (self.tower.layer1, self.tower.layer2, self.tower.layer3):
            x = layer(x)
            found.append(x)
        out = self.tower.attnpool(self.tower.layer4(x)).float()
        return found, F.normalize(out, dim=-1) * self.dim**0.5

    def colors(self, images: Tensor, maps: list[Tensor], embedding: Tensor) -> tuple[Tensor, Tensor]:
        """Base colors [B, slots, 3] in 0..1, of which those of parts that are not there mean nothing, and the hints
        [B, hints]."""
        side = self.place.shape[-1]
        looks = [
            F.interpolate(look(x), (side, side), mode="bilinear") for look, x in zip(self.looks, maps, strict=True)
        ]
        there = torch.stack(looks).sum(dim=0)
        if self.mix is not None:
            there = there + self.mix(there)
        keys, values = there.split([self.width, there.shape[1] - self.width], dim=1)
        axis = torch.linspace(-1, 1, side, device=images.device)
        places = torch.stack(torch.meshgrid(axis, axis, indexing="ij"))[None].expand(len(images), -1, -1, -1)
        shown = F.adaptive_avg_pool2d(images, side).float()
        there = torch.cat([shown, values.float(), places], dim=1)
        query = self.query(embedding.to(self.place)).unflatten(1, (self.slots, self.width))
        found = self._look(query, keys, there)
        if self.again is not None:
            query = query + self.again(torch.cat([query, found.to(query)], dim=2))
            found = self._look(query, keys, there)
        seen, beside, where = found.split([3, found.shape[2] - 5, 2], dim=2)
        told = [embedding, seen.flatten(1), beside.flatten(1)] + ([where.flatten(1)] if self.hints else [])
        # What is seen, in another light, or where the embedding knows better a color of its own.
        said = self.judge(torch.cat(told, dim=1).to(self.place)).float()
        of_colors, hints = said.split([7 * self.slots, self.hints], dim=1)
        of_colors = of_colors.unflatten(1, (self.slots, 7))
        if self.last is not None:
            of_colors = of_colors + self.last(torch.cat([query, found.to(query)], dim=2)).float()
        trust, light, own = of_colors.split([1, 3, 3], dim=-1)
        seen = (seen / 2 + 0.5) * torch.exp(0.3 * light + 0.15)
        return torch.lerp(own.sigmoid(), seen, (trust + 1.5).sigmoid()).clamp(0, 1), hints.tanh()

    def _look(self, query: Tensor, keys: Tensor, there: Tensor) -> Tensor:
        """The means [B, slots, C] of what is there, [B, C, h, w], where queries [B, slots, width] look."""
        attention = (query @ (keys + self.place).to(query).flatten(2) / self.width**0.5).softmax(-1).float()
        return attention @ there.flatten(2).transpose(1, 2)

    def forward(self, images: Tensor) -> Tensor:
        maps, embedding = self.maps(images)
        return with_colors(embedding, *self.colors(images, maps, embedding), self.free.float())


class Exchange(nn.Module):
    """One layer of a transformer between the queries, [B, slots, inputs] -> [B, slots, outputs]: zeros before it is
    trained."""

    def __init__(self, inputs: int, width: int, outputs: int, heads: int = 4) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(inputs, width), nn.Linear(width, outputs)
        self.heads = nn.MultiheadAttention(width, heads, batch_first=True)
        self.norms = nn.ModuleList([nn.LayerNorm(width), nn.LayerNorm(width)])
        self.each = nn.Sequential(nn.Linear(width, 2 * width), nn.SiLU(), nn.Linear(2 * width, width))
        nn.init.zeros_(self.last.weight)
        nn.init.zeros_(self.last.bias)

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.first(tokens)
        told = self.norms[0](x)
        x = x + self.heads(told, told, told, need_weights=False)[0]
        return self.last(x + self.each(self.norms[1](x)))


def _mixing(channels: int, hidden: int) -> nn.Sequential:
    """Two layers that change nothing before they are trained."""
    last = nn.Conv2d(hidden, channels, 3, padding=1)
    nn.init.zeros_(last.weight)
    nn.init.zeros_(last.bias)  # type: ignore[arg-type]
    first = nn.Conv2d(channels, hidden, 3, padding=1)
    return nn.Sequential(nn.GroupNorm(1, channels), nn.SiLU(), first, nn.SiLU(), last)


def first_free(dim: int, slots: int, hints: int) -> Tensor:
    """Directions for the colors and hints until `free_directions` finds better ones: [D, 3 slots + hints].

    Raises ValueError where an embedding of D numbers has no room for them.
    """
    if dim < 3 * slots + hints:
        raise ValueError(f"an embedding of {dim} numbers has no room for {slots} colors and {hints} hints")
    return torch.eye(dim)[:, : 3 * slots + hints].contiguous()


def with_colors(embedding: Tensor, colors: Tensor, hints: Tensor, free: Tensor) -> Tensor:
    """Embeddings [B, D] of length sqrt(D) with the colors [B, N, 3] and hints [B, H] in their ``free`` directions
    [D, 3 N + H]."""
    held = torch.cat([colors.flatten(1) * 2 - 1, hints], dim=1)
    with torch.autocast(embedding.device.type, enabled=False):  # the numbers of a part are few beside all the others
        return embedding + (held - embedding @ free) @ free.T


def colors_of(embedding: Tensor, free: Tensor, slots: int) -> Tensor:
    """The colors [B, slots, 3] in 0..1 of embeddings [B, D] of any length; grey where an embedding is nothing."""
    free = free.to(embedding)
    with torch.autocast(embedding.device.type, enabled=False):
        found = embedding @ free
        rest = (embedding - found @ free.T).norm(dim=-1, keepdim=True).clamp(min=1e-3)
    colors = found[:, : 3 * slots] * (embedding.shape[-1] ** 0.5 / rest)
    return (colors / 2 + 0.5).unflatten(1, (slots, 3)).clamp(0, 1)


def without(free: Tensor) -> Tensor:
    """The matrix [D, D] that takes what is in the directions [D, N] out of an embedding."""
    return torch.eye(len(free)) - free @ free.T


def free_directions(embeddings: Tensor, count: int) -> Tensor:
    """The ``count`` directions, [D, count] orthonormal, in which embeddings [N, D] differ least from nothing."""
    x = embeddings.double()
    return torch.linalg.eigh(x.T @ x)[1][:, :count].float().contiguous()
