"""Isotropic3D's objective with a prior whose answers are known, and what a scene shows."""

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from iso3d_core.cameras import Cameras, even_azimuths, orbit
from iso3d_core.config import (
    CameraConfig,
    FieldConfig,
    GenerateConfig,
    LightConfig,
    RenderConfig,
    Stage,
    WarmStart,
)
from iso3d_core.fields.scene import Scene
from iso3d_core.methods.isotropic3d import (
    distillation_target,
    mean_of_draws,
    random_group,
    random_shading,
    sds_objective,
    warm_start,
)
from iso3d_core.schedules import Ramp

RED, BLUE = torch.tensor([0.9, 0.1, 0.1]), torch.tensor([0.1, 0.1, 0.9])
CONFIG = GenerateConfig(
    field=FieldConfig(2, base=8, growth=2.0, features=2, log2_table=12, hidden=16, blob_bias=10.0),
    render=RenderConfig(samples=24, occupancy=16),
    stage=Stage(steps=10, resolution=((0, 16),), lambda_orient=Ramp(0, 0, 1)), light=LightConfig(ambient=(1.0, 1.0)),
)  # fmt: skip


class Known:
    """Latents are pixels. With guidance it wants ``guided`` [V, 3, h, w], without it ``conditional``."""

    def __init__(self, guided, conditional):
        self.wanted = guided, conditional
        self.alphas_cumprod = torch.linspace(0.999, 0.01, 1000)
        self.scheduler = SimpleNamespace(config=SimpleNamespace(num_train_timesteps=1000))
        self.device, self.info = torch.device("cpu"), {}

    def encode(self, rgb, quick=False):
        return rgb

    def condition(self, embedding, cameras):
        return None

    def decode_with_mask(self, z):
        return z, z[:, :1] / 2

    def predict_noise(self, z_t, t, condition, scale):
        abar = self.alphas_cumprod[t]
        return tuple((z_t - abar.sqrt() * x0) / (1 - abar).sqrt() for x0 in self.wanted)


def test_the_targets_are_what_the_equations_say():
    generator = torch.Generator().manual_seed(0)
    z, x0, weak = (torch.rand(4, 3, 8, 8, generator=generator) for _ in range(3))
    prior, t = Known(x0, 0.5 * weak), 400

    def target(**stage):
        config = replace(CONFIG, stage=replace(CONFIG.stage, **stage))
        return distillation_target(z, t, prior, torch.zeros(1, 1, 4), None, config, torch.Generator().manual_seed(1))

    torch.testing.assert_close(target(target="x0", std_rescale=0.0), x0, atol=1e-4, rtol=0)
    rescaled = target(target="x0", std_rescale=1.0)
    assert float(rescaled.std()) == pytest.approx(float((0.5 * weak).std()), rel=1e-2)
    # z_t - sqrt(1 - abar) e is sqrt(abar) x0, so the predicted noise is off by sqrt(abar / (1 - abar)) (z - x0).
    abar = prior.alphas_cumprod[t]
    torch.testing.assert_close(target(target="sds"), z - (abar / (1 - abar)).sqrt() * (z - x0), atol=1e-4, rtol=0)


def objective(settings=CONFIG, wanted=0.3):
    scene = Scene(settings.field, settings.render)
    view = torch.full((4, 3, 16, 16), wanted)
    return scene, sds_objective(scene, Known(view, view), torch.zeros(1, 1, 4), settings)


def test_what_the_prior_wants_is_what_the_scene_is_pulled_to():
    """The same draw of noise: a target nearer to what is shown costs less."""
    near, far = (objective(wanted=wanted)[1](0, torch.Generator().manual_seed(0))[1] for wanted in (1.0, 0.0))
    assert near["distill"] < far["distill"]  # most of what is shown is white


def test_normals_of_a_solid_face_the_cameras():
    settings = replace(CONFIG, stage=replace(CONFIG.stage, lambda_orient=Ramp(1, 1, 1)))
    scene, ask = objective(settings)
    _, values = ask(0, torch.Generator().manual_seed(0))
    assert values["orient"] < 0.05  # the blob that a field starts as is a ball
    plain, normals = values["orient"], scene.field.normals
    scene.field.normals = lambda points: -normals(points)
    _, values = ask(0, torch.Generator().manual_seed(0))
    assert values["orient"] > 5 * plain


def test_half_opaque_costs_where_its_weight_says_so():
    loss = {}
    for weight in (0.0, 1.0):
        settings = replace(CONFIG, stage=replace(CONFIG.stage, lambda_opacity=weight))
        loss[weight] = float(objective(settings)[1](0, torch.Generator().manual_seed(0))[0].detach())
    assert loss[1.0] > loss[0.0]


