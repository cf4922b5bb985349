"""Original checkpoints to bundles: the same numbers as an independent network, strict keys, nothing half-written."""

import json
import math
import os
import pickle
import sys
import types

import ldm
import numpy as np
import open_clip
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn
from torch.nn import functional as F

from iso3d_core.cameras import even_azimuths, orbit
from iso3d_core.checkpoints.convert import convert, read_state
from iso3d_core.checkpoints.layouts import (
    CLIP_MEAN,
    CLIP_STD,
    DEPTH_UNET,
    MULTIVIEW_UNET,
    SD_UNET,
    SD_VAE,
    ZERO123_UNET,
    isotropic3d,
    stable_diffusion_2,
    zero123,
)
from iso3d_core.priors.attention import predict
from iso3d_core.priors.clip import image_tensor
from iso3d_core.priors.depth import INJECTED, DepthPrior
from iso3d_core.priors.injection import share_attention
from iso3d_core.priors.multiview import MultiViewPrior
from iso3d_core.priors.zero123 import Zero123Prior
from iso3d_core.types import InputError, Reference

SMALL = {
    "sample_size": 8, "block_out_channels": (32, 64), "layers_per_block": 1, "cross_attention_dim": 16,
    "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"), "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"),
    "attention_head_dim": (2, 4),
}  # fmt: skip
UNET = {**MULTIVIEW_UNET, **SMALL}
VAE = {
    **SD_VAE, "block_out_channels": (32, 64), "layers_per_block": 1, "sample_size": 16,
    "down_block_types": ("DownEncoderBlock2D",) * 2, "up_block_types": ("UpDecoderBlock2D",) * 2,
}  # fmt: skip
CLIP = {
    "embed_dim": 16,
    "vision_cfg": {"image_size": 28, "patch_size": 14, "width": 32, "layers": 2, "head_width": 16},
    "text_cfg": {"context_length": 6, "vocab_size": 10, "width": 16, "heads": 2, "layers": 1},
}
LAYOUT = isotropic3d(UNET, VAE, CLIP, image_size=16)


