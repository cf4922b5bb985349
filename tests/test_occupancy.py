"""The grid of what space is worth sampling."""

import torch
from shapes import Sphere

from iso3d_core.cameras import orbit
from iso3d_core.render.volume import Occupancy, Shading, render

CAMERAS = orbit([0.0, 100.0], [0.0, 35.0], [3.4, 2.6])
SIZE = 14


def grid(cells=16, samples=64, updates=0, density=None):
    occupancy = Occupancy(cells, 0.01, 0.6, samples)
    generator = torch.Generator().manual_seed(0)
    for _ in range(updates):
        occupancy.update(density, generator)
    return occupancy


def test_everything_is_alive_at_first_and_empty_space_dies_at_once():
    points = torch.rand(500, 3, generator=torch.Generator().manual_seed(1)) * 2 - 1
    assert bool(grid().alive(points).all())
    assert not bool(grid(updates=1, density=lambda p: torch.zeros(len(p))).alive(points).any())
    assert bool(grid(updates=9, density=lambda p: torch.ones(len(p))).alive(points).all())


def test_the_threshold_is_the_opacity_of_one_sample():
    points = torch.zeros(1, 3)
    for alpha, alive in ((0.009, False), (0.011, True)):
        density = alpha / (2 / 64)
        occupancy = grid(updates=9, density=lambda p, density=density: torch.full((len(p),), density))
        assert bool(occupancy.alive(points)) is alive


def test_update_keeps_the_decayed_maximum():
    occupancy = grid(cells=4)
    generator = torch.Generator().manual_seed(0)
    occupancy.update(lambda p: torch.full((len(p),), 8.0), generator)
    assert bool((occupancy.values == 8).all())
    occupancy.update(lambda p: torch.zeros(len(p)), generator)
    torch.testing.assert_close(occupancy.values, torch.full((4, 4, 4), 8 * 0.6))


def test_update_asks_for_one_point_in_every_cell():
    asked = []

    def density(points):
        asked.append(points)
        return points @ torch.tensor([100.0, 10.0, 1.0]) + 200

    occupancy = grid(cells=5, updates=1, density=density)
    cell = ((torch.cat(asked) + 1) * 2.5).floor()
    axis = torch.arange(5.0)
    assert torch.equal(cell, torch.cartesian_prod(axis, axis, axis))
    torch.testing.assert_close(occupancy.values.flatten(), torch.cat([density(p) for p in asked[:1]]))


def test_a_cell_keeps_its_neighbours_alive_and_no_others():
    occupancy = grid(cells=8)
    occupancy.values.zero_()
    occupancy.values[2, 5, 6] = 1e3
    axis = torch.arange(8)
    cells = torch.cartesian_prod(axis, axis, axis)
    alive = occupancy.alive((cells + 0.5) / 4 - 1)
    assert torch.equal(alive, ((cells - torch.tensor([2, 5, 6])).abs() <= 1).all(dim=1))
    corner = torch.tensor([[-0.5, 0.25, 0.5], [-0.26, 0.49, 0.74]])  # opposite ends of the cell itself
    assert bool(occupancy.alive(corner).all())


def test_forbidden_cells_stay_empty_whatever_the_field_says():
    occupancy = grid(cells=8)
    centers = occupancy.centers()
    axis = (torch.arange(8) + 0.5) / 4 - 1
    torch.testing.assert_close(centers, torch.cartesian_prod(axis, axis, axis))
    left, low = centers[:, 1] < 0, centers[:, 2] < 0
    occupancy.forbid(left)
    occupancy.forbid(low)  # in addition, not instead
    for _ in range(3):
        occupancy.update(lambda p: torch.full((len(p),), 50.0), torch.Generator().manual_seed(0))
    assert torch.equal(occupancy.permits(centers), ~(left | low))
    assert torch.equal(occupancy.alive(centers), ~(left | low))
    out = render(Sphere(9.0), CAMERAS, SIZE, 40, occupancy)
    assert len(out.positions) > 0
    assert float(out.positions[:, 1:].min()) >= 0
    copy = grid(cells=8)
    copy.load_state_dict(occupancy.state_dict())
    assert torch.equal(copy.permits(centers), ~(left | low))  # a checkpoint holds it


def test_pruning_saves_samples_and_leaves_the_picture():
    field = Sphere(20.0, 0.5)
    shading = Shading(CAMERAS.positions, 0.5)
    occupancy = grid(updates=3, density=field.density)
    whole = render(field, CAMERAS, SIZE, 64, shading=shading)
    pruned = render(field, CAMERAS, SIZE, 64, occupancy, shading=shading)
    for name in ("rgb", "opacity", "depth"):
        torch.testing.assert_close(getattr(pruned, name), getattr(whole, name), rtol=0, atol=1e-6)
    assert len(pruned.weights) < 0.7 * len(whole.weights)


def test_nothing_alive_shows_the_background():
    occupancy = grid()
    occupancy.values.zero_()
    out = render(Sphere(9.0), CAMERAS, SIZE, 20, occupancy, shading=Shading(CAMERAS.positions, 0.5), background=0.25)
    assert bool((out.rgb == 0.25).all())
    assert float(out.opacity.max()) == 0.0
    assert len(out.weights) == 0
