"""The reference's own view: where its camera stands, and the losses that hold the field to the image there."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from ..cameras import Cameras
from ..config import ReferenceWeights
from ..losses import color_error
from ..overlay import laid_over
from ..types import Reference, Rendering


@dataclass(frozen=True)
class ReferenceView:
    """What the field has to show its one camera: rgb [1, 3, S, S] on white, mask [1, 1, S, S], depth [1, 1, S, S] as
    distance of any scale, or None."""

    camera: Cameras
    rgb: Tensor
    mask: Tensor
    depth: Tensor | None = None

    def to(self, device: torch.device) -> ReferenceView:
        depth = None if self.depth is None else self.depth.to(device)
        return ReferenceView(self.camera.to(device), self.rgb.to(device), self.mask.to(device), depth)


def reference_view(
    reference: Reference, camera: Cameras, size: int, shown: Tensor | None = None, near: Tensor | None = None
) -> ReferenceView:
    """The reference as its camera should see it, ``size`` pixels a side.

    shown : mask [1, 1, S, S] of the object as a prior that knows its size imagines that view; the reference, which is
        cropped to its object, is laid over that. None takes the image as it is.
    near : nearness of the reference [1, 1, H, W], where that is known
    """
    rgb, alpha = reference.on_white()[None], reference.rgba[None, 3:]

    def seen(image: Tensor, background: float = 0.0) -> Tensor:
        if shown is None:
            return F.interpolate(image, (size, size), mode="area")
        return laid_over(shown, image, alpha, background)

    return ReferenceView(camera, seen(rgb, 1.0), seen(alpha), None if near is None else -seen(near))


def reference_losses(
    out: Rendering, view: ReferenceView, weights: ReferenceWeights, progress: float, generator: torch.Generator
) -> Tensor:
    """Consistent123, Eq. 3: squared errors of color and mask, and the negative Pearson correlation of depth.

    out : on white
    progress : 0..1 of all the steps, which the weight of the depth rises with (the paper's code)
    """
    loss = weights.rgb * color_error(out.rgb, out.opacity, view.rgb, view.mask, generator)
    loss = loss + weights.mask * F.mse_loss(out.opacity, view.mask)
    if view.depth is not None and weights.depth > 0:
        solid = (view.mask > 0.5) & (out.opacity.detach() > 0.5)
        distance = out.depth / out.opacity.clamp(min=1e-3)
        loss = loss - weights.depth * progress * pearson(distance[solid], view.depth[solid])
    return loss


def pearson(a: Tensor, b: Tensor) -> Tensor:
    """Correlation of two lists [N] in -1..1; 0 where one of them does not vary."""
    if len(a) < 2:
        return a.new_zeros(())
    a, b = a - a.mean(), b - b.mean()
    return (a * b).sum() / (a.norm() * b.norm()).clamp(min=1e-8)
