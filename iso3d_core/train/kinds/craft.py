"""Craft that fly, float and dive."""

from __future__ import annotations

import numpy as np

from ..draw import Draw
from ..solids import Lathe, Material, Part, Prism, Shape, Tube, box, capsule, cylinder, ellipsoid, move, scale, turn
from .shapes import FORWARD, SIDE, placed, windowed_cabin


def _fuselage(length: float, radius: float, nose: float, tail: float) -> Lathe:
    """A body of revolution along +X: ``nose`` and ``tail`` are the fractions of the length that taper."""
    front = [(radius * np.sqrt(1 - (1 - t) ** 2) + 1e-3, (0.5 - nose * t) * length) for t in np.linspace(0, 1, 8)]
    rear = [(radius * (1 - 0.75 * t * t), (-0.5 + tail - tail * t) * length) for t in np.linspace(0, 1, 7)]
    return Lathe(((0.0, -length / 2), *rear[::-1], *front[::-1], (0.0, length / 2)))


def _wing(span: float, chord: float, tip: float, sweep: float, thick: float) -> Prism:
    """A pair of flat wings: the whole ``span`` along Y, swept back by ``sweep`` at the tips."""
    half = span / 2
    right = [(-sweep - tip / 2, -half), (-sweep + tip / 2, -half), (chord / 2, 0.0)]
    return Prism(tuple([*right, (-sweep + tip / 2, half), (-sweep - tip / 2, half), (-chord / 2, 0.0)]), thick)


def _propeller(d: Draw, radius: float, blades: int, width: float, name: str = "propeller") -> list[Part]:
    """Blades about the local Z axis with a round hub, at the origin."""
    color = d.plain()
    parts = [
        Part(name, box(radius, width, 0.06), color, turn("z", i * 360 / blades) @ move(radius / 2))
        for i in range(blades)
    ]
    return [*parts, Part("hub", ellipsoid(width * 0.8), d.plain())]


def plane(d: Draw) -> list[Part]:
    length, radius, span = d.size(1.5, 2.1), d.size(0.13, 0.24), d.size(1.3, 2.2)
    paint, thick, jet = d.material(period=0.3, patterned=0.25), d.size(0.06, 0.09), d.chance(0.5)
    wing_paint, half = d.pick([paint, d.plain()]), length / 2
    chord, sweep = d.size(0.3, 0.55), d.size(0.2, 0.6) if jet else d.size(0, 0.1)
    lift, fin = radius * d.size(-0.6, 0.7), d.size(0.3, 0.5)
    body = _fuselage(length, radius, d.size(0.12, 0.3), d.size(0.3, 0.5))
    tip = chord * d.size(0.4, 0.9)
    parts = [Part("fuselage", body, paint, FORWARD)]
    parts.append(Part("wings", _wing(span, chord, tip, sweep, thick), wing_paint, move(d.size(0, 0.25), 0, lift)))
    if not jet and d.chance(0.3):
        rise = radius * 2 + d.size(0.1, 0.25)
        parts.append(Part("wings", parts[1].shape, wing_paint, parts[1].place @ move(z=rise)))
        parts += [
            Part("struts", box(0.08, 0.05, rise), d.plain(), parts[1].place @ move(0, y * span, rise / 2))
            for y in (-0.3, 0.3)
        ]
        parts.append(Part("struts", box(0.08, 0.1, rise), paint, parts[1].place @ move(z=rise / 2)))
    tail = d.pick([paint, wing_paint, d.plain()])
    high = fin * 0.85 if d.chance(0.25) else 0.02
    back = -half + chord * 0.35
    parts.append(Part("tail wings", _wing(span * d.size(0.3, 0.42), chord * 0.6, chord * 0.4, sweep * 0.3, thick), tail,
                      move(back - (0.1 if high > 0.1 else 0), 0, high)))  # fmt: skip
    outline = ((-0.05, 0.0), (chord * 0.7, 0.0), (chord * 0.25, fin), (-0.1, fin))
    parts.append(Part("tail fin", Prism(outline, thick), tail, move(-half, 0, 0) @ SIDE))
    if jet:
        tube, y = d.size(0.07, 0.11), span * d.size(0.17, 0.25)
        engine, under = d.plain("grey"), lift + d.pick([-1, -1, 1]) * tube
        for side in (-y, y):
            parts.append(
                Part("jets", cylinder(tube, 0.35, tube * 0.8), engine, move(0.1 - sweep * 0.4, side, under) @ FORWARD)
            )
    else:
        parts += placed(_propeller(d, d.size(0.25, 0.4), d.count(2, 4), 0.08), move(half) @ FORWARD)
    glass = d.plain("sky blue")
    if jet and d.chance(0.5):
        for x in np.linspace(-0.2, 0.3, 6) * length:
            parts.append(Part("windows", box(0.07, radius * 2.02, 0.07), glass, move(x, 0, radius * 0.15)))
    parts.append(
        Part(
            "cockpit",
            ellipsoid(0.5),
            glass,
            move(half * d.size(0.3, 0.5), 0, radius * 0.8) @ scale(0.4, radius * 1.3, radius),
        )
    )
    if d.chance(0.4):
        for x, y in ((half * 0.55, 0.0), (-0.05, radius), (-0.05, -radius)):
            parts.append(Part("wheels", capsule((x, y * 0.5, 0), (x, y, -radius - 0.15), 0.03), d.plain("grey")))
            parts.append(Part("wheels", cylinder(0.08, 0.07), parts[-1].material, move(x, y, -radius - 0.15) @ SIDE))
    return parts


