"""Kinds found at home: crockery, furniture, lamps and small household things."""

from __future__ import annotations

from collections.abc import Sequence

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
    torus,
    turn,
)

Curve = list[tuple[float, float]]


def _smooth(radii: Sequence[float], heights: Sequence[float], steps: int = 5) -> Curve:
    """(radius, z) points that pass softly through the given ones, from the bottom up."""
    curve: Curve = []
    for i in range(len(radii) - 1):
        for t in np.arange(steps) / steps:
            ease = t * t * (3 - 2 * t)
            curve.append((radii[i] + ease * (radii[i + 1] - radii[i]), heights[i] + t * (heights[i + 1] - heights[i])))
    return [*curve, (radii[-1], heights[-1])]


def _solid(curve: Curve) -> Lathe:
    return Lathe(((0.0, curve[0][1]), *curve, (0.0, curve[-1][1])))


def _vessel(curve: Curve, wall: float) -> Lathe:
    """A hollow vessel, open at the top, with the outer wall ``curve``."""
    floor = curve[0][1] + 1.5 * wall
    inner = [(max(r - wall, 0.01), max(z, floor)) for r, z in curve[::-1]]
    return Lathe(((0.0, curve[0][1]), *curve, *inner, (0.0, floor)))


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


def _legs(
    d: Draw, x: float, y: float, height: float, thick: float, material: Material, name: str = "legs"
) -> list[Part]:
    """Four legs below ``height``: square posts, round posts or splayed rods."""
    style, splay = d.pick(["square", "round", "splayed"]), d.size(0.0, 0.2) * height
    parts = []
    for i, j in ((1, 1), (1, -1), (-1, 1), (-1, -1)):
        if style == "splayed":
            foot = (i * (x + splay), j * (y + splay), thick)
            parts.append(Part(name, capsule((i * x, j * y, height), foot, thick * 1.1, thick * 0.8), material))
        else:
            post = (
                box(2 * thick, 2 * thick, height) if style == "square" else cylinder(thick * 0.8, height, thick * 1.2)
            )
            parts.append(Part(name, post, material, move(i * x, j * y, height / 2)))
    return parts


def mug(d: Draw) -> list[Part]:
    radius, height, wall = d.size(0.3, 0.5), d.size(0.5, 1.1), d.size(0.035, 0.08)
    lip = d.size(0.8, 1.15)
    form = d.pick([(1.0, 1.0), (1.0, lip), (d.size(0.6, 0.9), 1.0), (0.85, 1.0, lip * 0.9), (0.5, 0.95, 1.05)])
    curve = _smooth([radius * f for f in form], list(np.linspace(-height / 2, height / 2, len(form))))
    body = d.material(period=height / 4)
    low, high = -height * d.size(0.15, 0.38), height * d.size(0.15, 0.38)
    handle = _handle(d, curve, low, high, d.size(0.18, 0.36), d.size(0.03, 0.07))
    parts = [Part("body", _vessel(curve, wall), body), Part("handle", handle, d.pick([body, d.plain()]))]
    if d.chance(0.35):
        level = height * d.size(0.2, 0.4)
        parts.append(Part("drink", cylinder(_radius(curve, level) - wall / 2, 0.06), d.plain("brown"), move(z=level)))
    if d.chance(0.15):
        saucer = cylinder(radius, 0.09, radius * d.size(1.5, 1.9))
        parts.append(Part("saucer", saucer, d.pick([body, d.plain()]), move(z=-height / 2 - 0.035)))
    return parts


def _seat(width: float, depth: float, thick: float, material: Material, height: float, disc: bool) -> Part:
    """A seat with its upper face at ``height``, round or rectangular."""
    if disc:
        return Part("seat", cylinder(0.5, thick), material, move(z=height - thick / 2) @ scale(depth, width, 1))
    return Part("seat", box(depth, width, thick), material, move(z=height - thick / 2))


