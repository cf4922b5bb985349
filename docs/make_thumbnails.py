"""The thumbnails of `example_workflows`, from screenshots of their runs in ComfyUI's page.

ISO3D_ARTEFACTS=shots pytest -m comfyui tests/test_comfy_browser.py
python docs/make_thumbnails.py shots
"""

import sys
from pathlib import Path

from PIL import Image

WORKFLOWS = Path(__file__).resolve().parent.parent / "example_workflows"
BOX = (68, 82, 1600, 1000)  # the canvas, without the bars to its left and above


def main(shots: Path) -> None:
    for workflow in sorted(WORKFLOWS.glob("*.json")):
        picture = Image.open(shots / f"{workflow.stem}.png").convert("RGB").crop(BOX)
        picture.thumbnail((768, 768), Image.Resampling.LANCZOS)
        picture.save(workflow.with_suffix(".jpg"), quality=88)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
