"""Depth of photographs: a small estimator with random weights in the place of the downloaded one."""

import json

import pytest
import torch

from iso3d_core.priors.photo_depth import GREY, _load, estimate_depth
from iso3d_core.types import InputError, Reference


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("ISO3D_HOME", str(tmp_path))
    _load.cache_clear()
    return tmp_path / "depth-anything" / "depth_anything"


def reference():
    rgba = torch.rand(4, 48, 40, generator=torch.Generator().manual_seed(0))
    rgba[3] = 0
    rgba[3, 8:40, 6:30] = 1
    return Reference(rgba)


def test_without_weights_there_is_no_depth(home):
    assert estimate_depth(reference()) is None


def test_the_estimator_sees_the_object_on_grey(home):
    transformers = pytest.importorskip("transformers", reason="transformers is not installed")
    torch.manual_seed(0)
    backbone = transformers.Dinov2Config(
        hidden_size=16, num_hidden_layers=2, num_attention_heads=2, image_size=28, patch_size=14,
        out_features=["stage1", "stage2"], reshape_hidden_states=False,
    )  # fmt: skip
    config = transformers.DepthAnythingConfig(
        backbone_config=backbone, reassemble_hidden_size=16, patch_size=14, reassemble_factors=[2, 1],
        neck_hidden_sizes=[8, 8], fusion_hidden_size=8, head_hidden_size=8,
    )  # fmt: skip
    model = transformers.DepthAnythingForDepthEstimation(config).eval()
    with torch.no_grad():
        for name, value in model.named_parameters():
            if "neck" in name or "head" in name:
                value.normal_(0, 0.3)
    model.save_pretrained(home)
    settings = {
        "image_processor_type": "DPTImageProcessor", "do_resize": True, "size": {"height": 28, "width": 28},
        "do_normalize": True, "image_mean": [0.5] * 3, "image_std": [0.5] * 3, "do_rescale": True, "do_pad": False,
        "keep_aspect_ratio": False, "ensure_multiple_of": 14, "resample": 3,
    }  # fmt: skip
    (home / "preprocessor_config.json").write_text(json.dumps(settings))
    own = reference()
    near = estimate_depth(own)
    solid = own.rgba[3:][None] > 0.5
    assert near.shape == (1, 1, 48, 40)
    assert near[~solid].max() == 0
    assert near[solid].min() == pytest.approx(0.1, abs=1e-6)
    assert near.max() == pytest.approx(1)
    # What is behind the object is not looked at: it is replaced by grey.
    other = own.rgba.clone()
    other[:3] = torch.where(other[3:] > 0.5, other[:3], torch.tensor(GREY)[:, None, None])
    torch.testing.assert_close(estimate_depth(Reference(other)), near)


def test_damaged_weights_are_named(home):
    pytest.importorskip("transformers", reason="transformers is not installed")
    home.mkdir(parents=True)
    (home / "config.json").write_text("{}")
    with pytest.raises(InputError, match="models pull depth-anything"):
        estimate_depth(reference())
