import numpy as np
import pytest
import torch
import trimesh

from iso3d_core.cameras import orbit, rays
from iso3d_core.mesh.clean import vertex_normals
from iso3d_core.render.raster import render_geometry, render_mesh, sample_texture
from iso3d_core.types import Mesh

RADIUS, DISTANCE = 0.6, 3.4


@pytest.fixture(scope="module")
def ball():
    sphere = trimesh.creation.icosphere(subdivisions=5, radius=RADIUS)
    colors = ((sphere.vertices / RADIUS * 0.5 + 0.5) * 255).round().astype(np.uint8)
    vertices = sphere.vertices.astype(np.float32)
    return Mesh(vertices, sphere.faces.astype(np.int32), vertex_normals(vertices, sphere.faces), vertex_colors=colors)


def exact(cameras, size):
    """Distance along the rays to the sphere, nan where they miss."""
    origins, directions = (r.double().numpy() for r in rays(cameras, size, size))
    along = (origins * directions).sum(-1)
    inside = along**2 - (origins**2).sum(-1) + RADIUS**2
    return -along - np.sqrt(np.where(inside > 0, inside, np.nan)), origins, directions


def test_geometry_of_a_sphere_against_closed_form(ball):
    cameras = orbit([0.0, 120.0], [10.0, -35.0], DISTANCE)
    found = render_geometry(ball, cameras, 96)
    depth, origins, directions = exact(cameras, 96)
    hit = ~np.isnan(depth)
    assert (found["mask"] != hit).mean() < 0.001
    both = found["mask"] & hit & (np.nan_to_num(depth) < DISTANCE - 0.2)
    np.testing.assert_allclose(found["depth"][both], depth[both], atol=0.003)
    points = (origins + np.nan_to_num(depth)[..., None] * directions)[both]
    np.testing.assert_allclose(found["normal"][both], points / RADIUS, atol=0.01)
    np.testing.assert_allclose(found["color"][both], points / RADIUS * 0.5 + 0.5, atol=0.01)
    for name in ("depth", "normal", "color"):
        assert not found[name][~found["mask"]].any()


def test_mask_area_is_the_spheres_disc(ball):
    size = 128
    image = render_mesh(ball, orbit(0.0, 0.0, DISTANCE, 35.0), size, "mask", antialias=4)
    assert image.shape == (1, 4, size, size)
    radius = np.tan(np.arcsin(RADIUS / DISTANCE)) * size / 2 / np.tan(np.radians(17.5))
    assert float(image[0, 3].sum()) == pytest.approx(np.pi * radius**2, rel=0.003)
    torch.testing.assert_close(image[:, :3], image[:, 3:].expand(-1, 3, -1, -1))


@pytest.mark.parametrize("style", ["color", "clay", "normal", "depth", "mask"])
def test_styles_are_images(ball, style):
    image = render_mesh(ball, orbit([0.0, 90.0], 0.0, DISTANCE), 32, style)
    assert image.shape == (2, 4, 32, 32)
    assert image.dtype == torch.float32
    assert 0 <= float(image.min()) <= float(image.max()) <= 1
    corner = [0.0] * 3 if style == "mask" else [1.0] * 3
    assert image[0, :, 0, 0].tolist() == [*corner, 0.0]


def test_what_the_styles_show_in_the_middle(ball):
    camera = orbit(0.0, 0.0, DISTANCE)

    def middle(style):
        return render_mesh(ball, camera, 65, style)[0, :3, 32, 32].tolist()

    assert middle("color") == pytest.approx([1.0, 0.5, 0.5], abs=0.01)  # the camera is on +X
    assert middle("normal") == pytest.approx([0.5, 0.5, 1.0], abs=0.01)  # towards the camera
    assert middle("depth") == pytest.approx([1.0] * 3, abs=0.001)
    assert middle("clay") == pytest.approx([0.82, 0.80, 0.78], abs=0.01)
    image = render_mesh(ball, camera, 65, "normal")[0]
    mask = image[3] == 1
    assert float(image[0][:, 33:][mask[:, 33:]].mean()) > 0.6  # x to the right
    assert float(image[1][:32][mask[:32]].mean()) > 0.6  # y up
    depth = render_mesh(ball, camera, 65, "depth", None, 1)[0]
    assert float(depth[0][depth[3] == 1].min()) == 0.0


def test_background_and_straight_alpha(ball):
    camera = orbit(0.0, 0.0, DISTANCE)
    clear = render_mesh(ball, camera, 48, background=None)
    green = render_mesh(ball, camera, 48, background=(0.0, 1.0, 0.0))
    alpha = clear[:, 3:]
    assert bool(((alpha > 0) & (alpha < 1)).any())
    ground = torch.tensor([0.0, 1.0, 0.0])[:, None, None]
    torch.testing.assert_close(clear[:, :3] * alpha + ground * (1 - alpha), green[:, :3], atol=1e-6, rtol=0)
    assert not bool(clear[:, :3][(alpha == 0).expand(-1, 3, -1, -1)].any())


def test_a_textured_square_is_seen_upright():
    # A square facing the camera on +X: its right is +Y, its up is +Z.
    vertices = np.array([[0, -1, -1], [0, 1, -1], [0, 1, 1], [0, -1, 1]], np.float32)
    faces = np.array([[0, 1, 2], [0, 2, 3]], np.int32)
    texture = np.random.default_rng(0).integers(0, 256, (8, 8, 3)).astype(np.uint8)
    uvs = np.array([[0, 0], [1, 0], [1, 1], [0, 1]], np.float32)
    mesh = Mesh(vertices, faces, np.tile([1.0, 0, 0], (4, 1)).astype(np.float32), uvs, texture)
    fov = float(np.degrees(2 * np.arctan(1 / 4)))
    image = render_mesh(mesh, orbit(0.0, 0.0, 4.0, fov), 8, antialias=1)[0]
    np.testing.assert_allclose(image[:3].permute(1, 2, 0).numpy(), texture / 255, atol=1e-3)


def test_sample_texture_is_bilinear_and_repeats():
    texture = np.zeros((2, 2, 3), np.uint8)
    texture[0] = 255  # the top row
    uvs = np.array([[0.5, 1.0], [0.5, 0.0], [0.5, 0.5], [0.5, 0.625], [3.5, -0.375]])
    np.testing.assert_allclose(sample_texture(texture, uvs)[:, 0], [1, 0, 0.5, 0.75, 0.75], atol=1e-9)


def test_without_colors_grey_and_without_a_hit_background():
    mesh = Mesh(np.eye(3, dtype=np.float32) * 1e-4, np.array([[0, 1, 2]]), np.ones((3, 3), np.float32))
    image = render_mesh(mesh, orbit(0.0, 80.0, DISTANCE), 4, "depth", (0.2, 0.4, 0.6), 1)
    torch.testing.assert_close(image[0, :3], torch.tensor([0.2, 0.4, 0.6])[:, None, None].expand(3, 4, 4))
    with pytest.raises(ValueError, match="unknown style"):
        render_mesh(mesh, orbit(0.0, 0.0), 4, "toon")
