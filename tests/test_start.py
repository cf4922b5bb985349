"""Training that starts from a bundle: weights that do not quite fit are made to."""

import json

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from small import UNET
from torch import nn
from torch.nn import functional as F

from iso3d_core.cameras import even_azimuths, orbit, unit_sphere_matrix
from iso3d_core.options import TrainOptions
from iso3d_core.priors.attention import HARMONICS, steer
from iso3d_core.priors.clip import ClipImage, make_image_tower
from iso3d_core.priors.sketch import Sketch
from iso3d_core.train import data, diffusion, start
from iso3d_core.train.bundle import read_report, write_depth
from iso3d_core.train.loop import load_tensors
from iso3d_core.train.run import first_views, run_depth, run_vae, same_widths
from iso3d_core.train.start import (
    embedding_map,
    for_places,
    grow,
    old_embeddings,
    take_over,
    through,
    without_reference,
)
from iso3d_core.types import Reference
from iso3d_core.weights import find_bundle


def random(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_a_positional_embedding_is_spread_over_more_places():
    name = "visual.attnpool.positional_embedding"
    grid = torch.tensor([[0.0, 0.0], [0.0, 8.0], [8.0, 0.0], [8.0, 8.0]])  # (row, column) of 2 x 2 places
    found = for_places({name: torch.cat([torch.tensor([[5.0, 6.0]]), grid]), "other": grid}, 4)
    assert found[name].shape == (17, 2)
    assert found[name][0].tolist() == [5.0, 6.0]
    spread = found[name][1:].reshape(4, 4, 2)
    assert spread[:, 0, 0].tolist() == spread[0, :, 1].tolist() == [0.0, 2.0, 6.0, 8.0]
    assert found["other"] is grid
    assert for_places({"other": grid}, 4) == {"other": grid}


def test_weights_of_another_unet_are_taken_over_without_effect_of_new_channels():
    from diffusers import UNet2DConditionModel

    torch.manual_seed(0)
    small, large = UNet2DConditionModel(**UNET), UNet2DConditionModel(**{**UNET, "in_channels": 8})
    take_over(large, small.state_dict())
    z, t, context = random(2, 4, 4, 4), torch.tensor([3, 900]), random(2, 1, 12, seed=1)
    labels = random(2, 16, seed=2)
    with torch.no_grad():
        expected = small(z, t, context, class_labels=labels).sample
        found = large(torch.cat([z, random(2, 4, 4, 4, seed=3)], dim=1), t, context, class_labels=labels).sample
    torch.testing.assert_close(found, expected)


def test_a_network_of_views_starts_from_one_that_also_saw_the_reference():
    from diffusers import UNet2DConditionModel

    torch.manual_seed(0)
    own, latents = UNet2DConditionModel(**{**UNET, "in_channels": 6}), UNET["in_channels"]
    other = UNet2DConditionModel(**{**UNET, "in_channels": 6 + latents})
    take_over(own, without_reference(other.state_dict(), latents))
    noisy, guess, t, context = (
        random(2, latents, 4, 4),
        random(2, 2, 4, 4, seed=1),
        torch.tensor([3, 900]),
        random(2, 1, 12),
    )
    labels = random(2, 16, seed=2)
    with torch.no_grad():
        given = torch.cat([noisy, torch.zeros_like(noisy), guess], dim=1)
        expected = other(given, t, context, class_labels=labels).sample
        torch.testing.assert_close(
            own(torch.cat([noisy, guess], dim=1), t, context, class_labels=labels).sample, expected
        )


def test_views_start_from_zero123_where_the_bundle_s_own_have_other_widths(monkeypatch):
    bundle = find_bundle("tiny")
    assert same_widths(None)
    monkeypatch.setitem(diffusion.TINY, "block_out_channels", (8, 24))
    assert not same_widths(bundle)
    found = first_views(bundle, None, None)
    assert found["conv_in.weight"].shape[1] == diffusion.TINY["in_channels"]
    theirs = load_file(bundle.part("zero123") / "diffusion_pytorch_model.safetensors")
    assert torch.equal(found["conv_out.weight"], theirs["conv_out.weight"])


def test_a_guess_of_more_pixels_is_taken_over_as_the_coarse_one():
    from diffusers import UNet2DConditionModel

    torch.manual_seed(0)
    coarse = UNet2DConditionModel(**{**UNET, "in_channels": 8})
    fine = UNet2DConditionModel(**{**UNET, "in_channels": 20})
    take_over(fine, coarse.state_dict(), finer=4)
    z, t, context, labels = random(2, 4, 4, 4), torch.tensor([3, 900]), random(2, 1, 12), random(2, 16)
    guess = random(2, 4, 8, 8, seed=3)
    with torch.no_grad():
        mean = torch.cat([z, F.avg_pool2d(guess, 2)], dim=1)
        pixels = torch.cat([z, F.pixel_unshuffle(guess, 2)], dim=1)
        expected = coarse(mean, t, context, class_labels=labels).sample
        torch.testing.assert_close(fine(pixels, t, context, class_labels=labels).sample, expected)


def test_a_wider_tower_starts_by_saying_what_the_narrower_one_says():
    torch.manual_seed(0)
    config = {"embed_dim": 16, "vision_cfg": {"image_size": 64, "layers": [1, 1, 2, 1], "width": 4, "head_width": 32}}
    narrow = make_image_tower(config)
    wide = make_image_tower({**config, "vision_cfg": {**config["vision_cfg"], "width": 8}})
    images = random(4, 3, 64, 64)
    narrow.train()(images), wide.train()(images)  # both have means to normalise by
    grow(wide, narrow.state_dict())
    torch.testing.assert_close(wide.eval()(images), narrow.eval()(images), atol=1e-4, rtol=1e-4)
    with torch.no_grad():
        wide.layer1[0].conv1.weight[-1] += 1  # of the new channels, which nothing old hears
    torch.testing.assert_close(wide(images), narrow(images), atol=1e-4, rtol=1e-4)
    with pytest.raises(ValueError, match="of a wider network"):
        grow(narrow, wide.state_dict())


def test_a_larger_sketch_starts_by_showing_what_the_smaller_one_shows():
    torch.manual_seed(0)
    small = Sketch(16, rank=8, widths=(16, 16, 8))
    for layer in small.refine:
        nn.init.normal_(layer[-1].weight, std=0.1)
    large = Sketch(16, rank=12, widths=(16, 32, 16), groups=(8, 16, 16), refined=2)
    grow(large, small.state_dict())
    embedding = random(2, 1, 16)
    torch.testing.assert_close(large.volume(embedding), small.volume(embedding), atol=1e-4, rtol=1e-4)


def test_a_linear_map_of_embeddings_is_found():
    matrix, new = random(6, 6), random(50, 4, 6, seed=1)
    torch.testing.assert_close(embedding_map(new @ matrix.T, new), matrix, atol=0.02, rtol=0.02)


def test_a_network_reads_new_embeddings_as_if_they_were_the_old_ones():
    matrix, cameras = random(6, 6), unit_sphere_matrix(orbit(even_azimuths(5, 10.0), 20.0))
    old, new = nn.Linear(HARMONICS * 6, 8), nn.Linear(HARMONICS * 6, 8)
    new.load_state_dict(through(old.state_dict(), "weight", matrix, HARMONICS))
    embedding = random(5, 1, 6, seed=1)
    torch.testing.assert_close(new(steer(embedding, cameras)), old(steer(embedding @ matrix.T, cameras)))
    # The pose beside the embedding stays as it is.
    old, new, pose = nn.Linear(10, 8), nn.Linear(10, 8), random(5, 4, seed=2)
    new.load_state_dict(through(old.state_dict(), "weight", matrix, 1))
    embedding = embedding[:, 0]
    expected = old(torch.cat([embedding @ matrix.T, pose], dim=1))
    torch.testing.assert_close(new(torch.cat([embedding, pose], dim=1)), expected)


class Views:
    def __init__(self, references):
        self.references = references

    def __len__(self):
        return len(self.references)


def test_a_bundle_s_embeddings_of_training_references_are_those_of_a_user_s(monkeypatch):
    # Exact arithmetic, as the tower's own: CPUs that are fast with bfloat16 would round.
    monkeypatch.setattr(start, "fast_autocast", lambda device: torch.autocast(device.type, enabled=False))
    images = np.random.default_rng(0).integers(0, 256, (3, 2, 64, 64, 3), dtype=np.uint8)
    bundle = find_bundle("tiny")
    found = old_embeddings(bundle, Views(images), batch=2)
    assert found.shape == (3, 2, 256)
    tower = ClipImage.load(bundle.part("clip"))
    for i, j in ((0, 0), (2, 1)):
        rgba = np.concatenate([images[i, j], np.full((64, 64, 1), 255, np.uint8)], axis=-1)
        reference = Reference(torch.from_numpy(rgba).permute(2, 0, 1) / 255)
        torch.testing.assert_close(found[i, j], tower.embed(reference)[0, 0], atol=1e-3, rtol=1e-3)


def test_a_vae_goes_on_with_its_decoder_alone(tmp_path):
    bundle = find_bundle("tiny")
    data.build(tmp_path / "data", 2, 64, workers=1)
    run_vae(TrainOptions(work=tmp_path, start="tiny", steps=2, batch=4))
    before = load_file(bundle.part("vae") / "diffusion_pytorch_model.safetensors")
    after = load_tensors(tmp_path / "vae" / "final.pt")
    assert after.keys() == before.keys()
    same = {name for name, value in before.items() if torch.equal(after[name], value.float())}
    assert same == {name for name in before if name.startswith(("encoder.", "quant_conv."))}
    report = json.loads((tmp_path / "vae" / "report.json").read_text())
    assert report["scale"] == bundle.info["latent_scale"]  # not of these two objects' latents
    assert report["started_from"][-1] == {"vae": bundle.info["provenance"]["training"]["vae"]["steps"]}
    assert report["kept_of_start"] == 0.1
    assert not {"half", "kl"} & report.keys()


def test_no_steps_keep_a_bundle_s_vae_and_depth(tmp_path):
    bundle = find_bundle("tiny")
    data.build(tmp_path / "data", 2, 64, workers=1)
    for part in (run_vae, run_depth):
        with pytest.raises(ValueError, match="name one by --start"):
            part(TrainOptions(work=tmp_path, steps=0))
        part(TrainOptions(work=tmp_path, steps=0, start="tiny"))
    for part in ("vae", "depth"):
        before = load_file(bundle.part(part) / "diffusion_pytorch_model.safetensors")
        after = load_tensors(tmp_path / part / "final.pt")
        assert after.keys() == before.keys()
        assert all(torch.equal(after[name], value.float()) for name, value in before.items())
        assert read_report(tmp_path / part) == bundle.info["provenance"]["training"][part]
    assert load_tensors(tmp_path / "latents.pt")["targets"].shape == (2, data.TARGETS, 8, 16, 16)
    write_depth(tmp_path, tmp_path / "again")
    text = (p / "text" / "open_clip_model.safetensors" for p in (tmp_path / "again", bundle.folder))
    assert len({path.read_bytes() for path in text}) == 1
