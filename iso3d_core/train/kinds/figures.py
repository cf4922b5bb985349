"""Figures in human form: people, snowmen and robots."""

from __future__ import annotations

import numpy as np

from ..draw import Draw
from ..solids import Lathe, Part, Tube, box, capsule, cylinder, ellipsoid, move, scale, torus, turn
from .shapes import SIDE, ball, either, eyes


def _hat(d: Draw, x: float, z: float, radius: float) -> list[Part]:
    """A hat whose rim lies at height ``z``."""
    cloth, height = d.material("black", period=0.1), radius * d.size(0.7, 1.6)
    if d.chance(0.3):
        return [Part("hat", cylinder(radius * 1.1, height * 1.4, 0.02), cloth, move(x, 0, z + height * 0.7))]
    brim = Part("hat", cylinder(radius * d.size(1.3, 1.7), 0.06), cloth, move(x, 0, z))
    return [brim, Part("hat", cylinder(radius, height, radius * d.size(0.8, 1.1)), cloth, move(x, 0, z + height / 2))]


def snowman(d: Draw) -> list[Part]:
    snow, count, z, r = d.material("white", period=0.4, patterned=0.1), d.count(2, 3), 0.0, d.size(0.38, 0.5)
    parts: list[Part] = []
    for i in range(count):
        parts.append(ball("head" if i == count - 1 else "body", snow, (0, 0, z), (r, r, r * d.size(0.88, 1.0))))
        if i < count - 1:
            low, low_r, r = z, r, r * d.size(0.62, 0.8)
            z += low_r * 0.85 + r * 0.7
    parts.append(Part("nose", cylinder(0.07, 0.3, 0.02), d.plain("orange"), move(r + 0.08, 0, z) @ turn("y", 90)))
    parts += eyes(d, (0, 0, z), r, 28)
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
        parts += [Part("antenna", capsule(base, tip, 0.03), limb), ball("antenna", eye, tip, (0.06, 0.06, 0.06))]
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
                Part("legs", either(d, box(foot, foot, leg + 0.05), cylinder(foot / 2, leg + 0.05)), limb, place)
            )
            parts.append(Part("feet", box(foot * 2, foot * 1.3, 0.1), second, place @ move(foot * 0.4, 0, -leg / 2)))
        elif build == "tracks":
            track = scale(1, 1, d.size(0.4, 0.7)) @ SIDE
            belt = capsule((-deep * 0.5, 0, 0), (deep * 0.5, 0, 0), 0.17)
            parts.append(Part("tracks", belt, limb, move(0, y * wide * 0.4, -tall / 2 - 0.03) @ track))
        elif build == "wheels":
            parts.append(Part("wheels", cylinder(0.2, 0.12), limb, move(0, y * wide * 0.45, -tall / 2 - 0.05) @ SIDE))
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


def person(d: Draw) -> list[Part]:
    tall, wide, head, skin = d.size(0.4, 0.7), d.size(0.16, 0.26), d.size(0.16, 0.28), d.plain("tan")
    shirt, trousers, hair = d.material(period=0.12), d.plain(), d.plain("brown")
    z, build = tall + head * 0.8, d.pick(["peg", "limbs", "limbs", "robe"])
    parts = [Part("head", ellipsoid(head), skin, move(z=z)), *eyes(d, (0, 0, z), head, 28)]
    if build == "peg":
        profile = ((0, 0), (wide * 1.2, 0), (wide * d.size(1.0, 1.4), tall * 0.5), (wide * 0.8, tall), (0, tall))
        parts.append(Part("body", Lathe(profile), shirt))
    elif build == "robe":
        parts.append(Part("body", cylinder(wide * d.size(1.4, 2.0), tall, wide * 0.6), shirt, move(z=tall / 2)))
    else:
        leg, apart = d.size(0.35, 0.6), wide * d.size(0.5, 0.8)
        torso = either(d, box(wide * 1.2, wide * 2, tall), cylinder(wide, tall), cylinder(wide * 0.7, tall, wide * 1.1))
        parts.append(Part("body", torso, shirt, move(z=tall / 2)))
        for y in (-1, 1):
            foot = (d.size(-0.1, 0.1), y * apart * d.size(1.0, 1.5), -leg)
            parts.append(Part("legs", capsule((0, y * apart, 0.05), foot, wide * 0.42), trousers))
            parts.append(
                ball("shoes", hair, (foot[0] + 0.05, foot[1], foot[2]), (wide * 0.75, wide * 0.5, wide * 0.42))
            )
    for y in (-1, 1) if build != "peg" or d.chance(0.4) else ():
        reach, raised = d.size(0.3, 0.5), np.deg2rad(d.pick([-75, -60, -30, 0, 50]))
        hand = (d.size(0, 0.15), y * (wide + reach * np.cos(raised)), tall * 0.82 + reach * np.sin(raised))
        parts += [
            Part("arms", capsule((0, y * wide * 0.5, tall * 0.85), hand, wide * 0.33), shirt),
            ball("hands", skin, hand, (wide * 0.4,) * 3),
        ]
    if d.chance(0.35):
        parts += _hat(d, 0, z + head * 0.6, head * 0.85)
    elif d.chance(0.8):
        parts.append(
            ball("hair", hair, (-head * 0.15, 0, z + head * 0.2), (head, head * 1.05, head * d.size(0.9, 1.1)))
        )
    return parts
