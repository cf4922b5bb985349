import copy

import pytest
import torch
from small import UNET as CONFIG
from torch import nn

from iso3d_core.cameras import even_azimuths, orbit, unit_sphere_matrix
from iso3d_core.priors.attention import FoldViews, fold_views, predict, with_views
from iso3d_core.train.diffusion import DROPOUT, SCHEDULE, MultiViewTraining, with_reference


def random(*shape, seed=0):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(scope="module")
def stock():
    """A small UNet with diffusers' own attention and weights that are nowhere zero."""
    from diffusers import UNet2DConditionModel

    torch.manual_seed(0)
    unet = UNet2DConditionModel(**CONFIG).double().eval().requires_grad_(False)
    for parameter in unet.parameters():
        parameter.add_(0.05 * torch.randn_like(parameter))
    return unet


@pytest.fixture(scope="module")
def folded(stock):
    unet = copy.deepcopy(stock)
    fold_views(unet)
    return unet


@pytest.fixture(scope="module")
def attention():
    """One self-attention layer of two heads, and one of cross-attention."""
    from diffusers.models.attention_processor import Attention

    torch.manual_seed(1)
    alone = Attention(query_dim=8, heads=2, dim_head=4, out_bias=True).double().eval().requires_grad_(False)
    cross = Attention(query_dim=8, cross_attention_dim=6, heads=2, dim_head=4).double().eval().requires_grad_(False)
    return alone, cross


def group(views, groups=1, seed=0):
    """Latents, timesteps, embeddings and cameras of `predict`."""
    azimuths = even_azimuths(views, 20.0)
    cameras = unit_sphere_matrix(orbit(azimuths, torch.linspace(-10, 40, views))).double()
    return (
        random(groups, views, 4, 4, 4, seed=seed),
        torch.randint(1000, (groups, views), generator=torch.Generator().manual_seed(seed)),
        random(groups, 1, 12, seed=seed + 1),
        cameras.expand(groups, views, 16),
    )


def changed(before, after):
    """[B, V] largest change of each frame."""
    return (before - after).abs().flatten(2).amax(dim=2)


@pytest.mark.parametrize("views", [1, 2, 3, 6])
def test_folding_is_attention_over_the_tokens_of_every_group(attention, views):
    alone, _ = attention
    frames = random(6, 5, 8)
    processor = FoldViews()
    processor.views = views
    expected = []
    for start in range(0, 6, views):
        tokens = torch.cat(list(frames[start : start + views]))  # [views * 5, 8]
        heads = []
        for head in (slice(0, 4), slice(4, 8)):
            q, k, v = (layer(tokens)[:, head] for layer in (alone.to_q, alone.to_k, alone.to_v))
            heads.append(torch.softmax(q @ k.T / 4**0.5, dim=-1) @ v)
        expected += alone.to_out[0](torch.cat(heads, dim=-1)).split(5)
    torch.testing.assert_close(processor(alone, frames), torch.stack(expected))


@pytest.mark.parametrize("tokens", [1, 3])
def test_cross_attention_is_stock_and_stays_within_the_view(attention, tokens):
    _, cross = attention
    frames, context = random(6, 5, 8), random(6, tokens, 6, seed=1)
    processor = FoldViews()
    processor.views = 3
    torch.testing.assert_close(processor(cross, frames, context), cross(frames, context))


def test_a_batch_that_cannot_be_folded_is_refused(attention):
    processor = FoldViews()
    processor.views = 4
    with pytest.raises(ValueError, match="6 frames cannot be folded into groups of 4 views"):
        processor(attention[0], random(6, 5, 8))


@pytest.mark.parametrize("tokens", [1, 2])
def test_one_view_is_the_stock_network(stock, folded, tokens):
    z, t, _, cameras = (x.flatten(0, 1) for x in group(3))
    context = random(3, tokens, 12, seed=5)
    ours = with_views(folded, 1)(z, t, encoder_hidden_states=context, class_labels=cameras).sample
    torch.testing.assert_close(ours, stock(z, t, encoder_hidden_states=context, class_labels=cameras).sample)


