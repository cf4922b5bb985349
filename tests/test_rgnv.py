"""RGNV: keys and values of a reference in the attention of other images, and DDIM run backwards."""

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from iso3d_core import rgnv
from iso3d_core.cli import main
from iso3d_core.near import nearness
from iso3d_core.priors.base import move
from iso3d_core.priors.clip import ClipText, WordTokenizer, make_clip
from iso3d_core.priors.depth import DepthPrior
from iso3d_core.priors.injection import InjectAttention, Injection, share_attention
from iso3d_core.types import InputError, Reference


def make_prior(prediction="epsilon", **info):
    from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel

    torch.manual_seed(0)
    blocks = {"down_block_types": ("CrossAttnDownBlock2D",) * 2, "up_block_types": ("CrossAttnUpBlock2D",) * 2}
    unet = UNet2DConditionModel(
        sample_size=8, in_channels=5, out_channels=4, block_out_channels=(16, 32), layers_per_block=1,
        norm_num_groups=4, attention_head_dim=(2, 4), cross_attention_dim=16, use_linear_projection=True, **blocks,
    )  # fmt: skip
    vae = AutoencoderKL(
        latent_channels=4, block_out_channels=(8, 8), norm_num_groups=4, down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
    )  # fmt: skip
    scheduler = DDIMScheduler(prediction_type=prediction, beta_schedule="scaled_linear")
    text = {"context_length": 6, "vocab_size": 6, "width": 16, "heads": 2, "layers": 2}
    vision = {"image_size": 16, "layers": 1, "width": 16, "head_width": 8, "patch_size": 8}
    clip = make_clip({"embed_dim": 16, "vision_cfg": vision, "text_cfg": text})
    tower = ClipText(clip, WordTokenizer(["red", "duck"], 6))
    sizes = {"name": "test", "image_size": 16, "latent_size": 8, "latent_channels": 4, "latent_scale": 0.5}
    layers = {"injected_layers": ["up_blocks"], "background": 1.0, "inject_from": 0}
    return DepthPrior(tower, vae, unet, scheduler, {**sizes, **layers, **info}).place("cpu", "float32")


@pytest.fixture
def prior():
    return make_prior()


def views(count, seed=0):
    generator = torch.Generator().manual_seed(seed)
    mask = torch.zeros(count, 1, 16, 16)
    mask[:, :, 4:12, 3:13] = 1
    return torch.rand(count, 3, 16, 16, generator=generator) * mask + 1 - mask, mask


def reference(seed=5):
    rgb, mask = views(1, seed)
    return Reference(torch.cat([rgb, mask], dim=1)[0])


def test_injected_attention_is_that_of_the_other_images_tokens():
    """Against diffusers' own attention given the other image as its context."""
    from diffusers.models.attention_processor import Attention, AttnProcessor

    torch.manual_seed(0)
    attn = Attention(query_dim=12, heads=3, dim_head=4)
    first, second = torch.randn(1, 10, 12), torch.randn(4, 10, 12)
    with torch.no_grad():
        attn.set_processor(AttnProcessor())
        plain, crossed = attn(second), attn(second, encoder_hidden_states=first.expand(4, -1, -1))
        unet = torch.nn.Module()
        unet.attn_processors = {"up.attn1": None}
        unet.set_attn_processor = lambda processors: attn.set_processor(processors["up.attn1"])
        injection = share_attention(unet, ["up"])
        torch.testing.assert_close(attn(second), plain)
        injection.mode = "record"
        attn(first)
        injection.mode = "inject"
        torch.testing.assert_close(attn(second), crossed)
        injection.mode = "pair"
        both = attn(torch.cat([first, second[:1]]))
        torch.testing.assert_close(both[1], crossed[0])
        injection.mode = "inject"
        attn.set_processor(InjectAttention("down.attn1", injection, False))
        torch.testing.assert_close(attn(second), plain)


def test_two_conditions_are_injected_apart():
    kept = torch.tensor([[[1.0]], [[2.0]]]), torch.tensor([[[3.0]], [[4.0]]])
    processor = InjectAttention("a", Injection("inject", {"a": kept}), True)
    key, value = processor.kept_for(torch.zeros(6, 1, 1))
    assert key.flatten().tolist() == [1, 1, 1, 2, 2, 2]
    assert value.flatten().tolist() == [3, 3, 3, 4, 4, 4]


