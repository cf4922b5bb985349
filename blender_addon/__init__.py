# SPDX-License-Identifier: GPL-3.0-or-later
"""iso3d in Blender: one image in, one textured mesh in the scene.

The add-on is licensed under the GNU General Public License, version 3 or later (see LICENSE in this folder). The
program that makes the meshes, iso3d, is a separate one with a licence of its own: the add-on starts it as a process,
or sends the image to a ComfyUI server.
"""

import atexit

import bpy
from bpy.props import FloatProperty, PointerProperty

from . import operators, panel, preferences, session

bl_info = {  # for Blender before 4.2; later versions read blender_manifest.toml
    "name": "iso3d",
    "description": "One image in, one textured mesh in the scene",
    "author": "iso3d",
    "version": (0, 1, 0),
    "blender": (3, 4, 0),
    "location": "3D View > Sidebar > iso3d; File > Import",
    "category": "Mesh",
}

CLASSES = [preferences.Settings, preferences.Preferences, *operators.CLASSES, *panel.CLASSES]


def register():
    for cls in CLASSES:
        bpy.utils.register_class(cls)
    bpy.types.Scene.iso3d = PointerProperty(type=preferences.Settings)
    bpy.types.WindowManager.iso3d_progress = FloatProperty(
        name="Progress", subtype="PERCENTAGE", min=0, max=100, precision=0,
        get=session.progress_percent, set=session.keep_progress,
    )  # fmt: skip
    session.register()
    panel.register()
    atexit.register(session.stop)


def unregister():
    atexit.unregister(session.stop)
    panel.unregister()
    session.unregister()
    del bpy.types.WindowManager.iso3d_progress
    del bpy.types.Scene.iso3d
    for cls in reversed(CLASSES):
        bpy.utils.unregister_class(cls)
