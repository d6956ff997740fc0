"""Windows of aligned samples: planned for a whole batch, then read with each camera chunk met once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from ...schemas import Array, NotFoundError, StreamSpec
from ..decode import Form
from .align import between, chosen
from .memory import MEMORY, Allocator
from .order import Indices, Order, Permuted, Sequential, Space
from .read import Fetched, Job, Rows, fetch
from .shelf import Place, Places, Segment, Shelf
from .wants import Want, WindowError

if TYPE_CHECKING:
    from .loader import Loader

Batch = dict[str, Array]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Picked:
    """Which samples of one stream a window takes: index from the episode's start, padding, and part."""

    index: Indices
    pad: NDArray[np.bool_]
    part: NDArray[np.float64] | None = None


@dataclass(frozen=True, eq=False)
class Windows:
    """Windows over the episodes of a dataset. Make them with `Dataset.windows`.

    A window is a mapping: each wanted stream under its name, (K, *sample), K samples in the order they were
    asked for; ``<stream>.pad`` (K,), True where the episode has no such sample and the nearest stands in;
    ``episode``, the number of the episode in the dataset; ``step``, the anchor; ``time_ns``, its time since
    the episode's start. A batch has one axis more in front. No window reaches into another episode.

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
            for name in self.wants:
                shards[self._part(name, place)] = None
            segment = self.shelf.open(place.segment)
            clocks = {segment.specs[name].clock for name in self.wants if name in segment.specs}
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
        names = [n for n in self.wants if segment and n in segment.specs]
        return [segment.arrays[n] for n in names if segment and segment.specs[n].kind == "video"]

    # ------------------------------------------------------------ one window

    def _row(self, place: Place, episode: int, anchor: int, known: Fetched) -> Row:
        segment = self.shelf.open(place.segment)
        times = _Times(segment, place.row, known)
        length = int(segment.lengths[self.clock][place.row])
        now = None if self.rate_hz is None else self._tick_time(times, anchor)
        picked = {
            name: self._picked(name, want, times, anchor, length, now) for name, want in self.wants.items()
        }
        time = times.at(self.clock, np.array([min(anchor, length - 1)]))[0] if now is None else now
        return Row(episode=episode, anchor=anchor, time_ns=int(time), place=place, picked=picked)

    def _tick_time(self, times: _Times, anchor: int) -> int:
        return int(times.of(self.clock)[0]) + round(anchor * 1e9 / self._rate())

    def _picked(
        self, name: str, want: Want, times: _Times, anchor: int, length: int, now: int | None
    ) -> _Picked:
        clock = times.segment.specs[name].clock if name in times.segment.specs else None
        if clock is None:
            there = ", ".join(sorted(times.segment.specs))
            raise NotFoundError(f"an episode has no stream {name!r}; it has {there}")
        if want.steps and clock == self.clock and self.rate_hz is None:
            index = anchor + np.array(want.steps, np.int64)
            inside = np.clip(index, 0, length - 1)
            return _Picked(index=inside, pad=index != inside)
        wanted = self._wanted_times(want, times, anchor, length, now)
        tolerance = None if want.tolerance_s is None else round(want.tolerance_s * 1e9)
        index, pad, part = chosen(times.of(clock), wanted, want.align, tolerance)
        return _Picked(index=index, pad=pad, part=part if part.any() else None)

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


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One window of a batch, planned."""

    episode: int
    anchor: int
    time_ns: int
    place: Place
    picked: Mapping[str, _Picked]


