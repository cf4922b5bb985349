"""A field with its occupancy grid: what an optimisation changes, a checkpoint holds, and a file keeps."""

from __future__ import annotations

import json
import os
from dataclasses import asdict
from pathlib import Path

import torch
from torch import Tensor, nn

from ..cameras import Cameras, even_azimuths, orbit
from ..config import FieldConfig, RenderConfig
from ..render.volume import Occupancy, render
from ..types import InputError
from .hashgrid import HashGridField

SUFFIX = ".safetensors"


class Scene(nn.Module):
    """A `HashGridField` and the `Occupancy` grid that says where it is empty."""

    def __init__(self, field: FieldConfig, settings: RenderConfig, seed: int = 0) -> None:
        super().__init__()
        self.settings = settings
        self.field = HashGridField(field, seed=seed)
        self.occupancy = Occupancy(
            settings.occupancy, settings.occupancy_threshold, settings.occupancy_decay, settings.samples
        )

    def density(self, points: Tensor) -> Tensor:
        """World points [N, 3] -> density [N], 0 where the occupancy grid forbids any."""
        return self.field.density(points) * self.occupancy.permits(points)

    @torch.no_grad()
    def surface_color(self, points: Tensor, step: float = 0.015, samples: int = 5) -> Tensor:
        """Base color [N, 3] seen at surface points [N, 3] from outside: composited over a short way inwards.

        At the isosurface itself the field is still thin, and its color there was hardly ever seen.
        """
        inwards = -self.field.normals(points)
        color, left = torch.zeros_like(points), torch.ones_like(points[:, :1])
        for i in range(samples):
            density, albedo = self.field(points + inwards * (step * i))
            alpha = 1 - torch.exp(-density * step)[:, None] if i < samples - 1 else torch.ones_like(left)
            color += left * alpha * albedo
            left = left * (1 - alpha)
        return color

    @torch.no_grad()
    def preview(self, size: int = 64) -> Tensor:
        """Four views [4, 3, size, size] of base color, for people."""
        return self.view(orbit(even_azimuths(4), 15.0), size, "color")[:, :3]

    @torch.no_grad()
    def view(self, cameras: Cameras, size: int, style: str = "color", background: float | None = 1.0) -> Tensor:
        """[V, 4, size, size] in [0, 1]: base color, "normal" (world * 0.5 + 0.5), "depth" (near 1, far 0) or "mask".

        background : grey behind the object; None leaves straight colors. The fourth channel is opacity, which a mask
        has in every channel. Raises InputError for another style.
        """
        cameras = cameras.to(self.field.table.device)
        out = render(self.field, cameras, size, self.settings.samples, self.occupancy, normals=style == "normal")
        alpha = out.opacity
        if style == "mask":
            return alpha.expand(-1, 4, -1, -1)
        if style == "color":
            rgb = ((out.rgb - (1 - alpha)) / alpha.clamp(min=1e-3)).clamp(0, 1)  # rendered on white
        elif style == "depth":
            depth = out.depth / alpha.clamp(min=1e-3)
            seen = alpha > 0.5
            near, far = (depth[seen].min(), depth[seen].max()) if bool(seen.any()) else (0.0, 1.0)
            rgb = ((far - depth) / max(float(far - near), 1e-6)).clamp(0, 1).expand(-1, 3, -1, -1)
        elif style == "normal":
            total = torch.zeros(len(cameras) * size * size, 3, device=alpha.device)
            if out.normals is not None and out.normal_rows is not None:
                rows = out.normal_rows
                total.index_add_(0, out.rays[rows], out.normals * out.weights[rows, None])
            normal = torch.nn.functional.normalize(total, dim=-1).reshape(len(cameras), size, size, 3)
            rgb = normal.permute(0, 3, 1, 2) * 0.5 + 0.5
        else:
            raise InputError(f"unknown style {style!r} for a field; use one of color, normal, depth, mask")
        if background is not None:
            rgb = rgb * alpha + background * (1 - alpha)
        return torch.cat([rgb, alpha], dim=1)

    def save(self, path: Path) -> None:
        """Write a .safetensors file with the settings inside."""
        from safetensors import SafetensorError
        from safetensors.torch import save_file

        part = path.with_name(path.name + ".part")
        header = {"field": json.dumps(asdict(self.field.config)), "render": json.dumps(asdict(self.settings))}
        try:
            save_file({k: v.contiguous().cpu() for k, v in self.state_dict().items()}, part, metadata=header)
            os.replace(part, path)
        except (OSError, RuntimeError, SafetensorError) as error:
            part.unlink(missing_ok=True)
            raise InputError(f"cannot write {path}: {error}; choose another output") from None

    @staticmethod
    def load(path: Path) -> Scene:
        """Read what `save` wrote; raises InputError for anything else."""
        from safetensors import SafetensorError, safe_open

        try:
            with safe_open(path, framework="pt") as file:
                header = file.metadata() or {}
                state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a dict
            scene = Scene(FieldConfig(**json.loads(header["field"])), RenderConfig(**json.loads(header["render"])))
            scene.field.tint = tint = state.get("field.tint")
            if tint is not None and (tint.ndim != 4 or len(tint) != 3):
                raise RuntimeError(f"its tint is {list(tint.shape)}, not [3, z, y, x]")
            scene.load_state_dict(state)
        except (OSError, SafetensorError, KeyError, TypeError, RuntimeError, json.JSONDecodeError) as error:
            raise InputError(f"{path} is not a field saved by `iso3d generate --keep-field` ({error})") from None
        return scene
