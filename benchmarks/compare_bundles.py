"""Whether one bundle's image tower and sketch know shapes and colors better than another's.

    python benchmarks/compare_bundles.py OLD NEW [--objects 400] [--first 1020000] [--work DIR]

OLD and NEW are names or folders of bundles of the family `tiny`. Of objects that neither was trained on, each seen by
four references: IoU of the cells of the sketch with the exact solid, and mean absolute error of its base colors over
what is solid. Paired over the objects, with the 95 % interval; much sooner told than by `iso3d eval world`, whose 36
objects do not show differences of a hundredth.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import numpy as np
import torch

from iso3d_core.priors.sketch import SHADED, SIDE, SOLID_AT, Sketch
from iso3d_core.train import data, occupancy
from iso3d_core.train.clip import color_loss
from iso3d_core.train.start import old_embeddings
from iso3d_core.train.world import HELD_OUT_SEED
from iso3d_core.weights import Bundle, find_bundle

MEASURES = ("IoU of cells", "base-color error")


@torch.no_grad()
def scores(bundle: Bundle, views: data.ViewSet, solids: occupancy.Solids, batch: int = 50) -> np.ndarray:
    """Of each object, the means over its references: [objects, MEASURES]."""
    embeddings, sketch = old_embeddings(bundle, views, len(views)), Sketch.load(bundle.part("sketch"))
    out = np.empty((len(views), data.REFERENCES, len(MEASURES)))
    for first in range(0, len(views), batch):
        rows = slice(first, first + batch)
        cells, colors = np.array(solids.cells[rows]), np.array(solids.colors[rows])
        for number in range(data.REFERENCES):
            volume = sketch.volume(embeddings[rows, number, None])
            facing = views.azimuth[rows, data.TARGETS + number]
            found, true = volume[:, 3] > SOLID_AT, occupancy.seen_from(cells, facing, SIDE) > 0.5
            both, either = (x.sum((1, 2, 3)) for x in (found & true, found | true))
            color, solid = occupancy.colors_seen_from(colors, facing)
            error = [
                float(color_loss(logits[None], SHADED * own[None], where[None])) / SHADED
                for logits, own, where in zip(volume[:, :3], color, solid, strict=True)
            ]
            out[rows, number] = np.stack([(both / either.clamp(min=1)).numpy(), error], axis=-1)
    return out.mean(axis=1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("old")
    parser.add_argument("new")
    parser.add_argument("--objects", type=int, default=400)
    parser.add_argument("--first", type=int, default=HELD_OUT_SEED + 20_000, help="seed of the first object")
    parser.add_argument("--work", type=Path, help="folder that keeps what was rendered; a temporary one by default")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        work = given.work or Path(temporary)
        data.build(work / "data", given.objects, 64, given.first)
        views = data.ViewSet(work / "data")
        solids = occupancy.build(work / "solids", range(given.first, given.first + given.objects))
        old, new = (scores(find_bundle(name), views, solids) for name in (given.old, given.new))
    print("| | old | new | paired difference, 95 % |\n|---|---|---|---|")
    for number, name in enumerate(MEASURES):
        difference = new[:, number] - old[:, number]
        interval = 1.96 * difference.std(ddof=1) / len(difference) ** 0.5
        means = f"{old[:, number].mean():.4f} | {new[:, number].mean():.4f}"
        print(f"| {name} | {means} | {difference.mean():+.4f} ± {interval:.4f} |")


if __name__ == "__main__":
    main()
