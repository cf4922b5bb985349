"""Volume rendering of a density field, with an occupancy grid that skips empty space.

Compositing is nerfacc's dense `render_weight_from_density` and `accumulate_along_rays`, on every device.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import accumulate
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from ..cameras import Cameras, rays
from ..types import Rendering

SATURATED, EMPTY = 1e-3, 1e-3
# Samples that are considered at once, before pruning; with gradients, what each portion keeps is computed again in the
# backward pass: thousands of bytes a sample in a hashed field.
CANDIDATES = 2**20


class RadianceField(Protocol):
    def __call__(self, points: Tensor) -> tuple[Tensor, Tensor]: ...
    def density(self, points: Tensor) -> Tensor: ...
    def normals(self, points: Tensor) -> Tensor: ...


@dataclass(frozen=True)
class Shading:
    """Soft shading by a point light (DreamFusion, section 3.1).

    light : [V, 3] positions, one a view; ambient : 0..1, diffuse is 1 - ambient
    textureless : show white instead of base color; strength : 0..1, of all the light
    fixed_normals : no gradient through the shading into the geometry, in a third of the time
    """

    light: Tensor
    ambient: float
    textureless: bool = False
    strength: float = 1.0
    fixed_normals: bool = False


class Occupancy(nn.Module):
    """A grid of running-maximum densities over [-1, 1]^3; cells below ``threshold`` (alpha per sample) are skipped."""

    values: Tensor
    allowed: Tensor

    def __init__(self, cells: int, threshold: float, decay: float, samples: int) -> None:
        super().__init__()
        self.cells, self.decay = cells, decay
        self.density_threshold = threshold / (2.0 / samples)
        # Just above the threshold: everything is alive at first and empty space dies within a few updates.
        self.register_buffer("values", torch.full((cells, cells, cells), self.density_threshold * 1.5))
        self.register_buffer("allowed", torch.ones((cells, cells, cells), dtype=torch.bool))

    def centers(self) -> Tensor:
        """[cells^3, 3] world positions of the cells' middles."""
        axis = (torch.arange(self.cells, device=self.values.device) + 0.5) * (2.0 / self.cells) - 1.0
        return torch.stack(torch.meshgrid(axis, axis, axis, indexing="ij"), dim=-1).reshape(-1, 3)

    def forbid(self, outside: Tensor) -> None:
        """Cells [cells^3] that are to stay empty from now on, whatever the field says there."""
        self.allowed &= ~outside.reshape(self.allowed.shape)

    @torch.no_grad()
    def update(self, density: Callable[[Tensor], Tensor], generator: torch.Generator) -> None:
        """Decay, then take the maximum with the density at one random point in every cell."""
        centers = self.centers()
        jitter = (torch.rand(centers.shape, generator=generator) - 0.5) * (2.0 / self.cells)
        found = torch.cat([density(p) for p in (centers + jitter.to(centers)).split(65536)])
        self.values = torch.maximum(self.values * self.decay, found.reshape(self.values.shape))

    def alive(self, points: Tensor) -> Tensor:
        """World points [..., 3] -> bool [...]; a cell also lives while a neighbour does."""
        live = (self.values > self.density_threshold).float()[None, None]
        live = (F.max_pool3d(live, 3, stride=1, padding=1)[0, 0] > 0) & self.allowed
        return live.reshape(-1)[self._cell(points)]

    def permits(self, points: Tensor) -> Tensor:
        """World points [..., 3] -> bool [...]: not in a forbidden cell."""
        return self.allowed.reshape(-1)[self._cell(points)]

    def _cell(self, points: Tensor) -> Tensor:
        index = ((points + 1) * (self.cells / 2)).long().clamp(0, self.cells - 1)
        return (index[..., 0] * self.cells + index[..., 1]) * self.cells + index[..., 2]


def ball_span(origins: Tensor, directions: Tensor, radius: float = 1.0) -> tuple[Tensor, Tensor]:
    """Distances [N] at which rays enter and leave the ball; equal where they miss it."""
    along = -(origins * directions).sum(-1)
    half = (radius**2 - (origins + along[:, None] * directions).square().sum(-1)).clamp(min=0).sqrt()
    return (along - half).clamp(min=0), (along + half).clamp(min=0)


@dataclass(frozen=True)
class Traced:
    """N rays through a field: rgb [N, 3] without background, opacity and depth [N, 1], and the S evaluated samples."""

    rgb: Tensor
    opacity: Tensor
    depth: Tensor
    weights: Tensor  # [S]
    positions: Tensor  # [S, 3]
    rays: Tensor  # [S]
    normals: Tensor | None
    normal_rows: Tensor | None


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
    origins, directions = (r.reshape(-1, 3) for r in rays(cameras, size, size))
    if shading is not None:
        shading = replace(shading, light=shading.light.repeat_interleave(size**2, dim=0))
    out = trace(field, origins, directions, samples, occupancy, generator, shading, normals)

    def image(values: Tensor) -> Tensor:
        return values.reshape(len(cameras), size, size, -1).permute(0, 3, 1, 2)

    alpha = image(out.opacity)
    return Rendering(
        rgb=image(out.rgb) + background * (1 - alpha), opacity=alpha, depth=image(out.depth),
        weights=out.weights, positions=out.positions, rays=out.rays, normals=out.normals, normal_rows=out.normal_rows,
    )  # fmt: skip


