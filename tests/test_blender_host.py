"""The add-on in real Blenders, without a window (`pytest -m blender`).

BLENDER names a program other than `blender`, BPY_PYTHON a Python that has bpy. WORKER_PYTHON is the one with iso3d,
the running one by default.
"""

import importlib.util
import json
import os
import shutil
import signal
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import numpy as np
import pytest
import trimesh
from blender_plain import ROOT, load
from PIL import Image

from iso3d_core.types import Mesh

pytestmark = pytest.mark.blender
SCRIPT = Path(__file__).parent / "blender_script.py"
ROCKET = ROOT / "examples" / "rocket.png"
BLENDER = shutil.which(os.environ.get("BLENDER", "blender"))
BPY_PYTHON = os.environ.get("BPY_PYTHON") or (sys.executable if importlib.util.find_spec("bpy") else None)
WORKER_PYTHON = os.environ.get("WORKER_PYTHON", sys.executable)
HOSTS = {
    "blender": BLENDER
    and [BLENDER, "--background", "--factory-startup", "--python-exit-code", "9", "--python", SCRIPT],
    "bpy": BPY_PYTHON and [BPY_PYTHON, SCRIPT],
}
FAKE = """#!{python}
import json, os, shutil, sys, time
play = os.environ.get("PLAY", "work")
def say(kind, **values):
    print(json.dumps(dict(values, type=kind)), flush=True)
if play == "lacks":
    import a_package_that_is_missing
for line in sys.stdin:
    request = json.loads(line)
    if request["type"] == "hello":
        say("hello", protocol=1, version="0.1.0", python="3.11.7", torch="2.9", device="played", bundles=["tiny"])
    elif request["type"] == "generate" and play == "die":
        os.kill(os.getpid(), 9)
    elif request["type"] == "generate" and play == "slow":
        total = int(os.environ.get("STEPS", "40"))
        for step in range(total + 1):
            say("progress", id=request["id"], stage="views", step=step, total=total, fraction=step / total,
                seconds_left=(total - step) / 10, preview=None)
            time.sleep(0.1)
        shutil.copy(os.environ["TEST_GLB"], request["out"])
        say("result", id=request["id"], path=request["out"], seconds=4, warnings=[])
    elif request["type"] == "generate" and play == "full":
        say("error", id=request["id"], message="cannot write a.glb: No space left on device")
    elif request["type"] in ("generate", "refine"):
        shutil.copy(os.environ["TEST_GLB"], request["out"])
        if play == "broken":
            os.truncate(request["out"], 100)
        say("result", id=request["id"], path=request["out"], seconds=0.1, warnings=["a rough guess"])
"""


@pytest.fixture(scope="module")
def addon(tmp_path_factory):
    """The zip as the command of the README builds it."""
    out = tmp_path_factory.mktemp("zip") / "iso3d_blender.zip"
    subprocess.run([sys.executable, ROOT / "install.py", "--build-addon", out], check=True, stdout=subprocess.PIPE)
    return out


