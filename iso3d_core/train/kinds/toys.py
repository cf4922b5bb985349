"""Kinds from the toy box and the party table, and `blob`: anything at all."""

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
)  # fmt: skip

SIDE = turn("x", 90)  # an outline seen from the right: x forward, y up
FRONT = turn("z", 90) @ turn("x", 90)  # an outline seen from the front: x to the left, y up


def _either(d: Draw, *shapes: Shape) -> Shape:
    return d.pick(shapes)


def _turned(parts: list[Part], place: np.ndarray) -> list[Part]:
    return [replace(part, place=place @ part.place) for part in parts]


def _lying(d: Draw, parts: list[Part], upright: float) -> list[Part]:
    """Things drawn along Z: upright with that probability, else lying in any direction or leaning."""
    if d.chance(upright):
        return parts
    return _turned(
        parts, turn("z", d.pick([0, 90, 180, 270, d.size(0, 360)])) @ turn("y", d.pick([90, 90, d.size(20, 90)]))
    )


def dumbbell(d: Draw) -> list[Part]:
    half, bar, r, thick = d.size(0.25, 0.5), d.size(0.05, 0.1), d.size(0.18, 0.4), d.size(0.1, 0.3)
    iron, grip = d.material("black", period=0.1), d.plain("silver")
    build, discs = d.pick(["discs", "balls", "hexagons"]), d.count(1, 2)
    parts = [Part("bar", cylinder(bar, 2 * half + thick * 1.5), grip)]
    for side in (-1, 1):
        if build == "balls":
            parts.append(Part("ends", ellipsoid(r), iron, move(z=side * (half + r * 0.6))))
        else:
            for i in range(discs):
                radius, at = r * 0.75**i, side * (half + i * thick)
                disc = (
                    cylinder(radius, thick * 1.02)
                    if build == "discs"
                    else Prism(regular_polygon(6, radius), thick * 1.02)
                )
                parts.append(Part("ends", disc, iron, move(z=at)))
            if discs == 2:
                parts[0] = Part("bar", cylinder(bar, 2 * half + thick * 3.5), grip)
    return _turned(parts, turn("z", d.pick([0, 0, 0, 90, d.size(-90, 90)])) @ turn("x", 90))


def cake(d: Draw) -> list[Part]:
    if d.chance(0.2):
        return _slice(d)
    r, z, square, icing = d.size(0.4, 0.6), 0.0, d.chance(0.15), d.plain("white")
    sponge, same = d.material("pink", period=0.1), d.chance(0.5)
    parts: list[Part] = []
    if d.chance(0.4):
        parts.append(Part("plate", cylinder(r * d.size(1.1, 1.4), 0.06), d.plain("white")))
    for _ in range(d.count(1, 3)):
        tall = d.size(0.18, 0.4)
        shape = box(1.7 * r, 1.7 * r, tall) if square else cylinder(r, tall)
        parts.append(Part("tiers", shape, sponge if same else d.material("pink", period=0.1), move(z=z + tall / 2)))
        z, top = z + tall, r
        if not square and d.chance(0.7):
            parts.append(Part("icing", cylinder(r * 1.04, tall * d.size(0.15, 0.4)), icing, move(z=z - tall * 0.1)))
        r *= d.size(0.55, 0.75)
    topping, color, flame = (
        d.pick(["candles", "candles", "cherries", "cherry", "none"]),
        d.material("red", period=0.06),
        d.plain("yellow"),
    )
    count, ring, tall = d.count(1, 7), top * d.size(0.5, 0.75), d.size(0.15, 0.3)
    for a in np.arange(count) * 360 / count:
        place = move(z=z) if count == 1 else turn("z", a) @ move(ring, 0, z)
        if topping == "candles":
            parts.append(Part("candles", cylinder(0.04, tall), color, place @ move(z=tall / 2)))
            parts.append(Part("flames", ellipsoid(0.04, 0.07), flame, place @ move(z=tall + 0.05)))
        elif topping == "cherries":
            parts.append(Part("cherries", ellipsoid(d.size(0.06, 0.09)), color, place @ move(z=0.06)))
    if topping == "cherry":
        parts.append(Part("cherry", ellipsoid(top * 0.25), color, move(z=z + top * 0.2)))
    return parts


