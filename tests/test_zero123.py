"""Zero-1-to-3's poses and training, the text prior, and words for images on the embedded bundle."""

import json
import math
import shutil
from types import SimpleNamespace

import numpy as np
import open_clip
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from iso3d_core.cameras import even_azimuths, orbit, unit_sphere_matrix
from iso3d_core.checkpoints.layouts import CLIP_MEAN, CLIP_STD
from iso3d_core.priors.attention import guess_views
from iso3d_core.priors.depth import DepthPrior
from iso3d_core.priors.sketch import CHANNELS
from iso3d_core.priors.text import TextPrior
from iso3d_core.priors.words import ClipPair
from iso3d_core.priors.zero123 import Zero123Prior, project_pose, relative_pose
from iso3d_core.train.data import TARGETS, on_white
from iso3d_core.train.diffusion import SCHEDULE, TINY_SCHEDULE
from iso3d_core.train.evaluate import reference_of
from iso3d_core.train.world import held_out, make_object, reference_camera
from iso3d_core.train.zero123 import FINER, TINY, PoseSet, Zero123Training, strengthen_pose
from iso3d_core.types import InputError
from iso3d_core.weights import EMBEDDED, Bundle

SMALL = {**TINY, "block_out_channels": (16, 16), "attention_head_dim": (2, 2), "cross_attention_dim": 16}


def test_the_pose_is_relative_to_the_reference():
    cameras = orbit(torch.tensor([0.0, 90.0, 200.0]), torch.tensor([30.0, 30.0, -10.0]), torch.tensor([2.0, 2.0, 3.0]))
    pose = relative_pose(cameras, 30.0, 2.0)
    expected = [
        [0, 0, 1, 0],
        [0, 1, 0, 0],
        [math.radians(40), math.sin(math.radians(200)), math.cos(math.radians(200)), 1],  # lower: a larger polar angle
    ]
    torch.testing.assert_close(pose, torch.tensor(expected), atol=1e-6, rtol=1e-5)
    assert relative_pose(cameras, 30.0)[:, 3].tolist() == [0, 0, 0]


def test_the_token_is_the_projection_of_embedding_and_pose():
    projection = nn.Linear(7, 5)
    embedding, pose = torch.randn(1, 1, 3), torch.randn(2, 4)
    token = project_pose(projection, embedding, pose)
    assert token.shape == (2, 1, 5)
    torch.testing.assert_close(token[1, 0], projection(torch.cat([embedding[0, 0], pose[1]])))


def test_a_batch_pairs_a_reference_with_a_view_and_their_pose():
    rng = np.random.default_rng(0)
    objects = 3
    views = SimpleNamespace(azimuth=rng.uniform(0, 360, (objects, 16)), elevation=rng.uniform(-10, 40, (objects, 16)))
    number = torch.arange(objects * 16).reshape(objects, 16).float()
    latents = number[..., None, None, None].expand(-1, -1, 8, 4, 4)
    embeddings = number[:, TARGETS:, None].expand(-1, -1, 6)
    data = PoseSet(views, latents[:, :TARGETS], latents[:, TARGETS:], embeddings, scale=2.0)
    batch = data.batch(np.random.default_rng(1), 8)
    for i in range(8):
        target, reference = int(batch["latents"][i, 0, 0, 0]), int(batch["embedding"][i, 0, 0])
        item, t, r = target // 16, target % 16, reference % 16
        assert reference // 16 == item
        assert t < TARGETS <= r
        assert float(batch["reference"][i, 0, 0, 0]) == reference / 2  # unscaled
        turn = math.radians(views.azimuth[item, t] - views.azimuth[item, r])
        lower = math.radians(views.elevation[item, r] - views.elevation[item, t])
        expected = torch.tensor([lower, math.sin(turn), math.cos(turn), 0])
        torch.testing.assert_close(batch["pose"][i].double(), expected.double(), atol=1e-4, rtol=1e-4)
        seen = orbit(math.degrees(turn), float(views.elevation[item, t]))  # the reference is at azimuth 0
        torch.testing.assert_close(batch["camera"][i], unit_sphere_matrix(seen), atol=1e-4, rtol=1e-4)


def test_its_training_has_a_finite_loss_and_trains_everything():
    torch.manual_seed(0)
    model = Zero123Training(SMALL, 128, {**SCHEDULE, **TINY_SCHEDULE})
    batch = {
        "latents": torch.randn(4, 8, 16, 16), "reference": torch.randn(4, 8, 16, 16),
        "embedding": torch.randn(4, 1, 128), "pose": torch.randn(4, 4),
        "camera": unit_sphere_matrix(orbit(even_azimuths(4), 10.0))[:, None],
    }  # fmt: skip
    loss = model(batch)["loss"]
    assert math.isfinite(loss.item())
    loss.backward()
    for name, parameter in model.named_parameters():
        if name.startswith("unet.sketch."):
            assert parameter.grad is None  # it stays as it is
            continue
        # Of a single token nothing is asked and no key compared.
        unused = ".attn2.to_q" in name or ".attn2.to_k" in name
        assert parameter.grad is not None, name
        assert unused or float(parameter.grad.abs().max()) > 0, name


