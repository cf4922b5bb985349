# SPDX-License-Identifier: GPL-3.0-or-later
"""The backend on a ComfyUI server that has the iso3d nodes. Knows no bpy; threads wait, the caller never does."""

from __future__ import annotations

import json
import os
import queue
import re
import tempfile
import threading
import time
import urllib.parse
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from .comfy_server import ComfyServer, ServerError
from .jobs import PROTOCOL, Event, Job
from .websocket import BINARY, WebSocket

PREVIEW_EVENT, SUFFIXES = 1, {1: ".jpg", 2: ".png"}
GENERATE, REFINE, LOAD = "Iso3DGenerate3D", "Iso3DRefineMesh", "Iso3DLoadMesh"
POLL_SECONDS, EVENT_SECONDS = 0.5, 0.1
LOST_POLLS = 4  # in a row without a trace of the job


class Cancelled(Exception):
    """The job is not wanted any more."""


class Comfy:
    """Sends each job to the server as a graph of a few nodes and fetches the GLB.

    address : as `normal_address` gives it
    """

    def __init__(self, address: str) -> None:
        self._server = ComfyServer(address)
        self._events: queue.SimpleQueue[Event] = queue.SimpleQueue()
        self._unwanted = threading.Event()
        self._thread: threading.Thread | None = None

    def hello(self) -> None:
        self._begin(None, self._greet)

    def start(self, job: Job) -> None:
        self._unwanted = threading.Event()
        self._thread = self._begin(job.id, self._make, job, self._unwanted)

    def cancel(self, job: Job) -> None:
        self._unwanted.set()

    def free(self) -> None:
        self._begin(None, self._server.post, "/free", {"unload_models": True, "free_memory": True})

    def poll(self) -> list[Event]:
        events = []
        with suppress(queue.Empty):
            while True:
                events.append(self._events.get_nowait())
        return events

    def close(self) -> None:
        """Interrupt what the server does for us; waits a moment for that to be sent."""
        self._unwanted.set()
        if self._thread is not None:
            self._thread.join(1.0)

    def _say(self, kind: str, **values: Any) -> None:
        self._events.put({"type": kind, **values})

    def _begin(self, job_id: str | None, work: Callable, *arguments: Any) -> threading.Thread:
        """Start work in a thread; whatever way it fails becomes an event."""

        def run() -> None:
            try:
                work(*arguments)
            except Cancelled:
                self._say("cancelled", id=job_id)
            except ServerError as error:
                self._say("error", id=job_id, message=str(error))
            except (OSError, ValueError, LookupError, TypeError) as error:
                message = f"{self._server.address} gave no usable answer ({error!r}); is a ComfyUI there?"
                self._say("error", id=job_id, message=message)

        thread = threading.Thread(target=run, daemon=True)
        thread.start()
        return thread

    def _greet(self) -> None:
        stats, needed = self._server.get("/system_stats"), self._server.needed(GENERATE)
        system, devices = stats["system"], stats.get("devices") or [{"name": "an unknown device"}]
        self._say(
            "hello", protocol=PROTOCOL, version=f"nodes in ComfyUI {system.get('comfyui_version', '')}",
            python=system["python_version"].split()[0], torch=system.get("pytorch_version", "unknown"),
            device=devices[0]["name"], bundles=_options(needed["bundle"]),
        )  # fmt: skip

    def _make(self, job: Job, unwanted: threading.Event) -> None:
        picture = _read(job.image, "pick the image again")
        mesh = _read(job.mesh, "try again") if job.mesh else b""
        self._say("started", id=job.id)
        listener = self._server.listen()  # before the prompt, or its first news are missed
        try:
            uploaded = self._server.upload(Path(job.image).name, picture)
            if job.mesh:
                place = self._server.upload(Path(job.mesh).name, mesh)
                nodes = texture_graph(job, uploaded, place, self._server.needed(REFINE))
            else:
                nodes = graph(job, uploaded)
            prompt = self._server.queue(nodes)
            entry = self._follow(job, prompt, listener, unwanted)
        finally:
            if listener is not None:
                listener.close()
        file = entry["outputs"]["mesh"]["3d"][0]
        query = urllib.parse.urlencode({key: file[key] for key in ("filename", "subfolder", "type")})
        write(Path(job.out), self._server.ask(f"/view?{query}"))
        self._say("result", id=job.id, path=job.out, warnings=[])

    def _follow(self, job: Job, prompt: str, listener: WebSocket | None, unwanted: threading.Event) -> dict[str, Any]:
        """The prompt's entry in the history once it is done, its progress told meanwhile."""
        reporter, missed = Reporter(job, prompt, self._say), 0
        while True:
            if unwanted.is_set():
                self._server.interrupt(prompt)
                raise Cancelled
            entry = self._server.get(f"/history/{prompt}").get(prompt)
            if entry is not None:
                messages = dict(entry["status"]["messages"])
                if "execution_interrupted" in messages:
                    raise Cancelled
                if "execution_error" in messages:
                    raise ServerError(messages["execution_error"]["exception_message"].strip())
                return entry
            # Between the queue and the history it is nowhere for a moment.
            missed = 0 if self._server.knows(prompt) else missed + 1
            if missed >= LOST_POLLS:
                raise ServerError(
                    f"{self._server.address} does not know the job any more: its queue was cleared, or it was started "
                    "anew; generate again"
                )
            end = time.monotonic() + POLL_SECONDS
            while (left := end - time.monotonic()) > 0 and not unwanted.is_set():
                try:
                    if listener is None:
                        unwanted.wait(left)
                    elif message := listener.receive(min(left, 0.1)):
                        reporter.hear(*message)
                except OSError:
                    listener = None  # the history still tells of the end


