"""Multi-View Sampler and Render Views."""

from __future__ import annotations

from typing import Any

from .compat import BUNDLE, EMBEDDING, FIELD, io, schema
from .embed_nodes import CATEGORY


class MultiViewSampler(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> Any:
        return schema(
            node_id="Iso3DMultiViewSampler",
            display_name="Multi-View Sampler (iso3d)",
            category=CATEGORY,
            description="Views of the embedded object from all around, by DDIM.",
            search_aliases=["novel views", "zero123", "mvdream"],
            inputs=[
                BUNDLE.Input("bundle", tooltip="From Load Bundle"),
                EMBEDDING.Input("embedding", tooltip="From CLIP Image Embed or Blend Embeddings"),
                io.Int.Input("views", default=4, min=1, max=16, tooltip="How many, evenly around: 1 to 16"),
                io.Float.Input(
                    "elevation", default=15.0, min=-80.0, max=80.0, step=1.0, tooltip="Degrees above the horizon"
                ),
                io.Float.Input(
                    "start_azimuth", default=0.0, min=-360.0, max=360.0, step=1.0,
                    tooltip="Degrees from the image's own direction to the first view",
                ),
                io.Int.Input("steps", default=25, min=1, max=1000, tooltip="Of DDIM; 25 is usual"),
                io.Float.Input(
                    "guidance", default=3.0, min=0.0, max=30.0, step=0.5,
                    tooltip="Classifier-free guidance: 3 for the embedded bundle, 10 for Isotropic3D's own",
                ),
                io.Int.Input("seed", default=0, min=0, max=2**53, tooltip="Of the noise", control_after_generate=True),
            ],
            outputs=[
                io.Image.Output(display_name="images", tooltip="One image a view"),
                io.Mask.Output(display_name="masks", tooltip="White on the object"),
                io.Load3DCamera.Output(display_name="cameras", is_output_list=True, tooltip="One camera a view"),
                io.Image.Output(
                    display_name="depth",
                    tooltip="For RGNV Enhance: bright is near; guessed from the embedding, else flat",
                ),
            ],
        )  # fmt: skip

    @classmethod
    def execute(
        cls, bundle: Any, embedding: Any, views: int, elevation: float, start_azimuth: float, steps: int,
        guidance: float, seed: int,
    ) -> Any:  # fmt: skip
        import torch

        from ..iso3d_core.cameras import even_azimuths
        from ..iso3d_core.methods.isotropic3d import bundle_orbit
        from ..iso3d_core.types import Progress
        from .convert import camera_info, to_image, to_mask
        from .host import ready, reporter

        prior, report = ready(bundle), reporter(("views",))
        cameras = bundle_orbit(prior, even_azimuths(views, start_azimuth), elevation)
        images, masks, depths = [], [], []
        for number, single in enumerate(embedding):

            def on_step(step: int, total: int, z: Any, number: int = number) -> None:
                done = number * total + step
                report(Progress("views", done, total * len(embedding), lambda: prior.decode(z)))

            z = prior.sample_latents(single[None], cameras, steps, guidance, seed + number, on_step)
            with torch.no_grad():
                rgb, mask = prior.decode_with_mask(z)
            images.append(rgb)
            masks.append(mask)
            depths.append(prior.guess_nearness(single[None], cameras, mask).expand(-1, 3, -1, -1))
        infos = [camera_info(m, f) for m, f in zip(cameras.cam_to_world, cameras.fov_y_deg.tolist(), strict=True)]
        return io.NodeOutput(
            to_image(torch.cat(images)), to_mask(torch.cat(masks)), infos * len(images), to_image(torch.cat(depths))
        )


class RenderViews(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> Any:
        return schema(
            node_id="Iso3DRenderViews",
            display_name="Render Views (iso3d)",
            category=CATEGORY,
            description="A turntable of a mesh or field as images, masks and cameras: for ControlNet and video nodes.",
            search_aliases=["turntable", "normal map", "depth map", "render mesh"],
            inputs=[
                io.Mesh.Input("mesh", optional=True, tooltip="A mesh of any node"),
                FIELD.Input("field", optional=True, tooltip="Or a field, from SDS NeRF Optimizer"),
                io.String.Input(
                    "path", optional=True, default="",
                    tooltip="Or a mesh file, relative to the output folder, then to the input folder",
                ),
                io.Int.Input("frames", default=8, min=1, max=360, tooltip="Views around the object"),
                io.Float.Input("elevation", default=15.0, min=-80.0, max=80.0, step=1.0, tooltip="Degrees"),
                io.Int.Input("size", default=256, min=16, max=2048, step=8, tooltip="Pixels a side"),
                io.Combo.Input(
                    "style", options=["color", "clay", "normal", "depth", "mask"], default="color",
                    tooltip="What to draw; a field has no clay",
                ),
                io.Combo.Input(
                    "background", options=["white", "black", "grey"], default="white",
                    tooltip="Behind color, clay and normals; behind depth and masks it is black",
                ),
                io.Load3DCamera.Input("camera_info", optional=True, tooltip="One camera instead of a turntable"),
            ],
            outputs=[
                io.Image.Output(display_name="images", tooltip="One image a frame"),
                io.Mask.Output(display_name="masks", tooltip="White on the object"),
                io.Load3DCamera.Output(display_name="cameras", is_output_list=True, tooltip="One camera a frame"),
            ],
        )  # fmt: skip

    @classmethod
    def fingerprint_inputs(cls, path: str = "", **_: Any) -> Any:
        from .mesh_nodes import find_file, fingerprint

        return fingerprint(find_file(path)) if path else ""

    @classmethod
    def execute(
        cls, frames: int, elevation: float, size: int, style: str, background: str, mesh: Any = None,
        field: Any = None, path: str = "", camera_info: Any = None,
    ) -> Any:  # fmt: skip
        import torch

        from ..iso3d_core.cameras import even_azimuths, orbit
        from ..iso3d_core.mesh.export import load_mesh
        from ..iso3d_core.mesh.placing import fit_into_ball
        from ..iso3d_core.render.raster import render_mesh
        from ..iso3d_core.types import InputError, Progress
        from . import convert
        from .host import reporter

        given = [name for name, value in (("mesh", mesh), ("field", field), ("path", path)) if value not in (None, "")]
        if len(given) != 1:
            raise InputError(f"connect one of mesh, field and path, not {' and '.join(given) or 'none'}")
        if camera_info is not None:
            azimuth, height, distance, fov = convert.from_camera_info(camera_info)
            cameras = orbit(azimuth, height, distance, fov)
        else:
            cameras = orbit(even_azimuths(frames), elevation)
        if field is None:
            from .mesh_nodes import find_file

            mesh = load_mesh(find_file(path)) if path else convert.one_mesh(mesh)
            mesh = fit_into_ball(mesh)
        report, drawn = reporter(("views",)), []
        for i in range(len(cameras)):
            if field is not None:
                drawn.append(field.scene.view(cameras[i], size, style, None))
            else:
                drawn.append(render_mesh(mesh, cameras[i], size, style, None))
            report(Progress("views", i + 1, len(cameras), lambda: drawn[-1][:, :3]))
        rgba = torch.cat(drawn).cpu()
        rgb, mask = rgba[:, :3], rgba[:, 3:]
        if style != "mask":  # which is what it shows, and what is far in a depth map is dark
            behind = 0.0 if style == "depth" else {"white": 1.0, "black": 0.0, "grey": 0.5}[background]
            rgb = rgb * mask + behind * (1 - mask)
        infos = [
            convert.camera_info(m, f) for m, f in zip(cameras.cam_to_world, cameras.fov_y_deg.tolist(), strict=True)
        ]
        return io.NodeOutput(convert.to_image(rgb), convert.to_mask(mask), infos)


NODES = [MultiViewSampler, RenderViews]