def chair(d: Draw) -> list[Part]:
    width, depth, thick = d.size(0.4, 0.7), d.size(0.4, 0.7), d.size(0.04, 0.12)
    height, leg, back = d.size(0.3, 0.7), d.size(0.022, 0.05), d.size(0.3, 0.8)
    wood = d.plain("brown")
    cushion, rest = d.pick([wood, d.plain()]), d.pick([wood, d.material(period=0.12)])
    style, arms = d.pick(["panel", "panel", "slats", "oval"]), d.chance(0.3)
    disc = style in ("panel", "oval") and not arms and d.chance(0.5)
    parts = [_seat(width, depth, thick, cushion, height, disc)]
    if d.chance(0.25):
        parts.append(Part("pedestal", cylinder(leg * 1.3, height - thick / 2), wood, move(z=(height - thick / 2) / 2)))
        parts.append(Part("foot", cylinder(width * 0.45, 0.06, width * d.size(0.1, 0.4)), wood, move(z=0.03)))
    else:
        parts += _legs(d, depth * 0.33, width * 0.33, height - thick / 2, leg, wood)
    tilt = move(-depth / 2 + 0.03, 0, height - thick) @ turn("y", d.size(-14, 0))
    if style == "panel":
        parts.append(
            Part(
                "back",
                box(d.size(0.04, 0.1), width * (d.size(0.93, 1) if arms else d.size(0.7, 1)), back),
                rest,
                tilt @ move(z=back / 2),
            )
        )
    elif style == "oval":
        oval = tilt @ move(z=back / 2) @ turn("y", 90) @ scale(back, width, 1)
        parts.append(Part("back", cylinder(0.5, 0.06), rest, oval))
    else:
        for y in np.linspace(-0.42, 0.42, d.count(2, 5)):
            parts.append(Part("back", box(0.05, leg * 2, back), rest, tilt @ move(0, y * width, back / 2)))
        for z in np.linspace(1, d.size(0.4, 0.7), d.count(1, 3)):
            parts.append(Part("rails", box(0.06, width, 0.1), d.pick([wood, rest]), tilt @ move(z=z * back)))
    if arms:
        arm, color = d.size(0.15, 0.28), d.pick([wood, d.plain()])
        for y in (-width * 0.45, width * 0.45):
            parts.append(
                Part("arm rests", box(depth * 1.1, leg * 2, leg * 2), color, move(-depth * 0.05, y, height + arm))
            )
            parts.append(Part("arm rests", box(leg * 2, leg * 2, arm + thick), color,
                              move(depth * 0.4, y, height + (arm - thick) / 2)))  # fmt: skip
    return parts


def stool(d: Draw) -> list[Part]:
    width, thick, height, leg = d.size(0.4, 0.7), d.size(0.05, 0.16), d.size(0.35, 1.1), d.size(0.025, 0.055)
    wood = d.plain("brown")
    seat = d.pick([wood, d.material(period=0.1)])
    parts = [_seat(width, width, thick, seat, height, d.chance(0.6))]
    build = d.pick(["four", "three", "pedestal"])
    if build == "pedestal":
        parts.append(Part("pedestal", cylinder(leg * 1.3, height - 0.03), wood, move(z=(height - 0.03) / 2)))
        parts.append(Part("foot", cylinder(width * d.size(0.35, 0.5), 0.07, width * 0.2), wood, move(z=0.035)))
    elif build == "four":
        parts += _legs(d, width * 0.3, width * 0.3, height - thick / 2, leg, wood)
    else:
        for turned in (0, 120, 240):
            rod = capsule((width * 0.25, 0, height - thick), (width * d.size(0.4, 0.5), 0, leg), leg)
            parts.append(Part("legs", rod, wood, turn("z", turned)))
    if d.chance(0.5):
        ring = torus(width * (0.25 if build == "pedestal" else 0.36), 0.025)
        parts.append(Part("ring", ring, d.pick([wood, d.plain()]), move(z=height * d.size(0.3, 0.5))))
        if build == "pedestal":
            parts.append(Part("ring", box(width * 0.5, 0.05, 0.05), wood, parts[-1].place))
    return parts


