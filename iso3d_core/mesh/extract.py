"""From a density field to a closed triangle surface: marching cubes on a regular grid."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from ..types import Diverged, OnProgress, Progress

CHUNK_POINTS = 2**18
# The logarithm of density / surface is clamped to as much below 0 as it reaches above, within these limits: were
# empty space farther from the surface than the inside, a sharp surface would be pulled inwards.
CLAMP = (0.5, 2.0)
# Not quite as much: with exact ties on a sharp field, marching cubes' saddle test leaves holes between cells.
TIE_BREAK = 1.06
# No grid value comes nearer to the isovalue than this, so no two vertices coincide at a grid point.
GAP = 1e-3
END = 0.5  # of what is densest in a faint plane: where the surface is
LEAST = 0.2  # of the threshold: what is thinner is no end of anything
SPECK = 0.02  # of the largest region: smaller ones do not count


class EmptySurface(Diverged):
    """The density is nowhere above the threshold.

    maximum : the largest density on the grid, which a lower threshold would have to stay below
    """

    def __init__(self, maximum: float, threshold: float) -> None:
        self.maximum = maximum
        self.threshold = threshold
        super().__init__(
            f"no surface: the density is at most {maximum:.4g}, below the threshold {threshold:.4g}; "
            "lower the threshold, or optimise the field for more steps"
        )


@torch.no_grad()
def extract_surface(
    density: Callable[[Tensor], Tensor],
    resolution: int,
    threshold: float,
    radius: float = 1.0,
    on_progress: OnProgress | None = None,
    device: torch.device | str = "cpu",
    gap: int | None = None,
    core: float | None = None,
    lowest: float | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """The surface ``density == threshold`` inside the cube ``[-radius, radius]^3``, closed at the cube's faces.

    density : ``[n, 3]`` float32 world positions on ``device`` -> ``[n]`` non-negative densities
    resolution : grid points along each axis, at least 4
    threshold : density of the surface, above 0
    gap : fill what is hidden in the inside, as `hidden_hollows` finds it; None leaves it hollow
    core : density of the surface, above ``threshold``, which is then for thin ends alone, as in `surface_density`
    lowest : how far the threshold may be lowered for a density that does not reach it; None not at all
    Returns vertices ``(n, 3)`` float32 in world units, and faces ``(m, 3)`` int32, counter-clockwise seen from
    outside; every edge belongs to exactly two faces.

    Marching cubes interpolates the logarithm of the density, which for exponential and sigmoid profiles places the
    vertices two to six times more exactly than the density itself.

    Raises EmptySurface if the density is nowhere above the threshold, or above ``lowest``; Diverged for a NaN;
    ValueError for arguments out of range.
    """
    from skimage.measure import marching_cubes

    if resolution < 4:
        raise ValueError(f"the grid needs a resolution of at least 4, got {resolution}")
    if not (threshold > 0 and radius > 0):
        raise ValueError(f"threshold and radius must be above 0, got {threshold} and {radius}")
    grid = _sample(density, resolution, radius, on_progress, torch.device(device))
    if np.isnan(grid).any():
        raise Diverged("the density field has NaN values: the optimisation diverged; lower the learning rate")
    for axis in range(3):
        border: list[slice | list[int]] = [slice(None)] * 3
        border[axis] = [0, -1]
        grid[tuple(border)] = 0.0
    maximum = float(grid.max())
    threshold = within_reach(threshold, maximum, lowest)
    if maximum <= threshold:
        raise EmptySurface(maximum, threshold)
    ratio = over_surface(grid, threshold, gap, core)
    clamp = float(np.clip(np.log(ratio.max()), *CLAMP))
    level = np.log(np.clip(ratio, np.exp(-clamp * TIE_BREAK), np.exp(clamp)))
    level = np.where(level > 0, np.maximum(level, GAP), np.minimum(level, -GAP)).astype(np.float32)
    vertices, faces, _, _ = marching_cubes(level, 0.0, gradient_direction="ascent")
    vertices = vertices * (2 * radius / (resolution - 1)) - radius
    return vertices.astype(np.float32), faces.astype(np.int32)


def within_reach(threshold: float, maximum: float, lowest: float | None) -> float:
    """The threshold, halved until the density's ``maximum`` is above it, but never below ``lowest``."""
    while lowest is not None and threshold >= maximum and threshold > lowest:
        threshold = max(threshold / 2, lowest)
    return threshold


