"""`iso3d doctor`: versions, devices, backends, bundles."""

from __future__ import annotations

import platform
import sys
from importlib.metadata import PackageNotFoundError, version

from .types import InputError

LIBRARIES = (
    "torch",
    "torchvision",
    "diffusers",
    "open_clip_torch",
    "nerfacc",
    "trimesh",
    "embreex",
    "xatlas",
    "scikit-image",
)


def report() -> list[str]:
    """Lines for a person: what is here, what is missing and the command for it."""
    import torch

    from .priors.base import choose_arithmetic
    from .weights import bundles

    lines = [f"iso3d      {_version('iso3d')}", f"python     {platform.python_version()} ({sys.platform})"]
    missing = [name for name in LIBRARIES if _version(name) == "missing"]
    lines += [f"{name:10s} {_version(name)}" for name in LIBRARIES]
    if missing:
        lines.append(f"missing libraries: install them with  pip install {' '.join(missing)}")
    if torch.cuda.is_available():
        free, total = torch.cuda.mem_get_info()
        lines.append(f"device     {torch.cuda.get_device_name()} ({free / 2**30:.1f} of {total / 2**30:.1f} GiB free)")
    else:
        lines.append(f"device     CPU, {torch.get_num_threads()} threads (no CUDA device found)")
    device, arithmetic = choose_arithmetic("auto", "auto")
    where = "GPU" if device == "cuda" else "CPU"
    why = "" if arithmetic == torch.bfloat16 else f" (this {where} is slow with bfloat16)"
    lines.append(f"arithmetic {str(arithmetic).removeprefix('torch.')}{why}")
    triton = _version("triton")
    lines.append(f"triton     {'not installed (optional: GPU kernels)' if triton == 'missing' else triton}")
    found = list(bundles())
    for bundle in found:
        try:
            broken = bundle.broken_files()
        except InputError as error:
            lines.append(f"bundle     {bundle.folder.name}: DAMAGED: {error}")
            continue
        state = "intact" if not broken else f"DAMAGED: {', '.join(broken)}; install it again"
        lines.append(f"bundle     {bundle.name}: {', '.join(bundle.parts)}; {bundle.size_bytes / 1e6:.1f} MB; {state}")
    if not found:
        lines.append("bundle     none: this installation lacks its embedded bundle; reinstall iso3d")
    return lines


def memory(name: str, method: str | None = None) -> list[str]:
    """A line a preset: the GPU memory it needs with the bundle, and whether this machine has it.

    method : None takes isotropic3d, or consistent123 with a bundle that has no multi-view prior
    """
    import torch

    from .presets import PRESETS, preset, with_method
    from .vram import predict
    from .weights import find_bundle

    bundle = find_bundle(name)
    free = torch.cuda.mem_get_info()[0] / 1e9 if torch.cuda.is_available() else None
    method = method or ("isotropic3d" if bundle.has("multiview") else "consistent123")
    lines = [f"GPU memory that {method} with bundle {bundle.name} needs, predicted:"]
    for chosen in PRESETS.get(bundle.family, PRESETS["isotropic3d"]):
        need = predict(bundle, with_method(preset(chosen, bundle.family), method))
        fits = "no GPU here" if free is None else "fits" if need.peak <= free else f"does NOT fit in {free:.1f} GB free"
        lines.append(
            f"  {chosen:8s} {need.peak:6.1f} GB  (networks {need.networks:.1f}, VAE gradient {need.encode:.1f}, "
            f"rendering {need.render:.1f}, field {need.field:.1f})  {fits}"
        )
    return lines


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "missing"
