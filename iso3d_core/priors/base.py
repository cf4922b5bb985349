"""What every prior shares: a VAE, a UNet, a noise schedule, and where and in which arithmetic they run.

Conventions: images [V, 3, H, W] in [0, 1], latents scaled to about unit variance, noise (epsilon) predictions
whatever the network was trained to predict.
"""

from __future__ import annotations

import json
import platform
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, Self

import torch
from safetensors import SafetensorError
from torch import Tensor, nn
from torch.nn import functional as F

from ..types import InputError
from ..weights import Bundle, pulled
from .attention import is_unread
from .clip import load_shards, stored_shapes

LARGE_BYTES = 500_000_000
WEIGHTS = "diffusion_pytorch_model"
# What reading the damaged files of a bundle raises.
UNREADABLE = (OSError, RuntimeError, KeyError, TypeError, SafetensorError, json.JSONDecodeError)
LISTEN_SECONDS = 0.2
X86 = ("x86_64", "amd64")


class LatentPrior(nn.Module):
    """A frozen latent diffusion model: VAE, UNet and schedule.

    info : the bundle's bundle.json
    """

    vae: Any  # diffusers' AutoencoderKL
    unet: Any  # diffusers' UNet2DConditionModel
    alphas_cumprod: Tensor

    def __init__(self, vae: nn.Module, unet: nn.Module, scheduler: Any, info: dict[str, Any]) -> None:
        super().__init__()
        self.vae, self.unet, self.scheduler, self.info = vae, unet, scheduler, info
        self.quick_vae: Any = None  # diffusers' AutoencoderTiny, its encoder alone
        self.register_buffer("alphas_cumprod", scheduler.alphas_cumprod.clone(), persistent=False)
        self._autocast: torch.dtype | None = None

    def place(self, device: str = "auto", precision: str = "auto") -> Self:
        """Move to ``device`` and choose the arithmetic, as `choose_arithmetic` does."""
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

    def free_decoder(self) -> None:
        """Forget the VAE's decoder: score distillation only encodes."""
        self.vae.decoder = self.vae.post_quant_conv = None

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

    # ---- the schedule ---------------------------------------------------------------------------

    def times(self, steps: int) -> Tensor:
        """The timesteps of a DDIM run, noisiest first, and 0 as the last: [steps + 1] int64.

        Raises InputError unless steps is 1 to 1000.
        """
        if not 1 <= steps <= 1000:
            raise InputError(f"sampling steps must be 1 to 1000, got {steps}")
        return torch.linspace(self.scheduler.config.num_train_timesteps - 1, 0, steps + 1).round().long()

    def to_noise(self, out: Tensor, z_t: Tensor, t: int | Tensor) -> Tensor:
        """The network's output as predicted noise."""
        if self.scheduler.config.prediction_type == "v_prediction":
            abar = self.alphas_cumprod[int(t)]
            return abar.sqrt() * out + (1 - abar).sqrt() * z_t
        return out


@torch.no_grad()
def ddim(
    prior: LatentPrior, predict: Callable[[Tensor, Tensor], Tensor], z: Tensor, steps: int,
    on_step: Callable[[int, int, Tensor], None] | None = None,
) -> Tensor:  # fmt: skip
    """Sample by DDIM (eta 0) from noise z [V, C, h, w]; predict : (z_t, t) -> noise.

    on_step : called after each step with (step, steps, latents), and again with the same ones in a step that takes
        long; it may raise to stop
    """
    times = prior.times(steps)
    for i in range(steps):
        abar = prior.alphas_cumprod[times[i]]
        after = prior.alphas_cumprod[times[i + 1]] if i + 1 < steps else torch.ones_like(abar)
        with listening(prior.unet, partial(on_step, i, steps, z) if on_step else None):
            noise = predict(z, times[i])
        z = move(z, noise, abar, after)
        if on_step:
            on_step(i + 1, steps, z)
    return z


@contextmanager
def listening(network: nn.Module, ask: Callable[[], None] | None) -> Iterator[None]:
    """Within, ``ask`` is called between the layers of the network's passes, every `LISTEN_SECONDS`: a pass over many
    views takes seconds on a CPU, and whoever wants it stopped should not wait for its end."""
    asked = time.monotonic()

    def before_layer(_layer: nn.Module, _inputs: tuple) -> None:
        nonlocal asked
        if ask is not None and time.monotonic() - asked >= LISTEN_SECONDS:
            ask()
            asked = time.monotonic()

    layers = [] if ask is None else [module for module in network.modules() if next(module.children(), None) is None]
    hooks = [layer.register_forward_pre_hook(before_layer) for layer in layers]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def move(z: Tensor, noise: Tensor, abar_from: Tensor, abar_to: Tensor) -> Tensor:
    """One deterministic DDIM step (Song et al. 2021, Eq. 12 with eta 0) between noise levels, in either direction."""
    x0 = (z - (1 - abar_from).sqrt() * noise) / abar_from.sqrt()
    return abar_to.sqrt() * x0 + (1 - abar_to).sqrt() * noise


