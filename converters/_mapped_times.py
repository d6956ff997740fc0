"""The clocks that a mapping names, and which of them a column's rows are on."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from fractions import Fraction
from itertools import count

import numpy as np

from ..schemas import Array, Times
from ._columns import Column, Share, Stamps
from ._draft import Draft, stream_name
from ._mapping import NANOSECONDS, ClockRule, MappingFile

STEPS = "steps"

_BLOCK = 1 << 16
_MAX_SPAN = 1 << 62
_DAY = 86_400 * 10**9


@dataclass(frozen=True, slots=True, kw_only=True)
class _Read:
    """Times as they were read: nanoseconds since the first, and what that one is."""

    times: Times
    first_ns: int
    source: str
    field: str
    shared: bool


@dataclass(slots=True)
class Clocks:
    """The clocks of one episode.

    Attributes
    ----------
    nominal
        Clocks with a rate and no times: they are as long as the streams on them.
    topics
        Clocks by the topic whose messages they belong to.
    """

    mapping: MappingFile
    share: Share
    draft: Draft
    nominal: dict[str, ClockRule] = field(default_factory=dict)
    topics: dict[str, str] = field(default_factory=dict)
    start_ns: int | None = None

    def of(self, where: str, name: str | None, column: Column) -> str:
        """Return the clock that a rule puts a column on, which has to have as many rows."""
        if name is None and column.clock:
            return self._of_topic(column)
        wanted = STEPS if name is None else name
        if wanted in self.nominal and wanted not in self.draft.clocks:
            self._start(wanted, column.length)
        if wanted not in self.draft.clocks:
            self.mapping.refuse(f"{where}.clock", f"there is no clock {wanted!r}", "Say one under [clocks]")
        length = self.draft.clocks[wanted].length
        if length != column.length:
            self.mapping.refuse(
                where, f"{column.name!r} has {column.length} rows, and the clock {wanted!r} {length}"
            )
        return wanted

    def matching(self, column: Column) -> str:
        """Return the clock that a column's rows are on by topic or number of rows; empty if there is none."""
        if column.clock:
            return self._of_topic(column)
        same = [name for name, clock in self.draft.clocks.items() if clock.length == column.length]
        return STEPS if STEPS in same else next(iter(same), "")

    def _start(self, name: str, length: int) -> None:
        """Give a nominal clock its length."""
        rule = self.nominal[name]
        if rule.counted:
            self.draft.warn(
                f"the rate of the clock {name!r} is unknown: each row counts as one second, and rates and "
                "durations mean nothing"
            )
        said = rule.source or f"the mapping {self.mapping.path.name}"
        told = "unknown: one second stands for each row" if rule.counted else said
        self.draft.nominal(name, length, 1.0 if rule.counted else float(rule.rate_hz or 0), told)

    def _of_topic(self, column: Column) -> str:
        """Return the clock of a topic's messages; without a rule it is that of their log times."""
        if column.clock not in self.topics:
            base = stream_name(column.clock.strip("/") or "topic").replace(".", "_")[:80]
            names = (base if i == 1 else f"{base}_{i}" for i in count(1))
            name = next(n for n in names if n not in self.draft.clocks and n not in self.nominal)
            read = self._stamps(f"clocks.{name}", column.clock, "log")
            if not self._is_near(read):
                self.draft.warn(
                    f"the log times of {column.clock} are of another epoch than the other times: its first "
                    "message is taken for the episode's start"
                )
                read = replace(read, shared=False)
            self._add(name, read)
            self.topics[column.clock] = name
        return self.topics[column.clock]

    def recorded(self, name: str, rule: ClockRule) -> _Read:
        """Read the times of a clock that has some."""
        where = f"clocks.{name}"
        if rule.topic:
            return self._stamps(where, rule.topic, rule.stamps or "log", shared=rule.epoch == "shared")
        self.mapping.must_know(f"{where}.field", rule.field, self.share.columns)
        column = self.share.columns[rule.field]
        if rule.unit and column.unit and rule.unit != column.unit:
            self.mapping.refuse(f"{where}.unit", f"says {rule.unit!r}; {column.name!r} is in {column.unit!r}")
        unit = rule.unit or column.unit
        if not unit:
            self.mapping.refuse(f"{where}.unit", "is missing", "Say s, ms, us or ns")
        if column.unread or column.holds != "numbers" or column.shape not in {(), (1,)} or not column.length:
            self.mapping.refuse(
                f"{where}.field", f"{column.name!r} must hold one number for each row, and some"
            )
        times, first = _nanoseconds(self, column, NANOSECONDS[unit])
        return _Read(
            times=times,
            first_ns=first,
            source=rule.source or f"{column.name} ({unit})",
            field=column.name,
            shared=rule.epoch == "shared",
        )

    def _stamps(self, where: str, topic: str, which: Stamps, *, shared: bool = True) -> _Read:
        self.mapping.must_know(
            f"{where}.topic", topic, {c.clock for c in self.share.columns.values() if c.clock}
        )
        times = self.share.source.stamps(topic, which)
        if times is None or not len(times):
            self.mapping.refuse(f"{where}.stamps", f"{topic!r} has no {which} stamps")
        first = int(times[0])
        return _Read(
            times=times - first, first_ns=first, source=f"{which} stamps of {topic}", field="", shared=shared
        )

    def _add(self, name: str, read: _Read) -> None:
        """Add a recorded clock, counted from the episode's start."""
        start = read.first_ns
        if read.shared:
            self.start_ns = read.first_ns if self.start_ns is None else self.start_ns
            start = self.start_ns
        if read.shared and not self._is_near(read):
            self.mapping.refuse(
                f"clocks.{name}",
                f"begins {(read.first_ns - start) / 1e9:.3f} s from the episode's start",
                'If nothing relates it to the other clocks, say epoch = "own"',
            )
        self.draft.recorded(name, read.times + (read.first_ns - start), read.source, field=read.field or name)
        self.draft.extra.setdefault("clocks", {})[name] = {
            "first": f"{read.first_ns // 10**9}.{read.first_ns % 10**9:09d} s, by its own epoch"
        }
        if read.field:
            self.draft.account(
                read.field,
                "transformed",
                [f"clocks.{name}"],
                "nanoseconds since the episode's start",
                lossless=None,
            )

    def begin(self) -> None:
        """Read all recorded clocks; those of a shared epoch count from the first time of all."""
        reads = {}
        for name, rule in self.mapping.rules.clocks.items():
            if rule.field or rule.topic:
                reads[name] = self.recorded(name, rule)
                if rule.topic:
                    self.topics.setdefault(rule.topic, name)
            else:
                self.nominal[name] = rule
        shared = [read.first_ns for read in reads.values() if read.shared]
        others = list(self._log_starts())
        self.start_ns = min(shared or others, default=None)
        # A topic that nothing is said of may have begun before the others.
        self.start_ns = min([*shared, *(first for first in others if self._is_near_ns(first))], default=None)
        for name, read in reads.items():
            self._add(name, read)

    def _log_starts(self) -> Iterator[int]:
        """Yield the first log time of each topic that no clock of the mapping speaks of."""
        for topic in dict.fromkeys(column.clock for column in self.share.columns.values() if column.clock):
            times = self.share.source.stamps(topic, "log")
            if topic not in self.topics and times is not None and len(times):
                yield int(times[0])

    def _is_near(self, read: _Read) -> bool:
        """Tell whether a clock can be of the same epoch as the others."""
        return self._is_near_ns(read.first_ns)

    def _is_near_ns(self, first_ns: int) -> bool:
        return self.start_ns is None or abs(first_ns - self.start_ns) <= _DAY


