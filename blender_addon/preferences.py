# SPDX-License-Identifier: GPL-3.0-or-later
"""What the user chooses once (preferences), and for each mesh (the scene's settings)."""

import os

import bpy
from bpy.props import EnumProperty, FloatProperty, IntProperty, StringProperty

from . import session
from .comfy_server import ServerError, is_this_machine, normal_address
from .jobs import Server
from .text import draw_text

PRESETS = [
    ("fast", "Fast", "Seconds: a first look"),
    ("default", "Default", "Better, and still quick"),
    ("quality", "Quality", "Several times the work of the default"),
    ("paper", "Paper", "Score distillation alone, as published; with the papers' weights for a GPU and patience"),
]
BACKENDS = [
    ("LOCAL", "This computer", "A Python with iso3d, started when it is needed"),
    ("COMFYUI", "ComfyUI", "A ComfyUI server with the iso3d nodes"),
]
SEED = {"name": "Seed", "description": "The same seed gives the same mesh", "min": 0, "default": 0}
HEIGHT = {
    "name": "Height (m)", "description": "Of the object in the scene; 0 keeps the size of the file",
    "min": 0.0, "soft_max": 100.0, "default": 1.0, "precision": 3,
}  # fmt: skip
METHODS = [
    ("isotropic3d", "Isotropic3D", "A mesh that resembles the image, equally good from all sides"),
    ("consistent123", "Consistent123", "Holds on to the image; first shape, then texture"),
    ("hifi123", "HiFi-123", "Holds on to the image, and carries its texture to every side; takes the longest"),
    ("zero123", "Zero-1-to-3", "Only the 3D prior, and the image's own view"),
    ("magic123", "Magic123", "A 3D and a 2D prior at once, and the image's own view"),
    ("realfusion-sds", "RealFusion (SDS)", "Only a 2D prior, and the image's own view"),
]
PROMPTED = ("consistent123", "hifi123", "magic123", "realfusion-sds")  # these have a 2D prior, which is told in words
METHOD = {"name": "Method", "description": "How the mesh is made", "items": METHODS, "default": "isotropic3d"}
PROMPT = {
    "name": "Prompt", "default": "", "maxlen": 1000,
    "description": "What the image shows, for methods with a 2D prior and for textures; may be empty",
}  # fmt: skip
PRESET = {"name": "Preset", "description": "How much work", "items": PRESETS, "default": "fast"}


class Settings(bpy.types.PropertyGroup):
    """Of the panel; saved in the file."""

    image: StringProperty(name="Image", description="Of one object, best on a plain background", subtype="FILE_PATH")
    preset: EnumProperty(**PRESET)
    seed: IntProperty(**SEED)
    height: FloatProperty(**HEIGHT)
    method: EnumProperty(**METHOD)
    prompt: StringProperty(**PROMPT)


class Preferences(bpy.types.AddonPreferences):
    bl_idname = __package__

    backend: EnumProperty(name="Runs on", description="Who makes the meshes", items=BACKENDS)
    worker_python: StringProperty(
        name="Python", description="The python of the environment where iso3d is installed", subtype="FILE_PATH"
    )
    comfyui_address: StringProperty(
        name="Address", description="Of the ComfyUI server", default="http://127.0.0.1:8188"
    )
    bundle: StringProperty(
        name="Bundle", description="Of networks: a name; on this computer a folder too", default="tiny"
    )

    def draw(self, context):
        layout = self.layout
        layout.use_property_split = True
        layout.prop(self, "backend", expand=True)
        layout.prop(self, "worker_python" if self.backend == "LOCAL" else "comfyui_address")
        layout.prop(self, "bundle")
        layout.operator("iso3d.check", icon="CHECKMARK")
        if session.check is not None:
            icon = "ERROR" if session.check.failed else "INFO"
            draw_text(layout, session.check.text, context, icon)

    def server(self) -> Server:
        """Who is to make the meshes. Raises ValueError where that is not said, or not allowed."""
        if self.backend == "LOCAL":
            if not self.worker_python:
                raise ValueError("Choose the Python that has iso3d in the add-on's preferences")
            python = bpy.path.abspath(self.worker_python)
            return "LOCAL", os.path.abspath(python) if os.path.dirname(python) else python
        try:
            address = normal_address(self.comfyui_address)
        except ServerError as error:
            raise ValueError(str(error)) from error
        if not is_this_machine(address) and not getattr(bpy.app, "online_access", True):
            raise ValueError(
                f"{address} is not this computer, and online access is off; allow it in Preferences > System > Network"
            )
        return "COMFYUI", address


def preferences(context) -> Preferences:
    return context.preferences.addons[__package__].preferences
