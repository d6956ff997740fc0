"""Public headers of many episodes: what was found of one is not found again of those that are like it.

Headers of a store differ in a few members: an id, a length, a source file, a task. One that was scrubbed and
checked in full, and in which nothing was wrong, becomes a model: its text with gaps. Of a header whose text
is that of a model but for its gaps, each gap's value is scrubbed and checked by the very rules that the
tables of `scrub` and the annotations of the data classes have for it; all the rest was checked, letter for
letter. Where anything at all is out of the ordinary, the whole header is scrubbed and checked by itself.

Texts are compared, never values, so that 1, 1.0 and true stay apart.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from json.decoder import JSONDecoder
from typing import Any
from uuid import uuid4

from ...schemas import (
    Clock,
    Episode,
    FieldFate,
    Json,
    Provenance,
    SourceFile,
    Stream,
    canonical,
    member_parser,
    strict_json,
)
from ...schemas.validate import event_problems, instruction_problems
from .scrub import TABLES, Document, Pass, pass_over, scrub

_SCRUBBERS = 4
_MODELS = 8
_KNOWN = 1024
_LONGEST_KNOWN = 400
_PLAIN_TEXT = re.compile(r'"[ !#-\[\]-~]*"').fullmatch
_PLAIN_COUNT = re.compile(r"0|[1-9][0-9]{0,14}").fullmatch
_scan: Callable[[str, int], tuple[Json, int]] = vars(JSONDecoder())["scan_once"]
"""Returns the JSON value that begins somewhere in a text, and where it ends: what ``raw_decode`` calls."""

Path = tuple[str | int, ...]


@dataclass(frozen=True, slots=True)
class PublicHeader:
    """An episode's header as it may leave.

    Attributes
    ----------
    id, embodiment
        As it tells them.
    text
        Its canonical JSON.
    problems
        Why it may not leave after all; empty if it may.
    unchanged
        Whether it is the private one.
    sources
        SHA-256 of each file that it names.
    """

    id: str
    embodiment: str
    text: str
    problems: tuple[str, ...]
    unchanged: bool
    sources: tuple[str, ...]


class _Gap:
    """A member whose value may be another one in each header.

    Parameters
    ----------
    path
        Where it stands.
    cls, member
        The data class and the member that tell the rule and the check.
    """

    __slots__ = ("_check", "_parse", "_rule", "known", "path")

    def __init__(self, path: Path, cls: type, member: str) -> None:
        self.path = path
        self._rule = TABLES[cls][member]
        self._parse = member_parser(cls, member)
        self._check = _TOGETHER.get((cls, member), _nothing)
        self.known: dict[str, str] = {}
        """Public forms of values that stood there, by their texts."""

    def public(self, raw: str, work: Pass) -> str:
        """Return the public form of a value's text.

        Raises
        ------
        ValueError, KeyError, TypeError, AttributeError
            If it is not canonical, or anything is wrong with it.
        """
        told = self._rule(work, self._value(raw))
        if any(self._check(self._parse(told))) or work.problems:
            work.problems.clear()
            raise ValueError(raw)
        found = _canonical(told)
        if len(self.known) >= _KNOWN:
            self.known.clear()
        if len(raw) <= _LONGEST_KNOWN:
            self.known[raw] = found
        return found

    def _value(self, raw: str) -> Json:
        if _PLAIN_TEXT(raw):
            return raw[1:-1]
        if _PLAIN_COUNT(raw):
            return int(raw)
        depth = len(self.path)  # nesting is limited from the top of the header
        value = strict_json("[" * depth + raw + "]" * depth)
        for _ in range(depth):
            (value,) = value
        if _canonical(value) != raw:
            raise ValueError(raw)
        return value


def _nothing(_: object) -> Iterable[object]:
    return ()


_TOGETHER: Mapping[tuple[type, str], Callable[[Any], Iterable[object]]] = {
    (Clock, "length"): lambda length: () if length else ("a clock needs at least one sample",),
    (Episode, "events"): event_problems,
    (Episode, "instructions"): instruction_problems,
}
"""What `contradictions` asks of such members, besides that a stream is as long as its clock."""


def _canonical(value: Json) -> str:
    if type(value) is str and _PLAIN_TEXT(quoted := f'"{value}"'):
        return quoted
    return str(value) if type(value) is int else canonical(value).decode()


@dataclass(frozen=True, slots=True, kw_only=True)
class _Model:
    """A header that was found to be sound, and what became of it, with gaps.

    Attributes
    ----------
    parts
        The text before each gap, the gap, and the earlier gap whose value it must repeat; -1: any value.
    rest
        The text after the last gap.
    form, told
        The public text with ``%s`` in its gaps, and which of the gaps they are.
    sources
        Gaps that hold the SHA-256 of a source.
    id, embodiment
        The gap of the one, and the other, which is the same in all.
    work
        What is known of all of them before any is looked at.
    """

    parts: tuple[tuple[str, _Gap, int], ...]
    rest: str
    form: str
    told: tuple[int, ...]
    sources: tuple[int, ...]
    id: int
    embodiment: str
    work: Pass

    def public(self, text: str) -> PublicHeader | None:
        """Return the public form of a header that is like this one; None: it is not, or all is not well."""
        values = self._values(text)
        if values is None:
            return None
        try:
            public = [
                gap.known.get(raw) or gap.public(raw, self.work)
                for (_, gap, _), raw in zip(self.parts, values, strict=True)
            ]
        except (ValueError, KeyError, TypeError, AttributeError):
            return None
        told = self.form % tuple(public[index] for index in self.told)
        return PublicHeader(
            id=values[self.id][1:-1],
            embodiment=self.embodiment,
            text=told,
            problems=(),
            unchanged=told == text,
            sources=tuple(values[index][1:-1] for index in self.sources),
        )

    def _values(self, text: str) -> list[str] | None:
        at, found = 0, list[str]()
        for before, _, same in self.parts:
            if not text.startswith(before, at):
                return None
            at += len(before)
            if same < 0:
                try:
                    end = _scan(text, at)[1]
                except (ValueError, StopIteration, RecursionError):
                    return None
                found.append(text[at:end])
            elif text.startswith(found[same], at):
                found.append(found[same])
            else:
                return None
            at += len(found[-1])
        return found if text[at:] == self.rest else None


def _model(header: Document, public: Document, work: Pass) -> _Model:
    """Return the model of a header in which nothing was wrong."""
    mark = uuid4().hex  # no header can know it
    gaps = list(_gaps(header, public))
    marks: dict[Any, Any] = {}
    for index, gap in enumerate(gaps):
        at = marks
        for step in gap.path[:-1]:
            at = at.setdefault(step, {})
        at[gap.path[-1]] = f"{mark} {index}"
    private, order = _split(_marked(header, marks), mark)
    form, told = _split(_marked(public, marks), mark)
    place = {index: at for at, index in enumerate(order)}
    where = {gaps[index].path: at for at, index in enumerate(order)}
    return _Model(
        parts=tuple(
            (before, gaps[index], where.get(_clock_of(header, gaps[index].path), -1))
            for before, index in zip(private, order, strict=False)
        ),
        rest=private[-1],
        form="%s".join(part.replace("%", "%%") for part in form),
        told=tuple(place[index] for index in told),
        sources=tuple(at for path, at in where.items() if path[-1] == "sha256"),
        id=where["id",],
        embodiment=public["embodiment"],
        work=work,
    )


def _gaps(header: Document, public: Document) -> Iterator[_Gap]:
    """Yield members that differ between episodes of one kind, and that no rule looks at but their own."""
    yield from (_Gap((member,), Episode, member) for member in _OF_EPISODES if member in header)
    for name, clock in header["clocks"].items():
        yield _Gap(("clocks", name, "length"), Clock, "length")
        if clock.get("measured_hz") is not None:
            yield _Gap(("clocks", name, "measured_hz"), Clock, "measured_hz")
    for name, stream in header["streams"].items():
        if stream["spec"]["clock"] in header["clocks"]:
            yield _Gap(("streams", name, "length"), Stream, "length")
    provenance = header["provenance"]
    for member in _OF_PROVENANCE:
        if member in provenance:
            yield _Gap(("provenance", member), Provenance, member)
    for index in range(len(provenance["sources"])):
        for member in ("sha256", "size", "uri"):
            yield _Gap(("provenance", "sources", index, member), SourceFile, member)
    fates, told = provenance.get("ledger", ()), public["provenance"].get("ledger", ())
    if len(fates) == len(told):
        for index, fate in enumerate(fates):
            if fate.get("error") is not None and fate["fate"] == told[index]["fate"]:
                yield _Gap(("provenance", "ledger", index, "error"), FieldFate, "error")


_OF_EPISODES = ("id", "instructions", "outcome", "events", "extra")
_OF_PROVENANCE = ("selector", "evidence", "warnings")


def _clock_of(header: Document, path: Path) -> Path:
    """Return where the length stands that a stream's must repeat; nowhere if it is no stream's."""
    if path[0] != "streams":
        return ()
    return ("clocks", header["streams"][path[1]]["spec"]["clock"], "length")


def _marked(value: Json, marks: Mapping[Any, Any]) -> Json:
    """Return a copy of a document with marks in the place of what stands there."""
    items = value.items() if isinstance(value, dict) else enumerate(value)
    told = {
        key: member
        if key not in marks
        else marks[key]
        if isinstance(marks[key], str)
        else _marked(member, marks[key])
        for key, member in items
    }
    return told if isinstance(value, dict) else list(told.values())


def _split(document: Document, mark: str) -> tuple[list[str], list[int]]:
    """Return the text around marks, and their numbers in the order of the text."""
    parts = re.split(f'"{mark} ([0-9]+)"', canonical(document).decode())
    return parts[::2], [int(number) for number in parts[1::2]]


@dataclass(slots=True)
class Scrubber:
    """Makes headers public, each with the help of those before it. Its memory is bounded.

    Attributes
    ----------
    names
        Of people that nobody asked to be named.
    withheld
        Streams that stay, and of which nothing is told.
    """

    names: tuple[str, ...]
    withheld: frozenset[str]
    _models: tuple[_Model, ...] = ()

    def public(self, text: str) -> PublicHeader:
        """Return the public form of a header.

        Raises
        ------
        ValueError, KeyError, TypeError, AttributeError
            If it is no header.
        """
        for model in self._models:
            if (found := model.public(text)) is not None:
                if model is not self._models[0]:
                    self._models = (model, *(one for one in self._models if one is not model))
                return found
        return self._in_full(text)

    def _in_full(self, text: str) -> PublicHeader:
        header = strict_json(text)
        told = scrub(header, self.names, self.withheld)
        private, public = canonical(header).decode(), canonical(told.document).decode()
        found = PublicHeader(
            id=str(told.document.get("id", "")),
            embodiment=str(told.document.get("embodiment", "")),
            text=public,
            problems=told.problems,
            unchanged=private == public,
            sources=tuple(file["sha256"] for file in header["provenance"]["sources"]),
        )
        if private == text and not found.problems:
            # Streams that stay were not checked, and may have any form: then there is no model.
            with suppress(KeyError, TypeError, AttributeError):
                model = _model(header, told.document, pass_over(header, self.names, self.withheld))
                if model.public(text) == found:
                    self._models = (model, *self._models[: _MODELS - 1])
        return found


@lru_cache(_SCRUBBERS)
def scrubber(names: tuple[str, ...], withheld: frozenset[str] = frozenset()) -> Scrubber:
    """Return what makes headers public for these names and streams."""
    return Scrubber(names, withheld)
