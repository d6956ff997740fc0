"""The arrays of a segment being written: rows, depth frames, and GOPs that a thread pool encodes.

At most a fixed amount of frames is in flight, whatever the length of a recording.
"""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, Future
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from google_crc32c import value as crc32c

from ..schemas import (
    Array,
    FormatError,
    Json,
    PacketBlock,
    Packets,
    SchemaError,
    Stream,
    StreamSpec,
    block_problems,
)
from .layout import SLOTS, Layout, layout_of
from .options import WriteOptions
from .shards import RowWriter, ShardWriter, compress_depth

if TYPE_CHECKING:
    from .encode import Encoding
    from .quality import Quality

Progress = Callable[[str, int], None]
"""Called with the name of a stream and the samples of it that were just written."""

_GOP_BYTES = 128 << 20
_IN_FLIGHT_BYTES = 192 << 20
_TRIAL_FRAMES = 64


@dataclass(slots=True)
class StreamReport:
    """What writing one stream of one episode gave: digest of what went in, and the measured quality."""

    sha256: str
    qualities: list[Quality] = field(default_factory=list)


class Sink(ABC):
    """One stream's array being written, episode after episode.

    Attributes
    ----------
    attributes
        What the array's document says besides the stream's header.
    """

    def __init__(self, spec: StreamSpec, layout: Layout) -> None:
        self.spec, self.layout = spec, layout
        self.attributes: dict[str, Json] = {}

    @property
    @abstractmethod
    def written(self) -> int:
        """Bytes of chunks in files so far."""

    @abstractmethod
    def add(self, stream: Stream, progress: Progress) -> StreamReport:
        """Write an episode's samples and return what they were."""

    @abstractmethod
    def pad(self, slots: int) -> None:
        """Repeat what came last until the array has ``slots`` slots."""

    @abstractmethod
    def finish(self) -> int:
        """Write what is held and return the chunks per shard."""

    @abstractmethod
    def abort(self) -> None:
        """Close the open file; what was written is not wanted."""


class RowSink(Sink):
    """The rows of a low-dimensional stream."""

    def __init__(self, spec: StreamSpec, folder: Path) -> None:
        super().__init__(spec, layout_of(spec))
        self._rows = RowWriter(folder, self.layout)

    @property
    def written(self) -> int:
        return self._rows.written

    def add(self, stream: Stream, progress: Progress) -> StreamReport:
        digest = hashlib.sha256()
        for block in checked_blocks(stream):
            plain = np.ascontiguousarray(block, self.layout.np_dtype)
            digest.update(plain.data)
            self._rows.append(plain)
            progress(self.spec.name, len(plain))
        return StreamReport(digest.hexdigest())

    def pad(self, slots: int) -> None:
        self._rows.pad(slots)

    def finish(self) -> int:
        return self._rows.finish()

    def abort(self) -> None:
        self._rows.abort()


class ChunkSink(Sink):
    """The frames of a depth stream or a camera, in chunks of their own."""

    def __init__(self, spec: StreamSpec, folder: Path, layout: Layout, pool: Executor) -> None:
        super().__init__(spec, layout)
        self.pool = pool
        self._shards = ShardWriter(folder, layout)

    @property
    def written(self) -> int:
        return self._shards.written

    def pad(self, slots: int) -> None:
        while self._shards.chunks * self.layout.chunk < slots:
            self._shards.repeat()

    def finish(self) -> int:
        return self._shards.finish()

    def abort(self) -> None:
        self._shards.abort()


class DepthSink(ChunkSink):
    """The frames of a depth stream, each its own chunk."""

    def __init__(self, spec: StreamSpec, folder: Path, pool: Executor) -> None:
        super().__init__(spec, folder, layout_of(spec), pool)

    def add(self, stream: Stream, progress: Progress) -> StreamReport:
        digest = hashlib.sha256()
        for block in checked_blocks(stream):
            plain = np.ascontiguousarray(block, self.layout.np_dtype)
            digest.update(plain.data)
            for chunk in self.pool.map(compress_depth, plain):
                self._shards.append(chunk)
            progress(self.spec.name, len(plain))
        return StreamReport(digest.hexdigest())


