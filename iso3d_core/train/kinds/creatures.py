"""Kinds that live, or pretend to: animals, people, snowmen and robots."""

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
    box,
    capsule,
    cylinder,
    ellipsoid,
    move,
    scale,
    torus,
    turn,
)

Vector = tuple[float, float, float]
UPRIGHT = turn("x", 90)  # a prism's outline seen from the right: x forward, y up


def _ball(name: str, material: Material, at: Vector, size: Vector, pitch_deg: float = 0.0) -> Part:
    """An ellipsoid of half-axes ``size``."""
    return Part(name, ellipsoid(1.0), material, move(*at) @ turn("y", pitch_deg) @ scale(*size))


def _either(d: Draw, *shapes: Shape) -> Shape:
    return d.pick(shapes)


def _pair(name: str, material: Material, at: Vector, size: Vector, pitch_deg: float = 0.0) -> list[Part]:
    """Two ellipsoids, left and right."""
    x, y, z = at
    return [_ball(name, material, (x, side * y, z), size, pitch_deg) for side in (-1, 1)]


def _eyes(d: Draw, center: Vector, head: float, spread_deg: float = 35.0) -> list[Part]:
    """Eyes on the front of a ball-like head of radius ``head``."""
    r, a = head * d.size(0.13, 0.22), np.deg2rad(spread_deg)
    at = (center[0] + head * 0.9 * np.cos(a), head * 0.9 * np.sin(a), center[2] + head * d.size(0.2, 0.4))
    return _pair("eyes", d.plain("black"), at, (r, r, r))


def _hat(d: Draw, x: float, z: float, radius: float) -> list[Part]:
    """A hat whose rim lies at height ``z``."""
    cloth, height = d.material("black", period=0.1), radius * d.size(0.7, 1.6)
    if d.chance(0.3):
        return [Part("hat", cylinder(radius * 1.1, height * 1.4, 0.02), cloth, move(x, 0, z + height * 0.7))]
    brim = Part("hat", cylinder(radius * d.size(1.3, 1.7), 0.06), cloth, move(x, 0, z))
    return [brim, Part("hat", cylinder(radius, height, radius * d.size(0.8, 1.1)), cloth, move(x, 0, z + height / 2))]


def duck(d: Draw) -> list[Part]:
    long, wide, tall, head = d.size(0.42, 0.6), d.size(0.28, 0.42), d.size(0.24, 0.4), d.size(0.2, 0.32)
    coat, bill = d.material("yellow", period=0.4, patterned=0.2), d.plain("orange")
    crest = d.pick([coat, coat, d.plain("yellow")])
    center = (long * d.size(0.4, 0.8), 0.0, tall + head * d.size(0.4, 1.3))
    neck = capsule((center[0] * 0.8, 0, 0), center, head * 0.6)
    parts = [_ball("body", coat, (0, 0, 0), (long, wide, tall)), _ball("head", crest, center, (head, head, head))]
    parts.append(Part("neck", neck, d.pick([crest, coat])))
    tail = capsule((-long * 0.6, 0, tall * 0.1), (-long * 1.1, 0, tall * d.size(0.5, 1.1)), tall * 0.5, 0.03)
    parts.append(Part("tail", tail, coat))
    beak = center[0] + head, 0.0, center[2] - head * d.size(0.0, 0.3)
    if d.chance(0.6):
        parts.append(
            _ball("beak", bill, beak, (head * d.size(0.5, 0.9), head * d.size(0.4, 0.6), head * d.size(0.15, 0.28)))
        )
    else:
        parts.append(Part("beak", cylinder(head * 0.4, head, 0.03), bill, move(*beak) @ turn("y", 90)))
    parts += _eyes(d, center, head, 45)
    if d.chance(0.75):
        wing = (long * d.size(0.4, 0.6), 0.07, tall * d.size(0.4, 0.65))
        parts += _pair(
            "wings", d.pick([coat, d.plain("yellow")]), (-long * 0.15, wide * 0.92, tall * 0.2), wing, d.size(0, 25)
        )
    if d.chance(0.4):
        leg, foot = tall + d.size(0.1, 0.3), d.size(0.12, 0.2)
        parts += [Part("legs", capsule((0, y, 0), (0, y, -leg), 0.045), bill) for y in (-wide * 0.4, wide * 0.4)]
        parts += _pair("feet", bill, (foot * 0.5, wide * 0.4, -leg), (foot, foot * 0.65, 0.05))
    return parts


