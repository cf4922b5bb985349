"""UV unwrapping, and baking a color function into the texture."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from ..types import InputError, Mesh
from .glb import repeats

CHUNK_POINTS = 2**18
# A texel this near to a triangle's edge (in texels) belongs to it, so that bilinear lookups at seams stay exact.
MARGIN = 1.0
UNWRAPPED_SIZE = 100.0  # half the extent of what xatlas is given
CHECKED_TEXELS = 512  # a side, for the check of a layout
# xatlas takes faces that meet at a cosine above about PLANE for one plane, and those that meet these, and so on: a fine
# ball is one "plane" to it, without a border, and it crashes. One with a face beyond the cosine CURVED of its
# mean normal is cut.
PLANE, CURVED = 1 - 1.2e-4, 0.5
# Of the layout lying over itself, and of the surface without a place in it, as much as a texture bears.
OVERLAP, UNPLACED = 0.1, 0.02


def unwrap(
    vertices: np.ndarray, faces: np.ndarray, normals: np.ndarray, size: int = 1024, padding: int = 2
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Cut the surface into charts and pack them into one square texture, by xatlas.

    vertices : (n, 3), faces : (m, 3) int, normals : (n, 3)
    size : side of the texture that will be baked, in texels; charts lie at least ``padding`` of them apart
    Returns vertices (n', 3) float32, faces (m, 3) int32 in the order given, normals (n', 3) float32 and uvs (n', 2)
    float32 in [0, 1], v = 0 at the bottom row. Vertices are repeated along seams at exactly the same position.
    Raises InputError where the surface cannot be laid out.
    """
    import xatlas

    # xatlas leaves out triangles below a size of its own, so a mesh in any unit gets one that is far above it.
    center = vertices.mean(axis=0, dtype=np.float64)
    placed = (vertices - center) * (UNWRAPPED_SIZE / max(float(np.abs(vertices - center).max()), 1e-30))
    atlas = xatlas.Atlas()
    pieces = _pieces(placed, faces)
    for rows in pieces:
        atlas.add_mesh(
            np.ascontiguousarray(placed, np.float32),
            np.ascontiguousarray(faces[rows], np.uint32),
            np.ascontiguousarray(normals, np.float32),
        )
    charts = xatlas.ChartOptions()
    charts.max_iterations = 1
    packing = xatlas.PackOptions()
    packing.resolution = size
    packing.padding = padding
    packing.bruteForce = False
    atlas.generate(charts, packing)
    laid = [atlas[number] for number in range(len(pieces))]
    source = np.concatenate([np.asarray(part[0], np.int64) for part in laid])
    uvs = np.concatenate([np.asarray(part[2], np.float32) for part in laid])
    indices = np.empty(faces.shape, np.int32)
    first = 0
    for rows, (own, corners, _) in zip(pieces, laid, strict=True):
        indices[rows] = corners + first
        first += len(own)
    if not np.isfinite(uvs).all():
        raise InputError("the mesh has triangles that cannot be unwrapped; remove the ones without area first")
    return (
        np.asarray(vertices, np.float32)[source],
        indices,
        np.asarray(normals, np.float32)[source],
        np.clip(uvs, 0, 1),
    )


def _pieces(vertices: np.ndarray, faces: np.ndarray) -> list[np.ndarray]:
    """Rows of the faces to hand to xatlas apart from each other: all together, but for what it would take for one plane
    and is none, which is cut by the six directions it faces, the face most in that direction first (xatlas projects
    a plane along the normal of its first face)."""
    import trimesh

    points, joined = np.unique(vertices, axis=0, return_inverse=True)
    mesh = trimesh.Trimesh(points, joined.reshape(-1)[faces], process=False)
    normals = mesh.face_normals
    flat = mesh.face_adjacency_angles <= np.arccos(PLANE)
    plane = trimesh.graph.connected_component_labels(mesh.face_adjacency[flat], node_count=len(faces))
    count = int(plane.max()) + 1
    mean = np.zeros((count, 3))
    np.add.at(mean, plane, normals)
    mean /= np.maximum(np.linalg.norm(mean, axis=1, keepdims=True), 1e-30)
    curved = np.zeros(count, bool)
    curved[plane[np.einsum("ij,ij->i", normals, mean[plane]) < CURVED]] = True
    curved &= np.bincount(plane, minlength=count) > 1  # one face is flat, and without area it has no normal
    cut = curved[plane]
    facing = normals @ np.concatenate([np.eye(3), -np.eye(3)]).T
    side = np.where(cut, facing.argmax(axis=1), -1)
    pieces = [np.flatnonzero(side == number) for number in range(-1, 6)]
    ordered = [pieces[0], *(rows[np.argsort(-facing[rows, k])] for k, rows in enumerate(pieces[1:]))]
    return [rows for rows in ordered if len(rows)]


def check_layout(mesh: Mesh) -> None:
    """Raise InputError where the mesh's UVs cannot hold a texture: outside of it, over each other, or without area."""
    assert mesh.uvs is not None
    remedy = "unwrap it first, or set unwrap"
    if repeats(mesh.uvs):
        raise InputError(f"the mesh's UVs lie outside the texture, which would repeat; {remedy}")
    corners, points = mesh.uvs[mesh.faces].astype(np.float64), mesh.vertices[mesh.faces].astype(np.float64)
    a, b = corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]
    taken = np.abs(a[:, 0] * b[:, 1] - a[:, 1] * b[:, 0]) / 2
    surface = np.linalg.norm(np.cross(points[:, 1] - points[:, 0], points[:, 2] - points[:, 0]), axis=1) / 2
    if surface[taken < 1e-12].sum() > UNPLACED * surface.sum():
        raise InputError(f"parts of the mesh have no place of their own in the texture; {remedy}")
    covered, _ = _surface_points(mesh.vertices, mesh.faces, mesh.uvs, CHECKED_TEXELS)
    if taken.sum() > (1 + OVERLAP) * len(covered) / CHECKED_TEXELS**2:
        raise InputError(f"the mesh's UVs lie over each other, so its parts share their texture; {remedy}")


