# SPDX-License-Identifier: GPL-3.0-or-later
"""From a mesh file to an object in a scene, and back."""

from __future__ import annotations

from array import array
from pathlib import Path

import bpy
from mathutils import Matrix, Vector

from . import glb

COLLECTION = "iso3d"


def add_object(
    data: glb.Mesh, name: str, scene: bpy.types.Scene, view_layer: bpy.types.ViewLayer, height: float
) -> bpy.types.Object:
    """Stand the mesh on the 3D cursor of the scene, selected and active.

    height : in metres; 0 keeps the size of the file, whose unit is the metre
    """
    mesh = new_mesh(data, name)
    metre = 1.0 if scene.unit_settings.system == "NONE" else 1.0 / scene.unit_settings.scale_length
    stand_up(mesh, height * metre, metre)
    mesh.materials.append(new_material(data, name))
    obj = bpy.data.objects.new(name, mesh)
    obj.location = scene.cursor.location
    own_collection(scene).objects.link(obj)
    view_layer.update()  # or it does not know the object yet
    if obj.name in view_layer.objects:  # not where the collection is excluded
        for other in view_layer.objects:
            other.select_set(other == obj)
        view_layer.objects.active = obj
    return obj


def unwrap(obj: bpy.types.Object) -> None:
    """Blender's own Smart UV Project, for the active mesh without a UV map; other selected ones keep theirs."""
    others = [other for other in bpy.context.selected_objects if other != obj]
    for other in others:
        other.select_set(False)
    try:
        bpy.ops.object.mode_set(mode="EDIT")
        bpy.ops.mesh.select_all(action="SELECT")
        bpy.ops.uv.smart_project(island_margin=0.01)
        bpy.ops.object.mode_set(mode="OBJECT")
    finally:
        for other in others:
            other.select_set(True)
    if not bpy.app.background:
        bpy.ops.ed.undo_push(message=f"Unwrap {obj.name}")


def refinable(obj: bpy.types.Object) -> glb.Mesh:
    """The object's mesh as it stands in the world, with its first UV map and base color image; it needs a UV map.

    A vertex is repeated where its faces' UVs differ, as GLB files have it.
    """
    mesh = obj.data
    mesh.calc_loop_triangles()
    layer = mesh.uv_layers.active.data
    numbers: dict[tuple[int, float, float], int] = {}
    triangles = array("I")
    for triangle in mesh.loop_triangles:
        for loop in triangle.loops:
            u, v = layer[loop].uv
            triangles.append(numbers.setdefault((mesh.loops[loop].vertex_index, u, v), len(numbers)))
    positions, uvs = array("f"), array("f")
    places = [obj.matrix_world @ vertex.co for vertex in mesh.vertices]
    for index, u, v in numbers:
        positions.extend(places[index])
        uvs.extend((u, v))
    return glb.Mesh(positions, triangles, uvs, image=base_color_image(obj))


def base_color_image(obj: bpy.types.Object) -> bytes | None:
    """PNG or JPEG of the object's first material's base color, where it is an image."""
    for node in (node for slot in obj.material_slots for node in _nodes(slot.material)):
        if node.type == "BSDF_PRINCIPLED" and node.inputs["Base Color"].links:
            source = node.inputs["Base Color"].links[0].from_node
            image = getattr(source, "image", None)
            data = b"" if image is None else _image_file(image)
            if data[1:4] == b"PNG" or data[:2] == b"\xff\xd8":
                return data
    return None


def _image_file(image: bpy.types.Image) -> bytes:
    """The bytes of an image's file, packed or on disk; none where there is no such file."""
    if image.packed_file is not None:
        return bytes(image.packed_file.data)
    path = Path(bpy.path.abspath(image.filepath, library=image.library))
    try:
        return path.read_bytes() if image.filepath and path.is_file() else b""
    except OSError:
        return b""


def _nodes(material: bpy.types.Material | None):
    return material.node_tree.nodes if material is not None and material.node_tree is not None else ()


def retexture(obj: bpy.types.Object, data: glb.Mesh) -> None:
    """One material with the texture, for the whole of the object."""
    material = new_material(data, obj.name)
    obj.data.materials.clear()
    obj.data.materials.append(material)
    obj.data.update()


