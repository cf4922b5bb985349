"""What the Blender add-on reads and is made of: the GLB reader, its source."""

import ast
import re
import struct
import sys
import tomllib

import numpy as np
import pytest
import trimesh
from blender_plain import ROOT, load

from iso3d_core.types import Mesh

ADDON = ROOT / "blender_addon"
glb = load("glb")


def test_what_is_written_is_read_again(tmp_path):
    mesh = glb.read(textured().save(tmp_path / "ball.glb"))
    again = glb.parse(glb.write(mesh))
    assert (again.positions, again.triangles, again.image) == (mesh.positions, mesh.triangles, mesh.image)
    assert np.allclose(again.uvs, mesh.uvs, atol=1e-7)
    assert (again.roughness, again.metallic) == (mesh.roughness, mesh.metallic)
    (tmp_path / "again.glb").write_bytes(glb.write(mesh))
    scene = trimesh.load(tmp_path / "again.glb", process=False).dump(concatenate=True)
    reference = trimesh.load(tmp_path / "ball.glb", process=False).dump(concatenate=True)
    assert np.allclose(scene.vertices, reference.vertices)
    assert np.array_equal(scene.faces, reference.faces)
    bare = glb.parse(glb.write(glb.Mesh(mesh.positions, mesh.triangles)))
    assert (bare.uvs, bare.image) == (None, None)


def sphere(**parts):
    """A sphere with a seam: its first vertices are there twice."""
    ball = trimesh.creation.icosphere(subdivisions=2)
    vertices = np.concatenate([ball.vertices, ball.vertices[:20]]).astype(np.float32)
    faces = ball.faces.copy()
    late = faces[len(faces) // 2 :]
    late[late < 20] += len(ball.vertices)
    return Mesh(vertices, faces.astype(np.int32), vertices.copy(), metadata={"name": "ball"}, **parts)


def textured():
    random = np.random.default_rng(0)
    texture = random.integers(0, 256, (8, 8, 3), dtype=np.uint8)
    return sphere(uvs=random.random((182, 2), dtype=np.float32), texture=texture)


def turned(points):
    """trimesh keeps glTF's axes: (x, y, z) -> (x, -z, y)."""
    return np.stack([points[:, 0], -points[:, 2], points[:, 1]], axis=1).astype(np.float32)


def flat(values, width):
    return np.array(values, dtype=np.float32).reshape(-1, width)


def test_the_reader_agrees_with_trimesh_to_the_bit(tmp_path):
    path = textured().save(tmp_path / "ball.glb")
    read, reference = glb.read(path), trimesh.load(path, process=False).dump(concatenate=True)
    assert np.array_equal(flat(read.positions, 3), turned(reference.vertices))
    assert np.array_equal(np.array(read.triangles).reshape(-1, 3), reference.faces)
    assert np.array_equal(flat(read.uvs, 2), reference.visual.uv.astype(np.float32))
    assert read.image.startswith(b"\x89PNG")
    assert read.colors is None
    assert (read.roughness, read.metallic) == (0.9, 0.0)


def test_the_front_of_the_core_looks_at_blenders_front_view(tmp_path):
    mesh = sphere()
    marked = mesh.vertices.copy()
    marked[0] = (3.0, 0.2, 0.5)  # the reference camera is on +X, Z is up
    path = Mesh(marked, mesh.faces, mesh.normals).save(tmp_path / "front.glb")
    x, y, z = glb.read(path).positions[:3]
    assert (x, y, z) == pytest.approx((0.2, -3.0, 0.5))  # numpad 1 looks along +Y


def test_vertex_colors_stay_linear(tmp_path):
    colors = np.full((182, 3), (255, 128, 0), dtype=np.uint8)
    read = glb.read(sphere(vertex_colors=colors).save(tmp_path / "ball.glb"))
    assert flat(read.colors, 4)[0] == pytest.approx([1.0, ((128 / 255 + 0.055) / 1.055) ** 2.4, 0.0, 1.0], abs=1e-4)
    assert read.image is None


def test_welding_closes_the_seams(tmp_path):
    read = glb.read(textured().save(tmp_path / "ball.glb"))
    kept, merged = glb.weld(read.positions)
    assert len(kept) == 162
    assert trimesh.Trimesh(flat(read.positions, 3)[kept], np.array(merged)[read.triangles].reshape(-1, 3)).is_watertight
    assert np.array_equal(flat(read.positions, 3)[kept][merged], flat(read.positions, 3))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda data: data[:-9], "header"),
        (lambda data: b"", "buffer"),
        (lambda data: b"PNG " + data[4:], "header"),
        (lambda data: data.replace(b'"SCALAR"', b'"VECTOR"'), "VECTOR"),
        (lambda data: data.replace(b'"POSITION"', b'"POSITIOM"'), "POSITION"),
        (lambda data: data.replace(b'"count": 182', b'"count": 982'), "beyond"),
        (lambda data: data[:20] + b"[" + data[21:], "JSON|Expecting|delimiter"),
    ],
)
def test_a_broken_file_is_one_sentence(tmp_path, change, said):
    path = textured().save(tmp_path / "ball.glb")
    path.write_bytes(change(path.read_bytes()))
    with pytest.raises(glb.GlbError, match=said) as error:
        glb.read(path)
    assert "ball.glb" in str(error.value)
    assert "\n" not in str(error.value)


def test_a_missing_file_is_one_sentence(tmp_path):
    with pytest.raises(glb.GlbError, match="No such file"):
        glb.read(tmp_path / "none.glb")


def test_faces_that_name_missing_vertices_are_refused(tmp_path):
    path = textured().save(tmp_path / "ball.glb")
    data = bytearray(path.read_bytes())
    start = 20 + struct.unpack_from("<I", data, 12)[0] + 8
    faces = data.index(np.array(textured().faces[:2], dtype="<u4").tobytes(), start)
    struct.pack_into("<I", data, faces, 182)
    with pytest.raises(glb.GlbError, match="missing vertices"):
        glb.parse(bytes(data))


def imports(path):
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            yield str(node.module).partition(".")[0]


@pytest.mark.parametrize("path", sorted(ADDON.glob("*.py")), ids=lambda path: path.stem)
def test_it_needs_nothing_but_the_standard_library_and_blender(path):
    assert set(imports(path)) <= sys.stdlib_module_names | {"bpy", "mathutils"}
    if "knows no bpy" in ast.get_docstring(ast.parse(path.read_text())).lower():
        assert "bpy" not in imports(path)
    assert path.read_text().startswith("# SPDX-License-Identifier: GPL-3.0-or-later\n")
    ast.parse(path.read_text(), feature_version=(3, 10))


def test_all_versions_are_the_same():
    manifest = tomllib.loads((ADDON / "blender_manifest.toml").read_text())
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    text = (ADDON / "__init__.py").read_text()
    told = re.search(r'"version": \((\d+), (\d+), (\d+)\)', text)
    assert manifest["version"] == project["version"] == ".".join(told.groups())
    assert manifest["id"] == "iso3d_blender"
    assert manifest["license"] == ["SPDX:GPL-3.0-or-later"]
    assert "GNU GENERAL PUBLIC LICENSE" in (ADDON / "LICENSE").read_text()
