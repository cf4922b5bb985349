"""Images to read: a disc, and files that promise more than they hold."""

import struct
import zlib

import numpy as np

RED = np.array([220, 30, 40], np.uint8)


def disc(height=120, width=160, radius=40, supersampling=8):
    """Coverage [H, W] in [0, 1] of an antialiased disc, off the middle."""
    step = 1 / supersampling
    y, x = np.mgrid[step / 2 : height : step, step / 2 : width : step]
    inside = (y - 55) ** 2 + (x - 90) ** 2 < radius**2
    return inside.reshape(height, supersampling, width, supersampling).mean((1, 3))


def disc_on(background, coverage=None):
    coverage = disc() if coverage is None else coverage
    mixed = coverage[..., None] * RED + (1 - coverage[..., None]) * np.asarray(background, float)
    return mixed.round().astype(np.uint8)


def png_chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png_header(width, height):
    header = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + png_chunk(b"IHDR", header) + png_chunk(b"IDAT", zlib.compress(b"\0" * 64))
