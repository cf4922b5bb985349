"""A mesh's texture after a reference: fixed geometry, differentiable color, RGSD's alternation."""

from dataclasses import replace

import numpy as np
import pytest
import torch
import trimesh
from test_rgnv import make_prior, reference

from iso3d_core import rgnv
from iso3d_core.cameras import orbit
from iso3d_core.cli import main
from iso3d_core.config import FieldConfig
from iso3d_core.fields.texture import TextureField
from iso3d_core.files import spare_inputs
from iso3d_core.fit import Checkpoints
from iso3d_core.mesh.clean import vertex_normals
from iso3d_core.mesh.placing import fit_into_ball
from iso3d_core.mesh.texture import bake, unwrap
from iso3d_core.methods import refine as method
from iso3d_core.methods.refine import RefineConfig, refine
from iso3d_core.overlay import bounds, laid_over
from iso3d_core.render.surface import Surface
from iso3d_core.render.volume import Shading
from iso3d_core.types import Cancelled, InputError, Mesh

FIELD = FieldConfig(2, base=8, growth=2.0, features=2, log2_table=14, hidden=16)
SMALL = RefineConfig(steps=4, start_steps=60, ddim_steps=4, views=2, texture=64, field=FIELD)


def ball(radius=0.8, **more):
    shape = trimesh.creation.icosphere(subdivisions=4, radius=radius)
    vertices, faces = shape.vertices.astype(np.float32), shape.faces.astype(np.int32)
    return Mesh(vertices, faces, vertex_normals(vertices, faces), **more)


RED, BLUE = torch.tensor([0.86, 0.16, 0.16]), torch.tensor([0.16, 0.16, 0.86])


def two_colors(points):
    return torch.where(points[:, 1:2] > 0, RED, BLUE)


def textured():
    """A ball that is red on one side and blue on the other."""
    mesh = ball()
    vertices, faces, normals, uvs = unwrap(mesh.vertices, mesh.faces, mesh.normals, 64)
    return Mesh(vertices, faces, normals, uvs, bake(vertices, faces, uvs, two_colors, 64))


def test_a_ball_is_seen_as_a_ball():
    camera = orbit(torch.zeros(1), torch.zeros(1), 3.4, 35.0)
    seen = Surface(ball()).see(camera, 64)
    half = np.tan(np.deg2rad(17.5))
    radius = np.tan(np.arcsin(0.8 / 3.4)) / half * 32
    assert float(seen.mask.sum()) == pytest.approx(np.pi * radius**2, rel=0.01)
    assert float(seen.depth[0, 0, 32, 32]) == pytest.approx(2.6, abs=0.01)
    assert torch.allclose(seen.points.norm(dim=-1), torch.tensor(0.8), atol=5e-3)
    assert ((seen.points / 0.8 - seen.normals).norm(dim=-1) < 0.05).all()
    image = seen.image(torch.tensor([0.2, 0.4, 0.6]).expand(len(seen.points), 3))
    assert image[0, :, 32, 32].tolist() == pytest.approx([0.2, 0.4, 0.6], abs=1e-6)
    assert (image[0, :, 0, 0] == 1).all()
    light = Shading(torch.tensor([[3.4, 0.0, 0.0]]), 0.7, strength=0.9)
    lit = seen.image(torch.ones(len(seen.points), 3), light)
    assert float(lit[0, 0, 32, 32]) == pytest.approx(0.9, abs=2e-3)  # seen and lit from the front
    rim = (seen.mask[0, 0, 32] > 0.99).nonzero()[0]
    assert float(lit[0, 0, 32, rim]) < 0.8


def test_colors_get_gradients_and_geometry_none():
    seen = Surface(ball()).see(orbit(torch.zeros(2), torch.tensor([0.0, 30.0]), 3.4, 35.0), 16, antialias=2)
    color = torch.rand(len(seen.points), 3, requires_grad=True)
    seen.image(color).sum().backward()
    assert torch.allclose(color.grad, torch.full_like(color, 0.25))  # each is a fourth of its pixel
    field = TextureField(FIELD)
    seen.image(field(seen.points)).mean().backward()
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in field.parameters())


def test_a_reference_is_laid_over_the_outline():
    mask = torch.zeros(1, 1, 20, 20)
    mask[..., 4:14, 6:12] = 1
    alpha = torch.zeros(1, 1, 40, 40)
    alpha[..., 10:30, 14:26] = 1
    image = torch.full((1, 3, 40, 40), 0.3)
    out = laid_over(mask, image, alpha, 1.0)
    assert torch.allclose(out, torch.where(mask > 0, 0.3, 1.0).expand(1, 3, 20, 20))
    assert bounds(torch.zeros(1, 1, 4, 4)) is None
    assert laid_over(torch.zeros(1, 1, 4, 4), image, alpha).sum() == 0


def test_a_mesh_fits_into_the_ball():
    mesh = fit_into_ball(replace(ball(), vertices=ball().vertices * 7 + np.float32([3, -2, 10])))
    assert np.linalg.norm(mesh.vertices, axis=1).max() == pytest.approx(0.95, abs=1e-3)


