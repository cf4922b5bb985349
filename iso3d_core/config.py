"""Every setting, as frozen dataclasses, and the presets by name."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from .schedules import Ramp
from .types import InputError

METHODS = ("isotropic3d", "hifi123")


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
    """Random cameras of the optimisation: groups of ``views`` even azimuths, one elevation a group.

    elevation_deg, fov_y_deg : ranges, degrees
    fit_distance : range of factors; distance = factor / tan(fov / 2). None takes the bundle's own camera.
    """

    views: int = 4
    groups: int = 1
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

    steps : optimiser steps; resolution : (step, pixels a side) milestones
    learning_rate_grid, learning_rate_mlp : of AdamW; t_min, t_max : range of the noise level, fractions of 1
    target : "x0" (reconstruction, with ``std_rescale``) or "sds" (plain, Eq. 7); guidance_scale : CFG
    lambda_orient : of the orientation loss (Eq. 8); lambda_opacity : of the opacity entropy
    quick_below : pixels a side under which renders go through the small encoder, where the bundle has one
    """

    steps: int = 10_000
    resolution: tuple[tuple[int, int], ...] = ((0, 64), (5_000, 256))
    learning_rate_grid: float = 0.01
    learning_rate_mlp: float = 0.001
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
        if not self.resolution or self.resolution[0][0] != 0:
            raise InputError("resolution milestones must start at step 0")


@dataclass(frozen=True)
class WarmStart:
    """Photometric fit to sampled views before SDS.

    sheets : of ``views`` views each, at the given elevations in degrees
    together : sample all sheets as one group, whose views attend to each other; else each sheet alone
    sampling_steps, guidance_scale : of DDIM
    steps : of the fit, ``rays`` random rays each; learning_rate_grid, learning_rate_mlp : of AdamW
    hull_votes : fraction of the views whose masks a point must be in
    """

    sheets: int = 6
    views: int = 4
    elevation_deg: tuple[float, ...] = (0.0, 30.0, 15.0, -5.0, 38.0, 8.0)
    together: bool = True
    sampling_steps: int = 25
    guidance_scale: float = 3.0
    steps: int = 200
    rays: int = 4096
    learning_rate_grid: float = 0.01
    learning_rate_mlp: float = 0.004
    hull_votes: float = 0.8
    lambda_mask: float = 0.5
    lambda_opacity: float = 0.02


@dataclass(frozen=True)
class MeshConfig:
    """resolution : of the isosurface grid; threshold : density; faces : after decimation; texture : pixels a side."""

    resolution: int = 128
    threshold: float = 25.0
    faces: int = 20_000
    texture: int = 1024
    keep_ratio: float = 0.02
    smooth: int = 5

    def __post_init__(self) -> None:
        if not 16 <= self.resolution <= 512:
            raise InputError(f"mesh resolution must be 16 to 512, got {self.resolution}")
        if not 16 <= self.texture <= 8192:
            raise InputError(f"texture size must be 16 to 8192, got {self.texture}")
        if self.faces < 100:
            raise InputError(f"faces must be at least 100, got {self.faces}")


