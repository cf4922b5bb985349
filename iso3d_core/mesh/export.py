"""Meshes to files and back: GLB, OBJ, PLY and STL in glTF's frame, written whole or not at all."""

from __future__ import annotations

import io
import json
import math
import os
import struct
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from ..types import InputError, Mesh

GENERATOR = "iso3d"
# cameras.WORLD_TO_GLTF as columns: (x, y, z) -> (y, z, x), and back.
TO_FILE, TO_WORLD = [1, 2, 0], [2, 0, 1]
FLOAT, UINT, USHORT = 5126, 5125, 5123
GLB_MAGIC, JSON_CHUNK, BIN_CHUNK = 0x46546C67, 0x4E4F534A, 0x004E4942


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
    files = {f"{path.stem}.json": _json(mesh.metadata, indent=2), **{path.stem + k: v for k, v in files.items()}}
    # The mesh goes last, under the name asked for (its suffix may be in capitals): when it is there, all is there.
    files[path.name] = files.pop(path.stem + path.suffix.lower())
    _write_all(path.parent, files)
    return path


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
        own = _read_own_glb(data) if path.suffix.lower() == ".glb" else None
        return own if own is not None else _read_foreign(path)
    except InputError:
        raise
    except Exception as error:  # the parsers raise what they like on a broken file
        raise InputError(f"cannot read {path}: it is not a whole {path.suffix[1:].upper()} file ({error})") from error


def _glb(mesh: Mesh, stem: str) -> dict[str, bytes]:
    name = str(mesh.metadata.get("name", stem))
    views: list[bytes] = []
    accessors: list[dict[str, Any]] = []

    def add(values: np.ndarray, kind: str, component: int, **extra: Any) -> int:
        views.append(np.ascontiguousarray(values).tobytes())
        entry = {"bufferView": len(views) - 1, "componentType": component, "count": len(values), "type": kind}
        accessors.append({**entry, **extra})
        return len(accessors) - 1

    positions = mesh.vertices[:, TO_FILE].astype("<f4")
    box = {"min": positions.min(axis=0).tolist(), "max": positions.max(axis=0).tolist()}
    attributes = {
        "POSITION": add(positions, "VEC3", FLOAT, **box),
        "NORMAL": add(mesh.normals[:, TO_FILE].astype("<f4"), "VEC3", FLOAT),
    }
    material: dict[str, Any] = {
        "name": name,
        "doubleSided": False,
        "pbrMetallicRoughness": {"metallicFactor": 0.0, "roughnessFactor": 0.9},
    }
    document: dict[str, Any] = {}
    if mesh.uvs is not None:
        flipped = np.stack([mesh.uvs[:, 0], 1 - mesh.uvs[:, 1]], axis=1)
        attributes["TEXCOORD_0"] = add(flipped.astype("<f4"), "VEC2", FLOAT)
    if mesh.vertex_colors is not None:
        linear = np.concatenate([_to_linear(mesh.vertex_colors / 255), np.ones((len(positions), 1))], axis=1)
        attributes["COLOR_0"] = add((linear * 65535).round().astype("<u2"), "VEC4", USHORT, normalized=True)
    indices = add(mesh.faces.reshape(-1).astype("<u4"), "SCALAR", UINT)
    if mesh.texture is not None and mesh.uvs is not None:
        views.append(_png(mesh.texture))
        document["images"] = [{"bufferView": len(views) - 1, "mimeType": "image/png", "name": name}]
        document["samplers"] = [{"magFilter": 9729, "minFilter": 9987, "wrapS": 33071, "wrapT": 33071}]
        document["textures"] = [{"source": 0, "sampler": 0}]
        material["pbrMetallicRoughness"]["baseColorTexture"] = {"index": 0}

    offsets = np.cumsum([0, *(len(v) + -len(v) % 4 for v in views)]).tolist()
    binary = b"".join(v + b"\0" * (-len(v) % 4) for v in views)
    document |= {
        "asset": {"version": "2.0", "generator": GENERATOR, "extras": {GENERATOR: _plain(mesh.metadata)}},
        "scene": 0,
        "scenes": [{"nodes": [0]}],
        "nodes": [{"mesh": 0, "name": name}],
        "meshes": [{"name": name, "primitives": [{"attributes": attributes, "indices": indices, "material": 0}]}],
        "materials": [material],
        "accessors": accessors,
        "bufferViews": [
            {"buffer": 0, "byteOffset": start, "byteLength": len(v)} for start, v in zip(offsets, views, strict=False)
        ],
        "buffers": [{"byteLength": len(binary)}],
    }
    text = _json(document)
    text += b" " * (-len(text) % 4)
    header = struct.pack("<III", GLB_MAGIC, 2, 12 + 8 + len(text) + 8 + len(binary))
    chunks = struct.pack("<II", len(text), JSON_CHUNK) + text + struct.pack("<II", len(binary), BIN_CHUNK) + binary
    return {".glb": header + chunks}


