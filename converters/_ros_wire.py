"""Messages of ROS as bytes: CDR, as ROS 2 sends them, and the serialisation of ROS 1.

Field notes. Both write the fields of a message one after the other; arrays without a fixed length and texts
have a uint32 length in front. ROS 1 is little endian and packed (http://wiki.ros.org/msg, github.com/ros/
roscpp_core: roscpp_serialization). CDR of ROS 2 begins with four bytes that tell its kind and byte order;
numbers are aligned to their size, counted from behind these four; texts end in a zero that their length
counts (OMG DDSI-RTPS 2.3, section 10.5, formal/2002-06-51, section 15.3; github.com/eProsima/Fast-CDR). An
empty array is not aligned. The later XCDR2 aligns differently and is refused by its number; so are parameter
lists. What a wstring's characters take differs between vendors, so types with one are not read.

Vendors pad a message to a multiple of four, hence up to three bytes are left over in CDR; more of them mean
that the definition is not that of the message. In ROS 1 a type is bound to its definition by a checksum and
readers ignore bytes behind a message, which librealsense writes.

Where the fields lie depends on the lengths alone. So a message is walked once, and messages that have the
same lengths in the same places are cut along the same lines, thousands at a time.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

import numpy as np

from ..schemas import Array
from ._messages import BULK_BYTES, Counts, Leaf, UndecodableError, Values, is_vector, together, unit_of
from ._ros_definitions import DefinitionError, Many, Node, Scalar, Struct

_MAX_SPANS = 1 << 16
_KEPT_LAYOUTS = 64
_KEPT_SPANS = 1_024
_PADDING = 3
_GATHERED = 8_192
_SPREAD = 32

_CDR_ORDER: dict[bytes, Literal["<", ">"]] = {b"\0\0": ">", b"\0\1": "<"}
_CDR_KINDS = {2: "parameter-list CDR", 3: "parameter-list CDR", **dict.fromkeys(range(6, 18), "XCDR2")}


class _Op(NamedTuple):
    """One step of a walk."""

    kind: Literal["numbers", "text", "each"]
    leaf: int = -1
    align: int = 1
    width: int = 1
    """Bytes of a unit; `count` units make an item."""
    length: int | None = 1
    """Items; None if the number stands in front."""
    inner: tuple[_Op, ...] = ()


@dataclass(frozen=True, slots=True)
class _Layout:
    """Where the leaves lie in messages of one size with the same lengths."""

    order: Literal["<", ">"]
    checks: Array
    told: bytes
    spans: Mapping[int, Sequence[tuple[int, int]]]
    """Of each leaf: where its runs of bytes begin and how long they are."""
    end: int
    reach: int
    """Bytes from the front with all that is looked at while a recording is indexed."""


@dataclass(slots=True)
class _Compiler:
    cdr: bool
    leaves: list[Leaf] = field(default_factory=list)
    kinds: list[str] = field(default_factory=list)

    def struct(self, node: Struct, path: str, shape: tuple[int, ...] | None) -> tuple[_Op, ...]:
        ops: list[_Op] = []
        for name, inner in node.fields:
            where = f"{path}.{name}" if path else name
            ops += self.node(inner, where, shape, unit_of(node.name, name))
        return tuple(ops)

    def node(self, node: Node, path: str, shape: tuple[int, ...] | None, unit: str) -> tuple[_Op, ...]:
        length: int | None = 1
        item, nested = node, False
        if isinstance(node, Many):
            length, item = node.length, node.item
            nested = shape is None and length is None
            shape = None if shape is None or length is None else (*shape, length)
        vector = _vector(item)
        if isinstance(item, Scalar) or vector:
            kind, axes = vector or (item.kind if isinstance(item, Scalar) else "", ())
            return (self._run(kind, path, shape, length, unit, axes, nested=nested),)
        if not isinstance(node, Many):
            return self.struct(item, path, shape) if isinstance(item, Struct) else ()
        return (_Op("each", length=length, inner=self.node(item, f"{path}[]", shape, unit)),)

    def _run(
        self, kind: str, path: str, shape: tuple[int, ...] | None, length: int | None, unit: str,
        axes: tuple[str, ...] = (), *, nested: bool = False,
    ) -> _Op:  # fmt: skip
        if kind == "wstring":
            raise DefinitionError(f"the field {path} is a wstring, which vendors write differently")
        number = len(self.leaves)
        self.kinds.append(kind)
        if axes and shape is not None:
            shape = (*shape, len(axes))
        if kind == "string":
            self.leaves.append(Leaf(path, "text", "", shape, nested=nested))
            return _Op("text", number, 4 if self.cdr else 1, length=length)
        stamp = kind.startswith("time")
        dtype = np.dtype("int64" if stamp else kind)
        form: Literal["time", "number"] = "time" if stamp else "number"
        self.leaves.append(Leaf(path, form, dtype.name, shape, axes, "ns" if stamp else unit, nested))
        align = (4 if stamp else dtype.itemsize) if self.cdr else 1
        return _Op("numbers", number, align, dtype.itemsize * max(1, len(axes)), length)


def _vector(node: Node) -> tuple[str, tuple[str, ...]] | None:
    """Return the type and the names of a vector's parts, if a node is one."""
    if not isinstance(node, Struct) or not is_vector([name for name, _ in node.fields]):
        return None
    kinds = {inner.kind if isinstance(inner, Scalar) else "" for _, inner in node.fields}
    kind = kinds.pop()
    plain = not kinds and kind[:3] in {"flo", "int", "uin"}
    return (kind, tuple(name for name, _ in node.fields)) if plain else None


