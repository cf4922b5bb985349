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
    PARTS,
    SLOTS,
    PaletteTower,
    colors_of,
    first_free,
    free_directions,
    with_colors,
    without,
)
from iso3d_core.priors.sketch import SHADED, SIDE, Sketch
from iso3d_core.train.bundle import without_free
from iso3d_core.train.clip import ClipTraining, part_colors, surface_share
from iso3d_core.train.occupancy import colors_of as cell_colors
from iso3d_core.train.occupancy import colors_seen_from, part_numbers, parts_of, parts_seen_from
from iso3d_core.train.start import grow, make_room, with_darker_colors, with_palette
from iso3d_core.train.world import make_object

DIM = 128
CONFIG = {
    "embed_dim": DIM,
    "vision_cfg": {"image_size": 64, "layers": [1, 1, 1, 1], "width": 4, "head_width": 32},
    "text_cfg": {"context_length": 6, "vocab_size": 10, "width": 16, "heads": 2, "layers": 1},
}
HINTS = 5
FREE = 3 * SLOTS + HINTS
PALETTE = {"slots": SLOTS, "hints": HINTS, "mixing": 6, "width": 8, "values": 4, "hidden": 16, "places": 8}


def random(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def embeddings(count, seed=1):
    return F.normalize(random(count, DIM, seed=seed), dim=-1) * DIM**0.5


def bare(count, free, seed=1):
    """Embeddings with nothing in the free directions."""
    return F.normalize(embeddings(count, seed) @ without(free), dim=-1) * DIM**0.5


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


def test_a_bundle_from_before_parts_had_several_colors_is_read_as_it_was(tmp_path):
    one_each = Sketch(DIM, rank=8, widths=(16, 16, 8), palette=PARTS)
    older = {name: value for name, value in one_each.config.items() if name != "hints"} | {"palette": True}
    save_file(one_each.state_dict(), tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(json.dumps(older))
    held = embeddings(2)[:, None]
    torch.testing.assert_close(Sketch.load(tmp_path).volume(held), one_each.volume(held))
    tower = make_image_tower({**CONFIG, "palette": {}})
    assert tower.free.shape == (DIM, 3 * PARTS)


def test_a_palette_that_gets_darker_colors_starts_with_what_it_said():
    torch.manual_seed(0)
    few = {**PALETTE, "slots": PARTS, "hints": 0}
    old, sketch = make_clip({**CONFIG, "palette": few}).eval(), Sketch(DIM, palette=PARTS)
    with torch.no_grad():
        nn.init.normal_(old.visual.judge[2].weight, std=0.5)
        nn.init.normal_(sketch.palette.layers[2].bias)
    model = ClipTraining({**CONFIG, "palette": PALETTE}).eval()
    model.sketch = Sketch(DIM, palette=SLOTS, hints=HINTS)
    towers, drawn = old.state_dict(), sketch.state_dict()
    with_darker_colors(towers, drawn)
    grow(model.clip, towers)
    grow(model.sketch, drawn)
    images = random(40, 3, 64, 64)
    with torch.no_grad():
        before = old.visual(images)
        make_room(model, before, old.visual.free)
        now = model.clip.visual(images)
    free = model.clip.visual.free
    assert torch.equal(free[:, : 3 * PARTS], old.visual.free)
    torch.testing.assert_close(free.T @ free, torch.eye(FREE), atol=1e-4, rtol=0)
    expected = colors_of(before, old.visual.free, PARTS)
    colors = colors_of(now, free, SLOTS)
    assert float((colors[:, :PARTS] - expected).abs().max()) < 0.02
    assert float((colors[:, PARTS:] - expected).abs().max()) < 0.05  # asked a little differently
    with torch.no_grad():
        own, logits = model.sketch.read(now[:, None])
        shares = logits.softmax(dim=1)
        torch.testing.assert_close(shares[:, 1 : 1 + PARTS], shares[:, 1 + PARTS :])
        # What is not free of the embedding is read as before, colors included.
        kept = now @ without(free[:, 3 * PARTS :])
        torch.testing.assert_close(own, model.sketch.read(kept[:, None])[0], atol=1e-4, rtol=1e-3)
        torch.testing.assert_close(own, sketch.read(kept[:, None])[0], atol=1e-4, rtol=1e-3)


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
    torch.testing.assert_close(free, free_directions(known, FREE))
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
    assert of_towers == {"looks", "mix", "place", "query", "judge"}
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
    image = with_colors(bare(2, free), true, random(2, HINTS), free)
    logits = F.one_hot(batch["part"].clamp(max=SLOTS - 1) + 1, 1 + SLOTS).movedim(-1, 1) * 50.0
    right = model.part_losses(image, logits, batch)
    assert float(right[0]) < 1e-5
    assert float(right[1]) < 1e-5
    off = with_colors(image, true + 0.1, random(2, HINTS), free)
    part, found = model.part_losses(off, torch.zeros_like(logits), batch)
    assert float(part) == pytest.approx(0.1, abs=0.02)
    assert float(found) == pytest.approx(np.log(SLOTS), rel=1e-4)


def test_parts_with_a_pattern_have_darker_cells():
    """And parts of one plain color have none."""
    seen = set()
    for seed in range(40):
        obj, parts = make_object(seed), parts_of(seed)
        numbers = part_numbers().get(obj.kind, {})
        patterned = {numbers.get(p.name) for p in obj.parts if p.material.pattern != "plain"}
        found = {int(n) - PARTS for n in np.unique(parts) if PARTS <= n < SLOTS}
        colors = {n: {p.material.color for p in obj.parts if p.name == name} for name, n in numbers.items()}
        assert all(n in patterned or len(colors[n]) > 1 for n in found)
        seen |= {obj.kind} if found else set()
    assert len(seen) > 5


def test_cells_know_which_part_of_their_kind_they_are_of():
    obj = make_object(11)
    parts, colors = parts_of(11), cell_colors(11)
    solid = colors[..., 3] > 0
    numbers = part_numbers()[obj.kind]
    assert sorted(numbers.values()) == list(range(len(numbers)))
    assert (parts[~solid] == SLOTS).all()
    assert set(np.unique(parts[solid]) % PARTS) <= set(numbers.values())
    assert len(np.unique(parts[solid])) > 1
    light = colors[..., :3].sum(axis=-1, dtype=int)
    for number in np.unique(parts[parts < PARTS]):
        lighter, darker = light[parts == number], light[parts == number + PARTS]
        assert len(darker) == 0 or darker.max() < lighter.min()
    turned = parts_seen_from(parts[None], np.array([0.0]))[0].numpy()
    assert np.array_equal(turned, parts)
    quarter = parts_seen_from(parts[None], np.array([90.0]))[0].numpy()
    assert not np.array_equal(quarter, parts)
    assert np.array_equal(quarter < SLOTS, colors_seen_from(colors[None], np.array([90.0]))[1][0].numpy() > 0.5)
    assert np.array_equal(parts_seen_from(parts[None], np.array([0.0]), mirrored=True)[0].numpy(), parts[:, ::-1])


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
