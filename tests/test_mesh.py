import json
import os

import numpy as np
import pytest
import torch
import trimesh
from shapes import ball, solid, torus

from iso3d_core.cameras import WORLD_TO_GLTF
from iso3d_core.mesh.clean import clean, is_solid, merge, taubin, vertex_normals
from iso3d_core.mesh.export import load_mesh, save_mesh
from iso3d_core.mesh.extract import extract_surface
from iso3d_core.mesh.texture import bake, unwrap
from iso3d_core.render.raster import sample_texture
from iso3d_core.types import InputError, Mesh


def positions_as_colors(p):
    return p * 0.5 + 0.5


@pytest.fixture(scope="module")
def textured():
    vertices, faces = clean(*extract_surface(ball(0.7), 40, 10.0), target_faces=1500)
    vertices, faces, normals, uvs = unwrap(vertices, faces, vertex_normals(vertices, faces), size=256)
    texture = bake(vertices, faces, uvs, positions_as_colors, 256)
    return Mesh(
        vertices, faces, normals, uvs, texture, metadata={"name": "ball", "seed": 3, "config": {"steps": [1, 2.5]}}
    )


def test_dust_goes_and_large_parts_stay():
    def blobs(p):
        return ball(0.4, 60.0, (-0.5, 0, 0))(p) + ball(0.3, 60.0, (0.5, 0, 0))(p) + ball(0.06, 60.0, (0.5, 0.8, 0.8))(p)

    raw = extract_surface(blobs, 64, 9.0)
    assert trimesh.Trimesh(*raw).body_count == 3
    vertices, faces = clean(*raw, target_faces=2000, keep_ratio=0.05)
    mesh = solid(vertices, faces)
    assert mesh.body_count == 2
    assert vertices[:, 2].max() < 0.5
    assert solid(*clean(*raw, target_faces=2000, keep_ratio=1.0)).body_count == 1


def test_cavities_are_dropped():
    raw = extract_surface(lambda p: ball(0.7, 60.0)(p) * (p.norm(dim=-1) > 0.4), 48, 9.0)
    assert trimesh.Trimesh(*raw).body_count == 2
    mesh = solid(*clean(*raw, target_faces=100_000))
    assert mesh.body_count == 1
    assert mesh.volume == pytest.approx(4 / 3 * np.pi * 0.7**3, rel=0.02)


@pytest.mark.parametrize(
    ("density", "euler", "volume"), [(ball(), 2, 4 / 3 * np.pi * 0.6**3), (torus, 0, 2 * np.pi**2 * 0.6 * 0.04)]
)
@pytest.mark.parametrize("target", [300, 3000])
def test_decimation_keeps_topology_and_volume(density, euler, volume, target):
    vertices, faces = clean(*extract_surface(density, 96, 10.0), target_faces=target)
    assert len(faces) <= target
    mesh = solid(vertices, faces)
    assert mesh.euler_number == euler
    assert mesh.volume == pytest.approx(volume, rel=0.04 if target < 1000 else 0.012)


@pytest.mark.parametrize("seed", range(4))
def test_tangled_fields_stay_watertight_and_small(seed):
    noise = torch.randn(1, 1, 9, 9, 9, generator=torch.Generator().manual_seed(seed))

    def tangle(p):
        values = torch.nn.functional.grid_sample(noise, p[None, None, None], align_corners=True).reshape(-1)
        return 50 * torch.sigmoid(10 * values + 4 - 8 * p.norm(dim=-1))

    vertices, faces = clean(*extract_surface(tangle, 48, 10.0), target_faces=2000)
    solid(vertices, faces)
    assert len(faces) <= 2200


def test_merge_joins_vertices_and_drops_flaps():
    box = trimesh.creation.box()
    soup = box.vertices[box.faces].reshape(-1, 3)
    soup_faces = np.arange(len(soup)).reshape(-1, 3)
    flap = np.concatenate(
        [box.faces + len(soup), box.faces[:1] + len(soup), [[36, 37, 36]], box.faces[:1, ::-1] + len(soup)]
    )
    assert is_solid(*merge(soup, soup_faces))
    vertices, faces = merge(np.concatenate([soup, box.vertices]), flap)
    assert (len(vertices), len(faces)) == (8, 12)
    assert is_solid(vertices, faces)


