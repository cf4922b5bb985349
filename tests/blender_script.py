"""Runs inside Blender, or a Python with bpy: `… blender_script.py -- ZIP SCENARIO FOLDER`; writes facts to FOLDER.

The preferences of the user are left alone: the caller names folders of its own in the environment.
"""

import json
import os
import sys
import time
from pathlib import Path

import bpy

ZIP, SCENARIO, FOLDER = sys.argv[sys.argv.index("--") + 1 :][:3]
FOLDER = Path(FOLDER)
FAKE, REAL, IMAGE = os.environ["FAKE_PYTHON"], os.environ["REAL_PYTHON"], os.environ["TEST_IMAGE"]


def install():
    """Install and enable the zip as a user does; returns the name of the module."""
    if bpy.app.version < (4, 2):
        bpy.ops.preferences.addon_install(filepath=ZIP, overwrite=True)
        bpy.ops.preferences.addon_enable(module="iso3d_blender")
        return "iso3d_blender"
    bpy.ops.preferences.addon_enable(module="bl_pkg")
    bpy.ops.extensions.package_install_files(filepath=ZIP, repo="user_default", enable_on_install=True)
    return "bl_ext.user_default.iso3d_blender"


def counts():
    data = bpy.data
    kinds = ("objects", "meshes", "materials", "images", "collections", "scenes")
    return {kind: len(getattr(data, kind)) for kind in kinds}


def attempt(call, **values):
    """The message of a refused operator, or None."""
    try:
        call(**values)
    except RuntimeError as error:
        return str(error)
    return None


def corners(mesh):
    """Position and UV of every corner, in order."""
    places = [tuple(mesh.vertices[loop.vertex_index].co) for loop in mesh.loops]
    return places, [tuple(item.uv) for item in mesh.uv_layers.active.data]


def describe(obj):
    bpy.context.view_layer.update()
    mesh, material = obj.data, obj.data.materials[0]
    shader = next(node for node in material.node_tree.nodes if node.type == "BSDF_PRINCIPLED")
    link = shader.inputs["Base Color"].links[0]
    image = getattr(link.from_node, "image", None)
    edges = {}
    for polygon in mesh.polygons:
        for edge in polygon.edge_keys:
            edges[edge] = edges.get(edge, 0) + 1
    places, uvs = corners(mesh)
    return {
        "name": obj.name, "location": list(obj.location), "scale": list(obj.scale), "dimensions": list(obj.dimensions),
        "collections": [c.name for c in obj.users_collection], "selected": obj.select_get(),
        "active": bpy.context.view_layer.objects.active == obj,
        "source": obj["iso3d_source"], "preset": obj["iso3d_preset"], "seed": obj["iso3d_seed"],
        "vertices": len(mesh.vertices), "faces": len(mesh.polygons), "closed": set(edges.values()) == {2},
        "smooth": all(polygon.use_smooth for polygon in mesh.polygons), "places": places, "uvs": uvs,
        "material": material.name, "shader_input": link.from_node.type,
        "roughness": shader.inputs["Roughness"].default_value,
        "image": image and [image.name, *image.size, image.packed_file is not None, image.has_data],
    }  # fmt: skip


def session(module):
    return sys.modules[f"{module}.session"]


def everything(module, settings):
    """The whole of it with a played worker, which hands out the mesh in TEST_GLB."""
    facts = {"version": list(bpy.app.version), "module": module, "before": counts()}
    generate = bpy.ops.iso3d.generate_from_image
    facts["no_python"] = attempt(generate, filepath=IMAGE)
    settings.worker_python = FAKE
    facts["no_image"] = attempt(generate, filepath=str(FOLDER / "none.png"))
    facts["no_image_given"] = attempt(generate)
    for play in ("die", "full", "lacks", "broken"):
        os.environ["PLAY"] = play
        session(module).queue.close()
        facts[play] = attempt(generate, filepath=IMAGE)
    settings.worker_python = str(FOLDER / "no such python")
    facts["wrong_python"] = attempt(generate, filepath=IMAGE)
    facts["after_failures"] = counts()
    settings.worker_python, os.environ["PLAY"] = FAKE, "work"
    facts["check"] = attempt(bpy.ops.iso3d.check) or session(module).check.text

    bpy.context.scene.cursor.location = (1.0, 2.0, 3.0)
    generate(filepath=IMAGE, preset="default", seed=5, height=2.5)
    facts["object"] = describe(bpy.context.view_layer.objects.active)
    generate(filepath=IMAGE, height=0.0, prompt="a toy")
    facts["second"] = describe(bpy.context.view_layer.objects.active)
    facts["texture"] = texture(module)
    os.environ["TEST_GLB"] = os.environ["COLORED_GLB"]
    session(module).queue.close()
    generate(filepath=IMAGE)
    colored = bpy.context.view_layer.objects.active
    facts["colored"] = {k: describe_color(colored)[k] for k in ("shader_input", "colors")}
    facts["left_behind"] = sorted(p.name for p in Path(session(module).results_folder()).iterdir())

    bpy.ops.object.mode_set(mode="EDIT")
    facts["editing"] = attempt(generate, filepath=IMAGE)
    bpy.ops.object.mode_set(mode="OBJECT")
    session(module).place_finished()
    facts["after_editing"] = bpy.context.view_layer.objects.active.name
    facts["saved_image"] = saved_and_opened()
    facts["official"] = compare_with_official(module)
    bpy.ops.preferences.addon_disable(module=module)
    facts["disabled"] = not hasattr(bpy.types.Scene, "iso3d")
    bpy.ops.preferences.addon_enable(module=module)
    facts["enabled"] = hasattr(bpy.types.Scene, "iso3d")
    return facts


