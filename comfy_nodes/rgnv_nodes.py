"""RGNV Enhance: the reference's texture on coarse views of any node (HiFi-123)."""

from __future__ import annotations

from typing import Any

from .compat import io, schema
from .embed_nodes import CATEGORY


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
                    "strength", default=0.6, min=0.0, max=1.0, step=0.05, tooltip="How far to depart from the views"
                ),
                io.Int.Input("steps", default=20, min=1, max=1000, tooltip="Of DDIM; 20 is usual, 50 the paper's"),
                io.Combo.Input(
                    "bundle", options=bundle_names(), default="tiny",
                    tooltip="With a depth-conditioned prior: tiny, or sd-depth",
                ),
            ],
            outputs=[io.Image.Output(display_name="images", tooltip="The views with the reference's texture")],
        )  # fmt: skip

    @classmethod
    def execute(
        cls, reference: Any, coarse: Any, strength: float, steps: int, bundle: str, mask: Any = None,
        mask_shows: str = "", coarse_masks: Any = None, depth: Any = None,
    ) -> Any:  # fmt: skip
        from ..iso3d_core import rgnv
        from .convert import BACKGROUND, check_image, from_image, references, resize_masks, to_image
        from .host import load_depth_bundle, ready, reporter

        subject = references(reference, mask, mask_shows or BACKGROUND, "reference")[0]
        views = from_image(check_image(coarse, "coarse"))
        masks = None if coarse_masks is None else resize_masks(coarse_masks, views)
        near = None if depth is None else from_image(check_image(depth, "depth")).mean(dim=1, keepdim=True)
        prior = ready(load_depth_bundle(bundle))
        out = rgnv.enhance(
            prior, subject, views, masks, near, strength, steps, on_progress=reporter(("enhance",))
        )  # fmt: skip
        return io.NodeOutput(to_image(out))


NODES = [RgnvEnhance]
