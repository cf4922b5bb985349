"""Kinds that grow: trees, cacti, mushrooms, flowers, fruit and vegetables."""

from __future__ import annotations

import numpy as np

from ..draw import Draw
from ..solids import Lathe, Material, Part, Prism, Tube, capsule, cylinder, ellipsoid, move, scale, torus, turn
from .shapes import FRONT, ball, placed


def _pot(d: Draw, radius: float, height: float) -> Part:
    """A pot whose rim is at z = 0.02."""
    shape = cylinder(radius * d.size(0.6, 1.0), height, radius)
    return Part("pot", shape, d.material("brown", period=height / 3), move(z=0.02 - height / 2))


def tree(d: Draw) -> list[Part]:
    build = d.pick(["round", "round", "conifer", "palm"])
    if build == "palm":
        return _palm(d)
    trunk, height, crown = d.size(0.04, 0.11), d.size(0.2, 0.8), d.size(0.25, 0.5)
    bark = d.plain("brown")
    leaves = d.material("green", period=0.3)
    low = d.size(0.8, 1.2) * trunk
    parts = [Part("trunk", cylinder(low, height + 0.2, trunk * 0.8), bark, move(z=height / 2 + 0.1))]
    if build == "conifer":
        layers, z, radius = d.count(1, 4), height, crown
        step = d.size(0.5, 1.3) / layers
        for _ in range(layers):
            tier = step * d.size(1.1, 1.5)
            parts.append(Part("crown", cylinder(radius, tier, radius * 0.06), leaves, move(z=z + tier / 2)))
            z, radius = z + step * 0.75, radius * d.size(0.7, 0.85)
        return parts
    tall = crown * d.size(0.7, 1.5)
    parts.append(ball("crown", leaves, (0, 0, height + tall * 0.8), (crown, crown, tall)))
    for turned in np.linspace(0, 360, d.count(0, 5), endpoint=False) + d.size(0, 90):
        r, out = crown * d.size(0.45, 0.8), crown * d.size(0.6, 0.95)
        at = (out * np.cos(np.deg2rad(turned)), out * np.sin(np.deg2rad(turned)), height + tall * d.size(0.4, 1.5))
        parts.append(ball("crown", leaves, at, (r, r, r)))
    if d.chance(0.25):
        fruit, color = d.count(3, 8), d.plain("red")
        for turned in np.linspace(0, 360, fruit, endpoint=False):
            place = turn("z", turned) @ move(crown * 0.9, 0, height + tall * d.size(0.6, 1.1))
            parts.append(Part("fruit", ellipsoid(0.06), color, place))
    return parts


def _palm(d: Draw) -> list[Part]:
    height, lean, trunk = d.size(0.6, 1.3), d.size(-0.3, 0.3), d.size(0.04, 0.08)
    path = tuple((lean * t**2, 0.0, height * t) for t in (0.0, 0.35, 0.7, 1.0))
    parts = [Part("trunk", Tube(path, (trunk * 1.3, trunk, trunk, trunk * 0.8)), d.material("brown", period=0.12))]
    reach, droop, leaves = d.size(0.3, 0.55), d.size(-0.1, 0.4), d.plain("green")
    leaf = Tube(((0, 0, 0), (reach * 0.55, 0, 0.12), (reach, 0, 0.1 - droop)), (0.03, d.size(0.06, 0.1), 0.025))
    for turned in np.linspace(0, 360, d.count(4, 8), endpoint=False):
        parts.append(Part("leaves", leaf, leaves, move(lean, 0, height) @ turn("z", turned)))
    if d.chance(0.5):
        nut = d.plain("brown")
        for y in (-1, 1):
            parts.append(Part("coconuts", ellipsoid(0.08), nut, move(lean + 0.03, y * 0.07, height - 0.07)))
    return parts


