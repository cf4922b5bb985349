"""The mesh stage of Consistent123: the field's surface as a DMTet with a texture field, optimised on at higher
resolution with the same losses, and with regularisers of its normals and its Laplacian (the paper's code)."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..cameras import Cameras, even_azimuths, orbit
from ..config import FieldConfig, GenerateConfig
from ..fields.dmtet import DMTet
from ..fields.scene import Scene
from ..fields.texture import TextureField
from ..fit import Checkpoints, fit
from ..render.differentiable import antialias, laplacian, normal_consistency, rasterise
from ..render.volume import Shading
from ..schedules import ClipBoundary
from ..types import OnProgress, Rendering
from .consistent123 import Guide, prior_losses, prior_weights, random_views
from .isotropic3d import fixed_shading, random_shading
from .reference import ReferenceView, reference_losses

TEXTURE = FieldConfig(4, base=16, growth=1.7, features=4, log2_table=19, hidden=32)
COLOR_STEPS, COLOR_POINTS = 60, 8192
LEARNING_RATES = {"shape": 1e-3, "grid": 0.01, "mlp": 0.004}


class MeshWork(nn.Module):
    """What the stage changes: the surface and its color."""

    def __init__(self, scene: Scene, config: GenerateConfig) -> None:
        super().__init__()
        device = scene.field.table.device

        def density(points: Tensor) -> Tensor:
            with torch.no_grad():
                return scene.density(points.to(device)).cpu()

        mesh, cells = config.mesh, config.guided.mesh_grid
        self.shape = DMTet.from_density(density, cells, mesh.threshold, mesh.gap, mesh.core).to(device)
        self.texture = TextureField(TEXTURE, config.seed).to(device)

    def render(
        self, cameras: Cameras, size: int, shading: Shading | None = None, surface: tuple[Tensor, Tensor] | None = None
    ) -> Rendering:
        """V views on white, differentiable in shape and color; surface : of ``shape``, where it is known already."""
        vertices, faces = surface or self.shape.surface()
        hits = rasterise(vertices, faces, cameras, size)
        color = self.texture(hits.points)
        if shading is not None:
            light = shading.light[hits.rows // size**2] - hits.points
            cosine = (hits.normals * F.normalize(light, dim=-1)).sum(-1, keepdim=True).clamp(min=0)
            color = color * shading.strength * (shading.ambient + (1 - shading.ambient) * cosine)
        pixels = torch.cat([color, torch.ones_like(color[:, :1])], dim=1)
        empty = torch.cat([torch.ones_like(color[:1]), torch.zeros_like(color[:1, :1])], dim=1)
        full = empty.repeat(len(cameras) * size * size, 1).index_put((hits.rows,), pixels)
        image = full.reshape(len(cameras), size, size, 4).permute(0, 3, 1, 2)
        image = antialias(image, hits.face, vertices, faces, cameras)
        depth = image.new_zeros(len(full)).index_put((hits.rows,), hits.depth).reshape(len(cameras), 1, size, size)
        depth = depth * image[:, 3:]  # accumulated along the ray, as a field's is
        none = image.new_zeros(0)
        return Rendering(image[:, :3], image[:, 3:], depth, none, none, none)

    @torch.no_grad()
    def preview(self, size: int = 64) -> Tensor:
        """Four views [4, 3, size, size], for people."""
        device = self.shape.distances.device
        return self.render(orbit(even_azimuths(4), 15.0).to(device), size).rgb.clamp(0, 1)


def optimise_mesh(
    scene: Scene, guide_3d: Guide | None, guide_2d: Guide | None, view: ReferenceView, config: GenerateConfig,
    boundary: ClipBoundary | None, on_progress: OnProgress | None = None, checkpoints: Checkpoints | None = None,
) -> MeshWork:  # fmt: skip
    """The scene's surface, optimised; its color starts as the field's.

    Raises ValueError where the scene has no surface at the threshold.
    """
    work = MeshWork(scene, config)
    color_groups = work.texture.parameter_groups(LEARNING_RATES["grid"], LEARNING_RATES["mlp"])
    fit(
        work, color_groups, own_colors(scene, work), COLOR_STEPS, config.seed, "mesh color", on_progress, work.preview,
        checkpoints,
    )  # fmt: skip
    groups = [*work.shape.parameter_groups(LEARNING_RATES["shape"]), *color_groups]
    objective = mesh_objective(work, guide_3d, guide_2d, view, config, boundary)
    fit(
        work, groups, objective, config.guided.mesh_steps, config.seed, "mesh stage", on_progress, work.preview,
        checkpoints,
    )  # fmt: skip
    return work


def own_colors(scene: Scene, work: MeshWork) -> Callable:
    """The start: the texture takes the field's colors on the surface."""
    with torch.no_grad():
        vertices, faces = work.shape.surface()
        points = vertices[faces].mean(dim=1)
        color = torch.cat([scene.surface_color(part) for part in points.split(2**16)])

    def objective(_step: int, generator: torch.Generator) -> tuple[Tensor, dict[str, float]]:
        rows = torch.randint(len(points), (COLOR_POINTS,), generator=generator).to(points.device)
        error = F.mse_loss(work.texture(points[rows]), color[rows])
        return error, {"color": float(error.detach())}

    return objective


def mesh_objective(
    work: MeshWork, guide_3d: Guide | None, guide_2d: Guide | None, view: ReferenceView, config: GenerateConfig,
    boundary: ClipBoundary | None,
) -> Callable:  # fmt: skip
    """As the field's: the reference's view every so many steps, else random views; and the regularisers at each."""
    guided, size = config.guided, config.guided.mesh_resolution
    weights = prior_weights(guided, boundary)
    device = work.shape.distances.device
    seen = view.to(device)

    def objective(step: int, generator: torch.Generator) -> tuple[Tensor, dict[str, float]]:
        surface = vertices, faces = work.shape.surface()
        smooth = guided.lambda_normal * normal_consistency(vertices, faces)
        smooth = smooth + guided.lambda_laplacian * laplacian(vertices, faces)
        if step % guided.reference_every == 0:
            out = work.render(seen.camera, seen.rgb.shape[-1], fixed_shading(seen.camera, config.light), surface)
            loss = reference_losses(out, seen, guided.reference, 1.0, generator)
            return loss + smooth, {"reference": float(loss.detach()), "smooth": float(smooth.detach())}
        weight_3d, weight_2d = weights(guided.steps + step)
        cameras = random_views(view.camera, config, generator).to(device)
        out = work.render(cameras, size, random_shading(cameras, config.light, 0.0, generator), surface)
        loss, values = prior_losses(
            ((guide_3d, weight_3d, guided.t_3d), (guide_2d, weight_2d, guided.mesh_t_2d)), out.rgb, cameras, generator
        )
        return loss + smooth, {**values, "smooth": float(smooth.detach())}

    return objective
