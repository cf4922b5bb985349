import pytest
import torch
from torch import nn

from iso3d_core.train.loop import TrainConfig, train
from iso3d_core.train.muon import RMS, SIDES, Muon, hidden_matrices, orthogonal
from iso3d_core.types import Cancelled


def random(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("shape", [(64, 64), (48, 160), (160, 48)])
def test_the_singular_values_come_near_one_and_the_directions_stay(shape):
    u, _, v = torch.linalg.svd(random(*shape), full_matrices=False)
    matrix = u @ torch.diag(torch.logspace(0, -1, min(shape))) @ v  # ten times as long one way as another
    found = u.T @ orthogonal(matrix) @ v.T
    kept = torch.diagonal(found)
    assert kept.min() > 0.6
    assert kept.max() < 1.3
    assert (found - torch.diag(kept)).abs().max() < 0.05  # bfloat16


def test_orthogonal_is_blind_to_size():
    matrix = random(40, 50)
    torch.testing.assert_close(orthogonal(matrix), orthogonal(1e-4 * matrix), atol=0.03, rtol=0)


class Mixed(nn.Module):
    def __init__(self):
        super().__init__()
        self.convolution = nn.Conv2d(40, 48, 3)
        self.linear = nn.Linear(64, 32)
        self.narrow = nn.Linear(SIDES[0] - 1, 64)
        self.wide = nn.Linear(SIDES[1] + 8, SIDES[1] + 8)
        self.frozen = nn.Linear(64, 64).requires_grad_(False)
        self.words = nn.Embedding(64, 64)


def test_matrices_of_hidden_layers_are_chosen_by_their_shorter_side():
    model = Mixed()
    assert {id(p) for p in hidden_matrices(model)} == {id(model.convolution.weight), id(model.linear.weight)}


def test_the_rest_is_adamw():
    model, twin = Mixed(), Mixed()
    twin.load_state_dict(model.state_dict())
    settings = {"lr": 0.01, "betas": (0.9, 0.99), "weight_decay": 0.1}
    muon = Muon(model, **settings)
    adamw = torch.optim.AdamW([p for p in twin.parameters() if p.requires_grad], **settings)
    for step in range(3):
        for number, (a, b) in enumerate(zip(model.parameters(), twin.parameters(), strict=True)):
            if a.requires_grad:
                a.grad = random(*a.shape, seed=100 * step + number)
                b.grad = a.grad.clone()
        muon.step()
        adamw.step()
    chosen = {"convolution.weight", "linear.weight"}
    for (name, a), b in zip(model.named_parameters(), twin.parameters(), strict=True):
        assert torch.equal(a, b) == (name not in chosen), name


def test_a_step_is_as_long_as_adamws_and_forgets_the_gradients_size():
    lengths = []
    for size in (1.0, 1e-3):
        layer = nn.Linear(64, 96, bias=False)
        before = layer.weight.detach().clone()
        layer.weight.grad = size * random(96, 64)
        Muon(layer, lr=0.01, weight_decay=0.0).step()
        lengths.append(float((layer.weight.detach() - before).square().mean().sqrt()))
    assert lengths[0] == pytest.approx(RMS * 0.01, rel=0.15)
    assert lengths[1] == pytest.approx(lengths[0], rel=0.05)


def test_weights_decay_as_adamws_do():
    layer = nn.Linear(64, 64, bias=False)
    before = layer.weight.detach().clone()
    layer.weight.grad = torch.zeros(64, 64)
    Muon(layer, lr=0.1, weight_decay=0.5).step()
    torch.testing.assert_close(layer.weight.detach(), before * 0.95)


def test_the_state_goes_on_where_it_was_kept():
    def steps(layer, optimizer, first, last):
        for step in range(first, last):
            layer.weight.grad, layer.bias.grad = random(32, 64, seed=step), random(32, seed=step)
            optimizer.step()

    whole, resumed = (nn.Linear(64, 32) for _ in range(2))
    resumed.load_state_dict(whole.state_dict())
    first = Muon(whole, lr=0.01)
    steps(whole, first, 0, 6)
    half = Muon(resumed, lr=0.01)
    steps(resumed, half, 0, 3)
    again = Muon(resumed, lr=0.5)
    again.load_state_dict(half.state_dict())
    steps(resumed, again, 3, 6)
    assert torch.equal(whole.weight, resumed.weight)
    assert torch.equal(whole.bias, resumed.bias)


def test_it_finds_a_linear_map():
    inputs = random(512, 64, seed=1)
    wanted = inputs @ random(64, 64, seed=2)
    layer = nn.Linear(64, 64)
    optimizer = Muon(layer, lr=0.1, weight_decay=0.0)
    losses = []
    for step in range(300):
        for group in optimizer.param_groups:
            group["lr"] = 0.1 * (1 - step / 300)
        loss = (layer(inputs) - wanted).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 1e-2 * losses[0]


class Map(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(3)
        self.layer = nn.Linear(64, 40)

    def forward(self, batch):
        return {"loss": (self.layer(batch["x"]) - batch["x"][:, :40]).square().mean()}


def test_an_interrupted_training_with_it_ends_where_a_whole_one_does(accelerate, tmp_path):
    config = TrainConfig(6, 8, 0.02, warmup=0, save_every=2, mixed_precision="no", optimizer="muon")
    calls = []

    def make_batch(rng):
        calls.append(None)
        if len(calls) == 5 and stops:
            raise Cancelled
        return {"x": torch.from_numpy(rng.normal(size=(8, 64))).float()}

    whole, resumed, stops = Map(), Map(), False
    train(whole, make_batch, config, tmp_path / "whole")
    calls.clear()
    stops = True
    with pytest.raises(Cancelled):
        train(Map(), make_batch, config, tmp_path / "cut")
    stops = False
    train(resumed, make_batch, config, tmp_path / "cut")
    assert torch.equal(whole.layer.weight, resumed.layer.weight)
    plain = Map()
    train(plain, make_batch, TrainConfig(**{**vars(config), "optimizer": "adamw"}), tmp_path / "adamw")
    assert not torch.equal(whole.layer.weight, plain.layer.weight)
    with pytest.raises(ValueError, match="another optimizer than muon"):
        train(Map(), make_batch, config, tmp_path / "adamw")