def figure(**parts):
    """A ball with a seam in its vertices, a nose towards the reference camera (+X) and a long hat (+Z)."""
    ball = trimesh.creation.icosphere(subdivisions=2)
    points = ball.vertices.copy()
    points[points[:, 0].argmax()] = (1.5, 0.0, 0.0)
    points[points[:, 2].argmax()] = (0.0, 0.0, 2.0)
    faces = ball.faces.copy()
    late = faces[len(faces) // 2 :]
    late[late < 20] += len(points)
    points = np.concatenate([points, points[:20]]).astype(np.float32)
    return Mesh(points, faces.astype(np.int32), points / np.linalg.norm(points, axis=1, keepdims=True), **parts)


def textured():
    random = np.random.default_rng(0)
    texture = np.full((16, 32, 3), (200, 100, 50), dtype=np.uint8)
    return figure(uvs=random.random((182, 2), dtype=np.float32), texture=texture)


def environment(folder):
    """Folders of its own instead of the user's, a played worker, meshes for it."""
    folder.mkdir(exist_ok=True)
    fake = folder / "fake python"
    fake.write_text(FAKE.format(python=sys.executable))
    fake.chmod(0o755)
    picture = folder / "picture.png"
    shutil.copy(ROCKET, picture)
    plain, colored = textured().save(folder / "plain.glb"), figure(
        vertex_colors=np.full((182, 3), (255, 0, 0), dtype=np.uint8)
    ).save(folder / "colored.glb")  # fmt: skip
    own = {
        f"BLENDER_USER_{kind}": str(folder / "user" / kind.lower())
        for kind in ("RESOURCES", "CONFIG", "SCRIPTS", "DATAFILES", "EXTENSIONS")
    }
    for path in own.values():
        Path(path).mkdir(parents=True, exist_ok=True)
    return {
        # A Blender that uses the system's Python would take the standard library of another one first on PATH.
        **os.environ, **own, "PATH": "/usr/bin:/bin:" + os.environ["PATH"],
        "FAKE_PYTHON": str(fake), "REAL_PYTHON": WORKER_PYTHON, "TEST_IMAGE": str(picture),
        "TEST_GLB": str(plain), "PLAIN_GLB": str(plain), "COLORED_GLB": str(colored),
    }  # fmt: skip


def run(host, addon, scenario, folder, **more):
    """Run a scenario to its end; returns its facts."""
    done = subprocess.run(
        [*HOSTS[host], "--", addon, scenario, folder], env={**environment(folder), **more}, capture_output=True,
        text=True, timeout=300, check=False,
    )  # fmt: skip
    assert (folder / "facts.json").exists(), done.stdout[-3000:] + done.stderr[-3000:]
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads((folder / "facts.json").read_text())


@pytest.fixture(scope="module", params=list(HOSTS))
def host(request):
    if not HOSTS[request.param]:
        where = "`blender` is not on PATH, and BLENDER names none"
        pytest.skip(where if request.param == "blender" else "no bpy in this Python, and BPY_PYTHON names none")
    return request.param


@pytest.fixture(scope="module")
def facts(host, addon, tmp_path_factory):
    return run(host, addon, "everything", tmp_path_factory.mktemp(host))


def test_it_installs_as_what_the_version_knows(facts):
    assert facts["module"] == ("iso3d_blender" if facts["version"] < [4, 2] else "bl_ext.user_default.iso3d_blender")
    assert facts["disabled"]
    assert facts["enabled"]


def test_the_object_stands_on_the_cursor_at_its_height(facts):
    made = facts["object"]
    assert made["name"] == "picture"
    assert made["location"] == [1.0, 2.0, 3.0]
    assert made["scale"] == [1.0, 1.0, 1.0]
    assert made["dimensions"][2] == pytest.approx(2.5, rel=1e-6)
    places = np.array(made["places"])
    assert places[:, 2].min() == pytest.approx(0, abs=1e-6)
    low, high = places.min(axis=0), places.max(axis=0)
    assert low[:2] + high[:2] == pytest.approx([0, 0], abs=1e-6)
    assert made["selected"]
    assert made["active"]
    assert made["collections"] == ["iso3d"]
    assert (made["preset"], made["seed"]) == ("default", 5)
    assert made["source"].endswith("picture.png")


def test_it_is_upright_and_shows_its_front_to_numpad_1(facts):
    places = np.array(facts["object"]["places"]) * (3 / 2.5)  # the figure is 3 high
    hat, nose = places[places[:, 2].argmax()], places[places[:, 1].argmin()]
    middle_y = (-1.5 + 1.0) / 2  # of nose and back
    assert hat == pytest.approx([0, -middle_y, 3], abs=1e-5)
    assert nose == pytest.approx([0, -1.5 - middle_y, 1], abs=1e-5)


def test_it_keeps_the_size_of_the_file_if_asked_to(facts):
    assert facts["second"]["dimensions"][2] == pytest.approx(3, rel=1e-6)
    assert facts["second"]["name"] == "picture.001"
    assert facts["second"]["collections"] == ["iso3d"]
    assert (facts["second"]["preset"], facts["second"]["seed"]) == ("fast", 0)


def test_mesh_material_and_image(facts):
    made = facts["object"]
    assert (made["vertices"], made["faces"]) == (162, 320)
    assert made["closed"]
    assert made["smooth"]
    assert made["shader_input"] == "TEX_IMAGE"
    assert made["roughness"] == pytest.approx(0.9)
    assert made["image"] == ["picture", 32, 16, True, True]
    expected = textured()
    assert np.array_equal(np.array(made["uvs"], dtype=np.float32), expected.uvs[expected.faces.reshape(-1)])
    packed, width, height, pixel = facts["saved_image"]
    assert (packed, width, height) == (True, 32, 16)
    assert pixel == pytest.approx([200 / 255, 100 / 255, 50 / 255, 1], abs=1e-3)


def test_a_mesh_gets_a_texture_and_keeps_its_shape(facts):
    found = facts["texture"]
    assert found["unchanged"]
    assert found["seed"] == 7
    made = found["object"]
    assert made["shader_input"] == "TEX_IMAGE"
    assert made["image"][1:] == [32, 16, True, True]
    assert made["material"] != found["old"]
    triangles, image, vertices = found["handed"]
    assert (triangles, image) == (960, True)
    assert 162 <= vertices <= 960  # one for each UV that a vertex has
    message, maps = found["no image"]
    assert "no image" in message
    assert maps == 0  # nothing was done to the mesh
    assert "no ComfyUI answers at http://127.0.0.1:1" in found["no server"]
    assert found["other"] == [True, True]  # the other selected one kept its UVs, and stays selected
    faces, materials, corners, most = found["cube"]
    assert (faces, materials) == (6, 1)
    assert corners >= 20  # unwrapped, each side by itself
    assert most <= 1
    assert "poll" in found["camera"]


def test_vertex_colors_reach_the_material(facts):
    assert facts["colored"]["shader_input"] == "VERTEX_COLOR"
    assert facts["colored"]["colors"][0] == [1, 0, 0, 1]


def test_the_official_importer_agrees(facts):
    if not facts["official"]["ran"]:
        pytest.skip(f"Blender's own importer does not run here: {facts['official']['why']}")
    assert facts["official"]["corners"] == 960
    assert facts["official"]["positions"]
    assert facts["official"]["uvs"]


@pytest.mark.parametrize(
    ("case", "said"),
    [
        ("no_python", "Choose the Python that has iso3d"),
        ("no_image", "There is no image"),
        ("no_image_given", "Pick an image first"),
        ("wrong_python", "cannot be run"),
        ("die", "SIGKILL"),
        ("full", "No space left on device"),
        ("lacks", "pip install"),
        ("broken", "not a whole GLB"),
        ("editing", "Object Mode"),
    ],
)
def test_what_goes_wrong_is_told(facts, case, said):
    assert said in facts[case]
    assert "Traceback" not in facts[case]


def test_failures_leave_the_file_as_it_was(facts):
    assert facts["after_failures"] == facts["before"]
    assert facts["left_behind"] == []


def test_a_mesh_waits_for_object_mode(facts):
    assert facts["after_editing"] == "picture.003"


def test_the_check_tells_versions_and_device(facts):
    assert all(value in facts["check"] for value in ("0.1.0", "3.11.7", "2.9", "played"))


def test_an_example_through_the_real_worker(host, addon, tmp_path):
    found = run(host, addon, "real", tmp_path / "real", TEST_IMAGE=str(ROCKET))
    assert found["unchanged"]  # by the texture that it was given afterwards
    assert found["plain"] == [True, 1, 1024, 1024]  # a cube of Blender's own, with UVs and no material
    assert found["changed"]
    assert found["image"][3:] == [True, True]
    other = found["prompted"]
    assert (other["method"], other["prompt"], other["closed"]) == ("magic123", "a red and blue rocket", True)
    made = found["object"]
    assert made["name"] == "rocket"
    assert made["dimensions"][2] == pytest.approx(1, rel=1e-5)
    assert made["closed"]
    assert made["image"][3:] == [True, True]
    assert made["faces"] > 1000
    red, _, blue, alpha = np.moveaxis(np.array(Image.open(tmp_path / "real" / "front.png"), dtype=float), 2, 0)
    rows = np.flatnonzero(alpha.max(axis=1) > 128)
    body, fins = (rows[0] + round(part * (rows[-1] - rows[0])) for part in (0.4, 0.75))
    seen = alpha > 128
    assert blue[body][seen[body]].mean() > red[body][seen[body]].mean()  # a blue body above red fins
    assert red[fins][seen[fins]].mean() > blue[fins][seen[fins]].mean()


@pytest.mark.parametrize("when", ["loading", "working"])
@pytest.mark.parametrize("then", ["killed", "quit"])
def test_no_worker_outlives_its_blender(host, addon, tmp_path, when, then):
    env = {**environment(tmp_path), "WHEN": when, "THEN": then}
    blender = subprocess.Popen(
        [*HOSTS[host], "--", addon, "in_mid_job", tmp_path], env=env, stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        told = tmp_path / "process.txt"
        end = time.monotonic() + 120
        while not told.exists() or not told.read_text():
            assert time.monotonic() < end
            assert blender.poll() is None or told.exists()
            time.sleep(0.05)
        process = int(told.read_text())
        if then == "killed":
            time.sleep(0.5)
            blender.send_signal(signal.SIGKILL)
        blender.wait(20)
    finally:
        blender.kill()
        blender.wait()
    end = time.monotonic() + 2
    while time.monotonic() < end:
        if not alive(process):
            return
        time.sleep(0.02)
    os.kill(process, signal.SIGKILL)
    pytest.fail("the worker is still there after two seconds")


def alive(process):
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_blenders_own_validator_accepts_the_zip_and_makes_a_repository(addon, tmp_path):
    tool = extension_tool()
    if tool is None:
        pytest.skip("no Blender with extensions (4.2 or later) here")
    python = BPY_PYTHON or sys.executable
    done = subprocess.run([python, tool, "validate", addon], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    subprocess.run([sys.executable, ROOT / "install.py", "--addon-repository", tmp_path], check=True)
    ours = json.loads((tmp_path / "index.json").read_text())
    command = [python, tool, "server-generate", "--repo-dir", tmp_path, "--html"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert json.loads((tmp_path / "index.json").read_text()) == ours
    assert [entry["id"] for entry in ours["data"]] == ["iso3d_blender"]
    assert (tmp_path / "index.html").exists()


def extension_tool():
    """Blender's own program that validates and indexes extensions."""
    if BPY_PYTHON is None:
        return None
    find = "import bpy; print(bpy.utils.resource_path('LOCAL'))"
    found = subprocess.run([BPY_PYTHON, "-c", find], capture_output=True, text=True, check=True)
    return next(Path(found.stdout.splitlines()[-1]).rglob("bl_pkg/cli/blender_ext.py"), None)


def test_the_zip_has_one_folder(addon):
    names = zipfile.ZipFile(addon).namelist()
    assert {name.partition("/")[0] for name in names} == {"iso3d_blender"}
    assert {"iso3d_blender/__init__.py", "iso3d_blender/blender_manifest.toml", "iso3d_blender/LICENSE"} <= set(names)
    assert load("glb")  # and everything in it is what the other tests load
