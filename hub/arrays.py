"""Reads the arrays of a segment directly.

Plain zarr-python opens them too; this does not go through it. A shard's index is read and checked once;
low-dimensional rows are mapped, or kept in memory where they are remote and there is room; a camera chunk is
one range read.
"""

from __future__ import annotations

import os
import struct
import threading
import weakref
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from google_crc32c import value as crc32c
from numpy.typing import NDArray

from ..schemas import Array, DamageError
from .layout import Layout
from .ranges import Range
from .shards import ABSENT
from .storage import Storage

_ENTRY = 16
_CRC = 4
_BLOSC_HEADER = 16
_OPEN_SHARDS = 128
_KEPT_BYTES = 512 << 20
_KEPT_SHARD_BYTES = 32 << 20


def decompress_depth(chunk: bytes, layout: Layout, key: str) -> Array:
    """Return the depth frame (H, W) of a chunk, or raise `DamageError`."""
    from numcodecs import blosc

    packed, told = chunk[:-_CRC], chunk[-_CRC:]
    if len(packed) < _BLOSC_HEADER or struct.pack("<I", crc32c(packed)) != told:
        raise DamageError(key, "depth chunk does not match its checksum")
    if struct.unpack_from("<I", packed, 4)[0] != layout.slot_bytes:
        raise DamageError(key, "depth chunk has another size than its frame")
    return np.frombuffer(blosc.decompress(packed), layout.np_dtype).reshape(layout.sample)


class _Handle:
    """An open file that closes itself when nobody holds it any more, so no reader loses it while it reads."""

    __slots__ = ("fd",)

    def __init__(self, path: Path) -> None:
        self.fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)

    def __del__(self, close: Callable[[int], None] = os.close) -> None:
        close(self.fd)


class _Handles:
    """The shards that were read last, open: looking a path up again costs a twentieth of decoding a frame."""

    def __init__(self, most: int) -> None:
        self._most, self._lock = most, threading.Lock()
        self._open: OrderedDict[tuple[str, str], _Handle] = OrderedDict()

    def read(self, storage: Storage, key: str, start: int, stop: int) -> bytes:
        """Return bytes ``[start, stop)`` of an object; fewer where it ends."""
        name = (storage.url, key)
        with self._lock:
            handle = self._open.get(name)
            if handle is not None:
                self._open.move_to_end(name)
        if handle is None:
            path = storage.local(key)
            if path is None:
                return storage.read(key, start, stop)
            try:
                handle = _Handle(path)
            except OSError:
                return storage.read(key, start, stop)  # which tells what is wrong
            with self._lock:
                self._open[name] = handle
                while len(self._open) > self._most:
                    self._open.popitem(last=False)
        return os.pread(handle.fd, stop - start, start)


_handles = _Handles(_OPEN_SHARDS)


class _Room:
    """Bytes of remote rows that a process keeps: what is met first stays, and the rest is read by ranges.

    So nothing is ever fetched again to be thrown away again, however much larger than memory a dataset is.
    """

    def __init__(self, most: int) -> None:
        self._most, self._lock = most, threading.Lock()
        self._used = 0

    def is_for(self, size: int) -> bool:
        """Tell whether a shard of this size may be kept."""
        return size <= _KEPT_SHARD_BYTES and self._used + size <= self._most

    def keep(self, rows: Array) -> Array | None:
        """Count an array for as long as it lives; None if others took the room meanwhile."""
        if not self.is_for(rows.nbytes):
            return None
        self._add(rows.nbytes)
        weakref.finalize(rows, self._add, -rows.nbytes).atexit = False
        return rows

    def _add(self, size: int) -> None:
        with self._lock:
            self._used += size


_room = _Room(_KEPT_BYTES)


@dataclass(slots=True)
class _Shard:
    """A shard's checked index, and its rows if they are mapped or kept."""

    index: NDArray[np.uint64]
    rows: Array | None


