"""`iso3d train data|vae|clip|views|depth|zero123|bundle`: from nothing to a bundle, each resumable in its own folder.

    data -> vae -> clip -> views (stage 1, stage 2) -> depth -> zero123 -> bundle

Every step reads what the earlier ones left in the work folder, so any of them can be repeated alone. For several
processes or machines with one work folder: `accelerate launch -m iso3d_core.train views --work DIR`.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import torch
from safetensors.torch import load_file

from ..options import TrainOptions
from ..priors.attention import HARMONICS
from ..priors.clip import ClipText, load_shards, load_tokenizer
from ..priors.sketch import CHANNELS
from ..weights import Bundle, find_bundle
from . import clip as clip_part
from . import depth, diffusion, occupancy, vae, zero123
from .data import ViewSet, build
from .folder import (
    check_inputs,
    finish_part,
    load_latents,
    load_sketch,
    load_state,
    load_thumbs,
    load_towers,
    read_scale,
    whole_views,
)
from .loop import TrainConfig, load_tensors, once, save_tensors
from .memory import keep_freed
from .start import (
    embedding_map,
    for_places,
    grow,
    kept_as_is,
    make_room,
    old_embeddings,
    started_from,
    take_over,
    through,
    with_palette,
    without_reference,
)

VAE = TrainConfig(1200, batch=64, learning_rate=1.5e-3, warmup=50, averaged_decay=0.995, decay="cosine")
CLIP = TrainConfig(
    5000, batch=64, learning_rate=1e-3, warmup=100, averaged_decay=0.997, weight_decay=0.05, decay="cosine"
)


TINY_SIZE = vae.TINY_UNSHUFFLE * diffusion.TINY["sample_size"]
ENCODED = ("data/captions.json", "vae/final.pt", "clip/final.pt")


def over(preset: TrainConfig, options: TrainOptions) -> TrainConfig:
    """The preset with what the options override."""
    given = {name: getattr(options, name) for name in ("steps", "batch", "learning_rate")}
    given = {name: value for name, value in given.items() if value is not None}
    return replace(preset, compile=options.compile, optimizer=options.optimizer, **given)


def run(part: str, options: TrainOptions) -> None:
    """Run one part; raises ValueError for an unknown one."""
    parts = {
        "data": run_data, "vae": run_vae, "clip": run_clip, "views": run_views, "depth": run_depth,
        "zero123": run_zero123, "bundle": run_bundle,
    }  # fmt: skip
    if part not in parts:
        raise ValueError(f"unknown part {part!r}; use one of {', '.join(parts)}")
    keep_freed()
    parts[part](options)


def run_data(options: TrainOptions) -> None:
    if options.size != TINY_SIZE:
        raise ValueError(f"--size must be {TINY_SIZE}, which the small networks are made for, got {options.size}")
    once(
        lambda: build(
            options.work / "data", options.objects, options.size, options.first_seed, None, options.towers_only
        )
    )


def run_vae(options: TrainOptions) -> None:
    views, folder = whole_views(options.work), options.work / "vae"
    check_inputs(options.work, "vae", "data/captions.json")
    model, bundle = vae.VaeTraining(vae.TINY, vae.TINY_UNSHUFFLE), start_of(options)
    if bundle:
        before = load_file(bundle.part("vae") / "diffusion_pytorch_model.safetensors")
        model.vae.load_state_dict(before)
        model.keep_latents()
    if options.steps == 0:
        report = kept_as_is(bundle, "vae")
    else:
        report = vae.train_vae(views, over(VAE, options), folder, model)
        if bundle:
            model.blend(before)
            report |= {"kept_of_start": vae.KEPT, **started_from(bundle, "vae")}

    def encode() -> None:
        latents = {name: vae.encode_all(model, getattr(views, name), TINY_SIZE) for name in ("targets", "references")}
        deviation = float(latents["targets"][:: max(1, len(views) // 500)].float().std())
        report["scale"] = bundle.info["latent_scale"] if bundle else 1 / deviation  # the same latents, the same scale
        finish_part(folder, model.vae.state_dict(), report, views)
        save_tensors(latents, options.work / "latents.pt")

    once(encode)


def run_clip(options: TrainOptions) -> None:
    views, folder = ViewSet(options.work / "data"), options.work / "clip"
    folder.mkdir(parents=True, exist_ok=True)
    if options.towers is not None:
        take_towers(options.towers, options.work, views)
        return
    if options.keep_towers and options.start is None:
        raise ValueError("--keep-towers keeps those of a bundle; name one by --start")
    check_inputs(options.work, "clip", "data/captions.json")
    words, bundle = clip_part.vocabulary(views.captions), start_of(options)
    if bundle:  # the same words in the same order, or its text tower would read others
        words = load_tokenizer(bundle.part("clip")).words
    text = json.dumps({"context_length": clip_part.CONTEXT, "words": words}) + "\n"
    once(lambda: (folder / "vocabulary.json").write_text(text))
    tokenizer = load_tokenizer(folder)
    seeds = range(views.first_seed, views.first_seed + len(views))
    once(lambda: (occupancy.build(options.work / "solids", seeds), load_thumbs(options.work, views)))
    data = clip_part.ReferenceSet(
        views, load_thumbs(options.work, views), occupancy.build(options.work / "solids", seeds), tokenizer
    )
    config = clip_part.tiny_config(tokenizer.vocab_size)
    model = clip_part.ClipTraining(config, keep_towers=options.keep_towers)
    if bundle:
        towers = with_palette(load_shards(bundle.part("clip"), "open_clip_model"))
        grow(model.clip, for_places(towers, clip_part.TOWER_SIZE // 32))
        if (bundle.folder / "sketch").is_dir():
            grow(model.sketch, load_file(bundle.folder / "sketch" / "model.safetensors"))
        if "visual.free" not in towers:
            make_room(model, old_embeddings(bundle, views).flatten(0, 1))
    report = clip_part.train_clip(data, over(CLIP, options), folder, model)

    def embed() -> None:
        if not views.towers_only:
            save_tensors(clip_part.embed_all(model, views.references), options.work / "embeddings.pt")
        kept = {"kept_towers": True} if options.keep_towers else {}
        finish_part(folder, model.state_dict(), {**report, **kept, **started_from(bundle, "clip")}, views)

    once(embed)


def take_towers(source: Path, work: Path, views: ViewSet) -> None:
    """The towers trained in the work folder ``source``, as they are, and the embeddings of this one's references.

    Raises ValueError where ``source`` has none, or ``work`` has towers of its own, which would be lost.
    """
    if not (source / "clip" / "final.pt").exists():
        raise ValueError(f"{source} holds no trained towers; train them with `iso3d train clip --work {source}`")

    if (work / "clip" / "checkpoint.pt").exists():
        raise ValueError(f"towers were trained in {work} itself; remove {work / 'clip'} to take those of {source}")

    def embed() -> None:
        model = load_towers(source, load_tokenizer(source / "clip"))
        save_tensors(clip_part.embed_all(model, views.references), work / "embeddings.pt")
        for name in ("vocabulary.json", "config.json"):
            shutil.copy(source / "clip" / name, work / "clip")
        report = json.loads((source / "clip" / "report.json").read_text())
        finish_part(work / "clip", model.state_dict(), report, views)

    once(embed)


def run_views(options: TrainOptions) -> None:
    views, folder = whole_views(options.work), options.work / f"views{options.stage}"
    first = ["views1/final.pt"] if options.stage == 2 else []
    check_inputs(options.work, folder.name, *ENCODED, *first)
    latents = load_latents(options.work)
    embeddings = load_tensors(options.work / "embeddings.pt")
    data = diffusion.LatentSet(views, latents["targets"], latents["references"], embeddings)
    unet, second, bundle = diffusion.make_unet(diffusion.TINY), options.stage == 2, start_of(options)
    if second:
        unet.load_state_dict(load_state(options.work / "views1"))
    else:
        if bundle:
            take_over(unet, first_views(bundle, views, embeddings), finer=CHANNELS)
        unet.sketch.load_state_dict(load_sketch(options.work))
    model = diffusion.MultiViewTraining(unet, make_schedule(), explicit_attention=second)
    preset = diffusion.TINY_STAGE2 if second else diffusion.TINY_STAGE1
    report = diffusion.train_views(data, over(preset, options), folder, model)
    before = {} if second else started_from(bundle, *("views1", "views2") if same_widths(bundle) else ("zero123",))
    once(lambda: finish_part(folder, unet.state_dict(), {**report, **before}, views))


def first_views(bundle: Bundle, views: ViewSet, embeddings: torch.Tensor) -> dict[str, torch.Tensor]:
    """The multi-view UNet's weights to start from: the bundle's, or where those have other widths what its
    Zero-1-to-3 shares with it."""
    weights = "diffusion_pytorch_model.safetensors"
    if not same_widths(bundle):
        found = load_file(bundle.part("zero123") / weights)
        return without_reference(found, diffusion.TINY["out_channels"])
    matrix = map_from(bundle, views, embeddings)
    return through(load_file(bundle.part("multiview") / weights), "encoder_hid_proj.weight", matrix, HARMONICS)


def same_widths(bundle: Bundle | None) -> bool:
    """Whether the bundle's multi-view UNet has the widths of the one that is trained now."""
    if bundle is None:
        return True
    config = json.loads((bundle.part("multiview") / "config.json").read_text())
    return tuple(config["block_out_channels"]) == diffusion.TINY["block_out_channels"]


