"""The node pack in a real ComfyUI server, on the CPU with the embedded bundle.

Run with: pytest -m comfyui  (COMFYUI_DIR names the checkout; default ~/ComfyUI, its Python in .venv or venv)
"""

import json
import re
import shutil
import time
import urllib.error
import urllib.request
from pathlib import Path

import numpy as np
import pytest
from comfy_host import ROOT, Server, node

from iso3d_core.mesh.export import load_mesh
from iso3d_core.waiting import SPINS

pytestmark = pytest.mark.comfyui
NODES = {
    "Iso3DLoadBundle", "Iso3DClipImageEmbed", "Iso3DBlendEmbeddings", "Iso3DMultiViewSampler",
    "Iso3DSdsNerfOptimizer", "Iso3DRgnvEnhance", "Iso3DRefineMesh", "Iso3DExtractMesh", "Iso3DSaveMesh",
    "Iso3DLoadMesh", "Iso3DRenderViews", "Iso3DGenerate3D",
}  # fmt: skip


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with Server(tmp_path_factory.mktemp("comfyui")) as server:
        yield server


def graph(seed=0, steps=0, preset="fast"):
    return {
        "image": node("LoadImage", image="rocket.png"),
        "bundle": node("Iso3DLoadBundle", bundle="tiny"),
        "embed": node("Iso3DClipImageEmbed", bundle=["bundle", 0], image=["image", 0], mask=["image", 1]),
        "field": node(
            "Iso3DSdsNerfOptimizer", bundle=["bundle", 0], embedding=["embed", 0], preset=preset, steps=steps,
            resolution=0, guidance=0.0, seed=seed, warm_start=True,
        ),
        "mesh": node(
            "Iso3DExtractMesh", field=["field", 0], resolution=64, faces=2000, texture_size=128,
            filename_prefix="mesh/rocket",
        ),
        "render": node(
            "Iso3DRenderViews", mesh=["mesh", 0], frames=4, elevation=15.0, size=96, style="normal",
            background="white",
        ),
        "save": node("SaveImage", images=["render", 0], filename_prefix="views"),
        "file": node("Iso3DSaveMesh", mesh=["mesh", 0], filename_prefix="mesh/saved", format="glb"),
    }  # fmt: skip


def test_the_pack_loads_quickly_and_every_node_has_tooltips(server):
    log = (server.folder / "server.log").read_text()
    line = next(line for line in log.splitlines() if "renamed pack" in line and "seconds" in line)
    assert "IMPORT FAILED" not in line
    assert float(line.split()[0]) <= 0.3
    info = server.ask("/object_info")
    assert set(info) >= NODES
    for name in NODES:
        for group in ("required", "optional"):
            for key, value in info[name]["input"].get(group, {}).items():
                assert value[1].get("tooltip"), f"{name}.{key}"


def test_threads_are_told_to_wait_briefly_before_torch_is_loaded(server):
    log = (server.folder / "server.log").read_text()
    assert "PRESTARTUP FAILED" not in log
    if "GOMP_SPINCOUNT" not in log:
        pytest.skip("this torch is not built with GNU's OpenMP")
    assert f"GOMP_SPINCOUNT = '{SPINS}'" in log


def test_the_english_texts_are_those_of_the_nodes(server):
    info = server.ask("/object_info")
    for name, texts in json.loads((ROOT / "locales" / "en" / "nodeDefs.json").read_text()).items():
        node = info[name]
        assert (texts["display_name"], texts["description"]) == (node["display_name"], node["description"])
        inputs = {**node["input"].get("required", {}), **node["input"].get("optional", {})}
        assert {key: text["tooltip"] for key, text in texts["inputs"].items()} == {
            key: value[1]["tooltip"] for key, value in inputs.items()
        }
        shown = [(text["name"], text["tooltip"]) for text in texts["outputs"].values()]
        assert shown == list(zip(node["output_name"], node["output_tooltips"], strict=True))
    assert server.ask("/i18n")["zh"]["nodeDefs"]["Iso3DGenerate3D"]["display_name"]


