"""The add-on's ComfyUI backend: against a server that is played here, and against a real one (`pytest -m comfyui`)."""

import json
import os
import re
import socket
import struct
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
import trimesh
from blender_plain import ROOT, load
from comfy_host import Server

from iso3d_core.mesh.export import load_mesh
from iso3d_core.mesh.texture import unwrap
from iso3d_core.types import Mesh

ROCKET = ROOT / "examples" / "rocket.png"
comfy, comfy_server, glb, jobs, websocket = map(load, ("comfy", "comfy_server", "glb", "jobs", "websocket"))
Job = jobs.Job


class Played(ThreadingHTTPServer):
    """Enough of ComfyUI's server for one prompt; ``answers`` maps paths to (status, value)."""

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Answer)
        self.asked = []
        self.answers = {
            "/upload/image": (200, {"name": "rocket (1).png", "subfolder": ""}),
            "/prompt": (200, {"prompt_id": "p"}),
            "/history/p": (200, {"p": entry()}),
            "/view": (200, b"glTF and more"),
            "/queue": (200, {"queue_pending": [], "queue_running": [[0, "p"]]}),
            "/interrupt": (200, b""),
        }
        self.address = f"http://127.0.0.1:{self.server_address[1]}"


class Answer(BaseHTTPRequestHandler):
    def do_GET(self):
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        path = self.path.partition("?")[0]
        self.server.asked.append((self.path, body))
        status, value = self.server.answers.get(path, (404, b"nothing here"))
        data = value if isinstance(value, bytes) else json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    do_POST = do_GET  # noqa: N815

    def log_message(self, *_):
        pass


def entry(kind="execution_success", **values):
    file = {"filename": "rocket_00001_.glb", "subfolder": "iso3d", "type": "output"}
    return {"status": {"messages": [["execution_start", {}], [kind, values]]}, "outputs": {"mesh": {"3d": [file]}}}


@pytest.fixture
def played():
    server = Played()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def make(tmp_path, address, **values):
    queue = jobs.Queue(lambda server: comfy.Comfy(server[1]))
    values = {"image": str(ROCKET), "out": str(tmp_path / "rocket.glb"), "server": ("COMFYUI", address), **values}
    wanted = Job(**values)
    queue.add(wanted)
    return queue, wanted


def until(queue, done, seconds=15.0):
    end = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < end, (queue.error, list(queue.log))
        queue.poll()
        time.sleep(0.01)


def run(tmp_path, address, **values):
    queue, wanted = make(tmp_path, address, **values)
    until(queue, lambda: wanted.state not in (jobs.WAITING, jobs.RUNNING))
    queue.close()
    return queue, wanted


def test_the_image_goes_up_and_the_mesh_comes_down(played, tmp_path):
    _, wanted = run(tmp_path, played.address, preset="default", seed=7, bundle="big", prompt="a toy")
    assert wanted.state == jobs.FINISHED
    assert Path(wanted.out).read_bytes() == b"glTF and more"
    assert [path.name for path in tmp_path.iterdir()] == ["rocket.glb"]
    asked = {path.partition("?")[0]: (path, body) for path, body in played.asked}
    assert ROCKET.read_bytes() in asked["/upload/image"][1]
    graph = json.loads(asked["/prompt"][1])["prompt"]
    assert graph["image"]["inputs"]["image"] == "rocket (1).png"
    assert graph["mesh"]["class_type"] == "Iso3DGenerate3D"
    inputs = graph["mesh"]["inputs"]
    assert (inputs["preset"], inputs["seed"], inputs["bundle"]) == ("default", 7, "big")
    assert inputs["mask"] == ["image", 1]  # a transparent image's alpha
    assert (inputs["method"], inputs["prompt"]) == (wanted.method, "a toy")
    assert asked["/view"][0].endswith("?filename=rocket_00001_.glb&subfolder=iso3d&type=output")


