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
from .clip import ClipImage, any_tokenizer, load_shards, make_clip, stored_shapes

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
        is its other half if it is as wide (Isotropic3D's is); else both towers are the bundle clip's. Raises
        InputError where there is neither."""
        from safetensors.torch import load_file

        if not isinstance(bundle, Bundle):
            bundle = find_bundle(bundle)
        try:
            image, text = _towers(bundle)
            clip = make_clip(_config(text))
            del clip.visual
            own = clip.state_dict()
            found = {k: v.float() for k, v in load_shards(text, "open_clip_model").items() if k in own}
            clip.load_state_dict({"logit_scale": own["logit_scale"], **found})
            words, probe = None, None
            if bundle.has("words") and image == bundle.part("clip"):
                words = json.loads((bundle.part("words") / "words.json").read_text())
                probe = load_file(bundle.part("words") / "probe.safetensors")
            return ClipPair(ClipImage.load(image), clip, any_tokenizer(text), words, probe)
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


def _towers(bundle: Bundle) -> tuple[Path, Path]:
    """Folders of an image tower and the text tower of the same model."""
    own = bundle.part("clip")
    if "token_embedding.weight" in stored_shapes(own, "open_clip_model"):
        return own, own
    other = _part_of("sd-text", "text")
    if other is not None and _config(other)["embed_dim"] == _config(own)["embed_dim"]:
        return own, other
    both = _part_of("clip", "clip")
    if both is None:
        raise InputError(
            f"the CLIP of bundle {bundle.name!r} cannot compare images with words: it has no text tower; "
            "`iso3d models pull clip` brings one that can (0.6 GB)"
        )
    return both, both


def _part_of(name: str, part: str) -> Path | None:
    try:
        return find_bundle(name).part(part)
    except InputError:
        return None


def _config(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "open_clip_config.json").read_text())["model_cfg"]
