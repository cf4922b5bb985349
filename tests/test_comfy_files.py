"""What ComfyUI reads from the pack's folder: translations, node pages, example workflows."""

import json
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
LANGUAGES = sorted(path.name for path in (ROOT / "locales").iterdir())
WORKFLOWS = sorted((ROOT / "example_workflows").glob("*.json"))
CORE = {"LoadImage", "SaveImage", "PreviewImage", "Preview3D"}


def definitions(language):
    return json.loads((ROOT / "locales" / language / "nodeDefs.json").read_text(encoding="utf-8"))


def leaves(tree, path=()):
    """{path: text} of nested dicts."""
    if isinstance(tree, str):
        return {path: tree}
    return {key: text for name, part in tree.items() for key, text in leaves(part, (*path, name)).items()}


@pytest.mark.parametrize("language", [name for name in LANGUAGES if name != "en"])
def test_a_translation_has_every_text(language):
    english, other = leaves(definitions("en")), leaves(definitions(language))
    assert set(other) == set(english)
    assert all(text.strip() for text in other.values())
    same = [path for path in english if path[-1] in ("tooltip", "description") and other[path] == english[path]]
    assert same == []


def test_every_node_has_a_page():
    pages = {path.stem for path in (ROOT / "comfy_nodes" / "web" / "docs").glob("*.md")}
    assert pages == set(definitions("en"))


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_a_workflow_uses_core_nodes_and_ours_and_the_example_images(path):
    assert path.with_suffix(".jpg").exists()
    workflow = json.loads(path.read_text(encoding="utf-8"))
    links = {link[0]: link for link in workflow["links"]}
    nodes = {node["id"]: node for node in workflow["nodes"]}
    assert {node["type"] for node in nodes.values()} <= CORE | set(definitions("en"))
    for node in nodes.values():
        if node["type"] == "LoadImage":
            assert (ROOT / "examples" / node["widgets_values"][0]).exists()
        for number, slot in enumerate(node.get("inputs", [])):
            if slot.get("link") is not None:
                _, source, output, target, at, kind = links[slot["link"]]
                assert (target, at) == (node["id"], number)
                assert nodes[source]["outputs"][output]["type"] == kind
        assert "randomize" not in (node.get("widgets_values") or [])  # a second run is served from the cache


def test_there_are_workflows():
    assert len(WORKFLOWS) >= 3
