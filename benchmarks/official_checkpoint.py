"""The official Isotropic3D checkpoint at full size, with random weights: convert, sample views, one SDS step.

    python benchmarks/official_checkpoint.py FOLDER        (needs 20 GB of disk there)

Each stage runs in a process of its own; seconds and peak memory of each are printed.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent

WRITE = """
import sys, torch, open_clip
sys.path.insert(0, "tests")
import ldm
from iso3d_core.checkpoints.layouts import VIT_H_14

torch.manual_seed(0)
unet = ldm.UNet((320, 640, 1280, 1280), 2, (True, True, True, False), (5, 10, 20, 20), 1024, camera_dim=16)
state = {"model.diffusion_model." + k: v for k, v in unet.state_dict().items()}
state |= {"first_stage_model." + k: v for k, v in ldm.Vae((128, 256, 512, 512)).state_dict().items()}
clip = open_clip.model.CLIP(**{**VIT_H_14, "text_cfg": {**VIT_H_14["text_cfg"], "layers": 1}}).state_dict()
state |= {"cond_stage_model.model." + k: v for k, v in clip.items() if not k.startswith("transformer.")}
state["betas"] = torch.zeros(1000)
torch.save(state, sys.argv[1])
"""
SDS = """
import sys, torch
from dataclasses import replace
from iso3d_core.presets import preset
from iso3d_core.fields.scene import Scene
from iso3d_core.images import load_reference
from iso3d_core.methods.isotropic3d import sds_objective
from iso3d_core.priors.multiview import MultiViewPrior

prior = MultiViewPrior.load(sys.argv[1], "cpu")
embedding = prior.embed(load_reference("examples/rocket.png"))
prior.free_clip()
config = preset("paper", "isotropic3d")
config = replace(config, stage=replace(config.stage, groups=((0, 1),)))
scene = Scene(config.field, config.render, 0)
loss, values = sds_objective(scene, prior, embedding, config)(0, torch.Generator().manual_seed(0))
loss.backward()
print("SDS step:", values, "gradient", float(scene.field.table.grad.norm()))
"""


def measure(title: str, command: list[str]) -> None:
    started = time.monotonic()
    child = subprocess.Popen(command, cwd=ROOT)
    _, status, usage = os.wait4(child.pid, 0)
    if status != 0:
        sys.exit(f"{title}: failed")
    print(f"{title:40s} {time.monotonic() - started:7.1f} s  {usage.ru_maxrss * 1024 / 1e9:5.2f} GB", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--steps", type=int, default=4, help="DDIM steps of the views")
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    file, bundle = options.folder / "isotropic3d.ckpt", options.folder / "isotropic3d"
    if not file.exists():
        subprocess.run([sys.executable, "-c", WRITE, file], check=True, cwd=ROOT)
    print(f"checkpoint {file.stat().st_size / 1e9:.2f} GB", flush=True)
    iso3d = [sys.executable, "-m", "iso3d_core"]
    measure("convert", [*iso3d, "models", "convert", str(file), "--as", "isotropic3d", "--out", str(bundle)])
    views = str(options.folder / "views.png")
    measure(
        f"views: 4 of 256 px, {options.steps} steps",
        [*iso3d, "views", "examples/rocket.png", "-o", views, "--bundle", str(bundle), "--steps", str(options.steps)],
    )
    measure("one SDS step, 4 views of 64 px", [sys.executable, "-c", SDS, str(bundle)])


if __name__ == "__main__":
    main()
