"""DMTet's surfaces, and the differentiable rasteriser that an optimisation sees them through."""

import math

import numpy as np
import pytest
import torch
import trimesh
from shapes import hollow_ball, misty_mast, solid

from iso3d_core.cameras import even_azimuths, orbit, rays
from iso3d_core.fields.dmtet import KUHN, DMTet, kuhn_grid, marching_tetrahedra
from iso3d_core.mesh.clean import clean
from iso3d_core.mesh.extract import extract_surface
from iso3d_core.render.differentiable import (
    antialias,
    barycentric,
    find_faces,
    laplacian,
    normal_consistency,
    rasterise,
    unique_pairs,
    vertex_normals,
)
from iso3d_core.render.raster import render_geometry
from iso3d_core.types import Diverged, Mesh


def ball(radius=0.6):
    return lambda points: points.norm(dim=-1) - radius


def closed(vertices, faces):
    return trimesh.Trimesh(vertices.detach().numpy(), faces.numpy(), process=False)


def test_the_tetrahedra_fill_the_cube_once():
    points, tets = kuhn_grid(3)
    assert len(points) == 64
    assert len(tets) == len(KUHN) * 27
    a, b, c, d = points[tets].unbind(1)
    volumes = (torch.linalg.cross(b - a, c - a) * (d - a)).sum(-1).abs() / 6
    torch.testing.assert_close(volumes, torch.full_like(volumes, 8 / 27 / 6))
    inside = torch.rand(200, 3, generator=torch.Generator().manual_seed(0)) * 2 - 1
    matrix = torch.stack([b - a, c - a, d - a], dim=-1)
    weights = torch.linalg.solve(matrix, (inside[:, None] - a).permute(1, 2, 0)).permute(2, 0, 1)  # [P, T, 3]
    assert (((weights > 0).all(-1) & (weights.sum(-1) < 1)).sum(dim=1) == 1).all()


def test_a_ball_is_closed_and_has_its_volume():
    mesh = closed(*DMTet(24, ball()).surface())
    assert mesh.is_watertight
    assert mesh.is_winding_consistent
    assert mesh.euler_number == 2
    assert mesh.volume == pytest.approx(4 / 3 * math.pi * 0.6**3, rel=0.02)  # positive: it looks outwards


def test_a_ring_has_its_hole_and_a_solid_grid_is_closed_at_the_border():
    def ring(points):
        return ((points[:, :2].norm(dim=-1) - 0.6).square() + points[:, 2].square()).sqrt() - 0.2

    mesh = closed(*DMTet(24, ring).surface())
    assert (mesh.is_watertight, mesh.euler_number) == (True, 0)
    full = closed(*DMTet(4, lambda points: torch.full((len(points),), -1.0)).surface())
    assert full.is_watertight
    with pytest.raises(ValueError, match="no surface"):
        marching_tetrahedra(*(lambda p, t: (p, torch.ones(len(p)), t))(*kuhn_grid(2)))
    with pytest.raises(ValueError, match="at least 2 cells"):
        DMTet(1, ball())


def test_the_surface_follows_distances_and_offsets():
    grid = DMTet(16, ball())

    def volume():
        a, b, c = (lambda v, f: v[f].unbind(1))(*grid.surface())
        return (a * torch.linalg.cross(b, c)).sum() / 6

    value = volume()
    value.backward()
    # All distances a little larger: the ball shrinks by its area times that.
    step = 1e-3
    expected = -4 * math.pi * 0.6**2
    assert float(grid.distances.grad.sum()) == pytest.approx(expected, rel=0.03)
    with torch.no_grad():
        grid.distances += step
        assert float(volume() - value) / step == pytest.approx(float(grid.distances.grad.sum()), rel=0.02)
    assert float(grid.offsets.grad.abs().max()) > 0


def test_a_density_becomes_the_surface_at_its_threshold():
    grid = DMTet.from_density(lambda points: 8 * torch.exp(-4 * (points.norm(dim=-1) - 0.5)), 32, 8.0)
    vertices, _ = grid.surface()
    torch.testing.assert_close(vertices.norm(dim=-1), torch.full((len(vertices),), 0.5), atol=0.01, rtol=0)


def test_a_thin_density_becomes_a_surface_at_a_lower_threshold():
    grid = DMTet.from_density(lambda points: 2 * torch.exp(-4 * points.norm(dim=-1)), 32, 8.0)
    vertices, _ = grid.surface()
    torch.testing.assert_close(vertices.norm(dim=-1).mean(), torch.tensor(math.log(2) / 4), atol=0.01, rtol=0)
    with pytest.raises(Diverged, match="no surface"):
        DMTet.from_density(lambda points: torch.zeros(len(points)), 8, 8.0).surface()


def test_a_density_becomes_the_surface_that_marching_cubes_finds():
    for density, settings in (misty_mast, {"core": 8.0}), (hollow_ball(0.02), {"gap": 1}):
        shape = DMTet.from_density(density, 64, 4.0, **settings).surface()
        same = solid(*clean(*extract_surface(density, 65, 4.0, **settings), target_faces=100_000))
        ours = solid(*clean(shape[0].detach().numpy(), shape[1].numpy().astype(np.int32), target_faces=100_000))
        assert np.allclose(ours.bounds, same.bounds, atol=0.01)
        assert ours.volume == pytest.approx(same.volume, rel=0.01)