def snowman(d: Draw) -> list[Part]:
    snow, count, z, r = d.material("white", period=0.4, patterned=0.1), d.count(2, 3), 0.0, d.size(0.38, 0.5)
    parts: list[Part] = []
    for i in range(count):
        parts.append(_ball("head" if i == count - 1 else "body", snow, (0, 0, z), (r, r, r * d.size(0.88, 1.0))))
        if i < count - 1:
            low, low_r, r = z, r, r * d.size(0.62, 0.8)
            z += low_r * 0.85 + r * 0.7
    parts.append(Part("nose", cylinder(0.07, 0.3, 0.02), d.plain("orange"), move(r + 0.08, 0, z) @ turn("y", 90)))
    parts += _eyes(d, (0, 0, z), r, 28)
    if d.chance(0.7):
        parts += _hat(d, 0, z + r * 0.75, r * 0.75)
    if d.chance(0.6):
        scarf, ring = d.material("red", period=0.1), min(r, low_r) * 0.8
        parts.append(Part("scarf", torus(ring, d.size(0.06, 0.1)), scarf, move(z=z - r * 0.7)))
        if d.chance(0.6):
            parts.append(
                Part("scarf", capsule((ring, 0.1, z - r * 0.7), (low_r, 0.15, low + low_r * 0.3), 0.06), scarf)
            )
    if d.chance(0.7):
        coal = d.plain("black")
        for up in np.deg2rad([10, 35, 60][: d.count(2, 3)]):
            parts.append(
                Part("buttons", ellipsoid(0.06), coal, move(low_r * np.cos(up), 0, low + low_r * 0.92 * np.sin(up)))
            )
    if d.chance(0.65):
        wood, lift, reach = d.plain("brown"), d.size(-0.1, 0.4), d.size(0.3, 0.5)
        for y in (-1, 1):
            ends = (0, y * low_r * 0.6, low + low_r * 0.4), (0, y * (low_r + reach), low + low_r * 0.4 + lift)
            parts.append(Part("arms", capsule(*ends, 0.04), wood))
    return parts


def robot(d: Draw) -> list[Part]:
    wide, deep, tall, head = d.size(0.4, 0.7), d.size(0.3, 0.5), d.size(0.4, 0.8), d.size(0.25, 0.5)
    metal, round_body, round_head = d.material("silver", period=0.2), d.chance(0.35), d.chance(0.35)
    second = d.pick([metal, d.plain()])
    limb, eye, top = d.pick([metal, d.plain()]), d.plain("red"), tall / 2 + head * 0.42
    body = cylinder(wide / 2, tall, wide / 2 * d.size(0.7, 1.1)) if round_body else box(deep, wide, tall)
    front = wide / 2 if round_body else deep / 2
    face = head / 2 if round_head else head * 0.45
    helmet = (
        d.pick([ellipsoid(head / 2), cylinder(head / 2, head)])
        if round_head
        else box(head * 0.9, head * d.size(1, 1.4), head)
    )
    parts = [Part("body", body, metal), Part("head", helmet, second, move(z=top))]
    for y in d.pick([(-1, 1), (-1, 1), (0,)]):
        place = move(face * 0.92, y * head * 0.22, top + head * 0.1) @ turn("y", 90)
        parts.append(Part("eyes", cylinder(head * (0.14 if y else 0.25), 0.12), eye, place))
    for y in d.pick([(), (0,), (-1, 1)]):
        base, tip = (0, y * head * 0.25, top), (0, y * head * 0.4, top + head / 2 + d.size(0.12, 0.3))
        parts += [Part("antenna", capsule(base, tip, 0.03), limb), _ball("antenna", eye, tip, (0.06, 0.06, 0.06))]
    reach, arm = d.size(0.3, 0.6), d.size(0.05, 0.1)
    for y in (-1, 1):
        out = y * (wide / 2 + arm * 0.7)
        hand = (d.pick([0, reach * 0.5, reach]), out, tall * 0.3 - reach * d.pick([1, 1, 0.3, -0.6]))
        parts.append(Part("arms", Tube(((0, 0, tall * 0.3), (0, out, tall * 0.3), hand), (arm, arm, arm)), limb))
        parts.append(Part("hands", ellipsoid(arm * 1.5), second, move(*hand)))
    leg, foot = d.size(0.2, 0.5), d.size(0.12, 0.2)
    build = d.pick(["legs", "legs", "tracks", "wheels", "skirt"])
    for y in (-1, 1):
        place = move(0, y * wide * 0.3, -tall / 2 - leg / 2)
        if build == "legs":
            parts.append(
                Part("legs", _either(d, box(foot, foot, leg + 0.05), cylinder(foot / 2, leg + 0.05)), limb, place)
            )
            parts.append(Part("feet", box(foot * 2, foot * 1.3, 0.1), second, place @ move(foot * 0.4, 0, -leg / 2)))
        elif build == "tracks":
            track = scale(1, 1, d.size(0.4, 0.7)) @ UPRIGHT
            belt = capsule((-deep * 0.5, 0, 0), (deep * 0.5, 0, 0), 0.17)
            parts.append(Part("tracks", belt, limb, move(0, y * wide * 0.4, -tall / 2 - 0.03) @ track))
        elif build == "wheels":
            parts.append(
                Part("wheels", cylinder(0.2, 0.12), limb, move(0, y * wide * 0.45, -tall / 2 - 0.05) @ UPRIGHT)
            )
    if build == "skirt":
        parts.append(Part("base", cylinder(wide * 0.6, leg, wide * 0.4), limb, move(z=-tall / 2 - leg / 2 + 0.02)))
    if d.chance(0.5):
        parts.append(
            Part(
                "panel",
                box(0.08, wide * d.size(0.3, 0.6), tall * d.size(0.2, 0.4)),
                d.material(period=0.08),
                move(front),
            )
        )
    return parts


