"""Kinds that are built: houses, towers, bridges and tents."""

from __future__ import annotations

import numpy as np

from ..draw import Draw
from ..solids import Material, Part, Prism, Shape, box, capsule, cylinder, ellipsoid, move, turn

SIDE = turn("x", 90)  # an outline seen from the right: x forward, y up
FRONT = turn("z", 90) @ turn("x", 90)  # an outline seen from the front: x to the left, y up
Outline = tuple[tuple[float, float], ...]


def _box(name: str, material: Material, size: tuple[float, float, float], x: float, y: float, low: float) -> Part:
    """A box that stands at height ``low``."""
    return Part(name, box(*size), material, move(x, y, low + size[2] / 2))


def _either(d: Draw, *shapes: Shape) -> Shape:
    return d.pick(shapes)


def _arch(width: float, height: float) -> Outline:
    """The outline of a door with a round top, standing on y = 0."""
    r = width / 2
    rim = [(r * np.cos(a), max(height - r, 0.02) + r * np.sin(a)) for a in np.linspace(0, np.pi, 9)]
    return ((-r, 0.0), (r, 0.0), *rim)


def _door(d: Draw, x: float, width: float, height: float, z: float = 0.0) -> Part:
    outline = d.pick(
        [_arch(width, height), ((-width / 2, 0), (width / 2, 0), (width / 2, height), (-width / 2, height))]
    )
    return Part("door", Prism(outline, 0.08), d.plain("brown"), move(x, 0, z) @ FRONT)


def _roof(d: Draw, build: str, deep: float, wide: float, rise: float, z: float, tiles: Material) -> list[Part]:
    """A roof over a deep x wide box that ends at height ``z``."""
    over = d.size(0.02, 0.1)
    deep, wide = deep + 2 * over, wide + 2 * over
    if build == "flat":
        return [_box("roof", tiles, (deep, wide, 0.08), 0, 0, z - 0.02)]
    if build == "hip":
        steps, shrink = 8, d.size(0.6, 1.0)
        sizes = [
            (deep * (1 - shrink * i / steps), wide * (1 - shrink * i / steps), rise / steps * 1.01)
            for i in range(steps)
        ]
        return [_box("roof", tiles, size, 0, 0, z - 0.01 + i * rise / steps) for i, size in enumerate(sizes)]
    half, length, place = (deep / 2, wide, SIDE) if build == "gable" else (wide / 2, deep, FRONT)
    barn = ((-half, 0), (half, 0), (half * 0.7, rise * 0.65), (0, rise), (-half * 0.7, rise * 0.65))
    outline = barn if build == "gambrel" else ((-half, 0), (half, 0), (0, rise))
    return [Part("roof", Prism(outline, length), tiles, move(z=z - 0.01) @ place)]


def _battlements(d: Draw, radius: float, z: float, stone: Material) -> list[Part]:
    """Merlons on a ring."""
    count, size = d.count(5, 8), radius * d.size(0.35, 0.5)
    block = box(size * 0.8, size, size * 1.3)
    return [
        Part("battlements", block, stone, move(z=z + size * 0.5) @ turn("z", a) @ move(x=radius - size * 0.35))
        for a in np.arange(count) * 360 / count
    ]


def _windows(d: Draw, x: float, wide: float, low: float, high: float) -> list[Part]:
    """Rows of windows on the front at ``x``."""
    glass, rows, columns = d.plain("sky blue"), d.count(1, 3), d.count(1, 3)
    tall, broad = (high - low) / rows * d.size(0.4, 0.65), wide / columns * d.size(0.35, 0.6)
    return [
        _box("windows", glass, (0.08, broad, tall), x, (j - (columns - 1) / 2) * wide / columns, z)
        for z in low + (np.arange(rows) + 0.2) * (high - low) / rows
        for j in range(columns)
    ]


