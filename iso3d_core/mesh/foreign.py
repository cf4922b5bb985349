"""Mesh files of other programs, by trimesh, with what it leaves out of glTF: color factors, texture transforms."""

from __future__ import annotations

import importlib.util
import io
import json
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..types import InputError, Mesh
from .glb import JSON_CHUNK, TO_WORLD, to_bytes, to_linear, to_srgb

# Extensions that a file may require: materials only change the light on a surface.
READ = ("KHR_materials_", "KHR_lights_", "KHR_texture_transform", "EXT_texture_webp", "KHR_xmp")
DRACO = "KHR_draco_mesh_compression"
WHITE = np.ones(3)


@dataclass
class Part:
    """One geometry, placed: its trimesh, uvs [n, 2] and image [H, W, 3] uint8, or vertex colors [n, 3] uint8 sRGB;
    whether its back is seen too."""

    mesh: Any
    uvs: np.ndarray | None
    image: np.ndarray | None
    colors: np.ndarray | None
    double_sided: bool = False


def read_foreign(path: Path) -> Mesh:
    """A file of another program as one mesh in the world frame. The texture stays where all parts share it; otherwise
    colors go to the vertices. Raises InputError without triangles, or where it needs what cannot be read."""
    from .clean import vertex_normals

    parts = _gltf_parts(path) if path.suffix.lower() in (".glb", ".gltf") else _parts(path)
    if not parts:
        raise InputError(f"{path} holds no triangles")
    meshes = [part.mesh for part in parts]
    counts = np.cumsum([0, *(len(g.vertices) for g in meshes)])
    vertices = np.concatenate([g.vertices for g in meshes]).astype(np.float32)
    faces = np.concatenate([g.faces + start for g, start in zip(meshes, counts, strict=False)]).astype(np.int32)
    if not (np.isfinite(vertices).all() and faces.min() >= 0 and faces.max() < len(vertices)):
        raise InputError(f"{path} has vertices that are not finite, or faces that name missing vertices")
    given = all("vertex_normals" in g._cache for g in meshes)
    normals = np.concatenate([g.vertex_normals for g in meshes]) if given else vertex_normals(vertices, faces)
    uvs = texture = colors = None
    if all(part.uvs is not None and _same(part.image, parts[0].image) for part in parts):
        # One layout for all of them: with an image of their own each, they would lie over each other.
        uvs, texture = np.concatenate([part.uvs for part in parts]).astype(np.float32), parts[0].image  # type: ignore
    if texture is None:
        found = [_at_vertices(part) for part in parts]
        if any(each is not None for each in found):
            white = [np.full((len(g.vertices), 3), 255, np.uint8) for g in meshes]
            colors = np.concatenate([b if a is None else a for a, b in zip(found, white, strict=True)])
    metadata = {"name": path.stem} | ({"double_sided": True} if any(part.double_sided for part in parts) else {})
    return Mesh(vertices[:, TO_WORLD], faces, normals.astype(np.float32)[:, TO_WORLD], uvs, texture, colors, metadata)


def _same(first: np.ndarray | None, second: np.ndarray | None) -> bool:
    return first is second or (first is not None and second is not None and np.array_equal(first, second))


def _at_vertices(part: Part) -> np.ndarray | None:
    """Vertex colors [n, 3] uint8: the part's own, else what its image, which repeats, shows there."""
    if part.image is None or part.uvs is None:
        return part.colors
    height, width = part.image.shape[:2]
    u, v = np.moveaxis(part.uvs % 1, -1, 0)
    return part.image[((1 - v) * height).astype(int).clip(0, height - 1), (u * width).astype(int).clip(0, width - 1)]


def _placed(scene: Any) -> list[tuple[Any, Any]]:
    """(the geometry as it stands in the scene, its visual) for each mesh; a copy would lose the visual's colors."""
    import trimesh

    found = []
    for node in scene.graph.nodes_geometry:
        transform, name = scene.graph[node]
        geometry = scene.geometry[name]
        if isinstance(geometry, trimesh.Trimesh) and len(geometry.faces):
            found.append((geometry.copy().apply_transform(transform), geometry.visual))
    return found


def _parts(path: Path) -> list[Part]:
    """Of OBJ, PLY and STL, whose colors are sRGB."""
    import trimesh
    from trimesh.visual.material import empty_material

    found = []
    for mesh, visual in _placed(trimesh.load_scene(path, process=False)):
        uvs, image, colors = getattr(visual, "uv", None), None, None
        if visual.kind == "texture":
            image = visual.material.image
            if image is not None and image == empty_material().image:  # trimesh's own, where the file names no material
                image = None
            elif image is None:
                colors = np.broadcast_to(np.asarray(visual.material.main_color)[:3], (len(mesh.vertices), 3))
            image = None if image is None or uvs is None else _pixels(image)
        elif visual.defined:
            colors = np.broadcast_to(visual.vertex_colors[..., :3], (len(mesh.vertices), 3))
        found.append(Part(mesh, uvs, image, None if colors is None else colors.astype(np.uint8)))
    return found


