"""The command line: what it writes, what it says, and how it ends."""

import math
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from iso3d_core.cli import main
from iso3d_core.priors.base import choose_arithmetic

EXAMPLES = Path(__file__).parent.parent / "examples"
ROCKET = str(EXAMPLES / "rocket.png")


def run(*argv):
    """Exit code of one command, also where the argument parser ends the process."""
    try:
        return main([str(a) for a in argv])
    except SystemExit as end:
        return end.code


def bad_image(kind, folder):
    path = folder / "bad.png"
    if kind == "missing":
        return path
    if kind == "directory":
        path.mkdir()
    elif kind == "text":
        path.write_text("this is not an image")
    elif kind == "empty":
        path.write_bytes(b"")
    elif kind == "truncated":
        path.write_bytes(Path(ROCKET).read_bytes()[:5000])
    elif kind == "one pixel":
        Image.new("RGB", (1, 1)).save(path)
    elif kind == "huge":
        Image.new("1", (20_000, 20_000)).save(path)
    elif kind == "transparent":
        Image.new("RGBA", (64, 64), (255, 0, 0, 0)).save(path)
    return path


@pytest.mark.parametrize(
    "kind", ["missing", "directory", "text", "empty", "truncated", "one pixel", "huge", "transparent"]
)
def test_a_bad_image_is_one_clear_line_and_code_2(kind, tmp_path, capsys):
    out = tmp_path / "out" / "mesh.glb"
    assert run("generate", bad_image(kind, tmp_path), "-o", out) == 2
    said = capsys.readouterr().err.strip()
    assert said.startswith("iso3d: ")
    assert "\n" not in said
    assert "Traceback" not in said
    assert not list(tmp_path.rglob("*.glb*"))


@pytest.mark.parametrize(
    ("extra", "says"),
    [
        (["--preset", "best"], "unknown preset 'best'; use one of fast, default, quality, paper"),
        (["--bundle", "nothing"], "no bundle 'nothing' here"),
        (["--method", "magic"], "unknown method 'magic'"),
        (["--device", "nowhere"], "device 'nowhere' cannot be used"),
        (["--device", "cuda:99"], "device 'cuda:99' cannot be used"),
        (["--seed", str(2**64)], "the seed must be 0 to 2^53"),
        (["--seed", "-1"], "the seed must be 0 to 2^53"),
        (["--preview", "now.jpg"], "previews are written as PNG"),
        (["--preview", str(EXAMPLES / "rocket.png" / "now.png")], "cannot write"),
    ],
)
def test_bad_options_name_the_good_ones(extra, says, tmp_path, capsys):
    assert run("generate", ROCKET, "-o", tmp_path / "a.glb", *extra) == 2
    said = capsys.readouterr().err.strip().splitlines()
    assert len(said) == 1
    assert says in said[0]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("name", "says"), [("a.fbx", "cannot write '.fbx' files"), ("file/a.glb", "cannot write")])
def test_bad_outputs_are_refused_before_the_work(name, says, tmp_path, capsys):
    (tmp_path / "file").write_text("in the way")
    started = time.monotonic()
    assert run("generate", ROCKET, "-o", tmp_path / name) == 2
    assert says in capsys.readouterr().err
    assert time.monotonic() - started < 20
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


def test_several_images_need_a_folder_and_different_names(tmp_path, capsys):
    assert run("generate", ROCKET, str(EXAMPLES / "duck.png"), "-o", tmp_path / "both.glb") == 2
    assert "2 images need a folder" in capsys.readouterr().err
    other = tmp_path / "rocket.png"
    other.write_bytes(Path(ROCKET).read_bytes())
    assert run("generate", ROCKET, other, "-o", tmp_path / "out") == 2
    assert "several images would be written to rocket.glb" in capsys.readouterr().err


def test_inputs_are_named_and_never_overwritten(ball, tmp_path, capsys):
    assert run("generate", "-o", tmp_path / "out") == 2
    assert "name at least one image" in capsys.readouterr().err
    assert run("enhance", ROCKET, "-o", tmp_path / "out") == 2
    assert "name at least one coarse view" in capsys.readouterr().err
    image, mesh = tmp_path / "rocket.png", tmp_path / "ball.glb"
    image.write_bytes(Path(ROCKET).read_bytes())
    mesh.write_bytes(ball.read_bytes())
    for command in (
        ["views", image, "-o", image],
        ["refine", mesh, "--reference", image, "-o", tmp_path],
        ["enhance", image, ROCKET, "-o", tmp_path],
    ):
        assert run(*command) == 2
        assert "is an input and would be overwritten" in capsys.readouterr().err
    assert image.read_bytes() == Path(ROCKET).read_bytes()
    assert mesh.read_bytes() == ball.read_bytes()
    assert run("refine", mesh, "--reference", image, "-o", tmp_path / "new.glb", "--elevation", "90") == 2
    assert "elevation must be -85 to 85 degrees" in capsys.readouterr().err