def run_depth(options: TrainOptions) -> None:
    views, folder = whole_views(options.work), options.work / "depth"
    check_inputs(options.work, "depth", *ENCODED)
    folder.mkdir(parents=True, exist_ok=True)
    unet, bundle = depth.make_unet(), start_of(options)
    report = kept_as_is(bundle, "depth") if options.steps == 0 else {}
    if bundle:
        take_over(unet, load_file(bundle.part("depth") / "diffusion_pytorch_model.safetensors"))
    # The text tower that it was trained with stays, should CLIP have been trained again.
    words = bundle.part("text") if bundle else options.work / "clip"
    tokenizer = load_tokenizer(words)
    text = ClipText.load(words) if bundle else depth.text_tower(load_towers(options.work, tokenizer), tokenizer)
    if not report:
        seeds = range(views.first_seed, views.first_seed + len(views))
        once(lambda: depth.build(options.work / "depth_data", seeds))
        images, captions = depth.load_depth(options.work / "depth_data")
        data = depth.DepthSet(depth.latents_of(views, load_latents(options.work)), images, captions, text)
        model = depth.DepthTraining(unet, make_schedule())
        trained = depth.train_depth(data, over(depth.TINY_DEPTH, options), folder, model)
        report = {**trained, **started_from(bundle, "depth")}

    def finish() -> None:
        save_tensors(text.clip.state_dict(), folder / "text.pt")
        shutil.copy(words / "vocabulary.json", folder)
        finish_part(folder, unet.state_dict(), report, views)

    once(finish)


