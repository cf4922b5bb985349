import math
from dataclasses import replace

import pytest
import torch
from torch.nn import functional as F

from iso3d_core.cameras import orbit, rays
from iso3d_core.config import FieldConfig
from iso3d_core.fields.hashgrid import HashGridField
from iso3d_core.render.volume import Occupancy, Shading, ball_span, render
from iso3d_core.vram import _Saved

CAMERAS = orbit([0.0, 100.0], [0.0, 35.0], [3.4, 2.6])
SIZE = 14
FIELD = FieldConfig(levels=2, base=8, growth=2.0, features=2, log2_table=15, hidden=16, blob_bias=10.0, blob_radius=0.5)


class Sphere:
    """Constant density and color inside a sphere, nothing outside."""

    def __init__(self, density=3.0, radius=1.0, color=(0.8, 0.3, 0.1)):
        self.sigma = torch.as_tensor(density, dtype=torch.float32)
        self.radius, self.rgb = radius, torch.tensor(color)

    def density(self, points):
        return self.sigma * (points.norm(dim=-1) < self.radius)

    def normals(self, points):
        return F.normalize(points, dim=-1)

    def __call__(self, points):
        return self.density(points), self.rgb.expand(len(points), 3)


def spans(cameras, size, radius=1.0):
    """Enter and leave distances [V, 1, H, W], equal where a ray misses."""
    near, far = ball_span(*(r.reshape(-1, 3) for r in rays(cameras, size, size)), radius)
    return near.reshape(-1, 1, size, size), far.reshape(-1, 1, size, size)


# ---- compositing ---------------------------------------------------------------------------------


def test_rays_enter_and_leave_the_ball():
    origins = torch.tensor([[3.0, 0, 0], [3.0, 0.6, 0], [3.0, 2, 0], [0.5, 0, 0]])
    near, far = ball_span(origins, torch.tensor([[-1.0, 0, 0]] * 4))
    torch.testing.assert_close(near, torch.tensor([2.0, 2.2, 3.0, 0.0]))
    torch.testing.assert_close(far, torch.tensor([4.0, 3.8, 3.0, 1.5]))


@pytest.mark.parametrize("density", [0.2, 1.0, 3.0])
def test_opacity_color_and_depth_of_a_full_ball_in_closed_form(density):
    field, samples = Sphere(density), 60
    out = render(field, CAMERAS, SIZE, samples)
    near, far = spans(CAMERAS, SIZE)
    chord = far - near
    alpha = 1 - torch.exp(-density * chord)
    torch.testing.assert_close(out.opacity, alpha, rtol=0, atol=1e-5)  # constant density: exact for any sample count
    white = field.rgb[:, None, None] * alpha + (1 - alpha)
    torch.testing.assert_close(out.rgb, white, rtol=0, atol=1e-5)
    # The mean of exp(-density t) over a sample lies density * step^2 / 12 in front of its middle.
    depth = near * alpha + (1 - (1 + density * chord) * torch.exp(-density * chord)) / density
    error = (out.depth - depth).abs()
    assert bool((error <= density * (2 / samples) ** 2 / 12 + 1e-5).all())


def test_a_smaller_sphere_is_found_to_within_a_sample():
    density, radius, samples = 3.0, 0.5, 300
    out = render(Sphere(density, radius), CAMERAS, SIZE, samples)
    near, far = spans(CAMERAS, SIZE, radius)
    alpha = 1 - torch.exp(-density * (far - near))
    step = 2 / samples
    assert bool(((out.opacity - alpha).abs() <= density * step + 1e-5).all())
    assert float(alpha.max()) > 0.9
    depth = near * alpha + (1 - (1 + density * (far - near)) * torch.exp(-density * (far - near))) / density
    assert bool(((out.depth - depth).abs() <= 4.4 * density * step + step).all())


@pytest.mark.parametrize("background", [1.0, 0.25, 0.0])
def test_rays_that_miss_show_the_background_exactly(background):
    cameras = orbit([0.0, 77.0], [0.0, 40.0], 3.4, 60.0)
    out = render(Sphere(50.0), cameras, SIZE, 20, background=background)
    near, far = spans(cameras, SIZE)
    missed = far == near
    assert 0 < int(missed.sum()) < missed.numel()
    assert bool((out.rgb[missed.expand(-1, 3, -1, -1)] == background).all())
    assert bool((out.opacity[missed] == 0).all())
    assert bool((out.depth[missed] == 0).all())
    assert bool((out.opacity[~missed] > 0).all())


