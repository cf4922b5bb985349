"""The worker as another program uses it: a process, JSON lines in and out."""

import io
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import warnings
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import trimesh

from iso3d_core.methods.refine import RefineConfig
from iso3d_core.worker import Worker, preview_path, write_preview

ROOT = Path(__file__).resolve().parent.parent
ROCKET = ROOT / "examples" / "rocket.png"


class Client:
    def __init__(self, *options):
        self.process = subprocess.Popen(
            [sys.executable, "-m", "iso3d_core.worker", *options], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL, text=True, cwd=ROOT,
        )  # fmt: skip

    def send(self, kind, **values):
        self.process.stdin.write(json.dumps({"type": kind, **values}) + "\n")
        self.process.stdin.flush()

    def hear(self):
        line = self.process.stdout.readline()
        assert line, "the worker ended"
        return json.loads(line)  # every line is JSON

    def until(self, *kinds):
        events = [self.hear()]
        while events[-1]["type"] not in kinds:
            events.append(self.hear())
        return events


@pytest.fixture
def client():
    client = Client()
    yield client
    client.process.kill()
    client.process.wait()
    client.process.stdin.close()
    client.process.stdout.close()


def test_it_says_hello_with_versions_and_devices(client):
    client.send("hello")
    hello = client.hear()
    assert hello["protocol"] == 1
    assert hello["python"].startswith("3.")
    assert hello["device"]
    assert "tiny" in hello["bundles"]
    assert hello["presets"] == ["fast", "default", "quality", "paper"]


def test_a_job_reports_progress_and_gives_a_file(client, tmp_path):
    out = tmp_path / "rocket.glb"
    client.send("generate", id="a", image=str(ROCKET), out=str(out), preset="fast")
    events = client.until("result", "error")
    assert events[0] == {"type": "started", "id": "a"}
    result = events[-1]
    assert result["type"] == "result", result
    assert result["path"] == str(out)
    assert out.read_bytes()[:4] == b"glTF"
    progress = [event for event in events if event["type"] == "progress"]
    assert {event["stage"] for event in progress} >= {"views", "warm start", "mesh"}
    fractions = [event["fraction"] for event in progress]
    assert fractions == sorted(fractions)
    assert fractions[-1] == pytest.approx(1)
    assert any(event["preview"] for event in progress)
    assert all(event["seconds_left"] is None or event["seconds_left"] >= 0 for event in progress)


def test_a_request_says_how_the_mesh_is_made(monkeypatch, tmp_path):
    """And a second bundle is loaded for it, though the first stays for the next job of its own."""
    made, loaded, said = [], [], io.StringIO()

    def generate(image, config, report, prior):
        made.append((image, config, prior))
        warnings.warn("unlike anything known", UserWarning, stacklevel=2)
        return SimpleNamespace(save=lambda out: out)

    def load(config):
        loaded.append(config.bundle)
        return f"networks of {config.bundle}"

    monkeypatch.setattr("iso3d_core.pipeline.generate", generate)
    monkeypatch.setattr("iso3d_core.pipeline.multiview_of", load)
    shutil.copytree(ROOT / "iso3d_core" / "assets" / "tiny", tmp_path / "other")
    worker, other = Worker(said), str(tmp_path / "other")
    for request in (
        {"preset": "fast", "seed": 7, "method": "magic123", "prompt": "a red rocket", "bundle": "tiny"},
        {"preset": "quality", "seed": 8}, {"bundle": other},
    ):  # fmt: skip
        worker.answer({"type": "generate", "id": "a", "image": "i.png", "out": "o.glb", **request})
    first, second, third = (config for _, config, _ in made)
    assert (first.preset, first.seed, first.method, first.prompt) == ("fast", 7, "magic123", "a red rocket")
    assert first.guided.weights == (1.0, 1.0)
    assert (second.preset, second.seed, second.method, second.prompt) == ("quality", 8, "isotropic3d", None)
    assert loaded == ["tiny", third.bundle]
    assert [prior for _, _, prior in made] == [*["networks of tiny"] * 2, f"networks of {third.bundle}"]
    events = [json.loads(line) for line in said.getvalue().splitlines()]
    results = [event for event in events if event["type"] == "result"]
    assert [event["warnings"] for event in results] == [["unlike anything known"]] * 3, events


def test_a_refinement_gets_what_was_asked_for(monkeypatch, tmp_path):
    trimesh.creation.icosphere(subdivisions=2).export(tmp_path / "ball.glb")
    configs, said = [], io.StringIO()

    def refine(mesh, reference, prior, config, report):
        configs.append(config)
        return SimpleNamespace(save=lambda out: out)

    monkeypatch.setattr("iso3d_core.methods.refine.refine", refine)
    request = {"type": "refine", "mesh": str(tmp_path / "ball.glb"), "image": str(ROCKET), "out": "o.glb"}
    for more in ({"steps": 5, "seed": 3, "prompt": "a red rocket"}, {"prompt": None}):
        Worker(said).answer({**request, "id": "a", **more})
    found = [(config.steps, config.seed, config.prompt) for config in configs]
    assert found == [(5, 3, "a red rocket"), (RefineConfig.steps, 0, "")], said.getvalue()


