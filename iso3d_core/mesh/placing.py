"""Where a mesh stands."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from ..types import Mesh


def fit_into_ball(mesh: Mesh) -> Mesh:
    """The mesh moved and scaled into the ball of radius 0.95, where the turntable's cameras look."""
    seen = mesh.vertices[np.unique(mesh.faces)].astype(np.float64)  # some files keep vertices that no face has
    center = (seen.min(axis=0) + seen.max(axis=0)) / 2
    radius = np.linalg.norm(seen - center, axis=1).max()
    return replace(mesh, vertices=((mesh.vertices - center) * (0.95 / max(radius, 1e-9))).astype(np.float32))
