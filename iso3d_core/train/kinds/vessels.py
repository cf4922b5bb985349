"""Kinds that hold something to drink, or flowers: mugs, bottles, vases, teapots, goblets and buckets."""

from __future__ import annotations

import numpy as np

from ..draw import Draw
from ..solids import Lathe, Part, Tube, arc, box, capsule, cylinder, ellipsoid, move, scale, torus, turn
from .shapes import Curve, smooth, solid, vessel


def _radius(curve: Curve, z: float) -> float:
    return float(np.interp(z, [p[1] for p in curve], [p[0] for p in curve]))


def _handle(d: Draw, curve: Curve, low: float, high: float, out: float, tube: float) -> Tube:
    """A handle on the +X side of a vessel, round or squarish, between two heights."""
    bulge, ends = d.pick([0.35, 0.6, 1.0]), (_radius(curve, low) - tube * 0.6, _radius(curve, high) - tube * 0.6)
    points = []
    for angle in np.linspace(-np.pi / 2, np.pi / 2, 10):
        t = (np.sin(angle) + 1) / 2
        x = ends[0] + t * (ends[1] - ends[0]) + out * max(np.cos(angle), 0.0) ** bulge
        points.append((x, 0.0, low + t * (high - low)))
    return Tube(tuple(points), (tube,) * 10)


def filling(curve: Curve, wall: float, level: float) -> Lathe:
    """What a vessel holds: all of its inside up to the height ``level``."""
    bottom = curve[0][1] + wall / 2
    heights = [bottom, *(z for _, z in curve if bottom < z < level), level]
    return solid([(_radius(curve, z) - wall / 2, z) for z in heights])


def mug(d: Draw) -> list[Part]:
    radius, height, wall = d.size(0.3, 0.5), d.size(0.5, 1.1), d.size(0.05, 0.11)
    lip = d.size(0.8, 1.15)
    form = d.pick([(1.0, 1.0), (1.0, lip), (d.size(0.6, 0.9), 1.0), (0.85, 1.0, lip * 0.9), (0.5, 0.95, 1.05)])
    curve = smooth([radius * f for f in form], list(np.linspace(-height / 2, height / 2, len(form))))
    body = d.material(period=height / 4)
    low, high = -height * d.size(0.15, 0.38), height * d.size(0.15, 0.38)
    handle = _handle(d, curve, low, high, d.size(0.18, 0.36), d.size(0.03, 0.07))
    parts = [Part("body", vessel(curve, wall), body), Part("handle", handle, d.pick([body, d.plain()]))]
    if d.chance(0.75):
        level = height * d.size(0.2, 0.4)
        parts.append(Part("drink", filling(curve, wall, level), d.plain("brown")))
    if d.chance(0.15):
        saucer = cylinder(radius, 0.09, radius * d.size(1.5, 1.9))
        parts.append(Part("saucer", saucer, d.pick([body, d.plain()]), move(z=-height / 2 - 0.035)))
    return parts


def bottle(d: Draw) -> list[Part]:
    radius, height, neck = d.size(0.16, 0.32), d.size(0.7, 1.3), d.size(0.05, 0.1)
    build, glass = d.pick(["straight", "straight", "waist", "flask", "round", "square"]), d.material(period=height / 5)
    shoulder = d.size(0.5, 0.7)
    form: dict[str, tuple[list[float], list[float]]] = {
        "straight": ([radius, radius, neck, neck], [0, shoulder, shoulder + d.size(0.05, 0.2), 1]),
        "waist": ([radius, radius * d.size(0.6, 0.85), radius, neck, neck], [0, 0.35, 0.6, 0.85, 1]),
        "flask": ([radius * 1.3, neck, neck], [0, shoulder, 1]),
        "round": ([radius * 0.7, radius * 1.3, neck, neck], [0, 0.3, 0.65, 1]),
        "square": ([neck * 1.1, neck * 1.1, neck, neck], [shoulder - 0.02, shoulder + 0.05, shoulder + 0.1, 1]),
    }
    radii, at = form[build]
    curve = smooth(radii, [height * t for t in at])
    parts = [Part("body", solid(curve), glass)]
    if build == "square":
        parts.append(
            Part("body", box(radius * 1.4, radius * 2, height * shoulder), glass, move(z=height * shoulder / 2))
        )
    if d.chance(0.75):
        cap, wide = d.size(0.06, 0.16), neck * d.size(1.05, 1.5)
        parts.append(Part("cap", cylinder(wide, cap, wide * d.size(0.6, 1)), d.plain(), move(z=height)))
    if build == "straight" and d.chance(0.6):
        label, place = height * shoulder * d.size(0.3, 0.7), move(z=height * shoulder * d.size(0.4, 0.55))
        parts.append(Part("label", cylinder(radius * 1.04, label), d.material(period=0.1), place))
    return parts


