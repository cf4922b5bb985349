"""Measures of images and of shapes: PSNR, SSIM, silhouette overlap, Chamfer distance, volume overlap."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

Contains = Callable[[np.ndarray], np.ndarray]
"""(n, 3) positions -> (n,) bool: inside the solid."""

CHUNK_POINTS = 2**16


def psnr(image: Tensor, target: Tensor) -> float:
    """Peak signal-to-noise ratio in dB of ``[B, C, H, W]`` images in [0, 1]; inf for equal ones."""
    from torchmetrics.functional.image import peak_signal_noise_ratio

    if torch.equal(image, target):
        return float("inf")
    return float(peak_signal_noise_ratio(image, target, data_range=1.0))


def ssim(image: Tensor, target: Tensor) -> float:
    """Structural similarity, at most 1, of ``[B, C, H, W]`` images in [0, 1] of at least 11 pixels a side."""
    from torchmetrics.functional.image import structural_similarity_index_measure

    value = structural_similarity_index_measure(image, target, data_range=1.0)
    return float(value[0] if isinstance(value, tuple) else value)


def contextual_distance(image: Tensor, target: Tensor, patch: int = 5, bandwidth: float = 0.5) -> float:
    """How little the patches of one image resemble those of another, wherever they are: at least 0, not symmetric.

    The contextual loss (Mechrez et al. 2018, Eq. 2-4: minus the logarithm of the similarity), with patches of colors as
    features in place of VGG's, whose weights would have to be downloaded. Patches of nothing but white do not count.

    image, target : [3, H, W] on white, in [0, 1]; patch : pixels a side; bandwidth : h of Eq. 3
    Raises ValueError where an image is white all over.
    """
    found, wanted = (_patches(x, patch) for x in (image, target))
    if len(found) == 0 or len(wanted) == 0:
        raise ValueError("contextual distance needs something other than white in both images")
    center = wanted.mean(dim=0)
    found, wanted = (torch.nn.functional.normalize(x - center, dim=1) for x in (found, wanted))
    distance = (1 - found @ wanted.T).clamp(min=0)
    relative = distance / (distance.min(dim=1, keepdim=True).values + 1e-5)
    similar = torch.softmax((1 - relative) / bandwidth, dim=1)
    return float(-similar.max(dim=0).values.mean().log())


def _patches(image: Tensor, side: int) -> Tensor:
    """[3, H, W] -> those of its patches that are not white, [N, 3 * side^2]."""
    rows = torch.nn.functional.unfold(image[None], side, stride=2)[0].T
    return rows[(1 - rows).amax(dim=1) > 0.02]


def silhouette_iou(mask_a: np.ndarray | Tensor, mask_b: np.ndarray | Tensor) -> float:
    """Intersection over union of two masks of one shape; a float counts as covered above 0.5. Two empty ones: 1."""
    a, b = (np.asarray(m.detach().cpu() if isinstance(m, Tensor) else m) > 0.5 for m in (mask_a, mask_b))
    if a.shape != b.shape:
        raise ValueError(f"masks must have one shape, got {a.shape} and {b.shape}")
    union = np.count_nonzero(a | b)
    return np.count_nonzero(a & b) / union if union else 1.0


def chamfer(points_a: np.ndarray, points_b: np.ndarray) -> float:
    """Chamfer distance of (n, 3) and (m, 3) points: the mean of both directed mean nearest distances, in their unit.

    Raises ValueError if one of them has no points.
    """
    from scipy.spatial import cKDTree

    if len(points_a) == 0 or len(points_b) == 0:
        raise ValueError(f"Chamfer distance needs points on both sides, got {len(points_a)} and {len(points_b)}")
    to_b = cKDTree(points_b).query(points_a)[0].mean()
    to_a = cKDTree(points_a).query(points_b)[0].mean()
    return float((to_a + to_b) / 2)


def normalise(vertices: np.ndarray) -> tuple[np.ndarray, float]:
    """Centre (3,) and diagonal of the bounding box; ``(vertices - center) / scale`` has a box of diagonal 1.

    Raises ValueError for vertices that are none or all in one place.
    """
    if len(vertices) == 0 or not np.ptp(vertices, axis=0).any():
        raise ValueError(f"{len(vertices)} vertices span no box, so there is no scale")
    low, high = np.min(vertices, axis=0).astype(np.float64), np.max(vertices, axis=0).astype(np.float64)
    return (low + high) / 2, float(np.linalg.norm(high - low))


def box_points(side: int, bound: float | tuple[np.ndarray, np.ndarray] = 1.0, seed: int = 0) -> np.ndarray:
    """[side^3, 3] points of a box, one at random in each cell of a regular grid, always the same for a seed.

    bound : half the side of a cube around the origin, or the box's (low, high) corners
    """
    low, high = bound if isinstance(bound, tuple) else (np.full(3, -bound), np.full(3, bound))
    cells = np.stack(np.meshgrid(*[np.arange(side)] * 3, indexing="ij"), axis=-1).reshape(-1, 3)
    jitter = np.random.default_rng(seed).random(cells.shape)
    return np.asarray(low) + (cells + jitter) / side * (np.asarray(high) - np.asarray(low))


def overlap(inside_a: np.ndarray, inside_b: np.ndarray) -> float:
    """Intersection over union of two boolean arrays of one shape; ValueError where both are empty."""
    union = np.count_nonzero(inside_a | inside_b)
    if union == 0:
        raise ValueError("neither solid has a point in the box; give a bound that covers them")
    return np.count_nonzero(inside_a & inside_b) / union


def occupancy_iou(
    contains_a: Contains,
    contains_b: Contains,
    count: int = 200_000,
    seed: int = 0,
    bound: float | tuple[np.ndarray, np.ndarray] = 1.0,
) -> float:
    """Volume intersection over union of two solids, by stratified sampling of a box that covers both.

    count : about how many samples; bound : as in `box_points`
    Raises ValueError if neither solid has a sample, which means that the box misses them.
    """
    points = box_points(max(1, round(count ** (1 / 3))), bound, seed)
    return overlap(*(np.asarray(inside(points), bool) for inside in (contains_a, contains_b)))


def mesh_contains(vertices: np.ndarray, faces: np.ndarray) -> Contains:
    """An exact inside test for a watertight mesh, (n, 3) and (m, 3): the winding number along a vertical ray.

    Overlapping parts count as their union, cavities as outside; which way the whole mesh is turned does not matter.
    Triangles are binned over the XY plane, so a point is tested against those of its own column only.
    """
    corners = np.asarray(vertices, np.float64)[faces]  # (m, 3, 3)
    a, b, c = np.moveaxis(corners, 1, 0)
    area = _cross(b - a, c - a)  # (m,) twice the signed area seen from above
    corners, area = corners[area != 0], area[area != 0]
    if len(corners) == 0:
        return lambda points: np.zeros(len(points), bool)
    a, b, c = np.moveaxis(corners, 1, 0)
    low, high = corners.min(axis=(0, 1)), corners.max(axis=(0, 1))
    side = int(np.clip(np.sqrt(len(corners)), 8, 256))
    cell = (high - low)[:2] / side
    # Off the mesh's own coordinates by an odd hair, so that no ray runs exactly along an edge.
    shift = np.array([0.7548776662, 0.5698402910]) * 1e-9 * np.linalg.norm(high - low)
    top = corners[:, :, 2].max(axis=1)

    def bin_of(xy: np.ndarray) -> np.ndarray:
        return np.clip((xy - low[:2]) // cell, 0, side - 1).astype(np.int64)

    first, last = bin_of(corners[:, :, :2].min(axis=1)), bin_of(corners[:, :, :2].max(axis=1))
    span = last - first + 1
    triangle, within = _expand(span.prod(axis=1))
    column = (first[triangle, 0] + within // span[triangle, 1]) * side + first[triangle, 1] + within % span[triangle, 1]
    triangle = triangle[np.argsort(column, kind="stable")]
    starts = np.searchsorted(np.sort(column), np.arange(side * side + 1))

    def winding(points: np.ndarray) -> np.ndarray:
        place = bin_of(points[:, :2])
        home = place[:, 0] * side + place[:, 1]
        point, offset = _expand(starts[home + 1] - starts[home])
        facing = triangle[starts[home[point]] + offset]
        above = points[point, 2] < top[facing]
        point, facing = point[above], facing[above]
        at = points[point]
        pa, pb, pc = a[facing] - at, b[facing] - at, c[facing] - at
        weights = np.stack([_cross(pb, pc), _cross(pc, pa), _cross(pa, pb)], axis=1)
        sign = np.sign(area[facing])
        crosses = (weights * sign[:, None] > 0).all(axis=1)
        height = (weights * np.stack([pa[:, 2], pb[:, 2], pc[:, 2]], axis=1)).sum(axis=1) / area[facing]
        crosses &= height > 0
        return np.bincount(point[crosses], weights=sign[crosses], minlength=len(points))

    def contains(points: np.ndarray) -> np.ndarray:
        moved = np.array(points, np.float64)
        moved[:, :2] += shift
        inside = np.zeros(len(moved), bool)
        candidates = np.flatnonzero(((moved >= low) & (moved <= high)).all(axis=1))
        for start in range(0, len(candidates), CHUNK_POINTS):
            rows = candidates[start : start + CHUNK_POINTS]
            inside[rows] = winding(moved[rows]) != 0
        return inside

    return contains


def _cross(p: np.ndarray, q: np.ndarray) -> np.ndarray:
    return p[:, 0] * q[:, 1] - p[:, 1] * q[:, 0]


def _expand(counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """``[2, 0, 3]`` -> owners ``[0, 0, 2, 2, 2]`` and positions within each ``[0, 1, 0, 1, 2]``."""
    owner = np.repeat(np.arange(len(counts)), counts)
    return owner, np.arange(len(owner)) - np.repeat(np.cumsum(counts) - counts, counts)