def test_shapes_and_the_samples_for_regularisers():
    out = render(Sphere(2.0, 0.6), CAMERAS, SIZE, 40, normals=True)
    assert out.rgb.shape == (2, 3, SIZE, SIZE)
    assert out.opacity.shape == out.depth.shape == (2, 1, SIZE, SIZE)
    # The weights of a ray add up to its opacity, and its samples lie on it.
    summed = torch.zeros(2 * SIZE * SIZE).index_add(0, out.rays, out.weights)
    torch.testing.assert_close(summed, out.opacity.flatten(), rtol=0, atol=1e-6)
    origins, directions = (r.reshape(-1, 3)[out.rays] for r in rays(CAMERAS, SIZE, SIZE))
    across = torch.linalg.cross(out.positions - origins, directions)
    assert float(across.norm(dim=-1).max()) < 1e-5
    assert torch.equal(out.normal_rows, torch.nonzero(out.weights > 0.01)[:, 0])
    torch.testing.assert_close(out.normals, F.normalize(out.positions[out.normal_rows], dim=-1))


def test_jitter_is_reproducible_and_within_a_sample():
    density, samples = 2.0, 50

    def opacity(seed):
        return render(Sphere(density), CAMERAS, SIZE, samples, generator=torch.Generator().manual_seed(seed)).opacity

    near, far = spans(CAMERAS, SIZE)
    alpha = 1 - torch.exp(-density * (far - near))
    assert torch.equal(opacity(0), opacity(0))
    assert not torch.equal(opacity(0), opacity(1))
    assert bool(((opacity(0) - alpha).abs() <= density * 2 / samples + 1e-5).all())


def test_what_lies_behind_a_surface_is_not_evaluated():
    solid, thin = Sphere(500.0), Sphere(0.01)
    assert len(render(solid, CAMERAS, SIZE, 64).weights) < 0.2 * len(render(thin, CAMERAS, SIZE, 64).weights)
    alpha = render(solid, CAMERAS, SIZE, 64).opacity
    near, far = spans(CAMERAS, SIZE)
    assert bool(((alpha - (1 - torch.exp(-500 * (far - near)))).abs() <= 1.1e-3).all())


def test_the_gradient_of_opacity_with_respect_to_density():
    field = Sphere()
    field.sigma = torch.tensor(0.8, requires_grad=True)
    out = render(field, CAMERAS, SIZE, 40)
    (gradient,) = torch.autograd.grad(out.opacity.sum(), field.sigma)
    near, far = spans(CAMERAS, SIZE)
    chord = far - near
    torch.testing.assert_close(gradient, (chord * torch.exp(-0.8 * chord)).sum(), rtol=1e-4, atol=0)


# ---- shading -------------------------------------------------------------------------------------


