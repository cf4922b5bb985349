# SPDX-License-Identifier: GPL-3.0-or-later
"""The backend on this machine: `python -m iso3d_core.worker` in a Python of its own. Knows no bpy, never waits."""

from __future__ import annotations

import json
import os
import queue
import re
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from contextlib import suppress
from typing import Any, TextIO

from .jobs import PROTOCOL, Event, Job

IDLE_SECONDS, CANCEL_SECONDS = 900, 3.0


class Process:
    """A child in a process group of its own. Its threads do all that can take time: starting, reading, writing."""

    def __init__(self, command: list[str], folder: str) -> None:
        self.alive = True
        self.code: int | None = None
        self._heard: queue.SimpleQueue[tuple[str, str]] = queue.SimpleQueue()
        self._requests: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        self._popen: subprocess.Popen[str] | None = None
        self._unwanted = False
        self._lock = threading.Lock()
        threading.Thread(target=self._run, args=(command, folder), daemon=True).start()

    def send(self, request: Event) -> None:
        self._requests.put(json.dumps(request) + "\n")

    def poll(self) -> list[tuple[str, str]]:
        """("line" of stdout or "error" line of stderr, text), and at last ("end", "") or ("failed", why)."""
        heard = []
        with suppress(queue.Empty):
            while True:
                heard.append(self._heard.get_nowait())
        return heard

    def kill(self) -> None:
        with self._lock:
            self._unwanted = True
            if self._popen is not None and self.alive:
                _kill(self._popen)

    def _run(self, command: list[str], folder: str) -> None:
        environment = {k: v for k, v in os.environ.items() if not k.startswith("PYTHON") and k != "VIRTUAL_ENV"}
        own_group: dict[str, Any] = {"start_new_session": True}
        if sys.platform == "win32":
            own_group = {"creationflags": subprocess.CREATE_NEW_PROCESS_GROUP | subprocess.CREATE_NO_WINDOW}
        try:
            popen = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=folder,
                env=environment, encoding="utf-8", errors="replace", **own_group,
            )  # fmt: skip
        except OSError as error:
            self.alive = False
            self._heard.put(("failed", str(error.strerror or error)))
            return
        with self._lock:
            self._popen = popen
            if self._unwanted:
                _kill(popen)
        errors = threading.Thread(target=self._move, args=("error", popen.stderr), daemon=True)
        errors.start()
        threading.Thread(target=self._write, args=(popen.stdin,), daemon=True).start()
        self._move("line", popen.stdout)
        code = popen.wait()
        with self._lock:
            self.alive, self.code = False, code
        errors.join(1.0)
        self._requests.put(None)
        self._heard.put(("end", ""))

    def _move(self, kind: str, lines: TextIO) -> None:
        with lines:
            for line in lines:
                self._heard.put((kind, line.rstrip("\n")))

    def _write(self, pipe: TextIO) -> None:
        with suppress(OSError), pipe:
            while (request := self._requests.get()) is not None:
                pipe.write(request)
                pipe.flush()


def _kill(popen: subprocess.Popen) -> None:
    with suppress(OSError):
        if sys.platform == "win32":
            popen.kill()
        else:
            os.killpg(popen.pid, signal.SIGKILL)


