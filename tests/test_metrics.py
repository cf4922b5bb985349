import numpy as np
import pytest
import torch
import trimesh

from iso3d_core import metrics


def sphere(radius, center=(0.0, 0.0, 0.0)):
    return lambda p: np.linalg.norm(p - np.asarray(center), axis=1) < radius


def box(low, high):
    return lambda p: ((p > np.asarray(low)) & (p < np.asarray(high))).all(axis=1)


def test_psnr_of_a_known_error():
    image = torch.full((2, 3, 16, 16), 0.5)
    assert metrics.psnr(image, image + 0.1) == pytest.approx(20.0, abs=1e-3)
    assert metrics.psnr(image, image) == float("inf")


def test_ssim_is_one_for_equal_and_falls_with_noise():
    image = torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    other = torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    assert metrics.ssim(image, image) == pytest.approx(1.0, abs=1e-5)
    assert metrics.ssim(image, other) < 0.2


def on_white(texture, left):
    image = torch.ones(3, 40, 40)
    image[:, 8:32, left : left + 24] = texture
    return image


def test_contextual_distance_is_of_texture_and_not_of_place():
    generator = torch.Generator().manual_seed(0)
    checks = (torch.arange(24)[:, None] // 4 + torch.arange(24) // 4) % 2 * torch.tensor([1.0, 0.2, 0.1])[:, None, None]
    checks = (checks + 0.1 * torch.rand(3, 24, 24, generator=generator)).clamp(0, 0.95)
    noise = torch.rand(3, 24, 24, generator=generator)
    target = on_white(checks, 4)
    same, moved = metrics.contextual_distance(target, target), metrics.contextual_distance(on_white(checks, 12), target)
    other = metrics.contextual_distance(on_white(noise, 4), target)
    assert 0 <= same < 0.01
    assert moved < 0.5 * other  # shifted by as many pixels as a check is wide, so PSNR sees nothing alike
    assert metrics.psnr(on_white(checks, 12)[None], target[None]) < 12
    blurred = on_white(torch.nn.functional.avg_pool2d(checks[None], 9, 1, 4, count_include_pad=False)[0], 4)
    assert same < metrics.contextual_distance(blurred, target)
    with pytest.raises(ValueError, match="white"):
        metrics.contextual_distance(torch.ones(3, 40, 40), target)


def test_contextual_distance_of_two_patches_against_the_formula():
    """Two patches against two: cosine distances after centering are 0 and 2, so each finds its own."""
    a, b = torch.tensor([0.2, 0.5, 0.9]), torch.tensor([0.9, 0.1, 0.3])
    image = torch.stack([a, b], dim=-1)[:, None].repeat_interleave(2, dim=2).expand(3, 2, 4)
    assert metrics.contextual_distance(image, image, patch=2) == pytest.approx(0.0, abs=1e-5)
    ones = torch.stack([a, a], dim=-1)[:, None].repeat_interleave(2, dim=2).expand(3, 2, 4)
    # Both see the first of the target alone: the other's similarity is exp((1 - 2e5) / h), nothing. Mean 1/2.
    assert metrics.contextual_distance(ones, image, patch=2) == pytest.approx(np.log(2), abs=1e-4)


def test_silhouette_iou():
    a, b = np.zeros((8, 8)), torch.zeros(8, 8)
    assert metrics.silhouette_iou(a, b) == 1.0
    a[:4], b[2:6] = 1, 1
    assert metrics.silhouette_iou(a, b) == pytest.approx(1 / 3)
    with pytest.raises(ValueError, match="one shape"):
        metrics.silhouette_iou(a, np.zeros((4, 4)))


def test_chamfer_of_shifted_grids():
    grid = np.stack(np.meshgrid(*[np.arange(5.0)] * 3), axis=-1).reshape(-1, 3)
    assert metrics.chamfer(grid, grid) == 0.0
    assert metrics.chamfer(grid, grid + np.array([0.1, 0, 0])) == pytest.approx(0.1)
    # One-sided: from b's single point to a it is 0, from a to it the mean norm.
    expected = np.linalg.norm(grid, axis=1).mean() / 2
    assert metrics.chamfer(grid, np.zeros((1, 3))) == pytest.approx(expected)
    with pytest.raises(ValueError, match="both sides"):
        metrics.chamfer(grid, np.zeros((0, 3)))


def test_normalise_undoes_scale_and_shift():
    points = np.random.default_rng(0).normal(size=(50, 3))
    center, scale = metrics.normalise(points)
    center2, scale2 = metrics.normalise(points * 3 + [1, 2, 3])
    np.testing.assert_allclose((points - center) / scale, (points * 3 + [1, 2, 3] - center2) / scale2, atol=1e-12)
    assert np.linalg.norm(np.ptp((points - center) / scale, axis=0)) == pytest.approx(1.0)
    with pytest.raises(ValueError, match="no scale"):
        metrics.normalise(np.ones((4, 3)))


def test_iou_of_spheres_and_boxes_against_closed_form():
    assert metrics.occupancy_iou(sphere(0.5), sphere(0.8)) == pytest.approx((0.5 / 0.8) ** 3, abs=0.003)
    half = metrics.occupancy_iou(box([-0.6] * 3, [0.6] * 3), box([0, -0.6, -0.6], [1.2, 0.6, 0.6]), bound=1.3)
    assert half == pytest.approx(1 / 3, abs=0.003)
    d, r = 0.5, 0.7  # the lens of two equal spheres d apart
    lens = np.pi * (4 * r + d) * (2 * r - d) ** 2 / 12
    exact = lens / (8 / 3 * np.pi * r**3 - lens)
    low, high = np.array([-0.7, -0.7, -0.7]), np.array([1.2, 0.7, 0.7])
    found = metrics.occupancy_iou(sphere(r), sphere(r, (d, 0, 0)), bound=(low, high))
    assert found == pytest.approx(exact, abs=0.003)


def test_iou_is_deterministic_and_refuses_a_box_that_misses():
    first, second = (metrics.occupancy_iou(sphere(0.5), sphere(0.6), count=5000, seed=3) for _ in range(2))
    assert first == second
    with pytest.raises(ValueError, match="neither solid"):
        metrics.occupancy_iou(sphere(0.1, (5, 5, 5)), sphere(0.1, (5, 5, 5)))


@pytest.mark.parametrize("turn", [1, -1])
def test_mesh_contains_is_exact_for_a_box(turn):
    mesh = trimesh.creation.box(extents=(1.0, 0.6, 0.8))
    points = np.random.default_rng(0).uniform(-0.7, 0.7, (20000, 3))
    inside = metrics.mesh_contains(mesh.vertices, mesh.faces[:, ::turn])(points)
    np.testing.assert_array_equal(inside, (np.abs(points) < [0.5, 0.3, 0.4]).all(axis=1))


def test_mesh_contains_on_the_meshs_own_grid():
    # Rays through vertices and edges of the mesh must neither miss nor count twice.
    mesh = trimesh.creation.box(extents=(1.0, 1.0, 1.0)).subdivide().subdivide()
    axis = np.linspace(-0.75, 0.75, 7)
    points = np.stack(np.meshgrid(axis, axis, axis), axis=-1).reshape(-1, 3)
    points = points[(np.abs(np.abs(points) - 0.5) > 1e-6).all(axis=1)]
    inside = metrics.mesh_contains(mesh.vertices, mesh.faces)(points)
    np.testing.assert_array_equal(inside, (np.abs(points) < 0.5).all(axis=1))


def test_mesh_contains_of_unions_and_cavities():
    outer = trimesh.creation.icosphere(subdivisions=3, radius=0.8)
    inner = trimesh.creation.icosphere(subdivisions=3, radius=0.4)
    points = np.random.default_rng(1).uniform(-1, 1, (20000, 3))
    radius = np.linalg.norm(points, axis=1)
    sure = (np.abs(radius - 0.8) > 0.02) & (np.abs(radius - 0.4) > 0.02)
    points, radius = points[sure], radius[sure]
    union = trimesh.util.concatenate([outer, inner])
    np.testing.assert_array_equal(metrics.mesh_contains(union.vertices, union.faces)(points), radius < 0.8)
    inner.invert()
    shell = trimesh.util.concatenate([outer, inner])
    expected = (radius < 0.8) & (radius > 0.4)
    np.testing.assert_array_equal(metrics.mesh_contains(shell.vertices, shell.faces)(points), expected)


def test_mesh_contains_agrees_with_the_formula_on_many_points():
    mesh = trimesh.creation.torus(major_radius=0.6, minor_radius=0.25, major_sections=128, minor_sections=64)
    mesh.apply_transform(trimesh.transformations.rotation_matrix(0.7, [1, 2, 3]))
    contains = metrics.mesh_contains(mesh.vertices, mesh.faces)
    back = trimesh.transformations.rotation_matrix(-0.7, [1, 2, 3])[:3, :3]

    def torus(points):
        q = points @ back.T
        return np.hypot(np.hypot(q[:, 0], q[:, 1]) - 0.6, q[:, 2]) < 0.25

    assert metrics.occupancy_iou(contains, torus, count=260_000) > 0.99
