"""Make the README's pictures from real output: reference, four sampled views, six frames of the generated mesh.

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
    """One example: [SIZE, 11 * SIZE, 3] uint8."""
    image = ROOT / "examples" / f"{name}.png"
    views, mesh, turn = folder / "views.png", folder / f"{name}.glb", folder / "turn.png"
    for command in (
        ["views", image, "-o", views],
        ["generate", image, "-o", mesh],
        ["render", mesh, "-o", turn, "--frames", "6", "--size", SIZE],
    ):
        if iso3d([str(word) for word in command]) != 0:
            raise SystemExit(f"{command} failed")
    reference = Image.open(image).convert("RGBA")
    white = Image.new("RGBA", reference.size, "white")
    reference = Image.alpha_composite(white, reference).convert("RGB").resize((SIZE, SIZE), Image.Resampling.LANCZOS)
    sheet = Image.open(views).resize((4 * SIZE, SIZE), Image.Resampling.BICUBIC)
    return np.concatenate([np.asarray(reference), np.asarray(sheet), np.asarray(Image.open(turn))], axis=1)


def main() -> None:
    names = sys.argv[1:] or ["rocket", "duck", "house"]
    with tempfile.TemporaryDirectory() as folder:
        picture = np.concatenate([row(name, Path(folder)) for name in names])
    Image.fromarray(picture).save(ROOT / "docs" / "examples.png", optimize=True)


if __name__ == "__main__":
    main()
