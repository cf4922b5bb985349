"""The multi-view diffusion prior of Isotropic3D: embed an image, sample views, predict noise.

Conventions of every prior: images [V, 3, H, W] in [0, 1], latents scaled to about unit variance, noise (epsilon)
predictions whatever the network was trained to predict.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..cameras import Cameras, mvdream_camera, orbit, unit_sphere_matrix
from ..types import InputError, Reference
from ..weights import Bundle, find_bundle, models_folder
from .attention import HARMONICS, fold_views, guess_views, predict
from .clip import ClipImage
from .sketch import Sketch

LARGE_BYTES = 500_000_000
ELEVATIONS = (-5.0, 10.0, 25.0, 38.0)


@dataclass(frozen=True)
class Condition:
    """What the UNet is told: embedding [1, 1, D], cameras [V, 16] and, where there is a sketch network, its guesses.

    guess : [2, V, 4, h, w], the first without the embedding, for classifier-free guidance
    """

    embedding: Tensor
    cameras: Tensor
    guess: Tensor | None = None


class MultiViewPrior(nn.Module):
    """A bundle's CLIP image tower, VAE and multi-view UNet, frozen."""

    clip: ClipImage | None
    vae: Any  # diffusers' AutoencoderKL
    unet: Any  # diffusers' UNet2DConditionModel
    alphas_cumprod: Tensor

    def __init__(
        self, clip: ClipImage | None, vae: nn.Module, unet: nn.Module, scheduler: Any, info: dict[str, Any]
    ) -> None:
        super().__init__()
        self.clip, self.vae, self.unet = clip, vae, unet
        self.scheduler, self.info = scheduler, info
        self.quick_vae: Any = None  # diffusers' AutoencoderTiny, its encoder alone
        self.familiar: dict[str, Tensor] | None = None
        self.requires_grad_(False).eval()
        self.register_buffer("alphas_cumprod", scheduler.alphas_cumprod.clone(), persistent=False)
        self._autocast: torch.dtype | None = None

    @staticmethod
    def load(bundle: str | Path | Bundle, device: str = "auto", precision: str = "auto") -> MultiViewPrior:
        """Read a bundle by name or folder onto ``device`` ("auto": CUDA, else CPU).

        precision : "auto" is bfloat16 where it is fast, "float32" the full one

        Raises InputError when the bundle is unknown, lacks a part, or its files do not fit.
        """
        from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
        from safetensors.torch import load_file

        if not isinstance(bundle, Bundle):
            bundle = find_bundle(bundle)
        device, dtype = choose_arithmetic(device, precision)
        # One network after the other; a large one is filled straight from its file, never held twice.
        options: dict[str, Any] = {"local_files_only": True, "low_cpu_mem_usage": bundle.size_bytes > LARGE_BYTES}
        try:
            clip = ClipImage.load(bundle.part("clip"))
            vae = AutoencoderKL.from_pretrained(bundle.part("vae"), torch_dtype=torch.float32, **options)
            unet = UNet2DConditionModel.from_pretrained(bundle.part("multiview"), torch_dtype=dtype, **options)
            scheduler = DDIMScheduler.from_config(
                json.loads((bundle.part("multiview") / "scheduler_config.json").read_text())
            )
        except (OSError, RuntimeError, KeyError, json.JSONDecodeError) as error:
            broken = ", ".join(bundle.broken_files()) or "none by checksum"
            raise InputError(f"bundle {bundle.name!r} cannot be loaded (damaged files: {broken}): {error}") from error
        fold_views(unet)
        if (bundle.folder / "sketch").is_dir():
            unet.sketch = Sketch.load(bundle.folder / "sketch").to(dtype)
        prior = MultiViewPrior(clip, vae, unet, scheduler, bundle.info)
        prior.quick_vae = load_quick_vae(bundle)
        seen = bundle.folder / "clip" / "familiar.safetensors"
        if seen.exists():
            prior.familiar = {name: value.float() for name, value in load_file(seen).items()}
        return prior.place(device, precision)

    def place(self, device: str = "auto", precision: str = "auto") -> MultiViewPrior:
        """Move to ``device`` and choose the arithmetic, as in `load`."""
        device, dtype = choose_arithmetic(device, precision)
        self.to(device)
        self._autocast = None if dtype == torch.float32 else dtype
        # On a CPU group normalisation is several times slower in channels_last than convolutions gain by it.
        layout = torch.channels_last if device.startswith("cuda") else torch.contiguous_format
        self.vae.to(memory_format=layout)
        # Module.to itself: diffusers' own warns about a list of exceptions that is empty here.
        nn.Module.to(self.unet, dtype).to(memory_format=layout)
        return self

    @property
    def device(self) -> torch.device:
        return self.alphas_cumprod.device

    def _precision(self) -> torch.autocast:
        return torch.autocast(self.device.type, self._autocast or torch.bfloat16, enabled=self._autocast is not None)

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

    def free_clip(self) -> None:
        """Forget the CLIP tower: after the one embedding it is not needed."""
        self.clip = None

    def free_decoder(self) -> None:
        """Forget the VAE's decoder: score distillation only encodes."""
        self.vae.decoder = self.vae.post_quant_conv = None

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
        sketch = getattr(self.unet, "sketch", None)
        if sketch is None:
            return None
        cameras = self.camera_embedding(orbit(torch.zeros(len(ELEVATIONS)), torch.tensor(ELEVATIONS)))
        guess = sketch(embedding.to(self.device), cameras[None])[0, :, :3]
        seen = F.adaptive_avg_pool2d(reference.on_white()[None], guess.shape[-1]).to(guess)
        return float((guess - seen).square().mean(dim=(1, 2, 3)).min())

    # ---- latents --------------------------------------------------------------------------------

    def encode(self, rgb: Tensor, quick: bool = False) -> Tensor:
        """[V, 3, H, W] in [0, 1] -> scaled latents [V, C, h, w] (the posterior's mean), differentiable.

        quick : by the small encoder (TAESD), where there is one; near enough for blurred renders, and much lighter
        """
        size = self.info["image_size"]
        if rgb.shape[-1] != size or rgb.shape[-2] != size:
            rgb = F.interpolate(rgb, (size, size), mode="bilinear", antialias=rgb.shape[-1] > size)
        if quick and self.quick_vae is not None:
            with self._precision():
                return self.quick_vae.encode(rgb * 2 - 1).latents.float()  # its latents are scaled already
        x = F.pixel_unshuffle(rgb * 2 - 1, self.info.get("pixel_unshuffle", 1))
        with self._precision():
            z = self.vae.encode(x).latent_dist.mode()
        return z.float() * self.info["latent_scale"]

    def decode(self, z: Tensor) -> Tensor:
        """Scaled latents [V, C, h, w] -> [V, 3, H, W] in [0, 1]."""
        return self._decode(z)[:, :3]

    def decode_with_mask(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """Scaled latents -> views [V, 3, H, W] and the object's masks [V, 1, H, W], both in [0, 1].

        A decoder with a fourth image channel gives the mask; else what is clearly not white is the object.
        """
        x = self._decode(z)
        return x[:, :3], x[:, 3:] if x.shape[1] == 4 else not_white(x)

    def _decode(self, z: Tensor) -> Tensor:
        with self._precision():
            x = self.vae.decode(z / self.info["latent_scale"]).sample
        return (F.pixel_shuffle(x.float(), self.info.get("pixel_unshuffle", 1)) / 2 + 0.5).clamp(0, 1)

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
        if self.scheduler.config.prediction_type == "v_prediction":
            abar = self.alphas_cumprod[int(t)]
            out = abar.sqrt() * out + (1 - abar).sqrt() * z
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
        if not 1 <= steps <= 1000:
            raise InputError(f"sampling steps must be 1 to 1000, got {steps}")
        scale = self.info.get("guidance_scale", 3.0) if guidance_scale is None else guidance_scale
        condition = self.condition(embedding, cameras)
        shape = (len(cameras), self.info["latent_channels"], self.info["latent_size"], self.info["latent_size"])
        z = torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(self.device)
        last = self.scheduler.config.num_train_timesteps - 1
        times = torch.linspace(last, 0, steps + 1).round().long()
        for i in range(steps):
            abar = self.alphas_cumprod[times[i]]
            after = self.alphas_cumprod[times[i + 1]] if i + 1 < steps else torch.ones_like(abar)
            noise, _ = self.predict_noise(z, times[i], condition, scale)
            x0 = (z - (1 - abar).sqrt() * noise) / abar.sqrt()
            z = after.sqrt() * x0 + (1 - after).sqrt() * noise
            if on_step:
                on_step(i + 1, steps, z)
        return z


def load_quick_vae(bundle: Bundle) -> Any:
    """The encoder of the small autoencoder that bundle.json names as ``quick_vae``, or None where it is not here."""
    from diffusers import AutoencoderTiny

    name = bundle.info.get("quick_vae")
    if name is None or not (folder := models_folder() / name / "taesd").is_dir():
        return None
    quick: Any = AutoencoderTiny.from_pretrained(folder, local_files_only=True)
    quick.decoder = None
    return quick.requires_grad_(False).eval()


def choose_arithmetic(device: str, precision: str) -> tuple[str, torch.dtype]:
    """The device that "auto" means here, and bfloat16 where it is fast, float32 elsewhere or when asked for."""
    if precision not in ("auto", "float32"):
        raise InputError(f"unknown precision {precision!r}; use auto or float32")
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    on_gpu = device.startswith("cuda")
    fast = torch.cuda.is_bf16_supported() if on_gpu else torch.ops.mkldnn._is_mkldnn_bf16_supported()
    return device, torch.bfloat16 if fast and precision == "auto" else torch.float32


def not_white(views: Tensor) -> Tensor:
    """[V, 3, H, W] on white -> soft mask [V, 1, H, W] in [0, 1]: a pixel clearly not white belongs to the object."""
    return ((1 - views).amax(dim=1, keepdim=True) / 0.08 - 0.4).clamp(0, 1)
