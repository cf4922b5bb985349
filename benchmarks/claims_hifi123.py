"""HiFi-123's claims on the embedded bundle: depth-conditioned inversion, RGNV at every azimuth, its reuse, RGSD.

    python benchmarks/claims_hifi123.py [--inverted 200] [--objects 30] [--refined 30] [--blurred 30]

Held-out objects, compared in pairs: mean of each, mean difference and its 95 % interval.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

import numpy as np
import torch
import trimesh
from scipy.spatial import cKDTree
from torch import Tensor
from torch.nn import functional as F

from iso3d_core import rgnv
from iso3d_core.cameras import Cameras, even_azimuths, orbit
from iso3d_core.methods.refine import RefineConfig, bundle_light, look, refine
from iso3d_core.metrics import contextual_distance, psnr, ssim
from iso3d_core.near import nearness
from iso3d_core.pipeline import configure, generate
from iso3d_core.presets import with_method
from iso3d_core.priors.depth import DepthCondition, DepthPrior
from iso3d_core.priors.multiview import MultiViewPrior
from iso3d_core.render.surface import Surface
from iso3d_core.train.evaluate import reference_light, reference_of
from iso3d_core.train.world import Light, WorldObject, held_out
from iso3d_core.types import Mesh, Reference

SIZE, STEPS, ELEVATION = 64, 20, 15.0  # STEPS of the inversion's claim; RGNV takes the bundle's own
AZIMUTHS = (22.0, 45.0, 90.0, 135.0, 180.0)
KINDS = ("blurred", "recolored", "sampled")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--inverted", type=int, default=200, help="objects of the first comparison")
    parser.add_argument("--objects", type=int, default=30, help="objects of RGNV, and whether its reuse is timed")
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=KINDS, help="of RGNV's coarse views")
    parser.add_argument("--refined", type=int, default=30, help="objects of RGSD on coarse meshes: a minute each")
    parser.add_argument(
        "--coarse", choices=("hifi123", "isotropic3d"), default="hifi123", help="whose meshes these are"
    )
    parser.add_argument("--blurred", type=int, default=30, help="objects of RGSD on true shapes: a minute each")
    parser.add_argument("--first", type=int, default=0, help="of these objects, to share them among processes")
    parser.add_argument("--bundle", default="tiny")
    given = parser.parse_args()
    prior, views = DepthPrior.load(given.bundle), MultiViewPrior.load(given.bundle)
    if given.inverted:
        inversion(prior, held_out(given.inverted))
    if given.objects:
        objects = held_out(given.objects)
        enhancement(prior, views, objects, given.kinds)
        speed(prior, objects[0])
    coarse = partial(coarse_mesh, views, given.bundle, given.coarse)
    for count, what, start in (
        (given.refined, "the same coarse mesh", coarse),
        (given.blurred, "the true shape, its colors blurred", blurred_colors),
    ):
        if count:
            refinement(prior, views, held_out(given.first + count)[given.first :], what, start)


def inversion(prior: DepthPrior, objects: list) -> None:
    """Invert and denoise four views of each object all the way, with their depth and without: L2 (0-255 scale squared),
    PSNR in dB and SSIM, averaged over the views."""
    found: dict[str, list[float]] = defaultdict(list)
    for obj in objects:
        rgb, mask, depth = true_views(obj, orbit(even_azimuths(4, 30.0), torch.full((4,), ELEVATION)))
        for name, shown in (("depth", depth), ("plain", None)):
            condition = told(prior, mask, shown)
            z = prior.encode(rgb)
            states = rgnv.invert_latents(prior, z, condition, STEPS)
            back = prior.decode(rgnv.denoise(prior, states[-1], condition, STEPS, STEPS)[0])
            target = prior.decode(z)  # what the VAE can show at all
            pairs = [(a[None], b[None]) for a, b in zip(back, target, strict=True)]
            found[f"{name} l2"].append(float(F.mse_loss(back, target)) * 255**2)
            found[f"{name} psnr"].append(float(np.mean([psnr(a, b) for a, b in pairs])))
            found[f"{name} ssim"].append(float(np.mean([ssim(a, b) for a, b in pairs])))
    print(f"\n## Inversion and reconstruction, {len(objects)} objects, four views each, {STEPS} steps\n")
    print("| | plain | with depth | difference | 95 % |\n|---|---|---|---|---|")
    for name in ("l2", "psnr", "ssim"):
        print(row(name, found[f"plain {name}"], found[f"depth {name}"]))


def enhancement(prior: DepthPrior, views: MultiViewPrior, objects: list, kinds: Sequence[str]) -> None:
    """PSNR in dB to the true views, on the union of the masks, and contextual distance to them, before and after.

    The second does not ask that things are in the same place, which a sampled view's are not. Blurred and recolored
    views come with their depth, sampled ones and the reference with what the bundle's sketch guesses.
    """
    found: dict[tuple, list[float]] = defaultdict(list)
    for obj in objects:
        cameras = orbit(torch.tensor(AZIMUTHS), torch.full((len(AZIMUTHS),), ELEVATION))
        rgb, mask, depth = true_views(obj, cameras)
        reference = reference_of(obj)
        embedding = views.embed(reference)
        with torch.no_grad():
            own, own_mask = views.decode_with_mask(views.sample_latents(embedding, cameras, 25))
        memory, flat = rgnv.remember(prior, reference), remember_without_depth(prior, reference)
        coarse_views = {
            "blurred": (blur(rgb), mask, depth),
            "recolored": (recolor(rgb, mask), mask, depth),
            "sampled": (own, own_mask, views.guess_nearness(embedding, cameras, own_mask)),
        }
        for kind in kinds:
            coarse, shape, near = coarse_views[kind]
            variants = {
                "rgnv": rgnv.enhance(prior, reference, coarse, shape, near, memory=memory),
                "no depth": enhance(prior, coarse, shape, None, flat),
                "no injection": enhance(prior, coarse, shape, near, None),
            }
            for i, azimuth in enumerate(AZIMUTHS):
                inside = torch.maximum(shape[i], mask[i]) > 0.05
                for name, images in {"coarse": coarse, **variants}.items():
                    found[kind, name, azimuth, "PSNR"].append(inner_psnr(images[i], rgb[i], inside))
                    found[kind, name, azimuth, "contextual distance"].append(contextual_distance(images[i], rgb[i]))
    for kind in kinds:
        for measure in ("PSNR", "contextual distance"):
            print(f"\n## RGNV of {kind} views, {len(objects)} objects: {measure} to the true view\n")
            print("| azimuth | coarse | enhanced | difference | 95 % | no depth | no injection |")
            print("|---|---|---|---|---|---|---|")
            for azimuth in (*AZIMUTHS, None):
                wanted = AZIMUTHS if azimuth is None else (azimuth,)
                # Views of one object are alike: each object counts once.
                rows = {
                    name: np.mean([found[kind, name, a, measure] for a in wanted], axis=0).tolist()
                    for name in ("coarse", "rgnv", "no depth", "no injection")
                }
                more = " | ".join(f"{np.mean(rows[name]):.2f}" for name in ("no depth", "no injection"))
                print(row("all" if azimuth is None else f"{azimuth:.0f}", rows["coarse"], rows["rgnv"]) + f" {more} |")
            for name in ("no depth", "no injection"):
                print(row(f"all, {name} before", rows[name], rows["rgnv"]) + " | |")


def enhance(
    prior: DepthPrior, coarse: Tensor, mask: Tensor, depth: Tensor | None, memory: rgnv.Memory | None
) -> Tensor:
    """RGNV's inversion and denoising without depth, or without a memory, and so without what is injected of it."""
    condition = told(prior, mask, depth)
    steps, until = rgnv.schedule(prior, None, None)
    corrections = rgnv.correcting(prior, None)
    z = rgnv.invert_latents(prior, prior.encode(coarse), condition, steps, until, None, corrections)[-1]
    out = prior.decode(rgnv.denoise(prior, z, condition, steps, until, memory=memory)[0])
    solid = (mask * 2).clamp(0, 1)
    return out * solid + 1 - solid


