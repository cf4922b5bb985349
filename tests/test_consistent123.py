"""Consistent123: prompts by direction, the reference's view, and an optimisation with made-up priors."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
import trimesh

from iso3d_core.cameras import even_azimuths, orbit
from iso3d_core.config import (
    FieldConfig,
    GenerateConfig,
    GuidedConfig,
    LightConfig,
    MeshConfig,
    ReferenceWeights,
    RenderConfig,
    Stage,
)
from iso3d_core.fields.dmtet import DMTet
from iso3d_core.fields.scene import Scene
from iso3d_core.fit import Checkpoints
from iso3d_core.losses import color_error
from iso3d_core.methods.consistent123 import Guide, angle_to_reference, distillation, optimise
from iso3d_core.methods.mesh_stage import optimise_mesh
from iso3d_core.methods.reference import ReferenceView, pearson, reference_losses, reference_view
from iso3d_core.pipeline import export_shape
from iso3d_core.priors.words import Description, direction_name
from iso3d_core.schedules import Ramp
from iso3d_core.types import Cancelled, Reference, Rendering

# ---- words -----------------------------------------------------------------------------------------


def test_prompts_name_the_direction():
    plain = Description("a red mug")
    assert [plain.seen_from(a, 10).rpartition(", ")[2] for a in (0, 30, 90, 170, 200, 330)] == [
        "front view", "front view", "side view", "back view", "back view", "front view",
    ]  # fmt: skip
    assert plain.seen_from(90, 70) == "a red mug, overhead view"
    # The reference shows the object from its left; half around from there is its right.
    own = Description("a red mug", front_deg=90, captions=True)
    assert own.seen_from(0, 15) == "a red mug seen from the left slightly above"
    assert own.seen_from(180, -10) == "a red mug seen from the right from below"
    assert direction_name(-45) == "front right"


# ---- the reference's view --------------------------------------------------------------------------


def test_pearson_is_the_correlation():
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=50), rng.normal(size=50)
    expected = np.corrcoef(a, b)[0, 1]
    assert float(pearson(torch.from_numpy(a), torch.from_numpy(b))) == pytest.approx(expected)
    assert float(pearson(torch.ones(5), torch.rand(5))) == pytest.approx(0, abs=1e-6)
    assert float(pearson(torch.rand(1), torch.rand(1))) == 0


def test_the_losses_of_the_reference_are_weighed():
    generator = torch.Generator().manual_seed(0)

    def image(channels):
        return torch.rand(1, channels, 8, 8, generator=generator)

    mask = torch.ones(1, 1, 8, 8)
    out = Rendering(image(3), mask * 0.9, image(1) + 1, *[torch.zeros(0)] * 3)
    view = ReferenceView(orbit(0.0, 0.0), image(3), mask, image(1))
    weights = ReferenceWeights(rgb=2.0, mask=3.0, depth=5.0)
    correlation = np.corrcoef(out.depth.flatten(), view.depth.flatten())[0, 1]
    color = float(color_error(out.rgb, out.opacity, view.rgb, mask, torch.Generator().manual_seed(1)))
    expected = 2 * color + 3 * 0.01 - 5 * 0.5 * correlation

    def found(view):
        return float(reference_losses(out, view, weights, 0.5, torch.Generator().manual_seed(1)))

    assert found(view) == pytest.approx(expected, rel=1e-4)
    assert found(replace(view, depth=None)) == pytest.approx(expected + 2.5 * correlation, rel=1e-4)


def test_the_reference_is_laid_where_the_prior_sees_the_object():
    rgba = torch.zeros(4, 40, 40)
    rgba[0, 10:30, 5:35], rgba[3, 10:30, 5:35] = 1.0, 1.0
    shown = torch.zeros(1, 1, 20, 20)
    shown[..., 4:10, 6:16] = 1.0
    view = reference_view(Reference(rgba), orbit(0.0, 0.0), 20, shown)
    assert torch.equal(view.mask, shown)
    assert torch.equal(view.rgb[0, 1], 1 - shown[0, 0])  # red on white
    whole = reference_view(Reference(rgba), orbit(0.0, 0.0), 20)
    assert whole.mask[0, 0, 5:15, 3:17].min() == 1
    assert float(whole.mask.mean()) == pytest.approx(0.375, abs=0.03)


# ---- the optimisation ------------------------------------------------------------------------------


class Pixels:
    """A prior whose latents are the pixels and that wants every view to be of one color."""

    def __init__(self, color):
        self.color = torch.tensor(color).reshape(1, 3, 1, 1)
        self.alphas_cumprod = torch.linspace(0.999, 0.01, 1000)
        self.device = torch.device("cpu")
        self.asked = []

    def encode(self, rgb, quick=False):
        return rgb

    def predict(self, z_t, t, cameras):
        self.asked.append(len(cameras))
        abar = self.alphas_cumprod[t]
        return (z_t - abar.sqrt() * self.color) / (1 - abar).sqrt()


def small(**settings):
    guided = GuidedConfig(steps=12, judge_every=2, window=2, boundary=(0.2, 0.6), lambda_orient=0.0, mesh_steps=0)
    return GenerateConfig(
        field=FieldConfig(2, base=8, growth=2.0, features=2, log2_table=12, hidden=16, blob_bias=10.0),
        render=RenderConfig(samples=16, occupancy=8),
        stage=Stage(steps=0, resolution=((0, 16),), lambda_orient=Ramp(0, 0, 1)),
        guided=replace(guided, **settings), method="consistent123",
    )  # fmt: skip


def a_view():
    disc = torch.zeros(1, 1, 16, 16)
    disc[..., 4:12, 4:12] = 1
    return ReferenceView(orbit(0.0, 10.0), torch.cat([torch.ones_like(disc), 1 - disc, 1 - disc], dim=1), disc)


def test_sds_of_a_view_counts_by_its_angle():
    assert angle_to_reference(orbit(even_azimuths(4), 10.0)).tolist() == pytest.approx([0, 90, 180, 90], abs=1e-3)
    prior = Pixels([1.0, 0.0, 0.0])
    rgb = torch.full((4, 3, 16, 16), 0.5, requires_grad=True)
    cameras = orbit(even_azimuths(4), 10.0)
    distillation(Guide(prior, prior.predict, True), rgb, cameras, (0.5, 0.5), torch.Generator()).backward()
    size = rgb.grad.abs().mean(dim=(1, 2, 3))
    assert size[0] < 1e-6
    assert float(size[2] / size[1]) == pytest.approx(2, rel=1e-3)


def test_the_2d_prior_joins_at_the_boundary_and_the_reference_comes_every_fourth_step():
    first, second, seen = Pixels([1.0, 0.0, 0.0]), Pixels([0.0, 0.0, 1.0]), []
    done = optimise(
        Guide(first, first.predict), Guide(second, second.predict), a_view(), lambda views: 0.5, small(),
        lambda p: seen.append(p.values),
    )  # fmt: skip
    switched = done.boundary.switched_at
    assert switched == 4  # the third value, 2 steps apart: nothing has changed
    assert ["reference" in values for values in seen] == [step % 4 == 0 for step in range(12)]
    later = [step for step in range(12) if step % 4 and step > switched]
    assert [step for step in range(12) if "2d" in seen[step]] == later
    assert len(second.asked) == len(later)
    assert seen[11]["w_3d"] == pytest.approx(math.exp(-(11 - switched) / (12 - switched)))
    assert done.as_dict()["similarity"] == [0.5, 0.5, 0.5]


def test_the_baselines_take_one_prior_or_both():
    first, second = Pixels([1.0, 0.0, 0.0]), Pixels([0.0, 0.0, 1.0])
    guides = Guide(first, first.predict), Guide(second, second.predict)
    for weights, expected in (((1.0, 0.0), (9, 0)), ((0.0, 1.0), (0, 9)), ((1.0, 1.0), (9, 9))):
        first.asked, second.asked = [], []
        done = optimise(*guides, a_view(), None, small(weights=weights))
        assert (len(first.asked), len(second.asked)) == expected
        assert done.boundary is None
        assert done.as_dict() == {}


def test_an_interrupted_one_goes_on_to_the_same_end(tmp_path):
    config = small()

    def run(stop=None, resume=False):
        first, second, asked = Pixels([1.0, 0.0, 0.0]), Pixels([0.0, 0.0, 1.0]), []

        def similarity(views):
            asked.append(len(views))
            return float(views.mean()) if len(asked) < 3 else 0.7

        def watch(progress):
            if progress.step == stop:
                raise Cancelled

        checkpoints = Checkpoints(tmp_path / "state", "key", every=5, resume=resume)
        return optimise(
            Guide(first, first.predict), Guide(second, second.predict), a_view(), similarity, config, watch, checkpoints
        )

    whole = run()
    with pytest.raises(Cancelled):
        run(stop=7)
    state = torch.load(tmp_path / "state" / "guided.pt", weights_only=True)
    assert state["step"] == 5
    again = run(resume=True)
    assert again.boundary.steps[:3] == whole.boundary.steps[:3]
    first, second = whole.scene.state_dict(), again.scene.state_dict()
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_it_learns_the_reference_and_the_priors_color():
    prior = Pixels([0.0, 1.0, 0.0])
    config = small(steps=120, weights=(1.0, 0.0), t_3d=(0.3, 0.6), reference=ReferenceWeights(1000.0, 500.0))
    config = replace(config, stage=replace(config.stage, learning_rate_mlp=0.01), light=LightConfig(start=2.0))
    done = optimise(Guide(prior, prior.predict), None, a_view(), None, config)
    views = done.scene.view(orbit(torch.tensor([0.0, 180.0]), 10.0), 16)
    middle = views[:, :3, 7:9, 7:9].mean(dim=(2, 3))
    redness = middle[:, 0] - middle[:, 1]
    assert redness[0] > redness[1] + 0.1  # red where the reference is, greener behind, as the prior has it
    assert (views[:, :3].mean(dim=(2, 3))[:, 1] > 0.5).all()


def test_the_mesh_stage_goes_on_with_the_surface(tmp_path):
    prior = Pixels([0.0, 1.0, 0.0])
    config = small(weights=(1.0, 0.0), mesh_steps=8, mesh_grid=12, mesh_resolution=16)
    config = replace(config, mesh=MeshConfig(threshold=2.0))
    scene = Scene(config.field, config.render, 0)
    seen = []
    work = optimise_mesh(
        scene, Guide(prior, prior.predict), None, a_view(), config, None, lambda p: seen.append((p.stage, p.values))
    )
    stages = [stage for stage, _ in seen]
    assert stages.index("mesh stage") == stages.count("mesh color") > 0
    steps = [values for stage, values in seen if stage == "mesh stage"]
    assert ["reference" in values for values in steps] == [step % 4 == 0 for step in range(8)]
    assert all(values["smooth"] > 0 for values in steps)
    before = DMTet.from_density(lambda p: scene.density(p).detach(), 12, 2.0)
    assert not torch.equal(work.shape.distances, before.distances)
    out = work.render(orbit(even_azimuths(2), 10.0), 16)
    assert out.rgb.shape == (2, 3, 16, 16)
    assert float(out.opacity.detach().max()) == 1
    assert out.rgb[out.opacity.expand(-1, 3, -1, -1) == 0].min() == 1  # white behind
    edge = (out.opacity > 0.5) & (out.opacity < 1)
    distance = (out.depth / out.opacity)[edge]  # as `reference_losses` takes it
    assert len(distance) > 0
    assert float(distance.detach().max()) <= float(out.depth[out.opacity == 1].detach().max()) * 1.1
    mesh = export_shape(work, config)
    assert trimesh.Trimesh(mesh.vertices, mesh.faces, process=True, merge_tex=True, merge_norm=True).is_watertight
    assert mesh.texture is not None


def test_a_method_without_any_prior_is_refused():
    with pytest.raises(ValueError, match="at least one prior"):
        optimise(None, None, a_view(), None, small())