def cactus(d: Draw) -> list[Part]:
    build = d.pick(["column", "column", "barrel", "several", "pads"])
    green, bloom = d.material("green", period=0.2), d.plain("pink")
    radius, height = d.size(0.1, 0.2), d.size(0.6, 1.2)
    parts: list[Part] = []
    if build == "column":
        parts.append(Part("body", capsule((0, 0, 0), (0, 0, height), radius), green))
        for turned in d.pick([(90, -90), (90, -90), (90,), (0, 180), (70, 200, 310)]):
            z, out, up, arm = height * d.size(0.2, 0.6), radius + d.size(0.12, 0.25), d.size(0.15, 0.5), radius * 0.65
            shape = Tube(((0, 0, z), (out, 0, z), (out, 0, z + up)), (arm, arm, arm))
            parts.append(Part("arms", shape, d.pick([green, green, d.plain("green")]), turn("z", turned)))
    elif build == "barrel":
        radius, height = d.size(0.3, 0.45), d.size(0.2, 0.4)
        ribs = Material(d.near("green"), d.near("dark green"), "stripes", d.size(0.08, 0.2))
        parts.append(ball("body", d.pick([green, ribs]), (0, 0, height * 0.8), (radius, radius, height)))
        height *= 1.7
    elif build == "several":
        for turned in np.linspace(0, 360, d.count(2, 4), endpoint=False):
            place = turn("z", turned) @ move(x=radius * d.size(0.8, 1.2))
            tall = height * d.size(0.4, 1.0)
            parts.append(Part("stems", capsule((0, 0, 0), (0, 0, tall), radius * d.size(0.7, 1.1)), green, place))
    else:
        size = d.size(0.2, 0.28)
        parts.append(ball("pads", green, (0, 0, size), (0.1, size, size * 1.3)))
        for y in (-1, 1, 0)[: d.count(1, 3)]:
            top = size * d.size(0.6, 0.9)
            parts.append(ball("pads", green, (0, y * size * 0.75, size * 2.3 + top * 0.5), (0.08, top, top * 1.2)))
        height = size * 2.2
    if build != "several" and build != "pads" and d.chance(0.4):
        parts.append(
            Part("flower", ellipsoid(d.size(0.08, 0.13)), bloom, move(z=height + radius * 0.7 * (build == "column")))
        )
    if d.chance(0.5):
        parts.append(_pot(d, d.size(1.3, 2.0) * max(radius, 0.2), d.size(0.2, 0.5)))
    return parts


def mushroom(d: Draw) -> list[Part]:
    stem_color, cap_color, spot_color = d.plain("cream"), d.material("red", period=0.3), d.plain("white")
    parts: list[Part] = []
    build, spotted, ringed = d.pick(["dome", "dome", "cone", "ball", "funnel"]), d.chance(0.5), d.chance(0.2)
    count = d.pick([1, 1, 1, 2, 3])
    for i in range(count):
        s = 1.0 if i == 0 else d.size(0.4, 0.7)
        stem, height, cap, tall = (s * d.size(*r) for r in ((0.08, 0.22), (0.3, 0.8), (0.3, 0.55), (0.18, 0.5)))
        base = move(y=0.0 if i == 0 else d.size(0.25, 0.35) * (-1) ** i, x=0.0 if i == 0 else d.size(-0.1, 0.2))
        trunk = cylinder(stem * d.size(0.9, 1.4), height + 0.1 * s, stem)
        parts.append(Part("stem", trunk, stem_color, base @ move(z=height / 2 + 0.05 * s)))
        shape = {
            "dome": ellipsoid(cap, tall, d.size(-25, 0)), "cone": cylinder(cap, tall, cap * d.size(0.05, 0.5)),
            "ball": ellipsoid(cap, tall), "funnel": cylinder(stem, tall, cap),
        }[build]  # fmt: skip
        lift = {"dome": 0.0, "ball": tall * 0.6}.get(build, tall / 2)
        parts.append(Part("cap", shape, cap_color, base @ move(z=height + lift)))
        if ringed:
            parts.append(Part("ring", torus(stem, 0.05 * s), stem_color, base @ move(z=height * 0.6)))
        for turned in (
            np.linspace(0, 360, d.count(3, 6), endpoint=False) if spotted and build in ("dome", "ball") else ()
        ):
            up = np.deg2rad(d.size(20, 70))
            spot = move(cap * np.cos(up), 0, height + lift + tall * np.sin(up))
            parts.append(Part("spots", ellipsoid(cap * d.size(0.12, 0.2)), spot_color, base @ turn("z", turned) @ spot))
    if count > 1 or d.chance(0.25):
        parts.append(Part("ground", ellipsoid(d.size(0.45, 0.6), 0.12), d.plain("green")))
    return parts


