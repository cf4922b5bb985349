"""A texture field: base color of surface points, from a grid encoding of its own (HiFi-123's refine stage)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..config import FieldConfig
from ..ops.encoding import encode, grid_levels, table_rows
from .hashgrid import make_mlp


class TextureField(nn.Module):
    """Points in the ball of radius 1 [N, 3] -> base color [N, 3] in [0, 1]. Only the encoding of ``config`` counts."""

    def __init__(self, config: FieldConfig, seed: int = 0) -> None:
        super().__init__()
        self.levels = grid_levels(config.levels, config.base, config.growth, config.log2_table)
        generator = torch.Generator().manual_seed(seed)
        rows = table_rows(self.levels)
        self.table = nn.Parameter((torch.rand(rows, config.features, generator=generator) * 2 - 1) * 1e-4)
        self.mlp = make_mlp(config.levels * config.features, config.hidden, 3, generator)

    def forward(self, points: Tensor) -> Tensor:
        return torch.sigmoid(self.mlp(encode((points / 2 + 0.5).clamp(0, 1), self.table, self.levels)))

    def parameter_groups(self, learning_rate_grid: float, learning_rate_mlp: float) -> list[dict]:
        return [
            {"params": [self.table], "lr": learning_rate_grid},
            {"params": list(self.mlp.parameters()), "lr": learning_rate_mlp},
        ]
