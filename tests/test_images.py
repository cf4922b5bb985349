"""Every kind of image file becomes the same upright, matted, centred reference; everything else a clear sentence."""

import struct
import sys
import time
import tracemalloc
import types
import warnings
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

from iso3d_core.images import center_crop, load_reference
from iso3d_core.types import InputError

RED = np.array([220, 30, 40], np.uint8)


def disc(height=120, width=160, radius=40, supersampling=8):
    """Coverage [H, W] in [0, 1] of an antialiased disc, off the middle."""
    step = 1 / supersampling
    y, x = np.mgrid[step / 2 : height : step, step / 2 : width : step]
    inside = (y - 55) ** 2 + (x - 90) ** 2 < radius**2
    return inside.reshape(height, supersampling, width, supersampling).mean((1, 3))


def disc_on(background, coverage=None):
    coverage = disc() if coverage is None else coverage
    mixed = coverage[..., None] * RED + (1 - coverage[..., None]) * np.asarray(background, float)
    return mixed.round().astype(np.uint8)


@pytest.fixture
def cut_out():
    """[120, 160, 4] uint8: a shaded block with alpha, unlike itself under any rotation or flip."""
    rgba = np.zeros((120, 160, 4), np.uint8)
    rgba[20:90, 30:130] = [200, 60, 20, 255]
    rgba[20:40, 30:80] = [20, 90, 220, 255]
    rgba[80:90, 30:60, 3] = 128
    return rgba


def png_chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png_header(width, height):
    header = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + png_chunk(b"IHDR", header) + png_chunk(b"IDAT", zlib.compress(b"\0" * 64))


def mode_of(path):
    with Image.open(path) as image:
        return image.mode


def mean_color(rgba):
    weight = rgba[3]
    return (rgba[:3] * weight).sum((1, 2)) / weight.sum()


def test_the_result_is_square_float_and_named_by_its_file(tmp_path, cut_out):
    path = tmp_path / "red block.v2.png"
    Image.fromarray(cut_out).save(path)
    reference = load_reference(path, size=96)
    assert reference.rgba.shape == (4, 96, 96)
    assert reference.rgba.dtype == torch.float32
    assert reference.rgba.is_contiguous()
    assert reference.rgba.min() == 0
    assert reference.rgba.max() <= 1
    assert reference.name == "red block.v2"
    assert load_reference(cut_out).name == "image"


@pytest.mark.parametrize("size", [64, 65, 256])
@pytest.mark.parametrize("margin", [0.0, 0.1, 0.25])
def test_the_object_is_centred_with_its_margin(cut_out, size, margin):
    alpha = load_reference(cut_out, size=size, margin=margin).rgba[3] > 0.05
    rows, columns = torch.nonzero(alpha.any(1))[:, 0], torch.nonzero(alpha.any(0))[:, 0]
    assert abs((rows[0] + rows[-1] + 1) / 2 - size / 2) <= 0.5
    assert abs((columns[0] + columns[-1] + 1) / 2 - size / 2) <= 0.5
    width, height = int(columns[-1] - columns[0]) + 1, int(rows[-1] - rows[0]) + 1
    assert abs(width - size * (1 - 2 * margin)) <= 1
    assert abs(height - size * (1 - 2 * margin) * 70 / 100) <= 1


def test_path_string_pil_array_and_tensor_agree(tmp_path, cut_out):
    path = tmp_path / "a.png"
    Image.fromarray(cut_out).save(path)
    expected = load_reference(path).rgba
    as_float = cut_out.astype(np.float32) / 255
    for source in (
        str(path),
        Image.fromarray(cut_out),
        cut_out,
        cut_out.astype(np.uint16) * 257,
        as_float,
        as_float.astype(np.float64),
        torch.from_numpy(cut_out).permute(2, 0, 1),
        torch.from_numpy(as_float).permute(2, 0, 1).requires_grad_(),
    ):
        assert torch.equal(load_reference(source).rgba, expected)


def test_arrays_are_left_as_they_were(cut_out):
    as_float = cut_out.astype(np.float32) / 255
    before = as_float.copy()
    load_reference(as_float)
    assert np.array_equal(as_float, before)


