"""HiFi-123's refine stage: a reference's texture distilled into a surface that stays as it is (RGSD, section 3.2).

    mesh -> texture field -> render -> RGSD (fixed views, random views) + the reference's own view -> baked texture

RGSD has no public code; this is its derivation. SDS moves a render's latent z towards what the prior makes of it at
some noise: 0.5 ||z - stopgrad(target)||^2 / B, the target being one denoising of z with *random* noise, whose details
change from step to step and average to a blur. RGSD takes the target of RGNV instead, whose noise is the *inversion*
of z and whose attention reads the reference, so that every step asks for the same details, the reference's.

- A fixed view (odd steps): the target is RGNV's clean latent z0^, computed once.  0.5 ||z - z0^||^2 / B
- A random view (even steps): z is inverted t_s steps and denoised with injection to a random level t, which gives
  z^_t and the noise e^ predicted there. The render's own latent at that level is
  z~_t = sqrt(abar_t) z + sqrt(1 - abar_t) e^, and 0.5 ||z~_t - stopgrad(z^_t)||^2 / B pulls it there. Its gradient
  reaches z scaled by sqrt(abar_t): noisy levels count less. With e^ in both, the difference is
  sqrt(abar_t) (z - x0^_t), so this too is distillation to a clean latent.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from .. import rgnv
from ..cameras import Cameras, even_azimuths, orbit
from ..config import FieldConfig, check_seed
from ..fields.texture import TextureField
from ..fit import Checkpoints, fit
from ..losses import distill, sds_target
from ..mesh.placing import fit_into_ball
from ..mesh.texture import bake, check_layout, unwrap
from ..near import nearness, under
from ..overlay import laid_over
from ..priors.depth import DepthCondition, DepthPrior
from ..priors.guess import ELEVATIONS
from ..priors.photo_depth import estimate_depth
from ..render.surface import Seen, Surface
from ..render.volume import Shading
from ..types import InputError, Mesh, OnProgress, Progress, Reference
from ..version import own_version

MARGIN = 0.1  # of a `Reference`


@dataclass(frozen=True)
class RefineConfig:
    """steps : of the refinement; start_steps : before, the field learns the mesh's own colors
    target : "rgsd", or "sds" for plain score distillation of the same prior
    ddim_steps, strength : of inversion, and what fraction of it (t_s); None takes the bundle's own, as RGNV does
    corrections : of each step of inversion, as `rgnv.invert_latents` takes them: its error adds up over the steps here
    views : random ones a step, evenly around; elevation_deg : their range; fixed : azimuths of the fixed views
    prompt : a description, which the prior then follows with classifier-free guidance
    guidance_scale : of that; None takes the bundle's own
    lambda_reference : of the squared error of the reference's own view
    reference_elevation_deg : of the reference above the horizon; None takes where the outline fits best
    texture : pixels a side; a larger texture that the mesh has keeps its size
    unwrap : make new UVs even where the mesh has some
    """

    steps: int = 40
    start_steps: int = 120
    target: str = "rgsd"
    ddim_steps: int | None = None
    strength: float | None = None
    corrections: int = 1
    views: int = 4
    elevation_deg: tuple[float, float] = (-5.0, 35.0)
    fixed: tuple[float, ...] = (120.0, 240.0)
    prompt: str = ""
    guidance_scale: float | None = None
    lambda_reference: float = 6000.0
    reference_elevation_deg: float | None = None
    learning_rate_grid: float = 0.01
    learning_rate_mlp: float = 0.004
    texture: int = 1024
    unwrap: bool = False
    seed: int = 0
    field: FieldConfig = FieldConfig(4, base=16, growth=1.7, features=4, log2_table=19, hidden=32)

    def __post_init__(self) -> None:
        if self.target not in ("rgsd", "sds"):
            raise InputError(f"target must be rgsd or sds, got {self.target!r}")
        check_seed(self.seed)
        if self.reference_elevation_deg is not None and abs(self.reference_elevation_deg) > 85:
            raise InputError(f"the reference's elevation must be -85 to 85 degrees, got {self.reference_elevation_deg}")
        if self.steps < 0 or self.corrections < 0 or self.start_steps < 1 or self.views < 1:
            raise InputError("steps and corrections must not be negative, and start_steps and views at least 1")
        if not 16 <= self.texture <= 8192:
            raise InputError(f"texture size must be 16 to 8192, got {self.texture}")


def refine(
    mesh: Mesh,
    reference: Reference,
    prior: DepthPrior,
    config: RefineConfig = RefineConfig(),
    on_progress: OnProgress | None = None,
    checkpoints: Checkpoints | None = None,
) -> Mesh:
    """The same mesh with the reference's texture; vertices, faces and UVs (where it has some) stay as they are.

    mesh : in the world frame, the reference showing it from +X
    Raises InputError where the UVs cannot hold a texture. Lets `Cancelled` from ``on_progress`` through.
    """
    if mesh.uvs is not None and not config.unwrap:
        check_layout(mesh)
    placed = fit_into_ball(mesh)
    surface = Surface(placed)
    field = TextureField(config.field, config.seed).to(prior.device)

    def run(objective: Callable, steps: int, stage: str) -> None:
        groups = field.parameter_groups(config.learning_rate_grid, config.learning_rate_mlp)
        preview = lambda: preview_views(prior, surface, field)  # noqa: E731
        fit(field, groups, objective, steps, config.seed, stage, on_progress, preview, checkpoints)

    run(own_colors(prior, surface, field), config.start_steps, "start")
    if config.steps:
        # The targets before the first step, and with a large prior each step, take long: somebody may want to stop.
        def listen(step: int) -> None:
            if on_progress:
                on_progress(Progress("refine", step, config.steps))

        run(refine_objective(prior, surface, field, reference, config, listen), config.steps, "refine")

    if mesh.uvs is None or config.unwrap:
        vertices, faces, normals, uvs = unwrap(mesh.vertices, mesh.faces, mesh.normals, config.texture)
        mesh = replace(mesh, vertices=vertices, faces=faces, normals=normals, uvs=uvs, texture=None)
        placed = fit_into_ball(mesh)
    size = config.texture if mesh.texture is None else max(config.texture, *mesh.texture.shape[:2])
    with torch.no_grad():
        color = lambda points: field(points.to(prior.device)).cpu()  # noqa: E731
        assert mesh.uvs is not None
        texture = bake(placed.vertices, placed.faces, mesh.uvs, color, size)
    return replace(mesh, texture=texture, vertex_colors=None)


def work_key(mesh: Mesh, reference: Reference, prior: DepthPrior, config: RefineConfig) -> str:
    """Names one piece of work, for its checkpoints: equal for the same mesh, image, bundle, settings and version."""
    digest = hashlib.sha256(repr((config, prior.info["name"], own_version(), "refine 2")).encode())
    for array in (mesh.vertices, mesh.faces, mesh.texture, mesh.vertex_colors, reference.rgba.numpy()):
        if array is not None:
            digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


def own_colors(prior: DepthPrior, surface: Surface, field: TextureField) -> Callable:
    """The start: the field takes the colors that the mesh has."""
    cameras = Cameras.concatenate([look(prior, even_azimuths(6, 15.0 * i), e) for i, e in enumerate((0, 40, -40))])
    seen = surface.see(cameras, prior.info["image_size"])

    def objective(_step: int, generator: torch.Generator) -> tuple[Tensor, dict[str, float]]:
        rows = torch.randint(len(seen.points), (8192,), generator=generator)
        error = F.mse_loss(field(seen.points[rows].to(prior.device)), seen.color[rows].to(prior.device))
        return error, {"color": float(error.detach())}

    return objective


def refine_objective(
    prior: DepthPrior, surface: Surface, field: TextureField, reference: Reference, config: RefineConfig,
    listen: Callable[[int], None] = lambda _step: None,
) -> Callable:  # fmt: skip
    """RGSD's alternation (Algorithm 1), or plain SDS, plus the reference's own view.

    listen : called with the number of the step now and then while one works; it may raise to stop
    """
    at = 0
    hear = lambda _step, _steps: listen(at)  # noqa: E731
    size = prior.info["image_size"]
    steps, until = rgnv.schedule(prior, config.ddim_steps, config.strength)
    prompts = ("", config.prompt) if config.prompt else ("",)
    texts, scale = prior.text(list(prompts)), rgnv.guidance(prior, config.guidance_scale)
    own, own_light, own_view, solid = reference_view(prior, surface, reference, config.reference_elevation_deg)
    near = estimate_depth(reference)
    if near is None:  # the mesh is at hand, which shows it as well
        near = under(reference.rgba[None, 3:].float(), nearness(own.depth, own.mask))
    memory = rgnv.remember(
        prior, reference, near, config.ddim_steps, config.strength, config.prompt, hear, config.corrections
    )
    levels = rgnv.noise_levels(prior, steps)

    def shown(seen: Seen, shading: Shading | None) -> Tensor:
        return seen.image(field(seen.points.to(prior.device)).cpu(), shading).to(prior.device)

    def told_of(seen: Seen) -> DepthCondition:
        return DepthCondition(prior.depth_map(nearness(seen.depth, seen.mask)), texts)

    def rgnv_of(z: Tensor, seen: Seen, to: int) -> tuple[Tensor, Tensor]:
        told = told_of(seen)
        plain = replace(told, text=texts[:1])
        noisy = rgnv.invert_latents(prior, z.detach(), plain, steps, until, hear, config.corrections)[-1]
        return rgnv.denoise(prior, noisy, told, steps, until, scale, memory, hear, to)

    fixed_cameras = look(prior, torch.tensor(config.fixed), 15.0)
    fixed, fixed_light = surface.see(fixed_cameras, size), bundle_light(prior, fixed_cameras)
    with torch.no_grad():
        targets, _ = rgnv_of(prior.encode(shown(fixed, fixed_light)), fixed, 0)

    def objective(step: int, generator: torch.Generator) -> tuple[Tensor, dict[str, float]]:
        nonlocal at
        at = step
        draw = torch.rand(3, generator=generator).tolist()
        if config.target == "rgsd" and step % 2 == 0:
            loss = distill(prior.encode(shown(fixed, fixed_light)), targets)
        else:
            low, high = config.elevation_deg
            cameras = look(prior, even_azimuths(config.views, 360 * draw[0]), low + (high - low) * draw[1])
            seen = surface.see(cameras, size)
            z = prior.encode(shown(seen, bundle_light(prior, cameras)))
            if config.target == "rgsd":
                level = int(draw[2] * until)
                target, noise = rgnv_of(z, seen, level)
                loss = distill(levels[level].sqrt() * z + (1 - levels[level]).sqrt() * noise, target)
            else:
                level = 0.02 + 0.96 * draw[2]
                loss = distill(z, plain_target(prior, z.detach(), told_of(seen), scale, level, generator))
        picture = F.mse_loss(shown(own, own_light) * solid, own_view * solid)
        total = loss + config.lambda_reference * picture
        return total, {"distill": float(loss.detach()), "reference": float(picture.detach())}

    return objective


def plain_target(
    prior: DepthPrior, z: Tensor, condition: DepthCondition, scale: float, level: float, generator: torch.Generator
) -> Tensor:
    """SDS (DreamFusion, Eq. 3) of the same prior at a noise level in 0..1, with weight 1 - abar."""
    t = round(level * (len(prior.alphas_cumprod) - 1))
    abar = prior.alphas_cumprod[t]
    noise = torch.randn(z.shape, generator=generator).to(z)
    predicted = prior.predict_noise(abar.sqrt() * z + (1 - abar).sqrt() * noise, t, condition, scale)
    return sds_target(z, noise, predicted, float(1 - abar))


def look(prior: DepthPrior, azimuth_deg: Tensor, elevation_deg: float) -> Cameras:
    camera = prior.info.get("camera", {"distance": 3.4, "fov_y_deg": 35.0})
    return orbit(azimuth_deg, float(elevation_deg), camera["distance"], camera["fov_y_deg"])


def bundle_light(prior: DepthPrior, cameras: Cameras) -> Shading | None:
    """The light of the bundle's training renders; None where it says of none."""
    light = prior.info.get("light")
    if light is None:
        return None
    return Shading(cameras.positions + torch.tensor(light["offset"]), light["ambient"], strength=light["strength"])


