"""Rasterising a mesh differentiably: which face a pixel sees is found without gradient, by ray casting; where on that
face, and how far a silhouette reaches into the pixels beside it, are functions of the vertices.

The silhouettes follow nvdiffrast's analytic antialiasing (Laine et al. 2020, section 3.4), against the background only.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib.util import find_spec

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from ..cameras import Cameras, project, rays


@dataclass(frozen=True)
class Hits:
    """The pixels of V views that see the mesh.

    face : [V, S, S], -1 where nothing is; rows : [K] of the V * S * S pixels
    points, normals : [K, 3], differentiable in the vertices; depth : [K] along the ray
    """

    face: Tensor
    rows: Tensor
    points: Tensor
    normals: Tensor
    depth: Tensor


def find_faces(vertices: Tensor, faces: Tensor, cameras: Cameras, size: int) -> Tensor:
    """The nearest face of each pixel centre, [V, size, size] int64, -1 where nothing is.

    By casting rays on the CPU; on a CUDA device by its twin in Triton, where there is one.
    """
    if vertices.is_cuda and find_spec("triton") is not None:
        return find_faces_in_triton(vertices, faces, cameras, size)
    from embreex.mesh_construction import TriangleMesh
    from embreex.rtcore_scene import EmbreeScene

    scene = EmbreeScene()
    held = TriangleMesh(scene, np.ascontiguousarray(vertices.detach().cpu().numpy()[faces.cpu().numpy()], np.float32))
    origins, directions = (
        np.ascontiguousarray(r.reshape(-1, 3).cpu().numpy(), np.float32) for r in rays(cameras, size, size)
    )
    found = scene.run(origins, directions)
    del held  # the scene does not keep it alive
    return torch.from_numpy(found.astype(np.int64)).reshape(len(cameras), size, size).to(vertices.device)


@torch.no_grad()
def find_faces_in_triton(vertices: Tensor, faces: Tensor, cameras: Cameras, size: int) -> Tensor:
    """As `find_faces`, on the device of the vertices."""
    from ..ops.triton_raster import nearest_faces

    matrix = cameras.cam_to_world
    away = vertices - matrix[:, None, :3, 3]  # [V, n, 3]
    depth = -torch.einsum("vni,vi->vn", away, matrix[:, :3, 2])
    return nearest_faces(on_screen(vertices, cameras, size), depth, faces, size)


def on_screen(vertices: Tensor, cameras: Cameras, size: int) -> Tensor:
    """Vertices [n, 3] in pixels [V, n, 2]: x right, y down, the first pixel's centre at (0, 0)."""
    return torch.stack([(project(vertices, cameras[v]) + 1) * (size / 2) - 0.5 for v in range(len(cameras))])


def rasterise(vertices: Tensor, faces: Tensor, cameras: Cameras, size: int) -> Hits:
    """Where the pixel centres' rays meet the mesh: vertices [n, 3], faces [m, 3]."""
    face = find_faces(vertices, faces, cameras, size)
    rows = torch.nonzero(face.reshape(-1) >= 0)[:, 0]
    origins, directions = (r.reshape(-1, 3)[rows] for r in rays(cameras, size, size))
    corners = take(vertices, faces[face.reshape(-1)[rows]])  # [K, 3, 3]
    a, b, c = corners.unbind(1)
    plane = torch.linalg.cross(b - a, c - a)
    depth = ((a - origins) * plane).sum(-1) / _away_from_zero((directions * plane).sum(-1))
    points = origins + depth[:, None] * directions
    weights = barycentric(points, a, b, c)
    corner_normals = take(vertex_normals(vertices, faces), faces[face.reshape(-1)[rows]])
    return Hits(face, rows, points, F.normalize((weights[..., None] * corner_normals).sum(1), dim=-1), depth)


def barycentric(points: Tensor, a: Tensor, b: Tensor, c: Tensor) -> Tensor:
    """Weights [K, 3] of the corners a, b, c [K, 3] at points [K, 3] of their planes."""
    plane = torch.linalg.cross(b - a, c - a)
    area = plane.square().sum(-1).clamp(min=1e-20)
    v = (torch.linalg.cross(points - a, c - a) * plane).sum(-1) / area
    w = (torch.linalg.cross(b - a, points - a) * plane).sum(-1) / area
    return torch.stack([1 - v - w, v, w], dim=-1)


def vertex_normals(vertices: Tensor, faces: Tensor) -> Tensor:
    """Unit normals [n, 3], the faces' weighted by their areas."""
    a, b, c = take(vertices, faces).unbind(1)
    plane = torch.linalg.cross(b - a, c - a)
    total = torch.zeros_like(vertices)
    for corner in range(3):
        total = total.index_add(0, faces[:, corner], plane)
    return F.normalize(total, dim=-1)


