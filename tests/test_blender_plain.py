"""The parts of the Blender add-on that know no bpy: the GLB reader, the queue, the worker process."""

import ast
import json
import os
import re
import stat
import struct
import sys
import time
import tomllib
from pathlib import Path

import numpy as np
import pytest
import trimesh
from blender_plain import ROOT, load

from iso3d_core.config import GuidedConfig
from iso3d_core.presets import GUIDED
from iso3d_core.types import Mesh

ADDON = ROOT / "blender_addon"
ROCKET = ROOT / "examples" / "rocket.png"
glb, jobs, worker = load("glb"), load("jobs"), load("worker")


# The files


def test_what_is_written_is_read_again(tmp_path):
    mesh = glb.read(textured().save(tmp_path / "ball.glb"))
    again = glb.parse(glb.write(mesh))
    assert (again.positions, again.triangles, again.image) == (mesh.positions, mesh.triangles, mesh.image)
    assert np.allclose(again.uvs, mesh.uvs, atol=1e-7)
    assert (again.roughness, again.metallic) == (mesh.roughness, mesh.metallic)
    (tmp_path / "again.glb").write_bytes(glb.write(mesh))
    scene = trimesh.load(tmp_path / "again.glb", process=False).dump(concatenate=True)
    reference = trimesh.load(tmp_path / "ball.glb", process=False).dump(concatenate=True)
    assert np.allclose(scene.vertices, reference.vertices)
    assert np.array_equal(scene.faces, reference.faces)
    bare = glb.parse(glb.write(glb.Mesh(mesh.positions, mesh.triangles)))
    assert (bare.uvs, bare.image) == (None, None)


def sphere(**parts):
    """A sphere with a seam: its first vertices are there twice."""
    ball = trimesh.creation.icosphere(subdivisions=2)
    vertices = np.concatenate([ball.vertices, ball.vertices[:20]]).astype(np.float32)
    faces = ball.faces.copy()
    late = faces[len(faces) // 2 :]
    late[late < 20] += len(ball.vertices)
    return Mesh(vertices, faces.astype(np.int32), vertices.copy(), metadata={"name": "ball"}, **parts)


def textured():
    random = np.random.default_rng(0)
    texture = random.integers(0, 256, (8, 8, 3), dtype=np.uint8)
    return sphere(uvs=random.random((182, 2), dtype=np.float32), texture=texture)


def turned(points):
    """trimesh keeps glTF's axes: (x, y, z) -> (x, -z, y)."""
    return np.stack([points[:, 0], -points[:, 2], points[:, 1]], axis=1).astype(np.float32)


def flat(values, width):
    return np.array(values, dtype=np.float32).reshape(-1, width)


def test_the_reader_agrees_with_trimesh_to_the_bit(tmp_path):
    path = textured().save(tmp_path / "ball.glb")
    read, reference = glb.read(path), trimesh.load(path, process=False).dump(concatenate=True)
    assert np.array_equal(flat(read.positions, 3), turned(reference.vertices))
    assert np.array_equal(np.array(read.triangles).reshape(-1, 3), reference.faces)
    assert np.array_equal(flat(read.uvs, 2), reference.visual.uv.astype(np.float32))
    assert read.image.startswith(b"\x89PNG")
    assert read.colors is None
    assert (read.roughness, read.metallic) == (0.9, 0.0)


def test_the_front_of_the_core_looks_at_blenders_front_view(tmp_path):
    mesh = sphere()
    marked = mesh.vertices.copy()
    marked[0] = (3.0, 0.2, 0.5)  # the reference camera is on +X, Z is up
    path = Mesh(marked, mesh.faces, mesh.normals).save(tmp_path / "front.glb")
    x, y, z = glb.read(path).positions[:3]
    assert (x, y, z) == pytest.approx((0.2, -3.0, 0.5))  # numpad 1 looks along +Y


def test_vertex_colors_stay_linear(tmp_path):
    colors = np.full((182, 3), (255, 128, 0), dtype=np.uint8)
    read = glb.read(sphere(vertex_colors=colors).save(tmp_path / "ball.glb"))
    assert flat(read.colors, 4)[0] == pytest.approx([1.0, ((128 / 255 + 0.055) / 1.055) ** 2.4, 0.0, 1.0], abs=1e-4)
    assert read.image is None


def test_welding_closes_the_seams(tmp_path):
    read = glb.read(textured().save(tmp_path / "ball.glb"))
    kept, merged = glb.weld(read.positions)
    assert len(kept) == 162
    assert trimesh.Trimesh(flat(read.positions, 3)[kept], np.array(merged)[read.triangles].reshape(-1, 3)).is_watertight
    assert np.array_equal(flat(read.positions, 3)[kept][merged], flat(read.positions, 3))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda data: data[:-9], "header"),
        (lambda data: b"", "buffer"),
        (lambda data: b"PNG " + data[4:], "header"),
        (lambda data: data.replace(b'"SCALAR"', b'"VECTOR"'), "VECTOR"),
        (lambda data: data.replace(b'"POSITION"', b'"POSITIOM"'), "POSITION"),
        (lambda data: data.replace(b'"count": 182', b'"count": 982'), "beyond"),
        (lambda data: data[:20] + b"[" + data[21:], "JSON|Expecting|delimiter"),
    ],
)
def test_a_broken_file_is_one_sentence(tmp_path, change, said):
    path = textured().save(tmp_path / "ball.glb")
    path.write_bytes(change(path.read_bytes()))
    with pytest.raises(glb.GlbError, match=said) as error:
        glb.read(path)
    assert "ball.glb" in str(error.value)
    assert "\n" not in str(error.value)


