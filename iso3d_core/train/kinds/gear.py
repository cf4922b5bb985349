"""Gear taken in the hand or rolled along: dumbbells, hammers, keys, swords and barrels."""

from __future__ import annotations

import numpy as np

from ..draw import Draw
from ..solids import Lathe, Part, Prism, Tube, box, capsule, cylinder, ellipsoid, move, regular_polygon, torus, turn
from .shapes import FRONT, either, placed


def _lying(d: Draw, parts: list[Part], upright: float) -> list[Part]:
    """Things drawn along Z: upright with that probability, else lying in any direction or leaning."""
    if d.chance(upright):
        return parts
    return placed(
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
    return placed(parts, turn("z", d.pick([0, 0, 0, 90, d.size(-90, 90)])) @ turn("x", 90))


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
    return placed(parts, turn("y", 180)) if d.chance(0.3) else _lying(d, parts, 0.3)


def key(d: Draw) -> list[Part]:
    length, r, bar = d.size(0.6, 1.1), d.size(0.14, 0.28), d.size(0.045, 0.08)
    metal = d.material("yellow", period=0.12, patterned=0.15)
    parts = [Part("shaft", either(d, cylinder(bar, length), box(2 * bar, 2 * bar, length)), metal, move(z=length / 2))]
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
        Part("guard", either(d, box(0.12, 2 * guard, 0.1), capsule((0, -guard, 0), (0, guard, 0), 0.06)), gold)
    )
    parts.append(Part("grip", cylinder(d.size(0.05, 0.07), grip), d.material("brown", period=0.06), move(z=-grip / 2)))
    parts.append(Part("pommel", ellipsoid(d.size(0.07, 0.11)), gold, move(z=-grip)))
    return _lying(d, placed(parts, turn("y", d.pick([0, 180]))), 0.5)


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
    return placed(parts, turn("z", d.pick([0, 90])) @ turn("y", d.pick([0, 0, 90])))
