import numpy as np
import pytest
import torch
from shapes import ball, hollow_ball, misty_mast, solid, torus

from iso3d_core.mesh.clean import clean, is_solid, merge
from iso3d_core.mesh.extract import END, EmptySurface, extract_surface, hidden_hollows, surface_density


@pytest.mark.parametrize(("sharpness", "off"), [(5.0, 0.002), (30.0, 0.004), (1000.0, 0.02)])
def test_a_sphere_is_closed_outward_and_of_its_volume(sharpness, off):
    vertices, faces = extract_surface(ball(0.6, sharpness), 64, 10.0)
    assert vertices.dtype == np.float32
    assert is_solid(vertices, faces)
    mesh = solid(vertices, faces)
    assert mesh.euler_number == 2
    assert mesh.volume == pytest.approx(4 / 3 * np.pi * 0.6**3, rel=0.015)
    assert np.linalg.norm(vertices, axis=1) == pytest.approx(0.6, abs=off)
    assert ((mesh.face_normals * mesh.triangles_center).sum(axis=1) > 0).all()


def test_axes_and_radius_of_the_grid():
    vertices, _ = extract_surface(ball(0.3, 50.0, (0.9, -0.5, 0.2)), 64, 10.0, radius=2.0)
    assert (vertices.min(axis=0) + vertices.max(axis=0)) / 2 == pytest.approx((0.9, -0.5, 0.2), abs=0.01)


def test_a_solid_that_leaves_the_grid_is_closed_at_its_border():
    vertices, faces = extract_surface(lambda p: torch.full((len(p),), 50.0), 16, 10.0)
    mesh = solid(vertices, faces)
    assert mesh.euler_number == 2
    assert np.abs(vertices).max() <= 1.0


@pytest.mark.parametrize("kinds", [2, 3])
def test_ties_and_values_exactly_at_the_threshold_stay_closed(kinds):
    steps = torch.Generator().manual_seed(0)
    vertices, faces = extract_surface(
        lambda p: torch.randint(0, kinds, (len(p),), generator=steps) * 10.0, 24, 10.0 if kinds == 3 else 5.0
    )
    assert is_solid(vertices, faces)
    assert is_solid(*merge(vertices, faces))


def test_empty_surface_says_what_to_do():
    with pytest.raises(EmptySurface, match=r"at most 20, below the threshold 30; lower the threshold") as caught:
        extract_surface(ball(0.5, 1000.0), 16, 30.0)
    assert caught.value.maximum == pytest.approx(20.0)
    with pytest.raises(ValueError, match="NaN"):
        extract_surface(lambda p: p[:, 0] * float("nan"), 8, 1.0)
    with pytest.raises(ValueError, match="above 0"):
        extract_surface(ball(), 8, 0.0)


def test_a_faint_density_is_cut_at_a_lower_threshold():
    asked = []

    def faint(points):
        asked.append(len(points))
        return ball()(points) / 40  # 0.25 at the radius, where 1 becomes after two halvings

    vertices, _ = extract_surface(faint, 48, 1.0, lowest=0.1)
    assert np.linalg.norm(vertices, axis=1) == pytest.approx(0.6, abs=0.01)
    assert sum(asked) == 48**3  # the field is asked once
    with pytest.raises(EmptySurface, match=r"at most 0\.5, below the threshold 0\.6"):
        extract_surface(faint, 48, 1.0, lowest=0.6)
    with pytest.raises(EmptySurface, match="below the threshold 1"):
        extract_surface(faint, 48, 1.0)


def test_progress_is_reported_for_each_chunk():
    seen = []
    extract_surface(ball(), 80, 10.0, on_progress=seen.append)
    assert [p.step for p in seen] == list(range(1, len(seen) + 1))
    assert len(seen) == seen[-1].total > 1


