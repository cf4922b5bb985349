"""Where the command line's results go: names, checks before long work, sheets and turntables."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from .types import InputError

if TYPE_CHECKING:
    from torch import Tensor

MESH_SUFFIXES = (".glb", ".obj", ".ply", ".stl")


def output_paths(images: list[Path], out: Path) -> list[Path]:
    """One mesh file for each image: ``out`` itself for one image, else <folder>/<stem>.glb.

    Raises InputError for several images into a file, an unknown suffix, or images that would share a name.
    """
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
    if out.suffix and not out.is_dir():
        raise InputError(f"enhanced views go into a folder; name one with --out, not the file {out}")
    targets = [out / f"{path.stem}.png" for path in coarse]
    if twice := {target.name for target in targets if targets.count(target) > 1}:
        raise InputError(f"several views would be written to {', '.join(sorted(twice))}; rename them")
    if any(target.resolve() == path.resolve() for target, path in zip(targets, coarse, strict=True)):
        raise InputError(f"{out} is where the coarse views are; choose another folder, they would be overwritten")
    return targets


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


def check_turntable(out: Path) -> None:
    """Raise InputError before the rendering if ``out`` could not hold a turntable."""
    if out.suffix.lower() not in ("", ".webp", ".gif", ".png"):
        raise InputError(f"cannot write {out.suffix!r} files; use .webp, .gif, .png or a folder")
    check_writable(out if out.suffix else out / "0000.png")


def write_turntable(frames: list[Tensor], out: Path, seconds: float, transparent: bool) -> None:
    """Frames [4, H, W]: an animation for .webp and .gif, a sheet for .png, numbered PNGs in a folder otherwise."""
    from PIL import Image

    pictures = [Image.fromarray(to_pixels(f if transparent else f[:3])) for f in frames]
    suffix = out.suffix.lower()
    timing: dict[str, Any] = {"duration": max(20, round(seconds * 1000 / len(frames))), "loop": 0}
    if suffix == ".webp":
        options = {"save_all": True, "append_images": pictures[1:], "quality": 85, **timing}
        _save(out, lambda file: pictures[0].save(file, format="WEBP", **options))
    elif suffix == ".gif":
        options = {"save_all": True, "append_images": pictures[1:], "disposal": 2, **timing}
        _save(out, lambda file: pictures[0].save(file, format="GIF", **options))
    elif suffix == ".png":
        row = Image.fromarray(np.concatenate([np.asarray(p) for p in pictures], axis=1))
        _save(out, lambda file: row.save(file, format="PNG"))
    else:
        for i, picture in enumerate(pictures):
            _save(out / f"{i:04d}.png", lambda file, picture=picture: picture.save(file, format="PNG"))


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