def antialias(image: Tensor, face: Tensor, vertices: Tensor, faces: Tensor, cameras: Cameras) -> Tensor:
    """Blend pixels across the silhouette, so that the image [V, C, S, S] is differentiable in where it runs.

    Between the centres of a pixel that sees the mesh and a neighbour that does not, the first one's face ends at some
    point; the pixel whose centre is nearer to that point takes the share of the other's color that overlaps it.
    """
    views, _, size, _ = image.shape
    screen = on_screen(vertices, cameras, size)
    flat = image.permute(0, 2, 3, 1).reshape(views * size * size, -1)
    out = flat
    covered = face >= 0
    number = torch.arange(views * size * size, device=image.device).reshape(views, size, size)
    for axis in (0, 1):  # along x, along y
        (solid_a, solid_b), (a, b) = _neighbours(covered, axis), _neighbours(number, axis)
        edge = solid_a != solid_b
        inner = torch.where(solid_a, a, b)[edge]  # [K] pixels that see the mesh
        outer = torch.where(solid_a, b, a)[edge]
        reach = _reach(inner, outer, face.reshape(-1), faces, screen, size, axis)
        found = torch.isfinite(reach)
        inner, outer, reach = inner[found], outer[found], reach[found][:, None]
        grows = (reach - 0.5).clamp(min=0)  # the mesh's color into the outer pixel
        shrinks = (0.5 - reach).clamp(min=0)  # the background's into the inner one
        out = out.index_add(0, outer, grows * (take(flat, inner) - take(flat, outer)))
        out = out.index_add(0, inner, shrinks * (take(flat, outer) - take(flat, inner)))
    return out.reshape(views, size, size, -1).permute(0, 3, 1, 2)


def _neighbours(values: Tensor, axis: int) -> tuple[Tensor, Tensor]:
    """Pixels [V, S, S] and the ones right of them, or below them."""
    if axis == 0:
        return values[:, :, :-1], values[:, :, 1:]
    return values[:, :-1], values[:, 1:]


def _reach(inner: Tensor, outer: Tensor, face: Tensor, faces: Tensor, screen: Tensor, size: int, axis: int) -> Tensor:
    """How far, 0..1 of the way from the inner pixel's centre to the outer one's, the inner one's face reaches [K];
    infinite where none of its edges crosses that way (another face does)."""
    view, place = inner // size**2, inner % size**2
    center = torch.stack([place % size, place // size], dim=-1).to(screen)  # [K, 2] x, y
    sign = torch.where(outer > inner, 1.0, -1.0).to(screen)
    corners = (
        take(screen.flatten(0, 1), view[:, None] * screen.shape[1] + faces[face[inner]]) - center[:, None]
    )  # [K, 3, 2] from the pixel's centre
    along, across = corners[..., axis], corners[..., 1 - axis]
    nearest = torch.full_like(sign, float("inf"))
    for i in range(3):
        j = (i + 1) % 3
        crosses = (across[:, i] > 0) != (across[:, j] > 0)
        slope = (along[:, j] - along[:, i]) / _away_from_zero(across[:, j] - across[:, i])
        at = (along[:, i] - across[:, i] * slope) * sign
        # A slanted edge counts for the direction that it is more across to, once.
        fits = crosses & (slope.detach().abs() <= 1) & (at.detach() > 0) & (at.detach() < 1)
        nearest = torch.where(fits & (at.detach() < nearest.detach()), at, nearest)
    return nearest


def take(values: Tensor, rows: Tensor) -> Tensor:
    """``values[rows]``, whose gradient is added up in the same order every time: the same seed, the same mesh."""
    return values.index_select(0, rows.reshape(-1)).reshape(*rows.shape, *values.shape[1:])


def _away_from_zero(values: Tensor) -> Tensor:
    return torch.where(values.abs() < 1e-9, torch.full_like(values, 1e-9), values)


def normal_consistency(vertices: Tensor, faces: Tensor) -> Tensor:
    """Mean of 1 - cosine between the normals of faces that share an edge."""
    edges = torch.cat([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]]).sort(dim=1).values
    owner = torch.arange(len(faces), device=faces.device).repeat(3)
    keys = edges[:, 0] * (int(faces.max()) + 1) + edges[:, 1]
    keys, order = keys.sort(stable=True)
    pairs = torch.nonzero(keys[1:] == keys[:-1])[:, 0]
    a, b, c = take(vertices, faces).unbind(1)
    normals = F.normalize(torch.linalg.cross(b - a, c - a), dim=-1)
    first, second = take(normals, owner[order][pairs]), take(normals, owner[order][pairs + 1])
    return (1 - (first * second).sum(-1)).mean()


def unique_pairs(pairs: Tensor) -> tuple[Tensor, Tensor]:
    """The different ones [n, 2] among pairs [m, 2] of indices, in order, and which of them each pair is [m].

    As `torch.unique` of rows, which takes tens of times longer on a CPU than this one of single numbers.
    """
    side = int(pairs.max()) + 1 if len(pairs) else 1
    keys, inverse = torch.unique(pairs[:, 0] * side + pairs[:, 1], return_inverse=True)
    return torch.stack([keys // side, keys % side], dim=1), inverse


def laplacian(vertices: Tensor, faces: Tensor) -> Tensor:
    """Mean squared distance of each vertex from the mean of its neighbours (the uniform Laplacian)."""
    edges = torch.cat([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]])
    edges, _ = unique_pairs(torch.cat([edges, edges.flip(1)]))
    total = torch.zeros_like(vertices).index_add(0, edges[:, 0], take(vertices, edges[:, 1]))
    count = torch.zeros(len(vertices), device=vertices.device).index_add(
        0, edges[:, 0], torch.ones(len(edges), device=vertices.device)
    )
    return (total / count.clamp(min=1)[:, None] - vertices).square().sum(-1).mean()
