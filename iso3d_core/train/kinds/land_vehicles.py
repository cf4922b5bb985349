"""Kinds that drive on wheels, by road, rail or field."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..draw import Draw
from ..solids import Part, Prism, Shape, box, capsule, cylinder, ellipsoid, move, turn
from .shapes import FORWARD, SIDE, windowed_cabin


def _wheels(d: Draw, xs: Sequence[float], y: float, radius: float, width: float) -> list[Part]:
    """Wheels on both sides, resting on z = 0, mostly with hubs; the axles run along Y."""
    tyre, hub = d.plain("black"), d.plain()
    with_hub = d.chance(0.7)
    parts = []
    for x in xs:
        for side in (-1, 1):
            parts.append(Part("wheels", cylinder(radius, width), tyre, move(x, side * y, radius) @ SIDE))
            if with_hub:
                place = move(x, side * (y + 0.02), radius) @ SIDE
                parts.append(Part("hubs", cylinder(radius * 0.5, width), hub, place))
    return parts


def _lights(d: Draw, front: float, back: float, y: float, z: float, size: float) -> list[Part]:
    lamp, tail = d.plain("yellow"), d.plain("red")
    shape: Shape = ellipsoid(size) if d.chance(0.5) else box(size, size * 2, size * 1.3)
    parts = [Part("lights", shape, lamp, move(front, side * y, z)) for side in (-1, 1)]
    return parts + [Part("tail lights", box(0.04, size * 2, size), tail, move(back, side * y, z)) for side in (-1, 1)]


def car(d: Draw) -> list[Part]:
    length, width, body = d.size(1.5, 2.2), d.size(0.7, 0.95), d.size(0.22, 0.38)
    wheel, cabin, build = d.size(0.16, 0.25), d.size(0.24, 0.4), d.pick(["sedan", "hatch", "van", "pickup", "sports"])
    paint, glass = d.material(period=0.2, patterned=0.2), d.plain("sky blue")
    low = wheel * d.size(0.5, 0.9)
    top, half, drop = low + body, length / 2, d.size(0.0, 0.3) * body
    hull = (
        (-half, low), (half, low), (half, top - drop), (half * d.size(0.4, 0.9), top), (-half * 0.8, top),
        (-half, top - drop * d.size(0, 1)),
    )  # fmt: skip
    ends = {
        "sedan": (-0.7, 0.45),
        "hatch": (-0.97, 0.4),
        "van": (-0.98, 0.8),
        "pickup": (-0.1, 0.5),
        "sports": (-0.6, 0.3),
    }
    back, front = (half * end + d.size(-0.06, 0.06) * (end > -0.9) for end in ends[build])
    tall = cabin * {"van": 1.3, "sports": 0.7}.get(build, 1.0)
    slopes = (d.size(0.02, 0.1) if build in ("van", "pickup", "hatch") else d.size(0.1, 0.35), d.size(0.1, 0.3))
    roof = d.pick([paint, paint, d.plain()])
    parts = [Part("body", Prism(hull, width), paint, SIDE)]
    parts += windowed_cabin(back, front, top - 0.02, tall, slopes, width * d.size(0.8, 0.97), roof, glass)
    axle = half * d.size(0.55, 0.68)
    parts += _wheels(d, (-axle, axle), width / 2 - 0.04, wheel, d.size(0.12, 0.2))
    if d.chance(0.75):
        parts += _lights(d, half, -half, width * 0.33, low + body * 0.55, d.size(0.04, 0.07))
    if d.chance(0.35):
        bumper = d.plain("grey")
        parts += [Part("bumpers", box(0.1, width, 0.09), bumper, move(x, 0, low + 0.06)) for x in (-half, half)]
    if build == "pickup":
        for y in (-1, 1):
            place = move(-half * 0.53, y * (width / 2 - 0.04), top + 0.06)
            parts.append(Part("bed", box(half * 0.94, 0.07, 0.16), paint, place))
        parts.append(Part("bed", box(0.07, width, 0.16), paint, move(-half + 0.035, 0, top + 0.06)))
    elif build == "sports" and d.chance(0.6):
        parts.append(Part("spoiler", box(0.16, width, 0.05), roof, move(-half + 0.08, 0, top + 0.14)))
        parts.append(Part("spoiler", box(0.08, width * 0.6, 0.16), roof, move(-half + 0.1, 0, top + 0.06)))
    elif d.chance(0.15):
        middle = (back + front) / 2
        parts.append(Part("sign", box(0.16, 0.3, 0.12), d.plain("yellow"), move(middle, 0, top + tall + 0.02)))
    return parts


def truck(d: Draw) -> list[Part]:
    length, width, wheel = d.size(1.8, 2.6), d.size(0.7, 0.95), d.size(0.16, 0.24)
    paint, glass, half, deck = d.plain(), d.plain("sky blue"), length / 2, wheel * 1.4
    cab, tall = length * d.size(0.22, 0.3), d.size(0.5, 0.8)
    nose = d.size(0.2, 0.35) if d.chance(0.4) else 0.0
    parts = [Part("frame", box(length, width * 0.7, 0.12), d.plain("grey"), move(z=deck))]
    parts += windowed_cabin(half - cab - nose, half - nose, deck, tall, (0.0, d.size(0, 0.12)), width, paint, glass)
    if nose:
        parts.append(
            Part("hood", box(nose + 0.05, width * 0.85, tall * 0.5), paint, move(half - nose / 2, 0, deck + tall / 4))
        )
    load, build = length - cab - nose - d.size(0.04, 0.12), d.pick(["box", "tank", "dump", "flat"])
    middle, bulk, cargo = -half + load / 2, d.size(0.5, 0.95), d.material(period=0.25)
    if build == "box":
        parts.append(
            Part("cargo box", box(load, width * d.size(1, 1.1), bulk), cargo, move(middle, 0, deck + bulk / 2))
        )
    elif build == "tank":
        place = move(middle, 0, deck + width * 0.42) @ FORWARD
        parts.append(Part("tank", cylinder(width * 0.45, load), cargo, place))
    elif build == "dump":
        outline = ((-half, deck + 0.25), (-half + load, deck), (-half + load, deck + bulk), (-half, deck + bulk * 0.7))
        parts.append(Part("dump bed", Prism(outline, width), cargo, SIDE))
        parts.append(Part("sand", ellipsoid(load * 0.4, 0.3), d.plain("tan"), move(middle, 0, deck + bulk * 0.75)))
    else:
        parts.append(Part("flat bed", box(load, width, 0.1), cargo, move(middle, 0, deck + 0.08)))
        for x in (-0.25, 0.25)[: d.count(1, 2)]:
            place = move(middle + x * load, 0, deck + 0.28)
            parts.append(Part("crates", box(load * 0.4, width * 0.7, d.size(0.3, 0.5)), d.plain(), place))
    xs = [half * 0.7, -half * 0.7] if d.chance(0.5) else [half * 0.72, -half * 0.35, -half * 0.75]
    parts += _wheels(d, xs, width / 2 - 0.06, wheel, 0.16)
    if d.chance(0.6):
        parts += _lights(d, half, -half, width * 0.3, deck + 0.1, 0.05)
    return parts


def bus(d: Draw) -> list[Part]:
    length, width, height, wheel = d.size(1.9, 2.7), d.size(0.65, 0.85), d.size(0.6, 0.85), d.size(0.14, 0.2)
    double, low = d.chance(0.3), wheel * 0.8
    height = height * 1.6 if double else height
    paint, glass = d.material(d.pick(["red", "yellow", None]), period=0.3, patterned=0.2), d.plain("sky blue")
    half, lean = length / 2, d.size(0, 0.12)
    outline = ((-half, low), (half, low), (half - lean, low + height), (-half, low + height))
    parts = [Part("body", Prism(outline, width), paint, SIDE)]
    panes = d.pick([1, 4, 5, 6, 8])
    pitch, tall = length * 0.85 / panes, d.size(0.2, 0.28)
    rows = [low + height * 0.33, low + height * 0.76] if double else [low + height * d.size(0.6, 0.68)]
    for z in rows:
        for x in (np.arange(panes) + 0.5) * pitch - length * 0.46:
            parts.append(
                Part("windows", box(pitch * (0.97 if panes == 1 else 0.75), width + 0.03, tall), glass, move(x, 0, z))
            )
        parts.append(
            Part("windows", box(length - lean + 0.03, width * 0.85, tall), glass, move(-lean / 2 + 0.015, 0, z))
        )
    if not double and d.chance(0.35):
        nose = d.size(0.25, 0.4)
        parts.append(
            Part(
                "hood",
                box(nose + 0.1, width * 0.9, height * 0.42),
                paint,
                move(half + nose / 2, 0, low + height * 0.21),
            )
        )
        half += nose
    if d.chance(0.4):
        parts.append(Part("roof", box(length * 0.9, width * 0.9, 0.08), d.plain(), move(z=low + height + 0.02)))
    if d.chance(0.4):
        parts.append(Part("stripe", box(length * 0.97, width + 0.02, 0.08), d.plain(), move(z=low + height * 0.15)))
    parts += _lights(d, half, -length / 2, width * 0.33, low + 0.12, d.size(0.04, 0.06))
    return parts + _wheels(d, (-length * 0.32, length * d.size(0.28, 0.38)), width / 2 - 0.04, wheel, 0.12)


def train(d: Draw) -> list[Part]:
    length, width, wheel = d.size(1.4, 2.0), d.size(0.55, 0.75), d.size(0.14, 0.22)
    paint, trim, half, deck = d.material(period=0.2, patterned=0.2), d.plain(), length / 2, wheel * 1.3
    axles = list(np.linspace(-half * 0.75, half * 0.75, d.count(3, 4)))
    parts = [Part("frame", box(length, width, 0.14), d.plain("grey"), move(z=deck))]
    parts += _wheels(d, axles, width / 2 - 0.02, min(wheel, half * 0.25), 0.1)
    if d.chance(0.75):
        cab, boiler = length * d.size(0.25, 0.4), width * d.size(0.36, 0.48)
        axis, tall = deck + boiler, d.size(0.65, 0.95)
        place = move((cab - 0.05) / 2, 0, axis) @ FORWARD
        parts.append(Part("boiler", cylinder(boiler, length - cab - 0.05), d.pick([paint, trim]), place))
        parts += windowed_cabin(-half, -half + cab, deck, tall, (0.0, 0.0), width, paint, d.plain("sky blue"))
        parts.append(Part("roof", box(cab * 1.2, width * 1.15, 0.08), trim, move(-half + cab / 2, 0, deck + tall)))
        stack, rise, wide = half - d.size(0.2, 0.35), d.size(0.25, 0.45), d.size(0.07, 0.12)
        funnel = cylinder(wide, rise, wide * d.pick([1.0, 1.3, 1.9]))
        parts.append(Part("chimney", funnel, d.plain("black"), move(stack, 0, axis + boiler + rise / 2 - 0.05)))
        if d.chance(0.6):
            parts.append(
                Part("dome", ellipsoid(boiler * 0.45, 0.16), d.plain("yellow"), move(0.1, 0, axis + boiler * 0.95))
            )
        if d.chance(0.5):
            parts.append(
                Part("light", ellipsoid(0.08), d.plain("yellow"), move(half - 0.08, 0, axis + d.size(0, boiler)))
            )
        if d.chance(0.6):
            plow = ((0.0, 0.0), (d.size(0.12, 0.3), 0.0), (0.0, deck))
            parts.append(Part("cowcatcher", Prism(plow, width * 0.8), trim, move(half - 0.02, 0, 0.03) @ SIDE))
    else:
        parts += windowed_cabin(
            -half, half, deck, d.size(0.5, 0.75), (d.size(0, 0.2), d.size(0, 0.5)), width, paint, d.plain("sky blue")
        )
        parts.append(Part("stripe", box(length, width + 0.02, 0.1), trim, move(z=deck + 0.08)))
    if d.chance(0.3):
        wagon, tall = d.size(0.6, 0.9), d.size(0.25, 0.6)
        middle = -half - 0.12 - wagon / 2
        parts.append(
            Part("wagon", box(wagon, width, tall), d.material(period=0.15), move(middle, 0, deck + tall / 2 - 0.05))
        )
        parts.append(Part("coupling", box(0.3, 0.1, 0.1), trim, move(-half - 0.06, 0, deck)))
        parts += _wheels(d, (middle - wagon * 0.3, middle + wagon * 0.3), width / 2 - 0.02, wheel * 0.9, 0.1)
    return parts


def tractor(d: Draw) -> list[Part]:
    big, small, width = d.size(0.36, 0.5), d.size(0.18, 0.3), d.size(0.36, 0.5)
    base, paint, dark = (
        d.size(1.0, 1.35),
        d.material(d.pick(["green", "red", "blue", None]), period=0.2, patterned=0.15),
        d.plain("grey"),
    )
    hood, tall = base * d.size(0.5, 0.62), d.size(0.28, 0.42)
    low, front = max(small, big * 0.6), base * 0.5 + d.size(0.05, 0.2)
    parts = [Part("frame", box(base + 0.1, width * 0.6, 0.16), dark, move(0, 0, low))]
    slope = d.size(0, 0.12)
    outline = ((front - hood, low), (front, low), (front, low + tall - slope), (front - hood, low + tall))
    parts.append(Part("hood", Prism(outline, width * d.size(0.7, 1)), paint, SIDE))
    parts.append(Part("seat box", box(base * 0.55, width * 0.95, 0.24), paint, move(-base * 0.28, 0, low + 0.1)))
    y = width / 2 + 0.08
    rear, fore = (
        _wheels(d, (-base * 0.4,), y, big, d.size(0.18, 0.28)),
        _wheels(d, (base * 0.42,), y, small, d.size(0.14, 0.2)),
    )
    colors = {part.name: part.material for part in rear}
    parts += rear + [Part(part.name, part.shape, colors.get(part.name, part.material), part.place) for part in fore]
    for x, z in ((-base * 0.4, big), (base * 0.42, small)):
        parts.append(Part("axles", cylinder(0.06, 2 * y), dark, move(x, 0, z) @ SIDE))
    if d.chance(0.55):
        cab, high = base * d.size(0.4, 0.5), d.size(0.55, 0.75)
        back = front - hood - cab
        parts += windowed_cabin(
            back, front - hood + 0.02, low + 0.1, high, (0.05, 0.08), width, paint, d.plain("sky blue")
        )
        parts.append(
            Part(
                "roof",
                box(cab * 1.1, width * 1.15, 0.08),
                d.pick([paint, d.plain()]),
                move(back + cab / 2, 0, low + high + 0.1),
            )
        )
    else:
        seat, top = d.plain("black"), low + 0.22
        parts.append(Part("seat", box(0.24, width * 0.6, 0.1), seat, move(-base * 0.34, 0, top + 0.04)))
        parts.append(Part("seat", box(0.08, width * 0.6, 0.28), seat, move(-base * 0.34 - 0.12, 0, top + 0.14)))
        rod, wheel = front - hood - 0.05, d.size(0.1, 0.16)
        tip = (rod - 0.08, 0.0, low + tall + 0.12)
        parts.append(Part("steering wheel", capsule((rod + 0.1, 0, low + tall - 0.1), tip, 0.03), dark))
        parts.append(Part("steering wheel", cylinder(wheel, 0.05), dark, move(*tip) @ turn("y", -25)))
    if d.chance(0.8):
        rise = d.size(0.25, 0.5)
        parts.append(
            Part("exhaust", cylinder(0.04, rise + 0.1), dark, move(front - hood * 0.4, 0, low + tall + rise / 2 - 0.08))
        )
    if d.chance(0.5):
        parts += _lights(d, front, -base * 0.55, width * 0.25, low + tall * 0.5, 0.05)
    return parts
