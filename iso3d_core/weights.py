"""Bundles: where they are, what they hold, and whether they are intact. Nothing here touches the network."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from .types import InputError

EMBEDDED = Path(__file__).parent / "assets"
FORMAT = 1


@dataclass(frozen=True)
class Bundle:
    """A folder with ``bundle.json`` and one subfolder for each network."""

    folder: Path

    @cached_property
    def info(self) -> dict[str, Any]:
        """The contents of bundle.json. Raises InputError when it is missing, broken or of a newer format."""
        path = self.folder / "bundle.json"
        try:
            info = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise InputError(f"{self.folder} is not a bundle: it has no bundle.json; see `iso3d models list`") from None
        except (json.JSONDecodeError, UnicodeDecodeError) as error:
            raise InputError(f"{path} is damaged ({error}); install the bundle again") from None
        if info.get("format", 0) > FORMAT:
            raise InputError(f"{path} has format {info['format']}, this version reads {FORMAT}; update iso3d")
        return info

    @property
    def name(self) -> str:
        return str(self.info.get("name", self.folder.name))

    @property
    def family(self) -> str:
        """Which presets suit it: a key of `config.PRESETS`."""
        return str(self.info.get("family", self.name))

    @property
    def parts(self) -> list[str]:
        """The networks it holds: subfolders with weights."""
        return sorted(p.name for p in self.folder.iterdir() if p.is_dir() and any(p.glob("*.safetensors")))

    def has(self, *parts: str) -> bool:
        """Whether it has one of these parts."""
        return any((self.folder / part).is_dir() for part in parts)

    @property
    def size_bytes(self) -> int:
        return sum(p.stat().st_size for p in self.folder.rglob("*") if p.is_file())

    def part(self, name: str) -> Path:
        """The folder of one network; raises InputError naming what is missing."""
        folder = self.folder / name
        if not folder.is_dir():
            have = ", ".join(self.parts) or "nothing"
            raise InputError(f"bundle {self.name!r} has no part {name!r} (it has {have}); see `iso3d models list`")
        return folder

    def broken_files(self) -> list[str]:
        """Files of bundle.json that are missing or whose sha256 differs."""
        return [
            name
            for name, expected in self.info.get("files", {}).items()
            if not (self.folder / name).is_file() or sha256(self.folder / name) != expected
        ]


def sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


_more_folders: list[Path] = []


def models_folder() -> Path:
    """Where downloaded and converted bundles live: ISO3D_HOME, else the user's cache folder."""
    if home := os.environ.get("ISO3D_HOME"):
        return Path(home)
    cache = os.environ.get("XDG_CACHE_HOME") or os.environ.get("LOCALAPPDATA") or Path.home() / ".cache"
    return Path(cache) / "iso3d"


def add_models_folder(folder: str | Path) -> None:
    """Look for bundles and pulled models here too: a host program has a place of its own for them."""
    if Path(folder) not in _more_folders:
        _more_folders.append(Path(folder))


def search_folders() -> list[Path]:
    """Where bundles and pulled models may lie, beside the embedded ones; the first to have one counts."""
    return [models_folder(), *_more_folders]


def bundles() -> Iterator[Bundle]:
    """Every bundle on this machine, the embedded one first."""
    for root in (EMBEDDED, *search_folders()):
        if root.is_dir():
            yield from (Bundle(folder) for folder in sorted(root.iterdir()) if (folder / "bundle.json").is_file())


def find_bundle(name_or_folder: str | Path) -> Bundle:
    """A bundle by name or by folder; raises InputError listing the known ones."""
    folder = Path(name_or_folder)
    if (folder / "bundle.json").is_file():
        return Bundle(folder)
    known: dict[str, Bundle] = {}
    for bundle in bundles():
        known.setdefault(bundle.folder.name, bundle)
    if str(name_or_folder) in known:
        return known[str(name_or_folder)]
    raise InputError(
        f"no bundle {str(name_or_folder)!r} here (known: {', '.join(known) or 'none'}); "
        "give a folder with a bundle.json, or see `iso3d models list`"
    )


def check_out(out: Path) -> None:
    """Only a new folder, an empty one or another bundle may be replaced."""
    if out.exists() and not (out / "bundle.json").is_file() and (not out.is_dir() or any(out.iterdir())):
        raise InputError(f"{out} exists and is not a bundle; give --out a new folder")


def pulled(name: str, part: str) -> Path | None:
    """Where ``iso3d models pull`` put a model that transformers loads, or None where it was not pulled."""
    folders = (root / name / part for root in search_folders())
    return next((folder for folder in folders if (folder / "config.json").is_file()), None)


@contextmanager
def telling_what_to_do(name: str, extra: str) -> Iterator[None]:
    """Around the loading of the pulled model ``name``, which needs the extra: raises InputError with what to do."""
    try:
        yield
    except ImportError:
        raise InputError(f'{name} needs transformers; `pip install "iso3d[{extra}]"`') from None
    except (OSError, ValueError, RuntimeError) as error:
        raise InputError(f"{name} cannot be loaded ({error}); `iso3d models pull {name}` again") from None
