"""What becomes of streams in LeRobot's words: columns of a table, cameras, and what finds no place.

After github.com/huggingface/lerobot (0.4.4): src/lerobot/datasets/utils.py, and the format's description in
``docs/export.md``. All episodes of a LeRobot dataset have the same features, one rate and one time axis.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from ...schemas import UNKNOWN, Array, Clock, Episode, SchemaError, StreamSpec
from ...schemas.errors import Problem
from ..clocks import main_clock, rate_of
from ..train.align import chosen as standing_for
from .options import ExportOptions

STATE, ACTION = "observation.state", "action"
RECORDED = "recorded_time_ns"
"""Column of the measured times, where LeRobot's own ``timestamp`` cannot tell them."""
BOOKKEEPING = ("timestamp", "frame_index", "episode_index", "index", "task_index")
"""Columns that every dataset has: DEFAULT_FEATURES in datasets/utils.py."""

ORDER = (
    "joint_position",
    "joint_velocity",
    "joint_effort",
    "ee_position",
    "ee_orientation",
    "ee_pose",
    "ee_velocity",
    "gripper",
    "base_pose",
    "base_velocity",
)
"""Order of the quantities in a vector that is put together: body before hand before base."""

_NOMINAL = 0.01  # a rate this close to a whole number is that number
_SAME_RATE = 0.1
_MOST_DIMENSIONS = 5
_BLOCK_BYTES = 16 << 20


@dataclass(frozen=True, slots=True)
class Slice:
    """Axes ``[start, stop)`` of a vector: the stream that they are, and its name without the vector's."""

    name: str
    stream: str
    start: int
    stop: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """A feature that lies in the table.

    Attributes
    ----------
    shape
        Of a sample in LeRobot's words: ``(1,)`` is a scalar.
    names
        Of its axes; None if they have none.
    slices
        The streams it is made of, in order.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    names: tuple[str, ...] | None
    slices: tuple[Slice, ...]

    @property
    def sample_bytes(self) -> int:
        """Bytes of a sample."""
        return np.dtype(self.dtype).itemsize * math.prod(self.shape)


@dataclass(frozen=True, slots=True, kw_only=True)
class Features:
    """What all episodes have in common, and what is left out.

    Attributes
    ----------
    cameras
        Streams that become videos.
    rate
        Rows per second; a fraction, so that times of pictures are exact.
    clock
        Name of the clock of the rows; None: that of each episode's commands.
    recorded
        Whether there is a column of measured times.
    specs
        Of every stream that is taken.
    dropped
        Why, by what is left out.
    notes
        What else a user of the data must know.
    """

    columns: tuple[Column, ...]
    cameras: tuple[str, ...]
    rate: Fraction
    clock: str | None
    recorded: bool
    specs: Mapping[str, StreamSpec]
    robot: str | None
    dropped: Mapping[str, str]
    notes: tuple[str, ...]

    @property
    def fps(self) -> int | float:
        """The rate as info.json tells it: whole if it is."""
        return int(self.rate) if self.rate.denominator == 1 else float(self.rate)

    def clock_of(self, episode: Episode) -> Clock:
        """Return the clock of an episode's rows."""
        return clock_of(episode, self.clock)


def clock_of(episode: Episode, name: str | None) -> Clock:
    """Return the clock whose samples become rows.

    Raises
    ------
    SchemaError
        If the episode has no such clock.
    """
    if name is None:
        return main_clock(episode)
    if name not in episode.clocks:
        told = f"episode {episode.id} has none of this name; it has {', '.join(episode.clocks)}"
        raise SchemaError([Problem(f"clocks.{name}", told, "missing")])
    return episode.clocks[name]


def features_of(episodes: Iterable[Episode], options: ExportOptions) -> Features:
    """Return the features of a dataset of these episodes; headers are read, and times that were recorded.

    Raises
    ------
    SchemaError
        If they have no rate, rates that differ, or nothing in common.
    """
    survey = _Survey(options)
    for episode in episodes:
        survey.take(episode)
    return survey.features()


