"""Train the VAE: a stock `AutoencoderKL`, behind `pixel_unshuffle` where the bundle says so.

Its decoder has a fourth image channel, the object's mask: on white, color alone cannot tell a white wall from the
background. Halved latents must decode to the halved image (scale equivariance, Skorokhodov et al. 2025): smooth
latents are what a small diffusion model learns quickly.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .data import ViewSet
from .loop import Batch, TrainConfig, fast_autocast, train

TINY_UNSHUFFLE = 4
KEPT = 0.1  # of the weights that a decoder trained alone had before
TINY: dict[str, Any] = {
    "in_channels": 3 * TINY_UNSHUFFLE**2, "out_channels": 4 * TINY_UNSHUFFLE**2, "latent_channels": 8,
    "down_block_types": ("DownEncoderBlock2D",), "up_block_types": ("UpDecoderBlock2D",),
    "block_out_channels": (96,), "layers_per_block": 1, "norm_num_groups": 8, "mid_block_add_attention": False,
}  # fmt: skip


class VaeTraining(nn.Module):
    """Reconstruction (L1 + L2 + gradients), at full and at half size, with a small KL term.

    Forward takes {"rgb": [B, 3, S, S] in 0..1, "mask": [B, 1, S, S] in 0..1, NaN where unknown}.
    """

    vae: Any

    def __init__(
        self, config: dict[str, Any], unshuffle: int, kl_weight: float = 1e-5, half_weight: float = 0.5
    ) -> None:
        super().__init__()
        from diffusers import AutoencoderKL

        self.vae = AutoencoderKL(**config)
        self.unshuffle, self.kl_weight, self.half_weight = unshuffle, kl_weight, half_weight

    def networks(self) -> list[nn.Module]:
        return [self.vae.encoder, self.vae.decoder]

    def keep_latents(self) -> None:
        """Train the decoder alone, and for whole latents alone: what was trained on these goes on with them."""
        self.vae.encoder.requires_grad_(False)
        self.vae.quant_conv.requires_grad_(False)
        self.half_weight = self.kl_weight = 0.0

    @torch.no_grad()
    def blend(self, before: dict[str, Tensor]) -> None:
        """Keep a little of the weights from ``before`` training: a decoder that has only seen true latents makes more
        of the mistakes in those that a small prior samples."""
        for name, value in self.vae.state_dict().items():
            value.lerp_(before[name].to(value), KEPT)

    def encode(self, rgb: Tensor) -> Any:
        """[B, 3, S, S] -> diffusers' posterior distribution."""
        return self.vae.encode(F.pixel_unshuffle(rgb * 2 - 1, self.unshuffle)).latent_dist

    def decode(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """[B, C, h, w] unscaled -> rgb [B, 3, S, S] and mask [B, 1, S, S], about 0..1."""
        out = F.pixel_shuffle(self.vae.decode(z).sample.float(), self.unshuffle) / 2 + 0.5
        return out[:, :3], out[:, 3:]

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        rgb, mask = batch["rgb"], batch["mask"]
        posterior = self.encode(rgb)
        z = posterior.sample()
        loss, l2 = reconstruction_loss(*self.decode(z), rgb, mask)
        found = {"psnr": -10 * torch.log10(l2.detach())}
        if self.half_weight:
            half, _ = reconstruction_loss(*self.decode(F.avg_pool2d(z, 2)), F.avg_pool2d(rgb, 2), F.avg_pool2d(mask, 2))
            loss, found["half"] = loss + self.half_weight * half, half.detach()
        if self.kl_weight:
            kl = posterior.kl().mean()
            loss, found["kl"] = loss + self.kl_weight * kl, kl.detach()
        return {"loss": loss, **found}


def reconstruction_loss(rgb: Tensor, mask: Tensor, true_rgb: Tensor, true_mask: Tensor) -> tuple[Tensor, Tensor]:
    """The loss, and the plain mean squared error of the colors; where the true mask is NaN the mask is free."""
    known = ~true_mask.isnan()
    l2 = F.mse_loss(rgb, true_rgb)
    edges = F.l1_loss(rgb.diff(dim=-1), true_rgb.diff(dim=-1)) + F.l1_loss(rgb.diff(dim=-2), true_rgb.diff(dim=-2))
    outline = F.mse_loss(mask[known], true_mask[known])
    return l2 * 10 + F.l1_loss(rgb, true_rgb) + 0.5 * edges + outline, l2


def to_rgb(images: np.ndarray) -> Tensor:
    """uint8 [..., S, S, C] -> float [..., C, S, S] in 0..1."""
    # A copy: what is mapped from a file may be read only, which torch cannot say of a tensor.
    return torch.from_numpy(np.array(images, order="C")).movedim(-1, -3).float() / 255


def of_size(rgb: Tensor, size: int) -> Tensor:
    """Larger images [B, C, H, W] -> [B, C, size, size], by area."""
    return F.interpolate(rgb, (size, size), mode="area")


def train_vae(views: ViewSet, config: TrainConfig, folder: Path, model: VaeTraining) -> dict[str, float]:
    """Train ``model`` on target and reference views; it then holds the averaged weights."""

    def make_batch(rng: np.random.Generator) -> Batch:
        items = rng.integers(len(views), size=config.batch)
        targets = config.batch * 3 // 4
        picked = to_rgb(np.stack([views.targets[i, rng.integers(views.targets.shape[1])] for i in items[:targets]]))
        rest = [views.references[i, rng.integers(views.references.shape[1])] for i in items[targets:]]
        rgb = torch.cat([picked[:, :3], of_size(to_rgb(np.stack(rest)), picked.shape[-1])])
        mask = torch.full_like(rgb[:, :1], torch.nan)
        mask[:targets] = picked[:, 3:]
        return {"rgb": rgb, "mask": mask}

    fixed = make_batch(np.random.default_rng(0))["rgb"][:16]

    @torch.no_grad()
    def sample(trained: Any) -> Tensor:
        shown = fixed.to(next(trained.parameters()).device)
        rgb, mask = trained.decode(trained.encode(shown).mode())
        return grid([shown, rgb, mask.expand_as(rgb)])

    return train(model, make_batch, config, folder, sample)


def grid(rows: Sequence[Tensor]) -> Tensor:
    """Rows of [N, 3, H, W] -> one [3, rows * H, N * W] picture."""
    return torch.cat([torch.cat(list(row), dim=-1) for row in rows], dim=-2)


@torch.no_grad()
def encode_all(model: VaeTraining, images: np.ndarray, size: int, batch: int = 512) -> Tensor:
    """uint8 [N, V, S, S, 3 or 4], seen at ``size`` pixels -> posterior means [N, V, C, h, w], fp16, unscaled."""
    flat = images.reshape(-1, *images.shape[2:])
    out = []
    device = next(model.parameters()).device
    for i in range(0, len(flat), batch):
        with fast_autocast(device):
            rgb = to_rgb(flat[i : i + batch, ..., :3])
            z = model.encode(of_size(rgb, size).to(device)).mode()
        out.append(z.half().cpu())
    return torch.cat(out).reshape(*images.shape[:2], *out[0].shape[1:])
