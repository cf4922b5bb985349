"""What each command of the command line takes, as dataclasses that tyro reads."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from tyro.conf import Positional, arg

from .options import TrainOptions

Out = Annotated[Path, arg(aliases=["-o"])]


@dataclass(frozen=True)
class Generate:
    """Make one textured mesh from each image."""

    images: Positional[tuple[Path, ...]]
    """Images of one object each; a transparent background helps."""
    out: Out
    """File (.glb, .obj, .ply or .stl); a folder for several images."""
    preset: str = "default"
    """fast, default, quality or paper."""
    seed: int = 0
    bundle: str = "tiny"
    """Name or folder of the bundle of networks."""
    device: str = "auto"
    resume: bool = False
    """Go on from where an interrupted run of the same image, seed and preset stopped."""
    preview: Path | None = None
    """PNG rewritten every few seconds with the current views."""
    method: str = "isotropic3d"
    """isotropic3d, consistent123, hifi123, zero123, magic123 or realfusion-sds."""
    prompt: str | None = None
    """What the image shows, for methods with a 2D prior; CLIP finds words itself without it."""
    matting: str = "auto"
    """How the object is cut out of an image without alpha: auto (by the border's color, else grabCut), rembg (by a
    network; `pip install "iso3d[matting]"`) or none."""
    keep_field: bool = False
    """Also write the optimised radiance field, as <name>.field.safetensors, for `iso3d render`."""


@dataclass(frozen=True)
class Views:
    """Sample the views of one image and write them side by side as PNG."""

    image: Positional[Path]
    out: Out
    views: int = 4
    """1 to 16, evenly spread over the circle."""
    elevation: float = 15.0
    """Degrees above the horizon."""
    start_azimuth: Annotated[float, arg(aliases=["--azimuth"])] = 0.0
    """Of the first view: degrees from the image's own direction."""
    prior: str = "multiview"
    """multiview, or zero123 for Zero-1-to-3, which also sees the image itself."""
    reference_elevation: float | None = None
    """For zero123: degrees of the image's own direction above the horizon; without it guessed where the bundle has a
    multi-view prior, else 0."""
    steps: int = 25
    guidance: float | None = None
    """Classifier-free guidance scale; the bundle's own by default."""
    seed: int = 0
    bundle: str = "tiny"
    device: str = "auto"
    matting: str = "auto"
    """As of `generate`."""


@dataclass(frozen=True)
class Enhance:
    """Carry the reference's texture to coarse views of the same object (HiFi-123's RGNV)."""

    reference: Positional[Path]
    coarse: Positional[tuple[Path, ...]]
    """Views of the object, by any means."""
    out: Out
    """Folder; the enhanced views keep their names, as PNG."""
    depth: Path | None = None
    """Folder with a depth image of each view under the same name, bright is near; without it the mask is flat depth."""
    strength: float | None = None
    """0 to 1: more is nearer to the reference's texture and may change the shape; the bundle's own by default."""
    steps: int | None = None
    """Of DDIM; the bundle's own by default."""
    prompt: str = ""
    guidance: float | None = None
    """Classifier-free guidance scale where there is a prompt; the bundle's own by default."""
    bundle: str = "tiny"
    device: str = "auto"
    matting: str = "auto"
    """Of the reference; as of `generate`."""


@dataclass(frozen=True)
class Refine:
    """Give a mesh the texture of a reference image (HiFi-123's RGSD); its shape and UVs stay as they are."""

    mesh: Positional[Path]
    """A GLB, OBJ, PLY or STL from anywhere; the reference shows its front."""
    reference: Path
    out: Out
    """File (.glb, .obj, .ply or .stl)."""
    steps: int = 40
    strength: float | None = None
    """0 to 1: more is nearer to the reference's texture; the bundle's own by default."""
    prompt: str = ""
    """What the reference shows; the prior then follows these words too."""
    guidance: float | None = None
    """Classifier-free guidance scale where there is a prompt; the bundle's own by default."""
    elevation: float | None = None
    """Degrees of the reference above the horizon; without it the outline decides."""
    texture: int = 1024
    """Pixels a side; a larger texture that the mesh has keeps its size."""
    unwrap: bool = False
    """Make new UVs even where the mesh has some."""
    seed: int = 0
    bundle: str = "tiny"
    device: str = "auto"
    matting: str = "auto"
    """Of the reference; as of `generate`."""
    resume: bool = False
    """Go on from where an interrupted run of the same mesh, image and settings stopped."""
    preview: Path | None = None
    """PNG rewritten every few seconds with the current views."""


@dataclass(frozen=True)
class Render:
    """Render a turntable of a mesh or field: PNG frames in a folder, or one animated .webp or .gif, or a .png sheet."""

    mesh: Positional[Path]
    out: Out
    frames: int = 36
    elevation: float = 15.0
    size: int = 256
    style: str = "color"
    """color, clay (meshes only), normal, depth or mask."""
    transparent: bool = False
    seconds: float = 3.0
    """Of one turn, for animations."""


@dataclass(frozen=True)
class Evaluate:
    """Score generated meshes against held-out procedural objects whose solid is known exactly."""

    on: Positional[str] = "world"
    method: str = "isotropic3d"
    """As of `generate`: isotropic3d, consistent123, hifi123, zero123, magic123 or realfusion-sds."""
    preset: str = "default"
    objects: int = 36
    """How many, from number ``first`` on."""
    first: int = 0
    seed: int = 0
    bundle: str = "tiny"
    device: str = "auto"
    save: Path | None = None
    """Folder for the references and meshes."""


@dataclass(frozen=True)
class Models:
    """List, verify, download or convert bundles of networks.

    `models list`, `models verify [NAME]`, `models pull NAME`, `models convert FILE --as KIND [--out DIR]`
    """

    action: Positional[str] = "list"
    """list, verify, pull or convert."""
    subject: Positional[str | None] = None
    """The bundle's or model's name, or the checkpoint file."""
    as_: Annotated[str | None, arg(name="as")] = None
    """Kind of the checkpoint: isotropic3d, zero123, sd-depth or sd-text; or of a folder of files as they are published:
    clip, taesd, depth-anything or captioner."""
    out: Annotated[Path | None, arg(aliases=["-o"])] = None
    """Folder of the bundle that `convert` writes; the kind's own in the models folder, where methods find it, without
    it."""
    half: bool = False
    """Store float16: half the size."""
    yes: bool = False
    """Do not ask before downloading."""


@dataclass(frozen=True)
class Doctor:
    """Report versions, devices, backends and whether the bundles are intact."""

    bundle: str | None = None
    """Also predict the GPU memory that each preset needs with this bundle."""
    method: str | None = None
    """The prediction is of this method's optimisation (a mesh stage or refinement after it is not counted); the default
    is isotropic3d, or consistent123 with a bundle that has no multi-view prior."""


@dataclass(frozen=True, kw_only=True)
class Train(TrainOptions):
    """Train a part of a bundle, in this order: data, vae, clip, views --stage 1, views --stage 2, bundle --out FOLDER.

    Before the last, depth (for RGNV, RGSD and the 2D prior) and zero123 (for the 3D prior) if they are wanted.
    """

    part: Positional[str]


COMMANDS: dict[str, Callable[..., Any]] = {
    "generate": Generate,
    "views": Views,
    "enhance": Enhance,
    "refine": Refine,
    "render": Render,
    "eval": Evaluate,
    "models": Models,
    "doctor": Doctor,
    "train": Train,
}
