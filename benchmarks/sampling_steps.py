"""How near sampled views come to the true ones, by DDIM steps and draws: what the presets choose by.

    python benchmarks/sampling_steps.py [--objects 12] [--steps 1 2 3 4 8 25] [--draws 1 3]

The views that a warm start fits, of held-out objects, by the embedded bundle's two priors of views: PSNR, silhouette
IoU, color error where both are covered, and the seconds of one object. Many steps draw one sharp likeness; few steps,
and the mean of several draws, stay near the mean of all likenesses, which is nearer to the truth.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections import defaultdict
from dataclasses import replace
from itertools import product
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from iso3d_core.cameras import Cameras
from iso3d_core.config import WarmStart
from iso3d_core.methods.isotropic3d import OnStep, mean_of_draws, sheet_cameras
from iso3d_core.metrics import psnr, silhouette_iou
from iso3d_core.pipeline import configure
from iso3d_core.priors.multiview import MultiViewPrior
from iso3d_core.priors.zero123 import Source, Zero123Prior
from iso3d_core.train.data import on_white
from iso3d_core.train.evaluate import reference_of
from iso3d_core.train.world import held_out, reference_camera


def imagine(
    prior: Any, condition: Tensor | Source, scale: float | None, cameras: Cameras, warm: WarmStart
) -> tuple[Tensor, Tensor]:
    """Views [V, 3, H, W] and masks [V, 1, H, W] by a prior of what it is told."""

    def sample(cameras: Cameras, seed: int, report: OnStep) -> Tensor:
        return prior.sample_latents(condition, cameras, warm.sampling_steps, scale, seed, report)

    return mean_of_draws(prior, [cameras], sample, warm, 0)[1:]


def nearness(views: Tensor, masks: Tensor, truth: Tensor, outline: Tensor) -> list[float]:
    """Means over views [V, 3, H, W] and masks [V, 1, H, W] of PSNR in dB, silhouette IoU and color error."""
    views, masks = (F.interpolate(x.cpu(), truth.shape[-2:], mode="area") for x in (views, masks))
    both = ((masks > 0.5) & (outline > 0.5)).expand_as(views)
    return [
        float(np.mean([psnr(a[None], b[None]) for a, b in zip(views, truth, strict=True)])),
        float(np.mean([silhouette_iou(a, b) for a, b in zip(masks, outline, strict=True)])),
        float((views - truth).abs()[both].mean()),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--objects", type=int, default=12)
    parser.add_argument("--steps", type=int, nargs="+", default=[1, 2, 3, 4, 8, 25])
    parser.add_argument("--draws", type=int, nargs="+", default=[1, 3])
    given = parser.parse_args()
    warm = configure("default").warm_start
    assert warm is not None
    multiview, zero123 = MultiViewPrior.load("tiny"), Zero123Prior.load("tiny")
    cameras = Cameras.concatenate(sheet_cameras(multiview, warm))
    found: dict[tuple[str, int, int], list[list[float]]] = defaultdict(list)
    for obj in held_out(given.objects):
        reference = reference_of(obj)
        rgba = obj.render_rgba(cameras, 64)
        truth = torch.from_numpy(on_white(rgba)).permute(0, 3, 1, 2).float()
        outline = torch.from_numpy(rgba[..., 3]).float()[:, None]
        embedding = multiview.embed(reference)
        source = zero123.see(reference, reference_camera(obj.seed)[0])
        for steps, draws in product(given.steps, given.draws):
            setting = replace(warm, sampling_steps=steps, draws=draws)
            for prior, condition, scale in ((multiview, embedding, warm.guidance_scale), (zero123, source, None)):
                started = time.monotonic()
                views, masks = imagine(prior, condition, scale, cameras, setting)
                seconds = time.monotonic() - started
                found[type(prior).__name__, steps, draws].append([*nearness(views, masks, truth, outline), seconds])
        print(obj.kind, file=sys.stderr, flush=True)
    print(f"{'prior':16s} {'steps':>6s} {'draws':>6s} {'PSNR':>7s} {'outline':>8s} {'color':>7s} {'seconds':>8s}")
    for (name, steps, draws), rows in sorted(found.items()):
        print(f"{name:16s} {steps:6d} {draws:6d} {{:7.2f}} {{:8.3f}} {{:7.3f}} {{:8.1f}}".format(*np.mean(rows, 0)))


if __name__ == "__main__":
    main()