def test_smoothing_takes_off_stairs_without_shrinking():
    vertices, faces = extract_surface(ball(0.6, 1e4), 48, 10.0)
    smooth = taubin(vertices.astype(np.float64), faces, 4)
    radius, before = np.linalg.norm(smooth, axis=1), np.linalg.norm(vertices, axis=1)
    assert radius.std() < before.std() * 0.75
    assert radius.mean() == pytest.approx(before.mean(), rel=0.005)


def test_clean_refuses_what_is_no_solid():
    with pytest.raises(ValueError, match="no faces"):
        clean(np.zeros((0, 3)), np.zeros((0, 3), int), 100)
    vertices, faces = extract_surface(ball(), 16, 10.0)
    with pytest.raises(ValueError, match="counter-clockwise"):
        clean(vertices, faces[:, ::-1], 100)


def test_vertex_normals_of_a_sphere_and_a_cube():
    vertices, faces = clean(*extract_surface(ball(), 64, 10.0), target_faces=5000)
    normals = vertex_normals(vertices, faces)
    np.testing.assert_allclose(np.linalg.norm(normals, axis=1), 1, atol=1e-5)
    cosine = (normals * vertices).sum(axis=1) / np.linalg.norm(vertices, axis=1)
    assert cosine.mean() > 0.999
    assert np.quantile(cosine, 0.01) > 0.99
    cube = trimesh.creation.box()  # by angle, a corner's three sides weigh the same however they are cut
    np.testing.assert_allclose(vertex_normals(cube.vertices, cube.faces), cube.vertices * 2 / np.sqrt(3), atol=1e-6)


def test_unwrap_keeps_the_surface_closed_and_bake_is_exact(textured):
    mesh = solid(textured.vertices, textured.faces)
    assert mesh.euler_number == 2
    assert textured.uvs.min() >= 0
    assert textured.uvs.max() <= 1
    a, b, c = np.moveaxis(textured.uvs[textured.faces].astype(np.float64), 1, 0)
    area = np.abs((b - a)[:, 0] * (c - a)[:, 1] - (b - a)[:, 1] * (c - a)[:, 0]) / 2
    assert 0.3 < area.sum() < 1.0  # a well used square
    # At vertices (seams included), and inside the faces.
    weights = np.random.default_rng(0).dirichlet([1, 1, 1], len(textured.faces))
    for points, uvs in (
        (textured.vertices, textured.uvs),
        *[[np.einsum("mc,mcd->md", weights, values[textured.faces]) for values in (textured.vertices, textured.uvs)]],
    ):
        error = np.abs(sample_texture(textured.texture, uvs) - (points * 0.5 + 0.5)) * 255
        assert np.quantile(error, 0.99) < 2  # one texel is 1.2
        assert error.max() < 8
        assert error.mean() < 0.6


def test_bake_fills_the_gutters_and_knows_which_way_is_up():
    vertices = np.array([[0, 0, 0], [1, 0, 0], [1, 1, 0], [0, 1, 0]], np.float32)
    faces = np.array([[0, 1, 2], [0, 2, 3]])
    texture = bake(vertices, faces, vertices[:, :2] * 0.5 + 0.25, lambda p: p, 64)
    assert texture[63, 0].tolist() == pytest.approx([0, 0, 0], abs=8)  # bottom left: x = y = 0
    assert texture[0, 0].tolist() == pytest.approx([0, 255, 0], abs=8)  # top left: y = 1
    assert texture[63, 63].tolist() == pytest.approx([255, 0, 0], abs=8)
    expected = (np.arange(16, 48) + 0.5 - 16) / 32 * 255
    np.testing.assert_allclose(texture[40, 16:48, 0], expected, atol=1)


