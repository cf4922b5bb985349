"""Birds: ducks, penguins, and those that perch or fly."""

from __future__ import annotations

import numpy as np

from ..draw import Draw
from ..solids import Part, box, capsule, cylinder, ellipsoid, move, scale, turn
from .shapes import ball, eyes, pair


def duck(d: Draw) -> list[Part]:
    long, wide, tall, head = d.size(0.42, 0.6), d.size(0.28, 0.42), d.size(0.24, 0.4), d.size(0.2, 0.32)
    coat, bill = d.material("yellow", period=0.4, patterned=0.2), d.plain("orange")
    crest = d.pick([coat, coat, d.plain("yellow")])
    center = (long * d.size(0.4, 0.8), 0.0, tall + head * d.size(0.4, 1.3))
    neck = capsule((center[0] * 0.8, 0, 0), center, head * 0.6)
    parts = [ball("body", coat, (0, 0, 0), (long, wide, tall)), ball("head", crest, center, (head, head, head))]
    parts.append(Part("neck", neck, d.pick([crest, coat])))
    tail = capsule((-long * 0.6, 0, tall * 0.1), (-long * 1.1, 0, tall * d.size(0.5, 1.1)), tall * 0.5, 0.03)
    parts.append(Part("tail", tail, coat))
    beak = center[0] + head, 0.0, center[2] - head * d.size(0.0, 0.3)
    if d.chance(0.6):
        parts.append(
            ball("beak", bill, beak, (head * d.size(0.5, 0.9), head * d.size(0.4, 0.6), head * d.size(0.15, 0.28)))
        )
    else:
        parts.append(Part("beak", cylinder(head * 0.4, head, 0.03), bill, move(*beak) @ turn("y", 90)))
    parts += eyes(d, center, head, 45)
    if d.chance(0.75):
        wing = (long * d.size(0.4, 0.6), 0.07, tall * d.size(0.4, 0.65))
        parts += pair(
            "wings", d.pick([coat, d.plain("yellow")]), (-long * 0.15, wide * 0.92, tall * 0.2), wing, d.size(0, 25)
        )
    if d.chance(0.4):
        leg, foot = tall + d.size(0.1, 0.3), d.size(0.12, 0.2)
        parts += [Part("legs", capsule((0, y, 0), (0, y, -leg), 0.045), bill) for y in (-wide * 0.4, wide * 0.4)]
        parts += pair("feet", bill, (foot * 0.5, wide * 0.4, -leg), (foot, foot * 0.65, 0.05))
    return parts


def bird(d: Draw) -> list[Part]:
    long, fat, head = d.size(0.32, 0.5), d.size(0.2, 0.32), d.size(0.15, 0.24)
    coat, bill, tilt = d.material("blue", period=0.4, patterned=0.25), d.plain("orange"), -d.size(0, 45)
    wing_color, out = d.pick([coat, d.plain()]), np.deg2rad(tilt)
    center = (long * 0.75 * np.cos(out), 0.0, -long * 0.75 * np.sin(out) + head * 0.8)
    end = (-long * 0.7 * np.cos(out), 0.0, long * 0.7 * np.sin(out))
    parts = [
        ball("body", coat, (0, 0, 0), (long, fat, fat), tilt),
        ball("head", d.pick([coat, d.plain()]), center, (head,) * 3),
    ]
    place = move(center[0] + head * 1.2, 0, center[2]) @ turn("y", 90 + d.size(0, 15))
    parts += [
        Part("beak", cylinder(head * 0.35, head * d.size(0.7, 1.8), 0.02), bill, place),
        *eyes(d, center, head, 50),
    ]
    tail = box(d.size(0.3, 0.6), d.size(0.12, 0.3), 0.06)
    parts.append(Part("tail", tail, wing_color, move(*end) @ turn("y", tilt * 0.6) @ move(x=-0.2)))
    if d.chance(0.35):
        span, sweep = d.size(0.4, 0.7), d.size(0, 25)
        for y in (-1, 1):
            place = move(z=fat * 0.4) @ turn("z", y * sweep) @ turn("x", y * d.size(0, 30)) @ move(y=y * span * 0.9)
            parts.append(Part("wings", ellipsoid(1.0), wing_color, place @ scale(long * 0.5, span, 0.06)))
    else:
        parts += pair("wings", wing_color, (-0.08, fat * 0.9, 0.02), (long * 0.7, 0.07, fat * 0.6), tilt)
    if d.chance(0.7):
        leg = fat + d.size(0.1, 0.25)
        parts += [Part("legs", capsule((0, y, 0), (0, y, -leg), 0.03), bill) for y in (-0.09, 0.09)]
        parts += pair("feet", bill, (0.05, 0.09, -leg), (0.13, 0.07, 0.04))
    return parts


def penguin(d: Draw) -> list[Part]:
    tall, wide, head = d.size(0.4, 0.6), d.size(0.25, 0.42), d.size(0.2, 0.3)
    coat, white, bill = d.plain("black"), d.plain("white"), d.plain("orange")
    z = tall * 0.8 + head * 0.6
    parts = [ball("body", coat, (0, 0, 0), (wide * 0.9, wide, tall)), ball("head", coat, (0, 0, z), (head,) * 3)]
    parts.append(ball("belly", white, (wide * 0.22, 0, -tall * 0.08), (wide * 0.75, wide * 0.78, tall * 0.82)))
    if d.chance(0.4):
        parts += pair("face", white, (head * 0.35, head * 0.3, z), (head * 0.68, head * 0.5, head * 0.6))
    beak = cylinder(head * 0.3, head * d.size(0.6, 1.1), 0.02)
    parts += [
        Part("beak", beak, bill, move(head * 1.2, 0, z - head * 0.1) @ turn("y", 95)),
        *eyes(d, (head * 0.1, 0, z), head),
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
    parts += pair("feet", bill, (wide * 0.5, wide * 0.45, -tall * 0.93), (wide * 0.6, wide * 0.35, 0.06))
    return parts