def table(d: Draw) -> list[Part]:
    width, depth, thick = d.size(0.8, 1.6), d.size(0.6, 1.0), d.size(0.04, 0.1)
    height, leg, wood = d.size(0.3, 0.9), d.size(0.025, 0.06), d.plain("brown")
    top = d.pick([wood, d.material(period=0.2)])
    round_top = d.chance(0.45)
    board = cylinder(0.5, thick) if round_top else box(1, 1, thick)
    width = depth if round_top and d.chance(0.7) else width
    parts = [Part("top", board, top, move(z=height - thick / 2) @ scale(depth, width, 1))]
    if d.chance(0.35):
        parts.append(Part("pedestal", cylinder(leg * d.size(1.2, 2.5), height - 0.03), wood, move(z=height / 2 - 0.02)))
        foot: Shape = (
            cylinder(depth * 0.35, 0.06, depth * 0.2) if d.chance(0.5) else box(depth * 0.6, width * 0.5, 0.06)
        )
        parts.append(Part("foot", foot, wood, move(z=0.03)))
        return parts
    inset = 0.3 if round_top else d.size(0.36, 0.44)
    parts += _legs(d, depth * inset, width * inset, height - thick / 2, leg, wood)
    if d.chance(0.4):
        apron = box(depth * inset * 2, width * inset * 2, 0.1)
        parts.append(Part("apron", apron, d.pick([wood, d.plain()]), move(z=height - thick - 0.04)))
    if d.chance(0.2):
        reach = height * 0.25
        parts.append(
            Part("shelf", box(depth * inset * 2 + reach, width * inset * 2 + reach, 0.04), top, move(z=height * 0.35))
        )
    return parts


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
        belly = _solid(_smooth([0.08, base * d.size(0.5, 1), 0.05], [0.04, height * 0.35, height * 0.8]))
        parts.append(Part("body", belly, d.material(period=0.1)))
    parts.append(Part("pole", cylinder(rod, height), d.pick([metal, d.plain()]), move(z=height / 2)))
    form: Shape = cylinder(shade, tall, shade * d.size(0.3, 1.0)) if d.chance(0.5) else ellipsoid(shade, tall * 0.6)
    return [*parts, Part("shade", form, shade_color, move(z=height))]


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
    curve = _smooth(radii, [height * t for t in at])
    parts = [Part("body", _solid(curve), glass)]
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
    height, wide, neck = d.size(0.7, 1.3), d.size(0.25, 0.5), d.size(0.1, 0.25)
    belly, lip = d.size(0.3, 0.65), d.size(1.0, 1.8)
    if d.chance(0.3):
        curve = _smooth([wide * d.size(0.4, 0.8), wide], [0, height])
    else:
        curve = _smooth([wide * d.size(0.4, 0.8), wide, neck, neck * lip], [0, belly * height, 0.85 * height, height])
    body = d.material(period=height / 5, patterned=0.5)
    parts = [Part("body", _vessel(curve, d.size(0.03, 0.06)), body)]
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
    curve = _smooth([*(wide * f for f in form), top], list(np.linspace(0, height, len(form) + 1)))
    body = d.material(period=height / 4)
    other = d.pick([body, d.plain()])
    low, high, thick = height * d.size(0.2, 0.4), height * d.size(1.0, 1.15), d.size(0.06, 0.1)
    start, end = _radius(curve, low) - 0.08, wide + d.size(0.2, 0.35)
    spout = Tube(
        ((start, 0, low), ((start + end) / 2, 0, low + 0.08), (end, 0, high)), (thick, thick * 0.85, thick * 0.5)
    )
    parts = [Part("body", _solid(curve), body), Part("spout", spout, d.pick([body, other]))]
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
    curve = _smooth([wide * f for f in form], list(np.linspace(stem, stem + bowl, len(form))))
    metal = d.material(d.pick(["yellow", "silver", None]), period=0.15, patterned=0.2)
    cup = d.pick([metal, d.material(period=0.12)])
    parts = [Part("foot", _solid(_smooth([foot, foot * 0.9, rod], [0, 0.04, d.size(0.08, 0.18)])), metal)]
    parts.append(Part("stem", cylinder(rod, stem + 0.08), metal, move(z=stem / 2 + 0.04)))
    parts.append(Part("bowl", _vessel(curve, d.size(0.03, 0.05)), cup))
    if d.chance(0.4):
        parts.append(
            Part("knot", ellipsoid(rod * d.size(1.8, 2.5), 0.06), d.pick([metal, d.plain()]), move(z=stem * 0.6))
        )
    if d.chance(0.4):
        level = stem + bowl * d.size(0.5, 0.85)
        parts.append(Part("wine", cylinder(_radius(curve, level) - 0.02, 0.04), d.plain("dark red"), move(z=level)))
    return parts


def bucket(d: Draw) -> list[Part]:
    bottom, top, height = d.size(0.25, 0.42), d.size(0.4, 0.55), d.size(0.45, 0.95)
    body, other = d.material(d.pick(["silver", "blue", "red", None]), period=height / 4), d.plain()
    parts = [Part("body", _vessel([(bottom, 0), (top, height)], d.size(0.035, 0.06)), body)]
    upright = d.pick([90.0, d.size(-85, 85), d.size(60, 120)])
    place = move(z=height * 0.93) @ turn("y", 90 - upright) @ turn("z", 90) @ scale(1, 1, d.size(0.7, 1.2))
    parts.append(Part("handle", arc(top, d.size(0.025, 0.04), 0, 180, 12), other, place))
    if d.chance(0.5):
        parts.append(Part("rim", torus(top, d.size(0.03, 0.05)), d.pick([other, body, d.plain()]), move(z=height)))
    if d.chance(0.4):
        level = height * d.size(0.6, 0.85)
        wide = bottom + (top - bottom) * level / height - 0.02
        parts.append(Part("water", cylinder(wide, 0.05), d.plain(d.pick(["sky blue", "tan"])), move(z=level)))
    return parts


