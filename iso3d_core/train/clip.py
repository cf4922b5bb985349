"""Train CLIP: an open_clip model, contrastive on renders and captions, and predicting other views.

Other objects are easy negatives, so the viewing direction would never be needed to tell images apart: each batch
holds several directions of every object, and captions name the direction. The `Sketch` shows other views from the
embedding, and its volume is compared with the exact solid: what novel-view diffusion needs, the embedding keeps.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..cameras import unit_sphere_matrix
from ..priors.clip import WordTokenizer, make_clip, tower_input
from ..priors.palette import SLOTS, colors_of
from ..priors.sketch import SHADED, SIDE, SOLID_AT, Sketch, thumbnails
from . import occupancy
from .data import TARGETS, ViewSet, relative_cameras
from .loop import Batch, TrainConfig, fast_autocast, train
from .vae import to_rgb

MEAN = STD = [0.5, 0.5, 0.5]
CONTEXT = 40
VIEWS_EACH = 2
DIRECTIONS = 2  # references of each object in a batch
EVERY = 2  # of the pixels of a guess, in both directions, that a training step renders
HINTS = 32  # of how the colors lie, kept in the embedding beside them
TOWER_SIZE = 128  # pixels a side that the image tower sees, whatever the references have: 4 x 4 places at its end


def tiny_config(vocab_size: int) -> dict:
    return {
        "embed_dim": 256,
        "vision_cfg": {"image_size": TOWER_SIZE, "layers": [2, 10, 7, 1], "width": 32, "head_width": 64},
        "text_cfg": {"context_length": CONTEXT, "vocab_size": vocab_size, "width": 96, "heads": 3, "layers": 2},
        "palette": {"slots": SLOTS, "hints": HINTS, "mixing": 64, "exchange": 64},
    }


# Wide enough for what the embedding holds: the small UNets see no more of an object than this volume of it.
SKETCH: dict[str, Any] = {
    "rank": 192, "widths": (128, 192, 128), "groups": (8, 16, 16), "refined": 2, "palette": SLOTS, "hints": HINTS,
}  # fmt: skip


def _palette_of(config: dict) -> dict[str, int]:
    """What a `Sketch` is told of the palette that the towers' config has."""
    settings = config.get("palette", {"slots": 0, "hints": 0})
    return {"palette": settings["slots"], "hints": settings["hints"]}


def vocabulary(captions: Sequence[Sequence[str]]) -> list[str]:
    """Every word of the captions, most frequent first."""
    from collections import Counter

    counts = Counter(word for rows in captions for text in rows for word in WordTokenizer.split(text))
    return [word for word, _ in counts.most_common()]


