"""What a training takes, for the command line and `accelerate launch`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal


@dataclass(frozen=True, kw_only=True)
class TrainOptions:
    """How a part of a bundle is trained; None leaves the part's own setting."""

    work: Path
    """Folder of data and checkpoints, outside any repository."""
    objects: int = 12_000
    """Objects rendered for training."""
    first_seed: int = 0
    """Of `data`: the seed of the first object; the others follow it."""
    size: int = 64
    """Image side in pixels."""
    towers_only: bool = False
    """Of `data`: what `clip` alone reads, twice as many objects in the time."""
    steps: int | None = None
    """Of the optimiser; 0 with ``start`` keeps a bundle's `vae` or `depth` as it is."""
    batch: int | None = None
    learning_rate: float | None = None
    start: str | None = None
    """A bundle's name or folder, from whose weights `clip`, `views --stage 1`, `depth` or `zero123` go on where shapes
    agree; of `vae` the decoder alone, so that what knows its latents still does."""
    compile: bool = False
    """Compile the networks: a third faster after some minutes; needs a C++ compiler."""
    optimizer: Literal["adamw", "muon"] = "adamw"
    """`muon` moves the matrices of hidden layers by their momentum made orthogonal; a step takes longer."""
    keep_towers: bool = False
    """Of `clip` with ``start``: train only the sketch and what reads the colors of parts from the image."""
    towers: Path | None = None
    """Of `clip`: another work folder, whose trained towers are taken as they are; of `bundle`: that folder, on whose
    objects the probes of the embedding are fitted."""
    stage: int = 1
    """Of `views`: 1, or 2 for Explicit Multi-view Attention."""
    out: Path | None = None
    """Of `bundle`: the folder to write."""
