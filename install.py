"""Report whether everything iso3d needs is here, link the pack into ComfyUI, or build the Blender add-on.

ComfyUI's Manager runs this file without arguments: it then only reports. It never installs or changes a package.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.metadata
import importlib.util
import json
import os
import platform
import re
import shutil
import sys
import tomllib
import zipfile
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent
LINK_NAME = "iso3d"
ADDON_NAME = "iso3d_blender"
ACCELERATORS = ("triton",)
# Any OpenCV will do; the host may have brought another build of it.
ALTERNATIVES = {
    "opencv-python-headless": ("opencv-python", "opencv-contrib-python", "opencv-contrib-python-headless"),
}


class InstallError(Exception):
    """The request cannot be met; the message says why and what to do."""


def main(argv: Sequence[str] | None = None, root: Path = ROOT) -> int:
    """Run the command line on the pack at ``root``; returns 0, or 2 where the request cannot be met.

    A report returns 0 even where something is missing: ComfyUI's Manager takes anything else for a failed install.
    """
    parser = argparse.ArgumentParser(prog="install.py", description="Without an option, report what is here.")
    choice = parser.add_mutually_exclusive_group()
    choice.add_argument(
        "--comfyui", metavar="DIR", type=Path, help="link the pack into the custom_nodes of this ComfyUI"
    )
    choice.add_argument(
        "--blender", metavar="DIR", type=Path, help="write the zip of the Blender add-on into this folder"
    )
    choice.add_argument("--build-addon", metavar="OUT.zip", type=Path, help="write the zip of the Blender add-on here")
    choice.add_argument(
        "--addon-repository", metavar="DIR", type=Path,
        help="write the zip and an index.json there: served as a folder, a repository for Blender 4.2 and later",
    )  # fmt: skip
    arguments = parser.parse_args(argv)
    try:
        if arguments.comfyui:
            print(link_into_comfyui(root, arguments.comfyui))
        elif arguments.blender:
            if not arguments.blender.is_dir():
                raise InstallError(f"There is no folder {str(arguments.blender)!r}; create it or give another.")
            out = build_addon(root, arguments.blender / f"{ADDON_NAME}.zip")
            print(f"Wrote {out}; in Blender choose Edit > Preferences > Add-ons > Install from Disk and pick it.")
        elif arguments.addon_repository:
            print(f"Wrote {build_repository(root, arguments.addon_repository)} and the zip beside it.")
        elif arguments.build_addon:
            print(f"Wrote {build_addon(root, arguments.build_addon)}.")
        else:
            print("\n".join(report(root)))
    except InstallError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


def report(root: Path) -> list[str]:
    """Lines on Python, torch, the device, each requirement, the accelerators and the embedded bundle; summary last."""
    torch_lines, has_torch = _report_torch()
    lines = [f"Python {platform.python_version()} ({sys.executable})", *torch_lines]
    missing = [] if has_torch else ["torch"]
    to_install = []
    for name, least in _requirements(root):
        version = _installed_version(name)
        old = version is not None and _numbers(version) < _numbers(least)
        lines.append(
            f"{name} {version}{f': too old, {least} is needed' if old else ''}" if version else f"{name}: missing"
        )
        if version is None or old:
            to_install.append(f'"{name}>={least}"' if least else name)
            missing.append(name)
    if to_install:
        lines.append(f'To get what is missing, run: "{sys.executable}" -m pip install {" ".join(to_install)}')
    for name in ACCELERATORS:
        found = importlib.util.find_spec(name) is not None
        lines.append(f"optional accelerator {name}: {'found' if found else 'not found'}")
    bundle_problem = check_bundle(root / "iso3d_core" / "assets" / "tiny")
    lines.append(bundle_problem or "embedded bundle: intact")
    if bundle_problem:
        missing.append("the embedded bundle")
    lines.append(f"iso3d is not ready; missing: {', '.join(missing)}." if missing else "iso3d is ready.")
    return lines


def check_bundle(folder: Path) -> str | None:
    """What is wrong with the bundle in ``folder`` and the remedy, or None if every file has its sha256."""
    remedy = 'get the pack again ("git checkout -- iso3d_core/assets" in a clone)'
    catalogue = folder / "bundle.json"
    if not catalogue.is_file():
        return f"embedded bundle: absent ({catalogue} does not exist); {remedy}"
    try:
        files = json.loads(catalogue.read_text(encoding="utf-8"))["files"].items()
    except (ValueError, KeyError, TypeError, AttributeError):
        return f"embedded bundle: {catalogue} cannot be read or lists no files; {remedy}"
    for name, expected in files:
        path = folder / name
        if not path.is_file():
            return f"embedded bundle: {name} is absent; {remedy}"
        if hashlib.sha256(path.read_bytes()).hexdigest() != expected:
            return f"embedded bundle: {name} does not have the listed sha256; {remedy}"
    return None


def link_into_comfyui(root: Path, comfyui: Path) -> str:
    """Make ``comfyui``/custom_nodes/iso3d point at the pack; returns what was done.

    A symlink; on Windows without the right to make one, a junction, else a copy. Raises InstallError where there is
    no custom_nodes, or where something else has the name already.
    """
    nodes = comfyui / "custom_nodes"
    if not nodes.is_dir():
        raise InstallError(f"There is no folder {str(nodes)!r}; give the folder of ComfyUI that holds custom_nodes.")
    if root.resolve().parent == nodes.resolve():
        return f"The pack is in {nodes} already."
    link = nodes / LINK_NAME
    if os.path.lexists(link):
        if link.resolve() == root.resolve():
            return f"{link} is linked to this pack already."
        raise InstallError(f"{str(link)!r} exists and is not a link to this pack; move it away, then try again.")
    try:
        link.symlink_to(root.resolve(), target_is_directory=True)
    except OSError as error:
        if sys.platform != "win32":
            raise InstallError(f"{str(link)!r} cannot be created ({error.strerror}); check the permissions.") from error
        return _link_on_windows(root.resolve(), link)
    return f"Linked {link} to {root.resolve()}; restart ComfyUI."


def _link_on_windows(root: Path, link: Path) -> str:
    # Symlinks need developer mode or administrator rights there; junctions do not, but stay on local disks.
    try:
        import _winapi

        _winapi.CreateJunction(str(root), str(link))  # type: ignore[attr-defined, unused-ignore]
        return f"Joined {link} to {root}; restart ComfyUI."
    except (ImportError, OSError):
        shutil.copytree(root, link, ignore=shutil.ignore_patterns(".git", ".venv", "__pycache__"))
        return f"Copied {root} to {link}; restart ComfyUI, and repeat this after each update (remove the copy first)."


def build_addon(root: Path, out: Path) -> Path:
    """Write blender_addon/ as a zip with the one folder iso3d_blender/, the same bytes for the same files.

    Returns ``out``. Raises InstallError where there is nothing to pack or ``out`` cannot be written.
    """
    source = root / "blender_addon"
    files = sorted(path for path in source.rglob("*") if path.is_file() and "__pycache__" not in path.parts)
    if not files:
        raise InstallError(f"There is no add-on in {str(source)!r}; get the whole pack, then try again.")
    if out.suffix.lower() != ".zip" or out.is_dir():
        raise InstallError(f"{str(out)!r} is not the name of a zip file; give one that ends in .zip.")
    part = out.with_name(out.name + ".part")
    try:
        with zipfile.ZipFile(part, "w") as archive:
            for path in files:
                name = f"{ADDON_NAME}/{path.relative_to(source).as_posix()}"
                entry = zipfile.ZipInfo(name, date_time=(1980, 1, 1, 0, 0, 0))
                entry.create_system = 3  # Unix on every platform, or the bytes differ
                entry.external_attr = 0o644 << 16
                archive.writestr(entry, path.read_bytes(), zipfile.ZIP_DEFLATED)
        os.replace(part, out)
    except OSError as error:
        raise InstallError(
            f"{str(out)!r} cannot be written ({error.strerror}); give a path in a folder of yours."
        ) from error
    return out


def build_repository(root: Path, folder: Path) -> Path:
    """Write the add-on's zip and the index by which Blender 4.2 and later finds it, as its own tool would.

    Returns the index. Raises InstallError where there is nothing to pack or ``folder`` cannot be written.
    """
    manifest = root / "blender_addon" / "blender_manifest.toml"
    if not manifest.is_file():
        raise InstallError(f"There is no {str(manifest)!r}; get the whole pack, then try again.")
    entry = tomllib.loads(manifest.read_text(encoding="utf-8"))
    if not folder.is_dir():
        raise InstallError(f"There is no folder {str(folder)!r}; create it or give another.")
    archive = build_addon(root, folder / f"{ADDON_NAME}-{entry['version']}.zip")
    entry["archive_url"] = f"./{archive.name}"
    entry["archive_size"] = archive.stat().st_size
    entry["archive_hash"] = f"sha256:{hashlib.sha256(archive.read_bytes()).hexdigest()}"
    index = folder / "index.json"
    part = index.with_name(index.name + ".part")
    part.write_text(json.dumps({"version": "v1", "blocklist": [], "data": [entry]}, indent=2) + "\n", encoding="utf-8")
    os.replace(part, index)
    return index


def _requirements(root: Path) -> list[tuple[str, str]]:
    """The distributions in requirements.txt: names, and the least versions, "" where any will do."""
    path = root / "requirements.txt"
    if not path.is_file():
        raise InstallError(f"There is no {str(path)!r}; get the whole pack, then try again.")
    lines = path.read_text(encoding="utf-8").splitlines()
    found = (re.match(r"([A-Za-z0-9][A-Za-z0-9._-]*)(?:>=([0-9.]+))?", line) for line in lines)
    return [(match[1], match[2] or "") for match in found if match]


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(number) for number in re.findall(r"\d+", version)[:3])


def _installed_version(name: str) -> str | None:
    for candidate in (name, *ALTERNATIVES.get(name, ())):
        try:
            return importlib.metadata.version(candidate)
        except importlib.metadata.PackageNotFoundError:
            continue
    return None


def _report_torch() -> tuple[list[str], bool]:
    try:
        import torch
    except ImportError:
        return ["torch: missing; install torch and torchvision together as pytorch.org says for this machine"], False
    except Exception as error:  # a broken install fails in many ways, and the rest of the report still counts
        return [f"torch: found, but fails to load ({error}); reinstall torch and torchvision together"], False
    if torch.cuda.is_available():
        device = f"CUDA, {torch.cuda.get_device_name(0)}"
    elif torch.backends.mps.is_available():
        device = "CPU (MPS only where it is asked for)"
    else:
        device = "CPU"
    return [f"torch {torch.__version__}", f"device: {device}"], True


if __name__ == "__main__":
    sys.exit(main())
