"""Kinds of value that a JSON record is made of: how each is checked, published, read, written, joined.

The validator, the JSON Schema and the rule "which of two is stricter" all come from the shape of a
member, so that they cannot disagree.

Only the exact built-in types of a JSON parser are ever looked into. Whatever else turns up is a problem
and is not touched, so that no foreign ``__eq__`` or ``__hash__`` runs inside a decision.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import Any

from .errors import Problem, SchemaError

_UNSAFE = r"\x00-\x08\x0b-\x1f\x7f\u202a-\u202e\u2066-\u2069\ud800-\udfff"
TEXT = rf"[^{_UNSAFE}]*[^{_UNSAFE}\t\n ][^{_UNSAFE}]*"
"""Something to read: no control character (terminals obey them), no bidirectional override (it makes text
look like other text, https://trojansource.codes), no lone surrogate (it has no UTF-8 form), not blank."""
HEX64 = "[0-9a-f]{64}"
_DAY = "[12][0-9]{3}-(0[1-9]|1[0-2])-(0[1-9]|[12][0-9]|3[01])"
_TIME = r"([01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](\.[0-9]{1,6})?"
_OFFSET = "(Z|[+-]([01][0-9]|2[0-3]):[0-5][0-9])"
_MAX_COUNT = 2**53  # the largest run of integers that every JSON parser keeps apart (RFC 8259, section 6)
_NAMES = ((dict, "an object"), (list, "a list"), (str, "text"), (bool, "true or false"), (type(None), "null"))


def canonical(document: object) -> bytes:
    """Return the one byte form of a JSON document: sorted keys, no spaces, UTF-8, no NaN.

    For records without fractions, and with member names in ASCII, these are the bytes of RFC 8785.

    Raises
    ------
    SchemaError
        Where the document has no JSON form.
    """
    try:
        text = json.dumps(
            document, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
        )
        return text.encode()
    except (TypeError, ValueError, RecursionError) as error:
        raise SchemaError([Problem("", f"has no JSON form: {error}", "type")]) from error


def digest(document: object) -> str:
    """Return the SHA-256 of a document's canonical bytes, in hexadecimal."""
    return hashlib.sha256(canonical(document)).hexdigest()


def _name(value: object) -> str:
    kind = type(value)  # compared with `is`: looking it up in a dict would run the hash of a metaclass
    if kind is int or kind is float:
        return "a number"
    return next((name for known, name in _NAMES if kind is known), "no JSON value")


def _quoted(value: str) -> str:
    return repr(value if len(value) <= 60 else value[:60] + "…")


def place(where: str, key: str) -> str:
    """Return the dotted path of a member; an odd name is quoted, so that it cannot pass for a path."""
    key = key if len(key) <= 60 and key.isidentifier() else _quoted(key)
    return f"{where}.{key}" if where else key


def wrong_type(where: str, wanted: str, value: object) -> Problem:
    """Return the problem of a value that is not even of the right kind."""
    return Problem(where, f"must be {wanted}; is {_name(value)}", "type")


class Shape:
    """What one member of a record may be."""

    def problems(self, value: object, where: str) -> Iterator[Problem]:
        """Yield what is wrong with the member of a document. Never raises."""
        raise NotImplementedError

    def schema(self) -> dict[str, Any]:
        """Return its JSON Schema (2020-12)."""
        raise NotImplementedError

    def read(self, value: Any) -> Any:
        """Return a member without problems as the record holds it: immutable, in canonical form."""
        return value

    def write(self, value: Any) -> Any:
        """Return what the record holds as a member of a document."""
        return value

    def join(self, one: Any, other: Any) -> Any:
        """Return the loosest value that is as strict as both. Here: two that differ count as none."""
        return one if one == other else None


@dataclass(frozen=True)
class Text(Shape):
    """Text that matches a pattern in full. ``what`` tells people what it is."""

    pattern: str = TEXT
    what: str = "readable text"
    max_length: int = 2_000

    def problems(self, value: object, where: str) -> Iterator[Problem]:
        """Yield what is wrong with it."""
        if type(value) is not str:
            yield wrong_type(where, self.what, value)
        elif len(value) > self.max_length:
            yield Problem(where, f"has {len(value)} characters; at most {self.max_length} are kept")
        elif not re.fullmatch(self.pattern, value) or not self._exists(value):
            yield Problem(where, f"must be {self.what}; is {_quoted(value)}")

    def _exists(self, value: str) -> bool:  # noqa: ARG002 - for dates, which no pattern can tell
        return True

    def schema(self) -> dict[str, Any]:
        """Return its JSON Schema."""
        return {"type": "string", "maxLength": self.max_length, "pattern": f"^(?:{self.pattern})$"}


@dataclass(frozen=True)
class Day(Text):
    """A day of the calendar, as RFC 3339 writes it."""

    pattern: str = _DAY
    what: str = "a day such as 2026-01-31"

    def _exists(self, value: str) -> bool:
        return _parsed(date, value)

    def schema(self) -> dict[str, Any]:
        """Return its JSON Schema."""
        return {**super().schema(), "format": "date"}


@dataclass(frozen=True)
class Instant(Text):
    """A point in time with an offset (RFC 3339), held as an aware datetime in UTC.

    A time without an offset is a different instant in every country, so it is refused.
    """

    pattern: str = f"{_DAY}T{_TIME}{_OFFSET}"
    what: str = "a time with an offset, such as 2026-01-31T09:00:00+01:00, in the years 1000 to 2999"

    def _exists(self, value: str) -> bool:
        return _parsed(datetime, value)

    def schema(self) -> dict[str, Any]:
        """Return its JSON Schema."""
        return {**super().schema(), "format": "date-time"}

    def read(self, value: str) -> datetime:
        """Return the instant in UTC, so that equal instants are equal bytes."""
        told = datetime.fromisoformat(value)
        utc = told.astimezone(UTC)
        return utc if 1000 <= utc.year <= 2999 else told  # at either end it could not be read again

    def write(self, value: Any) -> Any:
        """Return it as RFC 3339 text."""
        return value.isoformat().replace("+00:00", "Z") if isinstance(value, datetime) else value


def _parsed(kind: type[date], value: str) -> bool:
    try:
        kind.fromisoformat(value)
    except ValueError:
        return False
    return True


@dataclass(frozen=True)
class Words(Shape):
    """One word of a vocabulary, which is ordered from the loosest to the strictest.

    Attributes
    ----------
    rivals
        Two neighbours of which neither is stricter: where they meet, the next word holds.
    """

    words: tuple[str, ...]
    rivals: frozenset[str] = frozenset()

    def problems(self, value: object, where: str) -> Iterator[Problem]:
        """Yield what is wrong with it."""
        if type(value) is not str:
            yield wrong_type(where, f"one of {', '.join(self.words)}", value)
        elif value not in self.words:
            yield Problem(where, f"must be one of {', '.join(self.words)}; is {_quoted(value)}")

    def schema(self) -> dict[str, Any]:
        """Return its JSON Schema."""
        return {"enum": list(self.words)}

    def join(self, one: str, other: str) -> str:
        """Return the stricter word."""
        rank = max(self.words.index(one), self.words.index(other))
        return self.words[rank + 1 if {one, other} == self.rivals else rank]


@dataclass(frozen=True)
class Flag(Shape):
    """True or false."""

    def problems(self, value: object, where: str) -> Iterator[Problem]:
        """Yield what is wrong with it."""
        if type(value) is not bool:
            yield wrong_type(where, "true or false", value)

    def schema(self) -> dict[str, Any]:
        """Return its JSON Schema."""
        return {"type": "boolean"}


@dataclass(frozen=True)
class Count(Shape):
    """A whole number from 0. JSON does not tell 3 from 3.0, so both are 3."""

    def problems(self, value: object, where: str) -> Iterator[Problem]:
        """Yield what is wrong with it."""
        whole = type(value) is int or (type(value) is float and value.is_integer())
        if not whole:
            yield wrong_type(where, "a whole number", value)
        elif not 0 <= value <= _MAX_COUNT:  # type: ignore[operator]
            yield Problem(where, "must lie between 0 and 2^53")

    def schema(self) -> dict[str, Any]:
        """Return its JSON Schema."""
        return {"type": "integer", "minimum": 0, "maximum": _MAX_COUNT}

    def read(self, value: float) -> int:
        """Return it as an integer."""
        return int(value)


@dataclass(frozen=True)
class Maybe(Shape):
    """A member that may be absent or null, which say the same: not stated.

    Attributes
    ----------
    latest
        Absence restricts nothing and the greater value is the stricter. Without it the value is
        evidence: absence is the strictest, and values that differ are as good as absent.
    """

    shape: Shape
    latest: bool = False

    def problems(self, value: object, where: str) -> Iterator[Problem]:
        """Yield what is wrong with it."""
        if value is not None:
            yield from self.shape.problems(value, where)

    def schema(self) -> dict[str, Any]:
        """Return its JSON Schema."""
        return {"anyOf": [self.shape.schema(), {"type": "null"}]}

    def read(self, value: Any) -> Any:
        """Return None or what the shape reads."""
        return None if value is None else self.shape.read(value)

    def write(self, value: Any) -> Any:
        """Return None or what the shape writes."""
        return None if value is None else self.shape.write(value)

    def join(self, one: Any, other: Any) -> Any:
        """Return the stricter of the two."""
        if not self.latest:
            return super().join(one, other)
        return max((value for value in (one, other) if value is not None), default=None)


@dataclass(frozen=True)
class ListOf(Shape):
    """Several of a shape.

    Attributes
    ----------
    evidence
        Something must be told here before anything opens, so an empty list is the strictest. Without
        it the list names restrictions and facts, and the empty one is the loosest.
    ordered
        The order says something (authors of a paper). Otherwise it is a set, and is kept sorted.
    """

    item: Shape
    evidence: bool = False
    ordered: bool = False
    max_items: int = 10_000

    def problems(self, value: object, where: str) -> Iterator[Problem]:
        """Yield what is wrong with it."""
        if type(value) is not list:
            yield wrong_type(where, "a list", value)
        elif len(value) > self.max_items:
            yield Problem(where, f"has {len(value)} entries; at most {self.max_items} are kept")
        else:
            for index, entry in enumerate(value):
                yield from self.item.problems(entry, f"{where}.{index}")

    def schema(self) -> dict[str, Any]:
        """Return its JSON Schema."""
        return {"type": "array", "maxItems": self.max_items, "items": self.item.schema()}

    def read(self, value: list[Any]) -> tuple[Any, ...]:
        """Return the entries; a set's once each and sorted."""
        entries = [self.item.read(entry) for entry in value]
        if self.ordered or len(entries) < 2:
            return tuple(entries)
        return self._sorted(set(entries))

    def _sorted(self, entries: set[Any]) -> tuple[Any, ...]:
        return tuple(sorted(entries, key=lambda entry: canonical(self.item.write(entry))))

    def write(self, value: Any) -> Any:
        """Return the entries as a list."""
        if not isinstance(value, tuple | list):
            return value
        return [self.item.write(entry) for entry in value]

    def join(self, one: tuple[Any, ...], other: tuple[Any, ...]) -> tuple[Any, ...]:
        """Return the entries of both; none if one lacks the evidence."""
        if self.evidence and not (one and other):
            return ()
        return one if one == other else self._sorted({*one, *other})
