"""What is wrong with an episode: every problem, each with its place.

Decides whether a header is coherent and whether blocks keep its promises. Does not decide whether the
robot did well, whether rights suffice to publish (see `reasons`), or whether values are plausible.
"""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Iterator, Sequence

import numpy as np

from .document import from_document, to_document
from .episode import Array, Clock, Episode, Event, Stream, StreamSpec, Times
from .errors import Problem, SchemaError

RESERVED = frozenset({"timestamp", "start", "length", "zarr.json"})
"""Names of the arrays that a clock's group holds besides its streams."""

_RGB, _GREY = 3, 1


def problems_of(episode: Episode) -> list[Problem]:
    """Return every problem of an episode's header; the payload is not read."""
    try:
        from_document(Episode, to_document(episode))
    except SchemaError as error:
        return list(error.problems)
    return contradictions(episode)


def contradictions(episode: Episode) -> list[Problem]:
    """Return what in a header, each member of which is sound by itself, does not go together."""
    return [
        *_name_problems(episode),
        *(p for name, clock in episode.clocks.items() for p in _clock_problems(name, clock)),
        *(p for stream in episode.streams.values() for p in _stream_problems(stream, episode)),
        *event_problems(episode.events),
        *_ledger_problems(episode),
        *instruction_problems(episode.instructions),
    ]


def check(episode: Episode) -> Episode:
    """Return the episode, or raise `SchemaError` with all of its problems."""
    problems = problems_of(episode)
    if problems:
        raise SchemaError(problems)
    return episode


_UNSAFE_CATEGORIES = {"Cc", "Cs"}
_DIRECTION_OVERRIDES = set("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")


def has_controls(text: str) -> bool:
    """Tell whether a text holds control, surrogate or direction-override characters; tab and newline pass."""
    odd = {c for c in text if unicodedata.category(c) in _UNSAFE_CATEGORIES} | _DIRECTION_OVERRIDES & set(
        text
    )
    return bool(odd - {"\t", "\n"})


def _name_problems(episode: Episode) -> Iterator[Problem]:
    for kind, names in (("streams", list(episode.streams)), ("clocks", list(episode.clocks))):
        # Folders of many file systems do not tell upper from lower case.
        folded = Counter(name.casefold() for name in names)
        for name in names:
            if folded[name.casefold()] > 1:
                yield Problem(
                    f"{kind}.{name}", "differs from another name in upper and lower case only", "conflict"
                )
            if name in RESERVED:
                yield Problem(f"{kind}.{name}", "is a reserved name", "conflict")
    if not episode.streams:
        yield Problem("streams", "an episode needs at least one stream", "missing")


def _clock_problems(name: str, clock: Clock) -> Iterator[Problem]:
    where = f"clocks.{name}"
    if clock.name != name:
        yield Problem(where, f"is called {clock.name!r} in its own header", "conflict")
    if clock.kind == "nominal" and not clock.declared_hz:
        yield Problem(
            f"{where}.declared_hz", "a nominal clock needs the rate it was computed from", "missing"
        )
    if not clock.length:
        yield Problem(f"{where}.length", "a clock needs at least one sample")


def _stream_problems(stream: Stream, episode: Episode) -> Iterator[Problem]:
    spec, where = stream.spec, f"streams.{stream.spec.name}"
    if episode.streams.get(spec.name) is not stream:
        yield Problem(where, "stands under another name than its own", "conflict")
    clock = episode.clocks.get(spec.clock)
    if clock is None:
        yield Problem(f"{where}.clock", f"there is no clock {spec.clock!r}", "missing")
    elif clock.length != stream.length:
        yield Problem(
            f"{where}.length", f"is {stream.length}; its clock has {clock.length} samples", "conflict"
        )
    yield from _spec_problems(spec, where)


