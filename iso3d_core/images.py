"""A file or an array in; an upright, matted, square and centred `Reference` out."""

from __future__ import annotations

import io
import os
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from .matting import MATTINGS, MIN_SIDE, VISIBLE, cut_out
from .types import InputError, Reference

if TYPE_CHECKING:
    from PIL import Image
    from torch import Tensor

MAX_SIDE = 16384
MAX_PIXELS = 64_000_000
SCALE_DOWN = f"scale it down to at most {MAX_PIXELS // 10**6} megapixels and {MAX_SIDE} px a side"
# Only plain raster formats: Pillow would hand EPS to an external program.
FORMATS = ("PNG", "JPEG", "MPO", "WEBP", "AVIF", "BMP", "GIF", "TIFF", "TGA", "PPM", "JPEG2000", "ICO", "DDS", "QOI")


def load_reference(
    source: str | os.PathLike[str] | Image.Image | np.ndarray | Tensor,
    size: int = 256,
    margin: float = 0.1,
    matting: str = "auto",
) -> Reference:
    """The reference image of an object: upright, cut out, cropped to the object and centred.

    source : path of an image file, PIL image, array [H, W] or [H, W, 1|3|4], or tensor [C, H, W] with C 1, 3 or 4;
        uint8, uint16, bool, or float in [0, 1]
    size : side of the result in pixels
    margin : empty band on each side, as a fraction of ``size``, in [0, 0.5)
    matting : how to cut out the object where the image has no alpha of its own. "auto": by the color of the border
        where that is nearly uniform, else by grabCut; "rembg": by a network, if rembg is installed; "none": the
        whole image is the object

    Returns a `Reference` with rgba [4, size, size] float32 in [0, 1], straight alpha, black where alpha is 0; its
    name is the stem of the path, or "image". Raises InputError for anything that is not a usable image.
    """
    import torch

    if size < MIN_SIDE:
        raise InputError(f"The size of the reference is {size} px; it must be at least {MIN_SIDE} px.")
    if not 0 <= margin < 0.5:
        raise InputError(f"The margin is {margin}; it must be at least 0 and below 0.5.")
    if matting not in MATTINGS:
        raise InputError(f"The matting {matting!r} is unknown; choose one of {', '.join(MATTINGS)}.")

    # More pixels than this cannot show in the result, but would cost gigabytes as floats.
    work_side = max(2048, 4 * size)
    if isinstance(source, (str, os.PathLike)):
        path = Path(source)
        name, label = path.stem, f"The image {path.name!r}"
        rgba = _read_file(path, label, work_side)
    else:
        name, label = "image", "The image"
        rgba = _read_object(source, label, work_side)

    rgba = cut_out(rgba, label, matting)
    top, bottom, left, right = _bounds(rgba[..., 3])
    if max(bottom - top, right - left) < MIN_SIDE:
        found = f"{right - left} x {bottom - top} px"
        raise InputError(f"{label} shows an object of only {found}; give one where it is at least {MIN_SIDE} px large.")
    return Reference(torch.from_numpy(center_crop(rgba, size, margin)).permute(2, 0, 1).contiguous(), name)


def center_crop(rgba: np.ndarray, size: int, margin: float = 0.1) -> np.ndarray:
    """The visible part of an image, scaled to fill the square but for the margin, exactly in the middle.

    rgba : [H, W, 4] float in [0, 1], straight alpha
    size : side of the result in pixels
    margin : empty band on each side, as a fraction of ``size``, in [0, 0.5)

    Returns [size, size, 4] float32, straight alpha. The lengths are rounded to the parity of ``size`` (at most one
    pixel off), so the object is centred without a half-pixel shift. Raises InputError where nothing is visible.
    """
    import cv2

    top, bottom, left, right = _bounds(rgba[..., 3])
    part = rgba[top:bottom, left:right].astype(np.float32)
    part[..., :3] *= part[..., 3:]  # premultiplied: what is transparent must not color the edges
    scale = size * (1 - 2 * margin) / max(part.shape[:2])
    height, width = (_fit_parity(length * scale, size) for length in part.shape[:2])
    resized = cv2.resize(part, (width, height), interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR)
    color, alpha = resized[..., :3], resized[..., 3:]
    out = np.zeros((size, size, 4), np.float32)
    y, x = (size - height) // 2, (size - width) // 2
    out[y : y + height, x : x + width, :3] = np.clip(color / np.maximum(alpha, 1e-6), 0, 1)
    out[y : y + height, x : x + width, 3:] = np.clip(alpha, 0, 1)  # the filter rounds a hair beyond
    return out


