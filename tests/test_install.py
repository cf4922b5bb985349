"""install.py reports without changing anything, links the pack into ComfyUI and packs the Blender add-on."""

import ast
import hashlib
import importlib.metadata
import importlib.util
import json
import os
import re
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="module")
def install():
    spec = importlib.util.spec_from_file_location("iso3d_install", ROOT / "install.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def pack(tmp_path):
    """A small pack with an intact bundle and an add-on."""
    root = tmp_path / "pack"
    bundle = root / "iso3d_core" / "assets" / "tiny"
    (bundle / "vae").mkdir(parents=True)
    (bundle / "vae" / "weights.bin").write_bytes(b"weights")
    listed = {"vae/weights.bin": hashlib.sha256(b"weights").hexdigest()}
    (bundle / "bundle.json").write_text(json.dumps({"name": "tiny", "files": listed}))
    (root / "requirements.txt").write_text("pytest\n")
    addon = root / "blender_addon"
    (addon / "__pycache__").mkdir(parents=True)
    (addon / "__pycache__" / "job.cpython-311.pyc").write_bytes(b"\0")
    (addon / "icons").mkdir()
    (addon / "icons" / "logo.png").write_bytes(b"logo")
    (addon / "__init__.py").write_text("bl_info = {}\n")
    return root


@pytest.fixture
def comfyui(tmp_path):
    folder = tmp_path / "ComfyUI"
    (folder / "custom_nodes").mkdir(parents=True)
    return folder


def listing(folder):
    return {path.relative_to(folder): path.stat().st_mtime_ns for path in folder.rglob("*")}


def test_a_whole_pack_is_ready_and_stays_as_it_is(install, pack, capsys):
    before = listing(pack)
    assert install.main([], root=pack) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith(f"Python {sys.version_info.major}.{sys.version_info.minor}")
    assert any(line.startswith("torch ") for line in lines)
    assert any(line.startswith("device: ") for line in lines)
    assert f"pytest {importlib.metadata.version('pytest')}" in lines
    assert sum(line.startswith("optional accelerator ") for line in lines) == 1
    assert "embedded bundle: intact" in lines
    assert lines[-1] == "iso3d is ready."
    assert listing(pack) == before


def test_a_missing_requirement_comes_with_its_command(install, pack, capsys):
    (pack / "requirements.txt").write_text("pytest\n\n# a comment\nno-such-package-a\nno_such_package_b>=2\n")
    assert install.main([], root=pack) == 0
    out = capsys.readouterr().out
    assert "no-such-package-a: missing" in out
    assert f'"{sys.executable}" -m pip install no-such-package-a "no_such_package_b>=2"\n' in out
    assert out.endswith("iso3d is not ready; missing: no-such-package-a, no_such_package_b.\n")


def test_a_requirement_that_is_too_old_is_told(install, pack, capsys, monkeypatch):
    (pack / "requirements.txt").write_text("trimesh>=4.6\nscipy>=1.11\n")
    monkeypatch.setattr(importlib.metadata, "version", {"trimesh": "4.5.3", "scipy": "1.9.1rc1"}.__getitem__)
    assert install.main([], root=pack) == 0
    out = capsys.readouterr().out
    assert "trimesh 4.5.3: too old, 4.6 is needed\n" in out
    assert '-m pip install "trimesh>=4.6" "scipy>=1.11"\n' in out
    assert out.endswith("missing: trimesh, scipy.\n")
    monkeypatch.setattr(importlib.metadata, "version", {"trimesh": "4.10.0", "scipy": "1.11"}.__getitem__)
    install.main([], root=pack)
    assert capsys.readouterr().out.endswith("iso3d is ready.\n")


def test_missing_and_broken_torch(install, pack, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    assert install.main([], root=pack) == 0
    out = capsys.readouterr().out
    assert "torch: missing" in out
    assert "missing: torch." in out


def test_another_build_of_opencv_will_do(install, monkeypatch):
    def version(name):
        if name == "opencv-python":
            return "4.9"
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "version", version)
    assert install._installed_version("opencv-python-headless") == "4.9"
    assert install._installed_version("trimesh") is None


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda bundle: (bundle / "bundle.json").unlink(), "absent"),
        (lambda bundle: (bundle / "bundle.json").write_text("{"), "cannot be read"),
        (lambda bundle: (bundle / "bundle.json").write_text("{}"), "lists no files"),
        (lambda bundle: (bundle / "vae" / "weights.bin").unlink(), "vae/weights.bin is absent"),
        (lambda bundle: (bundle / "vae" / "weights.bin").write_bytes(b"other"), "vae/weights.bin does not have"),
    ],
)
def test_a_damaged_bundle_is_told_with_the_remedy(install, pack, capsys, change, said):
    change(pack / "iso3d_core" / "assets" / "tiny")
    assert install.main([], root=pack) == 0
    out = capsys.readouterr().out
    assert said in out
    assert "get the pack again" in out
    assert out.endswith("iso3d is not ready; missing: the embedded bundle.\n")


