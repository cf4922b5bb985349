"""iso3d as a ComfyUI node pack: ComfyUI imports this file from its `custom_nodes` folder."""

from importlib.util import find_spec

__all__ = ["WEB_DIRECTORY", "comfy_entrypoint"]

# Test runners import every __init__.py above a test; outside ComfyUI there is nothing to register with.
if find_spec("comfy_api") is not None:
    from .comfy_nodes import WEB_DIRECTORY, comfy_entrypoint
else:
    WEB_DIRECTORY = comfy_entrypoint = None
