"""The only optimisation loop: progress, cancel, checkpoint, resume, and a guard against NaN."""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import pickle
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from .types import Diverged, InputError, OnProgress, Progress

Objective = Callable[[int, torch.Generator], tuple[Tensor, dict[str, float]]]
"""(step, generator) -> (loss, values to show). All randomness comes from ``generator``."""

MAX_BAD_STEPS = 10


@dataclass(frozen=True)
class Checkpoints:
    """Where the state of a fit is kept: ``path`` every ``every`` steps, read first when ``resume`` is set.

    key : names the work; a checkpoint of other work (another image, seed or preset) is not used
    """

    path: Path
    key: str
    every: int = 25
    resume: bool = False

    def load(self, stage: str) -> dict | None:
        """The stored state of ``stage``, or None when there is none that fits."""
        if not self.resume or not self._file(stage).exists():
            return None
        try:
            state = torch.load(self._file(stage), weights_only=True, map_location="cpu")
        except (OSError, RuntimeError, EOFError, pickle.UnpicklingError):
            return None  # unreadable: the work starts again, which costs a minute and nothing else
        return state if state.get("key") == self.key else None

    def save(self, stage: str, state: dict) -> None:
        """Raises InputError when the disk is full or the folder cannot be written."""
        part = self._file(stage).with_suffix(".part")
        buffer = io.BytesIO()
        torch.save({**state, "key": self.key}, buffer)  # straight to a full disk it raises an opaque RuntimeError
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            part.write_bytes(buffer.getbuffer())
            os.replace(part, self._file(stage))
        except OSError as error:
            with contextlib.suppress(OSError):
                part.unlink(missing_ok=True)
            reason = error.strerror or str(error)
            raise InputError(f"cannot keep the state of the work in {self.path}: {reason}; free some space") from None

    def _file(self, stage: str) -> Path:
        return self.path / f"{stage.replace(' ', '_')}.pt"


def step_generator(seed: int, stage: str, step: int) -> torch.Generator:
    """The random numbers of one step: they depend on (seed, stage, step) only, so a resumed run draws the same."""
    digest = hashlib.sha256(f"{seed}/{stage}/{step}".encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:7], "little"))


def fit(
    modules: nn.Module,
    parameter_groups: list[dict],
    objective: Objective,
    steps: int,
    seed: int,
    stage: str,
    on_progress: OnProgress | None = None,
    preview: Callable[[], Tensor] | None = None,
    checkpoints: Checkpoints | None = None,
    settle: float = 0.0,
) -> None:
    """Minimise ``objective`` for ``steps`` steps of AdamW (betas 0.9, 0.99; eps 1e-15).

    modules : everything the state of the work lives in, for checkpoints
    parameter_groups : as AdamW takes them
    on_progress : called after every step; it cancels by raising `Cancelled`
    settle : the last fraction of the steps, over which the learning rates fall to zero, 0..1
    Raises Diverged after ten steps in a row without a finite loss or gradient (such steps are skipped).
    """
    optimizer = torch.optim.AdamW(parameter_groups, betas=(0.9, 0.99), eps=1e-15, weight_decay=0.0, fused=True)
    parameters = [p for group in parameter_groups for p in group["params"]]
    rates = [group["lr"] for group in parameter_groups]
    step = bad = 0
    state = checkpoints.load(stage) if checkpoints else None
    if state is not None:
        modules.load_state_dict(state["modules"])
        optimizer.load_state_dict(state["optimizer"])
        step, bad = state["step"], state["bad"]
    while step < steps:
        for group, rate in zip(optimizer.param_groups, rates, strict=True):
            group["lr"] = rate * min(1.0, (steps - step) / max(settle * steps, 1))
        optimizer.zero_grad(set_to_none=True)
        loss, values = objective(step, step_generator(seed, stage, step))
        loss.backward()
        # The largest number tells in one pass over a large table.
        finite = bool(torch.isfinite(loss)) and all(
            bool(torch.linalg.vector_norm(p.grad, torch.inf).isfinite()) for p in parameters if p.grad is not None
        )
        if finite:
            optimizer.step()
            bad = 0
        else:
            bad += 1
            if bad >= MAX_BAD_STEPS:
                raise Diverged(
                    f"{stage}: no finite gradient for {bad} steps in a row at step {step}; "
                    "try another seed, a lower learning rate or a lower guidance scale"
                )
        step += 1
        if checkpoints and (step % checkpoints.every == 0 or step == steps):
            checkpoints.save(
                stage, {"modules": modules.state_dict(), "optimizer": optimizer.state_dict(), "step": step, "bad": bad}
            )
        if on_progress:
            on_progress(Progress(stage, step, steps, preview, {**values, "loss": float(loss.detach())}))
