"""The command line: `iso3d generate | views | enhance | refine | render | eval | models | doctor | train`."""

from __future__ import annotations

import signal
import sys
import warnings
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import tyro

from .bars import Bars, check_preview
from .commands import COMMANDS, Doctor, Enhance, Evaluate, Generate, Models, Refine, Render, Train, Views
from .config import check_seed
from .types import Cancelled, InputError, Progress
from .waiting import wait_briefly

if TYPE_CHECKING:
    from torch import Tensor

OK, BAD_INPUT, CANCELLED = 0, 2, 130


def main(argv: list[str] | None = None) -> int:
    """Run one command; returns the exit code: 0 done, 2 bad input, 130 cancelled."""
    command = tyro.extras.subcommand_cli_from_dict(COMMANDS, prog="iso3d", args=argv)
    wait_briefly()
    signal.signal(signal.SIGTERM, _on_terminate)
    warnings.showwarning = _plain_warning
    try:
        return RUN[type(command)](command)
    except InputError as error:
        print(f"iso3d: {error}", file=sys.stderr)
        return BAD_INPUT
    except (KeyboardInterrupt, Cancelled):
        print("iso3d: cancelled", file=sys.stderr)
        return CANCELLED


def _on_terminate(_signal: int, _frame: object) -> None:
    raise Cancelled


def _plain_warning(message: Warning | str, category: type[Warning], *_: object, **__: object) -> None:
    from .pipeline import UnfamiliarImage

    if issubclass(category, UnfamiliarImage):
        print(f"iso3d: warning: {message}", file=sys.stderr)


# ---- the commands -------------------------------------------------------------------------------


def run_generate(c: Generate) -> int:
    from . import files
    from .images import load_reference
    from .mesh.export import finished
    from .pipeline import configure, generate, multiview_of, size_for, with_words, work_key
    from .presets import with_method

    config = replace(with_method(configure(c.preset, c.bundle, c.seed), c.method, c.prompt), device=c.device)
    targets = files.output_paths(list(c.images), c.out)
    files.spare_inputs(list(c.images), targets)
    # All of them first: a bad one costs no minutes.
    references = [load_reference(path, size_for(config), matting=c.matting) for path in c.images]
    for target in targets:
        files.check_writable(target)
    check_preview(c.preview)
    if c.prompt and not with_words(config):
        print(f"iso3d: warning: method {c.method} takes no words; --prompt has no effect", file=sys.stderr)
    prior = multiview_of(config) if len(references) > 1 else None  # alone, an image frees parts of it on the way
    for reference, target in zip(references, targets, strict=True):
        state = files.checkpoint_folder(target)
        field_path = target.with_suffix(".field.safetensors") if c.keep_field else None
        done = c.resume and len(targets) > 1 and finished(target) == work_key(config, reference)
        if done and (field_path is None or field_path.is_file()):
            print(f"{target}  is done already")
            continue
        with Bars(c.preview) as bars:
            try:
                mesh = generate(reference, config, bars.show, prior, state, c.resume, field_path)
            except (KeyboardInterrupt, Cancelled):
                if state.exists():
                    print(f"iso3d: stopped; the same command with --resume goes on from {state}", file=sys.stderr)
                raise
        mesh.save(target)
        if mesh.metadata.get("boundary"):
            files.write_boundary(mesh.metadata["boundary"], target.with_suffix(".boundary.png"))
        files.remove_checkpoints(state)
        print(f"{target}  {len(mesh.faces):,} faces, {len(mesh.vertices):,} vertices, {bars.seconds:.1f} s")
    return OK


def run_views(c: Views) -> int:
    from . import files
    from .cameras import even_azimuths
    from .images import load_reference
    from .methods.isotropic3d import bundle_orbit

    if not 1 <= c.views <= 16:
        raise InputError(f"--views must be 1 to 16, got {c.views}")
    if abs(c.elevation) > 85:
        raise InputError(f"--elevation must be -85 to 85 degrees, got {c.elevation}")
    if c.prior not in ("multiview", "zero123"):
        raise InputError(f"--prior must be multiview or zero123, got {c.prior!r}")
    if c.out.suffix.lower() != ".png":
        raise InputError(f"views are written as PNG; name the output something.png, not {c.out.name}")
    check_seed(c.seed)
    files.spare_inputs([c.image], [c.out])
    reference = load_reference(c.image, matting=c.matting)
    files.check_writable(c.out)
    prior, given = _view_prior(c, reference)
    cameras = bundle_orbit(prior, even_azimuths(c.views, c.start_azimuth), c.elevation)
    with Bars(None) as bars:
        report = lambda step, steps, _z: bars.show(Progress("views", step, steps))  # noqa: E731
        views = prior.sample(given, cameras, c.steps, c.guidance, c.seed, report)
    files.write_sheet(views, c.out)
    print(f"{c.out}  {c.views} views of {views.shape[-1]} px")
    return OK