def test_glb_through_trimesh(textured, tmp_path):
    path = save_mesh(textured, tmp_path / "new" / "ball.glb")
    scene = trimesh.load_scene(path, process=False)
    assert list(scene.graph.nodes_geometry) == ["ball"]
    (mesh,) = scene.geometry.values()
    expected = (textured.vertices.astype(np.float64) @ WORLD_TO_GLTF.T).astype(np.float32)
    np.testing.assert_array_equal(mesh.vertices.astype(np.float32), expected)
    np.testing.assert_array_equal(mesh.faces, textured.faces)
    np.testing.assert_allclose(mesh.vertex_normals, textured.normals @ WORLD_TO_GLTF.T, atol=1e-6)
    np.testing.assert_allclose(mesh.visual.uv, textured.uvs, atol=1e-6)
    material = mesh.visual.material
    np.testing.assert_array_equal(np.asarray(material.baseColorTexture.convert("RGB")), textured.texture)
    assert material.metallicFactor == 0
    assert not material.doubleSided
    front = textured.vertices[:, 0].argmax()
    assert mesh.vertices[:, 2].argmax() == front  # the front, +X of the world, is +Z of the file
    assert mesh.vertices[:, 1].argmax() == textured.vertices[:, 2].argmax()
    assert json.loads((tmp_path / "new" / "ball.json").read_text()) == textured.metadata
    assert sorted(os.listdir(tmp_path / "new")) == ["ball.glb", "ball.json"]


def test_glb_is_read_back_exactly_and_bytes_repeat(textured, tmp_path):
    first, second = save_mesh(textured, tmp_path / "a.glb"), textured.save(tmp_path / "b.glb")
    assert first.read_bytes() == second.read_bytes()
    back = load_mesh(first)
    for name in ("vertices", "faces", "normals", "texture"):
        np.testing.assert_array_equal(getattr(back, name), getattr(textured, name))
    np.testing.assert_allclose(back.uvs, textured.uvs, atol=1e-7)
    assert back.metadata == textured.metadata


def test_vertex_colors_survive(textured, tmp_path):
    colors = np.random.default_rng(0).integers(0, 256, textured.vertices.shape).astype(np.uint8)
    mesh = Mesh(textured.vertices, textured.faces, textured.normals, vertex_colors=colors)
    for suffix in (".glb", ".ply", ".obj"):
        back = load_mesh(save_mesh(mesh, tmp_path / f"m{suffix}"))
        np.testing.assert_array_equal(back.vertex_colors, colors)
        np.testing.assert_allclose(back.vertices, mesh.vertices, atol=1e-6)


@pytest.mark.parametrize("suffix", [".obj", ".ply", ".stl", ".OBJ"])
def test_other_formats_come_back_into_the_world(textured, tmp_path, suffix):
    path = save_mesh(textured, tmp_path / f"it{suffix}")
    again = save_mesh(textured, tmp_path / "again" / f"it{suffix}")
    assert path.read_bytes() == again.read_bytes()
    back = load_mesh(path)
    mesh = solid(back.vertices, back.faces)
    assert mesh.volume == pytest.approx(trimesh.Trimesh(textured.vertices, textured.faces).volume, rel=1e-4)
    np.testing.assert_allclose(
        [back.vertices.min(axis=0), back.vertices.max(axis=0)],
        [textured.vertices.min(axis=0), textured.vertices.max(axis=0)],
        atol=1e-6,
    )
    if suffix.lower() == ".obj":
        np.testing.assert_array_equal(back.texture, textured.texture)
        found = sample_texture(back.texture, back.uvs)
        np.testing.assert_allclose(found, back.vertices * 0.5 + 0.5, atol=6 / 255)
    if suffix == ".ply":
        np.testing.assert_allclose(back.vertex_colors / 255, back.vertices * 0.5 + 0.5, atol=12 / 255)


def test_scenes_from_elsewhere_are_joined(tmp_path):
    red, blue = trimesh.creation.box(), trimesh.creation.icosphere(subdivisions=1)
    red.visual.vertex_colors = [255, 0, 0, 255]
    blue.visual.vertex_colors = [0, 0, 255, 255]
    scene = trimesh.Scene([red])
    scene.add_geometry(blue, transform=trimesh.transformations.translation_matrix([0, 0, 3]))
    scene.export(tmp_path / "two.glb")
    mesh = load_mesh(tmp_path / "two.glb")
    assert len(mesh.faces) == len(red.faces) + len(blue.faces)
    assert mesh.vertices[:, 0].max() == pytest.approx(4.0)  # the file's +Z is the world's +X
    far = mesh.vertices[:, 0] > 1.5
    assert (mesh.vertex_colors[far] == [0, 0, 255]).all()
    assert (mesh.vertex_colors[~far] == [255, 0, 0]).all()
    assert solid(mesh.vertices, mesh.faces).body_count == 2