def load_quick_vae(bundle: Bundle) -> Any:
    """The encoder of the small autoencoder that bundle.json names as ``quick_vae``, or None where it is not here."""
    from diffusers import AutoencoderTiny

    name = bundle.info.get("quick_vae")
    folder = None if name is None else pulled(name, "taesd")
    if folder is None:
        return None
    quick: Any = AutoencoderTiny.from_pretrained(folder, local_files_only=True)
    quick.decoder = None
    return quick.requires_grad_(False).eval()


def choose_arithmetic(device: str, precision: str) -> tuple[str, torch.dtype]:
    """The device that "auto" means here, and bfloat16 where it is fast, float32 elsewhere or when asked for.

    Raises InputError for an unknown precision, or a device that is not here.
    """
    if precision not in ("auto", "float32"):
        raise InputError(f"unknown precision {precision!r}; use auto or float32")
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:  # not built in, or none of that number
        said = (str(error).splitlines() or ["no reason given"])[0]
        raise InputError(f"device {device!r} cannot be used ({said}); use auto, or see `iso3d doctor`") from None
    return device, torch.bfloat16 if precision == "auto" and _fast_with_bfloat16(device) else torch.float32


def _fast_with_bfloat16(device: str) -> bool:
    if device.startswith("cuda"):
        return torch.cuda.is_bf16_supported(including_emulation=False)
    # oneDNN is not part of torch on every system.
    if not (torch.backends.mkldnn.is_available() and torch.ops.mkldnn._is_mkldnn_bf16_supported()):
        return False
    # On x86 it takes bfloat16 wherever there is AVX-512; without instructions for it that is slower than float32. An
    # older torch does not tell.
    told = (getattr(torch.cpu, name, None) for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported"))
    return platform.machine().lower() not in X86 or any(has() for has in told if has is not None)


def not_white(views: Tensor) -> Tensor:
    """[V, 3, H, W] on white -> soft mask [V, 1, H, W] in [0, 1]: a pixel clearly not white belongs to the object."""
    return ((1 - views).amax(dim=1, keepdim=True) / 0.08 - 0.4).clamp(0, 1)


def load_part(bundle: Bundle, name: str, dtype: torch.dtype) -> tuple[Any, Any, Any]:
    """The VAE, the UNet of part ``name`` and its schedule: one network after the other, a large one filled straight
    from its file, never held twice. Raises InputError naming the damaged files."""
    from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel

    options: dict[str, Any] = {"local_files_only": True, "low_cpu_mem_usage": bundle.size_bytes > LARGE_BYTES}
    try:
        vae = AutoencoderKL.from_pretrained(bundle.part("vae"), torch_dtype=torch.float32, **options)
        if name == "multiview" and leaves_out_unread(bundle.part(name)):
            unet = load_without_unread(bundle.part(name), dtype)
        else:
            unet = UNet2DConditionModel.from_pretrained(bundle.part(name), torch_dtype=dtype, **options)
        scheduler = DDIMScheduler.from_config(json.loads((bundle.part(name) / "scheduler_config.json").read_text()))
    except UNREADABLE as error:
        raise cannot_load(bundle, error) from error
    return vae, unet, scheduler


def leaves_out_unread(folder: Path) -> bool:
    """Whether a UNet's file is without the weights that one token of context never reads."""
    return not any(is_unread(name) for name in stored_shapes(folder, WEIGHTS))


def load_without_unread(folder: Path, dtype: torch.dtype) -> Any:
    """A small UNet that does not have these weights at all; diffusers would fill them with noise, and say so. Raises
    RuntimeError where others are missing."""
    from diffusers import UNet2DConditionModel

    unet: Any = UNet2DConditionModel.from_config(UNet2DConditionModel.load_config(folder))
    for name in list(unet.state_dict()):
        if is_unread(name):
            attention, layer, _ = name.rsplit(".", 2)
            setattr(unet.get_submodule(attention), layer, nn.Identity())
    unet.load_state_dict(load_shards(folder, WEIGHTS))
    return nn.Module.to(unet, dtype).eval()  # diffusers' own warns of a precision that no layer asks for


def cannot_load(bundle: Bundle, error: Exception) -> InputError:
    broken = ", ".join(bundle.broken_files()) or "none by checksum"
    return InputError(f"bundle {bundle.name!r} cannot be loaded (damaged files: {broken}): {error}")
