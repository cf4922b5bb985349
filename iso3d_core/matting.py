"""The object of an image, cut out of its background: by the color of the border, by grabCut, or by rembg."""

from __future__ import annotations

import numpy as np

from .types import InputError

MIN_SIDE = 8  # pixels of an image that can be used
VISIBLE = 0.05  # alpha above this belongs to the object
OPAQUE = 0.98  # an alpha channel nowhere below this says nothing
BORDER_TOLERANCE = 0.06  # largest channel difference that still counts as the border's color
MATTINGS = ("auto", "rembg", "none")


def cut_out(rgba: np.ndarray, label: str, matting: str) -> np.ndarray:
    """The same image with the alpha of its object, [H, W, 4]."""
    alpha = rgba[..., 3]
    if alpha.max() <= VISIBLE:
        raise InputError(f"{label} is fully transparent; give one with something visible in it.")
    if alpha.min() < OPAQUE or matting == "none":
        return rgba
    color = rgba[..., :3]
    if matting == "rembg":
        rgba = np.dstack([color, _matte_with_rembg(color)])
    else:
        background = _border_color(color)
        rgba = np.dstack([color, _matte_with_grabcut(color)]) if background is None else _matte(color, background)
    if rgba[..., 3].max() <= VISIBLE:
        raise InputError(f"{label} shows nothing that stands out from the background; give it an alpha channel.")
    return rgba


def _border_color(color: np.ndarray) -> np.ndarray | None:
    """The color [3] of the outermost pixels, or None unless three quarters of them have it (the object may touch)."""
    border = np.concatenate([color[0], color[-1], color[1:-1, 0], color[1:-1, -1]])
    median = np.median(border, axis=0)
    uniform = np.abs(border - median).max(axis=1) < BORDER_TOLERANCE
    return median if uniform.mean() >= 0.75 else None


def _matte(color: np.ndarray, background: np.ndarray) -> np.ndarray:
    """Cut away what is connected to the border and has its color, with antialiased edges. [H, W, 3] to [H, W, 4]"""
    import cv2

    distance = np.abs(color - background).max(axis=2)
    # A frame of background around the image lets one fill reach every side.
    fill = np.pad((distance < BORDER_TOLERANCE).astype(np.uint8), 1, constant_values=1)
    cv2.floodFill(fill, None, (0, 0), (2,))
    outside = fill[1:-1, 1:-1] == 2
    inside = _drop_specks(~outside, smallest=0.01)

    # At an edge color = a * object + (1 - a) * background, so a is the ratio of the distances to the background.
    square = np.ones((5, 5), np.uint8)
    edge = inside & (cv2.dilate(outside.astype(np.uint8), square) > 0)
    alpha = inside.astype(np.float32)
    alpha[edge] = (distance / np.maximum(cv2.dilate(distance, square), 1e-6))[edge]
    pure = background + (color - background) / np.maximum(alpha, VISIBLE)[..., None]
    return np.dstack([np.where(edge[..., None], np.clip(pure, 0, 1), color), alpha]).astype(np.float32)


def _matte_with_grabcut(color: np.ndarray) -> np.ndarray:
    """Alpha [H, W] of the largest thing that differs from the rim of the image."""
    import cv2

    height, width = color.shape[:2]
    scale = min(1.0, 512 / max(height, width))  # grabCut takes seconds per megapixel
    small_size = (max(MIN_SIDE, round(width * scale)), max(MIN_SIDE, round(height * scale)))
    small = (cv2.resize(color, small_size, interpolation=cv2.INTER_AREA) * 255).round().astype(np.uint8)
    inset_x, inset_y = (max(1, round(0.04 * side)) for side in small_size)
    rectangle = (inset_x, inset_y, small_size[0] - 2 * inset_x, small_size[1] - 2 * inset_y)
    mask = np.zeros(small.shape[:2], np.uint8)
    cv2.setRNGSeed(0)  # its k-means starts at random: the same image must give the same cut
    cv2.grabCut(small, mask, rectangle, np.zeros((1, 65)), np.zeros((1, 65)), 5, cv2.GC_INIT_WITH_RECT)
    inside = _drop_specks((mask == cv2.GC_FGD) | (mask == cv2.GC_PR_FGD), smallest=1.0)
    return cv2.resize(inside.astype(np.float32), (width, height), interpolation=cv2.INTER_LINEAR)


def _drop_specks(mask: np.ndarray, smallest: float) -> np.ndarray:
    """The connected parts of a mask [H, W] with at least ``smallest`` times the area of the largest one."""
    import cv2

    _, labels, stats, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8))
    areas = stats[:, cv2.CC_STAT_AREA].copy()
    areas[0] = 0
    return (areas >= max(1, smallest * areas.max()))[labels]


def _matte_with_rembg(color: np.ndarray) -> np.ndarray:
    try:
        from rembg import remove
    except (ImportError, SystemExit) as error:  # rembg exits where it finds no onnxruntime
        raise InputError('Matting by rembg needs a package: pip install "iso3d[matting]".') from error
    try:
        mask = remove((color * 255).round().astype(np.uint8), only_mask=True)
    except Exception as error:  # it downloads its network at first, by a library of its own
        raise InputError(f"rembg failed ({error}); its network is downloaded at first use") from error
    return np.asarray(mask).astype(np.float32) / 255
