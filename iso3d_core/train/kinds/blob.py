"""`blob`: a heap of any solids at all, for objects that are of no other kind."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from ..draw import Draw
from ..solids import (
    Lathe,
    Part,
    Prism,
    Shape,
    Tube,
    arc,
    box,
    capsule,
    cylinder,
    ellipsoid,
    move,
    regular_polygon,
    scale,
    star_polygon,
    torus,
    turn,
)
from .shapes import either, placed


def _primitive(d: Draw, size: float) -> Shape:
    """Any solid about ``size`` from the middle to its ends."""
    a, b, c = (size * d.size(0.25, 1.0) for _ in range(3))
    bent = tuple((d.size(-size, size), d.size(-size, size), d.size(-size, size)) for _ in range(d.count(2, 4)))
    rim = np.sort(d.rng.uniform(-size, size, d.count(3, 6)))
    turned = ((0.0, float(rim[0])), *[(size * d.size(0.2, 0.9), float(z)) for z in rim], (0.0, float(rim[-1]) + 0.02))
    return either(
        d,
        box(2 * a, 2 * b, 2 * c),
        ellipsoid(a, b),
        ellipsoid(size * 0.8),
        ellipsoid(a, b, d.size(-30, 20)),
        cylinder(a, 2 * b),
        cylinder(a, 2 * b, a * d.size(0.02, 0.8)),
        torus(size * 0.75, size * d.size(0.15, 0.35)),
        Lathe(turned),
        capsule((0, 0, -b), (0, 0, b), a * 0.5, c * 0.4),
        Tube(bent, tuple(size * d.size(0.15, 0.4) for _ in bent)),
        arc(size * 0.8, size * d.size(0.12, 0.3), 0, d.size(60, 320)),
        Prism(regular_polygon(d.count(3, 8), a, d.size(0, 90)), b),
        Prism(star_polygon(d.count(4, 7), size, size * d.size(0.35, 0.7)), b),
    )


def _anchor(d: Draw, part: Part) -> np.ndarray:
    """A point (3,) a little below the surface of a part."""
    mesh = part.mesh()
    i = d.count(0, len(mesh.vertices) - 1)
    return mesh.vertices[i] - 0.04 * mesh.vertex_normals[i]


def blob(d: Draw) -> list[Part]:
    parts: list[Part] = []
    shared, mirrored = d.material(period=0.2), d.chance(0.3)
    for i in range(d.count(2, 7)):
        size = d.size(0.3, 0.6) * (1.0 if i == 0 else d.size(0.4, 1.0))
        shape = ellipsoid(size * 0.8, size * d.size(0.3, 1.0)) if mirrored and not parts else _primitive(d, size)
        place = scale(*(d.size(0.6, 1.2) for _ in range(3)))
        material = shared if d.chance(0.25) else d.material(period=size * 0.5)
        if d.chance(0.7) and (parts or not mirrored):
            place = turn("z", d.size(0, 360)) @ turn("x", d.pick([0, 90, d.size(0, 180)])) @ place
        part = Part(f"part {i + 1}", shape, material, place)
        if parts:
            part = replace(part, place=move(*(_anchor(d, d.pick(parts)) - _anchor(d, part))) @ place)
        parts.append(part)
    return parts + placed(parts[1:], scale(1, -1, 1)) if mirrored else parts
