"""The depth-conditioned prior: Stable Diffusion 2 depth's layout, and the embedded bundle's small one.

The UNet takes one more channel than the latents have: the depth of the view at the latents' size. It also takes a
text, and keys and values of another image (`injection`), which is what HiFi-123's RGNV steers it with.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..types import InputError
from ..weights import Bundle, find_bundle
from .base import UNREADABLE, LatentPrior, cannot_load, choose_arithmetic, load_part
from .clip import ClipText
from .guess import ReferenceDepth
from .injection import share_attention

# Of the public code: the last four self-attention layers of SD 2's UNet, from the fifth of 50 steps on.
INJECTED = ("up_blocks.2.attentions.2", "up_blocks.3")


@dataclass(frozen=True)
class DepthCondition:
    """What the UNet is told: depth [V, 1, h, w] in [-1, 1], and text [H, tokens, D], without a prompt first.

    H is 2 with classifier-free guidance, else 1.
    """

    depth: Tensor
    text: Tensor


class DepthPrior(LatentPrior):
    """A bundle's depth-conditioned UNet with its text tower and VAE, frozen.

    guess : how near things are in a reference, where the bundle has a sketch to tell it
    """

    def __init__(self, text: ClipText, vae: nn.Module, unet: nn.Module, scheduler: Any, info: dict[str, Any]) -> None:
        super().__init__(vae, unet, scheduler, info)
        self.text = text
        self.guess: ReferenceDepth | None = None
        self.injection = share_attention(unet, info.get("injected_layers", INJECTED))
        self.requires_grad_(False).eval()

    @staticmethod
    def load(bundle: str | Path | Bundle = "tiny", device: str = "auto", precision: str = "auto") -> DepthPrior:
        """Read a bundle's depth part by name or folder; ``device`` and ``precision`` as `MultiViewPrior.load`.

        Raises InputError when the bundle is unknown, lacks a part, or its files do not fit.
        """
        if not isinstance(bundle, Bundle):
            bundle = find_bundle(bundle)
        if not (bundle.folder / "depth").is_dir():
            raise InputError(
                f"bundle {bundle.name!r} has no depth-conditioned prior; use the embedded bundle tiny, or sd-depth "
                "(`iso3d models pull sd-depth`)"
            )
        device, dtype = choose_arithmetic(device, precision)
        try:
            text, guess = ClipText.load(bundle.part("text")), ReferenceDepth.load(bundle.folder)
        except UNREADABLE as error:
            raise cannot_load(bundle, error) from error
        prior = DepthPrior(text, *load_part(bundle, "depth", dtype), bundle.info)
        prior.guess = None if guess is None else guess.requires_grad_(False).eval()
        return prior.place(device, precision)

    def depth_map(self, depth: Tensor) -> Tensor:
        """Nearness [V, 1, H, W], bright is near and 0 where nothing is, of any scale -> [V, 1, h, w] in [-1, 1].

        Each is mapped to its own range (HiFi-123's code: 2 (d - min) / (max - min + 1e-3) - 1) and made as small as
        the latents.
        """
        depth = depth.float()
        low, high = depth.amin(dim=(1, 2, 3), keepdim=True), depth.amax(dim=(1, 2, 3), keepdim=True)
        scaled = (depth - low) / (high - low + 1e-3) * 2 - 1
        size = self.info["latent_size"]
        return F.interpolate(scaled, (size, size), mode="bicubic", antialias=True).clamp(-1, 1).to(self.device)

    def condition(self, depth: Tensor, prompts: Sequence[str] = ("",)) -> DepthCondition:
        """depth : as `depth_map` takes it; prompts : one, or with guidance two, the unconditional one first."""
        return DepthCondition(self.depth_map(depth), self.text(list(prompts)))

    @torch.no_grad()
    def predict_noise(self, z_t: Tensor, t: int | Tensor, condition: DepthCondition, guidance_scale: float) -> Tensor:
        """Noise [V, C, h, w] float32 of latents z_t at the one timestep t in 0..999.

        With two texts: u + guidance_scale * (c - u). The views are independent of each other.
        """
        halves = len(condition.text)
        dtype = self._autocast or torch.float32
        z = torch.cat([z_t, condition.depth.expand(len(z_t), -1, -1, -1)], dim=1).repeat(halves, 1, 1, 1)
        text = condition.text.repeat_interleave(len(z_t), dim=0)
        out = self.unet(z.to(dtype), int(t), encoder_hidden_states=text.to(dtype)).sample.float()
        out = self.to_noise(out, z_t.repeat(halves, 1, 1, 1), t)
        if halves == 1:
            return out
        without, given = out.chunk(2)
        return without + guidance_scale * (given - without)