def test_a_mesh_and_its_image_go_up_and_the_texture_comes_down(played, tmp_path):
    combo, number = [["tiny", "big"], {}], ["INT", {"default": 30, "min": 1}]
    needed = {"mesh": ["MESH", {}], "reference": ["IMAGE"], "steps": number, "seed": number, "bundle": combo}
    played.answers["/object_info/Iso3DRefineMesh"] = (200, {"Iso3DRefineMesh": {"input": {"required": needed}}})
    mesh = tmp_path / "mesh.glb"
    mesh.write_bytes(b"glTF of a cube")
    given = {"mesh": str(mesh), "object_name": "Cube", "seed": 7, "bundle": "big", "prompt": "a red box"}
    _, wanted = run(tmp_path, played.address, **given)
    assert wanted.state == jobs.FINISHED
    assert Path(wanted.out).read_bytes() == b"glTF and more"
    uploads = [body for path, body in played.asked if path == "/upload/image"]
    assert ROCKET.read_bytes() in uploads[0]
    assert b'filename="mesh.glb"' in uploads[1]
    assert b"glTF of a cube" in uploads[1]
    graph = json.loads(next(body for path, body in played.asked if path == "/prompt"))["prompt"]
    assert graph["plain"]["class_type"] == "Iso3DLoadMesh"
    assert graph["mesh"]["class_type"] == "Iso3DRefineMesh"
    assert graph["mesh"]["inputs"] == {
        "mesh": ["plain", 0], "reference": ["image", 0], "mask": ["image", 1], "steps": 30, "seed": 7, "bundle": "big",
        "filename_prefix": "iso3d/Cube_after_rocket", "prompt": "a red box",
    }  # fmt: skip
    played.answers["/object_info/Iso3DRefineMesh"] = (200, {})
    mesh.write_bytes(b"glTF of a cube")
    assert "has no iso3d nodes" in run(tmp_path, played.address, **given)[0].error


@pytest.mark.parametrize(
    ("path", "answer", "said"),
    [
        ("/prompt", (400, {"error": {"message": "Cannot execute because node Iso3DGenerate3D does not exist."}}),
         "has no iso3d nodes; run `python install.py --comfyui DIR`"),
        ("/prompt", (400, {"error": {"message": "Prompt outputs failed validation"}, "node_errors": {
            "mesh": {"errors": [{"details": "bundle: 'big' not in ['tiny']"}]}}}), "validation; bundle: 'big' not in"),
        ("/upload/image", (413, b"too large"), r"refused /upload/image \(413\): too large"),
        ("/history/p", (200, {"p": entry("execution_error", exception_message="no such preset\n")}), "no such preset$"),
        ("/history/p", (200, b"<html>"), "no usable answer"),
        ("/view", (404, b"gone"), "refused /view.* gone"),
        ("/history/p", (200, {}), "does not know the job any more"),
    ],
)  # fmt: skip
def test_what_goes_wrong_is_told(played, tmp_path, path, answer, said):
    played.answers["/queue"] = (200, {"queue_pending": [], "queue_running": [[0, "another"]]})
    played.answers[path] = answer
    queue, wanted = run(tmp_path, played.address)
    assert wanted.state == jobs.FAILED
    assert re.search(said, queue.error), queue.error
    assert list(tmp_path.iterdir()) == []


