"""A training's work folder: what its parts leave there, and what they find there."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch

from ..priors.clip import WordTokenizer
from ..priors.sketch import SIDE
from ..weights import sha256
from . import clip as clip_part
from .data import ViewSet
from .loop import load_tensors, once, save_tensors


def whole_views(work: Path) -> ViewSet:
    """The views of a work folder, for what is trained on latents; raises ValueError where they are for towers only."""
    views = ViewSet(work / "data")
    if views.towers_only:
        raise ValueError(
            f"{work} holds views for `train clip` only; in another folder run `train data` for them all, "
            f"then `train clip --towers {work}`"
        )
    return views


def check_inputs(work: Path, part: str, *files: str) -> None:
    """Raise ValueError where the checkpoint of ``part`` was trained on other ``files`` than ``work`` has now: it would
    go on, or count as done, for what is not there any more."""
    record = work / part / "inputs.json"
    inputs = {name: sha256(work / name) for name in files if (work / name).exists()}
    if (work / part / "checkpoint.pt").exists() and record.exists():
        before = json.loads(record.read_text())
        changed = [name for name, checksum in inputs.items() if before.get(name) != checksum]
        if changed:
            raise ValueError(
                f"{part} was trained on another {changed[0]}; remove {work / part} to train it anew, or put that back"
            )

    def write() -> None:
        record.parent.mkdir(parents=True, exist_ok=True)
        record.write_text(json.dumps(inputs, indent=2))

    once(write)


def load_towers(work: Path, tokenizer: WordTokenizer) -> clip_part.ClipTraining:
    towers = clip_part.ClipTraining(clip_part.tiny_config(tokenizer.vocab_size))
    towers.load_state_dict(load_state(work / "clip"))
    return towers.eval()


def load_state(folder: Path) -> dict[str, torch.Tensor]:
    return load_tensors(folder / "final.pt")


def load_sketch(work: Path) -> dict[str, torch.Tensor]:
    """The sketch network as it was trained with CLIP."""
    towers = load_state(work / "clip")
    return {name[len("sketch.") :]: value for name, value in towers.items() if name.startswith("sketch.")}


def load_thumbs(work: Path, views: ViewSet) -> torch.Tensor:
    """Thumbnails of the targets, made once for each rendering."""
    path = work / f"thumbs{SIDE}.pt"
    if not path.exists() or path.stat().st_mtime < (work / "data" / "captions.json").stat().st_mtime:
        save_tensors(clip_part.thumbnail_all(views.targets), path)
    return load_tensors(path)


def load_latents(work: Path) -> dict[str, torch.Tensor]:
    """The encoded training set, scaled to unit variance, fp16."""
    latents, scale = load_tensors(work / "latents.pt"), read_scale(work)
    return {name: value * scale for name, value in latents.items()}


def read_scale(work: Path) -> float:
    """What brings the VAE's latents to unit variance."""
    return json.loads((work / "vae" / "report.json").read_text())["scale"]


def finish_part(folder: Path, weights: dict[str, torch.Tensor], report: dict[str, Any], views: ViewSet) -> None:
    """Leave the trained weights of a part, and its report, where the next part looks for them."""
    report = {**report, "objects": report.get("objects", len(views))}
    save_tensors(weights, folder / "final.pt")
    (folder / "report.json").write_text(json.dumps(report, indent=2))
    print(f"{folder.name}: " + ", ".join(f"{name} {value}" for name, value in report.items()))
