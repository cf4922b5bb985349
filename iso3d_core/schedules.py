"""Values that change over an optimisation: small frozen callables."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from itertools import pairwise


@dataclass(frozen=True)
class Ramp:
    """``start`` at step 0, linear to ``end`` at step ``until``, ``end`` afterwards."""

    start: float
    end: float
    until: int

    def __call__(self, step: int) -> float:
        if step >= self.until:
            return self.end
        return self.start + (self.end - self.start) * step / self.until


def milestone(milestones: tuple[tuple[int, int], ...], step: int) -> int:
    """The value of the last (from_step, value) at or before ``step``."""
    return [value for begin, value in milestones if begin <= step][-1]


@dataclass
class ClipBoundary:
    """Consistent123's boundary judgement (Eq. 5 and 6): when the 3D prior alone brings nothing more.

    Every ``every`` steps it is told how similar eight renders are to the text; it says to switch once the mean of the
    last ``window`` relative changes is below ``threshold`` in size (the paper omits the absolute value, its code has
    it), not before step ``earliest`` and at ``latest`` at the last.
    """

    earliest: int
    latest: int
    every: int = 20
    window: int = 5
    threshold: float = 0.00025
    steps: list[int] = field(default_factory=list)
    similarity: list[float] = field(default_factory=list)
    switched_at: int | None = None

    def due(self, step: int) -> bool:
        """Whether `update` wants to be told at this step."""
        return self.switched_at is None and (step % self.every == 0 or step >= self.latest)

    def update(self, step: int, similarity: float) -> bool:
        """Take note of the similarity at ``step``; True once the boundary is reached."""
        self.steps.append(step)
        self.similarity.append(similarity)
        settled = self.rate() is not None and abs(self.rate() or 0.0) < self.threshold
        if self.switched_at is None and ((settled and step >= self.earliest) or step >= self.latest):
            self.switched_at = step
        return self.switched_at is not None

    def rate(self) -> float | None:
        """R: the mean relative change over the window; None while there is too little to tell."""
        recent = self.similarity[-self.window - 1 :]
        if len(recent) <= self.window:
            return None
        changes = [(b - a) / max(abs(a), 1e-8) for a, b in pairwise(recent)]
        return sum(changes) / len(changes)


@dataclass(frozen=True)
class DynamicPrior:
    """Weights of the 3D and the 2D prior after the boundary (Consistent123 Eq. 8; Eq. 9 for the alternatives).

    kind : "exp" (e^(-t/T)), "linear" (1 - t/T) or "log" (log2(2 - t/T)), t counted from the boundary, T the steps left.
        Eq. 9 prints t/T and log2(t/T), which would let the 3D prior's weight grow; these are their counterparts
    """

    kind: str = "exp"

    def __post_init__(self) -> None:
        if self.kind not in ("exp", "linear", "log"):
            raise ValueError(f"the dynamic prior must be exp, linear or log, got {self.kind!r}")

    def __call__(self, t: int, total: int) -> tuple[float, float]:
        """(w_3D, w_2D) at ``t`` of ``total`` steps; they add up to 1."""
        part = min(max(t / max(total, 1), 0.0), 1.0)
        weight = {"exp": math.exp(-part), "linear": 1 - part, "log": math.log2(2 - part)}[self.kind]
        return weight, 1 - weight
