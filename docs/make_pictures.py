"""Make the README's picture from real output: reference, four sampled views, four frames of the mesh by each method.

python docs/make_pictures.py [NAME …]      names of examples; default: rocket duck house
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image

from iso3d_core.cli import main as iso3d

ROOT = Path(__file__).parent.parent
SIZE = 128


def row(name: str, folder: Path) -> np.ndarray:
    """One example: [SIZE, 13 * SIZE, 3] uint8."""
    image, views = ROOT / "examples" / f"{name}.png", folder / "views.png"
    run("views", image, "-o", views)
    turns = []
    for method in ("isotropic3d", "hifi123"):
        mesh, turn = folder / f"{name}_{method}.glb", folder / "turn.png"
        run("generate", image, "-o", mesh, "--method", method)
        run("render", mesh, "-o", turn, "--frames", 4, "--size", SIZE)
        turns.append(np.asarray(Image.open(turn)))
    reference = Image.open(image).convert("RGBA")
    white = Image.new("RGBA", reference.size, "white")
    reference = Image.alpha_composite(white, reference).convert("RGB").resize((SIZE, SIZE), Image.Resampling.LANCZOS)
    sheet = Image.open(views).resize((4 * SIZE, SIZE), Image.Resampling.BICUBIC)
    return np.concatenate([np.asarray(reference), np.asarray(sheet), *turns], axis=1)


def run(*words: object) -> None:
    if iso3d([str(word) for word in words]) != 0:
        raise SystemExit(f"{words} failed")


def main() -> None:
    names = sys.argv[1:] or ["rocket", "duck", "house"]
    with tempfile.TemporaryDirectory() as folder:
        picture = np.concatenate([row(name, Path(folder)) for name in names])
    Image.fromarray(picture).save(ROOT / "docs" / "examples.png", optimize=True)


if __name__ == "__main__":
    main()
