"""PNG pictures that a stranger encoded (ISO/IEC 15948).

A header of a few bytes can promise 4 gigapixels, so it is read here and judged before a decoder sees the
picture. Colours of 16 bits are never read: Pillow would cut them to 8 without a word.
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

# By colour type (11.2.1): samples of a pixel as they are stored, and channels as they come out.
_GREY, _COLOUR, _PALETTE, _GREY_ALPHA, _ALPHA = 0, 2, 3, 4, 6
_STORED = {_GREY: 1, _COLOUR: 3, _PALETTE: 1, _GREY_ALPHA: 2, _ALPHA: 4}
_CHANNELS = {**_STORED, _PALETTE: 3}

Forms = frozenset[tuple[int, int]]
"""Colour types and bits that a format's writers are known to make."""

PLAIN: Forms = frozenset({(_GREY, 8), (_COLOUR, 8), (_GREY, 16)})
WITH_ALPHA = PLAIN | {(_ALPHA, 8)}
ANY = (
    WITH_ALPHA
    | {(_GREY_ALPHA, 8)}
    | {(kind, bits) for kind in (_GREY, _PALETTE) for bits in (1, 2, 4)}
    | {(_PALETTE, 8)}
)


@dataclass(frozen=True, slots=True)
class PngPicture:
    """What a PNG's header says.

    Attributes
    ----------
    channels
        That come out of the decoder: 1 and 3, or 2 and 4 with an alpha channel behind.
    bits
        Of a sample that comes out: 8, or 16 of grey.
    """

    height: int
    width: int
    channels: int
    bits: int


def is_png(data: bytes) -> bool:
    """Tell whether bytes begin as every PNG does."""
    return data.startswith(_SIGNATURE)


def png_of(data: bytes, forms: Forms = PLAIN) -> PngPicture:
    """Return what the header says, or raise `ValueError` if the picture must not be decoded."""
    if not is_png(data) or len(data) < 33 or data[12:16] != b"IHDR":
        raise ValueError("is not a PNG")
    width, height, bits, colour = _HEADER.unpack_from(data, 16)
    if (colour, bits) not in forms:
        raise ValueError(f"is a PNG of {bits} bits and colour type {colour}, which is not read")
    pixels = width * height
    stored = pixels * _STORED[colour] * bits // 8
    if not 0 < pixels <= MAX_PIXELS or stored > MAX_RATIO * len(data) + _GRACE:
        raise ValueError(f"{len(data)} bytes claim a picture of {width}×{height} pixels")
    return PngPicture(height, width, _CHANNELS[colour], max(8, bits))


def decoded_png(data: bytes, want: PngPicture, forms: Forms = PLAIN) -> Array:
    """Return the pixels: (H, W, C) uint8, or (H, W) uint16 of a grey picture of 16 bits.

    Raises
    ------
    ValueError
        If it is not the picture wanted, or is damaged.
    """
    from PIL import Image

    found = png_of(data, forms)
    if found != want:
        raise ValueError(f"is {found}; the first of this camera is {want}")
    try:
        with Image.open(io.BytesIO(data), formats=("PNG",)) as image:
            mode = {"P": "RGB", "1": "L"}.get(image.mode)
            pixels = np.asarray(image.convert(mode) if mode else image)
    except Exception as error:  # Pillow's errors for damaged pictures are of any kind
        raise ValueError(f"cannot be decoded: {error}") from error
    if want.bits == 16:
        return pixels.astype(np.uint16).reshape(want.height, want.width)
    return pixels.reshape(want.height, want.width, want.channels)
