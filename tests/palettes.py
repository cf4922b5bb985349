"""A small tower with a palette, and embeddings to look at it with."""

import torch
from torch.nn import functional as F

from iso3d_core.priors.palette import SLOTS, without

DIM = 128
CONFIG = {
    "embed_dim": DIM,
    "vision_cfg": {"image_size": 64, "layers": [1, 1, 1, 1], "width": 4, "head_width": 32},
    "text_cfg": {"context_length": 6, "vocab_size": 10, "width": 16, "heads": 2, "layers": 1},
}
HINTS = 5
FREE = 3 * SLOTS + HINTS
PALETTE = {
    "slots": SLOTS,
    "hints": HINTS,
    "mixing": 6,
    "exchange": 8,
    "width": 8,
    "values": 4,
    "hidden": 16,
    "places": 8,
}


def random(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def embeddings(count, seed=1):
    return F.normalize(random(count, DIM, seed=seed), dim=-1) * DIM**0.5


def bare(count, free, seed=1):
    """Embeddings with nothing in the free directions."""
    return F.normalize(embeddings(count, seed) @ without(free), dim=-1) * DIM**0.5
