"""Buildings that are mostly tower: towers, castles, lighthouses and windmills."""

from __future__ import annotations

import numpy as np

from ..draw import Draw
from ..solids import Material, Part, Prism, box, capsule, cylinder, ellipsoid, move, turn
from .shapes import either, front_door, placed, roof_over, standing_box


def _battlements(d: Draw, radius: float, z: float, stone: Material) -> list[Part]:
    """Merlons on a ring."""
    count, size = d.count(5, 8), radius * d.size(0.35, 0.5)
    block = box(size * 0.8, size, size * 1.3)
    return [
        Part("battlements", block, stone, move(z=z + size * 0.5) @ turn("z", a) @ move(x=radius - size * 0.35))
        for a in np.arange(count) * 360 / count
    ]


def tower(d: Draw) -> list[Part]:
    r, tall, taper, stone = d.size(0.15, 0.3), d.size(0.8, 1.4), d.size(0.65, 1.05), d.material("grey", period=0.2)
    tiles, build = d.material("red", period=0.12, patterned=0.2), d.pick(["round", "round", "square", "pagoda"])
    top, z = r * taper, 0.0
    if build == "pagoda":
        parts, floors, first = [], d.count(2, 5), r
        for _ in range(floors):
            parts.append(standing_box("walls", stone, (2 * r, 2 * r, tall / floors), 0, 0, z))
            z += tall / floors
            parts += roof_over(d, "hip", 2.3 * r, 2.3 * r, tall / floors * 0.5, z - 0.04, tiles)
            r *= d.size(0.75, 0.95)
        return [*parts, front_door(d, first, 0.15, tall / floors * 0.7)]
    shape = box(2 * r, 2 * r, tall) if build == "square" else cylinder(r, tall, top)
    top, z, parts = r if build == "square" else top, tall, [Part("walls", shape, stone, move(z=tall / 2))]
    if d.chance(0.4):
        wider, rim = top * d.size(1.15, 1.4), d.size(0.1, 0.25)
        ledge = box(2 * wider, 2 * wider, rim) if build == "square" else cylinder(top, rim, wider)
        parts.append(Part("ledge", ledge, d.pick([stone, d.plain()]), move(z=tall)))
        top, z = wider, tall + rim / 2
    roof, rise = d.pick(["cone", "cone", "dome", "battlements", "hip"]), d.size(0.25, 0.6)
    if roof == "battlements":
        parts += _battlements(d, top, z, stone)
    elif roof == "hip" and build == "square":
        parts += roof_over(d, "hip", 2 * top, 2 * top, rise, z, tiles)
    else:
        wide = top * d.size(1.05, 1.35) * (1.3 if build == "square" else 1.0)
        shape = ellipsoid(wide, rise * 0.8, 0) if roof == "dome" else cylinder(wide, rise, 0.01)
        parts.append(Part("roof", shape, tiles, move(z=z - 0.01 + (0 if roof == "dome" else rise / 2))))
    glass, size = d.plain("black"), r * d.size(0.4, 0.6)
    for height in np.linspace(0.4, 0.8, d.count(1, 3)) * tall:
        x = r if build == "square" else r + (r * taper - r) * (height + size / 2) / tall
        parts.append(standing_box("windows", glass, (0.08, size, size * 1.5), x, 0, height))
    return [*parts, front_door(d, r - 0.01, r * d.size(0.6, 0.9), tall * d.size(0.15, 0.25))]


def castle(d: Draw) -> list[Part]:
    size, tall, r, high = d.size(0.4, 0.6), d.size(0.3, 0.55), d.size(0.11, 0.19), d.size(0.5, 0.9)
    stone = d.material("grey", period=0.15, patterned=0.2)
    towers, tiles, deep = d.pick([stone, stone, d.plain()]), d.plain("red"), size * d.size(0.7, 1.1)
    roofed, rise, square = d.chance(0.55), d.size(0.2, 0.45), d.chance(0.3)
    parts = [standing_box("walls", stone, (2 * deep, 2 * size, tall), 0, 0, 0)]
    corners = [(x, y, r, high) for x in (-deep, deep) for y in (-size, size)]
    if d.chance(0.6):
        corners.append((-deep * 0.3, 0.0, r * d.size(1.2, 1.9), high * d.size(1.1, 1.5)))
    for x, y, radius, top in corners:
        shape = box(radius * 1.8, radius * 1.8, top) if square else cylinder(radius, top, radius * 0.95)
        parts.append(Part("towers", shape, towers, move(x, y, top / 2)))
        if roofed:
            parts.append(Part("roofs", cylinder(radius * 1.3, rise, 0.01), tiles, move(x, y, top + rise / 2 - 0.01)))
        elif square:
            for a, b in ((1, 1), (1, -1), (-1, 1), (-1, -1)):
                cube = (radius * 0.6,) * 3
                parts.append(
                    standing_box("battlements", towers, cube, x + a * radius * 0.6, y + b * radius * 0.6, top - 0.02)
                )
        else:
            parts += placed(_battlements(d, radius, top, towers), move(x, y))
    for y in np.linspace(-0.6, 0.6, d.count(3, 5)) * size:
        parts += [
            standing_box("battlements", stone, (0.1, 0.1, 0.12), x * (deep - 0.05), y, tall - 0.02) for x in (-1, 1)
        ]
    return [*parts, front_door(d, deep, size * d.size(0.4, 0.6), tall * d.size(0.55, 0.85))]


