"""A segment put together from chunks of others. Nothing is decoded or encoded.

Camera and depth chunks are copied as they are; rows are laid anew.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..schemas import Json, canonical, strict_json
from . import disk
from .arrays import ArrayReader
from .catalog import Add
from .layout import Layout, array_document, rows_layout
from .segment import SegmentFolder
from .shards import RowWriter, ShardWriter
from .storage import Storage
from .store import OpenSegment, open_segment

_STEP_BYTES = 16 << 20


def told_of(document: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return what an array's document tells in the words of this format."""
    told: Mapping[str, Any] = document["attributes"].get("teleopen", {})
    return told


class CopiedSegment(SegmentFolder):
    """A segment that takes episodes of other segments of the same schema.

    What a subclass overrides decides what of them is taken: see `wants`, `take_header` and `attributes_of`.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.chunks: dict[str, ShardWriter] = {}
        self.rows: dict[str, RowWriter] = {}
        self.documents: dict[str, Mapping[str, Any]] = {}
        self.encodings: dict[str, list[Any]] = {}

    def wants(self, path: str) -> bool:
        """Tell whether an array is taken, by its path ``<clock>/<name>``."""
        return path.partition("/")[2] not in {"start", "length"}

    def take_header(self, episode: str, header: str) -> None:
        """Take an episode's header as it is to be here."""
        self.tell_as(episode, canonical(strict_json(header)).decode())

    def attributes_of(self, document: Mapping[str, Any]) -> dict[str, Json]:
        """Return what an array is to tell in the words of this format, given its document."""
        return dict(told_of(document))

    def take(self, storage: Storage, add: Add) -> None:
        """Copy episodes of a segment: those that ``add`` tells of."""
        segment = open_segment(storage, add)
        wanted = {path: array for path, array in segment.arrays.items() if self.wants(path)}
        clocks = {path.partition("/")[0] for path in wanted}
        self.embodiment = self.embodiment or segment.header["embodiment"]
        self.clocks = {clock: slots for clock, slots in segment.slots.items() if clock in clocks}
        self.documents = self.documents or {path: segment.documents[path] for path in wanted}
        for path in wanted:
            told = self.encodings.setdefault(path, [])
            notes = self.attributes_of(segment.documents[path]).get("encodings", [])
            told += [note for note in notes if note not in told]
        for episode, row in sorted(add.episodes.items(), key=lambda item: item[1]):
            self.take_header(episode, segment.table["header"][row])
            self.contents[episode] = add.contents[episode]
            spans = self._spans(segment, row)
            for path, array in wanted.items():
                start, slots = spans[path.partition("/")[0]]
                if array.layout.storing == "rows":
                    self._copy_rows(path, array, start, start + slots)
                else:
                    self._copy_chunks(path, array, start, start + slots)

    def _spans(self, segment: OpenSegment, row: int) -> dict[str, tuple[int, int]]:
        """Give an episode its place on each clock; return first slot and padded length of its old one."""
        spans = {}
        for clock, unit in self.clocks.items():
            start, length = (int(segment.table[f"{clock}.{name}"][row]) for name in ("start", "length"))
            spans[clock] = (start, -(-length // unit) * unit)
            self.span(clock, length)
        return spans

    def _copy_rows(self, path: str, array: ArrayReader, start: int, stop: int) -> None:
        writer = self.rows.get(path) or RowWriter(self.folder / path, _fresh(array.layout))
        self.rows[path] = writer
        step = max(1, _STEP_BYTES // max(1, array.layout.slot_bytes))
        for at in range(start, stop, step):
            writer.append(array.rows(at, min(stop, at + step)))

    def _copy_chunks(self, path: str, array: ArrayReader, start: int, stop: int) -> None:
        shards = self.chunks.setdefault(path, ShardWriter(self.folder / path, array.layout))
        last: tuple[str, int, int] | None = None
        for chunk in range(start // array.layout.chunk, stop // array.layout.chunk):
            place = array.place(chunk)
            if place == last:
                shards.repeat()
            else:
                shards.append(array.chunk(chunk))
            last = place

    def arrays(self) -> dict[str, Any]:
        """Return the documents of the copied arrays."""
        found = {}
        writers: dict[str, RowWriter | ShardWriter] = {**self.rows, **self.chunks}
        for path, writer in writers.items():
            told = self.documents[path]
            teleopen = self.attributes_of(told)
            if self.encodings[path]:
                teleopen["encodings"] = self.encodings[path]
            found[path] = array_document(
                writer.layout,
                self.cursor[path.partition("/")[0]],
                writer.finish(),
                {"teleopen": teleopen},
                told["dimension_names"],
            )
        return found

    def abort(self) -> None:
        """Close all files and remove the staging folder."""
        for rows in self.rows.values():
            rows.abort()
        for shards in self.chunks.values():
            shards.abort()
        disk.remove_tree(self.folder)


def _fresh(layout: Layout) -> Layout:
    """Return the layout of an array of any length: a short array's only chunk is as short as it is."""
    return rows_layout(layout.dtype, layout.sample)
