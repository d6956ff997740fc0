"""The episodes of one or more stores, as far as drawing windows needs them.

Lengths are in the log; places come from a segment's document when it is first met.
"""

from __future__ import annotations

import copy
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...schemas import DamageError, NotFoundError, StreamSpec, VideoFormat, from_document, strict_json
from ..arrays import ArrayReader, open_shards
from ..catalog import Add, Catalog, State
from ..layout import parse_array
from ..storage import Storage
from ..store import Store, checked

Ints = NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """An episode: its store and segment by number, its row there, and its id."""

    store: int
    segment: int
    row: int
    id: str


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Places:
    """Where episodes lie, by number: a column for each field of `Place`, (E,)."""

    stores: Ints
    segments: Ints
    rows: Ints
    ids: NDArray[np.object_]

    def __len__(self) -> int:
        """Return the number of episodes."""
        return len(self.ids)

    def __getitem__(self, number: int) -> Place:
        """Return where an episode lies."""
        return Place(
            store=int(self.stores[number]),
            segment=int(self.segments[number]),
            row=int(self.rows[number]),
            id=self.ids[number],
        )

    def __iter__(self) -> Iterator[Place]:
        """Yield where each episode lies."""
        return (self[number] for number in range(len(self)))

    def subset(self, numbers: Sequence[int] | NDArray[np.integer]) -> Places:
        """Return the places of some of the episodes."""
        at = np.asarray(numbers, np.int64)
        return Places(
            stores=self.stores[at], segments=self.segments[at], rows=self.rows[at], ids=self.ids[at]
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Segment:
    """A segment that windows are drawn from.

    Attributes
    ----------
    arrays
        Readers by name of the stream; ``timestamp.<clock>`` for the times of a clock.
    specs
        Headers of the streams.
    starts, lengths
        First slot, and samples, of each row, by clock: (rows,).
    """

    arrays: Mapping[str, ArrayReader]
    specs: Mapping[str, StreamSpec]
    starts: Mapping[str, Ints]
    lengths: Mapping[str, Ints]

    def video(self, stream: str) -> VideoFormat | None:
        """Return how a camera's packets are decoded."""
        return self.arrays[stream].layout.video


@dataclass(slots=True)
class Shelf:
    """All segments of some stores. Safe to share between threads; crosses processes unopened."""

    stores: Sequence[Store]
    segments: list[tuple[int, Add]] = field(default_factory=list)
    _numbers: dict[tuple[int, str], int] = field(default_factory=dict)
    _open: dict[int, Segment] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def __post_init__(self) -> None:
        for number, store in enumerate(self.stores):
            for name, add in store.state.segments.items():
                self._numbers[number, name] = len(self.segments)
                self.segments.append((number, add))

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuilt, ([(store.storage, store.state) for store in self.stores],)

    def reopened(self) -> Shelf:
        """Return the same with connections and locks of its own, for a process that was forked."""
        return _rebuilt([(copy.deepcopy(store.storage), store.state) for store in self.stores])

    @property
    def is_remote(self) -> bool:
        """Whether reading waits for a server."""
        return any(store.storage.local("segments") is None for store in self.stores)

    def places(self) -> Places:
        """Return the live episodes of all stores, in their order."""
        found: list[Places] = []
        for number, store in enumerate(self.stores):
            wheres = store.state.episodes.values()
            segments = (self._numbers[number, where.segment] for where in wheres)
            ids = np.empty(len(wheres), object)
            ids[:] = list(store.state.episodes)
            found.append(
                Places(
                    stores=np.full(len(wheres), number, np.int64),
                    segments=np.fromiter(segments, np.int64, len(wheres)),
                    rows=np.fromiter((where.row for where in wheres), np.int64, len(wheres)),
                    ids=ids,
                )
            )
        names = ("stores", "segments", "rows", "ids")
        return Places(**{name: np.concatenate([getattr(one, name) for one in found]) for name in names})

    def lengths(self, segment: int, clock: str) -> Ints:
        """Return the samples of each row of a segment on a clock, from the log if that tells.

        Raises
        ------
        NotFoundError
            If it has no such clock.
        """
        told = self.segments[segment][1].lengths
        if told and clock not in told:
            raise NotFoundError(f"there is no clock {clock!r}; there are: {', '.join(told)}")
        if told:
            return np.array(told[clock], np.int64)
        return self.open(segment).lengths[clock]

    def open(self, number: int) -> Segment:
        """Return a segment, reading its document if it is not open yet."""
        found = self._open.get(number)
        return found or self.open_many([number])[0]

    def open_many(self, numbers: Iterable[int]) -> list[Segment]:
        """Return segments; the documents of those that are not open yet are read at once."""
        asked = list(numbers)
        if any(number not in self._open for number in asked):
            with self._lock:
                missing = [number for number in dict.fromkeys(asked) if number not in self._open]
                documents = self._documents(missing, "zarr.json")
                # Only stores that were written before the log told lengths are asked for their tables.
                untold = [number for number in missing if not self.segments[number][1].lengths]
                tables = self._documents(untold, "episodes.parquet")
                for number in missing:
                    self._open[number] = self._opened(number, documents[number], tables.get(number))
        return [self._open[number] for number in asked]

    def warm(self, wanted: Iterable[tuple[ArrayReader, int, int]]) -> None:
        """Open the shards that hold slots ``[start, stop)`` of arrays, all at once."""
        wanted = [
            (reader, start, stop)
            for reader, start, stop in wanted
            if not all(map(reader.is_open, reader.shards(start, stop)))
        ]
        if wanted:
            with self._lock:
                open_shards(wanted)

    def _documents(self, numbers: Sequence[int], path: str) -> dict[int, bytes]:
        found: dict[int, bytes] = {}
        for index, store in enumerate(self.stores):
            own = [
                (number, self.segments[number][1]) for number in numbers if self.segments[number][0] == index
            ]
            raws = checked(store.storage, [add for _, add in own], path)
            found |= {number: raw for (number, _), raw in zip(own, raws, strict=True)}
        return found

    def _opened(self, number: int, raw: bytes, table: bytes | None) -> Segment:
        index, add = self.segments[number]
        storage, root = self.stores[index].storage, f"segments/{add.segment}"
        members = strict_json(raw)["consolidated_metadata"]["metadata"]
        sizes = {f"{root}/{path}": file.size for path, file in add.files.items()}
        arrays: dict[str, ArrayReader] = {}
        specs: dict[str, StreamSpec] = {}
        units: dict[str, int] = {}
        for path, member in members.items():
            if member.get("node_type") == "group":
                units[path] = int(member["attributes"]["teleopen"]["slots"])
                continue
            clock, _, name = path.partition("/")
            layout, slots, per_shard = parse_array(member, f"{root}/{path}/zarr.json")
            reader = ArrayReader(storage, f"{root}/{path}", layout, slots, per_shard, sizes)
            if name == "timestamp":
                arrays[f"timestamp.{clock}"] = reader
            elif name not in {"start", "length"}:
                arrays[name] = reader
                specs[name] = from_document(StreamSpec, member["attributes"]["teleopen"]["stream"])
        lengths = _lengths(add, units, table)
        starts = {clock: _starts(lengths[clock], unit) for clock, unit in units.items()}
        return Segment(arrays=arrays, specs=specs, starts=starts, lengths=lengths)


def _lengths(add: Add, units: Mapping[str, int], table: bytes | None) -> dict[str, Ints]:
    """Return the samples of each row by clock: as the log tells, or the segment's own table."""
    if table is None:
        if add.lengths.keys() != units.keys():
            raise DamageError(f"segments/{add.segment}/zarr.json", "has other clocks than the log says")
        return {clock: np.array(told, np.int64) for clock, told in add.lengths.items()}
    import io

    import pyarrow.parquet as pq

    read = pq.read_table(io.BytesIO(table), columns=[f"{clock}.length" for clock in units])
    return {clock: read[f"{clock}.length"].to_numpy().astype(np.int64) for clock in units}


def _rebuilt(stores: Sequence[tuple[Storage, State]]) -> Shelf:
    """Return the shelf of the same stores at the same versions, in another process."""
    return Shelf([Store(storage, Catalog(storage), state) for storage, state in stores])


def _starts(lengths: Ints, unit: int) -> Ints:
    """Return the first slot of each row: every episode begins on a multiple of ``unit`` slots."""
    ends = np.cumsum(-(-lengths // unit) * unit)
    return np.concatenate([np.zeros(1, np.int64), ends[:-1]]) if len(ends) else ends
