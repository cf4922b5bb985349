"""Mesh files of other programs: materials, factors, texture transforms, vertex colors, extensions."""

import json
import struct

import numpy as np
import pytest
import trimesh
from PIL import Image

from iso3d_core.mesh.export import load_mesh, save_mesh
from iso3d_core.mesh.glb import to_bytes, to_srgb
from iso3d_core.mesh.placing import fit_into_ball
from iso3d_core.mesh.texture import check_layout, unwrap
from iso3d_core.types import InputError, Mesh

SQUARE = np.array([[0, 0, 0], [1, 0, 0], [1, 1, 0], [0, 1, 0]], np.float32)
CORNERS = np.array([[0, 0], [1, 0], [1, 1], [0, 1]], np.float32)  # v downwards, as glTF has it
FACES = np.array([[0, 1, 2], [0, 2, 3]], np.uint32)
QUARTERS = np.array([[[255, 0, 0], [0, 255, 0]], [[0, 0, 255], [255, 255, 255]]], np.uint8)


def write_gltf(path, attributes, materials=(), images=(), primitives=None, **document):
    """A .gltf of one square (each primitive with its own place), all numbers in one .bin."""
    data, views, accessors = b"", [], []
    kinds = {"f": 5126, "H": 5123, "B": 5121, "I": 5125}

    def add(array, kind, **extra):
        nonlocal data
        raw = array.tobytes()
        views.append({"buffer": 0, "byteOffset": len(data), "byteLength": len(raw)})
        data += raw + b"\0" * (-len(raw) % 4)
        code = {"f4": "f", "u2": "H", "u1": "B", "u4": "I"}[array.dtype.str[1:]]
        accessors.append({
            "bufferView": len(views) - 1, "componentType": kinds[code], "count": len(array), "type": kind, **extra,
        })  # fmt: skip
        return len(accessors) - 1

    shapes = {1: "SCALAR", 2: "VEC2", 3: "VEC3", 4: "VEC4"}
    made = []
    for number in range(len(primitives or [0])):
        place = SQUARE + [2 * number, 0, 0]
        given = {"POSITION": place.astype(np.float32), **attributes}
        entry = {
            "attributes": {
                name: add(x, shapes[x.shape[1]], **({"normalized": True} if x.dtype.kind == "u" else {}))
                for name, x in given.items()
            },
            "indices": add(FACES.reshape(-1), "SCALAR"),
        }
        made.append(entry | ({"material": (primitives or [0])[number]} if materials else {}))
    for number, pixels in enumerate(images):
        Image.fromarray(pixels).save(path.with_name(f"{number}.png"))
    path.with_suffix(".bin").write_bytes(data)
    path.write_text(json.dumps({
        "asset": {"version": "2.0", "generator": "another"}, "scene": 0, "scenes": [{"nodes": [0]}],
        "nodes": [{"mesh": 0}], "meshes": [{"primitives": made}], "materials": list(materials),
        "textures": [{"source": i} for i in range(len(images))],
        "images": [{"uri": f"{i}.png"} for i in range(len(images))],
        "accessors": accessors, "bufferViews": views,
        "buffers": [{"uri": path.with_suffix(".bin").name, "byteLength": len(data)}], **document,
    }))  # fmt: skip
    return path


def material(factor=None, texture=None, **more):
    pbr = {k: v for k, v in (("baseColorFactor", factor), ("baseColorTexture", texture)) if v is not None}
    return {"name": "same for all", "pbrMetallicRoughness": pbr, **more}


def as_glb(path):
    """The same as one GLB file."""
    document, binary = json.loads(path.read_text()), path.with_suffix(".bin").read_bytes()
    document["buffers"] = [{"byteLength": len(binary)}]
    text = json.dumps(document).encode()
    text += b" " * (-len(text) % 4)
    out = path.with_suffix(".glb")
    out.write_bytes(
        struct.pack("<4sII", b"glTF", 2, 28 + len(text) + len(binary)) + struct.pack("<I4s", len(text), b"JSON") + text
        + struct.pack("<I4s", len(binary), b"BIN\0") + binary
    )  # fmt: skip
    return out


