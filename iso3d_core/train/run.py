"""`iso3d train data|vae|clip|views|bundle`: the steps from nothing to a bundle, each resumable in its own folder.

    data -> vae -> clip -> views (stage 1, stage 2) -> bundle

Every step reads what the earlier ones left in the work folder, so any of them can be repeated alone. For several
processes or machines: `accelerate launch -m iso3d_core.train views --work DIR`.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from . import clip as clip_part
from . import diffusion, vae
from .data import ViewSet, build
from .loop import TrainConfig

VAE = TrainConfig(900, batch=64, learning_rate=1.5e-3, warmup=50, averaged_decay=0.995, decay="cosine")
CLIP = TrainConfig(
    1500, batch=256, learning_rate=1e-3, warmup=100, averaged_decay=0.997, weight_decay=0.05, decay="cosine"
)


@dataclass(frozen=True)
class TrainOptions:
    """What to train and how long.

    work : folder of data and checkpoints, outside any repository
    objects : objects rendered for training; size : image side in pixels
    steps, batch, learning_rate : override the preset of the part
    stage : of the multi-view training, 1 or 2
    out : the folder of the bundle to write
    """

    work: Path
    objects: int = 12_000
    size: int = 64
    steps: int | None = None
    batch: int | None = None
    learning_rate: float | None = None
    stage: int = 1
    out: Path | None = None

    def over(self, preset: TrainConfig) -> TrainConfig:
        given = {name: getattr(self, name) for name in ("steps", "batch", "learning_rate")}
        return replace(preset, **{name: value for name, value in given.items() if value is not None})


def run(part: str, options: TrainOptions) -> None:
    """Run one part; raises ValueError for an unknown one."""
    parts = {"data": run_data, "vae": run_vae, "clip": run_clip, "views": run_views, "bundle": run_bundle}
    if part not in parts:
        raise ValueError(f"unknown part {part!r}; use one of {', '.join(parts)}")
    parts[part](options)


def run_data(options: TrainOptions) -> None:
    build(options.work / "data", options.objects, options.size)


def run_vae(options: TrainOptions) -> None:
    views, folder = ViewSet(options.work / "data"), options.work / "vae"
    model = vae.VaeTraining(vae.TINY, vae.TINY_UNSHUFFLE)
    report = vae.train_vae(views, options.over(VAE), folder, model)
    latents = {"targets": vae.encode_all(model, views.targets), "references": vae.encode_all(model, views.references)}
    report["scale"] = 1 / float(latents["targets"][:: max(1, len(views) // 500)].float().std())
    _finish(folder, model.vae.state_dict(), report)
    torch.save(latents, options.work / "latents.pt")


def run_clip(options: TrainOptions) -> None:
    views, folder = ViewSet(options.work / "data"), options.work / "clip"
    data = clip_part.ReferenceSet(views, load_latents(options.work)["targets"], make_tokenizer(views))
    model = make_towers(data)
    report = clip_part.train_clip(data, options.over(CLIP), folder, model)
    _finish(folder, model.state_dict(), report)


def run_views(options: TrainOptions) -> None:
    views, folder = ViewSet(options.work / "data"), options.work / f"views{options.stage}"
    latents = load_latents(options.work)
    images = clip_part.ReferenceSet(views, latents["targets"], make_tokenizer(views))
    towers, unet = make_towers(images), diffusion.make_unet(diffusion.TINY)
    schedule = {**diffusion.SCHEDULE, **diffusion.TINY_SCHEDULE}
    if options.stage == 1:
        towers.load_state_dict(load_state(options.work / "clip"))
        model = diffusion.JointTraining(towers, diffusion.MultiViewTraining(unet, schedule))
        data = diffusion.LatentSet(views, latents["targets"], latents["references"], None)
        report = diffusion.train_jointly(data, images, options.over(diffusion.TINY_STAGE1), folder, model)
        torch.save(towers.state_dict(), folder / "towers.pt")
        torch.save(clip_part.embed_all(towers, views.references), options.work / "embeddings.pt")
    else:
        unet.load_state_dict(load_state(options.work / "views1"))
        embeddings = torch.load(options.work / "embeddings.pt", weights_only=True)
        data = diffusion.LatentSet(views, latents["targets"], latents["references"], embeddings)
        explicit = diffusion.MultiViewTraining(unet, schedule, explicit_attention=True)
        report = diffusion.train_views(data, options.over(diffusion.TINY_STAGE2), folder, explicit)
    _finish(folder, unet.state_dict(), report)


def run_bundle(options: TrainOptions) -> None:
    from .bundle import write_bundle

    write_bundle(options.work, options.out or options.work / "bundle")


def make_tokenizer(views: ViewSet) -> clip_part.WordTokenizer:
    return clip_part.WordTokenizer(clip_part.vocabulary(views.captions), clip_part.CONTEXT)


def make_towers(data: clip_part.ReferenceSet) -> clip_part.ClipTraining:
    return clip_part.ClipTraining(clip_part.tiny_config(data.tokenizer.vocab_size), data.latents.shape[2])


def load_state(folder: Path) -> dict[str, torch.Tensor]:
    return torch.load(folder / "final.pt", weights_only=True)


def load_latents(work: Path) -> dict[str, torch.Tensor]:
    """The encoded training set, scaled to unit variance, fp16."""
    latents = torch.load(work / "latents.pt", weights_only=True)
    scale = json.loads((work / "vae" / "report.json").read_text())["scale"]
    return {name: value * scale for name, value in latents.items()}


def _finish(folder: Path, weights: dict[str, torch.Tensor], report: dict[str, float]) -> None:
    torch.save(weights, folder / "final.pt")
    (folder / "report.json").write_text(json.dumps(report, indent=2))
    print(f"{folder.name}: " + ", ".join(f"{name} {value:.4g}" for name, value in report.items()))
