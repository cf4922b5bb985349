import os
import shutil

import pytest
import torch
from small import UNET
from torch import nn
from torch.nn import functional as F

from iso3d_core.cameras import even_azimuths, orbit, unit_sphere_matrix
from iso3d_core.methods.isotropic3d import camera_of
from iso3d_core.priors import base
from iso3d_core.priors.attention import FoldViews, fold_views, guess_views, is_unread, predict
from iso3d_core.priors.base import load_quick_vae, not_white
from iso3d_core.priors.multiview import MultiViewPrior, triangle
from iso3d_core.priors.sketch import Sketch
from iso3d_core.train.diffusion import SCHEDULE, TINY_SCHEDULE
from iso3d_core.types import Cancelled, InputError, Reference
from iso3d_core.weights import Bundle, find_bundle


def random(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


# ---- the prior -----------------------------------------------------------------------------------

VAE = {
    "in_channels": 12, "out_channels": 12, "latent_channels": 4, "block_out_channels": (8,), "layers_per_block": 1,
    "down_block_types": ("DownEncoderBlock2D",), "up_block_types": ("UpDecoderBlock2D",), "norm_num_groups": 4,
    "mid_block_add_attention": False,
}  # fmt: skip
INFO = {
    "image_size": 8, "latent_size": 4, "latent_channels": 4, "latent_scale": 0.7, "pixel_unshuffle": 2,
    "guidance_scale": 2.0,
}  # fmt: skip
CAMERAS = orbit(even_azimuths(3, 10.0), 20.0)
PREDICTIONS = [{**SCHEDULE}, {**SCHEDULE, "prediction_type": "v_prediction"}, TINY_SCHEDULE]


def make_prior(schedule=SCHEDULE):
    from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel

    torch.manual_seed(0)
    unet = UNet2DConditionModel(**UNET)
    fold_views(unet)
    return MultiViewPrior(None, AutoencoderKL(**VAE), unet, DDIMScheduler(**schedule), INFO)


@pytest.fixture(scope="module")
def prior():
    return make_prior()


class Exact(nn.Module):
    """The exact network of data that is one known group of latents."""

    def __init__(self, prior, known):
        super().__init__()
        self.attn_processors = {"layer": FoldViews()}
        self.abar, self.known = prior.alphas_cumprod, known
        self.velocity = prior.scheduler.config.prediction_type == "v_prediction"

    def forward(self, z, t, encoder_hidden_states, class_labels):
        abar = self.abar[t][:, None, None, None]
        known = self.known.repeat(len(z) // len(self.known), 1, 1, 1)
        noise = (z - abar.sqrt() * known) / (1 - abar).sqrt()
        out = abar.sqrt() * noise - (1 - abar).sqrt() * known if self.velocity else noise
        return type("Output", (), {"sample": out})


def test_the_prior_is_frozen(prior):
    assert not prior.training
    assert not any(p.requires_grad for p in prior.parameters())


@pytest.mark.parametrize("scale", [0.0, 1.0, 3.5])
@pytest.mark.parametrize("schedule", PREDICTIONS)
def test_guidance_is_two_passes_combined(schedule, scale):
    prior, t = make_prior(schedule), 437
    z, embedding = random(3, 4, 4, 4), random(1, 1, 12, seed=1)
    condition = prior.condition(embedding, CAMERAS)
    abar = prior.alphas_cumprod[t]

    def noise(context):
        out = predict(prior.unet, z[None], torch.full((1, 3), t), context, unit_sphere_matrix(CAMERAS)[None])[0]
        return out if schedule["prediction_type"] == "epsilon" else abar.sqrt() * out + (1 - abar).sqrt() * z

    c, u = noise(embedding), noise(torch.zeros_like(embedding))
    assert float((c - u).abs().max()) > 1e-4
    for time in (t, torch.tensor(t)):
        guided, conditional = prior.predict_noise(z, time, condition, scale)
        torch.testing.assert_close(guided, u + scale * (c - u), rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(conditional, c, rtol=1e-4, atol=1e-5)


def test_the_camera_embedding_is_the_unit_sphere_matrix(prior):
    out = prior.camera_embedding(CAMERAS)
    assert out.shape == (3, 16)
    assert torch.equal(out, unit_sphere_matrix(CAMERAS))
    condition = prior.condition(random(12), CAMERAS)
    assert condition.embedding.shape == (1, 1, 12)
    assert torch.equal(condition.cameras, out)


@pytest.mark.parametrize("size", [8, 12, 5])
def test_encoding_is_differentiable_at_every_size(prior, size):
    rgb = random(3, 3, size, size).sigmoid().requires_grad_()
    z = prior.encode(rgb)
    assert z.shape == (3, 4, 4, 4)
    (gradient,) = torch.autograd.grad(z.square().sum(), rgb)
    assert bool(torch.isfinite(gradient).all())
    assert bool((gradient.abs().flatten(1).amax(dim=1) > 0).all())


def test_latents_are_scaled_means_and_decoding_undoes_the_scale(prior):
    rgb = random(3, 3, 8, 8).sigmoid()
    with torch.no_grad():
        mean = prior.vae.encode(F.pixel_unshuffle(rgb * 2 - 1, 2)).latent_dist.mean
        torch.testing.assert_close(prior.encode(rgb), 0.7 * mean)
        decoded = F.pixel_shuffle(prior.vae.decode(mean).sample, 2) / 2 + 0.5
        torch.testing.assert_close(prior.decode(0.7 * mean), decoded.clamp(0, 1))
        assert float(prior.decode(100 * mean).min()) >= 0
        assert float(prior.decode(100 * mean).max()) <= 1


def test_masks_come_from_the_decoder_or_from_what_is_not_white(prior):
    from diffusers import AutoencoderKL

    z = random(2, 4, 4, 4)
    views, mask = prior.decode_with_mask(z)
    assert torch.equal(views, prior.decode(z))
    assert torch.equal(mask, not_white(views))
    torch.manual_seed(0)
    vae = AutoencoderKL(**{**VAE, "out_channels": 16})
    masked = MultiViewPrior(None, vae, prior.unet, prior.scheduler, INFO)
    views, mask = masked.decode_with_mask(z)
    image = F.pixel_shuffle(vae.decode(z / 0.7).sample, 2) / 2 + 0.5
    torch.testing.assert_close(torch.cat([views, mask], dim=1), image.clamp(0, 1))


def test_sampling_is_deterministic_by_seed_and_reports_each_step(prior):
    embedding, reports = random(1, 1, 12), []
    first = prior.sample(embedding, CAMERAS, 4, seed=3, on_step=lambda *report: reports.append(report))
    assert first.shape == (3, 3, 8, 8)
    assert [(step, steps) for step, steps, _ in reports] == [(1, 4), (2, 4), (3, 4), (4, 4)]
    assert torch.equal(prior.decode(reports[-1][2]), first)
    torch.manual_seed(99)
    assert torch.equal(prior.sample(embedding, CAMERAS, 4, seed=3), first)
    assert torch.equal(prior.sample(embedding, CAMERAS, 4, guidance_scale=2.0, seed=3), first)  # the bundle's own
    assert not torch.equal(prior.sample(embedding, CAMERAS, 4, guidance_scale=4.0, seed=3), first)
    assert not torch.equal(prior.sample(embedding, CAMERAS, 4, seed=4), first)


def test_sampling_can_be_stopped(prior):
    seen = []

    def on_step(step, steps, z):
        seen.append(step)
        raise Cancelled

    with pytest.raises(Cancelled):
        prior.sample(random(1, 1, 12), CAMERAS, 4, on_step=on_step)
    assert seen == [1]


def test_a_slow_step_can_be_stopped_before_its_end(prior, monkeypatch):
    embedding, seen = random(1, 1, 12), []
    quietly = prior.sample(embedding, CAMERAS, 2)
    monkeypatch.setattr(base, "LISTEN_SECONDS", 0)
    listened = prior.sample(embedding, CAMERAS, 2, on_step=lambda step, steps, z: seen.append((step, steps)))
    assert torch.equal(listened, quietly)
    assert seen == sorted(seen)
    assert {step for step, _ in seen} == {0, 1, 2}
    assert seen.count((0, 2)) > 10  # between the layers

    def stop(step, steps, z):
        seen.append((step, steps))
        raise Cancelled

    seen.clear()
    with pytest.raises(Cancelled):
        prior.sample(embedding, CAMERAS, 2, on_step=stop)
    assert seen == [(0, 2)]
    assert torch.equal(prior.sample(embedding, CAMERAS, 2), quietly)  # nobody listens any more


@pytest.mark.parametrize("steps", [0, -1, 1001])
def test_impossible_step_counts_are_refused(prior, steps):
    with pytest.raises(InputError, match=f"must be 1 to 1000, got {steps}"):
        prior.sample(random(1, 1, 12), CAMERAS, steps)


@pytest.mark.parametrize("steps", [1, 5, 40])
@pytest.mark.parametrize("schedule", PREDICTIONS)
def test_sampling_with_the_exact_network_finds_the_known_latent(schedule, steps):
    prior, known, states = make_prior(schedule), random(3, 4, 4, 4, seed=8), []
    prior.unet = Exact(prior, known)
    images = prior.sample(
        random(1, 1, 12), CAMERAS, steps, guidance_scale=3.0, seed=1, on_step=lambda i, n, z: states.append(z)
    )
    torch.testing.assert_close(states[-1], known, rtol=0, atol=1e-3)
    torch.testing.assert_close(images, prior.decode(known), rtol=0, atol=1e-2)
    # On the way each state is that latent with the first noise, at the next noise level.
    start = torch.randn(3, 4, 4, 4, generator=torch.Generator().manual_seed(1))
    last = prior.alphas_cumprod[999]
    noise = (start - last.sqrt() * known) / (1 - last).sqrt()
    times = torch.linspace(999, 0, steps + 1).round().long()
    for z, t in zip(states[:-1], times[1:-1], strict=True):
        abar = prior.alphas_cumprod[t]
        torch.testing.assert_close(z, abar.sqrt() * known + (1 - abar).sqrt() * noise, rtol=0, atol=1e-3)


def test_strangeness_is_the_mahalanobis_distance_of_the_direction():
    prior = make_prior()
    assert prior.strangeness(random(1, 1, 2)) is None
    prior.familiar = {"mean": torch.tensor([1.0, 0.0]), "whiten": torch.tensor([[2.0, 0.0], [0.0, 10.0]])}
    assert prior.strangeness(torch.tensor([[[7.0, 0.0]]])) == pytest.approx(0, abs=1e-6)
    assert prior.strangeness(torch.tensor([[[0.0, 3.0]]])) == pytest.approx((2.0**2 + 10.0**2) ** 0.5, rel=1e-6)
    assert prior.strangeness(torch.tensor([[[-0.5, 0.0]]])) == pytest.approx(4.0, rel=1e-6)


def test_embedding_without_the_clip_tower_is_an_error_for_people(prior):
    with pytest.raises(InputError, match="load the bundle again"):
        prior.embed(Reference(torch.zeros(4, 8, 8)))


def test_the_small_encoder_takes_the_low_resolution_part(prior, tmp_path, monkeypatch):
    from diffusers import AutoencoderTiny

    monkeypatch.setenv("ISO3D_HOME", str(tmp_path))
    bundle = Bundle(tmp_path / "some")
    bundle.folder.mkdir()
    (bundle.folder / "bundle.json").write_text('{"quick_vae": "taesd"}')
    assert load_quick_vae(bundle) is None
    torch.manual_seed(0)
    small = {"encoder_block_out_channels": (8, 8), "num_encoder_blocks": (1, 1)}
    AutoencoderTiny(**small, decoder_block_out_channels=(8, 8), num_decoder_blocks=(1, 1)).save_pretrained(
        tmp_path / "taesd" / "taesd"
    )
    quick = load_quick_vae(bundle)
    rgb = random(2, 3, 8, 8).sigmoid().requires_grad_()
    assert torch.equal(prior.encode(rgb, quick=True), prior.encode(rgb))  # without one, the full encoder
    monkeypatch.setattr(prior, "quick_vae", quick)
    z = prior.encode(rgb, quick=True)
    torch.testing.assert_close(z, quick.encoder(rgb * 2 - 1))
    assert not torch.equal(z, prior.encode(rgb))
    z.sum().backward()
    assert float(rgb.grad.abs().max()) > 0


def test_a_sketch_goes_into_the_unet_beside_the_latents():
    from diffusers import UNet2DConditionModel

    torch.manual_seed(0)
    unet = UNet2DConditionModel(**{**UNET, "in_channels": 8, "sample_size": 16})
    fold_views(unet)
    z, t = random(2, 3, 4, 16, 16), torch.full((2, 3), 7)
    embedding, cameras = random(2, 1, 12, seed=1), unit_sphere_matrix(CAMERAS).expand(2, 3, 16)
    assert guess_views(unet, embedding, cameras) is None
    unet.sketch = Sketch(12)
    with torch.no_grad():
        guess = guess_views(unet, embedding, cameras)
        assert guess.shape == z.shape
        out = predict(unet, z, t, embedding, cameras, guess)
        assert out.shape == z.shape
        torch.testing.assert_close(predict(unet, torch.cat([z, guess], dim=2), t, embedding, cameras), out)


def test_a_triangle_is_put_back_as_it_was():
    whole = random(7, 7).tril()
    assert torch.equal(triangle(whole[*torch.tril_indices(7, 7)]), whole)


@pytest.mark.parametrize(
    "name", ["clip/open_clip_model", "clip/familiar", "sketch/model", "multiview/diffusion_pytorch_model"]
)
def test_a_damaged_file_of_a_bundle_is_named(name, tmp_path):
    copy = tmp_path / "tiny"
    shutil.copytree(find_bundle("tiny").folder, copy)
    os.truncate(copy / f"{name}.safetensors", 1000)
    with pytest.raises(InputError, match=f"damaged files: {name}"):
        MultiViewPrior.load(copy)


def test_what_one_token_of_context_never_reads_may_be_missing(tmp_path):
    from diffusers import UNet2DConditionModel
    from safetensors.torch import load_file, save_file

    folder = shutil.copytree(find_bundle("tiny").folder, tmp_path / "tiny")
    file = folder / "multiview" / "diffusion_pytorch_model.safetensors"
    whole = UNet2DConditionModel.from_config(UNet2DConditionModel.load_config(folder / "multiview"))
    unread, weights = [name for name in whole.state_dict() if is_unread(name)], load_file(file)
    assert unread
    assert not set(unread) & set(weights)  # the embedded bundle leaves them out
    embedding = random(1, 1, 256)
    without = MultiViewPrior.load(folder)
    assert not set(unread) & set(without.unet.state_dict())
    filled = {**weights, **{name: torch.full_like(whole.get_parameter(name), 3.0) for name in unread}}
    save_file(filled, file)
    with_them = MultiViewPrior.load(folder).sample(embedding, CAMERAS, steps=2)
    torch.testing.assert_close(with_them, without.sample(embedding, CAMERAS, steps=2))
    save_file({name: value for name, value in weights.items() if "attn1.to_q" not in name}, file)
    with pytest.raises(InputError, match="cannot be loaded"):
        MultiViewPrior.load(folder)


def test_a_bundle_without_cameras_gets_hifi123s():
    assert camera_of({}) == {"distance": 3.8, "fov_y_deg": 20.0}
    assert camera_of({"camera": {"distance": 2.0, "fov_y_deg": 35.0}}) == {"distance": 2.0, "fov_y_deg": 35.0}


@pytest.mark.parametrize(
    ("machine", "onednn", "instructions", "chosen"),
    [
        ("x86_64", True, "_is_avx512_bf16_supported", torch.bfloat16),
        ("AMD64", True, "_is_amx_tile_supported", torch.bfloat16),
        ("x86_64", True, None, torch.float32),  # AVX-512 alone: oneDNN says yes, and takes longer
        ("x86_64", False, "_is_avx512_bf16_supported", torch.float32),
        ("aarch64", True, None, torch.bfloat16),
        ("aarch64", False, None, torch.float32),
    ],
)
def test_a_cpu_computes_in_bfloat16_only_where_it_has_instructions_for_it(
    machine, onednn, instructions, chosen, monkeypatch
):
    monkeypatch.setattr(base.platform, "machine", lambda: machine)
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: True)
    monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda: onednn)
    for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported"):
        monkeypatch.setattr(torch.cpu, name, lambda name=name: name == instructions, raising=False)
    assert base.choose_arithmetic("cpu", "auto") == ("cpu", chosen)
    assert base.choose_arithmetic("cpu", "float32") == ("cpu", torch.float32)


def test_an_older_torch_that_knows_no_instructions_computes_in_float32(monkeypatch):
    monkeypatch.setattr(base.platform, "machine", lambda: "x86_64")
    for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported"):
        monkeypatch.delattr(torch.cpu, name, raising=False)
    assert base.choose_arithmetic("cpu", "auto") == ("cpu", torch.float32)
