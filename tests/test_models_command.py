"""`iso3d models` as a user runs it, against a hub on this machine."""

import hashlib
import json
import os
import re
import subprocess
import sys
import threading
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import ClassVar

import pytest

from iso3d_core import shelf
from iso3d_core.commands import Models
from iso3d_core.types import InputError

WEIGHTS = bytes(range(256)) * 100_000  # 26 MB: the hub's client writes 10 MB at a time
FILES = {"config.json": b'{"_class_name": "AutoencoderTiny"}', "diffusion_pytorch_model.safetensors": WEIGHTS}
COMMIT = "0123456789abcdef0123456789abcdef01234567"


class Hub(BaseHTTPRequestHandler):
    """As the hub answers: `/owner/name/resolve/REVISION/FILE` with a commit and a checksum, ranges allowed."""

    protocol_version = "HTTP/1.1"
    repositories = frozenset({"madebyollin/taesd"})
    ranges: ClassVar[list[str]] = []
    cut_after: int | None = None
    damaged = False

    def log_message(self, *args):
        pass

    def do_HEAD(self):
        self.answer(body=False)

    def do_GET(self):
        self.answer(body=True)

    def answer(self, body):
        match = re.fullmatch(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", self.path)
        if match is None or match[1] not in Hub.repositories:
            self.send_response(404)
            self.send_header("X-Error-Code", "RepoNotFound")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        data = FILES[match[3]]
        start = 0
        if wanted := self.headers.get("Range"):
            if body:
                Hub.ranges.append(wanted)
            start = int(re.match(r"bytes=(\d+)-", wanted)[1])
        self.send_response(206 if start else 200)
        self.send_header("ETag", f'"{hashlib.sha256(data).hexdigest()}"')
        self.send_header("X-Repo-Commit", COMMIT)
        self.send_header("Accept-Ranges", "bytes")
        self.send_header("Content-Length", str(len(data) - start))
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}")
        self.end_headers()
        if body:
            part = data[start:]
            if Hub.damaged and len(data) > 1000:
                part = bytes(len(part))
            if Hub.cut_after is not None and len(part) > Hub.cut_after:
                self.wfile.write(part[: Hub.cut_after])
                self.wfile.flush()
                self.close_connection = True
                return
            self.wfile.write(part)


@pytest.fixture
def hub():
    Hub.ranges, Hub.cut_after, Hub.damaged = [], None, False
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def models(home, *words, endpoint="http://127.0.0.1:9", **env):
    settings = {
        "ISO3D_HOME": str(home),
        "HF_ENDPOINT": endpoint,
        "HF_HUB_DISABLE_XET": "1",
        "HF_HOME": str(home / "hf"),
    }
    return subprocess.run(
        [sys.executable, "-m", "iso3d_core", "models", *map(str, words)],
        env={**os.environ, **settings, **env}, capture_output=True, text=True, stdin=subprocess.DEVNULL,
    )  # fmt: skip


def assert_refused(run, message):
    assert run.returncode == 2, run.stderr
    assert message in run.stderr
    assert "Traceback" not in run.stderr


def test_the_list_shows_what_is_here_and_what_can_be_had(tmp_path):
    run = models(tmp_path, "list")
    assert run.returncode == 0, run.stderr
    lines = {line.split()[0]: line for line in run.stdout.splitlines()}
    assert "cc_projection, clip, depth, multiview, sketch, text, vae, words, zero123" in lines["tiny"]
    assert "Apache-2.0" in lines["tiny"]
    assert "iso3d models pull isotropic3d" in lines["isotropic3d"]
    assert models(tmp_path, "verify").stdout.split() == ["tiny", "intact"]


def test_pulling_asks_first_and_says_licence_and_size(tmp_path, hub):
    run = models(tmp_path, "pull", "taesd", endpoint=hub)
    assert_refused(run, "add --yes")
    assert "MIT" in run.stdout
    assert "0.01 GB from madebyollin/taesd" in run.stdout
    assert not (tmp_path / "taesd").exists()
    assert_refused(models(tmp_path, "pull", "taesdd", "--yes"), "the catalogue has isotropic3d, ")
    assert_refused(models(tmp_path, "pull"), "say which")
    assert_refused(models(tmp_path, "push"), "unknown action 'push'")


def test_a_pulled_model_is_a_bundle_of_one_commit(tmp_path, hub):
    run = models(tmp_path, "pull", "taesd", "--yes", endpoint=hub)
    assert run.returncode == 0, run.stderr
    folder = tmp_path / "taesd"
    assert (folder / "taesd" / "diffusion_pytorch_model.safetensors").read_bytes() == WEIGHTS
    info = json.loads((folder / "bundle.json").read_text())
    assert info["source"] == {"repository": "madebyollin/taesd", "commit": COMMIT}
    assert info["license"] == "MIT"
    assert sorted(p.name for p in tmp_path.iterdir() if p.name != "hf") in ([".downloads", "taesd"], ["taesd"])
    assert "intact" in models(tmp_path, "verify", "taesd").stdout
    assert "taesd" in models(tmp_path, "list").stdout.splitlines()[1]
    (folder / "taesd" / "config.json").write_text("{}")
    assert_refused(models(tmp_path, "verify"), "taesd: taesd/config.json")


def test_a_download_whose_connection_breaks_goes_on(tmp_path, hub):
    Hub.cut_after = 15_000_000
    run = models(tmp_path, "pull", "taesd", "--yes", endpoint=hub)
    assert run.returncode == 0, run.stderr
    assert Hub.ranges[0] == "bytes=10485760-"
    assert (tmp_path / "taesd" / "taesd" / "diffusion_pytorch_model.safetensors").read_bytes() == WEIGHTS


