"""Train the multi-view UNet: stage 1 (embedding in place of text), stage 2 (Explicit Multi-view Attention).

Isotropic3D, section 3.2: frames of 4 orthogonal views with probability 0.7, a single view with 0.3; in stage 2 a
noise-free reference frame (t = 0, camera (0, 0)) joins the self-attention and the loss is on the targets only.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..cameras import orbit, unit_sphere_matrix
from ..priors.attention import HARMONICS, fold_views, guess_views, predict
from ..priors.sketch import CHANNELS, Sketch
from .clip import SKETCH
from .data import GROUP_VIEWS, GROUPS, REFERENCES, TARGETS, ViewSet, relative_cameras
from .loop import Batch, TrainConfig, train
from .vae import TINY as TINY_VAE

SINGLE_VIEW, DROPOUT = 0.3, 0.1
# Not in the paper: groups of two orbits at once, so that the warm start can sample all its views together.
TWO_ORBITS = 0.25

FINER = 2  # pixels of a guess, in both directions, to one of the latents

TINY: dict[str, Any] = {
    "sample_size": 16,
    "in_channels": TINY_VAE["latent_channels"] + CHANNELS * FINER**2, "out_channels": TINY_VAE["latent_channels"],
    "encoder_hid_dim": HARMONICS * 256, "encoder_hid_dim_type": "text_proj", "cross_attention_dim": 128,
    "block_out_channels": (64, 112), "layers_per_block": 1, "norm_num_groups": 8, "attention_head_dim": (2, 4),
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D"),
    "class_embed_type": "projection", "projection_class_embeddings_input_dim": 16, "use_linear_projection": True,
}  # fmt: skip
TINY_SCHEDULE: dict[str, Any] = {"prediction_type": "v_prediction"}
SCHEDULE: dict[str, Any] = {
    "num_train_timesteps": 1000, "beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear",
    "clip_sample": False, "set_alpha_to_one": False, "steps_offset": 1, "prediction_type": "epsilon",
}  # fmt: skip

# The paper's optimiser settings (section 4.1) for a UNet of Stable Diffusion 2.1's size, a process's share of 8 GPUs.
PAPER_STAGE1 = TrainConfig(50_000, batch=24, accumulate=4, learning_rate=1e-4, warmup=10_000, decay="constant")
PAPER_STAGE2 = TrainConfig(5_000, batch=16, learning_rate=5e-5, warmup=0, decay="linear")
TINY_STAGE1 = TrainConfig(6_000, batch=16, learning_rate=6e-4, warmup=100, averaged_decay=0.9985)
TINY_STAGE2 = replace(TINY_STAGE1, steps=150, batch=12, learning_rate=5e-5, warmup=20)


def make_unet(config: dict[str, Any]) -> Any:
    from diffusers import UNet2DConditionModel

    unet: Any = UNet2DConditionModel(**config)
    fold_views(unet)
    if config["in_channels"] > config["out_channels"]:
        unet.sketch = Sketch(config["encoder_hid_dim"] // HARMONICS, **SKETCH).requires_grad_(False)
    return unet


class MultiViewTraining(nn.Module):
    """The denoising loss (Eq. 5), or with ``explicit_attention`` Eq. 6.

    The sketch network, trained with CLIP, stays as it is. Forward takes {"latents": [B, V, C, h, w] scaled,
    "cameras": [B, V, 16], "embedding": [B, 1, D]} and, for Eq. 6, {"reference": [B, C, h, w] scaled}.
    """

    unet: Any  # diffusers' UNet2DConditionModel, with its sketch network

    def __init__(self, unet: Any, schedule: dict, explicit_attention: bool = False) -> None:
        super().__init__()
        from diffusers import DDIMScheduler

        self.unet, self.explicit_attention = unet, explicit_attention
        self.scheduler: Any = DDIMScheduler(**schedule)

    def networks(self) -> list[nn.Module]:
        return [self.unet]

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        z, cameras = batch["latents"], batch["cameras"]
        keep = torch.rand(len(z), 1, 1, device=z.device) >= DROPOUT
        embedding = batch["embedding"] * keep
        t = torch.randint(self.scheduler.config.num_train_timesteps, (len(z),), device=z.device)
        noise = torch.randn_like(z)
        noisy = self.scheduler.add_noise(z, noise, t)
        target = (
            noise if self.scheduler.config.prediction_type == "epsilon" else self.scheduler.get_velocity(z, noise, t)
        )
        t = t[:, None].expand(z.shape[:2])
        if self.explicit_attention:
            noisy, t, cameras = with_reference(noisy, t, cameras, batch["reference"])
        guess = guess_views(self.unet, embedding, cameras)
        out = predict(self.unet, noisy, t, embedding, cameras, guess)[:, -z.shape[1] :]
        return {"loss": F.mse_loss(out.float(), target)}


def with_reference(noisy: Tensor, t: Tensor, cameras: Tensor, reference: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Put the noise-free reference frame first: latent as it is, t = 0, camera (0, 0) (Eq. 4 and 6)."""
    camera = unit_sphere_matrix(orbit(0.0, 0.0)).to(cameras)  # [1, 16]
    return (
        torch.cat([reference[:, None], noisy], dim=1),
        torch.cat([torch.zeros_like(t[:, :1]), t], dim=1),
        torch.cat([camera.expand(len(cameras), 1, 16), cameras], dim=1),
    )


class LatentSet:
    """Latents and poses of a training set, ready to be drawn into batches.

    targets [N, 12, C, h, w] and references [N, 4, C, h, w] scaled latents; embeddings [N, 4, D]
    """

    def __init__(self, views: ViewSet, targets: Tensor, references: Tensor, embeddings: Tensor) -> None:
        self.targets, self.references, self.embeddings = targets, references, embeddings
        self.azimuth, self.elevation = views.azimuth, views.elevation

    def batch(self, rng: np.random.Generator, size: int) -> Batch:
        """``size`` objects with 4 views, four times as many with one, or half as many with 8: the same work."""
        kind = rng.random()
        single, double = kind < SINGLE_VIEW, kind > 1 - TWO_ORBITS and size > 1
        items = rng.integers(len(self.targets), size=size * GROUP_VIEWS if single else size // (2 if double else 1))
        reference = rng.integers(REFERENCES, size=len(items))
        if single:
            columns = rng.integers(TARGETS, size=(len(items), 1))
        else:
            groups = rng.permuted(np.tile(np.arange(GROUPS), (len(items), 1)), axis=1)[:, : 2 if double else 1]
            columns = (groups[:, :, None] * GROUP_VIEWS + np.arange(GROUP_VIEWS)).reshape(len(items), -1)
        rows = items[:, None]
        cameras = relative_cameras(
            self.azimuth[rows, columns],
            self.elevation[rows, columns],
            self.azimuth[items, TARGETS + reference][:, None],
        )
        return {
            "latents": self.targets[rows, columns].float(),
            "cameras": unit_sphere_matrix(cameras).reshape(*columns.shape, 16),
            "reference": self.references[items, reference].float(),
            "embedding": self.embeddings[items, reference][:, None].float(),
        }


def train_views(
    latents: LatentSet, config: TrainConfig, folder: Path, model: MultiViewTraining, sample=None
) -> dict[str, float]:
    """Train ``model``; it then holds the averaged weights. Returns final losses and hours."""
    return train(model, lambda rng: latents.batch(rng, config.batch), config, folder, sample)