def test_no_server_no_image_no_room(played, tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        nobody = f"http://127.0.0.1:{free.getsockname()[1]}"
    assert "no ComfyUI answers" in run(tmp_path, nobody)[0].error
    assert "pick the image again" in run(tmp_path, played.address, image=str(tmp_path / "none.png"))[0].error
    assert "cannot write" in run(tmp_path, played.address, out=str(tmp_path / "none" / "a.glb"))[0].error


def test_cancelling_interrupts_this_prompt_only(played, tmp_path):
    played.answers["/history/p"] = (200, {})
    queue, wanted = make(tmp_path, played.address)
    until(queue, lambda: any(path == "/history/p" for path, _ in played.asked))
    queue.cancel(wanted)
    until(queue, lambda: wanted.state == jobs.CANCELLED)
    assert ("/interrupt", b'{"prompt_id": "p"}') in played.asked
    played.answers["/queue"] = (200, {"queue_pending": [[0, "p"]]})
    queue, wanted = make(tmp_path, played.address)
    played.asked.clear()
    until(queue, lambda: any(path == "/history/p" for path, _ in played.asked))
    queue.close()
    assert ("/queue", b'{"delete": ["p"]}') in played.asked
    assert wanted.state == jobs.CANCELLED


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("127.0.0.1:8188", "http://127.0.0.1:8188"),
        (" http://box.lan:80/ ", "http://box.lan:80"),
        ("https://host/comfy", "https://host/comfy"),
        ("[::1]:8188", "http://[::1]:8188"),
    ],
)
def test_addresses(text, address):
    assert comfy_server.normal_address(text) == address


@pytest.mark.parametrize("text", ["", "ftp://host", "host:port", "http://"])
def test_what_is_no_address(text):
    with pytest.raises(comfy_server.ServerError, match="no address"):
        comfy_server.normal_address(text)


def test_which_addresses_are_this_machine():
    for address in ("http://127.0.0.1:8188", "http://localhost:1", "http://[::1]:8188", "http://127.3.2.1"):
        assert comfy_server.is_this_machine(address)
    for address in ("http://192.168.0.2:8188", "http://box.lan", "http://localhost.example.org"):
        assert not comfy_server.is_this_machine(address)


def test_what_the_server_tells_becomes_progress(tmp_path):
    events = []
    wanted = Job("a.png", str(tmp_path / "a.glb"), ("COMFYUI", ""))
    reporter = comfy.Reporter(wanted, "p", lambda kind, **values: events.append(values))
    reporter.hear(websocket.TEXT, b'{"type": "status", "data": {"status": {}}}')
    reporter.hear(websocket.TEXT, b'{"type": "progress", "data": {"value": 9, "max": 10, "prompt_id": "other"}}')
    assert events == []
    reporter.hear(websocket.BINARY, struct.pack(">II", 1, 2) + b"\x89PNG")
    reporter.hear(websocket.TEXT, b'{"type": "progress", "data": {"value": 250, "max": 1000, "prompt_id": "p"}}')
    (event,) = events
    assert event["fraction"] == 0.25
    assert event["seconds_left"] >= 0
    preview = Path(event["preview"])
    assert preview.read_bytes() == b"\x89PNG"
    preview.unlink()


def frame(kind, data, final=True):
    size = struct.pack("!BB", (0x80 if final else 0) | kind, min(len(data), 126))
    if len(data) >= 65536:
        size = size[:1] + struct.pack("!BQ", 127, len(data))
    elif len(data) >= 126:
        size += struct.pack("!H", len(data))
    return size + data


def test_frames_of_every_size_arrive_whole():
    large = os.urandom(70000)
    sent = [
        frame(websocket.TEXT, b"short"), frame(websocket.PING, b"there?"), frame(websocket.BINARY, b"x" * 300),
        frame(websocket.BINARY, large[:1000], final=False), frame(0, large[1000:]), frame(websocket.CLOSE, b""),
    ]  # fmt: skip
    listening = socket.create_server(("127.0.0.1", 0))
    heard = []

    def serve():
        connection, _ = listening.accept()
        with connection:
            request = b""
            while b"\r\n\r\n" not in request:
                request += connection.recv(4096)
            heard.append(request)
            data = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n" + b"".join(sent)
            for start in range(0, len(data), 777):
                connection.sendall(data[start : start + 777])
            heard.append(connection.recv(100))

    thread = threading.Thread(target=serve)
    thread.start()
    with listening:
        listener = websocket.WebSocket("127.0.0.1", listening.getsockname()[1], "/ws?clientId=me")
        assert listener.receive(5) == (websocket.TEXT, b"short")
        assert listener.receive(5) == (websocket.BINARY, b"x" * 300)
        assert listener.receive(5) == (websocket.BINARY, large)
        with pytest.raises(OSError, match="closed"):
            listener.receive(5)
        listener.close()
        thread.join(5)
    assert heard[0].startswith(b"GET /ws?clientId=me HTTP/1.1\r\n")
    assert heard[1] == b"\x8a\x86\0\0\0\0there?"


