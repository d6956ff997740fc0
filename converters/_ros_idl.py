"""Message definitions of ROS 2 in IDL.

Field notes. A recording holds, between lines of ``=``, the files that define a type and all that it refers
to, each under ``IDL: package/msg/Type`` (https://mcap.dev/spec/registry, ``ros2idl``). Of the language (OMG
IDL 4.2, chapter 7.4) ROS uses modules, structs, typedefs of arrays, sequences and constants
(github.com/ros2/rosidl: rosidl_parser/grammar.lark). Annotations and constants say nothing on how a message
is laid out. Unions, bit sets, maps and inheritance do not occur there; they are refused by name.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from ._messages import plain_type
from ._ros_definitions import DefinitionError, RawField

_MAX_TEXT = 1 << 20
_RULE = re.compile(r"^={3,}\s*$", re.MULTILINE)
_TOKEN = re.compile(
    r"""\s+|//[^\n]*|/\*.*?\*/|\#[^\n]*"""
    r"""|(?P<string>L?"(?:[^"\\]|\\.)*"|L?'(?:[^'\\]|\\.)*')"""
    r"""|(?P<word>[A-Za-z_][A-Za-z0-9_]*(?:::[A-Za-z_][A-Za-z0-9_]*)*|::[A-Za-z_][A-Za-z0-9_:]*)"""
    r"""|(?P<number>[-+]?[0-9.][0-9A-Za-z.+-]*)|(?P<mark>[-+*/%|&^~{}()\[\]<>;,:=@])""",
    re.DOTALL,
)
_BASE = {
    "float": "float32",
    "double": "float64",
    "boolean": "bool",
    "octet": "uint8",
    "char": "uint8",
    "short": "int16",
    "long": "int32",
    "long long": "int64",
    "unsigned short": "uint16",
    "unsigned long": "uint32",
    "unsigned long long": "uint64",
    "string": "string",
    "wstring": "wstring",
    **{f"{sign}int{bits}": f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)},
}
_REFUSED = {"union", "bitset", "bitmask", "map", "valuetype", "interface", "fixed", "wchar", "any"}


def parse_idl(text: str, root: str) -> dict[str, list[RawField]]:
    """Return the types of a definition in IDL, by their names as ROS writes them.

    Raises
    ------
    DefinitionError
        If it is not of the part of IDL that ROS uses, or lacks the type ``root``.
    """
    if len(text) > _MAX_TEXT:
        raise DefinitionError(f"its definition has {len(text):,} characters")
    parser = _Parser()
    for section in _RULE.split(text):
        body = re.sub(r"\A\s*IDL:[^\n]*", "", section)
        parser.read(body)
    if plain_type(root) not in parser.types:
        raise DefinitionError(f"its definition lacks the type {root}")
    return {name: [parser.resolved(name, field) for field in fields] for name, fields in parser.types.items()}


