"""Train the VAE: a stock `AutoencoderKL`, behind `pixel_unshuffle` where the bundle says so."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .data import ViewSet
from .loop import Batch, TrainConfig, train

TINY_UNSHUFFLE = 4
TINY: dict[str, Any] = {
    "in_channels": 3 * TINY_UNSHUFFLE**2, "out_channels": 3 * TINY_UNSHUFFLE**2, "latent_channels": 4,
    "down_block_types": ("DownEncoderBlock2D",), "up_block_types": ("UpDecoderBlock2D",),
    "block_out_channels": (96,), "layers_per_block": 1, "norm_num_groups": 8, "mid_block_add_attention": False,
}  # fmt: skip


class VaeTraining(nn.Module):
    """Reconstruction (L1 + L2 + gradients) with a small KL term; forward takes {"rgb": [B, 3, S, S] in 0..1}."""

    vae: Any

    def __init__(self, config: dict[str, Any], unshuffle: int, kl_weight: float = 1e-5) -> None:
        super().__init__()
        from diffusers import AutoencoderKL

        self.vae = AutoencoderKL(**config)
        self.unshuffle, self.kl_weight = unshuffle, kl_weight

    def reconstruct(self, rgb: Tensor, sample: bool = False) -> tuple[Tensor, Tensor]:
        """[B, 3, S, S] -> its reconstruction in 0..1, and the KL term (scalar)."""
        posterior = self.vae.encode(F.pixel_unshuffle(rgb * 2 - 1, self.unshuffle)).latent_dist
        z = posterior.sample() if sample else posterior.mode()
        out = F.pixel_shuffle(self.vae.decode(z).sample.float(), self.unshuffle)
        return out / 2 + 0.5, posterior.kl().mean()

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        rgb = batch["rgb"]
        out, kl = self.reconstruct(rgb, sample=True)
        l2 = F.mse_loss(out, rgb)
        edges = F.l1_loss(out.diff(dim=-1), rgb.diff(dim=-1)) + F.l1_loss(out.diff(dim=-2), rgb.diff(dim=-2))
        loss = l2 * 10 + F.l1_loss(out, rgb) + 0.5 * edges + self.kl_weight * kl
        return {"loss": loss, "psnr": -10 * torch.log10(l2.detach()), "kl": kl.detach()}


def to_rgb(images: np.ndarray) -> Tensor:
    """uint8 [..., S, S, 3] -> float [..., 3, S, S] in 0..1."""
    return torch.from_numpy(np.ascontiguousarray(images)).movedim(-1, -3).float() / 255


def train_vae(views: ViewSet, config: TrainConfig, folder: Path, model: VaeTraining) -> dict[str, float]:
    """Train ``model`` on target and reference views; it then holds the averaged weights."""

    def make_batch(rng: np.random.Generator) -> Batch:
        items = rng.integers(len(views), size=config.batch)
        targets = config.batch * 3 // 4
        picked = [views.targets[i, rng.integers(views.targets.shape[1])] for i in items[:targets]]
        picked += [views.references[i, rng.integers(views.references.shape[1])] for i in items[targets:]]
        return {"rgb": to_rgb(np.stack(picked))}

    fixed = make_batch(np.random.default_rng(0))["rgb"][:16]

    @torch.no_grad()
    def sample(trained: Any) -> Tensor:
        shown = fixed.to(next(trained.parameters()).device)
        return grid([shown, trained.reconstruct(shown)[0]])

    return train(model, make_batch, config, folder, sample)


def grid(rows: Sequence[Tensor]) -> Tensor:
    """Rows of [N, 3, H, W] -> one [3, rows * H, N * W] picture."""
    return torch.cat([torch.cat(list(row), dim=-1) for row in rows], dim=-2)


@torch.no_grad()
def encode_all(model: VaeTraining, images: np.ndarray, batch: int = 512) -> Tensor:
    """uint8 [N, V, S, S, 3] -> posterior means [N, V, C, h, w], fp16, unscaled."""
    flat = images.reshape(-1, *images.shape[2:])
    out = []
    device = next(model.parameters()).device
    for i in range(0, len(flat), batch):
        with torch.autocast(device.type, torch.bfloat16):
            rgb = to_rgb(flat[i : i + batch]).to(device)
            z = model.vae.encode(F.pixel_unshuffle(rgb * 2 - 1, model.unshuffle)).latent_dist.mode()
        out.append(z.half().cpu())
    return torch.cat(out).reshape(*images.shape[:2], *out[0].shape[1:])
