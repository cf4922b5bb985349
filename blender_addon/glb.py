# SPDX-License-Identifier: GPL-3.0-or-later
"""GLB files of one mesh with its base color, turned to Blender's axes. Knows no bpy."""

from __future__ import annotations

import json
import struct
from array import array
from dataclasses import dataclass
from operator import neg
from pathlib import Path
from typing import Any

MAGIC, JSON_CHUNK, BINARY_CHUNK = 0x46546C67, 0x4E4F534A, 0x004E4942
TYPECODES = {5121: "B", 5123: "H", 5125: "I", 5126: "f"}
WIDTHS = {"SCALAR": 1, "VEC2": 2, "VEC3": 3, "VEC4": 4}


class GlbError(ValueError):
    """The file cannot be used; the message says why."""


@dataclass(frozen=True)
class Mesh:
    """A triangle mesh, Z up, its front towards -Y. Flat arrays, as `foreach_set` takes them.

    positions : 3 floats a vertex
    triangles : 3 vertices a face, counter-clockwise seen from outside
    uvs : 2 floats a vertex, v = 0 at the bottom row of the image, or None
    colors : 4 floats a vertex, linear light, or None
    image : the base color as the bytes of a PNG or JPEG, or None
    roughness, metallic : of the whole surface, in [0, 1]
    """

    positions: array
    triangles: array
    uvs: array | None = None
    colors: array | None = None
    image: bytes | None = None
    roughness: float = 0.9
    metallic: float = 0.0


def read(path: str | Path) -> Mesh:
    """Read the first primitive of the first mesh; raises GlbError for a file that is missing, broken or unusual."""
    path = Path(path)
    try:
        return parse(path.read_bytes())
    except OSError as error:
        raise GlbError(f"cannot read {path}: {error.strerror or error}") from error
    except (LookupError, TypeError, ValueError, struct.error) as error:
        raise GlbError(f"{path} is not a whole GLB with one mesh ({error}); generate it again") from error


def parse(data: bytes) -> Mesh:
    """The mesh in the bytes of a GLB; raises GlbError, or what a broken file leads to."""
    document, binary = _chunks(data)

    def view(index: int) -> tuple[dict[str, Any], bytes]:
        entry = document["bufferViews"][index]
        start = entry.get("byteOffset", 0)
        return entry, binary[start : start + entry["byteLength"]]

    def values(index: int) -> array:
        accessor = document["accessors"][index]
        entry, part = view(accessor["bufferView"])
        found = array(TYPECODES[accessor["componentType"]])
        width = WIDTHS[accessor["type"]]
        if entry.get("byteStride", width * found.itemsize) != width * found.itemsize:
            raise GlbError("interleaved attributes")
        start, size = accessor.get("byteOffset", 0), accessor["count"] * width * found.itemsize
        if start + size > len(part):
            raise GlbError(f"accessor {index} reaches beyond its data")
        found.frombytes(part[start : start + size])
        return found

    primitive = document["meshes"][0]["primitives"][0]
    if primitive.get("mode", 4) != 4:
        raise GlbError("no triangles")
    attributes = primitive["attributes"]
    positions = values(attributes["POSITION"])
    count = len(positions) // 3
    triangles = array("I", values(primitive["indices"]) if "indices" in primitive else range(count))
    if len(triangles) == 0 or len(triangles) % 3 or max(triangles) >= count:
        raise GlbError("faces that name missing vertices, or none")

    uvs = values(attributes["TEXCOORD_0"]) if "TEXCOORD_0" in attributes else None
    if uvs is not None and len(uvs) != 2 * count:
        raise GlbError(f"TEXCOORD_0 has {len(uvs)} numbers for {count} vertices")
    colors = _colors(values(attributes["COLOR_0"]), count) if "COLOR_0" in attributes else None
    material = document["materials"][primitive["material"]] if "material" in primitive else {}
    surface = material.get("pbrMetallicRoughness", {})
    image = None
    if "baseColorTexture" in surface:
        texture = document["textures"][surface["baseColorTexture"]["index"]]
        image = view(document["images"][texture["source"]]["bufferView"])[1]
    return Mesh(
        positions=turn(positions), triangles=triangles, uvs=uvs and _flip(uvs), colors=colors, image=image,
        roughness=surface.get("roughnessFactor", 1.0), metallic=surface.get("metallicFactor", 1.0),
    )  # fmt: skip


def _chunks(data: bytes) -> tuple[dict[str, Any], bytes]:
    magic, version, total = struct.unpack_from("<III", data)
    if magic != MAGIC or version != 2 or total != len(data):
        raise GlbError("its header does not match its contents")
    found, start = {}, 12
    while start < total:
        length, kind = struct.unpack_from("<II", data, start)
        found[kind] = data[start + 8 : start + 8 + length]
        start += 8 + length
    return json.loads(found[JSON_CHUNK]), found.get(BINARY_CHUNK, b"")