def test_a_graph_from_image_to_mesh_runs_and_is_cached(server):
    entry = server.run(graph())
    saved = entry["outputs"]["file"]["3d"][0]
    url = f"/view?filename={saved['filename']}&subfolder={saved['subfolder']}&type=output"
    with urllib.request.urlopen(f"http://127.0.0.1:{server.port}{url}") as answer:
        glb = answer.read()
    assert glb[:4] == b"glTF"
    assert len(entry["outputs"]["save"]["images"]) == 4
    again = server.run(graph())
    assert server.cached(again) >= {"image", "bundle", "embed", "field", "mesh", "render"}
    other = server.run(graph(seed=1))
    assert server.cached(other) >= {"image", "bundle", "embed"}
    assert not server.cached(other) & {"field", "mesh"}


def test_everything_in_one_node(server):
    entry = server.run({
        "image": node("LoadImage", image="rocket.png"),
        "all": node(
            "Iso3DGenerate3D", image=["image", 0], mask=["image", 1], bundle="tiny", preset="fast", seed=0,
            filename_prefix="one/rocket",
        ),
    })  # fmt: skip
    file = server.folder / "output" / entry["outputs"]["all"]["result"][0]
    assert file.read_bytes()[:4] == b"glTF"
    assert file.with_suffix(".json").exists()


def test_score_distillation_runs_in_the_host(server):
    entry = server.run({k: v for k, v in graph(steps=3, preset="default").items() if k not in ("save", "render")})
    assert entry["outputs"]["file"]["3d"]


@pytest.mark.parametrize("method", ["consistent123", "zero123"])
def test_the_optimizer_has_methods_that_hold_on_to_the_image(server, method):
    parts = {k: v for k, v in graph(preset="fast").items() if k not in ("save", "render")}
    parts["field"]["inputs"] |= {"method": method}
    assert f"reference: method {method} needs the image itself" in server.error(parts)
    parts["field"]["inputs"] |= {"reference": ["image", 0], "reference_mask": ["image", 1]}
    assert server.run(parts)["outputs"]["file"]["3d"]
    sheet = node(
        "Iso3DMultiViewSampler", bundle=["bundle", 0], embedding=["embed", 0], views=4, elevation=15.0,
        start_azimuth=0.0, steps=2, guidance=1.0, seed=0,
    )  # fmt: skip
    given, field = {**parts, "sheet": sheet}, parts["field"]["inputs"]
    given["field"] = node("Iso3DSdsNerfOptimizer", **{**field, "views": ["sheet", 0], "steps": 2})
    given["again"] = node("Iso3DSdsNerfOptimizer", **{**field, "start": ["field", 0], "steps": 2})
    given["mesh"]["inputs"]["field"] = ["again", 0]
    assert server.run(given)["outputs"]["file"]["3d"]


def test_views_and_blends(server):
    parts = {name: value for name, value in graph().items() if name in ("image", "bundle", "embed")}
    parts |= {
        "flip": node("ImageScale", image=["image", 0], upscale_method="area", width=64, height=64, crop="disabled"),
        "second": node("Iso3DClipImageEmbed", bundle=["bundle", 0], image=["flip", 0]),
        "blend": node("Iso3DBlendEmbeddings", first=["embed", 0], second=["second", 0], weight=0.5),
        "views": node(
            "Iso3DMultiViewSampler", bundle=["bundle", 0], embedding=["blend", 0], views=3, elevation=10.0,
            start_azimuth=0.0, steps=3, guidance=3.0, seed=0,
        ),
        "save": node("SaveImage", images=["views", 0], filename_prefix="blend"),
        "deep": node("SaveImage", images=["views", 3], filename_prefix="depth"),
    }  # fmt: skip
    outputs = server.run(parts)["outputs"]
    assert len(outputs["save"]["images"]) == len(outputs["deep"]["images"]) == 3


def test_interrupting_ends_within_a_second_and_the_next_prompt_works(server):
    prompt = server.queue(graph(seed=7, steps=5000, preset="default"))
    while not (running := server.ask("/queue")["queue_running"]) or running[0][1] != prompt:
        time.sleep(0.1)
    time.sleep(12)  # well into the optimisation
    asked = time.monotonic()
    server.ask("/interrupt", {})
    entry = server.wait(prompt, 20)
    assert time.monotonic() - asked < 1.5  # a second, and the polling
    assert "execution_interrupted" in dict(entry["status"]["messages"])
    server.ask("/free", {"unload_models": True, "free_memory": True})
    server.run(graph(seed=2))


