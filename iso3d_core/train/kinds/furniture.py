"""Kinds of furniture: to sit, lie or put things on."""

from __future__ import annotations

import numpy as np

from ..draw import Draw
from ..solids import Material, Part, Shape, box, capsule, cylinder, ellipsoid, move, scale, torus, turn
from .shapes import legs


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
        parts += legs(d, depth * 0.33, width * 0.33, height - thick / 2, leg, wood)
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
        parts += legs(d, width * 0.3, width * 0.3, height - thick / 2, leg, wood)
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
    width, depth, thick = d.size(0.8, 1.6), d.size(0.6, 1.0), d.size(0.06, 0.14)
    height, leg, wood = d.size(0.3, 0.9), d.size(0.035, 0.08), d.plain("brown")
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
    parts += legs(d, depth * inset, width * inset, height - thick / 2, leg, wood)
    if d.chance(0.4):
        apron = box(depth * inset * 2, width * inset * 2, 0.1)
        parts.append(Part("apron", apron, d.pick([wood, d.plain()]), move(z=height - thick - 0.04)))
    if d.chance(0.2):
        reach = height * 0.25
        parts.append(
            Part("shelf", box(depth * inset * 2 + reach, width * inset * 2 + reach, 0.04), top, move(z=height * 0.35))
        )
    return parts


def bed(d: Draw) -> list[Part]:
    length, width, soft = d.size(1.5, 2.0), d.size(0.7, 1.5), d.size(0.12, 0.28)
    low, frame, leg = d.size(0.12, 0.35), d.size(0.08, 0.2), d.size(0.035, 0.07)
    wood, sheet, cover, pillow = d.plain("brown"), d.plain("white"), d.material(period=0.3), d.plain("white")
    half, levels = length / 2, [low, low + d.size(0.7, 0.95)] if d.chance(0.15) else [low]
    parts = legs(d, half - 0.1, width / 2 - 0.1, low + 0.02, leg, wood) if d.chance(0.7) else []
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
    parts += legs(d, depth * 0.4, width * 0.42, foot + 0.03, 0.04, d.plain("brown"))
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