def vase(d: Draw) -> list[Part]:
    height, wide, neck, wall = d.size(0.7, 1.3), d.size(0.25, 0.5), d.size(0.1, 0.25), d.size(0.04, 0.08)
    belly, lip = d.size(0.3, 0.65), d.size(1.0, 1.8)
    if d.chance(0.3):
        curve = smooth([wide * d.size(0.4, 0.8), wide], [0, height])
    else:
        curve = smooth([wide * d.size(0.4, 0.8), wide, neck, neck * lip], [0, belly * height, 0.85 * height, height])
    body = d.material(period=height / 5, patterned=0.5)
    parts = [Part("body", vessel(curve, wall), body)]
    if d.chance(0.5):
        parts.append(Part("soil", filling(curve, wall, height * d.size(0.7, 0.95)), d.plain("brown")))
    if d.chance(0.25):
        handle = _handle(d, curve, belly * height, height * 0.85, d.size(0.1, 0.25), 0.035)
        color = d.pick([body, d.plain()])
        parts += [Part("handles", handle, color, turn("z", turned)) for turned in (90, -90)]
    if d.chance(0.35):
        stem, bloom, size = d.plain("green"), d.plain(), d.size(0.07, 0.14)
        for turned in np.arange(d.count(1, 5)) * 77.0:
            tip = (d.size(0.02, 0.35), 0.0, height + d.size(0.15, 0.5))
            parts.append(Part("stems", capsule((0, 0, 0.1), tip, 0.025), stem, turn("z", turned)))
            parts.append(Part("flowers", ellipsoid(size, size * 0.7), bloom, turn("z", turned) @ move(*tip)))
    return parts


def teapot(d: Draw) -> list[Part]:
    wide, height, top = d.size(0.4, 0.55), d.size(0.45, 0.85), d.size(0.18, 0.3)
    form = d.pick([[0.6, 1.0, 0.6], [0.9, 1.0, 0.5], [1.0, 0.75, 0.5], [0.5, 0.8, 1.0, 0.5]])
    curve = smooth([*(wide * f for f in form), top], list(np.linspace(0, height, len(form) + 1)))
    body = d.material(period=height / 4)
    other = d.pick([body, d.plain()])
    low, high, thick = height * d.size(0.2, 0.4), height * d.size(1.0, 1.15), d.size(0.06, 0.1)
    start, end = _radius(curve, low) - 0.08, wide + d.size(0.2, 0.35)
    spout = Tube(
        ((start, 0, low), ((start + end) / 2, 0, low + 0.08), (end, 0, high)), (thick, thick * 0.85, thick * 0.5)
    )
    parts = [Part("body", solid(curve), body), Part("spout", spout, d.pick([body, other]))]
    if d.chance(0.75):
        grip = _handle(d, curve, height * 0.25, height * 0.8, d.size(0.18, 0.3), d.size(0.035, 0.06))
        parts.append(Part("handle", grip, other, turn("z", 180)))
    else:
        place = move(z=height * 0.75) @ scale(1, 1, d.size(0.9, 1.5))
        parts.append(Part("handle", arc(_radius(curve, height * 0.75), 0.04, 0, 180), other, place))
    lid, rise = d.pick([body, d.plain()]), d.size(0.05, 0.14)
    parts.append(Part("lid", ellipsoid(top * 1.05, rise, 0, 90), lid, move(z=height - 0.01)))
    parts.append(Part("knob", ellipsoid(d.size(0.045, 0.08)), d.pick([lid, other]), move(z=height + rise + 0.02)))
    return parts


def goblet(d: Draw) -> list[Part]:
    foot, stem, bowl = d.size(0.22, 0.36), d.size(0.2, 0.55), d.size(0.3, 0.6)
    wide, rod = d.size(0.22, 0.42), d.size(0.03, 0.06)
    form = d.pick([[0.3, 0.9, 1.0], [0.3, 1.1, 0.8], [0.15, 1.0], [0.9, 1.0], [0.5, 0.7, 1.2]])
    curve = smooth([wide * f for f in form], list(np.linspace(stem, stem + bowl, len(form))))
    metal = d.material(d.pick(["yellow", "silver", None]), period=0.15, patterned=0.2)
    cup = d.pick([metal, d.material(period=0.12)])
    parts = [Part("foot", solid(smooth([foot, foot * 0.9, rod], [0, 0.04, d.size(0.08, 0.18)])), metal)]
    parts.append(Part("stem", cylinder(rod, stem + 0.08), metal, move(z=stem / 2 + 0.04)))
    parts.append(Part("bowl", vessel(curve, d.size(0.03, 0.05)), cup))
    if d.chance(0.4):
        parts.append(
            Part("knot", ellipsoid(rod * d.size(1.8, 2.5), 0.06), d.pick([metal, d.plain()]), move(z=stem * 0.6))
        )
    if d.chance(0.4):
        level = stem + bowl * d.size(0.5, 0.85)
        parts.append(Part("wine", filling(curve, 0.03, level), d.plain("dark red")))
    return parts


def bucket(d: Draw) -> list[Part]:
    bottom, top, height = d.size(0.25, 0.42), d.size(0.4, 0.55), d.size(0.45, 0.95)
    body, other = d.material(d.pick(["silver", "blue", "red", None]), period=height / 4), d.plain()
    parts = [Part("body", vessel([(bottom, 0), (top, height)], d.size(0.035, 0.06)), body)]
    upright = d.pick([90.0, d.size(-85, 85), d.size(60, 120)])
    place = move(z=height * 0.93) @ turn("y", 90 - upright) @ turn("z", 90) @ scale(1, 1, d.size(0.7, 1.2))
    parts.append(Part("handle", arc(top, d.size(0.025, 0.04), 0, 180, 12), other, place))
    if d.chance(0.5):
        parts.append(Part("rim", torus(top, d.size(0.03, 0.05)), d.pick([other, body, d.plain()]), move(z=height)))
    if d.chance(0.4):
        level = height * d.size(0.6, 0.85)
        parts.append(Part("water", filling([(bottom, 0), (top, height)], 0.03, level), d.plain("sky blue")))
    return parts
