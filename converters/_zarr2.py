"""Zarr version 2 arrays in a folder or a zip file, read with suspicion.

Field notes. A store is a set of named byte strings: ``.zarray`` describes the array in whose folder it
lies, ``.zattrs`` holds attributes, ``0.1.0`` is a chunk. Everything that a store declares is a claim, and all
claims are held against the files that are there before the first chunk is touched:

- A chunk that is absent means "all fill values" to Zarr. A lost file looks the same, so it is an error here.
- A 150-byte ``.zarray`` may declare 10^13 elements: shapes are bounded, and every chunk must exist.
- A chunk is decoded only if its own header announces exactly the bytes that a chunk of the array has, or else
  as a stream that stops there.
- Codecs come from the list below. ``pickle`` and the other codecs of object arrays run code.
- Links are refused, and so are zip entries that are links, encrypted, doubled or named to climb out.

zarr-python would fill missing chunks, follow links and call any codec that is registered, so it is not used.
The layout is that of https://zarr-specs.readthedocs.io/en/latest/v2/v2.0.html; where the headers of
compressed chunks are described is told at each function.
"""

from __future__ import annotations

import bz2
import hashlib
import lzma
import math
import os
import re
import struct
import zipfile
import zlib
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..schemas import Array as Block
from ..schemas import FormatError, Json, SourceFile, canonical, strict_json
from ..schemas.validate import has_controls
from .base import MAX_EPISODE_BYTES, Format, need, source_file

MAX_CHUNK_BYTES = 1 << 28
"""Decoded bytes of one chunk, and of the row of chunks that make up whole samples: 256 MiB."""

_MAX_DOCUMENT_BYTES = 1 << 20
_MAX_DEPTH = 32
_MAX_ARRAYS = 1_000
_MAX_DIRECTORY_BYTES = 1 << 28  # a zip's list of members; some 3 million UMI pictures
_BOMB_BYTES, _BOMB_RATIO = 1 << 30, 1_000
_DOCUMENTS = frozenset({".zarray", ".zattrs", ".zgroup"})
_DTYPE = re.compile(r"[<>|](?:b1|[iu][1248]|f[248]|[US]\d{1,4})")
_SYMLINK, _FILE_TYPE = 0o120000, 0o170000
_LEFT_OUT = "If it was left out for being all fill values, write the store with write_empty_chunks=True"
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


_Fetch = Callable[[str, Place], bytes]
_Refuse = Callable[[str, str], FormatError]
_Extents = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Store:
    """A zip file or a folder; holds no open file."""

    path: Path
    zipped: bool

    def listing(self) -> dict[str, Place]:
        """Return every file of the store; whatever is dangerous about their names or kinds is refused."""
        return _zip_listing(self.path) if self.zipped else _folder_listing(self.path)

    @contextmanager
    def opened(self) -> Iterator[_Fetch]:
        """Give a function that returns the bytes of a member, for as long as the block lasts."""
        if not self.zipped:
            yield partial(_file_bytes, self.path)
            return
        with _damage_told(self.path, ""):
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
        with _damage_told(self.path, ""):
            stamps = tuple((self.path / os.fsdecode(name)).stat().st_mtime_ns for name, _ in files)
            digest = _tree_digest(self.path, files, stamps)
        return SourceFile(uri=self.path.name, size=sum(size for _, size in files), sha256=digest)


@lru_cache(maxsize=4)
def _tree_digest(root: Path, files: tuple[tuple[bytes, int], ...], _stamps: _Extents) -> str:
    digest = hashlib.sha256()
    for name, _ in files:
        with (root / os.fsdecode(name)).open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").hexdigest().encode() + b"  " + name + b"\n")
    return digest.hexdigest()


