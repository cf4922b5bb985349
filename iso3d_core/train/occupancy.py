"""What is solid of the world's objects: occupancy grids, written once, looked up in the frame of any reference view."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from .world import make_object

GRID = 48  # cells a side of the cube [-1, 1]^3


def occupancy_of(seed: int) -> np.ndarray:
    """The object's cells [GRID^3 / 8] uint8, z slowest and x fastest, eight to a byte: whether the centre is inside."""
    axis = (np.arange(GRID) + 0.5) / GRID * 2 - 1
    z, y, x = np.meshgrid(axis, axis, axis, indexing="ij")
    points = np.stack([x, y, z], axis=-1).reshape(-1, 3)
    solid = np.zeros(len(points), bool)
    near = np.flatnonzero((points**2).sum(axis=1) <= 1)  # objects fit into the unit ball
    solid[near] = make_object(seed).contains(points[near])
    return np.packbits(solid)


def build(folder: Path, seeds: range, workers: int | None = None) -> np.ndarray:
    """The grids [N, GRID^3 / 8] of the objects of ``seeds``, from ``folder`` where they are there already."""
    from concurrent.futures import ProcessPoolExecutor
    from multiprocessing import get_context

    from tqdm import tqdm

    done, path = folder / "occupancy.json", folder / "occupancy.npy"
    settings = {"seeds": [seeds.start, seeds.stop], "grid": GRID}
    if not (done.exists() and json.loads(done.read_text()) == settings):
        folder.mkdir(parents=True, exist_ok=True)
        with ProcessPoolExecutor(workers or os.cpu_count(), mp_context=get_context("spawn")) as pool:
            rows = pool.map(occupancy_of, seeds, chunksize=50)
            grids = np.stack(list(tqdm(rows, total=len(seeds), desc="occupancy", mininterval=5)))
        np.save(path, grids)
        done.write_text(json.dumps(settings))
    return np.load(path, mmap_mode="r")


def seen_from(packed: np.ndarray, azimuth_deg: np.ndarray, side: int, mirrored: bool = False) -> Tensor:
    """Occupancy in the frames of references: that view at azimuth 0.

    packed [B, GRID^3 / 8], azimuth_deg [B] of each reference in the object's world -> [B, z, y, x] in 0..1, ``side``
    cells each; ``mirrored``: left and right exchanged, as in the mirrored reference.
    """
    grids = np.unpackbits(packed, axis=-1).reshape(len(packed), GRID, GRID, GRID)
    axis = (torch.arange(side) + 0.5) / side * 2 - 1
    y, x = torch.meshgrid(-axis if mirrored else axis, axis, indexing="ij")
    angle = torch.from_numpy(np.deg2rad(azimuth_deg)).float()[:, None, None]
    place = torch.stack([x * angle.cos() - y * angle.sin(), x * angle.sin() + y * angle.cos()], dim=-1)
    turned = F.grid_sample(torch.from_numpy(grids).float(), place, align_corners=False)  # [B, GRID, side, side]
    layers = turned.flatten(2).transpose(1, 2)  # z last
    return F.interpolate(layers, side, mode="linear").transpose(1, 2).unflatten(2, (side, side))
