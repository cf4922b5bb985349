"""Train the depth-conditioned UNet: views of the world with their depth and captions, and pairs of views.

Half of the pairs are trained with RGNV's injection: the second image of a pair takes the keys and values of the
first, another view of the same object at the same noise level. Stable Diffusion's self-attention relates two images
of one object without ever having been trained to; a network of minutes must be shown.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..cameras import orbit
from ..images import center_crop
from ..near import nearness
from ..priors.clip import ClipText, WordTokenizer, make_clip
from ..priors.injection import share_attention
from .clip import ClipTraining, tiny_config
from .data import MARGIN, REFERENCES, TARGETS, ViewSet, draw_poses, reference_view
from .loop import Batch, TrainConfig, train
from .pool import one_core_each
from .vae import TINY as TINY_VAE
from .world import make_object

SIDE = 32  # pixels of the stored depth
FLAT, WITHOUT = 0.2, 0.3  # of the images, how many see their mask as flat depth, and how many no depth at all
NO_TEXT, INJECT = 0.35, 0.5
LAYERS = ("mid_block", "up_blocks")

TINY: dict[str, Any] = {
    "sample_size": 16,
    "in_channels": TINY_VAE["latent_channels"] + 1, "out_channels": TINY_VAE["latent_channels"],
    "cross_attention_dim": 96, "block_out_channels": (96, 128), "layers_per_block": 1, "norm_num_groups": 8,
    "attention_head_dim": (3, 4), "use_linear_projection": True,
    "down_block_types": ("CrossAttnDownBlock2D",) * 2, "up_block_types": ("CrossAttnUpBlock2D",) * 2,
}  # fmt: skip
TINY_DEPTH = TrainConfig(5_500, batch=16, learning_rate=8e-4, warmup=100, averaged_decay=0.9985)


def make_unet(config: dict[str, Any] = TINY) -> Any:
    from diffusers import UNet2DConditionModel

    unet: Any = UNet2DConditionModel(**config)
    return unet


class DepthTraining(nn.Module):
    """The denoising loss. Forward takes {"latents": [B, 2, C, h, w] scaled, "depth": [B, 2, 1, h, w] in [-1, 1] or 0
    for none, "text": [B, 2, L, D], "inject": bool}; the two images of a pair share their noise level.
    """

    unet: Any  # diffusers' UNet2DConditionModel

    def __init__(self, unet: Any, schedule: dict) -> None:
        super().__init__()
        from diffusers import DDIMScheduler

        self.unet, self.injection = unet, share_attention(unet, LAYERS)
        self.scheduler: Any = DDIMScheduler(**schedule)

    def networks(self) -> list[nn.Module]:
        return [self.unet]

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        # The first images of all pairs, then the second ones.
        z, depth, text = (batch[name].transpose(0, 1).flatten(0, 1) for name in ("latents", "depth", "text"))
        t = torch.randint(self.scheduler.config.num_train_timesteps, (len(z) // 2,), device=z.device).repeat(2)
        noise = torch.randn_like(z)
        noisy = self.scheduler.add_noise(z, noise, t)
        self.injection.mode = "pair" if batch["inject"] else "off"
        out = self.unet(torch.cat([noisy, depth], dim=1), t, encoder_hidden_states=text).sample
        self.injection.mode = "off"
        return {"loss": F.mse_loss(out.float(), self.scheduler.get_velocity(z, noise, t))}


class DepthSet:
    """Pairs of views of one object with depth and captions, drawn into batches for `DepthTraining`.

    latents [N, 16, C, h, w] scaled, references last; depth uint8 [N, 16, SIDE, SIDE]
    captions : N lists of 16; text : of CLIP
    """

    def __init__(self, latents: Tensor, depth: np.ndarray, captions: list[list[str]], text: ClipText) -> None:
        self.latents, self.depth, self.captions, self.text = latents, depth, captions, text

    def batch(self, rng: np.random.Generator, size: int) -> Batch:
        items = rng.integers(len(self.depth), size=size)[:, None]
        # The first is a reference as often as a view of the training camera; the second one is always the latter.
        first = np.where(
            rng.random(size) < 0.5, rng.integers(TARGETS, size=size), TARGETS + rng.integers(REFERENCES, size=size)
        )
        views = np.stack([first, rng.integers(TARGETS, size=size)], axis=1)
        words = [self.captions[i][j] if rng.random() > NO_TEXT else "" for i, j in self._pairs(items, views)]
        depth = torch.from_numpy(self.depth[items, views]).float()[:, :, None] / 255
        chance = torch.from_numpy(rng.random((size, 2, 1, 1, 1)))
        depth = torch.where(chance < FLAT, (depth > 0).float(), depth)
        side = self.latents.shape[-1]
        depth = F.interpolate(depth.flatten(0, 1), (side, side), mode="area").unflatten(0, (size, 2)) * 2 - 1
        text = self.text(words)
        return {
            "latents": self.latents[items, views].float(),
            "depth": torch.where(chance > 1 - WITHOUT, torch.zeros_like(depth), depth).float(),
            "text": text.unflatten(0, (size, 2)),
            "inject": bool(rng.random() < INJECT),
        }

    @staticmethod
    def _pairs(items: np.ndarray, views: np.ndarray) -> list[tuple[int, int]]:
        return [(int(i), int(j)) for i, row in zip(items[:, 0], views, strict=True) for j in row]


def render_depth(seed: int) -> tuple[np.ndarray, list[str]]:
    """Nearness of an object's 16 views, uint8 [16, SIDE, SIDE], and their captions; the views as in `data`."""
    obj, poses = make_object(seed), draw_poses(seed)
    views = [_near(obj, orbit(poses.azimuth[:TARGETS], poses.elevation[:TARGETS]), SIDE)]
    for i in range(TARGETS, TARGETS + REFERENCES):
        camera, _ = reference_view(poses.azimuth[i], poses.elevation[i], [seed, 5, i])
        near = _near(obj, camera, 4 * SIDE)[0]
        # Cropped as the image is: the crop follows the coverage alone.
        packed = np.stack([near, near, near, (near > 0).astype(np.float32)], axis=-1)
        cropped = center_crop(packed, SIDE, MARGIN)
        views.append((cropped[..., 0] * cropped[..., 3])[None])
    captions = [obj.caption(a, e) for a, e in zip(poses.azimuth, poses.elevation, strict=True)]
    return np.round(np.concatenate(views) * 255).astype(np.uint8), captions


