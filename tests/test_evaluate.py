"""The evaluation: what its measures say of known shapes, and its command."""

from types import SimpleNamespace

import numpy as np
import pytest
import trimesh

from iso3d_core import pipeline
from iso3d_core.cli import main
from iso3d_core.mesh.export import load_mesh
from iso3d_core.train.evaluate import compare_volume
from iso3d_core.types import Mesh


def as_mesh(shape):
    return Mesh(shape.vertices.astype(np.float32), shape.faces.astype(np.int32), shape.vertex_normals)


@pytest.mark.parametrize("heights", [(0.2, 0.4), (0.3, 0.15)])
def test_a_body_of_revolution_gains_nothing_by_turning(heights):
    """Nor does what is above and below count less for the best turn."""
    truth, found = (trimesh.creation.cylinder(0.9, height, sections=96) for height in heights)

    def contains(points):
        return (np.hypot(points[:, 0], points[:, 1]) < 0.9) & (np.abs(points[:, 2]) < heights[0] / 2)

    surface = trimesh.sample.sample_surface(truth, 2000, seed=0)[0]
    iou, turned, _, _ = compare_volume(SimpleNamespace(mesh=truth, contains=contains), as_mesh(found), surface)
    assert iou == pytest.approx(min(heights) / max(heights), abs=0.08)
    assert turned == pytest.approx(iou, abs=0.02)


def test_an_object_that_stands_askew_is_found_by_turning():
    truth = trimesh.creation.box((1.6, 0.4, 0.6))
    found = truth.copy().apply_transform(trimesh.transformations.rotation_matrix(np.pi / 2, [0, 0, 1]))

    def contains(points):
        return (np.abs(points) < [0.8, 0.2, 0.3]).all(axis=1)

    surface = trimesh.sample.sample_surface(truth, 2000, seed=0)[0]
    obj = SimpleNamespace(mesh=truth, contains=contains)
    iou, turned, chamfer, chamfer_turned = compare_volume(obj, as_mesh(found), surface)
    assert iou < 0.3
    assert turned > 0.9
    assert chamfer_turned < 0.2 * chamfer


def test_the_command_scores_what_the_asked_method_makes(tmp_path, monkeypatch, capsys):
    asked = []

    def make(reference, config, **_):
        asked.append((reference.name, config.method, config.preset, config.guided.weights))
        return as_mesh(trimesh.creation.icosphere(radius=0.5))

    monkeypatch.setattr(pipeline, "generate", make)
    options = ["--objects", "1", "--first", "4", "--save", str(tmp_path)]
    assert main(["eval", "world", "--method", "zero123", "--preset", "fast", *options]) == 0
    assert asked == [("rocket", "zero123", "fast", (1.0, 0.0))]
    header, row, mean = (line.split() for line in capsys.readouterr().out.splitlines())
    assert header[:3] == ["object", "iou", "iou_turned"]
    assert row[0] == "rocket"
    assert mean[:3] == ["mean", "of", "1"]
    assert row[1:] == mean[3:]
    values = dict(zip(header[1:], map(float, row[1:]), strict=True))
    assert 0 < values["iou"] <= values["iou_turned"] < 0.5  # a ball is no rocket
    assert values["watertight"] == 1
    assert len(load_mesh(tmp_path / "04_rocket.glb").faces) == 1280
    assert (tmp_path / "04_rocket.png").exists()


def test_the_command_knows_no_other_methods(capsys):
    assert main(["eval", "world", "--method", "magic"]) == 2
    assert "unknown method 'magic'; use one of isotropic3d" in capsys.readouterr().err
