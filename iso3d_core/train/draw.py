"""Random draws in the terms a builder of toy objects thinks in: sizes, choices, colors, materials."""

from __future__ import annotations

import colorsys
from collections.abc import Sequence
from typing import TypeVar

import numpy as np

from .solids import Material

T = TypeVar("T")
Color = tuple[float, float, float]

COLOR_NAMES: dict[str, Color] = {
    "black": (0.08, 0.08, 0.08), "white": (0.95, 0.95, 0.95), "grey": (0.5, 0.5, 0.5), "silver": (0.75, 0.76, 0.78),
    "red": (0.85, 0.12, 0.1), "dark red": (0.45, 0.06, 0.07), "pink": (0.95, 0.6, 0.7), "orange": (0.95, 0.5, 0.1),
    "brown": (0.45, 0.28, 0.14), "tan": (0.8, 0.65, 0.45), "cream": (0.95, 0.9, 0.75), "yellow": (0.95, 0.85, 0.15),
    "lime": (0.6, 0.85, 0.2), "green": (0.15, 0.6, 0.2), "dark green": (0.06, 0.3, 0.12), "mint": (0.6, 0.9, 0.75),
    "teal": (0.1, 0.5, 0.5), "cyan": (0.2, 0.8, 0.9), "sky blue": (0.5, 0.7, 0.95), "blue": (0.15, 0.3, 0.85),
    "navy": (0.07, 0.1, 0.4), "purple": (0.5, 0.2, 0.7), "lavender": (0.75, 0.65, 0.92), "magenta": (0.85, 0.15, 0.6),
}  # fmt: skip


def color_name(color: Sequence[float]) -> str:
    """The nearest of the named colors."""
    target = np.asarray(color)
    return min(COLOR_NAMES, key=lambda name: float(((np.asarray(COLOR_NAMES[name]) - target) ** 2).sum()))


class Draw:
    """A seeded source of sizes, choices, colors and materials."""

    def __init__(self, seed: int | Sequence[int]) -> None:
        self.rng = np.random.default_rng(seed)

    def size(self, low: float, high: float) -> float:
        """Uniform in [low, high]."""
        return float(self.rng.uniform(low, high))

    def count(self, low: int, high: int) -> int:
        """An integer in [low, high], both included."""
        return int(self.rng.integers(low, high + 1))

    def pick(self, options: Sequence[T]) -> T:
        return options[int(self.rng.integers(len(options)))]

    def chance(self, probability: float) -> bool:
        return bool(self.rng.random() < probability)

    def color(self) -> Color:
        """Any color: half the time a named one varied a little, else uniform in hue, saturation and value."""
        if self.chance(0.5):
            base = np.asarray(self.pick(list(COLOR_NAMES.values())))
            return _color(np.clip(base + self.rng.normal(0, 0.06, 3), 0.03, 0.98))
        return colorsys.hsv_to_rgb(self.size(0, 1), self.size(0.1, 1) ** 0.7, self.size(0.15, 1) ** 0.6)

    def near(self, name: str, spread: float = 0.08, free: float = 0.35) -> Color:
        """A color around a named one, as the thing usually has; with probability ``free`` any color at all."""
        if self.chance(free):
            return self.color()
        return _color(np.clip(np.asarray(COLOR_NAMES[name]) + self.rng.normal(0, spread, 3), 0.03, 0.98))

    def plain(self, name: str | None = None) -> Material:
        return Material(self.color() if name is None else self.near(name))

    def material(self, name: str | None = None, period: float = 0.25, patterned: float = 0.35) -> Material:
        """Plain, or with probability ``patterned`` striped, ringed, checked or two-tone in a second color.

        period : size of a stripe or check in the part's local units; give about a quarter of the part's size
        """
        first = self.color() if name is None else self.near(name)
        if not self.chance(patterned):
            return Material(first)
        second = self.color()
        pattern = self.pick(["rings", "rings", "stripes", "checks", "two_tone"])
        if pattern == "two_tone":
            return Material(first, second, pattern, self.size(-0.5, 0.5) * period, 2)
        if pattern == "stripes":
            return Material(first, second, pattern, self.size(0.15, 0.5), 2)
        return Material(first, second, pattern, period * self.size(0.7, 1.5), 2)


def _color(values: np.ndarray) -> Color:
    return float(values[0]), float(values[1]), float(values[2])
