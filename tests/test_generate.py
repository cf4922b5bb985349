"""The main job on the embedded bundle, in a preset short enough for a test."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import trimesh

from iso3d_core import Cancelled, InputError, Reference, generate, load_reference
from iso3d_core.cameras import even_azimuths, orbit
from iso3d_core.config import MeshConfig
from iso3d_core.mesh.placing import fit_into_ball
from iso3d_core.methods.isotropic3d import optimise, sample_sheets, visual_hull
from iso3d_core.pipeline import UnfamiliarImage, configure, reference_size, size_for
from iso3d_core.presets import PRESETS, customise, preset, with_method
from iso3d_core.priors.base import not_white
from iso3d_core.priors.multiview import MultiViewPrior
from iso3d_core.render.raster import render_mesh
from iso3d_core.schedules import milestone
from iso3d_core.types import stage_shares
from iso3d_core.weights import find_bundle

EXAMPLES = Path(__file__).parent.parent / "examples"


def short(name="default", seed=0):
    """A preset's shape with a few steps of each stage."""
    config = preset(name, seed=seed)
    warm = config.warm_start and replace(config.warm_start, sheets=1, sampling_steps=4, steps=12, rays=1024)
    mesh = MeshConfig(resolution=32, threshold=1.0, faces=800, texture=64)
    return replace(config, warm_start=warm, stage=replace(config.stage, steps=3), mesh=mesh)


@pytest.fixture(scope="module")
def prior():
    return MultiViewPrior.load("tiny", "cpu")


@pytest.fixture(scope="module")
def reference():
    return load_reference(EXAMPLES / "rocket.png")


def test_the_embedded_bundle_is_intact_and_small():
    bundle = find_bundle("tiny")
    assert bundle.broken_files() == []
    assert bundle.parts == ["cc_projection", "clip", "depth", "multiview", "sketch", "text", "vae", "words", "zero123"]
    assert bundle.size_bytes < 45e6
    core = ("clip", "vae", "multiview", "sketch")
    assert sum(p.stat().st_size for part in core for p in bundle.part(part).iterdir()) < 25e6


def test_every_example_is_an_image_the_loader_takes():
    names = sorted(p.name for p in EXAMPLES.glob("*.png"))
    assert "rocket.png" in names
    for name in names:
        assert load_reference(EXAMPLES / name).rgba.shape == (4, 256, 256)


def test_a_bundle_of_another_name_gets_the_presets_of_its_family(tmp_path, monkeypatch):
    monkeypatch.setenv("ISO3D_HOME", str(tmp_path))
    for name, family in (("mine", "tiny"), ("large", "isotropic3d")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "bundle.json").write_text(json.dumps({"name": name, "family": family}))
        expected = replace(preset("fast", family, 3), bundle=name)
        assert configure("fast", name, 3) == expected
        assert configure("fast", str(tmp_path / name), 3) == replace(expected, bundle=str(tmp_path / name))
    with pytest.raises(InputError, match="no bundle 'none' here"):
        configure("fast", "none")


@pytest.mark.parametrize("name", list(PRESETS["tiny"]))
def test_each_preset_gives_a_closed_textured_mesh(prior, reference, name, tmp_path):
    stages = []
    mesh = generate(reference, short(name), lambda p: stages.append(p.stage), prior)
    assert mesh.texture is not None
    assert mesh.texture.shape == (64, 64, 3)
    assert mesh.metadata["preset"] == name
    assert mesh.metadata["bundle"] == "tiny"
    path = mesh.save(tmp_path / "rocket.glb")
    loaded = trimesh.load(path, force="mesh", process=False)
    welded = trimesh.Trimesh(loaded.vertices, loaded.faces, process=True)
    assert welded.is_watertight
    assert welded.volume > 0
    assert np.abs(loaded.vertices).max() <= 1.0 + 1e-6
    expected = ["mesh", "done"] if name == "fast" else ["optimise", "mesh", "done"]
    assert [s for i, s in enumerate(stages) if s not in stages[:i]][-len(expected) :] == expected


def test_the_same_seed_gives_the_same_bytes_and_another_seed_others(prior, reference, tmp_path):
    files = [
        generate(reference, short(seed=seed), prior=prior).save(tmp_path / f"{i}.glb").read_bytes()
        for i, seed in enumerate((5, 5, 6))
    ]
    assert files[0] == files[1]
    assert files[0] != files[2]


