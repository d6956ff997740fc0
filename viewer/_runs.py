"""Runs of samples that a check found wanting, gathered block by block in bounded memory."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..schemas import Array, Event, Json, Stream, StreamSpec

Rows = NDArray[np.float64]

MOST_EVENTS = 50
"""Of one check on one axis. What comes after them is counted only."""

ROWS = 8_192
"""Samples that are looked at together."""


@dataclass(frozen=True, slots=True)
class Run:
    """Samples ``[start, stop)``, and the worst of them: its size and its index."""

    start: int
    stop: int
    worst: float
    at: int


class Runs:
    """Collects runs of samples.

    Those with fewer than ``apart`` samples between them are one; those of fewer than ``least`` samples are
    none.
    """

    def __init__(self, apart: int = 1, least: int = 1) -> None:
        self._apart, self._least = apart, least
        self._found: list[Run] = []
        self.left_out = 0

    def add(self, first: int, bad: Array, size: Array) -> None:
        """Add a block: whether each sample is bad, (n,) bool, and how much, (n,). Blocks come in order."""
        edges = np.flatnonzero(np.diff(np.concatenate([[False], bad, [False]])))
        for start, stop in edges.reshape(-1, 2):
            worst = int(start + np.argmax(size[start:stop]))
            self._put(Run(first + int(start), first + int(stop), float(size[worst]), first + worst))

    def _put(self, run: Run) -> None:
        last = self._found[-1] if self._found else None
        if last is not None and run.start - last.stop < self._apart:
            worse = run if run.worst > last.worst else last
            self._found[-1] = Run(last.start, run.stop, worse.worst, worse.at)
        elif last is not None and last.stop - last.start < self._least:
            self._found[-1] = run
        elif len(self._found) < MOST_EVENTS:
            self._found.append(run)
        else:
            self.left_out += 1

    def __iter__(self) -> Iterator[Run]:
        """Yield the runs."""
        return (run for run in self._found if run.stop - run.start >= self._least)


@dataclass(frozen=True, slots=True)
class Chunk:
    """Samples of a stream with some of their neighbours, as numbers.

    Attributes
    ----------
    first, count
        Which samples they are.
    past
        Neighbours before them.
    values
        Neighbours, samples, neighbours: (rows, axes) float64.
    """

    first: int
    count: int
    past: int
    values: Rows

    @property
    def own(self) -> Rows:
        """The samples without neighbours: (count, axes)."""
        return self.values[self.past : self.past + self.count]


def chunks(stream: Stream, before: int = 0, after: int = 0) -> Iterator[Chunk]:
    """Yield a stream's samples in order, each with so many neighbours where there are any."""
    for first in range(0, stream.length, ROWS):
        start = max(0, first - before)
        values = stream.values(start, first + ROWS + after)
        rows = values.reshape(len(values), -1).astype(np.float64)
        yield Chunk(first, min(ROWS, stream.length - first), first - start, rows)


def size_of(spec: StreamSpec) -> int:
    """Return the numbers per sample."""
    return int(np.prod(spec.shape, dtype=np.int64))


def unit_of(spec: StreamSpec, axis: int) -> str:
    """Return the unit of an axis."""
    return spec.unit[axis] if len(spec.unit) > axis else spec.unit[0]


def name_of(spec: StreamSpec, axis: int) -> str:
    """Return stream and axis for people."""
    name = spec.axes[axis] if len(spec.axes) > axis else str(axis)
    return spec.name if spec.shape == () else f"{spec.name} [{name}]"


def told(size: float, unit: str) -> str:
    """Return a quantity for people."""
    return f"{size:.4g}" if unit in {"1", "unknown"} else f"{size:.4g} {unit}"


def anomaly(name: str, start_ns: int, stop_ns: int | None, text: str, **attributes: Json) -> Event:
    """Return an event of what a check found. Its kind is ``anomaly.<name>``."""
    return Event(
        kind=f"anomaly.{name}",
        start_ns=int(start_ns),
        stop_ns=None if stop_ns is None else max(int(stop_ns), int(start_ns) + 1),
        text=text,
        attributes=attributes,
    )


def seconds(time_ns: float) -> str:
    """Return a time of the episode for people."""
    return f"{time_ns / 1e9:.2f} s"