def test_a_missing_file_is_one_sentence(tmp_path):
    with pytest.raises(glb.GlbError, match="No such file"):
        glb.read(tmp_path / "none.glb")


def test_faces_that_name_missing_vertices_are_refused(tmp_path):
    path = textured().save(tmp_path / "ball.glb")
    data = bytearray(path.read_bytes())
    start = 20 + struct.unpack_from("<I", data, 12)[0] + 8
    faces = data.index(np.array(textured().faces[:2], dtype="<u4").tobytes(), start)
    struct.pack_into("<I", data, faces, 182)
    with pytest.raises(glb.GlbError, match="missing vertices"):
        glb.parse(bytes(data))


# The queue, with a backend that says what it is told


class Puppet:
    def __init__(self):
        self.events, self.started, self.asked, self.closed = [], [], [], False

    def hello(self):
        self.asked.append("hello")

    def start(self, job):
        self.started.append(job)

    def cancel(self, job):
        self.asked.append(("cancel", job.id))

    def free(self):
        self.asked.append("free")

    def poll(self):
        events, self.events = self.events, []
        return events

    def close(self):
        self.closed = True


@pytest.fixture
def puppets():
    return []


@pytest.fixture
def queue(puppets):
    def connect(server):
        puppets.append(Puppet())
        return puppets[-1]

    return jobs.Queue(connect)


def job(tmp_path, name="rocket", server=("LOCAL", "python")):
    return jobs.Job(image=str(tmp_path / f"{name}.png"), out=str(tmp_path / f"{name}.glb"), server=server)


def progress(job, **more):
    values = {"stage": "views", "step": 1, "total": 4, "fraction": 0.25, "seconds_left": 9.0, "preview": None}
    return {"type": "progress", "id": job.id, **values, **more}


def test_jobs_run_one_by_one(queue, puppets, tmp_path):
    first, second = job(tmp_path, "a"), job(tmp_path, "b")
    queue.add(first)
    queue.add(second)
    assert queue.poll()
    assert (first.state, second.state) == (jobs.RUNNING, jobs.WAITING)
    puppets[0].events = [progress(first, preview="now.png")]
    assert queue.poll()
    assert (first.stage, first.fraction, first.seconds_left, first.preview) == ("views", 0.25, 9.0, "now.png")
    puppets[0].events = [{"type": "result", "id": first.id, "path": first.out, "warnings": ["rough"]}]
    assert queue.poll()
    assert (first.state, second.state) == (jobs.FINISHED, jobs.RUNNING)
    assert first.warnings == ["rough"]
    assert puppets[0].started == [first, second]
    assert not queue.poll()
    Path(first.out).write_bytes(b"glb")
    queue.end(first, jobs.PLACED)
    assert queue.jobs == [second]
    assert list(tmp_path.iterdir()) == []


