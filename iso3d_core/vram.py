"""How much memory of a GPU a preset will take with a bundle: counted where it can be, assumed where it says so."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

from .config import GenerateConfig
from .schedules import milestone
from .weights import Bundle, find_bundle

if TYPE_CHECKING:
    from torch import Tensor

# Assumed, not counted: evaluated samples of a ray, on average (most are pruned or miss) and in a portion of rays that
# lies on the object; the bytes that a considered and an evaluated sample leave; CUDA's own context, and what the UNet's
# forward pass and the allocator hold for a moment.
SAMPLES_A_RAY, SAMPLES_A_HIT, NORMALS_A_SAMPLE = 16, 48, 0.5
CANDIDATE_BYTES, KEPT_BYTES = 64, 128
ALLOWANCE_GB = 1.2
PROBE_POINTS = 2048


@dataclass(frozen=True)
class Memory:
    """In GB (1e9 bytes). ``embedding`` is the peak of the first moment, before the optimisation; the rest adds up."""

    networks: float
    field: float
    encode: float
    render: float
    allowance: float
    embedding: float

    @property
    def peak(self) -> float:
        return max(self.embedding, sum(getattr(self, f.name) for f in fields(self) if f.name != "embedding"))


def predict(bundle: Bundle, config: GenerateConfig) -> Memory:
    """The memory of optimising with ``config``; raises InputError for a bundle without the parts of its method.

    The VAE's saved activations and the field's are counted exactly, by running the former without data and the latter
    on a few points; weights from their files. What comes after, a mesh stage or
    refinement, is not counted.
    """
    asked, views = _asked(bundle, config), config.cameras.views
    loaded = {(of.name, part): _network_bytes(of, part) for of, part in asked}
    if bundle.has("multiview"):  # it places the reference's camera and says how familiar the image is
        loaded[bundle.name, "multiview"] = _network_bytes(bundle, "multiview")
    groups = max(n for _, n in config.stage.groups) if config.method == "isotropic3d" else 1
    networks = sum(loaded.values())
    return Memory(
        networks=networks / 1e9,
        field=_field_bytes(config) / 1e9,
        encode=views * groups * sum(_encode_bytes(of) for of, _ in asked) / 1e9,
        render=_render_bytes(config, _rays(config)) / 1e9,
        allowance=ALLOWANCE_GB,
        embedding=(networks + 4 * _parameters(bundle, "clip")) / 1e9 + ALLOWANCE_GB,
    )


def _asked(bundle: Bundle, config: GenerateConfig) -> list[tuple[Bundle, str]]:
    """The UNets that the method asks at every step: their bundles and parts."""
    if config.method == "isotropic3d":
        return [(bundle, "multiview")]
    asked = []
    if config.guided.takes_3d:
        asked.append((bundle, "zero123" if bundle.has("zero123") else "multiview"))
    if config.guided.takes_2d:
        of = bundle if bundle.has("text2d", "depth") else find_bundle("sd-text")
        asked.append((of, "text2d" if of.has("text2d") else "depth"))
    return asked


def _network_bytes(bundle: Bundle, part: str) -> int:
    """A UNet in bfloat16, and what is loaded with it in float32."""
    beside = {"zero123": ("vae", "clip"), "multiview": ("vae",)}.get(part, ("vae", "text"))
    halves = _parameters(bundle, part)
    if part in ("zero123", "multiview") and bundle.has("sketch"):
        halves += _parameters(bundle, "sketch")
    return 2 * halves + 4 * sum(_parameters(bundle, name) for name in beside)


def _rays(config: GenerateConfig) -> int:
    """The most that a step renders."""
    stage, guided, views = config.stage, config.guided, config.cameras.views
    if config.method == "isotropic3d":
        steps = {step for milestones in (stage.resolution, stage.groups) for step, _ in milestones}
        return views * max(milestone(stage.groups, step) * milestone(stage.resolution, step) ** 2 for step in steps)
    size = guided.resolution or stage.resolution[0][1]
    return max(views * size**2, (guided.reference_resolution or size) ** 2)


def _parameters(bundle: Bundle, part: str) -> int:
    """Number of weights that the safetensors files of a part become; of a CLIP only the image tower's, of a sketch not
    its probe of the elevation, which stays where images are read."""
    from .priors.clip import stored_shapes

    shapes = stored_shapes(bundle.part(part), "model" if part == "sketch" else "")
    return sum(math.prod(shape) for name, shape in shapes.items() if part != "clip" or name.startswith("visual."))


def _field_bytes(config: GenerateConfig) -> int:
    """Weights, gradients and both moments of AdamW, float32."""
    from .ops.encoding import grid_levels, table_rows

    f = config.field
    rows = table_rows(grid_levels(f.levels, f.base, f.growth, f.log2_table))
    return rows * f.features * 4 * 4


class _Saved:
    """Adds up the tensors that autograd keeps for the backward pass, each storage once, weights left out."""

    def __init__(self) -> None:
        self.storages: dict[int, int] = {}

    def pack(self, tensor: Tensor) -> Tensor:
        if not tensor.is_leaf:
            storage = tensor.untyped_storage()
            self.storages[storage._cdata] = storage.nbytes()
        return tensor

    def __enter__(self) -> _Saved:
        import torch

        self.hooks = torch.autograd.graph.saved_tensors_hooks(self.pack, lambda tensor: tensor)
        self.hooks.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        self.hooks.__exit__(None, None, None)

    @property
    def bytes(self) -> int:
        return sum(self.storages.values())


def _encode_bytes(bundle: Bundle) -> int:
    """What the encoder keeps for the gradient of one image, in bf16; run on the meta device, so nothing is computed."""
    import torch
    from accelerate import init_empty_weights
    from diffusers import AutoencoderKL

    info = bundle.info
    with init_empty_weights():
        vae: Any = AutoencoderKL.from_config(json.loads((bundle.part("vae") / "config.json").read_text()))
    # Module.to itself: diffusers' own warns about a list of exceptions that is empty here.
    vae = torch.nn.Module.to(vae, device="meta", dtype=torch.bfloat16).requires_grad_(False)
    side, factor = info["image_size"], info.get("pixel_unshuffle", 1)
    image = torch.empty(
        1, 3 * factor**2, side // factor, side // factor, dtype=torch.bfloat16, device="meta", requires_grad=True
    )
    with _Saved() as saved:
        kept = vae.encode(image * 1).latent_dist.mode()
    total = saved.bytes
    del kept
    return total


def _render_bytes(config: GenerateConfig, rays: int) -> float:
    """One portion of rays with all that its gradient needs, and what the others leave."""
    from .render.volume import CANDIDATES

    samples = config.render.samples
    portion = min(rays, max(1, CANDIDATES // samples))
    evaluated = min(portion * SAMPLES_A_HIT, rays * SAMPLES_A_RAY)
    kept = rays * SAMPLES_A_RAY * KEPT_BYTES
    return portion * samples * CANDIDATE_BYTES + evaluated * _sample_bytes(config) + kept


def _sample_bytes(config: GenerateConfig) -> float:
    """What the field keeps for the gradient of one sample: density and color, and normals for some."""
    import torch

    from .fields.hashgrid import HashGridField

    field = HashGridField(config.field)
    points = torch.rand(PROBE_POINTS, 3) - 0.5
    with _Saved() as saved:
        kept: Any = field(points)
    plain = saved.bytes
    with _Saved() as saved:
        kept = field.normals(points)
    del kept
    return (plain + NORMALS_A_SAMPLE * saved.bytes) / PROBE_POINTS
