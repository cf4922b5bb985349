"""An original checkpoint file to a bundle folder, part by part, every key accounted for.

Only plain weights are read: safetensors, or a pickle that needs no code (``weights_only``). The file is memory
mapped and one part is written at a time in shards, so the peak stays near the size of the file.
"""

from __future__ import annotations

import json
import os
import pickle
import re
import shutil
import struct
import warnings
import zipfile
from collections.abc import Iterable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..types import InputError, OnProgress, Progress
from ..weights import FORMAT, check_out, sha256
from .layouts import LAYOUTS, Layout, Part, State, averaged_name, convert_keys, make_network

SHARD = "1GB"
WEIGHTS_NAME = {"image_tower": "open_clip_model", "text_tower": "open_clip_model", "linear": "model"}
# Training states of Lightning 1 hold its callbacks' states by their class (Zero-1-to-3's checkpoints do).
CALLBACK = "pytorch_lightning.callbacks.model_checkpoint.ModelCheckpoint"


def convert(
    file: Path,
    kind: str,
    out: Path,
    half: bool = False,
    on_progress: OnProgress | None = None,
    layout: Layout | None = None,
    source: dict[str, Any] | None = None,
) -> Path:
    """Write the checkpoint ``file`` of a known ``kind`` as the bundle ``out``; returns ``out``.

    half : store float16 instead of the file's own precision
    layout : instead of the kind's own, for networks of other sizes
    source : licence and origin, for bundle.json
    Raises InputError for a file that is missing, cut short, not plain weights, of another kind (naming the key), or
    when the disk is full; then nothing is left behind.
    """
    if kind not in LAYOUTS:
        raise InputError(f"unknown kind of checkpoint {kind!r}; use one of {', '.join(LAYOUTS)}")
    check_out(out)
    layout = layout or LAYOUTS[kind]()
    state = read_state(file)
    check_known(file, kind, state, layout)
    prefixes = tuple(part.prefix for part in layout.parts.values())
    needed = (v.numel() * (2 if half else v.element_size()) for k, v in state.items() if k.startswith(prefixes))
    check_space(out, sum(needed))
    part_folder = out.with_name(out.name + ".part")
    shutil.rmtree(part_folder, ignore_errors=True)
    try:
        for number, (name, part) in enumerate(layout.parts.items()):
            own = {key: value for key, value in state.items() if key.startswith(part.prefix)}
            if layout.averaged and part.kind == "unet":
                own = averages(state, own)
            write_part(part_folder / name, part, checked(file, name, part, own, layout.unused), half)
            for key in own:
                del state[key]
            if on_progress:
                on_progress(Progress("convert", number + 1, len(layout.parts)))
        write_info(part_folder, out.name, {**layout.info, **(source or {}), "made_from": file.name})
        shutil.rmtree(out, ignore_errors=True)
        os.replace(part_folder, out)
    except OSError as error:
        raise InputError(f"cannot write {out}: {error.strerror or error}") from error
    finally:
        shutil.rmtree(part_folder, ignore_errors=True)
    return out


def read_state(file: Path) -> State:
    """All the tensors of a checkpoint, memory mapped where the format allows it; a wrapper's "state_dict" is opened.

    Raises InputError for a file that is missing, cut short, not a checkpoint, or that would run code.
    """
    if not file.is_file():
        raise InputError(f"no such file: {file}")
    state = _read_safetensors(file) if file.suffix == ".safetensors" else _read_pickle(file)
    state = state.get("state_dict", state)
    weights = {key: value for key, value in state.items() if isinstance(value, Tensor)}
    if not weights:
        raise InputError(f"{file.name} holds no weights")
    return weights


def _read_safetensors(file: Path) -> dict[str, Any]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(file, "pt") as opened:
            return {key: opened.get_tensor(key) for key in opened.keys()}  # noqa: SIM118 (not a dict)
    except (SafetensorError, OSError, struct.error) as error:
        raise InputError(f"{file.name} {_shortfall(file)}; download it again ({error})") from None


def _shortfall(file: Path) -> str:
    """How far a broken safetensors file is from what its header promises."""
    size = file.stat().st_size
    try:
        with file.open("rb") as opened:
            length = struct.unpack("<Q", opened.read(8))[0]
            header = json.loads(opened.read(length))
        wanted = 8 + length + max(v["data_offsets"][1] for k, v in header.items() if k != "__metadata__")
    except (struct.error, ValueError, KeyError, OverflowError, MemoryError):
        return f"is not a safetensors file ({size} bytes)"
    return f"is cut short: it has {size} bytes of {wanted}" if size < wanted else f"is damaged ({size} bytes)"


class _Callback:
    """In place of the class that a file names, and of which nothing is made."""


_Callback.__module__, _Callback.__qualname__ = CALLBACK.rsplit(".", 1)


def _knowing_callbacks() -> AbstractContextManager:
    safe_globals = getattr(torch.serialization, "safe_globals", None)  # from torch 2.5
    return nullcontext() if safe_globals is None else safe_globals([_Callback])


