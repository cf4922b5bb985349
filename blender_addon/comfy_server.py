# SPDX-License-Identifier: GPL-3.0-or-later
"""Talking to a ComfyUI server: requests, uploads, refusals in plain words. Knows no bpy."""

from __future__ import annotations

import ipaddress
import json
import re
import urllib.error
import urllib.parse
import urllib.request
import uuid
from contextlib import suppress
from typing import Any

from .websocket import WebSocket

LACKS_NODES = "has no iso3d nodes; run `python install.py --comfyui DIR` in the folder of iso3d, and start it again"
ANSWER_SECONDS = 30.0


class ServerError(Exception):
    """The server cannot do it; the message says why and what to do."""


def normal_address(text: str) -> str:
    """ "localhost:8188" -> "http://localhost:8188"; raises ServerError for what is no address."""
    address = text.strip() if "://" in text else f"http://{text.strip()}"
    address = address.rstrip("/")
    with suppress(ValueError):  # of a port that is no number
        parts = urllib.parse.urlsplit(address)
        if parts.scheme in ("http", "https") and parts.hostname and parts.port != 0:
            return address
    raise ServerError(f"{text!r} is no address of a server; write it like http://127.0.0.1:8188")


def is_this_machine(address: str) -> bool:
    host = urllib.parse.urlsplit(address).hostname or ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


class ComfyServer:
    """A server at a normal address. This machine is reached directly, others as the proxy settings say.

    Every request waits for its answer, and raises ServerError where there is none that can be used.
    """

    def __init__(self, address: str) -> None:
        self.address = address
        self.client = uuid.uuid4().hex
        direct = [urllib.request.ProxyHandler({})] if is_this_machine(address) else []
        self._opener = urllib.request.build_opener(*direct)

    def get(self, path: str) -> Any:
        return json.loads(self.ask(path))

    def post(self, path: str, values: dict[str, Any]) -> bytes:
        return self.ask(path, json.dumps(values).encode())

    def ask(self, path: str, body: bytes | None = None, kind: str = "application/json") -> bytes:
        request = urllib.request.Request(self.address + path, body, {"Content-Type": kind} if body else {})
        try:
            with self._opener.open(request, timeout=ANSWER_SECONDS) as answer:
                return answer.read()
        except urllib.error.HTTPError as error:
            with error:
                raise ServerError(self._refusal(path, error.code, error.read())) from error
        except OSError as error:
            reason = getattr(error, "reason", None) or error
            raise ServerError(
                f"no ComfyUI answers at {self.address} ({reason}); start it, or correct the address in the preferences"
            ) from error

    def upload(self, name: str, data: bytes) -> str:
        """Put a file into the input folder; returns the name by which nodes find it there."""
        boundary = uuid.uuid4().hex
        safe = re.sub(r"[^\w.\- ]", "_", name)
        head = (
            f'--{boundary}\r\nContent-Disposition: form-data; name="image"; filename="{safe}"\r\n'
            "Content-Type: application/octet-stream\r\n\r\n"
        )
        body = head.encode() + data + f"\r\n--{boundary}--\r\n".encode()
        entry = json.loads(self.ask("/upload/image", body, f"multipart/form-data; boundary={boundary}"))
        return "/".join(filter(None, (entry.get("subfolder"), entry["name"])))

    def needed(self, node: str) -> dict[str, Any]:
        """The inputs that a node requires, in the form of the server's API. Raises ServerError where it has no such."""
        nodes = self.get(f"/object_info/{node}")
        if node not in nodes:
            raise ServerError(f"{self.address} {LACKS_NODES}")
        return nodes[node]["input"]["required"]

    def queue(self, graph: dict[str, Any]) -> str:
        """Returns the id of the prompt."""
        return json.loads(self.post("/prompt", {"prompt": graph, "client_id": self.client}))["prompt_id"]

    def knows(self, prompt: str) -> bool:
        """Whether a prompt runs or waits there."""
        queued = self.get("/queue")
        return any(item[1] == prompt for kind in ("queue_running", "queue_pending") for item in queued.get(kind, ()))

    def interrupt(self, prompt: str) -> None:
        """Take a prompt out of the queue, or stop it."""
        if any(item[1] == prompt for item in self.get("/queue")["queue_pending"]):
            self.post("/queue", {"delete": [prompt]})
        else:
            self.post("/interrupt", {"prompt_id": prompt})

    def listen(self) -> WebSocket | None:
        """The server's news for this client, or None where they do not get through (a proxy in between)."""
        parts = urllib.parse.urlsplit(self.address)
        secure = parts.scheme == "https"
        port = parts.port or (443 if secure else 80)
        try:
            return WebSocket(str(parts.hostname), port, f"{parts.path}/ws?clientId={self.client}", secure)
        except OSError:
            return None

    def _refusal(self, path: str, code: int, body: bytes) -> str:
        text = body.decode(errors="replace")
        if path == "/prompt" and re.search(r"Iso3D\w+ does not exist", text):
            return f"{self.address} {LACKS_NODES}"
        with suppress(ValueError, LookupError, TypeError):
            answer = json.loads(text)
            details = [e["details"] for node in answer["node_errors"].values() for e in node["errors"]]
            text = "; ".join([answer["error"]["message"], *details])
        return f"{self.address} refused {path} ({code}): {text[:300]}"
