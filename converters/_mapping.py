"""A mapping file: which field of a recording is which stream, told in TOML by who knows the recording.

The data classes below are the whole language; ``docs/formats/mapped.md`` is its reference. A mapping tells
what fields mean. It does not tell anybody's rights: for that there is a document of its own, and a mapping
that tries is refused.
"""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from dataclasses import field as member
from pathlib import Path
from typing import Annotated, Any, Literal, NoReturn

from ..schemas import ActionContract, FormatError, Json, Problem, SchemaError, from_document
from ..schemas.episode import (
    UNKNOWN,
    Bound,
    ClockName,
    Count,
    Kind,
    Outcome,
    Rate,
    StreamName,
    Text,
    Unit,
    Word,
)
from ._draft import speaks_of_rights

NAMES = ("teleopen.toml", ".teleopen.toml")
"""Beside a recording: what the mapping of a whole folder is called, and what follows the recording's name."""

MAX_BYTES = 1 << 18

# For a key of n parts Python's TOML parser holds all of its n beginnings.
_MAX_DOTS = 200

Encoding = Literal["raw", "jpeg", "png"]
Order = Literal["rgb", "bgr", "unknown"]
TimeUnit = Literal["s", "ms", "us", "ns"]
Pair = tuple[Count, ...]
Fields = Annotated[tuple[Word, ...], Bound(min_length=1)]

NANOSECONDS: Mapping[str, int] = {"s": 1_000_000_000, "ms": 1_000_000, "us": 1_000, "ns": 1}


