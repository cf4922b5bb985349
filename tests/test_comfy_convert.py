"""The node layer's conversions, without a host: the pack is imported as ComfyUI would, from a folder of any name."""

import importlib
import sys
import types
from pathlib import Path

import numpy as np
import pytest
import torch

from iso3d_core.cameras import orbit
from iso3d_core.types import Mesh

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="module")
def convert():
    """comfy_nodes/convert.py inside a package named like a renamed folder in custom_nodes."""
    for name, path in (("renamed_pack", ROOT), ("renamed_pack.comfy_nodes", ROOT / "comfy_nodes")):
        package = types.ModuleType(name)
        package.__path__ = [str(path)]
        sys.modules[name] = package
    yield importlib.import_module("renamed_pack.comfy_nodes.convert")
    for name in [name for name in sys.modules if name.startswith("renamed_pack")]:
        del sys.modules[name]


def disc(size=64, alpha=True):
    y, x = np.mgrid[:size, :size]
    inside = (x - 32) ** 2 + (y - 32) ** 2 < 15**2
    image = np.where(inside[..., None], [0.8, 0.1, 0.1], [1.0, 1.0, 1.0]).astype(np.float32)
    return torch.from_numpy(image)[None], torch.from_numpy(inside.astype(np.float32))[None]


def test_masks_of_load_image_and_of_a_segmentation_mean_the_same(convert):
    image, inside = disc()
    from_loader = convert.references(image, 1 - inside, convert.BACKGROUND)[0]
    from_segmentation = convert.references(image, inside, convert.SUBJECT)[0]
    automatic = convert.references(image, None)[0]
    nothing_hidden = convert.references(image, torch.zeros(1, 64, 64), convert.BACKGROUND)[0]
    assert torch.equal(from_loader.rgba, from_segmentation.rgba)
    assert torch.equal(automatic.rgba, nothing_hidden.rgba)
    for reference in (from_loader, automatic):
        assert reference.rgba.shape == (4, 256, 256)
        assert 0.3 < float(reference.rgba[3].mean()) < 0.7
        assert float(reference.rgba[3, 0].max()) == 0


def test_a_batch_gives_a_reference_each_and_small_masks_are_enlarged(convert):
    image, inside = disc()
    batch = torch.cat([image, image.flip(2)])
    assert len(convert.references(batch, None)) == 2
    small = 1 - inside[:, ::2, ::2]
    assert convert.references(batch, small, convert.BACKGROUND)[1].rgba.shape == (4, 256, 256)


def test_a_fourth_channel_is_the_alpha_unless_a_mask_says_otherwise(convert):
    image, inside = disc()
    noise = torch.rand(1, 64, 64, 3, generator=torch.Generator().manual_seed(0))
    rgba = torch.cat([torch.where(inside[..., None] > 0, image, noise), inside[..., None]], dim=-1)
    plain = convert.references(image, inside, convert.SUBJECT)[0]
    assert torch.equal(convert.references(rgba, None)[0].rgba, plain.rgba)
    assert torch.equal(convert.references(rgba, torch.zeros(1, 64, 64), convert.BACKGROUND)[0].rgba, plain.rgba)
    half = inside.clone()
    half[:, :, :32] = 0
    assert not torch.equal(convert.references(rgba, half, convert.SUBJECT)[0].rgba, plain.rgba)
    torch.testing.assert_close(convert.from_image(rgba), convert.from_image(image))


def test_what_takes_one_says_so_of_a_batch(convert):
    image, _ = disc()
    assert convert.one_reference(image, None).rgba.shape == (4, 256, 256)
    with pytest.raises(ValueError, match="reference: one image at a time, this batch has 2"):
        convert.one_reference(torch.cat([image, image]), None, name="reference")
    vertices, faces, _ = convert.mesh_values(some_mesh())
    host = types.SimpleNamespace(vertices=vertices.repeat(2, 1, 1), faces=faces.repeat(2, 1, 1))
    assert convert.mesh_count(host) == 2
    assert convert.from_host_mesh(host, 1).vertices.shape == (4, 3)
    with pytest.raises(ValueError, match="mesh: one at a time, this batch has 2"):
        convert.one_mesh(host)


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (torch.zeros(1, 0, 0, 3), "image: the image is empty"),
        (torch.full((1, 8, 8, 3), torch.nan), "image: the image has NaN"),
        (torch.zeros(8, 8, 3), r"image: expected an IMAGE \[B, H, W, 3\]"),
        ("no image", "image: expected an IMAGE"),
    ],
)
def test_bad_images_are_named(convert, image, message):
    with pytest.raises(ValueError, match=message):
        convert.references(image, None)


def some_mesh():
    vertices = np.array([[1, 0, 0], [0, 2, 0], [0, 0, 3], [0, 0, 0]], np.float32)
    faces = np.array([[0, 1, 2], [0, 2, 3], [0, 3, 1], [1, 3, 2]], np.int32)
    normals = vertices / np.maximum(np.linalg.norm(vertices, axis=1, keepdims=True), 1)
    rng = np.random.default_rng(0)
    return Mesh(
        vertices, faces, normals.astype(np.float32), rng.random((4, 2)).astype(np.float32),
        rng.integers(0, 256, (8, 8, 3), dtype=np.uint8), None,
    )  # fmt: skip