def flower(d: Draw) -> list[Part]:
    height, stem, radius = d.size(0.4, 1.1), d.size(0.03, 0.055), d.size(0.1, 0.2)
    green, petal, heart = d.plain("green"), d.plain(), d.plain("yellow")
    parts = [Part("stem", cylinder(stem, height), green, move(z=height / 2))]
    head = move(z=height) @ turn("y", d.pick([0, d.size(20, 90), 90]))
    if d.chance(0.25):
        opening, depth = d.size(0.15, 0.3), d.size(0.3, 0.5)
        cup = Lathe(((0, 0), (opening * 0.7, 0.05), (opening, depth * 0.6), (opening * 0.8, depth), (0, depth * 0.5)))
        parts.append(Part("blossom", cup, d.material(period=0.15), move(z=height - 0.04)))
    else:
        count, length = d.count(4, 9), d.size(0.1, 0.22)
        width = min((radius + length) * np.pi / count, 0.22) * d.size(0.7, 1.0)
        for turned in np.arange(count) * 360 / count:
            place = head @ turn("z", turned) @ move(x=radius * 0.8 + length * 0.8) @ scale(length, width, 0.05)
            parts.append(Part("petals", ellipsoid(1.0), petal, place))
        parts.append(Part("heart", ellipsoid(radius, d.size(0.07, 0.12)), heart, head))
    for side in (-1, 1)[: d.count(0, 2)]:
        z, length = height * d.size(0.15, 0.5), d.size(0.12, 0.25)
        place = (
            turn("z", side * 90) @ move(z=z) @ turn("y", -d.size(10, 50)) @ move(x=length) @ scale(length, 0.09, 0.04)
        )
        parts.append(Part("leaves", ellipsoid(1.0), green, place))
    if d.chance(0.6):
        parts.append(_pot(d, d.size(0.15, 0.32), d.size(0.2, 0.45)))
    return parts


def _stalk(d: Draw, z: float, leafy: float) -> list[Part]:
    """A stalk that starts at height ``z`` and, with probability ``leafy``, a leaf on it."""
    lean, length, thick = d.size(-0.12, 0.12), d.size(0.12, 0.3), d.size(0.03, 0.05)
    parts = [Part("stem", capsule((0, 0, z - 0.12), (lean, 0, z + length), thick), d.plain("brown"))]
    if d.chance(leafy):
        place = move(z=z + length * 0.5) @ turn("z", d.size(0, 360)) @ turn("y", -d.size(0, 40))
        leaf = place @ move(x=0.17) @ scale(d.size(0.17, 0.22), d.size(0.07, 0.12), 0.035)
        parts.append(Part("leaf", ellipsoid(1.0), d.plain("green"), leaf))
    return parts


def apple(d: Draw) -> list[Part]:
    skin = d.material(d.pick(["red", "green", "yellow"]), period=0.25, patterned=0.2)
    angle = np.deg2rad(np.linspace(-90, 90, 21))
    dent, narrow, tall = d.size(0.05, 0.25), d.size(0.0, 0.2), d.size(0.38, 0.55)
    radius = 0.5 * np.cos(angle) ** d.size(0.6, 1.0) * (1 + narrow * np.sin(angle))
    z = tall * np.sin(angle) - dent * np.sign(angle) * np.exp(-((radius / 0.18) ** 2))
    profile = tuple((max(float(r), 1e-4), float(h)) for r, h in zip(radius, z, strict=True))
    shape = Lathe(((0.0, profile[0][1]), *profile, (0.0, profile[-1][1])))
    return [Part("body", shape, skin), *_stalk(d, tall - dent, 0.65)]