def test_cancelling_asks_the_backend_or_forgets_the_job(queue, puppets, tmp_path):
    first, second, third = (job(tmp_path, name) for name in "abc")
    for one in (first, second, third):
        queue.add(one)
    queue.poll()
    queue.cancel(second)
    queue.cancel(first)
    assert second.state == jobs.CANCELLED
    assert puppets[0].asked == [("cancel", first.id)]
    assert queue.running is first
    puppets[0].events = [progress(first), {"type": "result", "id": first.id, "path": first.out, "warnings": []}]
    queue.poll()  # a result that comes after all is not wanted any more
    assert first.state == jobs.CANCELLED
    assert queue.running is third
    assert not queue.error


def test_an_error_ends_its_job_only(queue, puppets, tmp_path):
    first, second = job(tmp_path, "a"), job(tmp_path, "b")
    queue.add(first)
    queue.add(second)
    queue.poll()
    puppets[0].events = [
        {"type": "error", "id": "another", "message": "not ours"},
        {"type": "error", "id": first.id, "message": "it is broken; mend it"},
        {"type": "log", "line": "a line"},
    ]
    queue.poll()
    assert queue.error == "a: it is broken; mend it"
    assert queue.running is second
    assert "a line" in queue.log
    queue.add(job(tmp_path, "c"))
    assert queue.error == ""


def test_another_server_is_another_backend(queue, puppets, tmp_path):
    first, second = job(tmp_path, "a"), job(tmp_path, "b", server=("COMFYUI", "http://127.0.0.1:8188"))
    queue.add(first)
    queue.add(second)
    queue.poll()
    puppets[0].events = [{"type": "cancelled", "id": first.id}]
    queue.poll()
    assert puppets[0].closed
    assert puppets[1].started == [second]
    queue.close()
    assert puppets[1].closed
    assert second.state == jobs.CANCELLED


def test_a_check_tells_who_is_there_or_what_is_wrong():
    puppet = Puppet()
    check = jobs.Check(puppet)
    assert not check.poll()
    hello = {"version": "0.1.0", "python": "3.11.7", "torch": "2.9", "device": "CPU, 2 threads", "bundles": ["tiny"]}
    puppet.events = [{"type": "log", "line": "x"}, {"type": "hello", **hello}]
    assert check.poll()
    assert check.done
    assert puppet.closed
    assert all(value in check.text for value in ("0.1.0", "3.11.7", "2.9", "CPU, 2 threads", "tiny"))
    puppet = Puppet()
    check = jobs.Check(puppet)
    puppet.events = [{"type": "error", "id": None, "message": "no such Python"}]
    assert check.poll()
    assert check.failed
    assert check.text == "no such Python"


# The worker process: a script that plays the Python with iso3d

SCRIPT = """#!{python}
import json, os, sys, time
def say(kind, **values):
    print(json.dumps(dict(values, type=kind)), flush=True)
def generate(request):
    {generate}
for line in sys.stdin:
    request = json.loads(line)
    if request["type"] == "hello":
        say("hello", protocol={protocol}, version="0", python="3", torch="2", device="CPU", bundles=["tiny"])
    elif request["type"] in ("generate", "refine"):
        say("started", id=request["id"])
        generate(request)
    elif request["type"] == "cancel":
        say("cancelled", id=request["id"])
"""
TORCHLESS = """say("error", id="None", message="No module named 'torch'\"); dict(protocol={protocol}"""
RESULT = "open(request['out'], 'w').close(); say('result', id=request['id'], path=request['out'], warnings=[])"


@pytest.fixture
def play(tmp_path):
    """Makes a queue whose worker is a script with the given body of ``generate``; ends what it started."""
    queues = []

    def start(generate=RESULT, protocol=1, script=SCRIPT):
        python = tmp_path / f"python{len(queues)}"
        python.write_text(script.format(python=sys.executable, generate=generate, protocol=protocol))
        python.chmod(python.stat().st_mode | stat.S_IXUSR)
        queues.append(jobs.Queue(lambda server: worker.Local(server[1], str(tmp_path))))
        return queues[-1], job(tmp_path, server=("LOCAL", str(python)))

    yield start
    for queue in queues:
        queue.close()


def run(queue, *wanted, seconds=10.0):
    for one in wanted:
        queue.add(one)
    until(queue, lambda: all(one.state not in (jobs.WAITING, jobs.RUNNING) for one in wanted), seconds)


def until(queue, done, seconds=10.0):
    end = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < end, list(queue.log)
        queue.poll()
        time.sleep(0.01)


