"""The Blender add-on's worker process: a script plays the Python with iso3d."""

import ast
import json
import os
import re
import stat
import sys
import time
from pathlib import Path

import pytest
from blender_plain import ROOT, job, load

from iso3d_core.config import GuidedConfig
from iso3d_core.presets import GUIDED

ROCKET = ROOT / "examples" / "rocket.png"
glb, jobs, worker = load("glb"), load("jobs"), load("worker")


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