def bed(d: Draw) -> list[Part]:
    length, width, soft = d.size(1.5, 2.0), d.size(0.7, 1.5), d.size(0.12, 0.28)
    low, frame, leg = d.size(0.12, 0.35), d.size(0.08, 0.2), d.size(0.035, 0.07)
    wood, sheet, cover, pillow = d.plain("brown"), d.plain("white"), d.material(period=0.3), d.plain("white")
    half, levels = length / 2, [low, low + d.size(0.7, 0.95)] if d.chance(0.15) else [low]
    parts = _legs(d, half - 0.1, width / 2 - 0.1, low + 0.02, leg, wood) if d.chance(0.7) else []
    for z in levels:
        top = z + frame + soft
        parts.append(Part("frame", box(length, width, frame), wood, move(0, 0, z + frame / 2)))
        parts.append(Part("mattress", box(length * 0.97, width * 0.96, soft), sheet, move(0, 0, top - soft / 2)))
        long = length * d.size(0.4, 0.72)
        blanket = move(half * 0.98 - long / 2, 0, top - soft / 2 + 0.03)
        parts.append(Part("blanket", box(long, width * 0.99, soft + 0.02), cover, blanket))
        spots = (-width * 0.23, width * 0.23) if width > 1.0 else (0.0,)
        form: Shape = box(1, 1, 1) if d.chance(0.5) else ellipsoid(0.55)
        for y in spots:
            place = move(-half + length * 0.13, y, top + 0.03) @ scale(length * 0.16, width * 0.75 / len(spots), 0.14)
            parts.append(Part("pillow", form, pillow, place))
    head, foot = levels[-1] + frame + soft + d.size(0.1, 0.5), levels[-1] + frame + soft + d.size(0.0, 0.2)
    parts.append(Part("headboard", box(0.08, width * 1.02, head), wood, move(-half, 0, head / 2)))
    if d.chance(0.6) or len(levels) > 1:
        parts.append(Part("footboard", box(0.08, width * 1.02, foot), wood, move(half, 0, foot / 2)))
    return parts


def sofa(d: Draw) -> list[Part]:
    width, depth, seat, back = d.size(0.9, 2.0), d.size(0.6, 0.85), d.size(0.22, 0.36), d.size(0.3, 0.55)
    arm, thick, foot = d.size(0.1, 0.22), d.size(0.12, 0.22), d.size(0.05, 0.14)
    cloth = d.material(period=0.25, patterned=0.25)
    cushion, side = d.pick([cloth, d.plain()]), d.pick([cloth, d.plain()])
    parts = [Part("base", box(depth, width, seat), cloth, move(0, 0, foot + seat / 2))]
    tilt = move(-depth / 2 + thick / 2, 0, foot) @ turn("y", d.size(-8, 0)) @ move(z=(seat + back) / 2)
    parts.append(Part("back", box(thick, width, seat + back), cloth, tilt))
    parts += _legs(d, depth * 0.4, width * 0.42, foot + 0.03, 0.04, d.plain("brown"))
    rise, rolled = seat + d.size(0.1, 0.25), d.chance(0.4)
    for y in (-width / 2, width / 2):
        parts.append(Part("arms", box(depth, arm, rise), side, move(0, y, foot + rise / 2)))
        if rolled:
            place = move(0, y, foot + rise) @ turn("y", 90)
            parts.append(Part("arms", cylinder(arm * 0.7, depth * 1.02), side, place))
    seats = max(1, round(width / d.size(0.5, 0.75)))
    pitch = (width - arm) / seats
    for i in range(seats):
        y = (i - (seats - 1) / 2) * pitch
        spot = move(thick * 0.6, y, foot + seat + 0.04)
        parts.append(Part("cushions", box(depth - thick * 0.9, pitch * 0.95, 0.12), cushion, spot))
        if d.chance(0.4):
            lean = move(thick - depth / 2 + 0.05, y, foot + seat + 0.22) @ turn("y", -20)
            parts.append(Part("pillows", box(0.11, min(pitch * 0.7, 0.35), 0.28), d.plain(), lean))
    return parts


