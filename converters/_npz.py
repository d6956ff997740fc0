"""NumPy's ``.npy`` and ``.npz`` files that a stranger wrote, read by rows.

An array can hold pickles, which run code when they are loaded: such arrays are listed and never read. A
header is a Python literal that can claim any shape, and a zip member can claim any size and inflate to any
other, so what is claimed is compared with the bytes that there are before anything is allocated, and data is
inflated no further than the header told. Nothing is mapped into memory.

Layout: numpy/lib/_format_impl.py (magic, version, header, data) and numpy/lib/_npyio_impl.py (``savez``: one
``<name>.npy`` for each array in a zip file, stored or deflated); zip: APPNOTE.TXT of PKWARE.
"""

from __future__ import annotations

import math
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, BinaryIO

import numpy as np
from numpy.lib import format as npy

from ..schemas import Array, FormatError
from ..schemas.validate import has_controls
from ._zarr2_store import zip_directory
from .base import MAX_EPISODE_BYTES

NPY_MAGIC = npy.MAGIC_PREFIX
ZIP_MAGIC = b"PK\x03\x04"

_MAX_HEADER = 20_000
_MAX_MEMBERS = 10_000
_MAX_DIRECTORY = 1 << 22
_MAX_NAME = 500
_PIECE = 1 << 20
_ENCRYPTED = 1

# One bit in 258 bytes is the most that deflate reaches (RFC 1951); small members may be all header.
_MOST_RATIO, _GRACE = 1_100, 1 << 16

_MAX_TURNED = 1 << 28
"""Bytes of an array in Fortran's order, whose rows lie scattered, so that all of it is held at once."""

