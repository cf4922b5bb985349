"""Views of a surface that stays as it is while its color is optimised: what each pixel sees is found once, by ray
casting, and the colors of those points are put together differentiably."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from ..cameras import Cameras
from ..types import Mesh
from .raster import caster
from .volume import Shading


@dataclass(frozen=True)
class Seen:
    """The samples of some views that hit the surface.

    rows : [K] of the V * S * S * antialias^2 samples; points, normals, color : [K, 3], color the mesh's own
    mask : [V, 1, S, S] coverage; depth : [V, 1, S, S] distance along the ray, mean of the samples that hit
    """

    rows: Tensor
    points: Tensor
    normals: Tensor
    color: Tensor
    mask: Tensor
    depth: Tensor
    antialias: int

    def image(self, color: Tensor, shading: Shading | None = None) -> Tensor:
        """The colors [K, 3] of the samples as views [V, 3, S, S] on white, lit by ``shading``."""
        views, _, size, _ = self.mask.shape
        samples = views * (size * self.antialias) ** 2
        if shading is not None:
            light = shading.light[self.rows // (samples // views)] - self.points
            cosine = (self.normals * F.normalize(light, dim=-1)).sum(dim=-1, keepdim=True).clamp(min=0)
            color = color * shading.strength * (shading.ambient + (1 - shading.ambient) * cosine)
        full = color.new_ones(samples, 3).index_put((self.rows,), color)
        side = size * self.antialias
        return F.avg_pool2d(full.reshape(views, side, side, 3).permute(0, 3, 1, 2), self.antialias)


class Surface:
    """A mesh to look at, in the ball of radius 1."""

    def __init__(self, mesh: Mesh) -> None:
        self._cast = caster(mesh)

    def see(self, cameras: Cameras, size: int, antialias: int = 2) -> Seen:
        side = size * antialias
        hits, covered, depth = [], [], []
        for index in range(len(cameras)):
            camera = cameras[index]
            hit = self._cast(camera, side)
            origin = camera.positions[0].cpu().numpy()
            hit["points"] = origin + hit["ray"] * hit["depth"][:, None]
            hits.append(hit)
            covered.append(hit["mask"].astype(np.float32))
            distance = np.zeros(side * side, np.float32)
            distance[hit["mask"]] = hit["depth"]
            depth.append(distance)

        def pooled(values: list[np.ndarray]) -> Tensor:
            return F.avg_pool2d(torch.from_numpy(np.stack(values)).reshape(-1, 1, side, side), antialias)

        def joined(name: str) -> Tensor:
            return torch.from_numpy(np.concatenate([hit[name] for hit in hits]).astype(np.float32))

        mask = pooled(covered)
        return Seen(
            torch.from_numpy(np.flatnonzero(np.concatenate(covered))), joined("points"), joined("normal"),
            joined("color"), mask, pooled(depth) / mask.clamp(min=1e-6), antialias,
        )  # fmt: skip