def _beast(d: Draw, coat: Material, belly: tuple[float, float], head: float) -> tuple[list[Part], Vector, Vector]:
    """Body, legs and head of a four-legged animal; also the middle of the head and the root of the tail."""
    long, wide = d.size(0.3, 0.5), d.size(*belly)
    leg, paw = d.size(0.2, 0.45), wide * d.size(0.28, 0.42)
    feet, build = d.pick([coat, coat, d.plain()]), d.pick(["round", "round", "boxy", "sitting"])
    if build == "sitting":
        center = (wide * 0.3, 0.0, long * 1.6 + head * 0.5)
        parts = [_ball("body", coat, (0, 0, long * 0.8), (wide * 1.2, wide * 1.15, long), d.size(0, 15))]
        parts += _pair("legs", feet, (wide * 0.8, wide * 0.7, 0.0), (paw * 2.2, paw * 1.1, paw))
        for y in (-1, 1):
            shoulder = (wide * 0.6, y * wide * 0.5, long * 1.1)
            parts.append(Part("legs", capsule(shoulder, (wide * 1.3, y * wide * 0.4, 0), paw * 0.8), coat))
        rear = (-wide * 0.9, 0.0, long * 0.3)
    else:
        center = (long + head * d.size(0.2, 0.6), 0.0, leg + wide + head * d.size(0.3, 0.9))
        if build == "boxy":
            parts = [Part("body", box(2 * long + wide, wide * 1.8, wide * 1.7), coat, move(z=leg + wide * 0.7))]
            rear = (-long - wide * 0.4, 0.0, leg + wide)
        else:
            parts = [
                Part(
                    "body",
                    capsule((-long, 0, leg + wide * 0.8), (long, 0, leg + wide * 0.8), wide, wide * d.size(0.8, 1.15)),
                    coat,
                )
            ]
            rear = (-long - wide * 0.7, 0.0, leg + wide)
        parts.append(Part("neck", capsule((long * 0.8, 0, leg + wide), center, head * 0.6), coat))
        for x in (-1, 1):
            for y in (-1, 1):
                foot = (x * long, y * wide * 0.55, 0)
                round_leg = capsule((0, 0, 0), (0, 0, leg + wide * 0.4), paw * 0.85)
                shape = cylinder(paw, leg * 2) if build == "boxy" else round_leg
                parts.append(Part("legs", shape, feet, move(*foot) @ move(z=leg / 2 if build == "boxy" else 0)))
    if build == "boxy":
        parts.append(Part("head", box(head * 1.7, head * 1.9, head * 1.8), coat, move(*center)))
    else:
        parts.append(_ball("head", coat, center, (head, head * d.size(0.9, 1.15), head * d.size(0.85, 1.0))))
    return parts, center, rear


