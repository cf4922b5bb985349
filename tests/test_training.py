import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from iso3d_core.cameras import orbit, unit_sphere_matrix
from iso3d_core.priors.clip import WordTokenizer, blend, image_tensor
from iso3d_core.priors.palette import SLOTS
from iso3d_core.priors.sketch import SOLID_AT
from iso3d_core.train.clip import (
    MEAN,
    STD,
    ClipTraining,
    ReferenceSet,
    solid_loss,
    thumbnail_all,
    vocabulary,
)
from iso3d_core.train.diffusion import LatentSet
from iso3d_core.train.occupancy import GRID, Solids, seen_from
from iso3d_core.train.vae import VaeTraining, encode_all, grid, reconstruction_loss, to_rgb
from iso3d_core.types import InputError, Reference


def random(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


# ---- words and images for CLIP -------------------------------------------------------------------


def test_words_round_trip():
    tokenizer = WordTokenizer(["red", "mug", "a"], 8)
    rows = tokenizer(["A red, RED mug!", "", "a blue mug"])
    assert rows.dtype == torch.int64
    assert rows.tolist() == [[1, 5, 3, 3, 4, 6, 0, 0], [1, 6, 0, 0, 0, 0, 0, 0], [1, 5, 2, 4, 6, 0, 0, 0]]
    assert tokenizer.vocab_size == 7
    names = {i: word for word, i in tokenizer.index.items()}
    assert [names[i] for i in rows[0].tolist() if i in names] == ["a", "red", "red", "mug"]


def test_long_texts_are_cut_and_still_end():
    tokenizer = WordTokenizer(["a"], 5)
    assert tokenizer(["a a a", "a a a a a a"]).tolist() == [[1, 3, 3, 3, 4]] * 2


def test_the_vocabulary_is_by_frequency():
    assert vocabulary([["a red mug", "a mug"], ["A cup"]]) == ["a", "mug", "red", "cup"]


def test_the_image_tower_sees_the_reference_on_white_and_normalised():
    rgba = torch.zeros(4, 64, 64)
    rgba[0], rgba[3, :, :32] = 1.0, 1.0  # red on the left, nothing on the right
    out = image_tensor(Reference(rgba), 8, [0.5, 0.25, 0.0], [0.5, 0.25, 2.0])
    assert out.shape == (1, 3, 8, 8)
    for column, color in ((0, [1.0, -1.0, 0.0]), (7, [1.0, 3.0, 0.5])):  # away from the edge, where all is smooth
        torch.testing.assert_close(out[0, :, :, column], torch.tensor(color)[:, None].expand(3, 8))
    assert image_tensor(Reference(rgba), 7, [0.5] * 3, [0.5] * 3, via=16).shape == (1, 3, 7, 7)


CLIP = {
    "embed_dim": 16,
    "vision_cfg": {"image_size": 16, "patch_size": 8, "width": 16, "layers": 1, "head_width": 8},
    "text_cfg": {"context_length": 6, "vocab_size": 10, "width": 16, "heads": 2, "layers": 1},
}


def check_gradients(module):
    for name, parameter in module.named_parameters():
        assert parameter.grad is not None, name
        assert bool(torch.isfinite(parameter.grad).all()), name


def test_clip_training_has_finite_losses_and_trains_everything():
    torch.manual_seed(0)
    model = ClipTraining(CLIP, view_weight=0.5, solid_weight=3.0, color_weight=2.0)
    batch = {
        "rgb": random(4, 3, 16, 16).sigmoid(),
        "tokens": WordTokenizer(list("abcdef"), 6)(["a b", "c", "d e f", "a"]),
        "seen_from": random(4, 3, 16, seed=1),
        "seen": random(4, 3, 4, 16, 16, seed=2).sigmoid(),
        "offset": (1, 0),
        "solid": random(4, 32, 32, 32, seed=3).sigmoid(),
        "color": random(4, 3, 32, 32, 32, seed=4).sigmoid(),
        "colored": random(4, 32, 32, 32, seed=5).sigmoid(),
    }
    out = model(batch)
    parts = out["contrast"] + 0.5 * out["view"] + 3 * out["solid"] + 2 * out["color"]
    assert out["loss"].item() == pytest.approx(float(parts), rel=1e-5)
    assert 0 <= float(out["top1"]) <= 1
    image, text = model.embed(batch["rgb"]), F.normalize(model.clip.encode_text(batch["tokens"]), dim=-1)
    torch.testing.assert_close(image.norm(dim=-1), torch.full((4,), 4.0))  # sqrt(D)
    logits = (model.clip.logit_scale.exp() * (image / 4) @ text.T).detach()
    contrast = -(logits.log_softmax(0).diagonal().mean() + logits.log_softmax(1).diagonal().mean()) / 2
    torch.testing.assert_close(out["contrast"], contrast)
    volume = model.sketch.volume(image[:, None])
    torch.testing.assert_close(out["solid"], solid_loss(volume[:, 3] - SOLID_AT, batch["solid"]).detach())
    out["loss"].backward()
    check_gradients(model)


def test_the_tower_sees_small_references_enlarged_as_it_will_a_user_s():
    torch.manual_seed(0)
    model = ClipTraining(CLIP).eval()
    rgb = random(2, 3, 8, 8).sigmoid()
    images = [image_tensor(Reference(torch.cat([x, torch.ones(1, 8, 8)])), 16, MEAN, STD, via=8) for x in rgb]
    expected = F.normalize(model.clip.visual(torch.cat(images)), dim=-1) * 4
    torch.testing.assert_close(model.embed(rgb), expected)


def test_a_thumbnail_is_the_mean_of_its_pixels():
    images = np.random.default_rng(0).integers(0, 256, (3, 2, 64, 64, 4), dtype=np.uint8)
    thumbs = thumbnail_all(images, batch=2)
    assert thumbs.shape == (3, 2, 4, 32, 32)
    assert thumbs.dtype == torch.uint8
    mean = images.reshape(3, 2, 32, 2, 32, 2, 4).mean(axis=(3, 5))
    assert np.abs(thumbs.permute(0, 1, 3, 4, 2).numpy() - mean).max() <= 0.51


class Views(SimpleNamespace):
    def __len__(self):
        return len(self.references)


def reference_set(**settings):
    """Two objects with random pictures; a word's token is its length."""
    rng = np.random.default_rng(0)
    views = Views(
        azimuth=rng.uniform(0, 360, (2, 16)), elevation=rng.uniform(-10, 40, (2, 16)),
        references=rng.integers(0, 256, (2, 4, 8, 8, 3), dtype=np.uint8),
        captions=[["red cup seen from the front left"] * 4, ["blue house seen from the right"] * 4],
    )  # fmt: skip
    thumbs = torch.from_numpy(rng.integers(0, 256, (2, 12, 4, 32, 32), dtype=np.uint8))
    cells = rng.integers(0, 256, (2, GRID**3 // 8), dtype=np.uint8)
    colors = rng.integers(0, 256, (2, 32, 32, 32, 4), dtype=np.uint8)
    solids = Solids(cells, colors, rng.integers(0, SLOTS + 1, (2, 32, 32, 32), dtype=np.uint8))
    return ReferenceSet(views, thumbs, solids, lambda texts: texts, **settings)


def test_a_batch_holds_every_other_pixel_of_the_views_its_cameras_see():
    data = reference_set(every=2)
    items, reference = np.array([0, 1, 1]), np.array([0, 1, 3])
    batch = data.batch(np.random.default_rng(3), items, reference)
    row, column = batch["offset"]
    for i in range(3):
        for k in range(2):
            seen = batch["seen"][i, k] * 255
            found = [t for t in range(12) if torch.equal(data.thumbs[items[i], t, :, row::2, column::2].float(), seen)]
            assert len(found) == 1
            azimuth = data.views.azimuth[items[i], found[0]] - data.views.azimuth[items[i], 12 + reference[i]]
            camera = unit_sphere_matrix(orbit(float(azimuth), float(data.views.elevation[items[i], found[0]])))
            torch.testing.assert_close(batch["seen_from"][i, k], camera[0])


def test_a_batch_holds_the_solid_of_each_reference_in_its_frame():
    data, items, reference = reference_set(), np.array([0, 0, 1, 1]), np.array([0, 3, 2, 1])
    batch = data.batch(np.random.default_rng(3), items, reference)
    facing = data.views.azimuth[items, 12 + reference]
    assert torch.equal(batch["solid"], seen_from(data.solids.cells[items], facing, 32))
    assert {len(batch[name]) for name in ("rgb", "tokens", "seen", "seen_from", "color", "colored")} == {4}


def test_a_drawn_batch_holds_different_directions_of_each_of_its_objects():
    data = reference_set(mirror=0.0)
    pictures = {to_rgb(data.views.references[i, j]).numpy().tobytes(): (i, j) for i in range(2) for j in range(4)}
    directions = set()
    for seed in range(8):
        batch = data.draw(np.random.default_rng(seed), 4)
        first, second, third, fourth = [pictures[picture.numpy().tobytes()] for picture in batch["rgb"]]
        assert first[0] == second[0]
        assert third[0] == fourth[0]
        assert first != second
        assert third != fourth
        directions |= {first[1], second[1], third[1], fourth[1]}
    assert directions == {0, 1, 2, 3}


def test_a_mirrored_batch_is_what_mirrored_objects_look_like():
    data = reference_set(every=1)
    items, reference = np.array([0, 1]), np.array([2, 0])
    plain = data.batch(np.random.default_rng(3), items, reference)
    mirrored = data.batch(np.random.default_rng(3), items, reference, mirrored=True)
    assert torch.equal(mirrored["rgb"], plain["rgb"].flip(-1))
    assert torch.equal(mirrored["seen"], plain["seen"].flip(-1))
    assert mirrored["tokens"] == ["red cup seen from the front right", "blue house seen from the left"]
    # The plane of the mirror holds the reference camera and the vertical: y changes its sign.
    place, other = (batch["seen_from"].unflatten(-1, (4, 4))[..., :3, 3] for batch in (plain, mirrored))
    torch.testing.assert_close(other, place * torch.tensor([1.0, -1.0, 1.0]))
    torch.testing.assert_close(mirrored["solid"], plain["solid"].flip(2))


# ---- VAE -----------------------------------------------------------------------------------------

VAE = {
    "in_channels": 12, "out_channels": 16, "latent_channels": 4, "block_out_channels": (8,), "layers_per_block": 1,
    "down_block_types": ("DownEncoderBlock2D",), "up_block_types": ("UpDecoderBlock2D",), "norm_num_groups": 4,
    "mid_block_add_attention": False,
}  # fmt: skip


def test_vae_training_has_a_finite_loss_and_trains_everything():
    torch.manual_seed(0)
    model = VaeTraining(VAE, unshuffle=2)
    rgb, mask = random(2, 3, 16, 16).sigmoid(), random(2, 1, 16, 16).sigmoid().round()
    mask[1] = torch.nan
    out = model({"rgb": rgb, "mask": mask})
    assert math.isfinite(out["loss"].item())
    out["loss"].backward()
    check_gradients(model)
    again, outline = model.decode(model.encode(rgb).mode())
    assert again.shape == rgb.shape
    assert outline.shape == mask.shape


def test_the_vae_loss_is_of_full_and_half_size_and_the_information():
    torch.manual_seed(0)
    model = VaeTraining(VAE, unshuffle=2, kl_weight=0.1, half_weight=3.0)
    rgb, mask = random(2, 3, 16, 16).sigmoid(), random(2, 1, 16, 16).sigmoid().round()
    posterior = model.encode(rgb)
    torch.manual_seed(5)
    z = posterior.sample()
    full, _ = reconstruction_loss(*model.decode(z), rgb, mask)
    half, _ = reconstruction_loss(*model.decode(F.avg_pool2d(z, 2)), F.avg_pool2d(rgb, 2), F.avg_pool2d(mask, 2))
    torch.manual_seed(5)
    out = model({"rgb": rgb, "mask": mask})
    torch.testing.assert_close(out["loss"], full + 3 * half + 0.1 * posterior.kl().mean())
    torch.testing.assert_close(out["half"], half.detach())


def test_a_decoder_alone_is_trained_on_whole_latents_and_keeps_some_of_what_it_was():
    torch.manual_seed(0)
    model, other = VaeTraining(VAE, unshuffle=2), VaeTraining(VAE, unshuffle=2)
    model.keep_latents()
    out = model({"rgb": random(2, 3, 16, 16).sigmoid(), "mask": random(2, 1, 16, 16).sigmoid().round()})
    assert out.keys() == {"loss", "psnr"}
    out["loss"].backward()
    trained = {name.split(".")[1] for name, p in model.named_parameters() if p.grad is not None}
    assert trained == {"decoder", "post_quant_conv"}
    own, before = model.vae.decoder.conv_in.weight.detach().clone(), other.vae.decoder.conv_in.weight
    model.blend(other.vae.state_dict())
    torch.testing.assert_close(model.vae.decoder.conv_in.weight, 0.9 * own + 0.1 * before)


def test_the_reconstruction_loss_in_closed_form():
    rgb, mask = random(2, 3, 16, 16).sigmoid(), random(2, 1, 16, 16).sigmoid().round()
    ramp = torch.linspace(0, 0.15, 16).expand(16, 16)  # 0.01 a column
    for error, l1, l2, edges in ((torch.tensor(0.2), 0.2, 0.04, 0.0), (ramp, 0.075, ramp.square().mean(), 0.01)):
        loss, square = reconstruction_loss(rgb + error, mask + 0.1, rgb, mask)
        assert float(loss) == pytest.approx(float(10 * l2 + l1 + 0.5 * edges + 0.01), rel=1e-4)
        assert float(square) == pytest.approx(float(l2), rel=1e-4)
    unknown = mask.clone()
    unknown[0] = torch.nan
    wrong = mask + torch.tensor([7.0, 0.1]).reshape(2, 1, 1, 1)  # where the mask is unknown it may be anything
    assert float(reconstruction_loss(rgb, wrong, rgb, unknown)[0]) == pytest.approx(0.01, rel=1e-4)


def test_images_become_latents_in_order():
    torch.manual_seed(0)
    model = VaeTraining(VAE, unshuffle=2)
    images = np.random.default_rng(0).integers(0, 256, (3, 2, 16, 16, 3), dtype=np.uint8)
    z = encode_all(model, images, 16, batch=4)
    assert z.shape == (3, 2, 4, 8, 8)
    assert z.dtype == torch.float16
    alone = encode_all(model, images[1:2, 1:], 16)
    torch.testing.assert_close(z[1, 1], alone[0, 0], atol=0.03, rtol=0.03)  # bf16
    larger = encode_all(model, images.repeat(2, axis=2).repeat(2, axis=3), 16)
    torch.testing.assert_close(z, larger, atol=0.03, rtol=0.03)
    rgb = to_rgb(images)
    assert rgb.shape == (3, 2, 3, 16, 16)
    assert torch.equal(rgb[1, 0, 2] * 255, torch.from_numpy(images[1, 0, :, :, 2]).float())
    sheet = grid([rgb[0], rgb[1]])
    assert sheet.shape == (3, 32, 32)
    assert torch.equal(sheet[:, 16:, :16], rgb[1, 0])


# ---- batches of latents --------------------------------------------------------------------------


def test_latent_batches_pair_each_view_with_its_camera_and_its_reference():
    objects = 5

    class Views:
        azimuth = np.random.default_rng(0).uniform(0, 360, (objects, 16))
        elevation = np.random.default_rng(1).uniform(-10, 40, (objects, 16))

    code = torch.arange(objects)[:, None] * 100 + torch.arange(12)
    targets = code[:, :, None, None, None].half()
    references = (torch.arange(objects)[:, None] * 10 + torch.arange(4)).half()
    latents = LatentSet(Views, targets, references[:, :, None, None, None], references[:, :, None])
    shapes = set()
    for seed in range(20):
        batch = latents.batch(np.random.default_rng(seed), 6)
        b, v = batch["latents"].shape[:2]
        shapes.add((b, v))
        assert batch["cameras"].shape == (b, v, 16)
        assert batch["embedding"].shape == (b, 1, 1)
        assert torch.equal(batch["reference"].flatten(), batch["embedding"].flatten())
        for i in range(b):
            item, reference = divmod(int(batch["reference"][i]), 10)
            columns = batch["latents"][i].flatten().long() - 100 * item
            assert bool(((columns >= 0) & (columns < 12)).all())
            for group in columns.split(4) if v > 1 else ():
                assert group.tolist() == [int(group[0]) + k for k in range(4)]
                assert int(group[0]) % 4 == 0
            assert len(set(columns.tolist())) == v
            azimuth = Views.azimuth[item, columns] - Views.azimuth[item, 12 + reference]
            expected = unit_sphere_matrix(orbit(azimuth, Views.elevation[item, columns]))
            torch.testing.assert_close(batch["cameras"][i], expected, rtol=1e-4, atol=1e-5)
    assert shapes == {(6, 4), (24, 1), (3, 8)}


def test_blending_goes_along_the_sphere_from_one_to_the_other():
    first, second = random(2, 1, 16) * 3, random(2, 1, 16, seed=1)
    torch.testing.assert_close(blend(first, second, 0.0), first)
    torch.testing.assert_close(blend(first, second, 1.0), second)
    middle = blend(first, second, 0.5)
    cosines = [F.cosine_similarity(middle, end, dim=-1) for end in (first, second)]
    torch.testing.assert_close(cosines[0], cosines[1])
    torch.testing.assert_close(middle.norm(dim=-1), (first.norm(dim=-1) + second.norm(dim=-1)) / 2)
    torch.testing.assert_close(blend(first, first, 0.3), first)
    assert blend(first[:1], second, 0.5).shape == (2, 1, 16)
    with pytest.raises(InputError, match="of different bundles"):
        blend(first, random(1, 1, 8), 0.5)
    with pytest.raises(InputError, match="batches of 2 and 3"):
        blend(first, random(3, 1, 16), 0.5)