MTL = {
    "plain": "newmtl m\nKd 0.8 0.2 0.1\n",
    "blender": "newmtl m\nNs 250\nKa 1 1 1\nKd 0.8 0.2 0.1\nKs 0.5 0.5 0.5\nKe 0 0 0\nNi 1.45\nd 1\nillum 2\n",
    "missing image": "newmtl m\nKd 0.8 0.2 0.1\nmap_Kd nowhere.png\n",
}


@pytest.mark.parametrize("name", MTL)
@pytest.mark.parametrize("uvs", [True, False])
def test_an_obj_with_a_plain_material_has_its_color(tmp_path, name, uvs):
    (tmp_path / "m.mtl").write_text(MTL[name])
    lines = ["mtllib m.mtl", *(f"v {x} {y} {z}" for x, y, z in SQUARE), *(f"vt {u} {v}" for u, v in CORNERS)]
    corner = "{0}/{0}" if uvs else "{0}"
    lines += ["usemtl m", *("f " + " ".join(corner.format(i + 1) for i in face) for face in FACES)]
    (tmp_path / "m.obj").write_text("\n".join(lines))
    mesh = load_mesh(tmp_path / "m.obj")
    assert mesh.texture is None
    assert (mesh.uvs is not None) == uvs
    np.testing.assert_allclose(mesh.vertex_colors, np.tile([204, 51, 26], (len(mesh.vertices), 1)), atol=1)


def test_uvs_without_a_material_bring_no_image(tmp_path):
    lines = [*(f"v {x} {y} {z}" for x, y, z in SQUARE), *(f"vt {u} {v}" for u, v in CORNERS)]
    lines += ["f " + " ".join(f"{i + 1}/{i + 1}" for i in face) for face in FACES]
    (tmp_path / "m.obj").write_text("\n".join(lines))
    mesh = load_mesh(tmp_path / "m.obj")
    assert mesh.uvs is not None
    assert mesh.texture is None
    assert mesh.vertex_colors is None


@pytest.mark.parametrize("dtype", ["f4", "u2", "u1"])
@pytest.mark.parametrize("with_material", [True, False])
def test_vertex_colors_of_every_type_are_linear_light(tmp_path, dtype, with_material):
    linear = np.array([[1, 0, 0], [0, 0.5, 0], [0, 0, 0.25], [0.1, 0.1, 0.1]])
    full = {"f4": 1, "u2": 65535, "u1": 255}[dtype]
    colors = np.concatenate([linear, np.ones((4, 1))], axis=1) * full
    colors = np.ascontiguousarray(colors if dtype == "f4" else colors.round()).astype("<" + dtype)
    path = write_gltf(tmp_path / "c.gltf", {"COLOR_0": colors}, [material([1, 0.5, 1, 1])] if with_material else [])
    for file in (path, as_glb(path)):
        mesh = load_mesh(file)
        expected = linear * ([1, 0.5, 1] if with_material else [1, 1, 1])
        assert np.abs(mesh.vertex_colors.astype(int) - to_bytes(to_srgb(expected))).max() <= 3, file.suffix


def test_a_factor_colors_the_texture(tmp_path):
    path = write_gltf(
        tmp_path / "t.gltf", {"TEXCOORD_0": CORNERS}, [material([1, 0.25, 0, 1], {"index": 0})], [QUARTERS]
    )
    mesh = load_mesh(path)
    green = int(to_bytes(to_srgb(np.array(0.25))))
    np.testing.assert_array_equal(mesh.texture, [[[255, 0, 0], [0, green, 0]], [[0, 0, 0], [255, green, 0]]])


def seen(mesh, u, v):
    """The texture's color at glTF's (u, v) of the square."""
    at = CORNERS.tolist().index([u, v])
    x, y = mesh.uvs[at, 0], 1 - mesh.uvs[at, 1]
    height, width = mesh.texture.shape[:2]
    return mesh.texture[min(int(y * height), height - 1), min(int(x * width), width - 1)].tolist()


