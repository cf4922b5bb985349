"""Isotropic3D's claims on the embedded bundle: quality at every azimuth, and what Explicit Multi-view Attention adds.

    python benchmarks/claims_isotropic3d.py [--objects 30] [--preset default]

The spine's own claim is isotropy: no side is better for being near the reference. For each azimuth of the finished
mesh: PSNR to the true view and CLIP similarity to the reference, for `isotropic3d` and for `zero123`, which holds on to
the reference's view; the spread is the standard deviation over the azimuths of the mean over the objects.
"""

from __future__ import annotations

import argparse
from collections import defaultdict

import numpy as np
import torch

from iso3d_core.cameras import even_azimuths, orbit
from iso3d_core.metrics import psnr
from iso3d_core.pipeline import configure, generate
from iso3d_core.presets import with_method
from iso3d_core.priors.multiview import MultiViewPrior
from iso3d_core.priors.words import ClipPair
from iso3d_core.render.raster import render_mesh
from iso3d_core.train.data import on_white
from iso3d_core.train.evaluate import reference_of
from iso3d_core.train.world import Light, held_out

METHODS, SIDES, SIZE = ("isotropic3d", "zero123"), 8, 128


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--objects", type=int, default=30)
    parser.add_argument("--preset", default="default")
    parser.add_argument("--bundle", default="tiny")
    given = parser.parse_args()
    pair, multiview = ClipPair.load(given.bundle), MultiViewPrior.load(given.bundle)
    cameras = orbit(even_azimuths(SIDES), 15.0)
    found: dict[tuple[str, str], list[np.ndarray]] = defaultdict(list)
    for obj in held_out(given.objects):
        reference = reference_of(obj)
        bare = obj.render_rgba(cameras, SIZE, Light(ambient=1.0, strength=1.0))  # base color, as the mesh has it
        truth = torch.from_numpy(on_white(bare)).permute(0, 3, 1, 2).float()
        image = pair.embed_images(reference.on_white()[None])[0]
        for method in METHODS:
            mesh = generate(reference, with_method(configure(given.preset, given.bundle), method), prior=multiview)
            seen = render_mesh(mesh, cameras, SIZE)[:, :3]
            found[method, "PSNR"].append(np.array([psnr(a[None], b[None]) for a, b in zip(seen, truth, strict=True)]))
            found[method, "CLIP"].append((pair.embed_images(seen) @ image).numpy())
        print(obj.kind, flush=True)
    for measure in ("PSNR", "CLIP"):
        print(f"\n## {measure} by azimuth, {given.objects} objects, preset {given.preset}\n")
        print("| | " + " | ".join(f"{a:.0f}" for a in even_azimuths(SIDES)) + " | mean | spread |")
        print("|" + "---|" * (SIDES + 3))
        for method in METHODS:
            sides = np.mean(found[method, measure], axis=0)
            cells = " | ".join(f"{value:.3f}" for value in sides)
            print(f"| {method} | {cells} | {sides.mean():.3f} | {sides.std():.3f} |")


if __name__ == "__main__":
    main()