def test_the_pack_is_linked_into_comfyui_once(install, pack, comfyui, capsys):
    assert install.main(["--comfyui", str(comfyui)], root=pack) == 0
    link = comfyui / "custom_nodes" / "iso3d"
    assert link.resolve() == pack.resolve()
    assert install.main(["--comfyui", str(comfyui)], root=pack) == 0
    assert "already" in capsys.readouterr().out
    assert list((comfyui / "custom_nodes").iterdir()) == [link]


def test_nothing_of_others_is_replaced(install, pack, comfyui, tmp_path, capsys):
    taken = comfyui / "custom_nodes" / "iso3d"
    taken.mkdir()
    (taken / "theirs.py").write_text("")
    assert install.main(["--comfyui", str(comfyui)], root=pack) == 2
    assert "is not a link to this pack" in capsys.readouterr().err
    assert (taken / "theirs.py").exists()
    (taken / "theirs.py").unlink()
    taken.rmdir()
    taken.symlink_to(tmp_path / "gone")
    assert install.main(["--comfyui", str(comfyui)], root=pack) == 2
    assert os.readlink(taken) == str(tmp_path / "gone")


def test_a_folder_that_is_not_comfyui(install, pack, tmp_path, capsys):
    assert install.main(["--comfyui", str(tmp_path / "nowhere")], root=pack) == 2
    assert "custom_nodes" in capsys.readouterr().err


def test_a_pack_inside_custom_nodes_needs_no_link(install, pack, comfyui, capsys):
    inside = pack.rename(comfyui / "custom_nodes" / "ComfyUI-iso3d")
    assert install.main(["--comfyui", str(comfyui)], root=inside) == 0
    assert "already" in capsys.readouterr().out
    assert list((comfyui / "custom_nodes").iterdir()) == [inside]


def test_without_symlinks_windows_gets_a_copy(install, pack, tmp_path):
    said = install._link_on_windows(pack, tmp_path / "copy")
    assert said.startswith("Copied" if sys.platform != "win32" else "Joined")
    assert (tmp_path / "copy" / "requirements.txt").read_text() == "pytest\n"
    assert not (tmp_path / "copy" / "blender_addon" / "__pycache__").exists()


def test_the_addon_zip_is_the_same_for_the_same_files(install, pack, tmp_path):
    first, second = tmp_path / "first.zip", tmp_path / "second.zip"
    assert install.main(["--build-addon", str(first)], root=pack) == 0
    os.utime(pack / "blender_addon" / "__init__.py", (1, 1))
    assert install.main(["--build-addon", str(second)], root=pack) == 0
    assert first.read_bytes() == second.read_bytes()
    with zipfile.ZipFile(first) as archive:
        assert archive.testzip() is None
        assert archive.namelist() == ["iso3d_blender/__init__.py", "iso3d_blender/icons/logo.png"]
        assert archive.read("iso3d_blender/__init__.py") == (pack / "blender_addon" / "__init__.py").read_bytes()
    assert {path.name for path in tmp_path.iterdir()} == {"pack", "first.zip", "second.zip"}