def test_16_bit_files_equal_their_8_bit_twins(tmp_path, cut_out):
    bgra = cut_out[..., [2, 1, 0, 3]]
    for name, image in {"rgba": bgra, "rgb": bgra[..., :3], "grey": bgra[..., 0]}.items():
        narrow, wide = tmp_path / f"{name}8.png", tmp_path / f"{name}16.png"
        cv2.imwrite(str(narrow), image)
        cv2.imwrite(str(wide), image.astype(np.uint16) * 257)
        assert torch.equal(load_reference(wide).rgba, load_reference(narrow).rgba)
    grey = tmp_path / "grey16.tif"
    Image.fromarray(bgra[..., 0].astype(np.uint16) * 257).save(grey)
    assert torch.equal(load_reference(grey).rgba, load_reference(tmp_path / "grey8.png").rgba)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_rotated_equals_upright(tmp_path, cut_out, orientation):
    undo = {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }
    upright = Image.fromarray(cut_out)
    stored = upright.transpose(undo[orientation]) if orientation > 1 else upright
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored.save(tmp_path / "turned.png", exif=exif)
    assert torch.equal(load_reference(tmp_path / "turned.png").rgba, load_reference(upright).rgba)


def test_palette_with_transparency_equals_rgba(tmp_path, cut_out):
    indices = np.where(cut_out[..., 3] == 0, 0, np.where(cut_out[..., 2] > 100, 1, 2)).astype(np.uint8)
    image = Image.fromarray(indices).convert("L")
    image.putpalette([255, 0, 255, 20, 90, 220, 200, 60, 20])
    assert image.mode == "P"
    cut_out[..., 3] = np.where(cut_out[..., 3] > 0, 255, 0)
    expected = load_reference(cut_out).rgba
    image.save(tmp_path / "index.png", transparency=0)
    image.save(tmp_path / "bytes.png", transparency=b"\x00\xff\xff")
    image.save(tmp_path / "index.gif", transparency=0)
    for name in ("index.png", "bytes.png", "index.gif"):
        assert torch.equal(load_reference(tmp_path / name).rgba, expected), name


def test_grey_grey_alpha_and_rgb_agree(tmp_path):
    coverage = (disc() * 255).round().astype(np.uint8)
    grey = np.full_like(coverage, 90)
    la = np.dstack([grey, coverage])
    Image.fromarray(la).save(tmp_path / "la.png")
    assert mode_of(tmp_path / "la.png") == "LA"
    rgba = np.dstack([grey, grey, grey, coverage])
    assert torch.equal(load_reference(tmp_path / "la.png").rgba, load_reference(rgba).rgba)

    opaque = disc_on([255, 255, 255])[..., 1]
    Image.fromarray(opaque).save(tmp_path / "l.png")
    expected = load_reference(np.dstack([opaque] * 3)).rgba
    assert torch.equal(load_reference(tmp_path / "l.png").rgba, expected)
    assert torch.equal(load_reference(opaque).rgba, expected)
    assert torch.equal(load_reference(opaque[..., None]).rgba, expected)


def test_1_bit(tmp_path):
    bits = disc() < 0.5
    Image.fromarray(bits).save(tmp_path / "bits.png")
    rgba = load_reference(tmp_path / "bits.png", size=128).rgba
    assert torch.equal(rgba, load_reference(bits, size=128).rgba)
    assert rgba[3, 64, 64] == 1
    assert rgba[:3, 64, 64].max() == 0
    assert rgba[3, 2, 2] == 0


def test_cmyk_is_near_rgb(tmp_path):
    image = Image.fromarray(disc_on([255, 255, 255]))
    image.convert("CMYK").save(tmp_path / "cmyk.jpg", quality=95)
    image.convert("CMYK").save(tmp_path / "cmyk.tif")
    expected = mean_color(load_reference(image).rgba)
    for name in ("cmyk.jpg", "cmyk.tif"):
        assert mode_of(tmp_path / name) == "CMYK"
        torch.testing.assert_close(mean_color(load_reference(tmp_path / name).rgba), expected, atol=0.03, rtol=0)


@pytest.mark.parametrize("suffix", ["bmp", "tga", "ppm", "tif", "gif", "webp"])
def test_lossless_formats_equal_png(tmp_path, suffix):
    image = disc_on([0, 255, 0], coverage=(disc() > 0.5).astype(float))
    options = {"lossless": True} if suffix == "webp" else {}
    Image.fromarray(image).save(tmp_path / f"a.{suffix}", **options)
    assert torch.equal(load_reference(tmp_path / f"a.{suffix}").rgba, load_reference(image).rgba)