def test_it_sees_what_the_ray_caster_sees():
    vertices, faces = (x.detach() for x in DMTet(20, ball()).surface())
    cameras = orbit(even_azimuths(2), 20.0)
    hits = rasterise(vertices, faces, cameras, 48)
    mesh = Mesh(vertices.numpy(), faces.numpy().astype(np.int32), vertex_normals(vertices, faces).numpy())
    truth = render_geometry(mesh, cameras, 48)
    assert np.array_equal((hits.face >= 0).numpy(), truth["mask"])
    assert np.allclose(hits.depth.numpy(), truth["depth"][truth["mask"]], atol=1e-4)
    assert np.allclose(hits.normals.numpy(), truth["normal"][truth["mask"]], atol=1e-3)
    origins, directions = (r.reshape(-1, 3)[hits.rows] for r in rays(cameras, 48, 48))
    torch.testing.assert_close(hits.points, origins + hits.depth[:, None] * directions)


def test_depth_and_points_are_differentiable():
    vertices = torch.tensor([[0.0, -1, -1], [0.2, 1, -1], [-0.1, 0, 1.2]], dtype=torch.float64, requires_grad=True)
    points = torch.tensor([[0.0, 0.1, 0.0]], dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda v: barycentric(points, *v[:, None]), vertices)
    plain = vertices.detach().float().requires_grad_()
    faces = torch.tensor([[0, 1, 2]])
    hits = rasterise(plain, faces, orbit(0.0, 0.0), 9)
    hits.depth.sum().backward()
    moved = plain.detach() + torch.tensor([1e-3, 0, 0])  # towards the camera: each ray is so much shorter
    shorter = rasterise(moved, faces, orbit(0.0, 0.0), 9)
    change = (shorter.depth.sum() - hits.depth.detach().sum()) / 1e-3
    assert float(plain.grad[:, 0].sum()) == pytest.approx(float(change), rel=1e-2)


def coverage(scale, turn=0.3, size=32):
    """The pixels that a turned square before the camera covers."""
    angle = torch.tensor(turn) + torch.arange(4) * (math.pi / 2)
    square = torch.stack([torch.zeros(4), angle.cos(), angle.sin()], dim=-1) * scale
    faces, camera = torch.tensor([[0, 1, 2], [0, 2, 3]]), orbit(0.0, 0.0)
    face = find_faces(square, faces, camera, size)
    return antialias((face >= 0).float()[:, None], face, square, faces, camera)


def test_silhouettes_cover_what_the_shape_covers():
    image = coverage(torch.tensor(0.5))
    pixel = 2 * 3.4 * math.tan(math.radians(35 / 2)) / 32  # of the plane through the origin
    assert float(image.sum()) == pytest.approx(2 * 0.5**2 / pixel**2, rel=0.01)
    assert ((image > 0.01) & (image < 0.99)).sum() > 10
    plain = (image > 0.5).float()
    assert abs(float(image.sum()) - 111.38) < abs(float(plain.sum()) - 111.38)


def test_silhouettes_are_differentiable():
    scale = torch.tensor(0.5, requires_grad=True)
    coverage(scale).sum().backward()
    with torch.no_grad():
        change = (coverage(torch.tensor(0.55)).sum() - coverage(torch.tensor(0.45)).sum()) / 0.1
    assert float(scale.grad) == pytest.approx(float(change), rel=0.1)


def test_a_small_ball_grows_into_a_mask():
    grid = DMTet(16, ball(0.35))
    camera = orbit(0.0, 0.0)
    wanted_vertices, wanted_faces = (x.detach() for x in DMTet(16, ball(0.6)).surface())
    wanted = (find_faces(wanted_vertices, wanted_faces, camera, 32) >= 0).float()[:, None]
    optimizer = torch.optim.Adam(grid.parameters(), lr=0.02)

    def shown():
        vertices, faces = grid.surface()
        face = find_faces(vertices, faces, camera, 32)
        return antialias((face >= 0).float()[:, None], face, vertices, faces, camera)

    before = float((shown() - wanted).square().mean().detach())
    for _ in range(60):
        optimizer.zero_grad()
        loss = (shown() - wanted).square().mean()
        loss.backward()
        optimizer.step()
    assert float((shown() - wanted).square().mean().detach()) < 0.2 * before


def test_regularisers_are_least_where_the_surface_is_smooth():
    fine, rough = (trimesh.creation.icosphere(subdivisions=n) for n in (3, 1))
    values = [
        float(normal_consistency(torch.from_numpy(m.vertices).float(), torch.from_numpy(m.faces).long()))
        for m in (fine, rough)
    ]
    assert 0 < values[0] < values[1]
    flat = torch.tensor([[0.0, 0, 0], [1, 0, 0], [0, 1, 0], [1, 1, 0]])
    assert float(normal_consistency(flat, torch.tensor([[0, 1, 2], [1, 3, 2]]))) == pytest.approx(0, abs=1e-6)
    points = torch.from_numpy(rough.vertices).float()
    faces = torch.from_numpy(rough.faces).long()
    mean = np.array([rough.vertices[n].mean(axis=0) for n in rough.vertex_neighbors])
    expected = np.square(mean - rough.vertices).sum(axis=1).mean()
    assert float(laplacian(points, faces)) == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("count", [0, 1, 500])
def test_unique_pairs_are_the_unique_rows(count):
    pairs = torch.randint(40, (count, 2), generator=torch.Generator().manual_seed(count))
    found, inverse = unique_pairs(pairs)
    expected, rows = torch.unique(pairs, dim=0, return_inverse=True) if count else (pairs, pairs[:, 0])
    assert torch.equal(found, expected)
    assert torch.equal(inverse, rows)
