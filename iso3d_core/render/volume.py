"""Volume rendering of a density field, with an occupancy grid that skips empty space.

Compositing is nerfacc's dense `render_weight_from_density` and `accumulate_along_rays`, on every device.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..cameras import Cameras, rays
from ..types import Rendering

SATURATED = 1e-3


class RadianceField(Protocol):
    def __call__(self, points: Tensor) -> tuple[Tensor, Tensor]: ...
    def density(self, points: Tensor) -> Tensor: ...
    def normals(self, points: Tensor) -> Tensor: ...


@dataclass(frozen=True)
class Shading:
    """Soft shading by one point light for each view (DreamFusion, section 3.1).

    light : [V, 3] positions; ambient : 0..1, diffuse is 1 - ambient; textureless : show white instead of base color
    """

    light: Tensor
    ambient: float
    textureless: bool = False


class Occupancy(nn.Module):
    """A grid of running-maximum densities over [-1, 1]^3; cells below ``threshold`` (alpha per sample) are skipped."""

    values: Tensor

    def __init__(self, cells: int, threshold: float, decay: float, samples: int) -> None:
        super().__init__()
        self.cells, self.decay = cells, decay
        self.density_threshold = threshold / (2.0 / samples)
        # Just above the threshold: everything is alive at first and empty space dies within a few updates.
        self.register_buffer("values", torch.full((cells, cells, cells), self.density_threshold * 1.5))

    @torch.no_grad()
    def update(self, density: Callable[[Tensor], Tensor], generator: torch.Generator) -> None:
        """Decay, then take the maximum with the density at one random point in every cell."""
        axis = torch.arange(self.cells)
        corner = torch.stack(torch.meshgrid(axis, axis, axis, indexing="ij"), dim=-1).reshape(-1, 3)
        points = (corner + torch.rand(corner.shape, generator=generator)) * (2.0 / self.cells) - 1.0
        found = torch.cat([density(p.to(self.values.device)) for p in points.split(65536)])
        self.values = torch.maximum(self.values * self.decay, found.reshape(self.values.shape))

    def alive(self, points: Tensor) -> Tensor:
        """World points [..., 3] -> bool [...]; a cell also lives while a neighbour does."""
        live = (self.values > self.density_threshold).float()[None, None]
        live = F.max_pool3d(live, 3, stride=1, padding=1)[0, 0] > 0
        index = ((points + 1) * (self.cells / 2)).long().clamp(0, self.cells - 1)
        flat = (index[..., 0] * self.cells + index[..., 1]) * self.cells + index[..., 2]
        return live.reshape(-1)[flat]


def ball_span(origins: Tensor, directions: Tensor, radius: float = 1.0) -> tuple[Tensor, Tensor]:
    """Distances [N] at which rays enter and leave the ball; equal where they miss it."""
    along = -(origins * directions).sum(-1)
    half = (radius**2 - (origins + along[:, None] * directions).square().sum(-1)).clamp(min=0).sqrt()
    return (along - half).clamp(min=0), (along + half).clamp(min=0)


def render(
    field: RadianceField,
    cameras: Cameras,
    size: int,
    samples: int,
    occupancy: Occupancy | None = None,
    generator: torch.Generator | None = None,
    shading: Shading | None = None,
    normals: bool = False,
    background: float = 1.0,
) -> Rendering:
    """Render V views of ``size`` x ``size`` pixels.

    samples : a ray, spread over the ball of radius 1, jittered once a ray when ``generator`` is given
    shading : soft shading with the field's normals; None shows base color
    normals : also return the normals of the samples with weight above 0.01 (`Rendering.normals`)
    """
    from nerfacc import accumulate_along_rays, render_weight_from_density

    views = len(cameras)
    origins, directions = (r.reshape(-1, 3) for r in rays(cameras, size, size))
    near, far = ball_span(origins, directions)
    rows = torch.nonzero(far > near)[:, 0]  # [R] rays through the ball
    origin, direction, near, far = origins[rows], directions[rows], near[rows], far[rows]
    edges = torch.linspace(0, 1, samples + 1, device=origin.device).expand(len(rows), -1)
    if generator is not None:
        jitter = torch.rand(len(rows), 1, generator=generator).to(origin) - 0.5
        edges = edges + jitter / samples
    t = near[:, None] + (far - near)[:, None] * edges  # [R, S + 1]
    starts, ends = t[:, :-1], t[:, 1:]
    middle = (starts + ends) / 2
    points = origin[:, None] + middle[..., None] * direction[:, None]  # [R, S, 3]
    alive = torch.ones_like(middle, dtype=torch.bool) if occupancy is None else occupancy.alive(points)
    alive = _visible(field, points, starts, ends, alive)
    where = torch.nonzero(alive)  # [K, 2] ray row, sample
    ray, positions = where[:, 0], points[alive]

    density, color = field(positions) if len(positions) else (points.new_zeros(0), points.new_zeros(0, 3))
    sigma = torch.zeros_like(middle).masked_scatter(alive, density)
    weights, _, _ = render_weight_from_density(starts, ends, sigma)  # [R, S]
    weight = weights[alive]
    normal = normal_rows = None
    if (normals or shading is not None) and len(positions):
        normal_rows = torch.nonzero(weight.detach() > 0.01)[:, 0]
        normal = field.normals(positions[normal_rows])
        if shading is not None:
            shade = torch.ones_like(color[:, 0])
            light = shading.light[rows[ray[normal_rows]] // size**2] - positions[normal_rows]
            cosine = (normal * F.normalize(light, dim=-1)).sum(-1).clamp(min=0)
            shade = shade.index_put((normal_rows,), shading.ambient + (1 - shading.ambient) * cosine)
            color = (torch.ones_like(color) if shading.textureless else color) * shade[:, None]
    dense_color = torch.zeros_like(points).masked_scatter(alive[..., None], color)
    rgb = accumulate_along_rays(weights, dense_color)  # [R, 3]
    opacity = accumulate_along_rays(weights)  # [R, 1]
    depth = accumulate_along_rays(weights, middle[..., None])

    def image(values: Tensor) -> Tensor:
        full = values.new_zeros(views * size * size, values.shape[-1]).index_copy(0, rows, values)
        return full.reshape(views, size, size, -1).permute(0, 3, 1, 2)

    alpha = image(opacity)
    return Rendering(
        rgb=image(rgb) + background * (1 - alpha), opacity=alpha, depth=image(depth),
        weights=weight, positions=positions, rays=rows[ray], normals=normal, normal_rows=normal_rows,
    )  # fmt: skip


@torch.no_grad()
def _visible(field: RadianceField, points: Tensor, starts: Tensor, ends: Tensor, alive: Tensor) -> Tensor:
    """``alive`` without the samples behind a saturated surface: a cheap pass without gradient pays for itself."""
    if not bool(alive.any()):
        return alive
    sigma = torch.zeros_like(starts).masked_scatter(alive, field.density(points[alive]))
    depth = (sigma * (ends - starts)).cumsum(dim=1)
    transmittance = torch.exp(-(depth - sigma * (ends - starts)))
    return alive & (transmittance > SATURATED)
