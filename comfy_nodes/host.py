"""What the running host offers: progress with previews, interruption, memory, folders. Imported when a node runs."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from ..iso3d_core.types import InputError, Progress, stage_shares
from ..iso3d_core.weights import find_bundle

REQUIREMENTS = Path(__file__).resolve().parent.parent / "requirements.txt"
TICKS, PREVIEW_SECONDS, PREVIEW_PIXELS = 1000, 1.0, 512


@dataclass
class BundleValue:
    """A loaded bundle on a socket: its prior, and ``patcher``, by which ComfyUI moves it to and from the device."""

    name: str
    prior: Any  # iso3d_core's MultiViewPrior or DepthPrior
    patcher: Any


class Networks(nn.Module):
    """What ComfyUI's memory manager moves: it writes attributes of its own on the module it manages."""

    def __init__(self, prior: nn.Module) -> None:
        super().__init__()
        self.prior = prior


def load_bundle(name: str) -> BundleValue:
    """Read a bundle by name, in the arithmetic that suits the device it will run on."""
    from ..iso3d_core.priors.multiview import MultiViewPrior

    return _managed(name, MultiViewPrior.load)


def load_depth_bundle(name: str) -> BundleValue:
    """As `load_bundle`, its depth-conditioned prior."""
    from ..iso3d_core.priors.depth import DepthPrior

    return _managed(name, DepthPrior.load)


def _managed(name: str, load: Callable[[str, str], Any]) -> BundleValue:
    """The host runs nodes in inference mode; weights made there could never take part in an optimisation."""
    import comfy.model_management as memory
    import torch
    from comfy.model_patcher import ModelPatcher

    device = memory.get_torch_device()
    # What else lies there has to make room first; networks are read straight into it.
    memory.free_memory(1.1 * find_bundle(name).size_bytes + memory.minimum_inference_memory(), device)
    try:
        with torch.inference_mode(False):
            prior = load(name, str(device))
    except ModuleNotFoundError as error:
        raise InputError(missing(error)) from error
    return BundleValue(name, prior, ModelPatcher(Networks(prior), device, memory.unet_offload_device()))


def missing(error: ModuleNotFoundError) -> str:
    """What to do where ComfyUI's Python lacks a library."""
    return (
        f"ComfyUI's Python lacks {error.name}; install what the nodes need, then start ComfyUI again: "
        f'"{sys.executable}" -m pip install -r "{REQUIREMENTS}"'
    )


def ready(bundle: BundleValue) -> Any:
    """The bundle's prior, on the device."""
    import comfy.model_management as memory
    import torch

    with torch.inference_mode(False):  # moving makes new tensors
        memory.load_models_gpu([bundle.patcher], force_full_load=True)  # not in parts: nothing here casts them
    return bundle.prior


def device_name() -> str:
    """The device that ComfyUI computes on, for networks that are loaded while a node works."""
    import comfy.model_management as memory

    return str(memory.get_torch_device())


def bundle_names(*parts: str) -> list[str]:
    """Of the embedded bundle, those that `iso3d models` made, and those in ComfyUI's `models/iso3d`, the ones that have
    one of these parts."""
    register_models_folders()
    from ..iso3d_core.weights import bundles

    return list(dict.fromkeys(bundle.folder.name for bundle in bundles() if bundle.has(*parts))) or ["tiny"]


def register_models_folders() -> None:
    """Bundles may lie in `models/iso3d`, and where `extra_model_paths.yaml` names more places for iso3d."""
    import folder_paths

    from ..iso3d_core.weights import add_models_folder

    folder_paths.add_model_folder_path("iso3d", os.path.join(folder_paths.models_dir, "iso3d"))
    for folder in folder_paths.get_folder_paths("iso3d"):
        add_models_folder(folder)


def check_interrupt() -> None:
    import comfy.model_management as memory

    memory.throw_exception_if_processing_interrupted()


def reporter(stages: tuple[str, ...], method: str = "isotropic3d") -> Callable[[Progress], None]:
    """Moves the node's progress bar over the given stages, shows a preview about once a second, and lets the host's
    interruption through at every step."""
    import comfy.utils

    bar = comfy.utils.ProgressBar(TICKS)
    shares = stage_shares(method)
    if stages[0] not in shares:
        shares = {stages[0]: (0.0, 1.0)}
    first, last = shares[stages[0]][0], shares[stages[-1]][1]
    shown = [0.0]

    def report(progress: Progress) -> None:
        check_interrupt()
        if progress.stage not in shares:
            return
        low, high = shares[progress.stage]
        at = low + (high - low) * progress.step / max(progress.total, 1)
        preview = None
        if progress.preview is not None and time.monotonic() - shown[0] > PREVIEW_SECONDS:
            preview = ("JPEG", strip(progress.preview()), PREVIEW_PIXELS)
            shown[0] = time.monotonic()
        bar.update_absolute(round(TICKS * (at - first) / (last - first)), TICKS, preview)

    return report


def strip(views: Tensor) -> Any:
    """[V, 3, H, W] -> one PIL image, side by side."""
    from PIL import Image

    row = views.detach().float().clamp(0, 1).permute(2, 0, 3, 1).flatten(1, 2).cpu().numpy()
    return Image.fromarray((row * 255).round().astype("uint8"))


def output_path(filename_prefix: str, suffix: str) -> tuple[Path, dict[str, str]]:
    """A new file below ComfyUI's output folder, and how the page names it; raises InputError for a place outside."""
    import folder_paths

    prefix = filename_prefix.strip().replace("\\", "/")
    root = os.path.realpath(folder_paths.get_output_directory())
    wanted = os.path.realpath(os.path.join(root, prefix))
    if not prefix or prefix.endswith("/") or not wanted.startswith(root + os.sep) or "\0" in prefix:
        raise InputError(
            f"filename_prefix: {filename_prefix!r} is no place inside the output folder; use a name like mesh/iso3d"
        )
    folder, name, counter, subfolder, _ = folder_paths.get_save_image_path(prefix, root)
    file = f"{name}_{counter:05}_{suffix}"
    return Path(folder) / file, {"filename": file, "subfolder": subfolder, "type": "output"}


def relative(entry: dict[str, str]) -> str:
    """The path of a written file relative to the output folder, as Preview 3D takes it."""
    return f"{entry['subfolder']}/{entry['filename']}".lstrip("/")
