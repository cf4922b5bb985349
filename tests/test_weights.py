import hashlib
import json

import pytest

from iso3d_core import weights
from iso3d_core.types import InputError
from iso3d_core.weights import FORMAT, Bundle, bundles, find_bundle, models_folder, sha256


def make_bundle(folder, parts=("vae", "multiview"), **info):
    """A bundle whose weights are a few bytes, with true checksums."""
    files = {}
    for part in parts:
        (folder / part).mkdir(parents=True)
        content = f"weights of {part}".encode()
        (folder / part / "model.safetensors").write_bytes(content)
        files[f"{part}/model.safetensors"] = hashlib.sha256(content).hexdigest()
    folder.mkdir(exist_ok=True)
    (folder / "bundle.json").write_text(json.dumps({"format": FORMAT, "name": folder.name, "files": files} | info))
    return Bundle(folder)


@pytest.fixture
def home(tmp_path, monkeypatch):
    """An empty models folder and no embedded bundles."""
    monkeypatch.setenv("ISO3D_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(weights, "EMBEDDED", tmp_path / "embedded")
    return tmp_path / "home"


def test_a_bundle_is_found_by_name_and_by_folder(home, tmp_path):
    make_bundle(home / "big")
    elsewhere = make_bundle(tmp_path / "elsewhere").folder
    assert find_bundle("big").folder == home / "big"
    assert find_bundle(elsewhere).folder == elsewhere
    assert find_bundle(str(elsewhere)).folder == elsewhere


def test_the_embedded_bundles_come_first_and_other_folders_do_not_count(home, tmp_path):
    make_bundle(home / "alpha")
    make_bundle(home / "beta")
    make_bundle(tmp_path / "embedded" / "tiny")
    (home / "not a bundle").mkdir()
    (home / "file").write_text("")
    assert [b.name for b in bundles()] == ["tiny", "alpha", "beta"]


def test_a_hosts_own_folder_is_searched_after_the_models_folder(home, tmp_path, monkeypatch):
    monkeypatch.setattr(weights, "_more_folders", [])
    weights.add_models_folder(tmp_path / "host")
    weights.add_models_folder(tmp_path / "host")
    make_bundle(home / "alpha")
    make_bundle(tmp_path / "host" / "alpha")
    make_bundle(tmp_path / "host" / "beta")
    (tmp_path / "host" / "small" / "taesd").mkdir(parents=True)
    (tmp_path / "host" / "small" / "taesd" / "config.json").write_text("{}")
    assert [b.folder for b in bundles()] == [home / "alpha", tmp_path / "host" / "alpha", tmp_path / "host" / "beta"]
    assert find_bundle("alpha").folder == home / "alpha"
    assert find_bundle("beta").folder == tmp_path / "host" / "beta"
    assert weights.pulled("small", "taesd") == tmp_path / "host" / "small" / "taesd"
    assert weights.pulled("none", "taesd") is None


def test_an_unknown_name_lists_the_known_ones(home):
    with pytest.raises(InputError, match=r"no bundle 'huge' here \(known: none\).*iso3d models list"):
        find_bundle("huge")
    make_bundle(home / "alpha")
    make_bundle(home / "beta")
    with pytest.raises(InputError, match=r"no bundle 'huge' here \(known: alpha, beta\)"):
        find_bundle("huge")


def test_the_models_folder_is_the_home_or_the_cache(monkeypatch, tmp_path):
    for name in ("ISO3D_HOME", "XDG_CACHE_HOME", "LOCALAPPDATA"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(weights.Path, "home", lambda: tmp_path)
    assert models_folder() == tmp_path / ".cache" / "iso3d"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    assert models_folder() == tmp_path / "cache" / "iso3d"
    monkeypatch.setenv("ISO3D_HOME", str(tmp_path / "mine"))
    assert models_folder() == tmp_path / "mine"


def test_parts_are_the_folders_with_weights(tmp_path):
    bundle = make_bundle(tmp_path / "b")
    (bundle.folder / "notes").mkdir()
    assert bundle.parts == ["multiview", "vae"]
    assert bundle.part("vae") == bundle.folder / "vae"
    assert bundle.size_bytes == sum(p.stat().st_size for p in bundle.folder.rglob("*.*"))


@pytest.mark.parametrize(("parts", "have"), [(("vae", "clip"), "clip, vae"), ((), "nothing")])
def test_a_missing_part_is_named_with_what_there_is(tmp_path, parts, have):
    bundle = make_bundle(tmp_path / "small", parts)
    with pytest.raises(InputError, match=rf"bundle 'small' has no part 'zero123' \(it has {have}\)"):
        bundle.part("zero123")


def test_broken_files_are_those_missing_or_changed(tmp_path):
    bundle = make_bundle(tmp_path / "b", ("clip", "multiview", "vae"))
    assert bundle.broken_files() == []
    (bundle.folder / "vae" / "model.safetensors").write_bytes(b"weights of vaf")
    (bundle.folder / "clip" / "model.safetensors").unlink()
    assert sorted(bundle.broken_files()) == ["clip/model.safetensors", "vae/model.safetensors"]


def test_the_checksum_is_sha256(tmp_path):
    (tmp_path / "f").write_bytes(b"abc")
    assert sha256(tmp_path / "f") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


@pytest.mark.parametrize("content", [b'{"format": 1, "na', b"\xff\xfe\x00{", b""])
def test_a_damaged_bundle_json_is_an_error_for_people(tmp_path, content):
    bundle = make_bundle(tmp_path / "b")
    (bundle.folder / "bundle.json").write_bytes(content)
    with pytest.raises(InputError, match=r"bundle\.json is damaged .*install the bundle again"):
        _ = Bundle(bundle.folder).info


def test_a_folder_without_bundle_json_is_no_bundle(tmp_path):
    with pytest.raises(InputError, match=r"is not a bundle: it has no bundle\.json"):
        _ = Bundle(tmp_path).info


def test_a_newer_format_asks_for_an_update(tmp_path):
    bundle = make_bundle(tmp_path / "b", format=FORMAT + 1)
    with pytest.raises(InputError, match=rf"has format {FORMAT + 1}, this version reads {FORMAT}; update iso3d"):
        _ = bundle.info


def test_the_name_is_the_stored_one_else_the_folders(tmp_path):
    assert make_bundle(tmp_path / "b", name="pretty").name == "pretty"
    bundle = make_bundle(tmp_path / "c")
    (bundle.folder / "bundle.json").write_text("{}")
    assert Bundle(bundle.folder).name == "c"
    assert Bundle(bundle.folder).broken_files() == []


def test_loading_a_damaged_bundle_names_the_damaged_files(tmp_path):
    from iso3d_core.priors.multiview import MultiViewPrior

    bundle = make_bundle(tmp_path / "b", ("clip", "multiview", "vae"))
    (bundle.folder / "vae" / "model.safetensors").write_bytes(b"cut")
    with pytest.raises(InputError, match=r"'b' cannot be loaded \(damaged files: vae/model.safetensors\)"):
        MultiViewPrior.load(bundle.folder, "cpu")