@pytest.mark.parametrize("stop_at", [("warm start", 7), ("optimise", 2)])
def test_stopped_anywhere_it_resumes_to_the_same_bytes(prior, reference, tmp_path, stop_at):
    config = short(seed=1)
    whole = generate(reference, config, prior=prior).save(tmp_path / "whole.glb").read_bytes()

    def stop(progress):
        if (progress.stage, progress.step) == stop_at:
            raise Cancelled

    with pytest.raises(Cancelled):
        generate(reference, config, stop, prior, tmp_path / "state")
    mesh = generate(reference, config, None, prior, tmp_path / "state", resume=True)
    assert mesh.save(tmp_path / "resumed.glb").read_bytes() == whole


def test_previews_are_images(prior, reference):
    previews = {}

    def look(progress):
        if progress.preview is not None and progress.step == 2:
            previews[progress.stage] = progress.preview()

    generate(reference, short(), look, prior)
    assert set(previews) == {"views", "warm start", "optimise"}
    for image in previews.values():
        assert image.shape == (4, 3, 64, 64)
        assert 0 <= float(image.min()) <= float(image.max()) <= 1 + 1e-5


def test_noise_is_far_from_everything_trained_on_and_a_rocket_is_not(prior, reference, recwarn):
    generator = torch.Generator().manual_seed(0)
    noise = Reference(torch.cat([torch.rand(3, 256, 256, generator=generator), torch.ones(1, 256, 256)]), "noise")
    with pytest.warns(UnfamiliarImage, match="noise: this image is unlike everything"):
        mesh = generate(noise, short("fast"), prior=prior)
    assert len(mesh.metadata["warnings"]) == 1
    assert generate(reference, short("fast"), prior=prior).metadata["warnings"] == []


def test_an_unknown_method_is_refused(reference, prior):
    with pytest.raises(InputError, match="unknown method 'magic'; use one of isotropic3d"):
        generate(reference, replace(short(), method="magic"), prior=prior)


def test_the_visual_hull_of_a_ball_is_the_ball_grown_by_the_margin():
    cameras = orbit(even_azimuths(12), 10.0)
    # A ball of radius r is seen by a camera at distance d under the angle asin(r / d).
    size, radius, distance = 64, 0.6, 3.4
    half = np.tan(np.deg2rad(35 / 2))
    seen = np.tan(np.arcsin(radius / distance)) / half * size / 2  # pixels
    y, x = np.mgrid[:size, :size] + 0.5 - size / 2
    views = torch.ones(12, 3, size, size)
    views[:, :, torch.from_numpy(np.hypot(x, y) < seen)] = 0.2
    grid = torch.rand(20_000, 3, generator=torch.Generator().manual_seed(0)) * 2 - 1
    inside = visual_hull(grid, cameras, not_white(views), votes=1.0)
    from_center = grid.norm(dim=1)
    assert bool(inside[from_center < radius].all())
    around = grid[:, 2].abs() < 0.3  # the views go around the equator: above and below, the hull is larger
    assert not bool(inside[around & (from_center > radius + 0.2)].any())