def test_a_download_that_was_killed_goes_on(tmp_path, hub):
    folder = tmp_path / ".downloads" / "taesd" / "madebyollin--taesd"
    folder.mkdir(parents=True)
    name = f"diffusion_pytorch_model.safetensors.{hashlib.sha256(WEIGHTS).hexdigest()[:16]}.part"
    (folder / name).write_bytes(WEIGHTS[:7_000_000])
    run = models(tmp_path, "pull", "taesd", "--yes", endpoint=hub)
    assert run.returncode == 0, run.stderr
    assert Hub.ranges == ["bytes=7000000-"]
    assert (tmp_path / "taesd" / "taesd" / "diffusion_pytorch_model.safetensors").read_bytes() == WEIGHTS


def test_what_cannot_be_downloaded_says_why(tmp_path, hub):
    assert_refused(models(tmp_path, "pull", "taesd", "--yes"), "run the command again to go on, or convert a file")
    assert_refused(models(tmp_path, "pull", "taesd", "--yes", endpoint=hub, HF_HUB_OFFLINE="1"), "switched off")
    assert_refused(models(tmp_path, "pull", "depth-anything", "--yes", endpoint=hub), "not there any more")
    Hub.damaged = True
    assert_refused(models(tmp_path, "pull", "taesd", "--yes", endpoint=hub), "arrived damaged")
    Hub.damaged = False
    assert not (tmp_path / "taesd").exists()
    assert models(tmp_path, "pull", "taesd", "--yes", endpoint=hub).returncode == 0


def test_files_that_are_used_as_they_are_can_be_brought_along(tmp_path):
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "config.json").write_text("{}")
    assert_refused(
        models(tmp_path, "convert", mine, "--as", "taesd"), "mine has no diffusion_pytorch_model.safetensors"
    )
    (mine / "diffusion_pytorch_model.safetensors").write_bytes(WEIGHTS)
    run = models(tmp_path, "convert", mine, "--as", "taesd")
    assert run.returncode == 0, run.stderr
    assert (tmp_path / "taesd" / "taesd" / "diffusion_pytorch_model.safetensors").read_bytes() == WEIGHTS
    assert "intact" in models(tmp_path, "verify", "taesd").stdout


def test_a_checkpoint_of_ones_own_lands_where_methods_look(tmp_path, monkeypatch):
    monkeypatch.setenv("ISO3D_HOME", str(tmp_path))
    made = []
    monkeypatch.setattr("iso3d_core.checkpoints.convert.convert", lambda *given: made.append(given[:3]))
    command = Models("convert", str(tmp_path / "v2-1_512-ema-pruned.safetensors"), as_="sd-text")
    shelf.convert(command)
    assert made == [(tmp_path / "v2-1_512-ema-pruned.safetensors", "sd-text", tmp_path / "sd-text")]
    (tmp_path / "sd-text").mkdir()
    with pytest.raises(InputError, match="sd-text is there already; remove it, or give --out"):
        shelf.convert(command)
    shelf.convert(replace(command, out=tmp_path / "other"))
    assert made[1][2] == tmp_path / "other"


def test_mirrors_are_tried_in_their_order(tmp_path, monkeypatch):
    from iso3d_core.checkpoints import pull
    from iso3d_core.checkpoints.catalogue import Entry, Source

    asked = []

    def fetch_from(source, folder):
        asked.append(source.repository)
        if source.repository != "second/there":
            raise pull._Unavailable("not there any more")
        return pull.Fetched(folder, source, "c0ffee")

    monkeypatch.setattr(pull, "_fetch_from", fetch_from)
    sources = tuple(Source(name, ("x.safetensors",)) for name in ("first/gone", "second/there", "third/unasked"))
    entry = Entry("x", "", sources, "MIT", 0.1, kind="sd-text")
    assert pull.fetch(entry, tmp_path).source.repository == "second/there"
    assert asked == ["first/gone", "second/there"]
    with pytest.raises(InputError, match=r"first/gone: not there any more.*convert FILE --as sd-text$"):
        pull.fetch(replace(entry, sources=sources[:1]), tmp_path)


def test_a_damaged_bundle_hides_no_other(tmp_path, monkeypatch, capsys):
    from iso3d_core.doctor import report

    monkeypatch.setenv("ISO3D_HOME", str(tmp_path))
    (tmp_path / "torn").mkdir()
    (tmp_path / "torn" / "bundle.json").write_text('{"name": ')
    lines = [line for line in report() if line.startswith("bundle")]
    assert any("tiny: " in line and line.endswith("intact") for line in lines)
    assert any("torn: DAMAGED" in line for line in lines)
    shelf.show(Models())
    assert "DAMAGED" in next(line for line in capsys.readouterr().out.splitlines() if line.startswith("torn"))
    with pytest.raises(InputError, match=r"torn: bundle\.json"):
        shelf.verify(Models("verify"))


def test_converting_needs_a_file_and_a_kind(tmp_path):
    assert_refused(models(tmp_path, "convert", "x.ckpt"), "say what to convert")
    assert_refused(models(tmp_path, "convert", tmp_path / "x.ckpt", "--as", "isotropic3d"), "no such file")
    assert_refused(
        models(tmp_path, "convert", tmp_path / "x.ckpt", "--as", "mine"), "unknown kind of checkpoint 'mine'"
    )