def _muzzle(d: Draw, head: Vector, size: float, length: float, coat: Material) -> list[Part]:
    x, y, z = head
    tip = (x + size * (0.8 + length), y, z - size * 0.2)
    snout = Part(
        "muzzle",
        capsule((x + size * 0.4, y, z - size * 0.25), tip, size * 0.5, size * d.size(0.3, 0.42)),
        d.pick([coat, d.plain("cream")]),
    )
    nose = _ball("nose", d.plain("black"), (tip[0] + size * 0.35, y, tip[2] + size * 0.15), (size * 0.18,) * 3)
    return [snout, nose, *_eyes(d, head, size * 1.02, 32)]


def cat(d: Draw) -> list[Part]:
    coat, head = d.material(d.pick(["orange", "grey", "black", "white"]), period=0.12), d.size(0.2, 0.3)
    parts, (x, _, z), rear = _beast(d, coat, (0.14, 0.24), head)
    parts += _muzzle(d, (x, 0, z), head, d.size(0.0, 0.15), coat)
    ear = Prism(((-head * 0.42, 0), (head * 0.42, 0), (0, head * d.size(0.6, 1.0))), 0.09)
    for y in (-1, 1):
        parts.append(Part("ears", ear, coat, move(x, y * head * 0.55, z + head * 0.6) @ turn("z", 90) @ UPRIGHT))
    back, up, bend = rear[0] - d.size(0.15, 0.35), rear[2] + d.size(0.1, 0.5), d.size(-0.2, 0.2)
    tail = Tube((rear, (back, bend / 2, rear[2] + 0.05), (back - 0.05, bend, up)), (0.06, 0.055, 0.045))
    return [*parts, Part("tail", tail, d.pick([coat, d.plain()]))]


def dog(d: Draw) -> list[Part]:
    coat, head = d.material(d.pick(["brown", "tan", "white", "black"]), period=0.25, patterned=0.25), d.size(0.2, 0.28)
    parts, (x, _, z), rear = _beast(d, coat, (0.15, 0.26), head)
    parts += _muzzle(d, (x, 0, z), head, d.size(0.3, 0.8), coat)
    ear, flap = d.pick([coat, d.plain("brown")]), head * d.size(0.5, 0.9)
    if d.chance(0.65):
        parts += _pair(
            "ears", ear, (x - head * 0.1, head * 0.98, z + head * 0.3 - flap * 0.4), (head * 0.35, 0.06, flap)
        )
    else:
        parts += _pair("ears", ear, (x - head * 0.1, head * 0.55, z + head * 0.9), (0.07, head * 0.3, flap * 0.8))
    tip = (rear[0] - d.size(0.1, 0.3), 0.0, rear[2] + d.size(-0.1, 0.35))
    parts.append(Part("tail", capsule(rear, tip, 0.065, 0.04), coat))
    if d.chance(0.4):
        parts.append(
            Part(
                "collar",
                torus(head * 0.62, 0.055),
                d.plain("red"),
                move(x - head * 0.4, 0, z - head * 0.75) @ turn("y", 30),
            )
        )
    return parts