@pytest.mark.parametrize(("transform", "expected"), [
    ({"offset": [0.5, 0.5], "scale": [0.4, 0.4]}, {(0, 0): [255, 255, 255], (1, 1): [255, 255, 255]}),
    ({"scale": [0.4, 1]}, {(0, 0): [255, 0, 0], (1, 0): [255, 0, 0], (0, 1): [0, 0, 255]}),
    # A quarter turn: (u, v) -> (v, -u), brought back by the offset.
    ({"rotation": np.pi / 2, "offset": [0, 1]}, {(0, 0): [0, 0, 255], (1, 0): [255, 0, 0], (1, 1): [0, 255, 0]}),
])  # fmt: skip
def test_a_texture_transform_moves_the_uvs(tmp_path, transform, expected):
    texture = {"index": 0, "extensions": {"KHR_texture_transform": transform}}
    path = write_gltf(
        tmp_path / "t.gltf", {"TEXCOORD_0": CORNERS}, [material(texture=texture)], [QUARTERS],
        extensionsUsed=["KHR_texture_transform"], extensionsRequired=["KHR_texture_transform"],
    )  # fmt: skip
    mesh = load_mesh(path)
    assert {at: seen(mesh, *at) for at in expected} == expected


def test_the_texture_takes_its_own_layer_of_uvs(tmp_path):
    uvs = {"TEXCOORD_0": np.zeros_like(CORNERS), "TEXCOORD_1": CORNERS}
    path = write_gltf(tmp_path / "t.gltf", uvs, [material(texture={"index": 0, "texCoord": 1})], [QUARTERS])
    assert seen(load_mesh(path), 1, 0) == [0, 255, 0]


def test_parts_of_other_colors_do_not_take_the_texture(tmp_path):
    red = np.full((2, 2, 3), [255, 0, 0], np.uint8)
    path = write_gltf(
        tmp_path / "t.gltf", {"TEXCOORD_0": CORNERS}, [material(texture={"index": 0}), material([0, 0, 1, 1])], [red],
        primitives=[0, 1],
    )  # fmt: skip
    mesh = load_mesh(path)
    assert mesh.texture is None
    assert mesh.uvs is None
    beyond = mesh.vertices[:, 1] > 1.5  # the file's +X is the world's +Y
    assert (mesh.vertex_colors[beyond] == [0, 0, 255]).all()
    assert (mesh.vertex_colors[~beyond] == [255, 0, 0]).all()


def test_parts_that_share_an_image_keep_it(tmp_path):
    path = write_gltf(
        tmp_path / "t.gltf", {"TEXCOORD_0": CORNERS}, [material(texture={"index": 0}), material(texture={"index": 0})],
        [QUARTERS], primitives=[0, 1],
    )  # fmt: skip
    mesh = load_mesh(path)
    np.testing.assert_array_equal(mesh.texture, QUARTERS)
    assert len(mesh.uvs) == 8


def test_grey_images_of_16_bits_keep_their_brightness(tmp_path):
    path = write_gltf(
        tmp_path / "t.gltf", {"TEXCOORD_0": CORNERS}, [material(texture={"index": 0})],
        [np.full((2, 2), 30000, np.uint16)],
    )  # fmt: skip
    assert (load_mesh(path).texture == 30000 >> 8).all()


@pytest.mark.parametrize(
    "name", ["KHR_draco_mesh_compression", "KHR_texture_basisu", "EXT_meshopt_compression", "KHR_mesh_quantization"]
)
def test_what_cannot_be_read_is_named(tmp_path, name):
    path = write_gltf(tmp_path / "e.gltf", {}, extensionsRequired=[name])
    with pytest.raises(InputError, match=f"needs the glTF extension {name}, which cannot be read here"):
        load_mesh(path)
    assert len(load_mesh(write_gltf(tmp_path / "e.gltf", {}, extensionsRequired=["KHR_materials_unlit"])).faces) == 2


def test_sides_and_repeats_are_written_back(tmp_path):
    path = write_gltf(
        tmp_path / "t.gltf", {"TEXCOORD_0": 3 * CORNERS}, [material(texture={"index": 0}, doubleSided=True)], [QUARTERS]
    )
    out = save_mesh(load_mesh(path), tmp_path / "again.glb").read_bytes()
    document = json.loads(out[20 : 20 + struct.unpack_from("<I", out, 12)[0]])
    assert document["materials"][0]["doubleSided"] is True
    assert document["samplers"][0]["wrapS"] == document["samplers"][0]["wrapT"] == 10497  # REPEAT


