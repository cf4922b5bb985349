"""Isotropic3D's claims on the embedded bundle: quality at every azimuth, and what Explicit Multi-view Attention adds.

    python benchmarks/claims_isotropic3d.py [--objects 30] [--preset default] [--views [--stage1 WORK/views1/final.pt]]

The spine's own claim is isotropy: no side is better for being near the reference. For each azimuth of the finished
mesh: PSNR to the true view and CLIP similarity to the reference, for `isotropic3d` and for `zero123`, which holds on to
the reference's view; the spread is the standard deviation over the azimuths of the mean over the objects. With --views
the same of the views that the two methods' priors sample, without any mesh; with --stage1 also of the multi-view prior
as it was before its second stage, Explicit Multi-view Attention, and the paired differences to it.
"""

from __future__ import annotations

import argparse
import sys
from collections import defaultdict
from pathlib import Path

import numpy as np
import torch

from iso3d_core.cameras import even_azimuths, orbit
from iso3d_core.metrics import psnr
from iso3d_core.pipeline import configure, generate
from iso3d_core.presets import with_method
from iso3d_core.priors.multiview import MultiViewPrior
from iso3d_core.priors.words import ClipPair
from iso3d_core.priors.zero123 import Zero123Prior
from iso3d_core.render.raster import render_mesh
from iso3d_core.train.data import on_white
from iso3d_core.train.evaluate import reference_of
from iso3d_core.train.world import Light, held_out, reference_camera

METHODS, SIDES, SIZE = ("isotropic3d", "zero123"), 8, 128
STAGE1 = "stage 1 only"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--objects", type=int, default=30)
    parser.add_argument("--preset", default="default")
    parser.add_argument("--bundle", default="tiny")
    parser.add_argument("--views", action="store_true", help="of the priors' own views; a few seconds an object")
    parser.add_argument("--stage1", type=Path, help="the UNet's weights before stage 2, of the same training")
    given = parser.parse_args()
    if given.stage1 and not given.views:
        parser.error("--stage1 compares views; give --views too")
    pair, multiview = ClipPair.load(given.bundle), MultiViewPrior.load(given.bundle)
    cameras = orbit(even_azimuths(SIDES), 15.0)
    found: dict[tuple[str, str], list[np.ndarray]] = defaultdict(list)
    zero123 = Zero123Prior.load(given.bundle) if given.views else None
    priors = {"isotropic3d": multiview}
    if given.stage1:
        priors[STAGE1] = MultiViewPrior.load(given.bundle)
        unet, trained = priors[STAGE1].unet, torch.load(given.stage1, weights_only=True)
        kept = unet.state_dict()  # without what one token of context never reads
        unet.load_state_dict({name: trained[name] for name in kept})
    methods = dict.fromkeys((*METHODS, *priors))
    for obj in held_out(given.objects):
        reference = reference_of(obj)
        # A mesh has its base color, a prior's views the light of its training.
        light = Light() if zero123 else Light(ambient=1.0, strength=1.0)
        rgba = obj.render_rgba(cameras, 64 if zero123 else SIZE, light)
        truth = torch.from_numpy(on_white(rgba)).permute(0, 3, 1, 2).float()
        image = pair.embed_images(reference.on_white()[None])[0]
        for method in methods:
            if zero123 is None:
                mesh = generate(reference, with_method(configure(given.preset, given.bundle), method), prior=multiview)
                seen = render_mesh(mesh, cameras, SIZE)[:, :3]
            elif method == "zero123":
                seen = zero123.sample(zero123.see(reference, reference_camera(obj.seed)[0]), cameras).cpu()
            else:
                seen = priors[method].sample(multiview.embed(reference), cameras).cpu()
            found[method, "PSNR"].append(np.array([psnr(a[None], b[None]) for a, b in zip(seen, truth, strict=True)]))
            found[method, "CLIP"].append((pair.embed_images(seen) @ image).numpy())
        print(obj.kind, file=sys.stderr, flush=True)
    what = "the priors' views" if zero123 else f"preset {given.preset}"
    for measure in ("PSNR", "CLIP"):
        print(f"\n## {measure} by azimuth, {given.objects} objects, {what}\n")
        print("| | " + " | ".join(f"{a:.0f}" for a in even_azimuths(SIDES)) + " | mean | spread |")
        print("|" + "---|" * (SIDES + 3))
        for method in methods:
            sides = np.mean(found[method, measure], axis=0)
            cells = " | ".join(f"{value:.3f}" for value in sides)
            print(f"| {method} | {cells} | {sides.mean():.3f} | {sides.std():.3f} |")
        if given.stage1:
            gain = np.mean(np.subtract(found["isotropic3d", measure], found[STAGE1, measure]), axis=1)
            width = 1.96 * gain.std(ddof=1) / len(gain) ** 0.5
            print(f"\nStage 2 against stage 1 only, paired: {gain.mean():+.4f} +- {width:.4f}")


if __name__ == "__main__":
    main()
