"""Reads the arrays of a segment directly.

Plain zarr-python opens them too; this does not go through it. A shard's index is read and checked once,
low-dimensional rows are mapped, a camera chunk is one range read.
"""

from __future__ import annotations

import os
import struct
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from google_crc32c import value as crc32c
from numpy.typing import NDArray

from ..schemas import Array, DamageError
from .layout import Layout
from .shards import ABSENT
from .storage import Storage

_ENTRY = 16
_CRC = 4
_BLOSC_HEADER = 16
_OPEN_SHARDS = 128


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


@dataclass(slots=True)
class _Shard:
    """A shard's checked index, and its rows if they can be mapped."""

    index: NDArray[np.uint64]
    rows: Array | None


@dataclass(slots=True)
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
        key = f"{self.key}/{self.layout.shard_key(number)}"
        size = self.files.get(key)
        table_bytes = self.chunks_per_shard * _ENTRY
        if size is None:
            raise DamageError(key, "the commit log knows no such shard")
        if size < table_bytes + _CRC:
            raise DamageError(key, "is too short for its index")
        raw = self.storage.read(key, size - table_bytes - _CRC, size)
        if len(raw) != table_bytes + _CRC:
            raise DamageError(key, "is shorter than the commit log says")
        table = raw[:-_CRC]
        if struct.pack("<I", crc32c(table)) != raw[-_CRC:]:
            raise DamageError(key, "shard index does not match its checksum")
        index = np.frombuffer(table, "<u8").reshape(-1, 2)
        used = index[index[:, 0] != ABSENT]
        limit = size - table_bytes - _CRC
        if used.size and (np.any(used > limit) or np.any(used[:, 0] + used[:, 1] > limit)):
            raise DamageError(key, "shard index points outside of the shard")
        return _Shard(index, self._map(key, number, index, size))

    def _map(self, key: str, number: int, index: NDArray[np.uint64], size: int) -> Array | None:
        """Map the rows of a shard, if it is local and its chunks lie one after another."""
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
            if path.stat().st_size != size:
                raise DamageError(key, "has another size than the commit log says")
            return np.memmap(path, self.layout.np_dtype, "r", shape=shape)
        # Rows are small beside video: a remote shard is fetched once, whole.
        raw = self.storage.read(key, 0, chunks * chunk_bytes)
        return np.frombuffer(raw, self.layout.np_dtype).reshape(shape)

    def rows(self, start: int, stop: int) -> Array:
        """Return a copy of rows ``[start, stop)``: (n, *sample)."""
        per_shard = self.chunks_per_shard * self.layout.chunk
        number, at = divmod(start, per_shard)
        end = at + stop - start
        if end <= per_shard:
            shard = self._shards.get(number) or self._shard(number)
            return np.array(shard.rows[at:end])  # type: ignore[index]  # rows layouts are always mapped
        parts = []
        while start < stop:
            number, at = divmod(start, per_shard)
            n = min(stop - start, per_shard - at)
            parts.append(self._shard(number).rows[at : at + n])  # type: ignore[index]
            start += n
        return np.concatenate(parts)

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
