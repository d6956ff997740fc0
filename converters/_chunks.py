"""The containers of messages: what they have in common, and chunks that are decompressed with care.

A container is read once from front to back to be indexed; after that, messages are fetched by their place:
from the file where they lie in it as they are, else from what was laid aside when they were decompressed.
"""

from __future__ import annotations

import bz2
import os
import zlib
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from io import FileIO
from pathlib import Path
from typing import BinaryIO, Protocol

from ..schemas import FormatError, Json
from ._aside import Aside
from ._messages import Counts
from .base import Format, need, version_of

MAX_CHUNK = 1 << 28
"""Most bytes of a decompressed chunk, and of a message. Writers cut chunks at about 1 MiB."""

MAX_IN_CHUNK = 1_000_000
"""Most messages of a chunk."""

_MAX_RATIO = 256
_FREE_BYTES = 1 << 28
_MAX_WINDOW = 1 << 27


@dataclass(frozen=True, slots=True)
class Channel:
    """Where messages of one form come from.

    Attributes
    ----------
    encoding
        Of the messages: ``ros1``, ``cdr``, ``protobuf``, ``json`` or another word.
    language
        Of the schema: ``ros1msg``, ``ros2msg``, ``ros2idl``, ``protobuf``, ``jsonschema`` or another word.
    about
        What else the container tells of the channel.
    """

    topic: str
    type: str
    encoding: str
    language: str = ""
    schema: bytes = b""
    about: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, eq=False)
class Unit:
    """A run of messages that were read together, in file order.

    Attributes
    ----------
    data
        Bytes that hold all of their payloads.
    channel, place, start, size, log, publish
        (n,) int64 of each message: its channel, the place by which it is fetched later, where its payload
        lies in ``data``, and its stamps in nanoseconds.
    stored
        Bytes to fetch, where messages are compressed by themselves; else their size.
    """

    number: int
    data: bytes
    channel: Counts
    place: Counts
    start: Counts
    size: Counts
    log: Counts
    publish: Counts
    stored: Counts | None = None


@dataclass(slots=True)
class Facts:
    """What a container tells besides messages.

    Attributes
    ----------
    header
        Members of the container's own header and metadata, by their names: they are kept as they are.
    losses
        What is not kept, and why.
    announced
        How many messages of each topic the container says it holds, where it does.
    """

    header: dict[str, Json] = field(default_factory=dict)
    losses: list[tuple[str, str]] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    announced: dict[str, int] = field(default_factory=dict)


class Container(Protocol):
    """A file, or files, of messages. Holds nothing open between calls."""

    @property
    def files(self) -> tuple[Path, ...]:
        """The files it consists of, its message files first."""
        ...

    def units(self, channels: dict[int, Channel], facts: Facts) -> Iterator[Unit]:
        """Yield all messages in file order; channels and facts are told before they are needed.

        Raises
        ------
        FormatError
            If the container is damaged or lies.
        """
        ...

    def payloads(self, places: Iterable[tuple[int, int, int]]) -> Iterator[bytes]:
        """Yield the messages of these units, places and sizes."""
        ...

    def close(self) -> None:
        """Give up what was laid aside. Messages can still be fetched, which then costs more."""
        ...


@dataclass(frozen=True, slots=True)
class Chunk:
    """A stretch of a file that holds messages, as it is stored."""

    path: Path
    offset: int
    stored: int
    size: int
    compression: str
    crc: int = 0

    @property
    def plain(self) -> bool:
        """Whether its bytes stand in the file as they are."""
        return self.compression in {"", "none"}