@dataclass(frozen=True)
class GenerateConfig:
    """Everything `generate` needs but the image.

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
    mesh: MeshConfig = MeshConfig()
    refine_steps: int = 60

    def __post_init__(self) -> None:
        if self.method not in METHODS:
            raise InputError(f"unknown method {self.method!r}; use one of {', '.join(METHODS)}")

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return asdict(self)


_PAPER = GenerateConfig(preset="paper", cameras=CameraConfig(groups=2, fov_y_deg=(15.0, 60.0), fit_distance=(0.8, 1.0)))

# The embedded bundle: dense levels only (fast on a CPU), the bundle's own camera and light, 64 px.
_TINY = GenerateConfig(
    field=FieldConfig(3, base=16, growth=2.0, features=4, log2_table=18, hidden=32, blob_bias=10.0, blob_radius=1.0),
    render=RenderConfig(samples=48),
    cameras=CameraConfig(elevation_deg=(-5.0, 35.0)),
    light=LightConfig(0.0, 0.0, 0.0, jitter=0.0, offset=(0.0, 0.0, 1.5), ambient=(0.7, 0.7), strength=0.9),
    warm_start=WarmStart(),
    stage=Stage(
        steps=45, resolution=((0, 64),), learning_rate_mlp=0.004, t_min=Ramp(0.7, 0.1, 45), t_max=Ramp(0.85, 0.3, 45),
        guidance_scale=1.5, lambda_orient=Ramp(0.0, 1.0, 45), lambda_opacity=0.05,
    ),
    mesh=MeshConfig(resolution=96, threshold=4.0, faces=8_000, texture=512),
)  # fmt: skip

TINY_PRESETS: dict[str, GenerateConfig] = {
    "fast": replace(
        _TINY,
        preset="fast",
        warm_start=WarmStart(sheets=4, elevation_deg=(0.0, 30.0, 15.0, 38.0), steps=80, sampling_steps=15),
        stage=replace(_TINY.stage, steps=0),
        mesh=MeshConfig(resolution=80, threshold=4.0, faces=5_000, texture=384),
        refine_steps=24,
    ),
    "default": _TINY,
    "quality": replace(
        _TINY,
        preset="quality",
        warm_start=WarmStart(steps=300, sampling_steps=40),
        stage=replace(_TINY.stage, steps=400, t_min=Ramp(0.7, 0.05, 400), t_max=Ramp(0.85, 0.2, 400)),
        mesh=MeshConfig(resolution=128, threshold=4.0, faces=15_000, texture=1024),
        refine_steps=150,
    ),
    "paper": replace(
        _TINY,
        preset="paper",
        warm_start=None,
        stage=replace(
            _TINY.stage, steps=300, guidance_scale=5.0, t_min=Ramp(0.98, 0.02, 240), t_max=Ramp(0.98, 0.5, 240)
        ),
    ),
}

PRESETS: dict[str, dict[str, GenerateConfig]] = {
    "tiny": TINY_PRESETS,
    "isotropic3d": {
        "fast": replace(_PAPER, preset="fast", bundle="isotropic3d", stage=replace(_PAPER.stage, steps=2_000)),
        "default": replace(_PAPER, preset="default", bundle="isotropic3d", stage=replace(_PAPER.stage, steps=5_000)),
        "quality": replace(_PAPER, preset="quality", bundle="isotropic3d"),
        "paper": replace(_PAPER, bundle="isotropic3d"),
    },
}


@dataclass(frozen=True, kw_only=True)
class TrainOptions:
    """How a part of a bundle is trained; None leaves the part's own setting."""

    work: Path
    """Folder of data and checkpoints, outside any repository."""
    objects: int = 12_000
    """Objects rendered for training."""
    size: int = 64
    """Image side in pixels."""
    steps: int | None = None
    batch: int | None = None
    learning_rate: float | None = None
    start: str | None = None
    """A bundle's name or folder, from whose weights `clip` or `views --stage 1` go on where shapes agree."""
    compile: bool = False
    """Compile the networks: a third faster after some minutes; needs a C++ compiler."""
    stage: int = 1
    """Of `views`: 1, or 2 for Explicit Multi-view Attention."""
    out: Path | None = None
    """Of `bundle`: the folder to write."""


def preset(name: str, family: str = "tiny", seed: int = 0) -> GenerateConfig:
    """The preset ``name`` of a family of bundles, for the bundle of that name; `pipeline.configure` finds the family.

    Raises InputError for an unknown name.
    """
    presets = PRESETS.get(family, PRESETS["isotropic3d"])
    if name not in presets:
        raise InputError(f"unknown preset {name!r}; use one of {', '.join(presets)}")
    return replace(presets[name], bundle=family, seed=seed)


def customise(
    config: GenerateConfig,
    steps: int | None = None,
    resolution: int | None = None,
    guidance: float | None = None,
    warm_start: bool = True,
) -> GenerateConfig:
    """``config`` with other SDS steps, resolution in pixels and guidance scale, or without its warm start.

    The ramps over the steps are stretched with them. Raises InputError for a negative number of steps, or for
    neither a warm start nor any step.
    """
    stage = config.stage
    if steps is not None:
        factor = steps / (stage.steps or stage.t_max.until)
        ramps: dict[str, Any] = {
            name: replace(ramp, until=max(1, round(ramp.until * factor)))
            for name, ramp in vars(stage).items()
            if isinstance(ramp, Ramp)
        }
        stage = replace(stage, steps=steps, **ramps)
    if stage.steps == 0 and not warm_start:
        raise InputError(
            f"preset {config.preset!r} is a warm start alone; give it SDS steps, or leave the warm start on"
        )
    if resolution is not None:
        stage = replace(stage, resolution=((0, resolution),))
    if guidance is not None:
        stage = replace(stage, guidance_scale=guidance)
    return replace(config, stage=stage, warm_start=config.warm_start if warm_start else None)
