"""Values that change over an optimisation: small frozen callables."""

from __future__ import annotations

from dataclasses import dataclass


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
