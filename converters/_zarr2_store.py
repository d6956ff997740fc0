"""The files of a Zarr store, in a folder or a zip file whose names, kinds and sizes are all claims.

Links are refused, and so are zip entries that are links, encrypted, doubled or named to climb out. A file
that is not as large as it was when the store was listed, or whose CRC-32 is wrong, is an error.
"""

from __future__ import annotations

import hashlib
import lzma
import os
import re
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import BinaryIO, NamedTuple

from ..schemas import FormatError, SourceFile
from ..schemas.validate import has_controls
from ._zarr2_codecs import streamed
from .base import source_file

_MAX_DIRECTORY_BYTES = 1 << 28  # a zip's list of members; some 3 million UMI pictures
_SYMLINK, _FILE_TYPE = 0o120000, 0o170000
_DAMAGE = (
    ValueError,
    RuntimeError,
    OSError,
    EOFError,
    OverflowError,
    TypeError,
    lzma.LZMAError,
    struct.error,
    zipfile.BadZipFile,
    zlib.error,
)


class Place(NamedTuple):
    """Where the bytes of a member lie. In a folder, only the two sizes mean something."""

    offset: int
    stored: int
    size: int
    crc: int
    method: int


Fetch = Callable[[str, Place], bytes]


@dataclass(frozen=True, slots=True)
class Store:
    """A zip file or a folder; holds no open file."""

    path: Path
    zipped: bool

    def listing(self) -> dict[str, Place]:
        """Return every file of the store; whatever is dangerous about their names or kinds is refused."""
        return _zip_listing(self.path) if self.zipped else _folder_listing(self.path)

    @contextmanager
    def opened(self) -> Iterator[Fetch]:
        """Give a function that returns the bytes of a member, for as long as the block lasts."""
        if not self.zipped:
            yield partial(_file_bytes, self.path)
            return
        with damage_told(self.path, ""):
            file = self.path.open("rb")
        with file:
            yield partial(_member_bytes, file, self.path)

    def source(self) -> SourceFile:
        """Return the record of the store as one source.

        A folder's size is the sum of its files', and its digest the SHA-256 of one line for each file, in the
        order of their names' UTF-8 bytes: its SHA-256 in hex, two spaces, its name below the folder, newline.
        That is the form in which ``sha256sum`` prints.
        """
        if self.zipped:
            return source_file(self.path, self.path)
        sizes = {os.fsencode(name): place.size for name, place in self.listing().items()}
        files = tuple(sorted(sizes.items()))
        with damage_told(self.path, ""):
            stamps = tuple((self.path / os.fsdecode(name)).stat().st_mtime_ns for name, _ in files)
            digest = _tree_digest(self.path, files, stamps)
        return SourceFile(uri=self.path.name, size=sum(size for _, size in files), sha256=digest)


@lru_cache(maxsize=4)
def _tree_digest(root: Path, files: tuple[tuple[bytes, int], ...], _stamps: tuple[int, ...]) -> str:
    digest = hashlib.sha256()
    for name, _ in files:
        with (root / os.fsdecode(name)).open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").hexdigest().encode() + b"  " + name + b"\n")
    return digest.hexdigest()


@contextmanager
def damage_told(path: Path, where: str) -> Iterator[None]:
    """Turn what libraries raise on damaged bytes into a `FormatError`."""
    try:
        yield
    except FormatError:
        raise
    except MemoryError as error:
        raise FormatError(str(path), where, "wants more memory than there is") from error
    except _DAMAGE as error:
        raise FormatError(str(path), where, f"cannot be read: {error}") from error


def _check_name(path: Path, name: str) -> None:
    parts = name.split("/")
    if (
        len(name) > 900
        or len(parts) > 16
        or any(part in {"", ".", ".."} or len(part.encode(errors="replace")) > 255 for part in parts)
        or "\\" in name
        or re.match(r"[A-Za-z]:", name)
        or has_controls(name)
    ):
        raise FormatError(str(path), ascii(name)[:200], "is not the name of a file inside of the store")


def _folder_listing(root: Path) -> dict[str, Place]:
    found: dict[str, Place] = {}
    todo = [""]
    while todo:
        prefix = todo.pop()
        with damage_told(root, prefix), os.scandir(root / prefix) as entries:
            for entry in entries:
                name = prefix + entry.name
                _check_name(root, name)
                if entry.is_symlink():
                    raise FormatError(str(root), name, "is a link", "Copy it with links followed: cp -rL")
                if entry.is_dir():
                    todo.append(f"{name}/")
                elif entry.is_file():
                    size = entry.stat().st_size
                    found[name] = Place(0, size, size, 0, zipfile.ZIP_STORED)
                else:
                    raise FormatError(str(root), name, "is neither a file nor a folder")
    return found