def bear(d: Draw) -> list[Part]:
    coat, head = d.material(d.pick(["brown", "tan", "white"]), period=0.3, patterned=0.15), d.size(0.24, 0.36)
    if d.chance(0.4):
        parts, (x, _, z), _ = _beast(d, coat, (0.24, 0.34), head)
    else:
        tall, wide, limb, x = d.size(0.3, 0.42), d.size(0.26, 0.36), d.size(0.1, 0.14), 0.0
        z = tall + head * 0.75
        parts = [_ball("body", coat, (0, 0, 0), (wide * 0.9, wide, tall)), _ball("head", coat, (0, 0, z), (head,) * 3)]
        lift, seat = d.size(-0.35, 0.2), d.size(0.05, 0.4)
        for y in (-1, 1):
            hand = (d.size(0.05, 0.3), y * (wide + limb * 1.6), tall * 0.4 + lift)
            parts.append(Part("arms", capsule((0, y * wide * 0.6, tall * 0.5), hand, limb), coat))
            foot = (seat, y * wide * 0.75, -tall - 0.25 + seat * 0.6)
            parts.append(Part("legs", capsule((0, y * wide * 0.5, -tall * 0.6), foot, limb * 1.2), coat))
        if d.chance(0.6):
            parts.append(
                _ball("belly", d.plain("cream"), (wide * 0.3, 0, -0.02), (wide * 0.7, wide * 0.75, tall * 0.75))
            )
    parts += _muzzle(d, (x, 0, z), head, d.size(-0.05, 0.25), coat)
    size = head * d.size(0.3, 0.42)
    return parts + _pair(
        "ears", d.pick([coat, d.plain("brown")]), (x, head * 0.75, z + head * 0.75), (size * 0.6, size, size)
    )


def bird(d: Draw) -> list[Part]:
    long, fat, head = d.size(0.32, 0.5), d.size(0.2, 0.32), d.size(0.15, 0.24)
    coat, bill, tilt = d.material("blue", period=0.4, patterned=0.25), d.plain("orange"), -d.size(0, 45)
    wing_color, out = d.pick([coat, d.plain()]), np.deg2rad(tilt)
    center = (long * 0.75 * np.cos(out), 0.0, -long * 0.75 * np.sin(out) + head * 0.8)
    end = (-long * 0.7 * np.cos(out), 0.0, long * 0.7 * np.sin(out))
    parts = [
        _ball("body", coat, (0, 0, 0), (long, fat, fat), tilt),
        _ball("head", d.pick([coat, d.plain()]), center, (head,) * 3),
    ]
    place = move(center[0] + head * 1.2, 0, center[2]) @ turn("y", 90 + d.size(0, 15))
    parts += [
        Part("beak", cylinder(head * 0.35, head * d.size(0.7, 1.8), 0.02), bill, place),
        *_eyes(d, center, head, 50),
    ]
    tail = box(d.size(0.3, 0.6), d.size(0.12, 0.3), 0.06)
    parts.append(Part("tail", tail, wing_color, move(*end) @ turn("y", tilt * 0.6) @ move(x=-0.2)))
    if d.chance(0.35):
        span, sweep = d.size(0.4, 0.7), d.size(0, 25)
        for y in (-1, 1):
            place = move(z=fat * 0.4) @ turn("z", y * sweep) @ turn("x", y * d.size(0, 30)) @ move(y=y * span * 0.9)
            parts.append(Part("wings", ellipsoid(1.0), wing_color, place @ scale(long * 0.5, span, 0.06)))
    else:
        parts += _pair("wings", wing_color, (-0.08, fat * 0.9, 0.02), (long * 0.7, 0.07, fat * 0.6), tilt)
    if d.chance(0.7):
        leg = fat + d.size(0.1, 0.25)
        parts += [Part("legs", capsule((0, y, 0), (0, y, -leg), 0.03), bill) for y in (-0.09, 0.09)]
        parts += _pair("feet", bill, (0.05, 0.09, -leg), (0.13, 0.07, 0.04))
    return parts


def fish(d: Draw) -> list[Part]:
    long, tall, thick = d.size(0.4, 0.6), d.size(0.2, 0.42), d.size(0.1, 0.25)
    scales, fin = d.material("orange", period=0.4), d.plain("orange")
    fins = d.pick([fin, fin, scales])
    skin = Material(scales.color, scales.second, scales.pattern, scales.period, 0 if scales.pattern == "rings" else 2)
    parts = [_ball("body", skin, (0, 0, 0), (long, thick, tall))]
    h, w = d.size(0.2, 0.4), d.size(0.2, 0.4)
    fork = d.size(0, 0.6) * w
    tail = Prism(
        ((-long * 0.8, 0.05), (-long - w, h), (-long - w + fork, 0), (-long - w, -h), (-long * 0.8, -0.05)), 0.07
    )
    parts.append(Part("tail", tail, fins, UPRIGHT))
    for up in (1, -1)[: d.count(0, 2)]:
        top = d.size(0.1, 0.3)
        outline = (
            (long * 0.35, up * tall * 0.7),
            (-long * 0.5, up * tall * 0.7),
            (-long * d.size(0.3, 0.6), up * (tall + top)),
        )
        parts.append(Part("fins", Prism(outline, 0.07), fins, UPRIGHT))
    parts += _pair("fins", fins, (0.05, thick * 1.05, -tall * 0.2), (d.size(0.1, 0.18), 0.07, 0.07), d.size(-40, 40))
    size = d.size(0.05, 0.08)
    parts += _pair("eyes", d.plain("black"), (long * 0.7, thick * 0.62, tall * 0.2), (size,) * 3)
    if d.chance(0.4):
        parts.append(_ball("mouth", d.plain("pink"), (long * 0.97, 0, 0), (0.06, 0.08, 0.08)))
    return parts