def house(d: Draw) -> list[Part]:
    deep, wide, tall, rise = d.size(0.5, 1.0), d.size(0.6, 1.2), d.size(0.4, 0.9), d.size(0.2, 0.6)
    walls, tiles, x = (
        d.material("cream", period=0.2, patterned=0.2),
        d.material("red", period=0.15, patterned=0.2),
        deep / 2,
    )
    build = d.pick(["gable", "gable", "front gable", "front gable", "hip", "flat"])
    parts = [_box("walls", walls, (deep, wide, tall), 0, 0, 0), *_roof(d, build, deep, wide, rise, tall, tiles)]
    height = min(tall * 0.75, d.size(0.3, 0.5))
    parts.append(_door(d, x, d.size(0.14, 0.26), height))
    glass, size, z = d.plain("sky blue"), d.size(0.1, 0.17), min(tall * 0.6, tall - 0.2)
    for y in (-1, 1):
        parts.append(_box("windows", glass, (0.08, size, size * d.size(0.8, 1.4)), x, y * wide * 0.32, z - size / 2))
        if d.chance(0.6):
            parts.append(_box("windows", glass, (deep * 0.3, 0.08, size * 1.2), 0, y * wide / 2, z - size / 2))
    if d.chance(0.55):
        at, stack = (d.size(-0.3, 0.3) * deep, d.size(0.15, 0.35) * wide * d.pick([-1, 1])), d.size(0.1, 0.18)
        top = rise * d.size(0.8, 1.2) + 0.15
        parts.append(_box("chimney", d.plain("dark red"), (stack, stack, top), *at, tall - 0.05))
    if d.chance(0.25):
        side, width = d.pick([-1, 1]), d.size(0.35, 0.55)
        middle, height = side * (wide + width - 0.04) / 2, tall * d.size(0.5, 0.85)
        parts.append(_box("garage", d.pick([walls, d.plain()]), (deep * 0.9, width, height), -0.02, middle, 0))
        parts.append(_box("garage roof", tiles, (deep, width * 1.1, 0.07), 0, middle, height - 0.02))
        parts.append(
            _box("garage door", d.plain("white"), (0.08, width * 0.7, height * 0.75), deep * 0.45 - 0.03, middle, 0)
        )
    return parts


def tower(d: Draw) -> list[Part]:
    r, tall, taper, stone = d.size(0.15, 0.3), d.size(0.8, 1.4), d.size(0.65, 1.05), d.material("grey", period=0.2)
    tiles, build = d.material("red", period=0.12, patterned=0.2), d.pick(["round", "round", "square", "pagoda"])
    top, z = r * taper, 0.0
    if build == "pagoda":
        parts, floors, first = [], d.count(2, 5), r
        for _ in range(floors):
            parts.append(_box("walls", stone, (2 * r, 2 * r, tall / floors), 0, 0, z))
            z += tall / floors
            parts += _roof(d, "hip", 2.3 * r, 2.3 * r, tall / floors * 0.5, z - 0.04, tiles)
            r *= d.size(0.75, 0.95)
        return [*parts, _door(d, first, 0.15, tall / floors * 0.7)]
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
        parts += _roof(d, "hip", 2 * top, 2 * top, rise, z, tiles)
    else:
        wide = top * d.size(1.05, 1.35) * (1.3 if build == "square" else 1.0)
        shape = ellipsoid(wide, rise * 0.8, 0) if roof == "dome" else cylinder(wide, rise, 0.01)
        parts.append(Part("roof", shape, tiles, move(z=z - 0.01 + (0 if roof == "dome" else rise / 2))))
    glass, size = d.plain("black"), r * d.size(0.4, 0.6)
    for height in np.linspace(0.4, 0.8, d.count(1, 3)) * tall:
        x = r if build == "square" else r + (r * taper - r) * (height + size / 2) / tall
        parts.append(_box("windows", glass, (0.08, size, size * 1.5), x, 0, height))
    return [*parts, _door(d, r - 0.01, r * d.size(0.6, 0.9), tall * d.size(0.15, 0.25))]


def castle(d: Draw) -> list[Part]:
    size, tall, r, high = d.size(0.4, 0.6), d.size(0.3, 0.55), d.size(0.11, 0.19), d.size(0.5, 0.9)
    stone = d.material("grey", period=0.15, patterned=0.2)
    towers, tiles, deep = d.pick([stone, stone, d.plain()]), d.plain("red"), size * d.size(0.7, 1.1)
    roofed, rise, square = d.chance(0.55), d.size(0.2, 0.45), d.chance(0.3)
    parts = [_box("walls", stone, (2 * deep, 2 * size, tall), 0, 0, 0)]
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
                parts.append(_box("battlements", towers, cube, x + a * radius * 0.6, y + b * radius * 0.6, top - 0.02))
        else:
            parts += [
                Part("battlements", p.shape, p.material, move(x, y) @ p.place)
                for p in _battlements(d, radius, top, towers)
            ]
    for y in np.linspace(-0.6, 0.6, d.count(3, 5)) * size:
        parts += [_box("battlements", stone, (0.1, 0.1, 0.12), x * (deep - 0.05), y, tall - 0.02) for x in (-1, 1)]
    return [*parts, _door(d, deep, size * d.size(0.4, 0.6), tall * d.size(0.55, 0.85))]


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
        parts += [_box("house", walls, (r * 1.6, r * 3, 0.25), 0, r * 1.5, 0)]
    windows = [_box("windows", iron, (0.08, 0.08, 0.1), r + (top - r) * z - 0.02, 0, z * tall) for z in (0.45, 0.7)]
    return [*parts, *windows[: d.count(0, 2)], _door(d, r - 0.03, r * 0.7, tall * 0.2)]