def reference_view(
    prior: DepthPrior, surface: Surface, reference: Reference, elevation_deg: float | None
) -> tuple[Seen, Shading | None, Tensor, Tensor]:
    """What the reference's camera sees, its light, the reference [1, 3, S, S] laid over the surface's outline, and
    where [1, 1, S, S] both are the object and not its edge."""
    size, alpha, best = prior.info["image_size"], reference.rgba[None, 3:], (-1.0, 0.0)
    if elevation_deg is None:
        for elevation in ELEVATIONS:
            mask = surface.see(look(prior, torch.zeros(1), elevation), size).mask
            found, solid = laid_over(mask, alpha, alpha) > 0.5, mask > 0.5
            overlap = float((found & solid).sum() / (found | solid).sum().clamp(min=1))
            best = max(best, (overlap, float(elevation)))
        elevation_deg = best[1]
    camera = look(prior, torch.zeros(1), elevation_deg)
    seen = surface.see(camera, size)
    view = laid_over(seen.mask, reference.on_white()[None], alpha, 1.0)
    both = seen.mask * laid_over(seen.mask, alpha, alpha)
    inner = -F.max_pool2d(-both, 3, stride=1, padding=1) > 0.9
    return seen, bundle_light(prior, camera), view.to(prior.device), inner.float().to(prior.device)


@torch.no_grad()
def preview_views(prior: DepthPrior, surface: Surface, field: TextureField) -> Tensor:
    """Four views [4, 3, S, S] of base color, for people."""
    seen = surface.see(look(prior, even_azimuths(4), 15.0), prior.info["image_size"])
    return seen.image(field(seen.points.to(prior.device)).cpu())
