"""Isotropic3D's original checkpoint to a bundle: the same numbers as an independent network."""

import json

import numpy as np
import pytest
import torch
from originals import LAYOUT, isotropic3d_networks, isotropic3d_weights, random, saved
from torch.nn import functional as F

from iso3d_core.cameras import even_azimuths, orbit
from iso3d_core.checkpoints.convert import convert, read_state
from iso3d_core.priors.attention import predict
from iso3d_core.priors.clip import image_tensor
from iso3d_core.priors.multiview import MultiViewPrior
from iso3d_core.types import Reference


@pytest.fixture(scope="module")
def networks():
    return isotropic3d_networks()


@pytest.fixture(scope="module")
def checkpoint(networks, tmp_path_factory):
    return saved(isotropic3d_weights(networks), tmp_path_factory.mktemp("checkpoint") / "isotropic3d.ckpt")


@pytest.fixture(scope="module")
def prior(checkpoint, tmp_path_factory):
    out = convert(checkpoint, "isotropic3d", tmp_path_factory.mktemp("bundles") / "small", layout=LAYOUT)
    return MultiViewPrior.load(out, "cpu", "float32")


def test_the_unet_gives_the_same_numbers(networks, prior):
    z, t = random(2, 3, 4, 8, 8), torch.tensor([[3, 3, 3], [700, 700, 700]])
    embedding, cameras = random(2, 1, 16, seed=1), random(2, 3, 16, seed=2)
    with torch.no_grad():
        ours = predict(prior.unet, z, t, embedding, cameras)
        theirs = networks["unet"](
            z.flatten(0, 1), t.flatten(), embedding.repeat_interleave(3, dim=0), cameras.flatten(0, 1), views=3
        )
    assert float(theirs.std()) > 0.1
    assert float((ours.flatten(0, 1) - theirs).abs().max()) < 1e-4
    with torch.no_grad():
        alone = networks["unet"](
            z.flatten(0, 1), t.flatten(), embedding.repeat_interleave(3, dim=0), cameras.flatten(0, 1)
        )
    assert float((alone - theirs).abs().max()) > 1e-2  # the views do attend to each other


def test_a_noise_free_reference_frame_gives_the_same_numbers(networks, prior):
    z, cameras, embedding = random(1, 5, 4, 8, 8), random(1, 5, 16, seed=2), random(1, 1, 16, seed=1)
    t = torch.tensor([[0, 400, 400, 400, 400]])
    with torch.no_grad():
        ours = predict(prior.unet, z, t, embedding, cameras)[0]
        theirs = networks["unet"](z[0], t[0], embedding.expand(5, 1, 16), cameras[0], views=5)
    assert float((ours - theirs).abs().max()) < 1e-4


def test_the_vae_gives_the_same_numbers_and_gradients(networks, prior):
    rgb = random(2, 3, 16, 16).sigmoid().requires_grad_()
    z = prior.encode(rgb)
    mean = 0.18215 * networks["vae"].mean(rgb * 2 - 1)
    assert float((z - mean).detach().abs().max()) < 1e-4
    ours, theirs = (torch.autograd.grad(x.square().sum(), rgb, retain_graph=True)[0] for x in (z, mean))
    assert float((ours - theirs).abs().max()) < 1e-4 * max(1.0, float(theirs.abs().max()))
    with torch.no_grad():
        decoded = (networks["vae"].decode(z.detach() / 0.18215) / 2 + 0.5).clamp(0, 1)
        assert float((prior.decode(z.detach()) - decoded).abs().max()) < 1e-4


def test_the_image_tower_sees_what_the_official_code_shows_it(networks, prior):
    reference = Reference(random(4, 300, 300).sigmoid())
    white = reference.on_white()[None]
    image = F.interpolate(F.interpolate(white, (256, 256), mode="area"), (28, 28), mode="bicubic", align_corners=True)
    mean, std = (torch.tensor(v).reshape(1, 3, 1, 1) for v in ([0.48145466, 0.4578275, 0.40821073],
                                                             [0.26862954, 0.26130258, 0.27577711]))  # fmt: skip
    with torch.no_grad():
        expected = networks["clip"].visual((image - mean) / std)
    found = prior.embed(reference)
    assert found.shape == (1, 1, 16)
    assert float((found[0] - expected).abs().max()) < 1e-4
    assert image_tensor(reference, 28, [0.0] * 3, [1.0] * 3, via=256).shape == (1, 3, 28, 28)


def test_cameras_are_the_official_codes(prior):
    """Degrees converted to radians twice, in a world with Y up that is then turned to Blender's."""
    for elevation, azimuth in ((15.0, 0.0), (20.0, 100.0), (0.0, 350.0), (30.0, 270.0)):
        e, a = np.radians(np.radians(elevation)), np.radians(np.radians(azimuth))
        place = np.array([np.cos(e) * np.sin(a), np.sin(e), np.cos(e) * np.cos(a)])
        right = np.cross(-place, [0, 1, 0])
        right /= np.linalg.norm(right)
        matrix = np.eye(4)
        matrix[:3] = np.stack([right, np.cross(right, -place), place, place], axis=1)
        blender = np.array([[1, 0, 0, 0], [0, 0, -1, 0], [0, 1, 0, 0], [0, 0, 0, 1]]) @ matrix
        found = prior.camera_embedding(orbit(azimuth, elevation))
        assert found.shape == (1, 16)
        assert np.allclose(found[0].numpy(), blender.reshape(-1), atol=1e-6)


def test_a_converted_bundle_samples(prior):
    embedding = prior.embed(Reference(random(4, 64, 64).sigmoid()))
    views = prior.sample(embedding, orbit(even_azimuths(4), 15.0), steps=2)
    assert views.shape == (4, 3, 16, 16)
    assert bool(torch.isfinite(views).all())


def test_a_bundle_says_where_it_comes_from_and_is_checked(checkpoint, tmp_path):
    out = convert(
        checkpoint, "isotropic3d", tmp_path / "b", half=True, layout=LAYOUT, source={"license": "as its card"}
    )
    info = json.loads((out / "bundle.json").read_text())
    assert info["made_from"] == "isotropic3d.ckpt"
    assert info["license"] == "as its card"
    assert info["camera"]["angles"] == "degrees_converted_twice"
    from iso3d_core.weights import Bundle

    bundle = Bundle(out)
    assert bundle.parts == ["clip", "multiview", "vae"]
    assert bundle.broken_files() == []
    weight = read_state(next((out / "multiview").glob("*.safetensors")))["conv_in.weight"]
    assert weight.dtype == torch.float16
    convert(checkpoint, "isotropic3d", out, layout=LAYOUT)  # a bundle may be replaced by another
    assert read_state(next((out / "multiview").glob("*.safetensors")))["conv_in.weight"].dtype == torch.float32
