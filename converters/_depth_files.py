"""Depth as a PNG file a frame, and one record for many small files."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from ..schemas import Array, FormatError, SourceFile, StreamSpec
from ._png import PngPicture, decoded_png, png_of
from .base import source_file

_MAX_PNG_BYTES = 1 << 26


def picture_of_depth(path: Path) -> PngPicture:
    """Return what a file's header says; `FormatError` if it is no grey PNG of 16 bits."""
    try:
        found = png_of(_bytes(path))
    except ValueError as error:
        raise FormatError(str(path), "PNG", str(error)) from error
    if (found.channels, found.bits) != (1, 16):
        raise FormatError(str(path), "PNG", f"is {found}; depth is grey of 16 bits")
    return found


def read_depth(
    files: Sequence[Path], picture: PngPicture, spec: StreamSpec, rows: int, start: int, stop: int
) -> Iterator[Array]:
    """Yield the pictures of files ``[start, stop)``, ``rows`` at a time."""
    stop = min(stop, len(files))
    for first in range(start, stop, rows):
        block = np.empty((min(rows, stop - first), *spec.shape), spec.np_dtype)
        for i in range(len(block)):
            path = files[first + i]
            try:
                block[i] = decoded_png(_bytes(path), picture)
            except ValueError as error:
                raise FormatError(str(path), "PNG", str(error)) from error
        yield block


def source_of_files(files: Sequence[Path], root: Path, uri: str, *, role: str) -> SourceFile:
    """Return one record for many small files: a digest of their digests and names, in order."""
    digest, size = hashlib.sha256(), 0
    for path in files:
        found = source_file(path, root)
        digest.update(f"{found.sha256}  {path.name}\n".encode())
        size += found.size
    return SourceFile(uri=uri, size=size, sha256=digest.hexdigest(), role=role)


def _bytes(path: Path) -> bytes:
    try:
        if path.stat().st_size > _MAX_PNG_BYTES:
            raise ValueError(f"has more than {_MAX_PNG_BYTES} bytes")
        return path.read_bytes()
    except OSError as error:
        raise ValueError(f"cannot be read: {error.strerror}") from error
