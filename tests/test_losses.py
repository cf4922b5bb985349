import math

import pytest
import torch

from iso3d_core.losses import color_error, distill, opacity_entropy, orientation_loss, predict_x0, sds_target, x0_target


def latents(seed, views=4):
    return torch.randn(views, 3, 5, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def noise_for(z_t, x0, abar):
    """The noise whose x0 is the one given."""
    return (z_t - abar**0.5 * x0) / (1 - abar) ** 0.5


def test_distill_is_half_the_squared_distance_for_each_view():
    z, target = latents(0), latents(1)
    by_hand = sum(0.5 * float(((a - b) ** 2).sum()) for a, b in zip(z, target, strict=True)) / 4
    assert float(distill(z, target)) == pytest.approx(by_hand, rel=1e-12)


def test_distill_moves_the_latents_and_not_the_target():
    z, target = latents(0).requires_grad_(), latents(1).requires_grad_()
    distill(z, target).backward()
    torch.testing.assert_close(z.grad, (z - target).detach() / 4)
    assert target.grad is None


@pytest.mark.parametrize("shape", [(3, 3, 5, 5), (4, 3, 5, 1), (3, 5, 5)])
def test_distill_refuses_another_shape(shape):
    with pytest.raises(ValueError, match="differ in shape"):
        distill(latents(0), torch.zeros(shape))


@pytest.mark.parametrize("weight", [0.0, 0.3, 1.0])
def test_the_sds_gradient_is_the_weighted_noise_residual(weight):
    z, noise = latents(0).requires_grad_(), latents(1)
    predicted = 3.0 * z + latents(2)  # a network that depends on z: its Jacobian must not appear
    distill(z, sds_target(z, noise, predicted, weight)).backward()
    torch.testing.assert_close(z.grad, weight * (predicted.detach() - noise) / 4)


@pytest.mark.parametrize("abar", [0.02, 0.5, 0.999])
def test_x0_undoes_the_forward_process(abar):
    x0, noise = latents(0), latents(1)
    z_t = abar**0.5 * x0 + (1 - abar) ** 0.5 * noise
    torch.testing.assert_close(predict_x0(z_t, noise, abar), x0)
    torch.testing.assert_close(predict_x0(z_t, noise, torch.tensor(abar, dtype=torch.float64)), x0)


@pytest.mark.parametrize("rescale", [0.0, 0.5, 1.0])
def test_x0_of_a_single_known_latent_is_that_latent_whatever_z_is(rescale):
    known, abar = latents(9), 0.3
    for seed in range(3):
        z_t = abar**0.5 * latents(seed) + (1 - abar) ** 0.5 * latents(seed + 100)
        predicted = noise_for(z_t, known, abar)
        torch.testing.assert_close(x0_target(z_t, predicted, predicted, abar, rescale), known)


@pytest.mark.parametrize(("guidance", "abar"), [(1.0, 0.9), (3.0, 0.5), (7.5, 0.2)])
def test_x0_distillation_contracts_to_the_guided_mean(guidance, abar):
    """Gaussian data of deviation s has a linear noise model; then z - mean shrinks by one known factor a step."""
    s2, unconditional, conditional = 0.25, latents(5), latents(6)
    slope = (1 - abar) ** 0.5 / (abar * s2 + 1 - abar)
    shrink = abar * s2 / (abar * s2 + 1 - abar)
    mean = unconditional + guidance * (conditional - unconditional)
    z = start = latents(7)
    for step in range(1, 6):
        z = z.clone().requires_grad_()
        z_t = (abar**0.5 * z).detach()  # the expected noisy latent
        u, c = slope * (z_t - abar**0.5 * unconditional), slope * (z_t - abar**0.5 * conditional)
        distill(z, x0_target(z_t, u + guidance * (c - u), c, abar, rescale=0.0)).backward()
        z = (z - len(z) * z.grad).detach()  # a full Newton step of the quadratic
        torch.testing.assert_close(z - mean, shrink**step * (start - mean), rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("rescale", [0.0, 0.5, 1.0])
def test_the_deviation_is_rescaled_towards_the_conditional_one(rescale):
    abar, z_t, x0_c = 0.4, latents(0), latents(1)
    x0_g = 4.0 * x0_c + 3.0  # four times the deviation
    out = x0_target(z_t, noise_for(z_t, x0_g, abar), noise_for(z_t, x0_c, abar), abar, rescale)
    torch.testing.assert_close(out, (rescale / 4 + 1 - rescale) * x0_g)


def test_targets_carry_no_gradient():
    z = latents(0).requires_grad_()
    assert not sds_target(z, latents(1), z * 2, 1.0).requires_grad
    assert not x0_target(z, z * 2, z * 3, 0.5, 0.5).requires_grad


def test_orientation_by_hand():
    half = 0.5
    normals = torch.tensor([[0.0, 0.0, 1.0], [0.0, 0.0, -1.0], [half, 0.0, -half * 3**0.5]], requires_grad=True)
    directions = torch.tensor([[0.0, 0.0, -1.0]] * 2 + [[1.0, 0.0, 0.0]])
    weights = torch.tensor([0.7, 0.2, 0.8], requires_grad=True)
    # Towards the camera: nothing. Straight away: cosine 1. Sixty degrees: cosine 1/2.
    loss = orientation_loss(weights, normals, directions, rays=5)
    assert loss.item() == pytest.approx((0.2 * 1 + 0.8 * 0.25) / 5)
    loss.backward()
    assert weights.grad is None
    expected = torch.tensor([[0.0, 0.0, 0.0], [0.0, 0.0, -0.4], [0.8, 0.0, 0.0]]) / 5
    torch.testing.assert_close(normals.grad, expected)


def test_orientation_without_a_hit_is_zero():
    empty = torch.zeros(0, 3)
    assert float(orientation_loss(torch.zeros(0), empty, empty, rays=0)) == 0.0


def test_color_error_is_the_plain_one_where_the_outlines_agree():
    generator = torch.Generator().manual_seed(0)
    for shape, outline in (((2, 3, 5, 5), (2, 1, 5, 5)), ((40, 3), (40, 1))):
        rgb, wanted, mask = (torch.rand(s, generator=generator) for s in (shape, shape, outline))
        found = color_error(rgb, mask, wanted, mask, generator)
        torch.testing.assert_close(found, (rgb - wanted).square().mean())


def test_color_error_is_of_both_images_on_one_background():
    rgba, other = (torch.rand(50, 4, generator=torch.Generator().manual_seed(seed)) for seed in (1, 2))
    background = torch.rand(50, 3, generator=torch.Generator().manual_seed(3))

    def on(background, image):
        return image[:, :3] * image[:, 3:] + background * (1 - image[:, 3:])

    found = color_error(on(1, rgba), rgba[:, 3:], on(1, other), other[:, 3:], torch.Generator().manual_seed(3))
    torch.testing.assert_close(found, (on(background, rgba) - on(background, other)).square().mean())


def test_what_stands_out_beyond_the_outline_cannot_hide_in_white():
    opacity = torch.ones(1, 1, 40, 40, requires_grad=True)
    white, nothing = torch.ones(1, 3, 40, 40), torch.zeros(1, 1, 40, 40)
    error = color_error(white, opacity, white, nothing, torch.Generator().manual_seed(0))
    assert float(error.detach()) == pytest.approx(1 / 3, rel=0.05)  # the mean square of 0..1
    error.backward()
    assert float(opacity.grad.min()) > 0


def test_opacity_entropy_is_between_solid_and_fog():
    p = torch.rand(50, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    least = -(1e-3 * math.log(1e-3) + (1 - 1e-3) * math.log(1 - 1e-3))
    assert float(opacity_entropy(torch.full((7,), 0.5))) == pytest.approx(math.log(2))
    for solid in (0.0, 1.0):
        assert float(opacity_entropy(torch.full((7,), solid, dtype=torch.float64))) == pytest.approx(least)
    each = torch.stack([opacity_entropy(x) for x in p])
    assert bool(((each >= least) & (each <= math.log(2))).all())
    assert float(opacity_entropy(p)) == pytest.approx(float(each.mean()))
    torch.testing.assert_close(opacity_entropy(p), opacity_entropy(1 - p))


def test_opacity_entropy_pushes_away_from_one_half():
    p = torch.tensor([0.1, 0.4, 0.6, 0.9], requires_grad=True)
    opacity_entropy(p).backward()
    torch.testing.assert_close(p.grad, ((1 - p) / p).log().detach() / 4)
