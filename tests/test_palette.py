"""The colors of an object's parts: read from its image, kept in the embedding, taken by the cells of the sketch."""

import json

import numpy as np
import pytest
import torch
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
from iso3d_core.train.clip import ClipTraining, part_colors, surface_share
from iso3d_core.train.occupancy import colors_of as cell_colors
from iso3d_core.train.occupancy import colors_seen_from, part_numbers, parts_of, parts_seen_from
from iso3d_core.train.start import grow, make_room, with_palette
from iso3d_core.train.world import make_object

DIM = 64
CONFIG = {
    "embed_dim": DIM,
    "vision_cfg": {"image_size": 64, "layers": [1, 1, 1, 1], "width": 4, "head_width": 32},
    "text_cfg": {"context_length": 6, "vocab_size": 10, "width": 16, "heads": 2, "layers": 1},
}
PALETTE = {"width": 8, "values": 4, "hidden": 16, "places": 8}


def random(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def embeddings(count, seed=1):
    return F.normalize(random(count, DIM, seed=seed), dim=-1) * DIM**0.5


def bare(count, free, seed=1):
    """Embeddings with nothing in the free directions."""
    return F.normalize(embeddings(count, seed) @ without(free), dim=-1) * DIM**0.5


@pytest.fixture
def free():
    return torch.linalg.qr(random(DIM, DIM, seed=3))[0][:, : 3 * SLOTS]


@pytest.fixture
def tower():
    torch.manual_seed(0)
    return make_image_tower({**CONFIG, "palette": PALETTE}).eval()


def test_an_embedding_of_any_length_gives_back_the_colors_it_holds(free):
    colors, plain = random(5, SLOTS, 3).sigmoid(), bare(5, free) + random(5, 3 * SLOTS, seed=2) @ free.T
    held = with_colors(plain, colors, free)
    torch.testing.assert_close(colors_of(held, free), colors)
    torch.testing.assert_close(colors_of(F.normalize(held, dim=-1) * 3, free), colors)
    torch.testing.assert_close(held @ without(free), plain @ without(free))  # the rest of it is as it was
    assert torch.equal(colors_of(torch.zeros(2, DIM), free), torch.full((2, SLOTS, 3), 0.5))


def test_free_is_where_embeddings_have_least():
    spread = torch.cat([torch.full((3 * SLOTS,), 0.1), torch.full((DIM - 3 * SLOTS,), 2.0)])
    turn = torch.linalg.qr(random(DIM, DIM))[0]
    found = free_directions((random(4000, DIM, seed=1) * spread) @ turn.T)
    torch.testing.assert_close(found.T @ found, torch.eye(3 * SLOTS), atol=1e-5, rtol=0)
    shared = torch.linalg.matrix_norm(found.T @ turn[:, : 3 * SLOTS]) ** 2 / (3 * SLOTS)
    assert float(shared) > 0.99
    with pytest.raises(ValueError, match="an embedding of 32 numbers has no room for the colors of 16 parts"):
        first_free(32)


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
    torch.testing.assert_close(tower.colors(images, maps, embedding), expected.expand(1, SLOTS, 3))


def test_queries_look_where_their_keys_are(tower):
    """A key that only the left half has, and queries that ask for it: the colors are those of the left half."""
    with torch.no_grad():
        tower.place.zero_()
        tower.place[:, 0, :, :4] = 200
        for layer in (tower.query[0], tower.query[2]):
            nn.init.zeros_(layer.weight)
            nn.init.ones_(layer.bias)
        for look in tower.looks:
            nn.init.zeros_(look.weight)
    images = torch.full((1, 3, 64, 64), 0.9)
    images[..., :32] = -0.4
    maps, embedding = tower.maps(images)
    half = torch.full((1, 3, 64, 64), -0.4)
    torch.testing.assert_close(tower.colors(images, maps, embedding), tower.colors(half, maps, embedding))


def sketch_with_palette(free):
    torch.manual_seed(0)
    out = Sketch(DIM, rank=8, widths=(16, 16, 8), palette=True)
    out.palette.free.copy_(free)
    return out


def test_cells_take_the_color_of_the_part_they_are_of(free):
    sketch = sketch_with_palette(free)
    colors = random(2, SLOTS, 3, seed=5).sigmoid()
    held = with_colors(bare(2, free), colors, free)
    own, logits = sketch.read(held[:, None])
    assert logits.shape == (2, 1 + SLOTS, SIDE, SIDE, SIDE)
    chosen = torch.full_like(logits, -30.0)
    chosen[:, 1 + 4, :16], chosen[:, 0, 16:] = 30.0, 30.0  # part 4 below, own colors above
    volume = sketch.colored(own, chosen, held)
    torch.testing.assert_close(volume[:, 3], own[:, 3])
    assert torch.allclose(volume[:, :3, 16:].sigmoid(), own[:, :3, 16:].sigmoid(), atol=2e-3)
    expected = SHADED * colors_of(held, free)[:, 4, :, None, None, None].expand(2, 3, 16, SIDE, SIDE)
    torch.testing.assert_close(volume[:, :3, :16].sigmoid(), expected, atol=2e-3, rtol=0)


def test_the_sketch_of_a_bundle_keeps_its_palette(free, tmp_path):
    sketch, held = sketch_with_palette(free), embeddings(2)[:, None]
    save_file(sketch.state_dict(), tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(json.dumps(sketch.config))
    torch.testing.assert_close(Sketch.load(tmp_path).volume(held), sketch.volume(held))
    older = {name: value for name, value in sketch.config.items() if name != "palette"}
    (tmp_path / "config.json").write_text(json.dumps(older))
    save_file(
        {k: v for k, v in sketch.state_dict().items() if not k.startswith("palette.")}, tmp_path / "model.safetensors"
    )
    torch.testing.assert_close(Sketch.load(tmp_path).volume(held), sketch.read(held)[0])


def test_a_tower_that_gets_a_palette_says_the_same_and_makes_room():
    torch.manual_seed(0)
    plain = make_clip(CONFIG).eval()
    model = ClipTraining({**CONFIG, "palette": PALETTE}, keep_towers=True).eval()
    grow(model.clip, with_palette(plain.state_dict()))
    assert with_palette(model.clip.state_dict()).keys() == model.clip.state_dict().keys()  # has one already
    images, known = random(4, 3, 64, 64), embeddings(500) * torch.linspace(0, 1, DIM)
    tokens = torch.randint(0, 9, (3, 6))
    before = model.sketch.read(embeddings(2)[:, None])[0]
    make_room(model, known)
    free = model.clip.visual.free
    torch.testing.assert_close(free, free_directions(known))
    with torch.no_grad():
        own = F.normalize(plain.visual(images), dim=-1) * DIM**0.5
        torch.testing.assert_close(model.clip.visual(images) @ without(free), own @ without(free))
        text = model.clip.encode_text(tokens)
        torch.testing.assert_close(text, plain.encode_text(tokens) @ without(free))
        assert float((text @ free).abs().max()) < 1e-5  # words hear nothing of the colors
        seen = model.sketch.read(embeddings(2)[:, None])[0]
        torch.testing.assert_close(seen, model.sketch.read((embeddings(2) @ without(free))[:, None])[0])
        assert not torch.allclose(seen, before)  # these embeddings are everywhere


def batch_of(count=2, seed=0):
    rng = np.random.default_rng(seed)
    return {
        "rgb": random(count, 3, 64, 64).sigmoid(),
        "tokens": torch.from_numpy(rng.integers(0, 9, (count, 6))),
        "seen_from": random(count, 2, 16, seed=1),
        "seen": random(count, 2, 4, 16, 16, seed=2).sigmoid(),
        "offset": (1, 0),
        "solid": random(count, SIDE, SIDE, SIDE, seed=3).sigmoid(),
        "color": random(count, 3, SIDE, SIDE, SIDE, seed=4).sigmoid(),
        "colored": random(count, SIDE, SIDE, SIDE, seed=5).sigmoid(),
        "part": torch.from_numpy(rng.integers(0, SLOTS + 1, (count, SIDE, SIDE, SIDE))),
    }


def test_towers_that_are_kept_stay_as_they_are():
    torch.manual_seed(0)
    model = ClipTraining({**CONFIG, "palette": PALETTE}, keep_towers=True).train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    out = model(batch_of())
    weights = {"contrast": 1, "view": 40, "solid": 5, "color": 8, "part": 8, "found": 1}
    expected = sum(weight * float(out[name]) for name, weight in weights.items())
    assert out["loss"].item() == pytest.approx(expected, rel=1e-5)
    out["loss"].backward()
    trained = {name for name, p in model.named_parameters() if p.grad is not None}
    of_towers = {name.split(".")[2] for name in trained if name.startswith("clip.")}
    assert of_towers == {"looks", "place", "query", "judge"}
    assert {name.split(".")[1] for name in trained if name.startswith("sketch.")} == {
        "first", "larger", "refine", "palette"
    }  # fmt: skip
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name]), name  # nor do the means move that the tower normalises by