def test_groups_of_views_are_drawn_as_the_paper_has_them():
    """Section 4.1: fov 15 to 60 degrees, distance a factor of 0.8 to 1.0 over tan(fov / 2), orthogonal azimuths."""
    config = CameraConfig(fov_y_deg=(15.0, 60.0), fit_distance=(0.8, 1.0))
    generator = torch.Generator().manual_seed(0)
    factors = []
    for _ in range(40):
        group = random_group(None, config, generator)
        distance = group.positions.norm(dim=-1)
        factors.append(float(distance[0] * torch.tan(torch.deg2rad(group.fov_y_deg[0] / 2))))
        x, y, z = (group.positions / distance[:, None]).unbind(-1)
        azimuth = torch.rad2deg(torch.atan2(y, x))
        assert ((azimuth.diff() % 360) - 90).abs().max() < 1e-2
        assert -1e-4 <= float(z[0]) <= 0.5 + 1e-4  # 0 to 30 degrees
        assert 15 <= float(group.fov_y_deg[0]) <= 60
    assert 0.8 <= min(factors) < 0.85
    assert 0.95 < max(factors) <= 1.0


def test_shading_starts_when_it_should_and_as_often():
    config, cameras = LightConfig(start=0.3, albedo_chance=0.25, textureless_chance=0.25), orbit(even_azimuths(4), 10.0)
    generator = torch.Generator().manual_seed(0)
    assert all(random_shading(cameras, config, 0.29, generator) is None for _ in range(20))
    drawn = [random_shading(cameras, config, 0.3, generator) for _ in range(400)]
    lit = [shading for shading in drawn if shading is not None]
    assert len(lit) / 400 == pytest.approx(0.75, abs=0.08)
    assert sum(shading.textureless for shading in lit) / 400 == pytest.approx(0.25, abs=0.08)


def test_the_color_of_a_surface_lies_beneath_it():
    class Ball(nn.Module):
        def normals(self, points):
            return F.normalize(points, dim=-1)

        def forward(self, points):
            inside = points.norm(dim=-1) < 0.5
            return 1000.0 * inside, torch.where(inside[:, None], RED, BLUE)

    scene = Scene(CONFIG.field, CONFIG.render)
    scene.field = Ball()
    points = 0.505 * F.normalize(torch.randn(50, 3, generator=torch.Generator().manual_seed(0)), dim=-1)
    torch.testing.assert_close(scene.surface_color(points), RED.expand(50, 3))


@pytest.mark.parametrize("together", [True, False])
def test_views_are_the_mean_of_their_draws(together):
    sheets = [orbit(even_azimuths(2), elevation) for elevation in (0.0, 30.0)]
    groups = [Cameras.concatenate(sheets)] if together else sheets
    seeds, done = [], []

    def sample(cameras, seed, report):
        seeds.append(seed)
        report(1, 2, torch.zeros(len(cameras), 3, 4, 4))
        report(2, 2, torch.zeros(len(cameras), 3, 4, 4))
        return torch.full((len(cameras), 3, 4, 4), float(seed - 7000))

    warm = WarmStart(draws=3, sampling_steps=2)
    cameras, views, masks = mean_of_draws(
        Known(None, None), groups, sample, warm, 7, lambda progress: done.append((progress.step, progress.total))
    )
    assert seeds == list(range(7000, 7000 + 3 * len(groups)))  # each draw of each group has a noise of its own
    assert done == [(step, 6 * len(groups)) for step in range(1, 6 * len(groups) + 1)]
    expected = torch.tensor([1.0, 1.0, 1.0, 1.0] if together else [2.0, 2.0, 3.0, 3.0])
    assert torch.equal(views, expected[:, None, None, None].expand(4, 3, 4, 4))
    assert torch.equal(masks, views[:, :1] / 2)
    assert torch.equal(cameras.cam_to_world, Cameras.concatenate(sheets).cam_to_world)


def test_a_warm_start_puts_colors_where_the_views_have_them():
    cameras = orbit(even_azimuths(6), 0.0, 3.4, 35.0)
    y, x = torch.meshgrid(torch.arange(24) - 11.5, torch.arange(24) - 11.5, indexing="ij")
    mask = ((x**2 + y**2) < 60).float()
    color = torch.where((y < 0)[..., None], RED, BLUE).permute(2, 0, 1)
    views = (color * mask + 1 - mask).expand(6, -1, -1, -1)
    config = replace(CONFIG, warm_start=WarmStart(steps=80, rays=1024))
    scene = Scene(config.field, config.render)
    warm_start(scene, (cameras, views, mask.expand(6, 1, -1, -1)), config)
    shown = scene.view(orbit(20.0, 0.0, 3.4, 35.0), 24)[0]
    top, bottom = shown[:3, 8, 12], shown[:3, 15, 12]
    assert float(shown[3, 12, 12]) > 0.8
    assert float(top[0] - top[2]) > 0.3
    assert float(bottom[2] - bottom[0]) > 0.3


def test_depth_is_bright_where_near_and_normals_face_the_camera():
    scene = Scene(CONFIG.field, replace(CONFIG.render, samples=96))
    camera = orbit(0.0, 0.0, 3.4, 35.0)  # on +X
    depth, normal = (scene.view(camera, 32, style, None)[0] for style in ("depth", "normal"))
    inside = normal[3] > 0.5
    assert bool(inside[16, 16])
    edge = int(torch.nonzero(inside[16])[0])
    assert float(depth[0, 16, 16]) > float(depth[0, 16, edge]) + 0.2
    x, y, z = (normal[:3, 16, 16] * 2 - 1).tolist()
    assert x > 0.9
    assert max(abs(y), abs(z)) < 0.3