def bookshelf(d: Draw) -> list[Part]:
    width, depth, height, thick = d.size(0.6, 1.1), d.size(0.22, 0.4), d.size(0.7, 1.7), d.size(0.04, 0.06)
    shelves, wood, back = d.count(2, 5), d.plain("brown"), d.plain()
    parts = [Part("sides", box(depth, thick, height), wood, move(0, y * width / 2, height / 2)) for y in (-1, 1)]
    if d.chance(0.8):
        parts.append(
            Part("back", box(0.04, width, height), d.pick([wood, back]), move(0.02 - depth / 2, 0, height / 2))
        )
    gap, full = (height - thick) / shelves, d.size(0.3, 1.0)
    colors = [d.plain() for _ in range(d.count(2, 6))]
    for i in range(shelves + 1):
        z = thick / 2 + i * gap
        parts.append(Part("shelves", box(depth, width + thick, thick), wood, move(0, 0, z)))
        y = -width / 2 + thick
        while i < shelves and y < width / 2 - 0.13:
            wide, tall = d.size(0.05, 0.12), (gap - thick) * d.size(0.55, 0.95)
            place = move(-depth * 0.08, y + wide / 2, z + tall / 2)
            if d.chance(full):
                parts.append(Part("books", box(depth * 0.75, wide, tall + 0.01), d.pick(colors), place))
            y += wide + 0.004
    return parts


def candle(d: Draw) -> list[Part]:
    radius, height = d.size(0.07, 0.22), d.size(0.35, 0.9)
    wax, metal, fire = (
        d.material(d.pick(["white", "cream", "red", None]), period=height / 5),
        d.plain("yellow"),
        d.plain("orange"),
    )
    flame, tip = _smooth([0.005, d.size(0.04, 0.07), 0.005], [0, 0.06, d.size(0.16, 0.24)]), height + 0.05
    lit = d.chance(0.8)
    one = [Part("candle", cylinder(radius, height, radius * d.size(0.8, 1)), wax, move(z=height / 2))]
    one.append(Part("wick", cylinder(0.022, 0.14), d.plain("black"), move(z=height + 0.03)))
    if lit:
        one.append(Part("flame", _solid(flame), fire, move(z=tip)))
    build = d.pick(["plain", "dish", "dish", "stick", "branched"])
    if build == "plain":
        return one
    wide, rise = radius * d.size(1.6, 2.6), d.size(0.2, 0.6)
    if build == "dish":
        parts = [*one, Part("dish", _vessel([(wide * 0.8, -0.04), (wide, 0.1)], 0.04), metal)]
        if d.chance(0.6):
            parts.append(Part("handle", arc(0.1, 0.03, 0, 360, 12), metal, move(wide + 0.06, 0, 0.06)))
        return parts
    spots = (-0.38, 0.0, 0.38) if build == "branched" else (0.0,)
    cup = Part("holder", cylinder(radius * 0.7, 0.12, radius * 1.3), metal, move(z=0.02))
    parts = [Part(p.name, p.shape, p.material, move(0, y, 0) @ p.place) for y in spots for p in [*one, cup]]
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
        parts.append(Part("case", Prism(tuple(form), thick * 0.9), case, turn("z", 90) @ turn("x", 90)))
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
        for part in _legs(d, thick * 0.35, width * 0.4, 0.35, 0.035, d.plain("brown")):
            parts.append(Part(part.name, part.shape, part.material, move(z=low - 0.33) @ part.place))
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
        parts.append(Part("canopy", _solid(_smooth([wide * 0.6, wide, 0.03], [low, low + 0.12, height])), cloth))
        return parts
    wide, rise, round_ = d.size(0.5, 0.85), d.size(0.35, 0.8), d.size(0.6, 1.0)
    outer = [(wide * t + 1e-3, height - rise * (1 - np.sqrt(max(1 - round_ * t * t, 0)))) for t in np.linspace(1, 0, 9)]
    inner = [(max(r - 0.02, 0.0), z - 0.045) for r, z in outer[::-1]]
    parts.append(Part("canopy", Lathe(tuple([*outer, *inner])), cloth))
    if d.chance(0.7):
        parts.append(Part("tip", cylinder(rod * 1.3, 0.2, rod * 0.8), metal, move(z=height + 0.02)))
    return parts


KINDS = {
    "mug": mug, "chair": chair, "lamp": lamp, "table": table, "bottle": bottle, "vase": vase, "teapot": teapot,
    "goblet": goblet, "bed": bed, "sofa": sofa, "bookshelf": bookshelf, "bucket": bucket, "candle": candle,
    "clock": clock, "television": television, "umbrella": umbrella, "stool": stool,
}  # fmt: skip