def test_silence_is_no_message_and_no_websocket_is_an_error(played):
    with pytest.raises(OSError, match="no WebSocket there"):
        websocket.WebSocket("127.0.0.1", played.server_address[1], "/ws")
    assert comfy_server.ComfyServer(played.address).listen() is None


@pytest.fixture(scope="module")
def real(tmp_path_factory):
    with Server(tmp_path_factory.mktemp("comfyui")) as server:
        yield server.address


@pytest.mark.comfyui
def test_a_real_server_greets(real):
    check = jobs.Check(comfy.Comfy(real))
    while not check.done:
        check.poll()
        time.sleep(0.05)
    assert not check.failed, check.text
    assert "nodes in ComfyUI" in check.text
    assert "tiny" in check.text


@pytest.mark.comfyui
def test_a_real_server_makes_a_mesh_with_progress(real, tmp_path):
    queue, wanted = make(tmp_path, real)
    seen, previews = [], []

    def done():
        seen.append(wanted.fraction)
        if wanted.preview:
            previews.append(Path(wanted.preview).read_bytes()[:4])
        return wanted.state != jobs.RUNNING and wanted.state != jobs.WAITING

    until(queue, done, 120)
    assert wanted.state == jobs.FINISHED, queue.error
    assert glb.read(wanted.out).image
    assert len(set(seen)) > 5
    assert seen == sorted(seen)
    assert previews
    again, wanted = make(tmp_path, real)  # the server answers from its cache
    until(again, lambda: wanted.state not in (jobs.RUNNING, jobs.WAITING), 30)
    assert wanted.state == jobs.FINISHED, again.error


@pytest.mark.comfyui
def test_a_real_server_textures_a_mesh(real, tmp_path):
    mesh = trimesh.creation.box((1, 1, 1))
    mesh.export(tmp_path / "plain.glb")
    plain = load_mesh(tmp_path / "plain.glb")
    vertices, faces, normals, uvs = unwrap(plain.vertices, plain.faces, plain.normals, 64)
    Mesh(vertices, faces, normals, uvs).save(tmp_path / "cube.glb")
    before = glb.read(tmp_path / "cube.glb")
    queue, wanted = make(tmp_path, real, mesh=str(tmp_path / "cube.glb"), object_name="Cube", prompt="a red rocket")
    until(queue, lambda: wanted.state not in (jobs.RUNNING, jobs.WAITING), 120)
    assert wanted.state == jobs.FINISHED, queue.error
    after = glb.read(wanted.out)
    assert after.image
    assert len(after.triangles) == len(before.triangles)
    corners = [np.reshape(data.uvs, (-1, 2))[list(data.triangles)] for data in (before, after)]
    np.testing.assert_allclose(*corners, atol=1e-6)


@pytest.mark.comfyui
def test_a_real_server_is_interrupted(real, tmp_path):
    queue, wanted = make(tmp_path, real, preset="quality", seed=3)
    until(queue, lambda: wanted.fraction > 0, 60)
    asked = time.monotonic()
    queue.cancel(wanted)
    until(queue, lambda: wanted.state == jobs.CANCELLED)
    assert time.monotonic() - asked < 2
    server = comfy_server.ComfyServer(real)
    end = time.monotonic() + 10
    while server.get("/queue")["queue_running"]:
        assert time.monotonic() < end
        time.sleep(0.1)
