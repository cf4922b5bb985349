"""Consistent123's claims on the embedded bundle: the boundary, the dynamic prior, and the table of methods.

    python benchmarks/claims_consistent123.py [--objects 30] [--preset default] [--only methods,boundary,dynamic]
        [--words caption|found] [--keep rows.jsonl]

Held-out objects, compared in pairs: mean of each, mean difference and its 95 % interval. The 2D prior's words are the
world's caption of the object, as a user would describe it, or with ``--words found`` what CLIP finds in the image.
"""

from __future__ import annotations

import argparse
import hashlib
import json
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from iso3d_core.cameras import even_azimuths, orbit
from iso3d_core.config import GenerateConfig
from iso3d_core.fields.scene import Scene
from iso3d_core.images import center_crop
from iso3d_core.methods import guides
from iso3d_core.metrics import psnr, ssim
from iso3d_core.pipeline import configure, export_shape
from iso3d_core.presets import with_method
from iso3d_core.priors.multiview import MultiViewPrior
from iso3d_core.priors.words import ClipPair
from iso3d_core.render.raster import render_mesh
from iso3d_core.train.evaluate import compare_volume, reference_of, surface_points
from iso3d_core.train.world import WorldObject, held_out, reference_camera
from iso3d_core.types import Mesh
from iso3d_core.weights import find_bundle

METHODS = ("consistent123", "zero123", "magic123", "realfusion-sds")
MEASURES = ("CLIP", "PSNR", "SSIM", "IoU", "Chamfer")


@dataclass(frozen=True)
class Variant:
    """A method with settings of its own, and what to call it."""

    name: str
    config: GenerateConfig


def variants(preset: str, bundle: str, seed: int) -> dict[str, list[Variant]]:
    """Groups of variants by comparison, the first of each is ours.

    A boundary at the end is zero123: the 2D prior never joins.
    """
    base = configure(preset, bundle, seed)
    ours = with_method(base, "consistent123")

    def of(name: str, **settings) -> Variant:
        return Variant(name, replace(ours, guided=replace(ours.guided, **settings)))

    methods = [Variant(name, with_method(base, name)) for name in METHODS]
    return {
        "methods": methods,
        "boundary": [methods[0], of("boundary at the start", boundary=(0.0, 0.0)), methods[1]],
        "dynamic": [methods[0], of("linear", dynamic="linear"), of("log", dynamic="log")],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--objects", type=int, default=30)
    parser.add_argument("--first", type=int, default=0, help="to share the objects among processes")
    parser.add_argument("--preset", default="default")
    parser.add_argument("--only", default="methods,boundary,dynamic")
    parser.add_argument("--words", choices=("caption", "found"), default="caption")
    parser.add_argument("--bundle", default="tiny")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--keep", type=Path, help="a line of JSON for each mesh; what is in it already is not made again, but reported"
    )
    given = parser.parse_args()
    groups = variants(given.preset, given.bundle, given.seed)
    ours = groups["methods"][0].config
    pair, multiview = ClipPair.load(given.bundle), MultiViewPrior.load(given.bundle)
    configs = {variant.name: variant.config.as_dict() for group in groups.values() for variant in group}
    settings = [configs, find_bundle(given.bundle).info["files"], given.words]
    made_with = hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:12]
    groups = {name: group for name, group in groups.items() if name in given.only.split(",")}
    rows = read_rows(given.keep, made_with)
    for number, obj in enumerate(held_out(given.first + given.objects)):
        made = {row["name"] for row in rows if row["number"] == number}
        missing = {variant.name: variant for group in groups.values() for variant in group if variant.name not in made}
        if number < given.first or not missing:
            continue
        start, hard = begin(obj, ours, multiview), hardness(obj)
        words = obj.caption() if given.words == "caption" else None
        for variant in missing.values():
            mesh, switch = make(obj, replace(variant.config, prompt=words), multiview, start)
            row = {
                "made_with": made_with,
                "number": number,
                "kind": obj.kind,
                "name": variant.name,
                **measure(obj, mesh, pair),
            }
            rows.append({**row, "switch": switch, "hardness": hard})
            print(json.dumps(rows[-1]), flush=True)
            if given.keep:
                with given.keep.open("a") as file:
                    file.write(json.dumps(rows[-1]) + "\n")
    report(rows, groups, given.preset)


