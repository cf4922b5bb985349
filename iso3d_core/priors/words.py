"""Words for images: CLIP similarity of images and texts, a description of a reference, prompts for other views."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..types import InputError, Reference
from ..weights import Bundle, find_bundle
from .base import UNREADABLE, cannot_load
from .clip import ClipImage, any_tokenizer, load_shards, make_clip

DIRECTIONS = ("front", "front left", "left", "back left", "back", "back right", "right", "front right")
ROUNDS = 2  # of choosing the color of one part after another
LOOKED_FROM = 15.0  # degrees above the horizon, where it is not known: most images are
COLORS = ("red", "orange", "yellow", "green", "blue", "purple", "pink", "brown", "white", "grey", "black")
# For towers that know the world, not one of ours: everyday things.
NOUNS = (
    "airplane", "apple", "armchair", "backpack", "ball", "banana", "basket", "bear", "bed", "bench", "bicycle", "bird",
    "boat", "book", "boot", "bottle", "bowl", "bus", "cactus", "cake", "camera", "candle", "car", "castle", "cat",
    "chair", "clock", "cow", "cup", "dinosaur", "dog", "doll", "dragon", "duck", "elephant", "fish", "flower", "frog",
    "guitar", "hamburger", "hat", "helicopter", "horse", "house", "lamp", "lion", "monkey", "motorcycle", "mug",
    "mushroom", "owl", "panda", "penguin", "piano", "pig", "pineapple", "rabbit", "robot", "rocket", "sheep", "ship",
    "shoe", "snowman", "sofa", "statue", "strawberry", "table", "tank", "teapot", "teddy bear", "television", "tiger",
    "toy", "tractor", "train", "tree", "truck", "turtle", "umbrella", "vase", "violin", "watch",
)  # fmt: skip


def direction_name(azimuth_deg: float) -> str:
    """One of eight names: "front", "front left", … for a camera at that azimuth from the object's front."""
    return DIRECTIONS[round(azimuth_deg / 45.0) % 8]


def elevation_name(elevation_deg: float) -> str:
    return (
        "from below" if elevation_deg < -3 else "level" if elevation_deg < 8
        else "slightly above" if elevation_deg < 24 else "above"
    )  # fmt: skip


@dataclass(frozen=True)
class Description:
    """What an image shows, in words.

    text : of the object; front_deg : azimuth of the reference camera from the object's own front
    captions : name the direction as the captions of the embedded bundle's training do
    """

    text: str
    front_deg: float = 0.0
    captions: bool = False

    def seen_from(self, azimuth_deg: float, elevation_deg: float) -> str:
        """The prompt for a view, the reference being at azimuth 0 (DreamFusion, section 3.2, names front, side, back
        and overhead)."""
        azimuth = (azimuth_deg + self.front_deg) % 360
        if self.captions:
            return f"{self.text} seen from the {direction_name(azimuth)} {elevation_name(elevation_deg)}"
        if elevation_deg > 60:
            return f"{self.text}, overhead view"
        return f"{self.text}, {'front' if abs((azimuth + 180) % 360 - 180) < 45 else _side_or_back(azimuth)} view"


def _side_or_back(azimuth_deg: float) -> str:
    return "back" if abs(azimuth_deg - 180) < 45 else "side"


