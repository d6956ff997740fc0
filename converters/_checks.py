"""What a recording's rows say against what its converter declares of them.

A converter knows from a format's writer what an action means. The one recording at hand may have been made
by a changed writer, or been worked on since. So the first rows of every action whose meaning is declared, and
of the observation that it commands, are compared: does the state follow the command or run ahead of it, is
the action a position or a change, does the gripper close where it should, are the numbers radians. What
contradicts is told as a warning in the provenance; no value and no declaration is ever changed by it. Where
nothing is declared and the rows speak clearly, that is told as well, as a hint.

`checked` is put around the episodes where they leave the converters for good (`converters.registry.read`),
so that no converter, present or future, can forget it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from ..schemas import UNKNOWN, ActionPart, Episode, Stream, StreamSpec, TeleopenError
from ._motion import LEAST_ROWS, Motion, Rows, copied_from, motion, opposes

MOST_ROWS = 2_000
_MOST_BYTES = 16 << 20
_MOST = 1e12
_FULL_TURN = 2 * np.pi * 1.05
_SLACK = 0.5
"""How far beyond its ends, in parts of its way, a gripper's command may reach: leaders are made by hand."""

_PARTNERS = {
    "joint_position": ("joint_position", "state"),
    "ee_position": ("ee_position", "ee_pose", "state"),
    "ee_pose": ("ee_pose", "state"),
    "gripper": ("gripper", "state"),
    "unknown": ("state",),
}
"""Observations that an action of each space commands, after the one that has its own name."""

_WIDTH_WORDS = ("width", "opening", "aperture")
_TURNS = ("ee_position", "ee_pose", "ee_orientation")


def checked(episodes: Iterable[Episode]) -> Iterator[Episode]:
    """Yield the episodes, each with what its first rows say against its contracts among its warnings.

    Of each action and its observation at most 2,000 rows are read. Rows that cannot be read are not
    judged here: whoever reads them for good gets the error.
    """
    for episode in episodes:
        told = tuple(finding for finding in findings(episode) if finding not in episode.provenance.warnings)
        if not told:
            yield episode
            continue
        warnings = (*episode.provenance.warnings, *told)
        yield dataclasses.replace(
            episode, provenance=dataclasses.replace(episode.provenance, warnings=warnings)
        )


def findings(episode: Episode) -> list[str]:
    """Return what the first rows of an episode say against its actions' contracts, one sentence each."""
    rows = _FirstRows(episode)
    found: list[str] = []
    for stream in episode.streams.values():
        if stream.spec.contract is None or not _is_numbers(stream.spec) or not stream.length:
            continue
        try:
            for claim in _claims(stream):
                found += _judge(rows, claim)
        except TeleopenError:
            continue
    return found


@dataclass(frozen=True, slots=True, kw_only=True)
class _Claim:
    """What a contract says of some columns of an action: all of its parts of one meaning, taken together."""

    stream: Stream
    part: ActionPart
    columns: tuple[int, ...]
    where: str

    @property
    def offset(self) -> int | None:
        contract = self.stream.spec.contract
        return contract.offset_steps if contract else None

    def __str__(self) -> str:
        return f"{self.stream.spec.name}{self.where}"


def _claims(stream: Stream) -> Iterator[_Claim]:
    """Yield a claim for each meaning that a contract tells; one of no meaning if it tells none."""
    contract, width = stream.spec.contract, _width(stream.spec)
    parts = contract.parts if contract else ()
    if not parts:
        nothing = ActionPart(start=0, stop=width, space="unknown")
        yield _Claim(stream=stream, part=nothing, columns=tuple(range(width)), where="")
    alike: dict[ActionPart, list[ActionPart]] = {}
    for part in parts:
        alike.setdefault(dataclasses.replace(part, start=0, stop=0), []).append(part)
    for meaning, members in alike.items():
        columns = tuple(c for part in members for c in range(part.start, min(part.stop, width)))
        ranges = ", ".join(f"{part.start}:{part.stop}" for part in members)
        yield _Claim(
            stream=stream, part=meaning, columns=columns, where="" if len(columns) == width else f"[{ranges}]"
        )


