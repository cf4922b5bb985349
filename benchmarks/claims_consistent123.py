"""Consistent123's claims on the embedded bundle: the boundary, the dynamic prior, and the table of methods.

    python benchmarks/claims_consistent123.py [--objects 30] [--preset default] [--only methods,boundary,dynamic]

Held-out objects, compared in pairs: mean of each, mean difference and its 95 % interval.
"""

from __future__ import annotations

import argparse
import json
from collections import defaultdict
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from iso3d_core.cameras import even_azimuths, orbit
from iso3d_core.config import GenerateConfig
from iso3d_core.images import center_crop
from iso3d_core.metrics import psnr, ssim
from iso3d_core.pipeline import configure, generate
from iso3d_core.presets import with_method
from iso3d_core.priors.multiview import MultiViewPrior
from iso3d_core.priors.words import ClipPair
from iso3d_core.render.raster import render_mesh
from iso3d_core.train.evaluate import compare_volume, reference_of, surface_points
from iso3d_core.train.world import WorldObject, held_out, reference_camera
from iso3d_core.types import Mesh

METHODS = ("consistent123", "zero123", "magic123", "realfusion-sds")
MEASURES = ("CLIP", "PSNR", "SSIM", "IoU", "Chamfer")


@dataclass(frozen=True)
class Variant:
    """A method with settings of its own, and what to call it."""

    name: str
    config: GenerateConfig


def variants(preset: str, bundle: str, seed: int) -> dict[str, list[Variant]]:
    """Groups of variants by comparison, the first of each is ours."""
    base = configure(preset, bundle, seed)
    ours = with_method(base, "consistent123")

    def of(name: str, **settings) -> Variant:
        return Variant(name, replace(ours, guided=replace(ours.guided, **settings)))

    return {
        "methods": [Variant(name, with_method(base, name)) for name in METHODS],
        "boundary": [
            Variant("consistent123", ours), of("boundary at the start", boundary=(0.0, 0.0)),
            of("boundary at the end", boundary=(1.0, 1.0)),
        ],
        "dynamic": [Variant("consistent123", ours), of("linear", dynamic="linear"), of("log", dynamic="log")],
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--objects", type=int, default=30)
    parser.add_argument("--first", type=int, default=0, help="to share the objects among processes")
    parser.add_argument("--preset", default="default")
    parser.add_argument("--only", default="methods,boundary,dynamic")
    parser.add_argument("--bundle", default="tiny")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--keep", type=Path, help="JSON of every single figure, added to")
    given = parser.parse_args()
    wanted = [name for name in variants(given.preset, given.bundle, given.seed) if name in given.only.split(",")]
    pair, multiview = ClipPair.load(given.bundle), MultiViewPrior.load(given.bundle)
    found: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    switches: list[tuple[str, float, float]] = []
    for obj in held_out(given.first + given.objects)[given.first :]:
        done: dict[str, dict[str, float]] = {}
        for group in wanted:
            for variant in variants(given.preset, given.bundle, given.seed)[group]:
                if variant.name in done:
                    continue
                mesh = generate(reference_of(obj), variant.config, prior=multiview)
                done[variant.name] = measure(obj, mesh, pair)
                if variant.name == "consistent123":
                    switch = mesh.metadata["boundary"]["switched_at"] / variant.config.guided.steps
                    switches.append((obj.kind, switch, hardness(obj)))
                print(obj.kind, variant.name, json.dumps(done[variant.name]), flush=True)
        for name, row in done.items():
            for measure_name, value in row.items():
                found[name][measure_name].append(value)
    if given.keep:
        before = json.loads(given.keep.read_text()) if given.keep.exists() else {"found": {}, "switches": []}
        for name, rows in before["found"].items():
            for measure_name, values in rows.items():
                found[name][measure_name] = values + found[name][measure_name]
        switches = [*(tuple(row) for row in before["switches"]), *switches]
        given.keep.write_text(json.dumps({"found": found, "switches": switches}))
    report(found, switches, wanted, given)


def measure(obj: WorldObject, mesh: Mesh, pair: ClipPair) -> dict[str, float]:
    """CLIP: mean cosine of eight views with the reference; PSNR in dB and SSIM of the reference's view; volume IoU and
    Chamfer distance (of the box's diagonal) with nothing aligned but centre and scale."""
    reference = reference_of(obj)
    views = render_mesh(mesh, orbit(even_azimuths(8), 15.0), 256)[:, :3]
    similarity = pair.embed_images(views) @ pair.embed_images(reference.on_white()[None]).T
    seen = render_mesh(mesh, reference_camera(obj.seed)[1], 256, background=None)[0].permute(1, 2, 0).numpy()
    own = torch.from_numpy(center_crop(seen, 256, 0.1)).permute(2, 0, 1)
    own = own[:3] * own[3:] + 1 - own[3:]
    truth = reference.on_white()[None]
    iou, _, chamfer, _ = compare_volume(obj, mesh, surface_points(obj, 10_000))
    return {
        "CLIP": float(similarity.mean()), "PSNR": psnr(own[None], truth), "SSIM": ssim(own[None], truth), "IoU": iou,
        "Chamfer": chamfer,
    }  # fmt: skip


def hardness(obj: WorldObject) -> float:
    """How far a shape is from its convex hull, 0 to 1: the part of the hull that is empty."""
    rng = np.random.default_rng(0)
    hull = obj.mesh.convex_hull
    points = rng.uniform(hull.bounds[0], hull.bounds[1], (20_000, 3))
    inside = np.all(points @ hull.face_normals.T <= np.einsum("ij,ij->i", hull.face_normals, hull.triangles[:, 0]), 1)
    return 1 - float(obj.contains(points[inside]).mean())


def report(found: dict, switches: list, wanted: list[str], given: argparse.Namespace) -> None:
    for group in wanted:
        names = [variant.name for variant in variants(given.preset, given.bundle, given.seed)[group]]
        count = len(found[names[0]]["CLIP"])
        print(f"\n## {group}, {count} objects, preset {given.preset}\n")
        print("| | " + " | ".join(MEASURES) + " |\n|" + "---|" * (len(MEASURES) + 1))
        for name in names:
            print(f"| {name} | " + " | ".join(f"{np.mean(found[name][m]):.3f}" for m in MEASURES) + " |")
        for name in names[1:]:
            cells = [difference(found[names[0]][m], found[name][m]) for m in MEASURES]
            print(f"| {names[0]} - {name} | " + " | ".join(cells) + " |")
    if switches:
        steps, hard = np.array([row[1] for row in switches]), np.array([row[2] for row in switches])
        print(
            f"\nthe switch, as a fraction of the steps: {steps.min():.2f} to {steps.max():.2f}, mean {steps.mean():.2f}"
        )
        if steps.std() > 0 and hard.std() > 0:
            print(f"correlation with the emptiness of the convex hull: {np.corrcoef(steps, hard)[0, 1]:+.2f}")


def difference(ours: list[float], theirs: list[float]) -> str:
    """Mean paired difference and its 95 % interval."""
    paired = np.array(ours) - np.array(theirs)
    margin = 1.96 * paired.std(ddof=1) / np.sqrt(len(paired)) if len(paired) > 1 else float("nan")
    return f"{paired.mean():+.3f} ± {margin:.3f}"


if __name__ == "__main__":
    main()
