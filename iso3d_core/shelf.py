"""`iso3d models`: the bundles on this machine, and how more get there."""

from __future__ import annotations

import sys
from pathlib import Path

from .bars import Bars
from .commands import Models
from .types import InputError
from .weights import Bundle, bundles, find_bundle, models_folder


def show(_: Models) -> None:
    """Every bundle here, then what can be downloaded."""
    from .checkpoints.catalogue import CATALOGUE

    here = list(bundles())
    for bundle in here:
        parts, size = ", ".join(bundle.parts), bundle.size_bytes / 1e6
        print(f"{bundle.folder.name:14s} {parts:38s} {size:9.1f} MB  {_license(bundle)}  {bundle.folder}")
    names = {bundle.folder.name for bundle in here}
    for entry in CATALOGUE.values():
        if entry.name not in names:
            how = f"not here: iso3d models pull {entry.name}"
            print(f"{entry.name:14s} {how:38s} {entry.gigabytes * 1e3:9.1f} MB  {entry.license}")


def _license(bundle: Bundle) -> str:
    try:
        return str(bundle.info.get("license", "unknown licence"))
    except InputError:
        return "DAMAGED: see `iso3d models verify`"


def verify(c: Models) -> None:
    """Compare checksums; raises InputError naming damaged files."""
    broken = []
    for bundle in [find_bundle(c.subject)] if c.subject else list(bundles()):
        try:
            damaged = bundle.broken_files()
        except InputError:
            damaged = ["bundle.json"]
        broken += [f"{bundle.folder.name}: {name}" for name in damaged]
        print(f"{bundle.folder.name:14s} {'DAMAGED: ' + ', '.join(damaged) if damaged else 'intact'}")
    if broken:
        raise InputError(f"{len(broken)} files are missing or damaged ({broken[0]}); install the bundle again")


def pull(c: Models) -> None:
    """Say what it is, how large and under which licence; ask; download and convert."""
    from .checkpoints.pull import find_entry
    from .checkpoints.pull import pull as download

    if c.subject is None:
        raise InputError("say which: iso3d models pull NAME; `iso3d models list` shows the names")
    entry = find_entry(c.subject)
    print(f"{entry.name}: {entry.about}")
    print(f"  {entry.gigabytes:.2f} GB from {entry.sources[0].repository}, licence: {entry.license}")
    if not c.yes:
        if not sys.stdin.isatty():
            raise InputError("nobody is there to ask; add --yes to accept the licence and download")
        if input("  download it? [y/N] ").strip().lower() not in ("y", "yes"):
            print("  not downloaded")
            return
    with Bars(None) as bars:
        print(f"{download(entry, c.half, bars.show)}")


def convert(c: Models) -> None:
    """A checkpoint file to a bundle, or a folder of files that are used as they are."""
    from .checkpoints.catalogue import CATALOGUE
    from .checkpoints.convert import convert as make_bundle
    from .checkpoints.pull import adopt

    if c.subject is None or c.as_ is None:
        raise InputError("say what to convert: iso3d models convert FILE --as KIND")
    entry = CATALOGUE.get(c.as_)
    if entry is not None and entry.kind is None:
        print(f"{adopt(Path(c.subject), entry, c.out or models_folder() / entry.name)}")
        return
    out = c.out or models_folder() / c.as_  # where methods look for it
    if c.out is None and out.exists():
        raise InputError(f"{out} is there already; remove it, or give --out another folder")
    with Bars(None) as bars:
        print(f"{make_bundle(Path(c.subject), c.as_, out, c.half, bars.show)}")
