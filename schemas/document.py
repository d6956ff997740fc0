"""Headers as JSON documents, and the JSON Schema of them, both told by the data classes alone.

The annotations of the data classes are the single description: `to_document` and `from_document` walk
them, `json_schema` prints them. So the validator and the published schema cannot disagree.
"""

from __future__ import annotations

import dataclasses
import json
import math
import re
import types
import typing
from collections.abc import Callable, Mapping
from functools import cache, partial
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin

from .episode import Bound, Episode
from .errors import Problem, SchemaError
from .rights import RIGHTS_SCHEMA, Rights, rights_problems

SCHEMA_VERSION = 1
T = TypeVar("T")
_MAX_DEPTH = 64


def strict_json(raw: bytes | str) -> Any:
    """Parse JSON, but for what readers disagree on (RFC 8259).

    Refused are doubled keys, numbers that are none, halves of surrogate pairs, and nesting deeper than 64.

    Raises
    ------
    ValueError
        With the reason.
    """
    try:
        document = json.loads(raw, object_pairs_hook=_pairs, parse_constant=_no_number, parse_float=_finite)
    except RecursionError as error:
        raise ValueError("nested too deep") from error
    _check_depth(document)
    text = raw if isinstance(raw, str) else raw.decode(json.detect_encoding(raw))
    if _SURROGATE.search(text):
        json.dumps(document, ensure_ascii=False).encode()  # UnicodeEncodeError is a ValueError
    return document


_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]|[\ud800-\udfff]")


def _pairs(items: list[tuple[str, Any]]) -> dict[str, Any]:
    document = dict(items)
    if len(document) != len(items):
        raise ValueError("a key occurs twice in one object")
    return document


def _no_number(word: str) -> float:
    raise ValueError(f"{word} is not JSON")


def _finite(word: str) -> float:
    number = float(word)
    if not math.isfinite(number):
        raise ValueError(f"{word[:40]} is too large a number")
    return number


def _check_depth(document: Any) -> None:
    level, depth = [document], 0
    while level := [
        child
        for value in level
        if isinstance(value, dict | list)
        for child in (value.values() if isinstance(value, dict) else value)
    ]:
        depth += 1
        if depth > _MAX_DEPTH:
            raise ValueError("nested too deep")


@cache
def _members(cls: Any) -> dict[str, tuple[Any, bool]]:
    """Tell the members of a data class that a document has: name -> (annotation, required)."""
    hints = typing.get_type_hints(cls, include_extras=True)
    missing = dataclasses.MISSING
    return {
        f.name: (hints[f.name], f.default is missing and f.default_factory is missing)
        for f in dataclasses.fields(cls)
        if f.metadata.get("document", True)
    }


_LEAVES = frozenset({str, int, float, bool, types.NoneType})


def _plain(value: Any) -> Any:
    kind: Any = type(value)
    return value if kind in _LEAVES else _plainer(kind)(value)


@cache
def _plainer(kind: type) -> Callable[[Any], Any]:
    """Return what makes values of a type plain; looked up once, since a header has hundreds of them."""
    if issubclass(kind, Rights):
        return Rights.to_document
    if dataclasses.is_dataclass(kind):
        names = tuple(_members(kind))
        return lambda value: {name: _plain(getattr(value, name)) for name in names}
    if issubclass(kind, Mapping):
        return lambda value: {str(key): _plain(member) for key, member in value.items()}
    if issubclass(kind, tuple | list):
        return lambda value: [_plain(member) for member in value]
    return lambda value: value


def to_document(value: object) -> dict[str, Any]:
    """Return the JSON document of an episode's header, or of any other data class of the schema."""
    document: dict[str, Any] = _plain(value)
    if isinstance(value, Episode):
        document = {"schema": SCHEMA_VERSION, **document, **_plain(value.unknown)}
    return document


def from_document(cls: type[T], document: object) -> T:
    """Return the data class that a document tells of; streams and clocks are headers only.

    Raises
    ------
    SchemaError
        With every problem of the document and its place.
    """
    problems: list[Problem] = []
    unknown: dict[str, Any] = {}
    if cls is Episode and isinstance(document, Mapping):
        document = dict(document)
        version = document.pop("schema", None)
        if version != SCHEMA_VERSION or isinstance(version, bool):
            problems.append(Problem("schema", f"is {version!r}; this reads version {SCHEMA_VERSION}"))
        unknown = {key: document.pop(key) for key in list(document) if key not in _members(Episode)}
    kind: Any = cls
    value = _parser(kind)(document, (), problems)
    if problems:
        raise SchemaError(problems)
    return dataclasses.replace(value, unknown=unknown) if unknown else value  # type: ignore[no-any-return]


def member_parser(cls: type, name: str) -> Callable[[object], Any]:
    """Return what makes one member of a data class of its value in a document, as `from_document` does.

    It raises `SchemaError` with every problem of the value.
    """
    parser = _parser(_members(cls)[name][0])

    def parse(value: object) -> Any:
        problems: list[Problem] = []
        parsed = parser(value, ((), name), problems)
        if problems:
            raise SchemaError(problems)
        return parsed

    return parse