def _zip_listing(path: Path) -> dict[str, Place]:
    with damage_told(path, "zip directory"):
        if zip_directory(path)[1] > _MAX_DIRECTORY_BYTES:
            raise FormatError(str(path), "zip directory", "is larger than any honest one")
        with zipfile.ZipFile(path) as archive:
            infos = archive.infolist()
        size = path.stat().st_size
    found: dict[str, Place] = {}
    for info in infos:
        name = info.orig_filename
        _check_name(path, name.removesuffix("/"))
        if (info.external_attr >> 16) & _FILE_TYPE == _SYMLINK:
            raise FormatError(str(path), name, "is a link")
        if info.flag_bits & 1:
            raise FormatError(str(path), name, "is encrypted")
        if info.compress_type not in {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED}:
            raise FormatError(str(path), name, f"has zip method {info.compress_type}, neither 0 nor 8")
        if name in found:
            raise FormatError(str(path), name, "occurs twice in the zip file")
        if not name.endswith("/"):
            found[name] = Place(
                info.header_offset, info.compress_size, info.file_size, info.CRC, info.compress_type
            )
    if sum(place.stored for place in found.values()) > size:
        raise FormatError(str(path), "zip directory", "announces more bytes than the file has")
    return found


def zip_directory(path: Path) -> tuple[int, int]:
    """Return offset and size of a zip file's central directory, without reading it.

    From the end record and, if a number there is saturated, the Zip64 end record: PKWARE's APPNOTE 6.3.10,
    sections 4.3.14 to 4.3.16. ``(0, 0)`` if there is no end record.
    """
    with path.open("rb") as file:
        end = file.seek(0, os.SEEK_END)
        start = max(0, end - 22 - 0xFFFF)
        file.seek(start)
        tail = file.read()
        at = tail.rfind(b"PK\5\6")
        if at < 0 or len(tail) < at + 22:
            return 0, 0
        size, offset = struct.unpack_from("<II", tail, at + 12)
        if 0xFFFFFFFF in {size, offset} and at >= 20 and tail[at - 20 : at - 16] == b"PK\6\7":
            (record,) = struct.unpack_from("<Q", tail, at - 12)
            file.seek(min(record, end))
            wide = file.read(56)
            size, offset = struct.unpack_from("<QQ", wide, 40) if len(wide) == 56 else (0, 0)
    return offset, size


def zip_names(path: Path, name: bytes) -> bool:
    """Tell whether a zip file has a member of this name, by looking through its central directory only."""
    offset, size = zip_directory(path)
    with path.open("rb") as file:
        file.seek(offset)
        directory = file.read(min(size, _MAX_DIRECTORY_BYTES))
    at = directory.find(name)
    while at >= 0:
        # A name follows 46 bytes that begin with a mark and tell its length (APPNOTE 4.3.12).
        header = directory[at - 46 : at] if at >= 46 else b""
        if header[:4] == b"PK\1\2" and struct.unpack_from("<H", header, 28)[0] == len(name):
            return True
        at = directory.find(name, at + 1)
    return False


def _file_bytes(root: Path, name: str, place: Place) -> bytes:
    with damage_told(root, name):
        descriptor = os.open(root / name, os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0))
        with os.fdopen(descriptor, "rb") as file:
            data = file.read(place.size + 1)
    if len(data) != place.size:
        raise FormatError(str(root), name, "has another size than when the store was listed")
    return data


def _member_bytes(file: BinaryIO, path: Path, name: str, place: Place) -> bytes:
    """Return a zip member; the local header (APPNOTE 4.3.7) tells only how far behind it the bytes begin."""
    with damage_told(path, name):
        file.seek(place.offset)
        header = file.read(30)
        if len(header) < 30 or header[:4] != b"PK\3\4":
            raise FormatError(str(path), name, "has no zip header where the directory says")
        file.seek(sum(struct.unpack_from("<HH", header, 26)), os.SEEK_CUR)
        data = file.read(place.stored)
        if place.method == zipfile.ZIP_DEFLATED:
            data = streamed(zlib.decompressobj(-zlib.MAX_WBITS), data, place.size)
    if len(data) != place.size or zlib.crc32(data) != place.crc:
        raise FormatError(str(path), name, "is truncated or damaged: its CRC-32 is wrong")
    return data


def shown(name: str) -> str:
    """Return the name of a file that a stranger chose in the form in which a ledger tells it: short ASCII."""
    return name.encode("ascii", "backslashreplace").decode()[:300]
