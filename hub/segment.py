"""Writes a segment: episodes of one schema, one embodiment and one rights class, in a staging folder.

Each array is its own file, so streams are written one after another, a block at a time. Camera frames are
cut into GOPs that a thread pool encodes; at most a fixed amount of them is in flight.
"""

from __future__ import annotations

import hashlib
import io
import struct
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Executor, Future
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from google_crc32c import value as crc32c

from ..schemas import (
    Array,
    Clock,
    Episode,
    FieldFate,
    FormatError,
    Json,
    Packet,
    Packets,
    SchemaError,
    Stream,
    StreamSpec,
    block_problems,
    canonical,
    time_problems,
    to_document,
)
from . import disk
from .catalog import Add, File
from .layout import SLOTS, Layout, array_document, group_document, layout_of, rows_layout
from .shards import RowWriter, ShardWriter, compress_depth
from .version import TOOL

if TYPE_CHECKING:
    from .encode import Encoding, Profile, Quality

Progress = Callable[[str, int], None]
"""Called with the name of a stream and the samples of it that were just written."""

_GOP_BYTES = 128 << 20
_IN_FLIGHT_BYTES = 192 << 20
_TRIAL_FRAMES = 64
_PEEK_PACKETS = 512


@dataclass(frozen=True, slots=True, kw_only=True)
class WriteOptions:
    """How episodes are written.

    Attributes
    ----------
    profile
        Video profile for cameras that come as frames; see docs/codec.md.
    quality_db
        PSNR that lossy profiles aim at, in dB over RGB.
    transcode
        Encode anew also what comes as packets. Otherwise packets are taken as they are.
    workers
        Encoding threads; None: one per core.
    segment_bytes, segment_episodes
        A segment is closed when it has grown to either.
    """

    profile: Profile = "train"
    quality_db: float = 37.0
    transcode: bool = False
    workers: int | None = None
    segment_bytes: int = 1 << 30
    segment_episodes: int = 1000


@dataclass(slots=True)
class StreamReport:
    """What writing one stream of one episode gave: digest of what went in, and the measured quality."""

    sha256: str
    qualities: list[Quality] = field(default_factory=list)


def signature(episode: Episode, options: WriteOptions) -> str:
    """Return the digest of what all episodes of a segment must have in common."""
    taken = {
        name: to_document(stream.packets.format)
        for name, stream in episode.streams.items()
        if stream.packets is not None and not options.transcode
    }
    common = {
        "streams": {name: to_document(stream.spec) for name, stream in episode.streams.items()},
        "packets": taken,
        "embodiment": episode.embodiment,
        "rights": episode.rights.to_document(),
        "clocks": sorted(episode.clocks),
    }
    return hashlib.sha256(canonical(common)).hexdigest()


# ---------------------------------------------------------------- one array each


class _Rows:
    """The rows of a low-dimensional stream."""

    def __init__(self, spec: StreamSpec, folder: Path) -> None:
        self.layout = layout_of(spec)
        self.spec = spec
        self.array = RowWriter(folder, self.layout)
        self.attributes: dict[str, Json] = {}

    def add(self, stream: Stream, progress: Progress) -> StreamReport:
        digest = hashlib.sha256()
        for block in checked_blocks(stream):
            plain = np.ascontiguousarray(block, self.layout.np_dtype)
            digest.update(plain.data)
            self.array.append(plain)
            progress(self.spec.name, len(plain))
        return StreamReport(digest.hexdigest())

    def pad(self, slots: int) -> None:
        self.array.pad(slots)

    def finish(self) -> int:
        return self.array.finish()

    def abort(self) -> None:
        self.array.abort()


class _Depth:
    """The frames of a depth stream, each its own chunk."""

    def __init__(self, spec: StreamSpec, folder: Path, pool: Executor) -> None:
        self.layout = layout_of(spec)
        self.spec, self.pool = spec, pool
        self.array = ShardWriter(folder, self.layout)
        self.attributes: dict[str, Json] = {}

    def add(self, stream: Stream, progress: Progress) -> StreamReport:
        digest = hashlib.sha256()
        for block in checked_blocks(stream):
            plain = np.ascontiguousarray(block, self.layout.np_dtype)
            digest.update(plain.data)
            for chunk in self.pool.map(compress_depth, plain):
                self.array.append(chunk)
            progress(self.spec.name, len(plain))
        return StreamReport(digest.hexdigest())

    def pad(self, slots: int) -> None:
        while self.array.chunks < slots:
            self.array.repeat()

    def finish(self) -> int:
        return self.array.finish()

    def abort(self) -> None:
        self.array.abort()