def test_a_resumed_folder_leaves_out_what_is_done(tmp_path, capsys):
    from iso3d_core.images import load_reference
    from iso3d_core.pipeline import configure, work_key
    from iso3d_core.types import Mesh

    images = [ROCKET, str(EXAMPLES / "duck.png")]
    for path in images:
        key = work_key(configure("fast"), load_reference(path))
        triangle = np.eye(3, dtype=np.float32)
        Mesh(triangle, np.array([[0, 1, 2]], np.int32), triangle, metadata={"work": key}).save(
            tmp_path / f"{Path(path).stem}.glb"
        )
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert run("generate", *images, "-o", tmp_path, "--preset", "fast", "--resume") == 0
    assert capsys.readouterr().out.count("is done already") == 2
    (tmp_path / "file").touch()
    assert run("generate", *images, "-o", tmp_path, "--preset", "fast", "--resume", "--preview", tmp_path / "file") == 2
    (tmp_path / "file").unlink()
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_a_preview_that_fails_does_not_end_the_work(tmp_path):
    import torch

    from iso3d_core.bars import Bars
    from iso3d_core.types import Progress

    preview = tmp_path / "now.png"
    preview.mkdir()  # nothing can be moved there
    with Bars(preview) as bars:
        bars.show(Progress("views", 1, 2, lambda: torch.zeros(2, 3, 8, 8)))
    assert not list(tmp_path.glob("*.part"))


def test_a_full_disk_is_one_clear_line_and_leaves_nothing(tmp_path, capsys):
    resource = pytest.importorskip("resource", reason="no limit of a file's size on this system")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))  # every larger file fails to be written
    try:
        code = run("generate", ROCKET, "-o", tmp_path / "a.glb", "--preset", "fast")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert code == 2
    said = [line for line in capsys.readouterr().err.splitlines() if line.startswith("iso3d:")]
    assert len(said) == 1
    assert not [p for p in tmp_path.rglob("*") if p.is_file()]


def test_views_writes_a_sheet(tmp_path, capsys, monkeypatch):
    out = tmp_path / "sheet.png"
    assert run("views", ROCKET, "-o", out, "--views", "3", "--steps", "3") == 0
    with Image.open(out) as image:
        assert image.size == (3 * 64, 64)
    assert run("views", ROCKET, "-o", out, "--views", "17") == 2
    assert run("views", ROCKET, "-o", out, "--prior", "other") == 2
    assert "--prior must be multiview or zero123, got 'other'" in capsys.readouterr().err
    for command in (["views", ROCKET], ["generate", ROCKET], ["refine", ROCKET, "--reference", ROCKET]):
        assert run(*command, "-o", out if command[0] == "views" else out.with_suffix(".glb"), "--matting", "other") == 2
        assert "matting 'other' is unknown; choose one of auto, rembg, none" in capsys.readouterr().err
    drawn = []

    def sample(self, embedding, cameras, steps, guidance_scale, seed, *rest):
        drawn.append((cameras, steps, guidance_scale, seed))
        return torch.zeros(len(cameras), 3, 64, 64)

    with monkeypatch.context() as patch:
        patch.setattr("iso3d_core.priors.multiview.MultiViewPrior.sample", sample)
        more = ["--azimuth", "30", "--elevation", "-20", "--guidance", "1.5", "--seed", "9", "--steps", "7"]
        assert run("views", ROCKET, "-o", out, "--views", "2", *more) == 0
    rest, (x, y, z) = list(drawn[0][1:]), drawn[0][0].positions[0].tolist()
    assert rest == [7, 1.5, 9]
    assert math.degrees(math.atan2(y, x)) == pytest.approx(30, abs=1e-3)
    assert math.degrees(math.atan2(z, math.hypot(x, y))) == pytest.approx(-20, abs=1e-3)
    one = tmp_path / "one.png"
    zero = ["--prior", "zero123", "--views", "1", "--azimuth", "120", "--elevation", "30", "--steps", "3"]
    assert run("views", ROCKET, "-o", one, *zero) == 0
    with Image.open(one) as image:
        assert image.size == (64, 64)
    assert run("views", ROCKET, "-o", tmp_path / "sheet.jpg") == 2


@pytest.fixture(scope="module")
def ball(tmp_path_factory):
    import trimesh

    path = tmp_path_factory.mktemp("mesh") / "ball.glb"
    trimesh.creation.icosphere(subdivisions=2).export(path)
    return path