def test_ddim_steps_undo_each_other_and_keep_exact_noise():
    z0, noise = torch.randn(2, 4, 8, 8), torch.randn(2, 4, 8, 8)
    levels = torch.tensor([1.0, 0.7, 0.2])
    z1 = move(z0, noise, levels[0], levels[1])
    torch.testing.assert_close(z1, 0.7**0.5 * z0 + 0.3**0.5 * noise)
    torch.testing.assert_close(move(move(z1, noise, levels[1], levels[2]), noise, levels[2], levels[0]), z0)


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
def test_inversion_finds_the_noise_of_a_known_model(prediction):
    """A network that always says the same noise is inverted and denoised exactly."""
    prior = make_prior(prediction)
    noise = torch.randn(2, 4, 8, 8)

    def say(z, t, condition, scale):
        return noise

    prior.predict_noise = say
    rgb, mask = views(2)
    states = rgnv.invert(prior, rgb, mask, 10)
    abar = prior.alphas_cumprod[999]
    torch.testing.assert_close(states[-1], abar.sqrt() * states[0] + (1 - abar).sqrt() * noise, atol=1e-4, rtol=1e-4)
    back = rgnv.denoise(prior, states[6], prior.condition(mask), 10, 6)[0]
    torch.testing.assert_close(back, states[0], atol=1e-4, rtol=1e-4)


def test_more_steps_reconstruct_better(prior):
    rgb, mask = views(1)
    errors = []
    for steps in (4, 64):
        z = rgnv.invert(prior, rgb, mask, steps)
        errors.append(float(F.mse_loss(rgnv.denoise(prior, z[-1], prior.condition(mask), steps, steps)[0], z[0])))
    assert errors[1] < errors[0] / 4


def test_corrections_bring_denoising_back_to_where_inversion_began(prior):
    rgb, mask = views(2)
    z, condition = prior.encode(rgb).detach(), prior.condition(mask)
    errors = []
    for corrections in (0, 1, 3):
        noisy = rgnv.invert_latents(prior, z, condition, 6, 5, corrections=corrections)[-1]
        errors.append(float(F.mse_loss(rgnv.denoise(prior, noisy, condition, 6, 5)[0], z)))
    assert errors[1] < errors[0] / 2
    assert errors[2] < errors[1] / 2


def test_a_bundle_says_how_often_inversion_is_corrected():
    corrected, plain = make_prior(rgnv={"steps": 4, "strength": 1.0, "corrections": 2}), make_prior()
    for prior, given in ((corrected, None), (plain, 2)):
        memory = rgnv.remember(prior, reference(), steps=4, strength=1.0, corrections=given)
        assert torch.equal(memory.states, rgnv.remember(corrected, reference()).states)
    assert not torch.equal(memory.states, rgnv.remember(plain, reference(), steps=4, strength=1.0).states)
    # The views as well as the reference.
    rgb, mask = views(2)
    once = rgnv.enhance(corrected, reference(), rgb, mask, memory=memory)
    assert not torch.allclose(once, rgnv.enhance(plain, reference(), rgb, mask, None, 1.0, 4, memory=memory))


def test_a_corrected_step_of_a_linear_model_is_the_exact_one():
    """Noise a * z: the step from abar 1 to abar solves z' = sqrt(abar) z + sqrt(1 - abar) a z'."""
    prior, a = make_prior(), 0.3
    prior.predict_noise = lambda z, t, condition, scale: a * z
    z = torch.randn(1, 4, 8, 8)
    found = rgnv.invert_latents(prior, z, prior.condition(torch.ones(1, 1, 8, 8)), 10, 1, corrections=20)[-1]
    abar = rgnv.noise_levels(prior, 10)[1]
    torch.testing.assert_close(found, abar.sqrt() * z / (1 - (1 - abar).sqrt() * a))


