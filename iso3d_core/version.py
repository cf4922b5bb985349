"""The version of the installed package."""

from __future__ import annotations


def own_version() -> str:
    """Of iso3d; "unknown" where it runs from a folder that was never installed, as in ComfyUI."""
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("iso3d")
    except PackageNotFoundError:
        return "unknown"
