"""The node pack as an artist uses it: ComfyUI's page in Chromium, driven by mouse and keyboard.

Run with: pytest -m comfyui tests/test_comfy_browser.py  (needs Playwright and a `chromium` on PATH besides ComfyUI;
ISO3D_ARTEFACTS names a folder for the screenshots)
"""

import io
import json
import os
import shutil
import urllib.request
from pathlib import Path

import numpy as np
import pytest
from comfy_host import ROOT, Server
from PIL import Image

pytestmark = pytest.mark.comfyui
FLAGS = ["--no-sandbox", "--use-angle=swiftshader", "--enable-unsafe-swiftshader", "--ignore-gpu-blocklist"]
HELPERS = """
window.iso3d = {
  events: {}, previews: 0,
  byType: type => app.graph._nodes.find(node => node.type === type),
  toScreen([x, y]) {
    const at = app.canvas.convertOffsetToCanvas([x, y]), box = app.canvas.canvas.getBoundingClientRect();
    return [box.left + at[0], box.top + at[1]];
  },
  output(type, name) {
    const node = this.byType(type), slot = node.outputs.findIndex(o => o.name === name);
    return this.toScreen(node.getOutputPos(slot));
  },
  input(type, name) {
    const node = this.byType(type), slot = node.inputs.findIndex(i => i.name === name);
    return this.toScreen(node.getInputPos(slot));
  },
  widget(type, name, dx) {
    const node = this.byType(type), widget = node.widgets.find(w => w.name === name);
    return this.toScreen([node.pos[0] + dx, node.pos[1] + widget.last_y + 10]);
  },
  overlapping() {
    const boxes = app.graph._nodes.map(node => [node.title, ...node.getBounding()]);
    const apart = ([, x, y, w, h], [, u, v, p, q]) => x + w <= u || u + p <= x || y + h <= v || v + q <= y;
    return boxes.flatMap((a, i) => boxes.slice(i + 1).filter(b => !apart(a, b)).map(b => `${a[0]} and ${b[0]}`));
  },
  watch() {
    for (const kind of ['progress', 'executed', 'execution_success', 'execution_error', 'execution_interrupted'])
      app.api.addEventListener(kind, () => { this.events[kind] = (this.events[kind] || 0) + 1; });
    app.api.addEventListener('b_preview', () => { this.previews += 1; });
  },
};
iso3d.watch();
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with Server(tmp_path_factory.mktemp("browser"), "iso3d") as server:
        yield server


@pytest.fixture
def page(server):
    playwright = pytest.importorskip("playwright.sync_api", reason="pip install playwright")
    chromium = shutil.which("chromium")
    if chromium is None:
        pytest.skip("no `chromium` on PATH")
    with playwright.sync_playwright() as running:
        browser = running.chromium.launch(executable_path=chromium, args=FLAGS)
        page = browser.new_page(viewport={"width": 1600, "height": 1000})
        page.set_default_timeout(30_000)
        page.goto(server.address)
        page.wait_for_function("window.app && app.graph && app.canvas", timeout=60_000)
        page.wait_for_timeout(3000)
        page.evaluate("app.graph.clear(); app.canvas.ds.scale = 0.8; app.canvas.ds.offset = [200, 80];")
        page.evaluate(HELPERS)
        yield page
        browser.close()


def artefact(page, name: str, tmp_path: Path) -> np.ndarray:
    folder = Path(os.environ.get("ISO3D_ARTEFACTS", tmp_path))
    folder.mkdir(parents=True, exist_ok=True)
    shot = page.screenshot(path=folder / f"{name}.png")
    return np.asarray(Image.open(io.BytesIO(shot)).convert("RGB"))


def add_by_search(page, words: str, x: int, y: int) -> None:
    box = page.locator(".comfy-vue-node-search-container input")
    for _ in range(4):  # two clicks of a page that draws one frame a second are not always a double click
        page.mouse.dblclick(x, y)
        page.wait_for_timeout(3000)
        if box.is_visible():
            break
    box.fill(words)
    page.wait_for_timeout(1200)
    page.keyboard.press("Enter")
    page.wait_for_timeout(300)


def add_by_drag(page, label: str, x: int, y: int) -> None:
    page.locator(".node-library-tab-button").click()
    page.locator(".node-lib-search-box input, .sidebar-content-container input").first.fill(label)
    leaf = page.locator(".node-lib-node-container", has_text=label).first
    leaf.wait_for(timeout=10_000)
    leaf.drag_to(page.locator("#graph-canvas"), target_position={"x": x, "y": y})
    page.locator(".node-library-tab-button").click()
    page.wait_for_timeout(300)


def connect(page, source: tuple[str, str], target: tuple[str, str]) -> None:
    start = page.evaluate("([type, name]) => iso3d.output(type, name)", list(source))
    end = page.evaluate("([type, name]) => iso3d.input(type, name)", list(target))
    page.mouse.move(*start)
    page.mouse.down()
    page.mouse.move(*end, steps=4)
    page.mouse.up()
    page.wait_for_timeout(200)
    linked = page.evaluate(
        "([type, name]) => iso3d.byType(type).inputs.find(i => i.name === name).link != null", list(target)
    )
    assert linked, f"{source} was not connected to {target}"


def click_widget(page, kind: str, name: str, dx: int) -> None:
    page.mouse.click(*page.evaluate("([type, name, dx]) => iso3d.widget(type, name, dx)", [kind, name, dx]))


def press_run(page) -> None:
    page.get_by_role("button", name="Run", exact=True).first.click()


def wait_for_success(page, times: int) -> None:
    done = f"iso3d.events.execution_success >= {times} || iso3d.events.execution_error"
    page.wait_for_function(done, timeout=240_000)
    assert "execution_error" not in page.evaluate("iso3d.events")


def test_an_artist_makes_a_mesh_with_mouse_and_keyboard(page, server, tmp_path):
    add_by_search(page, "Load Image", 330, 250)
    add_by_search(page, "Generate 3D iso3d", 700, 250)
    add_by_drag(page, "Preview 3D", 1080, 150)
    kinds = page.evaluate("app.graph._nodes.map(node => node.type)")
    assert sorted(kinds) == ["Iso3DGenerate3D", "LoadImage", "Preview3D"]
    connect(page, ("LoadImage", "IMAGE"), ("Iso3DGenerate3D", "image"))
    connect(page, ("LoadImage", "MASK"), ("Iso3DGenerate3D", "mask"))
    connect(page, ("Iso3DGenerate3D", "path"), ("Preview3D", "model_file"))

    picture = shutil.copy(ROOT / "examples" / "duck.png", tmp_path / "picked duck.png")
    with page.expect_file_chooser() as chooser:
        click_widget(page, "LoadImage", "upload", 80)
    chooser.value.set_files(picture)
    page.wait_for_function("iso3d.byType('LoadImage').widgets[0].value.includes('picked duck')")
    click_widget(page, "Iso3DGenerate3D", "preset", 22)  # the arrow to the left: one before "default"
    page.wait_for_function("iso3d.byType('Iso3DGenerate3D').widgets.find(w => w.name === 'preset').value === 'fast'")
    artefact(page, "graph", tmp_path)

    press_run(page)
    page.wait_for_function("iso3d.events.progress > 3", timeout=120_000)
    page.wait_for_function("iso3d.previews > 0", timeout=120_000)
    artefact(page, "running", tmp_path)
    wait_for_success(page, 1)
    glb = list((server.folder / "output" / "mesh").glob("*.glb"))
    assert len(glb) == 1
    assert glb[0].read_bytes()[:4] == b"glTF"

    page.wait_for_timeout(5000)  # the page reads the file and draws it
    page.mouse.move(5, 900)
    shot = artefact(page, "done", tmp_path)
    box = page.evaluate(
        "(() => { const c = [...document.querySelectorAll('canvas')].find(c => c.id !== 'graph-canvas' && "
        "c.closest('.dom-widget, [class*=\"3d\"]')); if (!c) return null; "
        "const b = c.getBoundingClientRect(); return [b.left, b.top, b.right, b.bottom]; })()"
    )
    assert box is not None, "the page shows no 3D view"
    left, top, right, bottom = (round(v) for v in box)
    view = shot[max(top, 0) : bottom, left:right].astype(int)
    colored = (view.max(axis=-1) - view.min(axis=-1) > 50).mean()  # the empty view is grey but for three small axes
    assert colored > 0.02


@pytest.mark.parametrize("path", sorted((ROOT / "example_workflows").glob("*.json")), ids=lambda path: path.stem)
def test_an_example_workflow_runs_from_the_page_and_again_from_the_cache(page, server, path, tmp_path):
    page.evaluate("workflow => app.loadGraphData(workflow)", json.loads(path.read_text(encoding="utf-8")))
    page.wait_for_timeout(1500)
    assert page.locator(".p-toast-message").count() == 0, page.locator(".p-toast-message").first.inner_text()
    press_run(page)
    wait_for_success(page, 1)
    page.wait_for_timeout(6000)
    page.evaluate("app.canvas.deselectAll(); app.extensionManager.command.execute('Comfy.Canvas.FitView')")
    page.wait_for_timeout(2500)
    artefact(page, path.stem, tmp_path)
    assert page.evaluate("iso3d.overlapping()") == []  # with their previews, which make them larger
    assert page.evaluate("app.canvas.ds.scale") > 0.6  # below, the page draws no words
    press_run(page)
    wait_for_success(page, 2)
    first, second = list(server.ask("/history").values())[-2:]
    assert first["outputs"]
    nodes = {name for name in second["prompt"][2] if second["prompt"][2][name]["class_type"].startswith("Iso3D")}
    assert server.cached(second) >= nodes
    for files in (value for output in first["outputs"].values() for value in output.get("images", [])):
        query = f"filename={files['filename']}&subfolder={files['subfolder']}&type={files['type']}"
        with urllib.request.urlopen(f"{server.address}/view?{query}") as answer:
            assert answer.read(4) == b"\x89PNG"
