"""The values that pass between the parts: Reference, Rendering, Mesh, Progress, and the errors for people."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from torch import Tensor


class InputError(ValueError):
    """Something the user gave cannot be used; the message says what is wrong and what to do."""


class Diverged(InputError, FloatingPointError):
    """An optimisation left finite numbers, or ended without a surface; the message says what to change."""


class Cancelled(Exception):
    """The work was stopped on request; nothing was written."""


@dataclass(frozen=True)
class Reference:
    """The reference image, upright, matted, square and centred.

    rgba : [4, H, W] float in [0, 1], straight alpha
    name : what to call results made from it
    """

    rgba: Tensor
    name: str = "image"

    def on_white(self) -> Tensor:
        """[3, H, W] composited on white."""
        return self.rgba[:3] * self.rgba[3:] + (1 - self.rgba[3:])


@dataclass(frozen=True)
class Rendering:
    """A rendered field.

    rgb : [V, 3, H, W] in [0, 1], composited on the background
    opacity : [V, 1, H, W] in [0, 1]
    depth : [V, 1, H, W] expected distance along the ray, world units
    weights, positions, rays : of the samples that were evaluated ([S], [S, 3], [S] ray index), for regularisers
    normals : [S, 3] of the samples in ``normal_rows``, where asked for
    """

    rgb: Tensor
    opacity: Tensor
    depth: Tensor
    weights: Tensor
    positions: Tensor
    rays: Tensor
    normals: Tensor | None = None
    normal_rows: Tensor | None = None


@dataclass(frozen=True)
class Mesh:
    """A textured triangle mesh in the world frame (Z up, the reference camera on +X).

    vertices : (n, 3) float32
    faces : (m, 3) int32, counter-clockwise seen from outside
    normals : (n, 3) float32 unit vertex normals
    uvs : (n, 2) float32 in [0, 1], v = 0 at the bottom row of the texture, or None
    texture : (h, w, 3) uint8 base color, row 0 at the top, or None
    vertex_colors : (n, 3) uint8, or None
    metadata : how it was made (config, seed, bundle); written into the files that can hold it
    """

    vertices: np.ndarray
    faces: np.ndarray
    normals: np.ndarray
    uvs: np.ndarray | None = None
    texture: np.ndarray | None = None
    vertex_colors: np.ndarray | None = None
    metadata: dict[str, Any] = field(default_factory=dict)

    def save(self, path: str | Path) -> Path:
        """Write GLB, OBJ (+ MTL + PNG), PLY or STL by the suffix of ``path``, in glTF's frame (Y up, front +Z).

        A JSON with the metadata goes beside it. Raises InputError for another suffix or an unwritable folder.
        """
        from .mesh.export import save_mesh

        return save_mesh(self, path)


@dataclass(frozen=True)
class Progress:
    """One report of long work.

    stage : "views", "warm start", "optimise", "mesh", …
    step, total : of this stage
    preview : makes a [V, 3, H, W] image in [0, 1] of the state, or None; call it only when it is shown
    """

    stage: str
    step: int
    total: int
    preview: Callable[[], Tensor] | None = None
    values: dict[str, float] = field(default_factory=dict)


STAGES = {"views": (0.0, 0.25), "warm start": (0.25, 0.55), "optimise": (0.55, 0.92), "mesh": (0.92, 1.0)}
"""From where to where each stage of a generation moves one bar over all of it, roughly by its time."""


def stage_shares(method: str) -> dict[str, tuple[float, float]]:
    """`STAGES` of a method: the guided ones have an optimisation of their own, HiFi-123 refines the mesh afterwards."""
    if method == "isotropic3d":
        return STAGES
    if method == "hifi123":
        coarse = {"views": (0.0, 0.08), "warm start": (0.08, 0.2), "guided": (0.2, 0.6), "mesh": (0.6, 0.63)}
        return {**coarse, "start": (0.63, 0.67), "refine": (0.67, 1.0)}
    return {
        "views": (0.0, 0.15),
        "warm start": (0.15, 0.4),
        "guided": (0.4, 0.75),
        "mesh color": (0.75, 0.77),
        "mesh stage": (0.77, 0.96),
        "mesh": (0.96, 1.0),
    }


OnProgress = Callable[[Progress], None]
"""Called at least once a step. It cancels the work by raising `Cancelled`."""
