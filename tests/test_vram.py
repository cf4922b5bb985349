import json
import shutil

import pytest
import torch

from iso3d_core.doctor import memory
from iso3d_core.fields.hashgrid import HashGridField
from iso3d_core.presets import preset, with_method
from iso3d_core.priors.multiview import MultiViewPrior
from iso3d_core.priors.text import TextPrior
from iso3d_core.priors.zero123 import Zero123Prior
from iso3d_core.types import InputError
from iso3d_core.vram import ALLOWANCE_GB, _encode_bytes, _Saved, predict
from iso3d_core.weights import EMBEDDED, find_bundle


def test_the_weights_and_the_field_are_counted_exactly():
    bundle, config = find_bundle("tiny"), preset("default")
    need, prior = predict(bundle, config), MultiViewPrior.load("tiny", "cpu")
    counts = {name: sum(x.numel() for x in getattr(prior, name).state_dict().values()) for name in ("unet", "vae")}
    assert need.networks == pytest.approx((2 * counts["unet"] + 4 * counts["vae"]) / 1e9)
    assert need.field == pytest.approx(16 * HashGridField(config.field).table.numel() / 1e9)
    assert need.peak == pytest.approx(need.networks + need.field + need.encode + need.render + ALLOWANCE_GB)


def test_the_encoders_share_is_what_a_real_backward_pass_keeps():
    prior = MultiViewPrior.load("tiny", "cpu", "float32")
    size, factor = prior.info["image_size"], prior.info["pixel_unshuffle"]
    vae = prior.vae.to(torch.bfloat16)
    image = torch.zeros(1, 3 * factor**2, size // factor, size // factor, dtype=torch.bfloat16, requires_grad=True)
    with _Saved() as saved:
        kept = vae.encode(image * 1).latent_dist.mode()
    assert kept.grad_fn is not None
    assert saved.bytes > 0
    assert _encode_bytes(find_bundle("tiny")) == pytest.approx(saved.bytes, rel=0.1)


def test_more_views_and_pixels_need_more():
    bundle = find_bundle("tiny")
    paper, fast = predict(bundle, preset("paper", "isotropic3d")), predict(bundle, preset("fast", "tiny"))
    assert paper.render > 2 * fast.render
    assert paper.encode == pytest.approx(2 * fast.encode)  # two groups of views


def test_guided_methods_load_every_prior_they_ask():
    bundle, config = find_bundle("tiny"), preset("default")
    need = {name: predict(bundle, with_method(config, name)) for name in ("zero123", "consistent123", "realfusion-sds")}
    loaded = {
        "multiview": MultiViewPrior.load(bundle, "cpu"), "zero123": Zero123Prior.load(bundle, "cpu"),
        "depth": TextPrior.load(bundle, "cpu"),
    }  # fmt: skip
    loaded["multiview"].free_clip()

    def size(name):
        return sum(
            p.numel() * (2 if part.startswith("unet") else 4) for part, p in loaded[name].named_parameters()
        ) / 1e9  # fmt: skip

    assert need["zero123"].networks == pytest.approx(size("multiview") + size("zero123"), rel=0.01)
    assert need["realfusion-sds"].networks == pytest.approx(size("multiview") + size("depth"), rel=0.01)
    assert need["consistent123"].networks == pytest.approx(sum(size(name) for name in loaded), rel=0.01)
    assert need["consistent123"].encode == pytest.approx(2 * need["zero123"].encode)  # both losses end in one gradient


def test_a_prior_that_is_not_here_is_named(tmp_path, monkeypatch):
    monkeypatch.setenv("ISO3D_HOME", str(tmp_path))
    folder = tmp_path / "poses"
    for part in ("clip", "vae", "zero123"):
        shutil.copytree(EMBEDDED / "tiny" / part, folder / part)
    shutil.copytree(EMBEDDED / "tiny" / "sketch", folder / "sketch")
    (folder / "bundle.json").write_text(json.dumps({**find_bundle("tiny").info, "name": "poses", "files": {}}))
    assert memory("poses", "zero123")[1].startswith("  fast")
    with pytest.raises(InputError, match="sd-text"):  # without a multi-view prior it is about consistent123
        memory("poses")


def test_the_doctor_says_whether_it_fits():
    lines = memory("tiny")
    assert [line.split()[0] for line in lines[1:]] == ["fast", "default", "quality", "paper"]
    ending = "fits" if torch.cuda.is_available() else "no GPU here"
    assert all(line.endswith(ending) for line in lines[1:])
    with pytest.raises(InputError, match="no bundle 'none'"):
        memory("none")
