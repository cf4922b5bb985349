"""Density fields with a known surface, and the check that a mesh is a solid."""

import torch
import trimesh


def ball(radius=0.6, sharpness=30.0, center=(0.0, 0.0, 0.0)):
    """The density is 10 at the radius and 20 deep inside."""
    return lambda p: 20 * torch.sigmoid(sharpness * (radius - (p - torch.tensor(center)).norm(dim=-1)))


def torus(p):
    return 20 * torch.sigmoid(40 * (0.2 - torch.hypot(torch.hypot(p[:, 0], p[:, 1]) - 0.6, p[:, 2])))


def solid(vertices, faces):
    mesh = trimesh.Trimesh(vertices, faces)  # joins vertices at the same position
    assert mesh.is_watertight
    assert mesh.is_winding_consistent
    assert mesh.volume > 0
    return mesh
