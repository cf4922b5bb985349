"""From a raw isosurface to a light, closed mesh: drop dust, smooth, decimate, and check that it stays watertight."""

from __future__ import annotations

import numpy as np

from ..types import Diverged

# Each try at decimation: (multiple of the target, fast-simplification's aggressiveness).
TRIES = ((1.0, 7.0), (1.5, 4.0), (4.0, 2.0))


def clean(
    vertices: np.ndarray,
    faces: np.ndarray,
    target_faces: int,
    keep_ratio: float = 0.02,
    smooth_iterations: int = 4,
) -> tuple[np.ndarray, np.ndarray]:
    """A watertight mesh of about ``target_faces`` faces from a closed surface.

    vertices : (n, 3) float, faces : (m, 3) int, closed, counter-clockwise seen from outside
    target_faces : faces to decimate to; a mesh with fewer is not refined
    keep_ratio : components with fewer faces than this share of the largest are dust and go
    smooth_iterations : Taubin steps, which take the grid's stairs off without shrinking; 0 for none
    Returns vertices (n', 3) float32 and faces (m', 3) int32. Cavities (closed shells turned inwards) are dropped:
    nobody sees them. Where decimation cannot keep the mesh watertight it stops earlier, at the worst not at all.

    Raises ValueError for a mesh without faces or a target below 4.
    """
    if len(faces) == 0:
        raise ValueError("there is no mesh to clean: it has no faces")
    if target_faces < 4:
        raise ValueError(f"target_faces must be at least 4 (a closed solid), got {target_faces}")
    merged, merged_faces = _repair(vertices, faces)
    kept, kept_faces = _keep_large(merged, merged_faces, keep_ratio)
    smooth = taubin(kept, kept_faces, smooth_iterations)
    if len(kept_faces) <= target_faces:
        return smooth.astype(np.float32), kept_faces.astype(np.int32)
    return _decimate(smooth, kept_faces, target_faces)


def merge(vertices: np.ndarray, faces: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Join vertices at the same position; drop faces that collapse or repeat, flaps, and unused vertices."""
    unique, inverse = np.unique(np.asarray(vertices, np.float64), axis=0, return_inverse=True)
    joined = inverse.reshape(-1)[faces]
    joined = joined[(joined != np.roll(joined, 1, axis=1)).all(axis=1)]
    key = np.sort(joined, axis=1)
    _, first, owner, count = np.unique(key, axis=0, return_index=True, return_inverse=True, return_counts=True)
    # A triangle met twice in opposite directions is a flap without volume: both sides go.
    turns = np.bincount(owner.reshape(-1), weights=_parity(joined), minlength=len(first))
    joined = joined[np.sort(first[(count == 1) | (turns != 0)])]
    return _compact(unique, joined)


def vertex_normals(vertices: np.ndarray, faces: np.ndarray) -> np.ndarray:
    """Unit normals (n, 3) float32, each face weighted by its area and its angle at the vertex.

    Vertices at the same position share a normal, so seams do not show. A vertex without faces gets (0, 0, 1).
    """
    corners = np.asarray(vertices, np.float64)[faces]  # (m, 3 corners, 3)
    edges = np.roll(corners, -1, axis=1) - corners  # (m, 3, 3) corner i -> i + 1
    lengths = np.linalg.norm(edges, axis=2, keepdims=True)
    edges = edges / np.maximum(lengths, 1e-30)
    cosine = -(edges * np.roll(edges, 1, axis=1)).sum(axis=2)  # (m, 3) at each corner
    angle = np.arccos(np.clip(cosine, -1, 1))
    normal = np.cross(
        corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]
    )  # (m, 3), its length: twice the area
    _, owner = np.unique(vertices, axis=0, return_inverse=True)
    owner = owner.reshape(-1)
    target = owner[faces].reshape(-1)
    weighted = (angle[:, :, None] * normal[:, None, :]).reshape(-1, 3)
    total = np.stack([np.bincount(target, weighted[:, i], minlength=len(vertices)) for i in range(3)], axis=1)
    length = np.linalg.norm(total, axis=1, keepdims=True)
    total = np.where(length > 1e-20, total / np.maximum(length, 1e-30), (0.0, 0.0, 1.0))
    return total[owner].astype(np.float32)


def taubin(
    vertices: np.ndarray, faces: np.ndarray, iterations: int, shrink: float = 0.5, grow: float = 0.53
) -> np.ndarray:
    """Taubin's smoothing (1995): a Laplacian step inwards, then a slightly larger one outwards; repeated."""
    from scipy.sparse import coo_matrix, diags

    if iterations <= 0:
        return vertices
    count = len(vertices)
    edges = np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]])
    adjacency = coo_matrix((np.ones(len(edges)), (edges[:, 0], edges[:, 1])), shape=(count, count)).tocsr()
    adjacency = adjacency.maximum(adjacency.T)
    degree = np.asarray(adjacency.sum(axis=1)).reshape(-1)
    average = diags(1 / np.maximum(degree, 1)) @ adjacency
    smooth = vertices
    for _ in range(iterations):
        smooth = smooth + shrink * (average @ smooth - smooth)
        smooth = smooth - grow * (average @ smooth - smooth)
    return smooth


def is_solid(vertices: np.ndarray, faces: np.ndarray) -> bool:
    """Watertight, consistently wound, and with a positive volume."""
    if len(faces) < 4:
        return False
    edges = np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]]).astype(np.int64)
    forward = edges[:, 0] * len(vertices) + edges[:, 1]
    backward = edges[:, 1] * len(vertices) + edges[:, 0]
    forward.sort()
    backward.sort()
    once = bool((np.diff(forward) > 0).all())
    return once and bool((forward == backward).all()) and _volume(vertices, faces) > 0


