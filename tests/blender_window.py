"""Runs inside a Blender with a window and simulated events: `… --python blender_window.py -- ZIP FOLDER`.

A story in steps, played by a timer; pictures of the window and facts.json go to FOLDER.
"""

import json
import os
import sys
import time
import traceback
from pathlib import Path

import bpy

ZIP, FOLDER = sys.argv[sys.argv.index("--") + 1 :][:2]
FOLDER = Path(FOLDER)
FAKE, REAL, IMAGE = os.environ["FAKE_PYTHON"], os.environ["REAL_PYTHON"], os.environ["TEST_IMAGE"]
STEP_SECONDS = 0.05

bpy.context.preferences.view.show_splash = False
bpy.context.preferences.view.show_developer_ui = True
bpy.ops.preferences.addon_install(filepath=ZIP, overwrite=True)
bpy.ops.preferences.addon_enable(module="iso3d_blender")
session = sys.modules["iso3d_blender.session"]
panel = sys.modules["iso3d_blender.panel"]
chosen = bpy.context.preferences.addons["iso3d_blender"].preferences

facts, steps_at, tick_seconds, place_seconds, drawn = {}, [], [], [], []


def timed(function, seconds):
    def call(*arguments):
        began = time.perf_counter()
        try:
            return function(*arguments)
        finally:
            seconds.append(time.perf_counter() - began)

    return call


session._place = timed(session._place, place_seconds)
session.tick = timed(session.tick, tick_seconds)
draw = timed(panel.ImageTo3D.draw, drawn)
panel.ImageTo3D.draw = lambda self, context: draw(self, context)  # Blender counts the arguments it takes


def window():
    return bpy.context.window_manager.windows[0]


def area():
    return next(a for a in window().screen.areas if a.type == "VIEW_3D")


def region(kind):
    return next(r for r in area().regions if r.type == kind)


def override(kind):
    return bpy.context.temp_override(window=window(), screen=window().screen, area=area(), region=region(kind))


def event(kind, value, x, y, **more):
    window().event_simulate(type=kind, value=value, x=x, y=y, **more)


def click(x, y):
    event("MOUSEMOVE", "NOTHING", x, y)
    yield
    event("LEFTMOUSE", "PRESS", x, y)
    yield
    event("LEFTMOUSE", "RELEASE", x, y)
    yield


def press(key, **more):
    """A key, with the mouse in the middle of the view."""
    view = region("WINDOW")
    x, y = view.x + view.width // 3, view.y + view.height // 2
    event("MOUSEMOVE", "NOTHING", x, y)
    yield
    event(key, "PRESS", x, y, **more)
    yield
    event(key, "RELEASE", x, y, **more)
    yield


def under_mouse():
    """The command or property of the button that the mouse is on."""
    bpy.context.window_manager.clipboard = ""
    for copy in (bpy.ops.ui.copy_python_command_button, bpy.ops.ui.copy_data_path_button):
        with override("UI"):
            try:
                if copy.poll():
                    copy()
                    break
            except RuntimeError:
                continue
    return bpy.context.window_manager.clipboard


def find(name, column=0.5):
    """Move down the sidebar until the mouse is on the button of that name; yields, then returns (x, y)."""
    side = region("UI")
    x = side.x + int(side.width * column)
    for y in range(side.y + side.height - 30, side.y + 20, -8):
        event("MOUSEMOVE", "NOTHING", x, y)
        yield
        yield
        if name in under_mouse():
            return x, y
    raise AssertionError(f"there is no button for {name}")


def push(name, column=0.5):
    yield from click(*(yield from find(name, column)))


def until(done, seconds, what):
    end = time.monotonic() + seconds
    while not done():
        if time.monotonic() > end:
            raise AssertionError(f"{what} did not come; error: {session.queue.error!r}; log: {list(session.queue.log)}")
        yield


def picture(name):
    for _ in range(4):
        yield
    with override("WINDOW"):
        bpy.ops.screen.screenshot(filepath=str(FOLDER / f"{name}.png"))
    yield


