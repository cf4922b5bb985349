"""How the colors of parts are learned: what labels cells, what a training starts from, what is trained and stored."""

import numpy as np
import pytest
import torch
from palettes import CONFIG, DIM, FREE, HINTS, PALETTE, bare, embeddings, random
from torch.nn import functional as F

from iso3d_core.priors.clip import make_clip
from iso3d_core.priors.palette import PARTS, SLOTS, free_directions, with_colors, without
from iso3d_core.priors.sketch import SIDE
from iso3d_core.train.clip import ClipTraining, part_colors, surface_share
from iso3d_core.train.occupancy import colors_of as cell_colors
from iso3d_core.train.occupancy import colors_seen_from, part_numbers, parts_of, parts_seen_from
from iso3d_core.train.start import grow, make_room, with_palette
from iso3d_core.train.world import make_object


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
    assert of_towers == {"looks", "mix", "place", "query", "judge", "again", "last"}
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
