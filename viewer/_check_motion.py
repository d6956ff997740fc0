"""Motion and stillness: how far each axis went in each quarter of a second."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from ..schemas import Event, StreamSpec, Times
from ._runs import MOST_EVENTS, Chunk, Rows, anomaly, seconds, size_of, unit_of

WINDOW_NS = 250_000_000
_STILL_NS = 3_000_000_000
"""Stillness that is worth telling; it is told in whole windows. Pauses of a demonstrator are shorter."""
_STANDS = {"rad": 0.01, "deg": 0.6, "m": 0.002, "cm": 0.2, "mm": 2.0}
"""Peak to peak within which an axis stands still: six counts of a servo with 4096 per turn (Dynamixel XM430,
Feetech STS3215), and a few times the repeatability of collaborative arms (0.03 to 0.1 mm) at the hand."""
_MOVES = 5.0
"""Times that, from which on an axis moves beyond doubt."""
_STANDS_OTHER = 0.01
"""Part of the axis' way in the episode, where its unit is another or unknown."""


class Motion:
    """How far the axes of a state went in each window of 0.25 s. Memory: two numbers an axis and window."""

    def __init__(self, spec: StreamSpec, times: Times) -> None:
        self._spec, self._times = spec, times
        self.stream = spec.name
        self._origin = int(times[0])
        count = int((int(times[-1]) - self._origin) // WINDOW_NS) + 1
        self._low = np.full((count, size_of(spec)), np.inf)
        self._high = np.full_like(self._low, -np.inf)

    def add(self, chunk: Chunk) -> None:
        """Add samples; each also ends the window before its own, so that no step falls between two."""
        times = self._times[chunk.first : chunk.first + chunk.count]
        windows = (times - self._origin) // WINDOW_NS
        starts = np.concatenate([[0], np.flatnonzero(np.diff(windows)) + 1])
        own = windows[starts]
        low, high = np.fmin.reduceat(chunk.own, starts), np.fmax.reduceat(chunk.own, starts)
        firsts = chunk.own[starts]
        self._widen(own, low, high)
        self._widen(np.maximum(own - 1, 0), firsts, firsts)

    def _widen(self, windows: Times, low: Rows, high: Rows) -> None:
        np.fmin.at(self._low, windows, low)
        np.fmax.at(self._high, windows, high)

    def _limits(self) -> Rows:
        """Return within what each axis stands still; not finite for one that tells nothing."""
        way = np.fmax.reduce(self._high, axis=0) - np.fmin.reduce(self._low, axis=0)
        way[~np.isfinite(way) | (way <= 0)] = 0.0
        limits = [_STANDS.get(unit_of(self._spec, axis)) for axis in range(len(way))]
        return np.array([_STANDS_OTHER * w if t is None else t for t, w in zip(limits, way, strict=True)])

    def moves(self, start_ns: int, stop_ns: int) -> bool:
        """Tell whether any axis moved beyond doubt within one of the windows of a range of time."""
        first = max(0, (start_ns - self._origin) // WINDOW_NS)
        last = max(first + 1, (stop_ns - self._origin) // WINDOW_NS + 1)
        low, high = self._low[first:last], self._high[first:last]
        limits = self._limits()
        if not low.size:
            return False
        went = np.fmax.reduce(high, axis=0) - np.fmin.reduce(low, axis=0)
        return bool((np.isfinite(went) & (limits > 0) & (went > _MOVES * limits)).any())

    def stills(self) -> Iterator[tuple[int, int]]:
        """Yield the ranges of time in which no axis leaves a band as wide as its limit, half open, in ns."""
        end = int(self._times[-1])
        for first, last in self._still_windows():
            start, stop = (self._origin + window * WINDOW_NS for window in (first, last))
            if start < min(stop, end):
                yield start, min(stop, end)

    def _still_windows(self) -> Iterator[tuple[int, int]]:
        limits = self._limits()
        if not (limits > 0).any():
            return
        start, low, high = 0, self._low[0], self._high[0]
        for window in range(len(self._low)):
            low, high = np.fmin(low, self._low[window]), np.fmax(high, self._high[window])
            if ((high - low) > limits).any():
                yield start, window
                # The window that broke the band may itself begin another one.
                low, high = self._low[window], self._high[window]
                start = window + 1 if ((high - low) > limits).any() else window
                if start > window:
                    low, high = np.full_like(low, np.inf), np.full_like(high, -np.inf)
        yield start, len(self._low)


def stills(states: Sequence[Motion]) -> Iterator[Event]:
    """Yield ``still``: all that is known of the robot's pose stood still for 3 s or more."""
    common: list[tuple[int, int]] | None = None
    for state in states:
        own = list(state.stills())
        common = own if common is None else list(_both(common, own))
    found = [(start, stop) for start, stop in common or () if stop - start >= _STILL_NS]
    for start, stop in found[:MOST_EVENTS]:
        length = (stop - start) / 1e9
        text = f"the robot stands still for {length:.1f} s from {seconds(start)} to {seconds(stop)}"
        streams = [state.stream for state in states]
        yield anomaly("still", start, stop, text, streams=streams, value=length, unit="s")


def _both(one: Sequence[tuple[int, int]], other: Sequence[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    """Yield the ranges that two lists of ranges in order have in common."""
    i = j = 0
    while i < len(one) and j < len(other):
        start, stop = max(one[i][0], other[j][0]), min(one[i][1], other[j][1])
        if start < stop:
            yield start, stop
        if one[i][1] <= other[j][1]:
            i += 1
        else:
            j += 1
