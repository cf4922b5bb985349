"""The one change Isotropic3D makes to a stock diffusers UNet: self-attention over the tokens of all views."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from ..cameras import spherical_harmonics
from .sketch import CHANNELS

HARMONICS = 4  # spherical harmonics up to degree 1, of the 9 that `spherical_harmonics` gives


class FoldViews:
    """Attention processor: in self-attention, the views of one object attend to each other (MVDream, section 3.1).

    ``(b v) l c`` becomes ``b (v l) c`` before attention and is unfolded after it. Cross-attention stays per view;
    with a single context token it is exactly ``to_out(to_v(context))``, so that is what is computed.

    Set ``views`` before each forward pass; one processor is shared by all the layers of a UNet.
    """

    def __init__(self) -> None:
        self.views = 1

    def __call__(
        self,
        attn: Any,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
        **_: object,
    ) -> Tensor:
        """hidden_states [(b v), l, c], encoder_hidden_states [(b v), k, d] or None -> [(b v), l, c].

        Raises ValueError when the batch is not a multiple of ``views``.
        """
        if encoder_hidden_states is not None and encoder_hidden_states.shape[1] == 1:
            return attn.to_out[0](attn.to_v(encoder_hidden_states)).expand_as(hidden_states)  # [(b v), l, c]
        batch, tokens, _channels = hidden_states.shape
        if encoder_hidden_states is None:
            if batch % self.views:
                raise ValueError(f"a batch of {batch} frames cannot be folded into groups of {self.views} views")
            folded = hidden_states.reshape(batch // self.views, self.views * tokens, -1)  # [b, (v l), c]
            context = folded
        else:
            folded, context = hidden_states, encoder_hidden_states

        out = attend(attn, folded, attn.to_k(context), attn.to_v(context))
        return out.reshape(batch, tokens, -1)


def attend(attn: Any, hidden_states: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Attention of hidden_states [B, L, C] to key and value [B, K, C], with ``attn``'s heads and output layer."""

    def heads(x: Tensor) -> Tensor:
        return x.unflatten(-1, (attn.heads, -1)).transpose(1, 2)  # [B, heads, tokens, C / heads]

    query, key, value = heads(attn.to_q(hidden_states)), heads(key), heads(value)
    if query.requires_grad and query.device.type == "cpu":
        # The fused one's backward pass takes several times as long there.
        weights = (query * query.shape[-1] ** -0.5 @ key.transpose(-1, -2)).softmax(dim=-1)
        out = weights.to(value.dtype) @ value
    else:
        out = F.scaled_dot_product_attention(query, key, value)
    return attn.to_out[0](out.transpose(1, 2).flatten(-2))


def fold_views(unet: Any) -> FoldViews:
    """Give every attention layer of ``unet`` the same `FoldViews` and return it."""
    processor = FoldViews()
    unet.set_attn_processor(processor)
    return processor


def is_unread(name: str) -> bool:
    """Of a UNet's weight, whether `FoldViews` never reads it with one token of context: it asks for that token."""
    return ".attn2.to_q." in name or ".attn2.to_k." in name


def with_views(unet: Any, views: int) -> Any:
    """``unet`` with its folding set to groups of ``views`` frames."""
    processor = next(iter(unet.attn_processors.values()))
    if not isinstance(processor, FoldViews):
        raise TypeError("this UNet does not fold views; call fold_views(unet) once after loading it")
    processor.views = views
    return unet


def steer(embedding: Tensor, cameras: Tensor) -> Tensor:
    """The embedding times each spherical harmonic of the viewing direction: [N, 1, D], [N, 16] -> [N, 1, 4 * D].

    What a view shows depends on the product of what the object is and where it is seen from. A small UNet is slow
    to find that product from the two given apart; diffusers' own input projection learns from it at once.
    """
    direction = cameras.unflatten(-1, (4, 4))[:, :3, 3]  # [N, 3], the camera's centre on the unit sphere
    return (spherical_harmonics(direction)[:, None, :HARMONICS, None] * embedding[:, :, None, :]).flatten(-2)


def guess_views(unet: Any, embedding: Tensor, cameras: Tensor, latents: int = 1) -> Tensor | None:
    """What the UNet's sketch network, if it has one, says of the views: [B, V, 4 f^2, h, w] at the latents' size.

    latents : that the UNet gets beside the guess; f, the guess's pixels to one of theirs in both directions, follows
    from the channels left, in which those pixels lie (pixel unshuffle)
    """
    sketch = getattr(unet, "sketch", None)
    if sketch is None:
        return None
    config = unet.config
    finer = math.isqrt((config.in_channels - latents * config.out_channels) // CHANNELS)
    return F.pixel_unshuffle(sketch(embedding, cameras, config.sample_size * finer), finer)


def predict(
    unet: Any, latents: Tensor, t: Tensor, embedding: Tensor, cameras: Tensor, guess: Tensor | None = None
) -> Tensor:
    """One forward pass over groups of views.

    latents [B, V, C, h, w]; t [B, V] integer timesteps (one may differ: the noise-free reference frame has 0)
    embedding [B, 1, D]; cameras [B, V, 16]; guess as `guess_views` gives it -> the network's output [B, V, C, h, w]
    """
    b, v = latents.shape[:2]
    context = embedding.repeat_interleave(v, dim=0)  # [(b v), 1, D]
    if getattr(unet, "encoder_hid_proj", None) is not None:
        context = steer(context, cameras.flatten(0, 1))
    if guess is not None:
        latents = torch.cat([latents, guess.to(latents.dtype)], dim=2)
    out = with_views(unet, v)(
        latents.flatten(0, 1),
        t.flatten(),
        encoder_hidden_states=context,
        class_labels=cameras.flatten(0, 1),
    ).sample
    return out.unflatten(0, (b, v))
