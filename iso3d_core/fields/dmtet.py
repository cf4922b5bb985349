"""DMTet: a surface as the zero set of signed distances on a deformable tetrahedral grid (Shen et al. 2021).

Marching tetrahedra without tables: the corners of a tetrahedron are sorted, inside ones first; one or three inside give
a triangle, two a quadrilateral, and each triangle is turned so that it looks from inside to outside.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from ..config import LOWEST_THRESHOLD
from ..mesh.extract import over_surface, within_reach
from ..render.differentiable import unique_pairs
from ..types import Diverged

# The six tetrahedra around a cube's diagonal (Kuhn 1960): the same in each cube, so that neighbours share faces.
# Corners are numbered x + 2 y + 4 z.
KUHN = ((0, 1, 3, 7), (0, 3, 2, 7), (0, 2, 6, 7), (0, 6, 4, 7), (0, 4, 5, 7), (0, 5, 1, 7))


class DMTet(nn.Module):
    """Signed distances (negative inside) and offsets at the corners of a grid of ``resolution`` cells a side in
    [-1, 1]^3; both are optimised."""

    points: Tensor
    tets: Tensor

    def __init__(self, resolution: int, distance: Callable[[Tensor], Tensor]) -> None:
        """distance : points [N, 3] -> signed distances [N], of any scale"""
        super().__init__()
        if resolution < 2:
            raise ValueError(f"the grid needs at least 2 cells a side, got {resolution}")
        points, tets = kuhn_grid(resolution)
        self.cell = 2.0 / resolution
        with torch.no_grad():
            start = torch.cat([distance(part) for part in points.split(2**16)]).reshape(-1)
        # The outermost layer stays outside, so that the surface is closed.
        self.register_buffer("points", points, persistent=False)
        self.register_buffer("border", (points.abs().amax(dim=1) > 1 - self.cell / 2), persistent=False)
        self.register_buffer("tets", tets, persistent=False)
        self.distances = nn.Parameter(start)
        self.offsets = nn.Parameter(torch.zeros_like(points))

    @staticmethod
    def from_density(
        density: Callable[[Tensor], Tensor], resolution: int, threshold: float, gap: int | None = None,
        core: float | None = None,
    ) -> DMTet:  # fmt: skip
        """The surface of a density where `mesh.extract.extract_surface` would put it, which takes the same threshold,
        gap and core; the distance is the logarithm of the surface's density over that of the point, in -1..1.

        A density that stays below ``threshold`` is taken at a lower one.
        """
        shape = DMTet(resolution, density)
        found = shape.distances.detach().clamp(min=1e-6)
        threshold = within_reach(threshold, float(found.max()), LOWEST_THRESHOLD)
        ratio = over_surface(found.cpu().numpy().reshape((resolution + 1,) * 3), threshold, gap, core)
        shape.distances.data = -torch.from_numpy(ratio).reshape(-1).to(found).log().clamp(-1, 1)
        return shape

    def surface(self) -> tuple[Tensor, Tensor]:
        """Vertices [n, 3], differentiable, and faces [m, 3], counter-clockwise seen from outside.

        Raises Diverged where there is no surface.
        """
        at = self.points + torch.tanh(self.offsets) * (0.45 * self.cell)
        distances = torch.where(self.get_buffer("border"), self.distances.abs() + 1e-3, self.distances)
        return marching_tetrahedra(at, distances, self.tets)

    def parameter_groups(self, learning_rate: float) -> list[dict]:
        return [{"params": [self.distances, self.offsets], "lr": learning_rate}]


def kuhn_grid(resolution: int) -> tuple[Tensor, Tensor]:
    """Corners [(r + 1)^3, 3] of a grid of the cube [-1, 1]^3, x fastest, and tetrahedra [6 r^3, 4]."""
    axis = torch.linspace(-1, 1, resolution + 1)
    z, y, x = torch.meshgrid(axis, axis, axis, indexing="ij")
    points = torch.stack([x, y, z], dim=-1).reshape(-1, 3)
    side = resolution + 1
    i = torch.arange(resolution)
    first = (i[:, None, None] * side + i[None, :, None]) * side + i  # [z, y, x] of each cube's lowest corner
    steps = torch.tensor([(n & 1) + side * ((n >> 1) & 1) + side * side * (n >> 2) for n in range(8)])
    return points, (first.reshape(-1, 1, 1) + steps[torch.tensor(KUHN)]).reshape(-1, 4)


def marching_tetrahedra(points: Tensor, distances: Tensor, tets: Tensor) -> tuple[Tensor, Tensor]:
    """The zero set of distances [N], linear in each of the tetrahedra [T, 4] of the points [N, 3].

    -> vertices [n, 3], differentiable in both, and faces [m, 3], looking to where distances are positive
    Raises Diverged where no distance changes its sign.
    """
    inside = distances < 0
    count = inside[tets].sum(dim=1)
    tets = tets[(count > 0) & (count < 4)]
    if len(tets) == 0:
        raise Diverged("the grid holds no surface: the shape has vanished; try another seed or method, or fewer steps")
    order = (~inside[tets]).long().argsort(dim=1, stable=True)
    tets = tets.gather(1, order)  # inside first
    count = inside[tets].sum(dim=1)
    a, b, c, d = tets.unbind(1)
    one, two, three = count == 1, count == 2, count == 3

    def triangle(chosen: Tensor, *edges: tuple[Tensor, Tensor]) -> Tensor:
        return torch.stack([torch.stack([p[chosen], q[chosen]], dim=-1) for p, q in edges], dim=1)  # [k, 3, 2]

    corners = torch.cat([
        triangle(one, (a, b), (a, c), (a, d)), triangle(three, (a, d), (b, d), (c, d)),
        triangle(two, (a, c), (a, d), (b, d)), triangle(two, (a, c), (b, d), (b, c)),
    ])  # fmt: skip
    edges, faces = unique_pairs(corners.reshape(-1, 2))
    p, q = edges.unbind(1)  # p inside, q outside
    # By index_select, whose gradient is added up in the same order every time.
    inner, outer = distances.index_select(0, p), distances.index_select(0, q)
    start, end = points.index_select(0, p), points.index_select(0, q)
    vertices = start + (inner / (inner - outer))[:, None] * (end - start)
    faces = faces.reshape(-1, 3)
    with torch.no_grad():
        outwards = (points[corners[..., 1]] - points[corners[..., 0]]).sum(dim=1)
        v0, v1, v2 = (vertices[faces[:, i]] for i in range(3))
        wrong = (torch.linalg.cross(v1 - v0, v2 - v0) * outwards).sum(dim=1) < 0
        faces = torch.where(wrong[:, None], faces.flip(1), faces)
    return vertices, faces
