"""An episode while it is put together, with an account of every field of its source.

The parts that every converter needs and none should write again: names that are free, fates, evidence,
instructions, clocks. What a field means is the converter's own business.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import chain, count
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

from ..schemas import (
    UNKNOWN,
    Array,
    Clock,
    Episode,
    Event,
    FieldFate,
    FormatError,
    Json,
    Packets,
    Provenance,
    SourceFile,
    Stream,
    StreamSpec,
    Times,
    episode_id,
    median_rate,
    nominal_times,
)
from ..schemas.episode import Fate, Outcome
from ..schemas.validate import has_controls
from .base import MAX_EPISODE_BYTES, Format

Read = Callable[[int, int], Iterator[Array]]

_MAX_TEXT = 100_000
_MAX_NAME = 180
_MAX_TIME_NS = 1 << 62
_EVIDENCE = re.compile(
    r"licen[cs]e|copyright|author|owner|creator|operator|consent|attribution|citation|rights", re.IGNORECASE
)


def speaks_of_rights(name: str) -> bool:
    """Tell whether the last part of a field's name speaks of rights or people."""
    return bool(_EVIDENCE.search(re.split("[/@.]", name)[-1]))


def stream_name(*parts: str) -> str:
    """Return the parts joined by dots, with what a stream's name may not hold made into underscores."""
    clean = (re.sub(r"[^A-Za-z0-9_@+-]", "_", part)[:80] or "_" for part in parts)
    return ".".join(clean)[:_MAX_NAME].rstrip(".")


def embodiment_of(value: Json) -> str:
    """Return a source's word for its robot if it is one, else ``unknown``."""
    good = isinstance(value, str) and 0 < len(value) <= 1_000 and not has_controls(value)
    return value if good else UNKNOWN


