"""The methods with two priors from the image on, on the embedded bundle: what they start from."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from iso3d_core.cameras import Cameras
from iso3d_core.images import load_reference
from iso3d_core.methods import guides
from iso3d_core.methods.isotropic3d import sheet_cameras
from iso3d_core.pipeline import configure
from iso3d_core.presets import with_method
from iso3d_core.priors.multiview import MultiViewPrior

ROCKET = Path(__file__).resolve().parent.parent / "examples" / "rocket.png"


@pytest.fixture(scope="module")
def prior():
    return MultiViewPrior.load("tiny")


def short(method):
    config = with_method(configure("fast"), method)
    warm = replace(config.warm_start, sheets=1, sampling_steps=1, steps=2)
    return replace(config, warm_start=warm, guided=replace(config.guided, steps=1, mesh_steps=0))


def stages_of(prior, method="zero123", **begin):
    stages = []
    done, mesh, _ = guides.optimise(
        load_reference(ROCKET), short(method), prior, lambda progress: stages.append(progress.stage), **begin
    )
    assert mesh is None
    return list(dict.fromkeys(stages)), done.scene


def test_without_anything_given_the_3d_prior_samples_views(prior):
    stages, _ = stages_of(prior)
    assert stages == ["views", "warm start", "guided"]
    assert stages_of(prior, "realfusion-sds")[0] == ["guided"]  # it has no 3D prior to sample any


def test_the_start_knows_what_is_probably_solid(prior, monkeypatch):
    told = []

    def warm_start(_scene, _given, _config, _on_progress, _checkpoints, solid):
        told.append(solid)

    monkeypatch.setattr(guides.isotropic3d, "warm_start", warm_start)
    stages_of(prior)
    embedding = prior.embed(load_reference(ROCKET))
    assert torch.equal(told[0], prior.guess_solid(embedding))
    assert told[0].max() > 0.9
    assert told[0].min() < 0.1


def test_a_given_field_is_gone_on_with_and_stays_as_it_was(prior):
    _, first = stages_of(prior)
    before = {name: value.clone() for name, value in first.state_dict().items()}
    stages, second = stages_of(prior, start=first)
    assert stages == ["guided"]
    assert all(torch.equal(value, before[name]) for name, value in first.state_dict().items())
    assert not torch.equal(first.field.table, second.field.table)


@pytest.mark.parametrize("method", ["zero123", "realfusion-sds"])
def test_given_views_are_fitted_instead_of_sampled_ones(prior, method):
    cameras = Cameras.concatenate(sheet_cameras(prior, short(method).warm_start))
    red = torch.tensor([1.0, 0, 0])[None, :, None, None].expand(len(cameras), 3, 64, 64)
    stages, _ = stages_of(prior, method, given=(cameras, red, torch.ones(len(cameras), 1, 64, 64)))
    assert stages == ["warm start", "guided"]
