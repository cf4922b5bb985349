"""A first guess of each view from the embedding alone, which a small UNet gets beside its noisy latents.

A large UNet finds what a view shows from the embedding and the camera by cross-attention (Isotropic3D); a small one
hardly does in minutes of training. So the embedding is first decoded to one coarse volume of density and color, and
every view's guess is that volume seen by its camera: the guesses agree with each other, and the network need not
learn what turning an object does. The embedding stays all that is known of the image.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..cameras import Cameras, rays
from .palette import colors_of, first_free

CHANNELS = 4  # RGB on white and coverage
SIDE = 32  # cells of the volume, and pixels of the views it is trained on
# Density of a cell: softplus(x + DENSITY_BIAS), in optical depth a cell, so that the volume starts nearly empty.
DENSITY_BIAS = -3.0
SHADED = 0.8  # of a base color: what the training views, in their light, show of it on average
SOLID_AT = 2.0  # of the density channel: as likely solid as not, an optical depth of 0.3 a cell


class Sketch(nn.Module):
    """(embedding [B, 1, D], cameras [B, V, 16], size) -> [B, V, 4, size, size]: RGB on white and coverage, in 0..1.

    rank : of the bottleneck; widths : channels at 4, 8 and 16 cells a side; groups : that these are normalised in
    refined : further residual layers at 16 cells a side, and as many at 32
    palette : how many colors of parts the embedding holds, which cells may take (`PaletteTower`); hints : how many
        further numbers beside them
    fov_y_deg, distance : of the cameras it is rendered with
    """

    def __init__(
        self,
        dim: int,
        rank: int = 128,
        widths: Sequence[int] = (128, 96, 64),
        fov_y_deg: float = 35.0,
        distance: float = 3.4,
        refined: int = 1,
        groups: Sequence[int] = (8, 8, 8),
        palette: int = 0,
        hints: int = 0,
    ) -> None:
        super().__init__()
        self.config: dict[str, Any] = {
            "dim": dim, "rank": rank, "widths": list(widths), "fov_y_deg": fov_y_deg, "distance": distance,
            "refined": int(refined), "groups": list(groups), "palette": palette, "hints": hints,
        }  # fmt: skip
        self.fov_y_deg, self.distance = fov_y_deg, distance
        self.first = nn.Sequential(nn.Linear(dim, rank), nn.SiLU(), nn.Linear(rank, widths[0] * 16))
        channels = (*widths, CHANNELS * SIDE)
        self.larger = nn.ModuleList(_layer(a, b, g) for (a, b), g in zip(pairwise(channels), groups, strict=True))
        refine = [_layer(widths[-1], widths[-1], groups[-1], without_effect=True) for _ in range(2 * refined)]
        self.refine = nn.ModuleList(refine)  # those at 16 and at 32 cells in turn
        self.palette = Assignment(widths[-1], dim, groups[-1], palette, hints) if palette else None
        # A linear probe of the embedding's direction, weight [dim] and bias []: the elevation of its image in degrees.
        self.elevation: dict[str, Tensor] | None = None

    @staticmethod
    def load(folder: Path) -> Sketch:
        from safetensors.torch import load_file

        # Bundles from before the further layers do not say that they have none.
        sketch = Sketch(**{"refined": 0, **json.loads((folder / "config.json").read_text())})
        sketch.load_state_dict({name: value.float() for name, value in load_file(folder / "model.safetensors").items()})
        probe = folder / "elevation.safetensors"
        if probe.exists():
            sketch.elevation = {name: value.float() for name, value in load_file(probe).items()}
        return sketch

    def volume(self, embedding: Tensor) -> Tensor:
        """[B, 1, D] -> [B, 4, z, y, x]: color and density before their sigmoid and softplus, in the cube [-1, 1]^3.

        Two-dimensional convolutions over horizontal layers, the layers being channels.
        """
        return self.colored(*self.read(embedding), embedding[:, 0])

    def colored(self, volume: Tensor, logits: Tensor | None, embedding: Tensor) -> Tensor:
        """What `read` gave, with the colors of parts that embeddings [B, D] hold."""
        return volume if self.palette is None else self.palette(volume, logits, embedding)

    def read(self, embedding: Tensor) -> tuple[Tensor, Tensor | None]:
        """The volume [B, 4, z, y, x] of [B, 1, D] as if it had no palette, and for one which part each cell is of:
        logits [B, 1 + slots, z, y, x], the first of them of keeping its own color."""
        x = self.first(embedding[:, 0].to(next(self.parameters()).dtype)).unflatten(-1, (-1, 4, 4))
        for larger in self.larger[:-1]:
            x = larger(_doubled(x))
        for layer in self.refine[::2]:
            x = x + layer(x)
        x = _doubled(x)
        for layer in self.refine[1::2]:
            x = x + layer(x)
        logits = None if self.palette is None else self.palette.layers(x).unflatten(1, (-1, SIDE)).float()
        return self.larger[-1](x).unflatten(1, (CHANNELS, SIDE)).float(), logits

    def solid(self, embedding: Tensor) -> Tensor:
        """[B, 1, D] -> how likely each cell of [B, z, y, x] is solid, 0..1."""
        return (self.volume(embedding)[:, 3] - SOLID_AT).sigmoid()

    def color(self, embedding: Tensor) -> Tensor:
        """[B, 1, D] -> base colors of the cells [B, 3, z, y, x] in 0..1, which mean something where it is solid."""
        return (self.volume(embedding)[:, :3].sigmoid() / SHADED).clamp(max=1)

    def forward(
        self, embedding: Tensor, cameras: Tensor, size: int = SIDE, every: int = 1, offset: tuple[int, int] = (0, 0)
    ) -> Tensor:
        """every, offset : of the ``size`` pixels those that are rendered, in both directions (rows, columns)"""
        return self.render(self.volume(embedding), cameras, size, every, offset)

    def render(
        self, volume: Tensor, cameras: Tensor, size: int = SIDE, every: int = 1, offset: tuple[int, int] = (0, 0)
    ) -> Tensor:
        """Emission and absorption along each ray, one sample a cell: [B, V, 4, size / every, size / every]."""
        cells, passed, _ = self._along_rays(volume, cameras, size, every, offset)
        weights, coverage = passed[..., :-1] - passed[..., 1:], 1 - passed[..., -1]
        color = (cells[:, :3].sigmoid() * weights[:, None]).sum(dim=-1) + (1 - coverage)[:, None]
        out = torch.cat([color, coverage[:, None]], dim=1)  # [B, 4, (V h w)]
        b, v = cameras.shape[:2]
        return out.reshape(b, CHANNELS, v, size // every, size // every).transpose(1, 2)

    def distances(self, volume: Tensor, cameras: Tensor, size: int = SIDE) -> tuple[Tensor, Tensor]:
        """How far from the camera each pixel's ray ends, on average, and how much of it does: [B, V, 1, size, size].

        Where next to nothing is met, the distance is of what little there is.
        """
        _, passed, along = self._along_rays(volume, cameras, size, 1, (0, 0))
        weights, coverage = passed[..., :-1] - passed[..., 1:], 1 - passed[..., -1]
        distance = (weights * along).sum(dim=-1) / coverage.clamp(min=1e-6)
        b, v = cameras.shape[:2]
        return distance.reshape(b, v, 1, size, size), coverage.reshape(b, v, 1, size, size)

    def _along_rays(
        self, volume: Tensor, cameras: Tensor, size: int, every: int, offset: tuple[int, int]
    ) -> tuple[Tensor, Tensor, Tensor]:
        """What each ray meets [B, 4, (V h w), S], how much of it gets to each sample and, last, past all of them
        [B, (V h w), S + 1], and the samples' distances from the camera [S]."""
        b, v = cameras.shape[:2]
        matrix = cameras.float().reshape(-1, 4, 4).clone()
        matrix[:, :3, 3] *= self.distance
        origins, directions = rays(Cameras(matrix, matrix.new_full((b * v,), self.fov_y_deg)), size, size)
        pixels = (slice(None), slice(offset[0], None, every), slice(offset[1], None, every))
        along = self.distance - 1 + (torch.arange(SIDE, device=matrix.device) + 0.5) * (2 / SIDE)
        points = origins[pixels][..., None, :] + directions[pixels][..., None, :] * along[:, None]  # [BV, h, w, S, 3]
        points = points.reshape(b, 1, -1, SIDE, 3)
        cells = F.grid_sample(volume, points, mode="bilinear", align_corners=False)[:, :, 0]
        inside = (points[:, 0].abs().amax(dim=-1) < 1).to(cells)
        thickness = F.softplus(cells[:, 3] + DENSITY_BIAS) * inside
        return cells, torch.exp(-F.pad(thickness.cumsum(dim=-1), (1, 0))), along


