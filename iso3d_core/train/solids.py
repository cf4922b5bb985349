"""Solids with an exact inside test and a triangle mesh: revolved profiles, prisms and bent tubes.

Every shape lives in its own local frame, where `bounds` is the lowest and the highest corner of a box around it,
[2, 3]; `Part` places it and gives it a material. Profiles and outlines are 2D polygons without the closing point.
Cross-sections of the meshes have enough sides that mesh and exact solid differ by less than 1 % of the radius.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import cast

import numpy as np
import trimesh

SIDES = 32


def inside_polygon(polygon: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Even-odd test. ``polygon`` (n, 2), ``points`` (m, 2) -> (m,) bool."""
    inside = np.zeros(len(points), dtype=bool)
    x, y = points[:, 0], points[:, 1]
    for (x0, y0), (x1, y1) in zip(polygon, np.roll(polygon, -1, axis=0), strict=True):
        if y0 == y1:
            continue
        crosses = (y0 > y) != (y1 > y)
        inside ^= crosses & (x < x0 + (y - y0) * (x1 - x0) / (y1 - y0))
    return inside


@dataclass(frozen=True)
class Lathe:
    """A closed polygon of (radius, z) points, radius >= 0, revolved about the local Z axis."""

    profile: tuple[tuple[float, float], ...]

    def contains(self, points: np.ndarray) -> np.ndarray:
        radius = np.hypot(points[:, 0], points[:, 1])
        return inside_polygon(np.asarray(self.profile), np.stack([radius, points[:, 2]], axis=1))

    def bounds(self) -> np.ndarray:
        radius, z = np.asarray(self.profile, dtype=float).T
        return np.array([[-radius.max(), -radius.max(), z.min()], [radius.max(), radius.max(), z.max()]])

    def mesh(self) -> trimesh.Trimesh:
        profile = np.asarray(self.profile, dtype=float)
        count = len(profile)
        angle = np.arange(SIDES) * (2 * np.pi / SIDES)
        ring = np.stack([np.cos(angle), np.sin(angle)], axis=1)
        vertices = np.concatenate(
            [ring[:, None, :] * profile[None, :, :1], np.broadcast_to(profile[None, :, 1:], (SIDES, count, 1))], axis=2
        ).reshape(-1, 3)
        i, j = np.meshgrid(np.arange(SIDES), np.arange(count), indexing="ij")
        a, b = i * count + j, ((i + 1) % SIDES) * count + j
        c, d = ((i + 1) % SIDES) * count + (j + 1) % count, i * count + (j + 1) % count
        faces = np.concatenate([np.stack([a, b, c], -1).reshape(-1, 3), np.stack([a, c, d], -1).reshape(-1, 3)])
        return trimesh.Trimesh(vertices, faces, process=False)


@dataclass(frozen=True)
class Prism:
    """A simple polygon in the local XY plane, extruded over z in [-depth/2, depth/2]."""

    outline: tuple[tuple[float, float], ...]
    depth: float

    def contains(self, points: np.ndarray) -> np.ndarray:
        return (np.abs(points[:, 2]) <= self.depth / 2) & inside_polygon(np.asarray(self.outline), points[:, :2])

    def bounds(self) -> np.ndarray:
        outline = np.asarray(self.outline, dtype=float)
        return np.array([[*outline.min(axis=0), -self.depth / 2], [*outline.max(axis=0), self.depth / 2]])

    def mesh(self) -> trimesh.Trimesh:
        import mapbox_earcut

        outline = np.asarray(self.outline, dtype=float)
        n = len(outline)
        cap = mapbox_earcut.triangulate_float64(outline, np.array([n], dtype=np.uint32)).reshape(-1, 3)
        vertices = np.concatenate([np.c_[outline, np.full(n, z)] for z in (-self.depth / 2, self.depth / 2)])
        i = np.arange(n)
        j = (i + 1) % n
        sides = np.concatenate([np.stack([i, j, j + n], 1), np.stack([i, j + n, i + n], 1)])
        return trimesh.Trimesh(vertices, np.concatenate([cap[:, ::-1], cap + n, sides]), process=False)


