"""Messages of Protocol Buffers whose types the recording describes itself.

Field notes (https://mcap.dev/spec/registry, ``protobuf``). The schema is a FileDescriptorSet, the name of the
type that of a message in it. Which fields there are is known from there; the library of Protocol Buffers
takes messages apart, in a pool of types of this recording alone. ``Timestamp`` and ``Duration`` are
nanoseconds here. A field that is absent and can tell so has no value; others have their default.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from ..schemas import Array
from ._messages import (
    MAX_DEPTH,
    MAX_LEAVES,
    Counts,
    Gathered,
    Leaf,
    UndecodableError,
    Values,
    is_vector,
    unit_of,
)
from ._ros_definitions import DefinitionError
from .base import Format, need

_MAX_SCHEMA = 1 << 22
_MAX_MESSAGE = 1 << 26
_STAMPS = {"google.protobuf.Timestamp", "google.protobuf.Duration"}
_NANOSECONDS = 1_000_000_000

# google/protobuf/descriptor.proto: FieldDescriptor.CppType
_DTYPES = {
    1: "int32",
    2: "int64",
    3: "uint32",
    4: "uint64",
    5: "float64",
    6: "float32",
    7: "bool",
    8: "int32",
}
_TYPE_BYTES = 12
_CPP_STRING, _CPP_MESSAGE = 9, 10


@dataclass(frozen=True, slots=True)
class _Step:
    """What to do with one field."""

    name: str
    kind: Literal["value", "vector", "stamp", "message"]
    many: bool
    optional: bool
    leaf: str = ""
    parts: tuple[str, ...] = ()
    inner: tuple[_Step, ...] = ()


class ProtobufDecoder:
    """Decodes the messages of one type.

    Parameters
    ----------
    schema, root
        A FileDescriptorSet, and the full name of the type.
    """

    spare = 0

    def __init__(self, schema: bytes, root: str, of: Format) -> None:
        if len(schema) > _MAX_SCHEMA:
            raise DefinitionError(f"its definition has {len(schema):,} bytes")
        descriptor = _descriptor(schema, root, of)
        self._class = need("google.protobuf.message_factory", of=of).GetMessageClass(descriptor)
        self._error: type[Exception] = need("google.protobuf.message", of=of).DecodeError
        self._leaves: dict[str, Leaf] = {}
        self._steps = self._plan(descriptor, "", (), (root,))

    @property
    def leaves(self) -> Mapping[str, Leaf]:
        """The leaves by path."""
        return self._leaves

    def batch(self, data: bytes, starts: Counts, sizes: Counts) -> Mapping[str, Values]:
        """Return what the messages at ``starts`` in ``data`` hold."""
        gathered = Gathered()
        for start, size in zip(starts.tolist(), sizes.tolist(), strict=True):
            _visit(self._steps, self._parsed(data[start : start + size]), gathered)
            gathered.end()
        return gathered.values(self._leaves)

    def reach(self, data: bytes, start: int, size: int) -> int:  # noqa: ARG002 # of any message, everything
        """Return how many bytes of a message `batch` looks at: all."""
        return size

    def pick(self, payload: bytes, path: str) -> Array | list[str]:
        """Return the values of one leaf of one message."""
        gathered = Gathered()
        _visit(self._steps, self._parsed(payload), gathered)
        values, leaf = gathered.of(path), self._leaves[path]
        if leaf.kind == "text":
            return values
        if values and isinstance(values[0], bytes):
            return np.frombuffer(b"".join(values), np.uint8)
        return np.array(values, leaf.dtype)

    def _parsed(self, payload: bytes) -> Any:
        if len(payload) > _MAX_MESSAGE:
            raise UndecodableError(f"it has {len(payload):,} bytes; at most {_MAX_MESSAGE:,} are read")
        try:
            return self._class.FromString(payload)
        except self._error as error:
            raise UndecodableError(f"it is no such message: {error}") from error

    def _plan(
        self, descriptor: Any, path: str, shape: tuple[int, ...] | None, above: tuple[str, ...]
    ) -> tuple[_Step, ...]:
        steps = []
        for field in descriptor.fields:
            if len(self._leaves) > MAX_LEAVES:
                raise DefinitionError(f"its definition has more than {MAX_LEAVES:,} leaves")
            where = f"{path}.{field.name}" if path else field.name
            steps.append(self._step(field, where, shape, above))
        return tuple(steps)

    def _step(self, field: Any, path: str, shape: tuple[int, ...] | None, above: tuple[str, ...]) -> _Step:
        many = bool(field.is_repeated)
        optional = bool(field.has_presence) and not many
        nested = shape is None and many
        shape = None if many else shape
        unit = unit_of(above[-1], field.name)
        if field.cpp_type != _CPP_MESSAGE:
            if field.type == _TYPE_BYTES:
                leaf = Leaf(path, "number", "uint8", None, unit=unit, nested=nested or many or shape is None)
            elif field.cpp_type == _CPP_STRING:
                leaf = Leaf(path, "text", "", shape, nested=nested)
            else:
                leaf = Leaf(path, "number", _DTYPES[field.cpp_type], shape, unit=unit, nested=nested)
            self._leaves[path] = leaf
            return _Step(field.name, "value", many, optional, path)
        inner = field.message_type
        if inner.full_name in _STAMPS:
            self._leaves[path] = Leaf(path, "time", "int64", shape, unit="ns", nested=nested)
            return _Step(field.name, "stamp", many, optional, path)
        names = tuple(part.name for part in inner.fields)
        kinds = {(part.cpp_type, bool(part.is_repeated), bool(part.has_presence)) for part in inner.fields}
        if is_vector(names) and len(kinds) == 1 and (kind := kinds.pop())[0] in _DTYPES and not any(kind[1:]):
            whole = None if shape is None else (*shape, len(names))
            self._leaves[path] = Leaf(path, "number", _DTYPES[kind[0]], whole, names, unit, nested)
            return _Step(field.name, "vector", many, optional, path, names)
        if inner.full_name in above or len(above) > MAX_DEPTH:
            raise DefinitionError(f"its type {inner.full_name} contains itself, or lies too deep")
        steps = self._plan(inner, f"{path}[]" if many else path, shape, (*above, inner.full_name))
        return _Step(field.name, "message", many, optional, inner=steps)


def _descriptor(schema: bytes, root: str, of: Format) -> Any:
    """Return the type ``root`` out of a FileDescriptorSet, in a pool of its own."""
    files = need("google.protobuf.descriptor_pb2", of=of).FileDescriptorSet
    pool = need("google.protobuf.descriptor_pool", of=of).DescriptorPool()
    error = need("google.protobuf.message", of=of).DecodeError
    try:
        left = {file.name: file for file in files.FromString(schema).file}
        while left:
            # A file needs what it depends on first; the set may hold them in any order.
            ready = [file for file in left.values() if not left.keys() & set(file.dependency)]
            if not ready:
                raise DefinitionError("its definition's files depend on each other")
            for file in ready:
                pool.AddSerializedFile(file.SerializeToString())
                del left[file.name]
        return pool.FindMessageTypeByName(root)
    except (error, TypeError, KeyError, UnicodeDecodeError) as problem:
        raise DefinitionError(f"its definition is no sound set of descriptors: {problem}") from problem


def _visit(steps: Sequence[_Step], message: Any, gathered: Gathered) -> None:
    for step in steps:
        if step.optional and not message.HasField(step.name):
            continue
        value = getattr(message, step.name)
        if step.kind == "value" and step.many:
            gathered.of(step.leaf).extend(value)
        elif step.kind == "value":
            gathered.of(step.leaf).append(value)
        elif step.kind == "message":
            for item in value if step.many else (value,):
                _visit(step.inner, item, gathered)
        else:
            target = gathered.of(step.leaf)
            for item in value if step.many else (value,):
                if step.kind == "stamp":
                    target.append(item.seconds * _NANOSECONDS + item.nanos)
                else:
                    target.extend(getattr(item, part) for part in step.parts)
