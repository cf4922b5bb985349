"""The radiance field: a multi-resolution grid encoding and two small MLPs (Isotropic3D; Müller et al. 2022)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..config import FieldConfig
from ..ops.encoding import encode, grid_levels, table_rows


class HashGridField(nn.Module):
    """Density and base color of points in the ball of radius 1; no dependence on the viewing direction."""

    def __init__(self, config: FieldConfig, seed: int = 0) -> None:
        super().__init__()
        self.config = config
        self.levels = grid_levels(config.levels, config.base, config.growth, config.log2_table)
        generator = torch.Generator().manual_seed(seed)
        rows = table_rows(self.levels)
        self.table = nn.Parameter((torch.rand(rows, config.features, generator=generator) * 2 - 1) * 1e-4)
        width = config.levels * config.features
        self.density_mlp = make_mlp(width, config.hidden, 1, generator)
        self.color_mlp = make_mlp(width, config.hidden, 3, generator)
        # What is added to the colors: [3, z, y, x] over the cube [-1, 1]^3, or nothing (`methods.tint`).
        self.tint: Tensor | None
        self.register_buffer("tint", None)

    def features(self, points: Tensor) -> Tensor:
        """World points [N, 3] -> encoding [N, levels * features]."""
        return encode((points / 2 + 0.5).clamp(0, 1), self.table, self.levels)

    def _density(self, points: Tensor, features: Tensor) -> Tensor:
        c = self.config
        blob = c.blob_bias * (1 - points.norm(dim=-1) / c.blob_radius)
        return F.softplus(self.density_mlp(features)[:, 0] + blob)

    def density(self, points: Tensor) -> Tensor:
        """World points [N, 3] -> density [N], per world unit."""
        return self._density(points, self.features(points))

    def forward(self, points: Tensor) -> tuple[Tensor, Tensor]:
        """World points [N, 3] -> (density [N], base color [N, 3])."""
        features = self.features(points)
        color = torch.sigmoid(self.color_mlp(features))
        if self.tint is not None:
            color = (color + look_up(self.tint, points)).clamp(0, 1)
        return self._density(points, features), color

    def normals(self, points: Tensor, step: float = 0.02) -> Tensor:
        """Outward unit normals [N, 3]: minus the density's gradient, by differences over a tetrahedron of ``step``.

        Four evaluations: `grid_sample` has no second derivative, and the gradient must flow through the normals.
        """
        corners = torch.tensor(
            [[1, -1, -1], [-1, -1, 1], [-1, 1, -1], [1, 1, 1]], dtype=points.dtype, device=points.device
        )
        shifted = points[:, None] + corners * step  # [N, 4, 3]
        density = self.density(shifted.reshape(-1, 3)).reshape(-1, 4)
        return F.normalize(-(density @ corners), dim=-1, eps=1e-6)

    def parameter_groups(self, learning_rate_grid: float, learning_rate_mlp: float) -> list[dict]:
        mlps = [*self.density_mlp.parameters(), *self.color_mlp.parameters()]
        return [{"params": [self.table], "lr": learning_rate_grid}, {"params": mlps, "lr": learning_rate_mlp}]


def make_mlp(width: int, hidden: int, out: int, generator: torch.Generator) -> nn.Sequential:
    """One hidden layer with ReLU, torch's own initialisation drawn from ``generator``, biases zero."""
    first, last = nn.Linear(width, hidden), nn.Linear(hidden, out)
    with torch.no_grad():
        for layer in (first, last):
            nn.init.kaiming_uniform_(layer.weight, a=5**0.5, generator=generator)
            layer.bias.zero_()
    return nn.Sequential(first, nn.ReLU(inplace=True), last)


def look_up(grid: Tensor, points: Tensor) -> Tensor:
    """A grid [C, z, y, x] of the cube [-1, 1]^3 at points [N, 3], linearly, 0 beyond: [N, C]."""
    return F.grid_sample(grid[None], points[None, None, None], align_corners=False)[0, :, 0, 0].T
