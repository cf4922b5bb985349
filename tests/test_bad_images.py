"""What is no usable image is refused with one clear sentence."""

import sys
import time
import tracemalloc
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from pictures import disc_on, png_header
from PIL import Image

from iso3d_core.images import load_reference
from iso3d_core.types import InputError


def sentence(source, **options):
    with pytest.raises(InputError) as caught:
        load_reference(source, **options)
    message = str(caught.value)
    assert message.endswith(".")
    assert "\n" not in message
    return message


def test_no_file_a_folder_text_and_nothing(tmp_path):
    assert "There is no image file" in sentence(tmp_path / "missing.png")
    assert "missing.png" in sentence(str(tmp_path / "missing.png"))
    assert "is a folder" in sentence(tmp_path)
    (tmp_path / "notes.png").write_text("not an image\n" * 50)
    assert "'notes.png' is not an image" in sentence(tmp_path / "notes.png")
    (tmp_path / "nothing.png").write_bytes(b"")
    assert "is not an image" in sentence(tmp_path / "nothing.png")
    (tmp_path / "program.eps").write_text("%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 99 99\n%%EndComments\n")
    assert "is not an image" in sentence(tmp_path / "program.eps")


def test_truncated_files(tmp_path):
    noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)
    for suffix in ("png", "jpg", "tif", "webp"):
        whole = tmp_path / f"whole.{suffix}"
        Image.fromarray(noise).save(whole)
        data = whole.read_bytes()
        for kept in (12, 40, len(data) // 2, len(data) - 30):
            (tmp_path / f"cut.{suffix}").write_bytes(data[:kept])
            message = sentence(tmp_path / f"cut.{suffix}")
            assert "cannot be decoded" in message or "is not an image" in message
            if suffix == "png" and kept > 40:
                assert "it may be damaged" in message


def test_too_small_and_empty(tmp_path):
    assert "is empty (0 x 0 px)" in sentence(np.zeros((0, 0, 3), np.uint8))
    assert "is empty (0 x 5 px)" in sentence(torch.zeros(3, 5, 0))
    Image.new("RGB", (1, 1)).save(tmp_path / "dot.png")
    assert "'dot.png' is too small (1 x 1 px)" in sentence(tmp_path / "dot.png")
    assert "too small (30 x 7 px)" in sentence(np.zeros((7, 30), np.uint8))
    speck = np.zeros((50, 50, 4), np.uint8)
    speck[10:13, 20:24] = 255
    assert "an object of only 4 x 3 px" in sentence(speck)


@pytest.mark.parametrize(
    ("width", "height", "said"),
    [(20_000, 20_000, "400 megapixels"), (9000, 9000, "9000 x 9000 px"), (10_000, 10_000, "10000 x 10000 px"),
     (16_385, 9, "16385 x 9 px")],
)  # fmt: skip
def test_too_large_is_refused_from_the_header(tmp_path, width, height, said):
    path = tmp_path / "vast.png"
    path.write_bytes(png_header(width, height))
    sentence(path)  # imports and plugins, so that only the refusal is measured
    tracemalloc.start()
    start = time.perf_counter()
    message = sentence(path)
    seconds = time.perf_counter() - start
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert said in message
    assert "too large" in message
    assert seconds < 1
    assert peak < 2_000_000


def test_nothing_to_see():
    assert "is fully transparent" in sentence(np.zeros((32, 32, 4), np.uint8))
    for color in (0, 128, 255):
        message = sentence(np.full((32, 32, 3), color, np.uint8))
        assert "nothing that stands out" in message
        assert "alpha channel" in message


def test_values_shapes_and_types_that_mean_nothing():
    image = np.full((16, 16, 3), 0.5)
    image[3, 4] = np.nan
    assert "holds NaN in 3 values" in sentence(image)
    assert "holds NaN" in sentence(torch.from_numpy(image).permute(2, 0, 1))
    assert "values from 0 to 255" in sentence(np.linspace(0, 255, 256).reshape(16, 16))
    assert "inf" in sentence(np.full((16, 16), np.inf))
    assert "int64" in sentence(np.zeros((16, 16), np.int64))
    assert "[16, 16, 2]" in sentence(np.zeros((16, 16, 2), np.uint8))
    assert "[3, 16, 16]" in sentence(np.zeros((3, 16, 16), np.uint8))
    assert "[16, 16, 3]" in sentence(torch.zeros(16, 16, 3))
    assert "NoneType" in sentence(None)


def test_options_out_of_range():
    image = disc_on([255, 255, 255])
    assert "margin is 0.5" in sentence(image, margin=0.5)
    assert "size of the reference is 0 px" in sentence(image, size=0)
    assert "'magic' is unknown" in sentence(image, matting="magic")


def test_no_warning_and_no_open_file_escape(tmp_path, cut_out):
    Image.fromarray(cut_out).save(tmp_path / "good.png")
    (tmp_path / "cut.png").write_bytes((tmp_path / "good.png").read_bytes()[:200])
    (tmp_path / "vast.png").write_bytes(png_header(9900, 9900))  # Pillow itself only warns of this one
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        load_reference(tmp_path / "good.png")
        sentence(tmp_path / "cut.png")
        sentence(tmp_path / "vast.png")
    assert caught == []
    for path in tmp_path.iterdir():
        path.unlink()
    if sys.platform == "linux":
        still_open = [str(link.readlink()) for link in Path("/proc/self/fd").iterdir() if link.is_symlink()]
        assert not [name for name in still_open if str(tmp_path) in name]