def _nanoseconds(clocks: Clocks, column: Column, scale: int) -> tuple[Times, int]:
    """Return a column's times as nanoseconds since its first, and the first in nanoseconds of its epoch."""
    times = np.empty(column.length, np.int64)
    first: int | float | None = None
    at = 0
    for block in clocks.share.blocks(column.name, 0, column.length, _BLOCK):
        values = block.reshape(len(block))
        if values.dtype.kind not in "iuf" or (values.dtype.kind == "f" and not np.isfinite(values).all()):
            clocks.draft.refuse(f"{column.name}[{at}...]", "holds what is no time")
        if first is None:
            first = values[0].item()
        times[at : at + len(values)] = _since(clocks, column, values, first, scale)
        at += len(values)
    if at != column.length:
        clocks.draft.refuse(column.name, f"ends at row {at}, where {column.length} were announced")
    return times, round(Fraction(first or 0) * scale)


def _since(clocks: Clocks, column: Column, values: Array, first: float, scale: int) -> Times:
    low, high = values.min().item(), values.max().item()
    if (high - first) * scale >= _MAX_SPAN or (first - low) * scale >= _MAX_SPAN:
        clocks.draft.refuse(column.name, "holds times more than a century apart", "Is the unit right?")
    if values.dtype.kind == "f":
        since: Times = np.rint((values.astype(np.float64) - first) * scale).astype(np.int64)
        return since
    # Differences fit where unsigned values do not: those wrap round, and the difference comes out right.
    return (values.astype(np.int64) - np.array(first, values.dtype).astype(np.int64)) * scale
