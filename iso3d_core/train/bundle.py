"""Write a bundle from a work folder: half-precision safetensors, configs, provenance, checksums."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from ..priors.attention import is_unread
from ..priors.clip import load_tokenizer
from ..priors.multiview import MultiViewPrior
from ..types import Reference
from ..weights import FORMAT, check_out, sha256
from . import clip, depth, diffusion, vae, zero123
from .data import TARGETS, ViewSet
from .draw import COLOR_NAMES
from .folder import load_towers
from .loop import load_tensors
from .probe import fit_elevation, fit_probe, labels_of
from .run import make_schedule
from .thinner import thinner
from .validate import validate
from .world import HELD_OUT_SEED, TRAINING_KINDS, Light, make_object

MISFIT_QUANTILE = 0.99
PROBED = 12_000  # objects of the towers' own work folder that the probes are fitted on
WEIGHED = 512  # references that say which directions of the pooling's inputs count
CAMERA = {"fov_y_deg": 35.0, "distance": 3.4, "angles": "degrees"}


def write_bundle(work: Path, out: Path, towers: Path | None = None, license_name: str = "Apache-2.0") -> None:
    """Assemble ``out`` from the finished parts in ``work``; an existing bundle is replaced only when all is written.

    towers : the work folder that the towers were trained in, where it has more objects: for what embeddings tell
    Raises InputError for an ``out`` that is something else than a bundle.
    """
    check_out(out)
    part = out.with_name(out.name + ".part")
    shutil.rmtree(part, ignore_errors=True)
    views = ViewSet(work / "data")
    reports = {p: read_report(work / p) for p in ("vae", "clip", "views1", "views2")}
    write_vae(work, part / "vae")
    limit = write_clip(work, views, part / "clip", towers)
    write_views(work, part / "multiview")
    if (work / "depth" / "final.pt").exists():
        reports["depth"] = read_report(work / "depth")
        write_depth(work, part)
    if (work / "zero123" / "final.pt").exists():
        reports["zero123"] = read_report(work / "zero123")
        write_zero123(work, part)
    validation = validate(work)
    objects = max([views.first_seed + len(views), *(report.get("objects", 0) for report in reports.values())])
    light = Light()
    info = {
        "name": out.name, "family": "tiny", "format": FORMAT, "license": license_name,
        "description": "Isotropic3D's parts, trained from nothing on procedural objects: knows simple colored things",
        "image_size": views.targets.shape[2], "pixel_unshuffle": vae.TINY_UNSHUFFLE,
        "latent_channels": vae.TINY["latent_channels"], "latent_size": views.targets.shape[2] // vae.TINY_UNSHUFFLE,
        "latent_scale": reports["vae"]["scale"], "camera": CAMERA,
        "light": asdict(light), "guidance_scale": 3.0, "familiar_limit": limit,
        # RGNV, with the part `depth`: which layers take the reference's keys and values, and on what background.
        "injected_layers": list(depth.LAYERS), "inject_from": 0, "background": 1.0,
        "rgnv": {"steps": 5, "strength": 0.8, "corrections": 1},
        "provenance": {
            "made_by": "python -m iso3d_core.train data, vae, clip, views --stage 1, views --stage 2, depth, zero123, "
            "bundle",
            "objects": objects, "seeds": [0, objects], "held_out_from_seed": HELD_OUT_SEED,
            "training": reports, "validation": validation,
        },
    }  # fmt: skip
    files = sorted(p for p in part.rglob("*") if p.is_file())
    info["files"] = {p.relative_to(part).as_posix(): sha256(p) for p in files}
    (part / "bundle.json").write_text(json.dumps(info, indent=2) + "\n", encoding="utf-8")
    write_misfit_limit(part, views)
    shutil.rmtree(out, ignore_errors=True)
    os.replace(part, out)


def write_misfit_limit(bundle: Path, views: ViewSet, objects: int = 2048) -> None:
    """Into bundle.json: what `MultiViewPrior.misfit` exceeds in few of the training references."""
    prior = MultiViewPrior.load(bundle, "cpu", "float32")
    found = []
    for images in views.references[:objects, 0]:
        rgb = vae.to_rgb(images)
        reference = Reference(torch.cat([rgb, torch.ones_like(rgb[:1])]))
        found.append(prior.misfit(reference, prior.embed(reference)) or 0.0)
    # Not their largest: one object that the sketch gets all wrong would let everything pass.
    info = {**prior.info, "misfit_limit": round(float(np.quantile(found, MISFIT_QUANTILE)) * 1.2, 4)}
    path = bundle / "bundle.json"
    path.with_suffix(".part").write_text(json.dumps(info, indent=2) + "\n", encoding="utf-8")
    os.replace(path.with_suffix(".part"), path)


def read_report(folder: Path) -> dict[str, Any]:
    """Final losses, hours, and the settings of one training."""
    settings = json.loads((folder / "config.json").read_text()) if (folder / "config.json").exists() else {}
    report = json.loads((folder / "report.json").read_text())
    shown = ("steps", "batch", "learning_rate", "optimizer", "seed")
    return {**{name: settings[name] for name in shown if name in settings}, **report}


def _half(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {k: (v.half() if v.is_floating_point() else v).contiguous() for k, v in state.items()}


def _save(state: dict[str, Tensor], path: Path) -> None:
    from safetensors.torch import save_file

    path.parent.mkdir(parents=True, exist_ok=True)
    save_file(_half(state), path, metadata={"format": "pt"})


def write_vae(work: Path, folder: Path) -> None:
    from diffusers import AutoencoderKL

    model: Any = AutoencoderKL(**vae.TINY)
    model.save_config(folder)
    _save(load_tensors(work / "vae" / "final.pt"), folder / "diffusion_pytorch_model.safetensors")


def write_clip(work: Path, views: ViewSet, folder: Path, towers: Path | None = None) -> float:
    """The towers, the vocabulary and what embeddings are familiar; returns the limit of familiarity.

    towers : another work folder, on whose references the probes are fitted
    """
    tokenizer = load_tokenizer(work / "clip")
    model = load_towers(work, tokenizer)
    _save(thinner(model, views.references[:WEIGHED, 0]), folder / "open_clip_model.safetensors")
    size = views.references.shape[2]
    settings = {"size": clip.TOWER_SIZE, "via": size, "mean": clip.MEAN, "std": clip.STD, "unit_length": True}
    config = {"model_cfg": clip.tiny_config(tokenizer.vocab_size), "preprocess_cfg": settings}
    (folder / "open_clip_config.json").write_text(json.dumps(config, indent=2) + "\n")
    shutil.copy(work / "clip" / "vocabulary.json", folder)
    if towers is None:
        embeddings = load_tensors(work / "embeddings.pt").float()
    else:
        views = ViewSet(towers / "data")
        embeddings = clip.embed_all(model, views.references[:PROBED]).float()
    objects, references, _ = embeddings.shape
    directions = F.normalize(embeddings.flatten(0, 1), dim=-1)
    write_words(directions, views.captions[:objects], folder.parent / "words")
    elevation = torch.from_numpy(views.elevation[:objects, TARGETS : TARGETS + references]).float().flatten()
    _save(fit_elevation(directions, elevation), folder.parent / "sketch" / "elevation.safetensors")
    return write_familiar(directions, folder)


def write_words(directions: Tensor, captions: Sequence[Sequence[str]], folder: Path) -> None:
    """What the bundle can say of an image, and the probe that says it from the directions of embeddings [N R, D]."""
    words = known_words()
    kind, facing = (x.flatten() for x in labels_of(captions, list(words["kinds"])))
    _save(fit_probe(directions, kind, facing, len(words["kinds"])), folder / "probe.safetensors")
    (folder / "words.json").write_text(json.dumps(words) + "\n")


def known_words(examples: int = 12) -> dict[str, Any]:
    """What `ClipPair.describe` may say: kinds with the parts that most of their objects have, and colors."""
    kinds = {}
    for kind in TRAINING_KINDS:
        drawn = [list(dict.fromkeys(part.name for part in make_object(seed, kind).parts)) for seed in range(examples)]
        order = list(dict.fromkeys(name for names in drawn for name in names))
        kinds[kind] = [name for name in order if 2 * sum(name in names for names in drawn) >= examples][:6]
    return {"kinds": kinds, "colors": list(COLOR_NAMES)}


def write_familiar(directions: Tensor, folder: Path) -> float:
    """Mean and whitening of the training embeddings' directions [N, D]; returns the limit of familiarity.

    Nearest neighbours do not tell: in a small space even noise has a neighbour as near as an unseen object's.
    """
    mean = directions.mean(dim=0)
    covariance = torch.cov(directions.T) + 1e-5 * torch.eye(len(mean))
    whiten = torch.linalg.inv(torch.linalg.cholesky(covariance))  # |whiten (x - mean)| is the Mahalanobis distance
    below = whiten[*torch.tril_indices(*whiten.shape)]  # the rest is zero
    _save({"mean": mean, "whiten": below}, folder / "familiar.safetensors")
    distance = ((directions - mean) @ whiten.T).norm(dim=-1)
    return round(float(np.quantile(distance.numpy(), 0.999)) * 1.03, 2)


def write_views(work: Path, folder: Path) -> None:
    """The UNet (stage 2's weights), its sketch network as a part of its own, and its schedule."""
    unet = diffusion.make_unet(diffusion.TINY)
    unet.save_config(folder)
    state = load_tensors(work / "views2" / "final.pt")
    sketch = {name[len("sketch.") :]: state.pop(name) for name in list(state) if name.startswith("sketch.")}
    state = {name: value for name, value in state.items() if not is_unread(name)}
    _save(state, folder / "diffusion_pytorch_model.safetensors")
    _save(sketch, folder.parent / "sketch" / "model.safetensors")
    (folder.parent / "sketch" / "config.json").write_text(json.dumps(unet.sketch.config, indent=2) + "\n")
    schedule = {"_class_name": "DDIMScheduler", **make_schedule()}
    (folder / "scheduler_config.json").write_text(json.dumps(schedule, indent=2) + "\n")


def write_depth(work: Path, bundle: Path) -> None:
    """The depth-conditioned UNet as part `depth`, the text tower it was trained with as part `text`."""
    depth.make_unet().save_config(bundle / "depth")
    weights = load_tensors(work / "depth" / "final.pt")
    _save(weights, bundle / "depth" / "diffusion_pytorch_model.safetensors")
    schedule = {"_class_name": "DDIMScheduler", **make_schedule()}
    (bundle / "depth" / "scheduler_config.json").write_text(json.dumps(schedule, indent=2) + "\n")
    tokenizer = load_tokenizer(work / "depth")
    _save(load_tensors(work / "depth" / "text.pt"), bundle / "text" / "open_clip_model.safetensors")
    shutil.copy(work / "depth" / "vocabulary.json", bundle / "text")
    config = {"model_cfg": clip.tiny_config(tokenizer.vocab_size)}
    (bundle / "text" / "open_clip_config.json").write_text(json.dumps(config, indent=2) + "\n")


def write_zero123(work: Path, bundle: Path) -> None:
    """The UNet as part `zero123`, the layer before its cross-attention as part `cc_projection`."""
    state = load_tensors(work / "zero123" / "final.pt")
    model = zero123.Zero123Training(zero123.TINY, state["projection.weight"].shape[1] - 4, make_schedule())
    model.load_state_dict(state)
    model.unet.save_config(bundle / "zero123")
    weights = {name: value for name, value in model.unet.state_dict().items() if not name.startswith("sketch.")}
    _save(weights, bundle / "zero123" / "diffusion_pytorch_model.safetensors")
    _save(model.projection.state_dict(), bundle / "cc_projection" / "model.safetensors")
    schedule = {"_class_name": "DDIMScheduler", **make_schedule()}
    (bundle / "zero123" / "scheduler_config.json").write_text(json.dumps(schedule, indent=2) + "\n")
