"""Train Zero-1-to-3: one view of an object from another view, its embedding and the relative pose."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..cameras import unit_sphere_matrix
from ..priors.attention import guess_views
from ..priors.sketch import CHANNELS, Sketch
from ..priors.zero123 import project_pose, relative_pose
from .clip import SKETCH
from .data import REFERENCES, TARGETS, ViewSet, relative_cameras
from .diffusion import FINER
from .loop import Batch, TrainConfig, train
from .vae import TINY as TINY_VAE

DROPOUT = 0.1

TINY: dict[str, Any] = {
    "sample_size": 16,
    "in_channels": 2 * TINY_VAE["latent_channels"] + CHANNELS * FINER**2, "out_channels": TINY_VAE["latent_channels"],
    "cross_attention_dim": 256, "block_out_channels": (64, 112), "layers_per_block": 1, "norm_num_groups": 8,
    "attention_head_dim": (2, 4), "use_linear_projection": True,
    "down_block_types": ("CrossAttnDownBlock2D",) * 2, "up_block_types": ("CrossAttnUpBlock2D",) * 2,
}  # fmt: skip
TINY_ZERO123 = TrainConfig(4_500, batch=32, learning_rate=8e-4, warmup=100, averaged_decay=0.9985)
# The published settings (Liu et al. 2023, section 3.1 and code) for the XL checkpoint's size, eight GPUs.
PAPER = TrainConfig(105_000, batch=192, learning_rate=1e-4, warmup=100, decay="constant")


class Zero123Training(nn.Module):
    """The denoising loss. Forward takes {"latents": [B, C, h, w] scaled, "reference": [B, C, h, w] unscaled,
    "embedding": [B, 1, D], "pose": [B, 4], "camera": [B, 1, 16]}; a tenth of the batch is trained without token and
    reference. The sketch network, trained with CLIP, stays as it is.
    """

    unet: Any  # diffusers' UNet2DConditionModel, with its sketch network where it has channels for one

    def __init__(self, config: dict[str, Any], dim: int, schedule: dict) -> None:
        super().__init__()
        from diffusers import DDIMScheduler, UNet2DConditionModel

        self.unet = UNet2DConditionModel(**config)
        if config["in_channels"] > 2 * config["out_channels"]:
            self.unet.sketch = Sketch(dim, **SKETCH).requires_grad_(False)
        self.projection = nn.Linear(dim + 4, config["cross_attention_dim"])
        strengthen_pose(self.projection)
        self.scheduler: Any = DDIMScheduler(**schedule)

    def networks(self) -> list[nn.Module]:
        return [self.unet]

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        z = batch["latents"]
        # The larger of two draws: under little noise the latents tell the view, and the pose would not be needed.
        t = torch.randint(self.scheduler.config.num_train_timesteps, (2, len(z)), device=z.device).amax(dim=0)
        noise = torch.randn_like(z)
        noisy = self.scheduler.add_noise(z, noise, t)
        keep = (torch.rand(len(z), 1, 1, device=z.device) >= DROPOUT).float()
        context = project_pose(self.projection, batch["embedding"], batch["pose"]) * keep
        given = torch.cat([noisy, batch["reference"] * keep[..., None]], dim=1)
        guess = guess_views(self.unet, batch["embedding"] * keep, batch["camera"], latents=2)
        if guess is not None:
            given = torch.cat([given, guess[:, 0].to(given)], dim=1)
        out = self.unet(given, t, encoder_hidden_states=context).sample
        return {"loss": F.mse_loss(out.float(), self.scheduler.get_velocity(z, noise, t))}


@torch.no_grad()
def strengthen_pose(projection: nn.Linear) -> None:
    """Let the four numbers of the pose weigh as much in the token as all those of the embedding beside them."""
    scale = projection.weight[:, :-4].norm(dim=1).mean()
    projection.weight[:, -4:] = scale * torch.randn(len(projection.weight), 4) / 2


class PoseSet:
    """References and other views of a training set, drawn into batches for `Zero123Training`.

    targets [N, 12, C, h, w] and references [N, 4, C, h, w] scaled latents; embeddings [N, 4, D]; scale : of the latents
    """

    def __init__(self, views: ViewSet, targets: Tensor, references: Tensor, embeddings: Tensor, scale: float) -> None:
        self.targets, self.references, self.embeddings, self.scale = targets, references, embeddings, scale
        self.azimuth, self.elevation = views.azimuth, views.elevation

    def batch(self, rng: np.random.Generator, size: int) -> Batch:
        items = rng.integers(len(self.targets), size=size)
        reference, target = rng.integers(REFERENCES, size=size), rng.integers(TARGETS, size=size)
        cameras = relative_cameras(
            self.azimuth[items, target], self.elevation[items, target], self.azimuth[items, TARGETS + reference]
        )
        seen_from = torch.from_numpy(self.elevation[items, TARGETS + reference]).float()
        pose = relative_pose(cameras, 0.0)
        pose[:, 0] += torch.deg2rad(seen_from)
        return {
            "latents": self.targets[items, target].float(),
            "reference": self.references[items, reference].float() / self.scale,
            "embedding": self.embeddings[items, reference][:, None].float(),
            "pose": pose,
            "camera": unit_sphere_matrix(cameras)[:, None],
        }


def train_zero123(data: PoseSet, config: TrainConfig, folder: Path, model: Zero123Training) -> dict[str, float]:
    """Train ``model``; it then holds the averaged weights."""
    return train(model, lambda rng: data.batch(rng, config.batch), config, folder)
