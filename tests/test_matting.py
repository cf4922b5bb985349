"""The object is cut out of its background, whatever that is, with clean edges."""

import sys
import types

import numpy as np
import pytest
import torch
from pictures import RED, disc, disc_on
from PIL import Image

from iso3d_core.images import load_reference
from iso3d_core.types import InputError


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
