"""The add-on's modules without Blender: its __init__ imports bpy, most of the others do not."""

import importlib
import sys
import types
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = "iso3d_blender_plain"


def load(name):
    """The module blender_addon/<name>.py, in a package whose __init__ is not run."""
    if PACKAGE not in sys.modules:
        package = types.ModuleType(PACKAGE)
        package.__path__ = [str(ROOT / "blender_addon")]
        sys.modules[PACKAGE] = package
    return importlib.import_module(f"{PACKAGE}.{name}")


def job(tmp_path, name="rocket", server=("LOCAL", "python")):
    """A job of the add-on's queue whose files are in ``tmp_path``."""
    paths = {end: str(tmp_path / f"{name}.{end}") for end in ("png", "glb")}
    return load("jobs").Job(image=paths["png"], out=paths["glb"], server=server)