def turtle(d: Draw) -> list[Part]:
    long, wide, tall, head = d.size(0.4, 0.55), d.size(0.35, 0.48), d.size(0.2, 0.42), d.size(0.12, 0.2)
    skin, shell = d.plain("green"), d.material("brown", period=0.35, patterned=0.5)
    dome = Part("shell", ellipsoid(1.0, start_deg=d.pick([0, -20])), shell, scale(long, wide, tall))
    center = (long + head * d.size(0.5, 1.2), 0.0, d.size(0.0, 0.2))
    parts = [dome, _ball("belly", d.pick([skin, d.plain("tan")]), (0, 0, 0), (long * 0.97, wide * 0.97, 0.1))]
    parts += [
        Part("neck", capsule((long * 0.7, 0, 0), center, head * 0.6), skin),
        _ball("head", skin, center, (head,) * 3),
    ]
    parts += _eyes(d, center, head, 45)
    flipper = d.size(0.09, 0.17)
    for x in (-1, 1):
        if d.chance(0.5):
            parts += _pair("legs", skin, (x * long * 0.6, wide * 0.7, -0.1), (flipper, flipper, 0.18))
        else:
            parts += _pair("legs", skin, (x * long * 0.65, wide * 0.95, -0.04), (flipper * 0.9, flipper * 1.5, 0.07))
    parts.append(Part("tail", capsule((-long * 0.8, 0, 0), (-long - d.size(0.08, 0.2), 0, -0.03), 0.06, 0.03), skin))
    if d.chance(0.3):
        parts.append(Part("rim", torus(1.0, 0.13), d.plain(), scale(long, wide, 0.4)))
    return parts


def person(d: Draw) -> list[Part]:
    tall, wide, head, skin = d.size(0.4, 0.7), d.size(0.16, 0.26), d.size(0.16, 0.28), d.plain("tan")
    shirt, trousers, hair = d.material(period=0.12), d.plain(), d.plain("brown")
    z, build = tall + head * 0.8, d.pick(["peg", "limbs", "limbs", "robe"])
    parts = [Part("head", ellipsoid(head), skin, move(z=z)), *_eyes(d, (0, 0, z), head, 28)]
    if build == "peg":
        profile = ((0, 0), (wide * 1.2, 0), (wide * d.size(1.0, 1.4), tall * 0.5), (wide * 0.8, tall), (0, tall))
        parts.append(Part("body", Lathe(profile), shirt))
    elif build == "robe":
        parts.append(Part("body", cylinder(wide * d.size(1.4, 2.0), tall, wide * 0.6), shirt, move(z=tall / 2)))
    else:
        leg, apart = d.size(0.35, 0.6), wide * d.size(0.5, 0.8)
        torso = _either(
            d, box(wide * 1.2, wide * 2, tall), cylinder(wide, tall), cylinder(wide * 0.7, tall, wide * 1.1)
        )
        parts.append(Part("body", torso, shirt, move(z=tall / 2)))
        for y in (-1, 1):
            foot = (d.size(-0.1, 0.1), y * apart * d.size(1.0, 1.5), -leg)
            parts.append(Part("legs", capsule((0, y * apart, 0.05), foot, wide * 0.42), trousers))
            parts.append(
                _ball("shoes", hair, (foot[0] + 0.05, foot[1], foot[2]), (wide * 0.75, wide * 0.5, wide * 0.42))
            )
    for y in (-1, 1) if build != "peg" or d.chance(0.4) else ():
        reach, raised = d.size(0.3, 0.5), np.deg2rad(d.pick([-75, -60, -30, 0, 50]))
        hand = (d.size(0, 0.15), y * (wide + reach * np.cos(raised)), tall * 0.82 + reach * np.sin(raised))
        parts += [
            Part("arms", capsule((0, y * wide * 0.5, tall * 0.85), hand, wide * 0.33), shirt),
            _ball("hands", skin, hand, (wide * 0.4,) * 3),
        ]
    if d.chance(0.35):
        parts += _hat(d, 0, z + head * 0.6, head * 0.85)
    elif d.chance(0.8):
        parts.append(
            _ball("hair", hair, (-head * 0.15, 0, z + head * 0.2), (head, head * 1.05, head * d.size(0.9, 1.1)))
        )
    return parts


