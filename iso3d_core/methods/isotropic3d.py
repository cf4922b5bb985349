"""Isotropic3D: a field from a single CLIP embedding, by score distillation of a multi-view prior (section 3.3)."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from ..cameras import Cameras, even_azimuths, orbit, project, rays
from ..config import CameraConfig, GenerateConfig, LightConfig, Stage, WarmStart
from ..fields.hashgrid import look_up
from ..fields.scene import Scene
from ..fit import Checkpoints, fit
from ..losses import color_error, distill, opacity_entropy, orientation_loss, sds_target, x0_target
from ..priors.base import LatentPrior
from ..priors.multiview import MultiViewPrior
from ..render.volume import Shading, render, trace
from ..schedules import milestone
from ..types import OnProgress, Progress
from .tint import tint

OnStep = Callable[[int, int, Tensor], None]


def parameter_groups(scene: Scene, rates: Stage | WarmStart) -> list[dict]:
    return scene.field.parameter_groups(rates.learning_rate_grid, rates.learning_rate_mlp)


def optimise(
    prior: MultiViewPrior,
    embedding: Tensor,
    config: GenerateConfig,
    on_progress: OnProgress | None = None,
    checkpoints: Checkpoints | None = None,
    start: Scene | None = None,
    given: tuple[Cameras, Tensor, Tensor] | None = None,
) -> Scene:
    """embedding [1, 1, D] -> an optimised scene: an optional warm start on sampled views, then SDS, and in the end the
    tint of a bundle with a sketch.

    start : a scene to go on from instead of the warm start; it is copied, not changed
    given : views to take for the warm start instead of sampling some, as `sample_sheets` returns them
    """
    scene = copy.deepcopy(start) if start is not None else Scene(config.field, config.render, config.seed)
    scene = scene.to(prior.device)
    share = 0.0 if config.warm_start is None else config.warm_start.tint
    # Colors of given views are as they should be.
    tinted = share > 0 and given is None and (start is None or start.field.tint is not None)
    scene.field.tint = None
    if config.warm_start is not None and start is None:
        given = given or sample_sheets(prior, embedding, config.warm_start, config.seed, on_progress)
        warm_start(scene, given, config, on_progress, checkpoints, prior.guess_solid(embedding))
    objective = sds_objective(scene, prior, embedding, config)
    fit(
        scene, parameter_groups(scene, config.stage), objective, config.stage.steps, config.seed, "optimise",
        on_progress, scene.preview, checkpoints, config.stage.settle,
    )  # fmt: skip
    colors = prior.guess_color(embedding) if tinted else None
    if colors is not None:
        tint(scene, colors, share)
    return scene


def warm_start(
    scene: Scene, given: tuple[Cameras, Tensor, Tensor], config: GenerateConfig, on_progress: OnProgress | None = None,
    checkpoints: Checkpoints | None = None, solid: Tensor | None = None,
) -> None:  # fmt: skip
    """Fit the scene to views, as `sample_sheets` returns them; solid : as `MultiViewPrior.guess_solid` gives it."""
    assert config.warm_start is not None
    fit(
        scene, parameter_groups(scene, config.warm_start), photometric_objective(scene, *given, config, solid),
        config.warm_start.steps, config.seed, "warm start", on_progress, scene.preview, checkpoints,
        config.warm_start.settle,
    )  # fmt: skip


def sheet_cameras(prior: LatentPrior, config: WarmStart) -> list[Cameras]:
    """Sheets of views, each one elevation and evenly spread azimuths, starts staggered."""
    sheets = []
    for sheet in range(config.sheets):
        start = sheet * 360.0 / (config.views * config.sheets)
        elevation = config.elevation_deg[sheet % len(config.elevation_deg)]
        sheets.append(bundle_orbit(prior, even_azimuths(config.views, start), elevation))
    return sheets


def sample_sheets(
    prior: MultiViewPrior, embedding: Tensor, config: WarmStart, seed: int, on_progress: OnProgress | None = None
) -> tuple[Cameras, Tensor, Tensor]:
    """`sheet_cameras` and what the prior imagines there.

    -> cameras, views [V, 3, H, W] on white and the object's masks [V, 1, H, W], in [0, 1]
    """
    sheets = sheet_cameras(prior, config)
    groups = [Cameras.concatenate(sheets)] if config.together else sheets

    def sample(cameras: Cameras, seed: int, report: OnStep) -> Tensor:
        return prior.sample_latents(embedding, cameras, config.sampling_steps, config.guidance_scale, seed, report)

    return mean_of_draws(prior, groups, sample, config, seed, on_progress)


def mean_of_draws(
    prior: LatentPrior, groups: list[Cameras], sample: Callable[[Cameras, int, OnStep], Tensor], config: WarmStart,
    seed: int, on_progress: OnProgress | None = None,
) -> tuple[Cameras, Tensor, Tensor]:  # fmt: skip
    """What ``sample`` (cameras, seed, on_step -> latents) makes of each group, the mean over ``config.draws`` samples:
    what they do not share is chance, and the field would have to find the mean of it anyway.

    -> all cameras, views [V, 3, H, W] and masks [V, 1, H, W]
    """
    total = config.draws * len(groups) * config.sampling_steps
    draws = []
    for draw in range(config.draws):
        latents: list[Tensor] = []
        for group in groups:
            number = draw * len(groups) + len(latents)

            def report(step: int, _steps: int, z: Tensor, number: int = number) -> None:
                if on_progress:
                    done = number * config.sampling_steps + step
                    on_progress(Progress("views", done, total, lambda: prior.decode(z[: config.views])))

            latents.append(sample(group, seed * 1000 + number, report))
        with torch.no_grad():
            draws.append(prior.decode_with_mask(torch.cat(latents)))
    views, masks = (torch.stack(drawn).mean(0) for drawn in zip(*draws, strict=True))
    return Cameras.concatenate(groups).to(prior.device), views, masks


def camera_of(info: dict[str, Any]) -> dict[str, Any]:
    """``distance`` and ``fov_y_deg`` of a bundle's cameras; HiFi-123's (section 4.1) where bundle.json says nothing."""
    return {"distance": 3.8, "fov_y_deg": 20.0, **info.get("camera", {})}


def bundle_orbit(prior: LatentPrior, azimuth_deg: Tensor, elevation_deg: float) -> Cameras:
    """An orbit at the distance and field of view the bundle was trained with."""
    camera = camera_of(prior.info)
    return orbit(azimuth_deg, elevation_deg, camera["distance"], camera["fov_y_deg"])


def photometric_objective(
    scene: Scene, cameras: Cameras, views: Tensor, mask: Tensor, config: GenerateConfig, solid: Tensor | None = None
) -> Callable:
    """`color_error` of random rays to the sampled views [V, 3, H, W], plus squared error to their masks [V, 1, H, W],
    plus the cross-entropy of random points to how likely they are solid [z, y, x], where that is known.

    Outside the views' visual hull, and outside what is surely solid, is forbidden ground: the field starts solid
    inside and is carved.
    """
    assert config.warm_start is not None
    warm = config.warm_start
    size = views.shape[-1]
    centers = scene.occupancy.centers()
    permitted = visual_hull(centers, cameras, mask, warm.hull_votes)
    if solid is not None and warm.lambda_solid > 0:
        permitted |= look_up(solid[None], centers)[:, 0] > warm.surely_solid
    scene.occupancy.forbid(~permitted)
    origins, directions = (r.reshape(-1, 3) for r in rays(cameras, size, size))
    colors = views.permute(0, 2, 3, 1).reshape(-1, 3)
    outlines = mask.reshape(-1, 1)
    shading = fixed_shading(cameras, config.light)

    def objective(step: int, generator: torch.Generator) -> tuple[Tensor, dict[str, float]]:
        if step % config.render.occupancy_every == 0:
            scene.occupancy.update(scene.field.density, generator)
        rows = torch.randint(len(colors), (warm.rays,), generator=generator).to(colors.device)
        lit = None if shading is None else replace(shading, light=shading.light[rows // size**2], fixed_normals=True)
        out = trace(
            scene.field, origins[rows], directions[rows], config.render.samples, scene.occupancy, generator, lit
        )
        color = color_error(out.rgb + (1 - out.opacity), out.opacity, colors[rows], outlines[rows], generator)
        outline = F.mse_loss(out.opacity, outlines[rows])
        loss = color + warm.lambda_mask * outline + warm.lambda_opacity * opacity_entropy(out.opacity)
        if solid is not None and warm.lambda_solid > 0:
            loss = loss + warm.lambda_solid * solid_entropy(scene, solid, generator)
        return loss, {"color": float(color.detach()), "samples": float(len(out.weights))}

    return objective


def solid_entropy(scene: Scene, solid: Tensor, generator: torch.Generator, points: int = 8192) -> Tensor:
    """Cross-entropy between how likely random points are solid [z, y, x] and what the field makes of them, its opacity
    over one of those cells."""
    place = torch.rand(points, 3, generator=generator).to(solid) * 2 - 1
    place = place[scene.occupancy.permits(place)]
    wanted = look_up(solid[None], place)[:, 0].clamp(0, 1)  # interpolation may round beyond
    thickness = scene.field.density(place) * (2 / len(solid))
    empty = torch.exp(-thickness).clamp(1e-4, 1 - 1e-4)
    return F.binary_cross_entropy(1 - empty, wanted)


def visual_hull(points: Tensor, cameras: Cameras, mask: Tensor, votes: float) -> Tensor:
    """Which points [N, 3] fall on the masks [V, 1, H, W] (grown by two pixels) of at least ``votes`` of the views."""
    grown = F.max_pool2d(mask, 5, stride=1, padding=2)
    inside = torch.zeros(len(points), device=points.device)
    for view in range(len(cameras)):
        pixels = project(points, cameras[view])  # [N, 2] in [-1, 1]
        seen = F.grid_sample(grown[view : view + 1], pixels[None, None], mode="nearest", align_corners=False)
        inside += (seen[0, 0, 0] > 0.3).float()
    return inside >= votes * len(cameras) - 1e-6


def sds_objective(scene: Scene, prior: MultiViewPrior, embedding: Tensor, config: GenerateConfig) -> Callable:
    """Eq. 9: distillation of the multi-view prior plus the orientation loss, on random groups of orthogonal views."""
    stage = config.stage

    def objective(step: int, generator: torch.Generator) -> tuple[Tensor, dict[str, float]]:
        if step % config.render.occupancy_every == 0:
            scene.occupancy.update(scene.field.density, generator)
        size = milestone(stage.resolution, step)
        groups = [random_group(prior, config.cameras, generator) for _ in range(milestone(stage.groups, step))]
        cameras = Cameras.concatenate(groups).to(prior.device)
        shading = random_shading(cameras, config.light, step / max(stage.steps, 1), generator)
        lambda_orient = stage.lambda_orient(step)
        out = render(
            scene.field,
            cameras,
            size,
            config.render.samples,
            scene.occupancy,
            generator,
            shading,
            normals=lambda_orient > 0,
        )
        z = prior.encode(out.rgb, quick=size < stage.quick_below)
        low, high = sorted((stage.t_min(step), stage.t_max(step)))
        last = prior.scheduler.config.num_train_timesteps - 1
        t = round((low + (high - low) * float(torch.rand((), generator=generator))) * last)
        target = torch.cat([
            distillation_target(part, t, prior, embedding, group, config, generator)
            for part, group in zip(z.detach().split(config.cameras.views), groups, strict=True)
        ])  # fmt: skip
        loss = distill(z, target)
        values = {"distill": float(loss.detach()), "t": t}
        if out.normals is not None and out.normal_rows is not None:
            hit = int((out.opacity > 0.01).sum())
            directions = F.normalize(out.positions - cameras.positions[out.rays // size**2], dim=-1)
            orient = orientation_loss(out.weights[out.normal_rows], out.normals, directions[out.normal_rows], hit)
            loss = loss + lambda_orient * orient
            values["orient"] = float(orient.detach())
        if stage.lambda_opacity > 0:
            # Per view and pixel of the latent, so that the weight means the same at every resolution.
            loss = loss + stage.lambda_opacity * z[0, 0].numel() * opacity_entropy(out.opacity)
        return loss, values

    return objective


def distillation_target(
    z: Tensor, t: int, prior: MultiViewPrior, embedding: Tensor, cameras: Cameras, config: GenerateConfig,
    generator: torch.Generator,
) -> Tensor:  # fmt: skip
    """The latent [V, C, h, w] that one group of views should move to, at timestep ``t``."""
    stage = config.stage
    abar = prior.alphas_cumprod[t]
    noise = torch.randn(z.shape, generator=generator).to(z)
    z_t = abar.sqrt() * z + (1 - abar).sqrt() * noise
    guided, conditional = prior.predict_noise(z_t, t, prior.condition(embedding, cameras), stage.guidance_scale)
    if stage.target == "sds":
        return sds_target(z, noise, guided, weight=1.0)
    return x0_target(z_t, guided, conditional, abar, stage.std_rescale)


def random_group(prior: MultiViewPrior, config: CameraConfig, generator: torch.Generator) -> Cameras:
    """One group: a random elevation, fov and distance, evenly spread azimuths from a random start."""

    def uniform(low: float, high: float) -> float:
        return low + (high - low) * float(torch.rand((), generator=generator))

    azimuths = even_azimuths(config.views, uniform(0.0, 360.0))
    elevation = uniform(*config.elevation_deg)
    if config.fov_y_deg is None or config.fit_distance is None:
        return bundle_orbit(prior, azimuths, elevation)
    fov = uniform(*config.fov_y_deg)
    distance = uniform(*config.fit_distance) / torch.tan(torch.deg2rad(torch.tensor(fov / 2)))
    return orbit(azimuths, elevation, distance, fov)


def fixed_shading(cameras: Cameras, config: LightConfig) -> Shading | None:
    """The light of the training renders where it is one fixed light (jitter 0), else none."""
    if config.jitter > 0 or config.ambient[0] >= 1:
        return None
    offset = torch.tensor(config.offset).to(cameras.positions)
    return Shading(cameras.positions + offset, config.ambient[0], strength=config.strength)


def random_shading(
    cameras: Cameras, config: LightConfig, progress: float, generator: torch.Generator
) -> Shading | None:
    """Plain base color, textureless or diffuse shading by the config's chances; None means base color."""
    kind, ambient, distance = (float(x) for x in torch.rand(3, generator=generator))
    if progress < config.start or kind < config.albedo_chance:
        return None
    if config.jitter == 0:
        return fixed_shading(cameras, config)
    direction = cameras.positions + config.jitter * torch.randn(cameras.positions.shape, generator=generator).to(
        cameras.positions
    )
    light = F.normalize(direction, dim=-1) * (0.8 + 0.7 * distance)
    low, high = config.ambient
    textureless = kind < config.albedo_chance + config.textureless_chance
    return Shading(light, low + (high - low) * ambient, textureless, strength=config.strength)