class Assignment(nn.Module):
    """Which of a thing's colors each cell of a volume takes, or its own: colors of the parts are in the embedding."""

    free: Tensor

    def __init__(self, channels: int, dim: int, groups: int, slots: int, hints: int) -> None:
        super().__init__()
        self.slots = slots
        layer = nn.Conv2d(channels, (1 + slots) * SIDE, 1)
        nn.init.normal_(layer.weight, std=0.02)
        nn.init.zeros_(layer.bias)  # type: ignore[arg-type]
        self.layers = nn.Sequential(nn.GroupNorm(groups, channels), nn.SiLU(), layer)
        self.register_buffer("free", first_free(dim, slots, hints))  # as the `PaletteTower` has it

    def forward(self, volume: Tensor, logits: Tensor, embedding: Tensor) -> Tensor:
        """The volume [B, 4, z, y, x] of embeddings [B, D], its colors mixed with those of the parts."""
        colors = SHADED * colors_of(embedding.float(), self.free, self.slots)  # [B, slots, 3]
        own, share = volume[:, :3].sigmoid(), logits.softmax(dim=1)
        mixed = share[:, :1] * own + torch.einsum("bkzyx,bkc->bczyx", share[:, 1:], colors)
        return torch.cat([mixed.clamp(1e-3, 1 - 1e-3).logit(), volume[:, 3:]], dim=1)


def _layer(inputs: int, outputs: int, groups: int, without_effect: bool = False) -> nn.Sequential:
    convolution = nn.Conv2d(inputs, outputs, 3, padding=1)
    if without_effect:
        nn.init.zeros_(convolution.weight)
        nn.init.zeros_(convolution.bias)  # type: ignore[arg-type]
    return nn.Sequential(nn.GroupNorm(groups, inputs), nn.SiLU(), convolution)


def _doubled(x: Tensor) -> Tensor:
    return F.interpolate(x, scale_factor=2, mode="bilinear")


def thumbnails(rgba: Tensor, side: int = SIDE) -> Tensor:
    """[..., 4, S, S] on white with coverage -> [..., 4, side, side]: what a sketch should show."""
    flat = rgba.flatten(0, -4)
    return F.adaptive_avg_pool2d(flat, side).reshape(*rgba.shape[:-2], side, side)
