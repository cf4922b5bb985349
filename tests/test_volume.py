"""Volume rendering: compositing and shading in closed form."""

from dataclasses import replace

import pytest
import torch
from shapes import Sphere
from torch.nn import functional as F

from iso3d_core.cameras import orbit, rays
from iso3d_core.config import FieldConfig
from iso3d_core.fields.hashgrid import HashGridField
from iso3d_core.render.volume import Shading, ball_span, render
from iso3d_core.vram import _Saved

CAMERAS = orbit([0.0, 100.0], [0.0, 35.0], [3.4, 2.6])
SIZE = 14
FIELD = FieldConfig(levels=2, base=8, growth=2.0, features=2, log2_table=15, hidden=16, blob_bias=10.0, blob_radius=0.5)


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