class _Survey:
    """What is found in one episode after the other."""

    def __init__(self, options: ExportOptions) -> None:
        self.options = options
        self.specs: dict[str, StreamSpec] | None = None
        self.dropped: dict[str, str] = {}
        self.rates: list[float] = []
        self.robots: set[str] = set()
        self.recorded = False
        self.aligned: set[str] = set()

    def take(self, episode: Episode) -> None:
        clock = clock_of(episode, self.options.clock)
        rate = rate_of(clock)
        if not rate:
            told = f"episode {episode.id} tells no rate, and LeRobot needs one"
            raise SchemaError([Problem(f"clocks.{clock.name}", told, "missing")])
        if not clock.length:
            raise SchemaError([Problem("clocks", f"episode {episode.id} has no samples", "value")])
        self.rates.append(rate)
        self.robots.add(episode.embodiment)
        self.recorded |= clock.kind == "recorded"
        here = {name: stream.spec for name, stream in episode.streams.items()}
        if self.specs is None:
            self.specs = dict(here)
        for name in self.specs.keys() ^ here.keys():
            self._drop(name, "not every episode has it")
        for name in self.specs.keys() & here.keys():
            if _form(self.specs[name]) != _form(here[name]):
                self._drop(name, "it differs in type, shape or axes from episode to episode")
            self._look_at(here[name], clock)
            if episode.streams[name].length == 0:
                self._drop(name, "an episode has no sample of it")
        for kind in sorted({event.kind for event in episode.events} - {"instruction"}):
            self._drop(f"events of kind {kind}", "LeRobot v3.0 has no place for them")

    def _look_at(self, spec: StreamSpec, clock: Clock) -> None:
        if spec.kind == "depth":
            self._drop(spec.name, "LeRobot 0.4 has no place for distances that does not change them")
        elif spec.clock != clock.name:
            if self.options.align == "drop":
                self._drop(spec.name, f"it is on clock {spec.clock}; align it to take it along")
            else:
                self.aligned.add(spec.name)
        if spec.kind == "low_dim" and (len(spec.shape) > _MOST_DIMENSIONS or 0 in spec.shape):
            self._drop(spec.name, f"LeRobot has no features of shape {spec.shape}")

    def _drop(self, what: str, why: str) -> None:
        self.dropped.setdefault(what, why)

    def features(self) -> Features:
        specs = {name: spec for name, spec in sorted((self.specs or {}).items()) if name not in self.dropped}
        if not specs:
            raise SchemaError([Problem("streams", "nothing is left that all episodes have", "missing")])
        cameras = tuple(name for name, spec in specs.items() if spec.kind == "video")
        columns = tuple(_columns([spec for spec in specs.values() if spec.kind == "low_dim"]))
        robot = self.robots.pop() if len(self.robots) == 1 else None
        notes = [
            f"{name} was on another clock: each row has its latest sample"
            for name in sorted(self.aligned - self.dropped.keys())
        ]
        if self.recorded:
            notes.append(
                f"times were measured: {RECORDED} tells them; timestamp counts rows by the dataset's rate"
            )
        return Features(
            columns=columns,
            cameras=cameras,
            rate=self._rate(),
            clock=self.options.clock,
            recorded=self.recorded,
            specs=specs,
            robot=None if robot == UNKNOWN else robot,
            dropped=dict(sorted(self.dropped.items())),
            notes=tuple(notes),
        )

    def _rate(self) -> Fraction:
        middle = statistics.median(self.rates)
        for rate in (min(self.rates), max(self.rates)):
            if abs(rate - middle) > _SAME_RATE * middle:
                told = f"episodes have from {min(self.rates):g} to {max(self.rates):g} steps per second"
                raise SchemaError(
                    [Problem("clocks", f"{told}; export those of one rate together", "conflict")]
                )
        whole = round(middle)
        if whole and abs(middle - whole) <= _NOMINAL * middle:
            return Fraction(whole)
        return Fraction(middle).limit_denominator(1000)


def _form(spec: StreamSpec) -> tuple[object, ...]:
    return spec.kind, spec.dtype, spec.shape, spec.axes


def _columns(specs: Sequence[StreamSpec]) -> Iterator[Column]:
    """Yield the columns: finer streams as one vector where there is no whole one, the others as they are."""
    names = {spec.name for spec in specs}
    used: set[str] = set()
    for whole, parts in ((STATE, _state_parts(specs)), (ACTION, _parts_below(specs, "action."))):
        if whole not in names and parts:
            used.update(spec.name for spec in parts)
            yield _vector(whole, parts)
    for spec in specs:
        if spec.name not in used:
            shape = spec.shape or (1,)
            name = f"source.{spec.name}" if spec.name in {*BOOKKEEPING, RECORDED} else spec.name
            one = Slice(spec.name.rpartition(".")[2], spec.name, 0, math.prod(shape))
            axes = spec.axes if len(spec.axes) == shape[-1] and len(shape) == 1 else None
            yield Column(name=name, dtype=spec.dtype, shape=shape, names=axes or None, slices=(one,))


