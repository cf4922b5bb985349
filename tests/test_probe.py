"""The linear probe of embeddings against the Gaussians that it stands for, and its labels."""

import pytest
import torch

from iso3d_core.priors.words import DIRECTIONS
from iso3d_core.train import probe
from iso3d_core.train.data import draw_poses
from iso3d_core.train.probe import fit_probe, labels_of
from iso3d_core.train.world import make_object

KINDS, EACH, D = 3, 400, 6


@pytest.fixture(scope="module")
def examples():
    """Embeddings [N, D] of Gaussian classes with one covariance, their kinds and directions [N], and the means."""
    generator = torch.Generator().manual_seed(0)
    means = torch.randn(KINDS * len(DIRECTIONS), D, generator=generator)
    mixed = torch.randn(D, D, generator=generator) * 0.3
    label = torch.arange(len(means)).repeat_interleave(EACH)
    x = means[label] + torch.randn(len(label), D, generator=generator) @ mixed.T
    return x, label // len(DIRECTIONS), label % len(DIRECTIONS), means, mixed @ mixed.T


def test_the_logits_are_those_of_the_gaussians(examples):
    x, kind, facing, means, covariance = examples
    fitted = fit_probe(x, kind, facing, KINDS)
    logits = (x @ fitted["basis"].T @ fitted["weight"].flatten(0, 1).T + fitted["bias"].flatten()).log_softmax(dim=1)
    off = x[:, None] - means
    distance = torch.einsum("nki,ij,nkj->nk", off, torch.linalg.inv(covariance), off)
    wanted = (-distance / 2).log_softmax(dim=1)
    assert (logits.argmax(dim=1) == wanted.argmax(dim=1)).float().mean() > 0.97
    assert (logits.exp() - wanted.exp()).abs().mean() < 0.005


def test_where_the_embeddings_lie_does_not_matter_to_a_probe_of_few_combinations(examples, monkeypatch):
    monkeypatch.setattr(probe, "RANK", 3)
    x, kind, facing, *_ = examples

    def found(shift):
        fitted = fit_probe(x + shift, kind, facing, KINDS)
        logits = torch.einsum("kfr,nr->nkf", fitted["weight"], (x + shift) @ fitted["basis"].T) + fitted["bias"]
        return logits.flatten(1).softmax(dim=1)

    assert (found(torch.full((D,), 3.0)) - found(torch.zeros(D))).abs().max() < 1e-2


def test_a_direction_never_seen_is_unlikely_but_no_error(examples):
    x, kind, facing, *_ = examples
    seen = (kind != 1) | (facing != 2)
    fitted = fit_probe(x[seen], kind[seen], facing[seen], KINDS)
    logits = torch.einsum("kfr,nr->nkf", fitted["weight"], x @ fitted["basis"].T) + fitted["bias"]
    assert logits.isfinite().all()
    found = logits.flatten(1).argmax(dim=1)
    assert (found[~seen] != len(DIRECTIONS) + 2).float().mean() > 0.5


def test_labels_are_what_the_captions_name():
    kinds = ["ball", "stacked blocks", "mug", "car"]
    objects = [make_object(seed, kind) for seed, kind in enumerate(kinds)]
    poses = [draw_poses(obj.seed) for obj in objects]
    captions = [
        [obj.caption(*place) for place in zip(pose.azimuth, pose.elevation, strict=True)]
        for obj, pose in zip(objects, poses, strict=True)
    ]
    kind, facing = labels_of(captions, kinds)
    assert kind.tolist() == [[i] * len(captions[0]) for i in range(len(kinds))]
    for row, obj, pose in zip(facing, objects, poses, strict=True):
        turned = torch.from_numpy(pose.azimuth).float() - obj.turn_deg
        off = (turned - 45.0 * row + 180) % 360 - 180
        assert off.abs().max() <= 22.6
