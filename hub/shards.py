"""Writes the shards of an array in order: chunks first, then the index with its checksum."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
from google_crc32c import value as crc32c

from ..schemas import Array
from .disk import DurableFile, make_folder
from .layout import Layout

SHARD_BYTES = 256 << 20
SHARD_CHUNKS = 4096
ABSENT = (1 << 64) - 1
"""Offset and size of an index entry that no chunk has (ZEP 2)."""


class ShardWriter:
    """Writes the inner chunks of one array, in order, into as many shards as they need.

    The number of chunks per shard must be the same for all shards; it becomes fixed when the first
    shard is full, or at the end if it never is.

    Attributes
    ----------
    chunks, written
        Chunks so far, and bytes of chunks in files so far.
    """

    def __init__(self, folder: Path, layout: Layout) -> None:
        self.folder, self.layout = folder, layout
        self.chunks = self.written = 0
        self._per_shard: int | None = None
        self._file: DurableFile | None = None
        self._shard, self._size = 0, 0
        self._index: list[tuple[int, int]] = []
        self._last: bytes | memoryview = b""

    def append(self, data: bytes | memoryview) -> None:
        """Add the next chunk's bytes."""
        self._open().write(data)
        self._index.append((self._size, len(data)))
        self._size += len(data)
        self.written += len(data)
        self._last = data
        self._count()

    def repeat(self) -> None:
        """Add a chunk that is the same as the last one, at no cost: both entries name one range."""
        if not self._index:
            self.append(self._last)
            return
        self._index.append(self._index[-1])
        self._count()

    def _count(self) -> None:
        self.chunks += 1
        full = len(self._index) == self._per_shard
        if self._per_shard is None:
            full = self._size >= SHARD_BYTES or len(self._index) >= SHARD_CHUNKS
        if full:
            self._close_shard(len(self._index))

    def _open(self) -> DurableFile:
        if self._file is None:
            path = self.folder / self.layout.shard_key(self._shard)
            make_folder(path.parent)
            self._file = DurableFile(path)
            self._size = 0
        return self._file

    def _close_shard(self, chunks: int) -> None:
        self._per_shard = chunks
        if self._file is None:
            return
        self._index += [(ABSENT, ABSENT)] * (chunks - len(self._index))
        table = np.array(self._index, "<u8").tobytes()
        self._file.write(table + struct.pack("<I", crc32c(table)))
        self._file.close()
        self._file, self._index = None, []
        self._shard += 1

    def finish(self) -> int:
        """Close the last shard and return the chunks per shard."""
        chunks = self._per_shard or max(1, len(self._index))
        self._close_shard(chunks)
        return chunks

    def abort(self) -> None:
        """Close the open file; what was written is not wanted."""
        if self._file is not None:
            self._file.abort()
            self._file = None


class RowWriter:
    """Writes the rows of a low-dimensional array, dense, so that a reader can map them."""

    def __init__(self, folder: Path, layout: Layout) -> None:
        self.layout = layout
        self.rows = 0
        self._shards = ShardWriter(folder, layout)
        self._held: list[Array] = []
        self._held_rows = 0
        self._last: Array | None = None

    @property
    def written(self) -> int:
        """Bytes of chunks in files so far."""
        return self._shards.written

    def append(self, rows: Array) -> None:
        """Add rows (n, *sample)."""
        if not len(rows):
            return
        rows = np.ascontiguousarray(rows, self.layout.np_dtype)
        self._last = rows[-1:].copy()
        self.rows += len(rows)
        self._held.append(rows)
        self._held_rows += len(rows)
        if self._held_rows >= self.layout.chunk:
            self._write(self._held_rows // self.layout.chunk)

    def pad(self, slots: int) -> None:
        """Repeat the last row until there are ``slots`` rows."""
        if slots > self.rows and self._last is not None:
            self.append(np.repeat(self._last, slots - self.rows, axis=0))

    def _write(self, chunks: int) -> None:
        rows = np.concatenate(self._held)
        size = self.layout.chunk
        for i in range(chunks):
            self._shards.append(rows[i * size : (i + 1) * size].tobytes())
        rest = rows[chunks * size :].copy()
        self._held, self._held_rows = ([rest] if len(rest) else []), len(rest)

    def finish(self) -> int:
        """Write what is held and return the chunks per shard."""
        if self._held_rows:
            # An array shorter than one chunk is one chunk of its own length: see `array_document`.
            missing = 0 if self.rows < self.layout.chunk else self.layout.chunk - self._held_rows
            blank = np.zeros((missing, *self.layout.sample), self.layout.np_dtype)
            self._shards.append(np.concatenate([*self._held, blank]).tobytes())
        return self._shards.finish()

    def abort(self) -> None:
        """Close the open file; what was written is not wanted."""
        self._shards.abort()


def compress_depth(frame: Array) -> bytes:
    """Return one depth frame (H, W) as a chunk: blosc(zstd, bitshuffle), then crc32c."""
    from numcodecs import blosc

    plain = np.ascontiguousarray(frame)
    packed: bytes = blosc.compress(plain, b"zstd", 5, blosc.BITSHUFFLE)
    return packed + struct.pack("<I", crc32c(packed))
