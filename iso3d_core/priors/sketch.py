"""A first guess of each view from the embedding alone, which a small UNet gets beside its noisy latents.

A large UNet finds what a view shows from the embedding and the camera by cross-attention (Isotropic3D); a small one
hardly does in minutes of training. The embedding stays all that is known of the image.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F

from .attention import HARMONICS, steer

CHANNELS = 4  # RGB on white and coverage


class Sketch(nn.Module):
    """(embedding [N, 1, D], cameras [N, 16]) -> [N, 4, 16, 16]: RGB on white and coverage, about 0..1, at latent size.

    rank, width : of the bottleneck and of the convolutions
    """

    def __init__(self, dim: int, rank: int = 128, width: int = 48) -> None:
        super().__init__()
        self.config: dict[str, Any] = {"dim": dim, "rank": rank, "width": width}
        self.first = nn.Sequential(
            nn.Linear(dim * HARMONICS, rank), nn.SiLU(), nn.Linear(rank, rank), nn.SiLU(), nn.Linear(rank, width * 16)
        )
        self.middle = nn.Sequential(nn.GroupNorm(8, width), nn.SiLU(), nn.Conv2d(width, width, 3, padding=1))
        self.upper = nn.Sequential(nn.GroupNorm(8, width), nn.SiLU(), nn.Conv2d(width, width, 3, padding=1))
        self.last = nn.Sequential(nn.GroupNorm(8, width), nn.SiLU(), nn.Conv2d(width, CHANNELS, 3, padding=1))

    @staticmethod
    def load(folder: Path) -> Sketch:
        from safetensors.torch import load_file

        sketch = Sketch(**json.loads((folder / "config.json").read_text()))
        sketch.load_state_dict({name: value.float() for name, value in load_file(folder / "model.safetensors").items()})
        return sketch

    def forward(self, embedding: Tensor, cameras: Tensor) -> Tensor:
        x = self.first(steer(embedding, cameras)[:, 0]).unflatten(-1, (-1, 4, 4))
        x = x + self.middle(x)
        x = F.interpolate(x, scale_factor=2, mode="bilinear")
        x = x + self.upper(x)
        return self.last(F.interpolate(x, scale_factor=2, mode="bilinear")) + 0.5


def thumbnails(rgba: Tensor, side: int = 16) -> Tensor:
    """[..., 4, S, S] on white with coverage -> [..., 4, side, side]: what a sketch should show."""
    flat = rgba.flatten(0, -4)
    return F.adaptive_avg_pool2d(flat, side).reshape(*rgba.shape[:-2], side, side)
