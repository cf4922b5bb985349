"""Zero-1-to-3: novel views from an image and a relative pose (Liu et al. 2023), the 3D prior of two of the papers.

The UNet sees the reference's latent beside the noisy one and, by cross-attention, one token: the CLIP embedding and
the pose through ``cc_projection``. Every view is independent of the others. The embedded one, which is small, also gets
a first guess of the view (`sketch`): from a token alone it does not learn within hours what turning an object does.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..cameras import Cameras, unit_sphere_matrix
from ..types import InputError, Reference
from ..weights import Bundle, find_bundle
from .attention import guess_views
from .base import UNREADABLE, LatentPrior, cannot_load, choose_arithmetic, ddim, load_part
from .clip import ClipImage, load_shards
from .sketch import Sketch


@dataclass(frozen=True)
class Source:
    """What the prior keeps of a reference: its embedding [1, 1, D], its latent [1, C, h, w] unscaled, its elevation."""

    embedding: Tensor
    latent: Tensor
    elevation_deg: float = 0.0


@dataclass(frozen=True)
class PoseCondition:
    """What the UNet is told of V views: context [V, 1, W], the reference's latent [1, C, h, w] and, where there is a
    sketch network, its guesses [2, V, G, h, w], the first without the embedding."""

    context: Tensor
    latent: Tensor
    guess: Tensor | None = None


class Zero123Prior(LatentPrior):
    """A bundle's Zero-1-to-3 UNet with its projection, CLIP image tower and VAE, frozen."""

    def __init__(
        self, clip: ClipImage, projection: nn.Linear, vae: nn.Module, unet: nn.Module, scheduler: Any,
        info: dict[str, Any],
    ) -> None:  # fmt: skip
        super().__init__(vae, unet, scheduler, info)
        self.clip, self.projection = clip, projection
        self.requires_grad_(False).eval()

    @staticmethod
    def load(bundle: str | Path | Bundle = "tiny", device: str = "auto", precision: str = "auto") -> Zero123Prior:
        """Read a bundle's zero123 part by name or folder; ``device`` and ``precision`` as `MultiViewPrior.load`.

        Raises InputError when the bundle is unknown, lacks a part, or its files do not fit.
        """
        if not isinstance(bundle, Bundle):
            bundle = find_bundle(bundle)
        if not (bundle.folder / "zero123").is_dir():
            raise InputError(
                f"bundle {bundle.name!r} has no Zero-1-to-3 prior; use the embedded bundle tiny, or zero123 "
                "(`iso3d models pull zero123`)"
            )
        device, dtype = choose_arithmetic(device, precision)
        try:
            clip = ClipImage.load(bundle.part("clip"))
            weights = load_shards(bundle.part("cc_projection"), "model")
            projection = nn.Linear(weights["weight"].shape[1], weights["weight"].shape[0])
            projection.load_state_dict({name: value.float() for name, value in weights.items()})
            vae, unet, scheduler = load_part(bundle, "zero123", dtype)
            if unet.config.in_channels > 2 * unet.config.out_channels:
                unet.sketch = Sketch.load(bundle.part("sketch")).to(dtype)
        except UNREADABLE as error:
            raise cannot_load(bundle, error) from error
        return Zero123Prior(clip, projection, vae, unet, scheduler, bundle.info).place(device, precision)

    @torch.no_grad()
    def see(self, reference: Reference, elevation_deg: float = 0.0) -> Source:
        """All that it keeps of the reference, seen from ``elevation_deg`` above the horizon, at azimuth 0."""
        latent = self.encode(reference.on_white()[None].to(self.device)) / self.info["latent_scale"]
        return Source(self.clip.embed(reference), latent, elevation_deg)

    def condition(self, source: Source, cameras: Cameras) -> PoseCondition:
        """The views of V cameras, the reference at azimuth 0."""
        distance = self.info.get("camera", {}).get("distance")
        pose = relative_pose(cameras, source.elevation_deg, distance).to(self.device)
        embedding = source.embedding.to(self.device)
        with torch.no_grad():
            both = torch.cat([torch.zeros_like(embedding), embedding])
            views = unit_sphere_matrix(cameras).to(self.device).expand(2, -1, -1)
            guess = guess_views(self.unet, both, views, latents=2)
        return PoseCondition(project_pose(self.projection, embedding, pose), source.latent, guess)

    @torch.no_grad()
    def predict_noise(self, z_t: Tensor, t: int | Tensor, condition: PoseCondition, guidance_scale: float) -> Tensor:
        """Noise [V, C, h, w] float32 of latents z_t at the one timestep t in 0..999.

        u + guidance_scale * (c - u), u being without the token and without the latent (both zeros).
        """
        context, latent, guess = condition.context, condition.latent.expand_as(z_t), condition.guess
        z, halves = z_t, guidance_scale != 1.0
        if halves:
            context = torch.cat([torch.zeros_like(context), context])
            latent, z = torch.cat([torch.zeros_like(latent), latent]), z_t.repeat(2, 1, 1, 1)
        dtype = self._autocast or torch.float32
        parts = [z, latent] if guess is None else [z, latent, guess.flatten(0, 1) if halves else guess[1]]
        given = torch.cat([part.to(dtype) for part in parts], dim=1)
        out = self.to_noise(self.unet(given, int(t), encoder_hidden_states=context.to(dtype)).sample.float(), z, t)
        if not halves:
            return out
        without, conditional = out.chunk(2)
        return without + guidance_scale * (conditional - without)

    @torch.no_grad()
    def sample(
        self,
        source: Source,
        cameras: Cameras,
        steps: int = 25,
        guidance_scale: float | None = None,
        seed: int = 0,
        on_step: Callable[[int, int, Tensor], None] | None = None,
    ) -> Tensor:
        """Views by DDIM (eta 0): [V, 3, H, W] in [0, 1]; on_step : as in `sample_latents`."""
        return self.decode(self.sample_latents(source, cameras, steps, guidance_scale, seed, on_step))

    @torch.no_grad()
    def sample_latents(
        self,
        source: Source,
        cameras: Cameras,
        steps: int = 25,
        guidance_scale: float | None = None,
        seed: int = 0,
        on_step: Callable[[int, int, Tensor], None] | None = None,
    ) -> Tensor:
        """As `sample`, the scaled latents [V, C, h, w].

        on_step : called after each step with (step, steps, latents); it may raise to stop
        """
        scale = self.info.get("zero123_guidance_scale", 3.0) if guidance_scale is None else guidance_scale
        condition = self.condition(source, cameras)
        # One noise for all views: they are drawn apart, and it is all that can make them alike.
        shape = (1, *source.latent.shape[1:])
        z = torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(self.device)
        z = z.expand(len(cameras), -1, -1, -1)
        return ddim(self, lambda z_t, t: self.predict_noise(z_t, t, condition, scale), z, steps, on_step)


def relative_pose(cameras: Cameras, elevation_deg: float, distance: float | None = None) -> Tensor:
    """[V, 4]: difference of the polar angles in radians, sine and cosine of that of the azimuths, of the distances.

    cameras : the views, the reference being at azimuth 0 and ``elevation_deg``; distance : the reference's own, None
    means that it is the views'
    """
    radius = cameras.positions.norm(dim=-1)
    x, y, z = F.normalize(cameras.positions, dim=-1).unbind(-1)
    azimuth, elevation = torch.atan2(y, x), torch.asin(z.clamp(-1, 1))
    polar = torch.deg2rad(torch.tensor(elevation_deg)).to(elevation) - elevation  # from the vertical, so it shrinks
    further = torch.zeros_like(radius) if distance is None else radius - distance
    return torch.stack([polar, azimuth.sin(), azimuth.cos(), further], dim=-1)


def project_pose(projection: nn.Linear, embedding: Tensor, pose: Tensor) -> Tensor:
    """``cc_projection`` of embeddings [1 or V, 1, D] beside poses [V, 4]: the token [V, 1, W]."""
    return projection(torch.cat([embedding.float().expand(len(pose), -1, -1), pose.float()[:, None]], dim=-1))
