"""What is worn on the head or won: crowns, hats and trophies."""

from __future__ import annotations

import numpy as np

from ..draw import Draw
from ..solids import Lathe, Part, Prism, arc, box, cylinder, ellipsoid, move, scale, star_polygon, torus, turn
from .shapes import FRONT, either


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
            either(d, box(foot * 2, foot * 2, plinth), cylinder(foot * 1.2, plinth, foot)),
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