class Local:
    """Keeps one worker between jobs; starts another when it has ended.

    python : path of a Python that has iso3d
    folder : an existing folder to run in
    """

    def __init__(self, python: str, folder: str) -> None:
        self.python, self.folder = python, folder
        self._process: Process | None = None
        self._job: Job | None = None
        self._kill_at: float | None = None
        self._errors: deque[str] = deque(maxlen=30)

    def hello(self) -> None:
        self._running()

    def start(self, job: Job) -> None:
        self._job, self._kill_at = job, None
        request = {
            "id": job.id, "image": job.image, "out": job.out, "seed": job.seed, "bundle": job.bundle,
            "prompt": job.prompt,
        }  # fmt: skip
        if job.mesh:
            self._running().send({**request, "type": "refine", "mesh": job.mesh})
        else:
            self._running().send({**request, "type": "generate", "preset": job.preset, "method": job.method})

    def cancel(self, job: Job) -> None:
        """Ask; a worker that does not answer, because it is loading, is killed soon."""
        if self._process is not None:
            self._process.send({"type": "cancel", "id": job.id})
            self._kill_at = time.monotonic() + CANCEL_SECONDS

    def free(self) -> None:
        if self._process is not None:
            self._process.send({"type": "free"})

    def poll(self) -> list[Event]:
        events = []
        if self._kill_at is not None and time.monotonic() > self._kill_at and self._process is not None:
            self._process.kill()
        for kind, line in self._process.poll() if self._process is not None else []:
            if kind == "end":
                events += self._ended()
            elif kind == "failed":
                events.append(self._failure(f"{self.python!r} cannot be run ({line}); {CHOOSE}"))
            elif kind == "error":
                self._errors.append(line)
                events.append({"type": "log", "line": line})
            else:
                events += self._said(line)
        return events

    def close(self) -> None:
        if self._process is not None:
            self._process.kill()
        self._process = self._job = self._kill_at = None

    def _running(self) -> Process:
        """The worker, started and greeted if there is none."""
        if self._process is None or not self._process.alive:
            self._errors.clear()
            command = [self.python, "-m", "iso3d_core.worker", "--idle", str(IDLE_SECONDS)]
            self._process = Process(command, self.folder)
            self._process.send({"type": "hello"})
        return self._process

    def _said(self, line: str) -> list[Event]:
        try:
            event = json.loads(line)
            kind = event["type"]
        except (ValueError, TypeError, KeyError):
            return [{"type": "log", "line": line}]
        if kind == "hello" and event.get("protocol") != PROTOCOL:
            failure = self._failure(
                f"{self.python!r} speaks version {event.get('protocol')} of the protocol, this add-on version "
                f"{PROTOCOL}; install the add-on and iso3d from the same release"
            )
            self.close()
            return [failure]
        if kind == "error" and event.get("id") in (None, "None"):  # the greeting failed, and so will the job
            return [self._failure(lacks_package(event["message"], self.python) or event["message"])]
        if kind in ("result", "cancelled", "error") and self._job is not None and event["id"] == self._job.id:
            self._job = self._kill_at = None
        return [event]

    def _failure(self, message: str) -> Event:
        job, self._job = self._job, None
        return {"type": "error", "id": job and job.id, "message": message}

    def _ended(self) -> list[Event]:
        code = self._process.code if self._process is not None else None
        job, stopping = self._job, self._kill_at is not None
        self._process = self._kill_at = None
        if job is not None and stopping:
            self._job = None
            return [{"type": "cancelled", "id": job.id}]
        if job is None and code == 0:  # idle for long
            return []
        return [self._failure(why_it_ended(code, list(self._errors), self.python))]


CHOOSE = "choose the Python that has iso3d in the add-on's preferences"


def lacks_package(text: str, python: str) -> str | None:
    """The remedy where the text tells of a module that was not found, else None."""
    missing = re.search(r"No module named '?(\w+)", text)
    if missing is None:
        return None
    name = "iso3d" if missing[1] == "iso3d_core" else f"the package {missing[1]!r}"
    return f'{python!r} does not have {name}; run "{python}" -m pip install . in the folder of iso3d, or {CHOOSE}'


def why_it_ended(code: int | None, errors: list[str], python: str) -> str:
    """A sentence on a worker that ended by itself."""
    if explained := lacks_package("\n".join(errors), python):
        return explained
    if code is not None and code < 0:
        name = signal.Signals(-code).name if -code in {s.value for s in signal.Signals} else str(-code)
        more = "; the memory may have been full: close other programs, or take a faster preset"
        return f"the worker was ended by {name}{more if name == 'SIGKILL' else ''}; generating starts it again"
    last = next((line for line in reversed(errors) if line.strip()), "it said nothing")
    return f"the worker ended with exit code {code} ({last.strip()}); the log has more, or {CHOOSE}"