def _view_prior(c: Views, reference: Any) -> tuple[Any, Any]:
    """The prior that `views` samples from, and what it knows of the image."""
    from .priors.multiview import MultiViewPrior
    from .priors.zero123 import Zero123Prior
    from .weights import find_bundle

    if c.prior == "multiview":
        multiview = MultiViewPrior.load(c.bundle, c.device)
        return multiview, multiview.embed(reference)
    zero123, elevation = Zero123Prior.load(c.bundle, c.device), c.reference_elevation
    if elevation is None and find_bundle(c.bundle).has("multiview"):
        multiview = MultiViewPrior.load(c.bundle, c.device)
        guess = multiview.guess_reference(reference, multiview.embed(reference), 64)
        elevation = None if guess is None else guess[0]
    return zero123, zero123.see(reference, elevation or 0.0)


def run_enhance(c: Enhance) -> int:
    import torch

    from . import files, rgnv
    from .images import load_reference, load_view
    from .pipeline import reference_size
    from .priors.depth import DepthPrior
    from .weights import find_bundle

    targets = files.enhanced_paths(list(c.coarse), c.out)
    files.spare_inputs([c.reference, *c.coarse], targets)
    reference = load_reference(c.reference, reference_size(find_bundle(c.bundle)), matting=c.matting)
    views = [load_view(path) for path in c.coarse]
    depths = None
    if c.depth is not None:
        depths = [load_view(c.depth / path.name, "none")[0].mean(dim=0, keepdim=True) for path in c.coarse]
    files.check_writable(targets[0])
    prior = DepthPrior.load(c.bundle, c.device)
    size = (prior.info["image_size"],) * 2

    def small(images: list[Any], fill: float) -> Any:
        return torch.cat([rgnv.resize(rgnv.squared(image[None], fill), size) for image in images])

    with Bars(None) as bars:
        out = rgnv.enhance(
            prior, reference, small([rgb for rgb, _ in views], 1.0), small([mask for _, mask in views], 0.0),
            None if depths is None else small(depths, 0.0), c.strength, c.steps, c.prompt, c.guidance, None, bars.show,
        )  # fmt: skip
    for image, (rgb, _), target in zip(out, views, targets, strict=True):
        files.write_sheet(rgnv.unsquared(image[None], tuple(rgb.shape[-2:])), target)
    print(f"{c.out}  {len(targets)} views of {size[0]} px")
    return OK


def run_refine(c: Refine) -> int:
    from . import files
    from .fit import Checkpoints
    from .images import load_reference
    from .mesh.export import load_mesh
    from .methods.refine import RefineConfig, refine, work_key
    from .pipeline import reference_size
    from .priors.depth import DepthPrior
    from .weights import find_bundle

    (target,) = files.output_paths([c.mesh], c.out)
    files.spare_inputs([c.mesh, c.reference], [target])
    config = RefineConfig(
        steps=c.steps, strength=c.strength, prompt=c.prompt, guidance_scale=c.guidance,
        reference_elevation_deg=c.elevation, texture=c.texture, unwrap=c.unwrap, seed=c.seed,
    )  # fmt: skip
    reference = load_reference(c.reference, reference_size(find_bundle(c.bundle)), matting=c.matting)
    mesh = load_mesh(c.mesh)
    files.check_writable(target)
    check_preview(c.preview)
    state = files.checkpoint_folder(target)
    prior = DepthPrior.load(c.bundle, c.device)
    checkpoints = Checkpoints(state, work_key(mesh, reference, prior, config), resume=c.resume)
    with Bars(c.preview) as bars:
        try:
            refined = refine(mesh, reference, prior, config, bars.show, checkpoints)
        except (KeyboardInterrupt, Cancelled):
            if state.exists():
                print(f"iso3d: stopped; the same command with --resume goes on from {state}", file=sys.stderr)
            raise
    refined.save(target)
    files.remove_checkpoints(state)
    print(f"{target}  {len(refined.faces):,} faces, {bars.seconds:.1f} s")
    return OK