def _slice(d: Draw) -> list[Part]:
    length, angle, layers, z = d.size(0.7, 1.0), np.deg2rad(d.size(14, 30)), d.count(2, 5), 0.0
    outline = (
        (-length / 2, 0.0),
        *[(length * np.cos(a) - length / 2, length * np.sin(a)) for a in np.linspace(-angle, angle, 6)],
    )
    materials = [d.plain("tan"), d.plain("cream")]
    parts = []
    for i in range(layers):
        tall = d.size(0.08, 0.2)
        parts.append(
            Part("cream" if i % 2 else "sponge", Prism(outline, tall * 1.02), materials[i % 2], move(z=z + tall / 2))
        )
        z += tall
    return [*parts, Part("cherry", ellipsoid(d.size(0.08, 0.13)), d.plain("red"), move(length * 0.2, 0, z + 0.05))]


def gift(d: Draw) -> list[Part]:
    x, y, z, band = d.size(0.4, 0.9), d.size(0.4, 0.9), d.size(0.25, 0.9), d.size(0.07, 0.16)
    ribbon, paper = d.plain("yellow"), d.material("red", period=0.15)
    parts = [Part("box", box(x, y, z), paper)]
    if d.chance(0.5):
        lid = min(z * 0.3, 0.15)
        parts.append(Part("lid", box(x * 1.08, y * 1.08, lid), d.pick([paper, d.plain()]), move(z=z / 2)))
        x, y, z = x * 1.08, y * 1.08, z + lid
    parts.append(Part("ribbon", box(x + 0.03, band, z + 0.04), ribbon))
    parts.append(Part("ribbon", box(band, y + 0.03, z + 0.04), ribbon))
    loop, tilt, fat = d.size(0.1, 0.2), d.size(0, 40), d.size(0.4, 0.8)
    for side in (-1, 1) if d.chance(0.85) else ():
        place = move(z=z / 2 + 0.03) @ turn("z", 90) @ turn("y", -tilt * side) @ move(x=side * loop)
        ring = Part("bow", torus(loop, 0.045), ribbon, place @ SIDE @ scale(1, fat, 1.5))
        parts.append(d.pick([ring, Part("bow", ellipsoid(1.0), ribbon, place @ scale(loop, 0.1, loop * fat * 0.7))]))
    return [*parts, Part("bow", ellipsoid(band * 0.8, 0.07), ribbon, move(z=z / 2 + 0.04))]


def hammer(d: Draw) -> list[Part]:
    length, grip, r, half = d.size(0.7, 1.3), d.size(0.04, 0.08), d.size(0.09, 0.2), d.size(0.2, 0.4)
    wood, iron, build = d.material("brown", period=0.15), d.plain("grey"), d.pick(["mallet", "square", "claw", "claw"])
    parts = [Part("handle", cylinder(grip * d.size(1.0, 1.4), length, grip), wood, move(z=length / 2))]
    head = move(z=length)
    if build == "claw":
        parts.append(Part("head", cylinder(r, half * 0.6), iron, head @ move(x=half * 0.8) @ turn("y", 90)))
        parts.append(Part("head", box(half * 1.2, r * 1.3, r * 1.3), iron, head))
        for y in (-1, 1):
            points = (
                (-half * 0.4, 0, 0),
                (-half * 1.0, y * r * 0.5, -0.02),
                (-half * 1.5, y * r * 0.7, -d.size(0.1, 0.25)),
            )
            parts.append(Part("claw", Tube(points, (r * 0.6, r * 0.45, r * 0.25)), iron, head))
    else:
        shape = cylinder(r * 1.3, half * 2) if build == "mallet" else box(r * 2, r * 2, half * 2)
        parts.append(Part("head", shape, d.pick([iron, d.material("grey", period=0.15)]), head @ turn("y", 90)))
    return _turned(parts, turn("y", 180)) if d.chance(0.3) else _lying(d, parts, 0.3)


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
    return _turned(parts, turn("y", d.pick([0, 0, 0, 90])))