def windmill(d: Draw) -> list[Part]:
    r, tall, top, span = d.size(0.22, 0.38), d.size(0.7, 1.2), d.size(0.14, 0.22), d.size(0.4, 0.75)
    walls, cloth, wood = d.material("white", period=0.2), d.material("cream", period=0.12), d.plain("brown")
    body = _either(d, cylinder(r, tall, top), cylinder(r, tall, top), box(2 * top, 2 * top, tall))
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
    return [*parts, _door(d, front - 0.03, r * 0.7, tall * d.size(0.2, 0.35))]


def barn(d: Draw) -> list[Part]:
    deep, wide, tall, rise = d.size(0.7, 1.3), d.size(0.6, 0.9), d.size(0.35, 0.6), d.size(0.25, 0.5)
    walls, tiles, trim = d.material("red", period=0.12, patterned=0.2), d.plain("grey"), d.plain("white")
    parts = [_box("walls", walls, (deep, wide, tall), 0, 0, 0)]
    parts += _roof(d, d.pick(["gambrel", "gambrel", "front gable"]), deep, wide, rise, tall, tiles)
    size = tall * d.size(0.6, 0.85)
    parts.append(_box("doors", trim, (0.08, size * d.size(0.8, 1.2), size), deep / 2, 0, 0))
    parts.append(_box("hatch", trim, (0.1, 0.14, 0.14), deep / 2 + 0.06, 0, tall + rise * 0.15))
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
    parts = [_box("walls", walls, (deep, wide, tall), 0, 0, 0), *_roof(d, "front gable", deep, wide, rise, tall, tiles)]
    parts.append(_box("tower", d.pick([walls, d.plain()]), (size, size, high), x, 0, 0))
    if d.chance(0.65):
        parts.append(Part("spire", cylinder(size * 0.62, spire, 0.01), tiles, move(x, 0, high + spire / 2 - 0.01)))
    else:
        roof = _roof(d, "hip", size, size, spire, high, tiles)
        parts += [Part("spire", p.shape, p.material, move(x) @ p.place) for p in roof]
    if d.chance(0.75):
        z = high + spire + 0.08
        parts.append(_box("cross", metal, (0.05, 0.05, 0.28), x, 0, z - 0.14))
        parts.append(_box("cross", metal, (0.05, 0.18, 0.05), x, 0, z + 0.02))
    glass = d.plain("blue")
    for at in np.linspace(-0.3, 0.3, d.count(2, 3)) * deep:
        parts.append(
            Part("windows", Prism(_arch(0.12, tall * 0.6), wide + 0.06), glass, move(at, 0, tall * 0.2) @ SIDE)
        )
    return [*parts, _door(d, max(x + size / 2, deep / 2), size * 0.5, tall * 0.6)]


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
        parts.append(_box("posts", wood, (2 * post, 2 * post, high), 0, y, 0))
    if d.chance(0.85):
        parts += _roof(d, d.pick(["gable", "gable", "hip"]), 1.7 * r, 2.2 * r + 2 * post, rise, high, tiles)
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
            parts.append(_box("poles", pole, (0.06, 0.06, tall + 0.1), x * deep / 2, 0, 0))
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
    parts.append(_box("deck", road, (wide, 2 * half, deck), 0, 0, tall))
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
            parts += [_box("pillars", stone, (0.1, 0.12, high), x * wide * 0.45, y, 0) for y in places]
            for y in places if build == "suspension" else ():
                for end in (0, np.sign(y) * half):
                    points = (x * wide * 0.45, y, high - 0.05), (x * wide * 0.45, end, tall + deck)
                    parts.append(Part("cables", capsule(*points, 0.03), rail))
    for x in (-1, 1) if build != "suspension" and d.chance(0.7) else ():
        parts.append(
            _box("rails", rail, (0.06, 2 * half, d.size(0.08, 0.16)), x * (wide / 2 - 0.03), 0, tall + deck - 0.01)
        )
    return parts


KINDS = {
    "house": house, "tower": tower, "castle": castle, "lighthouse": lighthouse, "windmill": windmill,
    "barn": barn, "church": church, "well": well, "tent": tent, "bridge": bridge,
}  # fmt: skip
