# SPDX-License-Identifier: GPL-3.0-or-later
"""What the user can do. With a window nothing here waits; in the background, for scripts, operators wait."""

import bpy
from bpy.props import EnumProperty, FloatProperty, IntProperty, StringProperty

from . import session
from .jobs import PLACED, RUNNING, WAITING
from .preferences import HEIGHT, METHOD, PRESET, PROMPT, PROMPTED, SEED, preferences

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff")


class GenerateFromImage(bpy.types.Operator):
    """Make a textured mesh from an image and stand it on the 3D cursor"""

    bl_idname = "iso3d.generate_from_image"
    bl_label = "Generate from Image"

    filepath: StringProperty(name="Image", subtype="FILE_PATH", options={"SKIP_SAVE"})
    filter_glob: StringProperty(default=";".join(f"*{s}" for s in IMAGE_SUFFIXES), options={"HIDDEN"})
    preset: EnumProperty(**PRESET, options={"SKIP_SAVE"})
    seed: IntProperty(**SEED, options={"SKIP_SAVE"})
    height: FloatProperty(**HEIGHT, options={"SKIP_SAVE"})
    method: EnumProperty(**METHOD, options={"SKIP_SAVE"})
    prompt: StringProperty(**PROMPT, options={"SKIP_SAVE"})

    def invoke(self, context, _event):
        """From the interface, what is not given is as in the panel; without a file, ask for one."""
        for name in ("preset", "seed", "height", "method", "prompt"):
            if not self.properties.is_property_set(name) and (name != "prompt" or self.method in PROMPTED):
                setattr(self, name, getattr(context.scene.iso3d, name))
        if self.properties.is_property_set("filepath"):
            return self.execute(context)
        context.window_manager.fileselect_add(self)
        return {"RUNNING_MODAL"}

    def execute(self, context):
        if self.prompt and self.method not in PROMPTED:
            self.report({"WARNING"}, f"Method {self.method} takes no words; the prompt has no effect")
        try:
            job = session.ask(
                context.scene, self.filepath, self.preset, self.seed, self.height, self.method,
                self.prompt, preferences(context),
            )  # fmt: skip
        except (ValueError, OSError) as error:
            self.report({"ERROR"}, str(error))
            return {"CANCELLED"}
        return wait_for(self, job)


class TextureFromImage(bpy.types.Operator):
    """Give the active mesh the texture of an image that shows its front; its shape and UVs stay as they are"""

    bl_idname = "iso3d.texture_from_image"
    bl_label = "Texture from Image"

    filepath: StringProperty(name="Image", subtype="FILE_PATH", options={"SKIP_SAVE"})
    filter_glob: StringProperty(default=";".join(f"*{s}" for s in IMAGE_SUFFIXES), options={"HIDDEN"})
    seed: IntProperty(**SEED, options={"SKIP_SAVE"})
    prompt: StringProperty(**PROMPT, options={"SKIP_SAVE"})

    @classmethod
    def poll(cls, context):
        return context.mode == "OBJECT" and context.active_object is not None and context.active_object.type == "MESH"

    def invoke(self, context, _event):
        """Without a file, ask for one."""
        if self.properties.is_property_set("filepath"):
            return self.execute(context)
        context.window_manager.fileselect_add(self)
        return {"RUNNING_MODAL"}

    def execute(self, context):
        obj = context.active_object
        try:
            job = session.ask_texture(obj, context.scene, self.filepath, self.seed, self.prompt, preferences(context))
        except (ValueError, OSError) as error:
            self.report({"ERROR"}, str(error))
            return {"CANCELLED"}
        return wait_for(self, job)


def wait_for(operator, job):
    """In the background, where nobody else looks after a job: until it is done, its warnings and error reported."""
    if not bpy.app.background:
        return {"FINISHED"}
    session.wait(lambda: job.state not in (WAITING, RUNNING))
    for warning in job.warnings:
        operator.report({"WARNING"}, warning)
    if job.state != PLACED:
        operator.report({"ERROR"}, f"{job.name}: {job.message}")
        return {"CANCELLED"}
    return {"FINISHED"}


class Cancel(bpy.types.Operator):
    """Stop making the mesh, or forget one that waits"""

    bl_idname = "iso3d.cancel"
    bl_label = "Cancel"

    job: StringProperty(description="Which; without it, all of them", options={"HIDDEN", "SKIP_SAVE"})

    def execute(self, _context):
        for job in list(session.queue.jobs):
            if self.job in ("", job.id):
                session.queue.cancel(job)
        session.redraw()
        return {"FINISHED"}


class PlaceHere(bpy.types.Operator):
    """Put the finished mesh into this scene, though it was asked for in another file"""

    bl_idname = "iso3d.place_here"
    bl_label = "Place Here"

    job: StringProperty(options={"HIDDEN", "SKIP_SAVE"})

    def execute(self, context):
        job = session.queue.find(self.job)
        if job is None:
            return {"CANCELLED"}
        job.target = session.open_file.target(context.scene)
        session.watch()
        return {"FINISHED"}


class CopyLog(bpy.types.Operator):
    """Copy what the worker or the server said, for a report"""

    bl_idname = "iso3d.copy_log"
    bl_label = "Copy Log"

    def execute(self, context):
        about = f"Blender {bpy.app.version_string}, {preferences(context).backend}"
        context.window_manager.clipboard = "\n".join([about, session.queue.error, *session.queue.log])
        self.report({"INFO"}, "The log is in the clipboard")
        return {"FINISHED"}


class Check(bpy.types.Operator):
    """Ask the worker or the server for its versions and device"""

    bl_idname = "iso3d.check"
    bl_label = "Check"

    def execute(self, context):
        try:
            check = session.start_check(preferences(context).server())
        except (ValueError, OSError) as error:
            self.report({"ERROR"}, str(error))
            return {"CANCELLED"}
        if bpy.app.background:
            session.wait(lambda: check.done)
            self.report({"ERROR" if check.failed else "INFO"}, check.text)
        return {"FINISHED"}


class FreeMemory(bpy.types.Operator):
    """Let the worker or the server forget the networks it has loaded"""

    bl_idname = "iso3d.free_memory"
    bl_label = "Free Memory"

    def execute(self, _context):
        session.queue.free()
        return {"FINISHED"}


CLASSES = [GenerateFromImage, TextureFromImage, Cancel, PlaceHere, CopyLog, Check, FreeMemory]

if hasattr(bpy.types, "FileHandler"):  # from 4.1

    class ImageDrop(bpy.types.FileHandler):
        """Drop an image onto a 3D view."""

        bl_idname = "ISO3D_FH_image"
        bl_label = "Generate 3D mesh (iso3d)"
        bl_import_operator = GenerateFromImage.bl_idname
        bl_file_extensions = ";".join(IMAGE_SUFFIXES)

        @classmethod
        def poll_drop(cls, context):
            return context.area is not None and context.area.type == "VIEW_3D"

    CLASSES.append(ImageDrop)
