import numpy as np
import pytest
import torch

from iso3d_core.cameras import (
    WORLD_TO_GLTF,
    Cameras,
    even_azimuths,
    look_at_origin,
    orbit,
    project,
    rays,
    spherical_harmonics,
    unit_sphere_matrix,
)

MANY = orbit(torch.linspace(-170, 180, 24), torch.linspace(-85, 85, 24), torch.linspace(1.5, 6, 24))


def close(value, expected, atol=1e-6):
    expected = torch.as_tensor(expected, dtype=value.dtype).expand_as(value)
    torch.testing.assert_close(value, expected, rtol=1e-5, atol=atol)


@pytest.mark.parametrize(
    ("azimuth", "elevation", "where"),
    [(0, 0, (1, 0, 0)), (90, 0, (0, 1, 0)), (180, 0, (-1, 0, 0)), (-90, 0, (0, -1, 0)), (0, 30, (0.75**0.5, 0, 0.5))],
)
def test_the_orbit_starts_on_x_and_turns_counter_clockwise_seen_from_above(azimuth, elevation, where):
    close(orbit(azimuth, elevation, distance=2.5).positions, [[2.5 * x for x in where]])


def test_cameras_are_rigid_and_look_at_the_origin_with_the_sky_up():
    rotation, positions = MANY.cam_to_world[:, :3, :3], MANY.positions
    close(rotation @ rotation.mT, torch.eye(3))
    close(torch.linalg.det(rotation), 1.0)
    close(MANY.cam_to_world[:, 3], [0, 0, 0, 1])
    distance = positions.norm(dim=-1, keepdim=True)
    close(distance[:, 0], torch.linspace(1.5, 6, 24))
    close(-rotation[:, :, 2], -positions / distance)  # OpenGL: it looks down its -Z
    close(rotation[:, 2, 0], 0.0)  # no roll: its X is level
    assert bool((rotation[:, 2, 1] > 0).all())


def test_the_reference_camera_has_y_on_its_right():
    close(orbit(0, 0).cam_to_world[0, :3, :3], [[0, 0, 1], [1, 0, 0], [0, 1, 0]])


def test_arguments_broadcast():
    cameras = orbit([0, 90, 180], 10.0, [2, 3, 4], fov_y_deg=50)
    assert len(cameras) == 3
    close(cameras.positions.norm(dim=-1), [2, 3, 4])
    close(cameras.fov_y_deg, 50.0)


@pytest.mark.parametrize("elevation", [90, -90])
def test_a_camera_on_the_vertical_axis_is_refused(elevation):
    with pytest.raises(ValueError, match="below 90 degrees"):
        orbit(12, elevation)
    with pytest.raises(ValueError, match="straight above or below"):
        look_at_origin(torch.tensor([[1.0, 0.0, 0.0], [0.0, 0.0, 3.0]]))


def test_azimuths_are_even():
    assert even_azimuths(4, 15).tolist() == [15, 105, 195, 285]
    assert even_azimuths(1).tolist() == [0]
    with pytest.raises(ValueError, match="at least 1, got 0"):
        even_azimuths(0)


@pytest.mark.parametrize(
    ("index", "rows"), [(2, [2]), (-1, [23]), (slice(1, 4), [1, 2, 3]), (torch.tensor([5, 5, 0]), [5, 5, 0])]
)
def test_indexing_keeps_cameras(index, rows):
    picked = MANY[index]
    assert torch.equal(picked.cam_to_world, MANY.cam_to_world[rows])
    assert torch.equal(picked.fov_y_deg, MANY.fov_y_deg[rows])


def test_concatenate_undoes_splitting():
    joined = Cameras.concatenate([MANY[:5], MANY[5:6], MANY[6:]])
    assert torch.equal(joined.cam_to_world, MANY.cam_to_world)
    assert torch.equal(joined.fov_y_deg, MANY.fov_y_deg)


def test_the_central_ray_hits_the_origin():
    origins, directions = rays(MANY, 5, 7)
    distance = origins[:, 2, 3].norm(dim=-1, keepdim=True)
    close(origins[:, 2, 3] + distance * directions[:, 2, 3], 0.0)


