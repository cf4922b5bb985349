"""Animals other than birds."""

from __future__ import annotations

import numpy as np

from ..draw import Draw
from ..solids import Material, Part, Prism, Tube, box, capsule, cylinder, ellipsoid, move, scale, torus, turn
from .shapes import SIDE, Vector, ball, eyes, pair


def _beast(d: Draw, coat: Material, belly: tuple[float, float], head: float) -> tuple[list[Part], Vector, Vector]:
    """Body, legs and head of a four-legged animal; also the middle of the head and the root of the tail."""
    long, wide = d.size(0.3, 0.5), d.size(*belly)
    leg, paw = d.size(0.2, 0.45), wide * d.size(0.28, 0.42)
    feet, build = d.pick([coat, coat, d.plain()]), d.pick(["round", "round", "boxy", "sitting"])
    if build == "sitting":
        center = (wide * 0.3, 0.0, long * 1.6 + head * 0.5)
        parts = [ball("body", coat, (0, 0, long * 0.8), (wide * 1.2, wide * 1.15, long), d.size(0, 15))]
        parts += pair("legs", feet, (wide * 0.8, wide * 0.7, 0.0), (paw * 2.2, paw * 1.1, paw))
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
        parts.append(ball("head", coat, center, (head, head * d.size(0.9, 1.15), head * d.size(0.85, 1.0))))
    return parts, center, rear


def _muzzle(d: Draw, head: Vector, size: float, length: float, coat: Material) -> list[Part]:
    x, y, z = head
    tip = (x + size * (0.8 + length), y, z - size * 0.2)
    snout = Part(
        "muzzle",
        capsule((x + size * 0.4, y, z - size * 0.25), tip, size * 0.5, size * d.size(0.3, 0.42)),
        d.pick([coat, d.plain("cream")]),
    )
    nose = ball("nose", d.plain("black"), (tip[0] + size * 0.35, y, tip[2] + size * 0.15), (size * 0.18,) * 3)
    return [snout, nose, *eyes(d, head, size * 1.02, 32)]


def cat(d: Draw) -> list[Part]:
    coat, head = d.material(d.pick(["orange", "grey", "black", "white"]), period=0.12), d.size(0.2, 0.3)
    parts, (x, _, z), rear = _beast(d, coat, (0.14, 0.24), head)
    parts += _muzzle(d, (x, 0, z), head, d.size(0.0, 0.15), coat)
    ear = Prism(((-head * 0.42, 0), (head * 0.42, 0), (0, head * d.size(0.6, 1.0))), 0.09)
    for y in (-1, 1):
        parts.append(Part("ears", ear, coat, move(x, y * head * 0.55, z + head * 0.6) @ turn("z", 90) @ SIDE))
    back, up, bend = rear[0] - d.size(0.15, 0.35), rear[2] + d.size(0.1, 0.5), d.size(-0.2, 0.2)
    tail = Tube((rear, (back, bend / 2, rear[2] + 0.05), (back - 0.05, bend, up)), (0.06, 0.055, 0.045))
    return [*parts, Part("tail", tail, d.pick([coat, d.plain()]))]


def dog(d: Draw) -> list[Part]:
    coat, head = d.material(d.pick(["brown", "tan", "white", "black"]), period=0.25, patterned=0.25), d.size(0.2, 0.28)
    parts, (x, _, z), rear = _beast(d, coat, (0.15, 0.26), head)
    parts += _muzzle(d, (x, 0, z), head, d.size(0.3, 0.8), coat)
    ear, flap = d.pick([coat, d.plain("brown")]), head * d.size(0.5, 0.9)
    if d.chance(0.65):
        parts += pair(
            "ears", ear, (x - head * 0.1, head * 0.98, z + head * 0.3 - flap * 0.4), (head * 0.35, 0.06, flap)
        )
    else:
        parts += pair("ears", ear, (x - head * 0.1, head * 0.55, z + head * 0.9), (0.07, head * 0.3, flap * 0.8))
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
        parts = [ball("body", coat, (0, 0, 0), (wide * 0.9, wide, tall)), ball("head", coat, (0, 0, z), (head,) * 3)]
        lift, seat = d.size(-0.35, 0.2), d.size(0.05, 0.4)
        for y in (-1, 1):
            hand = (d.size(0.05, 0.3), y * (wide + limb * 1.6), tall * 0.4 + lift)
            parts.append(Part("arms", capsule((0, y * wide * 0.6, tall * 0.5), hand, limb), coat))
            foot = (seat, y * wide * 0.75, -tall - 0.25 + seat * 0.6)
            parts.append(Part("legs", capsule((0, y * wide * 0.5, -tall * 0.6), foot, limb * 1.2), coat))
        if d.chance(0.6):
            parts.append(
                ball("belly", d.plain("cream"), (wide * 0.3, 0, -0.02), (wide * 0.7, wide * 0.75, tall * 0.75))
            )
    parts += _muzzle(d, (x, 0, z), head, d.size(-0.05, 0.25), coat)
    size = head * d.size(0.3, 0.42)
    return parts + pair(
        "ears", d.pick([coat, d.plain("brown")]), (x, head * 0.75, z + head * 0.75), (size * 0.6, size, size)
    )


