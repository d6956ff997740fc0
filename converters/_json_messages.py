"""Messages that are JSON objects.

Field notes (https://mcap.dev/spec/registry, ``json``). A schema is optional and binds nobody, so leaves are
what the messages hold: numbers, truth values and texts at the same path are leaves of their own, called
``path@text`` and so on after the first. ``null`` and what is absent have no value. ``{sec, nsec}`` is a time,
``{x, y, z}`` a vector. All numbers of a leaf are int64 if they all are whole, else float64. A text is bytes
if the schema says ``contentEncoding: base64``, as Foxglove's do (github.com/foxglove/foxglove-sdk:
schemas/jsonschema/CompressedImage.json).
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator, Mapping
from typing import Any, Literal

import numpy as np

from ..schemas import Array
from ._messages import MAX_DEPTH, MAX_LEAVES, Counts, Gathered, Leaf, UndecodableError, Values, is_vector

_MAX_MESSAGE = 1 << 24
_MAX_SCHEMA = 1 << 20
_EXACT = 1 << 53
_LONG = 1 << 63
_NANOSECONDS = 1_000_000_000


class JsonDecoder:
    """Decodes the messages of one topic.

    Parameters
    ----------
    schema
        Its JSON Schema, if there is one: it tells which texts are bytes.
    """

    spare = 0

    def __init__(self, schema: bytes = b"") -> None:
        self._encoded = frozenset(_encoded(_schema(schema), "", 0))
        self._leaves: dict[str, Leaf] = {}
        self._named: dict[tuple[str, str], str] = {}

    @property
    def leaves(self) -> Mapping[str, Leaf]:
        """The leaves met so far, by path."""
        return self._leaves

    def batch(self, data: bytes, starts: Counts, sizes: Counts) -> Mapping[str, Values]:
        """Return what the messages at ``starts`` in ``data`` hold."""
        gathered = Gathered()
        for start, size in zip(starts.tolist(), sizes.tolist(), strict=True):
            self._visit(_parsed(data[start : start + size]), "", (), gathered, 0)
            gathered.end()
        return gathered.values(self._leaves)

    def reach(self, data: bytes, start: int, size: int) -> int:  # noqa: ARG002 # of any message, everything
        """Return how many bytes of a message `batch` looks at: all."""
        return size

    def pick(self, payload: bytes, path: str) -> Array | list[str]:
        """Return the values of one leaf of one message."""
        gathered = Gathered()
        self._visit(_parsed(payload), "", (), gathered, 0)
        values, leaf = gathered.of(path), self._leaves[path]
        if values and isinstance(values[0], bytes):
            return np.frombuffer(b"".join(values), np.uint8)
        return values if leaf.kind == "text" else np.array(values, leaf.dtype)

    def _visit(
        self, value: Any, path: str, shape: tuple[int, ...] | None, gathered: Gathered, many: int
    ) -> None:
        if path.count(".") + many > MAX_DEPTH:
            raise UndecodableError("it is nested too deep")
        if isinstance(value, dict):
            self._object(value, path, shape, gathered, many)
        elif isinstance(value, list):
            deeper = any(isinstance(item, list | dict) for item in value)
            for item in value:
                self._visit(item, f"{path}[]" if deeper else path, None, gathered, many + 1)
        elif isinstance(value, str) and path in self._encoded:
            self._put(path, "bytes", "uint8", None, gathered, [_decoded(value, path)], nested=many > 1)
        elif value is not None:
            kind, dtype = _kind(value)
            value = str(value) if kind == "text" else value
            self._put(path, kind, dtype, shape, gathered, [value], nested=many > 1)

    def _object(
        self, value: dict[str, Any], path: str, shape: tuple[int, ...] | None, gathered: Gathered, many: int
    ) -> None:
        second = next((name for name in ("nsec", "nanosec") if name in value), "")
        if len(value) == 2 and second and all(type(value.get(name)) is int for name in ("sec", second)):
            stamp = value["sec"] * _NANOSECONDS + value[second]
            if abs(stamp) < _LONG:
                self._put(path, "time", "int64", shape, gathered, [stamp], nested=many > 1)
                return
        numbers = all(_kind(part)[0] == "number" for part in value.values())
        if path and numbers and is_vector(sorted(value)):
            axes = tuple(name for name in "xyzw" if name in value)
            whole = None if shape is None else (*shape, len(axes))
            parts = [float(value[name]) for name in axes]
            self._put(path, "vector", "float64", whole, gathered, parts, axes, nested=many > 1)
            return
        for name, inner in value.items():
            self._visit(inner, f"{path}.{name}" if path else name, shape, gathered, many)

    def _put(
        self, path: str, kind: str, dtype: str, shape: tuple[int, ...] | None, gathered: Gathered,
        values: list[Any], axes: tuple[str, ...] = (), *, nested: bool,
    ) -> None:  # fmt: skip
        path = path or "value"
        known = self._named.get((path, kind))
        if known is None:
            if len(self._leaves) >= MAX_LEAVES:
                raise UndecodableError(f"the topic has more than {MAX_LEAVES:,} leaves")
            known = f"{path}@{kind}" if path in self._leaves else path
            self._named[path, kind] = known
            form: Literal["number", "time", "text"] = "number"
            if kind in {"time", "text"}:
                form = "time" if kind == "time" else "text"
            unit = "ns" if form == "time" else "unknown"
            self._leaves[known] = Leaf(known, form, dtype, shape, axes, unit, nested)
        leaf = self._leaves[known]
        wider = dtype == "float64" and leaf.dtype == "int64" and kind == "number"
        if wider or (shape is None and leaf.shape is not None) or (nested and not leaf.nested):
            kept = "float64" if wider else leaf.dtype
            form = leaf.kind
            many = None if shape is None else leaf.shape
            self._leaves[known] = Leaf(known, form, kept, many, leaf.axes, leaf.unit, nested or leaf.nested)
        gathered.of(known).extend(values)


def _kind(value: Any) -> tuple[str, str]:
    """Return the kind of a plain value, and the NumPy name of its type."""
    if isinstance(value, bool):
        return "bool", "bool"
    if isinstance(value, float):
        return "number", "float64"
    if isinstance(value, int) and abs(value) <= _EXACT:
        return "number", "int64"
    if isinstance(value, int) and -_LONG <= value < _LONG:
        return "int", "int64"
    return "text", ""


def _schema(raw: bytes) -> Any:
    try:
        return json.loads(raw) if len(raw) <= _MAX_SCHEMA else None
    except (ValueError, RecursionError):
        return None


def _encoded(schema: Any, path: str, depth: int) -> Iterator[str]:
    """Yield the paths of texts that are bytes in base64."""
    if not isinstance(schema, dict) or depth > MAX_DEPTH:
        return
    if schema.get("contentEncoding") == "base64":
        yield path
    properties = schema.get("properties")
    for name, inner in properties.items() if isinstance(properties, dict) else ():
        yield from _encoded(inner, f"{path}.{name}" if path else name, depth + 1)


def _decoded(value: str, path: str) -> bytes:
    try:
        return base64.b64decode(value, validate=True)
    except ValueError as error:
        raise UndecodableError(f"its {path} is no base64: {error}") from error


def _parsed(payload: bytes) -> Any:
    if len(payload) > _MAX_MESSAGE:
        raise UndecodableError(f"it has {len(payload):,} bytes; at most {_MAX_MESSAGE:,} are read")
    try:
        return json.loads(payload)
    except (ValueError, RecursionError) as error:
        raise UndecodableError(f"it is no JSON: {error}") from error