def pear(d: Draw) -> list[Part]:
    skin = d.material(d.pick(["green", "yellow", "lime"]), period=0.25, patterned=0.2)
    low, top, rise = d.size(0.32, 0.42), d.size(0.14, 0.24), d.size(0.38, 0.62)
    if d.chance(0.4):
        middle = (low * 0.62 + top * 0.38) * d.size(0.9, 1.05)
        body = [Part("body", Tube(((0, 0, 0), (0, 0, rise * 0.5), (0, 0, rise)), (low, middle, top)), skin)]
    else:
        t = np.linspace(0, 1, 25)
        swell = low * np.sin(np.pi * np.minimum(t * 1.25, 1)) + top * np.sin(np.pi * t**1.3) ** 0.5 * t
        outline = [(max(float(r), 1e-4), float(h)) for r, h in zip(swell, t * (low + rise + top) - low, strict=True)]
        body = [Part("body", Lathe(((0.0, outline[0][1]), *outline, (0.0, outline[-1][1]))), skin)]
    return body + _stalk(d, rise + top, 0.5)


def carrot(d: Draw) -> list[Part]:
    length, radius, leaves = d.size(0.7, 1.3), d.size(0.12, 0.22), d.plain("green")
    shoulder = radius * d.size(0.3, 0.8)
    profile = ((0, 0), (0.03, 0), (radius * 0.7, length * 0.6), (radius, length), (radius * 0.6, length + shoulder))
    skin = d.material("orange", period=0.15)
    parts = [Part("root", Lathe((*profile, (0, length + shoulder))), skin)]
    for turned in np.linspace(0, 360, d.count(2, 6), endpoint=False):
        out, up, thick = d.size(0.03, 0.2), d.size(0.2, 0.5), d.size(0.03, 0.06)
        tuft = Tube(((0, 0, 0), (out * 0.4, 0, up * 0.6), (out, 0, up)), (0.03, thick, thick * 0.7))
        parts.append(Part("leaves", tuft, leaves, move(z=length + shoulder - 0.03) @ turn("z", turned)))
    tip = turn("y", d.pick([0, 90, 180, d.size(-40, 40)]))
    return placed(parts, tip)


def pumpkin(d: Draw) -> list[Part]:
    radius, tall = d.size(0.4, 0.6), d.size(0.3, 0.55)
    stripes = Material(d.near("orange"), d.near("brown"), "stripes", d.size(0.06, 0.15))
    skin = d.pick([d.plain("orange"), d.plain("orange"), d.material("orange"), stripes])
    parts = [ball("body", skin, (0, 0, 0), (radius, radius, tall * 0.93))]
    if skin.second is None and d.chance(0.8):
        ribs = d.count(6, 11)
        for turned in np.arange(ribs) * 360 / ribs:
            place = turn("z", turned) @ move(x=radius * 0.5) @ scale(radius * 0.62, radius * 2.3 / ribs, tall)
            parts.append(Part("body", ellipsoid(1.0), skin, place))
    if d.chance(0.35):
        dark, front = d.plain("black"), radius * 1.02 - 0.11
        for y in (-1, 1):
            eye = Prism(((-0.09, -0.06), (0.09, -0.06), (0.0, 0.1)), 0.3)
            parts.append(Part("eyes", eye, dark, move(front, y * 0.17, tall * 0.3) @ FRONT))
        mouth = Prism(((-0.25, 0.03), (-0.12, -0.1), (0.12, -0.1), (0.25, 0.03), (0.0, -0.03)), 0.3)
        parts.append(Part("mouth", mouth, dark, move(front, 0, -tall * 0.2) @ FRONT))
    tip, thick = d.size(-0.12, 0.12), d.size(0.05, 0.09)
    stem = Tube(
        ((0, 0, tall * 0.6), (0, 0, tall + 0.05), (tip, tip, tall + d.size(0.1, 0.25))), (thick * 1.4, thick, thick)
    )
    return [*parts, Part("stem", stem, d.plain("green"))]
