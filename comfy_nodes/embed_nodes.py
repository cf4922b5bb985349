"""Load Bundle, CLIP Image Embed, Blend Embeddings."""

from __future__ import annotations

from typing import Any

from .compat import BUNDLE, EMBEDDING, io, schema

CATEGORY = "iso3d"


class LoadBundle(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> Any:
        from .host import bundle_names

        return schema(
            node_id="Iso3DLoadBundle",
            display_name="Load Bundle (iso3d)",
            category=CATEGORY,
            description="Loads the networks: the embedded bundle, one that was pulled or converted, or one in "
            "models/iso3d.",
            search_aliases=["iso3d", "isotropic3d", "image to 3d", "multi-view"],
            inputs=[
                io.Combo.Input(
                    "bundle", options=bundle_names("multiview"), default="tiny",
                    tooltip="tiny comes with the pack and knows simple toys; more with `iso3d models pull`",
                )
            ],
            outputs=[BUNDLE.Output(display_name="bundle", tooltip="The loaded networks")],
        )  # fmt: skip

    @classmethod
    def execute(cls, bundle: str) -> Any:
        from .host import load_bundle

        return io.NodeOutput(load_bundle(bundle))


class ClipImageEmbed(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> Any:
        from .convert import BACKGROUND, SUBJECT

        return schema(
            node_id="Iso3DClipImageEmbed",
            display_name="CLIP Image Embed (iso3d)",
            category=CATEGORY,
            description="One CLIP embedding for each image of the batch: all that Isotropic3D needs to know of it.",
            search_aliases=["clip vision", "image embedding"],
            inputs=[
                BUNDLE.Input("bundle", tooltip="From Load Bundle"),
                io.Image.Input("image", optional=True, tooltip="One object each; a plain background helps"),
                io.Mask.Input("mask", optional=True, tooltip="What to keep; without one the subject is found"),
                io.Combo.Input(
                    "mask_shows", options=[BACKGROUND, SUBJECT], default=BACKGROUND, optional=True,
                    tooltip="Load Image's mask is white on the background; a segmentation's is white on the subject",
                ),
                io.ClipVisionOutput.Input(
                    "clip_vision_output", optional=True,
                    tooltip="Instead of an image: an embedding from CLIP Vision Encode of the bundle's own width",
                ),
            ],
            outputs=[EMBEDDING.Output(display_name="embedding", tooltip="One embedding for each image")],
        )  # fmt: skip

    @classmethod
    def execute(
        cls, bundle: Any, image: Any = None, mask: Any = None, mask_shows: str = "", clip_vision_output: Any = None
    ) -> Any:
        import torch

        from ..iso3d_core.pipeline import reference_size
        from ..iso3d_core.types import InputError
        from ..iso3d_core.weights import find_bundle
        from .convert import BACKGROUND, references
        from .host import ready

        prior = ready(bundle)
        if clip_vision_output is not None:
            found = clip_vision_output.image_embeds.float().reshape(-1, clip_vision_output.image_embeds.shape[-1])
            if found.shape[-1] != prior.embedding_width:
                raise InputError(
                    f"clip_vision_output: its embedding has {found.shape[-1]} numbers, bundle {bundle.name!r} takes "
                    f"{prior.embedding_width}; connect an image instead, or use the CLIP vision model it was made with"
                )
            return io.NodeOutput(found[:, None].cpu())
        if image is None:
            raise InputError("image: connect an image, or a CLIP vision output of the bundle's width")
        size = reference_size(find_bundle(bundle.name))
        found = [prior.embed(reference) for reference in references(image, mask, mask_shows or BACKGROUND, size=size)]
        return io.NodeOutput(torch.cat(found).cpu())


class BlendEmbeddings(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> Any:
        return schema(
            node_id="Iso3DBlendEmbeddings",
            display_name="Blend Embeddings (iso3d)",
            category=CATEGORY,
            description="Something between two images: only a method that sees no pixels can do this.",
            search_aliases=["mix", "interpolate embeddings"],
            inputs=[
                EMBEDDING.Input("first", tooltip="Weight 0 gives this one"),
                EMBEDDING.Input("second", tooltip="Weight 1 gives this one"),
                io.Float.Input(
                    "weight", default=0.5, min=0.0, max=1.0, step=0.01, tooltip="How much of the second: 0 to 1"
                ),
            ],
            outputs=[EMBEDDING.Output(display_name="embedding", tooltip="Blended on the sphere, length kept")],
        )

    @classmethod
    def execute(cls, first: Any, second: Any, weight: float) -> Any:
        from ..iso3d_core.priors.clip import blend

        return io.NodeOutput(blend(first, second, weight))


NODES = [LoadBundle, ClipImageEmbed, BlendEmbeddings]