def test_more_views_are_not_the_stock_network(stock, folded):
    z, t, embedding, cameras = group(3)
    alone = torch.cat([predict(folded, z[:, [i]], t[:, [i]], embedding, cameras[:, [i]]) for i in range(3)], dim=1)
    assert float(changed(predict(folded, z, t, embedding, cameras), alone).min()) > 1e-3


def test_permuting_the_views_permutes_the_outputs(folded):
    z, t, embedding, cameras = group(4, groups=2)
    order = torch.tensor([2, 0, 3, 1])
    out = predict(folded, z, t, embedding, cameras)
    permuted = predict(folded, z[:, order], t[:, order], embedding, cameras[:, order])
    torch.testing.assert_close(permuted, out[:, order])
    # The camera belongs to the view: without it the outputs are others.
    assert float(changed(predict(folded, z[:, order], t[:, order], embedding, cameras), out[:, order]).min()) > 1e-4


def test_views_of_one_object_see_each_other_and_no_other_object(folded):
    z, t, embedding, cameras = group(3, groups=2)
    before = predict(folded, z, t, embedding, cameras)
    z = z.clone()
    z[0, 1] += 1.0
    change = changed(before, predict(folded, z, t, embedding, cameras))
    assert float(change[0].min()) > 1e-4
    assert float(change[1].max()) < 1e-12


def test_each_object_has_its_own_embedding(folded):
    z, t, embedding, cameras = group(2, groups=2)
    out = predict(folded, z, t, embedding, cameras)
    for i in range(2):
        torch.testing.assert_close(predict(folded, z[[i]], t[[i]], embedding[[i]], cameras[[i]]), out[[i]])


def test_a_network_without_folding_is_refused(stock):
    with pytest.raises(TypeError, match="fold_views"):
        with_views(stock, 2)


# ---- explicit multi-view attention ---------------------------------------------------------------


class Oracle(nn.Module):
    """Knows the clean latents: answers with the exact training target, plus ``off`` on the first frame."""

    def __init__(self, training, clean, off=0.0):
        super().__init__()
        self.processor = FoldViews()
        self.attn_processors = {"layer": self.processor}
        self.alphas_cumprod, self.clean, self.off = training.scheduler.alphas_cumprod, clean, off
        self.velocity = training.scheduler.config.prediction_type == "v_prediction"
        self.seen = {}

    def forward(self, z, t, encoder_hidden_states, class_labels):
        self.seen = {"z": z, "t": t, "embedding": encoder_hidden_states, "cameras": class_labels}
        abar = self.alphas_cumprod[t][:, None, None, None].to(z)
        clean = self.clean.flatten(0, 1)
        noise = (z - abar.sqrt() * clean) / (1 - abar).sqrt()
        out = abar.sqrt() * noise - (1 - abar).sqrt() * clean if self.velocity else noise
        out = out.unflatten(0, (-1, self.processor.views)).clone()
        out[:, 0] += self.off
        self.out = out.flatten(0, 1).requires_grad_()
        return type("Output", (), {"sample": self.out})


def batch(objects=3, views=4):
    cameras = unit_sphere_matrix(orbit(even_azimuths(views, 33.0), 12.0)).expand(objects, views, 16)
    return {
        "latents": random(objects, views, 2, 3, 3).float(),
        "cameras": cameras,
        "embedding": random(objects, 1, 7, seed=1).float(),
        "reference": random(objects, 2, 3, 3, seed=2).float(),
    }


