"""SDS NeRF Optimizer and Extract Mesh."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from .compat import BUNDLE, EMBEDDING, FIELD, file_outputs, files, host_mesh, io, schema
from .embed_nodes import CATEGORY

PRESETS = ["fast", "default", "quality", "paper"]


@dataclass
class FieldValue:
    """An optimised scene on a socket, with the settings it was made with."""

    scene: Any  # iso3d_core's Scene
    config: Any  # GenerateConfig


class SdsNerfOptimizer(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> Any:
        from ..iso3d_core.config import METHODS

        return schema(
            node_id="Iso3DSdsNerfOptimizer",
            display_name="SDS NeRF Optimizer (iso3d)",
            category=CATEGORY,
            description="A radiance field by score distillation of the multi-view prior.",
            search_aliases=["score distillation", "nerf", "dreamfusion"],
            inputs=[
                BUNDLE.Input("bundle", tooltip="From Load Bundle"),
                EMBEDDING.Input("embedding", tooltip="One embedding; what isotropic3d works from"),
                io.Combo.Input("preset", options=PRESETS, default="default", tooltip="What the zeros below stand for"),
                io.Int.Input("steps", default=0, min=0, max=100_000, tooltip="Of SDS; 0 takes the preset's"),
                io.Int.Input("resolution", default=0, min=0, max=512, tooltip="Pixels rendered; 0 takes the preset's"),
                io.Float.Input("guidance", default=0.0, min=0.0, max=100.0, step=0.5, tooltip="0 takes the preset's"),
                io.Int.Input("seed", default=0, min=0, max=2**53, tooltip="Of all noise", control_after_generate=True),
                io.Boolean.Input(
                    "warm_start", default=True, tooltip="Fit sampled views first; off is pure SDS, the paper's way"
                ),
                FIELD.Input("start", optional=True, tooltip="A field to go on from, instead of a warm start"),
                io.Image.Input(
                    "views", optional=True,
                    tooltip="Views to fit in the warm start instead of sampling some: evenly around the object",
                ),
                io.Mask.Input("view_masks", optional=True, tooltip="White on the object, one a view"),
                io.Float.Input(
                    "view_elevation", default=15.0, min=-80.0, max=80.0, step=1.0, optional=True,
                    tooltip="Of those views, as Multi-View Sampler was told; degrees",
                ),
                io.Float.Input(
                    "view_start_azimuth", default=0.0, min=-360.0, max=360.0, step=1.0, optional=True,
                    tooltip="Of the first of those views; degrees",
                ),
                io.Combo.Input(
                    "method", options=list(METHODS), default="isotropic3d", optional=True,
                    tooltip="All but isotropic3d work from the reference; for hifi123 add Refine Mesh afterwards",
                ),
                io.Image.Input(
                    "reference", optional=True, tooltip="The image itself, for the methods that hold on to it"
                ),
                io.Mask.Input(
                    "reference_mask", optional=True, tooltip="White on the background, as Load Image gives it"
                ),
                io.String.Input(
                    "prompt", default="", optional=True,
                    tooltip="What the image shows, for methods with a 2D prior; empty: found by CLIP",
                ),
            ],
            outputs=[
                FIELD.Output(display_name="field", tooltip="For Extract Mesh and Render Views"),
                io.Image.Output(display_name="preview", tooltip="Four views of the field"),
            ],
        )  # fmt: skip

    @classmethod
    def execute(
        cls, bundle: Any, embedding: Any, preset: str, steps: int, resolution: int, guidance: float, seed: int,
        warm_start: bool, start: Any = None, views: Any = None, view_masks: Any = None, view_elevation: float = 15.0,
        view_start_azimuth: float = 0.0, method: str = "isotropic3d", reference: Any = None,
        reference_mask: Any = None, prompt: str = "",
    ) -> Any:  # fmt: skip
        from dataclasses import replace

        import torch

        from ..iso3d_core.config import WarmStart
        from ..iso3d_core.methods import guides
        from ..iso3d_core.methods.isotropic3d import optimise
        from ..iso3d_core.pipeline import configure
        from ..iso3d_core.presets import customise, with_method
        from ..iso3d_core.types import InputError
        from .convert import one_reference, to_image
        from .host import device_name, ready, reporter

        if len(embedding) != 1:
            raise InputError(f"embedding: one at a time, this batch has {len(embedding)}; pick one image")
        config = with_method(configure(preset, bundle.name, seed), method, prompt.strip() or None)
        config = customise(config, steps or None, resolution or None, guidance or None, warm_start)
        config = replace(config, device=device_name())
        if views is not None:
            if start is not None or not warm_start:
                other = "start is connected" if start is not None else "warm_start is off"
                raise InputError(f"views: they are what the warm start fits, but {other}; connect one, or tick it")
            usual = config.warm_start or configure("default", bundle.name).warm_start  # the preset may have none
            config = replace(config, warm_start=usual or WarmStart())
        if start is not None and method == "isotropic3d" and config.stage.steps == 0:
            raise InputError(f"steps: preset {preset} has no SDS steps, so a field would stay as it is; set some")
        prior = ready(bundle)
        if method != "isotropic3d":
            if reference is None:
                raise InputError(f"reference: method {method} needs the image itself; connect it, or use isotropic3d")
            found = one_reference(reference, reference_mask, name="reference")
            guided = replace(config.guided, mesh_steps=0)  # a field is what comes out
            guided = replace(guided, steps=steps or guided.steps, guidance_3d=guidance or guided.guidance_3d)
            config = replace(config, guided=guided)
        stages: tuple[str, ...] = ("optimise",) if method == "isotropic3d" else ("guided",)
        if config.warm_start and start is None:
            stages = ("views", "warm start", *stages) if views is None else ("warm start", *stages)
        with torch.inference_mode(False), torch.enable_grad():
            report, given = reporter(stages, method), None
            before = None if start is None else start.scene
            if views is not None:
                given = around(prior, views.clone(), view_masks, view_elevation, view_start_azimuth)
            if method == "isotropic3d":
                scene = optimise(prior, embedding.clone(), config, report, None, before, given)
            else:
                scene = guides.optimise(found, config, prior, report, None, before, given)[0].scene
        return io.NodeOutput(FieldValue(scene.cpu(), config), to_image(scene.preview(256)))


def around(prior: Any, image: Any, mask: Any, elevation: float, start_azimuth: float) -> tuple[Any, Any, Any]:
    """IMAGE and MASK batches of evenly spread views -> cameras, views, masks as the optimiser takes them."""
    from ..iso3d_core.cameras import even_azimuths
    from ..iso3d_core.methods.isotropic3d import bundle_orbit
    from ..iso3d_core.priors.base import not_white
    from ..iso3d_core.types import InputError
    from .convert import check_image, from_image, resize_masks

    views = from_image(check_image(image, "views"))
    if views.shape[-1] != views.shape[-2]:
        raise InputError(f"views: they must be square, these are {views.shape[-1]} x {views.shape[-2]} pixels")
    masks = not_white(views) if mask is None else resize_masks(mask.clone(), views)
    cameras = bundle_orbit(prior, even_azimuths(len(views), start_azimuth), elevation)
    return cameras.to(prior.device), views.to(prior.device), masks.to(prior.device)


class ExtractMesh(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> Any:
        return schema(
            node_id="Iso3DExtractMesh",
            display_name="Extract Mesh (iso3d)",
            category=CATEGORY,
            description="A closed, textured mesh from a field, and its GLB in the output folder.",
            search_aliases=["marching cubes", "nerf to mesh"],
            inputs=[
                FIELD.Input("field", tooltip="From SDS NeRF Optimizer"),
                io.Int.Input("resolution", default=96, min=16, max=512, tooltip="Of the isosurface's grid"),
                io.Int.Input("faces", default=8000, min=100, max=500_000, tooltip="After decimation"),
                io.Int.Input("texture_size", default=512, min=16, max=8192, tooltip="Pixels a side"),
                io.String.Input("filename_prefix", default="mesh/iso3d", tooltip="Inside the output folder"),
            ],
            outputs=[
                io.Mesh.Output(display_name="mesh", tooltip="For every node that takes a mesh"),
                io.String.Output(display_name="path", tooltip="The GLB, relative to the output folder"),
                *file_outputs(),
            ],
        )

    @classmethod
    def execute(cls, field: Any, resolution: int, faces: int, texture_size: int, filename_prefix: str) -> Any:
        from dataclasses import replace

        import torch

        from ..iso3d_core.pipeline import export_ready
        from .convert import mesh_values
        from .host import output_path, relative, reporter

        path, entry = output_path(filename_prefix, ".glb")
        wanted = replace(field.config.mesh, resolution=resolution, faces=faces, texture=texture_size)
        with torch.inference_mode(False):
            mesh = export_ready(field.scene, replace(field.config, mesh=wanted), reporter(("mesh",)))
        mesh.save(path)
        vertices, triangles, more = mesh_values(mesh)
        return io.NodeOutput(host_mesh(vertices, triangles, **more), relative(entry), *files(path))


NODES = [SdsNerfOptimizer, ExtractMesh]
