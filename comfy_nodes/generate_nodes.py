"""Generate 3D: everything in one node, for beginners and for programs that use the server."""

from __future__ import annotations

from typing import Any

from .compat import file_outputs, files, host_mesh, io, schema
from .embed_nodes import CATEGORY
from .field_nodes import PRESETS


class Generate3D(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> Any:
        from ..iso3d_core.config import METHODS
        from .convert import BACKGROUND, SUBJECT
        from .host import bundle_names

        return schema(
            node_id="Iso3DGenerate3D",
            display_name="Generate 3D (iso3d)",
            category=CATEGORY,
            description="One image in, one textured mesh out.",
            search_aliases=["image to 3d", "image to mesh"],
            is_output_node=True,
            inputs=[
                io.Image.Input("image", tooltip="One object; a plain background helps"),
                io.Mask.Input("mask", optional=True, tooltip="What to keep; without one the subject is found"),
                io.Combo.Input(
                    "mask_shows", options=[BACKGROUND, SUBJECT], default=BACKGROUND, optional=True,
                    tooltip="Load Image's mask is white on the background",
                ),
                io.Combo.Input(
                    "bundle", options=bundle_names("multiview", "zero123"), default="tiny", tooltip="Of networks"
                ),
                io.Combo.Input("preset", options=PRESETS, default="default", tooltip="How much work"),
                io.Int.Input("seed", default=0, min=0, max=2**53, tooltip="Of all noise", control_after_generate=True),
                io.String.Input("filename_prefix", default="mesh/iso3d", tooltip="Inside the output folder"),
                io.Combo.Input(
                    "method", options=list(METHODS), default="isotropic3d", optional=True,
                    tooltip="isotropic3d resembles the image; consistent123 and hifi123 hold on to it",
                ),
                io.String.Input(
                    "prompt", default="", optional=True,
                    tooltip="What the image shows, for methods with a 2D prior; empty: found by CLIP",
                ),
            ],
            outputs=[
                io.Mesh.Output(display_name="mesh", tooltip="For every node that takes a mesh"),
                io.String.Output(display_name="path", tooltip="The GLB, relative to the output folder"),
                io.Image.Output(display_name="preview", tooltip="Four views of the mesh"),
                *file_outputs(),
            ],
        )  # fmt: skip

    @classmethod
    def execute(
        cls, image: Any, bundle: str, preset: str, seed: int, filename_prefix: str, mask: Any = None,
        mask_shows: str = "", method: str = "isotropic3d", prompt: str = "",
    ) -> Any:  # fmt: skip
        from dataclasses import replace

        import torch

        from ..iso3d_core.cameras import even_azimuths, orbit
        from ..iso3d_core.pipeline import configure, generate, size_for, takes_multiview
        from ..iso3d_core.presets import with_method
        from ..iso3d_core.render.raster import render_mesh
        from ..iso3d_core.types import stage_shares
        from .convert import BACKGROUND, mesh_values, one_reference, to_image
        from .host import device_name, load_bundle, output_path, ready, relative, reporter

        path, entry = output_path(filename_prefix, ".glb")
        config = with_method(configure(preset, bundle, seed), method, prompt.strip() or None)
        reference = one_reference(image, mask, mask_shows or BACKGROUND, size=size_for(config))
        prior = ready(load_bundle(bundle)) if takes_multiview(config) else None
        with torch.inference_mode(False), torch.enable_grad():
            config = replace(config, device=device_name())
            report = reporter(tuple(stage_shares(method)), method)
            mesh = generate(reference, config, report, prior=prior)
        mesh.save(path)
        vertices, faces, more = mesh_values(mesh)
        shown = relative(entry)
        preview = to_image(render_mesh(mesh, orbit(even_azimuths(4), 15.0), 256)[:, :3])
        return io.NodeOutput(
            host_mesh(vertices, faces, **more),
            shown,
            preview,
            *files(path),
            ui={"3d": [entry], "result": [shown, None]},
        )


NODES = [Generate3D]