def lighthouse(d: Draw) -> list[Part]:
    r, tall, top = d.size(0.18, 0.32), d.size(0.8, 1.5), d.size(0.1, 0.17)
    rings = Material(d.near("white"), d.near("red"), "rings", tall / d.count(3, 8))
    walls, iron, cap = d.pick([rings, rings, d.material("white", period=0.2)]), d.plain("black"), d.plain("red")
    lamp, rise = d.size(0.12, 0.25), d.size(0.1, 0.25)
    parts = [Part("tower", cylinder(r, tall, top), walls, move(z=tall / 2))]
    parts.append(Part("gallery", cylinder(top * d.size(1.2, 1.6), 0.07), iron, move(z=tall)))
    parts.append(Part("lamp", cylinder(top * 0.7, lamp), d.plain("yellow"), move(z=tall + lamp / 2)))
    roof = d.pick([cylinder(top * d.size(0.9, 1.2), rise, 0.01), ellipsoid(top * 0.95, rise * 0.7)])
    parts.append(Part("roof", roof, cap, move(z=tall + lamp + rise * 0.3)))
    base = r * d.size(1.2, 2.0)
    if d.chance(0.6):
        rock = d.pick([ellipsoid(base, d.size(0.1, 0.25), 0), cylinder(base, 0.12, base * 0.8)])
        parts.append(Part("base", rock, d.plain("grey"), move(z=-0.02)))
    elif d.chance(0.4):
        parts += [standing_box("house", walls, (r * 1.6, r * 3, 0.25), 0, r * 1.5, 0)]
    windows = [
        standing_box("windows", iron, (0.08, 0.08, 0.1), r + (top - r) * z - 0.02, 0, z * tall) for z in (0.45, 0.7)
    ]
    return [*parts, *windows[: d.count(0, 2)], front_door(d, r - 0.03, r * 0.7, tall * 0.2)]


def windmill(d: Draw) -> list[Part]:
    r, tall, top, span = d.size(0.22, 0.38), d.size(0.7, 1.2), d.size(0.14, 0.22), d.size(0.4, 0.75)
    walls, cloth, wood = d.material("white", period=0.2), d.material("cream", period=0.12), d.plain("brown")
    body = either(d, cylinder(r, tall, top), cylinder(r, tall, top), box(2 * top, 2 * top, tall))
    cap = d.pick([ellipsoid(top * 1.15, d.size(0.15, 0.3), 0), cylinder(top * 1.2, 0.35, 0.02)])
    lift = 0.0 if len(cap.profile) > 6 else 0.17
    parts = [Part("body", body, walls, move(z=tall / 2)), Part("cap", cap, d.plain("red"), move(z=tall + lift - 0.01))]
    hub = move(top + 0.1, 0, tall * d.size(0.88, 1.0))
    parts.append(Part("hub", capsule((-top, 0, 0), (0.03, 0, 0), 0.06), wood, hub))
    start, wide = d.size(0, 90), d.size(0.12, 0.22)
    for angle in np.arange(4) * 90 + start:
        place = hub @ turn("x", angle)
        parts.append(Part("blades", box(0.05, wide, span * 0.8), cloth, place @ move(z=span * 0.58)))
        parts.append(Part("arms", box(0.06, 0.06, span), wood, place @ move(z=span / 2)))
    front = top if isinstance(body, Prism) else r
    return [*parts, front_door(d, front - 0.03, r * 0.7, tall * d.size(0.2, 0.35))]
