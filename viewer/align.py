"""How two episodes are laid over each other in time: pure functions of events and times.

Whatever the way, the times of A stay as they are but for a shift, and those of B are mapped onto them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from typing import Literal

import numpy as np

from ..schemas import Episode, Event, NotFoundError, Times

Align = Literal["start", "time", "phase"]
_KINDS = ("phase", "subtask", "instruction")
"""Kinds of events that begin a part of the task, the best first."""


@dataclass(frozen=True, slots=True)
class Warp:
    """A monotone, piecewise linear map: ``at`` becomes ``to``; outside, time goes at its usual speed."""

    at: tuple[int, ...]
    to: tuple[int, ...]

    def __call__(self, times: Times) -> Times:
        """Return the times that times become: int64 nanoseconds both."""
        at, to = np.array(self.at, np.int64), np.array(self.to, np.int64)
        # Differences are exact in float64 up to 104 days; times of a wall clock would not be.
        inside = to[0] + np.rint(np.interp(times - at[0], at - at[0], to - to[0])).astype(np.int64)
        before, after = times - at[0] + to[0], times - at[-1] + to[-1]
        found: Times = np.where(times < at[0], before, np.where(times > at[-1], after, inside))
        return found


@dataclass(frozen=True, slots=True)
class Aligned:
    """The maps of two episodes onto one timeline, and the phases that were matched."""

    a: Warp
    b: Warp
    phases: tuple[str, ...] = ()


def spans(episode: Episode) -> tuple[int, int]:
    """Return the first and the last time of any clock, in nanoseconds."""
    ends = [clock.read()[[0, -1]] for clock in episode.clocks.values() if clock.length]
    return min((int(e[0]) for e in ends), default=0), max((int(e[1]) for e in ends), default=0)


def phases(episode: Episode) -> list[Event]:
    """Return the events that begin the parts of an episode's task, by time; of the best kind that it has."""
    for kind in _KINDS:
        found = sorted((e for e in episode.events if e.kind == kind), key=lambda e: e.start_ns)
        if len(found) > 1 or (found and kind == _KINDS[0]):
            return found
    return []


def align(a: Episode, b: Episode, how: Align, walls: Sequence[int | None] = (None, None)) -> Aligned:
    """Return how two episodes share a timeline.

    Parameters
    ----------
    how
        ``start``: both begin at 0. ``time``: as it was when they were recorded. ``phase``: the phases of B
        begin when those of A do, and between them B is stretched; phases are matched by their texts, in
        order.
    walls
        For ``time``: Unix times in nanoseconds of the starts of A and of B.

    Raises
    ------
    NotFoundError
        If the episodes do not tell what this needs.
    """
    first, other = spans(a), spans(b)
    if how == "start":
        return Aligned(Warp((first[0],), (0,)), Warp((other[0],), (0,)))
    if how == "time":
        if walls[0] is None or walls[1] is None:
            raise NotFoundError("the episodes do not both tell when they were recorded; align them by start")
        origin = min(walls[0] + first[0], walls[1] + other[0])
        return Aligned(Warp((0,), (walls[0] - origin,)), Warp((0,), (walls[1] - origin,)))
    return _by_phase(a, b, first, other)


def _by_phase(a: Episode, b: Episode, first: tuple[int, int], other: tuple[int, int]) -> Aligned:
    ours, theirs = phases(a), phases(b)
    pairs = _matched(ours, theirs)
    if not pairs:
        raise NotFoundError("the episodes have no phases in common; align them by start")
    anchors = [(other[0], first[0])]
    anchors += [(theirs[j].start_ns, ours[i].start_ns) for i, j in pairs]
    anchors += [(other[1], first[1])]
    kept: list[tuple[int, int]] = []
    for at, to in anchors:
        if not kept or (at > kept[-1][0] and to > kept[-1][1]):
            kept.append((at, to))
    warp = Warp(tuple(at for at, _ in kept), tuple(to for _, to in kept))
    return Aligned(Warp((0,), (0,)), warp, tuple(ours[i].text for i, _ in pairs))


def _matched(ours: Sequence[Event], theirs: Sequence[Event]) -> list[tuple[int, int]]:
    """Return which phases are the same: by text, in order, whatever was left out or added between them."""
    texts = [event.text for event in ours], [event.text for event in theirs]
    blocks = SequenceMatcher(a=texts[0], b=texts[1], autojunk=False).get_matching_blocks()
    return [(one.a + k, one.b + k) for one in blocks for k in range(one.size)]