def _spec_problems(spec: StreamSpec, where: str) -> Iterator[Problem]:
    try:
        dtype = np.dtype(spec.dtype)
    except (TypeError, ValueError):
        yield Problem(f"{where}.dtype", f"{spec.dtype!r} is not a NumPy dtype")
        return
    if dtype.kind not in "biuf" or dtype.name != spec.dtype:
        yield Problem(
            f"{where}.dtype", f"{spec.dtype!r} must be the plain name of a bool, integer or float type"
        )
    wanted = {
        "video": spec.dtype == "uint8" and len(spec.shape) == 3 and spec.shape[2] in {_RGB, _GREY},
        "depth": spec.dtype in {"uint16", "float32"} and len(spec.shape) == 2,
        "low_dim": True,
    }
    if not wanted[spec.kind]:
        yield Problem(f"{where}.shape", f"{spec.dtype} {spec.shape} is no {spec.kind} sample")
    if 0 in spec.shape:
        yield Problem(f"{where}.shape", "a sample of no values holds nothing")
    last = spec.shape[-1] if spec.shape else 1
    if spec.axes and len(spec.axes) != last:
        yield Problem(f"{where}.axes", f"{len(spec.axes)} names for a sample of shape {spec.shape}")
    if len(set(spec.axes)) != len(spec.axes):
        yield Problem(f"{where}.axes", "a name occurs twice", "conflict")
    if len(spec.unit) not in {1, last}:
        yield Problem(f"{where}.unit", f"{len(spec.unit)} units for a sample of shape {spec.shape}")
    yield from _contract_problems(spec, where, last)


def _contract_problems(spec: StreamSpec, where: str, axes: int) -> Iterator[Problem]:
    command = spec.name == "action" or spec.name.startswith("action.")
    if spec.contract is None:
        if command:
            yield Problem(
                f"{where}.contract", "a command needs its contract, if only one that says unknown", "missing"
            )
        return
    if not command:
        yield Problem(f"{where}.contract", "only action and action.* have a contract", "conflict")
    end = 0
    for i, part in enumerate(spec.contract.parts):
        if not end <= part.start < part.stop <= axes:
            yield Problem(
                f"{where}.contract.parts.{i}",
                f"[{part.start}, {part.stop}) is out of order or of the {axes} axes",
            )
        end = max(end, part.stop)


def event_problems(events: Sequence[Event]) -> Iterator[Problem]:
    """Yield what in events, each member of which is sound by itself, does not go together."""
    for index, event in enumerate(events):
        if event.stop_ns is not None and event.stop_ns < event.start_ns:
            yield Problem(f"events.{index}.stop_ns", "is before its start")


def instruction_problems(instructions: Sequence[str]) -> Iterator[Problem]:
    """Yield what is wrong with texts that tell a robot what to do."""
    for index, text in enumerate(instructions):
        if has_controls(text):
            yield Problem(f"instructions.{index}", "holds control characters")


def _ledger_problems(episode: Episode) -> Iterator[Problem]:
    seen: set[str] = set()
    reached: set[str] = set()
    for i, fate in enumerate(episode.provenance.ledger):
        where = f"provenance.ledger.{i}"
        if fate.field in seen:
            yield Problem(where, f"{fate.field!r} is told twice", "conflict")
        seen.add(fate.field)
        reached.update(fate.to)
        if (fate.fate == "dropped") == bool(fate.to):
            yield Problem(where, f"{fate.field!r} is {fate.fate} but goes to {list(fate.to)}", "conflict")
        if fate.fate in {"transformed", "dropped"} and not fate.how:
            yield Problem(where, f"{fate.field!r} is {fate.fate}: say how or why", "missing")
    for name in episode.streams:
        if episode.provenance.ledger and name not in reached:
            yield Problem(f"streams.{name}", "no field of the ledger tells where it comes from", "missing")


def block_problems(spec: StreamSpec, block: Array) -> list[Problem]:
    """Return what is wrong with a block that claims to be samples of ``spec``."""
    found = []
    if block.dtype != spec.np_dtype:
        found.append(
            Problem(f"streams.{spec.name}", f"block is {block.dtype}, header says {spec.dtype}", "type")
        )
    if block.shape[1:] != spec.shape or block.ndim != len(spec.shape) + 1:
        found.append(
            Problem(f"streams.{spec.name}", f"block is {block.shape}, samples are {spec.shape}", "value")
        )
    return found


def time_problems(clock: Clock, times: Times) -> list[Problem]:
    """Return what is wrong with the times that a clock reads."""
    where = f"clocks.{clock.name}"
    found = []
    if times.dtype != np.int64 or times.shape != (clock.length,):
        found.append(
            Problem(where, f"times are {times.dtype} {times.shape}; must be int64 ({clock.length},)", "type")
        )
    elif np.any(np.diff(times) < 0):
        at = int(np.flatnonzero(np.diff(times) < 0)[0]) + 1
        found.append(Problem(f"{where}.{at}", "time runs backwards"))
    return found