def _gltf_parts(path: Path) -> list[Part]:
    """Of GLB and glTF, whose factors and vertex colors are linear light."""
    import trimesh

    document, rest = _document(path)
    for name in document.get("extensionsRequired", []):
        if not name.startswith(READ) and not (name == DRACO and importlib.util.find_spec("DracoPy")):
            raise InputError(f"{path} needs the glTF extension {name}, which cannot be read here; export it without")
    materials = [{**material, "name": str(i)} for i, material in enumerate(document.get("materials", []))]
    materials.append({"name": str(len(materials))})  # of primitives without one
    for mesh in document.get("meshes", []):
        for primitive in mesh.get("primitives", []):
            number = primitive.setdefault("material", len(materials) - 1)
            _, _, layer = _texture_transform(materials[number])
            if layer:
                attributes = primitive["attributes"]
                attributes["TEXCOORD_0"] = attributes.get(f"TEXCOORD_{layer}", attributes.get("TEXCOORD_0"))
    data = json.dumps({**document, "materials": materials}).encode()
    if path.suffix.lower() == ".glb":
        data += b" " * (-len(data) % 4)
        head = struct.pack("<4sII", b"glTF", 2, 20 + len(data) + len(rest))
        data = head + struct.pack("<II", len(data), JSON_CHUNK) + data + rest
    scene = trimesh.load_scene(
        io.BytesIO(data), file_type=path.suffix[1:].lower(), resolver=trimesh.resolvers.FilePathResolver(str(path)),
        process=False,
    )  # fmt: skip
    found = []
    for mesh, visual in _placed(scene):
        material = materials[int(visual.material.name)]
        factor, both = _factor(material), bool(material.get("doubleSided", False))
        uvs, own = getattr(visual, "uv", None), visual.vertex_attributes.get("color")
        image, colors = getattr(visual.material, "baseColorTexture", None), None
        if image is not None and uvs is not None:
            pixels = _pixels(image)
            if not np.allclose(factor, WHITE):
                table = to_bytes(to_srgb(to_linear(np.arange(256)[:, None] / 255) * factor))  # [256, 3]
                pixels = table[pixels, np.arange(3)]
            found.append(Part(mesh, _transformed(uvs, material), pixels, None, both))
            continue
        if own is not None or not np.allclose(factor, WHITE):
            linear = WHITE if own is None else _unit(np.asarray(own))[:, :3]
            colors = np.broadcast_to(to_bytes(to_srgb(linear * factor)), (len(mesh.vertices), 3))
        found.append(Part(mesh, uvs, None, colors, both))
    return found


def _document(path: Path) -> tuple[dict[str, Any], bytes]:
    """A glTF file's JSON, and the chunks after it."""
    data = path.read_bytes()
    if path.suffix.lower() != ".glb":
        return json.loads(data), b""
    length = struct.unpack_from("<I", data, 12)[0]
    return json.loads(data[20 : 20 + length]), data[20 + length :]


def _base_texture(material: dict[str, Any]) -> dict[str, Any]:
    old = material.get("extensions", {}).get("KHR_materials_pbrSpecularGlossiness", {})
    return material.get("pbrMetallicRoughness", {}).get("baseColorTexture") or old.get("diffuseTexture") or {}


def _factor(material: dict[str, Any]) -> np.ndarray:
    """The base color [3], linear, that its texture and its vertex colors are multiplied with."""
    old = material.get("extensions", {}).get("KHR_materials_pbrSpecularGlossiness", {})
    factor = material.get("pbrMetallicRoughness", {}).get("baseColorFactor") or old.get("diffuseFactor")
    return WHITE if factor is None else np.asarray(factor[:3], float)


def _texture_transform(material: dict[str, Any]) -> tuple[np.ndarray, np.ndarray, int]:
    """KHR_texture_transform of the base color: a matrix [2, 2] and an offset [2] of glTF's uvs, and their layer."""
    texture = _base_texture(material)
    given = texture.get("extensions", {}).get("KHR_texture_transform", {})
    cosine, sine = np.cos(given.get("rotation", 0.0)), np.sin(given.get("rotation", 0.0))
    matrix = np.array([[cosine, sine], [-sine, cosine]]) @ np.diag(given.get("scale", [1.0, 1.0]))
    layer = given.get("texCoord", texture.get("texCoord", 0))
    return matrix, np.asarray(given.get("offset", [0.0, 0.0]), float), int(layer)


def _transformed(uvs: np.ndarray, material: dict[str, Any]) -> np.ndarray:
    """uvs [n, 2], v upwards here and downwards in glTF."""
    matrix, offset, _ = _texture_transform(material)
    if np.array_equal(matrix, np.eye(2)) and not offset.any():
        return uvs
    moved = np.stack([uvs[:, 0], 1 - uvs[:, 1]], axis=1) @ matrix.T + offset
    return np.stack([moved[:, 0], 1 - moved[:, 1]], axis=1)


def _unit(values: np.ndarray) -> np.ndarray:
    """Colors as they are stored, floats or normalized integers, in 0..1."""
    return values / np.iinfo(values.dtype).max if values.dtype.kind == "u" else np.clip(values, 0, 1)


def _pixels(image: Any) -> np.ndarray:
    """[H, W, 3] uint8 of a PIL image of any depth."""
    if image.mode.startswith("I"):
        grey = (np.asarray(image).astype(np.int64) >> 8).clip(0, 255).astype(np.uint8)
        return np.repeat(grey[..., None], 3, axis=2)
    return np.array(image.convert("RGB"))
