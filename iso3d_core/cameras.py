"""Cameras: orbits around the object, rays through pixels, and the change to glTF's frame.

World frame: right-handed, Z up, the object inside the ball of radius 1. The reference camera
stands at azimuth 0 on +X; azimuth grows counter-clockwise seen from above. ``cam_to_world`` is
OpenGL's: the camera looks down its -Z, its Y is up.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

# (x, y, z) -> (y, z, x): world to glTF (Y up, the reference view is the front, +Z).
WORLD_TO_GLTF = np.array([[0.0, 1.0, 0.0], [0.0, 0.0, 1.0], [1.0, 0.0, 0.0]])


@dataclass(frozen=True)
class Cameras:
    """V pinhole cameras.

    cam_to_world : [V, 4, 4] float, OpenGL axes
    fov_y_deg : [V] float, vertical field of view in degrees
    """

    cam_to_world: Tensor
    fov_y_deg: Tensor

    def __len__(self) -> int:
        return self.cam_to_world.shape[0]

    def __getitem__(self, index) -> Cameras:
        rows = torch.arange(len(self), device=self.cam_to_world.device)[index].reshape(-1)
        return Cameras(self.cam_to_world[rows], self.fov_y_deg[rows])

    def to(self, device: torch.device | str) -> Cameras:
        return Cameras(self.cam_to_world.to(device), self.fov_y_deg.to(device))

    @property
    def positions(self) -> Tensor:
        """[V, 3] camera centres."""
        return self.cam_to_world[:, :3, 3]

    @staticmethod
    def concatenate(groups: list[Cameras]) -> Cameras:
        return Cameras(torch.cat([c.cam_to_world for c in groups]), torch.cat([c.fov_y_deg for c in groups]))


def look_at_origin(positions: Tensor) -> Tensor:
    """``[V, 3]`` camera centres -> ``[V, 4, 4]`` OpenGL camera-to-world, looking at the origin, Z up.

    Raises ValueError for a camera on the vertical axis, where "up" is undefined.
    """
    backward = torch.nn.functional.normalize(positions, dim=-1)  # [V, 3] camera +Z
    up = torch.tensor([0.0, 0.0, 1.0], dtype=positions.dtype, device=positions.device).expand_as(backward)
    right = torch.linalg.cross(up, backward)
    if bool((right.norm(dim=-1) < 1e-6).any()):
        raise ValueError("a camera straight above or below the object has no 'up'; keep |elevation| below 90 degrees")
    right = torch.nn.functional.normalize(right, dim=-1)
    matrix = torch.eye(4, dtype=positions.dtype, device=positions.device).repeat(len(positions), 1, 1)
    matrix[:, :3, 0] = right
    matrix[:, :3, 1] = torch.linalg.cross(backward, right)
    matrix[:, :3, 2] = backward
    matrix[:, :3, 3] = positions
    return matrix


def orbit(azimuth_deg, elevation_deg, distance=3.4, fov_y_deg=35.0) -> Cameras:
    """Cameras on a sphere around the origin; arguments broadcast to ``[V]``.

    azimuth_deg, elevation_deg : degrees; distance : world units; fov_y_deg : degrees
    """
    values = [
        torch.as_tensor(v, dtype=torch.float32).reshape(-1) for v in (azimuth_deg, elevation_deg, distance, fov_y_deg)
    ]
    azimuth, elevation, distance, fov = torch.broadcast_tensors(*values)
    azimuth, elevation = torch.deg2rad(azimuth), torch.deg2rad(elevation)
    positions = (
        torch.stack([elevation.cos() * azimuth.cos(), elevation.cos() * azimuth.sin(), elevation.sin()], dim=-1)
        * distance[:, None]
    )
    return Cameras(look_at_origin(positions), fov.clone())


def even_azimuths(views: int, start_deg: float = 0.0) -> Tensor:
    """``[views]`` azimuths spread evenly over the circle, in degrees, from ``start_deg``."""
    if views < 1:
        raise ValueError(f"views must be at least 1, got {views}")
    return start_deg + torch.arange(views) * (360.0 / views)


def rays(cameras: Cameras, height: int, width: int) -> tuple[Tensor, Tensor]:
    """Rays through pixel centres: origins and unit directions, both ``[V, H, W, 3]``."""
    device = cameras.cam_to_world.device
    y, x = torch.meshgrid(
        torch.arange(height, device=device) + 0.5, torch.arange(width, device=device) + 0.5, indexing="ij"
    )
    focal = 0.5 * height / torch.tan(torch.deg2rad(cameras.fov_y_deg) / 2)  # [V] pixels
    focal = focal[:, None, None]
    local = torch.stack(
        [(x - width / 2) / focal, -(y - height / 2) / focal, -torch.ones_like(x / focal)], dim=-1
    )  # [V, H, W, 3]
    directions = torch.einsum("vij,vhwj->vhwi", cameras.cam_to_world[:, :3, :3], local)
    directions = torch.nn.functional.normalize(directions, dim=-1)
    origins = cameras.positions[:, None, None, :].expand_as(directions)
    return origins, directions


def project(points: Tensor, camera: Cameras) -> Tensor:
    """World points [N, 3] -> image coordinates [N, 2] of one square camera: x right, y down, the image is [-1, 1]^2."""
    matrix = camera.cam_to_world[0]
    local = (points - matrix[:3, 3]) @ matrix[:3, :3]  # [N, 3] camera axes
    half = torch.tan(torch.deg2rad(camera.fov_y_deg[0]) / 2)
    return torch.stack([local[:, 0], -local[:, 1]], dim=-1) / (-local[:, 2:] * half)


def spherical_harmonics(directions: Tensor) -> Tensor:
    """Real spherical harmonics up to degree 2 of unit vectors [..., 3], each of unit mean square: [..., 9]."""
    x, y, z = directions.unbind(-1)
    values = [
        torch.ones_like(x), 3**0.5 * x, 3**0.5 * y, 3**0.5 * z, 15**0.5 * x * y, 15**0.5 * y * z,
        5**0.5 / 2 * (3 * z * z - 1), 15**0.5 * x * z, 15**0.5 / 2 * (x * x - y * y),
    ]  # fmt: skip
    return torch.stack(values, dim=-1)


def mvdream_camera(cameras: Cameras, converted_twice: bool) -> Cameras:
    """Cameras in MVDream's world, whose azimuth 0 stands on -Y (ours: +X).

    converted_twice : take azimuth (0..360) and elevation times pi / 180, as the weights of `isotropic3d.ckpt` know
        them: the published code converts degrees to radians twice, so what it calls 90 degrees is 1.57
    """
    x, y, z = torch.nn.functional.normalize(cameras.positions, dim=-1).unbind(-1)
    azimuth = torch.rad2deg(torch.atan2(y, x)) % 360
    elevation = torch.rad2deg(torch.asin(z.clamp(-1, 1)))
    factor = math.pi / 180 if converted_twice else 1.0
    return orbit(azimuth * factor - 90, elevation * factor, cameras.positions.norm(dim=-1), cameras.fov_y_deg)


def unit_sphere_matrix(cameras: Cameras) -> Tensor:
    """``[V, 16]`` camera condition: camera-to-world with its centre moved to the unit sphere, row-major.

    The convention of MVDream and Isotropic3D: direction only, no distance, no field of view.
    """
    matrix = cameras.cam_to_world.clone()
    matrix[:, :3, 3] = torch.nn.functional.normalize(matrix[:, :3, 3], dim=-1)
    return matrix.reshape(len(cameras), 16)