_Where = tuple[Any, ...]
"""Place of a value, ``(place of what it is in, key)``: put into words only where something is wrong."""
_Parser = Callable[[Any, _Where, list[Problem]], Any]
"""Returns a value as an annotation wants it, or adds to the problems and returns None."""


def _dotted(where: _Where) -> str:
    keys: list[str] = []
    while where:
        where, key = where
        keys.append(str(key))
    return ".".join(reversed(keys))


@cache
def _pattern(pattern: str) -> re.Pattern[str]:
    """Return a bound's pattern. Its ``$`` stands for the end, where Python's also allows a newline."""
    return re.compile(pattern.removesuffix("$") + r"\Z")


@cache
def _parser(kind: Any) -> _Parser:  # noqa: PLR0911
    """Return the parser of an annotation; made once, since a store has many headers."""
    origin, arguments = get_origin(kind), get_args(kind)
    if kind is Any:
        return _parse_json
    if origin is Annotated:
        return partial(_parse_bounded, _sound(*arguments), _parser(arguments[0]), arguments[1])
    if origin in {Union, types.UnionType}:
        return partial(_parse_optional, _parser(next(a for a in arguments if a is not types.NoneType)))
    if origin is Literal:
        return partial(_parse_literal, arguments)
    if origin is tuple:
        return partial(_parse_list, _parser(arguments[0]))
    if origin is not None and issubclass(origin, Mapping):
        return partial(_parse_mapping, _parser(arguments[0]), _parser(arguments[1]))
    if kind is Rights:
        return _parse_rights
    if dataclasses.is_dataclass(kind):
        cls: Any = kind
        members = {name: (_parser(inner), required) for name, (inner, required) in _members(cls).items()}
        return partial(_parse_members, cls, members)
    return _parse_text if kind is str else partial(_parse_scalar, kind)


def _sound(kind: Any, bound: Bound) -> Callable[[Any], bool]:
    """Return what tells at once that nothing is wrong with a value; if it does not, each check is made."""
    if kind is str:
        fits = _pattern(bound.pattern).search
        least, most = bound.min_length or 0, math.inf if bound.max_length is None else bound.max_length
        return lambda value: (
            type(value) is str
            and value.isascii()
            and least <= len(value) <= most
            and (not bound.pattern or fits(value) is not None)
        )
    if kind is int and bound.minimum is not None:
        minimum = bound.minimum
        return lambda value: type(value) is int and value >= minimum
    return lambda _: False


def _parse_bounded(
    sound: Callable[[Any], bool],
    parser: _Parser,
    bound: Bound,
    value: Any,
    where: _Where,
    problems: list[Problem],
) -> Any:
    if sound(value):
        return value
    parsed = parser(value, where, problems)
    if parsed is not None:
        _check_bound(bound, parsed, where, problems)
    return parsed


def _parse_optional(parser: _Parser, value: Any, where: _Where, problems: list[Problem]) -> Any:
    return None if value is None else parser(value, where, problems)


def _parse_literal(words: tuple[Any, ...], value: Any, where: _Where, problems: list[Problem]) -> Any:
    if value in words:
        return value
    return _wrong(problems, where, f"is {value!r}; must be one of {', '.join(map(str, words))}", "value")


def _parse_list(parser: _Parser, value: Any, where: _Where, problems: list[Problem]) -> Any:
    if not isinstance(value, list | tuple):
        return _wrong(problems, where, "must be a list")
    return tuple([parser(v, (where, i), problems) for i, v in enumerate(value)])


def _parse_mapping(
    keys: _Parser, members: _Parser, value: Any, where: _Where, problems: list[Problem]
) -> Any:
    if not isinstance(value, Mapping) or not all(isinstance(key, str) for key in value):
        return _wrong(problems, where, "must be an object")
    for key in value:
        keys(key, (where, key), problems)
    return {k: members(v, (where, k), problems) for k, v in value.items()}


def _parse_rights(value: Any, where: _Where, problems: list[Problem]) -> Any:
    found = rights_problems(value)
    problems += [Problem(f"{_dotted(where)}.{p.where}", p.message, p.kind) for p in found]
    return None if found else Rights.from_document(value)


def _parse_members(
    cls: Any,
    members: Mapping[str, tuple[_Parser, bool]],
    value: Any,
    where: _Where,
    problems: list[Problem],
) -> Any:
    if not isinstance(value, Mapping):
        return _wrong(problems, where, "must be an object")
    before = len(problems)
    for name in value:
        if name not in members:
            _wrong(problems, (where, name), "is not a member known here", "unknown")
    arguments = {}
    for name, (parser, required) in members.items():
        if name in value:
            arguments[name] = parser(value[name], (where, name), problems)
        elif required:
            _wrong(problems, (where, name), "is missing", "missing")
    return cls(**arguments) if len(problems) == before else None


_HALF = re.compile(r"[\ud800-\udfff]")