def caterpillar(d: Draw) -> list[Part]:
    count, r, first, second = d.count(4, 8), d.size(0.16, 0.24), d.plain("green"), d.plain("green")
    step, wave, hump, feet = d.size(1.2, 1.6) * r, d.size(0, 0.15), d.size(0, 0.25), d.plain()
    other, legs = d.pick([first, second]), d.chance(0.6)
    parts: list[Part] = []
    for i in range(count):
        at = (-i * step, wave * np.sin(i * 1.2), hump * np.sin(i * 1.1) ** 2)
        parts.append(_ball("body", (first, other)[i % 2], at, (r,) * 3))
        if legs and i:
            parts += [
                _ball("feet", feet, (at[0], at[1] + y * r * 0.55, at[2] - r * 0.85), (r * 0.3,) * 3) for y in (-1, 1)
            ]
    head, rise = r * d.size(1.1, 1.4), r * d.size(0.2, 0.9)
    center = (step * 0.7, 0.0, rise)
    parts += [_ball("head", d.pick([first, d.plain()]), center, (head,) * 3), *_eyes(d, center, head)]
    for y in (-1, 1) if d.chance(0.8) else ():
        tip = (center[0] + 0.05, y * head * 0.7, rise + head * d.size(1.4, 1.9))
        parts += [
            Part("feelers", capsule((center[0], y * head * 0.4, rise + head * 0.6), tip, 0.03), feet),
            _ball("feelers", feet, tip, (0.06,) * 3),
        ]
    return parts


def penguin(d: Draw) -> list[Part]:
    tall, wide, head = d.size(0.4, 0.6), d.size(0.25, 0.42), d.size(0.2, 0.3)
    coat, white, bill = d.plain("black"), d.plain("white"), d.plain("orange")
    z = tall * 0.8 + head * 0.6
    parts = [_ball("body", coat, (0, 0, 0), (wide * 0.9, wide, tall)), _ball("head", coat, (0, 0, z), (head,) * 3)]
    parts.append(_ball("belly", white, (wide * 0.22, 0, -tall * 0.08), (wide * 0.75, wide * 0.78, tall * 0.82)))
    if d.chance(0.4):
        parts += _pair("face", white, (head * 0.35, head * 0.3, z), (head * 0.68, head * 0.5, head * 0.6))
    beak = cylinder(head * 0.3, head * d.size(0.6, 1.1), 0.02)
    parts += [
        Part("beak", beak, bill, move(head * 1.2, 0, z - head * 0.1) @ turn("y", 95)),
        *_eyes(d, (head * 0.1, 0, z), head),
    ]
    out = d.size(5, 50)
    for y in (-1, 1):
        wing = (
            move(0, y * wide * 0.85, tall * 0.4)
            @ turn("x", y * out)
            @ move(z=-tall * 0.45)
            @ scale(wide * 0.4, 0.07, tall * 0.55)
        )
        parts.append(Part("wings", ellipsoid(1.0), coat, wing))
    parts += _pair("feet", bill, (wide * 0.5, wide * 0.45, -tall * 0.93), (wide * 0.6, wide * 0.35, 0.06))
    return parts


KINDS = {
    "duck": duck, "snowman": snowman, "robot": robot, "cat": cat, "dog": dog, "bird": bird, "fish": fish,
    "turtle": turtle, "bear": bear, "person": person, "caterpillar": caterpillar, "penguin": penguin,
}  # fmt: skip
