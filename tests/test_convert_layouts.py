"""The other published layouts to bundles: the same numbers as independent networks."""

import json
import math

import ldm
import open_clip
import torch
from originals import CLIP, SMALL, VAE, prefixed, random, stirred
from safetensors.torch import load_file, save_file
from torch import nn
from torch.nn import functional as F

from iso3d_core.cameras import orbit
from iso3d_core.checkpoints.convert import convert
from iso3d_core.checkpoints.layouts import (
    CLIP_MEAN,
    CLIP_STD,
    DEPTH_UNET,
    SD_UNET,
    ZERO123_UNET,
    isotropic3d,
    stable_diffusion_2,
    zero123,
)
from iso3d_core.priors.depth import INJECTED, DepthPrior
from iso3d_core.priors.injection import share_attention
from iso3d_core.priors.zero123 import Zero123Prior
from iso3d_core.types import Reference


def test_zero123_concatenates_and_projects(tmp_path):
    torch.manual_seed(0)
    linear = {"use_linear_projection": False, "in_channels": 8, "attention_head_dim": (2, 2)}
    unet = stirred(ldm.UNet((32, 64), 1, (True, False), (2, 2), 16, inputs=8, linear=False), 1)
    projection, clip = nn.Linear(20, 16), open_clip.model.CLIP(**CLIP)
    file = tmp_path / "zero123.ckpt"
    torch.save({"state_dict": {
        **prefixed("model.diffusion_model.", unet), **prefixed("first_stage_model.", ldm.Vae((32, 64), 1)),
        **prefixed("cond_stage_model.model.", clip), **prefixed("cc_projection.", projection),
        "cond_stage_model.mean": torch.zeros(3), "model_ema.decay": torch.zeros(1),
    }, "global_step": 5}, file)  # fmt: skip
    layout = zero123({**ZERO123_UNET, **SMALL, **linear}, VAE, CLIP, image_size=16)
    out = convert(file, "zero123", tmp_path / "zero", layout=layout)
    from diffusers import UNet2DConditionModel

    ours = UNet2DConditionModel.from_pretrained(out / "zero123", low_cpu_mem_usage=False).eval()
    x, t, context = random(2, 8, 8, 8), torch.tensor([5, 900]), random(2, 1, 16, seed=1)
    with torch.no_grad():
        theirs = unet(x, t, context)
        assert float((ours(x, t, encoder_hidden_states=context).sample - theirs).abs().max()) < 1e-4
    stored = load_file(out / "cc_projection" / "model.safetensors")
    assert torch.equal(stored["weight"], projection.weight.detach())
    assert torch.equal(stored["bias"], projection.bias.detach())

    prior = Zero123Prior.load(out, "cpu", "float32")
    source = prior.see(Reference(random(4, 64, 64).sigmoid()), 20.0)
    seen = F.interpolate(source_image(), (256, 256), mode="area")  # the original resizes 256 pixels, bicubic
    seen = F.interpolate(seen, (28, 28), mode="bicubic", align_corners=True)
    mean, std = (torch.tensor(v).reshape(1, 3, 1, 1) for v in (CLIP_MEAN, CLIP_STD))
    with torch.no_grad():
        torch.testing.assert_close(source.embedding[0], clip.visual((seen - mean) / std))
    cameras = orbit(torch.tensor([0.0, 90.0, -30.0]), torch.tensor([20.0, 20.0, 50.0]))
    pose = torch.tensor([[0, 0, 1, 0], [0, 1, 0, 0], [-math.pi / 6, -0.5, math.sqrt(0.75), 0]])
    with torch.no_grad():
        # The image's latent is the posterior's mean without the scale, the token the projected embedding and pose.
        z, t = random(3, 4, 8, 8, seed=3), 700
        latent = prior.vae.encode(prior_pixels(source_image(), 16)).latent_dist.mode()
        token = projection(torch.cat([source.embedding.expand(3, -1, -1), pose[:, None]], dim=-1))
        torch.testing.assert_close(source.latent, latent)
        steps = torch.full((3,), t)
        conditional = unet(torch.cat([z, latent.expand(3, -1, -1, -1)], dim=1), steps, token)
        without = unet(torch.cat([z, torch.zeros_like(z)], dim=1), steps, torch.zeros_like(token))
        found = prior.predict_noise(z, t, prior.condition(source, cameras), 3.0)
    torch.testing.assert_close(found, without + 3 * (conditional - without), atol=1e-4, rtol=1e-4)
    assert prior.sample(source, cameras, steps=2).shape == (3, 3, 16, 16)


