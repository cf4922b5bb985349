"""What is solid of the world's objects, and of what color, as CLIP's training takes it."""

import numpy as np
import torch

from iso3d_core.metrics import overlap
from iso3d_core.train.clip import color_loss, neighbourhood, solid_loss
from iso3d_core.train.occupancy import GRID, colors_of, colors_seen_from, occupancy_of, seen_from
from iso3d_core.train.occupancy import build as build_occupancy
from iso3d_core.train.world import make_object


def test_a_solid_is_looked_up_in_the_frame_of_its_reference():
    seed, azimuth, side = 3, 70.0, 32
    axis = (np.arange(side) + 0.5) / side * 2 - 1
    z, y, x = np.meshgrid(axis, axis, axis, indexing="ij")
    angle = np.deg2rad(azimuth)  # what the reference camera sees at azimuth 0 is at ``azimuth`` in the world
    world = [x * np.cos(angle) - y * np.sin(angle), x * np.sin(angle) + y * np.cos(angle), z]
    exact = make_object(seed).contains(np.stack(world, axis=-1).reshape(-1, 3)).reshape(side, side, side)
    packed = np.stack([occupancy_of(seed)] * 2)
    found = seen_from(packed, np.array([azimuth, azimuth + 90]), side)
    assert found.shape == (2, side, side, side)
    assert 0 <= float(found.min()) <= float(found.max()) <= 1
    assert overlap(found[0].numpy() > 0.5, exact) > 0.9
    assert overlap(found[1].numpy() > 0.5, exact) < 0.8
    # A quarter turn of the camera turns the cells by a quarter: x' = y, y' = -x.
    torch.testing.assert_close(found[1], found[0].flip(2).transpose(1, 2), atol=1e-4, rtol=0)


def test_the_solid_loss_is_least_at_the_solid_and_counts_thin_ones_as_much():
    solid = torch.zeros(2, 8, 8, 8)
    solid[0, 2:6, 2:6, 2:6], solid[1, 0, 0, :4] = 1, 1
    right = 20 * (solid - 0.5)
    assert float(solid_loss(right, solid)) < 0.11  # Dice has a 1 in its denominator, for empty solids
    empty = torch.full_like(solid, -10.0)
    thin_lost, thick_lost = (
        float(solid_loss(torch.stack(logits), solid)) for logits in ((right[0], empty[1]), (empty[0], right[1]))
    )
    assert thin_lost > 0.45
    assert thick_lost < 5 * thin_lost  # by cross-entropy alone it would be sixteen times as much
    assert float(solid_loss(empty, solid)) > 1


def test_occupancy_is_made_once(tmp_path):
    first = build_occupancy(tmp_path, range(3, 5), workers=1)
    assert first.cells.shape == (2, GRID**3 // 8)
    assert np.array_equal(first.cells[0], occupancy_of(3))
    assert np.array_equal(first.colors[1], colors_of(4))
    np.save(tmp_path / "occupancy.npy", np.zeros_like(first.cells))
    assert not build_occupancy(tmp_path, range(3, 5), workers=1).cells.any()
    assert build_occupancy(tmp_path, range(3, 4), workers=1).cells.any()


def test_colors_are_looked_up_in_the_frame_of_their_reference():
    seed, azimuth = 7, 40.0
    obj = make_object(seed)
    color, solid = colors_seen_from(colors_of(seed)[None], np.array([azimuth]))
    assert color.shape == (1, 3, 32, 32, 32)
    assert 0 <= float(color.min()) <= float(color.max()) <= 1.001
    z, y, x = (index.numpy() for index in (solid[0] > 0.99).nonzero(as_tuple=True))
    assert len(z) > 500
    x, y, z = ((index + 0.5) / 16 - 1 for index in (x, y, z))
    angle = np.deg2rad(azimuth)
    world = np.stack([x * np.cos(angle) - y * np.sin(angle), x * np.sin(angle) + y * np.cos(angle), z], axis=-1)
    exact = np.zeros((len(world), 3))
    for part in obj.parts:
        inside = part.contains(world)
        exact[inside] = part.material.albedo(part.to_local(world[inside]))
    found = color[0].permute(1, 2, 3, 0)[solid[0] > 0.99].numpy()
    assert np.median(np.abs(found - exact).max(axis=1)) < 0.01
    assert np.abs(found - exact).mean() < 0.06  # cells between two colors are mixed
    flipped = colors_seen_from(colors_of(seed)[None], np.array([azimuth]), mirrored=True)[1]
    torch.testing.assert_close(flipped, solid.flip(2), atol=1e-4, rtol=0)


def test_a_neighbourhood_is_the_mean_of_27_cells():
    cells = torch.rand(2, 5, 6, 7, generator=torch.Generator().manual_seed(0))
    wanted = torch.nn.functional.avg_pool3d(cells[:, None], 3, stride=1, padding=1)[:, 0]
    torch.testing.assert_close(neighbourhood(cells), wanted)


def test_the_color_loss_counts_solid_cells_alone():
    color = torch.rand(2, 3, 4, 4, 4)
    color[0, :, 1] = 0.6
    solid = torch.zeros(2, 4, 4, 4)
    solid[:, 1] = 1
    logits = torch.logit(color.clamp(0.01, 0.99))
    logits[:, :, 0] = 9.0
    assert float(color_loss(logits, color, solid)) < 0.01
    logits[0, :, 1] = -20.0
    torch.testing.assert_close(color_loss(logits, color, solid), torch.tensor(0.3), atol=0.006, rtol=0)


def test_the_color_of_what_is_seen_weighs_more_than_that_of_what_lies_inside():
    solid = torch.zeros(1, 8, 8, 8)
    solid[:, 1:7, 1:7, 1:7] = 1
    color, found = torch.full((1, 3, 8, 8, 8), 0.5), torch.zeros(2, 1, 3, 8, 8, 8)
    found[0, :, :, 1, 3, 3] = 9.0  # wrong at the surface
    found[1, :, :, 3, 3, 3] = 9.0  # wrong inside
    surface, inside = (float(color_loss(logits, color, solid)) for logits in found)
    assert surface > 3 * inside > 0