def _read_own_glb(data: bytes) -> Mesh | None:
    """The exact inverse of `_glb`, or None for a GLB from elsewhere."""
    from PIL import Image

    magic, _, total = struct.unpack_from("<III", data)
    if magic != GLB_MAGIC or total != len(data):
        raise ValueError("its header does not match its length")
    length = struct.unpack_from("<I", data, 12)[0]
    document = json.loads(data[20 : 20 + length])
    if document["asset"].get("generator") != GENERATOR:
        return None
    binary = data[20 + length + 8 :]

    def view(index: int) -> bytes:
        entry = document["bufferViews"][index]
        return binary[entry["byteOffset"] : entry["byteOffset"] + entry["byteLength"]]

    primitive = document["meshes"][0]["primitives"][0]

    def read(index: int, dtype: str, width: int) -> np.ndarray:
        return np.frombuffer(view(document["accessors"][index]["bufferView"]), dtype).reshape(-1, width)

    attributes = primitive["attributes"]
    positions, normals = read(attributes["POSITION"], "<f4", 3), read(attributes["NORMAL"], "<f4", 3)
    faces = read(primitive["indices"], "<u4", 3)
    uvs = read(attributes["TEXCOORD_0"], "<f4", 2) if "TEXCOORD_0" in attributes else None
    colors = read(attributes["COLOR_0"], "<u2", 4) if "COLOR_0" in attributes else None
    images = document.get("images")
    return Mesh(
        vertices=positions[:, TO_WORLD],
        faces=faces.astype(np.int32),
        normals=normals[:, TO_WORLD],
        uvs=None if uvs is None else np.stack([uvs[:, 0], 1 - uvs[:, 1]], axis=1),
        texture=np.array(Image.open(io.BytesIO(view(images[0]["bufferView"])))) if images else None,
        vertex_colors=None if colors is None else _to_bytes(_to_srgb(colors[:, :3] / 65535)),
        metadata=document["asset"]["extras"][GENERATOR],
    )


def _read_foreign(path: Path) -> Mesh:
    import trimesh

    from .clean import vertex_normals

    scene = trimesh.load_scene(path, process=False)
    parts: list[Any] = [g for g in scene.dump() if isinstance(g, trimesh.Trimesh) and len(g.faces)]
    if not parts:
        raise InputError(f"{path} holds no triangles")
    counts = np.cumsum([0, *(len(g.vertices) for g in parts)])
    vertices = np.concatenate([g.vertices for g in parts]).astype(np.float32)
    faces = np.concatenate([g.faces + start for g, start in zip(parts, counts, strict=False)]).astype(np.int32)
    if not (np.isfinite(vertices).all() and faces.min() >= 0 and faces.max() < len(vertices)):
        raise InputError(f"{path} has vertices that are not finite, or faces that name missing vertices")
    given = all("vertex_normals" in g._cache for g in parts)
    normals = np.concatenate([g.vertex_normals for g in parts]) if given else vertex_normals(vertices, faces)
    images = [_base_color_image(g) for g in parts]
    uvs = texture = colors = None
    if images[0] is not None and all(image is not None and image == images[0] for image in images):
        uvs = np.concatenate([g.visual.uv for g in parts]).astype(np.float32)
        texture = np.array(images[0].convert("RGB"))
    elif any(image is not None or g.visual.defined for image, g in zip(images, parts, strict=True)):
        colors = np.concatenate([_colors(g, path.suffix.lower() in (".glb", ".gltf")) for g in parts])
    return Mesh(
        vertices[:, TO_WORLD], faces, normals.astype(np.float32)[:, TO_WORLD], uvs, texture, colors, {"name": path.stem}
    )


def _base_color_image(geometry: Any) -> Any:
    """The PIL image of a textured trimesh geometry, else None."""
    if getattr(geometry.visual, "uv", None) is None:
        return None
    material = geometry.visual.material
    return getattr(material, "baseColorTexture", None) or getattr(material, "image", None)


def _colors(geometry: Any, linear: bool) -> np.ndarray:
    """(n, 3) uint8 sRGB vertex colors; glTF stores plain vertex colors and factors as linear light."""
    textured = _base_color_image(geometry) is not None
    visual = geometry.visual.to_color() if geometry.visual.kind == "texture" else geometry.visual
    values = np.broadcast_to(np.asarray(visual.vertex_colors)[..., :3], (len(geometry.vertices), 3)) / 255
    return _to_bytes(_to_srgb(values) if linear and not textured else values)


def _obj(mesh: Mesh, stem: str) -> dict[str, bytes]:
    vertices, normals, uvs = mesh.vertices[:, TO_FILE], mesh.normals[:, TO_FILE], mesh.uvs
    rows = vertices if mesh.vertex_colors is None else np.concatenate([vertices, mesh.vertex_colors / 255], axis=1)
    files: dict[str, bytes] = {}
    lines = []
    if mesh.texture is not None and uvs is not None:
        # Not <stem>.png: that may well be the picture the mesh was made from.
        files[".mtl"] = f"newmtl surface\nKa 0 0 0\nKd 1 1 1\nKs 0 0 0\nmap_Kd {stem}_texture.png\n".encode()
        files["_texture.png"] = _png(mesh.texture)
        lines += [f"mtllib {stem}.mtl", "usemtl surface"]
    lines += ["v " + " ".join(f"{x:.7g}" for x in row) for row in rows.tolist()]
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
    ".glb": _glb,
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


def _png(texture: np.ndarray) -> bytes:
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(texture)).save(buffer, format="PNG", compress_level=6)
    return buffer.getvalue()


def _json(value: Any, indent: int | None = None) -> bytes:
    return json.dumps(_plain(value), sort_keys=True, indent=indent, allow_nan=False).encode()


def _plain(value: Any) -> Any:
    """``value`` in JSON's own types: what is not finite becomes None, what has no JSON form its text."""
    if isinstance(value, dict):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    if isinstance(value, np.ndarray | np.generic):
        return _plain(value.tolist())
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value if isinstance(value, str | int | type(None)) else str(value)


def _to_linear(srgb: np.ndarray) -> np.ndarray:
    return np.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4)


def _to_srgb(linear: np.ndarray) -> np.ndarray:
    return np.where(linear <= 0.0031308, linear * 12.92, 1.055 * linear ** (1 / 2.4) - 0.055)


def _to_bytes(values: np.ndarray) -> np.ndarray:
    return (np.clip(values, 0, 1) * 255).round().astype(np.uint8)
