"""Evaluation on held-out world objects: how near the generated mesh is to the exact solid it was made from.

Nothing is aligned but the bounding boxes' centre and diagonal; "turned" takes the best of 36 turns about Z.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields

import numpy as np
import torch
from torch.nn import functional as F

from ..cameras import even_azimuths, orbit
from ..images import center_crop
from ..metrics import box_points, chamfer, mesh_contains, normalise, overlap, psnr, silhouette_iou
from ..priors.multiview import MultiViewPrior
from ..render.raster import render_geometry, render_mesh
from ..types import Mesh, Reference
from .data import MARGIN, on_white
from .world import Light, WorldObject, held_out, reference_camera

TURNS, SILHOUETTES, GRID = 36, 8, 48


@dataclass(frozen=True)
class Score:
    """iou, iou_turned : volume, 0..1; chamfer, chamfer_turned : in units of the bounding box's diagonal
    silhouette : mean IoU over 8 views; color : mean absolute base-color error where both are seen, 0..1
    views_psnr : dB of four sampled views; clip : cosine of reference and mesh seen from the reference camera
    watertight : 1 or 0; seconds : of generation; memory_gb : peak of the process so far
    """

    iou: float
    iou_turned: float
    chamfer: float
    chamfer_turned: float
    silhouette: float
    color: float
    views_psnr: float
    clip: float
    watertight: float
    seconds: float
    memory_gb: float


def evaluate(
    make_mesh: Callable[[Reference], Mesh], prior: MultiViewPrior, count: int = 36, first: int = 0
) -> Iterator[tuple[WorldObject, Score]]:
    """Yield each held-out object, from number ``first`` on, with its score."""
    for obj in held_out(count)[first:]:
        yield obj, score(obj, make_mesh, prior)


def reference_of(obj: WorldObject, size: int = 256) -> Reference:
    """The object's reference image, under a light of its own, as a user's image with alpha would arrive."""
    rgba = obj.render_rgba(reference_camera(obj.seed)[1], size, reference_light(obj))[0]
    return Reference(torch.from_numpy(center_crop(rgba, size, MARGIN)).permute(2, 0, 1), obj.kind)


def reference_light(obj: WorldObject) -> Light:
    """That of `reference_of`; its offset is from the camera, so other views have the like of it."""
    rng = np.random.default_rng([obj.seed, 6])
    return Light(rng.uniform(0.5, 0.9), tuple(rng.normal(0, 1, 3) + (0, 0, 1.0)))


def score(obj: WorldObject, make_mesh: Callable[[Reference], Mesh], prior: MultiViewPrior) -> Score:
    reference = reference_of(obj)
    started = time.monotonic()
    mesh = make_mesh(reference)
    seconds = time.monotonic() - started
    surface = surface_points(obj, 10_000)
    iou, iou_turned, near, near_turned = compare_volume(obj, mesh, surface)
    silhouette, color = compare_views(obj, mesh)
    embedding = prior.embed(reference)
    cameras = orbit(even_azimuths(4), 15.0)
    views = prior.sample(embedding, cameras).cpu()
    truth = torch.from_numpy(on_white(obj.render_rgba(cameras, views.shape[-1]))).permute(0, 3, 1, 2)
    seen = render_mesh(mesh, reference_camera(obj.seed)[1], 256, background=None)[0]
    cropped = torch.from_numpy(center_crop(seen.permute(1, 2, 0).numpy(), 256, MARGIN)).permute(2, 0, 1)
    clip = F.cosine_similarity(prior.embed(Reference(cropped)).flatten(), embedding.flatten(), dim=0)
    return Score(
        iou, iou_turned, near, near_turned, silhouette, color, psnr(views, truth), float(clip),
        float(is_watertight(mesh)), seconds, peak_memory() / 1e9,
    )  # fmt: skip


def peak_memory() -> float:
    """Bytes that this process held at its peak; not a number on systems that do not tell."""
    try:
        import resource
    except ImportError:  # Windows
        return float("nan")
    # Kilobytes on Linux, bytes on macOS.
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1.0 if sys.platform == "darwin" else 1024.0)


def is_watertight(mesh: Mesh) -> bool:
    """Closed once the vertices that texture seams doubled are one again."""
    import trimesh

    return bool(trimesh.Trimesh(mesh.vertices, mesh.faces, process=True, merge_norm=True, merge_tex=True).is_watertight)


def surface_points(obj: WorldObject, count: int) -> np.ndarray:
    """About ``count`` points on the outer surface: those on a part that lie inside another part are dropped."""
    import trimesh

    points, face = trimesh.sample.sample_surface(obj.mesh, count * 2, seed=0)
    outward = obj.mesh.face_normals[face]
    # Winding is not to be trusted here, so a point is outer when either side of it is free.
    free = ~obj.contains(points + 0.01 * outward) | ~obj.contains(points - 0.01 * outward)
    return points[free][:count]


def compare_volume(obj: WorldObject, mesh: Mesh, surface: np.ndarray) -> tuple[float, float, float, float]:
    """Volume IoU as it stands and at the best turn, Chamfer distance likewise."""
    center, scale = normalise(obj.mesh.vertices)
    mesh_center, mesh_scale = normalise(mesh.vertices)
    inside = mesh_contains(mesh.vertices, mesh.faces)
    points = _sample_surface(mesh, 10_000)
    points, surface = (points - mesh_center) / mesh_scale, (surface - center) / scale
    grid = box_points(GRID, 0.6)
    solid = obj.contains(grid * scale + center)
    some = np.random.default_rng(0).permutation(len(grid))[: len(grid) // 4]  # enough to rank the turns

    def turn(number: int) -> np.ndarray:
        a = 2 * np.pi * number / TURNS
        return np.array([[np.cos(a), -np.sin(a), 0], [np.sin(a), np.cos(a), 0], [0, 0, 1]])

    def iou(number: int, rows: np.ndarray | slice) -> float:
        return overlap(inside(grid[rows] @ turn(number) * mesh_scale + mesh_center), solid[rows])

    best = int(np.argmax([iou(number, some) for number in range(TURNS)]))
    ious = [iou(number, slice(None)) for number in (0, best)]
    distances = [chamfer(points @ turn(number).T, surface) for number in (0, best)]
    better = int(ious[1] > ious[0])
    return ious[0], ious[better], distances[0], distances[better]


def _sample_surface(mesh: Mesh, count: int) -> np.ndarray:
    import trimesh

    plain = trimesh.Trimesh(mesh.vertices, mesh.faces, process=False)
    return trimesh.sample.sample_surface(plain, count, seed=0)[0]


def compare_views(obj: WorldObject, mesh: Mesh, size: int = 96) -> tuple[float, float]:
    """Mean silhouette IoU over 8 views, and the mean base-color error over pixels both cover."""
    center, scale = normalise(obj.mesh.vertices)
    mesh_center, mesh_scale = normalise(mesh.vertices)
    # The generated mesh is moved onto the object's box, so both are seen by the same cameras.
    moved = Mesh(
        ((mesh.vertices - mesh_center) * (scale / mesh_scale) + center).astype(np.float32),
        mesh.faces, mesh.normals, mesh.uvs, mesh.texture, mesh.vertex_colors,
    )  # fmt: skip
    cameras = orbit(even_azimuths(SILHOUETTES), 15.0)
    truth, found = obj.render(cameras, size, antialias=1), render_geometry(moved, cameras, size)
    mask = truth.rgba[..., 3] > 0.5
    both = mask & found["mask"]
    color = np.abs(truth.albedo - found["color"])[both].mean() if both.any() else 1.0
    return float(np.mean([silhouette_iou(a, b) for a, b in zip(mask, found["mask"], strict=True)])), float(color)


def table_header() -> str:
    return f"{'object':16s} " + " ".join(f"{f.name[:10]:>10s}" for f in fields(Score))


def table_row(name: str, row: Score) -> str:
    return f"{name:16s} " + " ".join(f"{getattr(row, f.name):10.3f}" for f in fields(Score))


def mean_score(rows: list[Score]) -> Score:
    return Score(*(float(np.mean([getattr(row, f.name) for row in rows])) for f in fields(Score)))
