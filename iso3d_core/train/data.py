"""The training set: views of world objects, rendered once into memory-mapped arrays and read by every training.

For each object: 3 groups of 4 target views (one elevation a group, azimuths 90 degrees apart from a random
start, the fixed training camera and light) and 4 reference views (their own elevation, field of view and
light), the references cropped exactly as `load_reference` crops a user's image. For the towers alone 2 references
and targets of half the size are enough: twice as many objects in the time.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..cameras import Cameras, orbit
from ..images import center_crop
from .pool import one_core_each
from .world import Light, make_object

GROUPS, GROUP_VIEWS, REFERENCES = 3, 4, 4
TOWER_REFERENCES = 2  # of each object that only the towers are trained on
TARGETS = GROUPS * GROUP_VIEWS
MARGIN = 0.1
FINER = 2  # references are so many times as large as targets: the image tower sees more than the latents hold


@dataclass(frozen=True)
class Poses:
    """Azimuths and elevations of one object's views, in degrees, references last."""

    azimuth: np.ndarray  # [TARGETS + REFERENCES]
    elevation: np.ndarray


def draw_poses(seed: int) -> Poses:
    rng = np.random.default_rng([seed, 4])
    start = rng.uniform(0, 360, GROUPS)
    azimuth = (start[:, None] + np.arange(GROUP_VIEWS) * (360 / GROUP_VIEWS)).reshape(-1)
    elevation = np.repeat(rng.uniform(-10, 40, GROUPS), GROUP_VIEWS)
    return Poses(
        np.concatenate([azimuth, rng.uniform(0, 360, REFERENCES)]) % 360,
        np.concatenate([elevation, rng.uniform(-10, 40, REFERENCES)]),
    )


def on_white(rgba: np.ndarray) -> np.ndarray:
    """[..., 4] straight alpha -> [..., 3] composited on white."""
    return rgba[..., :3] * rgba[..., 3:] + 1 - rgba[..., 3:]


def render_reference(obj, azimuth_deg: float, elevation_deg: float, seed: list[int], size: int) -> np.ndarray:
    """A reference image [size, size, 4] under a random light and lens, cropped as a user's image is."""
    camera, light = reference_view(azimuth_deg, elevation_deg, seed)
    return center_crop(obj.render_rgba(camera, 2 * size, light, antialias=1)[0], size, MARGIN)


def reference_view(azimuth_deg: float, elevation_deg: float, seed: list[int]) -> tuple[Cameras, Light]:
    """The random lens and light of a reference."""
    rng = np.random.default_rng(seed)
    fov = rng.uniform(15, 50)
    distance = 1.05 / np.sin(np.deg2rad(fov / 2))
    light = Light(rng.uniform(0.45, 1.0), tuple(rng.normal(0, 1.5, 3) + (0, 0, 1.0)), rng.uniform(0.8, 1.0))
    return orbit(azimuth_deg, elevation_deg, distance, fov), light


