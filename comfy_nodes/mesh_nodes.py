"""Save Mesh and Load Mesh."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from .compat import host_mesh, io, schema
from .embed_nodes import CATEGORY

SUFFIXES = (".glb", ".gltf", ".obj", ".ply", ".stl")
BESIDE = (".mtl", ".bin", ".png", ".jpg", ".jpeg", ".webp")


def find_file(path: str) -> Path:
    """A mesh file named relative to the output or the input folder; raises InputError for one outside or missing."""
    import folder_paths

    return _file_below(path, folder_paths.get_output_directory(), folder_paths.get_input_directory())


def find_input(path: str) -> Path:
    """As `find_file`, of the input folder alone."""
    import folder_paths

    return _file_below(path, folder_paths.get_input_directory())


def _file_below(path: str, *folders: str) -> Path:
    from ..iso3d_core.types import InputError

    for folder in folders:
        root = os.path.realpath(folder)
        wanted = os.path.realpath(os.path.join(root, path))
        if wanted.startswith(root + os.sep) and os.path.isfile(wanted):
            return Path(wanted)
    where = " or ".join(os.path.basename(os.path.normpath(folder)) for folder in folders)
    raise InputError(f"there is no {path!r} in the {where} folder")


def input_meshes() -> list[str]:
    import folder_paths

    root = Path(folder_paths.get_input_directory())
    found = [p.relative_to(root).as_posix() for p in root.rglob("*") if p.suffix.lower() in SUFFIXES]
    return sorted(found)


def fingerprint(file: Path) -> list[tuple[str, int, int]]:
    """Changes when the file does, or one beside it that it may take its texture or its numbers from."""
    parts = [file]
    if file.suffix.lower() in (".obj", ".gltf"):
        parts += [p for p in sorted(file.parent.iterdir()) if p.suffix.lower() in BESIDE]
    return [(p.name, p.stat().st_mtime_ns, p.stat().st_size) for p in parts]


class SaveMesh(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> Any:
        return schema(
            node_id="Iso3DSaveMesh",
            display_name="Save Mesh (iso3d)",
            category=CATEGORY,
            description="Writes a mesh of any node with its texture, each of a batch; Preview 3D shows a GLB by "
            "its path.",
            search_aliases=["export glb", "save obj", "save stl"],
            is_output_node=True,
            inputs=[
                io.Mesh.Input("mesh", tooltip="A mesh of any node"),
                io.String.Input("filename_prefix", default="mesh/iso3d", tooltip="Inside the output folder"),
                io.Combo.Input("format", options=["glb", "obj", "ply", "stl"], default="glb", tooltip="Kind of file"),
            ],
            outputs=[
                io.String.Output(display_name="path", tooltip="Relative to the output folder; the first of a batch")
            ],
        )

    @classmethod
    def execute(cls, mesh: Any, filename_prefix: str, format: str) -> Any:
        from .convert import from_host_mesh, mesh_count
        from .host import output_path, relative

        entries = []
        for index in range(max(1, mesh_count(mesh))):
            path, entry = output_path(filename_prefix, f".{format}")
            from_host_mesh(mesh, index).save(path)
            entries.append(entry)
        shown = relative(entries[0])
        return io.NodeOutput(shown, ui={"3d": entries, "result": [shown, None]})


class LoadMesh(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> Any:
        return schema(
            node_id="Iso3DLoadMesh",
            display_name="Load Mesh (iso3d)",
            category=CATEGORY,
            description="Reads a mesh file from the input folder, with its texture.",
            search_aliases=["import glb", "open obj"],
            inputs=[
                io.Combo.Input(
                    "file", options=input_meshes(), tooltip="GLB, glTF, OBJ, PLY or STL below the input folder"
                )
            ],
            outputs=[io.Mesh.Output(display_name="mesh", tooltip="For every node that takes a mesh")],
        )

    @classmethod
    def fingerprint_inputs(cls, file: str) -> Any:
        return fingerprint(find_input(file))

    @classmethod
    def execute(cls, file: str) -> Any:
        from ..iso3d_core.mesh.export import load_mesh
        from .convert import mesh_values

        vertices, faces, more = mesh_values(load_mesh(find_input(file)))
        return io.NodeOutput(host_mesh(vertices, faces, **more))


NODES = [SaveMesh, LoadMesh]
