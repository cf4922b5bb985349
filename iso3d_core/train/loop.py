"""The one training loop: accelerate, mixed precision, averaged weights, resume, progress, sample grids."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ..priors.base import choose_arithmetic
from .muon import Muon

Batch = dict[str, Any]


@dataclass(frozen=True)
class TrainConfig:
    """How long and how fast to train.

    steps : optimiser steps; batch : items a step and process; accumulate : batches summed into one step
    learning_rate : peak; warmup : steps of linear rise; decay : "linear" or "cosine" to zero, or "constant"
    averaged_decay : of the exponential moving average of the weights, 0 for none
    mixed_precision : "bf16", "fp16", "no", or "auto": bf16 where the device is fast with it
    save_every, sample_every : steps; seed : of weights, batches and noise
    compile : the networks that the model lists in ``networks``, with torch.compile
    optimizer : "adamw", or "muon" for the matrices of hidden layers and AdamW for the rest
    """

    steps: int
    batch: int
    learning_rate: float
    accumulate: int = 1
    betas: tuple[float, float] = (0.9, 0.999)
    weight_decay: float = 0.01
    warmup: int = 100
    decay: str = "linear"
    averaged_decay: float = 0.999
    clip_norm: float = 1.0
    save_every: int = 250
    sample_every: int = 500
    mixed_precision: str = "auto"
    seed: int = 0
    compile: bool = False
    optimizer: str = "adamw"

    def __post_init__(self) -> None:
        if self.optimizer not in ("adamw", "muon"):
            raise ValueError(f"optimizer must be adamw or muon, got {self.optimizer!r}")
        if self.decay not in ("linear", "cosine", "constant"):
            raise ValueError(f"decay must be linear, cosine or constant, got {self.decay!r}")
        if self.steps < 1 or self.batch < 1 or self.accumulate < 1:
            raise ValueError("steps, batch and accumulate must be at least 1")


def learning_rate_factor(config: TrainConfig, step: int) -> float:
    """The learning rate of ``step`` over its peak."""
    if step < config.warmup:
        return (step + 1) / config.warmup
    left = 1 - (step - config.warmup) / max(1, config.steps - config.warmup)
    if config.decay == "linear":
        return max(left, 0.01)
    if config.decay == "cosine":
        return 0.01 + 0.99 * (0.5 - 0.5 * float(np.cos(np.pi * left)))
    return 1.0


def train(
    model: nn.Module,
    make_batch: Callable[[np.random.Generator], Batch],
    config: TrainConfig,
    folder: Path,
    sample: Callable[[nn.Module], Tensor] | None = None,
) -> dict[str, float]:
    """Train ``model``, whose forward takes a batch and returns a dict with "loss" and values to show.

    Afterwards ``model`` holds the averaged weights. Interrupted training goes on from the last checkpoint in
    ``folder``: batches depend on (seed, step) only. ``sample(model)`` makes a [3, H, W] picture of the state.
    Returns the mean of the shown values over the last tenth of the steps, and "hours".
    """
    from accelerate import Accelerator, DistributedDataParallelKwargs
    from diffusers.training_utils import EMAModel
    from tqdm import tqdm

    precision = config.mixed_precision
    if precision == "auto":
        precision = "bf16" if choose_arithmetic("auto", "auto")[1] == torch.bfloat16 else "no"
    # With one token of context the multi-view UNet's queries have no effect, hence no gradient.
    several = DistributedDataParallelKwargs(find_unused_parameters=True)
    accelerator = Accelerator(
        mixed_precision=precision, gradient_accumulation_steps=config.accumulate, kwargs_handlers=[several]
    )
    folder.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(config.seed)
    for network in model.networks() if hasattr(model, "networks") else ():  # type: ignore[operator]
        network.to(memory_format=torch.channels_last)
        if config.compile:
            network.compile()
    settings: dict[str, Any] = {
        "lr": config.learning_rate, "betas": config.betas, "weight_decay": config.weight_decay, "fused": True
    }  # fmt: skip
    optimizer = (
        Muon(model, **settings)
        if config.optimizer == "muon"
        else torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], **settings)
    )
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: learning_rate_factor(config, step))
    model, optimizer = accelerator.prepare(model, optimizer)
    plain = accelerator.unwrap_model(model)
    averaged = EMAModel(plain.parameters(), decay=config.averaged_decay, use_ema_warmup=True, power=0.75)
    step, hours, recent = 0, 0.0, []
    checkpoint = folder / "checkpoint.pt"
    if checkpoint.exists():
        state = load_tensors(checkpoint)
        plain.load_state_dict(state["model"])
        if len(state["optimizer"]["param_groups"]) != len(optimizer.param_groups):
            raise ValueError(f"{folder} was begun with another optimizer than {config.optimizer}; go on with that one")
        optimizer.load_state_dict(state["optimizer"])
        scheduler.load_state_dict(state["scheduler"])
        scheduler.base_lrs = [config.learning_rate] * len(scheduler.base_lrs)  # what is asked for now holds
        for group in optimizer.param_groups:
            group["initial_lr"] = config.learning_rate
            group["lr"] = config.learning_rate * learning_rate_factor(config, state["step"])
        averaged.load_state_dict(state["averaged"])
        step, hours, recent = state["step"], state["hours"], state["recent"]
    averaged.to(accelerator.device)

    def save() -> None:
        if not accelerator.is_main_process:
            return
        state = {
            "model": plain.state_dict(), "optimizer": optimizer.state_dict(), "scheduler": scheduler.state_dict(),
            "averaged": averaged.state_dict(), "step": step, "hours": hours, "recent": recent,
        }  # fmt: skip
        save_tensors(state, checkpoint)
        (folder / "config.json").write_text(json.dumps(asdict(config), indent=2))

    bar = tqdm(
        total=config.steps, initial=step, disable=not accelerator.is_main_process, mininterval=5, desc=folder.name
    )
    started = time.monotonic()
    while step < config.steps:
        model.train()
        for part in range(config.accumulate):
            rng = np.random.default_rng([config.seed, step, part, accelerator.process_index])
            torch.manual_seed(int(rng.integers(2**62)))
            with accelerator.accumulate(model), accelerator.autocast():
                values = model(on_device(make_batch(rng), accelerator.device))
                accelerator.backward(values["loss"])
        accelerator.clip_grad_norm_(plain.parameters(), config.clip_norm)
        optimizer.step()
        optimizer.zero_grad()
        scheduler.step()
        averaged.step(plain.parameters())
        step += 1
        shown = {name: float(value.detach()) for name, value in values.items()}
        if not np.isfinite(shown["loss"]):
            raise FloatingPointError(f"the loss is not finite at step {step}; lower the learning rate and resume")
        if step > config.steps * 0.9:
            recent.append(shown)
        bar.update()
        if step % 10 == 0:
            bar.set_postfix({name: f"{value:.4g}" for name, value in shown.items()})
        if step % config.save_every == 0 or step == config.steps:
            hours += (time.monotonic() - started) / 3600
            started = time.monotonic()
            save()
        if (
            sample is not None
            and accelerator.is_main_process
            and (step % config.sample_every == 0 or step == config.steps)
        ):
            averaged.store(plain.parameters())
            averaged.copy_to(plain.parameters())
            write_picture(folder / "sample.png", sample(plain.eval()))
            averaged.restore(plain.parameters())
    bar.close()
    averaged.copy_to(plain.parameters())
    plain.eval()
    means = {name: float(np.mean([row[name] for row in recent])) for name in (recent[0] if recent else {})}
    return {**means, "hours": hours}


def once(make: Callable[[], Any]) -> None:
    """Let the first of several processes ``make`` files, which the others wait for."""
    from datetime import timedelta

    from accelerate import PartialState
    from accelerate.utils import parse_flag_from_env

    # It may be a long work; usually waiting ends after minutes.
    state = PartialState(parse_flag_from_env("ACCELERATE_USE_CPU"), timeout=timedelta(days=1))
    if state.is_main_process:
        make()
    state.wait_for_everyone()


def save_tensors(value: Any, path: Path) -> None:
    """Write tensors, whole or not at all, so that a machine without this one's devices can read them."""
    from accelerate.utils import send_to_device

    part = path.with_name(path.name + ".part")
    torch.save(send_to_device(value, "cpu"), part)
    os.replace(part, path)


def load_tensors(path: Path) -> Any:
    """What `save_tensors` wrote."""
    return torch.load(path, weights_only=True, map_location="cpu")


def fast_autocast(device: torch.device) -> torch.autocast:
    """bfloat16 where the device is fast with it; some CPUs take ten times as long over it as over float32."""
    return torch.autocast(
        device.type, torch.bfloat16, enabled=choose_arithmetic(device.type, "auto")[1] == torch.bfloat16
    )


def on_device(batch: Batch, device: torch.device) -> Batch:
    """The batch with its tensors on ``device``."""
    return {name: value.to(device) if isinstance(value, Tensor) else value for name, value in batch.items()}


def write_picture(path: Path, image: Tensor) -> None:
    """Write a [3, H, W] image in [0, 1] as PNG."""
    from PIL import Image

    pixels = (image.detach().float().clamp(0, 1).permute(1, 2, 0).cpu().numpy() * 255).round().astype(np.uint8)
    Image.fromarray(pixels).save(path)
