"""Arrays of a segment as files: Zarr v3 documents, shards written in order, shards read directly.

Every array is a standard Zarr v3 array in `sharding_indexed` shards (ZEP 2), which plain zarr-python opens.
The direct reader here does not go through it: a shard's index is read and checked once, low-dimensional
rows are mapped, a camera chunk is one range read.
"""

from __future__ import annotations

import struct
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
from google_crc32c import value as crc32c
from numpy.typing import NDArray

from ..schemas import Array, DamageError, StreamSpec, VideoFormat
from .disk import DurableFile, make_folder
from .storage import Storage

SLOTS = 32
"""Default T: frames of a camera chunk, and the multiple on which every episode starts."""
ROWS = 1024
"""Rows of an inner chunk of a low-dimensional array."""
SHARD_BYTES = 256 << 20
SHARD_CHUNKS = 4096
_CHUNK_BYTES = 4 << 20
_ABSENT = (1 << 64) - 1
_ENTRY = 16
_CRC = 4
_BLOSC_HEADER = 16

Storing = Literal["rows", "depth", "video"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """How one array lies on disk.

    Attributes
    ----------
    storing
        ``rows``: dense and uncompressed, so that they can be mapped. ``depth``: a frame a chunk,
        bitshuffle + zstd + crc32c. ``video``: a closed GOP a chunk, codec ``teleopen.video``.
    dtype, sample
        dtype and shape of one slot.
    chunk
        Slots per inner chunk.
    video
        For ``video`` only: how its packets are decoded.
    """

    storing: Storing
    dtype: str
    sample: tuple[int, ...]
    chunk: int
    video: VideoFormat | None = None

    @property
    def np_dtype(self) -> np.dtype[Any]:
        """The little-endian dtype of the slots."""
        return np.dtype(self.dtype).newbyteorder("<")

    @property
    def slot_bytes(self) -> int:
        """Bytes of one slot when decoded."""
        return self.np_dtype.itemsize * int(np.prod(self.sample, dtype=np.int64))

    def shard_key(self, shard: int) -> str:
        """Return the key of a shard, below the array's own."""
        return "/".join(["c", str(shard), *("0" for _ in self.sample)])


def rows_layout(dtype: str, sample: tuple[int, ...]) -> Layout:
    """Return the layout of a low-dimensional array: chunks of 1024 rows, fewer if rows are large."""
    layout = Layout(storing="rows", dtype=dtype, sample=sample, chunk=ROWS)
    rows = ROWS
    while rows > 1 and rows * layout.slot_bytes > _CHUNK_BYTES:
        rows //= 2
    return Layout(storing="rows", dtype=dtype, sample=sample, chunk=rows)


def layout_of(spec: StreamSpec, video: VideoFormat | None = None, slots: int = SLOTS) -> Layout:
    """Return the layout of a stream's array."""
    if spec.kind == "video":
        return Layout(storing="video", dtype=spec.dtype, sample=spec.shape, chunk=slots, video=video)
    if spec.kind == "depth":
        return Layout(storing="depth", dtype=spec.dtype, sample=spec.shape, chunk=1)
    return rows_layout(spec.dtype, spec.shape)


# ---------------------------------------------------------------- documents


def array_document(
    layout: Layout,
    slots: int,
    chunks_per_shard: int,
    attributes: Mapping[str, Any],
    dimensions: Sequence[str],
) -> dict[str, Any]:
    """Return the ``zarr.json`` of an array of ``slots`` slots."""
    sample = list(layout.sample)
    chunk = min(layout.chunk, slots) if layout.storing == "rows" else layout.chunk
    return {
        "zarr_format": 3,
        "node_type": "array",
        "shape": [slots, *sample],
        "data_type": layout.dtype,
        "chunk_grid": {
            "name": "regular",
            "configuration": {"chunk_shape": [chunk * chunks_per_shard, *sample]},
        },
        "chunk_key_encoding": {"name": "default", "configuration": {"separator": "/"}},
        "fill_value": False if layout.dtype == "bool" else 0,
        "codecs": [
            {
                "name": "sharding_indexed",
                "configuration": {
                    "chunk_shape": [chunk, *sample],
                    "codecs": _inner_codecs(layout),
                    "index_codecs": [
                        {"name": "bytes", "configuration": {"endian": "little"}},
                        {"name": "crc32c"},
                    ],
                    "index_location": "end",
                },
            }
        ],
        "dimension_names": list(dimensions),
        "attributes": dict(attributes),
        "storage_transformers": [],
    }


def _inner_codecs(layout: Layout) -> list[dict[str, Any]]:
    if layout.video is not None:
        video = layout.video
        return [
            {
                "name": "teleopen.video",
                "configuration": {
                    "version": 1,
                    "codec": video.codec,
                    "bitstream": video.bitstream,
                    "pixel_format": video.pixel_format,
                    "matrix": video.matrix,
                    "range": video.range,
                },
            }
        ]
    plain: dict[str, Any] = {"name": "bytes"}
    if layout.np_dtype.itemsize > 1:
        plain["configuration"] = {"endian": "little"}
    if layout.storing == "rows":
        return [plain]
    blosc = {
        "typesize": layout.np_dtype.itemsize,
        "cname": "zstd",
        "clevel": 5,
        "shuffle": "bitshuffle",
        "blocksize": 0,
    }
    return [plain, {"name": "blosc", "configuration": blosc}, {"name": "crc32c"}]


def group_document(attributes: Mapping[str, Any], members: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Return the ``zarr.json`` of a group, with inline consolidated metadata if ``members`` are given."""
    document: dict[str, Any] = {"zarr_format": 3, "node_type": "group", "attributes": dict(attributes)}
    if members is not None:
        document["consolidated_metadata"] = {
            "kind": "inline",
            "must_understand": False,
            "metadata": dict(members),
        }
    return document


def parse_array(document: Mapping[str, Any], key: str) -> tuple[Layout, int, int]:
    """Return the layout, the number of slots and the chunks per shard that an array document tells.

    Raises
    ------
    DamageError
        If it is not a document that `array_document` makes.
    """
    try:
        codec = document["codecs"][0]["configuration"]
        sample = tuple(document["shape"][1:])
        inner = codec["codecs"]
        video = None
        if inner[0]["name"] == "teleopen.video":
            told = {k: v for k, v in inner[0]["configuration"].items() if k != "version"}
            video = VideoFormat(**told, width=sample[1] + sample[1] % 2, height=sample[0] + sample[0] % 2)
        storing: Storing = "video" if video else ("rows" if len(inner) == 1 else "depth")
        layout = Layout(
            storing=storing,
            dtype=document["data_type"],
            sample=sample,
            chunk=codec["chunk_shape"][0],
            video=video,
        )
        slots = int(document["shape"][0])
        per_shard = document["chunk_grid"]["configuration"]["chunk_shape"][0] // layout.chunk
        again = array_document(layout, slots, per_shard, document["attributes"], document["dimension_names"])
    except (KeyError, TypeError, ValueError, IndexError, ZeroDivisionError) as error:
        raise DamageError(key, f"is not an array of format 1: {error!r}") from error
    if again != document:
        raise DamageError(key, "is not an array of format 1")
    return layout, slots, per_shard


# ---------------------------------------------------------------- writing


class ShardWriter:
    """Writes the inner chunks of one array, in order, into as many shards as they need.

    The number of chunks per shard must be the same for all shards; it becomes fixed when the first
    shard is full, or at the end if it never is.
    """

    def __init__(self, folder: Path, layout: Layout) -> None:
        self.folder, self.layout = folder, layout
        self.chunks = 0
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
        self._index += [(_ABSENT, _ABSENT)] * (chunks - len(self._index))
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


def decompress_depth(chunk: bytes, layout: Layout, key: str) -> Array:
    """Return the depth frame (H, W) of a chunk, or raise `DamageError`."""
    from numcodecs import blosc

    packed, told = chunk[:-_CRC], chunk[-_CRC:]
    if len(packed) < _BLOSC_HEADER or struct.pack("<I", crc32c(packed)) != told:
        raise DamageError(key, "depth chunk does not match its checksum")
    if struct.unpack_from("<I", packed, 4)[0] != layout.slot_bytes:
        raise DamageError(key, "depth chunk has another size than its frame")
    return np.frombuffer(blosc.decompress(packed), layout.np_dtype).reshape(layout.sample)


# ---------------------------------------------------------------- reading


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
        used = index[index[:, 0] != _ABSENT]
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

    def place(self, chunk: int) -> tuple[str, int, int]:
        """Return where a chunk's bytes lie: key of the shard, start, stop."""
        number, at = divmod(chunk, self.chunks_per_shard)
        offset, size = map(int, self._shard(number).index[at])
        key = f"{self.key}/{self.layout.shard_key(number)}"
        if offset == _ABSENT:
            raise DamageError(key, f"chunk {chunk} is missing")
        return key, offset, offset + size

    def chunk(self, chunk: int) -> bytes:
        """Return a chunk's bytes: one range read."""
        key, start, stop = self.place(chunk)
        raw = self.storage.read(key, start, stop)
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
        while start < stop:
            end = (
                min(stop, start - start % step + step)
                if self.layout.storing == "video"
                else min(stop, start + step)
            )
            yield (
                self.rows(start, end) if self.layout.storing == "rows" else self.frames(np.arange(start, end))
            )
            start = end