class ClipTraining(nn.Module):
    """Contrastive loss plus ``view_weight`` times the squared error of the sketches, and ``solid_weight`` and
    ``color_weight`` times how far their volumes are from the solids and from the colors of these; of a tower with a
    palette also ``part_weight`` times how far that is from the colors of the parts, and how well cells find theirs.

    Forward takes {"rgb": [B, 3, S, S] in 0..1, "tokens": [B, L], "seen_from": [B, K, 16], "seen": [B, K, 4, h, w],
    "offset": (row, column), "solid": [B, z, y, x], "color": [B, 3, z, y, x], "colored": [B, z, y, x], "part":
    [B, z, y, x] int64}: other views of the same objects, every so many pixels of them, their occupancy, their base
    colors, where these count, and which color of which part they are (`occupancy.parts_of`).

    keep_towers : of the towers train nothing but what reads the colors of parts, and the sketch
    """

    clip: Any  # open_clip.CLIP

    def __init__(
        self,
        config: dict,
        view_weight: float = 40.0,
        solid_weight: float = 5.0,
        color_weight: float = 8.0,
        part_weight: float = 8.0,
        keep_towers: bool = False,
    ) -> None:
        super().__init__()
        self.clip = make_clip(config)
        self.sketch = Sketch(config["embed_dim"], **{**SKETCH, **_palette_of(config)})
        self.image_size: int = config["vision_cfg"]["image_size"]
        self.view_weight, self.solid_weight, self.color_weight = view_weight, solid_weight, color_weight
        self.part_weight, self.keep_towers = part_weight, keep_towers
        if keep_towers:
            self.clip.requires_grad_(False).visual.requires_grad_(True).tower.requires_grad_(False)

    def train(self, mode: bool = True) -> ClipTraining:
        super().train(mode)
        if self.keep_towers:
            self.clip.visual.tower.eval()  # its running means too stay as they are
        return self

    def networks(self) -> list[nn.Module]:
        return [self.clip.visual]

    def embed(self, rgb: Tensor) -> Tensor:
        """[B, 3, S, S] in 0..1 -> [B, D] of length sqrt(D)."""
        out = self.clip.visual(tower_input(rgb, self.image_size, MEAN, STD, via=rgb.shape[-1]))
        return F.normalize(out.float(), dim=-1) * out.shape[-1] ** 0.5

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        return self.losses(self.embed(batch["rgb"]), batch)

    def losses(self, image: Tensor, batch: Batch) -> dict[str, Tensor]:
        """The losses of embeddings [B, D] that were already computed from the batch."""
        text = F.normalize(self.clip.encode_text(batch["tokens"]).float(), dim=-1)
        likeness = self.clip.logit_scale.exp().clamp(max=100) * image / image.shape[-1] ** 0.5 @ text.T
        label = torch.arange(len(likeness), device=likeness.device)
        contrast = (F.cross_entropy(likeness, label) + F.cross_entropy(likeness.T, label)) / 2
        every = SIDE // batch["seen"].shape[-1]
        own, logits = self.sketch.read(image[:, None])
        volume = self.sketch.colored(own, logits, image)
        shown = self.sketch.render(volume, batch["seen_from"], SIDE, every, batch["offset"])
        view, solid = F.mse_loss(shown, batch["seen"]), solid_loss(volume[:, 3] - SOLID_AT, batch["solid"])
        color = color_loss(volume[:, :3], SHADED * batch["color"], batch["colored"])
        loss = contrast + self.view_weight * view + self.solid_weight * solid + self.color_weight * color
        shown_losses = {"contrast": contrast, "view": view, "solid": solid, "color": color}
        if logits is not None:
            part, found = self.part_losses(image, logits, batch)
            loss = loss + self.part_weight * part + found
            shown_losses |= {"part": part, "found": found}
        top1 = (likeness.argmax(dim=1) == label).float().mean()
        return {"loss": loss, **{name: value.detach() for name, value in shown_losses.items()}, "top1": top1}

    def part_losses(self, image: Tensor, logits: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
        """How far the palette of embeddings [B, D] is from the parts' colors, each counting as much as of it is at the
        surface, and the cross-entropy of those that cells [B, 1 + SLOTS, z, y, x] are taken to have."""
        weight = surface_share(batch["colored"] * (batch["part"] < SLOTS))
        number = batch["part"].clamp(max=SLOTS - 1)
        share, true = part_colors(batch["color"], number, weight)
        palette: Any = self.sketch.palette
        error = (colors_of(image, palette.free, SLOTS) - true).abs().mean(dim=-1)
        where = weight > 0
        found = F.cross_entropy(logits[:, 1:].movedim(1, -1)[where], number[where], reduction="none")
        return (error * share).sum() / len(image), (found * weight[where]).sum() / len(image)


def solid_loss(logits: Tensor, solid: Tensor) -> Tensor:
    """Binary cross-entropy of cells plus the Dice loss of each volume: [B, z, y, x] both, the target in 0..1.

    Dice (1 - 2 |A B| / (|A| + |B|)) weighs a thin object as much as a thick one.
    """
    entropy = F.binary_cross_entropy_with_logits(logits, solid)
    found, cells = logits.sigmoid(), (1, 2, 3)
    dice = 1 - 2 * (found * solid).sum(cells) / (found.sum(cells) + solid.sum(cells) + 1)
    return 2 * entropy + dice.mean()


def color_loss(logits: Tensor, color: Tensor, solid: Tensor) -> Tensor:
    """Mean absolute error over what is solid of each volume: [B, 3, z, y, x] both, and [B, z, y, x] in 0..1.

    Cells at the surface, which is what is seen, weigh several times as much as those inside.
    """
    share = surface_share(solid)
    where = share > 0  # few of the cells
    error = (logits.movedim(1, -1)[where].sigmoid() - color.movedim(1, -1)[where]).abs().mean(dim=-1)
    return (error * share[where]).sum() / len(logits)


def surface_share(solid: Tensor) -> Tensor:
    """What each cell of [B, z, y, x] in 0..1 counts, those of a volume together 1."""
    weight = solid * (1.1 - neighbourhood(solid))
    return weight / weight.sum((1, 2, 3), keepdim=True).clamp(min=1e-3)


def part_colors(color: Tensor, number: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    """How much of the weight [B, z, y, x] is on each number, [B, SLOTS], and the mean color there, [B, SLOTS, 3]: of
    cells' colors [B, 3, z, y, x] and their numbers [B, z, y, x]."""
    number, weight = number.flatten(1), weight.flatten(1)
    share = weight.new_zeros(len(weight), SLOTS).scatter_add(1, number, weight)
    sums = weight.new_zeros(len(weight), 3, SLOTS)
    sums = sums.scatter_add(2, number[:, None].expand(-1, 3, -1), color.flatten(2) * weight[:, None])
    return share, (sums / share.clamp(min=1e-6)[:, None]).transpose(1, 2)


def neighbourhood(cells: Tensor) -> Tensor:
    """Mean of the 27 cells around each of [B, z, y, x], 0 beyond the edges: `avg_pool3d`, which is slow on CPUs."""
    for dim in (1, 2, 3):
        before, after = cells.narrow(dim, 0, cells.shape[dim] - 1), cells.narrow(dim, 1, cells.shape[dim] - 1)
        total = cells.clone()
        total.narrow(dim, 1, before.shape[dim]).add_(before)
        total.narrow(dim, 0, after.shape[dim]).add_(after)
        cells = total / 3
    return cells


class ReferenceSet:
    """References, captions, other views and solids of a training set, drawn into batches for `ClipTraining`.

    thumbs : of the targets, uint8 [N, 12, 4, 32, 32]; every : of their pixels, in both directions, a batch holds
    solids : as `occupancy.build` gives them
    mirror : chance of a batch of mirrored objects, which are objects as good as the others
    """

    def __init__(
        self, views: ViewSet, thumbs: Tensor, solids: occupancy.Solids, tokenizer: WordTokenizer, every: int = EVERY,
        mirror: float = 0.5,
    ) -> None:  # fmt: skip
        self.views, self.thumbs, self.solids, self.tokenizer = views, thumbs, solids, tokenizer
        self.every, self.mirror = every, mirror

    def batch(
        self, rng: np.random.Generator, items: np.ndarray, reference: np.ndarray, mirrored: bool = False
    ) -> Batch:
        """Reference number ``reference`` of each of ``items``, both [B], with VIEWS_EACH other views of each."""
        views, turn = self.views, -1 if mirrored else 1
        rgb = to_rgb(np.stack([views.references[i, j] for i, j in zip(items, reference, strict=True)]))
        words = [views.captions[i][j] for i, j in zip(items, reference, strict=True)]
        target = rng.integers(TARGETS, size=(len(items), VIEWS_EACH))
        rows, facing = items[:, None], views.azimuth[items, TARGETS + reference]
        cameras = relative_cameras(
            turn * views.azimuth[rows, target], views.elevation[rows, target], turn * facing[:, None]
        )
        seen = self.thumbs[rows, target]
        if mirrored:
            rgb, seen, words = rgb.flip(-1), seen.flip(-1), [other_side(text) for text in words]
        row, column = (int(x) for x in rng.integers(self.every, size=2))
        color, colored = occupancy.colors_seen_from(self.solids.colors[items], facing, mirrored)
        return {
            "rgb": rgb,
            "tokens": self.tokenizer(words),
            "seen_from": unit_sphere_matrix(cameras).reshape(*target.shape, 16),
            "seen": seen[..., row :: self.every, column :: self.every].float() / 255,
            "offset": (row, column),
            "solid": occupancy.seen_from(np.asarray(self.solids.cells[items]), facing, SIDE, mirrored),
            "color": color,
            "colored": colored,
            "part": occupancy.parts_seen_from(self.solids.parts[items], facing, mirrored),
        }

    def draw(self, rng: np.random.Generator, size: int) -> Batch:
        """``size`` images: some of the references, each from a direction of its own, of size / DIRECTIONS objects."""
        items = rng.integers(len(self.views), size=size // DIRECTIONS)
        references = self.views.references.shape[1]
        reference = np.stack([rng.permutation(references)[:DIRECTIONS] for _ in items])
        mirrored = bool(rng.random() < self.mirror)
        return self.batch(rng, np.repeat(items, DIRECTIONS), reference.ravel(), mirrored)


def other_side(caption: str) -> str:
    """The caption of the mirrored image: left and right exchanged."""
    exchange = {"left": "right", "right": "left"}
    return " ".join(exchange.get(word, word) for word in caption.split(" "))


def train_clip(data: ReferenceSet, config: TrainConfig, folder: Path, model: ClipTraining) -> dict[str, float]:
    """Train ``model``; it then holds the averaged weights."""
    return train(model, lambda rng: data.draw(rng, config.batch), config, folder)


@torch.no_grad()
def embed_all(model: ClipTraining, images: np.ndarray, batch: int = 512) -> Tensor:
    """uint8 [N, R, S, S, 3] -> embeddings [N, R, D] fp16."""
    flat = images.reshape(-1, *images.shape[2:])
    device = next(model.parameters()).device
    with fast_autocast(device):
        rows = range(0, len(flat), batch)
        out = [model.embed(to_rgb(flat[i : i + batch]).to(device)).half().cpu() for i in rows]
    return torch.cat(out).reshape(*images.shape[:2], -1)


@torch.no_grad()
def thumbnail_all(images: np.ndarray, batch: int = 256) -> Tensor:
    """uint8 [N, V, S, S, 4] -> thumbnails uint8 [N, V, 4, 32, 32]."""
    rows = range(0, len(images), batch)
    return torch.cat([(thumbnails(to_rgb(images[i : i + batch])) * 255).round().to(torch.uint8) for i in rows])