def test_one_worker_serves_several_jobs(play, tmp_path):
    queue, first = play(f"print('a line', file=sys.stderr); say('log', line=str(os.getpid())); {RESULT}")
    second = job(tmp_path, "b", first.server)
    run(queue, first, second)
    assert (first.state, second.state) == (jobs.FINISHED, jobs.FINISHED)
    assert Path(second.out).exists()
    assert "a line" in queue.log
    assert len({line for line in queue.log if line.isdigit()}) == 1


def test_a_prompt_is_asked_for_where_a_method_has_a_2d_prior():
    """The add-on cannot import the core, so it names these methods itself."""
    tree = ast.parse((ROOT / "blender_addon" / "preferences.py").read_text())
    named = {node.targets[0].id: node.value for node in tree.body if isinstance(node, ast.Assign)}
    with_words = [name for name, own in GUIDED.items() if GuidedConfig(**own).takes_2d]
    assert sorted(ast.literal_eval(named["PROMPTED"])) == sorted(with_words)
    assert {name for name, *_ in ast.literal_eval(named["METHODS"])} == {"isotropic3d", *GUIDED}


def test_the_worker_gets_what_was_chosen(play, tmp_path):
    queue, wanted = play(f"say('log', line=json.dumps(request)); {RESULT}")
    wanted.preset, wanted.method, wanted.prompt, wanted.seed = "quality", "magic123", "a red rocket", 7
    wanted.bundle = "big"
    run(queue, wanted)
    requests = [json.loads(line) for line in queue.log if line.startswith("{")]
    request = next(found for found in requests if found["type"] == "generate")
    assert request == {
        "type": "generate", "id": wanted.id, "image": wanted.image, "out": wanted.out, "preset": "quality",
        "method": "magic123", "prompt": "a red rocket", "seed": 7, "bundle": "big",
    }  # fmt: skip


def test_the_worker_gets_the_mesh_that_is_to_have_a_texture(play, tmp_path):
    queue, wanted = play(f"say('log', line=json.dumps(request)); {RESULT}")
    wanted.mesh, wanted.object_name, wanted.prompt, wanted.seed = str(tmp_path / "m.glb"), "Cube", "a red rocket", 7
    run(queue, wanted)
    requests = [json.loads(line) for line in queue.log if line.startswith("{")]
    assert next(found for found in requests if found["type"] == "refine") == {
        "type": "refine", "id": wanted.id, "image": wanted.image, "out": wanted.out, "mesh": wanted.mesh,
        "prompt": "a red rocket", "seed": 7, "bundle": "tiny",
    }  # fmt: skip


def test_a_worker_that_is_killed_is_told_and_started_again(play, tmp_path):
    once = tmp_path / "once"
    queue, first = play(
        f"once = {str(once)!r}\n"
        f"    if os.path.exists(once): {RESULT}\n"
        "    else: open(once, 'w').close(); os.kill(os.getpid(), 9)"
    )
    run(queue, first)
    assert first.state == jobs.FAILED
    assert "SIGKILL" in queue.error
    assert "memory" in queue.error
    second = job(tmp_path, "b", first.server)
    run(queue, second)
    assert second.state == jobs.FINISHED


@pytest.mark.parametrize(
    ("script", "said"),
    [
        ("#!{python}\nimport iso3d_missing.worker", "package 'iso3d_missing'.*-m pip install .* folder of iso3d"),
        ("#!/bin/sh\necho \"$0: No module named iso3d_core\" >&2; exit 1", "does not have iso3d;.*pip install"),
        ("#!/bin/sh\necho disk on fire >&2; exit 7", "exit code 7 .disk on fire"),
        ("#!/bin/sh\nexit 0", "exit code 0 .it said nothing"),
        ("#!/bin/sh\nexec cat", "version None of the protocol"),
        ("#!/no/such/shell", "cannot be run"),
    ],
)  # fmt: skip
def test_a_wrong_python_is_told_with_the_remedy(play, script, said):
    queue, wanted = play(script=script)
    run(queue, wanted)
    assert wanted.state == jobs.FAILED
    assert re.search(said, queue.error), queue.error
    assert "preferences" in queue.error or "release" in queue.error


def test_a_path_that_is_no_program(tmp_path):
    queue = jobs.Queue(lambda server: worker.Local(server[1], str(tmp_path)))
    wanted = job(tmp_path, server=("LOCAL", str(tmp_path / "nothing")))
    run(queue, wanted)
    assert "nothing' cannot be run" in queue.error
    queue.close()