@pytest.mark.parametrize("radius", [0.004, 1.0, 4000.0])
def test_a_mesh_in_any_unit_can_be_unwrapped(radius):
    ball = trimesh.creation.icosphere(subdivisions=4, radius=radius)
    vertices, faces, _, uvs = unwrap(ball.vertices + 3 * radius, ball.faces, ball.vertex_normals, 256)
    assert np.isfinite(uvs).all()
    a, b = uvs[faces[:, 1]] - uvs[faces[:, 0]], uvs[faces[:, 2]] - uvs[faces[:, 0]]
    assert np.abs(a[:, 0] * b[:, 1] - a[:, 1] * b[:, 0]).min() > 0
    np.testing.assert_allclose(vertices[faces], (ball.vertices + 3 * radius)[ball.faces], rtol=1e-6)


@pytest.mark.parametrize("shape", ["ball", "ball and box", "half a ball"])
def test_a_finely_divided_ball_is_not_one_plane(shape):
    ball = trimesh.creation.icosphere(subdivisions=6)  # xatlas alone ends the process with it
    if shape == "ball and box":
        ball = trimesh.util.concatenate([ball, trimesh.creation.box().apply_translation([3, 0, 0])])
    if shape == "half a ball":
        ball.update_faces(ball.triangles_center[:, 2] > 0)
    vertices, faces, normals, uvs = unwrap(ball.vertices, ball.faces, ball.vertex_normals, 512)
    check_layout(Mesh(vertices, faces, normals, uvs=uvs))
    np.testing.assert_allclose(vertices[faces], ball.vertices[ball.faces], atol=1e-6)
    corners = uvs[faces]
    a, b = corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]
    area = np.abs(a[:, 0] * b[:, 1] - a[:, 1] * b[:, 0]) / ball.area_faces
    assert area.max() < 2.5 * area.min()  # no face is far smaller than it should be


def test_layouts_that_cannot_hold_a_texture_are_refused():
    box = trimesh.creation.box()
    corners = box.vertices[box.faces].reshape(-1, 3).astype(np.float32)
    faces = np.arange(36, dtype=np.int32).reshape(-1, 3)
    vertices, faces, normals, uvs = unwrap(corners, faces, np.ones_like(corners), 256)
    check_layout(Mesh(vertices, faces, normals, uvs=uvs))
    each = np.tile(np.array([[0, 0], [1, 0], [1, 1], [0, 0], [1, 1], [0, 1]], np.float32), (6, 1))
    faces = np.arange(36, dtype=np.int32).reshape(-1, 3)
    wrong = {"lie over each other": each, "no place of their own": 0 * each, "outside the texture": 2 * each}
    for said, layout in wrong.items():
        with pytest.raises(InputError, match=f"{said}.*unwrap it first, or set unwrap"):
            check_layout(Mesh(corners, faces, np.ones_like(corners), uvs=layout))


def test_vertices_that_no_face_has_do_not_count():
    ball = trimesh.creation.icosphere(subdivisions=2)
    vertices = np.concatenate([ball.vertices, [[1000, 0, 0]]]).astype(np.float32)
    placed = fit_into_ball(Mesh(vertices, ball.faces.astype(np.int32), np.ones_like(vertices)))
    assert np.linalg.norm(placed.vertices[:-1], axis=1).max() == pytest.approx(0.95)


def test_a_mesh_far_from_the_origin_keeps_its_shape(tmp_path):
    ball = trimesh.creation.icosphere(subdivisions=2)
    far = (ball.vertices + [0, 0, 1e4]).astype(np.float32)
    mesh = Mesh(far, ball.faces.astype(np.int32), ball.vertex_normals.astype(np.float32))
    np.testing.assert_array_equal(load_mesh(save_mesh(mesh, tmp_path / "far.obj")).vertices, far)