class Reporter:
    """Makes progress events of what ComfyUI tells its clients."""

    def __init__(self, job: Job, prompt: str, say: Any) -> None:
        self.job, self.prompt, self.say = job, prompt, say
        self.began, self.said, self.preview = time.monotonic(), 0.0, None

    def hear(self, kind: int, data: bytes) -> None:
        if kind == BINARY:
            self._keep_preview(data)
            return
        message = json.loads(data)
        body = message.get("data") or {}
        now = time.monotonic()
        if message["type"] != "progress" or body.get("prompt_id", self.prompt) != self.prompt:
            return
        if now - self.said < EVENT_SECONDS and body["value"] < body["max"]:
            return
        self.said = now
        fraction = body["value"] / max(body["max"], 1)
        left = round((now - self.began) * (1 - fraction) / fraction, 1) if fraction > 0.02 else None
        self.say(
            "progress", id=self.job.id, stage="ComfyUI", step=body["value"], total=body["max"],
            fraction=round(fraction, 4), seconds_left=left, preview=self.preview,
        )  # fmt: skip

    def _keep_preview(self, data: bytes) -> None:
        event, image = (int.from_bytes(data[i : i + 4], "big") for i in (0, 4))
        if event == PREVIEW_EVENT and image in SUFFIXES:
            path = Path(tempfile.gettempdir()) / f"iso3d-{self.job.id}-preview{SUFFIXES[image]}"
            with suppress(ServerError):
                write(path, data[8:])
                self.preview = str(path)


def graph(job: Job, uploaded: str) -> dict[str, Any]:
    """The workflow that makes a mesh, in the form of the server's API."""
    return {
        "image": {"class_type": "LoadImage", "inputs": {"image": uploaded}},
        "mesh": {
            "class_type": GENERATE,
            "inputs": {
                "image": ["image", 0], "mask": ["image", 1], "bundle": job.bundle, "preset": job.preset,
                "seed": job.seed, "filename_prefix": _prefix(job), "method": job.method, "prompt": job.prompt,
            },
        },
    }  # fmt: skip


def texture_graph(job: Job, uploaded: str, mesh: str, needed: dict[str, Any]) -> dict[str, Any]:
    """The workflow that gives an uploaded mesh its texture; ``needed`` of the node says its defaults."""
    defaults = {name: spec[1]["default"] for name, spec in needed.items() if len(spec) > 1 and "default" in spec[1]}
    return {
        "image": {"class_type": "LoadImage", "inputs": {"image": uploaded}},
        "plain": {"class_type": LOAD, "inputs": {"file": mesh}},
        "mesh": {
            "class_type": REFINE,
            "inputs": {
                **defaults, "mesh": ["plain", 0], "reference": ["image", 0], "mask": ["image", 1],
                "bundle": job.bundle, "seed": job.seed, "filename_prefix": _prefix(job), "prompt": job.prompt,
            },
        },
    }  # fmt: skip


def _prefix(job: Job) -> str:
    return "iso3d/" + (re.sub(r"[^\w\-]", "_", job.name) or "mesh")


def _read(path: str, advice: str) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise ServerError(f"cannot read {path} ({error.strerror or error}); {advice}") from error


def _options(combo: list[Any]) -> list[str]:
    """The choices of a Combo input, in either of the forms that servers give them."""
    return list(combo[0]) if isinstance(combo[0], list) else list(combo[1].get("options", []))


def write(path: Path, data: bytes) -> None:
    """Whole or not at all."""
    part = path.with_name(path.name + ".part")
    try:
        part.write_bytes(data)
        os.replace(part, path)
    except OSError as error:
        with suppress(OSError):
            part.unlink()
        raise ServerError(f"cannot write {path} ({error.strerror or error}); make room on the disk") from error
