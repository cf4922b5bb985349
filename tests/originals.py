"""Small networks in the original checkpoints' layouts, for the tests of conversion."""

import ldm
import open_clip
import torch

from iso3d_core.checkpoints.layouts import MULTIVIEW_UNET, SD_VAE, isotropic3d

SMALL = {
    "sample_size": 8, "block_out_channels": (32, 64), "layers_per_block": 1, "cross_attention_dim": 16,
    "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"), "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"),
    "attention_head_dim": (2, 4),
}  # fmt: skip
UNET = {**MULTIVIEW_UNET, **SMALL}
VAE = {
    **SD_VAE, "block_out_channels": (32, 64), "layers_per_block": 1, "sample_size": 16,
    "down_block_types": ("DownEncoderBlock2D",) * 2, "up_block_types": ("UpDecoderBlock2D",) * 2,
}  # fmt: skip
CLIP = {
    "embed_dim": 16,
    "vision_cfg": {"image_size": 28, "patch_size": 14, "width": 32, "layers": 2, "head_width": 16},
    "text_cfg": {"context_length": 6, "vocab_size": 10, "width": 16, "heads": 2, "layers": 1},
}
LAYOUT = isotropic3d(UNET, VAE, CLIP, image_size=16)


def random(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def prefixed(prefix, network):
    return {prefix + key: value.clone() for key, value in network.state_dict().items()}


def stirred(network, seed):
    """Weights far from any initialisation, so that no layer is an identity."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter += 0.05 * torch.randn(parameter.shape, generator=generator)
    return network.eval()


def isotropic3d_networks():
    """The three parts of Isotropic3D, small, as the original code writes them."""
    torch.manual_seed(0)
    return {
        "unet": stirred(ldm.UNet((32, 64), 1, (True, False), (2, 4), 16, camera_dim=16), 1),
        "vae": stirred(ldm.Vae((32, 64), 1), 2),
        "clip": stirred(open_clip.model.CLIP(**CLIP), 3),
    }


def isotropic3d_weights(networks):
    """As `isotropic3d.ckpt`: flat, its OpenCLIP without a text transformer, schedule buffers."""
    clip = prefixed("cond_stage_model.model.", networks["clip"])
    return {
        **prefixed("model.diffusion_model.", networks["unet"]),
        **prefixed("first_stage_model.", networks["vae"]),
        **{key: value for key, value in clip.items() if ".transformer." not in key or ".visual." in key},
        "betas": torch.zeros(1000), "alphas_cumprod": torch.zeros(1000), "sqrt_alphas_cumprod": torch.zeros(1000),
    }  # fmt: skip


def saved(weights, path):
    torch.save(weights, path)
    return path