class CameraSink(ChunkSink):
    """The GOPs of a camera, encoded here or taken as they came."""

    def __init__(
        self, spec: StreamSpec, folder: Path, pool: Executor, choice: tuple[Encoding, int], quality_db: float
    ) -> None:
        self.encoding, slots = choice
        self.quality_db = quality_db
        super().__init__(spec, folder, layout_of(spec, self.encoding.video, slots), pool)
        self.attributes = {"encodings": [encoding_document(self.encoding)]}

    def add(self, stream: Stream, progress: Progress) -> StreamReport:
        if self.encoding.profile == "source" and stream.packets is not None:
            return self._take(stream, stream.packets, progress)
        return self._encode(stream, progress)

    def _take(self, stream: Stream, packets: Packets, progress: Progress) -> StreamReport:
        from .source import gops_from_packets

        digest = hashlib.sha256()

        def seen() -> Iterator[PacketBlock]:
            for block in packets.blocks():
                digest.update(told_of(block))
                yield block

        slots, left = self.layout.chunk, stream.length
        try:
            for chunk in gops_from_packets(seen(), video=packets.format, length=stream.length, slots=slots):
                self._shards.append(chunk)
                progress(self.spec.name, min(left, slots))
                left -= slots
        except FormatError as error:
            path = error.path or f"streams.{self.spec.name}"
            raise FormatError(path, error.where, error.why, error.advice) from error
        return StreamReport(digest.hexdigest())

    def _encode(self, stream: Stream, progress: Progress) -> StreamReport:
        from .encode import encode_gop

        report = StreamReport("")
        digest = hashlib.sha256()
        pending: deque[tuple[int, Future[tuple[bytes, Quality]]]] = deque()
        gop_bytes = self.layout.chunk * self.layout.slot_bytes
        limit = max(2, _IN_FLIGHT_BYTES // gop_bytes)

        def settle() -> None:
            frames, future = pending.popleft()
            chunk, quality = future.result()
            self._shards.append(chunk)
            report.qualities.append(quality)
            progress(self.spec.name, frames)

        try:
            for gop in regrouped(checked_blocks(stream), self.layout):
                for frame in gop:
                    digest.update(crc32c(frame).to_bytes(4, "little"))
                pending.append(
                    (len(gop), self.pool.submit(encode_gop, gop, self.encoding, quality_db=self.quality_db))
                )
                while len(pending) >= limit or (pending and pending[0][1].done()):
                    settle()
            while pending:
                settle()
        finally:
            for _, future in pending:
                future.cancel()
        report.sha256 = digest.hexdigest()
        return report


def told_of(block: PacketBlock) -> bytes:
    """Return what counts of packets: of each its pts (int64), the key flag (a byte), and its bytes."""
    rows = np.zeros(len(block), [("pts", "<i8"), ("key", "?")])
    rows["pts"], rows["key"] = block.pts, block.key
    raw, width, view = rows.tobytes(), rows.itemsize, block.data.data
    ends = np.cumsum(block.size)
    each = zip((ends - block.size).tolist(), ends.tolist(), strict=True)
    parts: list[bytes | memoryview] = [b""] * (2 * len(block))
    parts[::2] = [raw[at : at + width] for at in range(0, len(raw), width)]
    parts[1::2] = [view[start:end] for start, end in each]
    return b"".join(parts)


def checked_blocks(stream: Stream) -> Iterator[Array]:
    """Yield a stream's blocks, and raise `SchemaError` where they break what the header says."""
    seen = 0
    for block in stream:
        problems = block_problems(stream.spec, block)
        if problems:
            raise SchemaError(problems)
        seen += len(block)
        yield block
    if seen != stream.length:
        where = f"streams.{stream.spec.name}"
        raise FormatError(where, "", f"the source gave {seen} samples, its header says {stream.length}")


def regrouped(blocks: Iterable[Array], layout: Layout) -> Iterator[Array]:
    """Yield the frames of blocks of any size, ``layout.chunk`` at a time; the last array may be shorter."""
    gop, filled = np.empty((layout.chunk, *layout.sample), layout.np_dtype), 0
    for block in blocks:
        at = 0
        while at < len(block):
            n = min(layout.chunk - filled, len(block) - at)
            gop[filled : filled + n] = block[at : at + n]
            filled, at = filled + n, at + n
            if filled == layout.chunk:
                yield gop
                gop, filled = np.empty_like(gop), 0
    if filled:
        yield gop[:filled]


def encoding_document(encoding: Encoding) -> dict[str, Json]:
    """Return what is recorded of how a camera was encoded. Informative: decoding does not need it."""
    return {
        "profile": encoding.profile,
        "encoder": encoding.encoder,
        "crf": encoding.crf,
        "settings": dict(encoding.settings),
        "reason": encoding.reason,
    }


def gop_slots(spec: StreamSpec) -> int:
    """Return T for a camera that is encoded here: 32, or less where 32 frames are too much memory."""
    slots = SLOTS
    while slots > 1 and slots * spec.sample_bytes > _GOP_BYTES:
        slots //= 2
    return slots


def choose_encoding(
    stream: Stream, options: WriteOptions, known: dict[str, Encoding]
) -> tuple[Encoding, int]:
    """Return how a camera is to be stored, and its T.

    Parameters
    ----------
    known
        Choices already made in this run, by camera; the trial is made once per camera.
    """
    from .encode import Encoding, choose
    from .source import slots_for_source

    spec = stream.spec
    if stream.packets is not None and not options.transcode:
        taken = Encoding(
            profile="source",
            video=stream.packets.format,
            encoder="",
            crf=None,
            settings={},
            reason="packets taken as they came",
        )
        return taken, slots_for_source(stream.packets.blocks(), video=stream.packets.format)
    if options.profile == "source":
        raise FormatError(
            spec.name, "", "has no packets to take", "Choose another video profile, such as lossless"
        )
    key = f"{spec.name} {spec.shape}"
    if key not in known:
        known[key] = choose(_trial_frames(stream), profile=options.profile, quality_db=options.quality_db)
    return known[key], gop_slots(spec)


def _trial_frames(stream: Stream) -> Array:
    """Return frames from the start and the middle of a stream: (n <= 64, H, W, C)."""
    half = max(1, min(_TRIAL_FRAMES, _GOP_BYTES // stream.spec.sample_bytes) // 2)
    middle = max(half, stream.length // 2)
    return np.concatenate([stream.values(0, half), stream.values(middle, middle + half)])


def quality_document(qualities: list[Quality], encoding: Encoding) -> dict[str, Json]:
    """Return the quality of an episode's camera over all of its GOPs."""
    if encoding.profile == "lossless":
        return {"profile": "lossless", "codec": encoding.video.codec}
    return {
        "profile": encoding.profile,
        "codec": encoding.video.codec,
        "psnr_db": round(float(np.mean([q.psnr_db for q in qualities])), 2),
        "min_psnr_db": round(min(q.min_psnr_db for q in qualities), 2),
        "ssim": round(float(np.mean([q.ssim for q in qualities])), 4),
        "frames_measured": sum(q.frames for q in qualities),
    }