def over_surface(grid: np.ndarray, threshold: float, gap: int | None = None, core: float | None = None) -> np.ndarray:
    """A grid of densities (X, Y, Z), in parts of what the surface's density is there: above 1 inside.

    threshold, gap, core : as `extract_surface` takes them
    """
    maximum = grid.max()
    surface = threshold if core is None or core >= maximum else surface_density(grid, threshold, core)
    ratio = grid / surface
    if gap is not None:
        ratio[hidden_hollows(ratio > 1, gap)] = ratio.max()
    return ratio


def surface_density(grid: np.ndarray, threshold: float, core: float) -> np.ndarray:
    """At what density the surface is, at each point of a grid of densities (X, Y, Z): at ``core``, less at thin ends.

    Who is sure of a handle but not of its place makes a mist of it, which is nowhere as dense as a body: at one
    threshold either ends are lost or bodies are too thick. So in planes across the axes that are faint as a whole the
    surface is at a part (END) of what is densest in them, out to the box of what is denser than ``threshold``. Objects
    are in the middle of the grid, so opposite sides are taken to be as far from it.
    """
    surface = np.full(grid.shape, core, np.float32)
    for axis, (first, last) in enumerate(_sides(grid > threshold)):
        densest = grid.max(axis=tuple(other for other in range(3) if other != axis))
        from_middle = np.abs(np.arange(len(densest)) - (len(densest) - 1) / 2)
        ends = (from_middle <= (last - first) / 2) & (densest > LEAST * threshold)
        lower = np.where(ends, np.clip(END * densest, LEAST * threshold, core), core).astype(np.float32)
        surface = np.minimum(surface, lower.reshape([-1 if a == axis else 1 for a in range(3)]))
    return surface


def _sides(solid: np.ndarray) -> list[tuple[int, int]]:
    """First and last plane along each axis of what is solid, specks left out."""
    from scipy.ndimage import find_objects, label

    regions, _ = label(solid)
    sizes = np.bincount(regions.ravel())
    sizes[0] = 0  # what is not solid
    large = sizes >= SPECK * sizes.max()
    return [(side.start, side.stop - 1) for side in find_objects(large[regions].astype(np.int8))[0]]


def hidden_hollows(solid: np.ndarray, gap: int) -> np.ndarray:
    """Empty cells of a grid, both bool (X, Y, Z), from which no way wider than about twice ``gap`` cells leads outside.

    Views say nothing of the inside, so a field may leave it empty, behind a skin with a few holes. What is narrow
    itself stays: dents, and holes that go through, are reached from outside.
    """
    from scipy.ndimage import binary_dilation, generate_binary_structure, label

    cross, margin = generate_binary_structure(3, 1), gap + 1
    solid = np.pad(solid, margin)
    wide = ~binary_dilation(solid, cross, gap) if gap else ~solid
    regions = label(wide)[0]
    hollow = binary_dilation(wide & (regions != regions[0, 0, 0]), cross, gap + 1, mask=~solid)
    regions = label(~(solid | hollow))[0]  # and what is cut off now: narrow places between
    hollow = ~solid & (regions != regions[0, 0, 0])
    return hollow[(slice(margin, -margin),) * 3]


def _sample(
    density: Callable[[Tensor], Tensor],
    resolution: int,
    radius: float,
    on_progress: OnProgress | None,
    device: torch.device,
) -> np.ndarray:
    """The density at the grid points, ``(resolution,) * 3`` float32, axes x, y, z."""
    axis = torch.linspace(-radius, radius, resolution, device=device)
    total = resolution**3
    chunks = math.ceil(total / CHUNK_POINTS)
    values = np.empty(total, np.float32)
    for index in range(chunks):
        start, end = index * CHUNK_POINTS, min((index + 1) * CHUNK_POINTS, total)
        flat = torch.arange(start, end, device=device)
        x, y, z = flat // resolution**2, flat // resolution % resolution, flat % resolution
        points = torch.stack([axis[x], axis[y], axis[z]], dim=-1)  # [n, 3]
        result = density(points)
        if result.shape != (end - start,):
            raise ValueError(f"density must return [{end - start}], got {list(result.shape)}")
        values[start:end] = result.float().cpu().numpy()
        if on_progress is not None:
            on_progress(Progress("mesh", index + 1, chunks))
    return values.reshape((resolution,) * 3)
