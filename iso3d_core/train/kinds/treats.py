"""Treats of the party table: cakes, gifts and ice creams."""

from __future__ import annotations

import numpy as np

from ..draw import Draw
from ..solids import Part, Prism, box, capsule, cylinder, ellipsoid, move, scale, torus, turn
from .shapes import SIDE


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