_SINGLE = "array"
"""What the array of a ``.npy`` file is called here, since it has no name there."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Npy:
    """An array of a file.

    Attributes
    ----------
    name
        Of the member without ``.npy``; ``array`` for a file that holds one alone.
    shape, dtype
        As the header tells them.
    offset
        Where the data begins in the member.
    fortran
        The data is in Fortran's order: the first axis runs fastest.
    unread
        Why `rows` does not read it; empty if it does.
    """

    name: str
    shape: tuple[int, ...] = ()
    dtype: np.dtype[Any] = field(default_factory=lambda: np.dtype("u1"))
    offset: int = 0
    fortran: bool = False
    unread: str = ""

    @property
    def nbytes(self) -> int:
        """Bytes of all values."""
        return math.prod(self.shape) * self.dtype.itemsize


def arrays_of(path: Path) -> dict[str, Npy]:
    """Return every array of a ``.npy`` or ``.npz`` file by its name: headers only.

    Raises
    ------
    FormatError
        If it is neither, or if what it claims cannot be.
    """
    with _damage_told(path, ""), path.open("rb") as raw:
        magic = raw.read(len(NPY_MAGIC))
        if magic == NPY_MAGIC:
            raw.seek(0)
            found = _header(path, raw, _SINGLE, path.stat().st_size)
            return {found.name: found}
        if not magic.startswith(ZIP_MAGIC):
            raise FormatError(str(path), "", "is neither a .npy nor a .npz file")
        if zip_directory(path)[1] > _MAX_DIRECTORY:
            raise FormatError(str(path), "", f"has a list of members of more than {_MAX_DIRECTORY} bytes")
        with zipfile.ZipFile(raw) as archive:
            return dict(_members(path, archive))


def rows(path: Path, found: Npy, start: int, stop: int, step: int) -> Iterator[Array]:
    """Yield rows ``[start, stop)`` of an array in blocks of ``step``, each of the header's dtype.

    Holds one block, or the whole array where it is in Fortran's order. A deflated member is inflated from its
    beginning each time.

    Raises
    ------
    FormatError
        If the array is one of those not read, or its data ends before the header says or is damaged.
    """
    if found.unread or not found.shape:
        raise FormatError(str(path), found.name, found.unread or "is one value, not rows of them")
    stop = min(stop, found.shape[0])
    if start >= stop:
        return
    row = found.nbytes // found.shape[0]
    turned = found.fortran and len(found.shape) > 1
    begin = found.offset + (0 if turned else start * row)
    with _damage_told(path, found.name), path.open("rb") as raw, _data(raw, found, begin) as data:
        if turned:
            yield from _turned(data, found, start, stop, step)
            return
        for first in range(start, stop, step):
            count = min(step, stop - first)
            values = np.frombuffer(_exactly(data, count * row), found.dtype)
            yield values.reshape(count, *found.shape[1:])


def whole(path: Path, found: Npy, most: int) -> Array:
    """Return all of an array, if it has no more than ``most`` bytes.

    Raises
    ------
    FormatError
        Like `rows`, and if it has more.
    """
    if found.unread or found.nbytes > most:
        why = found.unread or f"has {found.nbytes} bytes, more than {most}"
        raise FormatError(str(path), found.name, why)
    with _damage_told(path, found.name), path.open("rb") as raw, _data(raw, found, found.offset) as data:
        values = np.frombuffer(_exactly(data, found.nbytes), found.dtype)
        return values.reshape(found.shape, order="F" if found.fortran else "C")


def alike(path: Path, like: Npy) -> Array:
    """Return all of the array of an archive that has the name, dtype and shape of ``like``, of another one.

    Recordings with an archive for each step are read so: one member is opened, and none of the others.

    Raises
    ------
    FormatError
        If there is none, it is not of this dtype and shape, or its data is damaged.
    """
    with _damage_told(path, like.name), path.open("rb") as raw, zipfile.ZipFile(raw) as archive:
        info = archive.getinfo(f"{like.name}.npy")
        _judge(path, info)
        with archive.open(info) as data:
            found = _header(path, data, like.name, info.file_size)
            if found.unread or (found.dtype, found.shape) != (like.dtype, like.shape):
                raise ValueError(f"is {found.dtype} {found.shape}; the first is {like.dtype} {like.shape}")
            values = np.frombuffer(_exactly(data, found.nbytes), found.dtype)
            return values.reshape(found.shape, order="F" if found.fortran else "C")


@contextmanager
def _damage_told(path: Path, where: str) -> Iterator[None]:
    try:
        yield
    except FormatError:
        raise
    except Exception as error:  # what zipfile and NumPy's parser raise on damaged bytes is of any kind
        why = " ".join(str(error).split())[:300] or type(error).__name__
        raise FormatError(str(path), where, f"cannot be read: {why}", "Copy the file anew") from error


def _members(path: Path, archive: zipfile.ZipFile) -> Iterator[tuple[str, Npy]]:
    infos = archive.infolist()
    names = [info.filename.removesuffix(".npy") for info in infos]
    if len(names) > _MAX_MEMBERS or len(set(names)) != len(names):
        raise FormatError(str(path), "", f"holds {len(names)} members, or one of them twice")
    if sum(info.compress_size for info in infos) > path.stat().st_size:
        raise FormatError(str(path), "", "has members that lie over each other")
    for info in infos:
        name = info.filename.removesuffix(".npy")
        if not name or len(name) > _MAX_NAME or has_controls(name):
            raise FormatError(str(path), ascii(info.filename[:80]), "is no name for an array")
        _judge(path, info)
        if not info.filename.endswith(".npy"):
            yield name, Npy(name=name, unread="is no .npy member")
            continue
        with _damage_told(path, name), archive.open(info) as data:
            yield name, _header(path, data, name, info.file_size)


def _judge(path: Path, info: zipfile.ZipInfo) -> None:
    """Refuse a member that is encrypted, of another compression, or claims what it cannot hold."""
    if info.flag_bits & _ENCRYPTED:
        raise FormatError(str(path), info.filename, "is encrypted")
    if info.compress_type not in {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED}:
        raise FormatError(str(path), info.filename, "is neither stored nor deflated, as NumPy writes")
    ratio = 1 if info.compress_type == zipfile.ZIP_STORED else _MOST_RATIO
    if info.file_size > info.compress_size * ratio + _GRACE or info.file_size > MAX_EPISODE_BYTES:
        raise FormatError(
            str(path),
            info.filename,
            f"claims {info.file_size} bytes out of {info.compress_size}",
            "The file is made to exhaust memory, or damaged",
        )


def _header(path: Path, data: IO[bytes], name: str, size: int) -> Npy:
    """Read the header of an array whose file has ``size`` bytes, and hold it against them."""
    version = npy.read_magic(data)
    readers = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}
    if version not in readers:
        return Npy(name=name, unread=f"is of version {version} of the format, which is not read")
    shape, fortran, dtype = readers[version](data, max_header_size=_MAX_HEADER)
    why = _why_unread(dtype)
    found = Npy(name=name, shape=shape, dtype=dtype, offset=data.tell(), fortran=fortran, unread=why)
    if any(extent < 0 for extent in shape):
        raise FormatError(str(path), name, f"claims the shape {shape}")
    if not why and found.offset + found.nbytes != size:
        raise FormatError(
            str(path),
            name,
            f"claims {found.nbytes} bytes of values, and there are {size - found.offset}",
            "The recording was cut off, or the file is made to exhaust memory",
        )
    return found


def _why_unread(dtype: np.dtype[Any]) -> str:
    if dtype.hasobject:
        return "holds Python objects as pickles, which could run code and are never loaded"
    if not dtype.itemsize:
        return "holds values of no bytes"
    return ""


@contextmanager
def _data(raw: BinaryIO, found: Npy, begin: int) -> Iterator[IO[bytes]]:
    """Give the bytes of an array's file from ``begin`` on: the file itself, or its member of the archive."""
    if raw.read(len(NPY_MAGIC)) == NPY_MAGIC:
        raw.seek(begin)
        yield raw
        return
    with zipfile.ZipFile(raw) as archive, archive.open(f"{found.name}.npy") as data:
        # Read and not sought: newer Pythons give up the checksum of a member that was sought in.
        for at in range(0, begin, _PIECE):
            _exactly(data, min(_PIECE, begin - at))
        yield data


def _exactly(data: IO[bytes], size: int) -> bytes:
    """Return ``size`` bytes, taken in pieces so that no claim of a size is believed at once."""
    held = bytearray()
    while len(held) < size:
        piece = data.read(min(_PIECE, size - len(held)))
        if not piece:
            raise EOFError(f"ends {size - len(held)} bytes early")
        held += piece
    return bytes(held)


def _turned(data: IO[bytes], found: Npy, start: int, stop: int, step: int) -> Iterator[Array]:
    if found.nbytes > _MAX_TURNED:
        raise ValueError("has more than 256 MiB in Fortran's order: use numpy.ascontiguousarray")
    values = np.frombuffer(_exactly(data, found.nbytes), found.dtype).reshape(found.shape, order="F")
    for first in range(start, stop, step):
        yield np.ascontiguousarray(values[first : min(first + step, stop)])
