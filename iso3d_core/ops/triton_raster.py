"""Which face each pixel sees, in Triton: the twin of `render.differentiable.find_faces`, whose reference casts rays."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

NEAR = 1e-3  # faces that come nearer to the camera's plane than this are left out
TILE = 8
EMPTY = torch.iinfo(torch.int64).max


@triton.jit
def _draw(screen, depth, faces, out, vertex_count, size, near: tl.constexpr, tile: tl.constexpr):
    """One face of one view: into each pixel whose centre it covers, the least of (depth's bits, number of the face)."""
    face, view = tl.program_id(0), tl.program_id(1)
    a = view * vertex_count + tl.load(faces + face * 3)
    b = view * vertex_count + tl.load(faces + face * 3 + 1)
    c = view * vertex_count + tl.load(faces + face * 3 + 2)
    ax, ay, az = tl.load(screen + a * 2), tl.load(screen + a * 2 + 1), tl.load(depth + a)
    bx, by, bz = tl.load(screen + b * 2), tl.load(screen + b * 2 + 1), tl.load(depth + b)
    cx, cy, cz = tl.load(screen + c * 2), tl.load(screen + c * 2 + 1), tl.load(depth + c)
    area = (bx - ax) * (cy - ay) - (by - ay) * (cx - ax)
    if (area != 0) & (tl.minimum(az, tl.minimum(bz, cz)) > near):
        left = tl.maximum(tl.ceil(tl.minimum(ax, tl.minimum(bx, cx))), 0).to(tl.int32)
        right = tl.minimum(tl.floor(tl.maximum(ax, tl.maximum(bx, cx))), size - 1).to(tl.int32)
        top = tl.maximum(tl.ceil(tl.minimum(ay, tl.minimum(by, cy))), 0).to(tl.int32)
        bottom = tl.minimum(tl.floor(tl.maximum(ay, tl.maximum(by, cy))), size - 1).to(tl.int32)
        for row in range(top, bottom + 1, tile):
            for column in range(left, right + 1, tile):
                x = column + tl.arange(0, tile)[None, :]
                y = row + tl.arange(0, tile)[:, None]
                u = ((bx - x) * (cy - y) - (by - y) * (cx - x)) / area
                v = ((cx - x) * (ay - y) - (cy - y) * (ax - x)) / area
                w = 1 - u - v
                inside = (u >= 0) & (v >= 0) & (w >= 0) & (x <= right) & (y <= bottom)
                seen = 1 / (u / az + v / bz + w / cz)  # 1 / depth is linear on the screen
                seen = tl.where(inside, seen, 1.0)
                # The bits of positive floats are in the order of their values.
                key = (seen.to(tl.int32, bitcast=True).to(tl.int64) << 32) | face
                tl.atomic_min(out + (view * size + y) * size + x, key, mask=inside)


def nearest_faces(screen: Tensor, depth: Tensor, faces: Tensor, size: int) -> Tensor:
    """The nearest face of each pixel centre, [V, size, size] int64, -1 where nothing is.

    screen : [V, n, 2] of the vertices in pixels, x right, y down, the first pixel's centre at (0, 0)
    depth : [V, n] from the cameras' planes; faces : [m, 3]; all on one CUDA device (in Triton's interpreter, on any)
    """
    views, count = depth.shape
    screen = torch.where((depth > NEAR)[..., None], screen, 0.0).float().contiguous()
    out = torch.full((views, size, size), EMPTY, dtype=torch.int64, device=depth.device)
    if len(faces):
        _draw[len(faces), views](
            screen, depth.float().contiguous(), faces.to(torch.int64).contiguous(), out, count, size, NEAR, TILE
        )
    return torch.where(out == EMPTY, -1, out & 0xFFFFFFFF)