def test_the_output_of_v_prediction_becomes_noise():
    prior = make_prior("v_prediction")
    z0, noise = torch.randn(1, 4, 8, 8), torch.randn(1, 4, 8, 8)
    abar = prior.alphas_cumprod[300]
    z_t, v = abar.sqrt() * z0 + (1 - abar).sqrt() * noise, abar.sqrt() * noise - (1 - abar).sqrt() * z0
    torch.testing.assert_close(prior.to_noise(v, z_t, 300), noise)


def test_guidance_extrapolates_from_no_prompt_to_the_prompt(prior):
    z, mask = torch.randn(3, 4, 8, 8), views(3)[1]
    alone = [prior.predict_noise(z, 500, prior.condition(mask, (text,)), 1.0) for text in ("", "red duck")]
    assert not torch.allclose(*alone, atol=1e-5)
    guided = prior.predict_noise(z, 500, prior.condition(mask, ("", "red duck")), 3.0)
    torch.testing.assert_close(guided, alone[0] + 3 * (alone[1] - alone[0]), atol=1e-4, rtol=1e-4)


def test_depth_maps_fill_their_range_whatever_their_scale(prior):
    depth = views(2)[1] * torch.tensor([1.0, 250.0]).reshape(2, 1, 1, 1)
    found = prior.depth_map(depth)
    assert found.shape == (2, 1, 8, 8)
    torch.testing.assert_close(found[0], found[1], atol=5e-3, rtol=0)
    assert found.min() == -1
    assert found.max() > 0.99
    assert (prior.depth_map(torch.zeros(1, 1, 16, 16)) == -1).all()


def test_nearness_is_one_at_the_nearest_and_nothing_outside():
    distance = torch.tensor([[[[2.0, 4.0, 0.0]]]])
    assert nearness(distance, torch.tensor([[[[1.0, 1.0, 0.0]]]])).flatten().tolist() == [1.0, 0.5, 0.0]


def test_a_reference_is_computed_once(prior):
    coarse, mask = views(4)
    kept = rgnv.remember(prior, reference(), steps=5)
    assert not kept.keys_values
    calls = []
    predict = prior.predict_noise
    prior.predict_noise = lambda z, *rest: (calls.append(len(z)), predict(z, *rest))[1]
    first = rgnv.enhance(prior, reference(), coarse, mask, steps=5, memory=kept)
    assert calls.count(1) == 3  # of the reference, one a step
    calls.clear()
    second = rgnv.enhance(prior, reference(), coarse, mask, steps=5, memory=kept)
    assert calls == [4] * 6
    assert torch.equal(first, second)
    assert first.shape == (4, 3, 16, 16)
    alone = rgnv.enhance(prior, reference(), coarse[1:2], mask[1:2], steps=5)
    torch.testing.assert_close(alone[0], first[1], atol=1e-4, rtol=1e-4)


def test_a_reference_takes_the_depth_that_its_bundle_guesses(prior):
    flat = rgnv.remember(prior, reference(), steps=5)
    slope = torch.linspace(0.2, 1, 16).expand(1, 1, 16, 16)
    prior.guess = lambda _reference: slope
    guessed, given = rgnv.remember(prior, reference(), steps=5), rgnv.remember(prior, reference(), slope, steps=5)
    assert torch.equal(guessed.condition.depth, given.condition.depth)
    assert torch.equal(guessed.states, given.states)
    assert (guessed.condition.depth - flat.condition.depth).abs().max() > 0.1
    mask = reference().rgba[None, 3:]
    assert torch.equal(rgnv.remember(prior, reference(), mask, steps=5).states, flat.states)


def test_the_reference_matters_and_the_background_stays_white(prior):
    coarse, mask = views(1)
    red, blue = (rgnv.enhance(prior, reference(seed), coarse, mask, steps=5) for seed in (5, 6))
    assert (red - blue).abs().max() > 1e-4
    assert (red[:, :, :3] == 1).all()
    prompted = rgnv.enhance(prior, reference(5), coarse, mask, steps=5, prompt="red duck", guidance_scale=2.0)
    assert (prompted - red).abs().max() > 1e-4
    deep = rgnv.enhance(prior, reference(5), coarse, mask, mask * torch.linspace(0.2, 1, 16), steps=5)
    assert (deep - red).abs().max() > 1e-4


