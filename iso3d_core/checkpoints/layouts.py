"""Where each network lies inside an original checkpoint, and how it becomes a part of a bundle.

The networks are stock ones; diffusers' own single-file converters rename their weights. Every key of a file is
accounted for: used by a part, or listed here as known and not needed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn

State = dict[str, Tensor]

SD_UNET: dict[str, Any] = {
    "sample_size": 32, "in_channels": 4, "out_channels": 4, "block_out_channels": (320, 640, 1280, 1280),
    "layers_per_block": 2, "cross_attention_dim": 1024, "attention_head_dim": (5, 10, 20, 20),
    "use_linear_projection": True,
    "down_block_types": ("CrossAttnDownBlock2D",) * 3 + ("DownBlock2D",),
    "up_block_types": ("UpBlock2D",) + ("CrossAttnUpBlock2D",) * 3,
}  # fmt: skip
MULTIVIEW_UNET = {**SD_UNET, "class_embed_type": "projection", "projection_class_embeddings_input_dim": 16}
ZERO123_UNET = {
    **SD_UNET, "in_channels": 8, "cross_attention_dim": 768, "attention_head_dim": 8, "use_linear_projection": False,
}  # fmt: skip
DEPTH_UNET = {**SD_UNET, "in_channels": 5, "sample_size": 64}
TEXT_UNET = {**SD_UNET, "sample_size": 64}
SD_VAE: dict[str, Any] = {
    "in_channels": 3, "out_channels": 3, "latent_channels": 4, "block_out_channels": (128, 256, 512, 512),
    "layers_per_block": 2, "scaling_factor": 0.18215, "sample_size": 256,
    "down_block_types": ("DownEncoderBlock2D",) * 4, "up_block_types": ("UpDecoderBlock2D",) * 4,
}  # fmt: skip
VIT_H_14: dict[str, Any] = {
    "embed_dim": 1024,
    "vision_cfg": {"image_size": 224, "layers": 32, "width": 1280, "head_width": 80, "patch_size": 14},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 1024, "heads": 16, "layers": 24},
}
VIT_L_14: dict[str, Any] = {
    "embed_dim": 768,
    "vision_cfg": {"image_size": 224, "layers": 24, "width": 1024, "patch_size": 14},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 768, "heads": 12, "layers": 12},
    "quick_gelu": True,
}
CLIP_MEAN, CLIP_STD = [0.48145466, 0.4578275, 0.40821073], [0.26862954, 0.26130258, 0.27577711]
SCHEDULE: dict[str, Any] = {
    "_class_name": "DDIMScheduler", "num_train_timesteps": 1000, "beta_start": 0.00085, "beta_end": 0.012,
    "beta_schedule": "scaled_linear", "clip_sample": False, "set_alpha_to_one": False, "steps_offset": 1,
    "prediction_type": "epsilon",
}  # fmt: skip

# Buffers that every latent diffusion checkpoint carries and that follow from the schedule.
BUFFERS = (
    "betas", "alphas_cumprod", "alphas_cumprod_prev", "sqrt_", "log_one_minus_", "posterior_", "logvar",
    "lvlb_weights", "scale_factor", "model_ema.", "first_stage_model.loss.",
)  # fmt: skip
CLIP_TEXT = tuple(
    f"cond_stage_model.model.{name}"
    for name in ("token_embedding.", "positional_embedding", "text_projection", "logit_scale", "ln_final.",
                 "transformer.", "attn_mask")
)  # fmt: skip


@dataclass(frozen=True)
class Part:
    """One network of a checkpoint.

    prefix : of its keys in the file; kind : "unet", "vae", "image_tower", "text_tower" or "linear"
    config : of the network; files : further JSON files of the part, by name
    rename : pairs of key beginnings to exchange before conversion, prefix included
    """

    prefix: str
    kind: str
    config: dict[str, Any]
    files: dict[str, Any] = field(default_factory=dict)
    rename: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class Layout:
    """A kind of checkpoint: its parts by name, the beginnings of keys that are known and not needed, bundle.json.

    averaged : the original code samples with the moving averages of the UNet's weights, where the file has them
    """

    parts: dict[str, Part]
    unused: tuple[str, ...]
    info: dict[str, Any]
    averaged: bool = False


def _clip_files(config: dict[str, Any]) -> dict[str, Any]:
    preprocess = {"size": config["vision_cfg"]["image_size"], "mean": CLIP_MEAN, "std": CLIP_STD, "via": 256}
    return {"open_clip_config.json": {"model_cfg": config, "preprocess_cfg": preprocess}}


def _text_files(config: dict[str, Any]) -> dict[str, Any]:
    return {"open_clip_config.json": {"model_cfg": config, "skip_last": 1}}


def _image_tower(config: dict[str, Any]) -> Part:
    return Part("cond_stage_model.model.visual.", "image_tower", config, _clip_files(config))


def _unet(config: dict[str, Any], rename: tuple[tuple[str, str], ...] = ()) -> Part:
    return Part("model.diffusion_model.", "unet", config, {"scheduler_config.json": SCHEDULE}, rename)


def _latents(image_size: int, vae: dict[str, Any]) -> dict[str, Any]:
    factor = 2 ** (len(vae["block_out_channels"]) - 1)
    return {
        "image_size": image_size, "latent_size": image_size // factor, "latent_channels": vae["latent_channels"],
        "latent_scale": vae["scaling_factor"],
    }  # fmt: skip


_CAMERA_EMBED = tuple(
    (f"model.diffusion_model.camera_embed.{i}.", f"model.diffusion_model.label_emb.0.{i}.") for i in (0, 2)
)


def isotropic3d(
    unet: dict[str, Any] = MULTIVIEW_UNET, vae: dict[str, Any] = SD_VAE, clip: dict[str, Any] = VIT_H_14,
    image_size: int = 256,
) -> Layout:  # fmt: skip
    """``isotropic3d.ckpt``: MVDream's UNet (`camera_embed` is diffusers' class embedding), VAE, OpenCLIP image tower.

    Its camera angles went through degrees-to-radians twice in training: bundle.json says so.
    """
    return Layout(
        {
            "multiview": _unet(unet, _CAMERA_EMBED),
            "vae": Part("first_stage_model.", "vae", vae),
            "clip": _image_tower(clip),
        },
        (*BUFFERS, *CLIP_TEXT),
        {
            **_latents(image_size, vae), "guidance_scale": 10.0, "family": "isotropic3d", "quick_vae": "taesd",
            "camera": {"fov_y_deg": 40.0, "distance": 3.0, "world": "mvdream", "angles": "degrees_converted_twice"},
        },
    )  # fmt: skip


def zero123(
    unet: dict[str, Any] = ZERO123_UNET, vae: dict[str, Any] = SD_VAE, clip: dict[str, Any] = VIT_L_14,
    image_size: int = 256,
) -> Layout:  # fmt: skip
    """Zero-1-to-3 (XL): the reference's latent is concatenated unscaled; ``cc_projection`` maps CLIP + pose to 768."""
    width = clip["embed_dim"]
    return Layout(
        {
            "zero123": _unet(unet),
            "cc_projection": Part("cc_projection.", "linear", {"in_features": width + 4, "out_features": width}),
            "vae": Part("first_stage_model.", "vae", vae),
            "clip": _image_tower(clip),
        },
        (*BUFFERS, *CLIP_TEXT, "cond_stage_model.mean", "cond_stage_model.std"),
        {**_latents(image_size, vae), "guidance_scale": 3.0, "family": "zero123"},
        averaged=True,
    )  # fmt: skip


