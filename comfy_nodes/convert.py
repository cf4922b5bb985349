"""Between ComfyUI's values and the core's: images, masks, meshes, cameras. Needs no host.

ComfyUI: IMAGE [B, H, W, 3] in [0, 1], MASK [B, H, W], Y up. The core: [V, 3, H, W], straight alpha, Z up.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..iso3d_core.mesh.glb import TO_FILE, TO_WORLD
from ..iso3d_core.types import InputError, Mesh, Reference

BACKGROUND, SUBJECT = "background (Load Image)", "subject"


def check_image(image: Any, name: str = "image") -> Tensor:
    """An IMAGE that can be used, [B, H, W, 3 or 4]; raises InputError naming the input."""
    if not isinstance(image, Tensor) or image.ndim != 4 or image.shape[-1] not in (3, 4):
        raise InputError(f"{name}: expected an IMAGE [B, H, W, 3], got {tuple(getattr(image, 'shape', ()))}")
    if image.numel() == 0:
        raise InputError(f"{name}: the image is empty; connect Load Image or another node that makes one")
    if not bool(torch.isfinite(image).all()):
        raise InputError(f"{name}: the image has NaN or infinite pixels; look at the node that made it")
    return image


def references(
    image: Tensor, mask: Tensor | None, mask_shows: str = BACKGROUND, name: str = "image", size: int = 256
) -> list[Reference]:
    """Each image of the batch, matted and centred as `load_reference` does, ``size`` pixels a side.

    mask : [B or 1, H, W], 1 on the background as Load Image gives it, or on the subject; one that hides nothing
        (Load Image for an image without alpha) counts as none. Without one an image's fourth channel is its alpha, and
        without that the subject is found automatically
    """
    from ..iso3d_core.images import load_reference

    image = check_image(image, name).float().clamp(0, 1).cpu()
    alpha = image[..., 3] if image.shape[-1] == 4 else None
    image = image[..., :3]
    if mask is not None:
        mask = mask.float().cpu()
        mask = mask[None] if mask.ndim == 2 else mask
        if not bool(torch.isfinite(mask).all()):
            raise InputError("mask: it has NaN values; look at the node that made it")
        shown = 1 - mask if mask_shows == BACKGROUND else mask
        alpha = shown if float(shown.min()) <= 0.99 else alpha
        if alpha is not None and alpha.shape[1:] != image.shape[1:3]:
            alpha = torch.nn.functional.interpolate(alpha[:, None], image.shape[1:3], mode="bilinear")[:, 0]
    found = []
    for i, rgb in enumerate(image):
        pixels = (
            rgb if alpha is None else torch.cat([rgb, alpha[min(i, len(alpha) - 1)].clamp(0, 1)[..., None]], dim=-1)
        )
        array = (pixels.numpy() * 255).round().astype(np.uint8)
        reference = load_reference(array, size)
        found.append(Reference(reference.rgba, name))
    return found


def one_reference(
    image: Tensor, mask: Tensor | None, mask_shows: str = BACKGROUND, name: str = "image", size: int = 256
) -> Reference:
    """The reference of a batch of one; raises InputError for more, of which only the first would be seen."""
    if len(check_image(image, name)) > 1:
        raise InputError(f"{name}: one image at a time, this batch has {len(image)}; pick one by Image From Batch")
    return references(image, mask, mask_shows, name, size)[0]


def from_image(image: Tensor) -> Tensor:
    """IMAGE [V, H, W, 3 or 4] -> [V, 3, H, W] on the CPU, in [0, 1]; what is transparent becomes white."""
    if image.shape[-1] == 4:
        image = image[..., :3] * image[..., 3:] + 1 - image[..., 3:]
    return image.float().clamp(0, 1).permute(0, 3, 1, 2).cpu().contiguous()


def resize_masks(mask: Tensor, views: Tensor) -> Tensor:
    """MASK [V, h, w], 1 on the object -> [V, 1, H, W] as the views [V, 3, H, W] are; raises InputError where their
    numbers differ."""
    mask = mask.float().cpu().reshape(-1, 1, *mask.shape[-2:])
    if len(mask) not in (1, len(views)):
        raise InputError(f"masks: {len(mask)} of them do not fit {len(views)} views; connect one a view")
    mask = torch.nn.functional.interpolate(mask, views.shape[-2:], mode="bilinear", antialias=True)
    return mask.clamp(0, 1).expand(len(views), -1, -1, -1)


def to_image(views: Tensor) -> Tensor:
    """[V, 3, H, W] -> IMAGE [V, H, W, 3] on the CPU, in [0, 1]."""
    return views.detach().float().clamp(0, 1).permute(0, 2, 3, 1).cpu().contiguous()


def to_mask(masks: Tensor) -> Tensor:
    """[V, 1, H, W] -> MASK [V, H, W], 1 on the object."""
    return masks.detach().float().clamp(0, 1)[:, 0].cpu().contiguous()


def camera_info(matrix: Tensor, fov_y_deg: float) -> dict[str, Any]:
    """A camera [4, 4] of the core as LOAD3D_CAMERA: Y up, looking at the origin."""
    x, y, z = matrix[:3, 3].tolist()
    return {
        "position": {"x": y, "y": z, "z": x}, "target": {"x": 0.0, "y": 0.0, "z": 0.0}, "zoom": 1,
        "cameraType": "perspective", "fov": float(fov_y_deg),
    }  # fmt: skip


def from_camera_info(info: dict[str, Any]) -> tuple[float, float, float, float]:
    """LOAD3D_CAMERA -> azimuth and elevation in degrees, distance, vertical field of view in degrees."""
    try:
        offset = np.array([float(info["position"][k]) - float(info.get("target", {}).get(k, 0.0)) for k in "xyz"])
    except (KeyError, TypeError, ValueError):
        raise InputError("camera_info: it has no position with x, y and z") from None
    world = offset[TO_WORLD]
    distance = float(np.linalg.norm(world))
    if not np.isfinite(distance) or distance < 1e-3:
        raise InputError("camera_info: the camera stands in its own target; move it away")
    elevation = float(np.degrees(np.arcsin(np.clip(world[2] / distance, -1, 1))))
    return float(np.degrees(np.arctan2(world[1], world[0]))), elevation, distance, float(info.get("fov", 35.0))


def mesh_values(mesh: Mesh) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
    """vertices [1, N, 3] and faces [1, M, 3] in glTF's frame, and uvs, texture, normals, vertex_colors if any."""
    more: dict[str, Tensor] = {"normals": torch.from_numpy(mesh.normals[:, TO_FILE].copy())[None]}
    if mesh.uvs is not None:
        more["uvs"] = torch.from_numpy(np.stack([mesh.uvs[:, 0], 1 - mesh.uvs[:, 1]], axis=1).astype(np.float32))[None]
    if mesh.texture is not None:
        more["texture"] = torch.from_numpy(mesh.texture.astype(np.float32) / 255)[None]
    if mesh.vertex_colors is not None:
        more["vertex_colors"] = torch.from_numpy(mesh.vertex_colors.astype(np.float32) / 255)[None]
    vertices = torch.from_numpy(mesh.vertices[:, TO_FILE].copy())[None]
    return vertices, torch.from_numpy(mesh.faces.astype(np.int64))[None], more


