"""CLIP towers of a bundle: an image to its single embedding, words to tokens."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..types import InputError
from .palette import PaletteTower

if TYPE_CHECKING:
    from ..types import Reference


LEFT, RIGHT = ".left", ".right"  # after the name of a matrix that is stored as the product of two thinner ones


class WordTokenizer:
    """One token a word, for a CLIP text tower with a small vocabulary.

    Token 0 pads, 1 starts, 2 stands for an unknown word; the last one ends the text (open_clip pools there).
    """

    def __init__(self, words: list[str], context_length: int) -> None:
        self.words, self.context_length = words, context_length
        self.index = {word: i + 3 for i, word in enumerate(words)}
        self.end = len(words) + 3

    @property
    def vocab_size(self) -> int:
        return self.end + 1

    @staticmethod
    def split(text: str) -> list[str]:
        return re.findall(r"[a-z0-9]+", text.lower())

    def __call__(self, texts: list[str]) -> Tensor:
        """Texts -> [B, context_length] int64; longer texts are cut."""
        tokens = torch.zeros(len(texts), self.context_length, dtype=torch.long)
        for row, text in enumerate(texts):
            ids = [1, *(self.index.get(word, 2) for word in self.split(text))][: self.context_length - 1] + [self.end]
            tokens[row, : len(ids)] = torch.tensor(ids)
        return tokens


def image_tensor(
    reference: Reference, size: int, mean: list[float], std: list[float], via: int | None = None
) -> Tensor:
    """The reference as the image tower wants it: [1, 3, size, size], on white; otherwise as `tower_input`."""
    return tower_input(reference.on_white()[None].float(), size, mean, std, via)


def tower_input(rgb: Tensor, size: int, mean: list[float], std: list[float], via: int | None = None) -> Tensor:
    """Images [B, 3, H, W] in [0, 1] -> [B, 3, size, size], normalised.

    via : None resizes straight to ``size``, bicubic and smoothed, as CLIP's own preprocessing does; 256 is what
        Isotropic3D's and Zero-1-to-3's codes do: 256 by area, then ``size`` by bicubic interpolation, corners aligned
    """
    if via is None:
        rgb = F.interpolate(rgb, (size, size), mode="bicubic", antialias=True).clamp(0, 1)
    else:
        rgb = F.interpolate(rgb, (via, via), mode="area")
        rgb = F.interpolate(rgb, (size, size), mode="bicubic", align_corners=True)
    shift, scale = (rgb.new_tensor(values).reshape(1, 3, 1, 1) for values in (mean, std))
    return (rgb - shift) / scale


def make_clip(config: dict) -> Any:
    """An open_clip model from a config with "embed_dim", "vision_cfg" and "text_cfg".

    "palette" : where the image tower shall be a `PaletteTower`, its settings
    """
    import open_clip

    settings = {name: value for name, value in config.items() if name != "palette"}
    clip = open_clip.model.CLIP(**settings)
    clip.visual = _with_palette(clip.visual, config)
    return clip


def make_image_tower(config: dict) -> nn.Module:
    """Only the image tower of `make_clip`'s model."""
    from open_clip.model import _build_vision_tower

    tower = _build_vision_tower(config["embed_dim"], config["vision_cfg"], config.get("quick_gelu", False))
    return _with_palette(tower, config)


def _with_palette(tower: nn.Module, config: dict) -> nn.Module:
    return PaletteTower(tower, config["embed_dim"], **config["palette"]) if "palette" in config else tower


class ClipImage(nn.Module):
    """The image tower of a bundle.

    embed() gives [1, 1, D]: the tower's projected output, normalised to length sqrt(D) where the bundle says so.
    """

    def __init__(self, visual: nn.Module, settings: dict) -> None:
        super().__init__()
        self.visual, self.settings = visual, settings

    @staticmethod
    def load(folder: Path) -> ClipImage:
        stored = json.loads((folder / "open_clip_config.json").read_text())
        visual = make_image_tower(stored["model_cfg"])
        weights = load_shards(folder, "open_clip_model")
        visual.load_state_dict({k[7:]: v.float() for k, v in weights.items() if k.startswith("visual.")})
        size = stored["model_cfg"]["vision_cfg"]["image_size"]  # open_clip's own files do not say it again
        return ClipImage(visual.eval(), {"size": size, **stored["preprocess_cfg"]})

    def forward(self, images: Tensor) -> Tensor:
        """Normalised images [B, 3, S, S] -> embeddings [B, D]."""
        out = self.visual(images)
        return F.normalize(out, dim=-1) * out.shape[-1] ** 0.5 if self.settings.get("unit_length") else out

    @torch.no_grad()
    def embed(self, reference: Reference) -> Tensor:
        """-> [1, 1, D] float32."""
        s = self.settings
        images = image_tensor(reference, s["size"], s["mean"], s["std"], s.get("via"))
        device = next(self.parameters()).device
        return self(images.to(device, next(self.parameters()).dtype)).float()[:, None]