def stable_diffusion_2(
    part: str, unet: dict[str, Any], vae: dict[str, Any] = SD_VAE, clip: dict[str, Any] = VIT_H_14
) -> Layout:
    """Stable Diffusion 2: the text or the depth conditioned UNet, VAE, OpenCLIP's text tower."""
    return Layout(
        {
            part: _unet(unet),
            "vae": Part("first_stage_model.", "vae", vae),
            "text": Part("cond_stage_model.model.", "text_tower", clip, _text_files(clip)),
        },
        (*BUFFERS, "cond_stage_model.model.logit_scale", "cond_stage_model.model.attn_mask", "depth_model."),
        {**_latents(512, vae), "guidance_scale": 7.5, "family": part},
        averaged=True,
    )


LAYOUTS: dict[str, Callable[[], Layout]] = {
    "isotropic3d": isotropic3d,
    "zero123": zero123,
    "sd-depth": lambda: stable_diffusion_2("depth", DEPTH_UNET),
    "sd-text": lambda: stable_diffusion_2("text2d", TEXT_UNET),
}


def make_network(part: Part) -> Any:
    """The network of a part, for its keys and shapes; call it where parameters take no memory."""
    if part.kind == "unet":
        from diffusers import UNet2DConditionModel

        return UNet2DConditionModel(**part.config)
    if part.kind == "vae":
        from diffusers import AutoencoderKL

        return AutoencoderKL(**part.config)
    if part.kind == "linear":
        return nn.Linear(**part.config)
    from ..priors.clip import make_clip, make_image_tower

    if part.kind == "image_tower":
        return make_image_tower(part.config)
    clip = make_clip(part.config)
    del clip.visual, clip.logit_scale
    return clip


def averaged_name(key: str) -> str:
    """Where a training state keeps the moving average of the UNet's weight ``key``: without the dots of its name."""
    return "model_ema." + key.removeprefix("model.").replace(".", "")


def convert_keys(part: Part, state: State) -> State:
    """The file's weights of one part, prefix included, under the names of the part's network.

    Raises KeyError naming a key that the conversion needs and the file lacks.
    """
    from diffusers.loaders.single_file_utils import convert_ldm_unet_checkpoint, convert_ldm_vae_checkpoint

    for before, after in part.rename:
        state = {after + key[len(before) :] if key.startswith(before) else key: value for key, value in state.items()}
    if part.kind == "unet":
        return convert_ldm_unet_checkpoint(state, part.config)
    if part.kind == "vae":
        return convert_ldm_vae_checkpoint(state, part.config)
    return {key[len(part.prefix) :]: value for key, value in state.items()}
