"""Colors of a finished scene, drawn to those that the bundle's sketch expects where they are off over more than a cell.

The views of a small multi-view prior are draws, and score distillation goes on drawing: over whole parts of an object
their colors are further from the true ones than the sketch's, which was trained for the least error and shows nothing
finer than a cell. So the sketch has the last word on what is wider, and the field keeps what is finer.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from ..fields.scene import Scene


@torch.no_grad()
def tint(scene: Scene, colors: Tensor, share: float, radius: float = 0.06) -> None:
    """Let the field add to its colors ``share`` of the mean difference to ``colors`` around each point of the surface.

    colors : base colors [3, z, y, x] of cells of the cube [-1, 1]^3, in 0..1
    radius : standard deviation of what is around a point, in the world's units
    """
    side = colors.shape[-1]
    axis = (torch.arange(side) + 0.5) / side * 2 - 1
    z, y, x = torch.meshgrid(axis, axis, axis, indexing="ij")
    centers = torch.stack([x, y, z], dim=-1).reshape(-1, 3).to(colors.device)
    density, own = scene.field(centers)
    thickness = density * scene.occupancy.permits(centers) * (2 / side)
    solid = (1 - torch.exp(-thickness)).reshape(1, side, side, side)
    # What lies inside was never seen: cells at the surface count several times as much.
    weight = solid * (1.1 - F.avg_pool3d(solid[None], 3, stride=1, padding=1)[0])
    difference = (colors - own.T.reshape(3, side, side, side)) * weight
    scene.field.tint = share * blurred(difference, radius) / blurred(weight, radius).clamp(min=1e-3)


def blurred(grid: Tensor, radius: float) -> Tensor:
    """[C, z, y, x] over the cube [-1, 1]^3, weighed around each cell by a Gaussian of that standard deviation."""
    place = torch.arange(grid.shape[-1], device=grid.device) * (2 / grid.shape[-1])
    near = torch.exp(-((place[:, None] - place) ** 2) / (2 * radius**2))
    near = near / near.sum(dim=1).max()
    for dim in (1, 2, 3):
        grid = (grid.movedim(dim, -1) @ near).movedim(-1, dim)
    return grid
