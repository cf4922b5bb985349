"""HiFi-123's claims on the embedded bundle: depth-conditioned inversion, RGNV at every azimuth, its reuse.

    python benchmarks/claims_hifi123.py [--objects 30]

Held-out objects, compared in pairs: mean of each, mean difference and its 95 % interval.
"""

from __future__ import annotations

import argparse
import time
from collections import defaultdict

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from iso3d_core import rgnv
from iso3d_core.cameras import Cameras, even_azimuths, orbit
from iso3d_core.metrics import ssim
from iso3d_core.priors.depth import DepthPrior, nearness
from iso3d_core.priors.multiview import MultiViewPrior
from iso3d_core.train.evaluate import reference_of
from iso3d_core.train.world import held_out

SIZE, STEPS, ELEVATION = 64, 20, 15.0
AZIMUTHS = (22.0, 45.0, 90.0, 135.0, 180.0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--objects", type=int, default=30)
    parser.add_argument("--bundle", default="tiny")
    count = parser.parse_args().objects
    objects, prior = held_out(count), DepthPrior.load(parser.parse_args().bundle)
    inversion(prior, objects)
    enhancement(prior, MultiViewPrior.load("tiny"), objects)
    speed(prior, objects[0])


def inversion(prior: DepthPrior, objects: list) -> None:
    """Invert and denoise a view all the way, with its depth and without: L2 (0-255 scale squared) and SSIM."""
    found: dict[str, list[float]] = defaultdict(list)
    for obj in objects:
        rgb, mask, depth = true_views(obj, orbit(torch.tensor([30.0]), torch.tensor([ELEVATION])))
        for name, shown in (("depth", depth), ("plain", None)):
            condition = prior.condition(mask if shown is None else shown)
            if shown is None:
                condition.depth.zero_()  # what the network was trained with where no depth is known
            z = prior.encode(rgb)
            states = rgnv.invert_latents(prior, z, condition, STEPS)
            back = prior.decode(rgnv.denoise(prior, states[-1], condition, STEPS, STEPS)[0])
            target = prior.decode(z)  # what the VAE can show at all
            found[f"{name} l2"].append(float(F.mse_loss(back, target)) * 255**2)
            found[f"{name} ssim"].append(ssim(back, target))
    print(f"\n## Inversion and reconstruction, {len(objects)} objects, {STEPS} steps\n")
    print("| | plain | with depth | difference | 95 % |\n|---|---|---|---|---|")
    for name in ("l2", "ssim"):
        print(row(name, found[f"plain {name}"], found[f"depth {name}"]))


def enhancement(prior: DepthPrior, views: MultiViewPrior, objects: list) -> None:
    """PSNR in dB to the true views, on the union of the masks, before and after."""
    found: dict[tuple, list[float]] = defaultdict(list)
    for obj in objects:
        cameras = orbit(torch.tensor(AZIMUTHS), torch.full((len(AZIMUTHS),), ELEVATION))
        rgb, mask, depth = true_views(obj, cameras)
        reference = reference_of(obj)
        embedding = views.embed(reference)
        with torch.no_grad():
            own, own_mask = views.decode_with_mask(views.sample_latents(embedding, cameras, 25))
        memory = rgnv.remember(prior, reference, steps=STEPS)
        for kind, coarse, shape, near in (
            ("blurred", blur(rgb), mask, depth),
            ("recolored", recolor(rgb, mask), mask, depth),
            ("sampled", own, own_mask, None),
        ):
            variants = {
                "rgnv": enhance(prior, reference, coarse, shape, near, memory),
                "no depth": enhance(prior, reference, coarse, shape, near, memory, without="depth"),
                "no injection": enhance(prior, reference, coarse, shape, near, None),
            }
            for i, azimuth in enumerate(AZIMUTHS):
                inside = torch.maximum(shape[i], mask[i]) > 0.05
                found[kind, "coarse", azimuth].append(inner_psnr(coarse[i], rgb[i], inside))
                for name, images in variants.items():
                    found[kind, name, azimuth].append(inner_psnr(images[i], rgb[i], inside))
    for kind in ("blurred", "recolored", "sampled"):
        print(f"\n## RGNV of {kind} views, {len(objects)} objects: PSNR to the true view\n")
        print("| azimuth | coarse | enhanced | difference | 95 % | no depth | no injection |")
        print("|---|---|---|---|---|---|---|")
        for azimuth in (*AZIMUTHS, None):
            rows = {
                name: [x for a in AZIMUTHS if azimuth in (None, a) for x in found[kind, name, a]]
                for name in ("coarse", "rgnv", "no depth", "no injection")
            }
            more = " | ".join(f"{np.mean(rows[name]):.2f}" for name in ("no depth", "no injection"))
            print(row("all" if azimuth is None else f"{azimuth:.0f}", rows["coarse"], rows["rgnv"]) + f" {more} |")


def enhance(prior, reference, coarse, mask, depth, memory, without: str = "") -> Tensor:
    """RGNV; without a memory plain inversion and denoising of the coarse views alone."""
    if memory is not None and without != "depth":
        return rgnv.enhance(prior, reference, coarse, mask, depth, steps=STEPS, memory=memory)
    condition = prior.condition(mask if depth is None else depth)
    if without == "depth":
        condition.depth.zero_()
    until = round(rgnv.STRENGTH * STEPS)
    z = rgnv.invert_latents(prior, prior.encode(coarse), condition, STEPS, until)[-1]
    out = prior.decode(rgnv.denoise(prior, z, condition, STEPS, until, memory=memory)[0])
    solid = (mask * 2).clamp(0, 1)
    return out * solid + 1 - solid


def speed(prior: DepthPrior, obj) -> None:
    rgb, mask, depth = true_views(obj, orbit(even_azimuths(4), torch.full((4,), ELEVATION)))
    reference = reference_of(obj)
    rgnv.enhance(prior, reference, rgb, mask, depth, steps=STEPS)  # warm
    memory = rgnv.remember(prior, reference, steps=STEPS)
    rgnv.enhance(prior, reference, rgb, mask, depth, steps=STEPS, memory=memory)  # fills it
    alone = [timed(lambda: rgnv.enhance(prior, reference, rgb, mask, depth, steps=STEPS)) for _ in range(3)]
    reused = [
        timed(lambda: rgnv.enhance(prior, reference, rgb, mask, depth, steps=STEPS, memory=memory)) for _ in range(3)
    ]
    whole, second = np.median(alone), np.median(reused)
    print(f"\nfour views: {whole:.2f} s; a second batch for the same reference {second:.2f} s ({whole / second:.2f} x)")


def timed(work) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def true_views(obj, cameras: Cameras) -> tuple[Tensor, Tensor, Tensor]:
    """rgb on white [V, 3, S, S], mask and nearness [V, 1, S, S]."""
    rgba = torch.from_numpy(obj.render_rgba(cameras, SIZE)).permute(0, 3, 1, 2).float()
    seen = obj.render(cameras, SIZE, antialias=1)
    distance, hit = (torch.from_numpy(x).float()[:, None] for x in (seen.depth, seen.rgba[..., 3]))
    return rgba[:, :3] * rgba[:, 3:] + 1 - rgba[:, 3:], rgba[:, 3:], nearness(distance, hit)


def blur(rgb: Tensor) -> Tensor:
    """By a Gaussian of two pixels."""
    x = torch.arange(-6, 7).float()
    kernel = torch.exp(-x.square() / 8)
    kernel = (kernel / kernel.sum()).expand(3, 1, 1, -1)
    padded = F.pad(rgb, (6, 6, 6, 6), value=1.0)
    return F.conv2d(F.conv2d(padded, kernel, groups=3), kernel.transpose(2, 3), groups=3)


def recolor(rgb: Tensor, mask: Tensor) -> Tensor:
    """Half of the saturation lost, and the rest turned towards other channels."""
    grey = rgb.mean(dim=1, keepdim=True)
    return (0.5 * grey + 0.35 * rgb + 0.15 * rgb.roll(1, dims=1)) * mask + 1 - mask


def inner_psnr(image: Tensor, target: Tensor, inside: Tensor) -> float:
    error = (image - target).square().mean(dim=0, keepdim=True)[inside].mean()
    return float(-10 * torch.log10(error.clamp(min=1e-6)))


def row(name: str, before: list[float], after: list[float]) -> str:
    """Means, paired difference and half the width of its 95 % interval (normal approximation)."""
    difference = np.subtract(after, before)
    half = 1.96 * difference.std(ddof=1) / len(difference) ** 0.5
    return f"| {name} | {np.mean(before):.3f} | {np.mean(after):.3f} | {difference.mean():+.3f} | ± {half:.3f} |"


if __name__ == "__main__":
    main()