@dataclass(slots=True, eq=False)
class ArrayReader:
    """Reads one array of a segment directly. Safe to share between threads.

    Attributes
    ----------
    key
        Key of the array in the storage.
    """

    storage: Storage
    key: str
    layout: Layout
    slots: int
    chunks_per_shard: int
    files: Mapping[str, int]
    """Sizes of the shards by key, as the commit log tells; so a short or missing file shows."""
    _shards: dict[int, _Shard] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def _shard(self, number: int) -> _Shard:
        shard = self._shards.get(number)
        if shard is None:
            with self._lock:
                shard = self._shards.get(number) or self._open_shard(number)
                self._shards[number] = shard
        return shard

    def _open_shard(self, number: int) -> _Shard:
        wanted = self.to_open(number)
        raw = self.storage.read(*wanted)
        if len(raw) != wanted[2] - wanted[1]:
            raise DamageError(wanted[0], "is shorter than the commit log says")
        return self._opened(number, raw)

    def to_open(self, number: int) -> Range:
        """Return what is read to open a shard: its index, or all of it where remote rows are to be kept."""
        key = f"{self.key}/{self.layout.shard_key(number)}"
        size = self.files.get(key)
        if size is None:
            raise DamageError(key, "the commit log knows no such shard")
        if size < self._index_bytes:
            raise DamageError(key, "is too short for its index")
        whole = self.layout.storing == "rows" and _room.is_for(size) and self.storage.local(key) is None
        return key, 0 if whole else size - self._index_bytes, size

    @property
    def _index_bytes(self) -> int:
        return self.chunks_per_shard * _ENTRY + _CRC

    def opens(self, number: int, raw: bytes) -> None:
        """Open a shard from what `to_open` said to read."""
        with self._lock:
            if number not in self._shards:
                self._shards[number] = self._opened(number, raw)

    def is_open(self, number: int) -> bool:
        """Tell whether a shard was opened already."""
        return number in self._shards

    def shards(self, start: int, stop: int) -> range:
        """Return the numbers of the shards that hold slots ``[start, stop)``."""
        size = self.chunks_per_shard * self.layout.chunk
        return range(start // size, -(-stop // size))

    def _opened(self, number: int, raw: bytes) -> _Shard:
        key = f"{self.key}/{self.layout.shard_key(number)}"
        table = raw[-self._index_bytes : -_CRC]
        if struct.pack("<I", crc32c(table)) != raw[-_CRC:]:
            raise DamageError(key, "shard index does not match its checksum")
        index = np.frombuffer(table, "<u8").reshape(-1, 2)
        used = index[index[:, 0] != ABSENT]
        limit = self.files[key] - self._index_bytes
        if used.size and (np.any(used > limit) or np.any(used[:, 0] + used[:, 1] > limit)):
            raise DamageError(key, "shard index points outside of the shard")
        return _Shard(index, self._rows_of(key, number, index, raw))

    def _rows_of(self, key: str, number: int, index: NDArray[np.uint64], raw: bytes) -> Array | None:
        """Return the rows of a shard, whose chunks lie one after another, if they are mapped or kept."""
        if self.layout.storing != "rows":
            return None
        chunk_bytes = self.layout.chunk * self.layout.slot_bytes
        first = number * self.chunks_per_shard
        chunks = min(self.chunks_per_shard, -(-self.slots // self.layout.chunk) - first)
        wanted = np.arange(chunks, dtype=np.uint64) * np.uint64(chunk_bytes)
        if not np.array_equal(index[:chunks, 0], wanted) or np.any(index[:chunks, 1] != chunk_bytes):
            raise DamageError(key, "rows are not dense")
        shape = (chunks * self.layout.chunk, *self.layout.sample)
        path = self.storage.local(key)
        if path is not None:
            if path.stat().st_size != self.files[key]:
                raise DamageError(key, "has another size than the commit log says")
            return np.memmap(path, self.layout.np_dtype, "r", shape=shape)
        if len(raw) == self._index_bytes:
            return None
        return _room.keep(np.frombuffer(raw[: chunks * chunk_bytes], self.layout.np_dtype).reshape(shape))

    def rows(self, start: int, stop: int) -> Array:
        """Return a copy of rows ``[start, stop)``: (n, *sample)."""
        per_shard = self.chunks_per_shard * self.layout.chunk
        number, at = divmod(start, per_shard)
        end = at + stop - start
        if end <= per_shard:
            shard = self._shards.get(number) or self._shard(number)
            if shard.rows is not None:
                return np.array(shard.rows[at:end])
        elif not self.far(start, stop):
            found = [self._shard(n).rows for n in self.shards(start, stop)]
            ends = range(number * per_shard, stop, per_shard)
            cuts = [slice(max(start - end, 0), stop - end) for end in ends]
            return np.concatenate(
                [rows[part] for rows, part in zip(found, cuts, strict=True) if rows is not None]
            )
        return self._read_rows(start, stop)

    def far(self, start: int, stop: int) -> list[Range]:
        """Return what is read for rows ``[start, stop)``; nothing where all of them are mapped or kept."""
        per_shard = self.chunks_per_shard * self.layout.chunk
        size, found = self.layout.slot_bytes, []
        for number in self.shards(start, stop):
            first = number * per_shard
            at, end = max(start - first, 0), min(stop - first, per_shard)
            found.append((f"{self.key}/{self.layout.shard_key(number)}", at * size, end * size))
        return found if any(self._shard(n).rows is None for n in self.shards(start, stop)) else []

    def take(self, slots: NDArray[np.int64]) -> Array:
        """Return a copy of some rows: (n, *sample); those that are far off in few requests."""
        out = np.empty((len(slots), *self.layout.sample), self.layout.np_dtype)
        per_shard = self.chunks_per_shard * self.layout.chunk
        numbers = slots // per_shard
        for number in np.unique(numbers).tolist():
            (where,) = np.nonzero(numbers == number)
            at, rows = slots[where] - number * per_shard, self._shard(number).rows
            if rows is not None:
                out[where] = rows[at]
                continue
            key, size = f"{self.key}/{self.layout.shard_key(number)}", self.layout.slot_bytes
            parts = self.storage.read_many([(key, row * size, (row + 1) * size) for row in at.tolist()])
            out[where] = np.frombuffer(b"".join(parts), out.dtype).reshape(-1, *self.layout.sample)
        return out

    def _read_rows(self, start: int, stop: int) -> Array:
        """Return rows by reading and not by mapping: mapped pages stay with the process after a long pass."""
        out = np.empty((stop - start, *self.layout.sample), self.layout.np_dtype)
        per_shard = self.chunks_per_shard * self.layout.chunk
        while start < stop:
            number, at = divmod(start, per_shard)
            n = min(stop - start, per_shard - at)
            self._shard(number)
            key = f"{self.key}/{self.layout.shard_key(number)}"
            size = self.layout.slot_bytes
            raw = _handles.read(self.storage, key, at * size, (at + n) * size)
            if len(raw) != n * size:
                raise DamageError(key, "is shorter than the commit log says")
            done = len(out) - (stop - start)
            out[done : done + n] = np.frombuffer(raw, out.dtype).reshape(n, *self.layout.sample)
            start += n
        return out

    def place(self, chunk: int) -> tuple[str, int, int]:
        """Return where a chunk's bytes lie: key of the shard, start, stop."""
        number, at = divmod(chunk, self.chunks_per_shard)
        offset, size = map(int, self._shard(number).index[at])
        key = f"{self.key}/{self.layout.shard_key(number)}"
        if offset == ABSENT:
            raise DamageError(key, f"chunk {chunk} is missing")
        return key, offset, offset + size

    def chunk(self, chunk: int, most: int | None = None) -> bytes:
        """Return a chunk's bytes, or no more than the first ``most``: one range read."""
        key, start, stop = self.place(chunk)
        stop = stop if most is None else min(stop, start + most)
        raw = _handles.read(self.storage, key, start, stop)
        if len(raw) != stop - start:
            raise DamageError(key, f"ends within chunk {chunk}")
        return raw

    def frames(self, wanted: Sequence[int] | NDArray[np.int64], out: Array | None = None) -> Array:
        """Return the camera or depth frames of the given slots: (n, *sample).

        Parameters
        ----------
        wanted
            Slots in rising order.
        out
            Where to put them, if the caller has the memory already.
        """
        slots = np.asarray(wanted, np.int64)
        if out is None:
            out = np.empty((len(slots), *self.layout.sample), self.layout.np_dtype)
        if not len(slots):
            return out
        edges = np.flatnonzero(np.diff(slots // self.layout.chunk)) + 1
        for run in np.split(np.arange(len(slots)), edges):
            self._decode(int(slots[run[0]]) // self.layout.chunk, slots[run], out[run[0] : run[-1] + 1])
        return out

    def _decode(self, chunk: int, slots: NDArray[np.int64], out: Array) -> None:
        raw = self.chunk(chunk)
        place = f"{self.key} [chunk {chunk}]"
        if self.layout.video is None:
            out[:] = decompress_depth(raw, self.layout, place)
            return
        from .decode import decode_into

        try:
            decode_into(raw, self.layout.video, (slots - chunk * self.layout.chunk).tolist(), out)
        except DamageError as error:
            raise DamageError(place, error.why) from error

    def blocks(self, start: int, stop: int, block_bytes: int) -> Iterator[Array]:
        """Yield slots ``[start, stop)`` in blocks of at most about ``block_bytes``."""
        step = max(1, block_bytes // max(1, self.layout.slot_bytes))
        if self.layout.storing == "video":
            # Whole chunks decode each packet once.
            step = max(self.layout.chunk, step // self.layout.chunk * self.layout.chunk)
        read = self._read_rows if self.layout.storing == "rows" else self._frames_between
        while start < stop:
            end = min(stop, start - start % step + step)
            yield read(start, end)
            start = end

    def _frames_between(self, start: int, stop: int) -> Array:
        return self.frames(np.arange(start, stop))


def open_shards(wanted: Iterable[tuple[ArrayReader, int, int]]) -> None:
    """Open the shards that hold slots ``[start, stop)`` of arrays: those of one storage all at once.

    Raises
    ------
    DamageError
        If an index is not what it must be.
    """
    missing: dict[int, dict[Range, tuple[ArrayReader, int]]] = {}
    for reader, start, stop in wanted:
        for number in reader.shards(start, stop):
            if not reader.is_open(number):
                group = missing.setdefault(id(reader.storage), {})
                group.setdefault(reader.to_open(number), (reader, number))
    for group in missing.values():
        storage = next(iter(group.values()))[0].storage
        for (reader, number), raw in zip(group.values(), storage.read_many(list(group)), strict=True):
            reader.opens(number, raw)