def fish(d: Draw) -> list[Part]:
    long, tall, thick = d.size(0.4, 0.6), d.size(0.2, 0.42), d.size(0.1, 0.25)
    scales, fin = d.material("orange", period=0.4), d.plain("orange")
    fins = d.pick([fin, fin, scales])
    skin = Material(scales.color, scales.second, scales.pattern, scales.period, 0 if scales.pattern == "rings" else 2)
    parts = [ball("body", skin, (0, 0, 0), (long, thick, tall))]
    h, w = d.size(0.2, 0.4), d.size(0.2, 0.4)
    fork = d.size(0, 0.6) * w
    tail = Prism(
        ((-long * 0.8, 0.05), (-long - w, h), (-long - w + fork, 0), (-long - w, -h), (-long * 0.8, -0.05)), 0.07
    )
    parts.append(Part("tail", tail, fins, SIDE))
    for up in (1, -1)[: d.count(0, 2)]:
        top = d.size(0.1, 0.3)
        outline = (
            (long * 0.35, up * tall * 0.7),
            (-long * 0.5, up * tall * 0.7),
            (-long * d.size(0.3, 0.6), up * (tall + top)),
        )
        parts.append(Part("fins", Prism(outline, 0.07), fins, SIDE))
    parts += pair("fins", fins, (0.05, thick * 1.05, -tall * 0.2), (d.size(0.1, 0.18), 0.07, 0.07), d.size(-40, 40))
    size = d.size(0.05, 0.08)
    parts += pair("eyes", d.plain("black"), (long * 0.7, thick * 0.62, tall * 0.2), (size,) * 3)
    if d.chance(0.4):
        parts.append(ball("mouth", d.plain("pink"), (long * 0.97, 0, 0), (0.06, 0.08, 0.08)))
    return parts


def turtle(d: Draw) -> list[Part]:
    long, wide, tall, head = d.size(0.4, 0.55), d.size(0.35, 0.48), d.size(0.2, 0.42), d.size(0.12, 0.2)
    skin, shell = d.plain("green"), d.material("brown", period=0.35, patterned=0.5)
    dome = Part("shell", ellipsoid(1.0, start_deg=d.pick([0, -20])), shell, scale(long, wide, tall))
    center = (long + head * d.size(0.5, 1.2), 0.0, d.size(0.0, 0.2))
    parts = [dome, ball("belly", d.pick([skin, d.plain("tan")]), (0, 0, 0), (long * 0.97, wide * 0.97, 0.1))]
    parts += [
        Part("neck", capsule((long * 0.7, 0, 0), center, head * 0.6), skin),
        ball("head", skin, center, (head,) * 3),
    ]
    parts += eyes(d, center, head, 45)
    flipper = d.size(0.09, 0.17)
    for x in (-1, 1):
        if d.chance(0.5):
            parts += pair("legs", skin, (x * long * 0.6, wide * 0.7, -0.1), (flipper, flipper, 0.18))
        else:
            parts += pair("legs", skin, (x * long * 0.65, wide * 0.95, -0.04), (flipper * 0.9, flipper * 1.5, 0.07))
    parts.append(Part("tail", capsule((-long * 0.8, 0, 0), (-long - d.size(0.08, 0.2), 0, -0.03), 0.06, 0.03), skin))
    if d.chance(0.3):
        parts.append(Part("rim", torus(1.0, 0.13), d.plain(), scale(long, wide, 0.4)))
    return parts


def caterpillar(d: Draw) -> list[Part]:
    count, r, first, second = d.count(4, 8), d.size(0.16, 0.24), d.plain("green"), d.plain("green")
    step, wave, hump, feet = d.size(1.2, 1.6) * r, d.size(0, 0.15), d.size(0, 0.25), d.plain()
    other, legs = d.pick([first, second]), d.chance(0.6)
    parts: list[Part] = []
    for i in range(count):
        at = (-i * step, wave * np.sin(i * 1.2), hump * np.sin(i * 1.1) ** 2)
        parts.append(ball("body", (first, other)[i % 2], at, (r,) * 3))
        if legs and i:
            parts += [
                ball("feet", feet, (at[0], at[1] + y * r * 0.55, at[2] - r * 0.85), (r * 0.3,) * 3) for y in (-1, 1)
            ]
    head, rise = r * d.size(1.1, 1.4), r * d.size(0.2, 0.9)
    center = (step * 0.7, 0.0, rise)
    parts += [ball("head", d.pick([first, d.plain()]), center, (head,) * 3), *eyes(d, center, head)]
    for y in (-1, 1) if d.chance(0.8) else ():
        tip = (center[0] + 0.05, y * head * 0.7, rise + head * d.size(1.4, 1.9))
        parts += [
            Part("feelers", capsule((center[0], y * head * 0.4, rise + head * 0.6), tip, 0.03), feet),
            ball("feelers", feet, tip, (0.06,) * 3),
        ]
    return parts
