"""What an image shows, straight from its embedding: a linear probe of CLIP (Radford et al. 2021, section 3.2)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ..priors.words import DIRECTIONS

RIDGE = 1e-5  # added to the variances
RANK = 64  # combinations of the embedding's numbers that the probe looks at: small, and nearly as good as all
ELEVATION_RIDGE = 0.1  # added to the sums of squares
SHRINK = 20  # a class of so few examples stands half way between its own mean and its kind's


def labels_of(captions: Sequence[Sequence[str]], kinds: Sequence[str]) -> tuple[Tensor, Tensor]:
    """Number of the kind and of the direction that each caption names, both [N, R]."""
    rows = [[_label(text, kinds) for text in texts] for texts in captions]
    labels = torch.tensor(rows)
    return labels[..., 0], labels[..., 1]


def _label(caption: str, kinds: Sequence[str]) -> tuple[int, int]:
    thing, _, seen = caption.partition(" with ")
    kind = max((name for name in kinds if f" {thing}".endswith(f" {name}")), key=len)
    seen = seen.split(" seen from the ")[1]
    direction = max((name for name in DIRECTIONS if f"{seen} ".startswith(f"{name} ")), key=len)
    return list(kinds).index(kind), DIRECTIONS.index(direction)


def fit_probe(directions: Tensor, kind: Tensor, facing: Tensor, kinds: int) -> dict[str, Tensor]:
    """Linear discriminant analysis (Rao 1948): one Gaussian a kind and direction, all of the same covariance.

    directions : unit embeddings [N, D]; kind, facing : their labels [N], of ``kinds`` and of DIRECTIONS
    -> basis [R, D], weight [K, 8, R], bias [K, 8]: weight @ (basis @ x) + bias is the log-probability up to a constant
    """
    label = kind * len(DIRECTIONS) + facing
    own, count = _means(directions, label, kinds * len(DIRECTIONS))
    shared = _means(directions, kind, kinds)[0].repeat_interleave(len(DIRECTIONS), dim=0)
    trust = (count / (count + SHRINK))[:, None]
    means = trust * own + (1 - trust) * shared
    weight = torch.linalg.solve(_covariance(directions - means[label]), means.T).T
    bias = torch.log(count.clamp(min=1) / len(label)) - (weight * means).sum(dim=1) / 2
    # What varies most of the logits, over the embeddings, is kept.
    middle = directions.mean(dim=0)
    spread = torch.linalg.cholesky(_covariance(directions - middle))
    weight = weight - weight.mean(dim=0)
    u, s, v = torch.linalg.svd(weight @ spread, full_matrices=False)
    basis = torch.linalg.solve(spread.T, v[:RANK].T).T
    kept, shape = u[:, :RANK] * s[:RANK], (kinds, len(DIRECTIONS))
    bias = bias + (weight - kept @ basis) @ middle  # the rest is taken as that of the mean embedding
    return {"basis": basis.contiguous(), "weight": kept.unflatten(0, shape), "bias": bias.unflatten(0, shape)}


def fit_elevation(directions: Tensor, elevation_deg: Tensor) -> dict[str, Tensor]:
    """Ridge regression of the elevations [N], in degrees, that references were seen from, on the directions of their
    embeddings, of unit length [N, D].

    -> weight [D], bias []: weight @ x + bias is the elevation
    """
    middle, height = directions.mean(dim=0), elevation_deg.mean()
    x, y = (directions - middle).double(), (elevation_deg - height).double()
    weight = torch.linalg.solve(x.T @ x + ELEVATION_RIDGE * torch.eye(x.shape[1], dtype=x.dtype), x.T @ y).float()
    return {"weight": weight, "bias": height - weight @ middle}


def _covariance(centered: Tensor) -> Tensor:
    return centered.T @ centered / len(centered) + RIDGE * torch.eye(centered.shape[1])


def _means(x: Tensor, label: Tensor, classes: int) -> tuple[Tensor, Tensor]:
    count = torch.bincount(label, minlength=classes).float()
    return torch.zeros(classes, x.shape[1]).index_add(0, label, x) / count.clamp(min=1)[:, None], count
