"""The hash-grid field: how it starts, its normals, and that all of it learns."""

import math

import torch
from torch.nn import functional as F

from iso3d_core.cameras import orbit
from iso3d_core.config import FieldConfig
from iso3d_core.fields.hashgrid import HashGridField
from iso3d_core.render.volume import Shading, render

CAMERAS = orbit([0.0, 100.0], [0.0, 35.0], [3.4, 2.6])
SIZE = 14
FIELD = FieldConfig(levels=2, base=8, growth=2.0, features=2, log2_table=15, hidden=16, blob_bias=10.0, blob_radius=0.5)


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