def crown(d: Draw) -> list[Part]:
    r, band, point, tips = d.size(0.4, 0.5), d.size(0.15, 0.35), d.size(0.2, 0.5), d.count(4, 8)
    gold, gem, flare = d.material("yellow", period=0.1, patterned=0.1), d.plain("red"), d.size(1.0, 1.25)
    wall = ((r, -band / 2), (r * flare, band / 2), (r * flare - 0.07, band / 2), (r - 0.07, -band / 2))
    parts, build = [Part("band", Lathe(wall), gold)], d.pick(["points", "points", "cones", "arches"])
    width = 2 * np.pi * r * flare / tips
    spike = Prism(((-width / 2, 0), (width / 2, 0), (0, point)), 0.07)
    for a in np.arange(tips) * 360 / tips:
        rim = turn("z", a) @ move(r * flare - 0.04, 0, band / 2 - 0.03)
        if build == "arches":
            parts.append(
                Part("arches", arc(r * flare - 0.04, 0.045, 0, 90), gold, turn("z", a) @ move(z=band / 2 - 0.03))
            )
        else:
            shape, place = (
                (spike, rim @ FRONT) if build == "points" else (cylinder(0.09, point, 0.02), rim @ move(z=point / 2))
            )
            parts += [Part("points", shape, gold, place), Part("pearls", ellipsoid(0.06), gem, rim @ move(z=point))]
        parts.append(Part("gems", ellipsoid(0.06), gem, turn("z", a) @ move(r * (1 + flare) / 2)))
    if build == "arches":
        parts.append(Part("orb", ellipsoid(0.1), gem, move(z=band / 2 + r * flare)))
    return parts + [Part("lining", ellipsoid(r * 0.93, band, 0), d.plain("purple"), move(z=-band / 2))] * d.chance(0.3)


def hat(d: Draw) -> list[Part]:
    r, tall, felt, sash = d.size(0.25, 0.4), d.size(0.25, 0.8), d.material(period=0.12), d.plain()
    brim, build = r * d.size(1.35, 2.2), d.pick(["top", "top", "round", "witch", "party", "cap"])
    if build == "party":
        tall += 0.3
        ball = Part("pompom", ellipsoid(d.size(0.07, 0.14)), sash, move(z=tall / 2))
        return [Part("cone", cylinder(r, tall, 0.02), felt), ball, Part("rim", torus(r, 0.05), sash, move(z=-tall / 2))]
    if build in ("round", "cap"):
        parts = [Part("crown", ellipsoid(r, min(tall, 0.45), 0), felt)]
    else:
        shape = cylinder(r, tall, r * d.size(0.75, 1.2) if build == "top" else 0.02)
        parts = [Part("crown", shape, felt, move(z=tall / 2))]
    if build == "cap":
        peak = Part(
            "peak", ellipsoid(1.0), d.pick([felt, sash]), move(r * 0.9, 0, 0.02) @ scale(r * 0.8, r * 0.8, 0.05)
        )
        return [*parts, peak, Part("button", ellipsoid(0.05), sash, move(z=min(tall, 0.45)))]
    parts.append(Part("brim", cylinder(brim, 0.06, brim * d.size(0.95, 1.0)), d.pick([felt, d.plain()])))
    if d.chance(0.7):
        parts.append(Part("ribbon", cylinder(r * 1.04, d.size(0.08, 0.14)), sash, move(z=0.07)))
    return parts