@dataclass(frozen=True, slots=True, kw_only=True)
class SplitRule:
    """How a recording falls into episodes; at most one of the last three. Without any, a file is an episode.

    Attributes
    ----------
    files
        Which files of a folder are recordings: a pattern such as ``*.h5``, below the folder.
    groups
        Which groups of a file are episodes: a pattern such as ``data/demo_*``. Fields are then named from the
        group on, and those outside of all groups with a slash in front.
    column
        Column that tells each row's episode.
    ends
        Field that tells the row behind the last one of each episode.
    """

    files: Text = ""
    groups: Text = ""
    column: Text = ""
    ends: Text = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class EpisodeRule:
    """What holds for a whole episode: a literal, or the name of the field that tells it."""

    instruction: Text = ""
    instruction_field: Text = ""
    embodiment: Word = UNKNOWN
    embodiment_field: Text = ""
    outcome: Outcome = "unknown"
    outcome_field: Text = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ClockRule:
    """A time axis: one of ``field`` (recorded), ``rate_hz`` (nominal), ``topic`` (recorded).

    Attributes
    ----------
    field, unit
        The times of the rows, and what they are counted in.
    epoch
        ``shared``: clocks of this epoch count from the same instant, and the episode starts at the first time
        of all. ``own``: nothing relates this clock to the others, and its first time is the episode's start.
    rate_hz
        Of a nominal clock. In the file, the word ``unknown`` counts one second for each row and says so.
    counted
        That word.
    topic, stamps
        Topic whose messages' stamps are the times, and which: ``header``, ``publish`` or ``log``.
    source
        Where the rate or the stamps are from; for people.
    """

    field: Text = ""
    unit: TimeUnit | None = None
    epoch: Literal["shared", "own"] = "shared"
    rate_hz: Rate | None = None
    counted: bool = False
    topic: Text = ""
    stamps: Literal["header", "publish", "log"] | None = None
    source: Text = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamRule:
    """What a stream is made from, and what it means.

    Attributes
    ----------
    field
        Field of the recording, or several, whose axes are laid behind each other.
    columns
        Axes of the field's rows that are taken, ``[start, stop)``; None: all.
    kind, unit, frame, axes, clock, contract, description, attributes
        As in `StreamSpec`. Without a clock: that of the field's topic, or ``steps``.
    encoding
        Of pictures: ``raw`` pixels, or files of ``jpeg`` or ``png``, perhaps with zeros behind them.
    order
        Of a picture's colours as any decoder gives them; ``bgr`` is turned round.
    layout
        Of raw pixels: ``hwc``, or ``chw``, which is turned round.
    values
        Of raw depth that lies there as bytes, little endian: ``uint16`` or ``float32``.
    shape
        What a sample has to be, if it is to be checked. Flat rows of raw pixels are laid out in it.
    """

    field: Fields
    columns: Pair | None = None
    kind: Kind = "low_dim"
    encoding: Encoding = "raw"
    order: Order = "unknown"
    layout: Literal["hwc", "chw"] = "hwc"
    values: Literal["uint16", "float32"] | None = None
    unit: tuple[Unit, ...] = (UNKNOWN,)
    frame: Word | None = None
    axes: tuple[Word, ...] = ()
    shape: tuple[Count, ...] | None = None
    clock: ClockName | None = None
    contract: ActionContract | None = None
    description: Text = ""
    attributes: Mapping[str, Json] = member(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class EventRule:
    """A field whose runs of equal values become events: phases, markers, texts."""

    field: Word
    kind: Word
    clock: ClockName | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """A mapping file.

    Attributes
    ----------
    mapping
        Version of the language.
    drop
        Fields that are left out, by name or pattern, and why.
    """

    mapping: Literal[1]
    episodes: SplitRule = member(default_factory=SplitRule)
    episode: EpisodeRule = member(default_factory=EpisodeRule)
    clocks: Mapping[ClockName, ClockRule] = member(default_factory=dict)
    streams: Mapping[StreamName, StreamRule] = member(default_factory=dict)
    events: tuple[EventRule, ...] = ()
    drop: Mapping[str, Word] = member(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class MappingFile:
    """A mapping, and the text that it was read from."""

    path: Path
    text: str
    rules: Rules

    def refuse(self, where: str, why: str, advice: str = "") -> NoReturn:
        """Raise the `FormatError` that names the place in the mapping."""
        raise FormatError(str(self.path), where, why, advice)

    def must_know(self, where: str, name: str, known: Iterable[str]) -> None:
        """Refuse the mapping if it names a field that the recording has not, and name the nearest."""
        names = list(known)
        if name in names:
            return
        near = difflib.get_close_matches(name, names, 3, 0.5) or sorted(names)[:5]
        told = ", ".join(repr(n) for n in near) or "none at all"
        self.refuse(where, f"names {name!r}, which the recording has not", f"Near are: {told}")


def read_mapping(path: Path) -> MappingFile:
    """Return a mapping file.

    Raises
    ------
    FormatError
        With every problem and its place: no TOML, unknown keys, values of the wrong type, contradictions, or
        an attempt to state rights.
    """
    try:
        with path.open("rb") as file:
            raw = file.read(MAX_BYTES + 1)
        text = raw.decode()
        if len(raw) > MAX_BYTES or any(line.count(".") > _MAX_DOTS for line in text.split("\n")):
            why = f"has more than {MAX_BYTES} bytes, or a line of more than {_MAX_DOTS} dots"
            raise FormatError(str(path), "", why)
        document = tomllib.loads(text)
    except FormatError:
        raise
    except OSError as error:
        raise FormatError(str(path), "", f"cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise FormatError(str(path), "", f"is no TOML: {error}") from error
    _refuse_rights(path, document, "")
    try:
        rules = from_document(Rules, _plain(document))
    except SchemaError as error:
        raise _told(path, error.problems) from error
    problems = _contradictions(rules)
    if problems:
        raise _told(path, problems)
    return MappingFile(path=path, text=text, rules=rules)


def _told(path: Path, problems: Iterable[Problem]) -> FormatError:
    first, *rest = problems
    more = f" (and {len(rest)} more: {'; '.join(map(str, rest[:5]))})" if rest else ""
    return FormatError(str(path), first.where, first.message + more, "See docs/formats/mapped.md")


def _refuse_rights(path: Path, document: Mapping[str, Any], where: str, depth: int = 0) -> None:
    for key, value in document.items():
        place = f"{where}.{key}".lstrip(".")
        # What is dropped is named by the recording, and may be called anything.
        if place == "drop" or depth > 8:
            continue
        if speaks_of_rights(key) or key in {"tier", "spdx"}:
            raise FormatError(
                str(path), place, "states rights, which a mapping cannot", "State them in rights.toml"
            )
        if isinstance(value, Mapping):
            _refuse_rights(path, value, place, depth + 1)


def _plain(document: dict[str, Any]) -> dict[str, Any]:
    """Return the document with its shorthands written out: a word for a list, ``none``, ``unknown``."""
    plain = dict(document)
    for name in ("streams", "clocks"):
        rules = plain.get(name)
        if isinstance(rules, dict):
            plain[name] = {key: _plain_rule(rule, name) for key, rule in rules.items()}
    return plain


def _plain_rule(rule: Any, home: str) -> Any:
    if not isinstance(rule, dict):
        return rule
    plain = dict(rule)
    if home == "clocks":
        if "counted" in plain:
            plain["counted "] = plain.pop("counted")  # is no key of the language: an unknown one
        if plain.get("rate_hz") == UNKNOWN:
            plain |= {"rate_hz": None, "counted": True}
        return plain
    for key in ("field", "unit"):
        if isinstance(plain.get(key), str):
            plain[key] = [plain[key]]
    if plain.get("frame") == "none":
        plain["frame"] = None
    contract = plain.get("contract")
    if isinstance(contract, dict) and isinstance(contract.get("parts"), list):
        plain["contract"] = contract | {"parts": [_plain_part(part) for part in contract["parts"]]}
    return plain


def _plain_part(part: Any) -> Any:
    return part | {"frame": None} if isinstance(part, dict) and part.get("frame") == "none" else part


def _contradictions(rules: Rules) -> list[Problem]:
    """Return what cannot be meant, whatever the recording is."""
    found: list[Problem] = []
    split = rules.episodes
    if sum(map(bool, (split.groups, split.column, split.ends))) > 1:
        found.append(Problem("episodes", "groups, column and ends: say one of them", "conflict"))
    for name, clock in rules.clocks.items():
        found += _clock_problems(f"clocks.{name}", clock)
    for name, stream in rules.streams.items():
        found += _stream_problems(f"streams.{name}", stream, rules)
    for i, event in enumerate(rules.events):
        if event.clock is not None and event.clock not in rules.clocks:
            found.append(Problem(f"events.{i}.clock", f"there is no clock {event.clock!r}", "missing"))
    for name in ("instruction", "embodiment", "outcome"):
        literal = getattr(rules.episode, name) not in {"", UNKNOWN}
        if literal and getattr(rules.episode, f"{name}_field"):
            found.append(Problem(f"episode.{name}", f"is told, and so is {name}_field", "conflict"))
    return found


def _clock_problems(where: str, clock: ClockRule) -> list[Problem]:
    found = []
    ways = (clock.field, clock.rate_hz or clock.counted, clock.topic)
    if sum(map(bool, ways)) != 1:
        found.append(Problem(where, "say one of field, rate_hz and topic", "conflict"))
    if bool(clock.stamps) != bool(clock.topic):
        found.append(Problem(f"{where}.stamps", "goes with topic, and topic with it", "conflict"))
    if clock.unit and not clock.field:
        found.append(Problem(f"{where}.unit", "goes with field", "conflict"))
    if clock.rate_hz is not None and not 1e-6 <= clock.rate_hz <= 1e6:
        found.append(Problem(f"{where}.rate_hz", f"{clock.rate_hz} Hz is no rate"))
    return found


def _stream_problems(where: str, stream: StreamRule, rules: Rules) -> list[Problem]:
    found = []
    if stream.clock is not None and stream.clock not in rules.clocks:
        found.append(Problem(f"{where}.clock", f"there is no clock {stream.clock!r}", "missing"))
    if stream.columns is not None and (len(stream.columns) != 2 or stream.columns[0] >= stream.columns[1]):
        found.append(Problem(f"{where}.columns", "must be [start, stop] with start < stop"))
    if len(stream.field) > 1 and (stream.columns is not None or stream.kind != "low_dim"):
        found.append(
            Problem(f"{where}.field", "several fields make numbers only, and all of them", "conflict")
        )
    if len(set(stream.field)) != len(stream.field):
        found.append(Problem(f"{where}.field", "names a field twice", "conflict"))
    picture = (stream.encoding, stream.order, stream.layout) != ("raw", "unknown", "hwc")
    if picture and stream.kind == "low_dim":
        found.append(Problem(where, "encoding, order and layout go with kind video or depth", "conflict"))
    if stream.values and (stream.kind != "depth" or stream.encoding != "raw" or stream.shape is None):
        found.append(Problem(f"{where}.values", "goes with raw depth, and needs a shape", "conflict"))
    if stream.columns is not None and stream.kind != "low_dim":
        found.append(Problem(f"{where}.columns", "goes with numbers", "conflict"))
    return found
