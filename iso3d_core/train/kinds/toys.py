"""Toys: drums, spinning tops, stacked blocks, rings on a pole and balls."""

from __future__ import annotations

import numpy as np

from ..draw import Draw
from ..solids import Lathe, Part, Prism, Shape, box, capsule, cylinder, ellipsoid, move, regular_polygon, torus, turn
from .shapes import SIDE, either, placed


def drum(d: Draw) -> list[Part]:
    r, tall, top = d.size(0.35, 0.55), d.size(0.3, 0.9), d.size(0.75, 1.1)
    shell, skin, rim = d.material("red", period=0.15), d.plain("cream"), d.plain("yellow")
    parts = [
        Part("shell", cylinder(r * top, tall, r), shell),
        Part("skin", cylinder(r * 0.97, 0.05), skin, move(z=tall / 2)),
    ]
    parts.append(Part("rims", torus(r, 0.04), rim, move(z=tall / 2)))
    parts.append(Part("rims", torus(r * top, 0.04), rim, move(z=-tall / 2)))
    for y in (-1, 1) if d.chance(0.6) else ():
        stick = move(0, y * r * 0.35, tall / 2 + 0.08) @ turn("z", d.size(-40, 40)) @ turn("y", d.size(-8, 0))
        parts.append(Part("sticks", capsule((-r * 1.2, 0, 0), (r * 0.9, 0, 0), 0.04), rim, stick))
        parts.append(Part("sticks", ellipsoid(0.07), rim, stick @ move(x=r * 0.9)))
    return placed(parts, turn("y", d.pick([0, 0, 0, 90])))


def spinning_top(d: Draw) -> list[Part]:
    r, low, high, tip = d.size(0.35, 0.55), d.size(0.25, 0.5), d.size(0.05, 0.35), d.size(0.2, 0.5)
    paint = d.material(period=0.12, patterned=0.6)
    profile = (
        (0, -low),
        (0.05, -low),
        (r * d.size(0.4, 0.9), -low * 0.45),
        (r, 0),
        (r * d.size(0.5, 1), high),
        (0, high),
    )
    parts = [
        Part("body", Lathe(profile), paint),
        Part("handle", cylinder(0.05, tip + high, d.size(0.035, 0.07)), d.plain(), move(z=tip / 2 + high / 2)),
    ]
    parts.append(Part("knob", ellipsoid(d.size(0.06, 0.12)), d.plain(), move(z=tip + high)))
    if d.chance(0.4):
        parts.append(Part("band", torus(r, 0.05), d.plain()))
    return placed(parts, turn("y", d.pick([0, 0, 0, d.size(10, 60)])))


def stacked_blocks(d: Draw) -> list[Part]:
    z, size = 0.0, d.size(0.3, 0.5)
    parts: list[Part] = []
    for i in range(d.count(2, 5)):
        tall, wide, deep = d.size(0.15, 0.45), size * d.size(0.7, 1.3), size * d.size(0.7, 1.3)
        shape = either(
            d,
            box(deep, wide, tall),
            box(deep, wide, tall),
            cylinder(wide / 2, tall),
            Prism(regular_polygon(6, wide / 2), tall),
        )
        place = move(d.size(-0.08, 0.08), d.size(-0.08, 0.08), z + tall / 2) @ turn("z", d.pick([0, d.size(0, 90)]))
        parts.append(Part(f"block {i + 1}", shape, d.material(period=0.12), place))
        z += tall - 0.005
    top, rise = d.pick(["none", "cone", "ball", "roof"]), size * d.size(0.5, 0.9)
    if top != "none":
        half = size * 0.45
        wedge = Prism(((-half, 0), (half, 0), (0, rise)), size)
        tops: dict[str, tuple[Shape, np.ndarray]] = {
            "cone": (cylinder(half, rise, 0.01), move(z=z + rise / 2)),
            "ball": (ellipsoid(half), move(z=z + half * 0.95)),
            "roof": (wedge, move(z=z) @ SIDE),
        }
        parts.append(Part("top", tops[top][0], d.material(period=0.12), tops[top][1]))
    return parts


def pyramid_rings(d: Draw) -> list[Part]:
    count, r, z, tube = d.count(3, 6), d.size(0.4, 0.6), 0.06, d.size(0.07, 0.13)
    small, flat, wood = r * d.size(0.3, 0.6), d.chance(0.3), d.plain("tan")
    parts = [Part("base", cylinder(r * d.size(0.8, 1.3), 0.1), wood)]
    for i, radius in enumerate(np.linspace(r, small, count)):
        shape = cylinder(radius, 2 * tube, radius * 0.95) if flat else torus(max(radius - tube, tube * 0.9), tube)
        parts.append(Part(f"ring {i + 1}", shape, d.material(period=0.06, patterned=0.15), move(z=z + tube * 0.95)))
        z += 2 * tube * (1.0 if flat else 0.9)
    core = cylinder(max(r - 1.6 * tube, 0.06), z - 0.06, max(small - 1.6 * tube, 0.06))  # joins rings of any size
    parts.append(Part("core", core, wood, move(z=z / 2 + 0.03)))
    parts.append(Part("pole", cylinder(d.size(0.06, 0.1), z + 0.1), wood, move(z=z / 2 + 0.05)))
    return [*parts, Part("ball", ellipsoid(d.size(0.1, 0.2)), d.plain(), move(z=z + 0.12))]


def ball(d: Draw) -> list[Part]:
    tilt = turn("x", d.size(0, 90)) @ turn("y", d.size(0, 90))
    parts = [
        Part(
            "ball",
            ellipsoid(0.5, 0.5 * d.pick([1.0, 1.0, d.size(0.8, 1.5)])),
            d.material(period=0.25, patterned=0.75),
            tilt,
        )
    ]
    build, color = d.pick(["plain", "plain", "band", "spots", "handle"]), d.plain()
    if build == "band":
        parts.append(Part("band", torus(0.49, d.size(0.03, 0.06)), color, tilt))
    elif build == "spots":
        for z in np.linspace(-0.9, 0.9, d.count(8, 16)):
            place = tilt @ turn("z", 137.5 * z * 7) @ move(0.47 * np.sqrt(1 - z * z), 0, 0.47 * z)
            parts.append(Part("spots", ellipsoid(d.size(0.08, 0.13)), color, place))
    elif build == "handle":
        parts.append(Part("handle", torus(0.14, 0.045), color, move(z=0.58) @ SIDE))
    return parts
