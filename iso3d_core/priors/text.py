"""The 2D text prior: Stable Diffusion 2.1-base's layout, or the embedded bundle's depth network with its depth dropped.

The embedded one was trained with depth left out of part of its images, so that without depth it is a text prior.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..types import InputError
from ..weights import Bundle, find_bundle
from .base import UNREADABLE, LatentPrior, cannot_load, choose_arithmetic, load_part
from .clip import ClipText


@dataclass(frozen=True)
class TextCondition:
    """What the UNet is told of V views: text [V, tokens, D], and no text [1, tokens, D]."""

    text: Tensor
    without: Tensor


class TextPrior(LatentPrior):
    """A bundle's text-conditioned UNet with its text tower and VAE, frozen."""

    def __init__(self, text: ClipText, vae: nn.Module, unet: nn.Module, scheduler: Any, info: dict[str, Any]) -> None:
        super().__init__(vae, unet, scheduler, info)
        self.text = text
        self.requires_grad_(False).eval()

    @staticmethod
    def load(bundle: str | Path | Bundle = "tiny", device: str = "auto", precision: str = "auto") -> TextPrior:
        """Read a bundle's part text2d, or its part depth; ``device`` and ``precision`` as `MultiViewPrior.load`.

        Raises InputError when the bundle is unknown, has neither part, or its files do not fit.
        """
        if not isinstance(bundle, Bundle):
            bundle = find_bundle(bundle)
        part = next((name for name in ("text2d", "depth") if (bundle.folder / name).is_dir()), None)
        if part is None:
            raise InputError(
                f"bundle {bundle.name!r} has no 2D text prior; use the embedded bundle tiny, or sd-text "
                "(`iso3d models pull sd-text`)"
            )
        device, dtype = choose_arithmetic(device, precision)
        try:
            text = ClipText.load(bundle.part("text"))
        except UNREADABLE as error:
            raise cannot_load(bundle, error) from error
        return TextPrior(text, *load_part(bundle, part, dtype), bundle.info).place(device, precision)

    def condition(self, prompts: Sequence[str]) -> TextCondition:
        """prompts : one for each view"""
        return TextCondition(self.text(list(prompts)), self.text([""]))

    @torch.no_grad()
    def predict_noise(self, z_t: Tensor, t: int | Tensor, condition: TextCondition, guidance_scale: float) -> Tensor:
        """Noise [V, C, h, w] float32 of latents z_t at the one timestep t in 0..999: u + guidance_scale * (c - u)."""
        dtype, views = self._autocast or torch.float32, len(z_t)
        z, text = z_t, condition.text.expand(views, -1, -1)
        if guidance_scale != 1.0:
            z, text = z_t.repeat(2, 1, 1, 1), torch.cat([condition.without.expand(views, -1, -1), text])
        more = self.unet.config.in_channels - z.shape[1]
        given = torch.cat([z, z.new_zeros(len(z), more, *z.shape[2:])], dim=1)  # no depth is known
        out = self.unet(given.to(dtype), int(t), encoder_hidden_states=text.to(dtype)).sample.float()
        out = self.to_noise(out, z, t)
        if guidance_scale == 1.0:
            return out
        without, conditional = out.chunk(2)
        return without + guidance_scale * (conditional - without)