@dataclass(frozen=True)
class Tube:
    """A chain of round-ended segments: the union of cones between spheres at ``points`` with ``radii``.

    One segment of equal radii is a capsule; several make handles, antlers, tails.
    """

    points: tuple[tuple[float, float, float], ...]
    radii: tuple[float, ...]

    def contains(self, points: np.ndarray) -> np.ndarray:
        inside = np.zeros(len(points), dtype=bool)
        path = np.asarray(self.points, dtype=float)
        for a, b, ra, rb in zip(path, path[1:], self.radii, self.radii[1:], strict=False):
            axis = b - a
            t = np.clip((points - a) @ axis / max(axis @ axis, 1e-12), 0.0, 1.0)
            distance = np.linalg.norm(points - a - t[:, None] * axis, axis=1)
            inside |= distance <= ra + t * (rb - ra)
        return inside

    def bounds(self) -> np.ndarray:
        path, radius = np.asarray(self.points, dtype=float), np.asarray(self.radii)[:, None]
        return np.stack([(path - radius).min(axis=0), (path + radius).max(axis=0)])

    def mesh(self) -> trimesh.Trimesh:
        path = np.asarray(self.points, dtype=float)
        pieces = []
        for a, b, ra, rb in zip(path, path[1:], self.radii, self.radii[1:], strict=False):
            length = np.linalg.norm(b - a)
            angle = np.linspace(-np.pi / 2, 0, 6)
            low = [(ra * np.cos(t), ra * np.sin(t)) for t in angle]
            high = [(rb * np.cos(t), length - rb * np.sin(t)) for t in angle[::-1]]
            piece = Lathe(tuple(low + high)).mesh()
            piece.apply_transform(align_z(b - a, a))
            pieces.append(piece)
        return cast(trimesh.Trimesh, trimesh.util.concatenate(pieces))


Shape = Lathe | Prism | Tube


# ---- common shapes, all around the local origin -------------------------------------------------


def box(x: float, y: float, z: float) -> Prism:
    """A box with edge lengths x, y, z."""
    return Prism(((-x / 2, -y / 2), (x / 2, -y / 2), (x / 2, y / 2), (-x / 2, y / 2)), z)


def cylinder(radius: float, height: float, top: float | None = None) -> Lathe:
    """A cylinder, or a frustum (cone) when ``top`` gives another radius for the upper end."""
    top = radius if top is None else top
    return Lathe(((0.0, -height / 2), (radius, -height / 2), (max(top, 1e-4), height / 2), (0.0, height / 2)))


def ellipsoid(radius: float, height: float | None = None, start_deg: float = -90.0, end_deg: float = 90.0) -> Lathe:
    """A spheroid of half-height ``height`` (default: a ball), or its slice between two latitudes (a dome: 0 to 90)."""
    half = radius if height is None else height
    angle = np.deg2rad(np.linspace(start_deg, end_deg, 17))
    rim = [(max(radius * np.cos(t), 1e-4), half * np.sin(t)) for t in angle]
    return Lathe(((0.0, rim[0][1]), *rim, (0.0, rim[-1][1])))


def torus(radius: float, tube: float) -> Lathe:
    """A ring in the XY plane: ``radius`` to the middle of the tube, ``tube`` its radius."""
    angle = np.arange(14) * (2 * np.pi / 14)
    return Lathe(tuple((radius + tube * np.cos(t), tube * np.sin(t)) for t in angle))


def capsule(a, b, radius: float, radius_b: float | None = None) -> Tube:
    """A round-ended rod from ``a`` to ``b``."""
    return Tube((tuple(a), tuple(b)), (radius, radius if radius_b is None else radius_b))


def arc(radius: float, tube: float, start_deg: float, end_deg: float, pieces: int = 8) -> Tube:
    """A bent rod in the local XZ plane along a circle of ``radius``; 0 degrees points along +X."""
    angle = np.deg2rad(np.linspace(start_deg, end_deg, pieces + 1))
    return Tube(tuple((radius * np.cos(t), 0.0, radius * np.sin(t)) for t in angle), (tube,) * (pieces + 1))


def regular_polygon(sides: int, radius: float, turn_deg: float = 0.0) -> tuple[tuple[float, float], ...]:
    angle = np.arange(sides) * (2 * np.pi / sides) + np.deg2rad(turn_deg)
    return tuple((radius * np.cos(t), radius * np.sin(t)) for t in angle)


def star_polygon(tips: int, outer: float, inner: float) -> tuple[tuple[float, float], ...]:
    angle = np.arange(2 * tips) * (np.pi / tips) + np.pi / 2
    radius = np.where(np.arange(2 * tips) % 2 == 0, outer, inner)
    return tuple((r * np.cos(t), r * np.sin(t)) for r, t in zip(radius, angle, strict=True))


