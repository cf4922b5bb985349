"""The multi-view diffusion prior of Isotropic3D: embed an image, sample views, predict noise."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..cameras import Cameras, mvdream_camera, unit_sphere_matrix
from ..types import InputError, Reference
from ..weights import Bundle, find_bundle
from .attention import HARMONICS, fold_views, guess_views, predict
from .base import UNREADABLE, LatentPrior, cannot_load, choose_arithmetic, ddim, load_part, load_quick_vae
from .clip import ClipImage
from .guess import fit_reference, sketched_front, sketched_nearness
from .sketch import SIDE, Sketch

ELEVATIONS = (-5.0, 10.0, 25.0, 38.0)


def triangle(below: Tensor) -> Tensor:
    """The lower triangular matrix [D, D] of its numbers on and below the diagonal, row by row."""
    side = round((2 * len(below) + 0.25) ** 0.5 - 0.5)
    whole = below.new_zeros(side, side)
    whole[*torch.tril_indices(side, side)] = below
    return whole


@dataclass(frozen=True)
class Condition:
    """What the UNet is told: embedding [1, 1, D], cameras [V, 16] and, where there is a sketch network, its guesses.

    guess : [2, V, 4, h, w], the first without the embedding, for classifier-free guidance
    """

    embedding: Tensor
    cameras: Tensor
    guess: Tensor | None = None


class MultiViewPrior(LatentPrior):
    """A bundle's CLIP image tower, VAE and multi-view UNet, frozen."""

    clip: ClipImage | None

    def __init__(
        self, clip: ClipImage | None, vae: nn.Module, unet: nn.Module, scheduler: Any, info: dict[str, Any]
    ) -> None:
        super().__init__(vae, unet, scheduler, info)
        self.clip = clip
        self.familiar: dict[str, Tensor] | None = None
        self.requires_grad_(False).eval()

    @staticmethod
    def load(bundle: str | Path | Bundle, device: str = "auto", precision: str = "auto") -> MultiViewPrior:
        """Read a bundle by name or folder onto ``device`` ("auto": CUDA, else CPU).

        precision : "auto" is bfloat16 where it is fast, "float32" the full one

        Raises InputError when the bundle is unknown, lacks a part, or its files do not fit.
        """
        from safetensors.torch import load_file

        if not isinstance(bundle, Bundle):
            bundle = find_bundle(bundle)
        device, dtype = choose_arithmetic(device, precision)
        try:
            clip = ClipImage.load(bundle.part("clip"))
        except UNREADABLE as error:
            raise cannot_load(bundle, error) from error
        vae, unet, scheduler = load_part(bundle, "multiview", dtype)
        fold_views(unet)
        prior = MultiViewPrior(clip, vae, unet, scheduler, bundle.info)
        seen = bundle.folder / "clip" / "familiar.safetensors"
        try:
            if (bundle.folder / "sketch").is_dir():
                unet.sketch = Sketch.load(bundle.folder / "sketch").to(dtype)
            prior.quick_vae = load_quick_vae(bundle)
            if seen.exists():
                prior.familiar = {name: value.float() for name, value in load_file(seen).items()}
                prior.familiar["whiten"] = triangle(prior.familiar["whiten"])
        except UNREADABLE as error:
            raise cannot_load(bundle, error) from error
        return prior.place(device, precision)

    # ---- the image ------------------------------------------------------------------------------

    def embed(self, reference: Reference) -> Tensor:
        """The reference's single CLIP embedding, [1, 1, D] float32."""
        if self.clip is None:
            raise InputError("the CLIP tower was freed; load the bundle again to embed another image")
        return self.clip.embed(reference)

    @property
    def embedding_width(self) -> int:
        """D of the [1, 1, D] embeddings the UNet takes."""
        config = self.unet.config
        return config.encoder_hid_dim // HARMONICS if config.encoder_hid_dim else config.cross_attention_dim

    @property
    def sketch(self) -> Sketch | None:
        """The UNet's sketch network; None where it has none."""
        return getattr(self.unet, "sketch", None)

    def free_clip(self) -> None:
        """Forget the CLIP tower: after the one embedding it is not needed."""
        self.clip = None

    def strangeness(self, embedding: Tensor) -> float | None:
        """Mahalanobis distance of the embedding's direction from those of the training set; None where unknown."""
        if self.familiar is None:
            return None
        direction = F.normalize(embedding.flatten().cpu().float(), dim=0)
        return float((self.familiar["whiten"] @ (direction - self.familiar["mean"])).norm())

    @torch.no_grad()
    def misfit(self, reference: Reference, embedding: Tensor) -> float | None:
        """Mean squared error between the reference and what its embedding says of that view; None without a sketch.

        The reference's elevation is not known, so the best of a few counts.
        """
        if self.sketch is None:
            return None
        sketched = sketched_front(self.sketch, embedding, ELEVATIONS, SIDE)
        seen = F.adaptive_avg_pool2d(reference.on_white()[None], SIDE).to(sketched)
        return float((sketched[:, :3] - seen).square().mean(dim=(1, 2, 3)).min())

    def guess_reference(self, reference: Reference, embedding: Tensor, size: int) -> tuple[float, Tensor] | None:
        """The reference's elevation in degrees and the object's mask [1, 1, size, size] as the bundle's camera would
        see it from there; None without a sketch. The elevation whose sketch is most like the reference counts."""
        if self.sketch is None:
            return None
        elevation, view = fit_reference(self.sketch, embedding, reference, size)
        return elevation, view[None, 3:].cpu()

    def guess_nearness(self, embedding: Tensor, cameras: Cameras, mask: Tensor) -> Tensor:
        """How near the embedded object is in V views whose masks are [V, 1, H, H]: [V, 1, H, H] on the CPU, 1 at the
        nearest point and 0 outside the masks, and where the sketch has nothing; the mask as flat nearness of views
        where it has nothing at all, or of all without a sketch.

        A sampled view's outline is a guess as well: enhanced, it comes nearer to the truth when it is told of the
        sketch's own outline (benchmarks/claims_hifi123.py).
        """
        mask = mask.cpu().float()
        if self.sketch is None:
            return mask
        near = sketched_nearness(self.sketch, embedding, self.camera_embedding(cameras), mask.shape[-1]) * (mask > 0.5)
        return torch.where(near.amax(dim=(1, 2, 3), keepdim=True) > 0, near, mask)

    @torch.no_grad()
    def guess_solid(self, embedding: Tensor) -> Tensor | None:
        """How likely the cells [z, y, x] of the cube [-1, 1]^3 are solid, as the sketch has it; None without one."""
        return (
            None if self.sketch is None else self.sketch.solid(embedding.to(self.device).reshape(1, 1, -1))[0].float()
        )

    def guess_color(self, embedding: Tensor) -> Tensor | None:
        """Base colors of those cells [3, z, y, x] in 0..1, as the sketch has them; None without one."""
        if self.sketch is None:
            return None
        with torch.no_grad():
            return self.sketch.color(embedding.to(self.device).reshape(1, 1, -1))[0].float()

    # ---- diffusion ------------------------------------------------------------------------------

    def camera_embedding(self, cameras: Cameras) -> Tensor:
        """[V, 16] on the prior's device, in the bundle's convention: `camera` of bundle.json.

        world : "mvdream" puts azimuth 0 on -Y, else it is on +X; angles : "degrees_converted_twice", else "degrees"
        """
        convention = self.info.get("camera", {})
        if convention.get("world") == "mvdream":
            cameras = mvdream_camera(cameras, convention.get("angles") == "degrees_converted_twice")
        return unit_sphere_matrix(cameras).to(self.device)

    def condition(self, embedding: Tensor, cameras: Cameras) -> Condition:
        """embedding [1, 1, D] and one group of V cameras."""
        embedding, views = embedding.to(self.device).float().reshape(1, 1, -1), self.camera_embedding(cameras)
        with torch.no_grad():
            both = torch.cat([torch.zeros_like(embedding), embedding])
            guess = guess_views(self.unet, both, views.expand(2, -1, -1))
        return Condition(embedding, views, guess)

    @torch.no_grad()
    def predict_noise(
        self, z_t: Tensor, t: int | Tensor, condition: Condition, guidance_scale: float
    ) -> tuple[Tensor, Tensor]:
        """Classifier-free guidance: (guided, conditional) noise, both [V, C, h, w] float32.

        guided = u + guidance_scale * (c - u), with zeros as the unconditional embedding; z_t is one group of V views
        at the same timestep t in 0..999.
        """
        v = len(z_t)
        embedding, cameras, z, guess = condition.embedding, condition.cameras[None], z_t[None], condition.guess
        if guidance_scale != 1.0:
            embedding = torch.cat([torch.zeros_like(embedding), embedding])
            cameras, z = cameras.expand(2, -1, -1), z.expand(2, -1, -1, -1, -1)
        elif guess is not None:
            guess = guess[1:]
        steps = torch.as_tensor(t, device=z.device).reshape(1, 1).expand(len(z), v)
        dtype = self._autocast or torch.float32
        out = predict(self.unet, z.to(dtype), steps, embedding.to(dtype), cameras.to(dtype), guess).float()
        out = self.to_noise(out, z, t)
        if guidance_scale == 1.0:
            return out[0], out[0]
        return out[0] + guidance_scale * (out[1] - out[0]), out[1]

    @torch.no_grad()
    def sample(
        self,
        embedding: Tensor,
        cameras: Cameras,
        steps: int = 25,
        guidance_scale: float | None = None,
        seed: int = 0,
        on_step: Callable[[int, int, Tensor], None] | None = None,
    ) -> Tensor:
        """Views of the embedded object by DDIM (eta 0): [V, 3, H, W] in [0, 1].

        on_step : as in `sample_latents`
        """
        return self.decode(self.sample_latents(embedding, cameras, steps, guidance_scale, seed, on_step))

    @torch.no_grad()
    def sample_latents(
        self,
        embedding: Tensor,
        cameras: Cameras,
        steps: int = 25,
        guidance_scale: float | None = None,
        seed: int = 0,
        on_step: Callable[[int, int, Tensor], None] | None = None,
    ) -> Tensor:
        """As `sample`, the scaled latents [V, C, h, w].

        on_step : called after each step with (step, steps, latents); it may raise to stop
        """
        scale = self.info.get("guidance_scale", 3.0) if guidance_scale is None else guidance_scale
        condition = self.condition(embedding, cameras)
        shape = (len(cameras), self.info["latent_channels"], self.info["latent_size"], self.info["latent_size"])
        z = torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(self.device)
        return ddim(self, lambda z_t, t: self.predict_noise(z_t, t, condition, scale)[0], z, steps, on_step)