@pytest.mark.parametrize("shape", [(24, 48), (48, 18)])
def test_views_that_are_not_square_keep_their_proportions(prior, shape):
    height, width = shape
    y, x = torch.meshgrid(torch.arange(height) + 0.5, torch.arange(width) + 0.5, indexing="ij")
    inside = ((y - height / 2) ** 2 + (x - width / 2) ** 2 < 64).float()
    view = (1 - 0.8 * inside).expand(1, 3, -1, -1)
    size = prior.info["image_size"]
    out = rgnv.enhance(prior, reference(), view, inside[None, None], steps=2, strength=0.5)
    assert out.shape[-2:] == (round(size * height / 48), round(size * width / 48))
    square = rgnv.enhance(
        prior, reference(), rgnv.squared(view, 1.0), rgnv.squared(inside[None, None], 0.0), steps=2, strength=0.5
    )
    assert torch.equal(rgnv.unsquared(square, shape), out)
    drawn = (square < 0.98).any(dim=1)[0]
    assert int(drawn.any(dim=0).sum()) == int(drawn.any(dim=1).sum())  # a circle, as wide as high


def test_progress_moves_to_its_end_and_may_stop_the_work(prior, monkeypatch):
    seen = []
    rgnv.enhance(prior, reference(), *views(1), steps=5, on_progress=lambda p: seen.append((p.step, p.total)))
    assert seen == [(i, 9) for i in range(1, 10)]
    monkeypatch.setattr("iso3d_core.priors.base.LISTEN_SECONDS", 0.0)  # every layer is slow
    again = []
    rgnv.enhance(prior, reference(), *views(1), steps=5, on_progress=lambda p: again.append((p.step, p.total)))
    assert len(again) > len(seen)
    assert again == sorted(again)
    assert again[-1] == (9, 9)

    class Stop(Exception):
        pass

    def stop(_):
        raise Stop

    with pytest.raises(Stop):
        rgnv.enhance(prior, reference(), *views(1), steps=5, on_progress=stop)
    assert prior.injection.mode == "off"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"strength": 1.5}, "strength"), ({"steps": 0}, "sampling steps"),
        ({"coarse": torch.ones(3, 16, 16)}, "coarse"),
        ({"mask": torch.ones(2, 1, 16, 16)}, "as many masks"), ({"strength": 1.0, "short": True}, "memory goes back"),
    ],
)  # fmt: skip
def test_what_cannot_be_used_is_told(prior, change, said):
    coarse, mask = views(1)
    given = {"coarse": coarse, "mask": mask, "steps": 4, **change}
    if given.pop("short", False):
        given["memory"] = rgnv.remember(prior, reference(), steps=4, strength=0.5)
    with pytest.raises(InputError, match=said):
        rgnv.enhance(prior, reference(), **given)


def test_a_bundle_without_the_part_says_where_to_get_it(tmp_path):
    (tmp_path / "bundle.json").write_text('{"name": "mine"}')
    with pytest.raises(InputError, match="no depth-conditioned prior"):
        DepthPrior.load(tmp_path)


def test_the_command_keeps_names_and_overwrites_nothing(tmp_path, capsys):
    from PIL import Image

    for name in ("ref", "a", "b"):
        pixels = np.full((40, 40, 3), 255, np.uint8)
        pixels[8:32, 10:30] = (200, 30, 30)
        Image.fromarray(pixels).save(tmp_path / f"{name}.png")
    ref, a, b = (str(tmp_path / f"{name}.png") for name in ("ref", "a", "b"))
    assert main(["enhance", ref, a, b, "-o", str(tmp_path / "out"), "--steps", "4"]) == 0
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["a.png", "b.png"]
    with Image.open(tmp_path / "out" / "a.png") as image:
        assert image.size == (64, 64)
    for bad in (["-o", str(tmp_path)], ["-o", str(tmp_path / "x.png")], ["-o", str(tmp_path / "c"), "--strength", "2"]):
        assert main(["enhance", ref, a, *bad]) == 2
    assert main(["enhance", ref, str(tmp_path / "missing.png"), "-o", str(tmp_path / "c")]) == 2
    assert not (tmp_path / "c").exists() or not list((tmp_path / "c").iterdir())
