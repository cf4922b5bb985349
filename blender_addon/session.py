# SPDX-License-Identifier: GPL-3.0-or-later
"""What lives as long as Blender runs: the queue, the timer that looks after it, and which file a result belongs to."""

import os
import time
import traceback
from pathlib import Path

import bpy
from bpy.app.handlers import persistent

from . import glb, scene
from .comfy import Comfy
from .jobs import FAILED, FINISHED, PLACED, Backend, Check, Job, Queue, Server
from .worker import Local

TICK_SECONDS = 0.1


def results_folder() -> str:
    """Where meshes wait until they are in a scene. Raises OSError where it cannot be made."""
    try:
        folder = bpy.utils.extension_path_user(__package__, path="results", create=True)
    except (AttributeError, ValueError):  # before 4.2, or not installed as an extension
        folder = bpy.utils.user_resource("DATAFILES", path="iso3d")
        os.makedirs(folder, exist_ok=True)
    return folder


def connect(server: Server) -> Backend:
    kind, place = server
    return Comfy(place) if kind == "COMFYUI" else Local(place, results_folder())


class OpenFile:
    """Which file is open: one number for each file, saved or not, as long as Blender runs."""

    def __init__(self) -> None:
        self._number = self._last = 0
        self._numbers: dict[str, int] = {}  # of the files on the disk

    def loaded(self, path: str) -> None:
        self._last += 1
        self._number = self._numbers.setdefault(path, self._last) if path else self._last

    def saved(self, path: str) -> None:
        self._numbers[path] = self._number

    def target(self, place: bpy.types.Scene) -> tuple[int, str]:
        """What `find` takes to give the scene back."""
        if bpy.data.filepath:
            self._numbers.setdefault(bpy.data.filepath, self._number)
        return self._number, place.name

    def find(self, target: tuple[int, str]) -> bpy.types.Scene | None:
        """The scene, or None while its file is not open."""
        number, name = target
        return bpy.data.scenes.get(name) if number == self._number else None


queue = Queue(connect)
open_file = OpenFile()
check: Check | None = None
note = ""  # of the last mesh that was placed


def ask(
    place: bpy.types.Scene, image: str, preset: str, seed: int, height: float, method: str, prompt: str, preferences
) -> Job:  # fmt: skip
    """Queue a job for a scene. Raises ValueError or OSError; the message says what to do."""
    image = os.path.abspath(bpy.path.abspath(image)) if image else ""
    if not os.path.isfile(image):
        raise ValueError(f"There is no image {image!r}; pick one" if image else "Pick an image first")
    job = Job(
        image=image, out="", server=preferences.server(), preset=preset, seed=seed, height=height,
        bundle=preferences.bundle, method=method, prompt=prompt.strip(), target=open_file.target(place),
    )  # fmt: skip
    job.out = str(Path(results_folder()) / f"{job.name}-{job.id}.glb")
    queue.add(job)
    watch()
    return job


def ask_texture(
    obj: bpy.types.Object, place: bpy.types.Scene, image: str, seed: int, prompt: str, preferences
) -> Job:  # fmt: skip
    """Queue a job that gives a mesh object the texture of an image. Raises ValueError or OSError as `ask`."""
    image = os.path.abspath(bpy.path.abspath(image)) if image else ""
    if not os.path.isfile(image):
        raise ValueError(f"There is no image {image!r}; pick one" if image else "Pick an image first")
    if not obj.data.polygons:
        raise ValueError(f"{obj.name} has no faces; pick another object")
    job = Job(
        image=image, out="", server=preferences.server(), seed=seed, bundle=preferences.bundle,
        prompt=prompt.strip(), target=open_file.target(place), object_name=obj.name,
    )  # fmt: skip
    if not obj.data.uv_layers:
        scene.unwrap(obj)
    folder = Path(results_folder())
    job.out, job.mesh = str(folder / f"texture-{job.id}.glb"), str(folder / f"mesh-{job.id}.glb")
    Path(job.mesh).write_bytes(glb.write(scene.refinable(obj)))
    queue.add(job)
    watch()
    return job


def start_check(server: Server) -> Check:
    global check
    if check is not None:
        check.close()  # or an unanswered one leaves its worker behind
    check = Check(connect(server))
    watch()
    return check