def one_mesh(mesh: Any) -> Mesh:
    """The MESH of a batch of one; raises InputError for more, of which only the first would be used."""
    if mesh_count(mesh) > 1:
        raise InputError(f"mesh: one at a time, this batch has {mesh_count(mesh)}; make them one by one")
    return from_host_mesh(mesh)


def mesh_count(mesh: Any) -> int:
    """How many meshes a MESH holds."""
    vertices = getattr(mesh, "vertices", None)
    return 0 if vertices is None else len(vertices)


def from_host_mesh(mesh: Any, index: int = 0) -> Mesh:
    """Number ``index`` of a MESH of any node as the core's; raises InputError for one without triangles."""
    from ..iso3d_core.mesh.clean import vertex_normals

    def pick(name: str) -> np.ndarray | None:
        values = getattr(mesh, name, None)
        return None if values is None else values[index].detach().float().cpu().numpy()

    counts = getattr(mesh, "vertex_counts", None), getattr(mesh, "face_counts", None)
    vertices, faces = pick("vertices"), pick("faces")
    if vertices is None or faces is None or len(faces) == 0:
        raise InputError("mesh: it has no triangles; connect a node that makes a mesh")
    rows = slice(None) if counts[0] is None else slice(int(counts[0][index]))
    vertices = vertices[rows].astype(np.float32)[:, TO_WORLD]
    faces = faces[slice(None) if counts[1] is None else slice(int(counts[1][index]))].astype(np.int32)
    if not np.isfinite(vertices).all():
        raise InputError("mesh: it has NaN or infinite vertices")
    if faces.min() < 0 or faces.max() >= len(vertices):
        raise InputError("mesh: its faces name vertices that are not there")
    normals, uvs, colors, texture = pick("normals"), pick("uvs"), pick("vertex_colors"), pick("texture")
    return Mesh(
        vertices=vertices,
        faces=faces,
        normals=vertex_normals(vertices, faces) if normals is None else normals[rows].astype(np.float32)[:, TO_WORLD],
        uvs=None if uvs is None else np.stack([uvs[rows, 0], 1 - uvs[rows, 1]], axis=1).astype(np.float32),
        texture=None if texture is None else (texture[..., :3] * 255).round().clip(0, 255).astype(np.uint8),
        vertex_colors=None if colors is None else (colors[rows, :3] * 255).round().clip(0, 255).astype(np.uint8),
        metadata=dict(getattr(mesh, "iso3d_metadata", {})),
    )
