"""`python -m iso3d_core.worker`: generate on request, for a program that cannot load torch itself (Blender's add-on).

JSON objects, one a line, UTF-8. Requests on stdin:

    {"type": "hello"}                                          versions, devices, presets, bundles
    {"type": "generate", "id": ID, "image": PATH, "out": PATH, "preset": "fast", "seed": 0, "bundle": "tiny",
     "method": "isotropic3d", "prompt": null}
    {"type": "refine", "id": ID, "mesh": PATH, "image": PATH, "out": PATH, "steps": 40, "seed": 0, "bundle": "tiny",
     "prompt": null}
    {"type": "cancel", "id": ID}                               a running or a waiting job
    {"type": "free"}                                           forget the loaded networks
    {"type": "quit"}

Events on stdout, nothing else: "hello", "started", "progress" (stage, step, total, fraction, seconds_left, preview: a
PNG or null), "result" (path, seconds, warnings), "cancelled", "error" (message, which says what to do), "bye". Each
but "hello" and "bye" carries the job's id. Jobs run one after the other; the networks stay loaded between them. The
worker ends when its stdin closes, which is when its parent ends, or after ``--idle`` seconds without work.
"""

from __future__ import annotations

import gc
import io
import json
import os
import queue
import sys
import tempfile
import threading
import time
import traceback
import warnings
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from .types import Cancelled, InputError, Progress, stage_shares
from .waiting import wait_briefly

if TYPE_CHECKING:
    from .config import GenerateConfig

PROTOCOL = 1
EVENT_SECONDS, PREVIEW_SECONDS, PREVIEW_SIDE = 0.1, 2.0, 128
GRACE_SECONDS = 1.0  # for the work in hand, once the input has ended


@dataclass
class Worker:
    """Reads requests, runs jobs one by one, writes events to ``out``.

    idle : seconds without a request after which it ends
    """

    out: TextIO
    idle: float = 900.0
    jobs: queue.Queue[dict[str, Any]] = field(default_factory=queue.Queue)
    cancelled: set[str] = field(default_factory=set)
    ended: threading.Event = field(default_factory=threading.Event)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _loaded: tuple[str, Any] | None = None

    def say(self, kind: str, **values: Any) -> None:
        with self._lock:
            self.out.write(json.dumps({"type": kind, **values}) + "\n")
            self.out.flush()

    def read(self, lines: TextIO) -> None:
        """In a thread of its own, so that a cancellation is heard while a job runs. The end of the input ends all."""
        try:
            for line in lines:
                if not line.strip():
                    continue
                try:
                    request = json.loads(line)
                    kind = request["type"]
                except (json.JSONDecodeError, KeyError, TypeError):
                    self.say(
                        "error", id=None, message=f"not a request: {line.strip()[:200]!r}; send one JSON object a line"
                    )
                    continue
                if kind == "cancel":
                    self.cancelled.add(str(request.get("id")))
                elif kind == "quit":
                    break
                else:
                    self.jobs.put(request)
        finally:  # also of a broken pipe
            self.ended.set()
            self.jobs.put({"type": "quit"})

    def serve(self) -> None:
        try:
            while not self.ended.is_set():
                try:
                    request = self.jobs.get(timeout=self.idle)
                except queue.Empty:
                    self.say("bye", reason=f"idle for {self.idle:.0f} seconds")
                    return
                self.answer(request)
            self.say("bye", reason="asked to end, or the parent is gone")
        finally:
            remove_preview()

    def answer(self, request: dict[str, Any]) -> None:
        kind, job = request["type"], str(request.get("id"))
        try:
            if kind == "hello":
                self.say("hello", **greeting())
            elif kind == "free":
                self.free()
            elif kind == "generate":
                self.generate(request, job)
            elif kind == "refine":
                self.refine(request, job)
            elif kind != "quit":
                raise InputError(f"unknown request {kind!r}; use hello, generate, refine, cancel, free or quit")
        except Cancelled:
            self.say("cancelled", id=job)
        except InputError as error:
            self.say("error", id=job, message=str(error))
        except Exception as error:
            traceback.print_exc()
            self.say("error", id=job, message=f"{type(error).__name__}: {error}; the log has more")

    def generate(self, request: dict[str, Any], job: str) -> None:
        from .pipeline import configure, generate
        from .presets import with_method

        _need(request, "image", "out")
        self.check(job)  # a job cancelled while it waited does not start
        self.say("started", id=job)
        started = time.monotonic()
        config = configure(request.get("preset", "default"), request.get("bundle", "tiny"), int(request.get("seed", 0)))
        config = with_method(config, request.get("method", config.method), request.get("prompt") or None)
        report = self.reporter(job, stage_shares(config.method))
        prior = self.prior(config)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            mesh = generate(request["image"], config, report, prior)
        path = mesh.save(request["out"])
        notes = [str(warning.message) for warning in caught if issubclass(warning.category, UserWarning)]
        self.say("result", id=job, path=str(path), seconds=round(time.monotonic() - started, 2), warnings=notes)

    def refine(self, request: dict[str, Any], job: str) -> None:
        """HiFi-123's refine stage on a mesh from anywhere."""
        from .images import load_reference
        from .mesh.export import load_mesh
        from .methods.refine import RefineConfig, refine
        from .pipeline import reference_size
        from .priors.depth import DepthPrior
        from .weights import find_bundle

        _need(request, "mesh", "image", "out")
        self.check(job)
        self.say("started", id=job)
        started = time.monotonic()
        steps, seed = int(request.get("steps", RefineConfig.steps)), int(request.get("seed", 0))
        config = RefineConfig(steps=steps, seed=seed, prompt=request.get("prompt") or "")
        bundle = find_bundle(request.get("bundle", "tiny"))
        reference = load_reference(request["image"], reference_size(bundle))
        mesh, prior = load_mesh(request["mesh"]), DepthPrior.load(bundle)
        report = self.reporter(job, {"start": (0.0, 0.1), "refine": (0.1, 1.0)})
        path = refine(mesh, reference, prior, config, report).save(request["out"])
        self.say("result", id=job, path=str(path), seconds=round(time.monotonic() - started, 2), warnings=[])

    def check(self, job: str) -> None:
        """Raises Cancelled when the job is not wanted any more."""
        if job in self.cancelled or self.ended.is_set():
            self.cancelled.discard(job)
            raise Cancelled

    def prior(self, config: GenerateConfig) -> Any:
        """The loaded multi-view prior of a bundle, kept for the next job; None where it has none."""
        if self._loaded is None or self._loaded[0] != config.bundle:
            from .pipeline import multiview_of

            self.free()  # before the next one takes its memory
            prior = multiview_of(config)
            self._loaded = None if prior is None else (config.bundle, prior)
        return None if self._loaded is None else self._loaded[1]

    def free(self) -> None:
        """Forget the loaded networks, and give back what the device keeps for later."""
        self._loaded = None
        torch = sys.modules.get("torch")
        if torch is not None and torch.cuda.is_available():
            gc.collect()
            torch.cuda.empty_cache()

    def reporter(self, job: str, shares: dict[str, tuple[float, float]]) -> Any:
        began, said, drawn = time.monotonic(), [0.0], [0.0]

        def report(progress: Progress) -> None:
            self.check(job)
            now = time.monotonic()
            if progress.stage not in shares or (now - said[0] < EVENT_SECONDS and progress.step < progress.total):
                return
            said[0] = now
            low, high = shares[progress.stage]
            fraction = low + (high - low) * progress.step / max(progress.total, 1)
            shown = None
            if progress.preview is not None and now - drawn[0] > PREVIEW_SECONDS:
                drawn[0] = now
                with suppress(OSError):  # a full disk, or somebody reading the last one: the work is worth more
                    shown = str(write_preview(progress.preview(), preview_path()))
            left = (now - began) * (1 - fraction) / fraction if fraction > 0.02 else None
            self.say(
                "progress", id=job, stage=progress.stage, step=progress.step, total=progress.total,
                fraction=round(fraction, 4), seconds_left=None if left is None else round(left, 1), preview=shown,
            )  # fmt: skip

        return report