class _Camera:
    """The GOPs of a camera, encoded here or taken as they came."""

    def __init__(
        self, spec: StreamSpec, folder: Path, pool: Executor, encoding: Encoding, slots: int
    ) -> None:
        self.layout = layout_of(spec, encoding.video, slots)
        self.spec, self.pool, self.encoding = spec, pool, encoding
        self.array = ShardWriter(folder, self.layout)
        self.attributes: dict[str, Json] = {"encodings": [encoding_document(encoding)]}

    def add(self, stream: Stream, progress: Progress, quality_db: float) -> StreamReport:
        if self.encoding.profile == "source" and stream.packets is not None:
            return self._take(stream, stream.packets, progress)
        return self._encode(stream, progress, quality_db)

    def _take(self, stream: Stream, packets: Packets, progress: Progress) -> StreamReport:
        from .source import gops_from_packets

        digest = hashlib.sha256()

        def seen() -> Iterator[Packet]:
            for packet in packets.read():
                digest.update(struct.pack("<q?", packet.pts, packet.key))
                digest.update(packet.data)
                yield packet

        slots, left = self.layout.chunk, stream.length
        try:
            for chunk in gops_from_packets(seen(), video=packets.format, length=stream.length, slots=slots):
                self.array.append(chunk)
                progress(self.spec.name, min(left, slots))
                left -= slots
        except FormatError as error:
            path = error.path or f"streams.{self.spec.name}"
            raise FormatError(path, error.where, error.why, error.advice) from error
        return StreamReport(digest.hexdigest())

    def _encode(self, stream: Stream, progress: Progress, quality_db: float) -> StreamReport:
        from .encode import encode_gop

        report = StreamReport("")
        digest = hashlib.sha256()
        pending: deque[tuple[int, Future[tuple[bytes, Quality]]]] = deque()
        gop_bytes = self.layout.chunk * self.layout.slot_bytes
        limit = max(2, _IN_FLIGHT_BYTES // gop_bytes)

        def settle() -> None:
            frames, future = pending.popleft()
            chunk, quality = future.result()
            self.array.append(chunk)
            report.qualities.append(quality)
            progress(self.spec.name, frames)

        try:
            for gop in regrouped(checked_blocks(stream), self.layout):
                for frame in gop:
                    digest.update(crc32c(frame).to_bytes(4, "little"))
                pending.append(
                    (len(gop), self.pool.submit(encode_gop, gop, self.encoding, quality_db=quality_db))
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

    def pad(self, slots: int) -> None:
        while self.array.chunks * self.layout.chunk < slots:
            self.array.repeat()

    def finish(self) -> int:
        return self.array.finish()

    def abort(self) -> None:
        self.array.abort()


_Sink = _Rows | _Depth | _Camera


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


# ---------------------------------------------------------------- choosing


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
        peek = _first(stream.packets.read(), _PEEK_PACKETS)
        taken = Encoding(
            profile="source",
            video=stream.packets.format,
            encoder="",
            crf=None,
            settings={},
            reason="packets taken as they came",
        )
        return taken, slots_for_source(peek, video=stream.packets.format)
    if options.profile == "source":
        raise FormatError(
            spec.name, "", "has no packets to take", "Choose another video profile, such as lossless"
        )
    key = f"{spec.name} {spec.shape}"
    if key not in known:
        known[key] = choose(_trial_frames(stream), profile=options.profile, quality_db=options.quality_db)
    return known[key], gop_slots(spec)


def _first(items: Iterator[Any], count: int) -> list[Any]:
    found = [item for item, _ in zip(items, range(count), strict=False)]
    close = getattr(items, "close", None)
    if close is not None:
        close()
    return found


def _trial_frames(stream: Stream) -> Array:
    """Return frames from the start and the middle of a stream: (n <= 64, H, W, C)."""
    half = max(1, min(_TRIAL_FRAMES, _GOP_BYTES // stream.spec.sample_bytes) // 2)
    middle = max(half, stream.length // 2)
    return np.concatenate([stream.values(0, half), stream.values(middle, middle + half)])


# ---------------------------------------------------------------- the segment


class SegmentFolder(ABC):
    """A segment that is put together in a staging folder. `finish` returns what to commit."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.id = folder, folder.name
        self.rights: Json = {}
        self.embodiment = ""
        self.headers: list[dict[str, Any]] = []
        self.contents: dict[str, str] = {}
        self.clocks: dict[str, int] = {}
        self.cursor: dict[str, int] = {}
        self.spans: dict[str, list[tuple[int, int]]] = {}
        disk.make_folder(folder)

    @abstractmethod
    def arrays(self) -> dict[str, Any]:
        """Finish the arrays and return their documents by path below the segment."""

    @abstractmethod
    def abort(self) -> None:
        """Close all files and remove the staging folder."""

    def span(self, clock: str, length: int) -> int:
        """Give the next episode its place on a clock's axis and return its first slot."""
        start, unit = self.cursor.get(clock, 0), self.clocks[clock]
        self.spans.setdefault(clock, []).append((start, length))
        self.cursor[clock] = start + -(-length // unit) * unit
        return start

    def finish(self) -> Add:
        """Write what is left, the group's document last, and return what the commit log is to say."""
        members = self.arrays()
        for clock, slots in self.clocks.items():
            members[clock] = group_document({"teleopen": {"slots": slots}})
            for i, name in enumerate(("start", "length")):
                values = np.array([span[i] for span in self.spans[clock]], "<i8")
                members[f"{clock}/{name}"] = self._whole(f"{clock}/{name}", values)
        members = dict(sorted(members.items()))
        self._write("episodes.parquet", self._episodes())
        for path, document in members.items():
            self._write(f"{path}/zarr.json", canonical(document))
        header = {
            "format": 1,
            "segment": self.id,
            "embodiment": self.embodiment,
            "episodes": len(self.headers),
            "tool": TOOL,
        }
        self._write("zarr.json", canonical(group_document({"teleopen": header}, members)))
        for below in sorted((p for p in self.folder.rglob("*") if p.is_dir()), reverse=True):
            disk.sync_folder(below)
        disk.sync_folder(self.folder)
        return Add(
            segment=self.id,
            files=hashed(self.folder),
            episodes={header["id"]: row for row, header in enumerate(self.headers)},
            contents=self.contents,
            rights=self.rights,
        )

    def _write(self, name: str, data: bytes) -> None:
        disk.make_folder((self.folder / name).parent)
        disk.write(self.folder / name, [data])

    def _whole(self, path: str, values: Array) -> dict[str, Any]:
        """Write a small int64 array and return its document."""
        writer = RowWriter(self.folder / path, rows_layout("int64", ()))
        writer.append(values)
        return array_document(writer.layout, len(values), writer.finish(), {}, ["episode"])

    def _episodes(self) -> bytes:
        import pyarrow as pa
        import pyarrow.parquet as pq

        columns: dict[str, Any] = {
            "id": [header["id"] for header in self.headers],
            "content": [self.contents[header["id"]] for header in self.headers],
            "header": [canonical(header).decode() for header in self.headers],
        }
        for clock, spans in sorted(self.spans.items()):
            columns[f"{clock}.start"] = pa.array([start for start, _ in spans], pa.int64())
            columns[f"{clock}.length"] = pa.array([length for _, length in spans], pa.int64())
        sink = io.BytesIO()
        pq.write_table(pa.table(columns), sink, compression="zstd")
        return sink.getvalue()


class SegmentWriter(SegmentFolder):
    """A segment that is written from the streams of episodes that have one `signature`."""

    def __init__(
        self,
        folder: Path,
        episode: Episode,
        options: WriteOptions,
        pool: Executor,
        known: dict[str, Encoding],
    ) -> None:
        super().__init__(folder)
        self.options = options
        self.rights, self.embodiment = episode.rights.to_document(), episode.embodiment
        self.clocks = dict.fromkeys(sorted(episode.clocks), SLOTS)
        self.times = {
            name: RowWriter(folder / name / "timestamp", rows_layout("int64", ())) for name in self.clocks
        }
        self.sinks = {
            name: self._sink(stream, pool, known) for name, stream in sorted(episode.streams.items())
        }

    def _sink(self, stream: Stream, pool: Executor, known: dict[str, Encoding]) -> _Sink:
        spec, folder = stream.spec, self.folder / stream.spec.clock / stream.spec.name
        if spec.kind == "low_dim":
            return _Rows(spec, folder)
        if spec.kind == "depth":
            return _Depth(spec, folder, pool)
        encoding, slots = choose_encoding(stream, self.options, known)
        self.clocks[spec.clock] = max(self.clocks[spec.clock], slots)
        return _Camera(spec, folder, pool, encoding, slots)

    @property
    def written_bytes(self) -> int:
        """Bytes in the staging folder so far."""
        return sum(path.stat().st_size for path in self.folder.rglob("*") if path.is_file())

    def add(self, episode: Episode, progress: Progress) -> None:
        """Write an episode.

        Raises
        ------
        TeleopenError
            If the source is bad or storage fails; the segment must then be aborted.
        """
        reports: dict[str, StreamReport] = {}
        digest = hashlib.sha256()
        for name, clock in sorted(episode.clocks.items()):
            digest.update(canonical([name, self._add_times(clock)]))
        for name, stream in sorted(episode.streams.items()):
            sink = self.sinks[name]
            if isinstance(sink, _Camera):
                reports[name] = sink.add(stream, progress, self.options.quality_db)
            else:
                reports[name] = sink.add(stream, progress)
            sink.pad(self.cursor[stream.spec.clock])
            digest.update(canonical([name, reports[name].sha256]))
        self.contents[episode.id] = digest.hexdigest()
        self.headers.append(to_document(with_quality(episode, reports, self.sinks)))

    def _add_times(self, clock: Clock) -> str:
        times = clock.read()
        problems = time_problems(clock, times)
        if problems:
            raise SchemaError(problems)
        self.times[clock.name].append(times)
        self.span(clock.name, clock.length)
        self.times[clock.name].pad(self.cursor[clock.name])
        return hashlib.sha256(np.ascontiguousarray(times, "<i8").data).hexdigest()

    def arrays(self) -> dict[str, Any]:
        """Finish the arrays and return their documents by path below the segment."""
        found: dict[str, Any] = {}
        for clock, times in self.times.items():
            found[f"{clock}/timestamp"] = array_document(
                times.layout, self.cursor[clock], times.finish(), {"teleopen": {"unit": ["ns"]}}, ["time"]
            )
        for name, sink in self.sinks.items():
            clock = sink.spec.clock
            attributes = {"teleopen": {"stream": to_document(sink.spec), **sink.attributes}}
            found[f"{clock}/{name}"] = array_document(
                sink.layout, self.cursor[clock], sink.finish(), attributes, dimensions(sink.spec)
            )
        return found

    def abort(self) -> None:
        """Close all files and remove the staging folder."""
        for sink in (*self.sinks.values(), *self.times.values()):
            sink.abort()
        disk.remove_tree(self.folder)


def dimensions(spec: StreamSpec) -> list[str]:
    """Return the ``dimension_names`` of a stream's array."""
    if spec.kind == "video":
        return ["time", "y", "x", "c"]
    if spec.kind == "depth":
        return ["time", "y", "x"]
    return ["time", *(f"dim_{i}" for i in range(len(spec.shape)))]


def hashed(folder: Path) -> Mapping[str, File]:
    """Return size and SHA-256 of every file below a folder, by relative path."""
    found = {}
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        found[path.relative_to(folder).as_posix()] = File(size=path.stat().st_size, sha256=digest)
    return found


def with_quality(
    episode: Episode, reports: Mapping[str, StreamReport], sinks: Mapping[str, _Sink]
) -> Episode:
    """Return the episode with the measured error of each lossy camera in its fidelity ledger."""
    measured = {
        name: quality_document(report.qualities, sink.encoding)
        for name, sink in sinks.items()
        if isinstance(sink, _Camera) and (report := reports[name]).qualities
    }

    def told(fate: FieldFate) -> FieldFate:
        errors = {name: measured[name] for name in fate.to if name in measured}
        if not errors or all(e["profile"] == "lossless" for e in errors.values()):
            return fate
        one = next(iter(errors.values())) if len(errors) == 1 else errors
        return replace(fate, lossless=False, error={**(fate.error or {}), **one})

    ledger = tuple(told(fate) for fate in episode.provenance.ledger)
    return replace(episode, provenance=replace(episode.provenance, ledger=ledger))


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
