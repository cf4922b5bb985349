"""Download a catalogue entry from the hub and make it a bundle: resumed, checked, nothing half-written.

huggingface_hub does the transfer: it retries, and honours its own settings for proxies, tokens, mirrors (HF_ENDPOINT)
and offline work (HF_HUB_OFFLINE). Its `hf_hub_download` starts anew after a crash, so the partial file is kept here.
"""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..types import InputError, OnProgress
from ..weights import check_out, models_folder, sha256
from .catalogue import CATALOGUE, Entry, Source
from .convert import check_space, convert, write_info


@dataclass(frozen=True)
class Fetched:
    """The files of one source in a folder, and the commit they came from."""

    folder: Path
    source: Source
    commit: str


def find_entry(name: str) -> Entry:
    if name not in CATALOGUE:
        raise InputError(f"unknown model {name!r}; the catalogue has {', '.join(CATALOGUE)}")
    return CATALOGUE[name]


def pull(entry: Entry, half: bool = False, on_progress: OnProgress | None = None) -> Path:
    """Download and convert ``entry`` into the models folder; returns the bundle's folder.

    A download that was interrupted goes on where it stopped. Raises InputError when no source can be reached, a file
    arrives damaged, or the disk is full.
    """
    out = models_folder() / entry.name
    check_out(out)
    waiting = models_folder() / ".downloads" / entry.name
    waiting.mkdir(parents=True, exist_ok=True)
    check_space(out, int(entry.gigabytes * (2 if entry.kind else 1) * 1e9))
    fetched = fetch(entry, waiting)
    origin = {
        "license": entry.license, "description": entry.about,
        "source": {"repository": fetched.source.repository, "commit": fetched.commit},
    }  # fmt: skip
    if entry.kind is not None:
        convert(fetched.folder / fetched.source.files[0], entry.kind, out, half, on_progress, source=origin)
    else:
        adopt(fetched.folder, entry, out, origin)
    shutil.rmtree(waiting, ignore_errors=True)
    return out


def adopt(folder: Path, entry: Entry, out: Path, origin: dict[str, Any] | None = None) -> Path:
    """Make a bundle of files that are used as they are; raises InputError naming one that ``folder`` lacks."""
    check_out(out)
    files = entry.sources[0].files
    if lacking := [name for name in files if not (folder / name).is_file()]:
        raise InputError(f"{folder} has no {lacking[0]}; {entry.name} needs a folder with {', '.join(files)}")
    part = out.with_name(out.name + ".part")
    shutil.rmtree(part, ignore_errors=True)
    try:
        (part / str(entry.part)).mkdir(parents=True)
        for file in files:
            shutil.copy2(folder / file, part / str(entry.part))
        write_info(part, out.name, origin or {"license": entry.license, "description": entry.about})
        shutil.rmtree(out, ignore_errors=True)
        os.replace(part, out)
    except OSError as error:
        raise InputError(f"cannot write {out}: {error.strerror or error}") from error
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return out


def fetch(entry: Entry, folder: Path) -> Fetched:
    """The files of the first source that has them, each compared with the hub's own checksum."""
    failures = []
    for source in entry.sources:
        try:
            return _fetch_from(source, folder / source.repository.replace("/", "--"))
        except _Unavailable as reason:
            failures.append(f"{source.repository}: {reason}")
    mine = f"FILE --as {entry.kind}" if entry.kind else f"FOLDER --as {entry.name}"
    raise InputError(
        f"cannot download {entry.name} ({'; '.join(failures)}); run the command again to go on, or convert a file "
        f"you already have: iso3d models convert {mine}"
    )


class _Unavailable(Exception):
    """This source cannot give the files; the next one may."""


def _fetch_from(source: Source, folder: Path) -> Fetched:
    from huggingface_hub import get_hf_file_metadata, hf_hub_url
    from huggingface_hub.errors import (
        GatedRepoError,
        HTTPError,
        LocalEntryNotFoundError,
        OfflineModeIsEnabled,
        RepositoryNotFoundError,
    )

    commit = source.revision
    for file in source.files:
        try:
            known = get_hf_file_metadata(hf_hub_url(source.repository, file, revision=commit))
            commit = known.commit_hash or commit  # every further file, and a resumed download, of the same commit
            path = folder / file
            if not path.exists():
                _download(hf_hub_url(source.repository, file, revision=commit), path, known.etag, known.size)
        except OfflineModeIsEnabled:
            raise InputError("downloads are switched off (HF_HUB_OFFLINE is set)") from None
        except GatedRepoError:
            raise _Unavailable("accept its licence on its page and log in with `hf auth login`") from None
        except RepositoryNotFoundError:
            raise _Unavailable("not there any more") from None
        except (HTTPError, LocalEntryNotFoundError, ConnectionError, TimeoutError) as error:
            raise _Unavailable((str(error) or type(error).__name__).splitlines()[0]) from None
        except OSError as error:
            if error.errno is None:  # the transport's own errors
                raise _Unavailable(str(error).splitlines()[0]) from None
            raise InputError(f"cannot write {folder}: {error.strerror or error}") from error
        _check(path, known.etag, known.size)
    return Fetched(folder, source, commit)


def _download(url: str, path: Path, etag: str | None, size: int | None) -> None:
    """Into a partial file named by its checksum, from where an earlier run stopped; whole, it gets its name."""
    from huggingface_hub.file_download import http_get
    from huggingface_hub.utils import build_hf_headers

    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.name}.{(etag or 'unknown')[:16]}.part")
    with part.open("r+b" if part.exists() else "wb") as file:
        start = file.seek(0, os.SEEK_END)
        if size is None or start < size:
            http_get(url, file, resume_size=start, headers=build_hf_headers(), expected_size=size)
    os.replace(part, path)


def _check(path: Path, etag: str | None, size: int | None) -> None:
    """Against the hub's size and, for large files, its sha256; a damaged file goes, so that it is fetched again."""
    wrong = size is not None and path.stat().st_size != size
    if not wrong and etag is not None and len(etag) == 64:
        wrong = sha256(path) != etag
    if wrong:
        path.unlink()
        raise InputError(f"{path.name} arrived damaged and was removed; run the command again")