@dataclass(slots=True)
class Draft:
    """One episode in the making.

    Attributes
    ----------
    path
        The source, for errors.
    where
        Which episode of it, for errors; empty if it holds one only.
    """

    path: Path
    where: str = ""
    streams: dict[str, Stream] = field(default_factory=dict)
    clocks: dict[str, Clock] = field(default_factory=dict)
    ledger: list[FieldFate] = field(default_factory=list)
    events: list[Event] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    instructions: list[str] = field(default_factory=list)
    evidence: dict[str, Json] = field(default_factory=dict)
    extra: dict[str, Json] = field(default_factory=dict)
    _names: set[str] = field(default_factory=set)
    _bytes: int = 0

    def refuse(self, where: str, why: str, advice: str = "") -> NoReturn:
        """Raise the `FormatError` that names the source and the place in it."""
        raise FormatError(str(self.path), "/".join(filter(None, (self.where, where))), why, advice)

    # Streams

    def free(self, wanted: str) -> str:
        """Return the name, with a number behind it if there is such a stream already, and take it."""
        names = chain([wanted], (f"{wanted}_{i}" for i in count(2)))
        name = next(name for name in names if name.casefold() not in self._names)
        self._names.add(name.casefold())
        return name

    def add(
        self,
        spec: StreamSpec,
        length: int,
        read: Read,
        *,
        source: str,
        how: str = "",
        fate: Fate | None = None,
        lossless: bool | None = True,
        packets: Packets | None = None,
    ) -> str:
        """Add a stream made from the field ``source``, account for it, and return the name it got.

        Parameters
        ----------
        read
            Gives samples ``[start, stop)`` in blocks, as often as anyone asks; opens what it needs itself.
        how
            For a field that was transformed; without it the field counts as kept or renamed.
        fate
            If it is none of these.
        """
        spec = dataclasses.replace(spec, name=self.free(spec.name))
        self._bytes += spec.sample_bytes * length
        if self._bytes > MAX_EPISODE_BYTES:
            self.refuse(source, f"declares more than {MAX_EPISODE_BYTES:,} bytes")
        self.streams[spec.name] = Stream(spec=spec, length=length, read=read, packets=packets)
        usual: Fate = "transformed" if how else "kept" if spec.name == source else "renamed"
        self.account(source, fate or usual, [spec.name], how, lossless=lossless)
        return spec.name

    # The account

    def account(
        self, source: str, fate: Fate, to: Iterable[str] = (), how: str = "", *, lossless: bool | None = True
    ) -> None:
        """Note what became of a field."""
        kept = None if fate == "dropped" else lossless
        self.ledger.append(FieldFate(field=source, fate=fate, to=tuple(to), how=how, lossless=kept))

    def drop(self, source: str, why: str) -> None:
        """Note that a field is not kept, and why."""
        self.account(source, "dropped", how=why)

    def tell(self, source: str, value: Json, home: str = "attributes", to: Sequence[str] = ()) -> None:
        """Keep a value that is no stream in ``extra[home]``, and as evidence if it speaks of rights.

        Parameters
        ----------
        to
            Where else it went, such as ``instructions`` or ``clocks.steps``.
        """
        self.extra.setdefault(home, {})[source] = value
        places = [f"extra.{home}", *to]
        if speaks_of_rights(source):
            self.evidence[source] = value
            places.append("provenance.evidence")
        self.account(source, "renamed", places)

    def warn(self, text: str) -> None:
        """Tell those who will use the data of an oddity, once."""
        if text not in self.warnings:
            self.warnings.append(text)

    def instruct(self, value: Json) -> bool:
        """Take a text as what the robot was asked to do; False if it is no such text."""
        if not isinstance(value, str) or not value.strip() or len(value) > _MAX_TEXT or has_controls(value):
            return False
        if value not in self.instructions:
            self.instructions.append(value)
        return True

    # Clocks

    def nominal(self, name: str, length: int, rate_hz: float, source: str) -> None:
        """Add a clock whose times are computed from a rate; ``source`` tells where the rate is from."""
        if not 1e-6 <= rate_hz <= 1e6:
            self.refuse("", f"a rate of {rate_hz} Hz is none", "Say the rate: option rate_hz")
        self.clocks[name] = Clock(
            name=name,
            kind="nominal",
            declared_hz=rate_hz,
            source=source,
            length=length,
            read=partial(nominal_times, length, rate_hz),
        )

    def recorded(
        self, name: str, times: Times, source: str, *, declared_hz: float | None = None, field: str = ""
    ) -> None:
        """Add a clock of measured times: (n,) int64 nanoseconds since the episode's start.

        Raises
        ------
        FormatError
            If time runs backwards or before the start: ``field`` is where.
        """
        back = np.flatnonzero(np.diff(times) < 0)
        if back.size:
            self.refuse(field or name, f"time runs backwards at sample {int(back[0]) + 1}")
        if times.size and not 0 <= int(times[0]) <= int(times[-1]) < _MAX_TIME_NS:
            self.refuse(field or name, "holds what is no time since the episode's start")
        self.clocks[name] = Clock(
            name=name,
            kind="recorded",
            declared_hz=declared_hz,
            measured_hz=median_rate(times),
            source=source,
            length=len(times),
            read=partial(_same, times),
        )

    # The end

    def build(
        self,
        converter: Any,
        sources: Sequence[SourceFile],
        *,
        version: str,
        selector: str = "",
        embodiment: str = UNKNOWN,
        outcome: Outcome = "unknown",
        revision: str | None = None,
    ) -> Episode:
        """Return the episode. Its id comes from the sources of the roles ``recording`` and ``video``.

        Parameters
        ----------
        converter
            The frozen dataclass that reads; its fields are put on record as options, but ``block_bytes`` and
            ``only``, which change nothing in an episode.
        """
        fmt: Format = converter.format
        digests = [s.sha256 for s in sources if s.role in {"recording", "video"}]
        return Episode(
            id=episode_id(digests, selector),
            instructions=tuple(self.instructions),
            embodiment=embodiment,
            outcome=outcome,
            provenance=Provenance(
                format=fmt.name,
                converter=type(converter).__module__.rpartition(".")[2],
                converter_version=version,
                sources=tuple(sources),
                revision=revision,
                selector=selector,
                options=_options(converter),
                ledger=tuple(self.ledger),
                evidence=self.evidence,
                warnings=tuple(self.warnings),
            ),
            clocks=self.clocks,
            streams=self.streams,
            events=tuple(sorted(self.events, key=lambda event: event.start_ns)),
            extra={name: member for name, member in self.extra.items() if member not in ({}, [], None)},
        )


def _same(times: Times) -> Times:
    return times


def _options(converter: Any) -> Mapping[str, Json]:
    """Return the converter's options as JSON."""
    names = (f.name for f in dataclasses.fields(converter) if f.name not in {"block_bytes", "only"})
    told = {name: getattr(converter, name) for name in names}
    return {name: list(v) if isinstance(v, tuple) else v for name, v in told.items()}
