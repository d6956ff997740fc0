"""Pictures that strangers encoded, JPEG or PNG, as samples of a stream.

The one way from bytes to pixels: a header is judged before a decoder sees the picture, and every picture of a
stream has to be like the first.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Literal, TypeVar

import numpy as np

from ..schemas import Array, FormatError
from ._jpeg import ChannelOrder, Picture, decoded, is_jpeg, picture_of, unpadded
from ._png import PLAIN, Forms, PngPicture, decoded_png, is_png, png_of

Encoding = Literal["jpeg", "png"]

Stored = TypeVar("Stored")

Decode = Callable[[bytes], Array]
"""Makes a stored picture into a sample; `ValueError` if it is damaged or not like the others."""


@dataclass(frozen=True, slots=True)
class Shown:
    """What a picture's header says, and the kind of stream that it fits into.

    Attributes
    ----------
    dtype, shape
        Of a sample: (H, W, 1) or (H, W, 3) uint8 of ``video``, (H, W) uint16 of ``depth``; with an alpha
        channel (H, W, 2) or (H, W, 4) uint8 of ``low_dim``.
    forms
        Which PNGs its stream may hold.
    """

    picture: Picture | PngPicture
    kind: Literal["video", "depth", "low_dim"]
    dtype: str
    shape: tuple[int, ...]
    forms: Forms

    @property
    def encoding(self) -> Encoding:
        """The file format."""
        return "jpeg" if isinstance(self.picture, Picture) else "png"


def shown(data: bytes, encoding: Encoding | None = None, forms: Forms = PLAIN) -> Shown:
    """Return what a picture's header says; `ValueError` if it must not be decoded.

    Parameters
    ----------
    encoding
        The only one allowed; None: either.
    """
    if encoding is None and not is_jpeg(data) and not is_png(data):
        raise ValueError("is neither JPEG nor PNG")
    if encoding == "jpeg" or (encoding is None and is_jpeg(data)):
        picture: Picture | PngPicture = picture_of(data)
    else:
        picture = png_of(data, forms)
        if picture.bits == 16:
            return Shown(picture, "depth", "uint16", (picture.height, picture.width), forms)
    shape = (picture.height, picture.width, picture.channels)
    return Shown(picture, "video" if picture.channels in {1, 3} else "low_dim", "uint8", shape, forms)


def pixels_of(data: bytes, want: Shown, order: ChannelOrder = "standard", *, padded: bool = False) -> Array:
    """Return the pixels of a picture: ``want.shape``. `ValueError` if it is not the picture wanted.

    Parameters
    ----------
    order
        ``opencv`` if red and blue were given to the encoder in each other's place.
    padded
        There may be zeros behind a JPEG.
    """
    if isinstance(want.picture, Picture):
        return decoded(unpadded(data) if padded else data, want.picture, order)
    pixels = decoded_png(data, want.picture, want.forms)
    return pixels[..., ::-1] if order == "opencv" and want.kind == "video" else pixels


def in_blocks(
    files: Iterable[Stored],
    decode: Callable[[Stored], Array],
    rows: int,
    start: int,
    blame: Callable[[int, str], FormatError],
) -> Iterator[Array]:
    """Yield decoded pictures, ``rows`` at a time.

    Parameters
    ----------
    files
        The pictures from number ``start`` on.
    blame
        Makes the error for a picture of this number, and what is wrong with it.
    """
    held: list[Array] = []
    for number, data in enumerate(files, start):
        try:
            held.append(decode(data))
        except FormatError:
            raise
        except ValueError as error:
            raise blame(number, str(error)) from error
        if len(held) == rows:
            yield held[0][None] if rows == 1 else np.stack(held)
            held = []
    if held:
        yield np.stack(held)
