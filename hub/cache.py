"""A disk cache in front of a remote store: what was read once is read from this machine the next time.

Only what never changes is kept: parts of segments, whose folders' names are theirs for good. Each part is a
file with a checksum, named by what it is a part of, so any number of processes can share a folder, and two
copies of one store share what they have in common. The parts used last are kept, up to a size.
"""

from __future__ import annotations

import os
import struct
import threading
import uuid
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any

from google_crc32c import value as crc32c

from .storage import Storage

_SEGMENTS = "segments/"
_CRC = 4
_WHOLE = -1
_SLACK = 0.9
"""Share of the bound that is left after clearing, so that not every write clears."""


@dataclass(slots=True)
class Cache:
    """A folder of parts. Safe between threads and processes.

    Attributes
    ----------
    folder
        Made if it is missing. Whatever is in it may be removed at any time.
    most_bytes
        Bound on the sum of the parts; it may be passed by what processes write while one is clearing.
    hits, misses
        How often a part was there, in this process.
    """

    folder: Path
    most_bytes: int = 20 << 30
    hits: int = 0
    misses: int = 0
    _written: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def __post_init__(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)

    def __reduce__(self) -> tuple[Any, ...]:
        return Cache, (self.folder, self.most_bytes)

    def get(self, key: str, start: int, stop: int) -> bytes | None:
        """Return bytes ``[start, stop)`` of an object, or None if they are not here, or not whole.

        A ``stop`` of -1 is the end of the object.
        """
        path = self._path(key, start, stop)
        try:
            raw = path.read_bytes()
            os.utime(path)
        except OSError:
            raw = b""
        data, told = raw[:-_CRC], raw[-_CRC:]
        good = (
            stop in {_WHOLE, start + len(data)}
            and len(told) == _CRC
            and told == struct.pack("<I", crc32c(data))
        )
        with self._lock:
            self.hits += good
            self.misses += not good
        return data if good else None

    def put(self, key: str, start: int, stop: int, data: bytes) -> None:
        """Keep bytes of an object. A disk that is full keeps nothing, and nobody is told: it is a cache."""
        path = self._path(key, start, stop)
        aside = path.with_name(f"{path.name}.{uuid.uuid4().hex}.new")
        try:
            path.parent.mkdir(exist_ok=True)
            aside.write_bytes(data + struct.pack("<I", crc32c(data)))
            aside.replace(path)
        except OSError:
            with suppress(OSError):
                aside.unlink()
            return
        with self._lock:
            self._written += len(data)
            due = self._written > self.most_bytes * (1 - _SLACK) / 2
            self._written = 0 if due else self._written
        if due:
            self.clear()

    def clear(self) -> None:
        """Remove the parts that were used longest ago, until the rest fits."""
        parts = sorted(self._parts())
        size = sum(part[1] for part in parts)
        if size <= self.most_bytes:
            return
        for _, bytes_, path in parts:
            if size <= self.most_bytes * _SLACK:
                break
            with suppress(OSError):  # another process was faster
                path.unlink()
            size -= bytes_

    def _parts(self) -> Iterator[tuple[float, int, Path]]:
        for path in self.folder.glob("??/*"):
            with suppress(OSError):
                told = path.stat()
                yield told.st_mtime, told.st_size, path

    def _path(self, key: str, start: int, stop: int) -> Path:
        name = sha256(f"{key}\n{start}\n{stop}".encode()).hexdigest()
        return self.folder / name[:2] / name


class CachedStorage:
    """A storage whose segments are read through a cache; all else goes to the storage itself."""

    def __init__(self, storage: Storage, cache: Cache) -> None:
        self.storage, self.cache = storage, cache

    def __getattr__(self, name: str) -> Any:
        if name in {"storage", "cache"}:  # while it is being unpickled
            raise AttributeError(name)
        return getattr(self.storage, name)

    def __reduce__(self) -> tuple[Any, ...]:
        return CachedStorage, (self.storage, self.cache)

    def read(self, key: str, start: int = 0, stop: int | None = None) -> bytes:
        """Return bytes ``[start, stop)`` of an object."""
        if not key.startswith(_SEGMENTS):
            return self.storage.read(key, start, stop)
        end = _WHOLE if stop is None else stop
        found = self.cache.get(key, start, end)
        if found is None:
            found = self.storage.read(key, start, stop)
            if stop in {None, start + len(found)}:
                self.cache.put(key, start, end, found)
        return found

    def read_many(self, ranges: Sequence[tuple[str, int, int]]) -> list[bytes]:
        """Return several ranges; those that are not here in one go."""
        found = {r: self.cache.get(*r) for r in ranges if r[0].startswith(_SEGMENTS)}
        missing = [r for r in dict.fromkeys(ranges) if found.get(r) is None]
        for wanted, data in zip(missing, self.storage.read_many(missing), strict=True):
            found[wanted] = data
            if wanted[0].startswith(_SEGMENTS):
                self.cache.put(*wanted, data)
        return [found[r] or b"" for r in ranges]