class ClipPair(nn.Module):
    """Both towers of a CLIP: unit embeddings of images and texts, to compare them.

    words : of `describe`: {"kinds": {kind: [parts]}, "colors": [...]}, or None for towers that know the world
    probe : of the kind and the direction, from the image's embedding: {"basis": [R, D], "weight": [K, 8, R], "bias":
        [K, 8]}, kinds and DIRECTIONS in their order; None leaves both to the texts
    """

    def __init__(
        self, image: ClipImage, clip: Any, tokenizer: Any, words: dict[str, Any] | None = None,
        probe: dict[str, Tensor] | None = None,
    ) -> None:  # fmt: skip
        super().__init__()
        self.image, self.clip, self.tokenizer, self.words, self.probe = image, clip, tokenizer, words, probe
        self.requires_grad_(False).eval()

    @staticmethod
    def load(bundle: str | Path | Bundle = "tiny") -> ClipPair:
        """The towers of a bundle. Where its part `clip` is an image tower alone, the text tower of the bundle sd-text
        is taken: Isotropic3D's is its other half. Raises InputError where there is none."""
        from safetensors.torch import load_file

        if not isinstance(bundle, Bundle):
            bundle = find_bundle(bundle)
        folder = bundle.part("clip")
        try:
            weights = load_shards(folder, "open_clip_model")
            if "token_embedding.weight" not in weights:
                folder = _other_half(bundle)
                weights = load_shards(folder, "open_clip_model")
            both = [json.loads((f / "open_clip_config.json").read_text()) for f in (bundle.part("clip"), folder)]
            seen, read = (config["model_cfg"]["embed_dim"] for config in both)
            if seen != read:
                raise InputError(
                    f"bundle {bundle.name!r} embeds images as {seen} numbers, the text tower in {folder} words as "
                    f"{read}: they are of two models; use the bundle tiny or isotropic3d for methods that take words"
                )
            clip = make_clip(both[1]["model_cfg"])
            del clip.visual
            own = clip.state_dict()
            found = {name: value.float() for name, value in weights.items() if name in own}
            clip.load_state_dict({"logit_scale": own["logit_scale"], **found})
            tokenizer, words, probe = any_tokenizer(folder), None, None
            if bundle.has("words"):
                words = json.loads((bundle.part("words") / "words.json").read_text())
                probe = load_file(bundle.part("words") / "probe.safetensors")
            return ClipPair(ClipImage.load(bundle.part("clip")), clip, tokenizer, words, probe)
        except UNREADABLE as error:
            raise cannot_load(bundle, error) from error

    @property
    def device(self) -> torch.device:
        return self.clip.positional_embedding.device

    @torch.no_grad()
    def embed_images(self, rgb: Tensor) -> Tensor:
        """[V, 3, H, W] in [0, 1], on white -> unit embeddings [V, D]."""
        opaque = torch.ones_like(rgb[:, :1])
        references = (Reference(torch.cat([rgb, opaque], dim=1)[i]) for i in range(len(rgb)))
        return F.normalize(torch.cat([self.image.embed(r)[:, 0] for r in references]), dim=-1)

    @torch.no_grad()
    def embed_texts(self, texts: list[str]) -> Tensor:
        """B texts -> unit embeddings [B, D]."""
        return F.normalize(self.clip.encode_text(self.tokenizer(texts).to(self.device)).float(), dim=-1)

    def similarity(self, rgb: Tensor, text: str) -> float:
        """Mean cosine of images [V, 3, H, W] and one text."""
        return float((self.embed_images(rgb) @ self.embed_texts([text]).T).mean())

    def describe(self, reference: Reference) -> Description:
        """Words for a reference: its kind, the color of each of its parts, the direction it is seen from.

        Radford et al. 2021: kind and direction by a linear probe of the image's embedding (section 3.2) where the
        bundle has one, all else by zero-shot classification (section 3.1): the text that is most like the image.
        """
        image = self.embed_images(reference.on_white()[None])[0]

        def best(texts: Sequence[str]) -> int:
            return int((self.embed_texts(list(texts)) @ image).argmax())

        if self.words is None:
            kind = NOUNS[best([f"a photo of a {noun}" for noun in NOUNS])]
            color = COLORS[best([f"a photo of a {color} {kind}" for color in COLORS])]
            return Description(f"a {color} {kind}")
        kind, front = self._kind_and_front(image, best)
        found = Description("", front, captions=True)
        parts, colors = self.words["kinds"][kind], self.words["colors"]

        def painted(names: Sequence[str]) -> Description:
            named = ", ".join(f"{color} {part}" for color, part in zip(names, parts, strict=True))
            return replace(found, text=f"a {kind} with {named}")

        # Captions are known whole: all parts start with one color, then each has its choice while the others stay.
        first = best([painted([color] * len(parts)).seen_from(0, LOOKED_FROM) for color in colors])
        chosen = [colors[first]] * len(parts)
        for part in list(range(len(parts))) * ROUNDS:
            options = [[*chosen[:part], color, *chosen[part + 1 :]] for color in colors]
            chosen = options[best([painted(names).seen_from(0, LOOKED_FROM) for names in options])]
        return painted(chosen)

    def _kind_and_front(self, image: Tensor, best: Callable[[Sequence[str]], int]) -> tuple[str, float]:
        """The kind of an embedding [D], and the azimuth in degrees that it is seen from."""
        assert self.words is not None
        kinds = list(self.words["kinds"])
        if self.probe is not None:
            basis, weight, bias = (self.probe[name].float() for name in ("basis", "weight", "bias"))
            logits = weight @ (basis @ image.cpu()) + bias
            number = int(logits.logsumexp(dim=1).argmax())
            return kinds[number], 45.0 * int(logits[number].argmax())
        kind = kinds[best([f"a {kind}" for kind in kinds])]
        return kind, 45.0 * best([f"a {kind} seen from the {name}" for name in DIRECTIONS])


def _other_half(bundle: Bundle) -> Path:
    try:
        return find_bundle("sd-text").part("text")
    except InputError:
        raise InputError(
            f"the CLIP of bundle {bundle.name!r} has no text tower; `iso3d models pull sd-text` brings one"
        ) from None
