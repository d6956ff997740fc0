"""Records: frozen data classes whose fields carry a shape, and their documents.

The fields of the data class are the only table there is: what a document may hold, its JSON Schema, how it
is read and written and how two records are joined are all told by walking them.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import MISSING, dataclass, field
from typing import Any, ClassVar

from .errors import Problem
from .shapes import Shape, canonical, place, wrong_type


@dataclass(frozen=True)
class Excludes:
    """Where ``member`` is ``word``, the list ``other`` must be empty: the two contradict each other."""

    member: str
    word: str
    other: str

    def problems(self, value: dict[str, Any], where: str) -> Iterator[Problem]:
        """Yield the contradiction."""
        word, other = value.get(self.member), value.get(self.other)
        if type(word) is str and word == self.word and type(other) is list and other:
            message = f"names something although {self.member} is {self.word!r}"
            yield Problem(place(where, self.other), message, "conflict")

    def schema(self) -> dict[str, Any]:
        """Return its JSON Schema."""
        return {
            "if": {"properties": {self.member: {"const": self.word}}, "required": [self.member]},
            "then": {"properties": {self.other: {"maxItems": 0}}},
        }


def member(shape: Shape, default: Any = MISSING, *, required: bool = False) -> Any:
    """Return a data class field of a shape. Without a default it is required."""
    made: Any = field(default=default, metadata={"shape": shape, "required": required or default is MISSING})
    return made


@dataclass(frozen=True)
class Member:
    """What a record's field says of a member of its document."""

    shape: Shape
    default: Any
    required: bool


class Record:
    """Base of the data classes that have shapes."""

    __slots__ = ()
    rules: ClassVar[tuple[Excludes, ...]] = ()


_MEMBERS: dict[type[Record], dict[str, Member]] = {}


def members(kind: type[Record]) -> dict[str, Member]:
    """Return the members of a record's document by name."""
    if kind not in _MEMBERS:
        _MEMBERS[kind] = {
            f.name: Member(f.metadata["shape"], f.default, f.metadata["required"])
            for f in dataclasses.fields(kind)  # type: ignore[arg-type]  # every subclass is a data class
        }
    return _MEMBERS[kind]


@dataclass(frozen=True)
class Sub(Shape):
    """A record as a member of another, or on its own."""

    kind: type[Record]

    def problems(self, value: object, where: str) -> Iterator[Problem]:
        """Yield what is wrong with it."""
        if type(value) is not dict:
            yield wrong_type(where, "an object", value)
            return
        if any(type(key) is not str for key in value):
            yield Problem(where, "has a member whose name is not text", "type")
            return
        known = members(self.kind)
        for key in value:
            if key not in known:
                yield Problem(place(where, key), "is not a member known here", "unknown")
        for key, told in known.items():
            if key in value:
                yield from told.shape.problems(value[key], place(where, key))
            elif told.required:
                yield Problem(place(where, key), "is missing", "missing")
        for rule in self.kind.rules:
            yield from rule.problems(value, where)

    def schema(self) -> dict[str, Any]:
        """Return its JSON Schema."""
        known = members(self.kind)
        schema: dict[str, Any] = {
            "type": "object",
            "additionalProperties": False,
            "properties": {key: told.shape.schema() for key, told in known.items()},
        }
        if required := [key for key, told in known.items() if told.required]:
            schema["required"] = required
        if self.kind.rules:
            schema["allOf"] = [rule.schema() for rule in self.kind.rules]
        return schema

    def read_members(self, value: dict[str, Any]) -> dict[str, Any]:
        """Return what the record's fields are."""
        known = members(self.kind)
        return {key: known[key].shape.read(entry) for key, entry in value.items()}

    def read(self, value: dict[str, Any]) -> Any:
        """Return the record."""
        return self.kind(**self.read_members(value))

    def write(self, value: Any) -> Any:
        """Return the document; what is not stated is left out, so that new members change no digest."""
        if type(value) is not self.kind:
            return value
        return {
            key: told.shape.write(getattr(value, key))
            for key, told in members(self.kind).items()
            if told.required or getattr(value, key) != told.default
        }

    def join(self, one: Any, other: Any) -> Any:
        """Return the record whose every member is as strict as both."""
        return self.kind(
            **{
                key: told.shape.join(getattr(one, key), getattr(other, key))
                for key, told in members(self.kind).items()
            }
        )


@dataclass(frozen=True)
class Whole(Sub):
    """A record that is joined as one, so that no chimera of two events comes out. ``by`` ranks it."""

    by: str = ""

    def join(self, one: Any, other: Any) -> Any:
        """Return the stricter one; among equally strict ones, always the same."""
        words = members(self.kind)[self.by].shape.words  # type: ignore[attr-defined]
        return max(one, other, key=lambda r: (words.index(getattr(r, self.by)), canonical(self.write(r))))
