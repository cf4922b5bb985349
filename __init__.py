"""iso3d as a ComfyUI node pack: ComfyUI imports this file from its `custom_nodes` folder."""

from .comfy_nodes import WEB_DIRECTORY, comfy_entrypoint

__all__ = ["WEB_DIRECTORY", "comfy_entrypoint"]