def _need(request: dict[str, Any], *names: str) -> None:
    for name in names:
        if not isinstance(request.get(name), str):
            raise InputError(f"{request['type']} needs {name!r}, a path")


def preview_path() -> Path:
    return Path(tempfile.gettempdir()) / f"iso3d-{os.getpid()}-preview.png"


def remove_preview() -> None:
    """Nobody looks at the last one any more."""
    for path in (preview_path(), preview_path().with_suffix(".part")):
        with suppress(OSError):
            path.unlink(missing_ok=True)


def write_preview(views: Any, path: Path) -> Path:
    """The first view as a small PNG, whole or not at all."""
    from PIL import Image

    pixels = (views[0].detach().float().clamp(0, 1).permute(1, 2, 0).cpu().numpy() * 255).round().astype("uint8")
    part = path.with_suffix(".part")
    Image.fromarray(pixels).resize((PREVIEW_SIDE, PREVIEW_SIDE)).save(part, format="PNG")
    os.replace(part, path)
    return path


def greeting() -> dict[str, Any]:
    import platform

    import torch

    from .presets import PRESETS
    from .version import own_version
    from .weights import bundles

    device = torch.cuda.get_device_name() if torch.cuda.is_available() else f"CPU, {torch.get_num_threads()} threads"
    return {
        "protocol": PROTOCOL, "version": own_version(), "python": platform.python_version(), "torch": torch.__version__,
        "device": device, "presets": list(PRESETS["tiny"]),
        "bundles": list(dict.fromkeys(bundle.folder.name for bundle in bundles())),
    }  # fmt: skip


def main(idle: float = 900.0) -> int:
    """Serve until the input ends. What libraries print goes to stderr: stdout belongs to the protocol."""
    protocol = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    sys.stdout = sys.stderr
    if isinstance(sys.stdin, io.TextIOWrapper):
        sys.stdin.reconfigure(encoding="utf-8", errors="replace")
    wait_briefly()
    worker = Worker(protocol, idle)
    if sys.platform == "win32":
        # Its Fortran runtime, loaded while a thread waits for stdin, would wait for that thread.
        import scipy.linalg  # noqa: F401

    def read() -> None:
        with suppress(OSError):
            worker.read(sys.stdin)
        time.sleep(GRACE_SECONDS)  # loading the networks, or torch itself, looks at nothing meanwhile
        remove_preview()
        os._exit(3)

    threading.Thread(target=read, daemon=True).start()
    with suppress(OSError):  # nobody listens any more; a job's own errors are told, not raised
        worker.serve()
    return 0


if __name__ == "__main__":
    code = main(float(sys.argv[sys.argv.index("--idle") + 1]) if "--idle" in sys.argv else 900.0)
    sys.stderr.flush()
    os._exit(code)  # taking torch down takes a second, during which nobody would notice that the parent has gone
