"""Message definitions of ROS as text, made into trees of types.

Field notes. A recording carries, with each type, the text of its definition and of all that it refers to, one
after the other between lines of ``=`` (ROS 1: gendeps --cat, github.com/ros/ros: roslib/gentools; ROS 2 in
MCAP: https://mcap.dev/spec/registry, ``ros2msg``). ``MSG: package/Type`` names each but the first. A type
without a package belongs to the package of the type it is used in, and ``Header`` to ``std_msgs``
(github.com/ros/genmsg: src/genmsg/msg_loader.py). ``byte`` and ``char`` of ROS 1 are int8 and uint8, those
of ROS 2 uint8 both (http://wiki.ros.org/msg; github.com/ros2/rosidl: rosidl_adapter/parser.py).

Bags of ROS 2 from before Iron have no definitions. For those the published ones are taken, as the library
`rosbags` lists them by distribution. The text is data here: nothing is executed or imported for it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from ._messages import MAX_DEPTH, MAX_LEAVES, plain_type
from .base import Format, need

_MAX_TEXT = 1 << 20
_MAX_TYPES = 1_000
_MAX_FIXED = 1 << 31


class DefinitionError(ValueError):
    """A message definition cannot be understood."""


@dataclass(frozen=True, slots=True)
class Scalar:
    """A plain value.

    Attributes
    ----------
    kind
        A number or ``bool`` as NumPy calls it, ``string``, ``wstring``, or a pair of seconds and
        nanoseconds as ``time_<type of the first>_<type of the second>``.
    """

    kind: str


@dataclass(frozen=True, slots=True)
class Many:
    """An array of items: of a fixed length, or with its length in front (None)."""

    item: Node
    length: int | None


@dataclass(frozen=True, slots=True)
class Struct:
    """A message."""

    name: str
    fields: tuple[tuple[str, Node], ...]


Node = Scalar | Many | Struct


@dataclass(frozen=True, slots=True)
class RawField:
    """A field as its definition has it: lengths of -1 stand for an array of any length."""

    name: str
    type: str
    lengths: tuple[int, ...] = ()


Raw = Mapping[str, Sequence[RawField]]

_NUMBERS = {f"{kind}{bits}": f"{kind}{bits}" for kind in ("int", "uint") for bits in (8, 16, 32, 64)}
_NUMBERS |= {"float32": "float32", "float64": "float64", "bool": "bool"}
_PLAIN = {
    "ros1": _NUMBERS | {"byte": "int8", "char": "uint8", "string": "string"}
    | {"time": "time_u4_u4", "duration": "time_i4_i4"},
    "ros2": _NUMBERS | {"byte": "uint8", "char": "uint8", "string": "string", "wstring": "wstring"},
}  # fmt: skip
_STAMPS = {"builtin_interfaces/Time", "builtin_interfaces/Duration"}
_RULE = re.compile(r"^={3,}\s*$", re.MULTILINE)
_FIELD = re.compile(
    r"(?P<type>[A-Za-z][A-Za-z0-9_/]*)(?:<=\d+)?(?:\[(?P<bound><=)?(?P<length>\d*)\])?\s+"
    r"(?P<name>[A-Za-z][A-Za-z0-9_]*)\s*(?P<constant>=)?"
)


def parse_text(text: str, root: str) -> dict[str, list[RawField]]:
    """Return the types of a definition in the ``.msg`` language; ``root`` names the first."""
    if len(text) > _MAX_TEXT:
        raise DefinitionError(f"its definition has {len(text):,} characters")
    found: dict[str, list[RawField]] = {}
    for number, section in enumerate(_RULE.split(text)):
        name, body = root, section
        if number:
            head, _, body = section.strip().partition("\n")
            if not head.startswith("MSG:"):
                raise DefinitionError(f"its definition has {head[:40]!r} where 'MSG: type' is due")
            name = head.removeprefix("MSG:").strip()
        found.setdefault(plain_type(name), [f for line in body.splitlines() for f in _fields(line)])
    return found


def _fields(line: str) -> list[RawField]:
    line = line.strip()
    if not line or line.startswith("#"):
        return []
    match = _FIELD.match(line)
    if match is None:
        raise DefinitionError(f"its definition has the line {line[:60]!r}")
    if match["constant"]:
        return []
    length = match["length"]
    lengths = () if length is None else (int(length) if length and not match["bound"] else -1,)
    return [RawField(match["name"], match["type"], lengths)]


def tree_of(raw: Raw, root: str, dialect: str) -> Struct:
    """Return the tree of a type, with all that it refers to.

    Parameters
    ----------
    dialect
        ``ros1`` or ``ros2``.

    Raises
    ------
    DefinitionError
        If a type is missing, contains itself, or has more than 2,000 leaves.
    """
    if len(raw) > _MAX_TYPES:
        raise DefinitionError(f"its definition has {len(raw):,} types")
    known = {plain_type(name): fields for name, fields in raw.items()}
    builder = _Builder(known, dialect)
    struct = builder.struct(plain_type(root), ())
    if builder.leaves[struct.name] > MAX_LEAVES:
        raise DefinitionError(f"its definition has {builder.leaves[struct.name]:,} leaves")
    return struct


class _Builder:
    def __init__(self, raw: Raw, dialect: str) -> None:
        self._raw, self._dialect = raw, dialect
        self._done: dict[str, Struct] = {}
        self.leaves: dict[str, int] = {}

    def struct(self, name: str, above: tuple[str, ...]) -> Struct:
        if name in above or len(above) > MAX_DEPTH:
            raise DefinitionError(f"the type {name} contains itself, or lies too deep")
        if name not in self._done:
            fields = [(f.name, self._node(f, (*above, name))) for f in self._raw[name]]
            if not fields and self._dialect == "ros2":
                # github.com/ros2/rosidl: rosidl_parser/definition.py, EMPTY_STRUCTURE_REQUIRED_MEMBER_NAME
                fields = [("structure_needs_at_least_one_member", Scalar("uint8"))]
            if len({name for name, _ in fields}) != len(fields):
                raise DefinitionError(f"the type {name} has two fields of one name")
            self._done[name] = Struct(name, tuple(fields))
            self.leaves[name] = sum(self._leaves(node) for _, node in fields)
        return self._done[name]

    def _leaves(self, node: Node) -> int:
        while isinstance(node, Many):
            node = node.item
        return self.leaves[node.name] if isinstance(node, Struct) else 1

    def _node(self, field: RawField, above: tuple[str, ...]) -> Node:
        node = self._type(field.type, above)
        for length in reversed(field.lengths):
            if length > _MAX_FIXED:
                raise DefinitionError(f"the field {field.name} is an array of {length:,}")
            node = Many(node, None if length < 0 else length)
        return node

    def _type(self, name: str, above: tuple[str, ...]) -> Node:
        kind = _PLAIN[self._dialect].get(name)
        if kind is not None:
            return Scalar(kind)
        full = self._full(plain_type(name), above[-1])
        if full in _STAMPS:
            return Scalar("time_i4_u4")
        return self.struct(full, above)

    def _full(self, name: str, owner: str) -> str:
        if name in _STAMPS or name in self._raw:
            return name
        package = owner.rpartition("/")[0]
        choices = [f"{package}/{name}"]
        if name == "Header":
            choices.insert(0, "std_msgs/Header")
        if "/" not in name:
            choices += [other for other in self._raw if other.endswith(f"/{name}")]
        for choice in choices:
            if choice in self._raw or choice in _STAMPS:
                return choice
        raise DefinitionError(f"its definition lacks the type {name}")


_DISTRIBUTIONS = ("dashing", "eloquent", "foxy", "galactic", "humble", "iron", "jazzy", "kilted", "lyrical")
_UNNAMED = "humble"


@cache
def published(distribution: str, of: Format) -> Raw:
    """Return the types that a distribution of ROS 2 published; those of Humble if it is not known.

    The list is the library `rosbags`': plain data, by the names in ``rosbags.typesys.stores``.
    """
    name = distribution if distribution in _DISTRIBUTIONS else _UNNAMED
    listed = need(f"rosbags.typesys.stores.ros2_{name}", of=of).FIELDDEFS
    return {
        plain_type(type_): [_published(*field) for field in fields] for type_, (_, fields) in listed.items()
    }


def _published(name: str, node: tuple[Any, Any]) -> RawField:
    kind, told = node
    if kind.name == "BASE":
        return RawField(name, told[0])
    if kind.name == "NAME":
        return RawField(name, told)
    inner = _published(name, told[0])
    return RawField(name, inner.type, (told[1] if kind.name == "ARRAY" else -1, *inner.lengths))
