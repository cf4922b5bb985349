"""A full-size Stable Diffusion 2 depth checkpoint with random weights: convert, and RGNV of two views at 512 px.

    python benchmarks/depth_checkpoint.py FOLDER [--steps 4]        (needs 20 GB of disk there)

Each stage runs in a process of its own; seconds and peak memory of each are printed.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

from official_checkpoint import ROOT, measure

WRITE = """
import sys, torch, open_clip
sys.path.insert(0, "tests")
import ldm
from iso3d_core.checkpoints.layouts import VIT_H_14
from safetensors.torch import save_file

torch.manual_seed(0)
unet = ldm.UNet((320, 640, 1280, 1280), 2, (True, True, True, False), (5, 10, 20, 20), 1024, inputs=5)
state = {"model.diffusion_model." + k: v for k, v in unet.state_dict().items()}
state |= {"first_stage_model." + k: v for k, v in ldm.Vae((128, 256, 512, 512)).state_dict().items()}
clip = open_clip.model.CLIP(**{**VIT_H_14, "vision_cfg": {**VIT_H_14["vision_cfg"], "layers": 1}}).state_dict()
state |= {"cond_stage_model.model." + k: v for k, v in clip.items() if not k.startswith("visual.")}
save_file({k: v.contiguous() for k, v in state.items()}, sys.argv[1])
"""
ENHANCE = """
import sys, torch
from iso3d_core import rgnv
from iso3d_core.images import load_reference, load_view
from iso3d_core.priors.depth import DepthPrior

prior = DepthPrior.load(sys.argv[1], "cpu")
reference = load_reference("examples/rocket.png", 512)
rgb, mask = load_view("examples/rocket.png")
coarse, mask = (rgnv.resize(x[None].expand(2, -1, -1, -1), (512, 512)) for x in (rgb, mask))
out = rgnv.enhance(prior, reference, coarse, mask, steps=int(sys.argv[2]), prompt="a rocket")
print("views", tuple(out.shape), "finite", bool(torch.isfinite(out).all()))
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--steps", type=int, default=4, help="DDIM steps, of which 60 % are taken")
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    file, bundle = options.folder / "512-depth-ema.safetensors", options.folder / "sd-depth"
    if not file.exists():
        subprocess.run([sys.executable, "-c", WRITE, file], check=True, cwd=ROOT)
    print(f"checkpoint {file.stat().st_size / 1e9:.2f} GB", flush=True)
    convert = [sys.executable, "-m", "iso3d_core", "models", "convert", str(file), "--as", "sd-depth"]
    measure("convert", [*convert, "--out", str(bundle)])
    enhance = [sys.executable, "-c", ENHANCE, str(bundle), str(options.steps)]
    measure(f"RGNV: 2 views of 512 px, {options.steps} steps, guided", enhance)


if __name__ == "__main__":
    main()
