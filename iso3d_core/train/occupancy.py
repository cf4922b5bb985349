"""What is solid of the world's objects, and of what color: grids, written once, looked up in the frame of any reference
view."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from ..priors.palette import PARTS, SLOTS
from .pool import one_core_each
from .world import TRAINING_KINDS, WorldObject, make_object

GRID = 48  # cells a side of the cube [-1, 1]^3
COLOR_GRID = 32
ONE_COLOR = 3  # how far a part's cells may be from the middle of its lightest and darkest: 3 channels of 255, added up


def occupancy_of(seed: int) -> np.ndarray:
    """The object's cells [GRID^3 / 8] uint8, z slowest and x fastest, eight to a byte: whether the centre is inside."""
    return np.packbits(_inside(make_object(seed), _centers(GRID)))


def colors_of(seed: int) -> np.ndarray:
    """Base color of the solid cells, and 255: [z, y, x, 4] uint8, COLOR_GRID cells a side; zeros elsewhere.

    Where parts overlap the color is the last one's.
    """
    obj, points = make_object(seed), _centers(COLOR_GRID)
    out = np.zeros((len(points), 4), np.uint8)
    for part in obj.parts:
        rows = np.flatnonzero(part.contains(points))
        color = part.material.albedo(part.to_local(points[rows]))
        out[rows, :3], out[rows, 3] = np.round(np.clip(color, 0, 1) * 255), 255
    return out.reshape(COLOR_GRID, COLOR_GRID, COLOR_GRID, 4)


def parts_of(seed: int) -> np.ndarray:
    """Which color of which part of its kind each cell has: [z, y, x] uint8, COLOR_GRID cells a side.

    The part is counted as in `part_numbers`, and PARTS more where the cell is one of the part's darker ones. SLOTS:
    nothing is there, or a part that has no number.
    """
    obj, points = make_object(seed), _centers(COLOR_GRID)
    numbers = part_numbers().get(obj.kind, {})
    out = np.full(len(points), SLOTS, np.uint8)
    for part in obj.parts:
        out[part.contains(points)] = numbers.get(part.name, SLOTS)
    light = colors_of(seed)[..., :3].sum(axis=-1, dtype=np.int32).ravel()
    for number in np.unique(out[out < PARTS]):
        rows = np.flatnonzero(out == number)
        middle = (light[rows].min() + light[rows].max()) / 2
        if light[rows].max() - middle > ONE_COLOR:
            out[rows[light[rows] < middle]] += PARTS
    return out.reshape(COLOR_GRID, COLOR_GRID, COLOR_GRID)


@cache
def part_numbers(examples: int = 24) -> dict[str, dict[str, int]]:
    """Of each kind that is trained on, the names of its parts, numbered from the one that most of its objects have;
    at most PARTS."""
    found = {}
    for kind in TRAINING_KINDS:
        count = Counter(name for i in range(examples) for name in {part.name for part in make_object(i, kind).parts})
        found[kind] = {name: number for number, (name, _) in enumerate(sorted(count.items(), key=_rank)[:PARTS])}
    return found


def _rank(item: tuple[str, int]) -> tuple[int, str]:
    """Frequent names first, equally frequent ones by the alphabet."""
    return -item[1], item[0]


@cache
def _centers(side: int) -> np.ndarray:
    """Of the cells of the cube [-1, 1]^3: [side^3, 3], x fastest."""
    axis = (np.arange(side) + 0.5) / side * 2 - 1
    z, y, x = np.meshgrid(axis, axis, axis, indexing="ij")
    return np.stack([x, y, z], axis=-1).reshape(-1, 3)


def _inside(obj: WorldObject, points: np.ndarray) -> np.ndarray:
    solid = np.zeros(len(points), bool)
    near = np.flatnonzero((points**2).sum(axis=1) <= 1)  # objects fit into the unit ball
    solid[near] = obj.contains(points[near])
    return solid


@dataclass(frozen=True)
class Solids:
    """Of the objects of a training set, memory-mapped: cells [N, GRID^3 / 8], colors and parts as above, [N, ...]."""

    cells: np.ndarray
    colors: np.ndarray
    parts: np.ndarray


