"""A training's folder on disk: what is finished, what was trained on what, what may be replaced."""

import json
import os
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from iso3d_core.options import TrainOptions
from iso3d_core.priors.clip import tower_input
from iso3d_core.train import data
from iso3d_core.train.bundle import write_bundle
from iso3d_core.train.folder import check_inputs, load_thumbs
from iso3d_core.train.loop import load_tensors, save_tensors
from iso3d_core.train.pool import one_core_each
from iso3d_core.train.run import run_clip, run_data, run_vae
from iso3d_core.types import InputError


def test_processes_that_take_one_core_each_start_no_further_threads(monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setenv("OPENBLAS_NUM_THREADS", "7")
    with one_core_each(1) as pool:
        inside = [pool.submit(os.getenv, name).result() for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS")]
    assert inside == ["1", "1"]
    assert "OMP_NUM_THREADS" not in os.environ
    assert os.environ["OPENBLAS_NUM_THREADS"] == "7"


def test_an_interrupted_rendering_is_not_a_finished_one(tmp_path, monkeypatch):
    data.build(tmp_path, 2, 16, workers=1)
    assert len(data.ViewSet(tmp_path)) == 2

    def interrupted(*_, **__):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("iso3d_core.train.pool.ProcessPoolExecutor", interrupted)
        with pytest.raises(KeyboardInterrupt):
            data.build(tmp_path, 3, 16)
    with pytest.raises(FileNotFoundError, match="no finished training set"):
        data.ViewSet(tmp_path)
    data.build(tmp_path, 2, 16, workers=1)
    assert data.ViewSet(tmp_path).targets.mean() > 1


def test_only_the_size_that_the_networks_have_is_rendered(tmp_path):
    with pytest.raises(ValueError, match="--size must be 64"):
        run_data(TrainOptions(work=tmp_path, objects=1, size=128))


def test_towers_can_only_be_kept_of_a_bundle(tmp_path):
    data.build(tmp_path / "data", 1, 16, workers=1)
    with pytest.raises(ValueError, match="--keep-towers keeps those of a bundle; name one by --start"):
        run_clip(TrainOptions(work=tmp_path, keep_towers=True))


def test_a_part_trained_on_other_inputs_does_not_go_on(tmp_path):
    for name in ("vae", "views2"):
        (tmp_path / name).mkdir()
    (tmp_path / "vae" / "final.pt").write_bytes(b"first")
    check_inputs(tmp_path, "views2", "vae/final.pt", "views1/final.pt")
    (tmp_path / "vae" / "final.pt").write_bytes(b"second")
    check_inputs(tmp_path, "views2", "vae/final.pt")  # nothing was trained yet
    (tmp_path / "views2" / "checkpoint.pt").write_bytes(b"")
    check_inputs(tmp_path, "views2", "vae/final.pt")
    (tmp_path / "vae" / "final.pt").write_bytes(b"third")
    with pytest.raises(ValueError, match=r"views2 was trained on another vae/final.pt; remove .*views2"):
        check_inputs(tmp_path, "views2", "vae/final.pt")


def test_tensors_are_written_whole_and_for_every_machine(tmp_path, monkeypatch):
    path = tmp_path / "x.pt"
    save_tensors({"a": torch.arange(3), "b": [torch.ones(2)], "step": 4}, path)
    found = load_tensors(path)
    assert found["a"].tolist() == [0, 1, 2]
    assert found["step"] == 4
    assert os.listdir(tmp_path) == ["x.pt"]

    def torn(value, file):
        file.write_bytes(b"half")
        raise OSError("disk full")

    monkeypatch.setattr(torch, "save", torn)
    with pytest.raises(OSError, match="disk full"):
        save_tensors({"a": torch.zeros(1)}, path)
    assert load_tensors(path)["step"] == 4


def test_thumbnails_follow_a_new_rendering(tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "captions.json").write_text("{}")
    images = np.random.default_rng(0).integers(0, 256, (2, 3, 64, 64, 4)).astype(np.uint8)
    first = load_thumbs(tmp_path, SimpleNamespace(targets=images))
    assert torch.equal(load_thumbs(tmp_path, SimpleNamespace(targets=images[:1])), first)  # made once
    later = (tmp_path / "thumbs32.pt").stat().st_mtime + 5
    os.utime(tmp_path / "data" / "captions.json", (later, later))
    assert len(load_thumbs(tmp_path, SimpleNamespace(targets=images[:1]))) == 1


def test_of_several_processes_one_writes(tmp_path):
    data.build(tmp_path / "data", 4, 64)
    two = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    command = [*two, "-m", "iso3d_core.train", "vae", "--work", tmp_path, "--steps", "1", "--batch", "4"]
    environment = {**os.environ, "ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.count("vae: loss") == 1  # what the one that writes says in the end
    assert len(load_tensors(tmp_path / "latents.pt")["targets"]) == 4
    assert not list(tmp_path.rglob("*.part"))


def test_a_bundle_replaces_no_folder_of_another_kind(tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years of work")
    with pytest.raises(InputError, match="exists and is not a bundle"):
        write_bundle(tmp_path, tmp_path / "mine")
    assert (tmp_path / "mine" / "thesis.txt").read_text() == "years of work"


def test_images_are_normalised_where_they_are():
    rgb = torch.empty(2, 3, 16, 16, device="meta")
    assert tower_input(rgb, 8, [0.5] * 3, [0.5] * 3, via=16).device.type == "meta"


def test_towers_are_trained_on_views_of_their_own_and_taken_elsewhere(tmp_path):
    first, second = tmp_path / "first", tmp_path / "second"
    data.build(first / "data", 4, 64, first_seed=20, workers=1, towers_only=True)
    fewer, whole = data.ViewSet(first / "data"), data.render_item(22, 64)
    assert fewer.targets.shape == (4, data.TARGETS, 32, 32, 4)
    assert np.array_equal(fewer.references[2], whole[1][: data.TOWER_REFERENCES])
    assert fewer.captions[2] == whole[2][: data.TOWER_REFERENCES]
    halves = whole[0].reshape(data.TARGETS, 32, 2, 32, 2, 4).mean(axis=(2, 4))
    assert np.abs(halves - fewer.targets[2]).mean() < 3
    run_clip(TrainOptions(work=first, start="tiny", steps=2, batch=4))
    assert not (first / "embeddings.pt").exists()
    with pytest.raises(ValueError, match="`train clip` only"):
        run_vae(TrainOptions(work=first))

    data.build(second / "data", 2, 64, workers=1)
    with pytest.raises(ValueError, match="holds no trained towers"):
        run_clip(TrainOptions(work=second, towers=second))
    run_clip(TrainOptions(work=second, towers=first))
    with pytest.raises(ValueError, match="were trained in"):
        run_clip(TrainOptions(work=first, towers=second))
    trained, taken = (load_tensors(work / "clip" / "final.pt") for work in (first, second))
    assert all(torch.equal(taken[name], value) for name, value in trained.items())
    assert load_tensors(second / "embeddings.pt").shape == (2, data.REFERENCES, 256)
    reports = [json.loads((work / "clip" / "report.json").read_text()) for work in (first, second)]
    assert reports[0] == reports[1]
    assert reports[1]["objects"] == 4