class Budget:
    """Sees to it that a file does not decompress to more than it can hold in good faith."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._left = _FREE_BYTES + _MAX_RATIO * version_of(path)[1]

    def take(self, size: int, where: str) -> None:
        """Count bytes that are about to be made; `FormatError` if there are too many of them."""
        self._left -= size
        if not 0 <= size <= MAX_CHUNK or self._left < 0:
            raise FormatError(
                str(self._path),
                where,
                f"claims {size:,} bytes: more than a chunk's {MAX_CHUNK:,}, or {_MAX_RATIO} times its file",
                "Write it again with smaller chunks, if it is sound",
            )


def decompressed(chunk: Chunk, raw: bytes | memoryview, of: Format) -> bytes:
    """Return the bytes of a chunk, whose size was judged before. `FormatError` if they are not sound."""
    where = f"chunk at byte {chunk.offset}"
    try:
        data = inflated(raw, chunk.size, chunk.compression, of)
    except ValueError as error:
        raise FormatError(str(chunk.path), where, str(error)) from error
    if chunk.crc and zlib.crc32(data) != chunk.crc:
        raise FormatError(str(chunk.path), where, "does not match its checksum: the file is damaged")
    return data


def inflated(raw: bytes | memoryview, size: int, compression: str, of: Format) -> bytes:
    """Return ``size`` bytes; `ValueError` if there are fewer or more. Makes one byte too many at most."""
    if compression in {"", "none"}:
        data = raw if isinstance(raw, bytes) else bytes(raw)
    elif compression == "zstd":
        data = _zstd(raw, size, of)
    elif compression == "lz4":
        data = _lz4(raw, size, of)
    elif compression == "bz2":
        data = _bz2(raw, size)
    else:
        raise ValueError(f"is compressed by {compression!r}, which is not known")
    if len(data) != size:
        raise ValueError(f"does not decompress to the {size:,} bytes that it claims")
    return data


def zstd_size(raw: bytes, of: Format) -> int:
    """Return the size that a frame of Zstandard claims; `ValueError` if it is none, or tells no size."""
    zstandard = need("zstandard", of=of)
    try:
        size: int = zstandard.frame_content_size(raw)
    except zstandard.ZstdError as error:
        raise ValueError(f"is no Zstandard frame: {error}") from error
    if size < 0:
        raise ValueError("is a Zstandard frame that does not tell its size")
    return size


def _zstd(raw: bytes | memoryview, size: int, of: Format) -> bytes:
    zstandard = need("zstandard", of=of)
    try:
        # The size in a frame's own header is what the library allocates, whatever limit it is given.
        if zstandard.frame_content_size(raw) not in {-1, size}:
            raise ValueError(f"is not the {size:,} bytes that it claims, by its Zstandard header")
        if not size:
            return b""
        inflater = zstandard.ZstdDecompressor(max_window_size=_MAX_WINDOW)
        data: bytes = inflater.decompress(raw, max_output_size=size)
    except zstandard.ZstdError as error:
        raise ValueError(f"cannot be decompressed: {error}") from error
    return data


def _lz4(raw: bytes | memoryview, size: int, of: Format) -> bytes:
    frame = need("lz4.frame", of=of)
    try:
        data: bytes = frame.LZ4FrameDecompressor().decompress(raw, max_length=size + 1)
    except (RuntimeError, EOFError) as error:
        raise ValueError(f"cannot be decompressed: {error}") from error
    return data


def _bz2(raw: bytes | memoryview, size: int) -> bytes:
    try:
        return bz2.BZ2Decompressor().decompress(raw, max_length=size + 1)
    except (OSError, EOFError) as error:
        raise ValueError(f"cannot be decompressed: {error}") from error


class Scan(Protocol):
    """One pass over a file of chunks, from front to back."""

    def chunks(self, file: BinaryIO) -> Iterator[tuple[Chunk, bytes]]:
        """Yield the chunks, decompressed; take in what else there is."""
        ...

    def unit(self, number: int, data: bytes, chunk: Chunk) -> Unit:
        """Return the messages of a chunk; its other records are taken in."""
        ...

    def compare(self) -> None:
        """Compare what was met with what the file announces, where it does."""
        ...


class ChunkedFile(ABC):
    """One file whose messages lie in chunks: a `Container`."""

    def __init__(self, path: Path, of: Format, aside: Aside | None = None) -> None:
        self.path, self.of = path, of
        self.aside = aside or Aside()
        self._chunks: list[tuple[Chunk, int]] = []

    @abstractmethod
    def scan(self, channels: dict[int, Channel], facts: Facts) -> Scan:
        """Return a pass over the file."""

    @property
    def files(self) -> tuple[Path, ...]:
        """The file."""
        return (self.path,)

    def units(self, channels: dict[int, Channel], facts: Facts) -> Iterator[Unit]:
        """Yield the messages of each chunk, and lay aside what was decompressed."""
        self._chunks.clear()
        scan = self.scan(channels, facts)
        try:
            with self.path.open("rb") as file:
                for chunk, data in scan.chunks(file):
                    yield scan.unit(len(self._chunks), data, chunk)
                    self._chunks.append((chunk, -1 if chunk.plain else self.aside.put(data)))
        except OSError as error:
            raise FormatError(str(self.path), "", f"cannot be read: {error.strerror}") from error
        scan.compare()

    def payloads(self, places: Iterable[tuple[int, int, int]]) -> Iterator[bytes]:
        """Yield messages by chunk, offset in it and size. Holds one chunk."""
        held, data = -1, b""
        with self.path.open("rb", buffering=0) as file:
            for unit, place, size in places:
                chunk, at = self._chunks[unit]
                if chunk.plain:
                    yield self._exactly(file, chunk.offset + place, size)
                    continue
                payload = self.aside.get(at + place, size) if at >= 0 else None
                if payload is None and unit != held:
                    raw = self._exactly(file, chunk.offset, chunk.stored)
                    held, data = unit, decompressed(chunk, raw, self.of)
                yield data[place : place + size] if payload is None else payload

    def _exactly(self, file: FileIO, offset: int, size: int) -> bytes:
        raw = os.pread(file.fileno(), size, offset)
        if len(raw) != size:
            raise FormatError(str(self.path), f"byte {offset}", "is cut off: the file ends here")
        return raw

    def close(self) -> None:
        """Give up what is laid aside."""
        self.aside.clear()
