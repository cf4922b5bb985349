"""Where the command line's results go: names, checks before long work, sheets and turntables."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from .types import InputError

if TYPE_CHECKING:
    from torch import Tensor

MESH_SUFFIXES = (".glb", ".obj", ".ply", ".stl")
ONE_FILE_PIXELS = 500_000_000  # of a turntable: 2 GB of RGBA while it is written
BESIDE_OBJ = (".mtl", "_texture.png")


def output_paths(images: list[Path], out: Path) -> list[Path]:
    """One mesh file for each image: ``out`` itself for one image, else <folder>/<stem>.glb.

    Raises InputError for several images into a file, an unknown suffix, or images that would share a name.
    """
    if not images:
        raise InputError("name at least one image")
    if len(images) == 1 and out.suffix and not out.is_dir():
        if out.suffix.lower() not in MESH_SUFFIXES:
            raise InputError(f"cannot write {out.suffix!r} files; use one of {', '.join(MESH_SUFFIXES)}")
        return [out]
    if out.suffix.lower() in MESH_SUFFIXES and not out.is_dir():
        raise InputError(f"{len(images)} images need a folder as output, not the file {out}")
    targets = [out / f"{image.stem}.glb" for image in images]
    if twice := {t.name for t in targets if targets.count(t) > 1}:
        raise InputError(
            f"several images would be written to {', '.join(sorted(twice))}; rename them or run them apart"
        )
    return targets


def enhanced_paths(coarse: list[Path], out: Path) -> list[Path]:
    """<folder>/<name> of each view, as PNG; raises InputError for a file as output or views that share a name."""
    if not coarse:
        raise InputError("name at least one coarse view after the reference")
    if out.suffix and not out.is_dir():
        raise InputError(f"enhanced views go into a folder; name one with --out, not the file {out}")
    targets = [out / f"{path.stem}.png" for path in coarse]
    if twice := {target.name for target in targets if targets.count(target) > 1}:
        raise InputError(f"several views would be written to {', '.join(sorted(twice))}; rename them")
    return targets


def spare_inputs(inputs: list[Path], targets: list[Path]) -> None:
    """Raise InputError if one of the ``targets``, or a file that is written beside it, is one of the ``inputs``."""
    kept = {path.resolve() for path in inputs}
    for target in targets:
        beside = BESIDE_OBJ if target.suffix.lower() == ".obj" else ()
        for written in (target, *(target.with_name(target.stem + end) for end in beside)):
            if written.resolve() in kept:
                raise InputError(f"{written} is an input and would be overwritten; choose another output")


def check_writable(path: Path) -> None:
    """Raise InputError now if ``path`` could not be written in a minute; leaves nothing behind but its folder."""
    probe = path.with_name(path.name + ".part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        probe.write_bytes(b"\0" * 4096)
        probe.unlink()
    except OSError as error:
        probe.unlink(missing_ok=True) if probe.is_file() else None
        raise InputError(f"cannot write {path}: {error.strerror or error}; choose another output") from None
    if path.is_dir():
        raise InputError(f"cannot write {path}: it is a folder; name a file in it")


def checkpoint_folder(target: Path) -> Path:
    """Where the state of the work on ``target`` is kept until it is done."""
    return target.with_name(f".{target.name}.resume")


def remove_checkpoints(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)


def to_pixels(image: Tensor) -> np.ndarray:
    """[C, H, W] in [0, 1] -> [H, W, C] uint8."""
    return (image.detach().float().clamp(0, 1).permute(1, 2, 0).cpu().numpy() * 255).round().astype(np.uint8)


def write_sheet(images: Tensor, path: Path) -> None:
    """[V, 3|4, H, W] in [0, 1] side by side as one PNG."""
    from PIL import Image

    row = np.concatenate([to_pixels(image) for image in images], axis=1)
    _save(path, lambda file: Image.fromarray(row).save(file, format="PNG"))


def check_turntable(out: Path, frames: int, size: int) -> None:
    """Raise InputError before the rendering if ``out`` could not hold a turntable."""
    if out.suffix.lower() not in ("", ".webp", ".gif", ".png"):
        raise InputError(f"cannot write {out.suffix!r} files; use .webp, .gif, .png or a folder")
    if out.suffix and frames * size**2 > ONE_FILE_PIXELS:
        raise InputError(
            f"{frames} frames of {size} pixels are too much for one file; name a folder, or take fewer or smaller ones"
        )
    check_writable(out if out.suffix else out / "0000.png")


def write_turntable(frames: Iterable[Tensor], out: Path, seconds: float, transparent: bool) -> None:
    """Frames [4, H, W]: an animation for .webp and .gif, a sheet for .png, numbered PNGs in a folder otherwise."""
    from PIL import Image

    suffix = out.suffix.lower()
    drawn = (Image.fromarray(to_pixels(frame if transparent else frame[:3])) for frame in frames)
    if suffix == "":
        for i, picture in enumerate(drawn):
            _save(out / f"{i:04d}.png", lambda file, picture=picture: picture.save(file, format="PNG"))
        return
    pictures = list(drawn)
    timing: dict[str, Any] = {"duration": max(20, round(seconds * 1000 / len(pictures))), "loop": 0}
    if suffix == ".webp":
        options = {"save_all": True, "append_images": pictures[1:], "quality": 85, **timing}
        _save(out, lambda file: pictures[0].save(file, format="WEBP", **options))
    elif suffix == ".gif":
        options = {"save_all": True, "append_images": pictures[1:], "disposal": 2, **timing}
        _save(out, lambda file: pictures[0].save(file, format="GIF", **options))
    else:
        row = Image.fromarray(np.concatenate([np.asarray(p) for p in pictures], axis=1))
        _save(out, lambda file: row.save(file, format="PNG"))


def _save(path: Path, write: Any) -> None:
    part = path.with_name(path.name + ".part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with part.open("wb") as file:
            write(file)
        os.replace(part, path)
    except OSError as error:
        part.unlink(missing_ok=True)
        raise InputError(f"cannot write {path}: {error.strerror or error}; choose another output") from None


def write_boundary(found: dict[str, Any], path: Path, size: tuple[int, int] = (640, 360)) -> None:
    """Draw Consistent123's boundary judgement as PNG: CLIP similarity over the steps, a line at the switch.

    found : ``steps``, ``similarity`` and ``switched_at`` of a `ClipBoundary`
    """
    from PIL import Image, ImageDraw

    width, height = size
    left, right, top, bottom = 60, width - 20, 30, height - 40
    steps, values = found["steps"], found["similarity"]
    picture = Image.new("RGB", size, "white")
    draw = ImageDraw.Draw(picture)
    draw.text((left, 8), "CLIP similarity of eight renders to the text", fill="black")
    if steps:
        low, high = min(values), max(values)
        last, span = max(steps[-1], 1), max(high - low, 1e-6)

        def place(step: float, value: float) -> tuple[float, float]:
            return left + (right - left) * step / last, bottom - (bottom - top) * (value - low) / span

        draw.line([(left, top), (left, bottom), (right, bottom)], fill="grey")
        for value in (low, high):
            draw.text((8, place(0, value)[1] - 6), f"{value:.3f}", fill="black")
        for step in (0, last):
            draw.text((place(step, low)[0] - 10, bottom + 8), f"{step}", fill="black")
        draw.line([place(s, v) for s, v in zip(steps, values, strict=True)], fill="#1f6fb4", width=2)
        if found["switched_at"] is not None:
            x = place(found["switched_at"], low)[0]
            draw.line([(x, top), (x, bottom)], fill="#c0392b", width=1)
            draw.text((max(left, x - 90), top), f"2D prior from {found['switched_at']}", fill="#c0392b")
    _save(path, lambda part: picture.save(part, format="PNG"))
