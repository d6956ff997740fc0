"""Windows of aligned samples: planned for a whole batch, then read with each camera chunk met once."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ...schemas import NotFoundError
from .align import chosen
from .order import Indices, Order, Permuted, Sequential, Space
from .plan import Batch, Picked, Plan, Row, Source
from .read import Fetched, Rows, fetch
from .shelf import Place, Places, Segment, Shelf
from .wants import Want, WindowError

if TYPE_CHECKING:
    from .loader import Loader


@dataclass(frozen=True, eq=False)
class Windows:
    """Windows over the episodes of a dataset. Make them with `Dataset.windows`.

    A window is a mapping: each wanted stream under its name, (K, *sample), K samples in the order they were
    asked for, or (K, D) where several are put side by side, see `slices`; ``<stream>.pad`` (K,), True where
    the episode has no such sample and the nearest stands in; ``episode``, the number of the episode in the
    dataset; ``step``, the anchor; ``time_ns``, its time since the episode's start. A batch has one axis more
    in front. No window reaches into another episode.

    Attributes
    ----------
    clock
        Whose steps are the anchors.
    rate_hz
        Anchors and steps are at this rate instead; None: they are the clock's own.
    shares
        (E,) which share of the windows the store of each episode gets, with `Replaced`.
    levels
        Where smaller pictures are, by number of the store and name of the stream.
    """

    shelf: Shelf
    places: Places
    wants: Mapping[str, Want]
    clock: str
    rate_hz: float | None = None
    shares: NDArray[np.float64] | None = None
    levels: Mapping[tuple[int, str], Level] = field(default_factory=dict)

    @cached_property
    def space(self) -> Space:
        """The anchors of each episode, from which orders draw."""
        lengths = self._anchors()
        chunks = [v.layout.chunk for v in self._cameras()]
        return Space(lengths, max(chunks, default=32), self._weights(lengths))

    def _weights(self, lengths: Indices) -> NDArray[np.float64] | None:
        """Return how likely each anchor of an episode is, so that each store gets its share."""
        if self.shares is None:
            return None
        stores = self.places.stores
        anchors = np.bincount(stores, lengths)
        found: NDArray[np.float64] = self.shares / anchors[stores]
        return found

    def __len__(self) -> int:
        """Return the number of windows."""
        return int(self.space.lengths.sum())

    def __getitem__(self, index: int) -> Batch:
        """Return one window, counted through all episodes."""
        batch = self.batch(*self.located([index]))
        return {name: values[0] for name, values in batch.items()}

    def located(self, indices: Sequence[int] | Indices) -> tuple[Indices, Indices]:
        """Return episode and anchor of windows that are counted through all episodes.

        Raises
        ------
        IndexError
            If there are not so many.
        """
        asked, total = np.asarray(indices, np.int64), len(self)
        if ((asked < -total) | (asked >= total)).any():
            raise IndexError(f"there are {total} windows, and other numbers are asked for")
        return Sequential().draw(asked % total, 0, self.space)

    def batch(
        self,
        episodes: Sequence[int] | Indices,
        anchors: Sequence[int] | Indices,
        *,
        pool: Executor | None = None,
    ) -> Batch:
        """Return the windows at these anchors of these episodes as one batch.

        Parameters
        ----------
        pool
            Decodes the camera chunks side by side.

        Raises
        ------
        DamageError
            If a chunk that is needed is damaged or missing.
        StoreError
            If the storage failed, also after trying again.
        """
        plan = self.plan(episodes, anchors)
        return plan.read(plan.fetch(), pool)

    def loader(
        self,
        batch_size: int,
        order: Order | None = None,
        *,
        rank: int = 0,
        ranks: int = 1,
        drop_last: bool = False,
        threads: int | None = None,
        skip_damage: bool = False,
    ) -> Loader:
        """Return what iterates over batches; see `Loader` and `Schedule`. ``order`` is `Permuted` if None."""
        from .loader import Loader, Schedule

        schedule = Schedule(
            windows=self,
            order=order or Permuted(),
            batch_size=batch_size,
            rank=rank,
            ranks=ranks,
            drop_last=drop_last,
        )
        return Loader(schedule, threads, skip_damage)

    def plan(self, episodes: Sequence[int] | Indices, anchors: Sequence[int] | Indices) -> Plan:
        """Return what it takes to read a batch. Reads documents, indices and times that are not known yet."""
        windows = [(self.places[int(e)], int(e), int(a)) for e, a in zip(episodes, anchors, strict=True)]
        known = (
            self._known([(place, anchor) for place, _, anchor in windows]) if self._is_remote else Fetched()
        )
        return Plan(self, [self._row(place, e, a, known) for place, e, a in windows])

    def reopened(self) -> Windows:
        """Return the same with connections of its own, for a process that was forked."""
        made = replace(
            self,
            shelf=self.shelf.reopened(),
            levels={of: replace(level, shelf=level.shelf.reopened()) for of, level in self.levels.items()},
        )
        made.__dict__["space"] = self.space
        return made

    @cached_property
    def _is_remote(self) -> bool:
        return self.shelf.is_remote

    @cached_property
    def sources(self) -> tuple[Source, ...]:
        """All streams that are read, by the name they are wanted under."""
        return tuple((name, stream) for name, want in self.wants.items() for stream in want.sources(name))

    def slices(self, name: str) -> dict[str, slice]:
        """Return which entries of the last axis are which stream, where several are put side by side."""
        specs = self.shelf.open(self.places[0].segment).specs
        found, start = dict[str, slice](), 0
        for stream in self.wants[name].streams:
            stop = start + math.prod(specs[stream].shape)
            found[stream] = slice(start, stop)
            start = stop
        return found

    # ------------------------------------------------------------ ahead of a batch

    def _known(self, windows: Sequence[tuple[Place, int]]) -> Fetched:
        """Open what windows lie in, and return those of their times that are not kept: each step at once."""
        self.shelf.open_many({place.segment for place, _ in windows})
        for level in {id(level): level for level in self.levels.values()}.values():
            numbers = (level.numbers[place.id] for place, _ in windows if place.id in level.numbers)
            level.shelf.open_many({int(level.places.segments[number]) for number in numbers})
        shards: dict[Rows, None] = {}
        times: dict[Rows, None] = {}
        for place, anchor in windows:
            for _, stream in self.sources:
                shards[self._part(stream, place)] = None
            segment = self.shelf.open(place.segment)
            clocks = {segment.specs[stream].clock for _, stream in self.sources}
            for clock in {*clocks, self.clock}:
                start, length = (int(of[clock][place.row]) for of in (segment.starts, segment.lengths))
                if clocks == {self.clock} and self._by_steps:
                    start, length = start + min(anchor, length - 1), 1
                times[segment.arrays[f"timestamp.{clock}"], start, start + length] = None
        self.shelf.warm([*shards, *times])
        return fetch((), list(times))

    def _part(self, name: str, place: Place) -> Rows:
        """Return which slots of which array an episode's stream is."""
        segment, place = self.source(name, place)
        if name not in segment.specs:
            there = ", ".join(sorted(segment.specs))
            raise NotFoundError(f"an episode has no stream {name!r}; it has {there}")
        clock = segment.specs[name].clock
        start = int(segment.starts[clock][place.row])
        return segment.arrays[name], start, start + int(segment.lengths[clock][place.row])

    @cached_property
    def _by_steps(self) -> bool:
        return self.rate_hz is None and all(want.steps for want in self.wants.values())

    def source(self, name: str, place: Place) -> tuple[Segment, Place]:
        """Return where a stream of an episode is read from: the store, or a level that has the episode."""
        level = self.levels.get((place.store, name))
        number = level.numbers.get(place.id) if level else None
        if level is not None and number is not None:
            found = level.places[number]
            return level.shelf.open(found.segment), found
        return self.shelf.open(place.segment), place

    # ------------------------------------------------------------ anchors

    def _anchors(self) -> Indices:
        """Return the number of anchors of each episode."""
        found = np.empty(len(self.places), np.int64)
        segments = np.unique(self.places.segments)
        self.shelf.open_many(
            n for n in segments.tolist() if self.rate_hz or not self.shelf.segments[n][1].lengths
        )
        by_segment = np.argsort(self.places.segments, kind="stable")
        ends = np.searchsorted(self.places.segments[by_segment], segments, side="right")
        for number, episodes in zip(segments.tolist(), np.split(by_segment, ends[:-1]), strict=True):
            found[episodes] = self.shelf.lengths(number, self.clock)[self.places.rows[episodes]]
        if (found < 1).any():
            raise WindowError("there are episodes without a sample on the clock of the anchors")
        if self.rate_hz is not None:
            for number, episodes in zip(segments.tolist(), np.split(by_segment, ends[:-1]), strict=True):
                found[episodes] = self._ticks(number, episodes)
        return found

    def _ticks(self, segment: int, episodes: Indices) -> Indices:
        """Return the number of anchors of some episodes of one segment, at the rate that is wanted."""
        opened, rows = self.shelf.open(segment), self.places.rows[episodes]
        first = opened.starts[self.clock][rows]
        last = first + opened.lengths[self.clock][rows] - 1
        times = opened.arrays[f"timestamp.{self.clock}"].take(np.concatenate([first, last]))
        span = times[len(rows) :] - times[: len(rows)]
        found: Indices = (span * self._rate() / 1e9).astype(np.int64) + 1
        return found

    def _rate(self) -> float:
        return self.rate_hz or 0.0

    def _cameras(self) -> list[Any]:
        segment = self.shelf.open(self.places[0].segment) if len(self.places) else None
        names = [stream for _, stream in self.sources if segment and stream in segment.specs]
        return [segment.arrays[n] for n in names if segment and segment.specs[n].kind == "video"]

    # ------------------------------------------------------------ one window

    def _row(self, place: Place, episode: int, anchor: int, known: Fetched) -> Row:
        segment = self.shelf.open(place.segment)
        times = _Times(segment, place.row, known)
        length = int(segment.lengths[self.clock][place.row])
        now = None if self.rate_hz is None else self._tick_time(times, anchor)
        picked = {
            (name, stream): self._picked(stream, self.wants[name], times, anchor, length, now)
            for name, stream in self.sources
        }
        time = times.at(self.clock, np.array([min(anchor, length - 1)]))[0] if now is None else now
        return Row(episode=episode, anchor=anchor, time_ns=int(time), place=place, picked=picked)

    def _tick_time(self, times: _Times, anchor: int) -> int:
        return int(times.of(self.clock)[0]) + round(anchor * 1e9 / self._rate())

    def _picked(
        self, name: str, want: Want, times: _Times, anchor: int, length: int, now: int | None
    ) -> Picked:
        clock = times.segment.specs[name].clock if name in times.segment.specs else None
        if clock is None:
            there = ", ".join(sorted(times.segment.specs))
            raise NotFoundError(f"an episode has no stream {name!r}; it has {there}")
        if want.steps and clock == self.clock and self.rate_hz is None:
            index = anchor + np.array(want.steps, np.int64)
            inside = np.clip(index, 0, length - 1)
            return Picked(index=inside, pad=index != inside)
        wanted = self._wanted_times(want, times, anchor, length, now)
        tolerance = None if want.tolerance_s is None else round(want.tolerance_s * 1e9)
        index, pad, part = chosen(times.of(clock), wanted, want.align, tolerance)
        return Picked(index=index, pad=pad, part=part if part.any() else None)

    def _wanted_times(
        self, want: Want, times: _Times, anchor: int, length: int, now: int | None
    ) -> NDArray[np.int64]:
        if want.seconds:
            zero = int(times.of(self.clock)[anchor]) if now is None else now
            return zero + np.rint(np.array(want.seconds) * 1e9).astype(np.int64)
        if now is not None:
            return now + np.rint(np.array(want.steps) * (1e9 / self._rate())).astype(np.int64)
        # Steps of the anchors' clock; those outside of the episode lie where its rate would put them.
        own, index = times.of(self.clock), anchor + np.array(want.steps, np.int64)
        step = float(np.median(np.diff(own))) if length > 1 else 0.0
        inside = np.clip(index, 0, length - 1)
        found: NDArray[np.int64] = own[inside] + np.rint((index - inside) * step).astype(np.int64)
        return found