@pytest.mark.parametrize("style", ["color", "clay", "normal", "depth", "mask"])
def test_render_writes_frames(style, ball, tmp_path):
    assert run("render", ball, "-o", tmp_path / "frames", "--frames", "2", "--size", "32", "--style", style) == 0
    frames = sorted((tmp_path / "frames").glob("*.png"))
    assert [f.name for f in frames] == ["0000.png", "0001.png"]
    with Image.open(frames[0]) as image:
        pixels = np.asarray(image.convert("RGB"))
    assert pixels[16, 16].tolist() != pixels[0, 0].tolist() or style == "color"


@pytest.mark.parametrize("style", ["color", "normal", "depth", "mask"])
def test_render_takes_a_field(style, tmp_path):
    from iso3d_core.fields.scene import Scene
    from iso3d_core.presets import preset

    config = preset("paper")
    Scene(config.field, config.render).save(tmp_path / "blob.field.safetensors")
    out = tmp_path / "sheet.png"
    field = tmp_path / "blob.field.safetensors"
    assert run("render", field, "-o", out, "--frames", "2", "--size", "32", "--style", style) == 0
    with Image.open(out) as image:
        pixels = np.asarray(image)
    assert pixels.shape == (32, 64, 3)
    assert len(np.unique(pixels)) > 2
    assert (pixels[0, 0] == (0 if style in ("depth", "mask") else 255)).all()
    assert run("render", field, "-o", out, "--frames", "1", "--size", "32", "--style", style, "--transparent") == 0
    with Image.open(out) as image:
        straight = np.asarray(image)
    if style == "color":  # no white in it where the object is thin
        solid, thin = straight[..., 3] > 250, (straight[..., 3] > 8) & (straight[..., 3] < 128)
        assert abs(int(straight[thin][:, :3].mean()) - int(straight[solid][:, :3].mean())) < 8


@pytest.mark.parametrize("suffix", [".webp", ".gif"])
def test_render_writes_animations(suffix, ball, tmp_path):
    out = tmp_path / f"turn{suffix}"
    assert run("render", ball, "-o", out, "--frames", "3", "--size", "32", "--style", "normal") == 0
    with Image.open(out) as image:
        assert image.is_animated
        assert image.n_frames in (2, 3)  # equal neighbours may be merged


def test_render_refuses_what_it_cannot_do(ball, tmp_path, capsys):
    assert run("render", ball, "-o", tmp_path / "a.mp4") == 2
    assert run("render", ball, "-o", tmp_path / "a.gif", "--style", "oil") == 2
    assert run("render", tmp_path / "none.glb", "-o", tmp_path / "a.gif") == 2
    assert run("render", ball, "-o", tmp_path / "a.gif", "--frames", "1000", "--size", "4096") == 2
    assert capsys.readouterr().err.count("iso3d: ") == 4
    assert list(tmp_path.iterdir()) == []


def test_models_and_doctor_know_the_embedded_bundle(capsys):
    assert run("models", "list") == 0
    assert "tiny" in capsys.readouterr().out
    assert run("doctor") == 0
    said = capsys.readouterr().out
    assert "intact" in said
    assert "torch" in said
    chosen = str(choose_arithmetic("auto", "auto")[1]).removeprefix("torch.")
    assert f"arithmetic {chosen}" in said


@pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")
def test_a_killed_run_resumes_and_an_interrupt_ends_with_130(tmp_path):
    out, state = tmp_path / "rocket.glb", tmp_path / ".rocket.glb.resume"
    command = [sys.executable, "-m", "iso3d_core", "generate", ROCKET, "-o", str(out), "--preset", "fast"]

    def wait_until(happened, process):
        limit = time.monotonic() + 120
        while not happened() and process.poll() is None and time.monotonic() < limit:
            time.sleep(0.05)

    killed = subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL)
    wait_until(lambda: list(state.glob("*.pt")), killed)
    killed.kill()
    killed.communicate()
    assert not out.exists()
    assert list(state.glob("*.pt"))
    log = tmp_path / "said.txt"
    with log.open("wb") as stderr:
        interrupted = subprocess.Popen([*command, "--resume"], stderr=stderr, stdout=subprocess.DEVNULL)
    wait_until(
        lambda: b"it/s" in log.read_bytes(), interrupted
    )  # so that the interrupt meets the work, not the imports
    if interrupted.poll() is None:
        interrupted.send_signal(signal.SIGINT)
    interrupted.wait(timeout=60)
    said = log.read_bytes()
    assert interrupted.returncode in (130, 0), said
    if interrupted.returncode == 130:
        assert b"Traceback" not in said
        assert not out.exists()
        assert subprocess.run([*command, "--resume"], capture_output=True, check=False).returncode == 0
    assert out.exists()
    assert not state.exists()
    assert not list(tmp_path.glob("*.part"))
    assert os.path.getsize(out) > 10_000
