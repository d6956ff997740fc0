"""JPEG pictures that a stranger encoded.

A header of a few bytes can promise 4 gigapixels, so the frame header (ITU-T T.81, B.2.2) is read here and
judged before a decoder sees the picture. Pillow decodes with libjpeg-turbo and its defaults, as OpenCV does:
the same pixels, but for OpenCV's order of channels. simplejpeg is a thinner coat around that library with
those defaults, so it goes first. It refuses what the library warns of; Pillow then has
the last word.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

MAX_PIXELS = 64_000_000
MAX_SCANS = 64

# Baseline coding needs 3 bits for 8×8 pixels of 4:2:0, which are 192 bytes once decoded: 512 to one.
MAX_RATIO = 1_100

ChannelOrder = Literal["opencv", "standard"]

_START, _END = b"\xff\xd8", b"\xff\xd9"
_SCAN = 0xDA
_ALONE = {0x01, *range(0xD0, 0xD9)}
_FRAMES = {0xC0, 0xC1, 0xC2}
_OTHER_FRAMES = set(range(0xC0, 0xD0)) - _FRAMES - {0xC4, 0xC8, 0xCC}


@dataclass(frozen=True, slots=True)
class Picture:
    """What a JPEG's frame header says."""

    height: int
    width: int
    channels: int


def is_jpeg(data: bytes) -> bool:
    """Tell whether bytes begin as every JPEG does: start of image, then another marker."""
    return data.startswith(_START + b"\xff")


def unpadded(data: bytes) -> bytes:
    """Return a JPEG without the zeros behind its end marker; `ValueError` if it has no end.

    No JPEG ends in a zero, so nothing of the picture can be lost.
    """
    cut = data.rstrip(b"\0")
    if not cut.endswith(_END):
        raise ValueError("the JPEG has no end marker: it was cut off")
    return cut


def picture_of(data: bytes) -> Picture:
    """Return what the frame header says, or raise `ValueError` if the picture must not be decoded."""
    if not is_jpeg(data):
        raise ValueError("is not a JPEG")
    at = 2
    while at + 4 <= len(data):
        marker = data[at + 1]
        if data[at] != 0xFF or marker == _SCAN:
            break
        if marker == 0xFF:
            at += 1
            continue
        if marker in _OTHER_FRAMES:
            raise ValueError(f"is a JPEG of an uncommon process (marker FF{marker:02X})")
        if marker in _FRAMES:
            return _judged(data, at)
        at += 2 if marker in _ALONE else 2 + int.from_bytes(data[at + 2 : at + 4], "big")
    raise ValueError("is a JPEG without a frame header")


def _judged(data: bytes, at: int) -> Picture:
    header = data[at + 4 : at + 10]
    if len(header) < 6 or header[0] != 8 or header[5] not in {1, 3}:
        raise ValueError("is neither grey nor colour with 8 bits")
    found = Picture(int.from_bytes(header[1:3], "big"), int.from_bytes(header[3:5], "big"), header[5])
    pixels = found.height * found.width
    if not 0 < pixels <= MAX_PIXELS or pixels * found.channels > MAX_RATIO * len(data):
        raise ValueError(f"{len(data)} bytes claim a picture of {found.width}×{found.height} pixels")
    if data.count(bytes((0xFF, _SCAN))) > MAX_SCANS:
        raise ValueError(f"has more than {MAX_SCANS} scans")
    return found


def decoded(
    data: bytes, want: Picture, order: ChannelOrder, out: NDArray[np.uint8] | None = None
) -> NDArray[np.uint8]:
    """Return the pixels of a JPEG: (H, W, C) uint8. `ValueError` if it is not the picture wanted.

    Parameters
    ----------
    order
        ``standard``: as the file says, red first. ``opencv``: as `cv2.imdecode` gives them, blue first,
        which is what a program had that gave red-first pixels to `cv2.imencode`.
    out
        Where to put the pixels, (H, W, C) and contiguous; None: an array of their own.
    """
    found = picture_of(data)
    if found != want:
        raise ValueError(f"is {found.width}×{found.height}×{found.channels}; the first of this camera is "
                         f"{want.width}×{want.height}×{want.channels}")  # fmt: skip
    pixels = np.empty((want.height, want.width, want.channels), np.uint8) if out is None else out
    if not _decode_fast(data, pixels, order):
        _decode(data, pixels, order)
    return pixels


def _decode_fast(data: bytes, out: NDArray[np.uint8], order: ChannelOrder) -> bool:
    """Decode with simplejpeg; False if it finds the least fault with the picture."""
    from simplejpeg import decode_jpeg

    colours = "GRAY" if out.shape[2] == 1 else "BGR" if order == "opencv" else "RGB"
    try:
        # Into an array of the size that was judged: it refuses a picture that is larger.
        return bool(decode_jpeg(data, colours, buffer=out).shape == out.shape)
    except ValueError:
        return False


def _decode(data: bytes, out: NDArray[np.uint8], order: ChannelOrder) -> None:
    from PIL import Image

    try:
        with Image.open(io.BytesIO(data), formats=("JPEG",)) as image:
            pixels = np.asarray(image)
    except Exception as error:  # Pillow's errors for damaged pictures are of any kind
        raise ValueError(f"cannot be decoded: {error}") from error
    pixels = pixels.reshape(out.shape)
    out[...] = pixels[..., ::-1] if order == "opencv" else pixels
