"""What is not converted: it is said why, and nothing half-written is left."""

import os
import pickle
import sys
import types

import pytest
import torch
from originals import LAYOUT, isotropic3d_networks, isotropic3d_weights, saved
from safetensors.torch import save_file

from iso3d_core.checkpoints.convert import convert, read_state
from iso3d_core.types import InputError


@pytest.fixture(scope="module")
def weights():
    return isotropic3d_weights(isotropic3d_networks())


@pytest.fixture(scope="module")
def checkpoint(weights, tmp_path_factory):
    return saved(weights, tmp_path_factory.mktemp("checkpoint") / "isotropic3d.ckpt")


class Malicious:
    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return os.system, (f"touch '{self.marker}'",)


def refuse(file, out, match, **more):
    with pytest.raises(InputError, match=match):
        convert(file, "isotropic3d", out, layout=LAYOUT, **more)
    assert not out.exists()
    assert list(out.parent.glob(f"{out.name}*")) == []


def test_a_pickle_that_runs_code_is_refused(weights, tmp_path):
    marker = tmp_path / "was_run"
    file = saved({**weights, "betas": Malicious(marker)}, tmp_path / "bad.ckpt")
    refuse(file, tmp_path / "out", r"refused: it asks to run '\w+.system'")
    plain = tmp_path / "old.ckpt"
    plain.write_bytes(pickle.dumps({"a": Malicious(marker)}))
    refuse(plain, tmp_path / "out", "refused|not a checkpoint")
    assert not marker.exists()


def test_a_training_state_that_names_lightnings_callback_is_read(weights, tmp_path):
    callback = type("ModelCheckpoint", (), {"__module__": "pytorch_lightning.callbacks.model_checkpoint"})
    folder = types.ModuleType(callback.__module__)
    folder.ModelCheckpoint = callback
    with pytest.MonkeyPatch.context() as patch:
        for name in ("pytorch_lightning", "pytorch_lightning.callbacks", callback.__module__):
            patch.setitem(sys.modules, name, folder)
        state = {"state_dict": weights, "callbacks": {callback: {"best_model_score": None}}, "global_step": 1}
        file = saved(state, tmp_path / "training.ckpt")
    assert set(read_state(file)) == set(weights)


def test_broken_files_are_named(weights, checkpoint, tmp_path):
    out = tmp_path / "out"
    refuse(tmp_path / "none.ckpt", out, "no such file")
    cut = tmp_path / "cut.ckpt"
    cut.write_bytes(checkpoint.read_bytes()[:100_000])
    refuse(cut, out, "cut short or damaged at 100000 bytes")
    text = tmp_path / "text.ckpt"
    text.write_text("not weights at all\n" * 100)
    refuse(text, out, "not a checkpoint")
    whole = tmp_path / "whole.safetensors"
    save_file({key: value.contiguous() for key, value in weights.items()}, whole)
    size = whole.stat().st_size
    short = tmp_path / "short.safetensors"
    short.write_bytes(whole.read_bytes()[:-1000])
    refuse(short, out, f"cut short: it has {size - 1000} bytes of {size}")
    refuse(saved([1, 2], tmp_path / "list.ckpt"), out, "holds a list")
    refuse(saved({"a": 1}, tmp_path / "empty.ckpt"), out, "holds no weights")
    assert convert(whole, "isotropic3d", out, layout=LAYOUT).is_dir()  # the whole file then succeeds


def test_every_key_is_accounted_for(weights, tmp_path):
    out = tmp_path / "out"
    file = tmp_path / "w.ckpt"

    def without(key):
        return saved({k: v for k, v in weights.items() if k != key}, file)

    refuse(
        without("model.diffusion_model.input_blocks.1.0.in_layers.2.weight"), out, r"down_blocks\.0\.resnets\.0\.conv1"
    )
    refuse(without("model.diffusion_model.camera_embed.0.weight"), out, r"label_emb\.0\.0\.weight|camera_embed")
    refuse(without("first_stage_model.decoder.mid.attn_1.q.bias"), out, "to_q.bias")
    refuse(without("cond_stage_model.model.visual.proj"), out, "'proj' of 'clip'")
    only = {k: v for k, v in weights.items() if not k.startswith("first_stage_model.")}
    refuse(saved(only, file), out, r"no key first_stage_model\.\* for the part 'vae'")
    refuse(saved({**weights, "control_model.x": torch.zeros(1)}, file), out, "'control_model.x' is unknown")
    extra = {**weights, "model.diffusion_model.input_blocks.1.0.extra": torch.zeros(1)}
    refuse(saved(extra, file), out, "extra' is unknown in 'multiview'")
    key = "first_stage_model.encoder.conv_in.weight"
    refuse(
        saved({**weights, key: torch.zeros(32, 4, 3, 3)}, file), out, r"shape \[32, 4, 3, 3\], expected \[32, 3, 3, 3\]"
    )
    huge = {**weights, "model.diffusion_model.out.2.bias": torch.full((4,), 1e6)}
    refuse(saved(huge, file), out, "beyond float16", half=True)


def test_no_room_and_no_place(checkpoint, tmp_path, monkeypatch):
    out = tmp_path / "out"
    monkeypatch.setattr("shutil.disk_usage", lambda path: type("Usage", (), {"free": 1000})())
    refuse(checkpoint, out, "0.00 GB free, the bundle needs")
    monkeypatch.undo()

    def full(*args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("huggingface_hub.save_torch_state_dict", full)
    refuse(checkpoint, out, "No space left on device")
    monkeypatch.undo()
    out.mkdir()
    (out / "mine.txt").write_text("keep me")
    with pytest.raises(InputError, match="exists and is not a bundle"):
        convert(checkpoint, "isotropic3d", out, layout=LAYOUT)
    assert (out / "mine.txt").read_text() == "keep me"
    with pytest.raises(InputError, match="unknown kind"):
        convert(checkpoint, "sd9", tmp_path / "x")