@torch.no_grad()
def bake(
    vertices: np.ndarray,
    faces: np.ndarray,
    uvs: np.ndarray,
    color: Callable[[Tensor], Tensor],
    size: int,
    device: torch.device | str = "cpu",
) -> np.ndarray:
    """The texture (size, size, 3) uint8, row 0 at the top, of a color function of the position.

    vertices : (n, 3) world, faces : (m, 3) int, uvs : (n, 2) in [0, 1]
    color : ``[k, 3]`` float32 world positions on ``device`` -> ``[k, 3]`` in [0, 1]
    Each texel takes the color at its own point of the surface; the space between charts is filled from the nearest.
    """
    from scipy.ndimage import distance_transform_edt

    texels, positions = _surface_points(vertices, faces, uvs, size)
    texture = np.full((size * size, 3), 128, np.uint8)
    filled = np.zeros(size * size, bool)
    for start in range(0, len(texels), CHUNK_POINTS):
        part = slice(start, start + CHUNK_POINTS)
        values = color(torch.from_numpy(positions[part]).to(device)).float().clamp(0, 1)
        texture[texels[part]] = (values * 255).round().to(torch.uint8).cpu().numpy()
    filled[texels] = True
    image = texture.reshape(size, size, 3)
    if filled.any() and not filled.all():
        empty = ~filled.reshape(size, size)
        row, column = distance_transform_edt(empty, return_distances=False, return_indices=True)
        image = image[row, column]
    return image


def _surface_points(
    vertices: np.ndarray, faces: np.ndarray, uvs: np.ndarray, size: int
) -> tuple[np.ndarray, np.ndarray]:
    """Which texels the triangles cover, (k,) flat row-major, and their surface points (k, 3) float32.

    All pairs of a triangle and a texel in its bounding box are tested at once; a texel goes to the triangle that it
    lies deepest in.
    """
    corners = np.stack([uvs[:, 0] * size, (1 - uvs[:, 1]) * size], axis=1).astype(np.float64)[faces] - 0.5  # (m, 3, xy)
    low = np.clip(np.ceil(corners.min(axis=1) - MARGIN), 0, size - 1).astype(np.int64)
    high = np.clip(np.floor(corners.max(axis=1) + MARGIN), 0, size - 1).astype(np.int64)
    corners = corners - low[:, None]
    edges = np.roll(corners, -2, axis=1) - np.roll(corners, -1, axis=1)  # (m, 3, xy) opposite to corner i
    area = edges[:, 0, 0] * edges[:, 1, 1] - edges[:, 0, 1] * edges[:, 1, 0]
    length = np.maximum(np.linalg.norm(edges, axis=2), 1e-12)
    # Distance of (x, y) from edge i, positive inside: slope[i] . (x, y) + offset[i], in texels.
    slope = np.stack([-edges[..., 1], edges[..., 0]], axis=2) * (np.sign(area)[:, None] / length)[..., None]
    offset = -(slope * np.roll(corners, -1, axis=1)).sum(axis=2)
    planes = np.concatenate([slope, offset[..., None]], axis=2).astype(np.float32)  # (m, 3, 3)
    width = high[:, 0] - low[:, 0] + 1
    count = np.where(np.abs(area) > 1e-12, (high - low + 1).prod(axis=1), 0)

    depth = np.full(size * size, -np.inf, np.float32)
    points = np.zeros((size * size, 3), np.float32)
    bounds = np.concatenate([[0], np.cumsum(count)])
    first = 0
    while first < len(faces):
        # As many triangles as keep the list of pairs short, and at least one.
        last = max(first + 1, int(np.searchsorted(bounds, bounds[first] + CHUNK_POINTS, side="right")) - 1)
        number = count[first:last]
        triangle = np.repeat(np.arange(first, last), number)
        within = np.arange(len(triangle)) - np.repeat(bounds[first:last] - bounds[first], number)
        y, x = np.divmod(within, np.repeat(width[first:last], number))
        at = np.stack([x, y, np.ones_like(x)], axis=1).astype(np.float32)
        distances = np.stack([(planes[triangle, i] * at).sum(axis=1) for i in range(3)], axis=1)
        distance = distances.min(axis=1)
        near = np.flatnonzero(distance >= -MARGIN)
        near = near[np.argsort(distance[near])]  # the deepest is written last
        owner = triangle[near]
        texel = (low[owner, 1] + y[near]) * size + low[owner, 0] + x[near]
        deeper = distance[near] > depth[texel]
        near, owner, texel = near[deeper], owner[deeper], texel[deeper]
        weights = np.maximum(distances[near] * length[owner], 0)  # (k, 3), twice the areas
        total = weights.sum(axis=1, keepdims=True)
        weights = np.where(total > 0, weights / np.maximum(total, 1e-30), 1 / 3)
        depth[texel] = distance[near]
        points[texel] = np.einsum("kc,kcd->kd", weights, vertices[faces[owner]])
        first = last
    covered = np.flatnonzero(np.isfinite(depth))
    return covered, points[covered]
