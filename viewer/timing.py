"""The timelines of an episode, and what holds on them.

``episode_time`` is the time since the episode's start; ``frame`` counts the samples of the main clock, and
samples of other clocks stand at the frame that was current; ``wall_time`` is there if the source told it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ..schemas import Episode, Event, NotFoundError, Times
from .rerun import rr

FRAME, EPISODE_TIME, WALL_TIME = "frame", "episode_time", "wall_time"

Warp = Callable[[Times], Times]

_EPOCH = (946_684_800 * 10**9, 4_102_444_800 * 10**9)
"""Nanoseconds of 2000 and 2100: a recorder's clock that tells a time between them tells that of Unix."""


@dataclass(frozen=True, slots=True)
class At:
    """A time of an episode: a frame of its main clock, or seconds since its start."""

    frame: int | None = None
    seconds: float | None = None


class Timing:
    """Gives, for any clock of an episode, the columns that Rerun sorts by.

    Parameters
    ----------
    timelines
        More timelines: by name, what gives their times (ns) for times of the episode (ns).
    """

    def __init__(self, episode: Episode, timelines: Mapping[str, Warp]) -> None:
        self._times = {name: clock.read() for name, clock in episode.clocks.items()}
        self._more = timelines
        self.main = _main_clock(episode)
        self._frames = self._times.get(self.main, np.zeros(0, np.int64))
        self._wall = wall_start(episode)

    @property
    def frames(self) -> int:
        """Samples of the main clock."""
        return len(self._frames)

    @property
    def step_ns(self) -> int:
        """The usual time between two frames."""
        steps = np.diff(self._frames)
        return max(1, int(np.median(steps))) if steps.size else 10**8

    @property
    def seconds(self) -> float:
        """From the first to the last sample of any clock."""
        known = [times for times in self._times.values() if len(times)]
        if not known:
            return 0.0
        return (max(int(t[-1]) for t in known) - min(int(t[0]) for t in known)) / 1e9

    def time_of(self, frame: int) -> int:
        """Return the time of a frame, in nanoseconds of the episode."""
        return int(self._frames[frame])

    def frame_at(self, time_ns: int) -> int:
        """Return the frame that is current at a time: the last at or before it, or the first."""
        return int(_current(self._frames, np.array([time_ns]))[0])

    def moment(self, at: At) -> tuple[int, int]:
        """Return the frame that is current at a time, and the time in nanoseconds.

        Raises
        ------
        NotFoundError
            If there is no such frame.
        """
        if at.frame is None:
            time_ns = round((at.seconds or 0) * 1e9)
            return (self.frame_at(time_ns) if self.frames else 0), time_ns
        if not 0 <= at.frame < max(1, self.frames):
            raise NotFoundError(f"the episode has no frame {at.frame}: it has {self.frames}")
        return at.frame, self.time_of(at.frame) if self.frames else 0

    def sample_at(self, clock: str, time_ns: int) -> int:
        """Return the sample of a clock that is current at a time."""
        return int(_current(self._times[clock], np.array([time_ns]))[0])

    def of_clock(self, clock: str, start: int = 0, stop: int | None = None) -> list[rr.TimeColumn]:
        """Return the columns for samples ``[start, stop)`` of a clock."""
        return self.at(self._times[clock][start:stop])

    def at(self, times: Times) -> list[rr.TimeColumn]:
        """Return the columns for times of the episode, (n,) nanoseconds."""
        columns = [
            rr.TimeColumn(EPISODE_TIME, duration=times.astype("timedelta64[ns]")),
            rr.TimeColumn(FRAME, sequence=_current(self._frames, times)),
        ]
        if self._wall is not None:
            columns.append(rr.TimeColumn(WALL_TIME, timestamp=(times + self._wall).astype("datetime64[ns]")))
        for name, warp in self._more.items():
            columns.append(rr.TimeColumn(name, duration=warp(times).astype("timedelta64[ns]")))
        return columns


def _current(times: Times, wanted: Times) -> Times:
    found: Times = np.maximum(np.searchsorted(times, wanted, side="right") - 1, 0)
    return found


def _main_clock(episode: Episode) -> str:
    """Return the clock of most cameras; without any, of most streams; of two, that with more samples."""
    votes: dict[str, tuple[int, int, int]] = {}
    for name, clock in episode.clocks.items():
        own = [s.spec.kind for s in episode.streams.values() if s.spec.clock == name]
        votes[name] = (own.count("video"), len(own), clock.length)
    return max(votes, key=lambda name: votes[name], default="")


def wall_start(episode: Episode) -> int | None:
    """Return the Unix time of the episode's start in nanoseconds, where the source's own clock told it."""
    recording, hand = (episode.extra.get(key) for key in ("recording", "rh20t"))
    start = recording.get("start_ns") if isinstance(recording, Mapping) else None
    if isinstance(hand, Mapping) and isinstance(hand.get("start_ms"), int):
        start = hand["start_ms"] * 1_000_000
    return start if isinstance(start, int) and _EPOCH[0] <= start < _EPOCH[1] else None


def lane(events: Sequence[Event], instant_ns: int) -> tuple[Times, list[str | None]]:
    """Return the states of one kind of event: at each time what holds from then on, None for nothing.

    Parameters
    ----------
    events
        By time of start. Where two overlap, the one that began later is told.
    instant_ns
        For how long an event that holds at an instant is shown.
    """
    spans = [(e.start_ns, e.start_ns + instant_ns if e.stop_ns is None else e.stop_ns, e) for e in events]
    times = sorted({time for start, stop, _ in spans for time in (start, stop)})
    found: list[tuple[int, str | None]] = []
    active: list[tuple[int, int, Event]] = []
    begun = 0
    for time in times:
        while begun < len(spans) and spans[begun][0] <= time:
            active.append(spans[begun])
            begun += 1
        active = [span for span in active if span[1] > time]
        state = (active[-1][2].text or active[-1][2].kind) if active else None
        if not found or found[-1][1] != state:
            found.append((time, state))
    return np.array([time for time, _ in found], np.int64), [state for _, state in found]