def test_the_losses_of_a_palette_that_is_right_are_none():
    torch.manual_seed(0)
    model = ClipTraining({**CONFIG, "palette": PALETTE})
    batch = batch_of()
    weight = surface_share(batch["colored"] * (batch["part"] < SLOTS))
    share, true = part_colors(batch["color"], batch["part"].clamp(max=SLOTS - 1), weight)
    for i in range(2):
        for number in range(SLOTS):
            of_it = (batch["part"][i] == number) * weight[i]
            assert float(share[i, number]) == pytest.approx(float(of_it.sum()), rel=1e-4)
            mean = (batch["color"][i] * of_it).sum((1, 2, 3)) / of_it.sum()
            torch.testing.assert_close(true[i, number], mean, atol=1e-5, rtol=1e-4)
    free = model.sketch.palette.free
    image = with_colors(bare(2, free), true, free)
    logits = F.one_hot(batch["part"].clamp(max=SLOTS - 1) + 1, 1 + SLOTS).movedim(-1, 1) * 50.0
    right = model.part_losses(image, logits, batch)
    assert float(right[0]) < 1e-5
    assert float(right[1]) < 1e-5
    off = with_colors(image, true + 0.1, free)
    part, found = model.part_losses(off, torch.zeros_like(logits), batch)
    assert float(part) == pytest.approx(0.1, abs=0.02)
    assert float(found) == pytest.approx(np.log(SLOTS), rel=1e-4)


def test_cells_know_which_part_of_their_kind_they_are_of():
    obj = make_object(11)
    parts, colors = parts_of(11), cell_colors(11)
    solid = colors[..., 3] > 0
    numbers = part_numbers()[obj.kind]
    assert sorted(numbers.values()) == list(range(len(numbers)))
    assert (parts[~solid] == SLOTS).all()
    assert set(np.unique(parts[solid])) <= set(numbers.values())
    assert len(np.unique(parts[solid])) > 1
    turned = parts_seen_from(parts[None], np.array([0.0]))[0].numpy()
    assert np.array_equal(turned, parts)
    quarter = parts_seen_from(parts[None], np.array([90.0]))[0].numpy()
    assert not np.array_equal(quarter, parts)
    assert np.array_equal(quarter < SLOTS, colors_seen_from(colors[None], np.array([90.0]))[1][0].numpy() > 0.5)
    assert np.array_equal(parts_seen_from(parts[None], np.array([0.0]), mirrored=True)[0].numpy(), parts[:, ::-1])
