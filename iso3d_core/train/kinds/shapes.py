"""What builders of several kinds share: the axes of outlines, curves, and parts such as legs, eyes and roofs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from ..draw import Draw
from ..solids import Lathe, Material, Part, Prism, Shape, box, capsule, cylinder, ellipsoid, move, scale, turn

SIDE = turn("x", 90)  # an outline seen from the right: x forward, y up; carries the local Z axis to -Y
FRONT = turn("z", 90) @ turn("x", 90)  # an outline seen from the front: x to the left, y up
FORWARD = turn("y", 90)  # carries the local Z axis to +X
Vector = tuple[float, float, float]
Curve = list[tuple[float, float]]
Outline = tuple[tuple[float, float], ...]


def ball(name: str, material: Material, at: Vector, size: Vector, pitch_deg: float = 0.0) -> Part:
    """An ellipsoid of half-axes ``size``."""
    return Part(name, ellipsoid(1.0), material, move(*at) @ turn("y", pitch_deg) @ scale(*size))


def pair(name: str, material: Material, at: Vector, size: Vector, pitch_deg: float = 0.0) -> list[Part]:
    """Two ellipsoids, left and right."""
    x, y, z = at
    return [ball(name, material, (x, side * y, z), size, pitch_deg) for side in (-1, 1)]


def eyes(d: Draw, center: Vector, head: float, spread_deg: float = 35.0) -> list[Part]:
    """Eyes on the front of a ball-like head of radius ``head``."""
    r, a = head * d.size(0.13, 0.22), np.deg2rad(spread_deg)
    at = (center[0] + head * 0.9 * np.cos(a), head * 0.9 * np.sin(a), center[2] + head * d.size(0.2, 0.4))
    return pair("eyes", d.plain("black"), at, (r, r, r))


def standing_box(name: str, material: Material, size: Vector, x: float, y: float, low: float) -> Part:
    """A box that stands at height ``low``."""
    return Part(name, box(*size), material, move(x, y, low + size[2] / 2))


def either(d: Draw, *shapes: Shape) -> Shape:
    """`Draw.pick` for shapes of different classes."""
    return d.pick(shapes)


def placed(parts: list[Part], place: np.ndarray) -> list[Part]:
    """The parts, carried as a whole by ``place`` (4, 4)."""
    return [replace(part, place=place @ part.place) for part in parts]


def smooth(radii: Sequence[float], heights: Sequence[float], steps: int = 5) -> Curve:
    """(radius, z) points that pass softly through the given ones, from the bottom up."""
    curve: Curve = []
    for i in range(len(radii) - 1):
        for t in np.arange(steps) / steps:
            ease = t * t * (3 - 2 * t)
            curve.append((radii[i] + ease * (radii[i + 1] - radii[i]), heights[i] + t * (heights[i + 1] - heights[i])))
    return [*curve, (radii[-1], heights[-1])]


def solid(curve: Curve) -> Lathe:
    """The curve revolved, filled to the axis."""
    return Lathe(((0.0, curve[0][1]), *curve, (0.0, curve[-1][1])))


def vessel(curve: Curve, wall: float) -> Lathe:
    """A hollow vessel, open at the top, with the outer wall ``curve``."""
    floor = curve[0][1] + 1.5 * wall
    inner = [(max(r - wall, 0.01), max(z, floor)) for r, z in curve[::-1]]
    return Lathe(((0.0, curve[0][1]), *curve, *inner, (0.0, floor)))


def legs(
    d: Draw, x: float, y: float, height: float, thick: float, material: Material, name: str = "legs"
) -> list[Part]:
    """Four legs below ``height``: square posts, round posts or splayed rods."""
    style, splay = d.pick(["square", "round", "splayed"]), d.size(0.0, 0.2) * height
    parts = []
    for i, j in ((1, 1), (1, -1), (-1, 1), (-1, -1)):
        if style == "splayed":
            foot = (i * (x + splay), j * (y + splay), thick)
            parts.append(Part(name, capsule((i * x, j * y, height), foot, thick * 1.1, thick * 0.8), material))
        else:
            post = (
                box(2 * thick, 2 * thick, height) if style == "square" else cylinder(thick * 0.8, height, thick * 1.2)
            )
            parts.append(Part(name, post, material, move(i * x, j * y, height / 2)))
    return parts


def windowed_cabin(
    back: float, front: float, low: float, height: float, slopes: tuple[float, float], width: float, paint: Material,
    glass: Material,
) -> list[Part]:  # fmt: skip
    """A cabin over x in [back, front] whose ends lean in by ``slopes`` at the top, with windows all around."""

    def slice_at(t0: float, t1: float, out: float) -> tuple[tuple[float, float], ...]:
        (z0, z1), (rear, fore) = (low + t0 * height, low + t1 * height), slopes
        return (
            (back + t0 * rear - out, z0), (front - t0 * fore + out, z0),
            (front - t1 * fore + out, z1), (back + t1 * rear - out, z1),
        )  # fmt: skip

    return [
        Part("cabin", Prism(slice_at(0, 1, 0), width), paint, SIDE),
        Part("windows", Prism(slice_at(0.2, 0.82, -0.06), width + 0.03), glass, SIDE),
        Part("windows", Prism(slice_at(0.2, 0.82, 0.015), width * 0.85), glass, SIDE),
    ]


def arch(width: float, height: float) -> Outline:
    """The outline of a door with a round top, standing on y = 0."""
    r = width / 2
    rim = [(r * np.cos(a), max(height - r, 0.02) + r * np.sin(a)) for a in np.linspace(0, np.pi, 9)]
    return ((-r, 0.0), (r, 0.0), *rim)


def front_door(d: Draw, x: float, width: float, height: float, z: float = 0.0) -> Part:
    """A door whose middle is on the front at ``x``, standing on ``z``."""
    outline = d.pick(
        [arch(width, height), ((-width / 2, 0), (width / 2, 0), (width / 2, height), (-width / 2, height))]
    )
    return Part("door", Prism(outline, 0.08), d.plain("brown"), move(x, 0, z) @ FRONT)


def roof_over(d: Draw, build: str, deep: float, wide: float, rise: float, z: float, tiles: Material) -> list[Part]:
    """A roof over a deep x wide box that ends at height ``z``."""
    over = d.size(0.02, 0.1)
    deep, wide = deep + 2 * over, wide + 2 * over
    if build == "flat":
        return [standing_box("roof", tiles, (deep, wide, 0.08), 0, 0, z - 0.02)]
    if build == "hip":
        steps, shrink = 8, d.size(0.6, 1.0)
        sizes = [
            (deep * (1 - shrink * i / steps), wide * (1 - shrink * i / steps), rise / steps * 1.01)
            for i in range(steps)
        ]
        return [standing_box("roof", tiles, size, 0, 0, z - 0.01 + i * rise / steps) for i, size in enumerate(sizes)]
    half, length, place = (deep / 2, wide, SIDE) if build == "gable" else (wide / 2, deep, FRONT)
    barn = ((-half, 0), (half, 0), (half * 0.7, rise * 0.65), (0, rise), (-half * 0.7, rise * 0.65))
    outline = barn if build == "gambrel" else ((-half, 0), (half, 0), (0, rise))
    return [Part("roof", Prism(outline, length), tiles, move(z=z - 0.01) @ place)]
