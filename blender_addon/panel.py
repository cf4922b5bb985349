# SPDX-License-Identifier: GPL-3.0-or-later
"""The tab in the sidebar of the 3D view, and the entry in File > Import."""

import os

import bpy
import bpy.utils.previews

from . import session
from .jobs import FINISHED, RUNNING, Job
from .preferences import PROMPTED, preferences
from .text import draw_text

PICTURE_SCALE, PREVIEW_SCALE = 7.0, 5.0


class Thumbnails:
    """Icons of image files; Blender loads the pictures when it draws them."""

    def __init__(self) -> None:
        self._icons = bpy.utils.previews.new()
        self._keys: dict[str, str] = {}

    def icon(self, path: str) -> int:
        """The number of the icon as the file is now, 0 if there is no file."""
        try:
            key = f"{path}|{os.stat(path).st_mtime_ns}"
        except OSError:
            return 0
        if self._keys.get(path) != key:
            if path in self._keys:
                del self._icons[self._keys[path]]
            self._keys[path] = key
            self._icons.load(key, path, "IMAGE")
        return self._icons[key].icon_id

    def close(self) -> None:
        bpy.utils.previews.remove(self._icons)


thumbnails: Thumbnails | None = None


class ImageTo3D(bpy.types.Panel):
    bl_idname = "ISO3D_PT_image_to_3d"
    bl_label = "Image to 3D"
    bl_space_type = "VIEW_3D"
    bl_region_type = "UI"
    bl_category = "iso3d"

    def draw(self, context):
        layout, settings = self.layout, context.scene.iso3d
        layout.prop(settings, "image", text="")
        if icon := thumbnails.icon(bpy.path.abspath(settings.image)) if settings.image else 0:
            layout.template_icon(icon_value=icon, scale=PICTURE_SCALE)
        column = layout.column()
        column.use_property_split, column.use_property_decorate = True, False
        names = ["method", "prompt", "preset", "seed", "height"]
        for name in names:
            column.prop(settings, name)
        if settings.method not in PROMPTED:
            names.remove("prompt")  # it is for the texture alone
        row = layout.row()
        row.scale_y = 1.5
        button = row.operator("iso3d.generate_from_image", icon="MESH_MONKEY")
        button.filepath = settings.image
        for name in names:
            setattr(button, name, getattr(settings, name))
        button = layout.row().operator("iso3d.texture_from_image", icon="TEXTURE")
        for name, value in (("filepath", settings.image), ("seed", settings.seed), ("prompt", settings.prompt)):
            setattr(button, name, value)
        for job in session.queue.jobs:
            draw_job(layout.box(), job, context)
        if session.queue.error:
            box = layout.box()
            draw_text(box, session.queue.error, context, "ERROR")
            box.operator("iso3d.copy_log", icon="COPYDOWN")
        elif session.note and not session.queue.jobs:
            draw_text(layout, session.note, context, "CHECKMARK")


class Advanced(bpy.types.Panel):
    bl_idname = "ISO3D_PT_advanced"
    bl_parent_id = ImageTo3D.bl_idname
    bl_label = "Advanced"
    bl_space_type = "VIEW_3D"
    bl_region_type = "UI"
    bl_category = "iso3d"
    bl_options = {"DEFAULT_CLOSED"}  # noqa: RUF012

    def draw(self, context):
        chosen = preferences(context)
        column = self.layout.column()
        column.use_property_split, column.use_property_decorate = True, False
        column.prop(chosen, "backend")
        column.prop(chosen, "worker_python" if chosen.backend == "LOCAL" else "comfyui_address")
        column.prop(chosen, "bundle")
        row = self.layout.row()
        row.operator("iso3d.free_memory")
        row.operator("iso3d.copy_log")


def draw_job(layout, job: Job, context) -> None:
    row = layout.row()
    row.label(text=job.name, icon={RUNNING: "PLAY", FINISHED: "CHECKMARK"}.get(job.state, "TIME"))
    row.operator("iso3d.cancel", text="Discard" if job.state == FINISHED else "Cancel", icon="X").job = job.id
    if job.state == RUNNING:
        text = job.stage or "loading"
        if job.seconds_left is not None:
            text += f", {job.seconds_left:.0f} s"
        if hasattr(layout, "progress"):  # from 4.0
            layout.progress(factor=job.fraction, text=f"{text}, {job.fraction:.0%}")
        else:
            layout.prop(context.window_manager, "iso3d_progress", text=text, slider=True)
        if icon := thumbnails.icon(job.preview) if job.preview else 0:
            layout.template_icon(icon_value=icon, scale=PREVIEW_SCALE)
    elif job.message:
        draw_text(layout, job.message, context)
        if session.open_file.find(job.target) is None:
            layout.operator("iso3d.place_here").job = job.id


def draw_import_entry(menu, _context) -> None:
    menu.layout.operator("iso3d.generate_from_image", text="Image to 3D Mesh (iso3d)")


CLASSES = [ImageTo3D, Advanced]


def register() -> None:
    global thumbnails
    thumbnails = Thumbnails()
    bpy.types.TOPBAR_MT_file_import.append(draw_import_entry)


def unregister() -> None:
    bpy.types.TOPBAR_MT_file_import.remove(draw_import_entry)
    thumbnails.close()