def test_a_mesh_is_refined(client, tmp_path):
    mesh = tmp_path / "ball.glb"
    trimesh.creation.icosphere(subdivisions=2).export(mesh)
    client.send("refine", id="a", mesh=str(mesh), image=str(ROCKET), out=str(tmp_path / "out.glb"), steps=2)
    events = client.until("result", "error")
    assert events[-1]["type"] == "result", events[-1]
    progress = [event for event in events if event["type"] == "progress"]
    assert {event["stage"] for event in progress} == {"start", "refine"}
    before, after = (trimesh.load(path, process=False, force="mesh") for path in (mesh, tmp_path / "out.glb"))
    assert len(after.faces) == len(before.faces)
    client.send("refine", id="b", image=str(ROCKET), out=str(tmp_path / "out.glb"))
    assert "refine needs 'mesh', a path" in client.until("error")[-1]["message"]


def test_cancelling_stops_a_running_and_a_waiting_job_within_a_second(client, tmp_path):
    for job in ("running", "waiting"):
        client.send("generate", id=job, image=str(ROCKET), out=str(tmp_path / f"{job}.glb"), preset="quality")
    client.until("progress")
    client.send("cancel", id="waiting")
    client.send("cancel", id="running")
    asked = time.monotonic()
    assert client.until("cancelled")[-1]["id"] == "running"
    assert time.monotonic() - asked < 1.0
    assert client.until("cancelled")[-1]["id"] == "waiting"
    assert list(tmp_path.iterdir()) == []
    client.send("hello")
    assert client.until("hello")


def test_bad_requests_are_answered_and_the_worker_lives_on(client, tmp_path):
    client.process.stdin.buffer.write(b"not json \xff\n")
    client.send("dance", id="x")
    client.send("generate", id="b", image=str(tmp_path / "none.png"), out=str(tmp_path / "o.glb"), preset="fast")
    client.send("generate", id="c", image=str(ROCKET), out=str(tmp_path / "o.glb"), preset="slow")
    client.send("generate", id="d", image=str(ROCKET))
    messages = {event["id"]: event["message"] for event in (client.until("error")[-1] for _ in range(5))}
    assert "not a request" in messages[None]
    assert "unknown request 'dance'" in messages["x"]
    assert "none.png" in messages["b"]
    assert "unknown preset 'slow'" in messages["c"]
    assert "needs 'out'" in messages["d"]
    client.send("quit")
    assert client.until("bye")
    assert client.process.wait(10) == 0


def test_no_preview_stays_behind(monkeypatch, tmp_path):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    worker = Worker(io.StringIO(), idle=0.01)
    write_preview(torch.rand(1, 3, 16, 16), preview_path())
    assert list(tmp_path.iterdir()) == [preview_path()]
    worker.serve()
    assert not list(tmp_path.iterdir())


def test_it_ends_when_idle():
    client = Client("--idle", "0.5")
    assert "idle" in client.until("bye")[-1]["reason"]
    assert client.process.wait(10) == 0
    client.process.stdin.close()
    client.process.stdout.close()


@pytest.mark.parametrize("closed", ["input", "both"])
def test_it_leaves_its_work_when_the_other_side_is_gone(client, tmp_path, closed):
    client.send("generate", id="a", image=str(ROCKET), out=str(tmp_path / "out.glb"), preset="fast")
    client.until("progress")
    client.process.stdin.close()
    if closed == "both":
        client.process.stdout.close()
    assert client.process.wait(10) in (0, 3)  # by itself, or by its reader where a step took more than a second
    assert not list(tmp_path.iterdir())


def test_it_dies_with_its_parent(tmp_path):
    parent = subprocess.Popen(
        [sys.executable, "-c",
         "import subprocess, sys, time\n"
         "child = subprocess.Popen([sys.executable, '-m', 'iso3d_core.worker'], stdin=subprocess.PIPE)\n"
         "print(child.pid, flush=True)\n"
         "time.sleep(600)"],
        stdout=subprocess.PIPE, text=True, cwd=ROOT,
    )  # fmt: skip
    child = int(parent.stdout.readline())
    time.sleep(1)
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    parent.stdout.close()
    for _ in range(100):
        try:
            os.kill(child, 0)
        except ProcessLookupError:
            return
        if Path(f"/proc/{child}/stat").read_text().split()[2] == "Z":  # ended; nobody has asked for its status
            return
        time.sleep(0.1)
    pytest.fail("the worker outlived its parent")