def trace(
    field: RadianceField,
    origins: Tensor,
    directions: Tensor,
    samples: int,
    occupancy: Occupancy | None = None,
    generator: torch.Generator | None = None,
    shading: Shading | None = None,
    normals: bool = False,
) -> Traced:
    """Rays [N, 3] with unit directions through the field; as `render`, with one light a ray in ``shading``."""
    jitter = None if generator is None else torch.rand(len(origins), 1, generator=generator).to(origins) - 0.5
    portion = max(1, CANDIDATES // samples)
    parts = []
    for first in range(0, max(len(origins), 1), portion):
        some = slice(first, first + portion)
        arguments = (
            field, origins[some], directions[some], samples, occupancy, None if jitter is None else jitter[some],
            None if shading is None else replace(shading, light=shading.light[some]), normals,
        )  # fmt: skip
        again = torch.is_grad_enabled() and len(origins) > portion
        parts.append(checkpoint(_trace, *arguments, use_reentrant=False) if again else _trace(*arguments))
    return parts[0] if len(parts) == 1 else _join(parts)


def _join(parts: list[Traced]) -> Traced:
    """The portions of rays as one, ray and sample numbers counted on."""
    rays_before = [0, *accumulate(len(part.rgb) for part in parts)]
    samples_before = [0, *accumulate(len(part.weights) for part in parts)]
    values = {
        name: torch.cat([getattr(part, name) for part in parts])
        for name in ("rgb", "opacity", "depth", "weights", "positions")
    }
    normals = [part.normals for part in parts if part.normals is not None]
    normal_rows = [p.normal_rows + n for p, n in zip(parts, samples_before, strict=False) if p.normal_rows is not None]
    return Traced(
        **values, rays=torch.cat([part.rays + first for part, first in zip(parts, rays_before, strict=False)]),
        normals=torch.cat(normals) if normals else None, normal_rows=torch.cat(normal_rows) if normal_rows else None,
    )  # fmt: skip


def _trace(
    field: RadianceField,
    origins: Tensor,
    directions: Tensor,
    samples: int,
    occupancy: Occupancy | None,
    jitter: Tensor | None,
    shading: Shading | None,
    normals: bool,
) -> Traced:
    """As `trace`; jitter : [N, 1] in -0.5..0.5 samples, given when optimising."""
    from nerfacc import accumulate_along_rays, render_weight_from_density

    near, far = ball_span(origins, directions)
    rows = torch.nonzero(far > near)[:, 0]  # [R] rays through the ball
    near, far = near[rows], far[rows]
    edges = torch.linspace(0, 1, samples + 1, device=origins.device).expand(len(rows), -1)
    if jitter is not None:
        edges = edges + jitter[rows] / samples
    t = near[:, None] + (far - near)[:, None] * edges  # [R, S + 1]
    starts, ends = t[:, :-1], t[:, 1:]
    middle = (starts + ends) / 2
    points = origins[rows, None] + middle[..., None] * directions[rows, None]  # [R, S, 3]
    alive = torch.ones_like(middle, dtype=torch.bool) if occupancy is None else occupancy.alive(points)
    # Drawing at random is optimising: there a sample that adds almost nothing is not worth its gradient.
    alive = _visible(field, points, starts, ends, alive, EMPTY if jitter is not None else 0.0)
    ray, positions = torch.nonzero(alive)[:, 0], points[alive]

    density, color = field(positions) if len(positions) else (points.new_zeros(0), points.new_zeros(0, 3))
    sigma = torch.zeros_like(middle).masked_scatter(alive, density)
    weights, _, _ = render_weight_from_density(starts, ends, sigma)  # [R, S]
    weight = weights[alive]
    normal = normal_rows = None
    if (normals or shading is not None) and len(positions):
        normal_rows = torch.nonzero(weight.detach() > 0.01)[:, 0]
        with torch.set_grad_enabled(torch.is_grad_enabled() and (normals or not (shading and shading.fixed_normals))):
            normal = field.normals(positions[normal_rows])
        if shading is not None:
            light = shading.light[rows[ray[normal_rows]]] - positions[normal_rows]
            cosine = (normal * F.normalize(light, dim=-1)).sum(-1).clamp(min=0)
            lit = shading.strength * (shading.ambient + (1 - shading.ambient) * cosine)
            shade = torch.full_like(color[:, 0], shading.strength).index_put((normal_rows,), lit)
            color = (torch.ones_like(color) if shading.textureless else color) * shade[:, None]
    dense_color = torch.zeros_like(points).masked_scatter(alive[..., None], color)

    def full(values: Tensor) -> Tensor:
        return values.new_zeros(len(origins), values.shape[-1]).index_copy(0, rows, values)

    return Traced(
        rgb=full(accumulate_along_rays(weights, dense_color)), opacity=full(accumulate_along_rays(weights)),
        depth=full(accumulate_along_rays(weights, middle[..., None])),
        weights=weight, positions=positions, rays=rows[ray], normals=normal, normal_rows=normal_rows,
    )  # fmt: skip


@torch.no_grad()
def _visible(field: RadianceField, points: Tensor, starts: Tensor, ends: Tensor, alive: Tensor, empty: float) -> Tensor:
    """``alive`` without samples behind a saturated surface or thinner than ``empty``: a cheap pass without gradient."""
    if not bool(alive.any()):
        return alive
    optical = torch.zeros_like(starts).masked_scatter(alive, field.density(points[alive])) * (ends - starts)
    transmittance = torch.exp(-(optical.cumsum(dim=1) - optical))
    return alive & (transmittance > SATURATED) & (optical >= empty)
