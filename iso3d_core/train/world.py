"""The world of procedural objects: for training, tests and evaluation.

``make_object(seed)`` draws a kind, builds its parts, turns it by a random angle about Z and scales it
into the unit ball. The result knows its exact solid (`contains`), its base color, a caption, and its
renders by ray casting. The same seed gives the same object on every machine.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import cast

import numpy as np
import trimesh

from ..cameras import Cameras, orbit, rays
from ..priors.words import direction_name, elevation_name
from .draw import Draw, color_name
from .kinds import KINDS
from .solids import Part, turn

# Never trained on: two whole kinds, and every seed from HELD_OUT_SEED up.
HELD_OUT_KINDS = ("teapot", "windmill")
TRAINING_KINDS = tuple(kind for kind in KINDS if kind not in HELD_OUT_KINDS)
# What people try first, and the catch-all "blob", are drawn six times as often as the rest.
COMMON_KINDS = (
    "mug", "chair", "table", "lamp", "rocket", "snowman", "tree", "house", "car",
    "robot", "mushroom", "dumbbell", "bottle", "cake", "duck", "plane", "cactus", "boat",
)  # fmt: skip
_WEIGHTS = np.array([6.0 if kind in (*COMMON_KINDS, "blob") else 1.0 for kind in TRAINING_KINDS])
HELD_OUT_SEED = 1_000_000
RADIUS = 0.95


@dataclass(frozen=True)
class Light:
    """Soft shading: ``strength * (ambient + (1 - ambient) * max(0, n . l))`` with a point light.

    ambient : 0..1
    offset : (3,) of the light from the camera, world units; (0, 0, 1.5) stands above the camera
    strength : 0..1; below 1 a white surface stays darker than the white background
    """

    ambient: float = 0.7
    offset: tuple[float, float, float] = (0.0, 0.0, 1.5)
    strength: float = 0.9


@dataclass(frozen=True)
class View:
    """Renders of V cameras, float32: rgba [V, H, W, 4] straight alpha in [0, 1], albedo [V, H, W, 3],
    depth [V, H, W] along the ray (0 where nothing is hit), normal [V, H, W, 3] in the world frame."""

    rgba: np.ndarray
    albedo: np.ndarray
    depth: np.ndarray
    normal: np.ndarray


@dataclass(frozen=True)
class WorldObject:
    """One object inside the ball of radius 1, base kind and parts in the world frame (Z up)."""

    kind: str
    parts: tuple[Part, ...]
    seed: int

    def contains(self, points: np.ndarray) -> np.ndarray:
        """(m, 3) -> (m,) bool: inside the exact union of the parts."""
        inside = np.zeros(len(points), dtype=bool)
        for part in self.parts:
            inside |= part.contains(points)
        return inside

    @cached_property
    def meshes(self) -> list[trimesh.Trimesh]:
        return [part.mesh() for part in self.parts]

    @cached_property
    def mesh(self) -> trimesh.Trimesh:
        """All parts together; surfaces inside other parts remain, so it is for ray casting, not for volume."""
        return cast(trimesh.Trimesh, trimesh.util.concatenate(self.meshes))

    @cached_property
    def _face_part(self) -> np.ndarray:
        return np.repeat(np.arange(len(self.meshes)), [len(m.faces) for m in self.meshes])

    @cached_property
    def _face_normals(self) -> np.ndarray:
        a, b, c = np.moveaxis(self.mesh.triangles, 1, 0)
        normal = np.cross(b - a, c - a)
        return (normal / np.maximum(np.linalg.norm(normal, axis=1, keepdims=True), 1e-12)).astype(np.float32)

    @cached_property
    def _scene(self):
        from embreex.mesh_construction import TriangleMesh
        from embreex.rtcore_scene import EmbreeScene

        scene = EmbreeScene()
        TriangleMesh(scene, self.mesh.triangles.astype(np.float32))
        return scene

    def caption(self, azimuth_deg: float | None = None, elevation_deg: float | None = None) -> str:
        """Kind, proportions, parts with colors and patterns, and, when given, the direction it is seen from.

        The azimuth is measured against the object's own front, so it also names its turn.
        """
        extent = self.mesh.extents
        tall = extent[2] / max(extent[0], extent[1])
        shape = (
            "very tall"
            if tall > 2.2
            else "tall"
            if tall > 1.3
            else "flat"
            if tall < 0.45
            else "low"
            if tall < 0.8
            else ""
        )
        words = ["a", shape, self.kind, "with"]
        seen: dict[str, str] = {}
        for part in self.parts:
            material = part.material
            text = color_name(material.color)
            if material.second is not None and material.pattern != "plain":
                text += f" and {color_name(material.second)} {material.pattern.replace('_', ' ')}"
            seen.setdefault(part.name, text)
        words.append(", ".join(f"{text} {name}" for name, text in list(seen.items())[:6]))
        if azimuth_deg is not None:
            words.append("seen from the " + direction_name(azimuth_deg - self.turn_deg))
        if elevation_deg is not None:
            words.append(elevation_name(elevation_deg))
        return " ".join(word for word in words if word)

    @property
    def turn_deg(self) -> float:
        """The turn about Z, in degrees, of the object's own front (+X) in the world."""
        return _turn_deg(self.seed)

    def render(self, cameras: Cameras, size: int = 64, light: Light = Light(), antialias: int = 2) -> View:
        """Ray-cast renders, ``antialias`` x ``antialias`` samples a pixel; shapes as in `View`."""
        hits = self._cast(cameras, size * antialias)
        color = hits.albedo * _shade(hits, light)

        def image(values: np.ndarray) -> np.ndarray:
            full = np.zeros((hits.count, values.shape[1]), np.float32)
            full[hits.rows] = values
            full = full.reshape(len(cameras), size, antialias, size, antialias, -1)
            return _box_filter(full, antialias)

        alpha = image(np.ones((len(hits.rows), 1), np.float32))
        weight = np.maximum(alpha, 1e-6)
        return View(
            rgba=np.concatenate([np.clip(image(color) / weight, 0, 1), alpha], axis=-1),
            albedo=image(hits.albedo) / weight,
            depth=(image(hits.distance[:, None]) / weight)[..., 0],
            normal=image(hits.normal) / weight,
        )

    def render_rgba(self, cameras: Cameras, size: int = 64, light: Light = Light(), antialias: int = 2) -> np.ndarray:
        """Only the [V, size, size, 4] rgba of `render`, in half the time."""
        hits = self._cast(cameras, size * antialias)
        full = np.zeros((hits.count, 4), np.float32)
        full[hits.rows, :3] = hits.albedo * _shade(hits, light)
        full[hits.rows, 3] = 1
        full = full.reshape(len(cameras), size, antialias, size, antialias, 4)
        mean = _box_filter(full, antialias)
        mean[..., :3] = np.minimum(mean[..., :3] / np.maximum(mean[..., 3:], 1e-6), 1)
        return mean

    def _cast(self, cameras: Cameras, size: int) -> _Hits:
        origins, directions = (r.reshape(-1, 3).contiguous().numpy() for r in rays(cameras, size, size))
        hit = self._scene.run(origins, directions, output=True)
        face, distance = hit["primID"], hit["tfar"]
        rows = np.flatnonzero(face >= 0)
        face, distance, origins, directions = face[rows], distance[rows], origins[rows], directions[rows]
        points = origins + distance[:, None] * directions
        normal = self._face_normals[face]
        normal = normal * -np.sign(np.einsum("ni,ni->n", normal, directions))[:, None]
        part = self._face_part[face]
        albedo = np.zeros((len(rows), 3), np.float32)
        for index in np.unique(part):
            chosen = part == index
            owner = self.parts[index]
            plain = owner.material.pattern == "plain"
            albedo[chosen] = owner.material.color if plain else owner.material.albedo(owner.to_local(points[chosen]))
        return _Hits(len(hit["primID"]), rows, origins, points, distance, normal, albedo)