def _volume(vertices: np.ndarray, faces: np.ndarray) -> float:
    a, b, c = np.moveaxis(np.asarray(vertices, np.float64)[faces], 1, 0)
    return float((a * np.cross(b, c)).sum() / 6)


def _parity(faces: np.ndarray) -> np.ndarray:
    """+1 or -1 for each face: whether its winding is an even or an odd order of its sorted indices."""
    a, b, c = faces.T
    return np.sign((b > a).astype(int) + (c > b) + (a > c) - 1.5)


def _compact(vertices: np.ndarray, faces: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    used = np.unique(faces)
    row = np.zeros(len(vertices), np.int64)
    row[used] = np.arange(len(used))
    return vertices[used], row[faces]


def _keep_large(vertices: np.ndarray, faces: np.ndarray, keep_ratio: float) -> tuple[np.ndarray, np.ndarray]:
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    pairs = np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]]])
    graph = coo_matrix((np.ones(len(pairs)), (pairs[:, 0], pairs[:, 1])), shape=(len(vertices),) * 2)
    count, label = connected_components(graph, directed=False)
    owner = label[faces[:, 0]]  # (m,) component of each face
    size = np.bincount(owner, minlength=count)
    a, b, c = np.moveaxis(vertices[faces], 1, 0)
    volume = np.bincount(owner, weights=(a * np.cross(b, c)).sum(axis=1), minlength=count)
    size = np.where(volume > 0, size, 0)
    if not size.any():
        raise Diverged("the mesh encloses no volume; its faces must be counter-clockwise seen from outside")
    keep = (size >= keep_ratio * size.max()) & (size > 0)
    return _compact(vertices, faces[keep[owner]])


def _decimate(vertices: np.ndarray, faces: np.ndarray, target_faces: int) -> tuple[np.ndarray, np.ndarray]:
    import fast_simplification

    points, triangles = vertices.astype(np.float32), faces.astype(np.int32)
    for multiple, aggressiveness in TRIES:
        target = int(target_faces * multiple)
        if target >= len(faces):
            break
        fewer, fewer_faces = fast_simplification.simplify(points, triangles, target_count=target, agg=aggressiveness)
        found, found_faces = _repair(fewer, fewer_faces)
        if is_solid(found, found_faces):
            return found.astype(np.float32), found_faces.astype(np.int32)
    return points, triangles


def _repair(vertices: np.ndarray, faces: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Merge, split the edges of more than two faces, and close the small holes that are left."""
    import trimesh

    merged, merged_faces = merge(vertices, faces)
    if len(merged_faces) == 0 or is_solid(merged, merged_faces):
        return merged, merged_faces
    merged, merged_faces = _split_shared_edges(merged, merged_faces)
    if is_solid(merged, merged_faces):
        return merged, merged_faces
    mesh = trimesh.Trimesh(merged, merged_faces, process=False)
    trimesh.repair.fill_holes(mesh)
    return merge(np.asarray(mesh.vertices), np.asarray(mesh.faces))


def _split_shared_edges(vertices: np.ndarray, faces: np.ndarray, rounds: int = 10) -> tuple[np.ndarray, np.ndarray]:
    """Give each sheet its own edge where several meet in one.

    Collapsing a thin neck leaves two edges between the same two vertices. One of the two sheets gets a vertex in
    the middle of its edge; its two faces become four, and each edge belongs to two faces again.
    """
    for _ in range(rounds):
        owner = np.tile(np.arange(len(faces)), 3)
        edges = np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]])
        key = edges.min(axis=1) * len(vertices) + edges.max(axis=1)
        order = np.argsort(key, kind="stable")
        _, start, count = np.unique(key[order], return_index=True, return_counts=True)
        shared = np.flatnonzero((count > 2) & (count % 2 == 0))
        if len(shared) == 0:
            break
        faces = faces.copy()
        touched: set[int] = set()
        middles: list[np.ndarray] = []
        added: list[np.ndarray] = []
        for first, number in zip(start[shared], count[shared], strict=True):
            around = owner[order[first : first + number]]
            if touched & set(around.tolist()):
                continue  # two edges of one face: the other waits for the next round
            edge = edges[order[first]]
            pair = _next_to_each_other(vertices, faces, around, edge)
            if pair is None:
                continue
            touched |= set(around.tolist())
            middle = len(vertices) + len(middles)
            middles.append(vertices[edge].mean(axis=0))
            for face in pair:
                half = faces[face].copy()
                other = half.copy()
                other[half == edge[0]] = middle
                half[half == edge[1]] = middle
                faces[face] = half
                added.append(other)
        if not added:
            break
        vertices = np.concatenate([vertices, middles])
        faces = np.concatenate([faces, added])
    return vertices, faces


def _next_to_each_other(
    vertices: np.ndarray, faces: np.ndarray, around: np.ndarray, edge: np.ndarray
) -> tuple[int, int] | None:
    """Two faces, neighbours by angle about ``edge``, that run along it in opposite directions."""
    axis = vertices[edge[1]] - vertices[edge[0]]
    axis = axis / max(float(np.linalg.norm(axis)), 1e-30)
    side = np.cross(axis, np.eye(3)[np.argmin(np.abs(axis))])
    up = np.cross(axis, side)
    third = np.array([next(v for v in faces[face] if v not in edge) for face in around])
    arm = vertices[third] - vertices[edge[0]]
    by_angle = around[np.argsort(np.arctan2(arm @ up, arm @ side))]
    forward = [np.roll(faces[face], -1)[faces[face] == edge[0]][0] == edge[1] for face in by_angle]
    for i in range(len(by_angle)):
        if forward[i] != forward[i - 1]:
            return int(by_angle[i - 1]), int(by_angle[i])
    return None
