import itertools
import json
import math

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from iso3d_core.cameras import even_azimuths, orbit, unit_sphere_matrix
from iso3d_core.priors.attention import FoldViews, fold_views, predict
from iso3d_core.priors.clip import WordTokenizer, image_tensor
from iso3d_core.priors.multiview import MultiViewPrior
from iso3d_core.schedules import Ramp, milestone
from iso3d_core.train.clip import ClipTraining, vocabulary
from iso3d_core.train.diffusion import SCHEDULE, TINY_SCHEDULE, LatentSet
from iso3d_core.train.loop import TrainConfig, learning_rate_factor, train
from iso3d_core.train.vae import VaeTraining, encode_all, grid, to_rgb
from iso3d_core.types import Cancelled, InputError, Reference


def random(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


# ---- schedules -----------------------------------------------------------------------------------


def test_a_ramp_is_linear_and_then_constant():
    ramp = Ramp(2.0, -2.0, 8)
    assert [ramp(step) for step in (0, 2, 4, 8, 9, 1000)] == [2, 1, 0, -2, -2, -2]
    assert Ramp(1.0, 5.0, 0)(0) == 5.0


def test_a_milestone_holds_until_the_next():
    milestones = ((0, 64), (5, 128), (9, 256))
    assert [milestone(milestones, step) for step in (0, 4, 5, 8, 9, 100)] == [64, 64, 128, 128, 256, 256]


@pytest.mark.parametrize("decay", ["linear", "cosine", "constant"])
def test_the_learning_rate_rises_to_its_peak_and_decays(decay):
    config = TrainConfig(110, 1, 1.0, warmup=10, decay=decay)
    factors = [learning_rate_factor(config, step) for step in range(110)]
    assert factors[:10] == pytest.approx([(i + 1) / 10 for i in range(10)])
    after = factors[10:]
    assert after[0] == pytest.approx(1, abs=0.011)
    assert all(b <= a for a, b in itertools.pairwise(after))
    assert after[50] == pytest.approx({"linear": 0.5, "cosine": 0.505, "constant": 1.0}[decay])
    assert min(after) > 0
    assert after[-1] == pytest.approx(1.0 if decay == "constant" else 0.01, abs=0.002)


def test_no_warmup_starts_at_the_peak():
    assert learning_rate_factor(TrainConfig(10, 1, 1.0, warmup=0), 0) == 1.0


@pytest.mark.parametrize(
    ("wrong", "message"),
    [({"decay": "step"}, "got 'step'"), ({"steps": 0}, "at least 1"), ({"accumulate": 0}, "at least 1")],
)
def test_a_train_config_is_checked(wrong, message):
    with pytest.raises(ValueError, match=message):
        TrainConfig(**({"steps": 5, "batch": 1, "learning_rate": 0.1} | wrong))


# ---- the loop ------------------------------------------------------------------------------------

WEIGHT = torch.tensor([[1.0, -2.0, 0.5]])


class Line(nn.Module):
    """A linear model that is told noisy values of a linear function; the noise comes from torch's own generator."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(3, 1)
        with torch.no_grad():
            self.layer.weight.fill_(0.1)
            self.layer.bias.fill_(0.0)

    def forward(self, batch):
        wanted = batch["x"] @ WEIGHT.T + 0.01 * torch.randn(len(batch["x"]), 1)
        loss = F.mse_loss(self.layer(batch["x"]), wanted)
        return {"loss": loss, "twice": 2 * loss.detach()}


def line_batch(rng):
    return {"x": torch.from_numpy(rng.normal(size=(8, 3)).astype(np.float32))}


@pytest.fixture
def accelerate():
    """A fresh accelerate: its settings are global to the process."""
    pytest.importorskip("accelerate", reason="training needs accelerate (the train extra)")
    from accelerate.state import AcceleratorState

    AcceleratorState._reset_state(reset_partial_state=True)
    yield
    AcceleratorState._reset_state(reset_partial_state=True)


def config(steps=12, **options):
    options = {"warmup": 2, "save_every": 5, "mixed_precision": "no", "weight_decay": 0.0} | options
    return TrainConfig(steps, 8, 0.1, **options)


def by_hand(settings):
    """The last weights of the loop, written from its definition."""
    model = Line()
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1, weight_decay=settings.weight_decay)
    for step in range(settings.steps):
        losses = []
        for part in range(settings.accumulate):
            rng = np.random.default_rng([settings.seed, step, part, 0])
            torch.manual_seed(int(rng.integers(2**62)))
            losses.append(model(line_batch(rng))["loss"])
        optimizer.zero_grad()
        torch.stack(losses).mean().backward()
        nn.utils.clip_grad_norm_(model.parameters(), settings.clip_norm)
        for group in optimizer.param_groups:
            group["lr"] = 0.1 * learning_rate_factor(settings, step)
        optimizer.step()
    return model


def test_training_finds_the_line(accelerate, tmp_path):
    model, seen = Line(), []

    def make_batch(rng):
        batch = line_batch(rng)
        seen.append(F.mse_loss(model.layer(batch["x"]), batch["x"] @ WEIGHT.T).item())
        return batch

    out = train(model, make_batch, config(150, save_every=1000, averaged_decay=0.9), tmp_path / "line")
    assert out["loss"] < 0.02 * seen[0]
    assert out["twice"] == pytest.approx(2 * out["loss"])
    assert out["hours"] > 0
    assert not model.training
    torch.testing.assert_close(model.layer.weight.detach(), WEIGHT, atol=0.03, rtol=0)


@pytest.mark.parametrize("accumulate", [1, 3])
def test_the_loop_is_adamw_with_clipping_and_accumulation(accelerate, tmp_path, accumulate):
    settings = config(6, accumulate=accumulate, averaged_decay=0.0)
    model = Line()
    train(model, line_batch, settings, tmp_path)
    expected = by_hand(settings)
    torch.testing.assert_close(model.layer.weight, expected.layer.weight)
    torch.testing.assert_close(model.layer.bias, expected.layer.bias)


def test_afterwards_the_model_holds_the_averaged_weights(accelerate, tmp_path):
    model = Line()
    train(model, line_batch, config(20, averaged_decay=0.99), tmp_path)
    stored = torch.load(tmp_path / "checkpoint.pt", weights_only=True)
    averaged = dict(zip((n for n, _ in model.named_parameters()), stored["averaged"]["shadow_params"], strict=True))
    for name, parameter in model.named_parameters():
        assert torch.equal(parameter, averaged[name])
        assert not torch.equal(parameter, stored["model"][name])


@pytest.mark.parametrize("stop", [3, 5, 8])
def test_resuming_equals_the_uninterrupted_training(accelerate, tmp_path, stop):
    whole = Line()
    values = train(whole, line_batch, config(12, accumulate=2), tmp_path / "whole")
    calls = []

    def interrupted(rng):
        calls.append(None)
        if len(calls) > 2 * stop:
            raise Cancelled
        return line_batch(rng)

    with pytest.raises(Cancelled):
        train(Line(), interrupted, config(12, accumulate=2), tmp_path / "cut")
    calls.clear()

    def counted(rng):
        calls.append(None)
        return line_batch(rng)

    resumed = Line()
    again = train(resumed, counted, config(12, accumulate=2), tmp_path / "cut")
    assert len(calls) == 2 * (12 - stop // 5 * 5)
    for a, b in zip(whole.parameters(), resumed.parameters(), strict=True):
        assert torch.equal(a, b)
    assert {**again, "hours": 0} == {**values, "hours": 0}
    assert json.loads((tmp_path / "cut" / "config.json").read_text())["steps"] == 12


def test_pictures_show_the_averaged_weights_and_change_nothing(accelerate, tmp_path):
    plain, pictured, seen = Line(), Line(), []

    def sample(model):
        seen.append((model.training, model.layer.weight.detach().clone()))
        return torch.full((3, 4, 6), 0.5)

    train(plain, line_batch, config(10), tmp_path / "plain")
    train(pictured, line_batch, config(10, sample_every=4), tmp_path / "pictured", sample)
    assert torch.equal(plain.layer.weight, pictured.layer.weight)
    assert [training for training, _ in seen] == [False] * 3  # after 4, 8 and the last
    assert torch.equal(seen[-1][1], pictured.layer.weight)
    from PIL import Image

    with Image.open(tmp_path / "pictured" / "sample.png") as image:
        assert image.size == (6, 4)
        assert image.getpixel((0, 0)) == (128, 128, 128)


def test_a_loss_that_is_not_finite_stops_the_training(accelerate, tmp_path):
    def make_batch(rng):
        return {"x": torch.full((2, 3), math.nan)}

    with pytest.raises(FloatingPointError, match="not finite at step 1"):
        train(Line(), make_batch, config(), tmp_path)
    assert not (tmp_path / "checkpoint.pt").exists()


# ---- words and images for CLIP -------------------------------------------------------------------


def test_words_round_trip():
    tokenizer = WordTokenizer(["red", "mug", "a"], 8)
    rows = tokenizer(["A red, RED mug!", "", "a blue mug"])
    assert rows.dtype == torch.int64
    assert rows.tolist() == [[1, 5, 3, 3, 4, 6, 0, 0], [1, 6, 0, 0, 0, 0, 0, 0], [1, 5, 2, 4, 6, 0, 0, 0]]
    assert tokenizer.vocab_size == 7
    names = {i: word for word, i in tokenizer.index.items()}
    assert [names[i] for i in rows[0].tolist() if i in names] == ["a", "red", "red", "mug"]


def test_long_texts_are_cut_and_still_end():
    tokenizer = WordTokenizer(["a"], 5)
    assert tokenizer(["a a a", "a a a a a a"]).tolist() == [[1, 3, 3, 3, 4]] * 2


def test_the_vocabulary_is_by_frequency():
    assert vocabulary([["a red mug", "a mug"], ["A cup"]]) == ["a", "mug", "red", "cup"]


def test_the_image_tower_sees_the_reference_on_white_and_normalised():
    rgba = torch.zeros(4, 8, 8)
    rgba[0], rgba[3, :, :4] = 1.0, 1.0  # red on the left, nothing on the right
    out = image_tensor(Reference(rgba), 2, [0.5, 0.25, 0.0], [0.5, 0.25, 2.0])
    red, white = [1.0, -1.0, 0.0], [1.0, 3.0, 0.5]
    assert out.shape == (1, 3, 2, 2)
    assert out[0, :, 0, 0].tolist() == out[0, :, 1, 0].tolist() == red
    assert out[0, :, 0, 1].tolist() == out[0, :, 1, 1].tolist() == white
    assert image_tensor(Reference(rgba), 7, [0.5] * 3, [0.5] * 3, via=16).shape == (1, 3, 7, 7)


CLIP = {
    "embed_dim": 16,
    "vision_cfg": {"image_size": 16, "patch_size": 8, "width": 16, "layers": 1, "head_width": 8},
    "text_cfg": {"context_length": 6, "vocab_size": 10, "width": 16, "heads": 2, "layers": 1},
}


def check_gradients(module):
    for name, parameter in module.named_parameters():
        assert parameter.grad is not None, name
        assert bool(torch.isfinite(parameter.grad).all()), name


def test_clip_training_has_finite_losses_and_trains_everything():
    torch.manual_seed(0)
    model = ClipTraining(CLIP, latent_channels=2, view_weight=0.5)
    batch = {
        "rgb": random(4, 3, 16, 16).sigmoid(),
        "tokens": WordTokenizer(list("abcdef"), 6)(["a b", "c", "d e f", "a"]),
        "seen_from": random(4, 3, 16, seed=1),
        "seen": random(4, 3, 2, 16, 16, seed=2),
    }
    out = model(batch)
    assert out["loss"].item() == pytest.approx(float(out["contrast"] + 0.5 * out["view"]), rel=1e-5)
    assert 0 <= float(out["top1"]) <= 1
    image, text = model.embed(batch["rgb"]), F.normalize(model.clip.encode_text(batch["tokens"]), dim=-1)
    torch.testing.assert_close(image.norm(dim=-1), torch.full((4,), 4.0))  # sqrt(D)
    logits = (model.clip.logit_scale.exp() * (image / 4) @ text.T).detach()
    contrast = -(logits.log_softmax(0).diagonal().mean() + logits.log_softmax(1).diagonal().mean()) / 2
    torch.testing.assert_close(out["contrast"], contrast)
    out["loss"].backward()
    check_gradients(model)


# ---- VAE -----------------------------------------------------------------------------------------

VAE = {
    "in_channels": 12, "out_channels": 12, "latent_channels": 4, "block_out_channels": (8,), "layers_per_block": 1,
    "down_block_types": ("DownEncoderBlock2D",), "up_block_types": ("UpDecoderBlock2D",), "norm_num_groups": 4,
    "mid_block_add_attention": False,
}  # fmt: skip


def test_vae_training_has_a_finite_loss_and_trains_everything():
    torch.manual_seed(0)
    model = VaeTraining(VAE, unshuffle=2)
    rgb = random(2, 3, 16, 16).sigmoid()
    out = model({"rgb": rgb})
    assert math.isfinite(out["loss"].item())
    out["loss"].backward()
    check_gradients(model)
    again, kl = model.reconstruct(rgb)
    assert again.shape == rgb.shape
    assert torch.equal(again, model.reconstruct(rgb)[0])  # the posterior's mean, no noise
    torch.testing.assert_close(kl.detach(), out["kl"])


def test_the_vae_loss_in_closed_form():
    model = VaeTraining(VAE, unshuffle=2, kl_weight=0.1)
    rgb = random(2, 3, 16, 16).sigmoid()
    ramp = torch.linspace(0, 0.15, 16).expand(16, 16)  # 0.01 a column
    for error, l1, l2, edges in ((torch.tensor(0.2), 0.2, 0.04, 0.0), (ramp, 0.075, ramp.square().mean(), 0.01)):
        model.reconstruct = lambda x, sample, error=error: (x + error, torch.tensor(3.0))
        out = model({"rgb": rgb})
        assert float(out["loss"]) == pytest.approx(float(10 * l2 + l1 + 0.5 * edges + 0.1 * 3), rel=1e-4)
        assert float(out["psnr"]) == pytest.approx(-10 * math.log10(l2), rel=1e-4)


def test_images_become_latents_in_order():
    torch.manual_seed(0)
    model = VaeTraining(VAE, unshuffle=2)
    images = np.random.default_rng(0).integers(0, 256, (3, 2, 16, 16, 3), dtype=np.uint8)
    z = encode_all(model, images, batch=4)
    assert z.shape == (3, 2, 4, 8, 8)
    assert z.dtype == torch.float16
    alone = encode_all(model, images[1:2, 1:])
    torch.testing.assert_close(z[1, 1], alone[0, 0], atol=0.03, rtol=0.03)  # bf16
    rgb = to_rgb(images)
    assert rgb.shape == (3, 2, 3, 16, 16)
    assert torch.equal(rgb[1, 0, 2] * 255, torch.from_numpy(images[1, 0, :, :, 2]).float())
    sheet = grid([rgb[0], rgb[1]])
    assert sheet.shape == (3, 32, 32)
    assert torch.equal(sheet[:, 16:, :16], rgb[1, 0])


# ---- batches of latents --------------------------------------------------------------------------


def test_latent_batches_pair_each_view_with_its_camera_and_its_reference():
    objects = 5

    class Views:
        azimuth = np.random.default_rng(0).uniform(0, 360, (objects, 16))
        elevation = np.random.default_rng(1).uniform(-10, 40, (objects, 16))

    code = torch.arange(objects)[:, None] * 100 + torch.arange(12)
    targets = code[:, :, None, None, None].half()
    references = (torch.arange(objects)[:, None] * 10 + torch.arange(4)).half()
    latents = LatentSet(Views, targets, references[:, :, None, None, None], references[:, :, None])
    shapes = set()
    for seed in range(20):
        batch = latents.batch(np.random.default_rng(seed), 6)
        b, v = batch["latents"].shape[:2]
        shapes.add((b, v))
        assert batch["cameras"].shape == (b, v, 16)
        assert batch["embedding"].shape == (b, 1, 1)
        assert torch.equal(batch["reference"].flatten(), batch["embedding"].flatten())
        for i in range(b):
            item, reference = divmod(int(batch["reference"][i]), 10)
            columns = batch["latents"][i].flatten().long() - 100 * item
            assert bool(((columns >= 0) & (columns < 12)).all())
            if v == 4:
                assert columns.tolist() == [int(columns[0]) + k for k in range(4)]
                assert int(columns[0]) % 4 == 0
            azimuth = Views.azimuth[item, columns] - Views.azimuth[item, 12 + reference]
            expected = unit_sphere_matrix(orbit(azimuth, Views.elevation[item, columns]))
            torch.testing.assert_close(batch["cameras"][i], expected, rtol=1e-4, atol=1e-5)
    assert shapes == {(6, 4), (24, 1)}


# ---- the prior -----------------------------------------------------------------------------------

UNET = {
    "sample_size": 4, "in_channels": 4, "out_channels": 4, "cross_attention_dim": 12,
    "block_out_channels": (16, 32), "layers_per_block": 1, "norm_num_groups": 4, "attention_head_dim": (1, 2),
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"), "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D"),
    "class_embed_type": "projection", "projection_class_embeddings_input_dim": 16, "use_linear_projection": True,
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