def helicopter(d: Draw) -> list[Part]:
    length, wide, tall = d.size(0.7, 1.1), d.size(0.4, 0.6), d.size(0.42, 0.62)
    paint, glass, boom = d.material(period=0.2, patterned=0.2), d.plain("sky blue"), d.size(0.7, 1.1)
    if d.chance(0.65):
        parts = [Part("body", ellipsoid(0.5), paint, scale(length, wide, tall))]
        place = move(length * d.size(0.1, 0.2), 0, tall * 0.06) @ scale(length * 0.75, wide * 0.92, tall * 0.8)
        parts.append(Part("windscreen", ellipsoid(0.5), glass, place))
    else:
        parts = [Part("body", box(length, wide, tall * 0.6), paint, move(z=-tall * 0.15))]
        slopes = (0.05, d.size(0.1, 0.3))
        parts += windowed_cabin(-length * 0.4, length / 2, 0.0, tall / 2, slopes, wide, paint, glass)
    end = -length * 0.4 - boom
    tail = d.pick([paint, d.plain()])
    parts.append(Part("tail", capsule((-length * 0.3, 0, 0.04), (end, 0, 0.1), d.size(0.08, 0.14), 0.05), tail))
    rise = d.size(0.2, 0.35)
    fin = Prism(((0.1, 0.0), (-0.12, rise), (-0.22, rise), (-0.1, 0.0)), 0.05)
    parts.append(Part("tail fin", fin, d.pick([tail, d.plain()]), move(end + 0.05, 0, 0.08) @ SIDE))
    parts += placed(_propeller(d, d.size(0.15, 0.25), d.count(2, 4), 0.05, "tail rotor"), move(end, 0.06, 0.1) @ SIDE)
    mast, turned = tall / 2 + d.size(0.06, 0.18), d.size(0, 180)
    parts.append(Part("mast", cylinder(0.05, mast), d.plain("grey"), move(z=mast / 2)))
    rotor = _propeller(d, d.size(0.7, 1.1), d.count(2, 5), d.size(0.06, 0.1), "rotor")
    parts += placed(rotor, move(z=mast) @ turn("z", turned))
    ground, metal = -tall / 2 - d.size(0.1, 0.2), d.plain("grey")
    for y in (-wide * 0.45, wide * 0.45):
        for x in (-length * 0.22, length * 0.22):
            parts.append(Part("skids", capsule((x, y * 0.5, -tall * 0.3), (x, y, ground), 0.03), metal))
        parts.append(Part("skids", capsule((-length * 0.5, y, ground), (length * 0.5, y, ground), 0.035), metal))
    return parts


def _hull(length: float, width: float, depth: float, bow: float, paint: Material, low_paint: Material) -> list[Part]:
    """A pointed hull with its deck at z = 0: layers that narrow downwards."""
    half, parts = length / 2, []
    port = [(half - bow * length * t, width / 2 * np.sin(t * np.pi / 2)) for t in np.linspace(0, 1, 7)]
    port.append((-half, width * 0.42))
    rim = [*port, *[(x, -y) for x, y in port[:0:-1]]]
    for i, grow in enumerate((0.72, 0.82, 0.91, 1.0)):
        layer = Prism(tuple((x * (0.3 + 0.7 * grow), y * grow) for x, y in rim), depth / 4 + 0.01)
        parts.append(
            Part("hull" if i > 1 else "keel", layer, paint if i > 1 else low_paint, move(z=-depth * (7 - 2 * i) / 8))
        )
    return parts


