"""What is odd about an episode, as events: facts with figures, units and places, and no score.

Kinds of events, each with the stream or clock that it is of, its figure and its unit among the attributes:

=========================  ===================================================================================
``anomaly.gap``            a recorded clock skips samples
``anomaly.jitter``         a recorded clock wavers
``anomaly.repeated_time``  samples of a recorded clock have the time of the one before
``anomaly.frozen``         a camera shows one picture while the robot moves
``anomaly.black``          a camera shows nothing
``anomaly.joint_limit``    a joint is beyond its limits, where the robot is known
``anomaly.joint_speed``    a joint is faster than it can be, where the robot is known
``anomaly.tracking``       a joint stays off its command
``anomaly.jump``           a position makes a step that no motion makes
``anomaly.still``          the robot stands still for long
=========================  ===================================================================================

Thresholds stand beside the checks, with their reasons. What an episode does not say (a unit, a contract, a
robot) is not guessed: the checks that need it are left out.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import chain

from ..schemas import Episode, Event, Stream
from ._check_cameras import cameras
from ._check_joints import Limit, Limits, tracking
from ._check_jumps import Jumps, is_state
from ._check_motion import Motion, stills
from ._check_times import times
from ._plots import pairs
from ._runs import chunks, size_of

__all__ = ["ANOMALY", "Limit", "anomalies", "is_anomaly"]

ANOMALY = "anomaly."
_MOST_AXES = 64
"""Numbers per sample that are looked at; more are an array of sensors and no pose."""


def is_anomaly(event: Event) -> bool:
    """Tell whether an event is what a check found."""
    return event.kind.startswith(ANOMALY)


def anomalies(
    episode: Episode, limits: Mapping[str, Sequence[Limit]] | None = None, *, pictures: bool = True
) -> list[Event]:
    """Return what is odd about an episode, by time.

    Each stream of numbers is read once in blocks (those with a command twice), of each camera no more than
    two pictures a second. Memory is a block and the clocks' times.

    Parameters
    ----------
    limits
        What the joints behind the axes of a stream can do: by name of the stream, such as
        `teleopen.viewer.robots.limits` gives. None: the robot is not known.
    pictures
        Look at cameras, too.

    Raises
    ------
    TeleopenError
        If the episode cannot be read.
    """
    found = list(chain.from_iterable(times(clock) for clock in episode.clocks.values()))
    states: list[Motion] = []
    for stream in episode.streams.values():
        if stream.spec.kind == "low_dim" and stream.length > 1 and size_of(stream.spec) <= _MOST_AXES:
            found += _numbers(episode, stream, (limits or {}).get(stream.spec.name, ()), states)
    found += stills(states)
    for state, command in pairs(episode):
        if state is not None and command is not None and _is_together(state, command):
            found += tracking(state, command, episode.times(state.spec.name))
    if pictures:
        found += _cameras(episode, states)
    return sorted(found, key=lambda event: (event.start_ns, event.kind, event.text))


def _numbers(
    episode: Episode, stream: Stream, limits: Sequence[Limit], states: list[Motion]
) -> Iterator[Event]:
    times_ns = episode.times(stream.spec.name)
    jumps = Jumps(stream.spec)
    bounds = Limits(stream.spec, times_ns, limits)
    motion = Motion(stream.spec, times_ns) if is_state(stream.spec) else None
    for chunk in chunks(stream, Jumps.neighbours, Jumps.neighbours):
        jumps.add(chunk)
        bounds.add(chunk)
        if motion is not None:
            motion.add(chunk)
    yield from jumps.events(times_ns)
    yield from bounds.events()
    if motion is not None:
        states.append(motion)


def _is_together(state: Stream, command: Stream) -> bool:
    same = state.spec.clock == command.spec.clock and state.length == command.length
    return same and size_of(state.spec) <= _MOST_AXES


def _cameras(episode: Episode, states: Sequence[Motion]) -> Iterator[Event]:
    def moves(start_ns: int, stop_ns: int) -> bool:
        return any(state.moves(start_ns, stop_ns) for state in states)

    for stream in episode.streams.values():
        if stream.spec.kind == "video" and stream.length > 1:
            yield from cameras(stream, episode.times(stream.spec.name), moves if states else None)
