"""The story on one page: image -> reference -> embedding -> field -> mesh."""

from __future__ import annotations

import hashlib
import json
import os
import time
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from .config import LOWEST_THRESHOLD, GenerateConfig
from .presets import preset
from .types import Mesh, OnProgress, Progress, Reference
from .version import own_version
from .weights import Bundle, find_bundle

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from .fields.scene import Scene
    from .methods.mesh_stage import MeshWork
    from .priors.multiview import MultiViewPrior


class UnfamiliarImage(UserWarning):
    """The image is unlike everything the bundle was trained on."""


def configure(preset_name: str, bundle: str = "tiny", seed: int = 0) -> GenerateConfig:
    """The preset for a bundle, by its name or folder; raises InputError for an unknown one of either."""
    return replace(preset(preset_name, find_bundle(bundle).family, seed), bundle=bundle)


def generate(
    image: str | os.PathLike | Any,
    config: GenerateConfig | str = "default",
    on_progress: OnProgress | None = None,
    prior: MultiViewPrior | None = None,
    checkpoint_folder: str | Path | None = None,
    resume: bool = False,
    keep_field: str | Path | None = None,
) -> Mesh:
    """One image -> one textured mesh.

    image : a path, PIL image, array [H, W, 3|4] or `Reference`
    config : a `GenerateConfig` or the name of a preset
    prior : a loaded bundle to reuse; None loads ``config.bundle``
    checkpoint_folder : where to keep the state while optimising; with ``resume`` the work goes on from there
    keep_field : a .safetensors file to write the optimised field to
    Raises InputError for what cannot be used, and lets `Cancelled` from ``on_progress`` through.
    Warns with `UnfamiliarImage` when the embedding is far from everything the bundle was trained on.
    """
    from .fit import Checkpoints
    from .images import load_reference
    from .methods import guides, isotropic3d

    config = preset(config) if isinstance(config, str) else config
    started = time.monotonic()

    reference = image if isinstance(image, Reference) else load_reference(image, size_for(config))
    checkpoints = None
    if config.method == "hifi123":
        refining_bundle(config)  # lacking, it is to be said now and not after the coarse stage
    if checkpoint_folder is not None:
        checkpoints = Checkpoints(Path(checkpoint_folder), work_key(config, reference), resume=resume)
    found: dict[str, Any] = {}
    shaped = None
    if config.method == "isotropic3d":
        own = prior is None
        prior = prior or multiview_of(config)
        assert prior is not None  # this method cannot do without
        embedding = prior.embed(reference)
        if own:  # nobody else needs them
            prior.free_clip()
            if config.warm_start is None:
                prior.free_decoder()
        notes = _familiarity(prior, embedding, reference)
        scene = isotropic3d.optimise(prior, embedding, config, on_progress, checkpoints)
    else:
        prior = prior or multiview_of(config)
        notes = [] if prior is None else _familiarity(prior, prior.embed(reference), reference)
        done, shaped, prompt = guides.optimise(reference, config, prior, on_progress, checkpoints)
        scene, found = done.scene, {"prompt": prompt, "boundary": done.as_dict()}
    if keep_field is not None:
        scene.save(Path(keep_field))
    mesh = export_ready(scene, config, on_progress) if shaped is None else export_shape(shaped, config, on_progress)
    if config.method == "hifi123":
        mesh = carry_texture(mesh, reference, config, on_progress, checkpoints)

    metadata = {
        "name": reference.name, "generator": f"iso3d {own_version()}", "preset": config.preset, "seed": config.seed,
        "bundle": find_bundle(config.bundle).name, "config": config.as_dict(), "work": work_key(config, reference),
        "warnings": notes, **found,
    }  # fmt: skip
    if on_progress:
        on_progress(Progress("done", 1, 1, None, {"seconds": time.monotonic() - started}))
    return replace(mesh, metadata=json.loads(json.dumps(metadata)))


def carry_texture(
    mesh: Mesh, reference: Reference, config: GenerateConfig, on_progress: OnProgress | None, checkpoints: Any
) -> Mesh:
    """HiFi-123's refine stage: the reference's texture on the finished mesh."""
    from .methods.refine import RefineConfig, refine
    from .priors.depth import DepthPrior

    depth = DepthPrior.load(refining_bundle(config), config.device)
    own = RefineConfig(steps=config.refine_steps, prompt=config.prompt or "", seed=config.seed)
    return refine(mesh, reference, depth, own, on_progress, checkpoints)


def refining_bundle(config: GenerateConfig) -> Bundle:
    """Whose depth-conditioned prior HiFi-123 refines with: the bundle's own, or that of sd-depth.

    Raises InputError where sd-depth would be needed and is not here.
    """
    bundle = find_bundle(config.bundle)
    return bundle if bundle.has("depth") else find_bundle("sd-depth")


