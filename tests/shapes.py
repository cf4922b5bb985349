"""Fields with a known surface, and the check that a mesh is a solid."""

import torch
import trimesh
from torch.nn import functional as F


class Sphere:
    """Constant density and color inside a sphere, nothing outside."""

    def __init__(self, density=3.0, radius=1.0, color=(0.8, 0.3, 0.1)):
        self.sigma = torch.as_tensor(density, dtype=torch.float32)
        self.radius, self.rgb = radius, torch.tensor(color)

    def density(self, points):
        return self.sigma * (points.norm(dim=-1) < self.radius)

    def normals(self, points):
        return F.normalize(points, dim=-1)

    def __call__(self, points):
        return self.density(points), self.rgb.expand(len(points), 3)


def ball(radius=0.6, sharpness=30.0, center=(0.0, 0.0, 0.0)):
    """The density is 10 at the radius and 20 deep inside."""
    return lambda p: 20 * torch.sigmoid(sharpness * (radius - (p - torch.tensor(center)).norm(dim=-1)))


def torus(p):
    return 20 * torch.sigmoid(40 * (0.2 - torch.hypot(torch.hypot(p[:, 0], p[:, 1]) - 0.6, p[:, 2])))


def misty_mast(p):
    """A soft ball below the middle, and above it a faint mast, the whole from -0.75 to 0.75."""
    away = p[:, :2].norm(dim=-1)
    mast = 5.0 * torch.exp(-((away / 0.06) ** 2)) * ((p[:, 2] > 0) & (p[:, 2] < 0.75))
    return ball(0.45, 8.0, (0, 0, -0.3))(p) + mast


def hollow_ball(hole):
    """A ball of radius 0.7, hollow below 0.4, with a hole of that radius from below; closed without one."""

    def density(p):
        through = (p[:, :2].norm(dim=-1) < hole) & (p[:, 2] < 0)
        return ball(0.7, 60.0)(p) * (p.norm(dim=-1) > 0.4) * ~through

    return density


def solid(vertices, faces):
    mesh = trimesh.Trimesh(vertices, faces)  # joins vertices at the same position
    assert mesh.is_watertight
    assert mesh.is_winding_consistent
    assert mesh.volume > 0
    return mesh
