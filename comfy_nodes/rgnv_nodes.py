"""RGNV Enhance and Refine Mesh: a reference's texture on coarse views, or on a mesh, of any node (HiFi-123)."""

from __future__ import annotations

from typing import Any

from .compat import file_outputs, files, host_mesh, io, schema
from .embed_nodes import CATEGORY


def words() -> list[Any]:
    """Inputs for what the reference shows, and how strongly to follow that."""
    return [
        io.String.Input("prompt", default="", optional=True, tooltip="What the reference shows; may be empty"),
        io.Float.Input(
            "guidance", default=0.0, min=0.0, max=100.0, step=0.5, optional=True,
            tooltip="Classifier-free guidance where there is a prompt; 0 takes the bundle's own",
        ),
    ]  # fmt: skip


class RgnvEnhance(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> Any:
        from .convert import BACKGROUND, SUBJECT
        from .host import bundle_names

        return schema(
            node_id="Iso3DRgnvEnhance",
            display_name="RGNV Enhance (iso3d)",
            category=CATEGORY,
            description="HiFi-123: carries the reference's texture to coarse views of any node.",
            search_aliases=["hifi-123", "texture transfer", "refine views"],
            inputs=[
                io.Image.Input("reference", tooltip="The sharp image whose texture is wanted"),
                io.Image.Input("coarse", tooltip="Views of the same object, from any node"),
                io.Mask.Input("mask", optional=True, tooltip="The reference's subject"),
                io.Combo.Input(
                    "mask_shows", options=[BACKGROUND, SUBJECT], default=BACKGROUND, optional=True,
                    tooltip="Load Image's mask is white on the background",
                ),
                io.Mask.Input(
                    "coarse_masks", optional=True,
                    tooltip="White on the object, one a coarse view; without them what is not white is the object",
                ),
                io.Image.Input("depth", optional=True, tooltip="Depth of the coarse views, bright is near"),
                io.Float.Input(
                    "strength", default=0.8, min=0.0, max=1.0, step=0.05, tooltip="How far to depart from the views"
                ),
                io.Int.Input("steps", default=0, min=0, max=1000, tooltip="Of DDIM; 0 takes the bundle's own"),
                io.Combo.Input(
                    "bundle", options=bundle_names("depth"), default="tiny",
                    tooltip="With a depth-conditioned prior: tiny, or sd-depth",
                ),
                *words(),
            ],
            outputs=[io.Image.Output(display_name="images", tooltip="The views with the reference's texture")],
        )  # fmt: skip

    @classmethod
    def execute(
        cls, reference: Any, coarse: Any, strength: float, steps: int, bundle: str, mask: Any = None,
        mask_shows: str = "", coarse_masks: Any = None, depth: Any = None, prompt: str = "", guidance: float = 0.0,
    ) -> Any:  # fmt: skip
        from ..iso3d_core import rgnv
        from ..iso3d_core.pipeline import reference_size
        from ..iso3d_core.weights import find_bundle
        from .convert import BACKGROUND, check_image, from_image, one_reference, resize_masks, to_image
        from .host import load_depth_bundle, ready, reporter

        size = reference_size(find_bundle(bundle))
        subject = one_reference(reference, mask, mask_shows or BACKGROUND, "reference", size)
        views = from_image(check_image(coarse, "coarse"))
        masks = None if coarse_masks is None else resize_masks(coarse_masks, views)
        near = None if depth is None else from_image(check_image(depth, "depth")).mean(dim=1, keepdim=True)
        prior = ready(load_depth_bundle(bundle))
        out = rgnv.enhance(
            prior, subject, views, masks, near, strength, steps or None, prompt.strip(), guidance or None, None,
            reporter(("enhance",)),
        )  # fmt: skip
        return io.NodeOutput(to_image(out))


class RefineMesh(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> Any:
        from .convert import BACKGROUND, SUBJECT
        from .host import bundle_names

        return schema(
            node_id="Iso3DRefineMesh",
            display_name="Refine Mesh (iso3d)",
            category=CATEGORY,
            description="HiFi-123: gives a mesh of any node the reference's texture; its shape and UVs stay.",
            search_aliases=["retexture", "texture mesh", "rgsd", "hifi-123"],
            is_output_node=True,
            inputs=[
                io.Mesh.Input("mesh", tooltip="A mesh of any node, its front towards +Z"),
                io.Image.Input("reference", tooltip="The front of the mesh, as it should look"),
                io.Mask.Input("mask", optional=True, tooltip="The reference's subject"),
                io.Combo.Input(
                    "mask_shows", options=[BACKGROUND, SUBJECT], default=BACKGROUND, optional=True,
                    tooltip="Load Image's mask is white on the background",
                ),
                io.Int.Input("steps", default=40, min=1, max=10_000, tooltip="Of the refinement"),
                io.Float.Input(
                    "strength", default=0.8, min=0.0, max=1.0, step=0.05, tooltip="More is nearer to the reference"
                ),
                io.Int.Input(
                    "texture_size", default=1024, min=16, max=8192,
                    tooltip="Pixels a side; a larger texture of the mesh keeps its size",
                ),
                io.Int.Input("seed", default=0, min=0, max=2**53, tooltip="Of all noise", control_after_generate=True),
                io.Combo.Input(
                    "bundle", options=bundle_names("depth"), default="tiny",
                    tooltip="With a depth-conditioned prior: tiny, or sd-depth",
                ),
                io.String.Input("filename_prefix", default="mesh/refined", tooltip="Inside the output folder"),
                io.Boolean.Input(
                    "unwrap", default=False, optional=True,
                    tooltip="Make new UVs, where the mesh's own repeat or overlap",
                ),
                *words(),
            ],
            outputs=[
                io.Mesh.Output(display_name="mesh", tooltip="For every node that takes a mesh"),
                io.String.Output(display_name="path", tooltip="The GLB, relative to the output folder"),
                *file_outputs(),
            ],
        )  # fmt: skip

    @classmethod
    def execute(
        cls, mesh: Any, reference: Any, steps: int, strength: float, texture_size: int, seed: int, bundle: str,
        filename_prefix: str, mask: Any = None, mask_shows: str = "", unwrap: bool = False, prompt: str = "",
        guidance: float = 0.0,
    ) -> Any:  # fmt: skip
        import torch

        from ..iso3d_core.methods.refine import RefineConfig, refine
        from ..iso3d_core.pipeline import reference_size
        from ..iso3d_core.weights import find_bundle
        from .convert import BACKGROUND, mesh_values, one_mesh, one_reference
        from .host import load_depth_bundle, output_path, ready, relative, reporter

        path, entry = output_path(filename_prefix, ".glb")
        size = reference_size(find_bundle(bundle))
        subject = one_reference(reference, mask, mask_shows or BACKGROUND, "reference", size)
        config = RefineConfig(
            steps=steps, strength=strength, prompt=prompt.strip(), guidance_scale=guidance or None,
            texture=texture_size, seed=seed, unwrap=unwrap,
        )  # fmt: skip
        prior = ready(load_depth_bundle(bundle))
        with torch.inference_mode(False), torch.enable_grad():
            refined = refine(one_mesh(mesh), subject, prior, config, reporter(("refine",)))
        refined.save(path)
        vertices, faces, more = mesh_values(refined)
        shown = relative(entry)
        return io.NodeOutput(host_mesh(vertices, faces, **more), shown, *files(path), ui={"3d": [entry]})


NODES = [RgnvEnhance, RefineMesh]
