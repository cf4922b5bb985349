"""Pictures of a finished mesh by ray casting on the CPU: color, clay, normals, depth, mask."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from ..cameras import Cameras, rays
from ..types import Mesh

STYLES = ("color", "clay", "normal", "depth", "mask")
CLAY = np.array([0.82, 0.80, 0.78])
AMBIENT = 0.25


def render_mesh(
    mesh: Mesh,
    cameras: Cameras,
    size: int,
    style: str = "color",
    background: tuple[float, float, float] | None = (1.0, 1.0, 1.0),
    antialias: int = 2,
) -> Tensor:
    """``[V, 4, size, size]`` float in [0, 1] on the CPU: RGB and, as the fourth channel, coverage.

    style : "color" is the unlit texture or vertex colors; "clay" is one material under a soft light at the camera;
        "normal" is the normal in the camera's frame (x right, y up, z to the camera) * 0.5 + 0.5; "depth" goes from
        1 at the nearest point of each view to 0 at its farthest; "mask" is coverage in every channel
    background : RGB in [0, 1] behind the object; None leaves straight colors, 0 where nothing is covered
    antialias : samples a pixel along each axis
    Raises ValueError for an unknown style.
    """
    if style not in STYLES:
        raise ValueError(f"unknown style {style!r}; known styles: {', '.join(STYLES)}")
    cast = caster(mesh)
    views = []
    for index in range(len(cameras)):
        camera = cameras[index]
        hit = cast(camera, size * antialias)
        shade = _shade(style, hit, camera)  # (k, 3) of the samples that hit
        full = np.zeros((len(hit["mask"]), 4))
        full[hit["mask"]] = np.concatenate([shade, np.ones((len(shade), 1))], axis=1)
        image = full.reshape(size, antialias, size, antialias, 4).mean(axis=(1, 3))  # premultiplied
        alpha = image[..., 3:]
        if style != "mask":
            if background is None:
                image[..., :3] /= np.maximum(alpha, 1e-9)
            else:
                image[..., :3] += (1 - alpha) * np.asarray(background)
        views.append(image)
    return torch.from_numpy(np.stack(views)).permute(0, 3, 1, 2).clamp(0, 1).float().contiguous()


def render_geometry(mesh: Mesh, cameras: Cameras, size: int) -> dict[str, np.ndarray]:
    """What is seen through the pixel centres, one sample each, for metrics.

    mask [V, size, size] bool; depth [V, size, size] float32, distance along the ray in world units, 0 for a miss;
    normal [V, size, size, 3] float32, unit, world frame, interpolated from the vertices, 0 for a miss;
    color [V, size, size, 3] float32 in [0, 1], unlit, 0 for a miss.
    """
    cast = caster(mesh)
    shape = (len(cameras), size * size)
    found = {
        "mask": np.zeros(shape, bool),
        "depth": np.zeros(shape, np.float32),
        "normal": np.zeros((*shape, 3), np.float32),
        "color": np.zeros((*shape, 3), np.float32),
    }
    for index in range(len(cameras)):
        hit = cast(cameras[index], size)
        found["mask"][index] = hit["mask"]
        for name in ("depth", "normal", "color"):
            found[name][index, hit["mask"]] = hit[name]
    return {name: values.reshape(len(cameras), size, size, *values.shape[2:]) for name, values in found.items()}


def caster(mesh: Mesh) -> Callable[[Cameras, int], dict[str, np.ndarray]]:
    """``cast(camera, size)`` -> mask (size^2,) and, of the k rays that hit, depth (k,), normal, color, ray (k, 3)."""
    from embreex.mesh_construction import TriangleMesh
    from embreex.rtcore_scene import EmbreeScene

    corners = np.ascontiguousarray(mesh.vertices[mesh.faces], np.float32)  # (m, 3, 3)
    scene = EmbreeScene()
    held = TriangleMesh(scene, corners)  # the scene does not keep it alive

    def cast(camera: Cameras, size: int, held=held) -> dict[str, np.ndarray]:
        origins, directions = (r.reshape(-1, 3).cpu().numpy().astype(np.float32) for r in rays(camera, size, size))
        result = scene.run(np.ascontiguousarray(origins), np.ascontiguousarray(directions), output=True)
        face = result["primID"]
        mask = face >= 0
        face, ray = face[mask], directions[mask]
        u, v = result["u"][mask], result["v"][mask]
        weights = np.stack([1 - u - v, u, v], axis=1)  # (k, 3)
        rows = mesh.faces[face]  # (k, 3)
        normal = np.einsum("kc,kcd->kd", weights, mesh.normals[rows])
        normal /= np.maximum(np.linalg.norm(normal, axis=1, keepdims=True), 1e-12)
        return {
            "mask": mask,
            "depth": result["tfar"][mask],
            "normal": normal,
            "color": _color(mesh, rows, weights),
            "ray": ray,
        }

    return cast


def _shade(style: str, hit: dict[str, np.ndarray], camera: Cameras) -> np.ndarray:
    if style == "color":
        return hit["color"]
    if style == "clay":
        # Both sides are lit, so a mesh turned inside out still reads.
        facing = np.abs((hit["normal"] * hit["ray"]).sum(axis=1, keepdims=True))
        return CLAY * (AMBIENT + (1 - AMBIENT) * facing)
    if style == "normal":
        return hit["normal"] @ camera.cam_to_world[0, :3, :3].cpu().numpy() * 0.5 + 0.5
    if style == "mask":
        return np.ones((len(hit["depth"]), 3))
    depth = hit["depth"]
    near, far = (depth.min(), depth.max()) if len(depth) else (0.0, 1.0)
    return np.repeat(((far - depth) / max(far - near, 1e-9) if far > near else np.ones_like(depth))[:, None], 3, axis=1)


def _color(mesh: Mesh, rows: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Base color (k, 3) in [0, 1] at barycentric ``weights`` (k, 3) of triangles with vertices ``rows`` (k, 3)."""
    if mesh.texture is not None and mesh.uvs is not None:
        return sample_texture(mesh.texture, np.einsum("kc,kcd->kd", weights, mesh.uvs[rows]))
    if mesh.vertex_colors is not None:
        return np.einsum("kc,kcd->kd", weights, mesh.vertex_colors[rows] / 255)
    return np.full((len(rows), 3), 0.8)


def sample_texture(texture: np.ndarray, uvs: np.ndarray) -> np.ndarray:
    """Bilinear colors (k, 3) in [0, 1] of a (h, w, 3) uint8 texture at uvs (k, 2), v = 0 at the bottom row.

    Coordinates outside [0, 1] repeat the texture.
    """
    height, width = texture.shape[:2]
    uvs = np.where((uvs < 0) | (uvs > 1), uvs - np.floor(uvs), uvs)
    x = np.clip(uvs[:, 0] * width - 0.5, 0, width - 1)
    y = np.clip((1 - uvs[:, 1]) * height - 0.5, 0, height - 1)
    left, top = x.astype(np.int64), y.astype(np.int64)
    right, bottom = np.minimum(left + 1, width - 1), np.minimum(top + 1, height - 1)
    fx, fy = (x - left)[:, None], (y - top)[:, None]
    upper = texture[top, left] * (1 - fx) + texture[top, right] * fx
    lower = texture[bottom, left] * (1 - fx) + texture[bottom, right] * fx
    return (upper * (1 - fy) + lower * fy) / 255