class Plan:
    """What it takes to read a batch: known before any of it is read, so that it can be fetched ahead."""

    def __init__(self, windows: Windows, rows: Sequence[Row]) -> None:
        self.windows, self.rows = windows, rows
        self.jobs: dict[str, list[Job]] = {}
        self.forms: dict[str, tuple[StreamSpec, Form | None]] = {}
        for name, want in windows.wants.items():
            self._plan_stream(name, want)

    def _plan_stream(self, name: str, want: Want) -> None:
        jobs: dict[tuple[str, int], Job] = {}
        for at, row in enumerate(self.rows):
            segment, place = self.windows.source(name, row.place)
            spec = segment.specs[name]
            form = form_of(spec, want) if spec.kind == "video" else None
            first, known = self.forms.setdefault(name, (spec, form))
            if (known.shape if known else first.shape) != (form.shape if form else spec.shape):
                raise WindowError(
                    f"{name}: samples of {first.shape} and {spec.shape} do not go into one batch; give a size"
                )
            if spec.kind == "low_dim":
                continue
            reader = segment.arrays[name]
            start = int(segment.starts[spec.clock][place.row])
            for k, index in enumerate(row.picked[name].index):
                chunk, slot = divmod(start + int(index), reader.layout.chunk)
                job = jobs.setdefault((reader.key, chunk), Job(reader, chunk, form))
                job.rows.setdefault(slot, []).append(at * want.count + k)
        self.jobs[name] = list(jobs.values())

    @property
    def batch_bytes(self) -> int:
        """Bytes of the pictures of the batch."""
        return sum(
            len(self.rows) * self.windows.wants[name].count * int(np.prod(form.shape if form else spec.shape))
            for name, (spec, form) in self.forms.items()
            if spec.kind != "low_dim"
        )

    def fetch(self) -> Fetched:
        """Read what the batch needs of remote stores, in as few requests as it has places there."""
        jobs = [job for jobs in self.jobs.values() for job in jobs]
        rows = [self._span(name, row) for name in self._low_dims for row in self.rows]
        return fetch(jobs, rows)

    @property
    def _low_dims(self) -> list[str]:
        return [name for name, (spec, _) in self.forms.items() if spec.kind == "low_dim"]

    def _span(self, name: str, row: Row) -> Rows:
        """Return the rows of an array from the first to the last that a window takes."""
        segment, picked = self.windows.shelf.open(row.place.segment), row.picked[name]
        clock = segment.specs[name].clock
        start, length = (int(of[clock][row.place.row]) for of in (segment.starts, segment.lengths))
        stop = min(int(picked.index.max()) + 1 + (picked.part is not None), length)
        return segment.arrays[name], start + int(picked.index.min()), start + stop

    def read(self, fetched: Fetched, pool: Executor | None = None, memory: Allocator = MEMORY) -> Batch:
        """Decode what was fetched, read the rest, and return the batch, its pictures in ``memory``."""
        batch: Batch = {
            "episode": np.array([row.episode for row in self.rows], np.int64),
            "step": np.array([row.anchor for row in self.rows], np.int64),
            "time_ns": np.array([row.time_ns for row in self.rows], np.int64),
        }
        work: list[tuple[Job, Array]] = []
        for name, want in self.windows.wants.items():
            spec, form = self.forms[name]
            if spec.kind == "low_dim":
                batch[name] = self._low_dim(name, want, spec, fetched)
            else:
                shape = form.shape if form else spec.shape
                own = memory if form is None or want.dtype == "uint8" else MEMORY
                out = own.empty((len(self.rows) * want.count, *shape), spec.np_dtype)
                work += [(job, out) for job in self.jobs[name]]
                batch[name] = out.reshape(len(self.rows), want.count, *shape)
            batch[f"{name}.pad"] = np.stack([row.picked[name].pad for row in self.rows])
        fetched.decode(work, pool)
        for name, want in self.windows.wants.items():
            if self.forms[name][0].kind == "video":
                batch[name] = _finished(batch[name], want, memory)
        return batch

    def _low_dim(self, name: str, want: Want, spec: StreamSpec, fetched: Fetched) -> Array:
        out = np.empty((len(self.rows), want.count, *spec.shape), spec.np_dtype)
        for at, row in enumerate(self.rows):
            values, picked = fetched.rows(*self._span(name, row)), row.picked[name]
            left = picked.index - picked.index.min()
            if picked.part is None:
                out[at] = values[left]
            else:
                right = np.minimum(left + 1, len(values) - 1)
                spherical = want.align == "slerp"
                ends = [values[side].astype(np.float64) for side in (left, right)]
                out[at] = between(ends[0], ends[1], picked.part, spherical=spherical)
        return out


def _finished(pictures: Array, want: Want, memory: Allocator) -> Array:
    """Return pictures (B, K, *shape) in the type and the layout that are wanted."""
    if want.dtype == "float32":
        whole = memory.empty(pictures.shape, np.float32)
        pictures = np.multiply(pictures, np.float32(1 / 255), out=whole)
    # Channels first is another way to look at the same memory, which most models prefer so.
    return pictures.transpose(0, 1, 4, 2, 3) if want.layout == "chw" else pictures


def form_of(spec: StreamSpec, want: Want) -> Form:
    """Return what is made of a camera's pictures.

    Raises
    ------
    WindowError
        If the crop does not lie in the picture.
    """
    height, width, channels = spec.shape
    crop = want.crop or (0, 0, height, width)
    top, left, tall, wide = crop
    if min(top, left) < 0 or min(tall, wide) < 1 or top + tall > height or left + wide > width:
        raise WindowError(f"{spec.name}: {crop} does not lie in a picture of {height} × {width}")
    layout: Literal["hwc", "yuv420"] = "yuv420" if want.layout == "yuv420" else "hwc"
    return Form(crop=crop, size=want.size, layout=layout, channels=channels)
