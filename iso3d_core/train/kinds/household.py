"""Household things that are neither vessel nor furniture: lamps, candles, clocks, televisions and umbrellas."""

from __future__ import annotations

import numpy as np

from ..draw import Draw
from ..solids import (
    Lathe,
    Material,
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
    scale,
    turn,
)
from .shapes import FRONT, Curve, legs, placed, smooth, solid, vessel


def lamp(d: Draw) -> list[Part]:
    build = d.pick(["table", "floor", "desk"])
    metal, rod, base = d.plain(), d.size(0.026, 0.045), d.size(0.18, 0.32)
    shade_color = d.material(period=0.1)
    height = d.size(1.3, 1.9) if build == "floor" else d.size(0.5, 1.0)
    foot: Shape = cylinder(base, 0.08, base * d.size(0.3, 1.0)) if d.chance(0.5) else box(base * 1.8, base * 1.8, 0.08)
    parts = [Part("base", foot, d.pick([metal, d.plain()]), move(z=0.04))]
    if build == "desk":
        elbow, tip = (-d.size(0.1, 0.4), 0.0, height * 0.6), (d.size(0.15, 0.45), 0.0, height)
        parts.append(Part("arm", Tube(((0.0, 0.0, 0.05), elbow, tip), (rod,) * 3), metal))
        wide = d.size(0.14, 0.26)
        place = move(*tip) @ turn("y", -d.size(10, 50)) @ move(z=-0.06)
        parts.append(Part("shade", cylinder(wide, d.size(0.2, 0.35), wide * d.size(0.2, 0.6)), shade_color, place))
        return parts
    shade, tall = d.size(0.22, 0.48), d.size(0.22, 0.45)
    if build == "table" and d.chance(0.5):
        belly = solid(smooth([0.08, base * d.size(0.5, 1), 0.05], [0.04, height * 0.35, height * 0.8]))
        parts.append(Part("body", belly, d.material(period=0.1)))
    parts.append(Part("pole", cylinder(rod, height), d.pick([metal, d.plain()]), move(z=height / 2)))
    form: Shape = cylinder(shade, tall, shade * d.size(0.3, 1.0)) if d.chance(0.5) else ellipsoid(shade, tall * 0.6)
    return [*parts, Part("shade", form, shade_color, move(z=height))]


def candle(d: Draw) -> list[Part]:
    radius, height = d.size(0.07, 0.22), d.size(0.35, 0.9)
    wax, metal, fire = (
        d.material(d.pick(["white", "cream", "red", None]), period=height / 5),
        d.plain("yellow"),
        d.plain("orange"),
    )
    flame, tip = smooth([0.005, d.size(0.04, 0.07), 0.005], [0, 0.06, d.size(0.16, 0.24)]), height + 0.05
    lit = d.chance(0.8)
    one = [Part("candle", cylinder(radius, height, radius * d.size(0.8, 1)), wax, move(z=height / 2))]
    one.append(Part("wick", cylinder(0.022, 0.14), d.plain("black"), move(z=height + 0.03)))
    if lit:
        one.append(Part("flame", solid(flame), fire, move(z=tip)))
    build = d.pick(["plain", "dish", "dish", "stick", "branched"])
    if build == "plain":
        return one
    wide, rise = radius * d.size(1.6, 2.6), d.size(0.2, 0.6)
    if build == "dish":
        parts = [*one, Part("dish", vessel([(wide * 0.8, -0.04), (wide, 0.1)], 0.04), metal)]
        if d.chance(0.6):
            parts.append(Part("handle", arc(0.1, 0.03, 0, 360, 12), metal, move(wide + 0.06, 0, 0.06)))
        return parts
    spots = (-0.38, 0.0, 0.38) if build == "branched" else (0.0,)
    cup = Part("holder", cylinder(radius * 0.7, 0.12, radius * 1.3), metal, move(z=0.02))
    parts = [part for y in spots for part in placed([*one, cup], move(0, y, 0))]
    parts.append(Part("stem", cylinder(0.04, rise + 0.05), metal, move(z=-rise / 2)))
    parts.append(Part("foot", cylinder(wide, 0.1, wide * d.size(0.2, 0.7)), metal, move(z=-rise)))
    if build == "branched":
        parts.append(
            Part("arms", arc(0.38, 0.035, 180, 360, 10), metal, turn("z", 90) @ scale(1, 1, rise * 0.7 / 0.38))
        )
    return parts


