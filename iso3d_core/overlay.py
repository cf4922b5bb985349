"""One image laid over the outline of another."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F


def laid_over(mask: Tensor, image: Tensor, alpha: Tensor, background: float = 0.0) -> Tensor:
    """The object of an image [1, C, H, W], where alpha [1, 1, H, W] is, stretched to the bounding box of the mask
    [1, 1, S, S]: [1, C, S, S]."""
    out = image.new_full((1, image.shape[1], *mask.shape[-2:]), background)
    target, source = bounds(mask), bounds(alpha)
    if target is not None and source is not None:
        size = target[0].stop - target[0].start, target[1].stop - target[1].start
        out[..., target[0], target[1]] = F.interpolate(image[..., source[0], source[1]], size, mode="area")
    return out


def bounds(mask: Tensor) -> tuple[slice, slice] | None:
    """Rows and columns of what is above a half in [1, 1, S, S]; None where nothing is."""
    rows, columns = ((mask[0, 0] > 0.5).any(dim=i).nonzero()[:, 0].tolist() for i in (1, 0))
    return (slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)) if rows else None
