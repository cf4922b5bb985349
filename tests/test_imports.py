"""Imports point one way, and importing the package pulls in nothing heavy."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = "iso3d_core"
HOSTS = {"comfy_nodes", "blender_addon", "bpy", "comfy"}
HEAVY = {"diffusers", "open_clip", "bpy", "comfy", "trimesh", "skimage", "cv2", "PIL", "transformers"}

VALUES = {"types", "config", "presets", "options", "version"}
PARTS = {
    "cameras",
    "ops",
    "render",
    "fields",
    "priors",
    "losses",
    "schedules",
    "mesh",
    "images",
    "matting",
    "metrics",
    "weights",
    "overlay",
    "near",
}
STORY = {"fit", "rgnv", "methods", "pipeline"}
FRONTS = {"cli", "worker", "batch", "files", "doctor", "commands", "bars", "shelf", "checkpoints", "vram", "waiting"}

# Which top-level modules of the package each one may import, besides itself.
MAY_IMPORT = {
    "__init__": VALUES | PARTS | STORY,
    "types": {"config", "mesh"},  # Mesh.save calls mesh.export
    "config": {"types", "schedules"},
    "presets": {"types", "schedules", "config"},
    "options": set(),
    "waiting": set(),
    "version": set(),
    "ops": VALUES,
    "cameras": VALUES | {"ops"},
    "render": VALUES | {"cameras", "ops"},
    "mesh": VALUES | {"cameras", "ops"},
    **{part: VALUES | PARTS for part in PARTS - {"ops", "cameras", "render", "mesh"}},
    "rgnv": VALUES | PARTS,
    "fit": VALUES | PARTS,
    "methods": VALUES | PARTS | {"fit", "rgnv"},
    "pipeline": VALUES | PARTS | {"fit", "rgnv", "methods"},
    "worker": VALUES | PARTS | STORY | FRONTS | {"__init__"},
    "batch": VALUES | PARTS | STORY | FRONTS | {"__init__"},
    "cli": VALUES | PARTS | STORY | FRONTS | {"__init__", "train"},
    "files": VALUES | PARTS | {"fit"},
    "doctor": VALUES | PARTS | {"vram"},
    "vram": VALUES | PARTS,
    "commands": VALUES,
    "checkpoints": VALUES | PARTS,
    "shelf": VALUES | {"weights", "checkpoints", "commands", "bars"},
    "bars": VALUES | {"files"},
    "__main__": FRONTS,
    "train": VALUES | PARTS | {"fit", "rgnv"},
}


def modules(root):
    """(dotted name, path) of every module under the package, packages named without their __init__."""
    for path in sorted((root / PACKAGE).rglob("*.py")):
        parts = path.relative_to(root).with_suffix("").parts
        yield ".".join(parts[:-1] if parts[-1] == "__init__" else parts), path


def top_level(dotted):
    """The part of iso3d_core.<part>.<...>; the package itself is __init__."""
    return [*dotted.split("."), "__init__"][1]


def imported(root, name, path):
    """(line, dotted name) of everything a module imports, at the top or inside functions, absolutely named."""
    package = name if path.name == "__init__.py" else name.rpartition(".")[0]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parents = package.split(".")
                base = ".".join([*parents[: len(parents) - node.level + 1], *filter(None, [node.module])])
            for alias in node.names:
                # `from . import fit` names a module, `from . import generate` something of the package itself.
                file = root.joinpath(*base.split("."), alias.name)
                is_module = file.with_suffix(".py").exists() or file.is_dir()
                yield node.lineno, f"{base}.{alias.name}" if is_module else base


def offences(root):
    """One line for each import that points the wrong way, and for each module the table does not know."""
    found = []
    for name, path in modules(root):
        source = top_level(name)
        if source not in MAY_IMPORT:
            found.append(f"{name} is new: add {source!r} to MAY_IMPORT in tests/test_imports.py")
            continue
        for line, target in imported(root, name, path):
            arrow = f"{path.relative_to(root)}:{line}: {name} -> {target}"
            if target.partition(".")[0] in HOSTS:
                found.append(f"{arrow} (a host)")
            elif target.partition(".")[0] == PACKAGE and top_level(target) not in MAY_IMPORT[source] | {source}:
                found.append(arrow)
    return found


def test_imports_point_one_way():
    assert not offences(ROOT), "\n".join(["imports that point back:", *offences(ROOT)])


@pytest.mark.parametrize(
    ("path", "text", "arrow"),
    [
        ("ops/hash.py", "from ..fit import fit", "iso3d_core.ops.hash -> iso3d_core.fit"),
        ("ops/__init__.py", "from .. import fit", "iso3d_core.ops -> iso3d_core.fit"),
        ("ops/__init__.py", "from ..methods import sds", "iso3d_core.ops -> iso3d_core.methods"),
        ("fit.py", "def f():\n    from iso3d_core.methods.sds import a", "iso3d_core.fit -> iso3d_core.methods.sds"),
        ("fit.py", "import iso3d_core.pipeline as p", "iso3d_core.fit -> iso3d_core.pipeline"),
        ("fit.py", "from iso3d_core import generate", "iso3d_core.fit -> iso3d_core"),
        ("methods/sds.py", "import torch, comfy.utils", "iso3d_core.methods.sds -> comfy.utils (a host)"),
        ("mesh/clean.py", "from ..fields import grid", "iso3d_core.mesh.clean -> iso3d_core.fields"),
        ("config.py", "from . import cameras", "iso3d_core.config -> iso3d_core.cameras"),
        ("pipeline.py", "from .train import world", "iso3d_core.pipeline -> iso3d_core.train"),
        ("train/data.py", "from .. import cli", "iso3d_core.train.data -> iso3d_core.cli"),
    ],
)
def test_an_arrow_that_points_back_is_seen(tmp_path, path, text, arrow):
    for name in ("fit", "pipeline", "config", "cameras", "cli"):
        file = tmp_path / PACKAGE / f"{name}.py"
        file.parent.mkdir(exist_ok=True)
        file.write_text("from . import types\nfrom .types import Mesh\nimport torch\n")
    (tmp_path / PACKAGE / "types.py").write_text("")
    assert offences(tmp_path) == []
    (tmp_path / PACKAGE / path).parent.mkdir(exist_ok=True)
    (tmp_path / PACKAGE / path).write_text(text)
    (found,) = offences(tmp_path)
    assert found.endswith(f": {arrow}")


def test_an_unknown_module_must_be_added_to_the_table(tmp_path):
    (tmp_path / PACKAGE).mkdir()
    (tmp_path / PACKAGE / "shaders.py").write_text("")
    assert offences(tmp_path) == ["iso3d_core.shaders is new: add 'shaders' to MAY_IMPORT in tests/test_imports.py"]


def test_importing_the_package_pulls_in_nothing_heavy():
    code = f"import sys, {PACKAGE}; print(*{{name.partition('.')[0] for name in sys.modules}})"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert not set(done.stdout.split()) & (HEAVY | {"torch"})