@pytest.mark.parametrize("factor", [None, [0.5, 0.2, 0.1, 1.0]])
def test_uvs_without_an_image_are_kept(textured, tmp_path, factor):
    material = trimesh.visual.material.PBRMaterial(baseColorFactor=factor)
    visual = trimesh.visual.TextureVisuals(uv=textured.uvs, material=material)
    trimesh.Trimesh(textured.vertices, textured.faces, visual=visual, process=False).export(tmp_path / "plain.glb")
    back = load_mesh(tmp_path / "plain.glb")
    np.testing.assert_allclose(back.uvs, textured.uvs, atol=1e-6)
    assert back.texture is None
    assert (back.vertex_colors is None) == (factor is None)


def test_uvs_and_vertex_colors_are_both_kept(textured, tmp_path):
    colors = np.random.default_rng(0).integers(0, 256, textured.vertices.shape).astype(np.uint8)
    mesh = Mesh(textured.vertices, textured.faces, textured.normals, uvs=textured.uvs, vertex_colors=colors)
    back = load_mesh(save_mesh(mesh, tmp_path / "both.glb"))
    np.testing.assert_array_equal(back.vertex_colors, colors)
    np.testing.assert_allclose(back.uvs, textured.uvs, atol=1e-7)


def test_metadata_of_any_kind_can_be_written(textured, tmp_path):
    odd = {"loss": float("nan"), "path": tmp_path, "size": np.int64(3), "scale": np.float32(0.5), "pair": (1, 2)}
    back = load_mesh(
        save_mesh(Mesh(textured.vertices, textured.faces, textured.normals, metadata=odd), tmp_path / "m.glb")
    )
    assert back.metadata == {"loss": None, "path": str(tmp_path), "size": 3, "scale": 0.5, "pair": [1, 2]}


def test_unknown_suffix_names_the_known(textured, tmp_path):
    with pytest.raises(InputError, match=r"\.glb, \.obj, \.ply, \.stl"):
        save_mesh(textured, tmp_path / "mesh.fbx")
    with pytest.raises(InputError, match=r"\.glb, \.obj, \.ply, \.stl"):
        load_mesh(tmp_path / "mesh.fbx")
    assert not os.listdir(tmp_path)


@pytest.mark.parametrize("suffix", [".glb", ".obj"])
def test_a_failed_save_leaves_nothing(textured, tmp_path, monkeypatch, suffix):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot write"):
        save_mesh(textured, tmp_path / "file" / f"mesh{suffix}")
    (tmp_path / f"dir{suffix}").mkdir()
    with pytest.raises(InputError, match="in the way"):
        save_mesh(textured, tmp_path / f"dir{suffix}")

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(InputError, match="No space left"):
        save_mesh(textured, tmp_path / f"mesh{suffix}")
    assert sorted(os.listdir(tmp_path)) == [f"dir{suffix}", "file"]


def test_broken_files_are_input_errors(textured, tmp_path):
    with pytest.raises(InputError, match="No such file"):
        load_mesh(tmp_path / "none.glb")
    whole = save_mesh(textured, tmp_path / "whole.glb").read_bytes()
    for index, data in enumerate((b"", b"glTF", whole[: len(whole) // 2], b"x" * 1000)):
        path = tmp_path / f"broken{index}.glb"
        path.write_bytes(data)
        with pytest.raises(InputError, match="cannot read"):
            load_mesh(path)
    for name, text in (("a.obj", "nothing here"), ("a.ply", "ply\n"), ("a.stl", ""), ("a.gltf", "{}")):
        (tmp_path / name).write_text(text)
        with pytest.raises(InputError):
            load_mesh(tmp_path / name)
