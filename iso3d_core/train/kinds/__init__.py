"""Every kind of object, by name: a function from a `Draw` to the parts of one object, front along +X, Z up."""

from __future__ import annotations

from collections.abc import Callable

from ..draw import Draw
from ..solids import Part
from . import buildings, creatures, home, nature, toys, vehicles

KINDS: dict[str, Callable[[Draw], list[Part]]] = {
    **home.KINDS,
    **vehicles.KINDS,
    **nature.KINDS,
    **creatures.KINDS,
    **buildings.KINDS,
    **toys.KINDS,
}