def render_item(
    seed: int, size: int, kind: str | None = None, towers_only: bool = False
) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Targets [12, size, size, 4] (on white, and alpha) and references [4, 2 size, 2 size, 3] (on white) as uint8,
    and a caption a reference; ``towers_only``: 2 references, and targets of half the size."""
    obj, poses = make_object(seed, kind), draw_poses(seed)
    cameras = orbit(poses.azimuth[:TARGETS], poses.elevation[:TARGETS])
    rgba = obj.render_rgba(cameras, size // 2 if towers_only else size)
    targets = np.concatenate([on_white(rgba), rgba[..., 3:]], axis=-1)
    references, captions = [], []
    for i in range(TARGETS, TARGETS + (TOWER_REFERENCES if towers_only else REFERENCES)):
        rgba = render_reference(obj, poses.azimuth[i], poses.elevation[i], [seed, 5, i], FINER * size)
        references.append(on_white(rgba))
        captions.append(obj.caption(poses.azimuth[i], poses.elevation[i]))
    as_bytes = [np.round(np.clip(x, 0, 1) * 255).astype(np.uint8) for x in (targets, np.stack(references))]
    return as_bytes[0], as_bytes[1], captions


def _render_into(folder: Path, rows: range, first_seed: int, size: int, towers_only: bool) -> list[list[str]]:
    targets = np.load(folder / "targets.npy", mmap_mode="r+")
    references = np.load(folder / "references.npy", mmap_mode="r+")
    captions = []
    for row in rows:
        targets[row], references[row], words = render_item(first_seed + row, size, None, towers_only)
        captions.append(words)
    return captions


def build(
    folder: Path, objects: int, size: int, first_seed: int = 0, workers: int | None = None, towers_only: bool = False
) -> None:
    """Render ``objects`` into ``folder`` (done once: a finished folder of the same settings is kept)."""
    from tqdm import tqdm

    settings = {"objects": objects, "size": size, "finer": FINER, "first_seed": first_seed}
    if towers_only:
        settings["towers_only"] = True
    done = folder / "captions.json"
    if done.exists() and json.loads(done.read_text())["settings"] == settings:
        return
    folder.mkdir(parents=True, exist_ok=True)
    done.unlink(missing_ok=True)  # from now on there is no finished set
    target_side, references = (size // 2, TOWER_REFERENCES) if towers_only else (size, REFERENCES)
    targets_shape = (objects, TARGETS, target_side, target_side, 4)
    references_shape = (objects, references, FINER * size, FINER * size, 3)
    for name, shape in (("targets", targets_shape), ("references", references_shape)):
        np.lib.format.open_memmap(folder / f"{name}.npy", "w+", np.uint8, shape).flush()
    chunks = [range(i, min(i + 50, objects)) for i in range(0, objects, 50)]
    with one_core_each(workers) as pool:
        work = [pool.submit(_render_into, folder, rows, first_seed, size, towers_only) for rows in chunks]
        captions = [words for job in tqdm(work, desc="rendering", unit="50 objects") for words in job.result()]
    part = done.with_suffix(".part")
    part.write_text(json.dumps({"settings": settings, "captions": captions}))
    os.replace(part, done)


class ViewSet:
    """A rendered training set, images as memory-mapped uint8.

    targets : [N, 12, S, S, 4], alpha last; references : [N, R, 2 S, 2 S, 3], R = 4
    azimuth, elevation : [N, 16] degrees, references last
    captions : N lists of R
    first_seed : of the objects, which follow each other
    towers_only : R is 2 and the targets are [N, 12, S / 2, S / 2, 4]
    """

    def __init__(self, folder: Path) -> None:
        if not (folder / "captions.json").exists():
            raise FileNotFoundError(f"{folder} holds no finished training set; make it with `iso3d train data`")
        stored = json.loads((folder / "captions.json").read_text())
        self.captions: list[list[str]] = stored["captions"]
        self.targets = np.load(folder / "targets.npy", mmap_mode="r")
        self.references = np.load(folder / "references.npy", mmap_mode="r")
        self.first_seed: int = stored["settings"]["first_seed"]
        self.towers_only: bool = stored["settings"].get("towers_only", False)
        poses = [draw_poses(self.first_seed + i) for i in range(len(self.captions))]
        self.azimuth = np.stack([p.azimuth for p in poses])
        self.elevation = np.stack([p.elevation for p in poses])

    def __len__(self) -> int:
        return len(self.captions)


def relative_cameras(azimuth_deg: np.ndarray, elevation_deg: np.ndarray, reference_azimuth_deg: np.ndarray) -> Cameras:
    """Cameras as the model sees them: azimuth measured from the reference view, elevation absolute; flattened."""
    relative = np.asarray(azimuth_deg) - np.asarray(reference_azimuth_deg)
    return orbit(relative.reshape(-1).astype(np.float32), np.asarray(elevation_deg).reshape(-1).astype(np.float32))
