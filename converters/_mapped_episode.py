"""An episode made of columns by the rules of a mapping.

Whatever the rules do not speak of is kept where that is safe: numbers with a row per step as ``extra.*``,
texts as members or events, single values in the header. The rest is dropped, and the ledger says why.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from fnmatch import fnmatchcase

import numpy as np

from ..schemas import ActionContract, Event, FieldFate, Json
from ..schemas.episode import UNKNOWN, Outcome
from ..schemas.validate import has_controls
from ._columns import Column, Share
from ._draft import Draft, embodiment_of, stream_name
from ._mapped_split import Part
from ._mapped_streams import made, numbers
from ._mapped_times import Clocks
from ._mapping import EventRule, MappingFile, StreamRule

MAX_RUNS = 10_000
MAX_VALUES = 1_024
MAX_TEXT = 100_000

_OUTCOMES: dict[object, Outcome] = {
    True: "success",
    False: "failure",
    "success": "success",
    "failure": "failure",
}
_BY_LENGTH = "Put on this clock since it has as many rows; the mapping does not speak of it."


@dataclass(slots=True)
class Builder:
    """Goes through the rules, then through what they left."""

    mapping: MappingFile
    part: Part
    draft: Draft
    block_bytes: int
    clocks: Clocks = field(init=False)
    embodiment: str = UNKNOWN
    outcome: Outcome = "unknown"
    _used: dict[str, list[tuple[int, int]]] = field(default_factory=dict)
    _on: dict[str, str] = field(default_factory=dict)
    _to: dict[str, list[str]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.clocks = Clocks(self.mapping, self.part.share, self.draft)

    @property
    def share(self) -> Share:
        """Give what the episode has of the file's columns."""
        return self.part.share

    def compose(self) -> None:
        """Decide what becomes of every field."""
        rules = self.mapping.rules
        if self.part.marker:
            self.draft.account(
                self.part.marker, "transformed", ["provenance.selector"], "tells the episodes apart"
            )
        for name, value in self.part.values.items():
            self.draft.tell(name, value, "values")
        self._drop()
        self.clocks.begin()
        for name, clock in rules.clocks.items():
            self._not_dropped(f"clocks.{name}.field", clock.field)
            self._used.setdefault(clock.field, []).append((0, 1))
        for name, rule in rules.streams.items():
            self._stream(name, rule)
        for i, event in enumerate(rules.events):
            self._event(f"events.{i}", event)
        self._header()
        for column in self.share.columns.values():
            self._rest(column)
        self._values()
        self.draft.ledger = merged(self.draft.ledger)

    # What the mapping says

    def _drop(self) -> None:
        known = [*self.share.columns, *self.share.values, *self.share.unread]
        for pattern, why in self.mapping.rules.drop.items():
            found = [name for name in known if name == pattern or fnmatchcase(name, pattern)]
            if not found:
                self.mapping.must_know("drop", pattern, known)
            for name in found:
                if name not in self._used:
                    self._used[name] = []
                    self.draft.drop(name, f"the mapping leaves it out: {why}")

    def _not_dropped(self, where: str, name: str) -> None:
        if self._used.get(name) == []:
            self.mapping.refuse(where, f"names {name!r}, which [drop] leaves out")

    def _column(self, where: str, name: str) -> Column:
        """Return a column that a rule names, or refuse the rule."""
        self.mapping.must_know(where, name, self.share.columns)
        column = self.share.columns[name]
        self._not_dropped(where, name)
        if column.unread or not column.length:
            self.mapping.refuse(where, f"names {name!r}, which {column.unread or 'holds no rows'}")
        return column

    def _stream(self, name: str, rule: StreamRule) -> None:
        where = f"streams.{name}"
        columns = [self._column(f"{where}.field", wanted) for wanted in rule.field]
        if len({column.length for column in columns}) > 1:
            self.mapping.refuse(f"{where}.field", f"names fields of {[c.length for c in columns]} rows")
        clock = self.clocks.of(where, rule.clock, columns[0])
        spec, read, how = made(self.mapping, where, rule, self.share, columns, self.block_bytes)
        command = name == "action" or name.startswith("action.")
        spec = dataclasses.replace(
            spec,
            name=name,
            unit=rule.unit,
            frame=rule.frame,
            axes=rule.axes,
            clock=clock,
            contract=rule.contract or (ActionContract() if command else None),
            description=rule.description,
            attributes={**rule.attributes, **spec.attributes},
        )
        if rule.shape is not None and rule.shape != spec.shape:
            self.mapping.refuse(f"{where}.shape", f"says {list(rule.shape)}; a sample is {list(spec.shape)}")
        first, *others = columns
        lossless = None if rule.encoding != "raw" else True
        got = self.draft.add(spec, first.length, read, source=first.name, how=how, lossless=lossless)
        if got != name:
            self.mapping.refuse(where, "differs from another stream in upper and lower case only")
        for other in others:
            self.draft.account(other.name, "transformed", [got], how)
        for column in columns:
            span = rule.columns or (0, math.prod(column.shape))
            self._used.setdefault(column.name, []).append((span[0], span[1]))
            self._on[column.name] = clock

    def _event(self, where: str, rule: EventRule) -> None:
        column = self._column(f"{where}.field", rule.field)
        clock = self.clocks.of(where, rule.clock, column)
        runs = self._runs(column)
        if runs is None:
            self.mapping.refuse(
                f"{where}.field",
                f"{rule.field!r} is no text or single number, or changes more than {MAX_RUNS:,} times",
            )
        self._add_events(rule.kind, runs, clock, column)
        self._used.setdefault(column.name, []).append((0, 1))

    def _header(self) -> None:
        rule = self.mapping.rules.episode
        if rule.instruction and not self.draft.instruct(rule.instruction):
            self.mapping.refuse("episode.instruction", "is no text that a robot can be given")
        self.embodiment, self.outcome = rule.embodiment, rule.outcome
        if rule.instruction_field:
            self._instructions(rule.instruction_field)
        if rule.embodiment_field:
            told = self._value("episode.embodiment_field", rule.embodiment_field, "embodiment")
            self.embodiment = embodiment_of(told)
            if self.embodiment == UNKNOWN:
                self.draft.warn(f"{rule.embodiment_field!r} names no robot")
        if rule.outcome_field:
            told = self._value("episode.outcome_field", rule.outcome_field, "outcome")
            plain = told if isinstance(told, bool | str) else None
            self.outcome = _OUTCOMES.get(plain, "unknown")
            if plain not in _OUTCOMES:
                self.draft.warn(f"{rule.outcome_field!r} is neither true, false, 'success' nor 'failure'")

    def _instructions(self, name: str) -> None:
        where = "episode.instruction_field"
        column = self.share.columns.get(name)
        if column is None:
            told = self._value(where, name, "instructions")
            texts = told if isinstance(told, list) else [told]
            good = [self.draft.instruct(text) for text in texts]
            if not all(good):
                self.draft.warn(f"{name!r} holds what is no instruction")
            return
        column = self._column(where, name)
        runs = self._runs(column) if column.holds == "texts" or column.how else None
        if runs is None:
            self.mapping.refuse(where, f"{name!r} holds no texts, or more than {MAX_RUNS:,} of them")
        for text in dict.fromkeys(text for _, text in runs):
            self.draft.instruct(text)
        if len(runs) > 1:
            self._add_events(
                "instruction", runs, self.clocks.of(where, None, column), column, ["instructions"]
            )
        else:
            self.draft.account(name, "transformed", ["instructions"], "the same text in every row")
        self._used.setdefault(name, []).append((0, math.prod(column.shape)))

    def _value(self, where: str, name: str, to: str) -> Json:
        """Return a single value that a rule names."""
        values = {**self.share.values, **self.part.values}
        self.mapping.must_know(where, name, [*values, *self.share.columns])
        self._not_dropped(where, name)
        if name not in values:
            self.mapping.refuse(where, f"{name!r} has rows; what is wanted is a single value")
        self._to.setdefault(name, []).append(to)
        return values[name]

    # What it does not speak of

    def _rest(self, column: Column) -> None:
        spans = self._used.get(column.name)
        if spans is not None:
            if column.name in self._on and len(column.shape) == 1:
                self._left_axes(column, spans)
            return
        if column.unread or not column.length or 0 in column.shape:
            self.draft.drop(column.name, column.unread or "holds no values")
            return
        clock = "" if column.name in self.share.outside else self.clocks.matching(column)
        if not clock:
            self._without_clock(column)
        elif column.holds == "numbers":
            self._extra(column, clock, None)
        elif column.holds == "texts":
            self._texts(column, clock)
        else:
            self.draft.drop(
                column.name, "holds bytes of variable length, and the mapping does not say of what"
            )

    def _left_axes(self, column: Column, spans: Iterable[tuple[int, int]]) -> None:
        """Keep the axes of a field of which rules took others."""
        left = np.ones(column.shape[0], bool)
        for start, stop in spans:
            left[start:stop] = False
        edges = np.flatnonzero(np.diff(np.concatenate([[False], left, [False]]).astype(np.int8)))
        for start, stop in edges.reshape(-1, 2).tolist():
            self._extra(column, self._on[column.name], (start, stop))

    def _extra(self, column: Column, clock: str, cut: tuple[int, int] | None) -> None:
        parts = [part for part in column.name.split("/") if part]
        spec, read, how = numbers(self.mapping, "", cut, self.share, [column], self.block_bytes)
        spec = dataclasses.replace(
            spec,
            name=stream_name("extra", *parts, *([f"{cut[0]}-{cut[1]}"] if cut else [])),
            clock=clock,
            description="" if column.clock or cut else _BY_LENGTH,
        )
        self.draft.add(spec, column.length, read, source=column.name, how=how)

    def _texts(self, column: Column, clock: str) -> None:
        runs = self._runs(column)
        if runs is None:
            self.draft.drop(
                column.name, f"holds more than {MAX_RUNS:,} different texts in turn, or too long ones"
            )
        elif len(runs) == 1:
            self.draft.tell(column.name, runs[0][1], "values")
        else:
            self._add_events(column.name[:900], runs, clock, column)

    def _without_clock(self, column: Column) -> None:
        outside = column.name in self.share.outside
        why = "belongs to the file, not to the episode" if outside else "has as many rows as no clock"
        small = column.length * math.prod(column.shape) <= MAX_VALUES
        told: Json = None
        if small and column.holds == "numbers":
            told = np.concatenate(
                list(self.share.blocks(column.name, 0, column.length, column.length))
            ).tolist()
        elif small and column.holds == "texts":
            told = [_text(raw) for raw in self.share.items(column.name, 0, column.length)]
            told = told if sum(map(len, told)) <= MAX_TEXT else None
        if told is None or not _is_json(told):
            self.draft.drop(column.name, f"{why}: {column.length} of {column.dtype} {list(column.shape)}")
        else:
            self.draft.tell(column.name, told, "values")

    def _values(self) -> None:
        for name, value in self.share.values.items():
            if self._used.get(name) is None:
                home = "attributes" if "@" in name else "values"
                self.draft.tell(name, value, home, self._to.get(name, ()))
        for name, why in self.share.unread.items():
            if name not in self._used:
                self.draft.drop(name, why)

    # Runs of equal values

    def _runs(self, column: Column) -> list[tuple[int, str]] | None:
        """Return the rows at which a column's value changes, and the value as text; None if too many."""
        fixed = bool(column.how) and len(column.shape) == 1
        if column.holds == "bytes" or (column.holds == "numbers" and column.shape and not fixed):
            return None
        runs: list[tuple[int, str]] = []
        size = 0
        for row, text in enumerate(self._row_texts(column)):
            if runs and runs[-1][1] == text:
                continue
            size += len(text)
            if len(runs) == MAX_RUNS or len(text) > MAX_TEXT or size > 32 * MAX_TEXT:
                return None
            runs.append((row, text))
        return runs

    def _row_texts(self, column: Column) -> Iterator[str]:
        if column.holds == "texts" or column.shape:
            yield from map(_text, self.share.items(column.name, 0, column.length))
            return
        for block in self.share.blocks(column.name, 0, column.length, 1 << 12):
            yield from map(str, block.tolist())

    def _add_events(
        self, kind: str, runs: list[tuple[int, str]], clock: str, column: Column, to: Iterable[str] = ()
    ) -> None:
        """Add a span of time for each run of equal texts; an empty text is none."""
        times = self.draft.clocks[clock].read()
        stops = [*(int(times[row]) for row, _ in runs[1:]), int(times[-1]) + 1]
        for (row, text), stop in zip(runs, stops, strict=True):
            if text:
                self.draft.events.append(Event(kind=kind, start_ns=int(times[row]), stop_ns=stop, text=text))
        self.draft.account(
            column.name, "transformed", ["events", *to], "a span of time for each run of equal values"
        )


def merged(ledger: Iterable[FieldFate]) -> list[FieldFate]:
    """Return a ledger with one entry for each field, whatever number of places its parts went to."""
    found: dict[str, list[FieldFate]] = {}
    for fate in ledger:
        found.setdefault(fate.field, []).append(fate)
    whole = []
    for name, fates in found.items():
        if len(fates) == 1:
            whole.append(fates[0])
            continue
        to = tuple(dict.fromkeys(place for fate in fates for place in fate.to))
        how = "; ".join(dict.fromkeys(f"{', '.join(f.to)}: {f.how or 'as it is'}" for f in fates))
        known = [fate.lossless for fate in fates]
        lossless = False if False in known else None if None in known else True
        whole.append(FieldFate(field=name, fate="transformed", to=to, how=how[:MAX_TEXT], lossless=lossless))
    return whole


def _text(raw: bytes) -> str:
    text = raw.decode(errors="replace")
    return "".join("\ufffd" if has_controls(c) else c for c in text) if has_controls(text) else text


def _is_json(value: Json) -> bool:
    if isinstance(value, list):
        return all(map(_is_json, value))
    return not isinstance(value, float) or math.isfinite(value)
