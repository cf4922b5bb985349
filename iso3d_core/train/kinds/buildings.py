"""Low buildings: houses, barns, churches, wells, tents and bridges."""

from __future__ import annotations

import numpy as np

from ..draw import Draw
from ..solids import Part, Prism, box, capsule, cylinder, ellipsoid, move, turn
from .shapes import FRONT, SIDE, arch, front_door, roof_over, standing_box


def house(d: Draw) -> list[Part]:
    deep, wide, tall, rise = d.size(0.5, 1.0), d.size(0.6, 1.2), d.size(0.4, 0.9), d.size(0.2, 0.6)
    walls, tiles, x = (
        d.material("cream", period=0.2, patterned=0.2),
        d.material("red", period=0.15, patterned=0.2),
        deep / 2,
    )
    build = d.pick(["gable", "gable", "front gable", "front gable", "hip", "flat"])
    parts = [
        standing_box("walls", walls, (deep, wide, tall), 0, 0, 0),
        *roof_over(d, build, deep, wide, rise, tall, tiles),
    ]
    height = min(tall * 0.75, d.size(0.3, 0.5))
    parts.append(front_door(d, x, d.size(0.14, 0.26), height))
    glass, size, z = d.plain("sky blue"), d.size(0.1, 0.17), min(tall * 0.6, tall - 0.2)
    for y in (-1, 1):
        parts.append(
            standing_box("windows", glass, (0.08, size, size * d.size(0.8, 1.4)), x, y * wide * 0.32, z - size / 2)
        )
        if d.chance(0.6):
            parts.append(standing_box("windows", glass, (deep * 0.3, 0.08, size * 1.2), 0, y * wide / 2, z - size / 2))
    if d.chance(0.55):
        at, stack = (d.size(-0.3, 0.3) * deep, d.size(0.15, 0.35) * wide * d.pick([-1, 1])), d.size(0.1, 0.18)
        top = rise * d.size(0.8, 1.2) + 0.15
        parts.append(standing_box("chimney", d.plain("dark red"), (stack, stack, top), *at, tall - 0.05))
    if d.chance(0.25):
        side, width = d.pick([-1, 1]), d.size(0.35, 0.55)
        middle, height = side * (wide + width - 0.04) / 2, tall * d.size(0.5, 0.85)
        parts.append(standing_box("garage", d.pick([walls, d.plain()]), (deep * 0.9, width, height), -0.02, middle, 0))
        parts.append(standing_box("garage roof", tiles, (deep, width * 1.1, 0.07), 0, middle, height - 0.02))
        parts.append(
            standing_box(
                "garage door", d.plain("white"), (0.08, width * 0.7, height * 0.75), deep * 0.45 - 0.03, middle, 0
            )
        )
    return parts


def barn(d: Draw) -> list[Part]:
    deep, wide, tall, rise = d.size(0.7, 1.3), d.size(0.6, 0.9), d.size(0.35, 0.6), d.size(0.25, 0.5)
    walls, tiles, trim = d.material("red", period=0.12, patterned=0.2), d.plain("grey"), d.plain("white")
    parts = [standing_box("walls", walls, (deep, wide, tall), 0, 0, 0)]
    parts += roof_over(d, d.pick(["gambrel", "gambrel", "front gable"]), deep, wide, rise, tall, tiles)
    size = tall * d.size(0.6, 0.85)
    parts.append(standing_box("doors", trim, (0.08, size * d.size(0.8, 1.2), size), deep / 2, 0, 0))
    parts.append(standing_box("hatch", trim, (0.1, 0.14, 0.14), deep / 2 + 0.06, 0, tall + rise * 0.15))
    if d.chance(0.35):
        r, high = d.size(0.13, 0.22), tall + rise * d.size(0.8, 1.4)
        y, metal = d.pick([-1, 1]) * (wide / 2 + r * 0.85), d.material("silver", period=0.15)
        parts.append(Part("silo", cylinder(r, high), metal, move(d.size(-0.2, 0.2), y, high / 2)))
        parts.append(Part("silo roof", ellipsoid(r * 1.05, r), d.plain("grey"), move(0, 0, high / 2) @ parts[-1].place))
    return parts