def build(folder: Path, seeds: range, workers: int | None = None) -> Solids:
    """The grids of the objects of ``seeds``, from ``folder`` where they are there already."""
    return Solids(
        _built(folder / "occupancy", seeds, occupancy_of, GRID, workers),
        _built(folder / "colors", seeds, colors_of, COLOR_GRID, workers),
        _built(folder / "slots", seeds, parts_of, COLOR_GRID, workers),
    )


def _built(path: Path, seeds: range, make: Callable[[int], np.ndarray], grid: int, workers: int | None) -> np.ndarray:
    """``make`` of every seed in one memory-mapped array at ``path``.npy, whose settings are in ``path``.json."""
    from tqdm import tqdm

    done, settings = path.with_suffix(".json"), {"seeds": [seeds.start, seeds.stop], "grid": grid}
    if not (done.exists() and json.loads(done.read_text()) == settings):
        path.parent.mkdir(parents=True, exist_ok=True)
        done.unlink(missing_ok=True)
        with one_core_each(workers) as pool:
            rows = tqdm(pool.map(make, seeds, chunksize=50), total=len(seeds), desc=path.name, mininterval=5)
            out = None
            for number, row in enumerate(rows):
                if out is None:
                    shape = (len(seeds), *row.shape)
                    out = np.lib.format.open_memmap(path.with_suffix(".npy"), "w+", row.dtype, shape)
                out[number] = row
        done.write_text(json.dumps(settings))
    return np.load(path.with_suffix(".npy"), mmap_mode="r")


def seen_from(packed: np.ndarray, azimuth_deg: np.ndarray, side: int, mirrored: bool = False) -> Tensor:
    """Occupancy in the frames of references: that view at azimuth 0.

    packed [B, GRID^3 / 8], azimuth_deg [B] of each reference in the object's world -> [B, z, y, x] in 0..1, ``side``
    cells each; ``mirrored``: left and right exchanged, as in the mirrored reference.
    """
    grids = np.unpackbits(packed, axis=-1).reshape(len(packed), GRID, GRID, GRID)
    turned = _turned(torch.from_numpy(grids).float(), azimuth_deg, side, mirrored)  # [B, GRID, side, side]
    layers = turned.flatten(2).transpose(1, 2)  # z last
    return F.interpolate(layers, side, mode="linear").transpose(1, 2).unflatten(2, (side, side))


def colors_seen_from(colors: np.ndarray, azimuth_deg: np.ndarray, mirrored: bool = False) -> tuple[Tensor, Tensor]:
    """Colors as `colors_of` gives them, [B, z, y, x, 4], in the frames of `seen_from`.

    -> colors [B, 3, z, y, x], and how far each cell is solid [B, z, y, x], both in 0..1
    """
    side = colors.shape[1]
    layers = torch.from_numpy(np.ascontiguousarray(colors)).float().div_(255).permute(0, 4, 1, 2, 3)
    turned = _turned(layers.flatten(1, 2), azimuth_deg, side, mirrored).unflatten(1, (4, side))
    solid = turned[:, 3]
    return turned[:, :3] / solid.clamp(min=1e-3)[:, None], solid


def parts_seen_from(parts: np.ndarray, azimuth_deg: np.ndarray, mirrored: bool = False) -> Tensor:
    """Parts as `parts_of` gives them, [B, z, y, x], in the frames of `seen_from`: [B, z, y, x] int64."""
    side = parts.shape[1]
    layers = torch.from_numpy(parts.astype(np.float32)) - SLOTS  # beyond the edges is nothing
    return (_turned(layers, azimuth_deg, side, mirrored, "nearest") + SLOTS).long()


def _turned(
    layers: Tensor, azimuth_deg: np.ndarray, side: int, mirrored: bool, interpolation: str = "bilinear"
) -> Tensor:
    """Horizontal layers [B, L, y, x] in the frames of views at ``azimuth_deg`` [B] -> [B, L, side, side]."""
    axis = (torch.arange(side) + 0.5) / side * 2 - 1
    y, x = torch.meshgrid(-axis if mirrored else axis, axis, indexing="ij")
    angle = torch.from_numpy(np.deg2rad(azimuth_deg)).float()[:, None, None]
    place = torch.stack([x * angle.cos() - y * angle.sin(), x * angle.sin() + y * angle.cos()], dim=-1)
    return F.grid_sample(layers, place, interpolation, align_corners=False)
