"""The colors of an object's parts: read from its image, kept in the embedding, taken by the cells of the sketch."""

import json

import numpy as np
import pytest
import torch
from palettes import CONFIG, DIM, FREE, HINTS, PALETTE, bare, embeddings, random
from safetensors.torch import save_file
from torch import nn
from torch.nn import functional as F

from iso3d_core.priors.clip import make_clip, make_image_tower
from iso3d_core.priors.palette import (
    SLOTS,
    PaletteTower,
    colors_of,
    first_free,
    free_directions,
    with_colors,
    without,
)
from iso3d_core.priors.sketch import SHADED, SIDE, Sketch


@pytest.fixture
def free():
    return torch.linalg.qr(random(DIM, DIM, seed=3))[0][:, :FREE]


@pytest.fixture
def tower():
    torch.manual_seed(0)
    return make_image_tower({**CONFIG, "palette": PALETTE}).eval()


def test_an_embedding_of_any_length_gives_back_the_colors_it_holds(free):
    colors, hints = random(5, SLOTS, 3).sigmoid(), random(5, HINTS, seed=4)
    plain = bare(5, free) + random(5, FREE, seed=2) @ free.T
    held = with_colors(plain, colors, hints, free)
    torch.testing.assert_close(held @ free[:, 3 * SLOTS :], hints)
    torch.testing.assert_close(colors_of(held, free, SLOTS), colors)
    torch.testing.assert_close(colors_of(F.normalize(held, dim=-1) * 3, free, SLOTS), colors)
    torch.testing.assert_close(held @ without(free), plain @ without(free))  # the rest of it is as it was
    assert torch.equal(colors_of(torch.zeros(2, DIM), free, SLOTS), torch.full((2, SLOTS, 3), 0.5))


def test_free_is_where_embeddings_have_least():
    spread = torch.cat([torch.full((FREE,), 0.1), torch.full((DIM - FREE,), 2.0)])
    turn = torch.linalg.qr(random(DIM, DIM))[0]
    found = free_directions((random(4000, DIM, seed=1) * spread) @ turn.T, FREE)
    torch.testing.assert_close(found.T @ found, torch.eye(FREE), atol=1e-5, rtol=0)
    shared = torch.linalg.matrix_norm(found.T @ turn[:, :FREE]) ** 2 / FREE
    assert float(shared) > 0.99
    with pytest.raises(ValueError, match="an embedding of 32 numbers has no room for 16 colors and 4 hints"):
        first_free(32, 16, 4)


def test_the_tower_s_own_embedding_stays_but_for_the_free_directions(tower):
    assert isinstance(tower, PaletteTower)
    images = random(3, 3, 64, 64)
    own = F.normalize(tower.tower(images), dim=-1) * DIM**0.5
    out = tower(images)
    torch.testing.assert_close(out @ without(tower.free), own @ without(tower.free))
    assert isinstance(make_clip({**CONFIG, "palette": PALETTE}).visual, PaletteTower)
    assert not isinstance(make_clip(CONFIG).visual, PaletteTower)


def test_before_training_the_colors_are_those_of_the_image_a_little_lighter(tower):
    color = torch.tensor([0.2, 0.5, 0.7])
    images = (color * 2 - 1)[None, :, None, None].expand(1, 3, 64, 64)
    maps, embedding = tower.maps(images)
    trust = torch.tensor(1.5).sigmoid()
    expected = trust * color * np.exp(0.15) + (1 - trust) * 0.5
    colors, hints = tower.colors(images, maps, embedding)
    torch.testing.assert_close(colors, expected.expand(1, SLOTS, 3))
    assert torch.equal(hints, torch.zeros(1, HINTS))


@torch.no_grad()
def look_at(tower, rows, columns):
    """A key that only these of the 8 x 8 places have, and queries that all ask for it."""
    tower.place.zero_()
    tower.place[:, 0, rows, columns] = 200
    for layer in (tower.query[0], tower.query[2]):
        nn.init.zeros_(layer.weight)
        nn.init.ones_(layer.bias)
    for look in tower.looks:
        nn.init.zeros_(look.weight)


def test_queries_look_where_their_keys_are(tower):
    """A key that only the left half has, and queries that ask for it: the colors are those of the left half."""
    look_at(tower, slice(None), slice(4))
    images = torch.full((1, 3, 64, 64), 0.9)
    images[..., :32] = -0.4
    maps, embedding = tower.maps(images)
    half = torch.full((1, 3, 64, 64), -0.4)
    torch.testing.assert_close(tower.colors(images, maps, embedding), tower.colors(half, maps, embedding))