@pytest.mark.parametrize("textureless", [False, True])
@pytest.mark.parametrize("light", ["camera", "above"])
def test_a_hard_sphere_is_shaded_as_lambert_says(light, textureless):
    radius, ambient, size = 0.6, 0.3, 21
    field = Sphere(400.0, radius)
    place = CAMERAS.positions + torch.tensor([0.0, 0.0, 0.0 if light == "camera" else 2.0])
    out = render(field, CAMERAS, size, 400, shading=Shading(place, ambient, textureless))
    origins, directions = rays(CAMERAS, size, size)
    near, far = spans(CAMERAS, size, radius)
    point = origins + near.permute(0, 2, 3, 1) * directions
    normal = F.normalize(point, dim=-1)
    cosine = (normal * F.normalize(place[:, None, None] - point, dim=-1)).sum(-1).clamp(min=0)
    base = torch.ones(3) if textureless else field.rgb
    expected = (base * (ambient + (1 - ambient) * cosine[..., None])).permute(0, 3, 1, 2)
    inner = (-(normal * directions).sum(-1) > 0.4)[:, None] & (far > near)
    assert int(inner.sum()) > 100
    # A sample is 1/200 long and 1/400 is the mean free path: the normal is off by about 0.01 / (0.6 * 0.4).
    assert float(((out.rgb - expected).abs() * inner).max()) < 0.03
    if light == "camera":  # lit head on
        torch.testing.assert_close(out.rgb[:, :, size // 2, size // 2], base.expand(2, 3), rtol=0, atol=2e-3)


def test_full_ambient_light_is_the_base_color():
    plain = render(Sphere(5.0, 0.6), CAMERAS, SIZE, 40)
    lit = render(Sphere(5.0, 0.6), CAMERAS, SIZE, 40, shading=Shading(CAMERAS.positions, 1.0))
    torch.testing.assert_close(lit.rgb, plain.rgb)
    assert torch.equal(lit.opacity, plain.opacity)


def rendered_in_portions(candidates, monkeypatch):
    """A hashed field seen with soft shading: the rendering, and the gradients of a loss on all that it gives."""
    monkeypatch.setattr("iso3d_core.render.volume.CANDIDATES", candidates)
    field = HashGridField(replace(FIELD, growth=4.0, log2_table=10), seed=3)
    assert not all(level.dense for level in field.levels)
    with torch.no_grad():
        field.table.mul_(3000)
    shading = Shading(CAMERAS.positions, ambient=0.3)
    with _Saved() as saved:
        out = render(
            field, CAMERAS, SIZE, 24, generator=torch.Generator().manual_seed(5), shading=shading, normals=True
        )
    loss = out.rgb.square().mean() + out.depth.mean() + (out.weights * out.rays).mean()
    loss = loss + (out.weights[out.normal_rows] * out.normals[:, 0] * out.positions[out.normal_rows, 1]).sum()
    loss.backward()
    return out, [p.grad for p in field.parameters()], saved.bytes


def test_rays_in_portions_give_the_same_and_keep_less(monkeypatch):
    whole, gradients, bytes_whole = rendered_in_portions(10**9, monkeypatch)
    parts, gradients_parts, bytes_parts = rendered_in_portions(24 * 50, monkeypatch)
    for name in ("rgb", "opacity", "depth", "weights", "positions", "rays", "normals", "normal_rows"):
        torch.testing.assert_close(getattr(parts, name), getattr(whole, name), msg=name)
    for found, expected in zip(gradients_parts, gradients, strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-6)
    assert bytes_parts < bytes_whole / 5


# ---- occupancy -----------------------------------------------------------------------------------


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


# ---- the field -----------------------------------------------------------------------------------


def ball_points(low, high, count=300):
    generator = torch.Generator().manual_seed(0)
    direction = F.normalize(torch.randn(count, 3, generator=generator), dim=-1)
    return direction * (low + (high - low) * torch.rand(count, 1, generator=generator))


@torch.no_grad()
def test_the_field_starts_as_the_blob():
    points = ball_points(0, 1)
    blob = F.softplus(10 * (1 - points.norm(dim=-1) / 0.5))
    torch.testing.assert_close(HashGridField(FIELD).density(points), blob, rtol=0, atol=2e-3)
    torch.testing.assert_close(HashGridField(FIELD)(points)[1], torch.full((300, 3), 0.5), rtol=0, atol=2e-3)


@torch.no_grad()
def test_normals_of_the_blob_point_outward():
    points = ball_points(0.15, 0.6)
    normals = HashGridField(FIELD).normals(points)
    torch.testing.assert_close(normals.norm(dim=-1), torch.ones(300))
    assert float((normals * F.normalize(points, dim=-1)).sum(-1).min()) > 0.98  # differences over a step of 0.02


def test_normals_are_those_of_a_linear_density():
    field = HashGridField(FIELD)
    slope = torch.tensor([1.0, -2.0, 0.5])
    field.density = lambda points: points @ slope + 3
    downhill = -(slope / slope.norm()).expand(300, 3)
    torch.testing.assert_close(field.normals(ball_points(0, 1)), downhill, rtol=0, atol=1e-4)


def test_a_seed_is_a_field():
    a, b, other = HashGridField(FIELD, 3), HashGridField(FIELD, 3), HashGridField(FIELD, 4)
    for (name, x), y, z in zip(a.state_dict().items(), b.parameters(), other.parameters(), strict=True):
        assert torch.equal(x, y), name
        assert torch.equal(x, z) is name.endswith("bias"), name
    assert float(a.table.detach().abs().max()) <= 1e-4


def test_density_and_color_are_those_of_the_call_and_train_every_parameter():
    field, points = HashGridField(FIELD), ball_points(0, 0.9)
    density, color = field(points)
    assert torch.equal(density, field.density(points))
    assert bool(((color > 0) & (color < 1)).all())
    assert density.shape == (300,)
    assert color.shape == (300, 3)
    (density.sum() + color.square().sum()).backward()
    assert all(float(p.grad.abs().max()) > 0 for p in field.parameters())
    groups = field.parameter_groups(0.1, 0.2)
    assert [g["lr"] for g in groups] == [0.1, 0.2]
    assert sorted(id(p) for g in groups for p in g["params"]) == sorted(map(id, field.parameters()))
    assert groups[0]["params"][0] is field.table


def test_a_rendered_field_learns_through_pixels_and_normals():
    field = HashGridField(FIELD)
    with torch.no_grad():
        field.table.normal_(generator=torch.Generator().manual_seed(0))
    out = render(field, CAMERAS, 8, 24, shading=Shading(CAMERAS.positions, 0.2), normals=True)
    (out.rgb.mean() + out.normals.square()[:, 0].mean()).backward()
    for parameter in field.parameters():
        assert bool(torch.isfinite(parameter.grad).all())
        assert float(parameter.grad.abs().max()) > 0
    assert math.isfinite(out.depth.sum().item())