def test_thin_ends_are_followed_below_the_density_of_the_surface():
    def extent(**settings):
        mesh = solid(*clean(*extract_surface(misty_mast, 96, **settings), target_faces=100_000))
        return mesh.bounds[1][2], mesh.volume

    thick, tight = extent(threshold=4.0), extent(threshold=8.0)
    both = extent(threshold=4.0, core=8.0)
    assert thick[0] == pytest.approx(0.75, abs=0.03)
    assert tight[0] < 0.45  # most of the mast is lost
    assert both[0] == pytest.approx(0.75, abs=0.03)
    assert tight[1] < both[1] < thick[1]


def test_the_surface_of_an_end_is_at_half_of_what_is_densest_across_it():
    grid = np.zeros((21, 21, 21), np.float32)
    grid[6:15, 6:15, 4:12] = 20.0
    grid[10, 10, 12:17] = 5.0
    surface = surface_density(grid, threshold=4.0, core=8.0)
    assert (surface[:, :, 12:17] == END * 5.0).all()
    assert (surface[:, :, :12] == 8.0).all()  # the other side reaches as far already
    assert (surface[:, :, 17:] == 8.0).all()  # nothing there
    faint = np.where(grid == 5.0, 0.5, grid)
    assert (surface_density(faint, 4.0, 8.0) == 8.0).all()  # too thin to be an end


def test_ends_reach_as_far_as_the_other_side():
    grid = np.zeros((21, 21, 21), np.float32)
    grid[6:15, 6:15, 4:12] = 20.0  # 6 below the middle and 1 above it
    grid[10, 10, 12:20] = 5.0  # 9 above it
    surface = surface_density(grid, threshold=4.0, core=8.0)
    assert (surface[:, :, 12:18] == END * 5.0).all()  # 7.5 on either side, were it in the middle
    assert (surface[:, :, 18:] == 8.0).all()


def test_a_speck_is_no_end():
    grid = np.zeros((21, 21, 21), np.float32)
    grid[6:15, 6:15, 6:15] = 20.0
    grid[10, 10, 19] = 5.0
    assert (surface_density(grid, threshold=4.0, core=8.0) == 8.0).all()


@pytest.mark.parametrize("core", [None, 1000.0])
def test_without_anything_denser_than_the_core_the_threshold_is_the_surface(core):
    plain, again = extract_surface(ball(), 32, 10.0), extract_surface(ball(), 32, 10.0, core=core)
    assert all(np.array_equal(a, b) for a, b in zip(plain, again, strict=True))


def test_hollows_behind_a_skin_with_holes_are_filled_and_what_is_open_stays_open():
    cell, whole = 2 / 47, 4 / 3 * np.pi * 0.7**3
    cases = ((0.9 * cell, 1, True), (0.9 * cell, None, False), (4 * cell, 1, False), (4 * cell, 5, True))
    for hole, gap, filled in cases:
        mesh = solid(*clean(*extract_surface(hollow_ball(hole), 48, 9.0, gap=gap), target_faces=100_000))
        kept = whole if filled else whole - 4 / 3 * np.pi * 0.4**3
        assert mesh.volume == pytest.approx(kept, rel=0.05)


@pytest.mark.parametrize("density", [torus, ball()])
def test_without_hollows_nothing_is_filled(density):
    (vertices, faces), again = extract_surface(density, 48, 10.0), extract_surface(density, 48, 10.0, gap=1)
    assert np.array_equal(again[0], vertices)
    assert np.array_equal(again[1], faces)


def test_hidden_hollows_are_those_behind_narrow_gaps():
    box = np.zeros((12, 12, 12), bool)
    box[2:10, 2:10, 2:10] = True
    box[4:8, 4:8, 4:8] = False
    inside = np.zeros_like(box)
    inside[4:8, 4:8, 4:8] = True
    assert np.array_equal(hidden_hollows(box, 0), inside)
    assert np.array_equal(hidden_hollows(box, 1), inside)
    box[5:7, 5:7, 8:] = False  # two cells wide
    assert not hidden_hollows(box, 0).any()
    found = hidden_hollows(box, 1)
    assert found[inside].all()
    assert not found[:, :, 10:].any()
    box[4:8, 4:8, 8:] = False  # four: a cup
    assert not hidden_hollows(box, 1).any()