def test_a_training_states_moving_averages_are_what_samples(tmp_path):
    """As the original codes do; without all of them, the weights themselves."""
    linear = {"use_linear_projection": False, "in_channels": 8, "attention_head_dim": (2, 2)}
    unet = ldm.UNet((32, 64), 1, (True, False), (2, 2), 16, inputs=8, linear=False)
    own = prefixed("model.diffusion_model.", unet)
    average = {"model_ema." + key.removeprefix("model.").replace(".", ""): value + 1 for key, value in own.items()}
    rest = {
        **own, **prefixed("first_stage_model.", ldm.Vae((32, 64), 1)),
        **prefixed("cond_stage_model.model.", open_clip.model.CLIP(**CLIP)),
        **prefixed("cc_projection.", nn.Linear(20, 16)), "model_ema.decay": torch.zeros(1),
    }  # fmt: skip
    layout = zero123({**ZERO123_UNET, **SMALL, **linear}, VAE, CLIP, image_size=16)
    assert stable_diffusion_2("depth", DEPTH_UNET).averaged
    assert not isotropic3d().averaged  # its code has them switched off
    first = "model_ema.diffusion_modelinput_blocks00weight"
    assert first in average
    for held, added in ((average, 1.0), ({k: v for k, v in average.items() if k != first}, 0.0)):
        file = tmp_path / f"{added}.ckpt"
        torch.save({"state_dict": {**rest, **held}}, file)
        out = convert(file, "zero123", tmp_path / f"{added}", layout=layout)
        stored = load_file(out / "zero123" / "diffusion_pytorch_model.safetensors")
        torch.testing.assert_close(
            stored["conv_in.weight"], own["model.diffusion_model.input_blocks.0.0.weight"] + added
        )


def source_image():
    return Reference(random(4, 64, 64).sigmoid()).on_white()[None]


def prior_pixels(rgb, size):
    return F.interpolate(rgb, (size, size), mode="bilinear", antialias=True) * 2 - 1


def test_stable_diffusion_2_depth_reads_depth_and_the_penultimate_words(tmp_path):
    torch.manual_seed(0)
    unet = stirred(ldm.UNet((32, 64), 1, (True, False), (2, 4), 16, inputs=5), 1)
    text = {**CLIP, "text_cfg": {**CLIP["text_cfg"], "layers": 3}}
    clip = stirred(open_clip.model.CLIP(**text), 2)
    words = {key: value for key, value in clip.state_dict().items() if not key.startswith("visual.")}
    state = {
        **prefixed("model.diffusion_model.", unet), **prefixed("first_stage_model.", ldm.Vae((32, 64), 1)),
        **{"cond_stage_model.model." + key: value for key, value in words.items()},
        "depth_model.model.scratch": torch.zeros(1),
    }  # fmt: skip
    save_file(state, tmp_path / "depth.safetensors")
    layout = stable_diffusion_2("depth", {**DEPTH_UNET, **SMALL}, VAE, text)
    out = convert(tmp_path / "depth.safetensors", "sd-depth", tmp_path / "depth", layout=layout)
    info = json.loads((out / "bundle.json").read_text())
    (out / "bundle.json").write_text(json.dumps({**info, "latent_size": 8, "image_size": 16}))
    prior = DepthPrior.load(out, "cpu", "float32")

    prior.text.tokenizer = lambda texts: torch.tensor([[1, 5, 9, 0, 0, 0], [1, 9, 0, 0, 0, 0]])[: len(texts)]
    with torch.no_grad():
        x = clip.token_embedding(prior.text.tokenizer([1, 2])) + clip.positional_embedding
        for block in clip.transformer.resblocks[:-1]:
            x = block(x, attn_mask=clip.attn_mask)
        context = clip.ln_final(x)
        torch.testing.assert_close(prior.text(["", "a"]), context)
        z, depth = random(3, 4, 8, 8), random(3, 1, 8, 8, seed=1).sigmoid()
        depth = (depth - depth.amin(dim=(1, 2, 3), keepdim=True)) / (
            depth.amax(dim=(1, 2, 3), keepdim=True) - depth.amin(dim=(1, 2, 3), keepdim=True) + 1e-3
        ) * 2 - 1
        inputs = torch.cat([z, depth], dim=1)
        without, given = (unet(inputs, torch.full((3,), 400), row.expand(3, -1, -1)) for row in context[:, None])
    found = prior.predict_noise(z, 400, prior.condition(random(3, 1, 8, 8, seed=1).sigmoid(), ("", "a")), 5.0)
    torch.testing.assert_close(found, without + 5 * (given - without), atol=1e-3, rtol=1e-4)


def test_the_injected_layers_are_the_last_four_of_stable_diffusion():
    from diffusers import UNet2DConditionModel

    with torch.device("meta"):
        unet = UNet2DConditionModel(**DEPTH_UNET)
    share_attention(unet, INJECTED)
    taking = [name for name, processor in unet.attn_processors.items() if processor.injected and "attn1" in name]
    assert [name.partition(".transformer")[0] for name in taking] == [
        "up_blocks.2.attentions.2", "up_blocks.3.attentions.0", "up_blocks.3.attentions.1", "up_blocks.3.attentions.2",
    ]  # fmt: skip


def test_full_size_layouts_match_stable_diffusion():
    assert SD_UNET["attention_head_dim"] == tuple(width // 64 for width in SD_UNET["block_out_channels"])
    assert isotropic3d().info["latent_size"] == 32