def watch() -> None:
    """See to it that `tick` runs; in the background nobody calls timers, and operators wait themselves."""
    if not bpy.app.background and not bpy.app.timers.is_registered(tick):
        bpy.app.timers.register(tick, first_interval=0.0, persistent=True)


def tick() -> float | None:
    """Everything that has to happen now and then, in a few milliseconds; None ends it."""
    try:
        changed = queue.poll()
        changed |= place_finished()
        changed |= check is not None and check.poll()
    except Exception:  # a timer that raises is never called again, and the jobs would hang
        queue.error = f"The add-on failed: {traceback.format_exc().splitlines()[-1]}; the log has more"
        queue.log.append(traceback.format_exc())
        changed = True
    if changed:
        redraw()
    return TICK_SECONDS if queue.jobs or (check is not None and not check.done) else None


def place_finished() -> bool:
    """Put finished meshes where they belong, if that is open and not being edited; returns whether anything changed."""
    changed = False
    for job in [job for job in queue.jobs if job.state == FINISHED]:
        place = open_file.find(job.target)
        if place is None:
            message = f"Its file is not open. Open it, or place the mesh here. Until then it is {job.out}"
        elif is_editing():
            message = "Ready; it is placed as soon as you are in Object Mode"
        else:
            _place(job, place)
            changed = True
            continue
        changed |= job.message != message
        job.message = message
    return changed


def _place(job: Job, place: bpy.types.Scene) -> None:
    global note
    window = next((w for w in bpy.context.window_manager.windows if w.scene == place), None)
    view_layer = window.view_layer if window else place.view_layers[0]
    try:
        data = glb.read(job.out)
    except glb.GlbError as error:
        queue.end(job, FAILED, str(error))
        return
    if job.mesh:
        obj = place.objects.get(job.object_name)
        if obj is None or obj.type != "MESH":
            queue.end(job, FAILED, f"{job.object_name} is not in the scene any more; nothing was changed")
            return
        scene.retexture(obj, data)
    else:
        obj = scene.add_object(data, scene.object_name(job.image), place, view_layer, job.height)
        obj["iso3d_preset"], obj["iso3d_method"] = job.preset, job.method
    if job.prompt:
        obj["iso3d_prompt"] = job.prompt
    obj["iso3d_source"], obj["iso3d_seed"] = job.image, job.seed
    if window is not None and not bpy.app.background:
        with bpy.context.temp_override(window=window):
            bpy.ops.ed.undo_push(message=f"{'Texture' if job.mesh else 'Generate'} {obj.name}")
    done = "has its new texture" if job.mesh else "is in the scene"
    note = " ".join([f"{obj.name} {done}.", *job.warnings])
    queue.end(job, PLACED)


def is_editing() -> bool:
    """Whether an object is in another mode than Object Mode."""
    layers = [window.view_layer for window in bpy.context.window_manager.windows] or [bpy.context.view_layer]
    return any(layer.objects.active is not None and layer.objects.active.mode != "OBJECT" for layer in layers)


def wait(done) -> None:
    """In the background: do what `tick` does until ``done()``."""
    while not done():
        queue.poll()
        if check is not None:
            check.poll()
        time.sleep(0.02)
    place_finished()


def redraw() -> None:
    """The sidebars of the 3D views, and the preferences."""
    for window in bpy.context.window_manager.windows:
        for area in window.screen.areas:
            for region in area.regions:
                if (area.type, region.type) in (("VIEW_3D", "UI"), ("PREFERENCES", "WINDOW")):
                    region.tag_redraw()


def progress_percent(_) -> float:
    """Of the running job."""
    return 100 * queue.running.fraction if queue.running else 0.0


def keep_progress(_, _value: float) -> None:
    """Nothing: without a setter the slider would be grey."""


@persistent
def on_load(*_) -> None:
    open_file.loaded(bpy.data.filepath)


@persistent
def on_save(*_) -> None:
    open_file.saved(bpy.data.filepath)


def register() -> None:
    bpy.app.handlers.load_post.append(on_load)
    bpy.app.handlers.save_post.append(on_save)


def unregister() -> None:
    bpy.app.handlers.load_post.remove(on_load)
    bpy.app.handlers.save_post.remove(on_save)
    if bpy.app.timers.is_registered(tick):
        bpy.app.timers.unregister(tick)
    stop()


def stop() -> None:
    """End every process of ours."""
    queue.close()
    if check is not None:
        check.close()
