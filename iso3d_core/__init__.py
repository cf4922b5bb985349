"""iso3d: one image in, one textured 3D mesh out."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .config import GenerateConfig
    from .images import load_reference
    from .pipeline import generate
    from .presets import PRESETS, preset
    from .types import Cancelled, InputError, Mesh, Progress, Reference

_PUBLIC = {
    "generate": "pipeline", "load_reference": "images",
    "PRESETS": "presets", "GenerateConfig": "config", "preset": "presets",
    "Mesh": "types", "Reference": "types", "Progress": "types", "InputError": "types", "Cancelled": "types",
}  # fmt: skip

__all__ = [
    "PRESETS", "Cancelled", "GenerateConfig", "InputError", "Mesh", "Progress", "Reference",
    "generate", "load_reference", "preset",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    """Public names load on first use, so that ``import iso3d_core`` costs nothing."""
    if name in _PUBLIC:
        return getattr(import_module(f".{_PUBLIC[name]}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