def boat(d: Draw) -> list[Part]:
    length, width, depth = d.size(1.3, 2.0), d.size(0.45, 0.75), d.size(0.2, 0.4)
    build, paint, half = d.pick(["sail", "sail", "motor", "tug", "ship"]), d.plain(), length / 2
    parts = _hull(length, width, depth, d.size(0.3, 0.6), paint, d.pick([paint, d.plain()]))
    deck, house = d.plain("brown"), d.plain("white")
    rim = parts[-1].shape
    parts.append(Part("deck", rim, deck, move(z=0.0) @ scale(0.92, 0.85, 0.4)))
    if build == "sail":
        mast, at, sail = d.size(1.0, 1.7), d.size(-0.05, 0.25) * length, d.material("white", period=0.25)
        parts.append(Part("mast", cylinder(0.035, mast), deck, move(at, 0, mast / 2)))
        swing = move(at, 0, 0) @ turn("z", d.size(-25, 25))
        low, reach = d.size(0.12, 0.25), at + half * d.size(0.6, 0.95)
        parts.append(Part("sail", Prism(((0.0, low), (0.0, mast * 0.96), (-reach, low)), 0.05), sail, swing @ SIDE))
        parts.append(Part("boom", capsule((0, 0, low), (-reach, 0, low), 0.03), deck, swing))
        if d.chance(0.5):
            jib = Prism(((0.0, low * 0.6), (0.0, mast * d.size(0.6, 0.9)), (half * 0.92 - at, 0.0)), 0.05)
            parts.append(Part("jib", jib, d.pick([sail, d.plain()]), move(at, 0, 0) @ SIDE))
        if d.chance(0.4):
            flag = Prism(((0.0, 0.0), (-0.22, 0.08), (0.0, 0.16)), 0.05)
            parts.append(Part("flag", flag, d.plain("red"), move(at, 0, mast - 0.05) @ SIDE))
        return parts
    long, tall, middle = length * d.size(0.25, 0.45), d.size(0.22, 0.4), length * d.size(-0.15, 0.05)
    slopes = (d.size(0, 0.1), d.size(0.0, 0.25))
    parts += windowed_cabin(
        middle - long / 2, middle + long / 2, 0.0, tall, slopes, width * d.size(0.5, 0.7), house, d.plain("sky blue")
    )
    if build == "motor":
        if d.chance(0.6):
            parts.append(Part("engine", box(0.16, 0.16, 0.35), d.plain("black"), move(-half * 0.98, 0, -0.02)))
        if d.chance(0.5):
            parts.append(Part("mast", cylinder(0.03, 0.35), d.plain(), move(middle, 0, tall + 0.12)))
        return parts
    funnel, wide, rise = d.material("red", period=0.12, patterned=0.5), d.size(0.07, 0.12), d.size(0.3, 0.5)
    spots = (-0.3, 0.05)[: d.count(1, 2)] if build == "ship" else (-0.25,)
    for x in spots:
        parts.append(
            Part("funnel", cylinder(wide, rise + 0.1), funnel, move(middle + x * long, 0, tall + rise / 2 - 0.05))
        )
    if build == "ship":
        parts.append(
            Part("bridge", box(long * 0.3, width * 0.5, 0.2), house, move(middle + long * 0.32, 0, tall + 0.05))
        )
        for x in (half * 0.5, half * 0.3)[: d.count(0, 2)]:
            parts.append(Part("crates", box(0.18, width * 0.4, d.size(0.15, 0.3)), d.plain(), move(x, 0, 0.05)))
    elif d.chance(0.6):
        ring, color = Lathe(((0.07, -0.04), (0.13, -0.04), (0.13, 0.04), (0.07, 0.04))), d.plain("black")
        parts += [Part("tyres", ring, color, move(x * half, side * width * 0.46, -0.08) @ SIDE)
                  for x in (-0.6, -0.2, 0.2) for side in (-1, 1)]  # fmt: skip
    return parts