def test_rays_start_at_the_camera_and_are_of_unit_length():
    origins, directions = rays(MANY, 4, 6)
    assert origins.shape == directions.shape == (24, 4, 6, 3)
    assert torch.equal(origins, MANY.positions[:, None, None].expand(24, 4, 6, 3))
    close(directions.norm(dim=-1), 1.0)


@pytest.mark.parametrize(("height", "width", "fov"), [(6, 6, 35.0), (4, 10, 60.0), (9, 3, 15.0)])
def test_pixels_are_where_the_field_of_view_puts_them(height, width, fov):
    _, directions = rays(orbit(0.0, 0.0, 3.0, fov), height, width)
    half = np.tan(np.deg2rad(fov / 2))
    for row in range(height):
        for column in range(width):
            right = half * (2 * (column + 0.5) - width) / height  # square pixels
            up = half * (height - 2 * (row + 0.5)) / height
            expected = torch.tensor([-1.0, right, up], dtype=torch.float64)
            close(directions[0, row, column], (expected / expected.norm()).tolist())


def test_points_on_a_ray_project_to_its_pixel():
    size = 5
    middle = (torch.arange(size) + 0.5) * 2 / size - 1
    down, right = torch.meshgrid(middle, middle, indexing="ij")
    expected = torch.stack([right, down], dim=-1).reshape(-1, 2)
    origins, directions = rays(MANY, size, size)
    for i in (0, 9, 23):
        for distance in (0.5, 3.0):
            points = (origins[i] + distance * directions[i]).reshape(-1, 3)
            torch.testing.assert_close(project(points, MANY[i]), expected, rtol=0, atol=1e-5)


def test_the_camera_condition_is_direction_only():
    matrix = unit_sphere_matrix(MANY)
    assert matrix.shape == (24, 16)
    matrix = matrix.reshape(24, 4, 4)  # row-major
    assert torch.equal(matrix[:, :3, :3], MANY.cam_to_world[:, :3, :3])
    close(matrix[:, :3, 3].norm(dim=-1), 1.0)
    close(matrix[:, :3, 3], matrix[:, :3, 2])  # at the end of its own Z axis
    close(matrix[:, 3], [0, 0, 0, 1])
    close(unit_sphere_matrix(orbit(40, 20, 1.5, 20)), unit_sphere_matrix(orbit(40, 20, 4.0, 60)))


def test_the_condition_leaves_the_cameras_alone():
    before = MANY.cam_to_world.clone()
    unit_sphere_matrix(MANY)
    assert torch.equal(MANY.cam_to_world, before)


def test_gltf_has_y_up_and_the_reference_view_in_front():
    assert np.array_equal(WORLD_TO_GLTF @ WORLD_TO_GLTF.T, np.eye(3))
    assert np.linalg.det(WORLD_TO_GLTF) == pytest.approx(1)
    assert np.array_equal(WORLD_TO_GLTF @ [1, 2, 3], [2, 3, 1])
    assert np.array_equal(WORLD_TO_GLTF @ [1, 0, 0], [0, 0, 1])  # towards the reference camera: glTF's front
    assert np.array_equal(WORLD_TO_GLTF @ [0, 0, 1], [0, 1, 0])  # up


def test_spherical_harmonics_are_orthonormal_over_the_sphere():
    # A product rule that is exact for polynomials of the degree of the products, 4.
    z, weight = np.polynomial.legendre.leggauss(5)
    azimuth = np.arange(10) * (2 * np.pi / 10)
    zz, aa = np.meshgrid(z, azimuth, indexing="ij")
    r = np.sqrt(1 - zz**2)
    points = torch.from_numpy(np.stack([r * np.cos(aa), r * np.sin(aa), zz], axis=-1)).reshape(-1, 3)
    weights = torch.from_numpy(np.repeat(weight, 10) / (2 * 10))  # they sum to 1
    values = spherical_harmonics(points)
    gram = torch.einsum("n,ni,nj->ij", weights, values, values)
    torch.testing.assert_close(gram, torch.eye(9, dtype=gram.dtype), atol=1e-12, rtol=0)
