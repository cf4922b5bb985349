"""Every setting, as frozen dataclasses, and the presets by name."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from .schedules import Ramp
from .types import InputError

METHODS = ("isotropic3d", "consistent123", "hifi123", "zero123", "magic123", "realfusion-sds")


@dataclass(frozen=True)
class FieldConfig:
    """The radiance field: a grid encoding and two small MLPs.

    levels, base, growth, features, log2_table : of the grid encoding (Müller et al. 2022)
    hidden : width of the MLPs' one hidden layer
    blob_bias, blob_radius : density bias blob_bias * (1 - |x| / blob_radius) at the start (threestudio, Magic3D)
    """

    levels: int = 16
    base: int = 16
    growth: float = 1.447269237440378
    features: int = 2
    log2_table: int = 19
    hidden: int = 64
    blob_bias: float = 10.0
    blob_radius: float = 0.5


@dataclass(frozen=True)
class RenderConfig:
    """Volume rendering: ``samples`` a ray; occupancy grid of ``occupancy`` cells a side (0: none)."""

    samples: int = 512
    occupancy: int = 32
    occupancy_threshold: float = 0.01
    occupancy_decay: float = 0.6
    occupancy_every: int = 10


@dataclass(frozen=True)
class CameraConfig:
    """Random cameras of the optimisation: groups (`Stage.groups`) of ``views`` even azimuths, one elevation a group.

    elevation_deg, fov_y_deg : ranges, degrees
    fit_distance : range of factors; distance = factor / tan(fov / 2). None takes the bundle's own camera.
    """

    views: int = 4
    elevation_deg: tuple[float, float] = (0.0, 30.0)
    fov_y_deg: tuple[float, float] | None = None
    fit_distance: tuple[float, float] | None = None


@dataclass(frozen=True)
class LightConfig:
    """Shading while optimising (DreamFusion, section 3.2), from ``start`` (fraction of the steps) on.

    albedo_chance : of showing plain albedo; textureless_chance : of showing shading alone; otherwise diffuse
    jitter : standard deviation of the light's direction around the camera; 0 puts it at ``offset`` from the camera
    ambient : range; strength : of all the light, 0..1
    """

    start: float = 0.5
    albedo_chance: float = 0.25
    textureless_chance: float = 0.375
    jitter: float = 1.0
    offset: tuple[float, float, float] = (0.0, 0.0, 0.0)
    ambient: tuple[float, float] = (0.0, 1.0)
    strength: float = 1.0


@dataclass(frozen=True)
class Stage:
    """One call of `fit`.

    steps : optimiser steps; resolution : (step, pixels a side) milestones; groups : (step, groups of views) milestones
    learning_rate_grid, learning_rate_mlp : of AdamW; settle : the last fraction of the steps, over which they fall to
        zero
    t_min, t_max : range of the noise level, fractions of 1
    target : "x0" (reconstruction, with ``std_rescale``) or "sds" (plain, Eq. 7); guidance_scale : CFG
    lambda_orient : of the orientation loss (Eq. 8); lambda_opacity : of the opacity entropy
    quick_below : pixels a side under which renders go through the small encoder, where the bundle has one
    """

    steps: int = 10_000
    resolution: tuple[tuple[int, int], ...] = ((0, 64), (5_000, 256))
    groups: tuple[tuple[int, int], ...] = ((0, 1),)
    learning_rate_grid: float = 0.01
    learning_rate_mlp: float = 0.001
    settle: float = 0.0
    t_min: Ramp = Ramp(0.98, 0.02, 8_000)
    t_max: Ramp = Ramp(0.98, 0.50, 8_000)
    target: str = "x0"
    guidance_scale: float = 10.0
    std_rescale: float = 0.5
    lambda_orient: Ramp = Ramp(10.0, 1000.0, 5_000)
    lambda_opacity: float = 0.0
    quick_below: int = 128

    def __post_init__(self) -> None:
        if self.steps < 0:
            raise InputError(f"steps must not be negative, got {self.steps}")
        if self.target not in ("x0", "sds"):
            raise InputError(f"target must be x0 or sds, got {self.target!r}")
        for name in ("resolution", "groups"):
            if not getattr(self, name) or getattr(self, name)[0][0] != 0:
                raise InputError(f"{name} milestones must start at step 0")


@dataclass(frozen=True)
class WarmStart:
    """Photometric fit to sampled views before SDS.

    sheets : of ``views`` views each, at the given elevations in degrees
    together : sample all sheets as one group, whose views attend to each other; else each sheet alone
    sampling_steps, guidance_scale : of DDIM; draws : samples of each view, whose mean is taken
    steps : of the fit, ``rays`` random rays each; learning_rate_grid, learning_rate_mlp, settle : as of `Stage`
    hull_votes : fraction of the views whose masks a point must be in
    lambda_mask, lambda_opacity, lambda_solid : of the masks, the opacity's entropy, and of a sketched volume, where the
        bundle's prior has a sketch; surely_solid : of a sketched cell's likeliness, from which on no hull removes it
    tint : share of the way that the colors go in the end to those of the sketch, but for what is finer than its cells
    """

    sheets: int = 6
    views: int = 4
    elevation_deg: tuple[float, ...] = (0.0, 30.0, 15.0, -5.0, 38.0, 8.0)
    together: bool = True
    sampling_steps: int = 25
    draws: int = 1
    guidance_scale: float = 3.0
    steps: int = 200
    rays: int = 4096
    learning_rate_grid: float = 0.01
    learning_rate_mlp: float = 0.004
    settle: float = 0.0
    hull_votes: float = 0.8
    lambda_mask: float = 0.5
    lambda_opacity: float = 0.02
    lambda_solid: float = 0.0
    surely_solid: float = 0.5
    tint: float = 0.0


def check_seed(seed: int) -> None:
    """Raise InputError for a seed that the generators could not take; sampling multiplies it by a thousand."""
    if not 0 <= seed <= 2**53:
        raise InputError(f"the seed must be 0 to 2^53, got {seed}")


LOWEST_THRESHOLD = 0.05  # of density: a thin field's surface is sought down to here


@dataclass(frozen=True)
class MeshConfig:
    """resolution : of the isosurface grid; threshold : density; faces : after decimation; texture : pixels a side
    gap : hollows are filled whose ways outside are not wider than about twice as many cells of the grid; None: none is
    core : density of the surface, ``threshold`` then being how thin an end may get, of an object in the middle of the
        field (`mesh.extract.surface_density`); None: ``threshold`` everywhere
    """

    resolution: int = 128
    threshold: float = 25.0
    faces: int = 20_000
    texture: int = 1024
    keep_ratio: float = 0.02
    smooth: int = 5
    gap: int | None = 1
    core: float | None = None

    def __post_init__(self) -> None:
        if not 16 <= self.resolution <= 512:
            raise InputError(f"mesh resolution must be 16 to 512, got {self.resolution}")
        if not 16 <= self.texture <= 8192:
            raise InputError(f"texture size must be 16 to 8192, got {self.texture}")
        if self.faces < 100:
            raise InputError(f"faces must be at least 100, got {self.faces}")
        if self.gap is not None and self.gap < 0:
            raise InputError(f"the gap must not be negative, got {self.gap}")
        if self.core is not None and self.core <= self.threshold:
            raise InputError(f"the core must be denser than the threshold {self.threshold:g}, got {self.core:g}")


@dataclass(frozen=True)
class ReferenceWeights:
    """Of the reference's own view: rgb, mask, and depth, whose weight rises over the steps (Consistent123's code)."""

    rgb: float = 1000.0
    mask: float = 500.0
    depth: float = 10.0


@dataclass(frozen=True)
class GuidedConfig:
    """The methods that optimise after the reference's view with a 3D and a 2D prior.

    steps : in all; weights : fixed ones of the 3D and the 2D prior, None for Consistent123's boundary and ``dynamic``
    boundary : fractions of the steps before which the 3D prior is not joined, and at which it is at the latest
    judge_every, window, threshold : of the boundary judgement (Eq. 6)
    resolution, reference_resolution : pixels a side of the priors' views and of the reference's; None takes the
        stage's first
    reference_every : steps from one to the next that sees the reference's view
    t_3d, t_2d : ranges of the noise level; guidance_3d, guidance_2d : CFG scales
    elevation_deg : of the reference above the horizon; None asks the multi-view prior
    mesh_steps : of the mesh stage, on a tetrahedral grid of mesh_grid cells a side, 0 for none; mesh_resolution :
        pixels of its renders; mesh_t_2d : as t_2d; lambda_normal, lambda_laplacian : of its regularisers
    """

    steps: int = 5_000
    weights: tuple[float, float] | None = None
    dynamic: str = "exp"
    boundary: tuple[float, float] = (0.42, 0.7)
    judge_every: int = 20
    window: int = 5
    threshold: float = 0.00025
    resolution: int | None = None
    reference_resolution: int | None = None
    reference_every: int = 4
    reference: ReferenceWeights = ReferenceWeights()
    t_3d: tuple[float, float] = (0.02, 0.98)
    t_2d: tuple[float, float] = (0.2, 0.6)
    guidance_3d: float = 5.0
    guidance_2d: float = 10.0
    lambda_orient: float = 1.0
    elevation_deg: float | None = None
    mesh_steps: int = 5_000
    mesh_grid: int = 128
    mesh_resolution: int = 1024
    mesh_t_2d: tuple[float, float] = (0.2, 0.5)
    lambda_normal: float = 100.0
    lambda_laplacian: float = 100.0

    @property
    def takes_3d(self) -> bool:
        """Whether a 3D prior is asked at all."""
        return self.weights is None or self.weights[0] > 0

    @property
    def takes_2d(self) -> bool:
        """Whether a 2D text prior is."""
        return self.weights is None or self.weights[1] > 0

    def __post_init__(self) -> None:
        if self.steps < 1 or self.judge_every < 1 or self.window < 1 or self.reference_every < 2:
            raise InputError("steps, judge_every and window must be at least 1, and reference_every at least 2")
        if self.mesh_steps < 0:
            raise InputError(f"mesh_steps must not be negative, got {self.mesh_steps}")
        if not 0 <= self.boundary[0] <= self.boundary[1] <= 1:
            raise InputError(f"the boundary must be two rising fractions of the steps, got {self.boundary}")


@dataclass(frozen=True)
class GenerateConfig:
    """Everything `generate` needs but the image.

    guided : of every method but isotropic3d; prompt : what the image shows, for a 2D prior; None asks CLIP
    refine_steps : of HiFi-123's refine stage, where ``method`` is hifi123
    """

    preset: str = "default"
    bundle: str = "tiny"
    method: str = "isotropic3d"
    seed: int = 0
    device: str = "auto"
    field: FieldConfig = FieldConfig()
    render: RenderConfig = RenderConfig()
    cameras: CameraConfig = CameraConfig()
    light: LightConfig = LightConfig()
    warm_start: WarmStart | None = None
    stage: Stage = Stage()
    guided: GuidedConfig = GuidedConfig()
    prompt: str | None = None
    mesh: MeshConfig = MeshConfig()
    refine_steps: int = 60

    def __post_init__(self) -> None:
        check_seed(self.seed)
        if self.method not in METHODS:
            raise InputError(f"unknown method {self.method!r}; use one of {', '.join(METHODS)}")
        if self.method not in ("isotropic3d", "consistent123") and self.guided.weights is None:
            raise InputError(f"method {self.method} weighs its priors in a way of its own; use presets.with_method")

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return asdict(self)