def run_render(c: Render) -> int:
    from . import files
    from .cameras import even_azimuths, orbit
    from .fields.scene import SUFFIX, Scene
    from .mesh.export import load_mesh
    from .mesh.placing import fit_into_ball
    from .render.raster import STYLES, render_mesh

    if c.style not in STYLES:
        raise InputError(f"unknown style {c.style!r}; use one of {', '.join(STYLES)}")
    if not 1 <= c.frames <= 1000 or not 8 <= c.size <= 4096:
        raise InputError(f"--frames must be 1 to 1000 and --size 8 to 4096, got {c.frames} and {c.size}")
    if abs(c.elevation) > 85:
        raise InputError(f"--elevation must be -85 to 85 degrees, got {c.elevation}")
    files.check_turntable(c.out, c.frames, c.size)
    cameras = orbit(even_azimuths(c.frames), c.elevation)
    behind = None if c.transparent else 0.0 if c.style == "depth" else 1.0  # what is far is dark
    if c.mesh.suffix == SUFFIX:
        scene = Scene.load(c.mesh)
        draw = lambda camera: scene.view(camera, c.size, c.style, behind)[0]  # noqa: E731
    else:
        mesh = fit_into_ball(load_mesh(c.mesh))
        background = None if behind is None else (behind, behind, behind)
        draw = lambda camera: render_mesh(mesh, camera, c.size, c.style, background)[0]  # noqa: E731
    with Bars(None) as bars:

        def frames() -> Iterator[Tensor]:
            for i in range(c.frames):
                yield draw(cameras[i])
                bars.show(Progress("render", i + 1, c.frames))

        files.write_turntable(frames(), c.out, c.seconds, c.transparent)
    print(f"{c.out}  {c.frames} frames of {c.size} px")
    return OK


def run_eval(c: Evaluate) -> int:
    from .pipeline import configure, generate
    from .presets import with_method
    from .priors.multiview import MultiViewPrior
    from .train.evaluate import evaluate, mean_score, reference_of, table_header, table_row

    if c.on != "world":
        raise InputError(f"unknown evaluation {c.on!r}; there is: world")
    config = replace(with_method(configure(c.preset, c.bundle, c.seed), c.method), device=c.device)
    prior = MultiViewPrior.load(c.bundle, c.device)
    meshes: list = []

    def make_mesh(reference: Any) -> Any:
        meshes.append(generate(reference, config, prior=prior))
        return meshes[-1]

    print(table_header())
    rows = []
    for obj, row in evaluate(make_mesh, prior, c.first + c.objects, c.first):
        rows.append(row)
        print(table_row(obj.kind, row), flush=True)
        if c.save is not None:
            from . import files

            name = f"{c.first + len(rows) - 1:02d}_{obj.kind.replace(' ', '_')}"
            meshes[-1].save(c.save / f"{name}.glb")
            files.write_sheet(reference_of(obj).on_white()[None], c.save / f"{name}.png")
    print(table_row(f"mean of {len(rows)}", mean_score(rows)))
    return OK


def run_models(c: Models) -> int:
    from . import shelf

    actions = {"list": shelf.show, "verify": shelf.verify, "pull": shelf.pull, "convert": shelf.convert}
    if c.action not in actions:
        raise InputError(f"unknown action {c.action!r}; use one of {', '.join(actions)}")
    actions[c.action](c)
    return OK


def run_doctor(c: Doctor) -> int:
    from .doctor import memory, report

    print("\n".join(report()))
    if c.bundle is not None:
        print("\n".join(memory(c.bundle, c.method)))
    return OK


def run_train(c: Train) -> int:
    from .train.run import run

    try:
        run(c.part, c)
    except (ValueError, FileNotFoundError) as error:
        raise InputError(str(error)) from None
    return OK


RUN: dict[type, Callable[[Any], int]] = {
    Generate: run_generate, Views: run_views, Enhance: run_enhance, Refine: run_refine, Render: run_render,
    Evaluate: run_eval, Models: run_models, Doctor: run_doctor, Train: run_train,
}  # fmt: skip


if __name__ == "__main__":
    sys.exit(main())
