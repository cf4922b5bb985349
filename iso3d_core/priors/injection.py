"""Self-attention that takes its keys and values from another image (HiFi-123, section 3.1)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from .attention import attend

KeysValues = dict[str, tuple[Tensor, Tensor]]


@dataclass
class Injection:
    """What the processors of one UNet do in the next forward pass.

    mode : "off", plain self-attention; "record", plain and remembered; "inject", with the remembered keys and values;
        "pair", the second half of the batch takes those of the first half
    remembered : keys and values [H, L, C] of each layer, H conditions of one image (with guidance two). A batch to
        inject into holds H times as many images, those of one condition side by side.
    """

    mode: str = "off"
    remembered: KeysValues = field(default_factory=dict)


class InjectAttention:
    """Attention processor of one layer; ``injection`` is shared by all, ``injected`` says whether it takes part."""

    def __init__(self, name: str, injection: Injection, injected: bool) -> None:
        self.name, self.injection, self.injected = name, injection, injected

    def __call__(
        self,
        attn: Any,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
        **_: object,
    ) -> Tensor:
        """hidden_states [B, L, C], encoder_hidden_states [B, K, D] or None -> [B, L, C]."""
        mode = self.injection.mode if self.injected and encoder_hidden_states is None else "off"
        if mode == "inject":
            return attend(attn, hidden_states, *self.kept_for(hidden_states))
        context = hidden_states if encoder_hidden_states is None else encoder_hidden_states
        key, value = attn.to_k(context), attn.to_v(context)
        if mode == "record":
            self.injection.remembered[self.name] = (key, value)
        elif mode == "pair":
            half = len(key) // 2
            key, value = (torch.cat([x[:half], x[:half]]) for x in (key, value))
        return attend(attn, hidden_states, key, value)

    def kept_for(self, images: Tensor) -> list[Tensor]:
        """The remembered key and value, one row for each of ``images`` [B, L, C]."""
        kept = self.injection.remembered[self.name]
        return [x.to(images.dtype).repeat_interleave(len(images) // len(x), dim=0) for x in kept]


def share_attention(unet: Any, layers: Sequence[str]) -> Injection:
    """Give ``unet`` injecting attention and return its switch.

    layers : beginnings of the names of the self-attention layers that take part, e.g. "up_blocks.3"
    """
    injection = Injection()
    unet.set_attn_processor(
        {
            name: InjectAttention(name, injection, any(name.startswith(layer) for layer in layers))
            for name in unet.attn_processors
        }
    )
    return injection