def test_the_guess_beside_the_latents_is_the_sketch_of_the_view():
    torch.manual_seed(0)
    model = Zero123Training(SMALL, 128, {**SCHEDULE, **TINY_SCHEDULE})
    embedding, cameras = torch.randn(2, 1, 128), unit_sphere_matrix(orbit(torch.tensor([20.0, 80.0]), 10.0))
    guess = guess_views(model.unet, embedding, cameras[:, None], latents=2)
    assert guess.shape == (2, 1, CHANNELS * FINER**2, 16, 16)
    shown = model.unet.sketch(embedding, cameras[:, None], 32)
    torch.testing.assert_close(torch.nn.functional.pixel_shuffle(guess, FINER), shown)
    plain = Zero123Training({**SMALL, "in_channels": 16}, 128, {**SCHEDULE, **TINY_SCHEDULE})  # the papers' layout
    assert guess_views(plain.unet, embedding, cameras[:, None], latents=2) is None


def test_the_pose_weighs_as_much_as_the_embedding():
    torch.manual_seed(0)
    projection = nn.Linear(256 + 4, 64).requires_grad_(False)
    strengthen_pose(projection)
    embedding = torch.nn.functional.normalize(torch.randn(200, 256), dim=-1) * 16
    pose = relative_pose(orbit(torch.rand(200) * 360, torch.rand(200) * 40), 10.0)
    shares = [(x @ w.T).std() for x, w in ((embedding, projection.weight[:, :-4]), (pose, projection.weight[:, -4:]))]
    assert 0.25 < float(shares[1] / shares[0]) < 4


def test_the_embedded_priors_views_turn_with_the_pose():
    """Each of a plane's four views is nearer to its own true view than to the one a quarter turn on."""
    obj, prior = held_out(18)[15], Zero123Prior.load("tiny")
    cameras = orbit(even_azimuths(4), 15.0)
    views = prior.sample(prior.see(reference_of(obj), reference_camera(obj.seed)[0]), cameras, 12).cpu()
    truth = torch.from_numpy(on_white(obj.render_rgba(cameras, 64))).permute(0, 3, 1, 2)
    own, other = ((views - shown).square().mean() for shown in (truth, truth.roll(1, 0)))
    assert obj.kind == "plane"
    assert float(own) < 0.9 * float(other)


# ---- the text prior of the embedded bundle ---------------------------------------------------------


@pytest.fixture(scope="module")
def text_prior():
    return TextPrior.load("tiny", "cpu", "float32")


def test_the_text_prior_is_the_depth_network_without_depth(text_prior):
    depth = DepthPrior.load("tiny", "cpu", "float32")
    z = torch.randn(2, 8, 16, 16, generator=torch.Generator().manual_seed(0))
    prompts = ["a red mug seen from the front", "a red mug seen from the back"]
    found = text_prior.predict_noise(z, 500, text_prior.condition(prompts), 4.0)
    for i, prompt in enumerate(prompts):
        condition = depth.condition(torch.ones(1, 1, 64, 64), ["", prompt])
        condition.depth.zero_()
        torch.testing.assert_close(found[i : i + 1], depth.predict_noise(z[i : i + 1], 500, condition, 4.0))
    plain = text_prior.predict_noise(z, 500, text_prior.condition(prompts), 1.0)
    assert not torch.allclose(plain, found, atol=1e-3)


def test_a_bundle_without_a_text_prior_says_so(tmp_path):
    (tmp_path / "bundle.json").write_text('{"name": "bare", "format": 1}')
    for load in (TextPrior.load, DepthPrior.load):
        with pytest.raises(InputError, match=r"bundle 'bare' has no .* prior; use the embedded bundle tiny"):
            load(Bundle(tmp_path))


# ---- words -----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def pair():
    return ClipPair.load("tiny")


def test_texts_and_images_of_the_same_thing_are_alike(pair):
    objects = [make_object(2_000_000 + i, kind) for i, kind in enumerate(("mug", "rocket", "tree", "house"))]
    images = pair.embed_images(torch.stack([reference_of(obj).on_white() for obj in objects]))
    texts = pair.embed_texts([obj.caption(0.0, 10.0) for obj in objects])
    torch.testing.assert_close(images.norm(dim=1), torch.ones(4))
    assert (images @ texts.T).argmax(dim=1).tolist() == [0, 1, 2, 3]
    similarity = pair.similarity(reference_of(objects[0]).on_white()[None], objects[0].caption(0.0, 10.0))
    assert similarity == pytest.approx(float(images[0] @ texts[0]), abs=1e-5)


