"""The methods with a 3D and a 2D prior, from the image on: which networks a method takes, what they are told of each
view, and the optimisation with them."""

from __future__ import annotations

import copy
import logging
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from ..cameras import Cameras, orbit
from ..config import GenerateConfig
from ..fields.scene import Scene
from ..fit import Checkpoints
from ..priors.captioner import caption
from ..priors.multiview import MultiViewPrior
from ..priors.photo_depth import estimate_depth
from ..priors.text import TextCondition, TextPrior
from ..priors.words import ClipPair, Description
from ..priors.zero123 import Zero123Prior
from ..types import InputError, OnProgress, Reference
from ..weights import find_bundle
from . import consistent123, isotropic3d
from .consistent123 import Guide, Guided
from .mesh_stage import MeshWork, optimise_mesh
from .reference import ReferenceView, reference_view

log = logging.getLogger("iso3d")


def optimise(
    reference: Reference,
    config: GenerateConfig,
    multiview: MultiViewPrior | None = None,
    on_progress: OnProgress | None = None,
    checkpoints: Checkpoints | None = None,
    start: Scene | None = None,
    given: tuple[Cameras, Tensor, Tensor] | None = None,
) -> tuple[Guided, MeshWork | None, str]:
    """A field after the reference by the method of ``config``, its surface from the mesh stage where the method has
    one, and the words for it that were used.

    multiview : the bundle's multi-view prior, where it has one: it says how the reference's camera stands, gives the
        warm start where the method wants it, and stands in for a missing Zero-1-to-3 prior
    start, given : as of `isotropic3d.optimise`
    Raises InputError where the bundle lacks what the method needs.
    """
    embedding = None if multiview is None else multiview.embed(reference)
    view, elevation = reference_camera(config, multiview, embedding, reference)
    words, similarity = describe(config, reference) if config.guided.takes_2d else (None, None)
    first = guide_3d(config, multiview, embedding, reference, elevation) if config.guided.takes_3d else None
    second = guide_2d(config, words) if words is not None else None
    solid = None if multiview is None or embedding is None else multiview.guess_solid(embedding)
    scene = copy.deepcopy(start) if start else warm(first, view, config, on_progress, checkpoints, given, solid)
    done = consistent123.optimise(first, second, view, similarity, config, on_progress, checkpoints, scene)
    mesh = None
    if config.guided.mesh_steps:
        mesh = optimise_mesh(done.scene, first, second, view, config, done.boundary, on_progress, checkpoints)
    return done, mesh, words.text if words else ""


def warm(
    guide: Guide | None, view: ReferenceView, config: GenerateConfig, on_progress: OnProgress | None = None,
    checkpoints: Checkpoints | None = None, given: tuple[Cameras, Tensor, Tensor] | None = None,
    solid: Tensor | None = None,
) -> Scene | None:  # fmt: skip
    """A scene fitted to the reference's view and those given, else those that the 3D prior samples; None where the
    settings want no warm start, or there is nothing to fit to.

    solid : as `MultiViewPrior.guess_solid` gives it
    """
    if config.warm_start is None:
        return None
    if given is None and guide is not None and guide.views is not None:
        given = guide.views(config, on_progress)
    if given is None:
        return None
    scene = Scene(config.field, config.render, config.seed).to(given[1].device)
    isotropic3d.warm_start(scene, together(given, view), config, on_progress, checkpoints, solid)
    return scene