def texture(module):
    """The texture operator on the active object, on a cube without UVs, on what is no mesh; the file it hands over."""
    obj, operator = bpy.context.view_layer.objects.active, bpy.ops.iso3d.texture_from_image
    before, old = corners(obj.data), obj.data.materials[0].name
    handed = sys.modules[f"{module}.glb"].read(write_handed(module, obj))
    operator(filepath=IMAGE, seed=7)
    found = {
        "object": describe(obj), "unchanged": corners(obj.data) == before, "old": old, "seed": obj["iso3d_seed"],
        "handed": [len(handed.triangles), handed.image is not None, len(handed.positions) // 3],
    }  # fmt: skip
    bpy.ops.mesh.primitive_cube_add()
    cube = bpy.context.view_layer.objects.active
    while cube.data.uv_layers:
        cube.data.uv_layers.remove(cube.data.uv_layers[0])
    found["no image"] = [attempt(operator, filepath="/nowhere.png"), len(cube.data.uv_layers)]
    chosen = bpy.context.preferences.addons[module].preferences
    backend, chosen.backend, chosen.comfyui_address = chosen.backend, "COMFYUI", "http://127.0.0.1:1"
    found["no server"] = attempt(operator, filepath=IMAGE)
    chosen.backend = backend
    bpy.ops.mesh.primitive_plane_add()
    other = bpy.context.view_layer.objects.active
    own = corners(other.data)
    cube.select_set(True)
    bpy.context.view_layer.objects.active = cube
    operator(filepath=IMAGE)
    found["other"] = [corners(other.data) == own, other.select_get()]
    bpy.data.objects.remove(other)
    uvs = corners(cube.data)[1]
    found["cube"] = [len(cube.data.polygons), len(cube.data.materials), len(set(uvs)), max(map(max, uvs))]
    bpy.data.objects.remove(cube)
    bpy.ops.object.camera_add()
    found["camera"] = attempt(operator, filepath=IMAGE)
    bpy.data.objects.remove(bpy.context.view_layer.objects.active)
    bpy.context.view_layer.objects.active = obj
    return found


def write_handed(module, obj):
    path = FOLDER / "handed.glb"
    path.write_bytes(sys.modules[f"{module}.glb"].write(sys.modules[f"{module}.scene"].refinable(obj)))
    return path


def describe_color(obj):
    material = obj.data.materials[0]
    shader = next(node for node in material.node_tree.nodes if node.type == "BSDF_PRINCIPLED")
    return {
        "shader_input": shader.inputs["Base Color"].links[0].from_node.type,
        "colors": [list(c.color) for c in obj.data.color_attributes[0].data][:3],
    }


def saved_and_opened():
    """What the image is like in a file that was saved and opened again."""
    name = bpy.data.objects["picture"].data.materials[0].node_tree.nodes.active.image.name
    bpy.ops.wm.save_as_mainfile(filepath=str(FOLDER / "saved.blend"))
    bpy.ops.wm.open_mainfile(filepath=str(FOLDER / "saved.blend"))
    image = bpy.data.images[name]
    return [image.packed_file is not None, *image.size, list(image.pixels[:4])]


def compare_with_official(module):
    """Whether positions and UVs of every corner are those of Blender's own importer; None where that cannot run."""
    path = os.environ["PLAIN_GLB"]
    try:
        bpy.ops.preferences.addon_enable(module="io_scene_gltf2")
        bpy.ops.import_scene.gltf(filepath=path)
    except Exception as error:
        return {"ran": False, "why": str(error)[-300:]}
    theirs = corners(bpy.context.view_layer.objects.active.data)
    package = sys.modules[f"{module}.scene"]
    ours = corners(package.new_mesh(package.glb.read(path), "ours"))
    return {"ran": True, "positions": ours[0] == theirs[0], "uvs": ours[1] == theirs[1], "corners": len(ours[0])}


def real(module, settings):
    """An example through the real worker."""
    settings.worker_python = REAL
    began = time.monotonic()
    bpy.ops.iso3d.generate_from_image(filepath=IMAGE, preset="fast", seed=0, height=1.0)
    seconds = time.monotonic() - began
    facts = describe(bpy.context.view_layer.objects.active)
    obj = bpy.context.view_layer.objects.active
    before, image = corners(obj.data), obj.data.materials[0].node_tree.nodes.active.image
    generated = bytes(image.packed_file.data)
    bpy.ops.iso3d.texture_from_image(filepath=IMAGE)
    textured = describe(obj)
    changed = bytes(obj.data.materials[0].node_tree.nodes.active.image.packed_file.data) != generated
    render(obj, FOLDER / "front.png")
    bpy.ops.mesh.primitive_cube_add()  # with UVs, without any material
    cube = bpy.context.view_layer.objects.active
    own = corners(cube.data)
    bpy.ops.iso3d.texture_from_image(filepath=IMAGE)
    image = cube.data.materials[0].node_tree.nodes.active.image
    plain = [corners(cube.data) == own, len(cube.data.materials), *image.size]
    bpy.data.objects.remove(cube)
    bpy.ops.iso3d.generate_from_image(filepath=IMAGE, preset="fast", method="magic123", prompt="a red and blue rocket")
    other = bpy.context.view_layer.objects.active
    prompted = {**describe(other), "method": other["iso3d_method"], "prompt": other["iso3d_prompt"]}
    return {
        "prompted": prompted, "plain": plain, "seconds": seconds, "object": facts, "image": textured["image"],
        "changed": changed, "unchanged": corners(obj.data) == before,
    }  # fmt: skip


def render(obj, path):
    """A picture from the front, numpad 1: the camera at -Y."""
    scene = bpy.context.scene
    camera = bpy.data.objects.new("camera", bpy.data.cameras.new("camera"))
    scene.collection.objects.link(camera)
    camera.location = (0, -3, obj.dimensions.z / 2)
    camera.rotation_euler = (1.5707963, 0, 0)
    scene.camera, scene.render.engine = camera, "CYCLES"
    sun = bpy.data.objects.new("sun", bpy.data.lights.new("sun", "SUN"))
    sun.data.energy, sun.rotation_euler = 3, (1.0, 0, 0.3)
    scene.collection.objects.link(sun)
    for other in scene.objects:
        other.hide_render = other not in (obj, sun)
    scene.cycles.samples, scene.cycles.use_denoising = 8, False
    scene.render.resolution_x, scene.render.resolution_y, scene.render.film_transparent = 256, 256, True
    scene.view_settings.view_transform = "Standard"
    scene.render.filepath = str(path)
    bpy.ops.render.render(write_still=True)


def in_mid_job(module, settings):
    """Start the real worker, tell its process, then go on as the caller wishes."""
    settings.worker_python = REAL
    place = session(module)
    job = place.ask(bpy.context.scene, IMAGE, "quality", 0, 1.0, "isotropic3d", "", settings)
    want = os.environ["WHEN"]
    began = time.monotonic()
    while time.monotonic() - began < 120:
        place.queue.poll()
        time.sleep(0.02)
        process = place.queue._backend._process._popen
        if process is not None and (want == "loading" or job.fraction > 0):
            break
    (FOLDER / "process.txt").write_text(str(process.pid))
    if os.environ["THEN"] == "quit":
        return {"fraction": job.fraction}
    while True:
        place.queue.poll()
        time.sleep(0.02)


module = install()
chosen = bpy.context.preferences.addons[module].preferences
facts = {"everything": everything, "real": real, "in_mid_job": in_mid_job}[SCENARIO](module, chosen)
(FOLDER / "facts.json").write_text(json.dumps(facts))
if not bpy.app.binary_path:  # of a bpy module nobody else ends it
    sys.exit(0)
