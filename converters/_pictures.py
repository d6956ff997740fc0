"""JPEG and PNG pictures in columns of bytes, as samples of a stream."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from ..schemas import Array
from ._jpeg import ChannelOrder, Picture, decoded, picture_of, unpadded
from ._png import PngPicture, decoded_png, png_of

Encoding = Literal["jpeg", "png"]


@dataclass(frozen=True, slots=True)
class Shown:
    """What a picture's header says, and the kind of stream that it fits into.

    Attributes
    ----------
    dtype, shape
        Of a sample: (H, W, 1) or (H, W, 3) uint8 of ``video``, (H, W) uint16 of ``depth``.
    """

    picture: Picture | PngPicture
    kind: Literal["video", "depth"]
    dtype: str
    shape: tuple[int, ...]


def shown(data: bytes, encoding: Encoding) -> Shown:
    """Return what a picture's header says; `ValueError` if it must not be decoded."""
    if encoding == "jpeg":
        jpeg = picture_of(data)
        return Shown(jpeg, "video", "uint8", (jpeg.height, jpeg.width, jpeg.channels))
    png = png_of(data)
    if png.bits == 16:
        if png.channels != 1:
            raise ValueError("has colours of 16 bits, which are not read")
        return Shown(png, "depth", "uint16", (png.height, png.width))
    return Shown(png, "video", "uint8", (png.height, png.width, png.channels))


def pixels_of(data: bytes, want: Shown, order: ChannelOrder) -> Array:
    """Return the pixels of a picture: ``want.shape``. `ValueError` if it is not the picture wanted.

    Parameters
    ----------
    data
        The file, perhaps with zeros behind it.
    order
        ``opencv`` if red and blue were given to the encoder in each other's place.
    """
    if isinstance(want.picture, Picture):
        return decoded(unpadded(data), want.picture, order)
    pixels = decoded_png(data, want.picture).reshape(want.shape)
    return pixels[..., ::-1] if order == "opencv" and want.kind == "video" else pixels
