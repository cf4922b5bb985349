"""Progress on a terminal: one bar a stage with rate and time left, and a preview file."""

from __future__ import annotations

import sys
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .types import InputError, Progress

PREVIEW_SECONDS = 3.0


@dataclass
class Bars:
    """One progress bar a stage, with rate and time left, and the preview file."""

    preview: Path | None
    seconds: float = 0.0
    _bar: Any = None
    _stage: str = ""
    _shown: float = 0.0

    def __enter__(self) -> Bars:
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.close()

    def show(self, progress: Progress) -> None:
        from tqdm import tqdm

        if progress.stage == "done":
            self.seconds = progress.values["seconds"]
            return
        if progress.stage != self._stage:
            self.__exit__()
            self._stage = progress.stage
            self._bar = tqdm(total=progress.total, desc=f"{progress.stage:10s}", file=sys.stderr, leave=True)
        self._bar.update(progress.step - self._bar.n)
        due = time.monotonic() - self._shown > PREVIEW_SECONDS
        if self.preview is not None and progress.preview is not None and due:
            from . import files

            with suppress(InputError):  # a full disk, or somebody looking at it: the work is worth more
                files.write_sheet(progress.preview(), self.preview)
            self._shown = time.monotonic()


def check_preview(path: Path | None) -> None:
    """Raise InputError now for a preview that could not be written."""
    from . import files

    if path is not None:
        if path.suffix.lower() != ".png":
            raise InputError(f"previews are written as PNG; name the preview something.png, not {path.name}")
        files.check_writable(path)