def turn(vectors: array) -> array:
    """glTF (Y up, front +Z) to Blender (Z up, front -Y): (x, y, z) -> (x, -z, y)."""
    turned = array("f", vectors)
    turned[1::3] = array("f", map(neg, vectors[2::3]))
    turned[2::3] = vectors[1::3]
    return turned


def _flip(uvs: array) -> array:
    flipped = array("f", uvs)
    flipped[1::2] = array("f", (1 - v for v in uvs[1::2]))
    return flipped


def _colors(values: array, count: int) -> array:
    """RGB or RGBA, of integers or floats, to RGBA floats."""
    full = {"B": 255, "H": 65535}.get(values.typecode, 1)
    if len(values) == 4 * count:
        return array("f", (value / full for value in values))
    if len(values) != 3 * count:
        raise GlbError(f"COLOR_0 has {len(values)} numbers for {count} vertices")
    colors = array("f", [1.0]) * (4 * count)
    for channel in range(3):
        colors[channel::4] = array("f", (value / full for value in values[channel::3]))
    return colors


def write(mesh: Mesh) -> bytes:
    """A GLB of the mesh: positions, UVs and base color image where it has some."""
    parts: list[bytes] = []
    views: list[dict[str, Any]] = []

    def add(data: bytes) -> int:
        start = sum(map(len, parts))
        views.append({"buffer": 0, "byteOffset": start, "byteLength": len(data)})
        parts.append(data + bytes(-len(data) % 4))
        return len(views) - 1

    def accessor(values: array, kind: str, component: int, **more: Any) -> int:
        accessors.append({
            "bufferView": add(values.tobytes()), "componentType": component, "count": len(values) // WIDTHS[kind],
            "type": kind, **more,
        })  # fmt: skip
        return len(accessors) - 1

    accessors: list[dict[str, Any]] = []
    places = _turn_back(mesh.positions)
    low, high = ([pick(places[k::3]) for k in range(3)] for pick in (min, max))
    attributes = {"POSITION": accessor(places, "VEC3", 5126, min=low, max=high)}
    if mesh.uvs is not None:
        attributes["TEXCOORD_0"] = accessor(_flip(mesh.uvs), "VEC2", 5126)
    indices = accessor(array("I", mesh.triangles), "SCALAR", 5125)
    surface: dict[str, Any] = {"metallicFactor": mesh.metallic, "roughnessFactor": mesh.roughness}
    document: dict[str, Any] = {
        "asset": {"version": "2.0"}, "scene": 0, "scenes": [{"nodes": [0]}], "nodes": [{"mesh": 0}],
        "meshes": [{"primitives": [{"attributes": attributes, "indices": indices, "material": 0}]}],
        "materials": [{"pbrMetallicRoughness": surface}],
    }  # fmt: skip
    if mesh.image is not None:
        mime = "image/png" if mesh.image[1:4] == b"PNG" else "image/jpeg"
        document |= {"images": [{"bufferView": add(mesh.image), "mimeType": mime}], "textures": [{"source": 0}]}
        surface["baseColorTexture"] = {"index": 0}
    binary = b"".join(parts)
    document |= {"accessors": accessors, "bufferViews": views, "buffers": [{"byteLength": len(binary)}]}
    text = json.dumps(document).encode()
    text += b" " * (-len(text) % 4)
    head = struct.pack("<III", MAGIC, 2, 12 + 8 + len(text) + 8 + len(binary))
    return b"".join([
        head, struct.pack("<II", len(text), JSON_CHUNK), text, struct.pack("<II", len(binary), BINARY_CHUNK), binary,
    ])  # fmt: skip


def _turn_back(vectors: array) -> array:
    """The inverse of `turn`: (x, y, z) -> (x, z, -y)."""
    turned = array("f", vectors)
    turned[1::3] = vectors[2::3]
    turned[2::3] = array("f", map(neg, vectors[1::3]))
    return turned


def weld(positions: array) -> tuple[list[int], list[int]]:
    """Find vertices in the same place; a GLB splits them along the seams of its UVs, a modeller wants one.

    Returns (kept, merged): ``kept`` lists the vertices that stay, ``merged[i]`` is the new number of vertex i.
    """
    numbers: dict[tuple[float, ...], int] = {}
    kept, merged = [], []
    for i, place in enumerate(zip(positions[0::3], positions[1::3], positions[2::3], strict=True)):
        number = numbers.setdefault(place, len(kept))
        if number == len(kept):
            kept.append(i)
        merged.append(number)
    return kept, merged