@dataclass(frozen=True)
class _Hits:
    """What the rays that hit found; ``rows`` are their places among all ``count`` rays."""

    count: int
    rows: np.ndarray
    origins: np.ndarray
    points: np.ndarray
    distance: np.ndarray
    normal: np.ndarray
    albedo: np.ndarray


def _box_filter(samples: np.ndarray, antialias: int) -> np.ndarray:
    """[V, H, antialias, W, antialias, C] -> [V, H, W, C]; adding slices is several times faster than `mean`."""
    total = np.zeros_like(samples[:, :, 0, :, 0])
    for i in range(antialias):
        for j in range(antialias):
            total += samples[:, :, i, :, j]
    return total / antialias**2


def _shade(hits: _Hits, light: Light) -> np.ndarray:
    to_light = hits.origins + np.asarray(light.offset, np.float32) - hits.points
    cosine = np.einsum("ni,ni->n", hits.normal, to_light) / np.sqrt(np.einsum("ni,ni->n", to_light, to_light))
    lit = light.ambient + (1 - light.ambient) * np.maximum(cosine, 0)
    return (light.strength * lit)[:, None].astype(np.float32)


def _turn_deg(seed: int) -> float:
    return float(np.random.default_rng([seed, 1]).uniform(0, 360))


def make_object(seed: int, kind: str | None = None) -> WorldObject:
    """The object of ``seed``: a kind drawn from TRAINING_KINDS unless ``kind`` names one.

    Raises ValueError for an unknown kind.
    """
    if kind is None:
        kind = str(np.random.default_rng([seed, 0]).choice(TRAINING_KINDS, p=_WEIGHTS / _WEIGHTS.sum()))
    if kind not in KINDS:
        raise ValueError(f"unknown kind {kind!r}; known kinds: {', '.join(KINDS)}")
    parts = tuple(KINDS[kind](Draw([seed, 2])))
    turned = turn("z", _turn_deg(seed))
    parts = tuple(replace(part, place=turned @ part.place) for part in parts)
    vertices = np.concatenate([part.mesh().vertices for part in parts])
    center = (vertices.min(axis=0) + vertices.max(axis=0)) / 2
    factor = RADIUS / np.linalg.norm(vertices - center, axis=1).max()
    fit = np.diag([factor, factor, factor, 1.0])
    fit[:3, 3] = -factor * center
    return WorldObject(kind, tuple(replace(part, place=fit @ part.place) for part in parts), seed)


def held_out(count: int = 36) -> list[WorldObject]:
    """The fixed evaluation objects, all of unseen seeds: common kinds, the two unseen ones, then others."""
    others = [kind for kind in TRAINING_KINDS if kind not in COMMON_KINDS]
    kinds = [*COMMON_KINDS, *HELD_OUT_KINDS, *others[::3], *others[1::3], *others[2::3]]
    return [make_object(HELD_OUT_SEED + i, kinds[i % len(kinds)]) for i in range(count)]


def reference_camera(seed: int, distance: float | None = None) -> tuple[float, Cameras]:
    """The reference view's own elevation, uniform in -10..40 degrees, and its camera at azimuth 0."""
    rng = np.random.default_rng([seed, 3])
    elevation = float(rng.uniform(-10, 40))
    return elevation, orbit(0.0, elevation, *(() if distance is None else (distance,)))