class _Parser:
    def __init__(self) -> None:
        self.types: dict[str, list[RawField]] = {}
        self._typedefs: dict[str, RawField] = {}
        self._constants: dict[str, int] = {}
        self._tokens: list[str] = []
        self._at = 0

    def read(self, text: str) -> None:
        self._tokens, self._at = list(_tokens(text)), 0
        scope: list[str] = []
        while self._at < len(self._tokens):
            word = self._next()
            if word == "module":
                scope.append(self._next())
                self._expect("{")
            elif word == "}":
                if not scope:
                    raise DefinitionError("its definition closes a module that was not opened")
                scope.pop()
            elif word == "struct":
                self._struct(scope)
            elif word == "typedef":
                for field in self._members(scope):
                    self._typedefs[_joined([*scope, field.name])] = field
            elif word == "enum":
                self._typedefs[_joined([*scope, self._next()])] = RawField("", "uint32")
                self._skip("{", "}")
            elif word == "const":
                self._constant(scope)
            elif word == "@":
                self._annotation()
            elif word != ";":
                raise DefinitionError(f"its definition has {word!r}, which is not read")

    def _next(self) -> str:
        if self._at >= len(self._tokens):
            raise DefinitionError("its definition ends too early")
        self._at += 1
        return self._tokens[self._at - 1]

    def _peek(self) -> str:
        return self._tokens[self._at] if self._at < len(self._tokens) else ""

    def _expect(self, mark: str) -> None:
        found = self._next()
        if found != mark:
            raise DefinitionError(f"its definition has {found!r} where {mark!r} is due")

    def _skip(self, first: str, last: str) -> None:
        self._expect(first)
        depth = 1
        while depth:
            word = self._next()
            depth += (word == first) - (word == last)

    def _annotation(self) -> None:
        self._next()
        if self._peek() == "(":
            self._skip("(", ")")

    def _constant(self, scope: list[str]) -> None:
        words = []
        while (word := self._next()) != ";":
            words.append(word)
        if "=" in words[1:-1] and words[-1].isdecimal():
            self._constants[_joined([*scope, words[words.index("=") - 1]])] = int(words[-1])

    def _struct(self, scope: list[str]) -> None:
        name = self._next()
        self._expect("{")
        fields: list[RawField] = []
        while self._peek() != "}":
            if self._peek() == "@":
                self._next()
                self._annotation()
                continue
            fields += self._members(scope)
        self._next()
        self.types[plain_type(_joined([*scope, name]))] = fields

    def _members(self, scope: list[str]) -> list[RawField]:
        """Read ``type name[3], other;``."""
        type_, lengths = self._type(scope)
        fields = []
        while True:
            name, own = self._next(), list[int]()
            while self._peek() == "[":
                self._next()
                own.append(self._length(scope))
                self._expect("]")
            fields.append(RawField(name, type_, (*own, *lengths)))
            mark = self._next()
            if mark == ";":
                return fields
            if mark != ",":
                raise DefinitionError(f"its definition has {mark!r} behind the field {name}")

    def _type(self, scope: list[str]) -> tuple[str, tuple[int, ...]]:
        word = self._next()
        if word in _REFUSED:
            raise DefinitionError(f"its definition uses {word!r}, which is not read")
        if word == "sequence":
            self._expect("<")
            inner, lengths = self._type(scope)
            if self._peek() == ",":
                self._skip_bound()
            self._expect(">")
            return inner, (-1, *lengths)
        while word in {"unsigned", "long", "unsigned long"} and self._peek() in {"long", "short", "double"}:
            word = f"{word} {self._next()}"
        if word == "long double":
            raise DefinitionError("its definition uses 'long double', which is not read")
        if word in {"string", "wstring"} and self._peek() == "<":
            self._skip("<", ">")
        return _BASE.get(word, self._scoped(word, scope)), ()

    def _skip_bound(self) -> None:
        self._next()
        self._next()

    def _scoped(self, word: str, scope: list[str]) -> str:
        # Names of ROS are whole, save for typedefs of the module that they stand in.
        name = word.removeprefix("::")
        return _joined([*scope, name]) if "::" not in name else name.replace("::", "/")

    def _length(self, scope: list[str]) -> int:
        word = self._next()
        length = int(word) if word.isdecimal() else self._constants.get(self._scoped(word, scope), -1)
        if length < 0:
            raise DefinitionError(f"its definition has an array of {word!r} items")
        return length

    def resolved(self, owner: str, field: RawField, depth: int = 0) -> RawField:
        """Return a field with typedefs replaced by what they stand for."""
        known = self._typedefs.get(field.type)
        if known is None:
            return RawField(field.name, field.type, field.lengths)
        if depth > 16:
            raise DefinitionError(f"its definition of {owner} has typedefs that name each other")
        inner = self.resolved(owner, known, depth + 1)
        return RawField(field.name, inner.type, (*field.lengths, *inner.lengths))


def _joined(parts: list[str]) -> str:
    return "/".join("/".join(part.split("::")) for part in parts)


def _tokens(text: str) -> Iterator[str]:
    at = 0
    while at < len(text):
        match = _TOKEN.match(text, at)
        if match is None:
            raise DefinitionError(f"its definition has {text[at : at + 20]!r}")
        at = match.end()
        if match.lastgroup:
            yield match[0]