def _dial(d: Draw, radius: float, thick: float, rim: Material) -> list[Part]:
    """A clock face around the origin, looking along +X, with hands and hour marks."""
    face, ink = d.plain("white"), d.plain("black")
    parts = [Part("frame", cylinder(radius, thick), rim, turn("y", 90))]
    parts.append(Part("face", cylinder(radius * d.size(0.78, 0.92), thick + 0.03), face, turn("y", 90)))
    for long, wide in ((0.7, 0.07), (0.45, 0.1)):
        place = move(thick / 2 + 0.02) @ turn("x", d.size(0, 360)) @ move(z=radius * long / 2)
        parts.append(Part("hands", box(0.04, radius * wide, radius * long), ink, place))
    hours = d.pick([4, 12])
    for i in range(hours):
        place = move(thick / 2 + 0.01) @ turn("x", 360 / hours * i) @ move(z=radius * 0.68)
        parts.append(Part("marks", box(0.03, radius * 0.06, radius * 0.14), ink, place))
    return parts


def clock(d: Draw) -> list[Part]:
    radius, thick = d.size(0.3, 0.5), d.size(0.1, 0.3)
    rim, other = d.plain(), d.plain()
    build = d.pick(["wall", "alarm", "mantel", "grandfather"])
    parts = _dial(d, radius, thick, rim)
    if build == "alarm":
        for y in (-0.5, 0.5):
            foot = capsule((0, y * radius, -radius * 0.8), (0, y * radius * 1.4, -radius * 1.2), 0.05)
            parts.append(Part("feet", foot, other))
            if d.chance(0.9):
                place = turn("x", -70 * y) @ move(z=radius * 0.97)
                parts.append(Part("bells", ellipsoid(radius * 0.38, radius * 0.3, 0, 90), other, place))
        parts.append(Part("handle", arc(0.14, 0.03, 0, 180), other, move(z=radius * 0.95) @ turn("z", 90)))
    elif build == "mantel":
        case, wide = d.material("brown", period=0.2, patterned=0.15), radius * d.size(2.2, 3.0)
        low = -radius * 1.15
        form: Curve = d.pick([
            [(-wide / 2, low), (wide / 2, low), (wide / 2, -low), (-wide / 2, -low)],
            [(-wide / 2, low), (wide / 2, low), (wide / 2, 0.1), (0.0, radius * 1.9), (-wide / 2, 0.1)],
        ])  # fmt: skip
        parts.append(Part("case", Prism(tuple(form), thick * 0.9), case, FRONT))
        parts.append(Part("foot", box(thick * 1.2, wide * 1.1, 0.1), d.pick([case, other]), move(z=low - 0.03)))
    elif build == "grandfather":
        case, tall = d.plain("brown"), radius * d.size(3.0, 4.5)
        parts.append(Part("head", box(thick * 0.9, radius * 2.2, radius * 2.3), case))
        parts.append(Part("case", box(thick * 0.8, radius * 1.6, tall), case, move(z=-tall / 2)))
        parts.append(Part("foot", box(thick * 1.1, radius * 2.2, radius * 0.6), case, move(z=-tall)))
        parts.append(Part("pendulum", box(thick * 0.85 + 0.03, 0.06, tall * 0.4), other, move(z=-tall * 0.5)))
        parts.append(Part("pendulum", cylinder(0.14, thick * 0.8 + 0.08), other, move(z=-tall * 0.7) @ turn("y", 90)))
    return parts


