"""Pairs of views with depth and captions, and their training with injection."""

import json

import numpy as np
import torch
from safetensors.torch import load_file
from torch.nn import functional as F

from iso3d_core.options import TrainOptions
from iso3d_core.priors.clip import ClipText, WordTokenizer, make_clip
from iso3d_core.train import data, depth
from iso3d_core.train.data import FINER, REFERENCES, TARGETS, render_item
from iso3d_core.train.depth import TINY, DepthSet, DepthTraining, build, make_unet, render_depth
from iso3d_core.train.loop import load_tensors, save_tensors
from iso3d_core.train.run import make_schedule, run_depth
from iso3d_core.weights import find_bundle

VIEWS = TARGETS + REFERENCES


def text_tower():
    text = {"context_length": 4, "vocab_size": 40, "width": 96, "heads": 2, "layers": 1}
    vision = {"image_size": 16, "layers": 1, "width": 16, "head_width": 8, "patch_size": 8}
    clip = make_clip({"embed_dim": 16, "vision_cfg": vision, "text_cfg": text})
    return ClipText(clip, WordTokenizer([str(i) for i in range(36)], 4))


def test_depth_covers_what_the_images_show():
    targets, references, _ = render_item(5, 64)
    depth, captions = render_depth(5)
    assert depth.shape == (VIEWS, 32, 32)
    assert len(captions) == VIEWS
    alpha = torch.from_numpy(targets[..., 3]).float() / 255
    for i in range(TARGETS):
        solid = F.avg_pool2d(alpha[i][None], 2)[0] > 0.5
        assert (solid.numpy() == (depth[i] > 0)).mean() > 0.97
        assert depth[i].max() == 255
    for i in range(REFERENCES):
        shown = torch.from_numpy(255.0 - references[i].min(axis=-1))
        solid = F.avg_pool2d(shown[None], 2 * FINER)[0] > 100
        assert (solid.numpy() & (depth[TARGETS + i] == 0)).mean() < 0.03
        rows = np.flatnonzero((depth[TARGETS + i] > 60).any(axis=1))
        columns = np.flatnonzero((depth[TARGETS + i] > 60).any(axis=0))
        # Cropped as the image is: the longer side fills all but the margins.
        assert abs(max(rows[-1] - rows[0], columns[-1] - columns[0]) + 1 - 0.8 * 32) <= 2


def test_a_batch_holds_the_depth_and_caption_of_each_view():
    objects = 3
    numbers = torch.arange(objects * VIEWS).reshape(objects, VIEWS)
    latents = numbers[..., None, None, None].expand(-1, -1, 8, 16, 16).half()
    depth = np.broadcast_to(numbers[..., None, None].numpy() * 5, (objects, VIEWS, 32, 32)).astype(np.uint8)
    text = text_tower()
    captions = [[str((i * VIEWS + j) % 36) for j in range(VIEWS)] for i in range(objects)]
    data = DepthSet(latents, depth, captions, text)
    seen = {"none": 0, "flat": 0, "inject": 0, "words": 0}
    for step in range(20):
        batch = data.batch(np.random.default_rng(step), 4)
        assert batch["latents"].shape == (4, 2, 8, 16, 16)
        assert batch["text"].shape == (4, 2, 4, 96)
        seen["inject"] += batch["inject"]
        for pair in range(4):
            view = [int(x) for x in batch["latents"][pair, :, 0, 0, 0]]
            assert view[0] // VIEWS == view[1] // VIEWS
            assert view[1] % VIEWS < TARGETS
            for which in (0, 1):
                near = float(batch["depth"][pair, which, 0, 0, 0])
                expected = view[which] * 5 / 255 * 2 - 1
                if near == 0:
                    seen["none"] += 1
                elif abs(near - 1) < 1e-6 and view[which] > 0:
                    seen["flat"] += 1
                else:
                    assert abs(near - expected) < 1e-5
                empty = torch.allclose(batch["text"][pair, which], text([""])[0], atol=1e-5)
                own = text([captions[view[which] // VIEWS][view[which] % VIEWS]])[0]
                assert empty or torch.allclose(batch["text"][pair, which], own, atol=1e-5)
                seen["words"] += not empty
    assert 30 <= seen["none"] <= 65
    assert 15 <= seen["flat"] <= 60
    assert 4 <= seen["inject"] <= 16
    assert 75 <= seen["words"] <= 130


def test_it_goes_on_from_a_bundle_with_the_text_tower_that_the_bundle_s_has(tmp_path, monkeypatch):
    bundle = find_bundle("tiny")
    data.build(tmp_path / "data", 1, 64, workers=1)
    build(tmp_path / "depth_data", range(1), workers=1)
    latents = torch.zeros(1, VIEWS, 8, 16, 16)
    save_tensors({"targets": latents[:, :TARGETS], "references": latents[:, TARGETS:]}, tmp_path / "latents.pt")
    (tmp_path / "vae").mkdir()
    (tmp_path / "vae" / "report.json").write_text('{"scale": 1.0}')
    began = []

    def no_steps(_data, _config, _folder, model):
        began.append(model)
        return {"steps": 0}

    monkeypatch.setattr(depth, "train_depth", no_steps)
    run_depth(TrainOptions(work=tmp_path, start="tiny"))
    weights = load_file(bundle.part("depth") / "diffusion_pytorch_model.safetensors")
    own = began[0].unet.state_dict()
    assert own.keys() == weights.keys()
    assert all(torch.equal(own[name], value.float()) for name, value in weights.items())
    # No CLIP is in the work folder: another one's words would be others to these weights.
    text = load_file(bundle.part("text") / "open_clip_model.safetensors")
    kept = load_tensors(tmp_path / "depth" / "text.pt")
    assert all(torch.equal(kept[name], value.float()) for name, value in text.items())
    report = json.loads((tmp_path / "depth" / "report.json").read_text())
    assert report["started_from"][-1] == {"depth": bundle.info["provenance"]["training"]["depth"]["steps"]}


def test_injected_training_shows_the_second_image_the_first():
    torch.manual_seed(0)
    model = DepthTraining(make_unet({**TINY, "block_out_channels": (32, 32), "attention_head_dim": 2}), make_schedule())
    batch = {
        "latents": torch.randn(2, 2, 8, 16, 16), "depth": torch.rand(2, 2, 1, 16, 16),
        "text": torch.randn(2, 2, 4, 96), "inject": True,
    }  # fmt: skip

    def second(latents, inject):
        """What the network says of the second images."""
        said = []
        hook = model.unet.register_forward_hook(lambda *call: said.append(call[2].sample))
        torch.manual_seed(1)
        with torch.no_grad():
            model({**batch, "latents": latents, "inject": inject})
        hook.remove()
        return said[0][2:]

    other = batch["latents"].clone()
    other[:, 0] = torch.randn(2, 8, 16, 16)
    assert torch.allclose(second(batch["latents"], False), second(other, False), atol=1e-5)
    assert not torch.allclose(second(batch["latents"], True), second(other, True), atol=1e-4)
    loss = model(batch)["loss"]
    loss.backward()
    assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None)
    assert sum(p.grad is None for p in model.parameters()) == 0
