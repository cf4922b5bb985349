"""Words for photographs, by GIT (Wang et al. 2022) or any other captioner that transformers loads.

Optional: without its weights (`iso3d models pull captioner`) the description comes from zero-shot CLIP (`words`).
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Any

import torch

from ..types import Reference
from ..weights import pulled, telling_what_to_do

LONGEST = 40  # tokens of a caption


@torch.no_grad()
def caption(reference: Reference) -> str | None:
    """What the reference, on white, shows; None without a captioner, or where it finds no words.

    Raises InputError where the weights are there and cannot be used.
    """
    folder = pulled("captioner", "captioner")
    if folder is None:
        return None
    with telling_what_to_do("captioner", "captions"):
        processor, model = _load(folder)
    given = processor(images=reference.on_white(), do_rescale=False, return_tensors="pt")
    tokens = model.generate(pixel_values=given["pixel_values"], max_length=LONGEST)
    return processor.batch_decode(tokens, skip_special_tokens=True)[0].strip() or None


@lru_cache(maxsize=1)
def _load(folder: Path) -> tuple[Any, Any]:
    from transformers import AutoModelForImageTextToText, AutoProcessor

    processor = AutoProcessor.from_pretrained(folder, local_files_only=True)
    model = AutoModelForImageTextToText.from_pretrained(folder, local_files_only=True, use_safetensors=True)
    return processor, model.eval()
