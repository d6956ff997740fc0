"""PNG pictures that a stranger encoded (ISO/IEC 15948): grey or red-green-blue of 8 bits, grey of 16.

A header of a few bytes can promise 4 gigapixels, so it is read here and judged before a decoder sees the
picture.
"""

from __future__ import annotations

import io
import struct
from dataclasses import dataclass

import numpy as np

from ..schemas import Array

MAX_PIXELS = 64_000_000

# Deflate gives at most 258 bytes for two bits (RFC 1951).
MAX_RATIO = 1_100
_GRACE = 1 << 12

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_HEADER = struct.Struct(">IIBB")
_CHANNELS = {0: 1, 2: 3}


@dataclass(frozen=True, slots=True)
class PngPicture:
    """What a PNG's header says."""

    height: int
    width: int
    channels: int
    bits: int


def is_png(data: bytes) -> bool:
    """Tell whether bytes begin as every PNG does."""
    return data.startswith(_SIGNATURE)


def png_of(data: bytes) -> PngPicture:
    """Return what the header says, or raise `ValueError` if the picture must not be decoded."""
    if not is_png(data) or len(data) < 33 or data[12:16] != b"IHDR":
        raise ValueError("is not a PNG")
    width, height, bits, colour = _HEADER.unpack_from(data, 16)
    channels = _CHANNELS.get(colour, 0)
    if (channels, bits) not in {(1, 8), (3, 8), (1, 16), (3, 16)}:
        raise ValueError(f"is a PNG of {bits} bits and colour type {colour}, which is not read")
    pixels = width * height
    if not 0 < pixels <= MAX_PIXELS or pixels * channels * bits // 8 > MAX_RATIO * len(data) + _GRACE:
        raise ValueError(f"{len(data)} bytes claim a picture of {width}×{height} pixels")
    return PngPicture(height, width, channels, bits)


def decoded_png(data: bytes, want: PngPicture) -> Array:
    """Return the pixels: (H, W, C) uint8, or (H, W) uint16 of a grey picture of 16 bits.

    Raises
    ------
    ValueError
        If it is not the picture wanted, is damaged, or has colours of 16 bits.
    """
    from PIL import Image

    found = png_of(data)
    if found != want:
        raise ValueError(f"is {found}; the first of this camera is {want}")
    if (want.channels, want.bits) == (3, 16):
        raise ValueError("has colours of 16 bits, which are not read")
    try:
        with Image.open(io.BytesIO(data), formats=("PNG",)) as image:
            pixels = np.asarray(image)
    except Exception as error:  # Pillow's errors for damaged pictures are of any kind
        raise ValueError(f"cannot be decoded: {error}") from error
    if want.bits == 16:
        return pixels.astype(np.uint16).reshape(want.height, want.width)
    return pixels.reshape(want.height, want.width, want.channels)