def test_blender_gets_the_zip_in_its_folder(install, pack, tmp_path, capsys):
    (tmp_path / "addons").mkdir()
    assert install.main(["--blender", str(tmp_path / "addons")], root=pack) == 0
    assert zipfile.is_zipfile(tmp_path / "addons" / "iso3d_blender.zip")
    assert "Install from Disk" in capsys.readouterr().out
    assert install.main(["--blender", str(tmp_path / "nowhere")], root=pack) == 2


def test_a_repository_is_a_zip_and_its_index(install, pack, tmp_path, capsys):
    assert install.main(["--addon-repository", str(tmp_path)], root=pack) == 2
    assert "blender_manifest.toml" in capsys.readouterr().err
    (pack / "blender_addon" / "blender_manifest.toml").write_text('id = "iso3d_blender"\nversion = "0.1.0"\n')
    assert install.main(["--addon-repository", str(tmp_path)], root=pack) == 0
    (entry,) = json.loads((tmp_path / "index.json").read_text())["data"]
    archive = (tmp_path / entry["archive_url"]).read_bytes()
    assert entry["archive_hash"] == "sha256:" + hashlib.sha256(archive).hexdigest()
    assert entry["archive_size"] == len(archive)
    assert install.main(["--addon-repository", str(tmp_path / "nowhere")], root=pack) == 2


def test_no_addon_is_one_sentence(install, pack, tmp_path, capsys):
    for path in ("__init__.py", "icons/logo.png"):
        (pack / "blender_addon" / path).unlink()
    for option in (["--build-addon", str(tmp_path / "a.zip")], ["--blender", str(tmp_path)]):
        assert install.main(option, root=pack) == 2
        assert re.fullmatch(r"There is no add-on in .*\n", capsys.readouterr().err)
    assert not list(tmp_path.glob("*.zip*"))


def test_bad_arguments(install, pack, tmp_path, capsys):
    for arguments in (["--unknown"], ["--comfyui"], ["--comfyui", "a", "--blender", "b"]):
        with pytest.raises(SystemExit) as stop:
            install.main(arguments, root=pack)
        assert stop.value.code == 2
    assert install.main(["--build-addon", str(tmp_path / "addon.tar")], root=pack) == 2
    assert install.main(["--build-addon", str(tmp_path / "nowhere" / "addon.zip")], root=pack) == 2
    assert "cannot be written" in capsys.readouterr().err


def test_it_starts_no_process_and_runs_no_text_as_code():
    tree = ast.parse((ROOT / "install.py").read_text(encoding="utf-8"))
    top = {alias.name for node in tree.body if isinstance(node, ast.Import) for alias in node.names}
    top |= {node.module for node in tree.body if isinstance(node, ast.ImportFrom)}
    assert {name.partition(".")[0] for name in top} <= sys.stdlib_module_names
    everywhere = {
        alias.name for node in ast.walk(tree) if isinstance(node, ast.Import | ast.ImportFrom) for alias in node.names
    }
    assert not everywhere & {"subprocess", "pip", "runpy", "ctypes"}
    names = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
    assert not names & {"eval", "exec", "compile", "__import__"}
    attributes = {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    assert not attributes & {"system", "popen", "execv", "spawnv", "import_module"}


def test_requirements_are_those_of_the_package_without_what_the_host_owns():
    lines = (ROOT / "requirements.txt").read_text(encoding="utf-8").split()
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["dependencies"]

    def names(requirements):
        return sorted(re.split(r"[<>=!~\[; ]", requirement)[0] for requirement in requirements)

    assert names(lines) == sorted(set(names(declared)) - {"torch", "torchvision", "numpy"})
    assert all(line in declared for line in lines if ">" in line)
    assert {"safetensors", "pillow", "scipy", "tqdm"} < set(lines)  # the host has these, of any version