def test_customised_steps_stretch_the_ramps():
    plain = preset("paper")
    half = customise(plain, steps=plain.stage.steps // 2, guidance=7.0, resolution=48)
    for name in ("t_min", "t_max"):
        long, short_ramp = getattr(plain.stage, name), getattr(half.stage, name)
        assert short_ramp(30) == pytest.approx(long(60))
        assert short_ramp(half.stage.steps) == long(plain.stage.steps)
    assert half.stage.guidance_scale == 7.0
    assert half.stage.resolution == ((0, 48),)
    assert customise(plain) == plain
    cold = customise(preset("default"), warm_start=False)
    assert cold.warm_start is None
    assert cold.field == plain.field  # whose inside is solid without one
    assert cold.field.blob_bias > preset("default").field.blob_bias
    assert cold.mesh == plain.mesh
    assert customise(cold, warm_start=False) == cold
    assert customise(preset("fast"), steps=10, warm_start=False).stage.steps == 10
    with pytest.raises(InputError, match="give it SDS steps"):
        customise(preset("fast"), warm_start=False)
    assert customise(with_method(preset("fast"), "zero123"), warm_start=False).warm_start is None  # it has other steps


def test_references_are_as_large_as_the_networks_can_use(tmp_path):
    for name, size in (("small", 64), ("large", 512)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "bundle.json").write_text(json.dumps({"name": name, "format": 1, "image_size": size}))
    small, large = find_bundle(tmp_path / "small"), find_bundle(tmp_path / "large")
    assert reference_size(small) == 256
    assert reference_size(small, large) == 512
    assert size_for(guided("hifi123")) == 256  # the embedded bundle refines by itself


def test_shorter_presets_of_the_published_weights_go_their_whole_way():
    presets = PRESETS["isotropic3d"]
    whole = presets["paper"]
    assert [presets[name].stage.steps for name in ("fast", "default", "quality")] == [2000, 5000, 10_000]
    for config in presets.values():
        stage, last = config.stage, config.stage.steps - 1
        assert milestone(stage.resolution, last) == 256
        assert (milestone(stage.groups, 0), milestone(stage.groups, last)) == (2, 1)
        assert stage.t_max(stage.steps) == whole.stage.t_max(10_000)
        assert stage.t_min(stage.steps) == whole.stage.t_min(10_000)
        guided = config.guided
        assert guided.steps / guided.judge_every == whole.guided.steps / whole.guided.judge_every
        assert guided.steps / config.refine_steps == whole.guided.steps / whole.refine_steps
    assert customise(whole, steps=2000).stage == presets["fast"].stage
    assert (whole.guided.resolution, whole.guided.reference_resolution) == (128, 256)
    assert customise(whole, resolution=96).guided.resolution is None  # the stage's, which is 96 then


def test_guided_methods_of_the_embedded_bundle_see_views_as_its_networks_do():
    for config in PRESETS["tiny"].values():
        for side in (config.guided.resolution, config.guided.reference_resolution):
            assert (side or config.stage.resolution[0][1]) == 64  # pure SDS alone begins smaller
        assert milestone(config.stage.resolution, config.stage.steps) == 64


def test_a_scene_to_start_from_is_gone_on_with_and_not_changed(prior, reference):
    embedding, config, stages = prior.embed(reference), short(), []
    first = optimise(prior, embedding, config)
    before = {name: value.clone() for name, value in first.state_dict().items()}
    second = optimise(prior, embedding, config, lambda p: stages.append(p.stage), start=first)
    assert set(stages) == {"optimise"}
    assert all(torch.equal(value, before[name]) for name, value in first.state_dict().items())
    change = (second.field.table - first.field.table).detach().abs().max()
    assert 0 < float(change) < float(first.field.table.detach().abs().max())
    assert first.field.tint is not None
    assert second.field.tint is not None  # of its own colors
    assert not torch.equal(first.field.tint, second.field.tint)


def test_colors_are_drawn_to_the_sketch_only_after_views_of_the_prior_s_own(prior, reference):
    embedding, config = prior.embed(reference), short()
    views = sample_sheets(prior, embedding, config.warm_start, 0)
    given = optimise(prior, embedding, config, given=views)
    assert given.field.tint is None
    assert optimise(prior, embedding, config, start=given).field.tint is None
    assert optimise(prior, embedding, replace(config, warm_start=None)).field.tint is None
    untinted = replace(config, warm_start=replace(config.warm_start, tint=0.0))
    assert optimise(prior, embedding, untinted).field.tint is None


def guided(method, **settings):
    """A preset cut down, for a method that holds on to the image."""
    config = with_method(short(), method)
    settings = {"steps": 8, "judge_every": 1, "window": 2, "mesh_steps": 0, **settings}
    return replace(config, guided=replace(config.guided, **settings))


def test_hifi123_says_at_once_that_the_depth_prior_is_missing(reference, tmp_path, monkeypatch):
    monkeypatch.setenv("ISO3D_HOME", str(tmp_path / "home"))
    embedded = find_bundle("tiny").folder
    (tmp_path / "mine").mkdir()
    for part in embedded.iterdir():
        if part.name != "depth":
            (tmp_path / "mine" / part.name).symlink_to(part)
    config = replace(guided("hifi123"), bundle=str(tmp_path / "mine"))
    stages = []
    with pytest.raises(InputError, match="no bundle 'sd-depth' here"):
        generate(reference, config, lambda p: stages.append(p.stage))
    assert stages == []


def test_hifi123_carries_the_texture_to_a_mesh_that_stays(reference, prior):
    """The same surface, another texture, nearer to the reference where the reference shows it."""
    config = guided("hifi123")
    seen = []
    plain = generate(reference, replace(config, refine_steps=0), prior=prior)
    refined = generate(reference, replace(config, refine_steps=8), lambda p: seen.append(p.stage), prior)
    assert np.array_equal(plain.vertices, refined.vertices)
    assert np.array_equal(plain.uvs, refined.uvs)
    assert not np.array_equal(plain.texture, refined.texture)
    assert list(dict.fromkeys(seen)) == ["views", "warm start", "guided", "mesh", "start", "refine", "done"]
    assert set(seen) <= {*stage_shares("hifi123"), "done"}
    target = torch.nn.functional.interpolate(reference.on_white()[None], (64, 64), mode="area")

    def error(mesh):
        view = render_mesh(fit_into_ball(mesh), orbit(0.0, 0.0, 3.4, 35.0), 64)[:, :3]
        return float((view - target).abs().mean())

    assert error(refined) < error(plain)


def test_consistent123_goes_from_shape_to_texture_to_mesh(reference, prior, tmp_path):
    config, seen = guided("consistent123", mesh_steps=6, mesh_grid=24, mesh_resolution=64), []
    mesh = generate(reference, config, lambda p: seen.append(p.stage), prior, tmp_path / "state")
    stages = ["views", "warm start", "guided", "mesh color", "mesh stage", "mesh", "done"]
    assert list(dict.fromkeys(seen)) == stages
    assert set(seen) <= {*stage_shares("consistent123"), "done"}
    assert "rocket with" in mesh.metadata["prompt"]
    found = mesh.metadata["boundary"]
    assert found["earliest"] <= found["switched_at"] <= found["latest"]
    assert len(found["similarity"]) == len(found["steps"]) == found["switched_at"] + 1
    assert trimesh.Trimesh(mesh.vertices, mesh.faces, process=True, merge_tex=True, merge_norm=True).is_watertight
    other = generate(reference, replace(config, prompt="a red mug"), None, prior, tmp_path / "other")
    assert other.metadata["prompt"] == "a red mug"
    assert not np.array_equal(other.texture, mesh.texture)


@pytest.mark.parametrize("stage", ["guided", "mesh stage"])
def test_a_guided_method_resumes_to_the_same_bytes(reference, prior, tmp_path, stage):
    config = guided("consistent123", mesh_steps=6, mesh_grid=24, mesh_resolution=64)
    whole = generate(reference, config, prior=prior).save(tmp_path / "whole.glb").read_bytes()

    def stop(progress):
        if (progress.stage, progress.step) == (stage, 5):
            raise Cancelled

    with pytest.raises(Cancelled):
        generate(reference, config, stop, prior, tmp_path / "state")
    mesh = generate(reference, config, None, prior, tmp_path / "state", resume=True)
    assert mesh.save(tmp_path / "resumed.glb").read_bytes() == whole


@pytest.mark.parametrize("method", ["zero123", "magic123", "realfusion-sds"])
def test_the_baselines_make_meshes(reference, prior, method):
    mesh = generate(reference, guided(method), prior=prior)
    assert mesh.metadata["boundary"] == {}
    assert ("rocket" in mesh.metadata["prompt"]) == (method != "zero123")
    assert len(mesh.faces) > 100


def test_a_method_with_weights_of_its_own_is_not_made_by_name_alone():
    with pytest.raises(InputError, match=r"use presets\.with_method"):
        replace(preset("fast"), method="magic123")


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"core": 4.0}, "core must be denser than the threshold 4"),
        ({"gap": -1}, "gap must not be negative"),
        ({"resolution": 8}, "resolution must be 16 to 512"),
    ],
)
def test_impossible_meshes_are_refused(settings, said):
    with pytest.raises(InputError, match=said):
        MeshConfig(threshold=4.0, **{"resolution": 32, **settings})