@pytest.mark.parametrize("background", [[255, 255, 255], [0, 0, 0], [20, 200, 60]])
def test_a_disc_on_one_color_is_matted_to_its_area_and_color(background):
    size, margin = 256, 0.1
    rgba = load_reference(disc_on(background), size=size, margin=margin).rgba
    true_area = np.pi / 4 * (size * (1 - 2 * margin)) ** 2
    assert abs(float(rgba[3].sum()) / true_area - 1) < 0.02
    visible = rgba[3] > 0.05
    distance = (rgba[:3, visible] - torch.tensor(RED / 255.0)[:, None]).abs().amax(0)
    assert distance.mean() < 0.005
    assert distance.max() < 0.1


@pytest.mark.parametrize(("subsampling", "tolerance"), [(0, 0.02), (2, 0.06)])
def test_a_jpeg_is_matted_like_the_original(tmp_path, subsampling, tolerance):
    # Halved chroma blurs the rim of this disc by a pixel, which is 5 % of its area.
    Image.fromarray(disc_on([255, 255, 255])).save(tmp_path / "a.jpg", quality=90, subsampling=subsampling)
    ours, exact = (load_reference(s).rgba[3] for s in (tmp_path / "a.jpg", disc_on([255, 255, 255])))
    assert abs(ours.sum() / exact.sum() - 1) < tolerance


def test_white_inside_the_object_stays():
    image = disc_on([255, 255, 255])
    image[45:65, 80:100] = 255
    rgba = load_reference(image, size=128).rgba
    assert rgba[:, 64, 64].tolist() == [1, 1, 1, 1]


def test_a_varied_background_is_cut_away_by_grabcut():
    y = np.arange(120)[:, None]
    noise = np.random.default_rng(0).random((120, 160, 3)) * 25
    sky_and_floor = np.where(y[..., None] > 70, [130.0, 90, 50], [170.0, 200, 225]) + noise
    coverage = disc()
    image = disc_on(sky_and_floor, coverage)
    first = load_reference(image, size=128).rgba
    true_area = np.pi / 4 * (128 * 0.8) ** 2
    assert abs(float(first[3].sum()) / true_area - 1) < 0.05
    assert torch.equal(first, load_reference(image, size=128).rgba)


def test_nearly_opaque_alpha_counts_as_none():
    image = disc_on([255, 255, 255])
    alpha = np.full(image.shape[:2], 255, np.uint8)
    alpha[::7] = 253
    assert torch.equal(load_reference(np.dstack([image, alpha])).rgba, load_reference(image).rgba)


def test_matting_none_takes_the_whole_image():
    image = disc_on([255, 255, 255])
    alpha = load_reference(image, size=160, margin=0, matting="none").rgba[3]
    assert torch.equal(alpha[20:140], torch.ones(120, 160))
    assert alpha.sum() == 120 * 160


def test_other_color_spaces_become_srgb(tmp_path):
    from PIL import ImageCms

    lab = ImageCms.createProfile("LAB")
    for mode, profile, changes in (
        ("RGB", ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes(), False),
        ("RGB", ImageCms.ImageCmsProfile(lab).tobytes(), False),  # of other channels
        ("RGB", b"no profile", False),
        ("RGB", wide_profile(), True),
        ("RGBA", wide_profile(), True),
    ):
        image = Image.new(mode, (32, 32), (200, 40, 40, 128)[: len(mode)])
        image.save(tmp_path / "p.png", icc_profile=profile)
        rgba = load_reference(tmp_path / "p.png", size=32, margin=0, matting="none").rgba[:, 16, 16] * 255
        if changes:  # as saturated as it was meant, which is more
            assert rgba[0] > 215
            assert rgba[1] < 30
        else:
            assert rgba[:3].round().tolist() == [200, 40, 40]
        assert float(rgba[3]) == pytest.approx(128 if mode == "RGBA" else 255, abs=1)