def _judge(rows: _FirstRows, claim: _Claim) -> Iterator[str]:
    """Yield what speaks against a claim."""
    declared = claim.part.space != UNKNOWN
    if not claim.columns or claim.part.space not in {*_PARTNERS, "ee_orientation"}:
        return
    if declared:
        action = rows.of(claim.stream)[:, _columns(claim.stream.spec, claim.columns)]
        if np.isfinite(action).all():
            yield from _too_far(claim, action)
    partner = _partner(rows.episode, claim)
    if partner is None:
        return
    pair = rows.paired(claim, partner)
    if pair is None:
        return
    action, state = pair
    if claim.part.space == "gripper":
        yield from _gripper(claim, partner, action, state)
    else:
        yield from _moved(claim, partner, action, state)


def _too_far(claim: _Claim, action: Rows) -> Iterator[str]:
    """Judge the values alone: a gripper beyond its ends, radians beyond a full turn."""
    part, units = claim.part, _units(claim.stream.spec, claim.columns)
    if part.space == "gripper" and None not in (part.gripper_closed, part.gripper_open):
        low, high = sorted((float(part.gripper_closed or 0), float(part.gripper_open or 0)))
        slack = _SLACK * (high - low)
        if action.min() < low - slack or action.max() > high + slack:
            yield (
                f"{claim}: gripper commands are declared {low:g} to {high:g} and reach from "
                f"{_told(action.min())} to {_told(action.max())}"
            )
    angles = np.tile([unit == "rad" for unit in units], action.shape[1] // len(units))
    if part.mode != "delta" and angles.any() and np.abs(action[:, angles]).max() > _FULL_TURN:
        turning = action[:, angles]
        yield (
            f"{claim}: is declared in rad and reaches from {_told(turning.min())} to {_told(turning.max())}, "
            "more than a turn: the numbers look like degrees"
        )


def _moved(claim: _Claim, partner: _Partner, action: Rows, state: Rows) -> Iterator[str]:
    """Judge a position or a change of it by the state that it commands."""
    mode, name = claim.part.mode, partner.stream.spec.name
    copied = copied_from(action, state) if mode != "delta" and partner.same_rows else None
    if copied is not None:
        row = "next row's" if copied else "same row's"
        yield f"{claim}: is the {row} {name} bit for bit: it was computed from it, and is no command"
        return
    figures = motion(action, state)
    if figures is None:
        return
    value, change = figures.value, figures.change
    if mode == UNKNOWN:
        yield from _hints(claim, name, figures, comparable=partner.comparable)
    elif mode == "delta" and partner.comparable and figures.looks_absolute:
        yield (
            f"{claim}: is declared delta, and the data say absolute: it is {name} {value.lag} rows later "
            f"(correlation {value.best:.2f}, error {_told(figures.error)} of the variance)"
        )
    elif mode == "absolute" and partner.comparable and figures.looks_delta:
        yield _scaled(claim, name, figures) or (
            f"{claim}: is declared absolute, and the data say delta: it goes with the changes of {name} "
            f"(correlation {change.best:.2f}), not with its values (error {_told(figures.shape_error)} of "
            "the variance)"
        )
    else:
        if partner.comparable and mode == "absolute" and (scaled := _scaled(claim, name, figures)):
            yield scaled
        if partner.same_rows:
            yield from _shifted(claim, name, figures)


def _scaled(claim: _Claim, name: str, figures: Motion) -> str:
    """Return what tells that one of the two is in degrees; empty if nothing does."""
    word = figures.scale_of_degrees
    told = (
        f"{claim}: is declared in the unit of {name}, and is {_told(figures.scale)} times as large "
        f"(correlation {figures.value.best:.2f}): its numbers look like {word}"
    )
    return told if word else ""


def _shifted(claim: _Claim, name: str, figures: Motion) -> Iterator[str]:
    """Judge whether the state answers before the command was given."""
    delta = claim.part.mode == "delta"
    fit = figures.change if delta else figures.value
    least = claim.offset if claim.offset is not None else -1
    if not fit.precedes(least, follows=0.8 if delta else 0.9):
        return
    known = "no offset is declared" if claim.offset is None else f"offset_steps is declared {claim.offset}"
    what = f"the changes of {name}" if delta else name
    yield (
        f"{claim}: {known}, and {what} are {least - fit.lag} rows ahead of what that allows (best lag "
        f"{fit.lag}, correlation {fit.best:.2f}): rows may be shifted, or this is no command"
    )


def _hints(claim: _Claim, name: str, figures: Motion, *, comparable: bool) -> Iterator[str]:
    if comparable and figures.looks_absolute:
        look = f"values of {name} that are reached {'later' if figures.value.lag > 0 else 'in the same row'}"
        yield f"hint: {claim}: the source does not say what it means; its rows look like absolute {look}"
    elif figures.looks_delta:
        yield f"hint: {claim}: the source does not say what it means; its rows look like changes of {name}"


def _gripper(claim: _Claim, partner: _Partner, action: Rows, state: Rows) -> Iterator[str]:
    """Judge whether the gripper opens where the contract says so."""
    sign = partner.gripper_sign(claim.part)
    if not sign:
        return
    for column in range(action.shape[1]):
        against = opposes(action[:, [column]] * sign, state[:, [column]])
        if against is not None:
            yield (
                f"{claim}: is declared {claim.part.gripper_closed} closed to {claim.part.gripper_open} open, "
                f"and {partner.stream.spec.name} moves the other way (correlation {sign * against:.2f})"
            )
            return


# Which observation an action commands


@dataclass(frozen=True, slots=True, kw_only=True)
class _Partner:
    """The columns of an observation that are the quantity which an action's columns command."""

    stream: Stream
    action_columns: tuple[int, ...]
    columns: tuple[int, ...]
    comparable: bool
    same_rows: bool

    def gripper_sign(self, part: ActionPart) -> int:
        """Return 1 if it grows with the command, -1 if it falls, 0 if nothing tells."""
        spec = self.stream.spec
        words = (spec.name, *(spec.axes[c] for c in self.columns if spec.axes))
        if None in (part.gripper_closed, part.gripper_open):
            return 0
        if any(word in text.lower() for text in words for word in _WIDTH_WORDS):
            return 1 if (part.gripper_open or 0) > (part.gripper_closed or 0) else -1
        return 1 if self.comparable else 0


def _partner(episode: Episode, claim: _Claim) -> _Partner | None:
    """Return the observation that holds what these columns command, if names leave no doubt."""
    spec = claim.stream.spec
    tail = spec.name.removeprefix("action").removeprefix(".")
    names = ([tail] if tail else []) + list(_PARTNERS.get(claim.part.space, ()))
    for name in names:
        stream = episode.streams.get(f"observation.{name}")
        if stream is None or not _is_numbers(stream.spec) or not stream.length:
            continue
        pairs = _same_quantity(spec, stream.spec, claim, named=name == tail)
        if not pairs or _frames_differ(spec, stream.spec, claim.part):
            continue
        mine, theirs = zip(*pairs, strict=True)
        units = zip(_units(spec, mine), _units(stream.spec, theirs), strict=True)
        return _Partner(
            stream=stream,
            action_columns=mine,
            columns=theirs,
            comparable=all(a == b or UNKNOWN in (a, b) for a, b in units),
            same_rows=stream.spec.clock == spec.clock,
        )
    return None


def _same_quantity(
    action: StreamSpec, state: StreamSpec, claim: _Claim, *, named: bool
) -> list[tuple[int, int]]:
    """Return which columns of the two are the same quantity, by their axes' names.

    Streams of one name and shape match without axes. Rotations are left out: turns wrap, quaternions flip.
    """
    if action.shape[:-1] != state.shape[:-1]:
        return []
    if action.axes and state.axes and len(set(state.axes)) == len(state.axes):
        wanted = {c: action.axes[c] for c in claim.columns}
        pairs = [(c, state.axes.index(axis)) for c, axis in wanted.items() if axis in state.axes]
        complete = len(pairs) == len(wanted)
    else:
        pairs = [(c, c) for c in claim.columns]
        complete = named and action.shape == state.shape
    if not complete or claim.part.space == "ee_orientation":
        return []
    if claim.part.space == "ee_pose":
        return [(a, b) for a, b in pairs if action.axes and action.axes[a] in ("x", "y", "z")]
    return pairs


def _frames_differ(action: StreamSpec, state: StreamSpec, part: ActionPart) -> bool:
    frames = {part.frame or action.frame, state.frame}
    return part.space in _TURNS and (len(frames) > 1 or UNKNOWN in frames)


# Rows


@dataclass(slots=True)
class _FirstRows:
    """The first rows of an episode's streams, each read once."""

    episode: Episode
    known: dict[str, Rows] = field(default_factory=dict)

    def of(self, stream: Stream) -> Rows:
        """Return the first rows of a stream: (n, columns) float64."""
        name = stream.spec.name
        if name not in self.known:
            most = max(1, _MOST_BYTES // max(1, 8 * int(np.prod(stream.spec.shape))))
            values = stream.values(0, min(stream.length, MOST_ROWS, most))
            self.known[name] = values.astype(np.float64).reshape(len(values), -1)
        return self.known[name]

    def paired(self, claim: _Claim, partner: _Partner) -> tuple[Rows, Rows] | None:
        """Return the rows of both that belong together, if there are enough and all are numbers.

        On one clock these are the rows of one number. Otherwise each action is paired with the last
        observation that was taken before it.
        """
        action = self.of(claim.stream)[:, _columns(claim.stream.spec, partner.action_columns)]
        state = self.of(partner.stream)[:, _columns(partner.stream.spec, partner.columns)]
        if partner.same_rows:
            rows = min(len(action), len(state))
            action, state = action[:rows], state[:rows]
        else:
            commanded = self.episode.times(claim.stream.spec.name)[: len(action)]
            taken = self.episode.times(partner.stream.spec.name)[: len(state)]
            before = np.searchsorted(taken, commanded, side="right") - 1
            inside = (before >= 0) & (commanded <= taken[-1])
            action, state = action[inside], state[before[inside]]
        sound = len(action) >= LEAST_ROWS and _is_motion(action) and _is_motion(state)
        return (action, state) if sound else None


def _is_motion(rows: Rows) -> bool:
    """Tell whether rows are numbers that squares can be taken of."""
    return bool(np.isfinite(rows).all() and np.abs(rows).max() < _MOST)


def _is_numbers(spec: StreamSpec) -> bool:
    return spec.kind == "low_dim" and spec.np_dtype.kind in "fiub" and 0 not in spec.shape


def _width(spec: StreamSpec) -> int:
    return spec.shape[-1] if spec.shape else 1


def _columns(spec: StreamSpec, axes: Sequence[int]) -> list[int]:
    """Return the columns of the flattened samples that lie on these entries of the last axis."""
    width = _width(spec)
    total = int(np.prod(spec.shape))
    return [start + axis for start in range(0, total, width) for axis in axes]


def _units(spec: StreamSpec, axes: Sequence[int]) -> list[str]:
    return [spec.unit[axis] if len(spec.unit) > 1 else spec.unit[0] for axis in axes]


def _told(value: float) -> str:
    """Return a figure of two digits: enough to judge by, and the same on every machine."""
    return f"{float(value):.2g}"
