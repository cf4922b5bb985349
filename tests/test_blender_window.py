"""The add-on in a Blender with its window, on a virtual display, driven by simulated events (`pytest -m blender`).

BLENDER_PICTURES names a folder that keeps the pictures of the window.
"""

import json
import os
import shutil
import subprocess
import time
from pathlib import Path

import pytest
from test_blender_host import BLENDER, ROCKET, addon, alive, environment  # noqa: F401

pytestmark = pytest.mark.blender
SCRIPT = Path(__file__).parent / "blender_window.py"
PICTURES = ("idle", "running", "done", "queued", "error", "preferences")
START = ["Camera", "Cube", "Light"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("window")


@pytest.fixture(scope="module")
def facts(addon, folder):  # noqa: F811
    if BLENDER is None or shutil.which("xvfb-run") is None:
        pytest.skip("needs `blender` (or BLENDER) and `xvfb-run`")
    version = subprocess.run([BLENDER, "--version"], capture_output=True, text=True, check=True).stdout.split()[1]
    if tuple(map(int, version.split(".")[:2])) >= (4, 2):
        pytest.skip(f"the story installs as an add-on, not as an extension; this is Blender {version}")
    command = [
        "xvfb-run", "-a", "-s", "-screen 0 1280x800x24", BLENDER, "--factory-startup", "--enable-event-simulate",
        "--window-geometry", "0", "0", "1280", "800", "--python", SCRIPT, "--", addon, folder,
    ]  # fmt: skip
    env = {**environment(folder), "TEST_IMAGE": str(shutil.copy(ROCKET, folder)), "LIBGL_ALWAYS_SOFTWARE": "1"}
    with (folder / "blender.log").open("w") as log:
        done = subprocess.run(command, env=env, stdout=log, stderr=subprocess.STDOUT, timeout=400, check=False)
    text = (folder / "blender.log").read_text()[-3000:]
    assert (folder / "facts.json").exists(), f"exit code {done.returncode}: {text}"
    found = json.loads((folder / "facts.json").read_text())
    if keep := os.environ.get("BLENDER_PICTURES"):
        for name in PICTURES:
            if (folder / f"{name}.png").exists():
                shutil.copy(folder / f"{name}.png", keep)
    assert "failed" not in found, f"{found['part']}: {found['failed']}\n{text}"
    return found


def test_the_button_makes_a_mesh(facts):
    assert facts["before"] == START
    assert facts["after"] == sorted([*START, "rocket"])


def test_the_interface_stays_alive(facts):
    assert facts["view_turned"]
    assert facts["ticks"] > 20
    assert facts["longest_draw"] < 0.05
    assert facts["longest_tick"] < 0.05 + max(facts["placing"])
    assert max(facts["placing"]) < 1.0
    assert facts["longest_gap"] < 2.0  # of a timer of the story, drawing without a GPU in between


def test_undo_removes_it_and_redo_brings_it_back(facts):
    assert "iso3d" not in facts["collections_after_undo"]
    assert facts["packed_after_redo"]


def test_cancel_leaves_everything_as_it_was(facts):
    assert facts["after_cancel"] == facts["after"]
    assert facts["error_after_cancel"] == ""


def test_a_mesh_waits_for_object_mode(facts):
    assert facts["while_editing"] == facts["after"]
    assert "Object Mode" in facts["editing_message"]
    assert facts["after_editing"] == sorted([*START, "rocket", "rocket.001"])


def test_a_mesh_goes_to_the_file_it_was_asked_for(facts):
    assert facts["other_file"] == START
    assert "not open" in facts["other_file_message"]
    assert facts["kept"]
    assert facts["own_file"] == sorted([*START, "rocket", "rocket.001", "rocket.002"])
    assert facts["placed_here"] == sorted([*START, "rocket"])


def test_errors_and_checks_are_told(facts):
    assert "SIGKILL" in facts["error"]
    assert facts["error"] in facts["log"]
    assert "played" in facts["check"]


def test_quitting_ends_the_worker(facts, folder):
    process = int((folder / "process.txt").read_text())
    end = time.monotonic() + 2
    while alive(process) and time.monotonic() < end:
        time.sleep(0.02)
    assert not alive(process)


def test_there_are_pictures(facts, folder):
    assert {path.stem for path in folder.glob("*.png")} >= set(PICTURES)
