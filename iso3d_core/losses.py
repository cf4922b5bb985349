"""Distillation targets and regularisers: pure functions.

Every distillation is ``0.5 * ||z - stopgrad(target)||^2 / B``; what differs is the function that makes the target.
"""

from __future__ import annotations

import torch
from torch import Tensor


def distill(z: Tensor, target: Tensor) -> Tensor:
    """0.5 * sum((z - stopgrad(target))^2) / B for latents [V, C, h, w] and B = V; a scalar."""
    if z.shape != target.shape:
        raise ValueError(f"latents {tuple(z.shape)} and target {tuple(target.shape)} differ in shape")
    return 0.5 * (z - target.detach()).square().sum() / len(z)


def sds_target(z: Tensor, noise: Tensor, predicted: Tensor, weight: float | Tensor) -> Tensor:
    """Plain SDS (Isotropic3D Eq. 7, DreamFusion Eq. 3) as a target: z - w(t) (predicted - noise).

    The gradient of `distill` with respect to z is then w(t) (predicted - noise) / B. All tensors [V, C, h, w]; the
    weight may be one a view, [V, 1, 1, 1].
    """
    return (z - weight * (predicted - noise)).detach()


def predict_x0(z_t: Tensor, predicted: Tensor, alpha_cumprod: Tensor | float) -> Tensor:
    """x0 = (z_t - sqrt(1 - abar) eps) / sqrt(abar), all [V, C, h, w]."""
    abar = torch.as_tensor(alpha_cumprod, dtype=z_t.dtype, device=z_t.device)
    return (z_t - (1 - abar).sqrt() * predicted) / abar.sqrt()


def x0_target(
    z_t: Tensor, guided: Tensor, conditional: Tensor, alpha_cumprod: Tensor | float, rescale: float
) -> Tensor:
    """x0-reconstruction SDS (MVDream, section 3.3) with the standard-deviation rescale against over-saturation.

    x0 of the guided prediction, scaled so that its deviation over the group of views tends to that of the
    conditional prediction's x0: ``rescale * (std_c / std) * x0 + (1 - rescale) * x0``.
    guided, conditional : predicted noise [V, C, h, w] of one group of views
    """
    x0 = predict_x0(z_t, guided, alpha_cumprod)
    if rescale > 0:
        factor = predict_x0(z_t, conditional, alpha_cumprod).std() / x0.std().clamp(min=1e-8)
        x0 = (rescale * factor + (1 - rescale)) * x0
    return x0.detach()


def orientation_loss(weights: Tensor, normals: Tensor, directions: Tensor, rays: int) -> Tensor:
    """Eq. 8: sum of stopgrad(w) max(0, n . v)^2 over samples, divided by the number of rays that hit something.

    weights [S], normals [S, 3] outward, directions [S, 3] of the rays, away from the camera
    """
    facing_away = (normals * directions).sum(dim=-1).clamp(min=0)
    return (weights.detach() * facing_away.square()).sum() / max(rays, 1)


def color_error(rgb: Tensor, opacity: Tensor, wanted: Tensor, mask: Tensor, generator: torch.Generator) -> Tensor:
    """Mean squared difference of two images on white, both laid on the same random colors instead.

    On white alone, what stands out beyond the wanted outline could turn white instead of going away. The colors differ
    from pixel to pixel, as where stable-dreamfusion compares a render with a known view.
    rgb, wanted : [V, 3, H, W] or [N, 3] in 0..1 on white; opacity, mask : likewise, with one channel
    """
    darker = 1 - torch.rand(wanted.shape, generator=generator).to(wanted)
    return (rgb - wanted + darker * (opacity - mask)).square().mean()


def opacity_entropy(opacity: Tensor) -> Tensor:
    """Mean binary entropy of the opacity, in nats: solid or empty, not fog."""
    p = opacity.clamp(1e-3, 1 - 1e-3)
    return -(p * p.log() + (1 - p) * (1 - p).log()).mean()