@torch.no_grad()
def test_hints_may_tell_where_a_query_looks(tower):
    look_at(tower, slice(6, None), slice(2))  # below, left
    first, _, last = tower.judge
    for layer in (first, last):
        nn.init.zeros_(layer.weight)
        nn.init.zeros_(layer.bias)
    first.weight[0, -2], first.weight[1, -1] = 1, 1  # of the last query: row and column
    first.bias[:2] = 20  # where SiLU does nothing
    last.weight[7 * SLOTS, 0], last.weight[7 * SLOTS + 1, 1] = 1, 1
    last.bias[7 * SLOTS : 7 * SLOTS + 2] = -20
    images = random(1, 3, 64, 64)
    maps, embedding = tower.maps(images)
    row, column = tower.colors(images, maps, embedding)[1][0, :2]
    assert float(row) == pytest.approx(np.tanh(6 / 7), abs=1e-3)
    assert float(column) == pytest.approx(np.tanh(-6 / 7), abs=1e-3)


@torch.no_grad()
def test_further_layers_over_what_is_there_start_without_effect(tower):
    images = random(2, 3, 64, 64)
    maps, embedding = tower.maps(images)
    before = tower.colors(images, maps, embedding)[0]
    mix, tower.mix = tower.mix, None
    assert torch.equal(tower.colors(images, maps, embedding)[0], before)
    tower.mix = mix
    nn.init.normal_(mix[-1].weight)
    assert not torch.allclose(tower.colors(images, maps, embedding)[0], before)


@torch.no_grad()
def test_queries_tell_each_other_what_they_saw_and_look_again(tower):
    images = random(2, 3, 64, 64)
    maps, embedding = tower.maps(images)
    before = tower.colors(images, maps, embedding)[0]
    again, last = tower.again, tower.last
    tower.again = tower.last = None
    torch.testing.assert_close(tower.colors(images, maps, embedding)[0], before)  # without effect at first
    tower.again, tower.last = again, last
    nn.init.normal_(again.last.weight)
    other_places = tower.colors(images, maps, embedding)[0]
    assert not torch.allclose(other_places, before)
    nn.init.normal_(last.last.weight, std=0.1)
    assert not torch.allclose(tower.colors(images, maps, embedding)[0], other_places)
    # Every query hears of what any of them saw, and the order in which they come says nothing.
    tokens = random(1, SLOTS, PALETTE["width"] + PALETTE["values"] + 5)
    other = tokens.clone()
    other[0, 3] += 1
    assert ((again(other) - again(tokens)).abs().amax(dim=2) > 1e-5).all()
    torch.testing.assert_close(again(tokens.flip(1)), again(tokens).flip(1))


def sketch_with_palette(free):
    torch.manual_seed(0)
    out = Sketch(DIM, rank=8, widths=(16, 16, 8), palette=SLOTS, hints=HINTS)
    out.palette.free.copy_(free)
    return out


def test_cells_take_the_color_of_the_part_they_are_of(free):
    sketch = sketch_with_palette(free)
    colors = random(2, SLOTS, 3, seed=5).sigmoid()
    held = with_colors(bare(2, free), colors, random(2, HINTS, seed=6), free)
    own, logits = sketch.read(held[:, None])
    assert logits.shape == (2, 1 + SLOTS, SIDE, SIDE, SIDE)
    chosen = torch.full_like(logits, -30.0)
    chosen[:, 1 + 4, :16], chosen[:, 0, 16:] = 30.0, 30.0  # part 4 below, own colors above
    volume = sketch.colored(own, chosen, held)
    torch.testing.assert_close(volume[:, 3], own[:, 3])
    assert torch.allclose(volume[:, :3, 16:].sigmoid(), own[:, :3, 16:].sigmoid(), atol=2e-3)
    expected = SHADED * colors_of(held, free, SLOTS)[:, 4, :, None, None, None].expand(2, 3, 16, SIDE, SIDE)
    torch.testing.assert_close(volume[:, :3, :16].sigmoid(), expected, atol=2e-3, rtol=0)


def test_the_sketch_of_a_bundle_keeps_its_palette(free, tmp_path):
    sketch, held = sketch_with_palette(free), embeddings(2)[:, None]
    save_file(sketch.state_dict(), tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(json.dumps(sketch.config))
    torch.testing.assert_close(Sketch.load(tmp_path).volume(held), sketch.volume(held))
    older = {name: value for name, value in sketch.config.items() if name not in ("palette", "hints")}
    (tmp_path / "config.json").write_text(json.dumps(older))
    save_file(
        {k: v for k, v in sketch.state_dict().items() if not k.startswith("palette.")}, tmp_path / "model.safetensors"
    )
    torch.testing.assert_close(Sketch.load(tmp_path).volume(held), sketch.read(held)[0])