class _Walk:
    """Finds where the leaves of one message lie."""

    def __init__(self, data: bytes, start: int, size: int, *, cdr: bool) -> None:
        self.data, self.base, self.end = data, start, size
        self.at, self.count = 0, 0
        self.origin = 4 if cdr else 0
        self.cdr = cdr
        self.order: Literal["<", ">"] = "<"
        self.checks: list[int] = []
        self.spans: dict[int, list[tuple[int, int]]] = {}
        if cdr:
            self._head()

    def _head(self) -> None:
        head = bytes(self.data[self.base : self.base + 2])
        order = _CDR_ORDER.get(head)
        if self.end < 4 or order is None:
            told = _CDR_KINDS.get(int.from_bytes(head, "big"), "no CDR")
            raise UndecodableError(f"it begins with {head.hex()}: {told}, not the plain CDR that is read")
        self.order = order
        self.checks.append(0)
        self.at = 4

    def run(self, ops: Sequence[_Op]) -> None:
        for op in ops:
            length = op.length if op.length is not None else self._length()
            if op.kind == "numbers":
                self._take(op.leaf, op.align, op.width * length)
                continue
            self._count(length)
            if op.kind == "text":
                self.spans.setdefault(op.leaf, [])
                for _ in range(length):
                    self._take(op.leaf, 1, self._length())
            else:
                for _ in range(length if op.inner else 0):
                    self.run(op.inner)

    def _count(self, items: int) -> None:
        self.count += items
        if self.count > _MAX_SPANS:
            raise UndecodableError(f"at byte {self.at}, it has {self.count:,} separate fields or more")

    def _length(self) -> int:
        if self.cdr:
            self.at += -self.at % 4
        if self.at + 4 > self.end:
            raise UndecodableError(f"it ends at byte {self.end}, before a length")
        self.checks.append(self.at)
        place = self.base + self.at
        self.at += 4
        return int.from_bytes(self.data[place : place + 4], "little" if self.order == "<" else "big")

    def _take(self, leaf: int, align: int, size: int) -> None:
        spans = self.spans.setdefault(leaf, [])
        if not size:
            # An empty text is a value; in an empty array there is none.
            if align == 1:
                spans.append((self.at, 0))
            return
        at = self.at + (-(self.at - self.origin) % align)
        if at + size > self.end:
            raise UndecodableError(
                f"at byte {at}, a field takes {size:,} bytes; the message has {self.end:,}"
            )
        spans.append((at, size))
        self.at = at + size


