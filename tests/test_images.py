"""Every kind of image file becomes the same upright, matted, centred reference."""

import struct

import cv2
import numpy as np
import pytest
import torch
from pictures import disc, disc_on
from PIL import Image

from iso3d_core.images import center_crop, load_reference
from iso3d_core.types import InputError


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
