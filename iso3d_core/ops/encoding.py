"""Multi-resolution grid encoding (Müller et al. 2022), the torch reference, in tiny-cuda-nn's layout and hash.

Parameters are one flat table, level after level; a level whose whole grid fits the table is dense, the others are
hashed. Dense levels are evaluated by `grid_sample`, hashed ones by gathering the eight corners.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

PRIMES = (1, 2_654_435_761, 805_459_861)


@dataclass(frozen=True)
class Level:
    """One level: its grid has ``resolution`` nodes a side, ``entries`` rows of the table from row ``offset``."""

    scale: float
    resolution: int
    offset: int
    entries: int

    @property
    def dense(self) -> bool:
        return self.resolution**3 <= self.entries


def grid_levels(levels: int, base: int, growth: float, log2_table: int) -> tuple[Level, ...]:
    """The levels of tiny-cuda-nn's grid: scale = base * growth^l - 1, ceil(scale) + 1 nodes, rows rounded up to 8.

    base : resolution of the coarsest level; growth : factor from level to level; log2_table : of the largest table
    """
    out, offset = [], 0
    for index in range(levels):
        scale = base * growth**index - 1.0
        resolution = math.ceil(scale) + 1
        entries = min(-(-(resolution**3) // 8) * 8, 2**log2_table)
        out.append(Level(scale, resolution, offset, entries))
        offset += entries
    return tuple(out)


def table_rows(levels: tuple[Level, ...]) -> int:
    return levels[-1].offset + levels[-1].entries


def encode(points: Tensor, table: Tensor, levels: tuple[Level, ...]) -> Tensor:
    """points [N, 3] in [0, 1], table [rows, F] -> features [N, levels * F], trilinearly interpolated."""
    # Split at once: the gradient of a slice would be as large as the whole table, for each of the levels.
    rows = table.split([level.entries for level in levels])
    features = [
        (_dense if level.dense else _hashed)(points, own, level) for level, own in zip(levels, rows, strict=True)
    ]
    return torch.cat(features, dim=-1)


def _dense(points: Tensor, rows: Tensor, level: Level) -> Tensor:
    """Node i sits at (i - 0.5) / scale; x runs fastest in the table."""
    n = level.resolution
    volume = rows[: n**3].reshape(1, n, n, n, -1).permute(0, 4, 1, 2, 3)  # [1, F, z, y, x]
    where = (points * level.scale + 0.5) * (2.0 / (n - 1)) - 1.0  # node coordinates to [-1, 1]
    # On a CPU grid_sample runs one thread a batch item, so the points are dealt out over a batch.
    parts = torch.get_num_threads() if points.device.type == "cpu" and len(points) > 4096 else 1
    where = F.pad(where, (0, 0, 0, -len(points) % parts)).reshape(parts, 1, 1, -1, 3)
    out = F.grid_sample(
        volume.expand(parts, -1, -1, -1, -1), where, mode="bilinear", align_corners=True, padding_mode="border"
    )
    return out[:, :, 0, 0].transpose(1, 2).reshape(-1, rows.shape[-1])[: len(points)]  # [N, F]


def _hashed(points: Tensor, rows: Tensor, level: Level) -> Tensor:
    where = points * level.scale + 0.5
    low = where.floor()
    upper = (where - low)[:, None]  # [N, 1, 3], how much of each axis' upper neighbour
    # All eight corners at once: made on the device, for a copy to it would wait for all the work before.
    corner = torch.arange(8, device=points.device)[:, None] >> torch.arange(3, device=points.device) & 1  # [8, 3]
    weight = torch.where(corner.bool(), upper, 1 - upper).prod(dim=-1, keepdim=True)  # [N, 8, 1]
    nodes = (low.long()[:, None] + corner).reshape(-1, 3)
    found = rows[hash_index(nodes, level.entries)].reshape(len(points), 8, rows.shape[-1])
    return (weight * found).sum(dim=1)


def hash_index(nodes: Tensor, entries: int) -> Tensor:
    """Integer nodes [N, 3] -> rows [N]: the primes' products, 32-bit, combined by xor, modulo ``entries``."""
    mask = 0xFFFFFFFF
    x, y, z = (((nodes[:, i] & mask) * PRIMES[i]) & mask for i in range(3))
    return (x ^ y ^ z) % entries