def test_only_the_texture_changes_and_the_same_seed_gives_the_same():
    mesh, prior = textured(), make_prior()
    once, again = (refine(mesh, reference(), prior, SMALL) for _ in range(2))
    for name in ("vertices", "faces", "normals", "uvs"):
        assert np.array_equal(getattr(once, name), getattr(mesh, name))
    assert once.texture.shape == mesh.texture.shape
    assert np.array_equal(once.texture, again.texture)
    assert not np.array_equal(once.texture, mesh.texture)
    other = refine(mesh, reference(), prior, replace(SMALL, seed=1))
    assert not np.array_equal(once.texture, other.texture)


def test_without_steps_the_colors_stay():
    mesh = textured()
    out = refine(mesh, reference(), make_prior(), replace(SMALL, steps=0, start_steps=300))
    assert np.abs(out.texture.astype(int) - mesh.texture).mean() < 12


def test_a_mesh_without_uvs_is_unwrapped_where_it_stands():
    mesh = ball(vertex_colors=np.full((2562, 3), (10, 200, 10), np.uint8))
    mesh = replace(mesh, vertices=mesh.vertices + np.float32([5, 0, 1]))
    out = refine(mesh, reference(), make_prior(), replace(SMALL, steps=0, start_steps=200))
    assert out.vertex_colors is None
    assert out.texture.shape == (64, 64, 3)
    assert np.abs(out.texture.astype(int) - (10, 200, 10)).mean() < 12
    corners = mesh.vertices[mesh.faces], out.vertices[out.faces]
    assert np.array_equal(*corners)


def test_files_beside_the_result_overwrite_no_input(tmp_path):
    for kept in ("chair_texture.png", "chair.mtl", "chair.obj"):
        with pytest.raises(InputError, match=f"{kept} is an input and would be overwritten"):
            spare_inputs([tmp_path / kept], [tmp_path / "chair.obj"])
    spare_inputs([tmp_path / "chair_texture.png"], [tmp_path / "chair.glb"])


def test_an_interrupted_refinement_goes_on_to_the_same_texture(tmp_path):
    mesh, prior = textured(), make_prior()
    whole = refine(mesh, reference(), prior, SMALL)

    def stop(progress):
        if progress.stage == "refine" and progress.step == 3:
            raise Cancelled

    checkpoints = Checkpoints(tmp_path, method.work_key(mesh, reference(), prior, SMALL), every=1, resume=True)
    with pytest.raises(Cancelled):
        refine(mesh, reference(), prior, SMALL, stop, checkpoints)
    seen = []
    again = refine(mesh, reference(), prior, SMALL, lambda p: seen.append((p.stage, p.step)), checkpoints)
    assert ("refine", 1) not in seen
    np.testing.assert_array_equal(again.texture, whole.texture)


def test_a_piece_of_work_is_known_by_all_that_it_is_made_of(monkeypatch):
    mesh, prior = textured(), make_prior()
    keys = [
        method.work_key(*given) for given in (
            (mesh, reference(), prior, SMALL), (mesh, reference(6), prior, SMALL),
            (mesh, reference(), prior, replace(SMALL, seed=1)),
            (replace(mesh, vertices=mesh.vertices * 2), reference(), prior, SMALL),
            (replace(mesh, texture=255 - mesh.texture), reference(), prior, SMALL),
        )
    ]  # fmt: skip
    assert len(set(keys)) == len(keys)
    assert method.work_key(mesh, reference(), prior, SMALL) == keys[0]
    monkeypatch.setattr(method, "own_version", lambda: "another")
    assert method.work_key(mesh, reference(), prior, SMALL) != keys[0]


def test_uvs_that_repeat_the_texture_are_refused():
    mesh = replace(textured(), uvs=textured().uvs * 3)
    with pytest.raises(InputError, match="unwrap"):
        refine(mesh, reference(), make_prior(), SMALL)
    assert refine(mesh, reference(), make_prior(), replace(SMALL, steps=0, unwrap=True)).uvs.max() <= 1


@pytest.mark.parametrize(
    ("wrong", "said"), [({"target": "x"}, "rgsd or sds"), ({"steps": -1}, "steps"), ({"texture": 1}, "texture")]
)
def test_settings_are_checked(wrong, said):
    with pytest.raises(InputError, match=said):
        replace(SMALL, **wrong)


