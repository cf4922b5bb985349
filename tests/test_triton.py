"""Triton twins against their references: on a CUDA device where there is one, else in Triton's interpreter."""

import sys

import pytest
import torch
import trimesh

from iso3d_core.cameras import Cameras, orbit
from iso3d_core.render import differentiable
from iso3d_core.render.differentiable import find_faces_in_triton as twin

pytest.importorskip("triton", reason="Triton is not installed: it comes with torch on Linux")


@pytest.fixture
def device(monkeypatch):
    """Where the twin runs."""
    if torch.cuda.is_available():
        return "cuda"
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    monkeypatch.delitem(sys.modules, "iso3d_core.ops.triton_raster", raising=False)
    yield "cpu"
    sys.modules.pop("iso3d_core.ops.triton_raster", None)


def a_ball_and_a_box() -> tuple[torch.Tensor, torch.Tensor]:
    """One in front of the other, so that the nearest has to win; faces of many and of few pixels."""
    ball = trimesh.creation.icosphere(subdivisions=1, radius=0.4)
    box = trimesh.creation.box((0.3, 1.2, 0.9))
    box.apply_translation((-0.45, 0.1, 0.05))
    mesh = trimesh.util.concatenate([ball, box])
    return torch.tensor(mesh.vertices, dtype=torch.float32), torch.tensor(mesh.faces, dtype=torch.int64)


def views() -> Cameras:
    return orbit(torch.tensor([0.0, 100.0]), torch.tensor([10.0, -25.0]))


def test_the_twin_sees_the_faces_that_rays_meet(device):
    vertices, faces = a_ball_and_a_box()
    wanted = differentiable.find_faces(vertices, faces, views(), 40)
    found = twin(vertices.to(device), faces.to(device), views().to(device), 40).cpu()
    assert found.dtype == torch.int64
    assert (wanted >= 0).sum() > 300
    assert len(wanted.unique()) > 40
    assert (found == wanted).float().mean() > 0.995  # pixel centres upon an edge may go to either side
    assert (found >= 0).eq(wanted >= 0).float().mean() > 0.998


def test_values_and_gradients_through_the_twin_are_the_references(device, monkeypatch):
    vertices, faces = a_ball_and_a_box()
    weight = torch.rand(2, 3, 40, 40, generator=torch.Generator().manual_seed(0))

    def picture(where: str) -> tuple[torch.Tensor, torch.Tensor]:
        moved = vertices.clone().to(where).requires_grad_()
        cameras = views().to(where)
        hits = differentiable.rasterise(moved, faces.to(where), cameras, 40)
        image = torch.zeros(2 * 40 * 40, 3, device=where).index_add(0, hits.rows, hits.normals + hits.points)
        image = image.reshape(2, 40, 40, 3).permute(0, 3, 1, 2)
        image = differentiable.antialias(image, hits.face, moved, faces.to(where), cameras)
        (image * weight.to(where)).sum().backward()
        return image.detach().cpu(), moved.grad.cpu()

    image, gradient = picture("cpu")
    monkeypatch.setattr(differentiable, "find_faces", twin)
    twin_image, twin_gradient = picture(device)
    assert (image - twin_image).abs().mean() < 2e-3
    assert (gradient - twin_gradient).norm() < 0.05 * gradient.norm()


def test_no_face_no_pixel(device):
    vertices, faces = a_ball_and_a_box()
    nothing = twin(vertices.to(device), faces[:0].to(device), views().to(device), 8)
    assert nothing.eq(-1).all()
    inside = orbit(0.0, 0.0, distance=0.2)
    seen = twin(vertices.to(device), faces.to(device), inside.to(device), 8).cpu()
    matrix = inside.cam_to_world[0]
    depth = (matrix[:3, 3] - vertices) @ matrix[:3, 2]
    assert (depth[faces[seen[seen >= 0]]] > 0).all()  # faces across the camera's plane are left out
    assert (seen >= 0).any()
