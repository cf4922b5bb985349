"""What a bundle's sketch says of an image's own view, and how near things are in it and in others."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..cameras import orbit, unit_sphere_matrix
from ..near import nearness, under
from ..overlay import laid_over
from ..types import Reference
from .clip import ClipImage
from .sketch import SIDE, Sketch

ELEVATIONS = tuple(2.5 * i for i in range(-4, 17))  # that a reference may be seen from, in degrees
DOUBT = 0.003  # of a degree squared from what the probe says, against the logarithm of the sketch's error


@torch.no_grad()
def sketched_front(sketch: Sketch, embedding: Tensor, elevation_deg: Sequence[float], size: int) -> Tensor:
    """Azimuth 0 of an embedding [1, 1, D] at some elevations: [E, 4, size, size], RGB on white and coverage."""
    embedding = _beside(sketch, embedding)
    return sketch(embedding, front(elevation_deg).to(embedding.device), size)[0].float()


def front(elevation_deg: Sequence[float]) -> Tensor:
    """Cameras at azimuth 0 as a sketch takes them, [1, E, 16]."""
    heights = torch.tensor(elevation_deg, dtype=torch.float32)
    return unit_sphere_matrix(orbit(torch.zeros(len(heights)), heights))[None]


def _beside(sketch: Sketch, embedding: Tensor) -> Tensor:
    return embedding.to(next(sketch.parameters()).device).reshape(1, 1, -1)


@torch.no_grad()
def fit_reference(sketch: Sketch, embedding: Tensor, reference: Reference, size: int) -> tuple[float, Tensor]:
    """The reference's elevation in degrees and its sketch from there [4, size, size]: of ELEVATIONS, the one whose
    sketch is most like the reference laid over it and that is near what the bundle's probe of the embedding says,
    where it has one."""
    sketched = sketched_front(sketch, embedding, ELEVATIONS, size)
    rgb, alpha = reference.on_white()[None].to(sketched), reference.rgba[None, 3:].to(sketched)
    errors = []
    for view in sketched:
        color = laid_over(view[None, 3:], rgb, alpha, 1.0)
        solid = laid_over(view[None, 3:], alpha, alpha)
        errors.append(F.mse_loss(color[0], view[:3]) + F.mse_loss(solid[0], view[3:]))
    unlike = torch.stack(errors).cpu().clamp(min=1e-8).log()
    if sketch.elevation is not None:
        unlike = unlike + DOUBT * (torch.tensor(ELEVATIONS) - probed_elevation(sketch.elevation, embedding)).square()
    best = int(unlike.argmin())
    return ELEVATIONS[best], sketched[best]


def probed_elevation(probe: dict[str, Tensor], embedding: Tensor) -> float:
    """In degrees, by a linear probe of the embedding's direction: weight [D] and bias []."""
    direction = F.normalize(embedding.flatten().cpu().float(), dim=0)
    return float(probe["weight"] @ direction + probe["bias"])


@torch.no_grad()
def sketched_nearness(sketch: Sketch, embedding: Tensor, cameras: Tensor, size: int) -> Tensor:
    """How near the sketch of an embedding [1, 1, D] is in views of the cameras [V, 16]: [V, 1, size, size] on the CPU,
    0 where it has nothing."""
    volume = sketch.volume(_beside(sketch, embedding))
    distance, coverage = sketch.distances(volume, cameras[None].to(volume.device), size)
    return nearness(distance[0], coverage[0]).cpu()


class ReferenceDepth(nn.Module):
    """A bundle's guess of how near things are in an image, where no estimator is installed."""

    def __init__(self, clip: ClipImage, sketch: Sketch) -> None:
        super().__init__()
        self.clip, self.sketch = clip, sketch

    @staticmethod
    def load(folder: Path) -> ReferenceDepth | None:
        """Of a bundle's folder; None where it has no sketch."""
        if not (folder / "sketch").is_dir():
            return None
        return ReferenceDepth(ClipImage.load(folder / "clip"), Sketch.load(folder / "sketch"))

    @torch.no_grad()
    def forward(self, reference: Reference) -> Tensor:
        """-> nearness [1, 1, H, W] on the CPU, 1 at the nearest point and 0 outside the reference's mask."""
        embedding = self.clip.embed(reference)
        elevation, _ = fit_reference(self.sketch, embedding, reference, SIDE)
        near = sketched_nearness(self.sketch, embedding, front([elevation])[0], 2 * SIDE)
        return under(reference.rgba[None, 3:].float(), near)