def rocket(d: Draw) -> list[Part]:
    radius, height, nose = d.size(0.16, 0.34), d.size(0.8, 1.4), d.size(0.25, 0.6)
    body, trim = d.material(d.pick(["white", "silver", None]), period=0.25), d.plain("red")
    belly, waist = d.pick([1.0, d.size(1.1, 1.5)]), d.size(0.7, 1.0)
    heights = np.linspace(0, 1, 9)
    bulge = np.interp(heights, [0, 0.45, 1], [waist, belly, 1.0]) if belly > 1 else np.ones(9)
    curve = [(radius * b, height * z) for b, z in zip(bulge, heights, strict=True)]
    parts = [Part("body", Lathe(((0.0, 0.0), *curve, (0.0, height))), body)]
    power = d.pick([1.0, 0.5, 0.65])
    cone = [(radius * (1 - t) ** power + 1e-3, height + nose * t) for t in np.linspace(0, 1, 9)]
    parts.append(Part("nose cone", Lathe(((0.0, height - 0.01), *cone)), d.pick([trim, d.plain()])))
    fins, out, tall = d.count(3, 4), d.size(0.15, 0.35), d.size(0.3, 0.6)
    root, drop = radius * bulge[0] * 0.8, d.size(-0.2, 0.1)
    outline = ((0.0, 0.05), (root + out, drop), (root + out, drop + tall * d.size(0.2, 0.5)), (0.0, tall + 0.1))
    for i in range(fins):
        parts.append(Part("fins", Prism(outline, 0.06), trim, turn("z", 360 / fins * (i + 0.5)) @ SIDE))
    nozzle = radius * d.size(0.5, 0.9)
    parts.append(Part("nozzle", cylinder(nozzle, 0.16, nozzle * 0.6), d.plain("grey"), move(z=-0.06)))
    if d.chance(0.4):
        parts.append(Part("flame", cylinder(0.01, 0.35, nozzle * 0.7), d.plain("orange"), move(z=-0.28)))
    if d.chance(0.7):
        glass, ring, size = d.plain("sky blue"), d.plain(), radius * d.size(0.35, 0.55)
        for z in (0.72, 0.42)[: d.count(1, 2)]:
            place = move(float(np.interp(z, heights, bulge)) * radius - 0.02, 0, z * height) @ FORWARD
            parts.append(Part("window frame", cylinder(size, 0.08), ring, place))
            parts.append(Part("window", ellipsoid(size * 0.7, 0.08), glass, place))
    if d.chance(0.3):
        wide, tall, color = radius * d.size(0.35, 0.55), height * d.size(0.4, 0.7), d.plain()
        for side in (-1, 1):
            place = move(0, side * (radius * max(belly, 1) + wide * 0.8), tall / 2 - 0.05)
            parts.append(Part("boosters", cylinder(wide, tall), color, place))
            parts.append(Part("booster cones", cylinder(wide, wide * 2, 0.01), trim, place @ move(z=tall / 2 + wide)))
    return parts


def submarine(d: Draw) -> list[Part]:
    length, radius = d.size(1.3, 2.0), d.size(0.2, 0.38)
    paint, trim, half = d.material(d.pick(["yellow", "grey", None]), period=0.3, patterned=0.3), d.plain(), length / 2
    body: Shape = _fuselage(length, radius, 0.2, 0.45) if d.chance(0.5) else ellipsoid(radius, half)
    parts = [Part("body", body, paint, FORWARD)]
    if d.chance(0.3):
        parts = [Part("body", capsule((radius - half, 0, 0), (half - radius, 0, 0), radius), paint)]
    at, tower, rise = d.size(-0.1, 0.2) * length, d.size(0.16, 0.26), radius + d.size(0.15, 0.35)
    form: Shape = cylinder(0.5, rise, d.size(0.35, 0.5)) if d.chance(0.5) else box(1, 1, rise)
    place = move(at, 0, rise / 2) @ scale(tower * 2, min(tower * 1.3, radius * 1.3), 1)
    parts.append(Part("tower", form, d.pick([paint, trim]), place))
    if d.chance(0.75):
        top, metal = rise + d.size(0.12, 0.3), d.plain("grey")
        parts.append(
            Part("periscope", Tube(((at, 0, rise - 0.1), (at, 0, top), (at + 0.14, 0, top)), (0.035,) * 3), metal)
        )
    parts += placed(_propeller(d, d.size(0.16, 0.26), d.count(3, 5), 0.07), move(-half) @ FORWARD)
    fin, out = d.pick([paint, trim, d.plain()]), radius * d.size(1.1, 1.6)
    for turned in (0, 90):
        plate = _wing(2 * out, 0.3, 0.16, 0.06, 0.05)
        parts.append(Part("fins", plate, fin, move(-half * 0.72) @ turn("x", turned)))
    if d.chance(0.4):
        parts.append(Part("planes", _wing(radius * 3, 0.22, 0.14, 0.0, 0.05), fin, move(half * 0.5)))
    if d.chance(0.7):
        frame, glass, size = d.plain(), d.plain("sky blue"), radius * d.size(0.25, 0.4)
        for x in np.linspace(-0.2, 0.5, d.count(2, 4)) * half:
            place = move(x, 0, radius * 0.1) @ SIDE
            parts.append(Part("porthole frames", cylinder(size, radius * 2.02), frame, place))
            parts.append(Part("portholes", cylinder(size * 0.65, radius * 2.1), glass, place))
    return parts
