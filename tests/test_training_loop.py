import itertools
import json
import math
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from iso3d_core.schedules import Ramp, milestone
from iso3d_core.train.loop import TrainConfig, learning_rate_factor, train
from iso3d_core.types import Cancelled


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
    [
        ({"decay": "step"}, "got 'step'"),
        ({"optimizer": "sgd"}, "got 'sgd'"),
        ({"steps": 0}, "at least 1"),
        ({"accumulate": 0}, "at least 1"),
    ],
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


def test_a_lower_learning_rate_holds_when_training_goes_on(accelerate, tmp_path):
    settings = config(8, warmup=0, save_every=4)

    def stopping(rng):
        if (tmp_path / "checkpoint.pt").exists():
            raise Cancelled
        return line_batch(rng)

    model = Line()
    with pytest.raises(Cancelled):
        train(model, stopping, settings, tmp_path)
    before = [p.detach().clone() for p in model.parameters()]
    train(Line(), line_batch, replace(settings, learning_rate=1e-9), tmp_path)
    state = torch.load(tmp_path / "checkpoint.pt", weights_only=True)
    assert state["step"] == 8
    for old, new in zip(before, state["model"].values(), strict=True):
        torch.testing.assert_close(old, new, atol=1e-6, rtol=0)


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


# ---- memory --------------------------------------------------------------------------------------

KEPT = """
import resource, torch
from iso3d_core.train.memory import keep_freed

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(5):
        torch.ones(2**24)  # 64 MB
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

plain = faults()
if not keep_freed():
    raise SystemExit("no glibc")
faults(), faults()  # by then the heap has grown
print(plain, faults())
"""


def test_freed_memory_is_kept_for_the_next_tensor():
    done = subprocess.run([sys.executable, "-c", KEPT], capture_output=True, text=True)
    if "no glibc" in done.stderr:
        pytest.skip("this C library has no such settings")
    plain, kept = map(int, done.stdout.split())
    # Large pages make of a tensor's 16384 pages as few as 32.
    assert plain >= 5 * 32
    assert kept < plain / 10