def church(d: Draw) -> list[Part]:
    deep, wide, tall, rise = d.size(0.7, 1.1), d.size(0.4, 0.6), d.size(0.35, 0.6), d.size(0.25, 0.45)
    walls, tiles, metal = d.material("white", period=0.2, patterned=0.15), d.plain("grey"), d.plain("yellow")
    size, high, spire = wide * d.size(0.45, 0.75), tall + rise * d.size(0.7, 1.4), d.size(0.3, 0.8)
    x = d.pick([deep / 2, deep / 2, 0.0])
    parts = [
        standing_box("walls", walls, (deep, wide, tall), 0, 0, 0),
        *roof_over(d, "front gable", deep, wide, rise, tall, tiles),
    ]
    parts.append(standing_box("tower", d.pick([walls, d.plain()]), (size, size, high), x, 0, 0))
    if d.chance(0.65):
        parts.append(Part("spire", cylinder(size * 0.62, spire, 0.01), tiles, move(x, 0, high + spire / 2 - 0.01)))
    else:
        roof = roof_over(d, "hip", size, size, spire, high, tiles)
        parts += [Part("spire", p.shape, p.material, move(x) @ p.place) for p in roof]
    if d.chance(0.75):
        z = high + spire + 0.08
        parts.append(standing_box("cross", metal, (0.05, 0.05, 0.28), x, 0, z - 0.14))
        parts.append(standing_box("cross", metal, (0.05, 0.18, 0.05), x, 0, z + 0.02))
    glass = d.plain("blue")
    for at in np.linspace(-0.3, 0.3, d.count(2, 3)) * deep:
        parts.append(Part("windows", Prism(arch(0.12, tall * 0.6), wide + 0.06), glass, move(at, 0, tall * 0.2) @ SIDE))
    return [*parts, front_door(d, max(x + size / 2, deep / 2), size * 0.5, tall * 0.6)]


def well(d: Draw) -> list[Part]:
    r, tall, wall = d.size(0.35, 0.5), d.size(0.3, 0.5), d.size(0.06, 0.1)
    stone, wood, tiles = d.material("grey", period=0.15), d.plain("brown"), d.material("red", period=0.12)
    parts = [Part("water", cylinder(r - 0.02, tall * 0.6), d.plain("blue"), move(z=tall * 0.3))]
    sides = d.pick([24, 24, 8, 4])
    for a in np.arange(sides) * 360 / sides:
        block = box(wall * 1.5, 2.1 * r * np.tan(np.pi / sides), tall)
        parts.append(Part("walls", block, stone, turn("z", a) @ move(r, 0, tall / 2)))
    post, high, rise = d.size(0.04, 0.07), tall + d.size(0.3, 0.6), d.size(0.15, 0.35)
    for y in (-r, r):
        parts.append(standing_box("posts", wood, (2 * post, 2 * post, high), 0, y, 0))
    if d.chance(0.85):
        parts += roof_over(d, d.pick(["gable", "gable", "hip"]), 1.7 * r, 2.2 * r + 2 * post, rise, high, tiles)
    z = tall + (high - tall) * 0.6
    parts.append(Part("crank", capsule((0, -r * 1.2, z), (0, r * 1.2, z), 0.045), wood))
    if d.chance(0.7):
        parts.append(Part("rope", cylinder(0.03, 0.3), d.plain("tan"), move(z=z - 0.13)))
        parts.append(Part("bucket", cylinder(0.09, 0.16, 0.12), d.plain("brown"), move(z=z - 0.3)))
    return parts