def told(prior: DepthPrior, mask: Tensor, depth: Tensor | None) -> DepthCondition:
    """Without a depth what the network was trained with where none is known."""
    condition = prior.condition(mask if depth is None else depth)
    if depth is None:
        condition.depth.zero_()
    return condition


def remember_without_depth(prior: DepthPrior, reference: Reference) -> rgnv.Memory:
    condition = told(prior, reference.rgba[None, 3:], None)
    steps, until = rgnv.schedule(prior, None, None)
    z = prior.encode(reference.on_white()[None])
    states = rgnv.invert_latents(prior, z, condition, steps, until, None, rgnv.correcting(prior, None))
    return rgnv.Memory(states, condition)


def speed(prior: DepthPrior, obj) -> None:
    """A first batch of views, and a second one for the same reference."""
    reference = reference_of(obj)
    for count in (4, 2, 1):
        views = true_views(obj, orbit(even_azimuths(count), torch.full((count,), ELEVATION)))
        once = partial(rgnv.enhance, prior, reference, *views)
        memory = rgnv.remember(prior, reference)
        again = partial(once, memory=memory)
        again()  # fills the memory
        whole, second = np.median([(timed(once), timed(again)) for _ in range(15)], axis=0)  # in turn: machines drift
        print(f"\n{count} views: {whole:.2f} s; a second batch for the same reference {second:.2f} s", end="")
        print(f" ({whole / second:.2f} x)")