def resident(process):
    """Memory of a process in MB."""
    status = Path(f"/proc/{process.pid}/status")
    if not status.exists():
        pytest.skip("this system has no /proc to read memory from")
    return int(re.search(r"VmRSS:\s+(\d+)", status.read_text())[1]) / 1e3


def test_twenty_prompts_in_a_row_take_no_more_memory(server):
    used = []
    for seed in range(100, 120):
        server.run({k: v for k, v in graph(seed=seed).items() if k not in ("save", "render")})
        used.append(resident(server.process))
    early, late = max(used[4:8]), max(used[16:])
    assert late < early * 1.03 + 10, used


def test_rgnv_enhances_views_of_any_node(server):
    settings = {"reference": ["image", 0], "mask": ["image", 1], "strength": 0.6, "steps": 10, "bundle": "tiny"}
    prompt = {
        "image": node("LoadImage", image="rocket.png"),
        "coarse": node("ImageScale", image=["image", 0], upscale_method="area", width=48, height=48, crop="disabled"),
        "batch": node("RepeatImageBatch", image=["coarse", 0], amount=3),
        "rgnv": node("Iso3DRgnvEnhance", coarse=["batch", 0], **settings),
        "save": node("SaveImage", images=["rgnv", 0], filename_prefix="rgnv"),
    }
    entry = server.run(prompt)
    images = entry["outputs"]["save"]["images"]
    assert len(images) == 3
    strong = {**prompt, "rgnv": node("Iso3DRgnvEnhance", coarse=["batch", 0], **{**settings, "strength": 1.5})}
    with pytest.raises(urllib.error.HTTPError):
        server.queue(strong)


def test_a_mesh_takes_the_texture_of_a_reference(server):
    parts = {name: value for name, value in graph(seed=3).items() if name not in ("save", "render")}
    entry = server.run({
        **parts,
        "refine": node(
            "Iso3DRefineMesh", mesh=["mesh", 0], reference=["image", 0], mask=["image", 1], steps=4, strength=0.5,
            texture_size=256, seed=0, bundle="tiny", filename_prefix="mesh/refined",
        ),
    })  # fmt: skip
    before, after = (
        load_mesh(server.folder / "output" / shown["subfolder"] / shown["filename"])
        for shown in (entry["outputs"][name]["3d"][0] for name in ("file", "refine"))
    )
    assert np.allclose(before.vertices, after.vertices, atol=1e-6)
    assert np.array_equal(before.faces, after.faces)
    assert np.allclose(before.uvs, after.uvs, atol=1e-6)
    assert after.texture.shape == (256, 256, 3)  # as asked for; the mesh had 128
    assert np.abs(before.texture.astype(int) - after.texture[::2, ::2]).mean() > 2


def test_masks_stand_on_black_and_a_changed_file_is_read_again(server):
    import trimesh
    from PIL import Image

    def drawn():
        prompt = {
            "views": node(
                "Iso3DRenderViews", path="ball.glb", frames=1, elevation=0.0, size=64, style="mask", background="white"
            ),
            "save": node("SaveImage", images=["views", 0], filename_prefix="mask"),
        }
        image = server.run(prompt)["outputs"]["save"]["images"][0]
        with Image.open(server.folder / "output" / image["subfolder"] / image["filename"]) as picture:
            return np.asarray(picture.convert("L"))

    path = server.folder / "output" / "ball.glb"
    trimesh.creation.icosphere(subdivisions=2).export(path)
    ball = drawn()
    assert (ball[0, 0], ball[32, 32]) == (0, 255)
    trimesh.creation.cylinder(0.05, 2.0).export(path)
    assert drawn().mean() < 0.5 * ball.mean()


def test_a_mesh_of_the_input_folder_is_not_mistaken_for_an_output(server):
    import trimesh

    for folder, vertices in (("output", 1), ("input", 2)):
        trimesh.creation.icosphere(subdivisions=vertices).export(server.folder / folder / "twice.ply")
    entry = server.run({
        "mesh": node("Iso3DLoadMesh", file="twice.ply"),
        "file": node("Iso3DSaveMesh", mesh=["mesh", 0], filename_prefix="mesh/once", format="ply"),
    })  # fmt: skip
    saved = load_mesh(server.folder / "output" / entry["outputs"]["file"]["result"][0])
    assert len(saved.faces) == 20 * 4**2


