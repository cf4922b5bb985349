"""How near things are in a view, as depth-conditioned networks are told: 1 at the nearest point, 0 outside."""

from __future__ import annotations

import torch
from torch import Tensor

from .overlay import laid_over


def nearness(distance: Tensor, mask: Tensor) -> Tensor:
    """Distances and masks [V, 1, H, W] of rendered views -> inverse distance, 1 at the nearest point, 0 outside.

    Inverse, as the depth estimators that such networks were trained with give it.
    """
    near = torch.where(mask > 0.5, 1 / distance.clamp(min=1e-3), torch.zeros_like(distance))
    return near / near.amax(dim=(1, 2, 3), keepdim=True).clamp(min=1e-8)


def spread(near: Tensor, mask: Tensor) -> Tensor:
    """Nearness [V, 1, H, W], 0 where it is not known, on all of the masks [V, 1, H, W] and nowhere else: what was not
    known is that of the nearest known pixel. A view of which nothing is known gets its mask as flat nearness."""
    from scipy.ndimage import distance_transform_edt

    out = torch.zeros_like(near)
    for view, known, solid in zip(out, near, mask > 0.5, strict=True):
        if bool((known > 0).any()):
            at = distance_transform_edt((known[0] <= 0).cpu().numpy(), return_distances=False, return_indices=True)
            view[0] = known[0][tuple(torch.from_numpy(at).long())] * solid[0]
        else:
            view[:] = solid
    return out


def under(alpha: Tensor, near: Tensor) -> Tensor:
    """Nearness [1, 1, S, S] of an object -> that of an image of it [1, 1, H, W], whose outline is alpha."""
    solid = (near > 0).to(near)
    laid, sure = laid_over(alpha, near, solid), laid_over(alpha, solid, solid)
    return spread(torch.where(sure > 0.5, laid / sure.clamp(min=0.5), torch.zeros_like(laid)), alpha)
