"""Train CLIP: an open_clip model, contrastive on renders and captions, with a view-predicting auxiliary loss.

Other objects are easy negatives, so the viewing direction would never be needed to tell images apart: each batch
holds four directions of every object, and captions name the direction. A small decoder, thrown away afterwards,
predicts the VAE latent of another view from (embedding, camera): what novel-view diffusion needs, the embedding keeps.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..cameras import unit_sphere_matrix
from ..priors.attention import steer
from ..priors.clip import WordTokenizer, make_clip
from .data import REFERENCES, TARGETS, ViewSet, relative_cameras
from .loop import Batch, TrainConfig, train
from .vae import to_rgb

MEAN = STD = [0.5, 0.5, 0.5]
CONTEXT = 40
VIEWS_EACH = 1


def tiny_config(vocab_size: int) -> dict:
    return {
        "embed_dim": 256,
        "vision_cfg": {"image_size": 64, "patch_size": 16, "width": 192, "layers": 4, "head_width": 64},
        "text_cfg": {"context_length": CONTEXT, "vocab_size": vocab_size, "width": 96, "heads": 3, "layers": 2},
    }


def vocabulary(captions: Sequence[Sequence[str]]) -> list[str]:
    """Every word of the captions, most frequent first."""
    from collections import Counter

    counts = Counter(word for rows in captions for text in rows for word in WordTokenizer.split(text))
    return [word for word, _ in counts.most_common()]


class ViewDecoder(nn.Module):
    """(embedding [B, D], cameras [B, 16]) -> latents [B, C, 16, 16]."""

    def __init__(self, dim: int, channels: int) -> None:
        super().__init__()
        self.first = nn.Linear(dim * 9, 128 * 16)
        self.body = nn.Sequential(
            nn.GroupNorm(8, 128), nn.SiLU(), nn.Upsample(scale_factor=2), nn.Conv2d(128, 128, 3, padding=1),
            nn.GroupNorm(8, 128), nn.SiLU(), nn.Upsample(scale_factor=2), nn.Conv2d(128, 64, 3, padding=1),
            nn.GroupNorm(8, 64), nn.SiLU(), nn.Conv2d(64, channels, 3, padding=1),
        )  # fmt: skip

    def forward(self, embedding: Tensor, cameras: Tensor) -> Tensor:
        x = self.first(steer(embedding[:, None], cameras)[:, 0]).unflatten(-1, (128, 4, 4))
        return self.body(x)


class ClipTraining(nn.Module):
    """Contrastive loss plus ``view_weight`` times the view-predicting loss.

    Forward takes {"rgb": [B, 3, S, S] in 0..1, "tokens": [B, L], "seen_from": [B, K, 16], "seen": [B, K, C, h, w]},
    the last two being other views of the same objects.
    """

    clip: Any  # open_clip.CLIP

    def __init__(self, config: dict, latent_channels: int, view_weight: float = 2.0) -> None:
        super().__init__()
        self.clip = make_clip(config)
        self.decoder = ViewDecoder(config["embed_dim"], latent_channels)
        self.view_weight = view_weight

    def networks(self) -> list[nn.Module]:
        return [self.clip.visual, self.decoder]

    def embed(self, rgb: Tensor) -> Tensor:
        """[B, 3, S, S] in 0..1 -> [B, D] of length sqrt(D)."""
        out = self.clip.visual((rgb - 0.5) / 0.5)
        return F.normalize(out.float(), dim=-1) * out.shape[-1] ** 0.5

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        return self.losses(self.embed(batch["rgb"]), batch)

    def losses(self, image: Tensor, batch: Batch) -> dict[str, Tensor]:
        """The losses of embeddings [B, D] that were already computed from the batch."""
        text = F.normalize(self.clip.encode_text(batch["tokens"]).float(), dim=-1)
        logits = self.clip.logit_scale.exp().clamp(max=100) * image / image.shape[-1] ** 0.5 @ text.T
        label = torch.arange(len(logits), device=logits.device)
        contrast = (F.cross_entropy(logits, label) + F.cross_entropy(logits.T, label)) / 2
        k = batch["seen_from"].shape[1]
        predicted = self.decoder(image.repeat_interleave(k, dim=0), batch["seen_from"].flatten(0, 1))
        view = F.mse_loss(predicted.float(), batch["seen"].flatten(0, 1))
        top1 = (logits.argmax(dim=1) == label).float().mean()
        return {
            "loss": contrast + self.view_weight * view,
            "contrast": contrast.detach(),
            "view": view.detach(),
            "top1": top1,
        }


class ReferenceSet:
    """References, captions and other views of a training set, drawn into batches for `ClipTraining`.

    latents : the scaled target latents [N, 12, C, h, w]
    """

    def __init__(self, views: ViewSet, latents: Tensor, tokenizer: WordTokenizer) -> None:
        self.views, self.latents, self.tokenizer = views, latents, tokenizer

    def batch(self, rng: np.random.Generator, items: np.ndarray, reference: np.ndarray) -> Batch:
        """Reference number ``reference`` of each of ``items``, both [B], with VIEWS_EACH other views of each."""
        views = self.views
        target = rng.integers(TARGETS, size=(len(items), VIEWS_EACH))
        rows = items[:, None]
        cameras = relative_cameras(
            views.azimuth[rows, target],
            views.elevation[rows, target],
            views.azimuth[items, TARGETS + reference][:, None],
        )
        return {
            "rgb": to_rgb(np.stack([views.references[i, j] for i, j in zip(items, reference, strict=True)])),
            "tokens": self.tokenizer([views.captions[i][j] for i, j in zip(items, reference, strict=True)]),
            "seen_from": unit_sphere_matrix(cameras).reshape(*target.shape, 16),
            "seen": self.latents[rows, target].float(),
        }

    def all_references(self, rng: np.random.Generator, size: int) -> Batch:
        """``size`` images: all four references, four directions, of size / 4 objects."""
        items = np.repeat(rng.integers(len(self.views), size=size // REFERENCES), REFERENCES)
        return self.batch(rng, items, np.tile(np.arange(REFERENCES), size // REFERENCES))


def train_clip(data: ReferenceSet, config: TrainConfig, folder: Path, model: ClipTraining) -> dict[str, float]:
    """Train ``model``; it then holds the averaged weights."""
    return train(model, lambda rng: data.all_references(rng, config.batch), config, folder)


@torch.no_grad()
def embed_all(model: ClipTraining, images: np.ndarray, batch: int = 512) -> Tensor:
    """uint8 [N, R, S, S, 3] -> embeddings [N, R, D] fp16."""
    flat = images.reshape(-1, *images.shape[2:])
    device = next(model.parameters()).device
    with torch.autocast(device.type, torch.bfloat16):
        rows = range(0, len(flat), batch)
        out = [model.embed(to_rgb(flat[i : i + batch]).to(device)).half().cpu() for i in rows]
    return torch.cat(out).reshape(*images.shape[:2], -1)