def test_a_description_names_kind_parts_and_direction(pair):
    right = 0
    for obj in held_out(18):
        found = pair.describe(reference_of(obj))
        right += found.text.startswith(f"a {obj.kind} with")
        assert found.captions
        assert found.front_deg in range(0, 360, 45)
    assert right >= 12  # of 18 kinds among seventy


def test_a_description_names_the_direction_of_what_has_a_front(pair):
    off = []
    for seed, kind in enumerate(("car", "plane", "truck", "bus", "boat", "duck") * 4):
        obj = make_object(3_000_000 + seed, kind)
        front = pair.describe(reference_of(obj)).front_deg
        off.append(abs((front + obj.turn_deg + 180) % 360 - 180))  # the reference stands at azimuth 0
    assert sum(degrees < 50 for degrees in off) >= 16  # 9 by chance


def test_without_a_probe_the_texts_alone_describe(pair, monkeypatch):
    obj = held_out(5)[4]
    monkeypatch.setattr(pair, "probe", None)
    found = pair.describe(reference_of(obj))
    kind = found.text.removeprefix("a ").split(" with ")[0]
    assert kind in pair.words["kinds"]
    assert all(any(part.endswith(name) for part in found.text.split(", ")) for name in pair.words["kinds"][kind])


def images_alone(folder):
    """A bundle whose CLIP is the embedded one's image tower."""
    shutil.copytree(EMBEDDED / "tiny" / "clip", folder / "clip")
    (folder / "bundle.json").write_text('{"name": "images", "format": 1}')
    file = folder / "clip" / "open_clip_model.safetensors"
    save_file({name: value for name, value in load_file(file).items() if name.startswith("visual.")}, file)
    return folder


def test_a_clip_without_a_text_tower_says_where_to_get_one(tmp_path, monkeypatch):
    monkeypatch.setenv("ISO3D_HOME", str(tmp_path / "none"))
    with pytest.raises(InputError, match="no text tower; `iso3d models pull clip`"):
        ClipPair.load(images_alone(tmp_path))


def test_the_other_half_of_a_clip_is_taken_where_it_is_as_wide(pair, tmp_path, monkeypatch):
    monkeypatch.setenv("ISO3D_HOME", str(tmp_path / "home"))
    folder = images_alone(tmp_path / "bundle")
    other = tmp_path / "home" / "sd-text"
    shutil.copytree(EMBEDDED / "tiny" / "clip", other / "text")
    (other / "bundle.json").write_text('{"name": "sd-text", "format": 1}')
    found = ClipPair.load(folder)
    assert found.words is None
    torch.testing.assert_close(found.embed_texts(["a red mug"]), pair.embed_texts(["a red mug"]))
    config = other / "text" / "open_clip_config.json"
    stored = json.loads(config.read_text())
    stored["model_cfg"]["embed_dim"] = 128
    config.write_text(json.dumps(stored))
    with pytest.raises(InputError, match="pull clip"):
        ClipPair.load(folder)


def test_a_whole_clip_as_open_clip_publishes_it_stands_in(tmp_path, monkeypatch):
    """Files of another tool: no size of the image, no vocabulary; images are smoothed and resized as CLIP's own are."""
    from open_clip.push_to_hf_hub import save_config_for_hf
    from torchvision.transforms import functional as T

    monkeypatch.setenv("ISO3D_HOME", str(tmp_path / "home"))
    folder = tmp_path / "home" / "clip" / "clip"
    folder.mkdir(parents=True)
    (folder.parent / "bundle.json").write_text('{"name": "clip", "format": 1}')
    config = {
        "embed_dim": 16, "quick_gelu": True,
        "vision_cfg": {"image_size": 28, "patch_size": 14, "width": 32, "layers": 1, "head_width": 16},
        "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1},
    }  # fmt: skip
    torch.manual_seed(0)
    clip = open_clip.model.CLIP(**config).eval()
    save_file(
        {name: value.clone() for name, value in clip.state_dict().items()}, folder / "open_clip_model.safetensors"
    )
    clip.visual.image_mean, clip.visual.image_std = CLIP_MEAN, CLIP_STD
    save_config_for_hf(clip, folder / "open_clip_config.json", model_config=config)
    pair = ClipPair.load(images_alone(tmp_path / "bundle"))
    rgb, text = torch.rand(2, 3, 64, 64), ["a photo of a red mug"]
    with torch.no_grad():
        smooth = T.resize(rgb, [28, 28], T.InterpolationMode.BICUBIC, antialias=True).clamp(0, 1)
        images = clip.encode_image(T.normalize(smooth, CLIP_MEAN, CLIP_STD), normalize=True)
        words = clip.encode_text(open_clip.get_tokenizer("ViT-B-16")(text), normalize=True)
    torch.testing.assert_close(pair.embed_images(rgb), images, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(pair.embed_texts(text), words, atol=1e-5, rtol=1e-5)