def refinement(
    prior: DepthPrior, views: MultiViewPrior, objects: list, what: str, start: Callable[[WorldObject], Mesh]
) -> None:
    """RGSD against SDS of the same prior, from the mesh that ``start`` makes, over eight views: CLIP similarity and
    contextual distance to the reference, PSNR and SSIM to the true views in the bundle's light, and in the reference's;
    also PSNR and mean absolute error where the mesh and the object both are: the shape is the same for all, the colors
    differ.

    PSNR and SSIM of whole views are those on white and on black, and the mean of both: where outlines differ, a pale
    texture is nearer to a white background and a dark one to a black, whatever the object's color.
    """
    found: dict[tuple, list[float]] = defaultdict(list)
    azimuths = even_azimuths(8)
    for obj in objects:
        reference = reference_of(obj)
        cameras = look(prior, azimuths, ELEVATION)
        lights = {"": Light(), " in its light": reference_light(obj)}
        target = views.embed(reference).flatten()
        coarse = start(obj)
        meshes = {"coarse": coarse}
        for name in ("sds", "rgsd"):
            meshes[name] = refine(coarse, reference, prior, RefineConfig(target=name))
        for name, mesh in meshes.items():
            seen = Surface(fit_to(mesh, obj)).see(cameras, SIZE)
            images = seen.image(seen.color, bundle_light(prior, cameras))
            for light in lights:
                truth, solid, _ = true_views(obj, cameras, lights[light])
                whole = {}
                for on, level in ((" on white", 1.0), (" on black", 0.0)):
                    a, b = before(images, seen.mask, level), before(truth, solid, level)
                    whole[on] = psnr(a, b), ssim(a, b)
                whole[" of whole views"] = tuple(np.mean(list(whole.values()), axis=0))
                for on, values in whole.items():
                    for measure, value in zip(("psnr", "ssim"), values, strict=True):
                        found[name, measure + on + light].append(float(value))
                both = torch.minimum(seen.mask, solid) > 0.95
                found[name, "psnr where both are" + light].append(inner_psnr(images, truth, both))
                error = (images - truth).abs().mean(dim=1, keepdim=True)[both].mean()
                found[name, "error where both are" + light].append(float(error))
            rgba = torch.cat([images, torch.ones_like(images[:, :1])], dim=1)
            similar = [F.cosine_similarity(views.embed(Reference(x)).flatten(), target, dim=0) for x in rgba]
            found[name, "clip"].append(float(torch.stack(similar).mean()))
            shown = F.interpolate(reference.on_white()[None], (SIZE, SIZE), mode="area")[0]
            found[name, "contextual"].append(float(np.mean([contextual_distance(x, shown) for x in images])))
        print("  ", obj.kind, {f"{a} {b}": round(v[-1], 3) for (a, b), v in found.items()}, file=sys.stderr, flush=True)
    print(f"\n## Refining {what}, {len(objects)} objects, eight views\n")
    print("| | coarse | SDS | RGSD | RGSD - SDS | 95 % |\n|---|---|---|---|---|---|")
    for name in dict.fromkeys(measure for _, measure in found):
        print(row(f"{name} | {np.mean(found['coarse', name]):.3f}", found["sds", name], found["rgsd", name]))


def before(on_white: Tensor, mask: Tensor, level: float) -> Tensor:
    """Images [V, 3, H, W] on white, with their masks [V, 1, H, W], before a grey background of ``level`` in 0..1."""
    return on_white + (1 - mask) * (level - 1)