def reference_size(*bundles: Bundle) -> int:
    """Pixels a side of the references that these bundles' networks can make use of."""
    return max(256, *(int(bundle.info.get("image_size", 256)) for bundle in bundles))


def size_for(config: GenerateConfig) -> int:
    """Pixels a side of the reference for `generate`."""
    refining = [refining_bundle(config)] if config.method == "hifi123" else []
    return reference_size(find_bundle(config.bundle), *refining)


def with_words(config: GenerateConfig) -> bool:
    """Whether the method asks a 2D prior, which is told in words what the image shows."""
    return config.method != "isotropic3d" and config.guided.takes_2d


def takes_multiview(config: GenerateConfig) -> bool:
    """Whether the bundle's multi-view prior is loaded: guided methods can do without one."""
    return config.method == "isotropic3d" or find_bundle(config.bundle).has("multiview")


def multiview_of(config: GenerateConfig) -> MultiViewPrior | None:
    """The bundle's multi-view prior, loaded; None where it has none and the method can do without."""
    from .priors.multiview import MultiViewPrior

    return MultiViewPrior.load(config.bundle, config.device) if takes_multiview(config) else None


def _familiarity(prior: MultiViewPrior, embedding: Tensor, reference: Reference) -> list[str]:
    measures = (
        ("distance", prior.strangeness(embedding), prior.info.get("familiar_limit")),
        ("misfit", prior.misfit(reference, embedding), prior.info.get("misfit_limit")),
    )
    beyond = [
        f"{name} {value:.3g}, trained objects stay below {limit:.3g}"
        for name, value, limit in measures
        if value is not None and limit is not None and value > limit
    ]
    if not beyond:
        return []
    note = (
        f"{reference.name}: this image is unlike everything bundle {prior.info['name']!r} was trained on "
        f"({'; '.join(beyond)}); expect a rough guess"
    )
    warnings.warn(note, UnfamiliarImage, stacklevel=3)
    return [note]


def work_key(config: GenerateConfig, reference: Reference) -> str:
    """Names one piece of work: equal for the same settings, image and version."""
    digest = hashlib.sha256(json.dumps(config.as_dict(), sort_keys=True).encode())
    digest.update(np.ascontiguousarray(reference.rgba.cpu().numpy()).tobytes())
    digest.update(f"{own_version()} checkpoint 4".encode())
    return digest.hexdigest()


def export_ready(scene: Scene, config: GenerateConfig, on_progress: OnProgress | None = None) -> Mesh:
    """Isosurface, clean, decimate, unwrap, bake: a closed textured mesh out of an optimised scene."""
    import torch

    from .mesh.extract import extract_surface

    m = config.mesh
    device = scene.field.table.device

    def density(points: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            return scene.density(points.to(device)).cpu()

    def color(points: torch.Tensor) -> torch.Tensor:
        return scene.surface_color(points.to(device)).cpu()

    if on_progress:
        on_progress(Progress("mesh", 0, 4))
    vertices, faces = extract_surface(
        density, m.resolution, m.threshold, gap=m.gap, core=m.core, lowest=LOWEST_THRESHOLD
    )
    return textured(vertices, faces, color, config, on_progress)


def export_shape(shaped: MeshWork, config: GenerateConfig, on_progress: OnProgress | None = None) -> Mesh:
    """The mesh stage's surface, clean and textured."""
    import torch

    with torch.no_grad():
        vertices, faces = (x.cpu().numpy() for x in shaped.shape.surface())

    def color(points: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            return shaped.texture(points.to(shaped.shape.distances.device)).cpu()

    return textured(vertices.astype(np.float32), faces.astype(np.int32), color, config, on_progress)


def textured(
    vertices: np.ndarray, faces: np.ndarray, color: Callable[[Tensor], Tensor], config: GenerateConfig,
    on_progress: OnProgress | None = None,
) -> Mesh:  # fmt: skip
    """Clean, decimate, unwrap, and bake a color function of the position."""
    from .mesh.clean import clean, vertex_normals
    from .mesh.texture import bake, unwrap

    def report(step: int) -> None:
        if on_progress:
            on_progress(Progress("mesh", step, 4))

    m = config.mesh
    report(1)
    vertices, faces = clean(vertices, faces, m.faces, m.keep_ratio, m.smooth)
    report(2)
    vertices, faces, normals, uvs = unwrap(vertices, faces, vertex_normals(vertices, faces), m.texture)
    report(3)
    texture = bake(vertices, faces, uvs, color, m.texture)
    report(4)
    return Mesh(vertices, faces, normals, uvs=uvs, texture=texture)
