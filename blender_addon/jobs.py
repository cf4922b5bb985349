# SPDX-License-Identifier: GPL-3.0-or-later
"""The jobs, in the order they were asked for, and what a backend says of them. Knows no bpy, never waits."""

from __future__ import annotations

import json
import os
import time
import uuid
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

WAITING, RUNNING, FINISHED = "waiting", "running", "finished"
PLACED, FAILED, CANCELLED = "placed", "failed", "cancelled"
PROTOCOL = 1  # of iso3d_core.worker
LOG_LINES, CHECK_SECONDS = 400, 120.0
Event = dict[str, Any]
Server = tuple[str, str]  # ("LOCAL", path of a Python) or ("COMFYUI", address)


@dataclass(eq=False)
class Job:
    """One mesh to make, or one to give the picture's texture.

    image, out : paths of the picture and of the GLB to write
    mesh : path of a GLB to refine, of the object named ``object_name``; without it a mesh is made
    height : in metres; 0 keeps the size of the file
    prompt : what the picture shows, for methods with a 2D prior and for refining; empty: found by itself, or none
    target : where the mesh belongs, as the host understands it
    """

    image: str
    out: str
    server: Server
    preset: str = "fast"
    seed: int = 0
    height: float = 1.0
    bundle: str = "tiny"
    method: str = "isotropic3d"
    prompt: str = ""
    target: Any = None
    mesh: str = ""
    object_name: str = ""
    id: str = field(default_factory=lambda: uuid.uuid4().hex[:8])
    state: str = WAITING
    stage: str = ""
    fraction: float = 0.0
    seconds_left: float | None = None
    preview: str | None = None
    message: str = ""
    warnings: list[str] = field(default_factory=list)

    @property
    def name(self) -> str:
        return f"{self.object_name} after {Path(self.image).stem}" if self.mesh else Path(self.image).stem


class Backend(Protocol):
    """Who makes meshes. `poll` gives events as `iso3d_core.worker` describes them, and "log" with a line; failures
    are events too. No method waits."""

    def hello(self) -> None: ...
    def start(self, job: Job) -> None: ...
    def cancel(self, job: Job) -> None: ...
    def free(self) -> None: ...
    def poll(self) -> list[Event]: ...
    def close(self) -> None: ...


class Queue:
    """Runs jobs one by one.

    connect : makes the backend for a server
    jobs : those waiting, running, or finished and not yet placed
    error : the last one, with what to do about it
    """

    def __init__(self, connect: Callable[[Server], Backend]) -> None:
        self.connect = connect
        self.jobs: list[Job] = []
        self.error = ""
        self.log: deque[str] = deque(maxlen=LOG_LINES)
        self._backend: Backend | None = None
        self._server: Server | None = None

    @property
    def running(self) -> Job | None:
        return next((job for job in self.jobs if job.state == RUNNING), None)

    def add(self, job: Job) -> None:
        self.error = ""
        self.jobs.append(job)

    def find(self, job_id: str) -> Job | None:
        return next((job for job in self.jobs if job.id == job_id), None)

    def cancel(self, job: Job) -> None:
        """Stop a running job, or forget one that waits for its turn or for its file."""
        if job.state == RUNNING and self._backend is not None:
            job.stage = "stopping"
            self._backend.cancel(job)
        else:
            self.end(job, CANCELLED)

    def free(self) -> None:
        """Let the backend give its memory back."""
        if self._backend is not None:
            self._backend.free()

    def poll(self) -> bool:
        """Take in what the backend said, start the next job; returns whether anything changed."""
        changed = False
        for event in self._backend.poll() if self._backend is not None else []:
            changed |= self._hear(event)
        waiting = next((job for job in self.jobs if job.state == WAITING), None)
        if waiting is not None and self.running is None:
            self._start(waiting)
            changed = True
        return changed

    def end(self, job: Job, state: str, message: str = "") -> None:
        """Take a job off the list; what it leaves on the disk goes too."""
        job.state, job.message = state, message
        if state == FAILED:
            self.error = f"{job.name}: {message}"
            self.log.append(self.error)
        self.jobs.remove(job)
        for path in (job.preview, job.out, job.mesh, str(Path(job.out).with_suffix(".json"))):
            with suppress(OSError):
                os.remove(path or "")

    def close(self) -> None:
        """End the backend and with it the running job."""
        if self._backend is not None:
            self._backend.close()
        self._backend = self._server = None
        for job in [job for job in self.jobs if job.state == RUNNING]:
            self.end(job, CANCELLED)

    def _start(self, job: Job) -> None:
        if self._backend is None or self._server != job.server:
            self.close()
            try:
                self._backend, self._server = self.connect(job.server), job.server
            except OSError as error:
                self.end(job, FAILED, f"{error}; make room on the disk, or see that the folder may be written")
                return
        job.state = RUNNING
        self._backend.start(job)

    def _hear(self, event: Event) -> bool:
        kind, job = event["type"], self.running
        if kind == "log":
            self.log.append(event["line"])
            return False
        if kind != "progress":
            self.log.append(json.dumps(event, ensure_ascii=False))
        if job is None or event.get("id") != job.id:
            return False
        if kind == "progress":
            if job.stage != "stopping":
                job.stage = event["stage"]
            job.fraction, job.seconds_left = event["fraction"], event["seconds_left"]
            job.preview = event["preview"] or job.preview
        elif kind == "cancelled" or (kind == "result" and job.stage == "stopping"):
            self.end(job, CANCELLED)
        elif kind == "result":
            job.state, job.fraction, job.warnings = FINISHED, 1.0, event["warnings"]
        elif kind == "error":
            self.end(job, FAILED, event["message"])
        return True


class Check:
    """Asks a backend of its own who it is; `text` tells."""

    def __init__(self, backend: Backend) -> None:
        self.text, self.done, self.failed = "Asking…", False, False
        self._backend, self._deadline = backend, time.monotonic() + CHECK_SECONDS
        backend.hello()

    def poll(self) -> bool:
        """Returns whether anything changed."""
        if self.done:
            return False
        for event in self._backend.poll():
            if event["type"] == "hello":
                return self._end(describe(event))
            if event["type"] == "error":
                return self._end(event["message"], failed=True)
        if time.monotonic() > self._deadline:
            return self._end(f"There was no answer in {CHECK_SECONDS:.0f} seconds; look at the log of the server", True)
        return False

    def close(self) -> None:
        self.done = True
        self._backend.close()

    def _end(self, text: str, failed: bool = False) -> bool:
        self.text, self.failed = text, failed
        self.close()
        return True


def describe(hello: Event) -> str:
    """What a backend said of itself, for people."""
    bundles = ", ".join(hello["bundles"])
    return (
        f"Ready: iso3d {hello['version']}, Python {hello['python']}, torch {hello['torch']} on {hello['device']}; "
        f"bundles: {bundles}"
    )
