"""Checks of clocks: samples that are missing, times that waver, times that stand still.

Only recorded clocks can fail them; the times of a nominal one were computed.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from ..schemas import Array, Clock, Event, Times
from ._runs import MOST_EVENTS, Runs, anomaly, seconds

_FEWEST = 20  # samples of a clock that a rate can be told from
_SIGMA = 1.4826
"""Standard deviation of a normal distribution whose median absolute deviation is 1 (Rousseeuw and Croux,
Alternatives to the Median Absolute Deviation, 1993, section 1)."""

_MISSING = 1.5
"""A step of more periods than this is nearer to a sample left out than to none."""
_BEYOND = 6.0
"""And it is that many robust standard deviations longer than usual: else it is the clock's own jitter."""
_IRREGULAR = 0.5
"""Robust deviation, in periods, from which on a clock has no period: its samples come when something
happens."""
_JITTER = 0.1
"""Robust deviation, in periods, that is worth telling: 3 ms at 30 Hz. Drivers of cameras stay well below."""


def times(clock: Clock) -> Iterator[Event]:
    """Yield what is odd about a clock: ``gap``, ``jitter`` and ``repeated_time``.

    Times are compared with the clock's own median step. A clock without a period (robust deviation of more
    than half of one) has none of them: its samples come when something happens.
    """
    if clock.kind != "recorded" or clock.length < _FEWEST:
        return
    stamps = clock.read()
    steps = np.diff(stamps)
    going = steps[steps > 0]
    if not going.size:
        return
    period = float(np.median(going))
    spread = _SIGMA * float(np.median(np.abs(going - period)))
    if spread <= _IRREGULAR * period:
        yield from _repeated(clock.name, stamps, steps)
        yield from _gaps(clock.name, stamps, steps, period, spread)
        if spread > _JITTER * period:
            text = (
                f"clock {clock.name}: steps waver by {spread / 1e6:.1f} ms around {period / 1e6:.1f} ms "
                f"({100 * spread / period:.0f} %, over {100 * _JITTER:.0f} %)"
            )
            yield anomaly(
                "jitter", stamps[0], stamps[-1], text, clock=clock.name, value=spread / 1e6, unit="ms"
            )


def _gaps(name: str, stamps: Times, steps: Array, period: float, spread: float) -> Iterator[Event]:
    limit = max(_MISSING * period, period + _BEYOND * spread)
    found = np.flatnonzero(steps > limit)
    for index in found[:MOST_EVENTS]:
        step = int(steps[index])
        missing = round(step / period) - 1
        told = f", about {missing} missing" if missing else ""
        text = (
            f"clock {name}: no sample for {step / 1e6:.0f} ms at {seconds(stamps[index])}; "
            f"the usual step is {period / 1e6:.1f} ms{told}"
        )
        yield anomaly(
            "gap",
            stamps[index],
            stamps[index + 1],
            text,
            clock=name,
            value=step / 1e6,
            unit="ms",
            samples=missing,
        )
    if len(found) > MOST_EVENTS:
        yield _rest("gap", int(stamps[found[MOST_EVENTS]]), int(stamps[-1]), name, len(found) - MOST_EVENTS)


def _repeated(name: str, stamps: Times, steps: Array) -> Iterator[Event]:
    runs = Runs()
    runs.add(0, steps <= 0, -steps.astype(np.float64))
    for run in runs:
        count = run.stop - run.start
        word = "sample has" if count == 1 else "samples have"
        text = f"clock {name}: {count} {word} the time of the one before, {seconds(stamps[run.start])}"
        yield anomaly("repeated_time", stamps[run.start], stamps[run.stop], text, clock=name, samples=count)
    if runs.left_out:
        yield _rest("repeated_time", int(stamps[0]), int(stamps[-1]), name, runs.left_out)


def _rest(kind: str, start: int, stop: int, clock: str, count: int) -> Event:
    return anomaly(kind, start, stop, f"clock {clock}: {count:,} more of these", clock=clock, count=count)
