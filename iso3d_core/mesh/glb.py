"""GLB files: one mesh with its base color, and the metadata in ``asset.extras``; read back exactly."""

from __future__ import annotations

import io
import json
import math
import struct
from typing import Any

import numpy as np

from ..types import Mesh

GENERATOR = "iso3d"
# cameras.WORLD_TO_GLTF as columns: (x, y, z) -> (y, z, x), and back.
TO_FILE, TO_WORLD = [1, 2, 0], [2, 0, 1]
FLOAT, UINT, USHORT = 5126, 5125, 5123
CLAMPED, REPEATED = 33071, 10497
GLB_MAGIC, JSON_CHUNK, BIN_CHUNK = 0x46546C67, 0x4E4F534A, 0x004E4942


def write_glb(mesh: Mesh, stem: str) -> dict[str, bytes]:
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
        "doubleSided": bool(mesh.metadata.get("double_sided", False)),
        "pbrMetallicRoughness": {"metallicFactor": 0.0, "roughnessFactor": 0.9},
    }
    document: dict[str, Any] = {}
    if mesh.uvs is not None:
        flipped = np.stack([mesh.uvs[:, 0], 1 - mesh.uvs[:, 1]], axis=1)
        attributes["TEXCOORD_0"] = add(flipped.astype("<f4"), "VEC2", FLOAT)
    if mesh.vertex_colors is not None:
        linear = np.concatenate([to_linear(mesh.vertex_colors / 255), np.ones((len(positions), 1))], axis=1)
        attributes["COLOR_0"] = add((linear * 65535).round().astype("<u2"), "VEC4", USHORT, normalized=True)
    indices = add(mesh.faces.reshape(-1).astype("<u4"), "SCALAR", UINT)
    if mesh.texture is not None and mesh.uvs is not None:
        views.append(png(mesh.texture))
        wrap = REPEATED if repeats(mesh.uvs) else CLAMPED
        document["images"] = [{"bufferView": len(views) - 1, "mimeType": "image/png", "name": name}]
        document["samplers"] = [{"magFilter": 9729, "minFilter": 9987, "wrapS": wrap, "wrapT": wrap}]
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
    text = to_json(document)
    text += b" " * (-len(text) % 4)
    header = struct.pack("<III", GLB_MAGIC, 2, 12 + 8 + len(text) + 8 + len(binary))
    chunks = struct.pack("<II", len(text), JSON_CHUNK) + text + struct.pack("<II", len(binary), BIN_CHUNK) + binary
    return {".glb": header + chunks}


def repeats(uvs: np.ndarray) -> bool:
    """Whether uvs [n, 2] leave the texture, which then repeats."""
    return bool(uvs.min() < -1e-3 or uvs.max() > 1.001)


def read_own_glb(data: bytes) -> Mesh | None:
    """The exact inverse of `write_glb`, or None for a GLB from elsewhere."""
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
        vertex_colors=None if colors is None else to_bytes(to_srgb(colors[:, :3] / 65535)),
        metadata=document["asset"]["extras"][GENERATOR],
    )


def png(texture: np.ndarray) -> bytes:
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(texture)).save(buffer, format="PNG", compress_level=6)
    return buffer.getvalue()


def to_json(value: Any, indent: int | None = None) -> bytes:
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


def to_linear(srgb: np.ndarray) -> np.ndarray:
    return np.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4)


def to_srgb(linear: np.ndarray) -> np.ndarray:
    return np.where(linear <= 0.0031308, linear * 12.92, 1.055 * linear ** (1 / 2.4) - 0.055)


def to_bytes(values: np.ndarray) -> np.ndarray:
    return (np.clip(values, 0, 1) * 255).round().astype(np.uint8)