def run_zero123(options: TrainOptions) -> None:
    views, folder = whole_views(options.work), options.work / "zero123"
    check_inputs(options.work, "zero123", *ENCODED)
    latents = load_latents(options.work)
    embeddings = load_tensors(options.work / "embeddings.pt")
    scale = read_scale(options.work)
    data = zero123.PoseSet(views, latents["targets"], latents["references"], embeddings, scale)
    model = zero123.Zero123Training(zero123.TINY, embeddings.shape[-1], make_schedule())
    bundle = start_of(options)
    if bundle:
        take_over(model.unet, load_file(bundle.part("zero123") / "diffusion_pytorch_model.safetensors"))
        found = load_file(bundle.part("cc_projection") / "model.safetensors")
        take_over(model.projection, through(found, "weight", map_from(bundle, views, embeddings), 1))
    model.unet.sketch.load_state_dict(load_sketch(options.work))
    report = zero123.train_zero123(data, over(zero123.TINY_ZERO123, options), folder, model)
    once(lambda: finish_part(folder, model.state_dict(), {**report, **started_from(bundle, "zero123")}, views))


def run_bundle(options: TrainOptions) -> None:
    from .bundle import write_bundle

    once(lambda: write_bundle(options.work, options.out or options.work / "bundle", options.towers))


def start_of(options: TrainOptions) -> Bundle | None:
    return None if options.start is None else find_bundle(options.start)


def map_from(bundle: Bundle, views: ViewSet, embeddings: torch.Tensor) -> torch.Tensor:
    """The matrix that makes embeddings as the bundle's networks know them out of ``embeddings``, [N, R, D]."""
    old = old_embeddings(bundle, views)
    return embedding_map(old, embeddings[: len(old)].float())


def make_schedule() -> dict:
    return {**diffusion.SCHEDULE, **diffusion.TINY_SCHEDULE}
