"""The episodes of one or more stores, as far as drawing windows needs them.

Lengths are in the log; places come from a segment's document when it is first met.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...schemas import DamageError, NotFoundError, StreamSpec, VideoFormat, from_document, strict_json
from ..arrays import ArrayReader
from ..catalog import Add, Catalog, State
from ..layout import parse_array
from ..storage import Storage
from ..store import Store, checked_read

Ints = NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """An episode: its store and segment by number, its row there, and its id."""

    store: int
    segment: int
    row: int
    id: str


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

    def places(self) -> list[Place]:
        """Return the live episodes of all stores, in their order."""
        return [
            Place(store=number, segment=self._numbers[number, where.segment], row=where.row, id=episode)
            for number, store in enumerate(self.stores)
            for episode, where in store.state.episodes.items()
        ]

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
        if found is None:
            with self._lock:
                found = self._open.get(number) or self._opened(number)
                self._open[number] = found
        return found

    def _opened(self, number: int) -> Segment:
        index, add = self.segments[number]
        storage, root = self.stores[index].storage, f"segments/{add.segment}"
        document = strict_json(checked_read(storage, add, "zarr.json"))
        members = document["consolidated_metadata"]["metadata"]
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
        lengths = self._all_lengths(index, add, units)
        starts = {clock: _starts(lengths[clock], unit) for clock, unit in units.items()}
        return Segment(arrays=arrays, specs=specs, starts=starts, lengths=lengths)

    def _all_lengths(self, store: int, add: Add, units: Mapping[str, int]) -> dict[str, Ints]:
        if add.lengths:
            if add.lengths.keys() != units.keys():
                raise DamageError(f"segments/{add.segment}/zarr.json", "has other clocks than the log says")
            return {clock: np.array(told, np.int64) for clock, told in add.lengths.items()}
        import io

        import pyarrow.parquet as pq

        raw = checked_read(self.stores[store].storage, add, "episodes.parquet")
        table = pq.read_table(io.BytesIO(raw), columns=[f"{clock}.length" for clock in units])
        return {clock: table[f"{clock}.length"].to_numpy().astype(np.int64) for clock in units}


def _rebuilt(stores: Sequence[tuple[Storage, State]]) -> Shelf:
    """Return the shelf of the same stores at the same versions, in another process."""
    return Shelf([Store(storage, Catalog(storage), state) for storage, state in stores])


def _starts(lengths: Ints, unit: int) -> Ints:
    """Return the first slot of each row: every episode begins on a multiple of ``unit`` slots."""
    ends = np.cumsum(-(-lengths // unit) * unit)
    return np.concatenate([np.zeros(1, np.int64), ends[:-1]]) if len(ends) else ends
