"""Consistent123: the 3D prior alone until the shape has settled, then less and less of it and more of a 2D text prior.

    every fourth step: the reference's own view (Eq. 1-3)
    stage 1: L_3D (Eq. 4), until the CLIP similarity of eight renders to the text stops rising (Eq. 5-6)
    stage 2: e^(-t/T) L_3D + (1 - e^(-t/T)) L_2D (Eq. 8)

The baselines of the papers' tables are the same parts with fixed weights: only the 3D prior (`zero123`), both
(`magic123`), only the 2D prior (`realfusion-sds`, without its textual inversion).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ..cameras import Cameras, even_azimuths, orbit
from ..config import GenerateConfig, GuidedConfig
from ..fields.scene import Scene
from ..fit import Checkpoints, fit
from ..losses import distill, opacity_entropy, orientation_loss, sds_target
from ..priors.base import LatentPrior
from ..render.volume import render
from ..schedules import ClipBoundary, DynamicPrior
from ..types import OnProgress
from .isotropic3d import fixed_shading, parameter_groups, random_shading
from .reference import ReferenceView, reference_losses

JUDGED = 8  # views of the boundary judgement, evenly around
KEPT = ("steps", "similarity", "switched_at")  # of a boundary, in a checkpoint
BEFORE_BOUNDARY = (1.0, 0.0)  # weights of the 3D and the 2D prior


@dataclass(frozen=True)
class Guide:
    """One prior that says how views should change.

    prior : encodes; predict : (z_t, t, cameras) -> noise, all guidance done
    angle_weight : weigh views by how far they are from the reference, as Consistent123's 3D prior does
    views : samples what a warm start is fitted to, (config, on_progress) -> cameras, views and masks
    """

    prior: LatentPrior
    predict: Callable[[Tensor, int, Cameras], Tensor]
    angle_weight: bool = False
    views: Callable[[GenerateConfig, OnProgress | None], tuple[Cameras, Tensor, Tensor]] | None = None


class Work(nn.Module):
    """What the optimisation changes: the scene, and what the boundary judgement has seen so far."""

    def __init__(self, scene: Scene, boundary: ClipBoundary | None) -> None:
        super().__init__()
        self.scene, self.boundary = scene, boundary

    def get_extra_state(self) -> dict[str, Any]:
        return {name: getattr(self.boundary, name) for name in KEPT} if self.boundary else {}

    def set_extra_state(self, state: dict[str, Any]) -> None:
        for name, value in state.items():
            setattr(self.boundary, name, value)


@dataclass(frozen=True)
class Guided:
    """How it ended: the scene, and the boundary with all that it was told, where the method has one."""

    scene: Scene
    boundary: ClipBoundary | None = None

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self.boundary) if self.boundary else {}


def optimise(
    guide_3d: Guide | None,
    guide_2d: Guide | None,
    view: ReferenceView,
    similarity: Callable[[Tensor], float] | None,
    config: GenerateConfig,
    on_progress: OnProgress | None = None,
    checkpoints: Checkpoints | None = None,
    start: Scene | None = None,
) -> Guided:
    """A field by score distillation of a 3D and a 2D prior and the reference's view.

    similarity : of renders [V, 3, S, S] to the text, for the boundary judgement
    start : a scene to go on from; it is changed
    """
    guide = guide_3d or guide_2d
    if guide is None:
        raise ValueError("an optimisation needs at least one prior")
    scene = (start or Scene(config.field, config.render, config.seed)).to(guide.prior.device)
    work = Work(scene, make_boundary(config.guided))
    objective = guided_objective(work, guide_3d, guide_2d, view, similarity, config)
    fit(
        work, parameter_groups(scene, config.stage), objective, config.guided.steps, config.seed, "guided",
        on_progress, scene.preview, checkpoints,
    )  # fmt: skip
    return Guided(scene, work.boundary)


def guided_objective(
    work: Work, guide_3d: Guide | None, guide_2d: Guide | None, view: ReferenceView,
    similarity: Callable[[Tensor], float] | None, config: GenerateConfig,
) -> Callable:  # fmt: skip
    """The alternation of the reference's view and random views; see the module's head."""
    scene, boundary = work.scene, work.boundary
    guided = config.guided
    size = guided.resolution or config.stage.resolution[0][1]
    weights = prior_weights(guided, boundary)
    seen = view.to(scene.field.table.device)

    def objective(step: int, generator: torch.Generator) -> tuple[Tensor, dict[str, float]]:
        if step % config.render.occupancy_every == 0:
            scene.occupancy.update(scene.field.density, generator)
        if boundary is not None and boundary.due(step) and similarity is not None:
            boundary.update(step, similarity(judged_views(scene, size)))
        if step % guided.reference_every == 0:
            out = render(
                scene.field, seen.camera, seen.rgb.shape[-1], config.render.samples, scene.occupancy, generator,
                fixed_shading(seen.camera, config.light),
            )  # fmt: skip
            loss = reference_losses(out, seen, guided.reference, step / max(guided.steps, 1), generator)
            return loss + sparse(out.opacity, config), {"reference": float(loss.detach())}
        weight_3d, weight_2d = weights(step)
        cameras = random_views(view.camera, config, generator).to(scene.field.table.device)
        out = render(
            scene.field, cameras, size, config.render.samples, scene.occupancy, generator,
            random_shading(cameras, config.light, 0.0, generator), normals=guided.lambda_orient > 0,
        )  # fmt: skip
        loss, values = prior_losses(
            ((guide_3d, weight_3d, guided.t_3d), (guide_2d, weight_2d, guided.t_2d)), out.rgb, cameras, generator
        )
        loss = loss + sparse(out.opacity, config)
        if out.normals is not None and out.normal_rows is not None:
            hit = int((out.opacity > 0.01).sum())
            away = out.positions - cameras.positions[out.rays // size**2]
            directions = torch.nn.functional.normalize(away, dim=-1)[out.normal_rows]
            loss = loss + guided.lambda_orient * orientation_loss(
                out.weights[out.normal_rows], out.normals, directions, hit
            )
        return loss, values

    return objective


def prior_weights(guided: GuidedConfig, boundary: ClipBoundary | None) -> Callable[[int], tuple[float, float]]:
    """(w_3D, w_2D) at a step: fixed ones, or the dynamic prior from the boundary on, to the end of the mesh stage."""
    if guided.weights is not None:
        fixed = guided.weights
        return lambda _step: fixed
    dynamic = DynamicPrior(guided.dynamic)

    def weights(step: int) -> tuple[float, float]:
        switched = boundary.switched_at if boundary else 0
        if switched is None:
            return BEFORE_BOUNDARY
        return dynamic(step - switched, guided.steps + guided.mesh_steps - switched)

    return weights


def make_boundary(guided: GuidedConfig) -> ClipBoundary | None:
    """The judgement that the settings ask for; None where the weights are fixed."""
    if guided.weights is not None:
        return None
    low, high = guided.boundary
    return ClipBoundary(
        round(low * guided.steps), round(high * guided.steps), guided.judge_every, guided.window, guided.threshold
    )


def prior_losses(
    guides: tuple[tuple[Guide | None, float, tuple[float, float]], ...], rgb: Tensor, cameras: Cameras,
    generator: torch.Generator,
) -> tuple[Tensor, dict[str, float]]:  # fmt: skip
    """The weighted sum of the distillations of a 3D and a 2D prior, each (guide, weight, noise levels)."""
    loss, values = rgb.new_zeros(()), {}
    for name, (guide, weight, times) in zip(("3d", "2d"), guides, strict=True):
        values[f"w_{name}"] = weight
        if guide is not None and weight > 0:
            part = weight * distillation(guide, rgb, cameras, times, generator)
            loss, values[name] = loss + part, float(part.detach())
    return loss, values


def distillation(
    guide: Guide, rgb: Tensor, cameras: Cameras, times: tuple[float, float], generator: torch.Generator
) -> Tensor:
    """SDS (Eq. 4 and 7) of one prior with w(t) = 1 - abar, on renders [V, 3, S, S]."""
    prior = guide.prior
    z = prior.encode(rgb)
    low, high = times
    t = round((low + (high - low) * float(torch.rand((), generator=generator))) * (len(prior.alphas_cumprod) - 1))
    abar = prior.alphas_cumprod[t]
    noise = torch.randn(z.shape, generator=generator).to(z)
    predicted = guide.predict(abar.sqrt() * z.detach() + (1 - abar).sqrt() * noise, t, cameras)
    weight = torch.full((len(z), 1, 1, 1), float(1 - abar), device=z.device)
    if guide.angle_weight:
        weight = weight * (angle_to_reference(cameras) / 180).reshape(-1, 1, 1, 1).to(z)
    return distill(z, sds_target(z, noise, predicted, weight))


def angle_to_reference(cameras: Cameras) -> Tensor:
    """[V] degrees around the object from azimuth 0, 0 to 180."""
    x, y = cameras.positions[:, 0], cameras.positions[:, 1]
    return torch.rad2deg(torch.atan2(y, x)).abs()


def random_views(reference: Cameras, config: GenerateConfig, generator: torch.Generator) -> Cameras:
    """Even azimuths from a random start, at one random elevation, from as far as the reference."""
    start, height = torch.rand(2, generator=generator).tolist()
    low, high = config.cameras.elevation_deg
    distance, fov = float(reference.positions[0].norm()), float(reference.fov_y_deg[0])
    return orbit(even_azimuths(config.cameras.views, 360 * start), low + (high - low) * height, distance, fov)


def judged_views(scene: Scene, size: int) -> Tensor:
    """The eight renders [8, 3, S, S] of base color on white that the boundary judgement compares with the text."""
    return scene.view(orbit(even_azimuths(JUDGED), 15.0), size)[:, :3]


def sparse(opacity: Tensor, config: GenerateConfig) -> Tensor:
    """The entropy of opacity, weighted; 0 where it is off."""
    weight = config.stage.lambda_opacity
    return weight * opacity[0].numel() * opacity_entropy(opacity) if weight > 0 else opacity.new_zeros(())