def ice_cream(d: Draw) -> list[Part]:
    cone, tall, r, build = (
        d.size(0.18, 0.28),
        d.size(0.5, 0.9),
        d.size(0.2, 0.32),
        d.pick(["cone", "cone", "cone", "cup", "stick"]),
    )
    wafer, stick = d.material("tan", period=0.08), d.plain("tan")
    if build == "stick":
        bar = capsule((0, 0, 0), (0, 0, tall * 0.7), d.size(0.2, 0.3))
        parts = [Part("ice", bar, d.material("pink", period=0.2), scale(d.size(0.4, 0.7), 1, 1))]
        return [*parts, Part("stick", capsule((0, 0, -0.5), (0, 0, 0), 0.055), stick)]
    tall = tall * 0.45 if build == "cup" else tall
    shape = cylinder(0.02 if build == "cone" else cone * 0.7, tall, cone)
    parts = [Part(build, shape, wafer, move(z=-tall / 2))]
    z, r = r * 0.5, max(r, cone * 1.02)
    for _ in range(d.count(1, 3)):
        parts.append(
            Part(
                "scoops",
                ellipsoid(r, r * d.size(0.85, 1.05)),
                d.material("pink", period=0.15),
                move(d.size(-0.03, 0.03), 0, z),
            )
        )
        top, z, r = z + r * 0.9, z + r * 1.1, r * d.size(0.75, 0.95)
    if d.chance(0.4):
        parts.append(Part("cherry", ellipsoid(d.size(0.06, 0.1)), d.plain("red"), move(z=top + 0.03)))
    if d.chance(0.25):
        parts.append(Part("wafer", cylinder(0.045, 0.4), stick, move(0.03, 0.1, top) @ turn("x", -25)))
    return parts


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
    return _turned(parts, turn("y", d.pick([0, 0, 0, d.size(10, 60)])))


def trophy(d: Draw) -> list[Part]:
    r, tall, stem, foot = d.size(0.25, 0.42), d.size(0.35, 0.7), d.size(0.1, 0.4), d.size(0.18, 0.32)
    gold, base = d.material(d.pick(["yellow", "silver"]), period=0.15, patterned=0.15), d.plain("black")
    cup = (
        (0, 0),
        (r * 0.35, 0),
        (r * d.size(0.7, 1), tall * 0.4),
        (r, tall),
        (r - 0.06, tall),
        (r * 0.4, tall * 0.3),
        (0, tall * 0.2),
    )
    parts = [
        Part("cup", Lathe(cup), gold),
        Part("stem", cylinder(0.1, stem + 0.04, d.size(0.05, 0.1)), gold, move(z=-stem / 2)),
    ]
    plinth = d.size(0.1, 0.3)
    parts.append(
        Part(
            "base",
            _either(d, box(foot * 2, foot * 2, plinth), cylinder(foot * 1.2, plinth, foot)),
            base,
            move(z=-stem - plinth / 2),
        )
    )
    loop, thick = tall * d.size(0.22, 0.35), d.size(0.035, 0.05)
    for side in (-1, 1) if d.chance(0.8) else ():
        place = turn("z", 90 * side) @ move(r * 0.85, 0, tall * 0.6)
        parts.append(Part("handles", arc(loop, thick, -110, 110), gold, place))
    if d.chance(0.25):
        star = Prism(star_polygon(5, r * 0.8, r * 0.4), 0.1)
        parts += [
            Part("star", star, d.plain("yellow"), move(z=tall + r * 0.5) @ FRONT),
            Part("lid", cylinder(r, 0.07), gold, move(z=tall)),
        ]
    return parts


def key(d: Draw) -> list[Part]:
    length, r, bar = d.size(0.6, 1.1), d.size(0.14, 0.28), d.size(0.045, 0.08)
    metal = d.material("yellow", period=0.12, patterned=0.15)
    parts = [Part("shaft", _either(d, cylinder(bar, length), box(2 * bar, 2 * bar, length)), metal, move(z=length / 2))]
    head, build = move(z=length + r * 0.8) @ turn("x", 90), d.pick(["ring", "ring", "disc", "heart"])
    if build == "heart":
        parts += [Part("head", torus(r * 0.7, bar * 0.9), metal, move(x * r * 0.65) @ head) for x in (-1, 1)]
        parts.append(Part("head", torus(r * 0.7, bar * 0.9), metal, move(z=r) @ head))
    else:
        shape = torus(r, bar) if build == "ring" else Prism(regular_polygon(d.pick([6, 24]), r), bar * 1.6)
        parts.append(Part("head", shape, d.pick([metal, d.plain()]), head))
    for i in range(d.count(2, 3)):
        tooth = d.size(0.1, 0.25)
        parts.append(
            Part("teeth", box(tooth + bar, bar * 1.4, 0.1), metal, move(x=(tooth + bar) / 2, z=0.06 + i * 0.15))
        )
    return _lying(d, parts, 0.35)


