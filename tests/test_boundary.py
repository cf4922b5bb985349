"""Consistent123's boundary judgement, the dynamic prior and the weights of every method."""

import math
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from PIL import Image

from iso3d_core import files
from iso3d_core.config import GuidedConfig
from iso3d_core.methods.consistent123 import make_boundary, prior_weights
from iso3d_core.presets import GUIDED, preset, with_method
from iso3d_core.schedules import ClipBoundary, DynamicPrior
from iso3d_core.types import InputError


def told(values, **settings):
    boundary = ClipBoundary(**{"earliest": 0, "latest": 10_000, "every": 20, "window": 3, **settings})
    for i, value in enumerate(values):
        if boundary.due(20 * i):
            boundary.update(20 * i, value)
    return boundary


def test_the_boundary_is_where_the_similarity_settles():
    rising = [0.2 * 1.1**i for i in range(6)]
    boundary = told([*rising, *[rising[-1]] * 10])
    # Three unchanged values in a row: the window has only zeros at the eighth value after the rise.
    assert boundary.switched_at == 20 * (len(rising) + 2)
    assert boundary.rate() == pytest.approx(0)
    assert len(boundary.steps) == len(rising) + 3  # nobody asks afterwards
    assert not boundary.due(10_000)


def test_a_falling_similarity_is_not_a_settled_one():
    assert told([0.5 * 0.9**i for i in range(12)]).switched_at is None  # the paper's formula would switch at once


def test_the_rate_is_the_mean_relative_change():
    boundary = told([1.0, 2.0, 3.0, 3.0], latest=10**9)
    assert boundary.rate() == pytest.approx((1 + 0.5 + 0) / 3)
    assert told([1.0, 2.0, 3.0]).rate() is None


def test_the_boundary_is_neither_too_early_nor_too_late():
    assert told([0.3] * 50, earliest=400).switched_at == 400
    rising = [0.1 * 1.2**i for i in range(50)]
    assert told(rising, latest=300).switched_at == 300
    assert ClipBoundary(0, 310, every=20).due(310)


def test_the_dynamic_prior_hands_over():
    for kind in ("exp", "linear", "log"):
        weights = [DynamicPrior(kind)(t, 100) for t in range(0, 101, 10)]
        assert weights[0] == (1.0, 0.0)
        assert all(a + b == pytest.approx(1) for a, b in weights)
        assert all(a[0] > b[0] for a, b in pairwise(weights))
    assert DynamicPrior("exp")(100, 100)[0] == pytest.approx(math.exp(-1))
    assert DynamicPrior("linear")(25, 100)[0] == pytest.approx(0.75)
    assert DynamicPrior("log")(50, 100)[0] == pytest.approx(math.log2(1.5))
    assert DynamicPrior("log")(100, 100)[0] == pytest.approx(0)
    with pytest.raises(ValueError, match="exp, linear or log"):
        DynamicPrior("cosine")


def test_weights_follow_the_boundary():
    guided = GuidedConfig(steps=100, boundary=(0.2, 0.6), mesh_steps=0)
    boundary = make_boundary(guided)
    weights = prior_weights(guided, boundary)
    assert (boundary.earliest, boundary.latest) == (20, 60)
    assert weights(50) == (1.0, 0.0)
    boundary.switched_at = 60
    assert weights(60) == (1.0, 0.0)
    assert weights(80)[0] == pytest.approx(math.exp(-0.5))  # of the 40 steps that are left, half
    with_mesh = prior_weights(replace(guided, mesh_steps=40), boundary)
    assert with_mesh(80)[0] == pytest.approx(math.exp(-0.25))  # T counts both stages
    fixed = replace(guided, weights=(0.3, 0.7))
    assert make_boundary(fixed) is None
    assert prior_weights(fixed, None)(99) == (0.3, 0.7)


def test_every_method_has_its_weights():
    config = preset("fast")
    assert with_method(config, "consistent123").guided.weights is None
    found = {name: with_method(config, name).guided.weights for name in GUIDED if name != "consistent123"}
    assert found == {"hifi123": (1, 1), "zero123": (1, 0), "magic123": (1, 1), "realfusion-sds": (0, 1)}
    assert with_method(config, "magic123", "a red mug").prompt == "a red mug"
    with pytest.raises(InputError, match="unknown method 'zero'"):
        with_method(config, "zero")
    with pytest.raises(InputError, match="rising fractions"):
        GuidedConfig(boundary=(0.5, 0.2))


def test_the_curve_is_drawn(tmp_path):
    boundary = told([0.2, 0.3, 0.35, 0.36, 0.36, 0.36, 0.36, 0.36])
    path = tmp_path / "rocket.boundary.png"
    files.write_boundary({name: getattr(boundary, name) for name in ("steps", "similarity", "switched_at")}, path)
    pixels = np.asarray(Image.open(path).convert("RGB")).astype(int)
    assert pixels.shape == (360, 640, 3)
    blue = (pixels[..., 2] > 150) & (pixels[..., 0] < 80)
    red = (pixels[..., 0] > 150) & (pixels[..., 2] < 80)
    assert blue[:, 60].any()
    assert blue[30:33].any()  # the curve ends at the top
    assert red.any(axis=0).argmax() > 320  # and the switch is in the later half