def television(d: Draw) -> list[Part]:
    width, ratio, rim = d.size(0.9, 1.5), d.size(0.52, 0.8), d.size(0.04, 0.1)
    height, old, case, other = width * ratio, d.chance(0.45), d.material("black", period=0.2, patterned=0.1), d.plain()
    thick = d.size(0.4, 0.8) if old else d.size(0.06, 0.14)
    screen, low = d.plain(d.pick(["grey", "sky blue", "black"])), -height / 2
    panel = width * 0.22 if old and d.chance(0.6) else 0.0
    parts = [Part("case", box(thick, width, height), case)]
    wide = width - 2 * rim - panel
    parts.append(Part("screen", box(0.06, wide, height - 2 * rim), screen, move(thick / 2, -panel / 2, 0)))
    if panel:
        for z in (0.25, 0.02)[: d.count(1, 2)]:
            place = move(thick / 2, width / 2 - panel / 2 - rim * 0.3, z * height) @ turn("y", 90)
            parts.append(Part("knobs", cylinder(panel * 0.28, 0.1), other, place))
    if old and d.chance(0.7):
        for y in (-1, 1):
            rod = capsule((0, 0, height / 2), (0, y * d.size(0.2, 0.45), height / 2 + d.size(0.3, 0.5)), 0.028)
            parts.append(Part("antennas", rod, d.plain("silver")))
    build = d.pick(["stand", "stand", "feet"]) if not old else d.pick(["none", "feet", "legs"])
    if build == "stand":
        neck = d.size(0.08, 0.25)
        parts.append(Part("stand", box(0.07, width * 0.15, neck + 0.1), other, move(z=low - neck / 2 + 0.03)))
        foot: Shape = box(1, 1, 0.06) if d.chance(0.5) else cylinder(0.5, 0.06)
        parts.append(Part("foot", foot, other, move(z=low - neck) @ scale(0.4, width * d.size(0.3, 0.6), 1)))
    elif build == "feet":
        parts += [
            Part("feet", box(max(thick, 0.3), 0.07, 0.14), other, move(0, y * width, low - 0.04)) for y in (-0.35, 0.35)
        ]
    elif build == "legs":
        parts += placed(legs(d, thick * 0.35, width * 0.4, 0.35, 0.035, d.plain("brown")), move(z=low - 0.33))
    return parts


def umbrella(d: Draw) -> list[Part]:
    height, rod, hook = d.size(0.9, 1.4), d.size(0.025, 0.04), d.size(0.07, 0.13)
    cloth, metal, grip = d.material(period=0.2, patterned=0.5), d.plain("grey"), d.plain("brown")
    parts = [Part("pole", cylinder(rod, height), metal, move(z=height / 2))]
    if d.chance(0.8):
        parts.append(
            Part("handle", arc(hook, rod * 1.4, 180, 360), grip, move(x=hook) @ turn("z", 180) @ move(x=2 * hook))
        )
    else:
        parts.append(Part("handle", cylinder(rod * 1.8, 0.25), grip, move(z=0.05)))
    if d.chance(0.15):
        low, wide = height * d.size(0.15, 0.3), d.size(0.08, 0.14)
        parts.append(Part("canopy", solid(smooth([wide * 0.6, wide, 0.03], [low, low + 0.12, height])), cloth))
        return parts
    wide, rise, round_ = d.size(0.5, 0.85), d.size(0.35, 0.8), d.size(0.6, 1.0)
    outer = [(wide * t + 1e-3, height - rise * (1 - np.sqrt(max(1 - round_ * t * t, 0)))) for t in np.linspace(1, 0, 9)]
    inner = [(max(r - 0.02, 0.0), z - 0.045) for r, z in outer[::-1]]
    parts.append(Part("canopy", Lathe(tuple([*outer, *inner])), cloth))
    if d.chance(0.7):
        parts.append(Part("tip", cylinder(rod * 1.3, 0.2, rod * 0.8), metal, move(z=height + 0.02)))
    return parts