def test_rgsd_pulls_renders_to_what_rgnv_makes_of_them(monkeypatch):
    """With a prior that says a known latent x0 and noise, both kinds of step have a closed form."""
    prior, x0, noise, asked = make_prior(), 0.3, 0.7, []
    levels = rgnv.noise_levels(prior, 4)
    monkeypatch.setattr(rgnv, "remember", lambda *_, **__: None)
    monkeypatch.setattr(rgnv, "invert_latents", lambda _p, z, *_, **__: torch.stack([z, z]))

    def denoise(_prior, z, _condition, _steps, since, _scale, memory=None, on_step=None, to=0):
        asked.append((since, to))
        full = torch.full_like(z, x0)
        return levels[to].sqrt() * full + (1 - levels[to]).sqrt() * noise, torch.full_like(z, noise)

    monkeypatch.setattr(rgnv, "denoise", denoise)
    field, surface = TextureField(FIELD), Surface(fit_into_ball(textured()))
    objective = method.refine_objective(prior, surface, field, reference(), replace(SMALL, strength=1.0))
    assert asked == [(4, 0)]
    z = []
    encode = prior.encode
    prior.encode = lambda rgb: (found := encode(rgb), z.append(found.detach()))[0]
    _, values = objective(0, torch.Generator().manual_seed(0))
    target = levels[0].sqrt() * x0 + (1 - levels[0]).sqrt() * noise
    assert values["distill"] == pytest.approx(float(0.5 * (z[-1] - target).square().sum() / len(z[-1])), rel=1e-4)
    assert len(asked) == 1  # the targets of fixed views are made once
    for seed in range(3):
        _, values = objective(1, torch.Generator().manual_seed(seed))
        level = asked[-1][1]
        expected = 0.5 * levels[level] * (z[-1] - x0).square().sum() / len(z[-1])
        assert values["distill"] == pytest.approx(float(expected), rel=1e-3)
    assert len({to for _, to in asked[1:]}) > 1


def test_the_references_depth_is_the_meshs_own(monkeypatch):
    told = []
    monkeypatch.setattr(rgnv, "remember", lambda _prior, _reference, depth, *_: told.append(depth))
    monkeypatch.setattr(method, "estimate_depth", lambda _reference: None)
    field, surface = TextureField(FIELD), Surface(fit_into_ball(textured()))
    config = replace(SMALL, target="sds", strength=0.0)
    method.refine_objective(make_prior(), surface, field, reference(), config)
    alpha = reference().rgba[None, 3:]
    rows, columns = (alpha[0, 0] > 0.5).nonzero().T
    middle = told[0][0, 0, int(rows.float().mean()), int(columns.float().mean())]
    assert told[0].shape == alpha.shape
    assert ((told[0] > 0) == (alpha > 0.5)).all()
    assert float(middle) > 0.95  # of a ball
    assert float(told[0][told[0] > 0].min()) < 0.9
    monkeypatch.setattr(method, "estimate_depth", lambda _reference: alpha * 0.4)
    method.refine_objective(make_prior(), surface, field, reference(), config)
    assert torch.equal(told[1], alpha * 0.4)  # an estimator, which sees the image itself, comes first


def test_sds_is_the_other_target():
    values = []
    refine(textured(), reference(), make_prior(), replace(SMALL, target="sds"), lambda p: values.append(p.values))
    losses = [v["loss"] for v in values if v]  # a step that works still has none
    assert len(losses) == SMALL.start_steps + SMALL.steps
    assert np.isfinite(losses).all()


@pytest.mark.parametrize("target", ["rgsd", "sds"])
def test_words_are_followed_as_far_as_the_guidance_says(target):
    mesh, prior, prompted = textured(), make_prior(), replace(SMALL, target=target, prompt="red duck")
    plain, none, some = (
        refine(mesh, reference(), prior, config).texture.astype(int)
        for config in (
            replace(SMALL, target=target), replace(prompted, guidance_scale=0.0), replace(prompted, guidance_scale=4.0)
        )
    )  # fmt: skip
    assert np.abs(none - plain).max() <= 1
    assert np.abs(some - plain).max() > 4


def test_it_can_be_stopped_at_any_step():
    seen = []

    def stop(progress):
        if progress.stage == "refine":
            seen.append(progress.step)
            raise Cancelled

    with pytest.raises(Cancelled):
        refine(textured(), reference(), make_prior(), SMALL, stop)
    assert seen == [0]  # already among the targets that are made before the first step


def test_the_command_refines_a_mesh_from_elsewhere(tmp_path, capsys):
    from PIL import Image

    trimesh.creation.box((1, 2, 1)).export(tmp_path / "box.glb")
    pixels = np.full((40, 40, 3), 255, np.uint8)
    pixels[8:32, 4:36] = (200, 30, 30)
    Image.fromarray(pixels).save(tmp_path / "ref.png")
    out = tmp_path / "out.glb"
    given = ["refine", str(tmp_path / "box.glb"), "--reference", str(tmp_path / "ref.png")]
    assert main([*given, "-o", str(out), "--steps", "2", "--texture", "64", "--prompt", "a red box"]) == 0
    scene = trimesh.load(out)
    assert sorted(np.round(scene.extents, 3)) == [1, 1, 2]
    assert main([*given, "-o", str(tmp_path / "out.txt")]) == 2
    assert main(["refine", str(tmp_path / "no.glb"), *given[2:], "-o", str(out)]) == 2
    assert main([*given, "-o", str(out), "--strength", "3"]) == 2