def open_tab():
    """Click down the strip of tabs until our panel is drawn."""
    area().spaces.active.show_region_ui = True
    for _ in range(6):
        yield
    side = region("UI")
    for y in range(side.y + side.height - 30, side.y + side.height // 3, -20):
        yield from click(side.x + side.width - 8, y)
        yield
        if drawn:
            return
    raise AssertionError("the tab is not there")


def names():
    return sorted(o.name for o in bpy.data.objects)


def idle():
    return not session.queue.jobs


def use(python, play="work", seconds=4):
    session.queue.close()
    chosen.worker_python, os.environ["PLAY"], os.environ["STEPS"] = python, play, str(10 * seconds)


def make_with_the_button():
    chosen.worker_python = REAL
    yield from open_tab()
    for _ in range(3):
        side = region("UI")
        yield
    bpy.context.scene.iso3d.image = IMAGE
    bpy.context.scene.cursor.location = (2.5, 0, 0)
    for _ in range(20):  # the thumbnail is loaded by another thread
        region("UI").tag_redraw()
        yield
    yield from picture("idle")
    facts["sidebar"] = side.width
    facts["before"] = names()
    yield from push("iso3d.generate_from_image")
    yield from until(lambda: session.queue.running, 5, "the job")
    began, first_step = time.monotonic(), len(steps_at)
    seen = []
    yield from until(lambda: seen.append(session.queue.running.preview) or seen[-1], 120, "the preview")
    yield from until(lambda: session.queue.running.fraction > 0.25, 120, "the middle")
    turn = area().spaces.active.region_3d.view_rotation.copy()
    yield from press("NUMPAD_1")
    yield from picture("running")
    facts["view_turned"] = area().spaces.active.region_3d.view_rotation != turn
    yield from until(idle, 120, "the mesh")
    gaps = [b - a for a, b in zip(steps_at[first_step:], steps_at[first_step + 1 :], strict=False)]
    facts["seconds"], facts["steps"] = time.monotonic() - began, len(gaps)
    facts["longest_gap"] = max(gaps)
    facts["ticks"], facts["longest_tick"] = len(tick_seconds), max(tick_seconds)
    facts["placing"], facts["longest_draw"] = place_seconds[:], max(drawn)
    facts["after"] = names()
    area().spaces.active.shading.type = "MATERIAL"
    yield from press("NUMPAD_PERIOD")
    for _ in range(40):
        yield
    yield from picture("done")
    area().spaces.active.shading.type = "SOLID"


def undo_and_redo():
    yield from press("Z", ctrl=True)
    yield from until(lambda: names() == facts["before"], 5, "undo")
    facts["collections_after_undo"] = [c.name for c in bpy.data.collections]
    yield from press("Z", ctrl=True, shift=True)
    yield from until(lambda: names() == facts["after"], 5, "redo")
    image = bpy.data.objects[Path(IMAGE).stem].data.materials[0].node_tree.nodes.active.image
    facts["packed_after_redo"] = image.packed_file is not None


def cancel_with_the_button():
    use(FAKE, "slow", seconds=60)
    with override("WINDOW"):
        for _ in range(2):
            bpy.ops.iso3d.generate_from_image(filepath=IMAGE)
    yield from until(lambda: session.queue.running and session.queue.running.fraction > 0.02, 20, "progress")
    yield from picture("queued")
    yield from push("iso3d.cancel", 0.7)
    yield from until(lambda: len(session.queue.jobs) == 1, 10, "the end of the first")
    bpy.ops.iso3d.cancel()
    yield from until(idle, 10, "the end of all")
    facts["after_cancel"], facts["error_after_cancel"] = names(), session.queue.error


def wait_for_object_mode():
    use(FAKE)
    with override("WINDOW"):
        bpy.ops.iso3d.generate_from_image(filepath=IMAGE)
        bpy.ops.object.mode_set(mode="EDIT")
    yield from until(lambda: any(job.message for job in session.queue.jobs), 20, "the message")
    facts["while_editing"], facts["editing_message"] = names(), session.queue.jobs[0].message
    with override("WINDOW"):
        bpy.ops.object.mode_set(mode="OBJECT")
    yield from until(idle, 10, "the mesh")
    facts["after_editing"] = names()


def go_to_another_file():
    saved = str(FOLDER / "asked.blend")
    bpy.ops.wm.save_as_mainfile(filepath=saved)
    use(FAKE, "slow")
    with override("WINDOW"):
        bpy.ops.iso3d.generate_from_image(filepath=IMAGE)
    yield from until(lambda: session.queue.running and session.queue.running.fraction > 0.1, 20, "progress")
    bpy.ops.wm.read_homefile(use_factory_startup=False)
    yield from until(lambda: any(job.message for job in session.queue.jobs), 30, "the message")
    facts["other_file"], facts["other_file_message"] = names(), session.queue.jobs[0].message
    facts["kept"] = Path(session.queue.jobs[0].out).exists()
    bpy.ops.wm.open_mainfile(filepath=saved)
    yield from until(idle, 10, "the mesh, in its file")
    facts["own_file"] = names()
    with override("WINDOW"):
        bpy.ops.iso3d.generate_from_image(filepath=IMAGE)
    yield from until(lambda: session.queue.running and session.queue.running.fraction > 0.1, 20, "progress")
    bpy.ops.wm.read_homefile(use_factory_startup=False)
    yield from until(lambda: any(job.message for job in session.queue.jobs), 30, "the message")
    job = session.queue.jobs[0]
    bpy.ops.iso3d.place_here(job=job.id)
    yield from until(idle, 10, "the mesh, placed here")
    facts["placed_here"] = names()


def tell_what_went_wrong():
    use(FAKE, "die")
    bpy.context.scene.iso3d.image = IMAGE
    area().spaces.active.show_region_ui = True
    drawn.clear()
    yield from open_tab()
    with override("WINDOW"):
        bpy.ops.iso3d.generate_from_image(filepath=IMAGE)
    yield from until(lambda: session.queue.error, 20, "the error")
    yield from picture("error")
    facts["error"] = session.queue.error
    bpy.ops.iso3d.copy_log()
    facts["log"] = bpy.context.window_manager.clipboard


def check_the_preferences():
    use(FAKE)
    bpy.ops.iso3d.check()
    yield from until(lambda: session.check.done, 20, "the check")
    facts["check"] = session.check.text
    bpy.ops.screen.userpref_show("INVOKE_DEFAULT", section="ADDONS")
    yield
    bpy.context.window_manager.addon_search = "iso3d"
    bpy.ops.preferences.addon_expand(module="iso3d_blender")
    for _ in range(10):
        yield
    other = bpy.context.window_manager.windows[-1]
    with bpy.context.temp_override(window=other):
        bpy.ops.screen.screenshot(filepath=str(FOLDER / "preferences.png"))
        bpy.ops.wm.window_close()


def quit_in_mid_job():
    use(REAL)
    with override("WINDOW"):
        bpy.ops.iso3d.generate_from_image(filepath=IMAGE, preset="quality")
    yield from until(lambda: session.queue.running and session.queue.running.fraction > 0, 120, "progress")
    (FOLDER / "process.txt").write_text(str(session.queue._backend._process._popen.pid))


STORY = [
    make_with_the_button, undo_and_redo, cancel_with_the_button, wait_for_object_mode, go_to_another_file,
    tell_what_went_wrong, check_the_preferences, quit_in_mid_job,
]  # fmt: skip


def story():
    yield
    for part in STORY:
        facts["part"] = part.__name__
        yield from part()


playing = story()


def step():
    steps_at.append(time.monotonic())
    try:
        next(playing)
        return STEP_SECONDS
    except StopIteration:
        facts["part"] = "done"
    except BaseException:
        facts["failed"] = traceback.format_exc()
    (FOLDER / "facts.json").write_text(json.dumps(facts))
    bpy.ops.wm.quit_blender()
    return None


bpy.app.timers.register(step, first_interval=1.0, persistent=True)