def _near(obj: Any, cameras: Any, size: int) -> np.ndarray:
    seen = obj.render(cameras, size, antialias=1)
    distance, mask = (torch.from_numpy(x)[:, None] for x in (seen.depth, seen.rgba[..., 3]))
    return nearness(distance, mask)[:, 0].numpy()


def build(folder: Path, seeds: range, workers: int | None = None) -> None:
    """Render the depth of the objects ``seeds`` into ``folder`` (done once)."""
    from tqdm import tqdm

    done = folder / "captions.json"
    if done.exists() and json.loads(done.read_text())["seeds"] == [seeds.start, seeds.stop]:
        return
    folder.mkdir(parents=True, exist_ok=True)
    with one_core_each(workers) as pool:
        found = list(tqdm(pool.map(render_depth, seeds, chunksize=50), desc="depth", total=len(seeds)))
    np.save(folder / "depth.npy", np.stack([depth for depth, _ in found]))
    part = done.with_suffix(".part")
    part.write_text(json.dumps({"seeds": [seeds.start, seeds.stop], "captions": [words for _, words in found]}))
    os.replace(part, done)


def load_depth(folder: Path) -> tuple[np.ndarray, list[list[str]]]:
    return np.load(folder / "depth.npy"), json.loads((folder / "captions.json").read_text())["captions"]


def latents_of(views: ViewSet, latents: dict[str, Tensor]) -> Tensor:
    """Targets and references of a set side by side, [N, 16, C, h, w]."""
    if len(latents["targets"]) != len(views):
        raise ValueError("the latents are of another training set; run `iso3d train vae` again")
    return torch.cat([latents["targets"], latents["references"]], dim=1)


def text_tower(towers: ClipTraining, tokenizer: WordTokenizer) -> ClipText:
    """The text half of the trained CLIP."""
    clip = make_clip(tiny_config(tokenizer.vocab_size))
    del clip.visual, clip.logit_scale
    own = clip.state_dict().keys()
    clip.load_state_dict({name: value for name, value in towers.clip.state_dict().items() if name in own})
    return ClipText(clip, tokenizer)


def train_depth(data: DepthSet, config: TrainConfig, folder: Path, model: DepthTraining) -> dict[str, float]:
    """Train ``model``; it then holds the averaged weights."""
    return train(model, lambda rng: data.batch(rng, config.batch), config, folder)