def _parse_text(value: Any, where: _Where, problems: list[Problem]) -> Any:
    if not isinstance(value, str):
        return _wrong(problems, where, f"must be str, not {type(value).__name__}")
    if not value.isascii() and _HALF.search(value):
        return _wrong(problems, where, "holds half of a surrogate pair", "value")
    return value


def _parse_scalar(kind: type, value: Any, where: _Where, problems: list[Problem]) -> Any:
    if kind is float and isinstance(value, int | float) and not isinstance(value, bool):
        if isinstance(value, int) or math.isfinite(value):
            return value
        return _wrong(problems, where, "must be finite", "value")
    if kind is int and isinstance(value, float) and value.is_integer():
        return int(value)  # JSON does not tell 1.0 from 1
    if isinstance(value, kind) and not (kind is int and isinstance(value, bool)):
        return value
    return _wrong(problems, where, f"must be {kind.__name__}, not {type(value).__name__}")


def _parse_json(value: Any, where: _Where, problems: list[Problem], depth: int = 0) -> Any:
    if depth > _MAX_DEPTH:
        return _wrong(problems, where, "is nested too deep", "value")
    if isinstance(value, Mapping) and all(isinstance(key, str) for key in value):
        return {k: _parse_json(v, (where, k), problems, depth + 1) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_parse_json(v, (where, i), problems, depth + 1) for i, v in enumerate(value)]
    if value is None or isinstance(value, bool | int):
        return value
    if isinstance(value, float) and math.isfinite(value):
        return value
    if isinstance(value, str):
        return _parse_text(value, where, problems)
    return _wrong(problems, where, f"{type(value).__name__} {str(value)[:40]} is not JSON")


def _wrong(problems: list[Problem], where: _Where, message: str, kind: str = "type") -> None:
    problems.append(Problem(_dotted(where), message, kind))


def _check_bound(bound: Bound, value: Any, where: _Where, problems: list[Problem]) -> None:
    if bound.pattern and not _pattern(bound.pattern).search(value):
        _wrong(problems, where, f"{value[:80]!r} does not match {bound.pattern}", "value")
    if bound.max_length is not None and len(value) > bound.max_length:
        _wrong(problems, where, f"is longer than {bound.max_length} characters", "value")
    if bound.min_length is not None and len(value) < bound.min_length:
        _wrong(problems, where, "is empty", "value")
    if bound.minimum is not None and value < bound.minimum:
        _wrong(problems, where, f"is {value}; must be at least {bound.minimum}", "value")


def json_schema(cls: type = Episode) -> dict[str, Any]:
    """Return the JSON Schema (2020-12) of the documents that `from_document` accepts for ``cls``."""
    definitions: dict[str, Any] = {}
    top = _object_schema(cls, definitions)
    if cls is Episode:
        top["properties"]["schema"] = {"const": SCHEMA_VERSION}
        top["required"].insert(0, "schema")
        top["additionalProperties"] = True
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": cls.__name__,
        **top,
        "$defs": dict(sorted(definitions.items())),
    }


def _object_schema(cls: Any, definitions: dict[str, Any]) -> dict[str, Any]:
    members = _members(cls)
    return {
        "type": "object",
        "properties": {name: _schema_of(kind, definitions) for name, (kind, _) in members.items()},
        "required": [name for name, (_, required) in members.items() if required],
        "additionalProperties": False,
    }


_SCALARS: dict[Any, dict[str, Any]] = {
    str: {"type": "string"},
    int: {"type": "integer"},
    float: {"type": "number"},
    bool: {"type": "boolean"},
    Any: {},
}


def _schema_of(kind: Any, definitions: dict[str, Any]) -> dict[str, Any]:
    origin, arguments = get_origin(kind), get_args(kind)
    if kind in _SCALARS:
        return dict(_SCALARS[kind])
    if origin is Annotated:
        bound: Bound = arguments[1]
        limits = {
            "pattern": bound.pattern or None,
            "minimum": bound.minimum,
            "maxLength": bound.max_length,
            "minLength": bound.min_length,
        }
        return _schema_of(arguments[0], definitions) | {k: v for k, v in limits.items() if v is not None}
    if origin in {Union, types.UnionType}:
        return {
            "anyOf": [_schema_of(a, definitions) for a in arguments if a is not types.NoneType]
            + [{"type": "null"}]
        }
    if origin is Literal:
        return {"enum": list(arguments)}
    if origin is tuple:
        return {"type": "array", "items": _schema_of(arguments[0], definitions)}
    if origin is not None and issubclass(origin, Mapping):
        names = _schema_of(arguments[0], definitions)
        return {
            "type": "object",
            "propertyNames": names,
            "additionalProperties": _schema_of(arguments[1], definitions),
        }
    if kind is Rights:
        definitions["Rights"] = {k: v for k, v in RIGHTS_SCHEMA.items() if k != "$schema"}
        return {"$ref": "#/$defs/Rights"}
    if kind.__name__ not in definitions:
        definitions[kind.__name__] = {}
        definitions[kind.__name__] = _object_schema(kind, definitions)
    return {"$ref": f"#/$defs/{kind.__name__}"}