class RosDecoder:
    """Decodes the messages of one type of ROS.

    Parameters
    ----------
    cdr
        Whether they are written as in ROS 2.
    """

    def __init__(self, struct: Struct, *, cdr: bool) -> None:
        compiler = _Compiler(cdr)
        self._ops = compiler.struct(struct, "", ())
        self._leaves, self._kinds, self._cdr = compiler.leaves, compiler.kinds, cdr
        self._number = {leaf.path: i for i, leaf in enumerate(self._leaves)}
        self._layouts: dict[int, list[_Layout]] = {}
        self._kept = 0
        self.spare = 0

    @property
    def leaves(self) -> Mapping[str, Leaf]:
        """The leaves by path."""
        return {leaf.path: leaf for leaf in self._leaves}

    def batch(self, data: bytes, starts: Counts, sizes: Counts) -> Mapping[str, Values]:
        """Return what the messages at ``starts`` in ``data`` hold."""
        groups = [
            _Group(layout, which, data, starts[which], size)
            for size in np.unique(sizes)
            for layout, which in self._sorted(data, starts, int(size), np.flatnonzero(sizes == size))
        ]
        return {leaf.path: self._values(i, groups, len(starts)) for i, leaf in enumerate(self._leaves)}

    def reach(self, data: bytes, start: int, size: int) -> int:
        """Return how many bytes of a message, from its front, `batch` looks at: all, if that is not known."""
        reach = 0
        for layout in self._layouts.get(size, ()):  # in the order in which `batch` compares them
            reach = max(reach, layout.reach)
            if _told(data, layout.checks + start) == layout.told:
                return reach
        return size

    def pick(self, payload: bytes, path: str) -> Array | list[str]:
        """Return the values of one leaf of one message; numbers as a view."""
        layout = next(
            (one for one in self._layouts.get(len(payload), ()) if _told(payload, one.checks) == one.told),
            None,
        )
        layout = layout or self._walk(payload, 0, len(payload))
        leaf = self._number[path]
        spans = layout.spans.get(leaf, ())
        if self._kinds[leaf] == "string":
            return [_text(bytes(payload[at : at + size]), zero=self._cdr) for at, size in spans]
        if len(spans) == 1:
            whole = np.frombuffer(payload, np.uint8, spans[0][1], spans[0][0])
        else:
            parts = [np.frombuffer(payload, np.uint8, size, at) for at, size in spans]
            whole = np.concatenate(parts) if parts else np.empty(0, np.uint8)
        return self._numbers(leaf, whole, layout.order)

    def _sorted(
        self, data: bytes, starts: Counts, size: int, which: Counts
    ) -> Iterator[tuple[_Layout, Counts]]:
        """Yield layouts of the messages of one size, and which have them."""
        raw = np.frombuffer(data, np.uint8)
        known = list(self._layouts.get(size, ()))
        tried = 0
        while len(which):
            fresh = tried >= len(known)
            layout = self._walk(data, int(starts[which[0]]), size) if fresh else known[tried]
            tried += 1
            if tried > _SPREAD and len(which) > 1 and fresh:
                # Lengths differ from message to message: comparing them to one another is in vain.
                yield layout, which[:1]
                self.spare += layout.end < size
                which = which[1:]
                continue
            found = raw[starts[which][:, None] + layout.checks]
            same = (found == np.frombuffer(layout.told, np.uint8)).all(axis=1)
            if same.any():
                self.spare += int(same.sum()) if layout.end < size else 0
                yield layout, which[same]
                which = which[~same]

    def _walk(self, data: bytes, start: int, size: int) -> _Layout:
        walk = _Walk(data, start, size, cdr=self._cdr)
        walk.run(self._ops)
        if self._cdr and size - walk.at > _PADDING:
            raise UndecodableError(f"its definition tells {walk.at:,} bytes; the message has {size:,}")
        checks = (np.array(walk.checks, np.int64)[:, None] + np.arange(4)).reshape(-1)
        told = _told(data, checks + start)
        reach = size if size <= _GATHERED else max(self._ends(walk), default=0)
        layout = _Layout(walk.order, checks, told, walk.spans, size if self._cdr else walk.at, reach)
        if self._kept < _KEPT_LAYOUTS and walk.count <= _KEPT_SPANS:
            self._kept += 1
            self._layouts.setdefault(size, []).append(layout)
        return layout

    def _ends(self, walk: _Walk) -> Iterator[int]:
        """Yield where that ends which `batch` looks at in a message: lengths, texts and short runs."""
        yield from (at + 4 for at in walk.checks)
        for leaf, spans in walk.spans.items():
            if self._kinds[leaf] == "string" or sum(size for _, size in spans) <= BULK_BYTES:
                yield from (at + size for at, size in spans)

    def _values(self, leaf: int, groups: Sequence[_Group], length: int) -> Values:
        if self._kinds[leaf] == "string":
            return self._texts(leaf, groups, length)
        if any(sum(size for _, size in group.layout.spans.get(leaf, ())) > BULK_BYTES for group in groups):
            counts = np.zeros(length, np.int64)
            for group in groups:
                size = sum(size for _, size in group.layout.spans.get(leaf, ()))
                counts[group.which] = size // np.dtype(self._leaves[leaf].dtype).itemsize
            return Values(counts, None)
        parts = []
        for group in groups:
            rows = group.bytes_of(group.layout.spans.get(leaf, ()))
            parts.append((group.which, self._numbers(leaf, rows, group.layout.order)))
        return together(parts, length)

    def _numbers(self, leaf: int, raw: Array, order: Literal["<", ">"]) -> Array:
        """Return bytes (..., n) as the numbers that they are."""
        kind = self._kinds[leaf]
        if kind.startswith("time"):
            first, second = (np.dtype(part).newbyteorder(order) for part in kind.split("_")[1:])
            pairs = raw.reshape(*raw.shape[:-1], -1, 8)
            seconds = np.ascontiguousarray(pairs[..., :4]).view(first)[..., 0].astype(np.int64)
            stamps: Array = (
                seconds * 1_000_000_000 + np.ascontiguousarray(pairs[..., 4:]).view(second)[..., 0]
            )
            return stamps
        if kind == "bool":
            return np.asarray(raw != 0)
        dtype = np.dtype(kind)
        values = np.ascontiguousarray(raw).view(dtype.newbyteorder(order))
        return values if order == "<" else values.astype(dtype)

    def _texts(self, leaf: int, groups: Sequence[_Group], length: int) -> Values:
        counts = np.zeros(length, np.int64)
        found: list[Sequence[str]] = [()] * length
        for group in groups:
            spans = group.layout.spans.get(leaf, ())
            counts[group.which] = len(spans)
            for which, texts in group.texts(spans, zero=self._cdr):
                for message in which:
                    found[message] = texts
        return Values(counts, [text for texts in found for text in texts])