def test_a_bundle_is_offered_where_it_can_be_used(server):
    """One with Zero-1-to-3 and no multi-view prior, as the published weights make it."""
    tiny, folder = ROOT / "iso3d_core" / "assets" / "tiny", server.folder / "models" / "iso3d" / "poses"
    for part in ("cc_projection", "clip", "sketch", "vae", "zero123"):
        shutil.copytree(tiny / part, folder / part)
    info = json.loads((tiny / "bundle.json").read_text())
    (folder / "bundle.json").write_text(json.dumps({**info, "name": "poses", "files": {}}))
    nodes = server.ask("/object_info")
    offered = {
        name: nodes[name]["input"]["required"]["bundle"][1]["options"]
        for name in ("Iso3DLoadBundle", "Iso3DGenerate3D", "Iso3DRefineMesh", "Iso3DRgnvEnhance")
    }
    assert {name for name, options in offered.items() if "poses" in options} == {"Iso3DGenerate3D"}
    assert all("tiny" in options for options in offered.values())
    entry = server.run({
        "image": node("LoadImage", image="rocket.png"),
        "all": node(
            "Iso3DGenerate3D", image=["image", 0], mask=["image", 1], bundle="poses", preset="fast", seed=0,
            filename_prefix="one/poses", method="zero123",
        ),
    })  # fmt: skip
    assert (server.folder / "output" / entry["outputs"]["all"]["result"][0]).read_bytes()[:4] == b"glTF"


def test_bad_graphs_name_the_input_and_write_nothing(server):
    outside = graph()
    outside["mesh"]["inputs"]["filename_prefix"] = "../../escape"
    assert "filename_prefix" in server.error(outside)
    assert not list(server.folder.parent.rglob("escape*"))
    both = graph()
    both["render"]["inputs"]["path"] = "mesh/none.glb"
    assert "mesh and path" in server.error(both)
    field = {k: v for k, v in graph(steps=2).items() if k not in ("save", "render")}
    field["field"]["inputs"] |= {"views": ["image", 0], "warm_start": False}
    assert "views: they are what the warm start fits, but warm_start is off" in server.error(field)
    several = {
        "image": node("LoadImage", image="rocket.png"),
        "batch": node("RepeatImageBatch", image=["image", 0], amount=2),
        "make": node(
            "Iso3DGenerate3D", image=["batch", 0], bundle="tiny", preset="fast", seed=0, filename_prefix="mesh/several"
        ),
    }
    assert "image: one image at a time, this batch has 2" in server.error(several)
    assert not list(server.folder.rglob("several*"))
    for change in ({"views": 0}, {"bundle": ["image", 0]}):
        wrong = {name: value for name, value in graph().items() if name in ("image", "bundle", "embed")}
        settings = {
            "bundle": ["bundle", 0], "embedding": ["embed", 0], "views": 4, "elevation": 0.0, "start_azimuth": 0.0,
            "steps": 2, "guidance": 3.0, "seed": 0, **change,
        }  # fmt: skip
        wrong["views"] = node("Iso3DMultiViewSampler", **settings)
        wrong["save"] = node("SaveImage", images=["views", 0], filename_prefix="x")
        with pytest.raises(urllib.error.HTTPError) as refused:
            server.queue(wrong)
        assert next(iter(change)) in json.dumps(json.loads(refused.value.read())["node_errors"])


def test_a_python_without_the_requirements_is_told_the_command(tmp_path):
    with Server(tmp_path, without="open_clip") as server:
        message = server.error({
            "bundle": node("Iso3DLoadBundle", bundle="tiny"),
            "image": node("LoadImage", image="rocket.png"),
            "embed": node("Iso3DClipImageEmbed", bundle=["bundle", 0], image=["image", 0], mask=["image", 1]),
            "blend": node("Iso3DBlendEmbeddings", first=["embed", 0], second=["embed", 0], weight=0.5),
            "sheet": node(
                "Iso3DMultiViewSampler", bundle=["bundle", 0], embedding=["blend", 0], views=1, elevation=15.0,
                start_azimuth=0.0, steps=1, guidance=1.0, seed=0,
            ),
            "save": node("SaveImage", images=["sheet", 0], filename_prefix="views"),
        })  # fmt: skip
    assert "ComfyUI's Python lacks open_clip" in message
    assert re.search(r'-m pip install -r ".+requirements.txt"', message)
