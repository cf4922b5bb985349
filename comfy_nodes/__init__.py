"""ComfyUI nodes over iso3d_core: schema and conversion only. Nothing heavy is imported before a node runs."""

from __future__ import annotations

from .compat import ComfyExtension, io

WEB_DIRECTORY = "./comfy_nodes/web"


class Iso3DExtension(ComfyExtension):
    async def get_node_list(self) -> list[type[io.ComfyNode]]:
        from . import embed_nodes, field_nodes, generate_nodes, mesh_nodes, rgnv_nodes, view_nodes

        parts = (embed_nodes, view_nodes, rgnv_nodes, field_nodes, mesh_nodes, generate_nodes)
        return [node for part in parts for node in part.NODES]


async def comfy_entrypoint() -> ComfyExtension:
    return Iso3DExtension()