def test_a_mesh_goes_to_the_host_and_comes_back(convert):
    mesh = some_mesh()
    vertices, faces, more = convert.mesh_values(mesh)
    assert vertices.shape == (1, 4, 3)
    assert vertices[0, 0].tolist() == [0, 0, 1]  # +X, where the reference stands, is the front, +Z
    assert vertices[0, 2].tolist() == [0, 3, 0]  # up is Y
    host = types.SimpleNamespace(vertices=vertices, faces=faces, **more)
    again = convert.from_host_mesh(host)
    for name in ("vertices", "faces", "normals", "texture"):
        assert np.array_equal(getattr(again, name), getattr(mesh, name)), name
    assert np.allclose(again.uvs, mesh.uvs, atol=1e-6)


def test_a_padded_batch_of_another_node_is_cut_to_its_counts(convert):
    vertices, faces, _ = convert.mesh_values(some_mesh())
    host = types.SimpleNamespace(
        vertices=torch.cat([vertices, torch.zeros(1, 5, 3)], dim=1),
        faces=torch.cat([faces, torch.zeros(1, 2, 3, dtype=faces.dtype)], dim=1),
        vertex_counts=torch.tensor([4]), face_counts=torch.tensor([4]),
    )  # fmt: skip
    again = convert.from_host_mesh(host)
    assert again.vertices.shape == (4, 3)
    assert again.faces.shape == (4, 3)
    assert np.allclose(np.linalg.norm(again.normals, axis=1), 1, atol=1e-5)


def test_meshes_that_cannot_be_used_are_named(convert):
    vertices, faces, _ = convert.mesh_values(some_mesh())
    for broken, message in (
        (types.SimpleNamespace(vertices=vertices, faces=faces[:, :0]), "no triangles"),
        (types.SimpleNamespace(vertices=vertices * torch.nan, faces=faces), "NaN"),
        (types.SimpleNamespace(vertices=vertices, faces=faces + 2), "not there"),
    ):
        with pytest.raises(ValueError, match=message):
            convert.from_host_mesh(broken)


def test_cameras_go_to_the_host_and_come_back(convert):
    for azimuth, elevation in ((0.0, 0.0), (90.0, 20.0), (-135.0, -30.0)):
        camera = orbit(azimuth, elevation, 2.5, 40.0)
        info = convert.camera_info(camera.cam_to_world[0], 40.0)
        found = convert.from_camera_info(info)
        assert np.allclose(found, (azimuth, elevation, 2.5, 40.0), atol=1e-3)
    front = convert.camera_info(orbit(0.0, 0.0, 2.0).cam_to_world[0], 35.0)["position"]
    assert np.allclose([front[k] for k in "xyz"], [0, 0, 2], atol=1e-6)
    with pytest.raises(ValueError, match="camera_info: it has no position"):
        convert.from_camera_info({})
    with pytest.raises(ValueError, match="its own target"):
        convert.from_camera_info({"position": {"x": 0, "y": 0, "z": 0}})


def test_a_texture_lies_as_gltf_lays_it(convert, tmp_path):
    """Other nodes read uvs and texture as a GLB has them: v downwards, the first row on top."""
    import json
    import struct

    mesh = some_mesh()
    _, _, more = convert.mesh_values(mesh)
    data = mesh.save(tmp_path / "m.glb").read_bytes()
    length = struct.unpack_from("<I", data, 12)[0]
    document = json.loads(data[20 : 20 + length])
    accessor = document["accessors"][document["meshes"][0]["primitives"][0]["attributes"]["TEXCOORD_0"]]
    view = document["bufferViews"][accessor["bufferView"]]
    raw = data[28 + length + view["byteOffset"] :][: view["byteLength"]]
    np.testing.assert_allclose(more["uvs"][0].numpy(), np.frombuffer(raw, "<f4").reshape(-1, 2), atol=1e-6)
    np.testing.assert_allclose(more["texture"][0].numpy() * 255, mesh.texture, atol=1e-4)
    host = types.SimpleNamespace(vertices=torch.rand(1, 4, 3), faces=torch.tensor([[[0, 1, 2]]]), **more)
    np.testing.assert_allclose(convert.from_host_mesh(host).uvs, mesh.uvs, atol=1e-6)


def test_vertex_colors_go_both_ways(convert):
    from dataclasses import replace

    colors = np.array([[255, 0, 0], [0, 128, 0], [0, 0, 64], [9, 9, 9]], np.uint8)
    mesh = replace(some_mesh(), uvs=None, texture=None, vertex_colors=colors)
    vertices, faces, more = convert.mesh_values(mesh)
    np.testing.assert_allclose(more["vertex_colors"][0].numpy() * 255, colors, atol=1e-4)
    host = types.SimpleNamespace(vertices=vertices, faces=faces, **more)
    np.testing.assert_array_equal(convert.from_host_mesh(host).vertex_colors, colors)


def test_a_camera_looks_from_its_target(convert):
    position, target = {"x": 1.0, "y": 2.0, "z": 5.0}, {"x": 1.0, "y": 2.0, "z": 2.0}
    azimuth, elevation, distance, _ = convert.from_camera_info({"position": position, "target": target})
    assert (azimuth, elevation, distance) == pytest.approx((0, 0, 3), abs=1e-4)


def test_masks_are_resized_one_a_view(convert):
    views = torch.zeros(2, 3, 32, 32)
    left = torch.zeros(1, 8, 8)
    left[..., :4] = 1
    for given in (left, left.expand(2, -1, -1)):
        masks = convert.resize_masks(given, views)
        assert masks.shape == (2, 1, 32, 32)
        assert float(masks[1, 0, 16, 4]) == 1
        assert float(masks[1, 0, 16, 28]) == 0
    with pytest.raises(ValueError, match="3 of them do not fit 2 views"):
        convert.resize_masks(left.expand(3, -1, -1), views)