def coarse_mesh(views: MultiViewPrior, bundle: str, method: str, obj: WorldObject) -> Mesh:
    """The ``fast`` preset's, of isotropic3d or of HiFi-123 before it refines: Magic123's fit with its settings."""
    config = with_method(configure("fast", bundle), method)
    return generate(
        reference_of(obj), replace(config, method="magic123") if method == "hifi123" else config, prior=views
    )


def blurred_colors(obj: WorldObject, blur: float = 0.12, edge: float = 0.07) -> Mesh:
    """The object's own shape, its base colors averaged over neighbourhoods of the surface (a Gaussian of radius
    ``blur``); ``edge`` : the longest of its triangles."""
    points, colors = [], []
    for part, mesh in zip(obj.parts, obj.meshes, strict=True):
        some = trimesh.sample.sample_surface(mesh, int(2000 * mesh.area) + 50, seed=0)[0]
        others = [other.contains(some) for other in obj.parts if other is not part]
        points.append(some[~np.any(others, axis=0)] if others else some)
        colors.append(part.material.albedo(part.to_local(points[-1])))
    vertices, faces = trimesh.remesh.subdivide_to_size(obj.mesh.vertices, obj.mesh.faces, edge)
    distance, near = cKDTree(np.concatenate(points)).query(vertices, 150)
    weight = np.exp(-((distance / blur) ** 2) / 2)[..., None] + 1e-9
    color = (weight * np.concatenate(colors)[near]).sum(axis=1) / weight.sum(axis=1)
    normals = trimesh.Trimesh(vertices, faces, process=False).vertex_normals
    return Mesh(
        vertices.astype(np.float32), faces.astype(np.int32), normals.astype(np.float32),
        vertex_colors=np.round(color * 255).clip(0, 255).astype(np.uint8),
    )  # fmt: skip


def fit_to(mesh: Mesh, obj) -> Mesh:
    """The mesh with the bounding box's centre and diagonal of the object's, nothing else aligned."""
    low, high = mesh.vertices.min(axis=0), mesh.vertices.max(axis=0)
    wanted = np.asarray(obj.mesh.bounds, np.float32)
    scale = np.linalg.norm(wanted[1] - wanted[0]) / np.linalg.norm(high - low)
    vertices = (mesh.vertices - (low + high) / 2) * scale + wanted.mean(axis=0)
    return replace(mesh, vertices=vertices.astype(np.float32))


def timed(work) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def true_views(obj, cameras: Cameras, light: Light = Light()) -> tuple[Tensor, Tensor, Tensor]:
    """rgb on white [V, 3, S, S], mask and nearness [V, 1, S, S]."""
    rgba = torch.from_numpy(obj.render_rgba(cameras, SIZE, light)).permute(0, 3, 1, 2).float()
    seen = obj.render(cameras, SIZE, antialias=1)
    distance, hit = (torch.from_numpy(x).float()[:, None] for x in (seen.depth, seen.rgba[..., 3]))
    return rgba[:, :3] * rgba[:, 3:] + 1 - rgba[:, 3:], rgba[:, 3:], nearness(distance, hit)


def blur(rgb: Tensor) -> Tensor:
    """By a Gaussian of two pixels."""
    x = torch.arange(-6, 7).float()
    kernel = torch.exp(-x.square() / 8)
    kernel = (kernel / kernel.sum()).expand(3, 1, 1, -1)
    padded = F.pad(rgb, (6, 6, 6, 6), value=1.0)
    return F.conv2d(F.conv2d(padded, kernel, groups=3), kernel.transpose(2, 3), groups=3)


def recolor(rgb: Tensor, mask: Tensor) -> Tensor:
    """Half of the saturation lost, and the rest turned towards other channels."""
    grey = rgb.mean(dim=1, keepdim=True)
    return (0.5 * grey + 0.35 * rgb + 0.15 * rgb.roll(1, dims=1)) * mask + 1 - mask


def inner_psnr(image: Tensor, target: Tensor, inside: Tensor) -> float:
    error = (image - target).square().mean(dim=-3, keepdim=True)[inside].mean()
    return float(-10 * torch.log10(error.clamp(min=1e-6)))


def row(name: str, before: list[float], after: list[float]) -> str:
    """Means, paired difference and half the width of its 95 % interval (normal approximation)."""
    difference = np.subtract(after, before)
    half = 1.96 * difference.std(ddof=1) / len(difference) ** 0.5
    return f"| {name} | {np.mean(before):.3f} | {np.mean(after):.3f} | {difference.mean():+.3f} | ± {half:.3f} |"


if __name__ == "__main__":
    main()
