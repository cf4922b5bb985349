"""Depth of photographs, by Depth-Anything-V2-Small or any other estimator that transformers loads.

Optional: without its weights (`iso3d models pull depth-anything`) or without transformers there is no depth, and what
wants one takes the mask as flat depth, which HiFi-123 found to do nearly as well (supplement, section 3.2).
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from ..types import Reference
from ..weights import pulled, telling_what_to_do

GREY = (126 / 255, 129 / 255, 127 / 255)  # behind the object: a plain white one harms estimators (HiFi-123's code)


@torch.no_grad()
def estimate_depth(reference: Reference) -> Tensor | None:
    """Nearness [1, 1, H, W] of the reference, 1 at its nearest point and 0 outside its mask; None without an estimator.

    Raises InputError where the weights are there and cannot be used.
    """
    folder = pulled("depth-anything", "depth_anything")
    if folder is None:
        return None
    with telling_what_to_do("depth-anything", "depth"):
        processor, model = _load(folder)
    alpha = reference.rgba[3:]
    image = reference.rgba[:3] * alpha + torch.tensor(GREY)[:, None, None] * (1 - alpha)
    found = model(**processor(images=image, do_rescale=False, return_tensors="pt")).predicted_depth[:, None]
    near = F.interpolate(found.float(), alpha.shape[-2:], mode="bicubic")
    solid = alpha[None] > 0.5
    if not bool(solid.any()):
        return torch.zeros_like(near)
    low, high = near[solid].min(), near[solid].max()
    # The farthest point of the object stays in front of the background.
    return ((near - low) / (high - low).clamp(min=1e-6) * 0.9 + 0.1).clamp(0, 1) * solid


@lru_cache(maxsize=1)
def _load(folder: Path) -> tuple[Any, Any]:
    from transformers import AutoImageProcessor, AutoModelForDepthEstimation

    processor = AutoImageProcessor.from_pretrained(folder, local_files_only=True)
    model = AutoModelForDepthEstimation.from_pretrained(folder, local_files_only=True)
    return processor, model.eval()
