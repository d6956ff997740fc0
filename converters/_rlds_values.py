"""Features of an RLDS episode as streams of numbers and pictures, read by range.

What TFDS makes of a feature is told in ``_tfds.py``.
"""

from __future__ import annotations

import io
import struct
from collections.abc import Callable, Iterator
from functools import partial

import numpy as np

from ..schemas import Array, FormatError, StreamSpec
from ..schemas.episode import Kind
from ._jpeg import MAX_PIXELS, is_jpeg, picture_of
from ._jpeg import decoded as decoded_jpeg
from ._tfrecord import Values, inflated
from .base import rows_in

_PNG = b"\x89PNG\r\n\x1a\n"
_CHANNELS = {(0, 8): 1, (2, 8): 3, (6, 8): 4, (0, 16): 1}
"""By colour type and bits (PNG specification, third edition, 11.2.1). Palettes are not written by TFDS."""
_MAX_PNG_RATIO = 1_100
"""Deflate makes 1 byte into 1032 at most (RFC 1951); other chunks come on top."""

Decode = Callable[[bytes], Array]


# Numbers


def numbers(
    values: Values, dtype: str, spec: StreamSpec, block_bytes: int, start: int, stop: int
) -> Iterator[Array]:
    """Yield samples of a feature of numbers in blocks."""
    per, rows = int(np.prod(spec.shape, dtype=np.int64)), rows_in(block_bytes, spec)
    for first in range(start, stop, rows):
        last = min(first + rows, stop)
        found = values.numbers(first * per, last * per)
        yield _cast(values, found, dtype).reshape(last - first, *spec.shape)


def _cast(values: Values, found: Array, dtype: str) -> Array:
    """Return numbers in the declared dtype, which must hold them."""
    if dtype == "uint64":
        return found.view(np.uint64)
    wanted = np.dtype(dtype)
    if found.dtype.kind == "i" and wanted.kind in "iub":
        low, high = (0, 1) if dtype == "bool" else (np.iinfo(wanted).min, np.iinfo(wanted).max)
        if found.size and not low <= int(found.min()) <= int(found.max()) <= high:
            raise FormatError(str(values.path), values.where, f"holds an integer that is no {dtype}")
    with np.errstate(all="ignore"):  # signalling NaNs, and what a float16 cannot hold
        return found.astype(wanted)


# Tensors that are stored as bytes


def raw_tensor(data: bytes, dtype: str, shape: tuple[int, ...], encoding: str) -> Array:
    """Return a tensor out of its bytes, raw or zlib's: of this shape; `ValueError` if they do not fit."""
    wanted = np.dtype(dtype).newbyteorder("<")
    size = int(np.prod(shape, dtype=np.int64)) * wanted.itemsize
    found = inflated(data, size) if encoding == "zlib" else data
    if len(found) != size:
        raise ValueError(f"{len(found):,} bytes are no {dtype} of shape {list(shape)}")
    return np.frombuffer(found, wanted).reshape(shape)


# Pictures


def picture(data: bytes, name: str, *, real: bool) -> tuple[StreamSpec, str, Decode]:
    """Return the stream that a picture fits into, its encoding, and what decodes the others of the stream.

    Parameters
    ----------
    real
        The picture shows float32, whose four bytes are the four channels of a PNG (`_FloatImageEncoder` in
        tensorflow_datasets/core/features/image_feature.py).
    """
    if is_jpeg(data) and not real:
        found = picture_of(data)
        shape: tuple[int, ...] = (found.height, found.width, found.channels)
        spec = StreamSpec(name=name, kind="video", dtype="uint8", shape=shape)
        return spec, "jpeg", partial(decoded_jpeg, want=found, order="standard")
    height, width, channels, bits = size = _png_size(data)
    if real:
        if (channels, bits) != (4, 8):
            raise ValueError("is no PNG of four channels with 8 bits, which float32 is made into")
        spec = StreamSpec(name=name, kind="depth", dtype="float32", shape=(height, width))
        return spec, "png", partial(_real, size=size)
    if bits == 16:
        spec = StreamSpec(name=name, kind="depth", dtype="uint16", shape=(height, width))
    else:
        kind: Kind = "low_dim" if channels == 4 else "video"
        spec = StreamSpec(name=name, kind=kind, dtype="uint8", shape=(height, width, channels))
    return spec, "png", partial(_png, size=size, spec=spec)


def decoded(
    values: Values, decode: Decode, spec: StreamSpec, block_bytes: int, start: int, stop: int
) -> Iterator[Array]:
    """Yield samples made of one piece of bytes each, in blocks."""
    rows = rows_in(block_bytes, spec)
    pieces = values.pieces(start, stop)
    for first in range(start, stop, rows):
        block = np.empty((min(rows, stop - first), *spec.shape), spec.np_dtype)
        for i in range(len(block)):
            try:
                block[i] = decode(next(pieces))
            except FormatError:
                raise
            except ValueError as error:
                where = f"{values.where}[{first + i}]"
                raise FormatError(str(values.path), where, str(error)) from error
        yield block


def _png_size(data: bytes) -> tuple[int, int, int, int]:
    """Return height, width, channels and bits by a PNG's header; `ValueError` if it must not be decoded."""
    if not data.startswith(_PNG) or data[12:16] != b"IHDR" or len(data) < 33:
        raise ValueError("is neither JPEG nor PNG")
    width, height, bits, colour = struct.unpack_from(">IIBB", data, 16)
    channels = _CHANNELS.get((colour, bits))
    if channels is None:
        raise ValueError(f"is a PNG of colour type {colour} with {bits} bits, which is not read")
    size = width * height * channels * bits // 8
    if not 0 < width * height <= MAX_PIXELS or size > _MAX_PNG_RATIO * len(data):
        raise ValueError(f"{len(data)} bytes claim a picture of {width}×{height} pixels")
    return height, width, channels, bits


def _png(data: bytes, size: tuple[int, int, int, int], spec: StreamSpec) -> Array:
    from PIL import Image

    if _png_size(data) != size:
        raise ValueError("is of another size or form than the first of this stream")
    try:
        with Image.open(io.BytesIO(data), formats=("PNG",)) as image:
            image.load()
            found = np.asarray(image)
    except Exception as error:  # Pillow's errors for damaged pictures are of any kind
        raise ValueError(f"cannot be decoded: {error}") from error
    return found.astype(spec.np_dtype).reshape(spec.shape)


def _real(data: bytes, size: tuple[int, int, int, int]) -> Array:
    spec = StreamSpec(name="x", kind="low_dim", dtype="uint8", shape=size[:3])
    return _png(data, size, spec).view("<f4")[..., 0]
