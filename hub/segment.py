"""Writes a segment: episodes of one schema, one embodiment and one rights class, in a staging folder.

Each array is its own file, so streams are written one after another, a block at a time.
"""

from __future__ import annotations

import hashlib
import io
from abc import ABC, abstractmethod
from collections.abc import Mapping
from concurrent.futures import Executor
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..schemas import (
    Array,
    Clock,
    Episode,
    FieldFate,
    Json,
    SchemaError,
    Stream,
    StreamSpec,
    canonical,
    time_problems,
    to_document,
)
from . import disk
from .catalog import Add, File
from .layout import SLOTS, array_document, group_document, rows_layout
from .options import WriteOptions
from .shards import RowWriter
from .sinks import (
    CameraSink,
    DepthSink,
    Progress,
    RowSink,
    Sink,
    StreamReport,
    choose_encoding,
    quality_document,
)
from .version import TOOL

if TYPE_CHECKING:
    from .encode import Encoding


def signature(episode: Episode, document: Mapping[str, Any], options: WriteOptions) -> str:
    """Return the digest of what all episodes of a segment must have in common.

    Parameters
    ----------
    document
        The episode's header.
    """
    taken = {
        name: to_document(stream.packets.format)
        for name, stream in episode.streams.items()
        if stream.packets is not None and not options.transcode
    }
    common = {
        "streams": {name: stream["spec"] for name, stream in document["streams"].items()},
        "packets": taken,
        "embodiment": episode.embodiment,
        "rights": document["rights"],
        "clocks": sorted(episode.clocks),
    }
    return hashlib.sha256(canonical(common)).hexdigest()


class SegmentFolder(ABC):
    """A segment that is put together in a staging folder. `finish` returns what to commit."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.id = folder, folder.name
        self.rights: Json = {}
        self.embodiment = ""
        self.ids: list[str] = []
        self.headers: list[str] = []
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

    def tell(self, header: Mapping[str, Any]) -> None:
        """Take the header of the next episode."""
        self.tell_as(header["id"], canonical(header).decode())

    def tell_as(self, episode: str, header: str) -> None:
        """Take the header of the next episode in its canonical form."""
        self.ids.append(episode)
        self.headers.append(header)

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
            episodes={episode: row for row, episode in enumerate(self.ids)},
            contents=self.contents,
            rights=self.rights,
            lengths={clock: tuple(n for _, n in spans) for clock, spans in sorted(self.spans.items())},
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
            "id": self.ids,
            "content": [self.contents[episode] for episode in self.ids],
            "header": self.headers,
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

    def _sink(self, stream: Stream, pool: Executor, known: dict[str, Encoding]) -> Sink:
        spec, folder = stream.spec, self.folder / stream.spec.clock / stream.spec.name
        if spec.kind == "low_dim":
            return RowSink(spec, folder)
        if spec.kind == "depth":
            return DepthSink(spec, folder, pool)
        choice = choose_encoding(stream, self.options, known)
        self.clocks[spec.clock] = max(self.clocks[spec.clock], choice[1])
        return CameraSink(spec, folder, pool, choice, self.options.quality_db)

    @property
    def written_bytes(self) -> int:
        """Bytes of samples in the staging folder so far."""
        times, samples = self.times.values(), self.sinks.values()
        return sum(array.written for array in times) + sum(array.written for array in samples)

    def add(self, episode: Episode, header: str, progress: Progress) -> None:
        """Write an episode.

        Parameters
        ----------
        header
            Its header in canonical form.

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
            reports[name] = sink.add(stream, progress)
            sink.pad(self.cursor[stream.spec.clock])
            digest.update(canonical([name, reports[name].sha256]))
        self.contents[episode.id] = digest.hexdigest()
        measured = with_quality(episode, reports, self.sinks)
        if measured is episode:
            self.tell_as(episode.id, header)
        else:
            self.tell(to_document(measured))

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
        for sink in self.sinks.values():
            sink.abort()
        for times in self.times.values():
            times.abort()
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


def with_quality(episode: Episode, reports: Mapping[str, StreamReport], sinks: Mapping[str, Sink]) -> Episode:
    """Return the episode with the measured error of each lossy camera in its fidelity ledger, if any is."""
    measured = {
        name: quality_document(report.qualities, sink.encoding)
        for name, sink in sinks.items()
        if isinstance(sink, CameraSink) and (report := reports[name]).qualities
    }
    if not measured:
        return episode

    def told(fate: FieldFate) -> FieldFate:
        errors = {name: measured[name] for name in fate.to if name in measured}
        if not errors or all(e["profile"] == "lossless" for e in errors.values()):
            return fate
        one = next(iter(errors.values())) if len(errors) == 1 else errors
        return replace(fate, lossless=False, error={**(fate.error or {}), **one})

    ledger = tuple(told(fate) for fate in episode.provenance.ledger)
    return replace(episode, provenance=replace(episode.provenance, ledger=ledger))
