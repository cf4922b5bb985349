"""Every difference between ComfyUI versions (0.3.64 to the newest), in one place."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from comfy_api.latest import ComfyExtension, io

try:  # newer hosts have these as types of their own
    from comfy_api.latest import Types
except ImportError:
    Types = None

__all__ = ["BUNDLE", "EMBEDDING", "FIELD", "ComfyExtension", "file_outputs", "files", "host_mesh", "io", "schema"]

BUNDLE, EMBEDDING, FIELD = (io.Custom(f"ISO3D_{name}") for name in ("BUNDLE", "EMBEDDING", "FIELD"))
_SCHEMA_FIELDS = {field.name for field in dataclasses.fields(io.Schema)}
HAS_FILES = Types is not None and hasattr(Types, "File3D")


def schema(**settings: Any) -> Any:
    """`io.Schema` without what this host does not know yet (search aliases)."""
    return io.Schema(**{name: value for name, value in settings.items() if name in _SCHEMA_FIELDS})


def host_mesh(vertices: Any, faces: Any, **attributes: Any) -> Any:
    """The host's MESH: vertices [1, N, 3], faces [1, M, 3]; what an old one has no field for becomes an attribute."""
    if Types is not None and hasattr(Types, "MESH"):
        return Types.MESH(vertices, faces, **attributes)
    from comfy_extras.nodes_hunyuan3d import MESH

    mesh = MESH(vertices, faces)
    for name, value in attributes.items():
        setattr(mesh, name, value)
    return mesh


def file_outputs() -> list[Any]:
    """A GLB output where the host has 3D files as a type."""
    return [io.Custom("FILE_3D_GLB").Output(display_name="glb", tooltip="The GLB as a file")] if HAS_FILES else []


def files(path: Path) -> list[Any]:
    """The values for `file_outputs`."""
    return [Types.File3D(str(path), "glb")] if HAS_FILES else []