def test_another_protocol_and_a_missing_package_are_told(play):
    queue, wanted = play(protocol=2)
    run(queue, wanted)
    assert "version 2 of the protocol" in queue.error
    queue, wanted = play(script=SCRIPT.replace('say("hello", protocol={protocol}', TORCHLESS))
    run(queue, wanted)
    assert "'torch'" in queue.error
    assert "pip install" in queue.error


def test_cancelling_a_worker_that_does_not_listen_kills_it(play, monkeypatch):
    monkeypatch.setattr(worker, "CANCEL_SECONDS", 0.2)
    queue, wanted = play("time.sleep(60)")
    queue.add(wanted)
    until(queue, lambda: any("started" in line for line in queue.log))
    asked = time.monotonic()
    queue.cancel(wanted)
    until(queue, lambda: wanted.state == jobs.CANCELLED)
    assert time.monotonic() - asked < 2
    assert not queue.error


def test_closing_ends_the_process(play):
    queue, wanted = play("say('log', line=str(os.getpid())); time.sleep(60)")
    queue.add(wanted)
    until(queue, lambda: any(line.isdigit() for line in queue.log))
    process = next(int(line) for line in queue.log if line.isdigit())
    queue.close()
    end = time.monotonic() + 2
    while time.monotonic() < end:
        try:
            os.kill(process, 0)
        except ProcessLookupError:
            return
        time.sleep(0.01)
    pytest.fail("the worker is still there")


def test_words_on_stdout_are_not_taken_for_events(play):
    queue, wanted = play(f"print('loading 100%'); print('[1, 2]'); {RESULT}")
    run(queue, wanted)
    assert wanted.state == jobs.FINISHED
    assert "loading 100%" in queue.log


def test_the_environment_of_the_host_stays_outside(play, monkeypatch):
    monkeypatch.setenv("PYTHONHOME", "/nowhere")
    monkeypatch.setenv("VIRTUAL_ENV", "/nowhere")
    queue, wanted = play(
        f"say('log', line=','.join(k for k in os.environ if k in ('PYTHONHOME', 'VIRTUAL_ENV'))); {RESULT}"
    )
    run(queue, wanted)
    assert wanted.state == jobs.FINISHED
    assert "" in queue.log


@pytest.mark.slow
def test_the_real_worker(tmp_path):
    """Waiting for its turn, progress with a preview, a mesh, a check; one worker for all."""
    queue = jobs.Queue(lambda server: worker.Local(server[1], str(tmp_path)))
    seen = []
    wanted = jobs.Job(str(ROCKET), str(tmp_path / "rocket.glb"), ("LOCAL", sys.executable), target=1)
    queue.add(wanted)
    until(queue, lambda: seen.append((wanted.stage, wanted.preview)) or wanted.state == jobs.FINISHED, 180)
    assert {"views", "warm start", "mesh"} <= {stage for stage, _ in seen}
    assert any(preview for _, preview in seen)
    assert glb.read(wanted.out).image
    queue.close()
    check = jobs.Check(worker.Local(sys.executable, str(tmp_path)))
    while not check.done:
        check.poll()
        time.sleep(0.05)
    assert "torch" in check.text
    assert not check.failed


# The source


def imports(path):
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            yield str(node.module).partition(".")[0]


@pytest.mark.parametrize("path", sorted(ADDON.glob("*.py")), ids=lambda path: path.stem)
def test_it_needs_nothing_but_the_standard_library_and_blender(path):
    assert set(imports(path)) <= sys.stdlib_module_names | {"bpy", "mathutils"}
    if "knows no bpy" in ast.get_docstring(ast.parse(path.read_text())).lower():
        assert "bpy" not in imports(path)
    assert path.read_text().startswith("# SPDX-License-Identifier: GPL-3.0-or-later\n")
    ast.parse(path.read_text(), feature_version=(3, 10))


def test_all_versions_are_the_same():
    manifest = tomllib.loads((ADDON / "blender_manifest.toml").read_text())
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    text = (ADDON / "__init__.py").read_text()
    told = re.search(r'"version": \((\d+), (\d+), (\d+)\)', text)
    assert manifest["version"] == project["version"] == ".".join(told.groups())
    assert manifest["id"] == "iso3d_blender"
    assert manifest["license"] == ["SPDX:GPL-3.0-or-later"]
    assert "GNU GENERAL PUBLIC LICENSE" in (ADDON / "LICENSE").read_text()