@dataclass(slots=True)
class _Group:
    """Messages of a batch that have the same layout."""

    layout: _Layout
    which: Counts
    data: bytes
    starts: Counts
    size: int
    _rows: Array | None = None

    def bytes_of(self, spans: Sequence[tuple[int, int]]) -> Array:
        """Return (messages, bytes) uint8: the runs of bytes one after the other."""
        total = sum(size for _, size in spans)
        if not total:
            return np.empty((len(self.which), 0), np.uint8)
        first, last = spans[0][0], spans[-1][0] + spans[-1][1]
        if self.size > _GATHERED:
            places = np.concatenate([np.arange(at, at + size) for at, size in spans])
            return np.asarray(np.frombuffer(self.data, np.uint8)[self.starts[:, None] + places])
        if self._rows is None:
            self._rows = np.frombuffer(self.data, np.uint8)[self.starts[:, None] + np.arange(self.size)]
        if last - first == total:
            return np.asarray(self._rows[:, first:last])
        return np.concatenate([self._rows[:, at : at + size] for at, size in spans], axis=1)

    def texts(self, spans: Sequence[tuple[int, int]], *, zero: bool) -> Iterator[tuple[Any, list[str]]]:
        """Yield which messages have which texts."""
        total = sum(size for _, size in spans)
        if len(self.which) > 1 and total <= BULK_BYTES:
            rows = self.bytes_of(spans)
            if (rows == rows[0]).all():
                yield self.which, [self._at(0, span, zero=zero) for span in spans]
                return
        for i, message in enumerate(self.which):
            yield (message,), [self._at(i, span, zero=zero) for span in spans]

    def _at(self, i: int, span: tuple[int, int], *, zero: bool) -> str:
        at = int(self.starts[i]) + span[0]
        return _text(bytes(self.data[at : at + span[1]]), zero=zero)


def _text(raw: bytes, *, zero: bool) -> str:
    return (raw[:-1] if zero and raw.endswith(b"\0") else raw).decode("utf-8", "backslashreplace")


def _told(data: bytes, checks: Array) -> bytes:
    found: bytes = np.frombuffer(data, np.uint8)[checks].tobytes()
    return found