def tent(d: Draw) -> list[Part]:
    deep, wide, tall, build = (
        d.size(0.7, 1.3),
        d.size(0.6, 1.1),
        d.size(0.45, 0.9),
        d.pick(["ridge", "ridge", "tipi", "dome"]),
    )
    cloth, pole, dark = d.material("green", period=0.2), d.plain("brown"), d.plain("black")
    half = wide / 2
    if build == "ridge":
        flap = Prism(((-half * 0.4, 0), (half * 0.4, 0), (0, tall * 0.75)), deep + 0.08)
        parts = [
            Part("canvas", Prism(((-half, 0), (half, 0), (0, tall)), deep), cloth, FRONT),
            Part("opening", flap, dark, FRONT),
        ]
        for x in (-1, 1) if d.chance(0.5) else ():
            parts.append(standing_box("poles", pole, (0.06, 0.06, tall + 0.1), x * deep / 2, 0, 0))
        return parts
    r, slope = half, d.size(0.05, 0.3)
    if build == "dome":
        body, lean, door = ellipsoid(r, tall * 0.75, 0), 20.0, tall * 0.45
    else:
        tall *= 1.4
        body, lean, door = cylinder(r, tall, 0.03), float(np.rad2deg(np.arctan2(r, tall))), tall * 0.4
    parts = [Part("canvas", body, cloth, move(z=0 if build == "dome" else tall / 2))]
    flap = Prism(((-r * 0.35, 0), (r * 0.35, 0), (r * slope, door), (-r * slope, door)), 0.1)
    parts.append(Part("opening", flap, dark, move(x=r - 0.03) @ turn("y", -lean) @ FRONT))
    for a in np.arange(d.count(3, 5)) * 72.0 if build == "tipi" else ():
        parts.append(Part("poles", capsule((0, 0, tall - 0.1), (0.1, 0, tall + 0.2), 0.03), pole, turn("z", a)))
    return parts


def bridge(d: Draw) -> list[Part]:
    half, wide, tall, deck = d.size(0.6, 0.9), d.size(0.25, 0.5), d.size(0.25, 0.5), d.size(0.06, 0.12)
    stone, road, build = (
        d.material("grey", period=0.15),
        d.plain("brown"),
        d.pick(["arch", "arch", "pillars", "suspension", "bow"]),
    )
    rail = d.pick([stone, road, d.plain()])
    parts: list[Part] = []
    if build == "bow":
        angle = np.linspace(0.15, 1, 12) * np.pi - 0.075 * np.pi
        outer = [(half * np.cos(a), tall * np.sin(a)) for a in angle]
        outline = (*outer, *[(x * 0.97, z - 1.3 * deck) for x, z in outer[::-1]])
        parts.append(Part("deck", Prism(outline, wide), stone, FRONT))
        for x in (-1, 1) if d.chance(0.7) else ():
            side = Prism((*[(y, z + 0.12) for y, z in outer], *outer[::-1]), 0.06)
            parts.append(Part("rails", side, rail, move(x=x * (wide / 2 - 0.03), z=-0.01) @ FRONT))
        return parts
    parts.append(standing_box("deck", road, (wide, 2 * half, deck), 0, 0, tall))
    if build == "arch":
        count = d.count(1, 3)
        span = 2 * half / count
        for y in (np.arange(count) - (count - 1) / 2) * span:
            hole = [(0.4 * span * np.cos(a), tall * 0.8 * np.sin(a)) for a in np.linspace(np.pi, 0, 13)]
            outline = ((-span / 2, 0), *hole, (span / 2, 0), (span / 2, tall + 0.01), (-span / 2, tall + 0.01))
            parts.append(Part("arches", Prism(outline, wide * 0.95), stone, move(y=y) @ FRONT))
    else:
        places, high = np.linspace(-0.75, 0.75, d.count(2, 4)) * half, tall
        if build == "suspension":
            places, high = np.array([-0.5, 0.5]) * half, tall * d.size(2.2, 3.2)
        for x in (-1, 1):
            parts += [standing_box("pillars", stone, (0.1, 0.12, high), x * wide * 0.45, y, 0) for y in places]
            for y in places if build == "suspension" else ():
                for end in (0, np.sign(y) * half):
                    points = (x * wide * 0.45, y, high - 0.05), (x * wide * 0.45, end, tall + deck)
                    parts.append(Part("cables", capsule(*points, 0.03), rail))
    for x in (-1, 1) if build != "suspension" and d.chance(0.7) else ():
        parts.append(
            standing_box(
                "rails", rail, (0.06, 2 * half, d.size(0.08, 0.16)), x * (wide / 2 - 0.03), 0, tall + deck - 0.01
            )
        )
    return parts