def blend(first: Tensor, second: Tensor, weight: float) -> Tensor:
    """Spherical interpolation of embeddings [B, 1, D], the length interpolated linearly; 0 gives the first.

    Batches of 1 are repeated to the other's size. Raises InputError where widths or batches do not fit.
    """
    if first.shape[-1] != second.shape[-1]:
        raise InputError(f"the embeddings have {first.shape[-1]} and {second.shape[-1]} numbers: of different bundles")
    if len(first) != len(second) and 1 not in (len(first), len(second)):
        raise InputError(f"batches of {len(first)} and {len(second)} embeddings do not fit together")
    first, second = torch.broadcast_tensors(first, second)
    lengths = first.norm(dim=-1, keepdim=True), second.norm(dim=-1, keepdim=True)
    a, b = first / lengths[0].clamp(min=1e-8), second / lengths[1].clamp(min=1e-8)
    angle = torch.acos((a * b).sum(-1, keepdim=True).clamp(-1, 1))
    sine = torch.sin(angle)
    # Almost the same direction: the sphere is flat there.
    near = sine < 1e-4
    sine = sine.masked_fill(near, 1.0)
    left = torch.where(near, torch.full_like(angle, 1 - weight), torch.sin((1 - weight) * angle) / sine)
    right = torch.where(near, torch.full_like(angle, weight), torch.sin(weight * angle) / sine)
    return (left * a + right * b) * torch.lerp(lengths[0], lengths[1], weight)


def stored_shapes(folder: Path, name: str) -> dict[str, list[int]]:
    """Of the weights that `load_shards` would give, by their names."""
    from safetensors import safe_open

    found: dict[str, list[int]] = {}
    for file in _shards(folder, name):
        with safe_open(file, "pt") as opened:
            found |= {key: opened.get_slice(key).get_shape() for key in opened.keys()}  # noqa: SIM118 (not a dict)
    for whole in _factored(found):
        found[whole] = [found.pop(whole + LEFT)[0], found.pop(whole + RIGHT)[1]]
    return found


def load_shards(folder: Path, name: str) -> dict[str, Tensor]:
    """The weights ``name``*.safetensors of a folder, in one file or in several; factors are multiplied."""
    from safetensors.torch import load_file

    found = {key: value for file in _shards(folder, name) for key, value in load_file(file).items()}
    for whole in _factored(found):
        found[whole] = found.pop(whole + LEFT).float() @ found.pop(whole + RIGHT).float()
    return found


def _factored(stored: Iterable[str]) -> list[str]:
    """Names of the matrices that are stored as factors."""
    return [name.removesuffix(LEFT) for name in stored if name.endswith(LEFT)]


def _shards(folder: Path, name: str) -> list[Path]:
    files = sorted(folder.glob(f"{name}*.safetensors"))
    if not files:
        raise FileNotFoundError(f"{folder} has no {name}.safetensors")
    return files


def load_tokenizer(folder: Path) -> WordTokenizer:
    """The bundle's own word tokenizer (``clip/vocabulary.json``)."""
    stored = json.loads((folder / "vocabulary.json").read_text())
    return WordTokenizer(stored["words"], stored["context_length"])


def any_tokenizer(folder: Path) -> Any:
    """The tokenizer of a text tower: of its own words where ``folder`` has a vocabulary, else CLIP's byte pairs."""
    if (folder / "vocabulary.json").exists():
        return load_tokenizer(folder)
    from open_clip.tokenizer import SimpleTokenizer

    config = json.loads((folder / "open_clip_config.json").read_text())["model_cfg"]
    return SimpleTokenizer(context_length=config["text_cfg"]["context_length"])


class ClipText(nn.Module):
    """A bundle's text tower as Stable Diffusion uses it: a vector for each token, not one for the text.

    Takes the words of ``vocabulary.json`` where the folder has one, else CLIP's own byte pairs. "skip_last" in the
    config leaves out that many of the last layers (Stable Diffusion 2 reads the penultimate one).
    """

    def __init__(self, clip: Any, tokenizer: Any, skip_last: int = 0) -> None:
        super().__init__()
        self.clip, self.tokenizer, self.skip_last = clip, tokenizer, skip_last
        self.requires_grad_(False).eval()

    @staticmethod
    def load(folder: Path) -> ClipText:
        """Raises OSError, KeyError or RuntimeError where files are missing or do not fit."""
        stored = json.loads((folder / "open_clip_config.json").read_text())
        clip = make_clip(stored["model_cfg"])
        del clip.visual, clip.logit_scale
        clip.load_state_dict({k: v.float() for k, v in load_shards(folder, "open_clip_model").items()})
        return ClipText(clip, any_tokenizer(folder), stored.get("skip_last", 0))

    @torch.no_grad()
    def forward(self, texts: list[str]) -> Tensor:
        """B texts -> [B, tokens, width] float32."""
        tokens = self.tokenizer(texts).to(self.clip.positional_embedding.device)
        x = self.clip.token_embedding(tokens) + self.clip.positional_embedding
        blocks = self.clip.transformer.resblocks
        for block in blocks[: len(blocks) - self.skip_last]:
            x = block(x, attn_mask=self.clip.attn_mask)
        return self.clip.ln_final(x).float()
