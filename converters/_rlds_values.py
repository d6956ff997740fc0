"""Features of an RLDS episode as streams of numbers and pictures, read by range.

What TFDS makes of a feature is told in ``_tfds.py``.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import numpy as np

from ..schemas import Array, FormatError, StreamSpec
from ._pictures import Decode, Shown, in_blocks, pixels_of, shown
from ._png import WITH_ALPHA
from ._tfrecord import Values, inflated
from .base import rows_in

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
    found = shown(data, "png" if real else None, WITH_ALPHA)
    if not real:
        spec = StreamSpec(name=name, kind=found.kind, dtype=found.dtype, shape=found.shape)
        return spec, found.encoding, partial(pixels_of, want=found)
    if found.shape[2:] != (4,):
        raise ValueError("is no PNG of four channels with 8 bits, which float32 is made into")
    spec = StreamSpec(name=name, kind="depth", dtype="float32", shape=found.shape[:2])
    return spec, "png", partial(_real, want=found)


def _real(data: bytes, want: Shown) -> Array:
    return np.ascontiguousarray(pixels_of(data, want)).view("<f4")[..., 0]


def decoded(
    values: Values, decode: Decode, spec: StreamSpec, block_bytes: int, start: int, stop: int
) -> Iterator[Array]:
    """Yield samples made of one piece of bytes each, in blocks."""

    def blame(number: int, why: str) -> FormatError:
        return FormatError(str(values.path), f"{values.where}[{number}]", why)

    return in_blocks(values.pieces(start, stop), decode, rows_in(block_bytes, spec), start, blame)