def sword(d: Draw) -> list[Part]:
    length, wide, guard, grip = d.size(0.8, 1.4), d.size(0.05, 0.12), d.size(0.15, 0.32), d.size(0.2, 0.35)
    steel, gold, tip = d.plain("silver"), d.plain("yellow"), d.size(0.1, 0.3)
    outline = (
        (-wide, 0),
        (wide, 0),
        (wide * d.size(0.7, 1.2), length - tip),
        (0, length),
        (-wide * d.size(0.7, 1.2), length - tip),
    )
    parts = [Part("blade", Prism(outline, d.size(0.06, 0.09)), steel, FRONT)]
    parts.append(
        Part("guard", _either(d, box(0.12, 2 * guard, 0.1), capsule((0, -guard, 0), (0, guard, 0), 0.06)), gold)
    )
    parts.append(Part("grip", cylinder(d.size(0.05, 0.07), grip), d.material("brown", period=0.06), move(z=-grip / 2)))
    parts.append(Part("pommel", ellipsoid(d.size(0.07, 0.11)), gold, move(z=-grip)))
    return _lying(d, _turned(parts, turn("y", d.pick([0, 180]))), 0.5)


def stacked_blocks(d: Draw) -> list[Part]:
    z, size = 0.0, d.size(0.3, 0.5)
    parts: list[Part] = []
    for i in range(d.count(2, 5)):
        tall, wide, deep = d.size(0.15, 0.45), size * d.size(0.7, 1.3), size * d.size(0.7, 1.3)
        shape = _either(
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


def _primitive(d: Draw, size: float) -> Shape:
    """Any solid about ``size`` from the middle to its ends."""
    a, b, c = (size * d.size(0.25, 1.0) for _ in range(3))
    bent = tuple((d.size(-size, size), d.size(-size, size), d.size(-size, size)) for _ in range(d.count(2, 4)))
    rim = np.sort(d.rng.uniform(-size, size, d.count(3, 6)))
    turned = ((0.0, float(rim[0])), *[(size * d.size(0.2, 0.9), float(z)) for z in rim], (0.0, float(rim[-1]) + 0.02))
    return _either(
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
    return parts + _turned(parts[1:], scale(1, -1, 1)) if mirrored else parts


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


def barrel(d: Draw) -> list[Part]:
    r, tall, bulge, wood = d.size(0.28, 0.42), d.size(0.6, 1.0), d.size(1.1, 1.4), d.material("brown", period=0.15)
    heights = np.linspace(-0.5, 0.5, 13)
    radius = r * (1 + (bulge - 1) * (1 - (2 * heights) ** 2))
    rim = [(float(a), float(b)) for a, b in zip(radius, heights * tall, strict=True)]
    parts, hoop = [Part("body", Lathe(((0, -tall / 2), *rim, (0, tall / 2))), wood)], d.plain("grey")
    for i in d.pick([(1, 11), (1, 4, 8, 11), (0, 12), (2, 6, 10), (0, 4, 8, 12)]):
        parts.append(Part("hoops", torus(rim[i][0] - 0.01, 0.04), hoop, move(z=rim[i][1])))
    if d.chance(0.4):
        parts.append(Part("lid", cylinder(r * 0.8, 0.08), d.plain("tan"), move(z=tall / 2)))
    if d.chance(0.35):
        parts.append(
            Part("tap", capsule((r, 0, -tall * 0.25), (r * bulge + 0.15, 0, -tall * 0.25), 0.05), d.plain("yellow"))
        )
    return _turned(parts, turn("z", d.pick([0, 90])) @ turn("y", d.pick([0, 0, 90])))


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


KINDS = {
    "dumbbell": dumbbell, "cake": cake, "gift": gift, "hammer": hammer, "drum": drum, "crown": crown, "hat": hat,
    "ice cream": ice_cream, "spinning top": spinning_top, "trophy": trophy, "key": key, "sword": sword,
    "stacked blocks": stacked_blocks, "blob": blob, "pyramid rings": pyramid_rings, "barrel": barrel, "ball": ball,
}  # fmt: skip