def _read_pickle(file: Path) -> dict[str, Any]:
    try:
        # Files from before torch 1.6 are no archives and cannot be memory mapped.
        with warnings.catch_warnings(action="ignore"), _knowing_callbacks():
            loaded = torch.load(file, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(file))
    except pickle.UnpicklingError as error:
        wanted = re.search(r"GLOBAL ([\w.]+)|(?:class|type) ([\w.]+)", str(error))
        if wanted is None:
            raise InputError(f"{file.name} is not a checkpoint ({file.stat().st_size} bytes)") from None
        name = wanted[1] or wanted[2]
        raise InputError(
            f"{file.name} is refused: it asks to run {name!r}, and plain weights run nothing; "
            "get the checkpoint as safetensors"
        ) from None
    except (RuntimeError, EOFError, ValueError, OSError) as error:
        size = file.stat().st_size
        reason = "its last bytes, the archive's directory, are missing" if "central directory" in str(error) else error
        raise InputError(f"{file.name} is cut short or damaged at {size} bytes: {reason}; download it again") from None
    if not isinstance(loaded, dict):
        raise InputError(f"{file.name} holds a {type(loaded).__name__}, not a checkpoint")
    return loaded


def check_known(file: Path, kind: str, state: Iterable[str], layout: Layout) -> None:
    """Every key belongs to a part or is known and not needed; every part has keys."""
    prefixes = tuple(part.prefix for part in layout.parts.values())
    for name, part in layout.parts.items():
        if not any(key.startswith(part.prefix) for key in state):
            raise InputError(f"{file.name} is no {kind} checkpoint: it has no key {part.prefix}* for the part {name!r}")
    strange = [key for key in state if not key.startswith((*prefixes, *layout.unused))]
    if strange:
        raise InputError(f"{file.name} is no {kind} checkpoint: {_some(strange)} {_is(strange)} unknown there")


def averages(state: State, own: State) -> State:
    """The moving averages of the weights ``own``, or these where ``state`` does not have the average of each."""
    found = {key: state[averaged_name(key)] for key in own if averaged_name(key) in state}
    return found if len(found) == len(own) else own


def checked(file: Path, name: str, part: Part, own: State, unused: tuple[str, ...]) -> State:
    """The part's weights under its network's names, all there, of the right shapes, and none left over."""
    from accelerate import init_empty_weights

    try:
        found = convert_keys(part, own)
    except KeyError as error:
        raise InputError(f"{file.name} lacks the key {part.prefix}{error.args[0]}, which {name!r} needs") from None
    with init_empty_weights():
        expected = {key: value.shape for key, value in make_network(part).state_dict().items()}
    used = {value.data_ptr() for key, value in found.items() if key in expected}
    left = [key for key, value in own.items() if value.data_ptr() not in used and not key.startswith(unused)]
    missing = [key for key in expected if key not in found]
    if missing:
        hint = f"; it has {_some(left)} instead" if left else ""
        raise InputError(f"{file.name} lacks the weights for {_some(missing)} of {name!r}{hint}")
    if left:
        raise InputError(f"{file.name}: {_some(left)} {_is(left)} unknown in {name!r}: another kind of checkpoint")
    for key, shape in expected.items():
        if found[key].shape != shape:
            got = list(found[key].shape)
            raise InputError(f"{file.name}: {key} of {name!r} has the shape {got}, expected {list(shape)}")
    return {key: found[key] for key in expected}


def _some(keys: list[str]) -> str:
    more = f" and {len(keys) - 1} more" if len(keys) > 1 else ""
    return f"{keys[0]!r}{more}"


def _is(keys: list[str]) -> str:
    return "are" if len(keys) > 1 else "is"


def check_space(out: Path, needed: int) -> None:
    parent = next(folder for folder in out.absolute().parents if folder.is_dir())
    free = shutil.disk_usage(parent).free
    if free < needed:
        raise InputError(f"{parent} has {free / 1e9:.2f} GB free, the bundle needs {needed / 1e9:.2f} GB")


def write_part(folder: Path, part: Part, weights: State, half: bool) -> None:
    """Weights in shards of at most 1 GB, config and further files."""
    from huggingface_hub import save_torch_state_dict

    folder.mkdir(parents=True)
    if half:
        weights = {key: _halved(key, value) for key, value in weights.items()}
    if part.kind == "image_tower":
        weights = {f"visual.{key}": value for key, value in weights.items()}
    name = WEIGHTS_NAME.get(part.kind, "diffusion_pytorch_model")
    save_torch_state_dict(
        weights, folder, filename_pattern=f"{name}{{suffix}}.safetensors", max_shard_size=SHARD,
        metadata={"format": "pt"},
    )  # fmt: skip
    if part.kind in ("unet", "vae"):
        class_name = "UNet2DConditionModel" if part.kind == "unet" else "AutoencoderKL"
        _write_json(folder / "config.json", {"_class_name": class_name, **part.config})
    elif part.kind == "linear":
        _write_json(folder / "config.json", part.config)
    for file, content in part.files.items():
        _write_json(folder / file, content)


def _halved(key: str, value: Tensor) -> Tensor:
    if not value.is_floating_point():
        return value
    halved = value.half()
    if not bool(torch.isfinite(halved).all()) and bool(torch.isfinite(value).all()):
        raise InputError(f"{key} has values beyond float16; convert without --half")
    return halved


def write_info(folder: Path, name: str, info: dict[str, Any]) -> None:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    checksums = {path.relative_to(folder).as_posix(): sha256(path) for path in files}
    _write_json(folder / "bundle.json", {"name": name, "format": FORMAT, **info, "files": checksums})


def _write_json(path: Path, content: Any) -> None:
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