def _fit_parity(length: float, size: int) -> int:
    odd = size % 2
    return min(size, max(2 - odd, 2 * round((length - odd) / 2) + odd))


def load_view(path: str | os.PathLike[str], matting: str = "auto") -> tuple[Tensor, Tensor]:
    """A view of an object as it is, not cropped: rgb [3, H, W] on white and the object's mask [1, H, W], in [0, 1].

    Raises InputError for anything that is not a usable image.
    """
    import torch

    path = Path(path)
    label = f"The image {path.name!r}"
    rgba = torch.from_numpy(cut_out(_read_file(path, label, 2048), label, matting)).permute(2, 0, 1).float()
    return rgba[:3] * rgba[3:] + 1 - rgba[3:], rgba[3:]


def _bounds(alpha: np.ndarray) -> tuple[int, int, int, int]:
    """(top, bottom, left, right) of the visible part, ends exclusive."""
    mask = alpha > VISIBLE
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    if not len(rows):
        raise InputError("The image is fully transparent; give one with something visible in it.")
    return int(rows[0]), int(rows[-1]) + 1, int(columns[0]), int(columns[-1]) + 1


def _check_size(width: int, height: int, label: str) -> None:
    if min(width, height) < MIN_SIDE:
        problem = "empty" if min(width, height) == 0 else "too small"
        raise InputError(f"{label} is {problem} ({width} x {height} px); give one of at least {MIN_SIDE} px a side.")
    if max(width, height) > MAX_SIDE or width * height > MAX_PIXELS:
        raise InputError(f"{label} is too large ({width} x {height} px); {SCALE_DOWN}.")


@contextmanager
def _explained(label: str) -> Iterator[None]:
    """Turn what Pillow raises into InputError, and keep its warnings (of sizes and odd metadata) to ourselves."""
    from PIL import Image, UnidentifiedImageError

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            yield
        except InputError:
            raise
        except Image.DecompressionBombError as error:
            pixels = re.search(r"\d+", str(error))
            count = f"{int(pixels[0]) / 1e6:.0f}" if pixels else "hundreds of"
            raise InputError(f"{label} is too large ({count} megapixels); {SCALE_DOWN}.") from error
        except UnidentifiedImageError as error:
            raise InputError(f"{label} is not an image in a known format; save it as PNG or JPEG.") from error
        except PermissionError as error:
            raise InputError(f"{label} may not be read; change the permissions of the file.") from error
        except Exception as error:  # decoders of damaged files raise whatever they stumble over
            raise InputError(f"{label} cannot be decoded ({error}); it may be damaged: save it again.") from error


def _read_file(path: Path, label: str, work_side: int) -> np.ndarray:
    from PIL import Image

    if path.is_dir():
        raise InputError(f"{str(path)!r} is a folder; give the path of an image file.")
    if not path.is_file():
        raise InputError(f"There is no image file {str(path)!r}; check the path.")
    Image.init()
    formats = [name for name in FORMATS if name in Image.OPEN]
    with _explained(label), Image.open(path, formats=formats) as image:
        return _read_pil(image, label, work_side)


def _read_object(source: Any, label: str, work_side: int) -> np.ndarray:
    import torch
    from PIL import Image

    if isinstance(source, Image.Image):
        with _explained(label):
            return _read_pil(source, label, work_side)
    if isinstance(source, torch.Tensor):
        if source.ndim != 3 or source.shape[0] not in (1, 3, 4):
            raise InputError(f"{label} is a tensor of shape {list(source.shape)}; give [C, H, W] with C 1, 3 or 4.")
        source = source.detach().cpu().permute(1, 2, 0)
        source = (source.float() if source.is_floating_point() else source).numpy()
    if not isinstance(source, np.ndarray):
        raise InputError(f"{label} is a {type(source).__name__}; give a path, a PIL image, an array or a tensor.")
    return _read_array(source, label, work_side)


