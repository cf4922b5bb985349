"""A ComfyUI server of its own folders, listening on this machine only, for the tests that need the real host."""

import json
import os
import shutil
import socket
import subprocess
import time
import urllib.request
import uuid
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
COMFYUI = Path(os.environ.get("COMFYUI_DIR", "~/ComfyUI")).expanduser()


def python():
    """ComfyUI's own Python, or None."""
    for folder in (".venv", "venv"):
        if (COMFYUI / folder / "bin" / "python").exists():
            return COMFYUI / folder / "bin" / "python"
    return None


def node(kind, **inputs):
    return {"class_type": kind, "inputs": inputs}


class Server:
    """The pack lies in it under the name ``pack``; the example images are in its input folder.

    without : a library that its Python is to lack
    """

    def __init__(self, folder, pack="renamed pack", without=None):
        if python() is None or not (COMFYUI / "main.py").exists():
            pytest.skip(f"no ComfyUI with a Python of its own at {COMFYUI}; set COMFYUI_DIR")
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.folder, self.address = folder, f"http://127.0.0.1:{self.port}"
        self.log = (folder / "server.log").open("w")
        for name in ("custom_nodes", "input", "output"):
            (folder / name).mkdir()
        (folder / "custom_nodes" / pack).symlink_to(ROOT)
        for image in (ROOT / "examples").glob("*.png"):
            shutil.copy(image, folder / "input")
        settings = folder / "user" / "default" / "comfy.settings.json"
        settings.parent.mkdir(parents=True)
        # No templates in front of the graph, no map and no figures over it.
        hidden = {"Comfy.TutorialCompleted": True, "Comfy.Minimap.Visible": False, "Comfy.Graph.CanvasInfo": False}
        settings.write_text(json.dumps(hidden))
        settled = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT")
        environment = {name: value for name, value in os.environ.items() if name not in settled}
        environment["OMP_DISPLAY_ENV"] = "VERBOSE"  # what torch's threads do is in the log then
        if without:
            (folder / "sitecustomize.py").write_text(f"import sys\nsys.modules[{without!r}] = None\n")
            environment["PYTHONPATH"] = str(folder)
        self.process = subprocess.Popen(
            [python(), "main.py", "--cpu", "--listen", "127.0.0.1", "--port", str(self.port), "--base-directory",
             folder], cwd=COMFYUI, stdout=self.log, stderr=subprocess.STDOUT, env=environment,
        )  # fmt: skip

    def ask(self, path, data=None):
        body = None if data is None else json.dumps(data).encode()
        with urllib.request.urlopen(self.address + path, body, timeout=30) as answer:
            text = answer.read()
            return json.loads(text) if text else None

    def __enter__(self):
        try:
            self.await_answer()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *_):
        self.stop()

    def await_answer(self, seconds=180):
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            assert self.process.poll() is None, self.text()
            try:
                return self.ask("/system_stats")
            except OSError:
                time.sleep(0.5)
        raise TimeoutError(self.text())

    def stop(self):
        self.process.terminate()
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.log.close()

    def text(self):
        return (self.folder / "server.log").read_text()[-6000:]

    def queue(self, graph):
        return self.ask("/prompt", {"prompt": graph, "client_id": str(uuid.uuid4())})["prompt_id"]

    def wait(self, prompt, seconds=300):
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            if entry := self.ask(f"/history/{prompt}").get(prompt):
                return entry
            time.sleep(0.1)
        raise TimeoutError(self.text())

    def run(self, graph):
        entry = self.wait(self.queue(graph))
        assert entry["status"]["status_str"] == "success", entry["status"]
        return entry

    def cached(self, entry):
        """The nodes of a run that were not executed again."""
        return next(set(body["nodes"]) for kind, body in entry["status"]["messages"] if kind == "execution_cached")

    def error(self, graph):
        entry = self.wait(self.queue(graph))
        messages = dict(entry["status"]["messages"])
        assert "execution_error" in messages, entry["status"]
        return messages["execution_error"]["exception_message"]