def _state_parts(specs: Sequence[StreamSpec]) -> list[StreamSpec]:
    """Return what makes up a state: streams of the robot's own quantities, nothing about the scene."""
    below = _parts_below(specs, "observation.")
    return [spec for spec in below if _rank(spec.name.partition(".")[2])[0] < len(ORDER)]


def _parts_below(specs: Sequence[StreamSpec], prefix: str) -> list[StreamSpec]:
    found = [spec for spec in specs if spec.name.startswith(prefix) and len(spec.shape) < 2]
    return sorted(found, key=lambda spec: _rank(spec.name.removeprefix(prefix)))


def _rank(name: str) -> tuple[int, str]:
    """Return the place of a quantity: of ``left_gripper`` and ``gripper.left`` that of ``gripper``."""
    known = [i for i, word in enumerate(ORDER) if name.endswith(word) or name.startswith(word)]
    return (known[0] if known else len(ORDER), name)


def _vector(name: str, parts: Sequence[StreamSpec]) -> Column:
    slices, names, at = [], [], 0
    for spec in parts:
        short = spec.name.partition(".")[2]
        axes = spec.shape[0] if spec.shape else 1
        slices.append(Slice(short, spec.name, at, at + axes))
        inner = spec.axes if len(spec.axes) == axes else tuple(map(str, range(axes)))
        names += [f"{short}.{axis}" for axis in inner] if spec.shape else [short]
        at += axes
    dtype = np.result_type(*(spec.dtype for spec in parts)).name
    return Column(name=name, dtype=dtype, shape=(at,), names=tuple(names), slices=tuple(slices))


@dataclass(frozen=True)
class Rows:
    """An episode as rows of a table.

    Attributes
    ----------
    clock
        Whose samples the rows are.
    """

    episode: Episode
    clock: Clock

    @property
    def length(self) -> int:
        """Number of rows."""
        return self.clock.length

    @cached_property
    def times(self) -> NDArray[np.int64]:
        """When each row was taken: (rows,) nanoseconds since the episode's start."""
        return self.clock.read()

    def index(self, stream: str) -> NDArray[np.int64]:
        """Return which sample of a stream each row has: (rows,)."""
        spec = self.episode.streams[stream].spec
        if spec.clock == self.clock.name:
            return np.arange(self.length)
        times = self.episode.clocks[spec.clock].read()
        return standing_for(times, self.times, "previous", None)[0]

    def blocks(self, column: Column, rows: int = 0) -> Iterator[Array]:
        """Yield a column in blocks (n, *shape) of so many rows; 0: of about 16 MiB."""
        step = rows or max(1, _BLOCK_BYTES // max(1, column.sample_bytes))
        indices = {part.stream: self.index(part.stream) for part in column.slices}
        for at in range(0, self.length, step):
            stop = min(self.length, at + step)
            parts = [self._taken(name, index[at:stop]) for name, index in indices.items()]
            flat = [part.reshape(stop - at, -1) for part in parts]
            whole = flat[0] if len(flat) == 1 else np.concatenate(flat, axis=1)
            yield np.ascontiguousarray(whole.astype(column.dtype, copy=False)).reshape(
                stop - at, *column.shape
            )

    def _taken(self, stream: str, index: NDArray[np.int64]) -> Array:
        first, last = int(index[0]), int(index[-1])
        values = self.episode.streams[stream].values(first, last + 1)
        return values if last - first + 1 == len(index) else values[index - first]

    def tasks(self) -> list[tuple[int, str]]:
        """Return the runs of rows with one instruction: first row, and text."""
        told = [event for event in self.episode.events if event.kind == "instruction" and event.text]
        if not told:
            return [(0, next(iter(self.episode.instructions), ""))]
        starts = np.searchsorted(self.times, [event.start_ns for event in told])
        runs = {int(row): event.text for row, event in zip(starts, told, strict=True) if row < self.length}
        return sorted({0: told[0].text, **runs}.items())
