import pytest
import torch

from iso3d_core.doctor import memory
from iso3d_core.fields.hashgrid import HashGridField
from iso3d_core.presets import preset
from iso3d_core.priors.multiview import MultiViewPrior
from iso3d_core.types import InputError
from iso3d_core.vram import ALLOWANCE_GB, _encode_bytes, _Saved, predict
from iso3d_core.weights import find_bundle


def test_the_weights_and_the_field_are_counted_exactly():
    bundle, config = find_bundle("tiny"), preset("default")
    need, prior = predict(bundle, config), MultiViewPrior.load("tiny", "cpu")
    counts = {name: sum(p.numel() for p in getattr(prior, name).parameters()) for name in ("unet", "vae")}
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


def test_the_doctor_says_whether_it_fits():
    lines = memory("tiny")
    assert [line.split()[0] for line in lines[1:]] == ["fast", "default", "quality", "paper"]
    ending = "fits" if torch.cuda.is_available() else "no GPU here"
    assert all(line.endswith(ending) for line in lines[1:])
    with pytest.raises(InputError, match="no bundle 'none'"):
        memory("none")
