"""The presets by name, and variations of them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from .config import (
    CameraConfig,
    FieldConfig,
    GenerateConfig,
    GuidedConfig,
    LightConfig,
    MeshConfig,
    ReferenceWeights,
    RenderConfig,
    Stage,
    WarmStart,
)
from .schedules import Ramp
from .types import InputError

# What each method makes of it. Consistent123 finds its weights; Magic123 weighs both priors alike.
GUIDED: dict[str, dict[str, Any]] = {
    "consistent123": {"weights": None},
    "hifi123": {"weights": (1.0, 1.0), "mesh_steps": 0},  # its geometry is fixed once it is a mesh
    "zero123": {"weights": (1.0, 0.0)},
    "magic123": {"weights": (1.0, 1.0)},
    "realfusion-sds": {"weights": (0.0, 1.0)},
}


_PAPER = GenerateConfig(
    preset="paper", cameras=CameraConfig(fov_y_deg=(15.0, 60.0), fit_distance=(0.8, 1.0)),
    stage=Stage(groups=((0, 2), (5_000, 1))),  # half as many views once they are larger
    guided=GuidedConfig(resolution=128, reference_resolution=256), refine_steps=1_000,
)  # fmt: skip

# Few steps of DDIM, and the mean of three draws: nearer to the true views than one of many steps
# (benchmarks/sampling_steps.py).
TINY_WARM = WarmStart(sampling_steps=3, draws=3, guidance_scale=1.5, settle=0.5, lambda_solid=0.1, tint=1.0)

# The embedded bundle: dense levels only (fast on a CPU), the bundle's own camera and light, 64 px.
_TINY = GenerateConfig(
    field=FieldConfig(3, base=16, growth=2.0, features=4, log2_table=18, hidden=32, blob_bias=10.0, blob_radius=1.0),
    render=RenderConfig(samples=48),
    cameras=CameraConfig(elevation_deg=(-5.0, 35.0)),
    light=LightConfig(0.0, 0.0, 0.0, jitter=0.0, offset=(0.0, 0.0, 1.5), ambient=(0.7, 0.7), strength=0.9),
    warm_start=TINY_WARM,
    stage=Stage(
        steps=45, resolution=((0, 64),), learning_rate_mlp=0.004, settle=0.5,
        t_min=Ramp(0.7, 0.1, 45), t_max=Ramp(0.85, 0.3, 45), guidance_scale=1.5,
        lambda_orient=Ramp(0.0, 1.0, 45), lambda_opacity=0.05,
    ),
    guided=GuidedConfig(
        # Thirty judgements in all, each of 1/30 of the steps: eight times as much as the paper's 20 of 5,000, so that
        # the similarity changes by as much more from one to the next.
        steps=120, boundary=(0.25, 0.7), judge_every=4, threshold=0.004, t_3d=(0.1, 0.6), guidance_3d=3.0,
        guidance_2d=5.0, mesh_steps=40, mesh_grid=64, mesh_resolution=128,
        # At the paper's weights, every fourth step, the small priors outweigh the image: its pattern is lost, and its
        # colors turn to theirs, even where it is seen.
        reference=ReferenceWeights(rgb=30_000.0), reference_every=2,
    ),
    mesh=MeshConfig(resolution=96, threshold=4.0, core=6.0, faces=8_000, texture=512),
)  # fmt: skip


def from_a_ball(config: GenerateConfig) -> GenerateConfig:
    """``config`` without its warm start, which fills the inside: what no view sees must stay solid by itself, from a
    denser ball, and a skin counts that is half as dense."""
    if config.warm_start is None:
        return config
    field = replace(config.field, blob_bias=2 * config.field.blob_bias)
    mesh = replace(config.mesh, threshold=config.mesh.threshold / 2, core=None)
    return replace(config, warm_start=None, field=field, mesh=mesh)


TINY_PRESETS: dict[str, GenerateConfig] = {
    "fast": replace(
        _TINY,
        preset="fast",
        warm_start=replace(TINY_WARM, sheets=4, elevation_deg=(0.0, 30.0, 15.0, 38.0), steps=80, draws=1),
        stage=replace(_TINY.stage, steps=0),
        mesh=MeshConfig(resolution=80, threshold=4.0, core=6.0, faces=5_000, texture=384),
        guided=replace(_TINY.guided, steps=60, judge_every=2, mesh_steps=16, mesh_resolution=64),
        refine_steps=30,
    ),
    "default": _TINY,
    "quality": replace(
        _TINY,
        preset="quality",
        warm_start=replace(TINY_WARM, steps=300),
        stage=replace(_TINY.stage, steps=400, t_min=Ramp(0.7, 0.05, 400), t_max=Ramp(0.85, 0.2, 400)),
        mesh=MeshConfig(resolution=128, threshold=4.0, core=6.0, faces=15_000, texture=1024),
        guided=replace(_TINY.guided, steps=480, judge_every=16, mesh_steps=160),
        refine_steps=120,
    ),
    "paper": replace(
        from_a_ball(_TINY),
        preset="paper",
        stage=replace(
            _TINY.stage,
            steps=300,
            resolution=((0, 32), (210, 64)),
            guidance_scale=2.0,
            t_min=Ramp(0.98, 0.02, 240),
            t_max=Ramp(0.98, 0.5, 240),
        ),
        guided=replace(_TINY.guided, resolution=64, reference_resolution=64),  # not the stage's first
    ),
}


def customise(
    config: GenerateConfig,
    steps: int | None = None,
    resolution: int | None = None,
    guidance: float | None = None,
    warm_start: bool = True,
) -> GenerateConfig:
    """``config`` with other SDS steps, resolution in pixels and guidance scale, or without its warm start.

    The ramps and milestones over the steps are stretched with them. Raises InputError for a negative number of steps,
    or for neither a warm start nor any step.
    """
    stage = config.stage
    if steps is not None:
        factor = steps / (stage.steps or stage.t_max.until)
        ramps: dict[str, Any] = {
            name: replace(ramp, until=max(1, round(ramp.until * factor)))
            for name, ramp in vars(stage).items()
            if isinstance(ramp, Ramp)
        }
        milestones: dict[str, Any] = {
            name: tuple((round(step * factor), value) for step, value in getattr(stage, name))
            for name in ("resolution", "groups")
        }
        stage = replace(stage, steps=steps, **milestones, **ramps)
    if stage.steps == 0 and not warm_start and config.method == "isotropic3d":
        raise InputError(
            f"preset {config.preset!r} is a warm start alone; give it SDS steps, or leave the warm start on"
        )
    guided = config.guided
    if resolution is not None:
        stage = replace(stage, resolution=((0, resolution),))
        guided = replace(guided, resolution=None, reference_resolution=None)
    if guidance is not None:
        stage = replace(stage, guidance_scale=guidance)
    config = replace(config, stage=stage, guided=guided)
    return config if warm_start else from_a_ball(config)


def shortened(config: GenerateConfig, part: float) -> GenerateConfig:
    """``config`` with ``part`` of the steps of every stage; as often judged, its ramps and milestones stretched."""
    guided = config.guided
    steps = {name: max(1, round(part * getattr(guided, name))) for name in ("steps", "mesh_steps", "judge_every")}
    return replace(
        customise(config, steps=round(part * config.stage.steps)),
        guided=replace(guided, **steps), refine_steps=round(part * config.refine_steps),
    )  # fmt: skip


PRESETS: dict[str, dict[str, GenerateConfig]] = {
    "tiny": TINY_PRESETS,
    "isotropic3d": {
        name: replace(shortened(_PAPER, part), preset=name, bundle="isotropic3d")
        for name, part in (("fast", 0.2), ("default", 0.5), ("quality", 1.0), ("paper", 1.0))
    },
}


def with_method(config: GenerateConfig, method: str, prompt: str | None = None) -> GenerateConfig:
    """``config`` with another method and what is the method's own; raises InputError for an unknown one."""
    return replace(config, method=method, guided=replace(config.guided, **GUIDED.get(method, {})), prompt=prompt)


def preset(name: str, family: str = "tiny", seed: int = 0) -> GenerateConfig:
    """The preset ``name`` of a family of bundles, for the bundle of that name; `pipeline.configure` finds the family.

    Raises InputError for an unknown name.
    """
    presets = PRESETS.get(family, PRESETS["isotropic3d"])
    if name not in presets:
        raise InputError(f"unknown preset {name!r}; use one of {', '.join(presets)}")
    return replace(presets[name], bundle=family, seed=seed)