def read_rows(path: Path | None, made_with: str) -> list[dict]:
    """The rows of a file that the same settings and bundle made; a line that was cut short is none."""
    text, rows = path.read_text() if path and path.exists() else "", []
    if path and text and not text.endswith("\n"):
        path.write_text(text + "\n")  # the next row gets a line of its own
    for line in text.splitlines():
        with suppress(json.JSONDecodeError):
            rows.append(json.loads(line))
    return [row for row in rows if row.get("made_with") == made_with]


def begin(obj: WorldObject, config: GenerateConfig, multiview: MultiViewPrior) -> Scene | None:
    """The warm start that all methods with a 3D prior share."""
    reference = reference_of(obj)
    embedding = multiview.embed(reference)
    view, elevation_deg = guides.reference_camera(config, multiview, embedding, reference)
    guide = guides.guide_3d(config, multiview, embedding, reference, elevation_deg)
    return guides.warm(guide, view, config, solid=multiview.guess_solid(embedding))


def make(
    obj: WorldObject, config: GenerateConfig, multiview: MultiViewPrior, start: Scene | None
) -> tuple[Mesh, float | None]:
    """The mesh as `generate` makes it, and the switch of its boundary as a fraction of the steps, where it has one."""
    done, shaped, _ = guides.optimise(
        reference_of(obj), config, multiview, start=start if config.guided.takes_3d else None
    )
    assert shaped is not None  # all of these methods have a mesh stage
    switched = None if done.boundary is None else done.boundary.switched_at
    return export_shape(shaped, config), None if switched is None else switched / config.guided.steps


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


def report(rows: list[dict], groups: dict[str, list[Variant]], preset: str) -> None:
    """Of the objects that every wanted variant has a mesh of: a run that was cut short leaves one without."""
    wanted = {variant.name for group in groups.values() for variant in group}
    made = {number: {row["name"] for row in rows if row["number"] == number} for number in {r["number"] for r in rows}}
    rows = sorted((row for row in rows if wanted <= made[row["number"]]), key=lambda row: row["number"])

    def column(name: str, measured: str) -> list[float]:
        return [row[measured] for row in rows if row["name"] == name]

    for title, group in groups.items():
        ours, *others = names = [variant.name for variant in group]
        print(f"\n## {title}, {len(column(ours, 'CLIP'))} objects, preset {preset}\n")
        print("| | " + " | ".join(MEASURES) + " |\n|" + "---|" * (len(MEASURES) + 1))
        for name in names:
            print(f"| {name} | " + " | ".join(f"{np.mean(column(name, m)):.3f}" for m in MEASURES) + " |")
        for name in others:
            cells = [difference(column(ours, m), column(name, m)) for m in MEASURES]
            print(f"| {ours} - {name} | " + " | ".join(cells) + " |")
    switches, hard = (np.array(column(METHODS[0], key), float) for key in ("switch", "hardness"))
    if len(switches):
        print(
            f"\nthe switch, as a fraction of the steps: {switches.min():.2f} to {switches.max():.2f}, "
            f"mean {switches.mean():.2f}"
        )
        if switches.std() > 0 and hard.std() > 0:
            print(f"correlation with the emptiness of the convex hull: {np.corrcoef(switches, hard)[0, 1]:+.2f}")


def difference(ours: list[float], theirs: list[float]) -> str:
    """Mean paired difference and its 95 % interval."""
    paired = np.array(ours) - np.array(theirs)
    margin = 1.96 * paired.std(ddof=1) / np.sqrt(len(paired)) if len(paired) > 1 else float("nan")
    return f"{paired.mean():+.3f} ± {margin:.3f}"


if __name__ == "__main__":
    main()
