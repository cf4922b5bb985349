"""Meshes to files and back: GLB, OBJ, PLY and STL in glTF's frame, written whole or not at all."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from ..types import InputError, Mesh
from .foreign import read_foreign
from .glb import TO_FILE, png, read_own_glb, to_json, write_glb


def save_mesh(mesh: Mesh, path: str | Path) -> Path:
    """Write GLB, OBJ (+ MTL + PNG), PLY or STL by the suffix, and the metadata as ``<stem>.json`` beside it.

    The same mesh gives the same bytes. Missing folders are made. Every file is written as ``<name>.part`` first, so
    a failure leaves no half file. Raises InputError for an unknown suffix, or where the files cannot be written.
    """
    path = Path(path)
    write = WRITERS.get(path.suffix.lower())
    if write is None:
        raise InputError(f"cannot write {path.name!r}: the suffix must be one of {', '.join(WRITERS)}")
    files = write(mesh, path.stem)
    files = {f"{path.stem}.json": to_json(mesh.metadata, indent=2), **{path.stem + k: v for k, v in files.items()}}
    # The mesh goes last, under the name asked for (its suffix may be in capitals): when it is there, all is there.
    files[path.name] = files.pop(path.stem + path.suffix.lower())
    _write_all(path.parent, files)
    return path


def finished(path: str | Path) -> str | None:
    """The `pipeline.work_key` that the mesh file at ``path`` is the result of; None where it does not say."""
    beside = Path(path).with_suffix(".json")
    try:
        found = json.loads(beside.read_text(encoding="utf-8")) if Path(path).is_file() else {}
    except (OSError, ValueError):
        return None
    return found.get("work") if isinstance(found, dict) else None


def load_mesh(path: str | Path) -> Mesh:
    """Read a mesh file into the world frame: our own GLBs exactly, other files as trimesh understands them.

    Several geometries become one. The texture stays if there is a single one; otherwise colors go to the vertices.
    Raises InputError for a file that is missing, broken, of an unknown kind or without triangles.
    """
    path = Path(path)
    if path.suffix.lower() not in (*WRITERS, ".gltf"):
        raise InputError(f"cannot read {path.name!r}: the suffix must be one of {', '.join(WRITERS)}, .gltf")
    try:
        data = path.read_bytes()
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror or error}") from error
    try:
        own = read_own_glb(data) if path.suffix.lower() == ".glb" else None
        return own if own is not None else read_foreign(path)
    except InputError:
        raise
    except Exception as error:  # the parsers raise what they like on a broken file
        raise InputError(f"cannot read {path}: it is not a whole {path.suffix[1:].upper()} file ({error})") from error


def _obj(mesh: Mesh, stem: str) -> dict[str, bytes]:
    vertices, normals, uvs = mesh.vertices[:, TO_FILE], mesh.normals[:, TO_FILE], mesh.uvs
    rows = vertices if mesh.vertex_colors is None else np.concatenate([vertices, mesh.vertex_colors / 255], axis=1)
    files: dict[str, bytes] = {}
    lines = []
    if mesh.texture is not None and uvs is not None:
        # Not <stem>.png: that may well be the picture the mesh was made from.
        files[".mtl"] = f"newmtl surface\nKa 0 0 0\nKd 1 1 1\nKs 0 0 0\nmap_Kd {stem}_texture.png\n".encode()
        files["_texture.png"] = png(mesh.texture)
        lines += [f"mtllib {stem}.mtl", "usemtl surface"]
    lines += ["v " + " ".join(f"{x:.9g}" for x in row) for row in rows.tolist()]
    lines += ["vn " + " ".join(f"{x:.6g}" for x in row) for row in normals.tolist()]
    lines += [f"vt {u:.7g} {v:.7g}" for u, v in (uvs.tolist() if uvs is not None else ())]
    corner = "{0}/{0}/{0}" if uvs is not None else "{0}//{0}"
    lines += ["f " + " ".join(corner.format(i) for i in face) for face in (mesh.faces + 1).tolist()]
    return {**files, ".obj": ("\n".join(lines) + "\n").encode()}


def _through_trimesh(mesh: Mesh, kind: str, **options: Any) -> dict[str, bytes]:
    """PLY and STL, which have no textures: the colors go to the vertices."""
    import trimesh

    colors = mesh.vertex_colors
    if colors is None and mesh.texture is not None and mesh.uvs is not None:
        height, width = mesh.texture.shape[:2]
        column = np.clip(mesh.uvs[:, 0] * width, 0, width - 1).astype(int)
        colors = mesh.texture[np.clip((1 - mesh.uvs[:, 1]) * height, 0, height - 1).astype(int), column]
    vertices, normals = mesh.vertices[:, TO_FILE], mesh.normals[:, TO_FILE]
    plain = trimesh.Trimesh(vertices, mesh.faces, vertex_normals=normals, vertex_colors=colors, process=False)
    data: Any = plain.export(file_type=kind, **options)
    return {f".{kind}": data}


WRITERS: dict[str, Callable[[Mesh, str], dict[str, bytes]]] = {
    ".glb": write_glb,
    ".obj": _obj,
    ".ply": lambda mesh, stem: _through_trimesh(mesh, "ply", vertex_normal=True),
    ".stl": lambda mesh, stem: _through_trimesh(mesh, "stl"),
}


def _write_all(folder: Path, files: dict[str, bytes]) -> None:
    parts = [folder / f"{name}.part" for name in files]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name in files:
            if (folder / name).is_dir():
                raise InputError(f"cannot write {folder / name}: a folder of that name is in the way")
        for part, data in zip(parts, files.values(), strict=True):
            part.write_bytes(data)
        for part, name in zip(parts, files, strict=True):
            os.replace(part, folder / name)
    except OSError as error:
        raise InputError(f"cannot write {folder / list(files)[-1]}: {error.strerror or error}") from error
    finally:
        for part in parts:
            with suppress(OSError):
                part.unlink()