def test_the_reference_frame_comes_first_noise_free_at_time_zero():
    noisy, reference = random(2, 4, 3, 5, 5), random(2, 3, 5, 5, seed=1)
    t = torch.tensor([[500] * 4, [9] * 4])
    cameras = random(2, 4, 16, seed=2)
    latents, times, poses = with_reference(noisy, t, cameras, reference)
    assert latents.shape == (2, 5, 3, 5, 5)
    assert torch.equal(latents[:, 0], reference)
    assert torch.equal(latents[:, 1:], noisy)
    assert times.tolist() == [[0, 500, 500, 500, 500], [0, 9, 9, 9, 9]]
    assert torch.equal(poses[:, 1:], cameras)
    torch.testing.assert_close(poses[:, 0], unit_sphere_matrix(orbit(0.0, 0.0)).double().expand(2, 16))


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
@pytest.mark.parametrize("explicit", [False, True])
def test_the_exact_network_has_no_loss(prediction, explicit):
    data = batch()
    training = MultiViewTraining(nn.Identity(), {**SCHEDULE, "prediction_type": prediction}, explicit)
    clean = data["latents"]
    if explicit:
        clean = torch.cat([data["reference"][:, None], clean], dim=1)
    training.unet = Oracle(training, clean)
    torch.manual_seed(0)
    assert training(data)["loss"].item() < 1e-8
    training.unet.clean = clean + 0.1
    assert training(data)["loss"].item() > 1e-4


def test_explicit_attention_sees_five_frames_and_pays_for_four():
    data = batch()
    training = MultiViewTraining(nn.Identity(), SCHEDULE, explicit_attention=True)
    losses = []
    for off in (0.0, 1e3):
        training.unet = oracle = Oracle(training, torch.zeros(3, 5, 2, 3, 3), off)
        torch.manual_seed(4)
        losses.append(training(data)["loss"])
    assert losses[0].item() > 0.01
    assert torch.equal(losses[0], losses[1])

    assert oracle.processor.views == 5
    seen = {name: value.unflatten(0, (3, 5)) for name, value in oracle.seen.items()}
    assert seen["t"][:, 0].tolist() == [0, 0, 0]
    assert bool((seen["t"][:, 1:] == seen["t"][:, 1:2]).all())
    assert torch.equal(seen["z"][:, 0], data["reference"])
    torch.testing.assert_close(seen["cameras"][:, 0], unit_sphere_matrix(orbit(0.0, 0.0)).expand(3, 16))
    assert torch.equal(seen["cameras"][:, 1:], data["cameras"])

    losses[1].backward()
    gradient = oracle.out.grad.unflatten(0, (3, 5)).abs().flatten(2).amax(dim=2)  # [3, 5]
    assert float(gradient[:, 0].max()) == 0.0
    assert float(gradient[:, 1:].min()) > 0.0


def test_without_explicit_attention_there_are_only_the_noisy_views():
    data = batch()
    training = MultiViewTraining(nn.Identity(), SCHEDULE)
    training.unet = oracle = Oracle(training, data["latents"])
    training(data)
    assert oracle.processor.views == 4
    assert torch.equal(oracle.seen["cameras"], data["cameras"].flatten(0, 1))


def test_embeddings_are_dropped_whole_and_for_all_views():
    latents, cameras = torch.zeros(3000, 2, 1, 1, 1), torch.zeros(3000, 2, 16)
    data = {"latents": latents, "cameras": cameras, "embedding": torch.ones(3000, 1, 5)}
    training = MultiViewTraining(nn.Identity(), SCHEDULE)
    training.unet = oracle = Oracle(training, latents)
    torch.manual_seed(0)
    training(data)
    seen = oracle.seen["embedding"].reshape(3000, -1)  # both views and all dimensions
    assert bool(((seen == seen[:, :1]) & ((seen == 0) | (seen == 1))).all())
    four_deviations = 4 * (DROPOUT * (1 - DROPOUT) / 3000) ** 0.5
    assert float((seen[:, 0] == 0).float().mean()) == pytest.approx(DROPOUT, abs=four_deviations)
