"""Towers in fewer bytes: what the thinner matrices keep."""

import numpy as np
import pytest
import torch
from palettes import CONFIG, DIM, FREE, PALETTE, random
from safetensors.torch import save_file
from torch.nn import functional as F

from iso3d_core.priors.clip import LEFT, RIGHT, load_shards, make_clip, stored_shapes
from iso3d_core.priors.palette import without
from iso3d_core.train import thinner
from iso3d_core.train.clip import ClipTraining
from iso3d_core.train.thinner import factored, moment, pooled_tokens, without_free


def test_a_matrix_stored_as_two_factors_is_read_as_their_product(tmp_path):
    torch.manual_seed(0)
    low, full, bias = torch.randn(40, 5) @ torch.randn(5, 30), torch.randn(40, 30), torch.randn(40)
    state = {"low": low, "full": full, "bias": bias}
    stored = factored(factored(state, "low", 5), "full", 12)
    assert sum(value.numel() for value in stored.values()) == 5 * 70 + 12 * 70 + 40
    save_file({name: value.contiguous() for name, value in stored.items()}, tmp_path / "model.safetensors")
    found = load_shards(tmp_path, "model")
    assert stored_shapes(tmp_path, "model") == {name: list(value.shape) for name, value in state.items()}
    assert found.keys() == state.keys()
    torch.testing.assert_close(found["low"], low, atol=1e-5, rtol=1e-5)
    assert torch.equal(found["bias"], bias)
    # Of what was left out, nothing but the smallest singular values is missing.
    missing = torch.linalg.svdvals(full)[12:].square().sum().sqrt()
    torch.testing.assert_close((found["full"] - full).norm(), missing, atol=1e-4, rtol=1e-4)
    assert factored(state, "full", 20) is state  # 20 * 70 numbers are more than 40 * 30


def test_factors_keep_what_matters_for_the_inputs_that_come():
    matrix, inputs = random(40, 40), random(500, 40, seed=1) * torch.logspace(0, -3, 40)
    found = factored({"it": matrix}, "it", 10, moment(inputs))
    plain = factored({"it": matrix}, "it", 10)
    true = inputs @ matrix.T
    errors = [float((inputs @ (x["it" + LEFT] @ x["it" + RIGHT]).T - true).norm()) for x in (found, plain)]
    assert errors[0] == pytest.approx(float(torch.linalg.svdvals(true)[10:].square().sum().sqrt()), rel=1e-3)
    assert errors[0] < errors[1] / 2


@torch.no_grad()
def test_the_pooling_s_tokens_are_what_it_attends_to():
    torch.manual_seed(0)
    tower = make_clip(CONFIG).visual.eval()
    images, pool = random(70, 3, 64, 64), tower.attnpool
    tokens = pooled_tokens(tower, images)
    assert tokens.shape == (5, 70, 128)  # 2 x 2 places
    ask, keys, values = pool.q_proj(tokens[:1]), pool.k_proj(tokens), pool.v_proj(tokens)
    heads = [x.unflatten(2, (pool.num_heads, -1)).permute(1, 2, 0, 3) for x in (ask, keys, values)]
    out = F.scaled_dot_product_attention(*heads)[:, :, 0].flatten(1)
    torch.testing.assert_close(pool.c_proj(out), tower(images), atol=1e-5, rtol=1e-4)


@torch.no_grad()
def test_a_thinner_tower_says_nearly_the_same(monkeypatch):
    torch.manual_seed(0)
    model = ClipTraining({**CONFIG, "palette": PALETTE}).eval()
    images = np.random.default_rng(0).integers(0, 255, (40, 64, 64, 3), np.uint8)
    seen = torch.from_numpy(images).permute(0, 3, 1, 2) / 127.5 - 1
    rest = without(model.clip.visual.free)  # the palette overwrites the others
    before = F.normalize(model.clip.visual(seen) @ rest, dim=-1)
    monkeypatch.setattr(thinner, "RANKS", {"q": 8, "k": 8, "v": 40, "c": DIM - FREE})
    state = thinner.thinner(model, images)
    assert sum(x.numel() for x in state.values()) < 0.8 * sum(x.numel() for x in model.clip.state_dict().values())
    for name in [name.removesuffix(LEFT) for name in state if name.endswith(LEFT)]:
        state[name] = state.pop(name + LEFT) @ state.pop(name + RIGHT)
    model.clip.load_state_dict(state)
    after = F.normalize(model.clip.visual(seen) @ rest, dim=-1)
    assert float((after - before).norm(dim=-1).mean()) < 0.02


def test_what_the_palette_overwrites_is_not_stored():
    torch.manual_seed(0)
    clip = make_clip({**CONFIG, "palette": PALETTE}).eval()
    with torch.no_grad():
        clip.visual.free.copy_(torch.linalg.qr(random(DIM, DIM))[0][:, :FREE])
    images, free = random(3, 3, 64, 64), clip.visual.free.clone()
    last = "visual.tower.attnpool.c_proj.weight"
    state = without_free(clip.state_dict())
    assert torch.linalg.matrix_rank(state[last], rtol=1e-5) == min(DIM - FREE, state[last].shape[1])
    torch.testing.assert_close(without(free) @ state[last], without(free) @ clip.state_dict()[last])
    with torch.no_grad():
        before = F.normalize(clip.visual.tower(images), dim=-1) @ without(free)
        clip.load_state_dict(state)
        after = clip.visual.tower(images)
    assert float((after @ free).abs().max()) < 1e-5
    torch.testing.assert_close(F.normalize(after, dim=-1), F.normalize(before, dim=-1), atol=1e-5, rtol=1e-4)