@dataclass(frozen=True, slots=True)
class Level:
    """A smaller copy of the cameras of a store: its episodes, and their numbers by id."""

    shelf: Shelf
    places: Places
    numbers: Mapping[str, int]

    @classmethod
    def of(cls, shelf: Shelf) -> Level:
        """Return the level that a shelf of its own holds."""
        places = shelf.places()
        return cls(shelf, places, {id: number for number, id in enumerate(places.ids)})


@dataclass(slots=True)
class _Times:
    """The times of one episode's clocks, each read once."""

    segment: Segment
    row: int
    fetched: Fetched
    _known: dict[str, NDArray[np.int64]] = field(default_factory=dict)

    def of(self, clock: str) -> NDArray[np.int64]:
        if clock not in self._known:
            start = int(self.segment.starts[clock][self.row])
            length = int(self.segment.lengths[clock][self.row])
            reader = self.segment.arrays[f"timestamp.{clock}"]
            self._known[clock] = self.fetched.rows(reader, start, start + length)
        return self._known[clock]

    def at(self, clock: str, index: Indices) -> NDArray[np.int64]:
        """Return some times, without reading the others."""
        if clock in self._known:
            return self._known[clock][index]
        start = int(self.segment.starts[clock][self.row]) + int(index[0])
        found: NDArray[np.int64] = self.fetched.rows(
            self.segment.arrays[f"timestamp.{clock}"], start, start + 1
        )
        return found