def random(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def prefixed(prefix, network):
    return {prefix + key: value.clone() for key, value in network.state_dict().items()}


def stirred(network, seed):
    """Weights far from any initialisation, so that no layer is an identity."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter += 0.05 * torch.randn(parameter.shape, generator=generator)
    return network.eval()


@pytest.fixture(scope="module")
def networks():
    torch.manual_seed(0)
    return {
        "unet": stirred(ldm.UNet((32, 64), 1, (True, False), (2, 4), 16, camera_dim=16), 1),
        "vae": stirred(ldm.Vae((32, 64), 1), 2),
        "clip": stirred(open_clip.model.CLIP(**CLIP), 3),
    }


@pytest.fixture(scope="module")
def weights(networks):
    """As `isotropic3d.ckpt`: flat, its OpenCLIP without a text transformer, schedule buffers."""
    clip = prefixed("cond_stage_model.model.", networks["clip"])
    return {
        **prefixed("model.diffusion_model.", networks["unet"]),
        **prefixed("first_stage_model.", networks["vae"]),
        **{key: value for key, value in clip.items() if ".transformer." not in key or ".visual." in key},
        "betas": torch.zeros(1000), "alphas_cumprod": torch.zeros(1000), "sqrt_alphas_cumprod": torch.zeros(1000),
    }  # fmt: skip


@pytest.fixture(scope="module")
def checkpoint(weights, tmp_path_factory):
    path = tmp_path_factory.mktemp("checkpoint") / "isotropic3d.ckpt"
    torch.save(weights, path)
    return path


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


# ---- what cannot be converted --------------------------------------------------------------------


class Malicious:
    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return os.system, (f"touch '{self.marker}'",)


def refuse(file, out, match, **more):
    with pytest.raises(InputError, match=match):
        convert(file, "isotropic3d", out, layout=LAYOUT, **more)
    assert not out.exists()
    assert list(out.parent.glob(f"{out.name}*")) == []


def saved(weights, path):
    torch.save(weights, path)
    return path


def test_a_pickle_that_runs_code_is_refused(weights, tmp_path):
    marker = tmp_path / "was_run"
    file = saved({**weights, "betas": Malicious(marker)}, tmp_path / "bad.ckpt")
    refuse(file, tmp_path / "out", r"refused: it asks to run '\w+.system'")
    plain = tmp_path / "old.ckpt"
    plain.write_bytes(pickle.dumps({"a": Malicious(marker)}))
    refuse(plain, tmp_path / "out", "refused|not a checkpoint")
    assert not marker.exists()


def test_a_training_state_that_names_lightnings_callback_is_read(weights, tmp_path):
    callback = type("ModelCheckpoint", (), {"__module__": "pytorch_lightning.callbacks.model_checkpoint"})
    folder = types.ModuleType(callback.__module__)
    folder.ModelCheckpoint = callback
    with pytest.MonkeyPatch.context() as patch:
        for name in ("pytorch_lightning", "pytorch_lightning.callbacks", callback.__module__):
            patch.setitem(sys.modules, name, folder)
        state = {"state_dict": weights, "callbacks": {callback: {"best_model_score": None}}, "global_step": 1}
        file = saved(state, tmp_path / "training.ckpt")
    assert set(read_state(file)) == set(weights)


def test_broken_files_are_named(weights, checkpoint, tmp_path):
    out = tmp_path / "out"
    refuse(tmp_path / "none.ckpt", out, "no such file")
    cut = tmp_path / "cut.ckpt"
    cut.write_bytes(checkpoint.read_bytes()[:100_000])
    refuse(cut, out, "cut short or damaged at 100000 bytes")
    text = tmp_path / "text.ckpt"
    text.write_text("not weights at all\n" * 100)
    refuse(text, out, "not a checkpoint")
    whole = tmp_path / "whole.safetensors"
    save_file({key: value.contiguous() for key, value in weights.items()}, whole)
    size = whole.stat().st_size
    short = tmp_path / "short.safetensors"
    short.write_bytes(whole.read_bytes()[:-1000])
    refuse(short, out, f"cut short: it has {size - 1000} bytes of {size}")
    refuse(saved([1, 2], tmp_path / "list.ckpt"), out, "holds a list")
    refuse(saved({"a": 1}, tmp_path / "empty.ckpt"), out, "holds no weights")
    assert convert(whole, "isotropic3d", out, layout=LAYOUT).is_dir()  # the whole file then succeeds


def test_every_key_is_accounted_for(weights, tmp_path):
    out = tmp_path / "out"
    file = tmp_path / "w.ckpt"

    def without(key):
        return saved({k: v for k, v in weights.items() if k != key}, file)

    refuse(
        without("model.diffusion_model.input_blocks.1.0.in_layers.2.weight"), out, r"down_blocks\.0\.resnets\.0\.conv1"
    )
    refuse(without("model.diffusion_model.camera_embed.0.weight"), out, r"label_emb\.0\.0\.weight|camera_embed")
    refuse(without("first_stage_model.decoder.mid.attn_1.q.bias"), out, "to_q.bias")
    refuse(without("cond_stage_model.model.visual.proj"), out, "'proj' of 'clip'")
    only = {k: v for k, v in weights.items() if not k.startswith("first_stage_model.")}
    refuse(saved(only, file), out, r"no key first_stage_model\.\* for the part 'vae'")
    refuse(saved({**weights, "control_model.x": torch.zeros(1)}, file), out, "'control_model.x' is unknown")
    extra = {**weights, "model.diffusion_model.input_blocks.1.0.extra": torch.zeros(1)}
    refuse(saved(extra, file), out, "extra' is unknown in 'multiview'")
    key = "first_stage_model.encoder.conv_in.weight"
    refuse(
        saved({**weights, key: torch.zeros(32, 4, 3, 3)}, file), out, r"shape \[32, 4, 3, 3\], expected \[32, 3, 3, 3\]"
    )
    huge = {**weights, "model.diffusion_model.out.2.bias": torch.full((4,), 1e6)}
    refuse(saved(huge, file), out, "beyond float16", half=True)


def test_no_room_and_no_place(checkpoint, tmp_path, monkeypatch):
    out = tmp_path / "out"
    monkeypatch.setattr("shutil.disk_usage", lambda path: type("Usage", (), {"free": 1000})())
    refuse(checkpoint, out, "0.00 GB free, the bundle needs")
    monkeypatch.undo()

    def full(*args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("huggingface_hub.save_torch_state_dict", full)
    refuse(checkpoint, out, "No space left on device")
    monkeypatch.undo()
    out.mkdir()
    (out / "mine.txt").write_text("keep me")
    with pytest.raises(InputError, match="exists and is not a bundle"):
        convert(checkpoint, "isotropic3d", out, layout=LAYOUT)
    assert (out / "mine.txt").read_text() == "keep me"
    with pytest.raises(InputError, match="unknown kind"):
        convert(checkpoint, "sd9", tmp_path / "x")


def test_full_size_layouts_match_stable_diffusion():
    assert SD_UNET["attention_head_dim"] == tuple(width // 64 for width in SD_UNET["block_out_channels"])
    assert isotropic3d().info["latent_size"] == 32