def wide_profile():
    """sRGB's profile with the primaries of Display P3 (SMPTE EG 432-1), adapted to D50."""
    from PIL import ImageCms

    data = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    columns = {b"rXYZ": (0.5151, 0.2412, -0.0011), b"gXYZ": (0.2920, 0.6922, 0.0419), b"bXYZ": (0.1571, 0.0666, 0.7841)}
    for number in range(struct.unpack_from(">I", data, 128)[0]):
        tag, offset, size = struct.unpack_from(">4sII", data, 132 + 12 * number)
        if tag in columns:
            struct.pack_into(">3i", data, offset + 8, *(round(65536 * x) for x in columns[tag]))
        elif tag == b"desc":
            data[offset + 8 : offset + size] = bytes(data[offset + 8 : offset + size]).replace(
                "sRGB".encode("utf-16-be"), "wide".encode("utf-16-be")
            )
    return bytes(data)


def test_an_object_of_several_pieces_keeps_them():
    image = np.full((100, 200, 3), 255, np.uint8)
    y, x = np.mgrid[:100, :200]
    for center in (50, 150):
        image[(x - center) ** 2 + (y - 50) ** 2 < 30**2] = (200, 30, 30)
    alpha = load_reference(image, size=100, margin=0).rgba[3]
    assert float(alpha[:, :45].max()) == float(alpha[:, 55:].max()) == 1


def test_matting_by_rembg(monkeypatch):
    monkeypatch.setitem(sys.modules, "rembg", None)
    with pytest.raises(InputError, match=r'pip install "iso3d\[matting\]"'):
        load_reference(disc_on([255, 255, 255]), matting="rembg")
    fake = types.ModuleType("rembg")
    fake.remove = lambda image, only_mask: Image.fromarray((image[..., 1] < 128).astype(np.uint8) * 255)
    monkeypatch.setitem(sys.modules, "rembg", fake)
    assert load_reference(disc_on([255, 255, 255]), matting="rembg").rgba[3].mean() > 0.4

    def offline(*_, **__):
        raise ConnectionError("no route to the network's host")

    fake.remove = offline
    with pytest.raises(InputError, match=r"rembg failed \(no route .* downloaded at first use"):
        load_reference(disc_on([255, 255, 255]), matting="rembg")


@pytest.mark.parametrize("size", [32, 256])
def test_transparent_pixels_do_not_darken_the_edges(size):
    coverage = disc()
    rgba = np.dstack([np.where(coverage[..., None] > 0, RED, 0), (coverage * 255).round()]).astype(np.uint8)
    result = load_reference(rgba, size=size).rgba
    visible = result[3] > 1e-3
    torch.testing.assert_close(
        result[:3, visible].T,
        torch.tensor(RED / 255.0, dtype=torch.float32).expand(int(visible.sum()), 3),
        atol=1e-3,
        rtol=0,
    )


def test_center_crop_keeps_what_is_centred_already():
    rgba = np.zeros((64, 64, 4), np.float32)
    rgba[6:58, 6:58] = np.random.default_rng(0).random((52, 52, 4)) * 0.5 + 0.5
    assert np.allclose(center_crop(rgba, 64, margin=6 / 64), rgba, atol=1e-6)
    with pytest.raises(InputError, match="fully transparent"):
        center_crop(np.zeros((64, 64, 4), np.float32), 64)


def test_large_files_are_reduced_alike(tmp_path, cut_out):
    large = Image.fromarray(cut_out).resize((3200, 2400), Image.Resampling.NEAREST)
    large.save(tmp_path / "large.png")
    difference = (load_reference(tmp_path / "large.png").rgba - load_reference(cut_out).rgba).abs().mean()
    assert difference < 0.02


# What cannot be used


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


def test_large_arrays_are_reduced_as_large_files_are(tmp_path):
    from iso3d_core.images import _read_array

    y, x = np.mgrid[:2500, :2300]
    inside = (x - 1200) ** 2 + (y - 1300) ** 2 < 800**2
    deep = np.where(inside, 12_345, 65_535).astype(np.uint16)
    small = _read_array(deep, "it", 2048)
    assert small.shape == (1250, 1150, 4)
    assert small.dtype == np.float32
    assert small[650, 600, 0] == pytest.approx(12_345 / 65_535, abs=1e-6)
    straight = np.dstack([np.full((*inside.shape, 3), 0.25, np.float32), inside.astype(np.float32)])
    small = _read_array(straight, "it", 1000)
    assert small.shape == (834, 767, 4)
    seen = small[..., 3] > 0.01
    assert np.allclose(small[seen][:, :3], 0.25, atol=1e-5)  # what is transparent has no color to give
    Image.fromarray(deep).save(tmp_path / "deep.png")
    assert load_reference(tmp_path / "deep.png").rgba.shape == (4, 256, 256)