def new_mesh(data: glb.Mesh, name: str) -> bpy.types.Mesh:
    """The mesh as the file has it, but with vertices in the same place merged, and shaded smooth."""
    kept, merged = glb.weld(data.positions)
    mesh = bpy.data.meshes.new(name)
    mesh.vertices.add(len(kept))
    mesh.vertices.foreach_set("co", [data.positions[3 * i + k] for i in kept for k in range(3)])
    corners, faces = len(data.triangles), len(data.triangles) // 3
    mesh.loops.add(corners)
    mesh.loops.foreach_set("vertex_index", [merged[i] for i in data.triangles])
    mesh.polygons.add(faces)
    mesh.polygons.foreach_set("loop_start", range(0, corners, 3))
    if bpy.app.version < (3, 6):  # later versions know it from the starts
        mesh.polygons.foreach_set("loop_total", [3] * faces)
    mesh.polygons.foreach_set("use_smooth", [True] * faces)
    if data.uvs is not None:
        layer = mesh.uv_layers.new(name="UVMap")
        layer.data.foreach_set("uv", [data.uvs[2 * i + k] for i in data.triangles for k in range(2)])
    if data.colors is not None:
        colors = mesh.color_attributes.new("Color", "FLOAT_COLOR", "POINT")
        colors.data.foreach_set("color", [data.colors[4 * i + k] for i in kept for k in range(4)])
        mesh.color_attributes.active_color = colors
    mesh.update(calc_edges=True)
    mesh.validate()
    return mesh


def stand_up(mesh: bpy.types.Mesh, height: float, metre: float) -> None:
    """Put the origin under the middle of the mesh, at its lowest point, and scale it.

    height : in Blender's units; 0 for the file's own size
    metre : in Blender's units
    """
    places = [vertex.co for vertex in mesh.vertices]
    low = Vector(min(place[k] for place in places) for k in range(3))
    high = Vector(max(place[k] for place in places) for k in range(3))
    size = high.z - low.z
    scale = height / size if height > 0 and size > 0 else metre
    foot = Vector(((low.x + high.x) / 2, (low.y + high.y) / 2, low.z))
    mesh.transform(Matrix.Scale(scale, 4) @ Matrix.Translation(-foot))
    mesh.update()


def new_material(data: glb.Mesh, name: str) -> bpy.types.Material:
    """A Principled material with the packed image, or the vertex colors, as its base color."""
    material = bpy.data.materials.new(name)
    if material.node_tree is None:
        material.use_nodes = True
    nodes, links = material.node_tree.nodes, material.node_tree.links
    shader = next((node for node in nodes if node.type == "BSDF_PRINCIPLED"), None)
    if shader is None:
        nodes.clear()
        shader, output = nodes.new("ShaderNodeBsdfPrincipled"), nodes.new("ShaderNodeOutputMaterial")
        output.location.x = 300
        links.new(shader.outputs["BSDF"], output.inputs["Surface"])
    shader.inputs["Metallic"].default_value = data.metallic
    shader.inputs["Roughness"].default_value = data.roughness
    material.metallic, material.roughness = data.metallic, data.roughness
    color = None
    if data.image is not None:
        color = nodes.new("ShaderNodeTexImage")
        color.image, color.extension = packed_image(data.image, name), "EXTEND"
        nodes.active = color  # what the viewport shows, and what bakes write to
    elif data.colors is not None:
        color = nodes.new("ShaderNodeVertexColor")
        color.layer_name = "Color"
    if color is not None:
        color.location = (shader.location.x - 320, shader.location.y)
        links.new(color.outputs["Color"], shader.inputs["Base Color"])
    return material


def packed_image(data: bytes, name: str) -> bpy.types.Image:
    """An image that lives in the .blend file.

    data : of a PNG or JPEG
    """
    image = bpy.data.images.new(name, 1, 1)
    image.pack(data=data, data_len=len(data))
    image.source = "FILE"
    suffix = ".png" if data[1:4] == b"PNG" else ".jpg"
    image.filepath_raw = f"//{name}{suffix}"  # where it goes if it is unpacked
    return image


def own_collection(scene: bpy.types.Scene) -> bpy.types.Collection:
    """The collection for what is generated, directly below the scene's own."""
    for collection in scene.collection.children:
        if collection.name.partition(".")[0] == COLLECTION and collection.library is None:
            return collection
    collection = bpy.data.collections.new(COLLECTION)
    scene.collection.children.link(collection)
    return collection


def object_name(image: str) -> str:
    return Path(image).stem or COLLECTION