def _read_pil(image: Image.Image, label: str, work_side: int) -> np.ndarray:
    from PIL import ImageOps

    _check_size(*image.size, label)  # from the header, before anything is decoded
    image = ImageOps.exif_transpose(image)
    if image.mode.startswith("I") or image.mode == "F":
        array = np.asarray(image)
        if image.mode == "I" and array.min() >= 0 and array.max() <= 65535:
            array = array.astype(np.uint16)  # how older Pillow opens 16-bit PNGs
        return _read_array(array, label, work_side)
    image = _in_srgb(image)
    if image.mode in ("CMYK", "YCbCr", "LAB", "HSV", "RGBX"):
        image = image.convert("RGB")
    # 16 bits per channel come out of Pillow as their high bytes, which is all that the result can show.
    image = image.convert("RGBA")
    if max(image.size) > work_side:
        image = image.reduce(-(-max(image.size) // work_side))
    return _read_array(np.asarray(image), label, work_side)


def _in_srgb(image: Image.Image) -> Image.Image:
    """Its colors in sRGB, where it says by an ICC profile that they are others (telephones write Display P3)."""
    from PIL import ImageCms

    profile = image.info.get("icc_profile")
    if not profile or image.mode not in ("RGB", "RGBA", "P", "CMYK"):
        return image
    try:
        own = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        if "srgb" in ImageCms.getProfileDescription(own).lower():
            return image
        image = image.convert("RGBA") if image.mode == "P" else image
        color = image.convert("RGB") if image.mode == "RGBA" else image
        converted = ImageCms.profileToProfile(color, own, ImageCms.createProfile("sRGB"), outputMode="RGB")
    except (ImageCms.PyCMSError, OSError, ValueError):
        return image  # a broken profile, or one for other channels, says nothing
    assert converted is not None
    if image.mode == "RGBA":
        converted.putalpha(image.getchannel("A"))
    return converted


def _read_array(array: np.ndarray, label: str, work_side: int) -> np.ndarray:
    """[H, W] or [H, W, 1|3|4] of any supported type to [H, W, 4] float32 in [0, 1], reduced to ``work_side``."""
    if array.ndim not in (2, 3) or (array.ndim == 3 and array.shape[2] not in (1, 3, 4)):
        raise InputError(f"{label} has the shape {list(array.shape)}; give [H, W] or [H, W, C] with C 1, 3 or 4.")
    _check_size(array.shape[1], array.shape[0], label)
    if array.dtype.kind == "f":
        low, high = float(array.min()), float(array.max())
        if np.isnan(low):
            raise InputError(f"{label} holds NaN in {int(np.isnan(array).sum())} values; give finite values in [0, 1].")
        if low < -0.01 or high > 1.01:
            raise InputError(f"{label} has values from {low:.4g} to {high:.4g}; scale floats to [0, 1].")
    elif array.dtype.kind not in "bu" or array.dtype.itemsize > 2:
        raise InputError(f"{label} has values of type {array.dtype}; give uint8, uint16 or float in [0, 1].")
    factor = -(-max(array.shape[:2]) // work_side)
    if factor == 1:
        return _to_rgba(array)
    # Strip by strip: the whole as floats would take gigabytes.
    strips = (array[top : top + 64 * factor] for top in range(0, len(array), 64 * factor))
    return np.concatenate([_reduced(_to_rgba(strip), factor) for strip in strips])


def _to_rgba(array: np.ndarray) -> np.ndarray:
    """As `_read_array`, of values that were found good."""
    kind = array.dtype.kind
    full = np.float32(np.iinfo(array.dtype).max if kind == "u" else 1)
    values = np.atleast_3d(np.clip(array, 0, 1) if kind == "f" else array).astype(np.float32) / full
    color = values[..., :3] if values.shape[2] >= 3 else values.repeat(3, axis=2)
    return np.dstack([color, values[..., 3] if values.shape[2] == 4 else np.ones_like(values[..., 0])])


def _reduced(rgba: np.ndarray, factor: int) -> np.ndarray:
    """[H, W, 4] with straight alpha -> a ``factor``-th of it, rounded up."""
    import cv2

    height, width = (-(-side // factor) for side in rgba.shape[:2])
    alpha = rgba[..., 3:]
    mean = cv2.resize(np.dstack([rgba[..., :3] * alpha, alpha]), (width, height), interpolation=cv2.INTER_AREA)
    return np.dstack([mean[..., :3] / np.maximum(mean[..., 3:], np.float32(1e-6)), mean[..., 3]])