def together(given: tuple[Cameras, Tensor, Tensor], view: ReferenceView) -> tuple[Cameras, Tensor, Tensor]:
    """Sampled views with the reference's own, as often as a tenth of them."""
    cameras, views, masks = given
    again = max(1, len(views) // 10)
    size = views.shape[-1]
    rgb, mask = (F.interpolate(x, (size, size), mode="area").to(views) for x in (view.rgb, view.mask))
    return (
        Cameras.concatenate([cameras, *[view.camera.to(cameras.cam_to_world.device)] * again]),
        torch.cat([views, *[rgb] * again]),
        torch.cat([masks, *[mask] * again]),
    )


def guide_3d(
    config: GenerateConfig, multiview: MultiViewPrior | None, embedding: Tensor | None, reference: Reference,
    elevation_deg: float,
) -> Guide:  # fmt: skip
    """Zero-1-to-3, or where the bundle lacks it the multi-view prior. Raises InputError where it has neither."""
    bundle, scale = find_bundle(config.bundle), config.guided.guidance_3d
    if bundle.has("zero123"):
        zero123 = Zero123Prior.load(bundle, config.device)
        source = zero123.see(reference, elevation_deg)

        def views(config: GenerateConfig, on_progress: OnProgress | None) -> tuple[Cameras, Tensor, Tensor]:
            warm = config.warm_start
            assert warm is not None

            def sample(cameras: Cameras, seed: int, report: isotropic3d.OnStep) -> Tensor:
                return zero123.sample_latents(source, cameras, warm.sampling_steps, None, seed, report)

            group = [Cameras.concatenate(isotropic3d.sheet_cameras(zero123, warm))]
            return isotropic3d.mean_of_draws(zero123, group, sample, warm, config.seed, on_progress)

        return Guide(
            zero123, lambda z, t, cameras: zero123.predict_noise(z, t, zero123.condition(source, cameras), scale),
            True, views,
        )  # fmt: skip
    if multiview is None or embedding is None:
        raise InputError(f"bundle {config.bundle!r} has neither a Zero-1-to-3 nor a multi-view prior")
    log.warning("bundle %s has no Zero-1-to-3 prior; its multi-view prior stands in", bundle.name)

    def sheets(config: GenerateConfig, on_progress: OnProgress | None) -> tuple[Cameras, Tensor, Tensor]:
        assert config.warm_start is not None
        return isotropic3d.sample_sheets(multiview, embedding, config.warm_start, config.seed, on_progress)

    return Guide(
        multiview,
        lambda z, t, cameras: multiview.predict_noise(z, t, multiview.condition(embedding, cameras), scale)[0],
        views=sheets,
    )


def guide_2d(config: GenerateConfig, description: Description) -> Guide:
    """The 2D text prior of the bundle, or of the bundle sd-text, told what each view shows."""
    bundle = find_bundle(config.bundle)
    prior = TextPrior.load(bundle if bundle.has("text2d", "depth") else "sd-text", config.device)
    known = {"": prior.text([""])}

    def predict(z: Tensor, t: int, cameras: Cameras) -> Tensor:
        x, y, height = torch.nn.functional.normalize(cameras.positions, dim=-1).unbind(-1)
        azimuth, elevation = torch.rad2deg(torch.atan2(y, x)), torch.rad2deg(torch.asin(height))
        prompts = [description.seen_from(a, e) for a, e in zip(azimuth.tolist(), elevation.tolist(), strict=True)]
        known.update({prompt: prior.text([prompt]) for prompt in prompts if prompt not in known})
        condition = TextCondition(torch.cat([known[prompt] for prompt in prompts]), known[""])
        return prior.predict_noise(z, t, condition, config.guided.guidance_2d)

    return Guide(prior, predict)


def reference_camera(
    config: GenerateConfig, multiview: MultiViewPrior | None, embedding: Tensor | None, reference: Reference
) -> tuple[ReferenceView, float]:
    """What the reference's camera has to see, and its elevation in degrees."""
    camera = isotropic3d.camera_of(find_bundle(config.bundle).info)
    size = config.guided.reference_resolution or config.stage.resolution[0][1]
    guess = None if multiview is None or embedding is None else multiview.guess_reference(reference, embedding, size)
    elevation = config.guided.elevation_deg
    if elevation is None:
        elevation = guess[0] if guess else 0.0
    place = orbit(0.0, elevation, camera["distance"], camera["fov_y_deg"])
    near = estimate_depth(reference)
    return reference_view(reference, place, size, guess[1] if guess else None, near), elevation


def describe(config: GenerateConfig, reference: Reference) -> tuple[Description, Callable[[Tensor], float]]:
    """The words of the 2D prior, and how similar renders [V, 3, S, S] are to them."""
    pair = ClipPair.load(config.bundle)
    description = pair.describe(reference)
    text = config.prompt
    # The embedded bundle's text tower would not know most of a captioner's words.
    if text is None and pair.words is None:
        text = caption(reference)
    if text is not None:
        description = Description(text, description.front_deg, description.captions)
    return description, lambda views: pair.similarity(views.cpu(), description.text)
