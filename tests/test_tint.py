"""Colors drawn to the sketch's over wide areas, and kept where they are fine."""

import numpy as np
import pytest
import torch
from torch import nn

from iso3d_core.config import FieldConfig, RenderConfig
from iso3d_core.fields.hashgrid import look_up
from iso3d_core.fields.scene import Scene
from iso3d_core.mesh.extract import extract_surface
from iso3d_core.methods.tint import blurred, tint
from iso3d_core.types import InputError

SIDE = 32


class Ball(nn.Module):
    """Solid up to radius 0.6; its colors wave along x, about 0.1 a wave, around one mean."""

    mean = (0.6, 0.4, 0.3)

    def forward(self, points):
        density = 40.0 * (points.norm(dim=-1) < 0.6)
        return density, torch.tensor(self.mean) + 0.2 * torch.sin(points[:, :1] * 60)


@pytest.fixture
def scene():
    out = Scene(FieldConfig(3, base=16, growth=2.0, log2_table=14), RenderConfig())
    out.field = Ball()
    out.field.tint = None
    return out


def surface(count=2000, radius=0.6):
    out = torch.randn(count, 3, generator=torch.Generator().manual_seed(0))
    return radius * out / out.norm(dim=-1, keepdim=True)


def added(scene, points):
    return look_up(scene.field.tint, points)


def test_a_wide_difference_goes_by_its_share_and_what_is_fine_stays(scene):
    wanted = torch.tensor([0.2, 0.4, 0.8])
    tint(scene, wanted[:, None, None, None].expand(3, SIDE, SIDE, SIDE), 0.75)
    change = added(scene, surface())
    assert torch.allclose(change.mean(dim=0), 0.75 * (wanted - torch.tensor(Ball.mean)), atol=0.02)
    assert change.std(dim=0).max() < 0.03  # of the waves' 0.14


def test_what_lies_deep_inside_has_no_say(scene):
    wanted = torch.tensor(Ball.mean)[:, None, None, None].repeat(1, SIDE, SIDE, SIDE)
    tint(scene, wanted, 1.0)
    before = added(scene, surface())
    assert before.abs().max() < 0.1  # of the waves' 0.2 at most
    wanted[:, 13:19, 13:19, 13:19] = 1.0  # further than two radii from the surface
    tint(scene, wanted, 1.0)
    assert (added(scene, surface()) - before).abs().max() < 0.01


def test_halves_of_two_colors_are_told_apart(scene):
    wanted = torch.zeros(3, SIDE, SIDE, SIDE)
    wanted[:, :, :, SIDE // 2 :] = 1.0  # x > 0
    tint(scene, wanted, 1.0)
    points = surface()
    change = added(scene, points) + torch.tensor(Ball.mean)
    assert change[points[:, 0] > 0.3].mean() > 0.9
    assert change[points[:, 0] < -0.3].mean() < 0.1


def test_a_blur_keeps_a_plain_grid_but_for_its_edges():
    plain = blurred(torch.ones(1, SIDE, SIDE, SIDE), 0.1)
    assert torch.allclose(plain[:, 8:-8, 8:-8, 8:-8], torch.ones(()), atol=1e-4)
    point = torch.zeros(1, SIDE, SIDE, SIDE)
    point[0, 16, 16, 16] = 1
    x = (torch.arange(SIDE) - 16) * (2 / SIDE)
    spread = blurred(point, 0.1)[0].sum(dim=(0, 1))
    assert float((spread * x**2).sum().sqrt()) == pytest.approx(0.1, rel=0.02)


def test_a_tinted_scene_is_kept_in_its_file_and_its_mesh_sees_it(tmp_path):
    scene = Scene(FieldConfig(3, base=16, growth=2.0, log2_table=14, blob_bias=10.0, blob_radius=1.0), RenderConfig())
    assert "field.tint" not in scene.state_dict()
    vertices, _ = extract_surface(lambda p: scene.density(p).detach(), 24, 5.0)
    points = torch.from_numpy(np.asarray(vertices, np.float32))
    before, seen = scene.surface_color(points), scene.preview(32)
    tint(scene, torch.ones(3, SIDE, SIDE, SIDE), 1.0)
    after = scene.surface_color(points)
    assert (after - before).min() > 0.3  # from grey to nearly white
    assert scene.preview(32).mean() > seen.mean() + 0.05
    scene.save(tmp_path / "ball.safetensors")
    assert torch.equal(Scene.load(tmp_path / "ball.safetensors").surface_color(points), after)


def test_a_field_file_whose_tint_has_another_shape_is_refused(tmp_path):
    scene = Scene(FieldConfig(3, base=16, growth=2.0, log2_table=14), RenderConfig())
    scene.field.tint = torch.zeros(SIDE, SIDE, SIDE)
    scene.save(tmp_path / "ball.safetensors")
    with pytest.raises(InputError, match=r"its tint is \[32, 32, 32\]"):
        Scene.load(tmp_path / "ball.safetensors")
