"""Reference-guided novel-view enhancement (HiFi-123, section 3.1): the reference's texture carried to coarse views.

    reference -> invert -> states, keys and values --.
    coarse views -> invert to t_s -> denoise, injected -> enhanced views

The symmetric form that the paper ends with: both are inverted by depth-conditioned DDIM for t_s steps, then denoised
for t_s steps, the self-attention of the coarse branch taking its keys and values from the reference's. The reference
is read at its own inverted states, which reproduce it exactly, and is computed once for any number of views.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

import torch
from torch import Tensor
from torch.nn import functional as F

from .priors.base import listening, move, not_white
from .priors.depth import DepthCondition, DepthPrior
from .priors.injection import KeysValues
from .priors.photo_depth import estimate_depth
from .types import InputError, OnProgress, Progress, Reference

PAPER = {"steps": 50, "strength": 0.6, "corrections": 0}
OnStep = Callable[[int, int], None]


@dataclass
class Memory:
    """What is kept of a reference: its inverted states, and keys and values of each step once they were needed.

    states [steps + 1, 1, C, h, w], index 0 the image itself; texts [H, tokens, D] they were computed for
    """

    states: Tensor
    condition: DepthCondition
    keys_values: dict[int, KeysValues] = field(default_factory=dict)


def invert(
    prior: DepthPrior,
    image: Tensor,
    depth: Tensor,
    steps: int,
    until: int | None = None,
    on_step: OnStep | None = None,
) -> Tensor:
    """Depth-conditioned DDIM inversion with an empty prompt.

    image : [V, 3, H, W] in [0, 1]; depth : [V, 1, H, W], as `DepthPrior.depth_map` takes it
    steps : of the whole schedule; until : invert only so many of them, None all
    on_step : called with (step, steps) after each, and again within a slow one; it may raise to stop
    Returns the latents at each noise level, [until + 1, V, C, h, w], index 0 those of the image.
    """
    return invert_latents(prior, prior.encode(image.to(prior.device)), prior.condition(depth), steps, until, on_step)


@torch.no_grad()
def invert_latents(
    prior: DepthPrior,
    z: Tensor,
    condition: DepthCondition,
    steps: int,
    until: int | None = None,
    on_step: OnStep | None = None,
    corrections: int = 0,
) -> Tensor:
    """As `invert`, of latents z [V, C, h, w].

    corrections : fixed-point iterations of each step (arXiv 2312.12540): denoising then ends nearer to where inversion
        began. With few steps and a small network the plain one comes back darker.
    """
    times, levels = prior.times(steps).flip(0), noise_levels(prior, steps)
    prior.injection.mode = "off"
    states = [z.detach()]
    for i in range(steps if until is None else until):
        noisier = states[-1]
        # The noise of the level that is being left, predicted as if of the next one; then that of the next one itself,
        # which is what denoising will take away.
        for _ in range(1 + corrections):
            with listening(prior.unet, partial(on_step, i, steps) if on_step else None):
                noise = prior.predict_noise(noisier, times[i + 1], condition, 1.0)
            noisier = move(states[-1], noise, levels[i], levels[i + 1])
        states.append(noisier)
        if on_step:
            on_step(i + 1, steps)
    return torch.stack(states)


def noise_levels(prior: DepthPrior, steps: int) -> Tensor:
    """Cumulative alphas from the clean image (exactly 1) to the noisiest, [steps + 1]."""
    levels = prior.alphas_cumprod[prior.times(steps).flip(0).to(prior.device)].clone()
    levels[0] = 1.0
    return levels


@torch.no_grad()
def denoise(
    prior: DepthPrior,
    z: Tensor,
    condition: DepthCondition,
    steps: int,
    since: int,
    guidance_scale: float = 1.0,
    memory: Memory | None = None,
    on_step: OnStep | None = None,
    to: int = 0,
) -> tuple[Tensor, Tensor]:
    """Latents [V, C, h, w] at noise level number ``since`` of ``steps`` -> those at level ``to`` (0: clean) by DDIM,
    and the noise predicted last.

    memory : of a reference, whose keys and values are injected; None for plain DDIM
    """
    times, levels = prior.times(steps).flip(0), noise_levels(prior, steps)
    injection, begin = prior.injection, prior.info.get("inject_from", 4)
    noise = torch.zeros_like(z)
    try:
        for i in range(since, to, -1):
            injection.mode = "off"
            if memory is not None and steps - i >= begin * steps / 50:
                injection.remembered = _keys_values(prior, memory, i, times[i], len(condition.text))
                injection.mode = "inject"
            with listening(prior.unet, partial(on_step, since - i, since - to) if on_step else None):
                noise = prior.predict_noise(z, times[i], condition, guidance_scale)
            z = move(z, noise, levels[i], levels[i - 1])
            if on_step:
                on_step(since - i + 1, since - to)
    finally:
        injection.mode, injection.remembered = "off", {}
    return z, noise


def _keys_values(prior: DepthPrior, memory: Memory, level: int, t: Tensor, texts: int) -> KeysValues:
    """Those of the reference at one noise level, for each text; computed at the first call."""
    if level not in memory.keys_values:
        injection = prior.injection
        injection.mode, injection.remembered = "record", {}
        prior.predict_noise(memory.states[level], t, memory.condition, 1.0)
        memory.keys_values[level] = injection.remembered
    kept = memory.keys_values[level]
    if any(len(key) != texts for key, _ in kept.values()):
        raise ValueError("this memory was made with another number of prompts; make a new one with `remember`")
    return kept


def remember(
    prior: DepthPrior,
    reference: Reference,
    depth: Tensor | None = None,
    steps: int | None = None,
    strength: float | None = None,
    prompt: str = "",
    on_step: OnStep | None = None,
    corrections: int | None = None,
) -> Memory:
    """Invert a reference, to be used for any number of calls of `enhance` with the same steps, strength and prompt.

    depth : [1, 1, H, W] of the reference; None asks the estimator where there is one, then the bundle's sketch, else
        takes the mask as flat depth, which the paper found to do as well
    corrections : as of `invert_latents`; None takes the bundle's own
    """
    rgb, mask = reference.on_white()[None].float(), reference.rgba[None, 3:].float()
    depth = estimate_depth(reference) if depth is None else depth
    depth = prior.guess(reference) if depth is None and prior.guess is not None else depth
    depth = mask if depth is None else depth * resize(mask, depth.shape[-2:])
    prompts = ("", prompt) if prompt else ("",)
    plain = prior.condition(depth)
    steps, until = schedule(prior, steps, strength)
    z = prior.encode(on_background(prior, rgb, mask).to(prior.device))
    states = invert_latents(prior, z, plain, steps, until, on_step, correcting(prior, corrections))
    return Memory(states, prior.condition(depth, prompts))


def enhance(
    prior: DepthPrior,
    reference: Reference,
    coarse: Tensor,
    mask: Tensor | None = None,
    depth: Tensor | None = None,
    strength: float | None = None,
    steps: int | None = None,
    prompt: str = "",
    guidance_scale: float | None = None,
    memory: Memory | None = None,
    on_progress: OnProgress | None = None,
) -> Tensor:
    """Coarse views of the reference's object -> the same views with the reference's texture (RGNV).

    coarse : [V, 3, H, W] in [0, 1]; mask : [V, 1, H, W], None takes what is not white
    depth : [V, 1, H, W] nearness of the views (bright is near), None takes the mask as flat depth
    strength : of the steps, the fraction to go back and denoise anew: more is nearer to the reference's texture and
        may change the shape; 0 returns the views as the VAE sees them
    prompt : a description; with one, ``guidance_scale`` (None: the bundle's) applies
    memory : of `remember` for this reference, steps, strength and prompt; None makes one
    Returns [V, 3, S, S] on white, S the bundle's image size; of views that are not square S is the longer side. Raises
    InputError for what cannot be used.
    """
    if coarse.ndim != 4 or coarse.shape[1] != 3 or len(coarse) == 0:
        raise InputError(f"coarse views must be [V, 3, H, W], got {tuple(coarse.shape)}")
    steps, until = schedule(prior, steps, strength)
    size = (prior.info["image_size"],) * 2
    rgb = resize(squared(coarse.float().clamp(0, 1), 1.0), size)
    mask = resize(not_white(rgb) if mask is None else squared(mask.float(), 0.0), size).clamp(0, 1)
    depth = mask if depth is None else resize(squared(depth.float(), 0.0), size) * mask
    if len(depth) != len(coarse) or len(mask) != len(coarse):
        raise InputError(f"{len(coarse)} coarse views need as many masks and depths, got {len(mask)} and {len(depth)}")
    before = until if memory is None else 0

    def report_from(first: int) -> OnStep:
        """Steps from ``first`` of all three parts on; a slow step is reported again and again."""

        def report(step: int, _steps: int) -> None:
            if on_progress:
                on_progress(Progress("enhance", first + step, before + 2 * until))

        return report

    if memory is None:
        memory = remember(prior, reference, None, steps, strength, prompt, report_from(0))
    elif len(memory.states) <= until:
        raise InputError(f"this memory goes back {len(memory.states) - 1} steps, this strength needs {until}")
    prompts = ("", prompt) if prompt else ("",)
    scale = guidance(prior, guidance_scale)
    plain = prior.condition(depth)
    z = prior.encode(on_background(prior, rgb, mask).to(prior.device)).detach()
    z = invert_latents(prior, z, plain, steps, until, report_from(before), correcting(prior, None))[-1]
    z, _ = denoise(prior, z, prior.condition(depth, prompts), steps, until, scale, memory, report_from(before + until))
    with torch.no_grad():
        out = prior.decode(z).cpu()
    # On white already, only what lies outside is wiped; else the edge's background must go as well.
    mask = (mask * (2 if _background(prior) == 1 else 1)).clamp(0, 1).cpu()
    return unsquared(out * mask + 1 - mask, tuple(coarse.shape[-2:]))


def schedule(prior: DepthPrior, steps: int | None, strength: float | None) -> tuple[int, int]:
    """DDIM steps, and how many of them a strength goes back; None takes the bundle's own (``rgnv`` in bundle.json),
    else the public code's. Raises InputError for a strength outside 0..1."""
    own = {**PAPER, **prior.info.get("rgnv", {})}
    steps = int(own["steps"]) if steps is None else steps
    strength = own["strength"] if strength is None else strength
    if not 0 <= strength <= 1:
        raise InputError(f"strength must be 0 to 1, got {strength}")
    return steps, round(strength * steps)


def correcting(prior: DepthPrior, corrections: int | None) -> int:
    """Corrections of each step of inversion; None takes the bundle's own, else none, as the public code."""
    return int({**PAPER, **prior.info.get("rgnv", {})}["corrections"]) if corrections is None else corrections


def guidance(prior: DepthPrior, scale: float | None) -> float:
    """The classifier-free guidance scale where there is a prompt; None takes the bundle's own."""
    return prior.info.get("guidance_scale", 7.5) if scale is None else scale


def resize(x: Tensor, size: tuple[int, ...]) -> Tensor:
    """Images [V, C, H, W] at (height, width), antialiased."""
    if tuple(x.shape[-2:]) == tuple(size):
        return x
    smaller = any(before > after for before, after in zip(x.shape[-2:], size, strict=True))
    return F.interpolate(x, tuple(size), mode="bilinear", antialias=smaller)


def squared(x: Tensor, fill: float) -> Tensor:
    """Images [V, C, H, W] in the middle of squares [V, C, S, S], S the longer side."""
    height, width = x.shape[-2:]
    side = max(height, width)
    left, top = (side - width) // 2, (side - height) // 2
    return F.pad(x, (left, side - width - left, top, side - height - top), value=fill)


def unsquared(x: Tensor, shape: tuple[int, ...]) -> Tensor:
    """The middle of squares [V, C, S, S] that has the proportions of ``shape``, (height, width)."""
    side = x.shape[-1]
    height, width = (max(1, round(side * length / max(shape))) for length in shape)
    top, left = (side - height) // 2, (side - width) // 2
    return x[..., top : top + height, left : left + width]


def on_background(prior: DepthPrior, on_white: Tensor, mask: Tensor) -> Tensor:
    """Images on white -> on the grey that suits the prior."""
    return (on_white - (1 - mask) * (1 - _background(prior))).clamp(0, 1)


def _background(prior: DepthPrior) -> float:
    # Pure white harms Stable Diffusion 2's depth model, HiFi-123's code found; the embedded one knows nothing else.
    return prior.info.get("background", 0.5)
