"""Joints beyond what they can do, and commands that the robot did not follow."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from ..schemas import Event, Stream, StreamSpec, Times
from ._runs import ROWS, Chunk, Rows, Runs, anomaly, name_of, seconds, unit_of

_BEYOND = 0.01  # rad or m: the zero of a joint is calibrated no better
_FASTER = 1.1  # times the limit: differences of rounded positions scatter

_OFF = {"rad": 0.15, "deg": 8.6}
"""Distance from the command that is worth telling: 7.5 cm at half a metre's reach."""
_ARRIVES_NS = 500_000_000
"""A command is followed if the robot is there within this time. Teleoperated arms lag by 50 to 200 ms."""
_STAYS_NS = 300_000_000
"""For how long it is off at least."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limit:
    """What the joint behind an axis can do.

    Attributes
    ----------
    axis
        Its place in the stream's sample.
    scale
        Times a value of the axis gives rad or m.
    lower, upper
        rad or m.
    velocity
        rad/s or m/s; None: not known.
    unit
        ``rad`` or ``m``.
    """

    axis: int
    joint: str
    lower: float
    upper: float
    velocity: float | None = None
    scale: float = 1.0
    unit: str = "rad"


class Limits:
    """Looks for positions more than 0.01 rad or m beyond a joint's limits, and for 1.1 times its speed limit.

    Speed is the difference of neighbours over their difference in time, of which no less than half the usual
    is taken: stamps that waver are no speed.
    """

    neighbours = 1

    def __init__(self, spec: StreamSpec, times: Times, limits: Sequence[Limit]) -> None:
        self._spec, self._times, self._limits = spec, times, limits
        self._beyond = [Runs(apart=5) for _ in limits]
        self._faster = [Runs(apart=5) for _ in limits]
        steps = np.diff(times)
        self._least = float(np.median(steps)) / 2e9 if steps.size else 0.0

    def add(self, chunk: Chunk) -> None:
        """Add samples."""
        first = chunk.first - chunk.past
        times = self._times[first : first + len(chunk.values)]
        elapsed = np.maximum(np.diff(times) / 1e9, self._least)[chunk.past :][: chunk.count]
        for limit, beyond, faster in zip(self._limits, self._beyond, self._faster, strict=True):
            values = chunk.values[:, limit.axis] * limit.scale
            own = values[chunk.past : chunk.past + chunk.count]
            off = np.nan_to_num(np.maximum(limit.lower - own, own - limit.upper), nan=-1.0)
            beyond.add(chunk.first, off > _BEYOND, off)
            if limit.velocity is not None and self._least > 0:
                speed = np.nan_to_num(np.abs(np.diff(values))[chunk.past :][: chunk.count] / elapsed)
                faster.add(chunk.first, speed > _FASTER * limit.velocity, speed)

    def events(self) -> Iterator[Event]:
        """Yield ``joint_limit`` and ``joint_speed``."""
        spec = self._spec
        for limit, beyond, faster in zip(self._limits, self._beyond, self._faster, strict=True):
            about: dict[str, Any] = {"stream": spec.name, "axis": limit.axis, "joint": limit.joint}
            can = f"({limit.lower:.4g} to {limit.upper:.4g} {limit.unit})"
            for run in beyond:
                text = (
                    f"{name_of(spec, limit.axis)} is {run.worst:.3g} {limit.unit} beyond what joint "
                    f"{limit.joint} can do {can} at {seconds(self._times[run.at])}"
                )
                figures = {**about, "value": run.worst, "unit": limit.unit}
                yield anomaly("joint_limit", *self._range(run.start, run.stop), text, **figures)
            for run in faster:
                speed = f"{limit.unit}/s"
                text = (
                    f"{name_of(spec, limit.axis)} moves at {run.worst:.3g} {speed} at "
                    f"{seconds(self._times[run.at])}; joint {limit.joint} can do {limit.velocity:.3g} {speed}"
                )
                figures = {**about, "value": run.worst, "unit": speed}
                yield anomaly("joint_speed", *self._range(run.start, run.stop), text, **figures)

    def _range(self, start: int, stop: int) -> tuple[int, int]:
        last = len(self._times) - 1
        return int(self._times[start]), int(self._times[min(stop, last)]) + (stop > last)


def tracking(state: Stream, command: Stream, times: Times) -> Iterator[Event]:
    """Yield ``tracking``: a joint that stays 0.15 rad or more from its command for 0.3 s or more.

    Only axes that the contract calls absolute joint positions, with a known unit, are looked at, and only
    where both streams stand at the same times. The command of a time is held against all that the state is
    from then on (as the contract's offset says) within 0.5 s, so lag is no error.
    """
    axes = _commanded(state.spec, command.spec)
    steps = np.diff(times)
    period = float(np.median(steps)) if steps.size else 0.0
    if not axes or period <= 0:
        return
    window = max(2, round(_ARRIVES_NS / period) + 1)
    stays = max(2, round(_STAYS_NS / period))
    runs = [Runs(apart=2, least=stays) for _ in axes]
    for first in range(0, command.length, ROWS):
        asked = _rows(command, first, min(first + ROWS, command.length), axes)
        took = _rows(state, first, min(first + ROWS + window - 1, state.length), axes)
        off = _off(asked, took, window)
        limits = np.array([_OFF[unit_of(state.spec, axis)] for axis in axes])
        for index, run in enumerate(runs):
            run.add(first, off[:, index] > limits[index], off[:, index])
    for axis, found in zip(axes, runs, strict=True):
        unit = unit_of(state.spec, axis)
        for one in found:
            start, stop = int(times[one.start]), int(times[min(one.stop, len(times) - 1)])
            text = (
                f"{name_of(command.spec, axis)} is not followed for {(stop - start) / 1e9:.1f} s: up to "
                f"{one.worst:.3g} {unit} off at {seconds(times[one.at])}"
            )
            yield anomaly(
                "tracking", start, stop, text, stream=command.spec.name, axis=axis, value=one.worst, unit=unit
            )


def _commanded(state: StreamSpec, command: StreamSpec) -> list[int]:
    parts = command.contract.parts if command.contract is not None else ()
    return [
        axis
        for part in parts
        if part.space == "joint_position" and part.mode == "absolute"
        for axis in range(part.start, part.stop)
        if unit_of(state, axis) == unit_of(command, axis) and unit_of(state, axis) in _OFF
    ]


def _rows(stream: Stream, start: int, stop: int, axes: Sequence[int]) -> Rows:
    values = stream.values(start, stop)
    return values.reshape(len(values), -1)[:, list(axes)].astype(np.float64)


def _off(asked: Rows, took: Rows, window: int) -> Rows:
    """Return how far each command, (n, axes), is from all states of the window that begins with it."""
    short = len(asked) + window - 1 - len(took)
    whole = np.concatenate([took, np.repeat(took[-1:], short, axis=0)]) if short > 0 else took
    around = sliding_window_view(whole, window, axis=0)[: len(asked)]
    low, high = around.min(axis=-1), around.max(axis=-1)
    off: Rows = np.nan_to_num(np.maximum(np.maximum(low - asked, asked - high), 0.0))
    return off
