"""Figures of a trained work folder on objects of unseen seeds, for a bundle's provenance."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from ..priors.clip import load_tokenizer
from . import clip, depth, diffusion, occupancy, vae, zero123
from .data import ViewSet, build
from .folder import load_towers, read_scale
from .loop import load_tensors
from .run import make_schedule
from .world import HELD_OUT_SEED


@torch.no_grad()
def validate(work: Path, objects: int = 128) -> dict[str, float]:
    """Figures on objects of unseen seeds: VAE PSNR, CLIP retrieval, denoising loss after each stage."""
    build(work / "validation", objects, 64, first_seed=HELD_OUT_SEED + 10_000)
    views = ViewSet(work / "validation")
    scale, size = read_scale(work), views.targets.shape[2]
    autoencoder = vae.VaeTraining(vae.TINY, vae.TINY_UNSHUFFLE)
    autoencoder.vae.load_state_dict(load_tensors(work / "vae" / "final.pt"))
    rgba = vae.to_rgb(views.targets[:, 0])
    rgb, mask = (x.clamp(0, 1) for x in autoencoder.decode(autoencoder.encode(rgba[:, :3]).mode()))
    solid, found = rgba[:, 3:] > 0.5, mask > 0.5
    out = {
        "vae_psnr": float(-10 * torch.log10(F.mse_loss(rgb, rgba[:, :3]))),
        "mask_iou": float((solid & found).sum() / (solid | found).sum()),
    }
    tokenizer = load_tokenizer(work / "clip")
    towers = load_towers(work, tokenizer).eval()
    targets = vae.encode_all(autoencoder, views.targets, size) * scale
    references = vae.encode_all(autoencoder, views.references, size) * scale
    solids = occupancy.build(work / "validation_solids", range(views.first_seed, views.first_seed + objects))
    thumbs = clip.thumbnail_all(views.targets)
    images = clip.ReferenceSet(views, thumbs, solids, tokenizer, every=1, mirror=0)
    found = towers(images.draw(np.random.default_rng(0), 256))
    out |= {"clip_top1_of_256": float(found["top1"]), "sketch_mse": float(found["view"])}
    out |= {"sketch_solid_loss": float(found["solid"]), "sketch_color": float(found["color"])}
    out |= {"part_color": float(found["part"])}
    embeddings = clip.embed_all(towers, views.references)
    latents = diffusion.LatentSet(views, targets, references, embeddings)
    for stage in (1, 2):
        unet = diffusion.make_unet(diffusion.TINY)
        unet.load_state_dict(load_tensors(work / f"views{stage}" / "final.pt"))
        for explicit in (False, True):
            model = diffusion.MultiViewTraining(unet, make_schedule(), explicit).eval()
            torch.manual_seed(0)
            losses = [float(model(latents.batch(np.random.default_rng(i), 8))["loss"]) for i in range(16)]
            out[f"stage{stage}_loss{'_with_reference' if explicit else ''}"] = float(np.mean(losses))
    if (work / "depth" / "final.pt").exists():
        out |= validate_depth(work, depth.latents_of(views, {"targets": targets, "references": references}))
    if (work / "zero123" / "final.pt").exists():
        poses = zero123.PoseSet(views, targets, references, embeddings, scale)
        novel = zero123.Zero123Training(zero123.TINY, embeddings.shape[-1], make_schedule()).eval()
        novel.load_state_dict(load_tensors(work / "zero123" / "final.pt"))
        torch.manual_seed(0)
        losses = [float(novel(poses.batch(np.random.default_rng(i), 32))["loss"]) for i in range(16)]
        out["zero123_loss"] = float(np.mean(losses))
    return {name: round(value, 5) for name, value in out.items()}


def validate_depth(work: Path, latents: Tensor) -> dict[str, float]:
    """The depth-conditioned denoising loss of both images of a pair, plain and with injection."""
    first = HELD_OUT_SEED + 10_000
    depth.build(work / "validation_depth", range(first, first + len(latents)))
    images, captions = depth.load_depth(work / "validation_depth")
    tokenizer = load_tokenizer(work / "depth")
    text = depth.text_tower(load_towers(work, tokenizer), tokenizer)
    text.clip.load_state_dict(load_tensors(work / "depth" / "text.pt"))
    data, unet = depth.DepthSet(latents, images, captions, text), depth.make_unet()
    unet.load_state_dict(load_tensors(work / "depth" / "final.pt"))
    model, out = depth.DepthTraining(unet, make_schedule()).eval(), {}
    for inject in (False, True):
        torch.manual_seed(0)
        batches = (data.batch(np.random.default_rng(i), 8) for i in range(16))
        losses = [float(model({**batch, "inject": inject})["loss"]) for batch in batches]
        out["depth_loss_with_injection" if inject else "depth_loss"] = float(np.mean(losses))
    return out
