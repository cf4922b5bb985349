"""The Blender add-on's queue, with a backend that says what it is told."""

from pathlib import Path

import pytest
from blender_plain import job, load

jobs = load("jobs")


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