@contextmanager
def _damage_told(path: Path, where: str) -> Iterator[None]:
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
        with _damage_told(root, prefix), os.scandir(root / prefix) as entries:
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
    with _damage_told(path, "zip directory"):
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
    with _damage_told(root, name):
        descriptor = os.open(root / name, os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0))
        with os.fdopen(descriptor, "rb") as file:
            data = file.read(place.size + 1)
    if len(data) != place.size:
        raise FormatError(str(root), name, "has another size than when the store was listed")
    return data


def _member_bytes(file: BinaryIO, path: Path, name: str, place: Place) -> bytes:
    """Return a zip member; the local header (APPNOTE 4.3.7) tells only how far behind it the bytes begin."""
    with _damage_told(path, name):
        file.seek(place.offset)
        header = file.read(30)
        if len(header) < 30 or header[:4] != b"PK\3\4":
            raise FormatError(str(path), name, "has no zip header where the directory says")
        file.seek(sum(struct.unpack_from("<HH", header, 26)), os.SEEK_CUR)
        data = file.read(place.stored)
        if place.method == zipfile.ZIP_DEFLATED:
            data = _streamed(zlib.decompressobj(-zlib.MAX_WBITS), data, place.size)
    if len(data) != place.size or zlib.crc32(data) != place.crc:
        raise FormatError(str(path), name, "is truncated or damaged: its CRC-32 is wrong")
    return data


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ChunkedArray:
    """One array: what its ``.zarray`` declares, checked, and where its chunks lie.

    Attributes
    ----------
    places
        (chunks, 5) int64: the `Place` of every chunk, the last axis of the grid running fastest.
    of
        The format on whose behalf it is read; names the extra if a decoder is absent.
    """

    name: str
    shape: _Extents
    chunks: _Extents
    dtype: np.dtype[Any]
    order: str
    separator: str
    compressor: Mapping[str, Json] | None
    filters: tuple[Mapping[str, Json], ...]
    store: Store
    places: NDArray[np.int64] = field(repr=False)
    of: Format

    @property
    def codec(self) -> str:
        """The id of the compressor, empty for none."""
        return str(self.compressor["id"]) if self.compressor else ""

    def rows(self, start: int, stop: int, most_bytes: int) -> Iterator[Block]:
        """Yield ``[start, stop)`` along the first axis in blocks of at most ``most_bytes`` or one row.

        Each chunk is decoded once. Holds the chunks of one step along the first axis.
        """
        length = self.chunks[0]
        step = max(1, most_bytes // max(1, _bytes_of(self.shape[1:], self.dtype)))
        if start >= stop:
            return
        with self.store.opened() as fetch:
            for index in range(start // length, -(-stop // length)):
                slab = self._slab(fetch, index)
                first = index * length
                high = min(stop - first, length)
                for low in range(max(start - first, 0), high, step):
                    yield slab[low : min(low + step, high)]

    def values(self) -> Block:
        """Return the whole array."""
        blocks = list(self.rows(0, self.shape[0], MAX_CHUNK_BYTES))
        empty = np.empty(self.shape, self.dtype.newbyteorder("<"))
        return np.concatenate(blocks) if blocks else empty

    def _slab(self, fetch: _Fetch, index: int) -> Block:
        """Return the samples of the ``index``-th chunk along time: (n, *shape[1:]), little endian."""
        rows = min(self.chunks[0], self.shape[0] - index * self.chunks[0])
        slab = np.empty((rows, *self.shape[1:]), self.dtype.newbyteorder("<"))
        grid = _grid(self.shape, self.chunks)[1:]
        for number, position in enumerate(np.ndindex(*grid), start=index * math.prod(grid)):
            key = _chunk_name(self.name, (index, *position), self.separator)
            chunk = self._decoded(fetch(key, Place(*self.places[number].tolist())), key)
            box = tuple(
                slice(p * c, min((p + 1) * c, s))
                for p, c, s in zip(position, self.chunks[1:], self.shape[1:], strict=True)
            )
            inner = tuple(slice(b.stop - b.start) for b in box)
            slab[(slice(rows), *box)] = chunk[(slice(rows), *inner)]
        return slab

    def _decoded(self, raw: bytes, where: str) -> Block:
        with _damage_told(self.store.path, where):
            if self.codec in _PICTURES:
                return self._picture(raw)
            size = _bytes_of(self.chunks, self.dtype)
            data = _DECODERS[self.codec](raw, size, self.of)
            if len(data) != size:
                raise ValueError(f"decodes to {len(data)} bytes, a chunk has {size}")
            for config in reversed(self.filters):
                data = _FILTERS[config["id"]](data, config)
            values: Block = np.frombuffer(data, self.dtype)
            return values.reshape(self.chunks, order="F" if self.order == "F" else "C")

    def _picture(self, raw: bytes) -> Block:
        """Decode a picture into memory of the chunk's size, which the decoders check before they allocate."""
        imagecodecs = need("imagecodecs", of=self.of)
        out = np.zeros([n for n in self.chunks if n > 1], self.dtype)
        if self.codec == "imagecodecs_jpeg2k":
            _check_jpeg2000(raw, out.shape)
        options = {}
        if self.codec == "imagecodecs_jpegxl" and self.compressor:
            options = {"numthreads": 1, "keeporientation": self.compressor.get("keeporientation")}
        picture: Block = getattr(imagecodecs, _PICTURES[self.codec])(raw, out=out, **options)
        return picture.reshape(self.chunks)


def _streamed(decoder: Any, raw: bytes, size: int) -> bytes:
    """Decompress with one of the standard library's decoders, and stop one byte after what is allowed."""
    data: bytes = decoder.decompress(raw, size + 1)
    if len(data) != size or not decoder.eof or decoder.unused_data:
        raise ValueError(f"does not decompress to exactly the {size} bytes that are announced")
    return data


def _xz(raw: bytes, size: int, _of: Format) -> bytes:
    return _streamed(lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=1 << 27), raw, size)


def _blosc(raw: bytes, size: int, of: Format) -> bytes:
    """Decode a Blosc 1 chunk, whose 16-byte header tells both sizes (c-blosc: README_CHUNK_FORMAT.rst)."""
    decoded, _, encoded = struct.unpack_from("<III", raw, 4)
    if (decoded, encoded) != (size, len(raw)):
        raise ValueError(f"Blosc header announces {encoded} bytes for {decoded}, not {len(raw)} for {size}")
    return _by_numcodecs("blosc", raw, of)


def _zstd(raw: bytes, size: int, of: Format) -> bytes:
    """Decode a Zstandard frame, whose header tells the content's size (RFC 8878, section 3.1.1.1)."""
    magic, descriptor = struct.unpack_from("<IB", raw)
    flag, single = descriptor >> 6, bool(descriptor & 0x20)
    width = (1 if single else 0, 2, 4, 8)[flag]
    at = 5 + (not single) + (0, 1, 2, 4)[descriptor & 3]
    if magic != 0xFD2FB528 or not width or len(raw) < at + width:
        raise ValueError("is no Zstandard frame that tells the size of its content")
    announced = int.from_bytes(raw[at : at + width], "little") + (256 if flag == 1 else 0)
    if announced != size:
        raise ValueError(f"Zstandard header announces {announced} bytes, a chunk has {size}")
    return _by_numcodecs("zstd", raw, of)


def _lz4(raw: bytes, size: int, of: Format) -> bytes:
    """Decode an LZ4 block behind its decoded size as int32 (numcodecs: lz4.pyx)."""
    (announced,) = struct.unpack_from("<i", raw)
    if announced != size:
        raise ValueError(f"LZ4 header announces {announced} bytes, a chunk has {size}")
    return _by_numcodecs("lz4", raw, of)


def _by_numcodecs(codec: str, raw: bytes, of: Format) -> bytes:
    return bytes(need("numcodecs", of=of).get_codec({"id": codec}).decode(raw))


def _unshuffled(data: bytes, config: Mapping[str, Json]) -> bytes:
    size = config.get("elementsize", 4)
    return np.frombuffer(data, np.uint8).reshape(size, -1).T.tobytes()


def _summed(data: bytes, config: Mapping[str, Json]) -> bytes:
    dtype = np.dtype(config["dtype"])
    with np.errstate(over="ignore", invalid="ignore"):
        return np.cumsum(np.frombuffer(data, dtype), dtype=dtype).astype(dtype, copy=False).tobytes()


def _check_jpeg2000(raw: bytes, shape: _Extents) -> None:
    """Refuse a JPEG 2000 picture of another size before OpenJPEG allocates it.

    The size stands in the SIZ segment right after the start of the codestream (ITU-T T.800, A.5.1), which is
    the whole file or the box ``jp2c`` (I.4).
    """
    at = 0
    while raw[at : at + 4] != b"\xff\x4f\xff\x51":
        length, kind = struct.unpack_from(">I4s", raw, at)
        if kind == b"jp2c" and raw[at + 8 : at + 12] == b"\xff\x4f\xff\x51":
            at += 8
            break
        if length < 8:
            raise ValueError("holds no JPEG 2000 codestream")
        at += length
    x, y, x0, y0 = struct.unpack_from(">4I", raw, at + 8)
    (components,) = struct.unpack_from(">H", raw, at + 40)
    if (y - y0, x - x0, components) != (*shape, 1)[:3]:
        raise ValueError(f"JPEG 2000 picture is {y - y0} x {x - x0} x {components}, a chunk has {shape}")


_DECODERS: dict[str, Callable[[bytes, int, Format], bytes]] = {
    "": lambda raw, _size, _of: raw,
    "zlib": lambda raw, size, _of: _streamed(zlib.decompressobj(), raw, size),
    "gzip": lambda raw, size, _of: _streamed(zlib.decompressobj(16 + zlib.MAX_WBITS), raw, size),
    "bz2": lambda raw, size, _of: _streamed(bz2.BZ2Decompressor(), raw, size),
    "lzma": _xz,
    "blosc": _blosc,
    "zstd": _zstd,
    "lz4": _lz4,
}
_PICTURES = {
    "imagecodecs_jpegxl": "jpegxl_decode",
    "imagecodecs_jpeg2k": "jpeg2k_decode",
    "imagecodecs_png": "png_decode",
}
_FILTERS: dict[str, Callable[[bytes, Mapping[str, Json]], bytes]] = {"shuffle": _unshuffled, "delta": _summed}


@dataclass(frozen=True, slots=True, kw_only=True)
class Tree:
    """What a store holds.

    Attributes
    ----------
    attributes
        The content of each ``.zattrs`` that has any, by the folder it lies in.
    loose
        Files that no array claims, such as chunks outside of an array's grid.
    """

    store: Store
    arrays: Mapping[str, ChunkedArray]
    attributes: Mapping[str, Mapping[str, Json]]
    loose: tuple[str, ...]


def open_tree(store: Store, of: Format) -> Tree:
    """Return what a store holds, after all that it declares was held against the files that are there.

    Raises
    ------
    FormatError
        Where they disagree, or something is dangerous to read.
    """
    listing = store.listing()
    documents = _documents(store, listing)
    described = [name for name in documents if name.rpartition("/")[2] == ".zarray"]
    if len(described) > _MAX_ARRAYS:
        raise FormatError(str(store.path), "", f"has {len(described)} arrays; at most {_MAX_ARRAYS} are read")
    found = [_array(store, listing, documents[name], name, of) for name in described]
    claimed = {
        _chunk_name(array.name, position, array.separator)
        for array in found
        for position in np.ndindex(*_grid(array.shape, array.chunks))
    }
    attributes = {
        name.rpartition("/")[0]: document
        for name, document in documents.items()
        if name.rpartition("/")[2] == ".zattrs" and document
    }
    return Tree(
        store=store,
        arrays={array.name: array for array in found},
        attributes=attributes,
        loose=tuple(sorted(listing.keys() - documents.keys() - claimed)),
    )


def _documents(store: Store, listing: Mapping[str, Place]) -> dict[str, dict[str, Json]]:
    found = {}
    with store.opened() as fetch:
        for name in sorted(name for name in listing if name.rpartition("/")[2] in _DOCUMENTS):
            if listing[name].size > _MAX_DOCUMENT_BYTES:
                raise FormatError(str(store.path), name, f"is larger than {_MAX_DOCUMENT_BYTES} bytes")
            with _damage_told(store.path, name):
                document = strict_json(fetch(name, listing[name]))
                canonical(document)  # a number too large for a float, or half a character, has no JSON form
                deep = _depth(document) > _MAX_DEPTH
            if deep or not isinstance(document, dict):
                raise FormatError(str(store.path), name, "is no JSON object, or is nested too deep")
            found[name] = document
            version = document.get("zarr_format")
            if not name.endswith(".zattrs") and version != 2:
                raise FormatError(str(store.path), name, f"is of Zarr version {str(version)[:20]}, not 2")
    return found


def _depth(value: Json) -> int:
    inner = list(value.values()) if isinstance(value, dict) else value if isinstance(value, list) else []
    return 1 + max(map(_depth, inner), default=0)


def _array(
    store: Store, listing: Mapping[str, Place], document: Mapping[str, Json], where: str, of: Format
) -> ChunkedArray:
    def refuse(member: str, why: str) -> FormatError:
        return FormatError(str(store.path), f"{where}: {member}", why)

    shape, chunks = (_extents(document.get(member)) for member in ("shape", "chunks"))
    if shape is None or chunks is None or len(shape) != len(chunks) or 0 in chunks:
        raise refuse("shape, chunks", "are not two lists of as many whole numbers, chunks being positive")
    # A scalar is stored like an array of one element.
    shape, chunks = shape or (1,), chunks or (1,)
    word = document.get("dtype")
    if not isinstance(word, str) or not _DTYPE.fullmatch(word):
        raise refuse("dtype", f"{str(word)[:80]!r} is neither bool, integer nor float")
    order, separator = document.get("order", "C"), document.get("dimension_separator", ".")
    if order not in ("C", "F") or separator not in (".", "/"):
        raise refuse("order, dimension_separator", "must be C or F, and a dot or slash")
    dtype = np.dtype(word)
    compressor, filters = document.get("compressor"), document.get("filters") or []
    if not isinstance(filters, list) or len(filters) > 4:
        raise refuse("filters", "are not a list of at most 4")
    if compressor is not None:
        _check_compressor(compressor, refuse)
        if compressor["id"] in _PICTURES and (filters or order == "F"):
            raise refuse("compressor", "a picture with filters or in Fortran order is not read")
    for config in filters:
        _check_filter(config, dtype, refuse)
    name = where.removesuffix("/.zarray")
    _check_sizes(shape, chunks, dtype, refuse)
    places = _places(store, listing, name, _grid(shape, chunks), separator)
    _check_stored(_bytes_of(shape, dtype), _bytes_of(chunks, dtype), places, refuse)
    return ChunkedArray(
        name=name,
        shape=shape,
        chunks=chunks,
        dtype=dtype,
        order=order,
        separator=separator,
        compressor=compressor,
        filters=tuple(filters),
        store=store,
        places=places,
        of=of,
    )


def _extents(value: Json) -> _Extents | None:
    if not isinstance(value, list) or len(value) > 8:
        return None
    return tuple(value) if all(type(n) is int and 0 <= n < 1 << 48 for n in value) else None


def _check_compressor(config: Json, refuse: _Refuse) -> None:
    _check_config(config, _DECODERS.keys() | _PICTURES.keys(), "compressor", refuse)
    if config.get("index") is not None:
        raise refuse("compressor", "one picture of several in a chunk is not read")
    if config["id"] == "lzma" and config.get("format", lzma.FORMAT_XZ) != lzma.FORMAT_XZ:
        raise refuse("compressor", "lzma in another form than xz is not read")


def _check_filter(config: Json, dtype: np.dtype[Any], refuse: _Refuse) -> None:
    _check_config(config, _FILTERS.keys(), "filters", refuse)
    size = config.get("elementsize", 4)
    if config["id"] == "shuffle" and (type(size) is not int or not 0 < size <= 64):
        raise refuse("filters", f"elementsize {str(size)[:80]} of shuffle is no size of an element")
    words = {config.get("dtype"), config.get("astype", config.get("dtype"))}
    if config["id"] == "delta" and words != {dtype.str}:
        raise refuse("filters", f"dtypes of delta must be the array's, {dtype.str}")


def _check_config(config: Json, known: Collection[str], member: str, refuse: _Refuse) -> None:
    if not isinstance(config, dict) or not isinstance(config.get("id"), str):
        raise refuse(member, "is not described by an object with an id")
    if not config["id"] or config["id"] not in known:
        raise refuse(member, f"codec {config['id'][:80]!r} is not read here")
    plain = (str, int, float, type(None))
    if not all(isinstance(v, plain) and v not in {math.inf, -math.inf} for v in config.values()):
        raise refuse(member, f"settings of {config['id']} are not plain values")


def _check_sizes(shape: _Extents, chunks: _Extents, dtype: np.dtype[Any], refuse: _Refuse) -> None:
    shape = tuple(max(n, 1) for n in shape)  # an empty axis must not hide how long the others are
    slab = _bytes_of((min(chunks[0], shape[0]), *shape[1:]), dtype)
    if max(slab, _bytes_of(chunks, dtype)) > MAX_CHUNK_BYTES:
        raise refuse("chunks", f"one step along the first axis decodes to more than {MAX_CHUNK_BYTES} bytes")
    if _bytes_of(shape, dtype) > MAX_EPISODE_BYTES:
        raise refuse("shape", f"declares more than {MAX_EPISODE_BYTES} bytes")


def _places(
    store: Store, listing: Mapping[str, Place], name: str, grid: _Extents, separator: str
) -> NDArray[np.int64]:
    count = math.prod(grid)
    if count > len(listing):
        why = f"needs {count} chunks, the store has {len(listing)} files: chunks are missing"
        raise FormatError(str(store.path), f"{name}/.zarray: shape", why, _LEFT_OUT)
    found = []
    for position in np.ndindex(*grid):
        key = _chunk_name(name, position, separator)
        if key not in listing:
            raise FormatError(str(store.path), key, "this chunk is missing", _LEFT_OUT)
        found.append(listing[key])
    return np.array(found, np.int64).reshape(count, len(Place._fields))


def _check_stored(total: int, chunk: int, places: NDArray[np.int64], refuse: _Refuse) -> None:
    """Compare the declared bytes with the stored ones: neither may be out of all proportion to the other."""
    if len(places) and places[:, 1:3].max() > chunk + chunk // 8 + (1 << 16):
        raise refuse("chunks", f"a chunk is stored in more bytes than the {chunk} it decodes to")
    if total > max(_BOMB_BYTES, _BOMB_RATIO * int(places[:, 1].sum())):
        raise refuse("shape", f"declares {total} bytes, over {_BOMB_RATIO} times what is stored")


def _chunk_name(array: str, position: _Extents, separator: str) -> str:
    """Return the name of the chunk at a position of an array's grid."""
    return f"{array}/{separator.join(map(str, position))}"


def _grid(shape: _Extents, chunks: _Extents) -> _Extents:
    return tuple(-(-s // c) for s, c in zip(shape, chunks, strict=True))


def _bytes_of(shape: _Extents, dtype: np.dtype[Any]) -> int:
    return math.prod(shape) * dtype.itemsize