# ---- placing ------------------------------------------------------------------------------------


def move(x: float = 0.0, y: float = 0.0, z: float = 0.0) -> np.ndarray:
    return trimesh.transformations.translation_matrix([x, y, z])


def turn(axis: str, degrees: float) -> np.ndarray:
    """Rotation about the local 'x', 'y' or 'z' axis."""
    return trimesh.transformations.rotation_matrix(np.deg2rad(degrees), np.eye(3)["xyz".index(axis)])


def scale(x: float, y: float, z: float) -> np.ndarray:
    return np.diag([x, y, z, 1.0])


def align_z(direction, origin=(0.0, 0.0, 0.0)) -> np.ndarray:
    """The rotation that carries +Z to ``direction``, then the move to ``origin``."""
    matrix = trimesh.geometry.align_vectors([0.0, 0.0, 1.0], np.asarray(direction, dtype=float))
    matrix[:3, 3] = origin
    return matrix


@dataclass(frozen=True)
class Material:
    """Base color, and optionally a second color laid out in the part's local frame.

    color, second : (3,) in [0, 1], linear use of sRGB values as the renderer has no tone curve
    pattern : "plain", "stripes" (along ``axis``), "rings" (around it), "checks" or "two_tone" (split across ``axis``)
    period : size of one stripe or check in local units; for "two_tone", ``period`` is the height of the split
    """

    color: tuple[float, float, float]
    second: tuple[float, float, float] | None = None
    pattern: str = "plain"
    period: float = 0.25
    axis: int = 2

    def albedo(self, points: np.ndarray) -> np.ndarray:
        """Local points (m, 3) -> base color (m, 3)."""
        color = np.broadcast_to(np.asarray(self.color), (len(points), 3))
        if self.second is None or self.pattern == "plain":
            return color
        across = [i for i in range(3) if i != self.axis]
        if self.pattern == "two_tone":
            use_second = points[:, self.axis] > self.period
        elif self.pattern == "rings":
            use_second = np.floor(points[:, self.axis] / self.period) % 2 == 1
        elif self.pattern == "stripes":
            angle = np.arctan2(points[:, across[1]], points[:, across[0]])
            use_second = np.floor(angle / (2 * np.pi) * 2 * max(2, round(1 / max(self.period, 0.05)))) % 2 == 1
        elif self.pattern == "checks":
            use_second = np.floor(points / self.period + 1e-4).sum(axis=1) % 2 == 1
        else:
            raise ValueError(f"unknown pattern {self.pattern!r}; use plain, two_tone, rings, stripes or checks")
        return np.where(use_second[:, None], np.asarray(self.second), color)


@dataclass(frozen=True)
class Part:
    """A shape placed in the object's frame by ``place`` (4, 4), without shear; ``name`` is for captions."""

    name: str
    shape: Shape
    material: Material
    place: np.ndarray = field(default_factory=lambda: np.eye(4))

    @cached_property
    def _inverse(self) -> np.ndarray:
        return np.linalg.inv(self.place)

    def to_local(self, points: np.ndarray) -> np.ndarray:
        return points @ self._inverse[:3, :3].T + self._inverse[:3, 3]

    @cached_property
    def _bounds(self) -> np.ndarray:
        """The lowest and the highest corner of a box around the part, along the axes of the object's frame."""
        corners = np.stack(np.meshgrid(*self.shape.bounds().T, indexing="ij"), axis=-1).reshape(-1, 3)
        placed = corners @ self.place[:3, :3].T + self.place[:3, 3]
        return np.stack([placed.min(axis=0) - 1e-9, placed.max(axis=0) + 1e-9])

    def contains(self, points: np.ndarray) -> np.ndarray:
        """(m, 3) -> (m,) bool; most points lie outside the box around a part, which is fast to see."""
        inside = np.zeros(len(points), bool)
        x, y, z = points.T
        (x0, y0, z0), (x1, y1, z1) = self._bounds
        near = np.flatnonzero((x >= x0) & (x <= x1) & (y >= y0) & (y <= y1) & (z >= z0) & (z <= z1))
        inside[near] = self.shape.contains(self.to_local(points[near]))
        return inside

    def mesh(self) -> trimesh.Trimesh:
        mesh = self.shape.mesh()
        mesh.apply_transform(self.place)
        return mesh
